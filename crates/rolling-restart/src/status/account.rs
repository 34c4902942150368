//! The answer of a host, which is the object that `safe-service-restart --status --json` prints there: what of it says who took the
//! host out. What does not say so, or is something else, is no answer.

use std::time::Duration;

use restart_core::{ExitCode, Fqdn, Pooled, Tag};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Entry;
use crate::answer::{AT_TERMINAL, End, SSH_FAILED, last_line, last_words, short};
use crate::process::Finished;

/// What these tools have to do with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Out on purpose: a unit does not run as it should, and nobody brings the host back but an operator or the next run that
    /// succeeds.
    Held,
    /// A run is at it.
    UnderWay,
    /// A run died, and the recovery there brings it back.
    Interrupted,
    /// The same, once that has ended what the run started.
    Orphaned,
    /// Nothing: if it is out, somebody else took it out.
    NotOurs,
    /// The host cannot say.
    Unclear,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub state: State,
    /// Who, why and since when, where a run has to do with it.
    pub run: Run,
    /// The host's own sentence.
    pub headline: String,
    pub exit_code: ExitCode,
    /// All of it.
    pub whole: Value,
}

/// A run on a host, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Run {
    pub user: Option<String>,
    pub since: Option<String>,
    pub run: Option<String>,
    /// The run over many hosts that it is part of.
    pub fleet_run: Option<String>,
    pub phase: Option<String>,
    pub reason: Option<String>,
}

/// As much of the object as matters here.
#[derive(Deserialize)]
struct Object {
    exit_code: u8,
    state: String,
    host: Option<Fqdn>,
    journal: Journal,
    #[serde(default)]
    lock: Lock,
}

#[derive(Deserialize)]
struct Journal {
    state: String,
    left: Option<Left>,
    #[serde(default)]
    set_aside: Vec<Value>,
}

#[derive(Deserialize)]
struct Left {
    what: String,
    host: Fqdn,
    #[serde(flatten)]
    run: Run,
}

#[derive(Default, Deserialize)]
struct Lock {
    #[serde(default)]
    state: String,
    holder: Option<Run>,
}

/// What restart-php-fpm(8) prints where it does not come to a status.
#[derive(Deserialize)]
struct Refusal {
    failures: Vec<String>,
}

impl Account {
    /// Reads what a program here brought back from a host. The error is why there is no answer.
    pub(super) fn read(finished: &Finished, allowed: Duration) -> Result<Self, String> {
        let said = |otherwise: &str| last_words(&finished.stderr, otherwise);
        match finished.end {
            End::TimeOver => return Err(format!("no answer within {}", restart_core::span(allowed))),
            End::Signal(signal) => return Err(format!("the program that reaches it was ended by signal {signal}")),
            End::AtTerminal => return Err(AT_TERMINAL.to_owned()),
            End::Code(_) => {}
        }
        let line = last_line(&finished.stdout).unwrap_or_default();
        if let Ok(whole) = serde_json::from_slice::<Value>(line)
            && let Ok(object) = Object::deserialize(&whole)
        {
            return Ok(Self::new(object, whole));
        }
        match (serde_json::from_slice::<Refusal>(line), finished.end) {
            (Ok(Refusal { failures }), _) if !failures.is_empty() => Err(short(&failures.join("; "))),
            (_, End::Code(SSH_FAILED)) => Err(said("ssh does not say why")),
            (_, End::Code(code)) => Err(format!("ended with {code} and no status: {}", said("it said nothing"))),
            (_, End::TimeOver | End::AtTerminal | End::Signal(_)) => Err("no status".to_owned()),
        }
    }

    fn new(object: Object, whole: Value) -> Self {
        let state = object.state();
        let other = object.left_of_another().map(|other| format!("what a run left there is about '{other}'"));
        let headline = short(other.as_ref().unwrap_or(&object.state));
        let run = match state {
            State::NotOurs | State::Unclear => None,
            _ => object.journal.left.map(|left| left.run).or(object.lock.holder),
        };
        Self {
            state,
            run: run.unwrap_or_default().printable(),
            headline,
            exit_code: exit_code(object.exit_code),
            whole,
        }
    }

    /// The host in the store, by its own look.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let pools = self.whole.get("pools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut entries = Vec::new();
        for pool in pools {
            let service = pool.get("node").and_then(Value::as_str).and_then(|node| node.split('/').nth(2));
            let pooled = pool.pointer("/store/pooled").and_then(Value::as_str).and_then(Pooled::parse);
            if let (Some(Ok(service)), Some(pooled)) = (service.map(Tag::new), pooled) {
                let entry = Entry { service, pooled };
                // Several pools of the catalog can be one in the store.
                if !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
        }
        entries
    }
}

impl Object {
    /// A machine can have several names in the pools, and what a run left is about one of them.
    fn left_of_another(&self) -> Option<&Fqdn> {
        let left = &self.journal.left.as_ref()?.host;
        self.host.as_ref().is_some_and(|host| host != left).then_some(left)
    }

    fn state(&self) -> State {
        let is_taken = self.lock.state == "held";
        if self.left_of_another().is_some() {
            return State::Unclear;
        }
        match (&self.journal.left, self.journal.state.as_str()) {
            (Some(left), _) => match left.what.as_str() {
                "held" => State::Held,
                "under-way" => State::UnderWay,
                "interrupted" => State::Interrupted,
                "orphaned" => State::Orphaned,
                // A word of a later version.
                _ => State::Unclear,
            },
            // It has not taken the host out yet, or does not mean to.
            (None, "empty") if is_taken => State::UnderWay,
            (None, "empty") if self.journal.set_aside.is_empty() => State::NotOurs,
            (None, _) => State::Unclear,
        }
    }
}

impl Run {
    fn printable(self) -> Self {
        let clean = |text: Option<String>| text.map(|text| short(&text)).filter(|text| !text.is_empty());
        Self {
            user: clean(self.user),
            since: clean(self.since),
            run: clean(self.run),
            fleet_run: clean(self.fleet_run),
            phase: clean(self.phase),
            reason: clean(self.reason),
        }
    }
}

/// A code that a status has no business with is a failure.
fn exit_code(number: u8) -> ExitCode {
    ExitCode::OF_A_STATUS
        .into_iter()
        .chain([ExitCode::Done])
        .find(|code| code.number() == number)
        .unwrap_or(ExitCode::Failed)
}
