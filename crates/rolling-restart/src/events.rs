//! `--json`: what happens, one object a line, each with the run that also stands in the hosts' own logs.

use restart_core::{Failure, Fqdn, Signal};
use serde::{Serialize, Serializer};

use crate::schedule::{Class, Ending, Halt};
use crate::tally::{Named, Tally};

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
    pub hosts: Lists<'a>,
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
            hosts: Lists::default(),
            remaining: Vec::new(),
            resume: None,
            failures: vec![&failure.message],
        }
    }
}

/// The hosts by what came of them.
#[derive(Debug, Default, Serialize)]
pub struct Lists<'a> {
    done: Vec<&'a Fqdn>,
    skipped: Vec<&'a Fqdn>,
    #[serde(serialize_with = "named")]
    failed: Vec<Named<'a>>,
    #[serde(serialize_with = "named")]
    unreachable: Vec<Named<'a>>,
    #[serde(serialize_with = "named")]
    busy: Vec<Named<'a>>,
    still_running: Vec<&'a Fqdn>,
    never_tried: Vec<&'a Fqdn>,
    perhaps_running: Vec<&'a Fqdn>,
    perhaps_depooled: Vec<&'a Fqdn>,
    #[serde(serialize_with = "named")]
    left_depooled: Vec<Named<'a>>,
}

impl<'a> From<&Tally<'a>> for Lists<'a> {
    fn from(tally: &Tally<'a>) -> Self {
        Self {
            done: tally.done.clone(),
            skipped: tally.skipped.clone(),
            failed: tally.failed.clone(),
            unreachable: tally.unreachable.clone(),
            busy: tally.busy.clone(),
            still_running: tally.still_running.clone(),
            never_tried: tally.never_tried.clone(),
            perhaps_running: tally.perhaps_running.clone(),
            perhaps_depooled: tally.perhaps_depooled.clone(),
            left_depooled: tally.left_depooled.clone(),
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
        Halt::Failures => "as many hosts failed as may (--max-failures)",
        Halt::Unreachable => "as many hosts could not be reached as may (--max-unreachable)",
        Halt::Canary => "a canary failed",
        Halt::Gate => "the gate says no",
        Halt::Signal => "somebody asks for the end",
    }
}

/// Whether a host is to be tried again.
pub fn is_again(class: Option<&Class>) -> bool {
    class == Some(&Class::Waiting)
}

fn named<S: Serializer>(hosts: &[Named<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Host<'a> {
        host: &'a Fqdn,
        message: &'a str,
    }
    serializer.collect_seq(hosts.iter().map(|(host, message)| Host { host, message }))
}
