//! Is anything in flight here, and is it ready again: asked of the services themselves, not of whoever starts them or sends to
//! them.

use std::time::Duration;

use crate::names::UnitName;
use crate::service::UnitStatus;

/// Asks the services of this host.
pub trait Probe {
    /// Learns what a unit runs, before anything is changed. The error says why its requests in flight cannot be counted, and
    /// what to configure so that they can: it is no failure, time alone decides then. A unit that does not run has none.
    fn learn(&mut self, unit: &UnitName, status: &UnitStatus) -> Result<(), String>;

    /// What is in flight at the units learned, or waits for one of them; where a unit counts none itself, the connections to these
    /// ports. Answers within `at_most`, as a whole.
    fn in_flight(&mut self, ports: &[u16], at_most: Duration) -> Result<InFlight, NoCount>;

    /// Whether a unit that runs serves, too. The error says why it does not, or not yet.
    fn ready(&mut self, unit: &UnitName) -> Result<(), String>;

    /// Whether this address answers as one that is well. The error says what came instead.
    fn answers(&mut self, url: &str) -> Result<(), String>;
}

/// What was in flight at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// How many.
    pub count: u64,
    /// Of what, in the plural: `requests`, or `connections` where the kernel counted, idle ones too.
    pub of: &'static str,
}

/// Why there is no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCount {
    /// In words.
    pub why: String,
    /// What that means.
    pub cause: Cause,
}

/// What it means that there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The service gave no answer in time, as one does that is too busy; so something is probably in flight.
    Busy,
    /// It does not talk to whoever runs this.
    NotPermitted,
    /// Nobody answers there, or not as was expected.
    NoAnswer,
}
