//! Restarting (or reloading) one unit and judging what came of it. The judge is the unit's invocation, state and restart
//! counter, not systemctl's word: somebody else's restart in between is no failure, and a service that dies right after it
//! reported ready is one.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::names::UnitName;
use crate::ready::see_ready;
use crate::report::UnitReport;
use crate::sequence::{Action, Job, Parts};
use crate::service::{ActiveState, LoadState, ServiceError, UnitStatus, Verb};
use crate::span::span;

/// How long systemctl and somebody else's job may take where the unit sets no limit of its own.
const NO_LIMIT: Duration = Duration::from_secs(600);
/// What is added to the unit's own limits: systemd kills and cleans up after they are over.
const MARGIN: Duration = Duration::from_secs(15);
/// The pause between two looks at the unit: a look costs one process.
const LOOK: Duration = Duration::from_millis(50);
/// How long systemd may not tell how the unit stands, as while it executes itself anew or its bus is started again. It has been asked
/// to restart by then, so that the unit is judged when it answers, and not by its silence.
const SILENCE: Duration = Duration::from_secs(10);
/// systemd's word for a start refused because there were too many.
const START_LIMIT: &str = "start-limit-hit";

/// A unit as it was restarted, and what there is to say of it.
pub(crate) struct Restarted {
    pub(crate) report: UnitReport,
    /// systemd does not know such a unit.
    pub(crate) missing: bool,
    pub(crate) notes: Vec<String>,
}

/// Restarts or reloads `unit`, sees it run for as long as it has to settle, and sees it serve. `before` is its state before,
/// where there was time to look.
pub(crate) fn restart(parts: &mut Parts<'_>, unit: &UnitName, job: &Job, before: Option<&UnitStatus>) -> Restarted {
    let mut notes = Vec::new();
    let result = attempt(parts, unit, job.action, job.settle, before, &mut notes).and_then(|status| {
        see_ready(parts, unit, job.ready)
            .map_err(|why| Trouble::Failed(format!("it runs, and is not ready: {why}")))?;
        Ok(status)
    });
    let report = UnitReport {
        unit: unit.clone(),
        ok: result.is_ok(),
        pid_before: before.and_then(|status| status.main_pid),
        pid: result.as_ref().ok().and_then(|status| status.main_pid),
        error: result.as_ref().err().map(ToString::to_string),
    };
    Restarted { report, missing: matches!(result, Err(Trouble::NoSuchUnit)), notes }
}

/// Why a unit is not restarted, or does not run.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it does not exist on this host")]
    NoSuchUnit,
    #[error("{0}")]
    Failed(String),
}

impl From<ServiceError> for Trouble {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn attempt(
    parts: &mut Parts<'_>,
    unit: &UnitName,
    action: Action,
    settle: Duration,
    before: Option<&UnitStatus>,
    notes: &mut Vec<String>,
) -> Result<UnitStatus, Trouble> {
    let limit = before.and_then(|status| status.limit).map_or(NO_LIMIT, |limit| limit + MARGIN);
    let judge = Judge { unit, settle, before, until: parts.clock.now() + limit + settle };
    log::info!("{}ing '{unit}', for at most {}", action.verb().as_str(), span(limit));
    let mut asked = parts.services.run(action.verb(), unit, limit);
    if let Err(error) = &asked {
        let status = told(parts, unit)?;
        if status.load == LoadState::NotFound {
            return Err(Trouble::NoSuchUnit);
        }
        // A restart over the start limit stops a running service and does not start it again.
        if action == Action::Restart && status.result == START_LIMIT && status.active != ActiveState::Active {
            for verb in [Verb::ResetFailed, Verb::Start] {
                parts.services.run(verb, unit, limit).map_err(|error| {
                    Trouble::Failed(format!("stopped by systemd's start limit, and {} failed: {error}", verb.as_str()))
                })?;
            }
            notes.push(format!("systemd refused to start '{unit}' (start limit): limit reset, unit started; {error}"));
            return judge.watch(parts, Action::Restart, &Ok(()));
        }
        // While systemd executes itself anew it takes no order. A reload that was tried and failed looks the same, and may be repeated.
        if is_untouched(before, &status) {
            notes.push(format!("'{unit}' is as it was, and systemd is asked once more: {error}"));
            asked = parts.services.run(action.verb(), unit, limit);
        } else if action == Action::Restart && status.is_busy() {
            // It took the order before that: how it ends shows in the unit, whatever systemctl has seen of it.
            asked = Ok(());
        }
    }
    judge.watch(parts, action, &asked)
}

/// How the unit stands, as soon as systemd tells.
fn told(parts: &mut Parts<'_>, unit: &UnitName) -> Result<UnitStatus, ServiceError> {
    let until = parts.clock.now() + SILENCE;
    loop {
        let error = match parts.services.status(unit) {
            Ok(status) => return Ok(status),
            Err(error) => error,
        };
        let now = parts.clock.now();
        if now >= until || sleep_until(parts.clock, parts.stop, Heed::Second, now + LOOK).is_err() {
            return Err(error);
        }
    }
}

/// Whether the unit runs as it did, and systemd has nothing to do about it. Where nobody looked before, running is all that can be seen.
fn is_untouched(before: Option<&UnitStatus>, now: &UnitStatus) -> bool {
    let as_before = |before: &UnitStatus| (&before.invocation, before.main_pid) == (&now.invocation, now.main_pid);
    now.active == ActiveState::Active && !now.job && before.is_none_or(as_before)
}

/// What the unit is judged by.
struct Judge<'a> {
    unit: &'a UnitName,
    settle: Duration,
    before: Option<&'a UnitStatus>,
    /// When it is given up.
    until: Duration,
}

