//! Is anything in flight here, and is it ready again: asked of the services themselves, not of whoever starts them or sends to
//! them.

use crate::names::UnitName;
use crate::service::UnitStatus;

/// Asks the services of this host.
pub trait Probe {
    /// Learns what a unit runs, before anything is changed. The error says why its requests in flight cannot be counted, and
    /// what to configure so that they can: it is no failure, time alone decides then.
    fn learn(&mut self, unit: &UnitName, status: &UnitStatus) -> Result<(), String>;

    /// How many requests are in flight at the units learned, or wait for one of them; where a unit counts none itself, how many
    /// connections there are to these ports. The error says why there is no number now, as of a service that is too busy to
    /// answer.
    fn in_flight(&mut self, ports: &[u16]) -> Result<u64, String>;

    /// Whether a unit that runs serves, too. The error says why it does not, or not yet.
    fn ready(&mut self, unit: &UnitName) -> Result<(), String>;

    /// Whether this address answers as one that is well. The error says what came instead.
    fn answers(&mut self, url: &str) -> Result<(), String>;
}
