//! Writes, and what became of one whose answer was lost. Such a write may have been made, may be made later by a member that
//! was frozen with it, or may never be. Repeating it in blind faith is what the original does, and its second attempt then
//! fails on its own first one, with the host left depooled. Here the store is read again:
//!
//! - The object is unchanged: the same compare-and-swap is made again, which is safe, since only one of the two can find the
//!   revision that it expects.
//! - It has changed, and its mark (`mark.rs`) is that of our write: it was made, at the revision of the mark.
//! - It has changed, and its mark is older than the revision that we had read: nobody of us wrote since.
//! - Else the store's history tells what came first after the revision that we had read. If that is exactly our value, with
//!   our mark where marks are used, it was our write, whatever came later; if not, ours can never be made any more.
//!
//! A member that says that it has no room has an answer of its own to that: it says so of a write that it did not make, and of
//! the one that filled it, which is made. Nothing is under way any more, so that one look tells.
//!
//! All this is known from the write alone, so that another process can ask, long after the one that wrote has died.

use restart_core::{StoreError, Write, WriteError};

use crate::cluster::Cluster;
use crate::limits::Deadline;
use crate::mark::Mark;
use crate::member::{Attempt, Change, Kind, Marks, Swap};
use crate::walk::Failures;

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
pub(crate) fn make(cluster: &mut Cluster, write: &Write, mark: &Mark, deadline: Deadline) -> Result<u64, WriteError> {
    let swap = Attempt { key: &write.key, revision: write.found.revision, value: &write.value, mark };
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
        let mut is_full = false;
        match member.swap(&swap, limit) {
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
                is_full = kind == Kind::NoRoom;
            }
        }
        if in_doubt || is_full {
            match settle(cluster, write, mark, deadline).map_err(WriteError::Unknown)? {
                Judgement::Ours { revision, .. } => return Ok(revision),
                Judgement::Theirs => return Err(WriteError::Conflict),
                Judgement::Forgotten => return Err(WriteError::Unknown(StoreError::Unreachable(forgotten(write)))),
                Judgement::Unchanged => {}
            }
        }
        let is_worth_another_round = in_doubt || failures.awaits_leader(deadline);
        if asked % cluster.len() == 0 && !(is_worth_another_round && deadline.pause()) {
            return Err(unmade(in_doubt, failures.into_error(&attempt(write))));
        }
    }
}

/// Finds out what became of the write, asking until the time is over.
fn settle(cluster: &mut Cluster, write: &Write, mark: &Mark, deadline: Deadline) -> Result<Judgement, StoreError> {
    loop {
        match judge(cluster, write, mark, deadline) {
            Err(StoreError::Unreachable(_)) if deadline.pause() => {}
            judged => return judged,
        }
    }
}

