//! etcd's v3 API over gRPC, with the keys and values of v2. One client for each member: the library's own balancing sends a
//! third of first calls into a member that is dead, ours is in `cluster.rs`. The runtime is this crate's, and turns only while
//! a request is waited for.

mod connection;
pub(crate) mod error;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, EventType, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions,
};
use tokio::runtime::Runtime;

pub(crate) use self::connection::Connection;
use crate::member::{Attempt, Change, Kind, Marks, Member, Object, Swap, Trace, Trouble};

/// A member, through the v3 API.
pub(crate) struct V3 {
    runtime: Arc<Runtime>,
    connection: Connection,
    /// Whether this user of the store may write marks, as far as is known.
    may_mark: bool,
}

impl V3 {
    /// A member, asked by way of `connection`.
    pub(crate) fn new(runtime: Arc<Runtime>, connection: Connection) -> Self {
        Self { runtime, connection, may_mark: true }
    }

    fn call<T, F>(&self, limit: Duration, request: impl FnMut(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.runtime.block_on(self.connection.request(limit, request))
    }

    /// From here on without marks.
    fn no_more_marks(&mut self, mark: &str) {
        log::debug!("etcd '{}': this user may not write '{mark}': going on without", self.connection.url());
        self.may_mark = false;
    }
}

impl Member for V3 {
    fn url(&self) -> &str {
        self.connection.url()
    }

    fn list(&mut self, directory: &str, limit: Duration) -> Result<Vec<Object>, Trouble> {
        let mut objects = self.list_all(directory, limit)?;
        objects.retain(|object| object.key.rfind('/') == Some(directory.len()));
        Ok(objects)
    }

    fn list_all(&mut self, directory: &str, limit: Duration) -> Result<Vec<Object>, Trouble> {
        let prefix = format!("{directory}/");
        let range = prefix.as_str();
        let answer = self
            .call(limit, |mut client| async move { client.get(range, Some(GetOptions::new().with_prefix())).await })?;
        let below = answer.kvs().iter().filter_map(|kv| {
            let key = std::str::from_utf8(kv.key()).ok()?;
            let name = key.strip_prefix(range)?;
            (!name.is_empty()).then(|| object(kv, key))
        });
        Ok(below.collect())
    }

    fn get(&mut self, key: &str, limit: Duration) -> Result<Option<Object>, Trouble> {
        let answer = self.call(limit, |mut client| async move { client.get(key, None).await })?;
        Ok(answer.kvs().first().map(|kv| object(kv, key)))
    }

    fn trace(&mut self, key: &str, mark: &str, limit: Duration) -> Result<Trace, Trouble> {
        if self.may_mark {
            // It would delete the mark if the mark had been written a negative number of times. The point is that etcd refuses
            // it to those who may not write marks, whose writes have none. A delete and not a put: an etcd that is full refuses
            // puts to everybody (and an old one this as well: what became of a write is then found out when there is room).
            let txn = &Txn::new()
                .when([Compare::version(mark, CompareOp::Less, 0)])
                .and_then([TxnOp::delete(mark, None)])
                .or_else([TxnOp::get(key, None), TxnOp::get(mark, None)]);
            let read = self.call(limit, |mut client| async move {
                match client.txn(txn.clone()).await {
                    Err(error) if error::is_permission_denied(&error) => Ok(None),
                    answer => answer.map(Some),
                }
            })?;
            if let Some(answer) = read {
                let mut read = answer.op_responses().into_iter().filter_map(|response| match response {
                    TxnOpResponse::Get(answer) => Some(answer),
                    _ => None,
                });
                let (Some(now), Some(seen)) = (read.next(), read.next()) else {
                    return Err(Trouble::new(Kind::NoAnswer, "its answer is not to the question"));
                };
                return Ok(Trace {
                    revision: now.kvs().first().map(|kv| unsigned(kv.mod_revision())),
                    mark: Marks::Used(seen.kvs().first().map(|kv| object(kv, mark))),
                });
            }
            self.no_more_marks(mark);
        }
        let revision = self.get(key, limit)?.map(|object| object.revision);
        Ok(Trace { revision, mark: Marks::Unused })
    }

