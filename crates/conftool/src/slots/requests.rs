//! What is asked of etcd about slots, one function a question. Each may be put twice: what a frozen member does later changes
//! nothing, because every transaction says what it expects.

use std::time::{Duration, Instant};

use etcd_client::{
    Compare, CompareOp, Error, EventType, GetOptions, GetResponse, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
    WatchFilterType, WatchOptions,
};
use restart_core::{Fqdn, StoreError};
use tokio::time::timeout;

use super::life::Life;
use super::line::{Entry, Line, Out};
use super::ring::Ring;
use crate::keys::Keys;
use crate::limits::{CONNECT, Deadline};
use crate::member::Trouble;
use crate::v3::error::is_lease_gone;
use crate::v3::remove;

/// The keys of one queue.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    name: String,
    slots: String,
    out: String,
}

impl Queue {
    /// The queue of this name. It is one level of a key, so that nobody's name leads to another's entries.
    pub(crate) fn new(keys: &Keys, name: &str) -> Result<Self, StoreError> {
        if name.is_empty() || name.chars().any(|c| c == '/' || c.is_control()) {
            return Err(StoreError::Refused(format!("'{}' cannot name slots in etcd", name.escape_default())));
        }
        Ok(Self { name: name.to_owned(), slots: keys.slots(name), out: keys.out(name) })
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn entry(&self, lease: i64) -> String {
        format!("{}{lease:x}", self.slots)
    }

    /// The key of the note that a host is out.
    pub(crate) fn out(&self, host: &Fqdn) -> String {
        format!("{}{host}", self.out)
    }

    /// What removing that note is; completes "cannot ...".
    pub(crate) fn taking_back(&self, host: &Fqdn) -> String {
        format!("note that '{host}' no longer takes a slot of '{}'", self.name)
    }
}

/// The queue as it is at one revision.
pub(super) struct View {
    /// The revision.
    pub(super) revision: i64,
    /// Who stands in it.
    pub(super) line: Line,
}

/// Gets a lease of `seconds`, or of what etcd makes of that. One whose answer is lost ends by itself.
pub(super) async fn grant(ring: &Ring, seconds: i64, deadline: Deadline) -> Result<(i64, Life), StoreError> {
    ring.ask("get a lease", deadline, |mut client| async move {
        let asked = Instant::now();
        let lease = client.lease_grant(seconds, None).await?;
        let time_to_live = Duration::from_secs(u64::try_from(lease.ttl()).unwrap_or_default());
        Ok((lease.id(), Life::begin(time_to_live, asked)))
    })
    .await
}

/// Puts an entry at the end of the queue, once, and looks.
pub(super) async fn enter(
    ring: &Ring,
    queue: &Queue,
    lease: i64,
    ticket: &str,
    deadline: Deadline,
) -> Result<View, StoreError> {
    let what = format!("queue for a slot of '{}'", queue.name);
    let key = queue.entry(lease);
    let put = TxnOp::put(key.as_str(), ticket, Some(PutOptions::new().with_lease(lease)));
    let txn = Txn::new()
        .when([Compare::version(key, CompareOp::Equal, 0)])
        .and_then([vec![put], look_at(queue)].concat())
        .or_else(look_at(queue));
    read(ring, &what, txn, deadline).await
}

/// Looks at the queue, through the quorum.
pub(super) async fn view(ring: &Ring, queue: &Queue, deadline: Deadline) -> Result<View, StoreError> {
    let what = format!("look at the slots of '{}'", queue.name);
    read(ring, &what, Txn::new().and_then(look_at(queue)), deadline).await
}

fn look_at(queue: &Queue) -> Vec<TxnOp> {
    let all = || Some(GetOptions::new().with_prefix());
    vec![TxnOp::get(queue.slots.as_str(), all()), TxnOp::get(queue.out.as_str(), all())]
}

async fn read(ring: &Ring, what: &str, txn: Txn, deadline: Deadline) -> Result<View, StoreError> {
    ring.ask(what, deadline, |mut client| {
        let txn = txn.clone();
        async move {
            match client.txn(txn).await {
                Ok(answer) => seen(&answer),
                // Not a refusal: etcd took so long that the lease ended on the way into the queue.
                Err(error) if is_lease_gone(&error) => Err(Error::WatchError("the lease has ended".to_owned())),
                Err(error) => Err(error),
            }
        }
    })
    .await
}

/// The view in an answer to [`look_at`].
fn seen(answer: &TxnResponse) -> Result<View, Error> {
    let mut read = answer.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(answer) => Some(answer),
        _ => None,
    });
    let (Some(header), Some(slots), Some(out)) = (answer.header(), read.next(), read.next()) else {
        return Err(Error::WatchError("its answer is not to the question".to_owned()));
    };
    Ok(View { revision: header.revision(), line: Line { entries: entries(&slots), out: hosts(&out) } })
}

