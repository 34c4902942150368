//! One run's claim to a slot, as the thread in the background pursues it: queue, wait for the turn, keep the lease alive. The
//! thread that asked reads what has become of it, and never waits for etcd to do so.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use restart_core::{SlotError, StoreError};
use tokio::time::{sleep, sleep_until};

use super::life::Life;
use super::line::Turn;
use super::requests::{self, Queue, View};
use super::ring::Ring;
use crate::limits::{Deadline, LOOK, PAUSE};

/// What is asked for.
pub(super) struct Wish {
    /// The queue.
    pub(super) queue: Queue,
    /// The entry's value.
    pub(super) ticket: String,
    /// The time to live to ask for, in seconds.
    pub(super) seconds: i64,
    /// How long one member may take for a request.
    pub(super) request: Duration,
}

/// What has become of it so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not in the queue yet.
    Outside,
    /// In the queue.
    Waiting,
    /// We have the slot, as long as the lease is alive.
    Granted,
    /// It came to nothing.
    Failed(SlotError),
}

/// A claim, shared by the thread that asked and the one that pursues it.
pub(super) struct Claim {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    standing: Standing,
    lease: Option<(i64, Life)>,
    holders: Vec<String>,
}

impl Claim {
    /// One that is not pursued yet.
    pub(super) fn new() -> Self {
        let state = State { standing: Standing::Outside, lease: None, holders: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The standing, once it is another than `old`, or after `time`.
    pub(super) fn wait_while(&self, old: &Standing, time: Duration) -> Standing {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, time, |state| state.standing == *old);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.standing.clone()
    }

    /// The lease, if there is one.
    pub(super) fn lease(&self) -> Option<i64> {
        self.state().lease.as_ref().map(|(lease, _)| *lease)
    }

    /// Whether the lease is alive now; the error says why not.
    pub(super) fn look(&self) -> Result<(), String> {
        match &mut self.state().lease {
            Some((_, life)) => life.look(Instant::now()),
            None => Err("there is none".to_owned()),
        }
    }

    /// The lease is known to be gone.
    pub(super) fn end(&self, why: &str) {
        if let Some((_, life)) = &mut self.state().lease {
            life.end(why);
        }
    }

    /// Who had a slot when the queue was last looked at.
    pub(super) fn holders(&self) -> Vec<String> {
        self.state().holders.clone()
    }

    /// No time may be lost with the lock: nothing is awaited, asked or logged under it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand(&self, standing: Standing) {
        self.state().standing = standing;
        self.changed.notify_all();
    }

    /// Does something with the life of `lease`, unless that is no longer the one.
    fn with_life<T>(&self, lease: i64, action: impl FnOnce(&mut Life) -> T) -> Option<T> {
        match &mut self.state().lease {
            Some((ours, life)) if *ours == lease => Some(action(life)),
            _ => None,
        }
    }

    fn is_alive(&self, lease: i64) -> bool {
        self.with_life(lease, |life| life.look(Instant::now()).is_ok()) == Some(true)
    }
}

/// Pursues a claim until it is granted, or comes to nothing. A place in the queue that was lost while etcd was away is not
/// worth an error: we queue again.
pub(super) async fn pursue(ring: Arc<Ring>, wish: Wish, claim: Arc<Claim>) {
    loop {
        let is_first = claim.lease().is_none();
        let (lease, view) = match queue_up(&ring, &wish, &claim, is_first).await {
            Ok(entered) => entered,
            Err(error) => return claim.stand(Standing::Failed(slot_error(error))),
        };
        tokio::spawn(stay_alive(ring.fork(), lease, Arc::clone(&claim)));
        match wait_for_turn(&ring, &wish, &claim, lease, view).await {
            Ok(true) => return claim.stand(Standing::Granted),
            Ok(false) => {}
            Err(error) => return claim.stand(Standing::Failed(slot_error(error))),
        }
        log::info!("the place in the queue '{}' was lost: queueing again", wish.queue.name());
        // Should etcd still know the old entry, it would stand before the new one.
        let _ = requests::revoke(&ring, lease, Deadline::within(wish.request, wish.request)).await;
    }
}

/// Gets a lease and enters the queue with it. The first time each member is asked once, later on until the time is over: who
/// has waited already can wait for etcd, too.
async fn queue_up(ring: &Ring, wish: &Wish, claim: &Claim, is_first: bool) -> Result<(i64, View), StoreError> {
    let deadline = Deadline::begin(wish.request);
    loop {
        match enter(ring, wish, claim, deadline).await {
            Err(StoreError::Unreachable(why)) if !is_first && deadline.next_request().is_some() => log::debug!("{why}"),
            result => return result,
        }
        sleep(PAUSE).await;
    }
}

async fn enter(ring: &Ring, wish: &Wish, claim: &Claim, deadline: Deadline) -> Result<(i64, View), StoreError> {
    let (lease, life) = requests::grant(ring, wish.seconds, deadline).await?;
    claim.state().lease = Some((lease, life));
    let view = requests::enter(ring, &wish.queue, lease, &wish.ticket, deadline).await?;
    Ok((lease, view))
}

/// Looks at the queue at every change; false: we are no longer in it.
async fn wait_for_turn(
    ring: &Ring,
    wish: &Wish,
    claim: &Claim,
    lease: i64,
    mut view: View,
) -> Result<bool, StoreError> {
    let limit = claim.with_life(lease, |life| life.request()).unwrap_or(wish.request).min(wish.request);
    loop {
        claim.state().holders = view.line.holders();
        match view.line.turn(lease) {
            Turn::Go => return Ok(claim.is_alive(lease)),
            Turn::Absent => return Ok(false),
            Turn::Wait => claim.stand(Standing::Waiting),
        }
        // What a watch fails with, the look that follows finds too.
        let mut is_seen = requests::wait_for_change(ring, &wish.queue, view.revision, LOOK).await.is_ok();
        view = loop {
            if !claim.is_alive(lease) {
                return Ok(false);
            }
            if !is_seen {
                sleep(PAUSE).await;
            }
            match requests::view(ring, &wish.queue, Deadline::begin(limit)).await {
                Ok(view) => break view,
                Err(StoreError::Unreachable(why)) => log::debug!("{why}"),
                Err(error) => return Err(error),
            }
            is_seen = false;
        };
    }
}

/// Keeps a lease alive until it is over, or another one has taken its place.
async fn stay_alive(ring: Ring, lease: i64, claim: Arc<Claim>) {
    while claim.is_alive(lease) {
        let Some((beat, limit)) = claim.with_life(lease, |life| (life.next_beat(), life.request())) else {
            return;
        };
        sleep_until(beat.into()).await;
        let asked = Instant::now();
        match requests::keep_alive(&ring, lease, limit).await {
            Ok(true) => {
                claim.with_life(lease, |life| life.confirm(asked, Instant::now()));
            }
            Ok(false) => {
                claim
                    .with_life(lease, |life| life.end("etcd no longer knows its lease: it was revoked, or it expired"));
            }
            // Until the time is over; at once with the next member if this one took its time.
            Err(_) if asked.elapsed() < PAUSE => sleep(PAUSE).await,
            Err(_) => {}
        }
    }
}

/// The store's error as one about slots.
pub(super) fn slot_error(error: StoreError) -> SlotError {
    match error {
        StoreError::Unreachable(why) => SlotError::Unreachable(why),
        StoreError::Refused(why) | StoreError::Malformed(why) => SlotError::Refused(why),
    }
}
