//! What a run says while it goes on, and at its end: on standard error, on the terminal's line, and as events.

use std::time::Duration;

use host::syslog;
use log::Level;
use restart_core::{Clock as _, Signal, span};

use crate::events::{self, Event as Told};
use crate::progress;
use crate::report::{self, Resume};
use crate::run::{Ended, Run, TOOL};
use crate::schedule::{Class, Ending, Event, Place};
use crate::tally::{Counts, Tally};

impl Run<'_> {
    /// What the gate came to.
    pub(crate) fn say_gate(&self, passed: bool, words: &str) {
        let (level, says) = if passed { (Level::Info, "says to go on") } else { (Level::Error, "says no") };
        self.progress.say(level, &format!("the gate {says}: {words}"));
        self.progress.event(Told::Gate { passed, message: words });
    }

    /// One line a host, and one when no other is started.
    pub(crate) fn say_what_happened(&mut self, event: Event) {
        if let Event::HostEnded(place, ending) = event {
            self.say_host(place, ending);
        }
        if let Some(halt) = self.schedule.halted().filter(|_| !self.has_halted) {
            self.has_halted = true;
            let counts = Counts::of(self.schedule.classes());
            let why = events::why(halt);
            self.progress.event(Told::Halted { why });
            let waits = match counts.running {
                0 => String::new(),
                running => format!("; waiting for {running} that run"),
            };
            self.progress.say(Level::Error, &format!("no other host is started: {why}{waits}"));
        }
    }

    fn say_host(&self, place: Place, ending: Ending) {
        let (Some(host), Some(record)) = (self.hosts.get(place), self.records.get(place)) else { return };
        let Some(verdict) = &record.verdict else { return };
        let again = self.schedule.classes().get(place) == Some(&Class::Waiting);
        self.progress.event(Told::HostEnded {
            host,
            attempt: record.attempts,
            outcome: events::word(ending),
            exit_code: verdict.exit_code,
            seconds: seconds(record.took),
            again,
            message: &verdict.words,
        });
        let ended = Counts::of(self.schedule.classes()).ended();
        let (took, count) = (span(record.took), format!("{ended} of {}", self.hosts.len()));
        // Of a 0 that came without a report the words tell.
        let code = verdict.exit_code.filter(|code| *code != 0);
        let code = code.map(|code| format!(" with {code}")).unwrap_or_default();
        let words = &verdict.words;
        match ending {
            Ending::Done => self.progress.say_good(&format!("{host}: done in {took} ({count})")),
            Ending::Skipped => self.progress.say_good(&format!("{host}: skipped, {words} ({count})")),
            Ending::Busy if again => self.progress.say(Level::Info, &format!("{host}: to be tried again: {words}")),
            Ending::Busy => self.progress.say(Level::Warn, &format!("{host}: not now: {words} ({count})")),
            Ending::Unreachable => self.progress.say(Level::Warn, &format!("{host}: unreachable: {words} ({count})")),
            Ending::Failed => {
                self.progress.say(Level::Error, &format!("{host}: failed{code} after {took}: {words} ({count})"));
            }
            Ending::LeftDepooled => {
                self.progress.say(Level::Error, &format!("{host}: LEFT DEPOOLED after {took}: {words} ({count})"));
            }
        }
    }

    /// The line on the terminal.
    pub(crate) fn draw(&self) {
        if !self.progress.is_due() {
            return;
        }
        let now = self.clock.now();
        let classes = self.schedule.classes();
        let running = classes.iter().zip(self.hosts).zip(&self.records);
        let running = running.filter(|((class, _), _)| **class == Class::Running);
        let slow = running.map(|((_, host), record)| (host.as_str(), now.saturating_sub(record.started)));
        let waits_for = match (self.schedule.is_at_checkpoint(), self.schedule.has_canaries_out()) {
            (true, _) => Some("before the next batch"),
            (_, true) => Some("canaries"),
            _ => None,
        };
        let restarted = classes.iter().zip(&self.records).filter(|(class, _)| **class == Class::Ended(Ending::Done));
        let counts = Counts::of(classes);
        let to_come = match self.schedule.halted() {
            Some(_) => counts.running,
            None => self.hosts.len().saturating_sub(counts.ended()),
        };
        let left = progress::estimate(restarted.map(|(_, record)| record.took), to_come, self.schedule.window());
        self.progress.draw(counts, waits_for, left, slow);
    }

    /// Says how it ended.
    pub(crate) fn conclude(&self, resume: &Resume, signal: Option<Signal>) -> Ended {
        self.progress.end();
        let tally = Tally::new(self.hosts, self.schedule.classes(), &self.records, self.schedule.halted());
        let (exit_code, signal) = (tally.exit_code(), tally.dies_by(signal));
        let ended = match signal {
            Some(signal) => format!("ended by {}", signal.name()),
            None => format!("ended with {}", exit_code.number()),
        };
        let took = self.clock.now();
        let span = span(took).to_string();
        for (level, line) in report::lines(&tally, &ended, &span, resume) {
            log::log!(level, "{line}");
        }
        syslog::notice(TOOL, &format!("run {}: {}", self.id, report::line(&tally, &ended, &span, resume)));
        let remaining = tally.remaining();
        let command = match resume {
            Resume::Command { command, .. } if !remaining.is_empty() => Some(command.as_str()),
            Resume::Command { .. } | Resume::Names => None,
        };
        self.progress.event(Told::End(Box::new(events::End {
            exit_code: signal.map_or(exit_code.number(), |signal| 128 + signal.number()),
            signal,
            seconds: seconds(took),
            hosts: tally,
            remaining,
            resume: command,
            failures: Vec::new(),
        })));
        Ended { exit_code, signal }
    }
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}