fn entries(answer: &GetResponse) -> Vec<Entry> {
    let entry = |kv: &etcd_client::KeyValue| Entry {
        lease: kv.lease(),
        created: kv.create_revision(),
        ticket: serde_json::from_slice(kv.value()).ok(),
    };
    answer.kvs().iter().map(entry).collect()
}

fn hosts(answer: &GetResponse) -> Vec<Out> {
    let out = |kv: &etcd_client::KeyValue| {
        let key = String::from_utf8_lossy(kv.key());
        let host = key.rsplit('/').next().unwrap_or_default().to_owned();
        Out { host, note: serde_json::from_slice(kv.value()).ok() }
    };
    answer.kvs().iter().map(out).collect()
}

/// Waits until somebody leaves the queue, or a host that is out comes back, after `revision`; for `time` at most. Also ends, a
/// little early or without need, when the watch does: the caller looks again.
pub(super) async fn wait_for_change(ring: &Ring, queue: &Queue, revision: i64, time: Duration) -> Result<(), Trouble> {
    let departures = || {
        Some(WatchOptions::new().with_prefix().with_start_revision(revision + 1).with_filters([WatchFilterType::NoPut]))
    };
    ring.ask_first(CONNECT + time, |mut client| async move {
        let watch = async {
            let mut stream = client.watch(queue.slots.as_str(), departures()).await?;
            stream.watch(queue.out.as_str(), departures()).await?;
            while let Some(answer) = stream.message().await? {
                if answer.canceled() || answer.events().iter().any(|event| event.event_type() == EventType::Delete) {
                    break;
                }
            }
            Ok(())
        };
        timeout(time, watch).await.unwrap_or(Ok(()))
    })
    .await
}

/// Keeps a lease alive; false: etcd does not know it.
pub(super) async fn keep_alive(ring: &Ring, lease: i64, limit: Duration) -> Result<bool, Trouble> {
    ring.ask_first(limit, |mut client| async move {
        match client.lease_keep_alive(lease).await {
            Ok(_) => Ok(true),
            Err(error) if is_lease_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Ends a lease, and with it the entry that it keeps.
pub(super) async fn revoke(ring: &Ring, lease: i64, deadline: Deadline) -> Result<(), StoreError> {
    ring.ask("end the lease of the slot", deadline, |mut client| async move {
        match client.lease_revoke(lease).await {
            Err(error) if !is_lease_gone(&error) => Err(error),
            _ => Ok(()),
        }
    })
    .await
}

/// Notes that a host is out, if and only if the entry of `lease` still stands in the queue; false: it does not.
pub(super) async fn note_out(
    ring: &Ring,
    queue: &Queue,
    lease: i64,
    host: &Fqdn,
    note: &str,
    deadline: Deadline,
) -> Result<bool, StoreError> {
    let what = format!("note that '{host}' takes a slot of '{}'", queue.name);
    let txn = Txn::new().when([Compare::version(queue.entry(lease), CompareOp::Greater, 0)]).and_then([TxnOp::put(
        queue.out(host),
        note,
        None,
    )]);
    ring.ask(&what, deadline, |mut client| {
        let txn = txn.clone();
        async move { Ok(client.txn(txn).await?.succeeded()) }
    })
    .await
}

/// Removes the note that a host is out, if there is one.
pub(super) async fn note_back(ring: &Ring, queue: &Queue, host: &Fqdn, deadline: Deadline) -> Result<(), StoreError> {
    let key = queue.out(host);
    ring.ask(&queue.taking_back(host), deadline, |client| remove(client, key.clone())).await
}
