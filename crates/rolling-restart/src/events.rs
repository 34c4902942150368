//! `--json`: what happens, one object a line, each with the run that also stands in the hosts' own logs.

use restart_core::{Failure, Fqdn, Signal};
use serde::Serialize;

use crate::schedule::{Ending, Halt};
use crate::tally::Tally;

/// A line.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When, in UTC, to the millisecond: that of `begin` is a time to resume from, and hosts restarted in its second count.
    pub time: String,
    /// The run.
    pub run: &'a str,
    #[serde(flatten)]
    pub event: Event<'a>,
}

/// What happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// `--dry-run`: some hosts that would be out at the same time.
    Batch { canaries: bool, hosts: &'a [Fqdn] },
    /// The hosts are known.
    Begin { version: &'static str, force: bool, reload: bool, reason: Option<&'a str>, hosts: usize, at_once: usize },
    /// A host was started.
    HostStarted { host: &'a Fqdn, attempt: u32 },
    /// An attempt at a host ended.
    HostEnded {
        host: &'a Fqdn,
        attempt: u32,
        outcome: &'static str,
        exit_code: Option<u8>,
        seconds: f64,
        again: bool,
        message: &'a str,
    },
    /// The gate was asked.
    Gate { passed: bool, message: &'a str },
    /// No further host is started.
    Halted { why: &'static str },
    /// All is over.
    End(Box<End<'a>>),
}

/// The report.
#[derive(Debug, Serialize)]
pub struct End<'a> {
    /// As a shell sees it: 128 and its number for a signal.
    pub exit_code: u8,
    pub signal: Option<Signal>,
    pub seconds: f64,
    #[serde(flatten)]
    pub hosts: Tally<'a>,
    /// The hosts that are not restarted as they should be.
    pub remaining: Vec<&'a Fqdn>,
    /// The command that goes on.
    pub resume: Option<&'a str>,
    /// Why nothing was begun.
    pub failures: Vec<&'a str>,
}

impl<'a> End<'a> {
    /// Of a run that failed before it began.
    pub fn nothing_begun(failure: &'a Failure) -> Self {
        Self {
            exit_code: failure.code.number(),
            signal: None,
            seconds: 0.0,
            hosts: Tally::default(),
            remaining: Vec::new(),
            resume: None,
            failures: vec![&failure.message],
        }
    }
}

/// An outcome as one word.
pub fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Done => "done",
        Ending::Skipped => "skipped",
        Ending::Failed => "failed",
        Ending::LeftDepooled => "left-depooled",
        Ending::Unreachable => "unreachable",
        Ending::Busy => "busy",
    }
}

/// A reason as a clause.
pub fn why(halt: Halt) -> &'static str {
    match halt {
        Halt::Failures => "the budget of failures is used up (--max-failures)",
        Halt::Unreachable => "the budget of unreachable hosts is used up (--max-unreachable)",
        Halt::Canary => "a canary failed",
        Halt::Gate => "the gate says no",
        Halt::Signal => "somebody asks for the end",
    }
}
