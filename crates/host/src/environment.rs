//! What a tool run as root takes from the caller's environment: who called sudo, and whether stderr is the journal, both for
//! the log alone. Everything else is removed before any library can look: `getaddrinfo` heeds `RES_OPTIONS`, `LOCALDOMAIN`
//! and `HOSTALIASES`, HTTP clients heed proxies, loggers heed `RUST_LOG`, and systemctl would inherit what is left.
//!
//! What the environment would otherwise say of the user comes from the password database.

use std::ffi::OsStr;
use std::path::PathBuf;

use nix::unistd::{Uid, User};

use crate::words;

/// All that is kept of the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The user who called sudo, by `SUDO_USER`; `None` too if it is nothing that a user could be called. Root can set it to
    /// anything: good for a log line, not for a decision.
    pub sudo_user: Option<String>,
    /// The socket that stderr was connected to when systemd started us, by `JOURNAL_STREAM`.
    pub journal_stream: Option<JournalStream>,
}

/// A socket by its numbers, as systemd passes it in `JOURNAL_STREAM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalStream {
    /// The device number, as fstat(2) gives it.
    pub device: u64,
    /// The inode number.
    pub inode: u64,
}

/// Keeps what [`Environment`] has room for and removes all variables, also malformed ones.
///
/// # Panics
///
/// If another thread is running: this is to be called first in `main`.
pub fn take() -> Environment {
    let environment = Environment {
        sudo_user: std::env::var_os("SUDO_USER").and_then(|value| words::user(value.to_str()?).ok()),
        journal_stream: std::env::var_os("JOURNAL_STREAM").and_then(|value| journal_stream(&value)),
    };
    remove_all();
    environment
}

/// Removes every variable.
#[allow(unsafe_code)]
fn remove_all() {
    assert!(!has_other_threads(), "the environment is taken before any thread is started");
    // SAFETY: the process has one thread, this one, so nobody reads or writes the environment at the same time; and no
    // pointer into it is held here, since `var_os` returns copies.
    let removed = unsafe { nix::env::clearenv() };
    debug_assert!(removed.is_ok(), "glibc's clearenv(3) has no way to fail");
}

/// Counts the threads in proc(5). Where that is not mounted (no host that runs systemd) `main` is taken at its word.
fn has_other_threads() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1)
}

/// `DEVICE:INODE`, both decimal.
fn journal_stream(value: &OsStr) -> Option<JournalStream> {
    let (device, inode) = value.to_str()?.split_once(':')?;
    Some(JournalStream { device: device.parse().ok()?, inode: inode.parse().ok()? })
}

/// Whether we run with root's rights.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The name of the user whose rights we run with; `None` if the password database has none for its number.
pub fn user_name() -> Option<String> {
    user_record().map(|user| user.name)
}

/// The home folder of the user whose rights we run with, by the password database; `None` if it has none.
pub fn home() -> Option<PathBuf> {
    user_record().map(|user| user.dir)
}

fn user_record() -> Option<User> {
    User::from_uid(Uid::effective()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_stream_is_two_numbers_or_nothing() {
        assert_eq!(journal_stream(OsStr::new("8:1234567")), Some(JournalStream { device: 8, inode: 1_234_567 }));
        for junk in ["", "8", "8:", ":9", "8:9:10", "-8:9", "8:x", "99999999999999999999:1"] {
            assert_eq!(journal_stream(OsStr::new(junk)), None, "{junk:?} passed");
        }
    }

    #[test]
    fn other_threads_are_noticed() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || held.recv());
        assert!(has_other_threads());
        drop(release);
        assert!(other.join().unwrap().is_err());
    }

    #[test]
    fn the_user_comes_from_the_password_database() {
        let user = User::from_uid(Uid::effective()).unwrap().expect("the user who runs the tests is in the database");
        assert_eq!(user_name().as_deref(), Some(user.name.as_str()));
        assert_eq!(home(), Some(user.dir));
        assert_eq!(is_root(), user.uid.as_raw() == 0);
    }
}
