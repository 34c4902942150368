//! The journal in the hands of the one run that may write it: each change looks first whether the lock of the host, which is a
//! file that can be removed, is still the one that this run holds.

use std::path::Path;

use host::journal::{Found, SetAside};
use host::{FolderError, HostLock, JournalFile, ids};
use restart_core::{ExitCode, Failure, Journal, JournalError, Record};

use crate::run::TOOL;

/// The journal, and the lock that makes it ours.
pub struct HeldJournal {
    file: JournalFile,
    lock: HostLock,
}

impl HeldJournal {
    /// The journal of this machine, with the lock of this host.
    pub fn new(lock: HostLock) -> Result<Self, Failure> {
        Ok(Self { file: file()?, lock })
    }

    /// What stands in it. One that must not be acted on is set aside.
    pub fn load(&self) -> Result<Found, FolderError> {
        self.file.load()
    }

    /// Those set aside that no operator has removed yet.
    pub fn set_aside(&self) -> Result<Vec<SetAside>, FolderError> {
        self.file.set_aside()
    }
}

/// The journal of this machine, for whoever only looks.
pub fn file() -> Result<JournalFile, Failure> {
    let machine = ids::machine().map_err(|error| Failure::new(ExitCode::Configuration, error.to_string()))?;
    Ok(JournalFile::new(Path::new(host::journal::FOLDER), machine))
}

/// Whether the run of this record is alive, which it is without the lock only if somebody removed that: then it goes on by itself.
pub fn is_alive(record: &Record) -> bool {
    let is_of_this_boot = ids::boot().is_ok_and(|boot| boot == record.boot);
    is_of_this_boot && record.pid != std::process::id() && ids::runs(record.pid, TOOL)
}

impl Journal for HeldJournal {
    fn keep(&mut self, record: &Record) -> Result<(), JournalError> {
        self.is_ours()?;
        self.file.keep(record)
    }

    fn clear(&mut self) -> Result<(), JournalError> {
        self.is_ours()?;
        self.file.clear()
    }

    fn is_ours(&mut self) -> Result<(), JournalError> {
        if self.lock.still_ours() {
            return Ok(());
        }
        let folder = host::lock::FOLDER;
        Err(JournalError(format!("somebody removed the lock of this host in '{folder}': another run may be at work")))
    }
}