/// Finds out what became of the write, asking each member once.
pub(crate) fn judge(
    cluster: &mut Cluster,
    write: &Write,
    mark: &Mark,
    deadline: Deadline,
) -> Result<Judgement, StoreError> {
    let what = format!("find out about the write of '{}'", write.key);
    let found = write.found.revision;
    let now = cluster.ask(&what, deadline, |member, limit| member.trace(&write.key, &mark.key, limit))?;
    if now.revision == Some(found) {
        return Ok(Judgement::Unchanged);
    }
    let ours = |revision| Judgement::Ours { revision, is_last: now.revision == Some(revision) };
    match &now.mark {
        Marks::Used(Some(seen)) if mark.is_in(seen) => return Ok(ours(seen.revision)),
        Marks::Used(Some(seen)) if seen.revision <= found => return Ok(Judgement::Theirs),
        Marks::Used(_) | Marks::Unused => {}
    }
    let marks = (now.mark != Marks::Unused).then_some(mark.key.as_str());
    let change = cluster.ask(&what, deadline, |member, limit| member.first_change(&write.key, marks, found, limit))?;
    Ok(match change {
        Change::Written { value, revision, mark: seen } if value == write.value.as_bytes() => {
            let is_marked = seen.is_some_and(|seen| seen.revision == revision && mark.is_in(&seen));
            if marks.is_none() || is_marked { ours(revision) } else { Judgement::Theirs }
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use restart_core::{Fqdn, Node, PoolPath, Pooled, Tag};

    use super::*;
    use crate::keys::Keys;
    use crate::limits::REQUEST;
    use crate::member::{Change, Member, Object, Trace, Trouble};

    const FOUND: u64 = 7;

    /// A member of an etcd that is full. The write that filled it was made, and is answered as the others are.
    struct Full {
        url: &'static str,
        /// The revision and mark of the object, which the members share.
        object: Rc<RefCell<(u64, Option<String>)>>,
        has_room_for_one: bool,
        looks: Rc<RefCell<usize>>,
    }

    impl Member for Full {
        fn url(&self) -> &str {
            self.url
        }

        fn list(&mut self, _: &str, _: Duration) -> Result<Vec<Object>, Trouble> {
            Ok(Vec::new())
        }

        fn list_all(&mut self, _: &str, _: Duration) -> Result<Vec<Object>, Trouble> {
            Ok(Vec::new())
        }

        fn get(&mut self, _: &str, _: Duration) -> Result<Option<Object>, Trouble> {
            Ok(None)
        }

        fn trace(&mut self, _: &str, mark: &str, _: Duration) -> Result<Trace, Trouble> {
            *self.looks.borrow_mut() += 1;
            let (revision, seen) = self.object.borrow().clone();
            let seen = seen.map(|value| Object { key: mark.to_owned(), value: value.into_bytes(), revision });
            Ok(Trace { revision: Some(revision), mark: Marks::Used(seen) })
        }

        fn swap(&mut self, attempt: &Attempt<'_>, _: Duration) -> Result<Swap, Trouble> {
            let mut object = self.object.borrow_mut();
            if object.0 == attempt.revision && self.has_room_for_one {
                *object = (FOUND + 1, Some(attempt.mark.value.clone()));
            }
            Err(Trouble::new(Kind::NoRoom, "database space exceeded"))
        }

        fn first_change(&mut self, _: &str, _: Option<&str>, _: u64, _: Duration) -> Result<Change, Trouble> {
            Ok(Change::Forgotten)
        }

        fn remove(&mut self, _: &str, _: Duration) -> Result<(), Trouble> {
            Ok(())
        }
    }

    /// What a write to two such members comes to, and how often was looked.
    fn write_to_a_full_etcd(has_room_for_one: bool) -> (Result<u64, WriteError>, usize) {
        let tag = |name: &str| Tag::new(name).unwrap();
        let path = PoolPath { data_centre: tag("lab"), cluster: tag("appserver"), service: tag("php") };
        let id = path.node(&Fqdn::new("mw1.example").unwrap());
        let found = Node { id, pooled: Pooled::Yes, value: String::new(), revision: FOUND };
        let write =
            Write { run: "r".to_owned(), found, pooled: Pooled::No, key: "/k".to_owned(), value: "new".to_owned() };
        let (object, looks) = (Rc::new(RefCell::new((FOUND, None))), Rc::new(RefCell::new(0)));
        let members = ["a", "b"].map(|url| {
            let (object, looks) = (Rc::clone(&object), Rc::clone(&looks));
            Box::new(Full { url, object, has_room_for_one, looks }) as Box<dyn Member>
        });
        let mark = Mark::new(&Keys::new("/conftool", "v1", "pools").unwrap(), &write);
        let made = make(&mut Cluster::new(members.into()), &write, &mark, Deadline::begin(REQUEST));
        let looks = *looks.borrow();
        (made, looks)
    }

    #[test]
    fn a_write_that_a_full_etcd_refused_is_not_made_if_a_look_says_so() {
        let (made, looks) = write_to_a_full_etcd(false);
        let text = "cannot set '/k' to pooled=no: etcd 'a': database space exceeded; etcd 'b': database space exceeded";
        assert_eq!(made, Err(WriteError::NotMade(StoreError::Unreachable(text.to_owned()))));
        assert_eq!(looks, 2, "one after each refusal");
    }

    #[test]
    fn the_write_that_filled_etcd_is_made_whatever_it_says() {
        assert_eq!(write_to_a_full_etcd(true), (Ok(FOUND + 1), 1));
    }
}