    fn swap(&mut self, attempt: &Attempt<'_>, limit: Duration) -> Result<Swap, Trouble> {
        let Attempt { key, revision, value, mark } = attempt;
        let Ok(revision) = i64::try_from(*revision) else {
            return Ok(Swap::Changed);
        };
        let unchanged = Txn::new().when([Compare::mod_revision(*key, CompareOp::Equal, revision)]);
        // Whoever gave the object a lease wants it to end with that. A put so told fails where there is no object: here there is.
        let write = TxnOp::put(*key, *value, Some(PutOptions::new().with_ignore_lease()));
        let unmarked = &unchanged.clone().and_then([write.clone()]);
        let marked = &unchanged.and_then([write, TxnOp::put(mark.key.as_str(), mark.value.as_str(), None)]);
        let may_mark = self.may_mark;
        let (answer, is_marked) = self.call(limit, |mut client| async move {
            if may_mark {
                match client.txn(marked.clone()).await {
                    Err(error) if error::is_permission_denied(&error) => {}
                    answer => return Ok((answer?, true)),
                }
            }
            Ok((client.txn(unmarked.clone()).await?, false))
        })?;
        if may_mark && !is_marked {
            self.no_more_marks(&mark.key);
        }
        match (answer.succeeded(), answer.header()) {
            (true, Some(header)) => Ok(Swap::Made(unsigned(header.revision()))),
            (true, None) => Err(Trouble::new(Kind::NoAnswer, "its answer to the write has no revision")),
            (false, _) => Ok(Swap::Changed),
        }
    }

    fn first_change(
        &mut self,
        key: &str,
        mark: Option<&str>,
        revision: u64,
        limit: Duration,
    ) -> Result<Change, Trouble> {
        let Ok(next) = i64::try_from(revision.saturating_add(1)) else {
            return Ok(Change::Forgotten);
        };
        self.call(limit, |mut client| async move {
            let mut stream = client.watch(key, Some(WatchOptions::new().with_start_revision(next))).await?;
            while let Some(answer) = stream.message().await? {
                if let Some(event) = answer.events().first() {
                    return match (event.event_type(), event.kv()) {
                        (EventType::Put, Some(kv)) => written(&mut client, kv, mark).await,
                        _ => Ok(Change::Deleted),
                    };
                }
                if answer.compact_revision() > 0 {
                    return Ok(Change::Forgotten);
                }
                if answer.canceled() {
                    return Err(Error::WatchError(answer.cancel_reason().to_owned()));
                }
            }
            Err(Error::WatchError("the watch ended".to_owned()))
        })
    }

    fn remove(&mut self, key: &str, limit: Duration) -> Result<(), Trouble> {
        self.call(limit, |client| remove(client, key.to_owned()))
    }
}

/// Removes what there is at a key. What a frozen member does later cannot remove what is newer.
pub(crate) async fn remove(mut client: Client, key: String) -> Result<(), Error> {
    let found = client.get(key.as_str(), None).await?;
    let Some(found) = found.kvs().first() else {
        return Ok(());
    };
    let txn = Txn::new()
        .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, found.mod_revision())])
        .and_then([TxnOp::delete(key, None)]);
    client.txn(txn).await.map(drop)
}

/// The change that wrote `kv`, with the mark as it was then.
async fn written(client: &mut Client, kv: &KeyValue, mark: Option<&str>) -> Result<Change, Error> {
    let then = GetOptions::new().with_revision(kv.mod_revision());
    let mark = match mark {
        None => None,
        Some(mark) => match client.get(mark, Some(then)).await {
            Ok(answer) => answer.kvs().first().map(|kv| object(kv, mark)),
            Err(error) if error::is_compacted(&error) => return Ok(Change::Forgotten),
            Err(error) => return Err(error),
        },
    };
    Ok(Change::Written { value: kv.value().to_vec(), revision: unsigned(kv.mod_revision()), mark })
}

fn object(kv: &KeyValue, key: &str) -> Object {
    Object { key: key.to_owned(), value: kv.value().to_vec(), revision: unsigned(kv.mod_revision()) }
}

/// etcd's revisions are signed on the wire, and never negative.
fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}
