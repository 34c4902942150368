//! What is known of the last restart of a unit before it is restarted again, and the look at what this restart has brought.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use restart_core::{ExitCode, Failure, span};

use super::{Run, fail};
use crate::cure;
use crate::last_restart::{self, LastRestart};
use crate::report::{After, UnitReport, opcache};
use crate::source::{Asker, Reading};
use crate::verdict::{Threshold, Verdict, verdict};

/// How long a PHP-FPM that was just restarted may take to tell its figures: it compiles everything anew, for whoever waits.
const FIRST_FIGURES: Duration = Duration::from_secs(30);
/// The pause between two questions meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

impl Run<'_> {
    /// Reads what is known of the last restart, and what it has not cured. An emergency restarts all the same.
    pub(super) fn look_back(&self, report: &mut UnitReport) {
        report.last_restart =
            last_restart::look(Path::new(last_restart::FOLDER), &report.unit).unwrap_or_else(|error| {
                log::warn!("{error}");
                None
            });
        let (Some(last), Some(opcache)) = (&report.last_restart, report.figures.as_ref().and_then(opcache)) else {
            return;
        };
        let known = cure::still_known(&last.not_cured, &report.verdict, opcache, &self.limits);
        if !self.cli.force {
            report.verdict = cure::without_those_not_cured(std::mem::take(&mut report.verdict), &known);
        }
        if self.cli.changes_something() {
            self.remember(report, known);
        }
    }

    /// Keeps with the last restart what it has not cured.
    fn remember(&self, report: &mut UnitReport, not_cured: Vec<Threshold>) {
        let Some(last) = report.last_restart.clone().filter(|last| last.not_cured != not_cured) else { return };
        let now = LastRestart { not_cured, ..last.clone() };
        match last_restart::replace(Path::new(last_restart::FOLDER), &report.unit, &last, &now) {
            Ok(()) => report.last_restart = Some(now),
            Err(error) => {
                let message = format!("cannot keep what a restart of '{}' does not cure: {error}", report.unit);
                fail(report, Failure::new(error.exit_code(), message));
            }
        }
    }

    /// After a restart: what the new process says, which has an empty cache. A limit that it crosses is one that no restart cures.
    pub(super) fn judge_again(&self, report: &mut UnitReport, asker: &mut Asker<'_>) {
        let judged = self.after(self.read_new(report, asker), cure::crossed_after);
        for finding in &judged.verdict.findings {
            match &finding.code {
                Some(_) => log::error!("'{}' after its restart: {}", report.unit, finding.message),
                None => log::debug!("'{}' after its restart: {}", report.unit, finding.message),
            }
        }
        // What could not be read again tells nothing.
        if let (Some(last), Some(opcache)) = (&report.last_restart, judged.figures.as_ref().and_then(opcache)) {
            let mut not_cured = cure::still_known(&last.not_cured, &judged.verdict, opcache, &self.limits);
            let found = judged.verdict.findings.iter().filter(|finding| finding.is_not_cured);
            for threshold in found.filter_map(|finding| finding.threshold.clone()) {
                if !not_cured.contains(&threshold) {
                    not_cured.push(threshold);
                }
            }
            self.remember(report, not_cured);
        }
        report.after = Some(judged);
    }

    /// A reading after something was done, judged, with what of it no restart cures.
    pub(super) fn after(
        &self,
        read: Result<Reading, Failure>,
        not_cured: impl FnOnce(&Verdict) -> Vec<Threshold>,
    ) -> After {
        match read {
            Ok(Reading { figures, .. }) => {
                let judged = verdict(&figures, &self.limits);
                let not_cured = not_cured(&judged);
                After { verdict: cure::without_those_not_cured(judged, &not_cured), figures: Some(figures) }
            }
            Err(failure) => After { verdict: Verdict::unreadable(&failure), figures: None },
        }
    }

    /// The figures of the process that was started: it may be busy at first, with a cache that is empty.
    fn read_new(&self, report: &UnitReport, asker: &mut Asker<'_>) -> Result<Reading, Failure> {
        let old = report.figures.as_ref().and_then(opcache).map(|opcache| opcache.start_time);
        let began = report.last_restart.as_ref().map_or(self.now, |last| last.began);
        let until = Instant::now() + FIRST_FIGURES;
        let mut said = false;
        loop {
            let failure = match asker.read(&report.unit) {
                Ok(reading) if opcache(&reading.figures).is_some_and(|new| is_older(new.start_time, old, began)) => {
                    let why = format!("'{}' still tells the figures of before its restart", report.unit);
                    Failure::new(ExitCode::Unreachable, why)
                }
                other => match other {
                    Ok(reading) => return Ok(reading),
                    Err(failure) => failure,
                },
            };
            // A wrong configuration is as wrong in half a minute.
            let is_final = failure.code == ExitCode::Configuration;
            if is_final || Instant::now() >= until || self.signal().is_some() {
                return Err(failure);
            }
            if !said {
                said = true;
                let (unit, at_most) = (&report.unit, span(FIRST_FIGURES));
                log::info!("waiting for the figures of '{unit}' after its restart, for at most {at_most}: {failure}");
            }
            log::debug!("'{}' after its restart: {failure}", report.unit);
            thread::sleep(PAUSE);
        }
    }
}

/// Whether a cache that was started at this time is the one of before. A clock that was set back does not make a new one an old one.
fn is_older(start: u64, old: Option<u64>, restart_began: u64) -> bool {
    start < restart_began && old.is_none_or(|old| old == start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_before_the_restart_are_not_taken_for_those_after_it() {
        let table = [
            (100, Some(100), 200, true, "the cache of before"),
            (200, Some(100), 200, false, "started in the second in which the restart began"),
            (201, Some(100), 200, false, "started after it"),
            (200, Some(200), 200, false, "both in one second: it is taken at its word"),
            (150, Some(100), 200, false, "another one, and the clock was set back"),
            (100, None, 200, true, "nothing is known of before"),
        ];
        for (start, old, began, older, what) in table {
            assert_eq!(is_older(start, old, began), older, "{what}");
        }
    }
}
