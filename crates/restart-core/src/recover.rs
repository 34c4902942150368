//! Finishing what a dead run left (rule 4). A run that was interrupted is brought to its end: the host goes back if its units
//! are healthy, and is held if they are not. A host that is held is left to the next good run, or to an operator.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::journal::{Phase, Record};
use crate::outcome::{ExitCode, Failure};
use crate::run::{Abort, Hold, Run};
use crate::service::ActiveState;
use crate::state::State;

/// How long to wait for a job that systemd has for a unit of the run, where the unit sets no limit of its own. Longer ones
/// are left to the next recovery, a minute later.
const JOB_LIMIT: Duration = Duration::from_secs(120);
/// The pause between two looks at a unit with a job.
const LOOK: Duration = Duration::from_millis(250);

impl Run<'_> {
    /// Finishes `record`, or says why it cannot be finished yet.
    pub(crate) fn recover(&mut self, record: &Record) {
        if let Err(abort) = self.recover_or_stop(record) {
            match abort {
                Abort::Failed(failure) => self.report.failures.push(failure),
                Abort::Stopped(stopped) => {
                    log::warn!("{}: the recovery is left to the next one", stopped.signal.name());
                }
            }
        }
    }

    fn recover_or_stop(&mut self, record: &Record) -> Result<(), Abort> {
        self.state = State::PerhapsDepooled;
        let who = describe(record);
        if record.phase == Phase::Held {
            self.state = State::Held;
            let message = format!("'{}' is held depooled since {}, by {who}", record.host, record.since);
            return Err(Failure::new(ExitCode::LeftDepooled, message).into());
        }
        log::warn!("finishing what {who} left");
        self.await_jobs(record)?;
        // An operator may have deleted every object meanwhile; that is an end, too.
        self.read_nodes()?;
        self.take_over(record);
        // What was held before the run that died is not this recovery's to put back, unless that run restarted the units.
        if record.phase == Phase::TakingOut {
            let held: Vec<_> = record.nodes.iter().filter(|out| out.held).cloned().collect();
            self.remains = (!held.is_empty()).then(|| Record { nodes: held, phase: Phase::Held, ..record.clone() });
            for member in self.members.iter_mut().filter(|member| member.held) {
                member.hold = Hold::Untouched;
            }
        }
        let sick = self.sick_units(record);
        if sick.is_empty() {
            self.bring_back_now();
        } else {
            self.leave_depooled(sick);
        }
        Ok(())
    }

    /// Makes the record's nodes those of this run.
    fn take_over(&mut self, record: &Record) {
        for out in &record.nodes {
            let Some(member) = self.members.iter_mut().find(|member| member.id == out.write.found.id) else { continue };
            member.hold = match out.ours() {
                Some(node) => Hold::Ours(node),
                None => Hold::Attempted(out.write.clone()),
            };
            member.out = Some(out.write.clone());
            member.revision = out.revision;
            member.held = out.held;
        }
    }

    /// While systemd still has a job for a unit, nobody can say how it will end.
    fn await_jobs(&mut self, record: &Record) -> Result<(), Abort> {
        let until = self.parts.clock.now() + JOB_LIMIT;
        for unit in &record.units {
            loop {
                let status = self.parts.services.status(unit).map_err(|error| {
                    Failure::new(ExitCode::Unreachable, format!("cannot look at unit '{unit}': {error}"))
                })?;
                let busy = matches!(
                    status.active,
                    ActiveState::Activating | ActiveState::Deactivating | ActiveState::Reloading
                );
                if !status.job && !busy {
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

    /// The units of the record that do not run.
    fn sick_units(&mut self, record: &Record) -> Vec<Failure> {
        let mut failures = Vec::new();
        for unit in &record.units {
            let wrong = match self.parts.services.status(unit) {
                Ok(status) if status.active == ActiveState::Active => continue,
                Ok(status) => format!("it is {} ({}, result '{}')", status.active.as_str(), status.sub, status.result),
                Err(error) => error.to_string(),
            };
            failures
                .push(Failure::new(ExitCode::LeftDepooled, format!("cannot put the host back with '{unit}': {wrong}")));
        }
        failures
    }
}

/// `run 4f2a of 'alice'`.
fn describe(record: &Record) -> String {
    let user = record.user.as_deref().unwrap_or("root");
    let reason = record.reason.as_deref().map(|reason| format!(", because: {reason}")).unwrap_or_default();
    format!("run {} of '{user}'{reason}", record.run)
}
