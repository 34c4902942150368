//! The slot's part in a run: never more than N at once (`--max-concurrency`). Asked for after the pools were read, since a
//! share is one of the smallest of them; waited for with nothing changed yet; looked after until the restart.

use crate::capacity::{Census, TooFew, enough};
use crate::clock::{Heed, SLICE};
use crate::outcome::{ExitCode, Failure};
use crate::run::{Abort, Membership, Run};
use crate::slots::{SlotError, Slots};
use crate::span::span;

impl Run<'_> {
    /// Waits for a slot, and looks at units and pools again: that may have taken minutes, and deployments change both.
    pub(crate) fn get_slot(&mut self) -> Result<(), Abort> {
        let sizes = self.members.iter().filter(|member| member.named).map(|member| Census::now(&member.listing).total);
        let smallest = sizes.min().unwrap_or_default();
        let Some(limit) = self.job.limit.and_then(|share| share.limit_of(smallest)) else { return Ok(()) };
        self.phase("wait for a slot", |run| run.wait_for_slot(limit))?;
        if self.purpose.restarts() {
            self.look_at_units()?;
            self.see_countable()?;
        }
        self.read_pools()
    }

    /// For a forced restart: whatever is wrong with the lock service is no reason not to restart (rule 6).
    pub(crate) fn get_slot_if_possible(&mut self) -> Result<(), Abort> {
        let Some(limit) = self.job.limit.and_then(|share| share.limit_of(0)) else { return Ok(()) };
        match self.phase("wait for a slot", |run| run.wait_for_slot(limit)) {
            Err(Abort::Failed(failure)) if failure.code != ExitCode::TryLater => {
                self.report.warn(format!("--force: restarting without a slot: {failure}"));
                Ok(())
            }
            result => result,
        }
    }

    fn wait_for_slot(&mut self, limit: u32) -> Result<(), Abort> {
        let allowed = self.job.slot_timeout;
        let Some(slots) = self.parts.slots.as_deref_mut() else {
            return Err(Failure::new(ExitCode::Configuration, "a limit, and no lock service to ask for a slot").into());
        };
        slots.ask(limit, allowed).map_err(|error| slot_failure(&error))?;
        self.slot = true;
        // Not before the lock service's own time is over: a daemon that was lost on the way is then told from one that is full.
        let until = self.parts.clock.now() + allowed;
        let mut said = false;
        loop {
            Heed::First.check(self.parts.stop)?;
            let left = until.saturating_sub(self.parts.clock.now());
            if slots.granted(SLICE.min(left)).map_err(|error| slot_failure(&error))? {
                self.slot_granted = true;
                return Ok(());
            }
            let now = self.parts.clock.now();
            if left.is_zero() {
                let held = holders(slots);
                let message = format!("no slot within {}, at most {limit} at once; held by: {held}", span(allowed));
                return Err(Failure::new(ExitCode::TryLater, message).into());
            }
            if !said {
                said = true;
                let (left, held) = (span(until.saturating_sub(now)), holders(slots));
                log::info!("waiting for a slot, at most {limit} at once, for at most {left}; held by: {held}");
            }
        }
    }

    /// Before the restart: a slot that is gone may be another's by now.
    pub(crate) fn slot_is_ours(&mut self) -> Result<(), Failure> {
        match self.parts.slots.as_deref_mut() {
            Some(slots) if self.slot => slots.look().map_err(|error| slot_failure(&error)),
            _ => Ok(()),
        }
    }

    /// From before the first write this host counts against the limit, also if this run dies.
    pub(crate) fn count_as_out(&mut self) -> Result<(), Failure> {
        match self.parts.slots.as_deref_mut() {
            Some(slots) if self.slot => slots.taking_out().map_err(|error| slot_failure(&error)),
            _ => Ok(()),
        }
    }

    /// The host is back, or out because an operator wants it: it no longer counts against those of its limits that `which` picks.
    /// Returns the limits of which the store could not be told.
    pub(crate) fn count_as_back(&mut self, which: impl Fn(&String) -> bool) -> Vec<String> {
        let Some(place) = &self.job.place else { return Vec::new() };
        let mut stuck = Vec::new();
        for limit in self.limits().into_iter().filter(which) {
            if let Err(error) = self.parts.store.no_longer_counts(&limit, &place.host) {
                self.report.warn(format!("this host counts against a limit until the next recovery: {error}"));
                stuck.push(limit);
            }
        }
        stuck
    }

    /// All limits that this host counts against while it is out.
    pub(crate) fn limits(&self) -> Vec<String> {
        let left = self.job.left.iter().flat_map(|left| &left.counts_against);
        let mut limits: Vec<_> = self.job.counts_against.iter().chain(left).cloned().collect();
        limits.sort();
        limits.dedup();
        limits
    }

    /// Gives the slot back, and says so if it was lost on the way.
    pub(crate) fn release_slot(&mut self) {
        if !self.slot {
            return;
        }
        self.slot = false;
        let Some(slots) = self.parts.slots.as_deref_mut() else { return };
        // One that was only waited for cannot be lost.
        let lost = if self.slot_granted { slots.look().err() } else { None };
        slots.release();
        if let Some(error) = lost {
            self.report.warn(format!("the slot was lost during the run: {error}"));
        }
    }

    /// Before anything is written: each pool must be able to do without this host.
    pub(crate) fn check_capacity(&self) -> Result<(), Abort> {
        for member in &self.members {
            if member.named && member.is_in() {
                let census = Census::now(&member.listing);
                self.enough(member, census.pooled - 1, census.total, "would leave")?;
            }
        }
        Ok(())
    }

    /// Right after a depool: others may have left at the same time. Only the later one stops.
    pub(crate) fn check_capacity_again(&mut self, place: usize, revision: u64) -> Result<(), Failure> {
        let member = &self.members[place];
        let listing = self.parts.store.list(&member.id.path);
        let listing = listing.map_err(|error| error.failure(&format!("count the hosts of '{}'", member.id.path)))?;
        let census = Census::at(&listing.nodes, &member.listing, &member.id.host, revision);
        self.enough(member, census.pooled, census.total, "leaves")
    }

    fn enough(&self, member: &Membership, left: usize, total: usize, would: &str) -> Result<(), Failure> {
        for pool in member.pools.iter().map(|place| &self.pools[*place]) {
            let (min_pooled, said, remedy) = match pool.min_pooled {
                Some(share) => {
                    (share, format!("min_pooled {share} in the catalog"), "the catalog has to say 'min_pooled: 0'")
                }
                None => (
                    self.job.min_pooled,
                    format!("--min-pooled or 'min_pooled', {}", self.job.min_pooled),
                    "say --min-pooled 0 or 'min_pooled: 0'",
                ),
            };
            let host = self.host;
            match enough(left, total, min_pooled) {
                Ok(()) => {}
                Err(TooFew::Now { left, floor }) => {
                    let message = format!(
                        "depooling '{host}' {would} {left} of {total} hosts in {pool}, and {floor} have to stay pooled \
                         ({said})"
                    );
                    return Err(Failure::new(ExitCode::TryLater, message));
                }
                Err(TooFew::Never { floor }) => {
                    let message = format!(
                        "{floor} of {total} hosts in {pool} have to stay pooled ({said}): none can ever leave; if that is \
                         meant, {remedy}"
                    );
                    return Err(Failure::new(ExitCode::Configuration, message));
                }
            }
        }
        Ok(())
    }
}

/// Who holds slots now, as far as the lock service knows names.
fn holders(slots: &mut dyn Slots) -> String {
    match slots.holders().join("; ") {
        nobody if nobody.is_empty() => "nobody that it names".to_owned(),
        holders => holders,
    }
}

fn slot_failure(error: &SlotError) -> Failure {
    let code = match error {
        SlotError::Taken(_) => ExitCode::TryLater,
        SlotError::Unreachable(_) | SlotError::Lost(_) => ExitCode::Unreachable,
        SlotError::Refused(_) => ExitCode::Configuration,
    };
    Failure::new(code, format!("cannot get a slot: {error}"))
}
