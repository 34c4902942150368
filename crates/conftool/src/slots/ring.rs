//! The members of the store for several tasks at once. As in `cluster.rs`, whoever answered last is asked first, and one that
//! gives no answer is passed over.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, Error};
use restart_core::StoreError;

use crate::cluster::Failures;
use crate::limits::Deadline;
use crate::member::{Kind, Trouble};
use crate::v3::Connection;

/// All members.
pub(crate) struct Ring {
    members: Arc<Vec<Connection>>,
    first: AtomicUsize,
}

impl Ring {
    /// Members in the order in which they are to be tried.
    pub(crate) fn new(members: Vec<Connection>) -> Self {
        Self { members: Arc::new(members), first: AtomicUsize::new(0) }
    }

    /// The same members over the same connections, and an order of its own from here on. For a task that has to find a member
    /// that answers before a time is over: what others pass over in a hurry must not lead it back to one that is frozen.
    pub(super) fn fork(&self) -> Self {
        Self { members: Arc::clone(&self.members), first: AtomicUsize::new(self.first.load(Ordering::Relaxed)) }
    }

    /// Puts a question that may be asked twice to member after member, until one answers. `what` completes "cannot ...".
    pub(super) async fn ask<T, F>(
        &self,
        what: &str,
        deadline: Deadline,
        mut question: impl FnMut(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut failures = Failures::default();
        for asked in 0..self.members.len() * 2 {
            if asked == self.members.len() && !failures.is_worth_another_round() {
                break;
            }
            let Some(limit) = deadline.next_request() else {
                failures.out_of_time = Some(deadline.total());
                break;
            };
            let Some((place, member)) = self.first() else {
                break;
            };
            let answer = match member.request(limit, &mut question).await {
                // An idle connection that a restarted member has forgotten: the second attempt makes a new one.
                Err(trouble) if trouble.kind == Kind::Dropped => match deadline.next_request() {
                    Some(limit) => member.request(limit, &mut question).await,
                    None => Err(trouble),
                },
                other => other,
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(trouble) => {
                    let is_final = trouble.kind == Kind::Refused;
                    failures.add(member.url(), trouble);
                    if is_final {
                        break;
                    }
                }
            }
            self.pass_over(place);
        }
        Err(failures.into_error(what))
    }

    /// Asks one member alone, and passes it over if it does not answer.
    pub(super) async fn ask_first<T, F>(
        &self,
        limit: Duration,
        question: impl FnOnce(Client) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Some((place, member)) = self.first() else {
            return Err(Trouble::new(Kind::NotAsked, "there is no member"));
        };
        let answer = member.request(limit, question).await;
        if let Err(trouble) = &answer {
            log::debug!("etcd '{}': {}", member.url(), trouble.why);
            self.pass_over(place);
        }
        answer
    }

    fn first(&self) -> Option<(usize, &Connection)> {
        let place = self.first.load(Ordering::Relaxed);
        self.members.get(place).map(|member| (place, member))
    }

    /// Puts the one after `place` first, unless another task has moved on already.
    fn pass_over(&self, place: usize) {
        let next = (place + 1) % self.members.len().max(1);
        let _ = self.first.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}
