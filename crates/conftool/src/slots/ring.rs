//! The members of the store for several tasks at once. As in `cluster.rs`, whoever answered last is asked first, and one that
//! gives no answer is passed over.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, Error};
use restart_core::StoreError;

use crate::limits::{Deadline, PAUSE};
use crate::member::{Kind, Trouble};
use crate::v3::Connection;
use crate::walk::{Next, Walk};

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
        let mut walk = Walk::begin(self.members.len(), deadline);
        while let (Some(limit), Some((place, member))) = (walk.next_request(), self.first()) {
            match member.request(limit, &mut question).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => match walk.note(member.url(), trouble) {
                    Next::AskAgain => {}
                    Next::PassOver => self.pass_over(place),
                    Next::PassOverLater => {
                        self.pass_over(place);
                        tokio::time::sleep(PAUSE).await;
                    }
                    Next::Stop => break,
                },
            }
        }
        Err(walk.into_error(what))
    }

    /// Asks one member alone, and passes it over if it does not answer.
    pub(super) async fn ask_first<T, F>(&self, limit: Duration, question: impl FnMut(Client) -> F) -> Result<T, Trouble>
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
