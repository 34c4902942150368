//! Writes, and what became of one whose answer was lost. Such a write may have been made, may be made later by a member that
//! was frozen with it, or may never be. Repeating it in blind faith is what the original does, and its second attempt then
//! fails on its own first one, with the host left depooled. Here the store is read again:
//!
//! - The object is unchanged: the same compare-and-swap is made again, which is safe, since only one of the two can find the
//!   revision that it expects.
//! - It has changed: the store's history tells what came first after the revision that we had read. If that is exactly our
//!   value it was our write, whatever came later; if not, ours can never be made any more.

use restart_core::{StoreError, Write, WriteError};

use crate::cluster::{Cluster, Failures};
use crate::limits::Deadline;
use crate::member::{Change, Kind, Swap};

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It was made, and got this revision.
    Ours {
        /// The revision.
        revision: u64,
        /// Whether it still is the last write.
        is_last: bool,
    },
    /// Nobody wrote yet.
    Unchanged,
    /// Somebody else wrote first: ours is not made, and cannot be any more.
    Theirs,
    /// Somebody wrote, and the history does not reach back to it.
    Forgotten,
}

/// Makes the write, however often the members have to be asked within the time; returns the object's new revision.
pub(crate) fn make(cluster: &mut Cluster, write: &Write, deadline: Deadline) -> Result<u64, WriteError> {
    let mut failures = Failures::default();
    let mut in_doubt = false;
    let mut asked = 0;
    loop {
        let Some(limit) = deadline.next_request() else {
            return Err(unmade(in_doubt, failures.into_error(&attempt(write))));
        };
        let Some(member) = cluster.first() else {
            return Err(unmade(in_doubt, failures.into_error(&attempt(write))));
        };
        asked += 1;
        match member.swap(&write.key, write.found.revision, &write.value, limit) {
            Ok(Swap::Made(revision)) => return Ok(revision),
            Ok(Swap::Changed) if !in_doubt => return Err(WriteError::Conflict),
            Ok(Swap::Changed) => {}
            Err(trouble) => {
                let kind = trouble.kind;
                failures.add(member.url(), trouble);
                if kind == Kind::Refused {
                    return Err(unmade(in_doubt, failures.into_error(&attempt(write))));
                }
                cluster.pass_over();
                in_doubt |= matches!(kind, Kind::NoAnswer | Kind::Dropped);
            }
        }
        if in_doubt {
            match settle(cluster, write, deadline).map_err(WriteError::Unknown)? {
                Judgement::Ours { revision, .. } => return Ok(revision),
                Judgement::Theirs => return Err(WriteError::Conflict),
                Judgement::Forgotten => return Err(WriteError::Unknown(StoreError::Unreachable(forgotten(write)))),
                Judgement::Unchanged => {}
            }
        }
        if asked % cluster.len() == 0 && !(in_doubt && deadline.pause()) {
            return Err(unmade(in_doubt, failures.into_error(&attempt(write))));
        }
    }
}

/// Finds out what became of the write, asking until the time is over.
fn settle(cluster: &mut Cluster, write: &Write, deadline: Deadline) -> Result<Judgement, StoreError> {
    loop {
        match judge(cluster, write, deadline) {
            Err(StoreError::Unreachable(_)) if deadline.pause() => {}
            judged => return judged,
        }
    }
}

/// Finds out what became of the write, asking each member once.
pub(crate) fn judge(cluster: &mut Cluster, write: &Write, deadline: Deadline) -> Result<Judgement, StoreError> {
    let what = format!("find out about the write of '{}'", write.key);
    let now = cluster.ask(&what, deadline, |member, limit| member.get(&write.key, limit))?;
    let last = now.as_ref().map(|object| object.revision);
    if last == Some(write.found.revision) {
        return Ok(Judgement::Unchanged);
    }
    let change =
        cluster.ask(&what, deadline, |member, limit| member.first_change(&write.key, write.found.revision, limit))?;
    Ok(match change {
        Change::Written { value, revision } if value == write.value.as_bytes() => {
            Judgement::Ours { revision, is_last: last == Some(revision) }
        }
        Change::Written { .. } | Change::Deleted => Judgement::Theirs,
        Change::Forgotten => Judgement::Forgotten,
    })
}

/// What cannot be told any more, for messages.
pub(crate) fn forgotten(write: &Write) -> String {
    format!("'{}' was changed, and the store no longer keeps the history that would tell by whom", write.key)
}

fn attempt(write: &Write) -> String {
    format!("set '{}' to pooled={}", write.key, write.pooled)
}

fn unmade(in_doubt: bool, error: StoreError) -> WriteError {
    if in_doubt { WriteError::Unknown(error) } else { WriteError::NotMade(error) }
}