/// What one look at the unit tells.
enum Look {
    Up,
    OnItsWay,
}

impl Judge<'_> {
    /// Looks until the unit has been up, in one and the same invocation, for the time to settle; or until it is clear that
    /// it is not. `asked` is systemctl's word on what it was asked to do.
    fn watch(
        &self,
        parts: &mut Parts<'_>,
        action: Action,
        asked: &Result<(), ServiceError>,
    ) -> Result<UnitStatus, Trouble> {
        let mut steady: Option<(Duration, Option<String>)> = None;
        loop {
            let status = told(parts, self.unit)?;
            let now = parts.clock.now();
            let look = self.look(&status, action, asked).map_err(|why| match &steady {
                Some(_) => Trouble::Failed(format!("it was up, and then it was not: {why}")),
                None => Trouble::Failed(why),
            });
            match look? {
                Look::Up => match &steady {
                    Some((since, invocation)) if *invocation == status.invocation => {
                        if now >= *since + self.settle {
                            return Ok(status);
                        }
                    }
                    // First seen up, or restarted on purpose by somebody else while it settled.
                    _ if self.settle.is_zero() => return Ok(status),
                    _ => steady = Some((now, status.invocation.clone())),
                },
                Look::OnItsWay => steady = None,
            }
            if now >= self.until {
                let state = status.active.as_str();
                return Err(Trouble::Failed(format!("it is still {state}, and its time is over")));
            }
            let next = steady.as_ref().map_or(now + LOOK, |(since, _)| (*since + self.settle).min(now + LOOK));
            if sleep_until(parts.clock, parts.stop, Heed::Second, next).is_err() {
                return self.last_look(parts, action, asked);
            }
        }
    }

    /// Asked to wait no longer: what runs now counts as restarted, whatever it may do later.
    fn last_look(
        &self,
        parts: &mut Parts<'_>,
        action: Action,
        asked: &Result<(), ServiceError>,
    ) -> Result<UnitStatus, Trouble> {
        let status = parts.services.status(self.unit)?;
        match self.look(&status, action, asked).map_err(Trouble::Failed)? {
            Look::Up => Ok(status),
            Look::OnItsWay => Err(Trouble::Failed(format!(
                "it is {}, and was not waited for because of a second signal",
                status.active.as_str()
            ))),
        }
    }

    /// The verdict over one status; an error is final.
    fn look(&self, status: &UnitStatus, action: Action, asked: &Result<(), ServiceError>) -> Result<Look, String> {
        let word = action.verb().as_str();
        let ended = |what: String| match asked {
            Ok(()) => Err(what),
            Err(error) => Err(format!("{what}; {error}")),
        };
        // systemd counts its own restarts from the last start on purpose.
        let start = self.before.filter(|before| before.invocation.is_some() && before.invocation == status.invocation);
        let counted = start.map_or(0, |before| before.restarts);
        let by_itself = status.restarts > counted || status.sub.starts_with("auto-restart");
        match &status.active {
            _ if by_itself => ended(format!("it ended by itself after the {word}, and systemd starts it again")),
            ActiveState::Active => match (action, start) {
                (Action::Restart, Some(_)) => ended("it was not started anew".to_owned()),
                (Action::Reload, Some(before)) if before.main_pid != status.main_pid => {
                    ended("its main process changed during the reload".to_owned())
                }
                // Without a look before, or for a reload, systemctl's word is all there is to show that it was done.
                (Action::Restart, None) if self.before.is_none() && asked.is_err() => {
                    ended("it is as it was".to_owned())
                }
                (Action::Reload, _) if asked.is_err() => ended("it runs as before".to_owned()),
                _ => Ok(Look::Up),
            },
            ActiveState::Activating | ActiveState::Deactivating | ActiveState::Reloading => Ok(Look::OnItsWay),
            _ if status.job => Ok(Look::OnItsWay),
            state => ended(format!("it is {} (result '{}')", state.as_str(), status.result)),
        }
    }
}
