//! May I be one of N, answered by etcd v3: for [`restart_core::Slots`].
//!
//! Each run puts one entry into a queue, kept by a lease (`claim.rs`, with `life.rs` for the time and `engine.rs` for the thread);
//! who may go is arithmetic (`line.rs`) on the entries (`record.rs`) as etcd shows them (`requests.rs`). A run that dies leaves
//! the queue with its lease. A host that it left out of the pools stays counted by a note of its own, without lease, that
//! [`Slots::taking_out`] writes and the store removes ([`PoolStore::no_longer_counts`](restart_core::PoolStore)), be it in another
//! process, long after the slot is another's.
//!
//! ```text
//! /conftool/v1/safe-service-restart/slots/ServiceRestarter::eqiad::appservers/694d7a3f2c1b5e07    lease 10 s
//!     {"host":"mw1.example","run":"...","pid":7,"user":"alice","since":"2026-11-23T10:00:00Z","limit":3}
//! /conftool/v1/safe-service-restart/out/ServiceRestarter::eqiad::appservers/mw1.example
//!     {"host":"mw1.example","run":"...","since":"2026-11-23T10:00:02.500000+00:00"}
//! ```

mod claim;
mod engine;
mod life;
mod line;
mod look;
mod record;
mod requests;
mod ring;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use restart_core::{SlotError, Slots, StoreError};
use tokio::task::AbortHandle;

use self::claim::{Claim, Standing, Wish, pursue, slot_error};
use self::engine::Engine;
pub use self::record::Holder;
use self::record::{Note, Ticket};
pub(crate) use self::requests::Queue;
pub(crate) use self::ring::Ring;
use crate::keys::Keys;
use crate::limits::{Deadline, FAREWELL, HOLDERS, LEASE, OPERATION, RELEASE};
use crate::time::{now, utc};

/// Members that may be frozen, and one more, within the time for one operation.
const ATTEMPTS: u32 = 3;

/// Slots kept in etcd v3. Made by [`Settings::slots`](crate::Settings::slots).
pub struct LeaseSlots {
    ring: Arc<Ring>,
    queue: Queue,
    holder: Holder,
    request: Duration,
    lease: Duration,
    read_only: bool,
    /// Started with the first question.
    engine: Option<Engine>,
    asked: Option<Asked>,
}

/// A claim, and for how long it is of interest.
struct Asked {
    claim: Arc<Claim>,
    pursuit: AbortHandle,
    until: Instant,
    at_most: Duration,
    was_granted: bool,
}

impl LeaseSlots {
    pub(crate) fn new(ring: Ring, queue: Queue, holder: Holder, request: Duration, read_only: bool) -> Self {
        Self { ring: Arc::new(ring), queue, holder, request, lease: LEASE, read_only, engine: None, asked: None }
    }

    /// Asks for leases with another time to live than ten seconds, in whole seconds. For tests, which cannot wait that long.
    #[must_use]
    pub fn with_lease(mut self, time_to_live: Duration) -> Self {
        self.lease = time_to_live;
        self
    }

    fn engine(&mut self) -> Result<&Engine, SlotError> {
        match &mut self.engine {
            Some(engine) => Ok(engine),
            none => {
                let engine = Engine::start().map_err(|error| {
                    SlotError::Unreachable(format!("cannot start a thread to keep a slot: {}", error.kind()))
                })?;
                Ok(none.insert(engine))
            }
        }
    }

