//! This machine, as the tools see it: its services, its name and addresses, the lock against a second run, signals, time,
//! the log, and the two things that a tool run as root has to distrust, its environment and its configuration files.
//!
//! One file a topic. What the sequence asks for is in `restart_core`'s traits: [`Systemctl`] answers `ServiceManager`,
//! [`Monotonic`] answers `Clock`, [`Signals`] answers `Stop`.

pub mod address;
mod child;
mod clock;
pub mod environment;
pub mod fqdn;
pub mod lock;
pub mod logging;
mod printable;
pub mod signals;
pub mod syslog;
mod systemctl;
pub mod trusted;
mod unit_status;

pub use clock::Monotonic;
pub use environment::Environment;
pub use lock::{Attempt, Holder, HostLock, LockError, Look};
pub use printable::printable;
pub use signals::Signals;
pub use systemctl::Systemctl;
pub use trusted::TrustError;

/// Tests that start programs, or hold a descriptor that programs inherit, take turns: in one process a program started by one
/// test would keep another's lock held, or its script busy.
#[cfg(test)]
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
