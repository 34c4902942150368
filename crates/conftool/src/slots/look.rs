//! A look at all queues at once, by somebody who stands in none: who has which slot. Nothing is written.

use std::collections::BTreeMap;

use etcd_client::{GetOptions, GetResponse, Txn, TxnOp, TxnOpResponse};
use restart_core::StoreError;

use super::line::{Entry, Line, Out};
use super::ring::Ring;
use crate::keys::Keys;
use crate::limits::Deadline;

/// Those who have a slot, a clause each, by the name of the queue. A queue in which nobody stands does not exist.
pub(crate) async fn everybody(
    ring: &Ring,
    keys: &Keys,
    deadline: Deadline,
) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
    let all = |directory: String| TxnOp::get(directory, Some(GetOptions::new().with_prefix()));
    let (slots, out) = (keys.slots(""), keys.out(""));
    let txn = Txn::new().and_then([all(slots.clone()), all(out.clone())]);
    let answer = ring
        .ask("look at the slots", deadline, |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        })
        .await?;
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    let mut read = answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(answer) => Some(answer),
        _ => None,
    });
    for (queue, _, kv) in read.next().iter().flat_map(|answer| named(answer, &slots)) {
        let entry =
            Entry { lease: kv.lease(), created: kv.create_revision(), ticket: serde_json::from_slice(kv.value()).ok() };
        lines.entry(queue).or_default().entries.push(entry);
    }
    for (queue, host, kv) in read.next().iter().flat_map(|answer| named(answer, &out)) {
        lines.entry(queue).or_default().out.push(Out { host, note: serde_json::from_slice(kv.value()).ok() });
    }
    Ok(lines.into_iter().map(|(queue, line)| (queue, line.holders())).collect())
}

/// The keys right below a queue's directory: the queue, the last part of the key, and all of it. Others are none of ours.
fn named<'a>(
    answer: &'a GetResponse,
    directory: &'a str,
) -> impl Iterator<Item = (String, String, &'a etcd_client::KeyValue)> {
    answer.kvs().iter().filter_map(move |kv| {
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        let (queue, name) = key.strip_prefix(directory)?.split_once('/')?;
        (!name.contains('/')).then(|| (queue.to_owned(), name.to_owned(), kv))
    })
}
