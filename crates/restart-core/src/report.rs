//! What a run did and how it ended, as data: `--json` prints it, and the last line on stderr is made of it.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::Signal;
use crate::load_balancer::{Balancer, Verdict};
use crate::names::{Fqdn, PoolName, Tag, UnitName};
use crate::outcome::{ExitCode, Failure};
use crate::pool::Pooled;
use crate::sequence::Place;

/// One run, from the first read to the end.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The host.
    pub host: Option<Fqdn>,
    /// The data centre its pools were looked up in.
    pub data_centre: Option<Tag>,
    /// What happened to the services.
    pub services: ServicesState,
    /// In one clause, what state the host was left in.
    pub state: String,
    /// The pools named, in the order of their names.
    pub pools: Vec<PoolReport>,
    /// The units, in the order given.
    pub units: Vec<UnitReport>,
    /// How many requests were in flight when the drain was over; `None` where nobody counted.
    pub in_flight: Option<u64>,
    /// The phases gone through, in order.
    pub phases: Vec<PhaseReport>,
    /// What a dry run says would be done, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<PlannedStep>,
    /// What is worth knowing and no failure: nodes left to an operator, a start limit reset.
    pub notes: Vec<String>,
    /// Everything that failed; the first decides the exit code.
    #[serde(serialize_with = "sentences")]
    pub failures: Vec<Failure>,
    /// The signal that ended the run, to be raised again.
    pub signal: Option<Signal>,
}

/// How far the services got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServicesState {
    /// No unit was touched.
    Untouched,
    /// At least one unit was restarted, or an attempt was made, and not all run as they should.
    Failed,
    /// Every unit was restarted (or reloaded) and runs.
    Done,
}

/// This host in one pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolReport {
    /// The pool.
    pub pool: PoolName,
    /// The node's place, `DC/CLUSTER/SERVICE/FQDN`.
    pub node: String,
    /// `pooled` as it was found; `None` when the host has no object there.
    pub found: Option<Pooled>,
    /// `pooled` as it was last seen or written.
    pub now: Option<Pooled>,
    /// What its load balancers said last.
    pub load_balancers: Vec<BalancerReport>,
}

/// One load balancer of a pool.
#[derive(Debug, Clone, Serialize)]
pub struct BalancerReport {
    /// Which one.
    pub name: Balancer,
    /// What it said last; `None` if it never answered.
    pub last: Option<Verdict>,
}

/// One unit.
#[derive(Debug, Clone, Serialize)]
pub struct UnitReport {
    /// Which one.
    pub unit: UnitName,
    /// Whether it was restarted (or reloaded) and runs.
    pub ok: bool,
    /// Its main process before.
    pub pid_before: Option<u32>,
    /// Its main process after.
    pub pid: Option<u32>,
    /// What went wrong.
    pub error: Option<String>,
}

/// How long one phase took.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub phase: &'static str,
    /// Its duration, in seconds.
    #[serde(serialize_with = "seconds")]
    pub seconds: Duration,
}

/// Something that would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PlannedStep {
    /// A write to the store.
    Write {
        /// `depool` or `repool`.
        step: &'static str,
        /// The store's key.
        key: String,
        /// The value, whole.
        value: String,
    },
    /// Something done to a unit.
    Unit {
        /// `restart` or `reload`.
        step: &'static str,
        /// The unit.
        unit: UnitName,
    },
}

impl std::fmt::Display for PlannedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { step, key, value } => write!(f, "would {step} {key} {value}"),
            Self::Unit { step, unit } => write!(f, "would {step} {unit}"),
        }
    }
}

impl Report {
    /// An empty report.
    pub(crate) fn new(place: Option<&Place>) -> Self {
        Self {
            host: place.map(|place| place.host.clone()),
            data_centre: place.map(|place| place.data_centre.clone()),
            services: ServicesState::Untouched,
            state: String::new(),
            pools: Vec::new(),
            units: Vec::new(),
            in_flight: None,
            phases: Vec::new(),
            plan: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            signal: None,
        }
    }

    /// A report of a run that ended before it began.
    pub fn nothing_done() -> Self {
        Self::nothing_to_do("nothing was changed")
    }

    /// A report of a run that found all of it done; `state` says what is so.
    pub fn nothing_to_do(state: &str) -> Self {
        Self { state: state.to_owned(), ..Self::new(None) }
    }

    /// A report of a run that failed before it began.
    pub fn refused(failure: Failure) -> Self {
        Self { failures: vec![failure], ..Self::nothing_done() }
    }

    /// Nothing was done and nothing is to be said: a recovery that had nothing to recover.
    pub fn is_nothing(&self) -> bool {
        self.failures.is_empty() && self.signal.is_none() && self.phases.is_empty()
    }

    /// The exit code: that of the first failure.
    pub fn exit_code(&self) -> ExitCode {
        self.failures.first().map_or(ExitCode::Done, |failure| failure.code)
    }

    /// Keeps a note, and says it as a warning.
    pub(crate) fn warn(&mut self, note: String) {
        self.keep(log::Level::Warn, note);
    }

    /// Keeps a note, and says it.
    pub(crate) fn note(&mut self, note: String) {
        self.keep(log::Level::Info, note);
    }

    /// Pools and units are looked at before and after the wait for a slot: what is still so is told once.
    fn keep(&mut self, level: log::Level, note: String) {
        if !self.notes.contains(&note) {
            log::log!(level, "{note}");
            self.notes.push(note);
        }
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e6)
}

fn sentences<S: Serializer>(failures: &[Failure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(failures.iter().map(|failure| &failure.message))
}
