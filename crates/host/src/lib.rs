//! This machine, as the tools see it: its services, its names and addresses, the lock against a second run, the journal of
//! a run that may die, signals, time, the log, and the two things that a tool run as root has to distrust, its environment
//! and its configuration files.
//!
//! One file a topic. What the sequence asks for is in `restart_core`'s traits: [`Systemctl`] answers `ServiceManager`,
//! [`Monotonic`] answers `Clock`, [`Signals`] answers `Stop`, [`JournalFile`] answers `Journal`.

pub mod address;
pub mod child;
pub mod clock;
pub mod connections;
pub mod duration;
mod envelope;
pub mod environment;
pub mod fqdn;
mod handed_down;
pub mod ids;
pub mod inherited;
pub mod journal;
mod listeners;
pub mod lock;
pub mod logging;
pub mod other_run;
pub mod output;
mod own_folder;
mod printable;
pub mod queue;
mod replace;
pub mod settings_file;
pub mod signals;
mod state_folder;
mod stderr;
pub mod syslog;
mod systemctl;
pub mod textfile;
pub mod trusted;
pub mod unit_status;
mod unshared;
pub mod words;

pub use clock::Monotonic;
pub use environment::Environment;
pub use ids::MachineId;
pub use journal::JournalFile;
pub use lock::{Attempt, Holder, HostLock, Look};
pub use own_folder::FolderError;
pub use printable::{printable, shortened};
pub use signals::Signals;
pub use state_folder::StateFolder;
pub use stderr::Patient;
pub use systemctl::Systemctl;
pub use trusted::TrustError;
pub use unshared::Unshared;

/// Tests that start programs, or hold a descriptor that programs inherit, take turns: in one process a program started by one
/// test would keep another's lock held, or its script busy.
#[cfg(test)]
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