    /// Runs one request, all members together within `total`.
    fn request<T, F>(
        &mut self,
        total: Duration,
        request: impl FnOnce(Arc<Ring>, Queue, Deadline) -> F,
    ) -> Result<T, SlotError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let deadline = Deadline::within(total, self.request.min(total / ATTEMPTS));
        let request = request(Arc::clone(&self.ring), self.queue.clone(), deadline);
        // The request bounds itself; should the thread be starved, so do we.
        let answer = self.engine()?.wait(total + total / 4, request);
        answer.ok_or_else(|| SlotError::Unreachable(self.unanswered(total)))?.map_err(slot_error)
    }

    fn unanswered(&self, total: Duration) -> String {
        format!("etcd gave no answer about the slots of '{}' within {} s", self.queue.name(), total.as_secs_f32())
    }

    /// Leaves the queue, or gives the slot back.
    fn give_back(&mut self, total: Duration) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        asked.pursuit.abort();
        // From here on the lease is not kept alive.
        let was_alive = asked.claim.look().is_ok();
        asked.claim.end("it was given back");
        let Some(lease) = asked.claim.lease() else {
            return;
        };
        let revoked =
            self.request(total, move |ring, _, deadline| async move { requests::revoke(&ring, lease, deadline).await });
        if let (true, Err(error)) = (was_alive, revoked) {
            log::info!("the slot of '{}' becomes free in {} s: {error}", self.queue.name(), self.lease.as_secs());
        }
    }

    /// Takes back that the host is about to leave.
    fn take_back(&mut self) -> Result<(), SlotError> {
        let host = self.holder.host.clone();
        self.request(OPERATION, move |ring, queue, deadline| async move {
            requests::note_back(&ring, &queue, &host, deadline).await
        })
    }

    fn lost(&self, why: &str) -> SlotError {
        SlotError::Lost(format!("the slot of '{}' is lost: {why}", self.queue.name()))
    }

    fn refuse_to_write(&self) -> Result<(), SlotError> {
        if self.read_only {
            return Err(SlotError::Refused(
                "conftool's config.yaml says 'read_only', and slots are written".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Slots for LeaseSlots {
    fn ask(&mut self, limit: u32, at_most: Duration) -> Result<(), SlotError> {
        self.refuse_to_write()?;
        self.give_back(RELEASE);
        let ticket = Ticket { holder: self.holder.clone(), limit };
        let wish = Wish {
            queue: self.queue.clone(),
            ticket: json(&ticket)?,
            seconds: i64::try_from(self.lease.as_secs()).unwrap_or(i64::MAX),
            request: self.request,
        };
        let claim = Arc::new(Claim::new());
        let until = Instant::now() + at_most;
        let pursuit = pursue(Arc::clone(&self.ring), wish, Arc::clone(&claim));
        let pursuit = self.engine()?.spawn(pursuit);
        let standing = claim.wait_while(&Standing::Outside, OPERATION + OPERATION / 4);
        self.asked = Some(Asked { claim, pursuit, until, at_most, was_granted: false });
        let error = match standing {
            Standing::Waiting | Standing::Granted => return Ok(()),
            Standing::Failed(error) => error,
            Standing::Outside => SlotError::Unreachable(self.unanswered(OPERATION)),
        };
        self.give_back(FAREWELL);
        Err(error)
    }

    /// [`Slots::ask`] has waited until etcd let us in and said how we stand: a slot that was free is granted at the first look,
    /// also by one with a slice of zero.
    fn granted(&mut self, slice: Duration) -> Result<bool, SlotError> {
        let Some(asked) = &mut self.asked else {
            return Err(self.lost("nobody has asked for one"));
        };
        match asked.claim.wait_while(&Standing::Waiting, slice) {
            Standing::Granted => {
                asked.was_granted = true;
                let alive = asked.claim.look();
                alive.map(|()| true).map_err(|why| self.lost(&why))
            }
            Standing::Failed(error) => Err(error),
            Standing::Outside | Standing::Waiting if Instant::now() < asked.until => Ok(false),
            Standing::Outside | Standing::Waiting => {
                let held = asked.claim.holders().join("; ");
                let seconds = asked.at_most.as_secs_f32();
                let why = format!("no slot of '{}' within {seconds} s; held by: {held}", self.queue.name());
                self.give_back(RELEASE);
                Err(SlotError::Taken(why))
            }
        }
    }

    fn look(&mut self) -> Result<(), SlotError> {
        match &self.asked {
            Some(Asked { claim, was_granted: true, .. }) => claim.look().map_err(|why| self.lost(&why)),
            _ => Err(self.lost("it was not granted")),
        }
    }

    fn holders(&mut self) -> Vec<String> {
        // Who waits looks at the queue all the time.
        if let Some(Asked { claim, was_granted: false, .. }) = &self.asked {
            return claim.holders();
        }
        let line = self.request(HOLDERS, |ring, queue, deadline| async move {
            requests::view(&ring, &queue, deadline).await.map(|view| view.line)
        });
        match line {
            Ok(line) => line.holders(),
            Err(error) => {
                log::debug!("{error}");
                Vec::new()
            }
        }
    }

    fn taking_out(&mut self) -> Result<(), SlotError> {
        self.refuse_to_write()?;
        self.look()?;
        let Some(lease) = self.asked.as_ref().and_then(|asked| asked.claim.lease()) else {
            return Err(self.lost("it was not granted"));
        };
        let host = self.holder.host.clone();
        let note = Note { host: host.clone(), run: self.holder.run.clone(), since: utc(now()) };
        let note = json(&note)?;
        let noted = self.request(OPERATION, move |ring, queue, deadline| async move {
            requests::note_out(&ring, &queue, lease, &host, &note, deadline).await
        })?;
        if let (false, Some(asked)) = (noted, &self.asked) {
            asked.claim.end("its entry in etcd is gone");
        }
        let slot = self.look();
        if slot.is_err() && noted {
            // The slot ended while etcd was asked. The host stays in, and no slot must stay taken.
            if let Err(error) = self.take_back() {
                log::warn!("{error}");
            }
        }
        slot
    }

    fn release(&mut self) {
        self.give_back(RELEASE);
    }
}

impl Drop for LeaseSlots {
    /// Best effort, and short: what is not done here etcd does when the lease ends.
    fn drop(&mut self) {
        self.give_back(FAREWELL);
    }
}

/// Who has which slot in the whole store, a clause each, by the name of the queue.
pub(crate) fn everybody(
    ring: Ring,
    keys: Keys,
    request: Duration,
) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
    let unreachable = |why: String| StoreError::Unreachable(why);
    let engine = Engine::start().map_err(|error| unreachable(format!("cannot start a thread: {}", error.kind())))?;
    let deadline = Deadline::within(HOLDERS, request.min(HOLDERS / ATTEMPTS));
    let look = async move { look::everybody(&ring, &keys, deadline).await };
    let late = || unreachable(format!("etcd gave no answer about slots within {} s", HOLDERS.as_secs_f32()));
    engine.wait(HOLDERS + HOLDERS / 4, look).ok_or_else(late)?
}

/// A record as JSON.
fn json(record: &impl serde::Serialize) -> Result<String, SlotError> {
    serde_json::to_string(record).map_err(|error| SlotError::Refused(format!("cannot write about a slot: {error}")))
}
