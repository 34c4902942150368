//! Finishing what a dead run left (rule 4). A run that was interrupted is brought to its end: the host goes back if its units
//! are healthy, and is held if they are not. A host that is held is left to the next good run, or to an operator.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::journal::{Phase, Record};
use crate::keeping::Whose;
use crate::names::UnitName;
use crate::outcome::{ExitCode, Failure};
use crate::ready::see_ready;
use crate::run::{Abort, Hold, Membership, Run};
use crate::service::{ActiveState, UnitStatus};
use crate::state::State;
use crate::store::StoreError;

/// How long to wait for a job that systemd has for a unit of the run. Longer ones are left to the next recovery, a minute later.
const JOB_LIMIT: Duration = Duration::from_secs(120);
/// The pause between two looks at a unit.
const LOOK: Duration = Duration::from_millis(250);

impl Run<'_> {
    /// Finishes `record`, or says why it cannot be finished yet.
    pub(crate) fn recover(&mut self, record: &Record) {
        (self.journal_open, self.journal_phase) = (true, record.phase);
        self.state = State::NotFinished;
        let ended = match record.phase {
            Phase::Held => self.look_at_held(record),
            Phase::Closing => self.must_be_of_this_store(record).map_err(Abort::Failed).map(|()| {
                self.state = State::BroughtBack;
                self.close_journal();
            }),
            Phase::TakingOut | Phase::Restarting | Phase::BringingBack => self.finish_interrupted(record),
        };
        match ended {
            Ok(()) => {}
            Err(Abort::Failed(failure)) => self.report.failures.push(failure),
            Err(Abort::Stopped(stopped)) => {
                log::warn!("{}: the recovery is left to the next one", stopped.signal.name());
            }
        }
    }

    fn finish_interrupted(&mut self, record: &Record) -> Result<(), Abort> {
        log::warn!("finishing what {} left", describe(record));
        self.must_be_of_this_store(record)?;
        self.await_jobs(record)?;
        let units: Vec<_> = record.units.iter().map(|unit| format!("'{unit}'")).collect();
        match (record.phase, units.is_empty()) {
            (Phase::TakingOut, false) => self.report.warn(format!("it had not restarted {}", units.join(", "))),
            (Phase::Restarting, false) => {
                self.report.warn(format!("whether it had restarted {} is not known", units.join(", ")));
            }
            (Phase::BringingBack | Phase::Closing | Phase::Held, _) | (_, true) => {}
        }
        // An operator may have deleted every object meanwhile; that is an end, too.
        self.read_nodes()?;
        // Only what the record has is this recovery's business.
        self.unread.clear();
        self.take_over(record)?;
        // A host that is in service already is the load balancers' to judge.
        if self.members.iter().any(|member| matches!(member.hold, Hold::Ours(_))) {
            let mut sick = self.sick_units(record)?;
            if sick.is_empty() {
                sick = self.urls_that_do_not_answer();
            }
            if !sick.is_empty() {
                // What was not waited for says nothing: the next recovery looks again.
                Heed::Second.check(self.parts.stop)?;
                self.fence_lost_depools();
                self.leave_depooled(sick);
                return Ok(());
            }
        }
        if record.phase == Phase::BringingBack && !record.units.is_empty() {
            self.bring_back_now(ExitCode::RepoolUnconfirmed);
        } else {
            // Not, as far as is known, restarted.
            self.bring_back_now(ExitCode::PutBackUnconfirmed);
        }
        Ok(())
    }

    /// A depool whose answer was lost, and that was not made, must not be made after this recovery.
    fn fence_lost_depools(&mut self) {
        let until = self.parts.clock.now() + self.job.allowed;
        for place in 0..self.members.len() {
            if matches!(self.members[place].hold, Hold::Attempted(_))
                && let Err(why) = self.return_one(place, until)
            {
                self.report.warn(format!("a depool of {} may still be made: {why}", self.members[place].names));
            }
        }
    }

    /// A held host stays as it is. But where an operator has put it back, or has taken it over, it is held no longer.
    fn look_at_held(&mut self, record: &Record) -> Result<(), Abort> {
        let who = describe(record);
        let held_in = self.still_held_in(record).ok();
        if held_in.as_ref().is_some_and(Vec::is_empty) {
            self.must_not_be_forgotten(record)?;
            log::info!("'{}' was held by {who}, and is an operator's by now", record.host);
            self.state = State::BroughtBack;
            self.close_journal();
            return Ok(());
        }
        self.state = State::Held;
        self.held_in = held_in.map(|names| names.join(", "));
        let message = format!("'{}' is held depooled since {}, by {who}", record.host, record.since);
        Err(Failure::new(ExitCode::LeftDepooled, message).into())
    }

    /// A store without revisions may have been restarted, and have forgotten the depool of a host that is held because a unit does
    /// not run. That is not taken for an operator's word, and is said as long as it is so.
    fn must_not_be_forgotten(&mut self, record: &Record) -> Result<(), Abort> {
        let names = self.pools_where(Membership::is_in);
        if self.parts.store.has_revisions() || names.is_empty() {
            return Ok(());
        }
        let services = &mut self.parts.services;
        let mut runs = |unit: &UnitName| services.status(unit).is_ok_and(|status| status.active == ActiveState::Active);
        let Some(unit) = record.units.iter().find(|unit| !runs(unit)) else { return Ok(()) };
        (self.state, self.held_in) = (State::Held, Some(String::new()));
        let (host, who, kind) = (&record.host, describe(record), self.parts.store.kind());
        let message = format!(
            "'{host}' is held since {}, by {who}, and is in service in {names} all the same, though '{unit}' does not run: somebody \
             put it back, or {kind} was restarted or reloaded and has forgotten it",
            record.since
        );
        Err(Failure::new(ExitCode::LeftDepooled, message).into())
    }

    /// The pools of those nodes of the record that are still out because of us. What cannot be told is among them.
    fn still_held_in(&mut self, record: &Record) -> Result<Vec<String>, Abort> {
        self.must_be_of_this_store(record)?;
        self.read_nodes()?;
        let mut names = Vec::new();
        for out in &record.nodes {
            let place = self.membership(out).map_err(|error| error.failure("read what is held"))?;
            if !matches!(self.whose(out, place), Ok(Whose::NotOurs)) {
                names.push(self.members[place].names.clone());
            }
        }
        Ok(names)
    }

    /// Makes the record's nodes those of this run.
    fn take_over(&mut self, record: &Record) -> Result<(), Failure> {
        for out in &record.nodes {
            let failed =
                |error: StoreError| error.failure(&format!("find out what became of '{}'", out.write.found.id));
            let judged = self.membership(out).and_then(|place| Ok((place, self.whose(out, place)?)));
            let (place, whose) = match judged.map_err(failed) {
                Ok(judged) => judged,
                Err(failure) if self.goes_on_without_some() => {
                    self.unread.push(failure);
                    self.others.push(out.clone());
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            // What was held before the run that died is the next good run's.
            if out.held {
                if !matches!(whose, Whose::NotOurs) {
                    self.members[place].adopted = true;
                    self.others.push(out.clone());
                }
                continue;
            }
            let member = &mut self.members[place];
            member.out = Some(out.write.clone());
            member.revision = out.revision;
            match whose {
                Whose::Ours(node) => {
                    member.revision = Some(node.revision);
                    member.hold = Hold::Ours(node);
                }
                // In service: put back by the run that died, or never taken out, or pooled by an operator. Whether load balancers
                // know is seen in each case.
                Whose::NotOurs if member.is_in() => {
                    // A depool without an answer may still be on its way.
                    if out.revision.is_none() && member.now.as_ref() == Some(&out.write.found) {
                        member.hold = Hold::Attempted(out.write.clone());
                    } else {
                        member.hold = Hold::Returned;
                    }
                }
                Whose::NotOurs => {
                    member.out = None;
                    let now = member.now.clone();
                    self.left_to_others(place, now, "it was changed while the host was out");
                }
                Whose::Unclear(why) => {
                    member.out = None;
                    self.leave_unclear(out, place, &why);
                }
            }
        }
        Ok(())
    }

    /// While systemd still has a job for a unit, nobody can say how it will end.
    fn await_jobs(&mut self, record: &Record) -> Result<(), Abort> {
        let until = self.parts.clock.now() + JOB_LIMIT;
        for unit in &record.units {
            loop {
                let status = self.status(unit)?;
                if !status.is_busy() {
                    // What is in flight is nobody's question any more, but what it runs says how it is ready.
                    let _ = self.parts.probe.learn(unit, &status);
                    break;
                }
                let now = self.parts.clock.now();
                if now >= until {
                    let message = format!("systemd still works on '{unit}': the host stays depooled until it is done");
                    return Err(Failure::new(ExitCode::TryLater, message).into());
                }
                sleep_until(self.parts.clock, self.parts.stop, Heed::First, now + LOOK)?;
            }
        }
        Ok(())
    }

    /// The units of the record that do not run, do not go on running, or do not serve.
    fn sick_units(&mut self, record: &Record) -> Result<Vec<Failure>, Abort> {
        let mut failures = Vec::new();
        for unit in &record.units {
            match self.see_healthy(unit) {
                Ok(()) => {}
                Err(Unhealthy::Untold(abort)) => return Err(abort),
                Err(Unhealthy::Sick(wrong)) => {
                    let message = format!("cannot put the host back with '{unit}': {wrong}");
                    failures.push(Failure::new(ExitCode::LeftDepooled, message));
                }
            }
        }
        Ok(failures)
    }

    /// Sees a unit up, in one and the same invocation, for as long as it has to settle, and sees it serve.
    fn see_healthy(&mut self, unit: &UnitName) -> Result<(), Unhealthy> {
        let first = self.see_up(unit)?;
        let until = self.parts.clock.now() + self.job.settle;
        loop {
            let left = until.saturating_sub(self.parts.clock.now());
            if left.is_zero() {
                break;
            }
            let next = self.parts.clock.now() + left.min(LOOK);
            sleep_until(self.parts.clock, self.parts.stop, Heed::Second, next)
                .map_err(|stopped| Unhealthy::Untold(stopped.into()))?;
            let now = self.see_up(unit)?;
            if (&now.invocation, now.restarts) != (&first.invocation, first.restarts) {
                return Err(Unhealthy::Sick("it was started again while it was looked at".to_owned()));
            }
        }
        let ready = see_ready(&mut self.parts, unit, self.job.ready);
        ready.map_err(|why| Unhealthy::Sick(format!("it runs, and is not ready: {why}")))
    }

    fn see_up(&mut self, unit: &UnitName) -> Result<UnitStatus, Unhealthy> {
        let status = self.status(unit).map_err(|failure| Unhealthy::Untold(failure.into()))?;
        match status.active {
            ActiveState::Active => Ok(status),
            _ => Err(Unhealthy::Sick(format!(
                "it is {} ({}, result '{}')",
                status.active.as_str(),
                status.sub,
                status.result
            ))),
        }
    }
}

/// Why a unit was not seen healthy.
enum Unhealthy {
    /// It does not run, does not go on running, or does not serve: the host is held.
    Sick(String),
    /// Nobody can say: systemd gave no answer, as while it executes itself anew, or nobody waits for it. The next recovery looks again.
    Untold(Abort),
}

/// `run 4f2a of 'alice' (reason: deploy)`.
fn describe(record: &Record) -> String {
    let user = record.user.as_deref().unwrap_or("root");
    let reason = record.reason.as_deref().map(|reason| format!(" (reason: {reason})")).unwrap_or_default();
    format!("run {} of '{user}'{reason}", record.run)
}
