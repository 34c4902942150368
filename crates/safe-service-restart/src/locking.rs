//! The lock of the host, as each kind of run takes it (design, rule 7): a safe run waits for it, a recovery goes away, an
//! emergency does without.

use std::path::Path;
use std::time::Duration;

use host::other_run::{self, describe};
use host::{Attempt, FolderError, Holder, HostLock, Look, lock};
use restart_core::{ExitCode, Failure, Stop};

fn try_once(holder: &Holder) -> Result<Attempt, FolderError> {
    HostLock::try_acquire(Path::new(lock::FOLDER), holder)
}

/// Waits for the host's lock for `at_most`; `None`: a signal came first.
pub fn wait(holder: &Holder, at_most: Duration, stop: &dyn Stop) -> Result<Option<HostLock>, Failure> {
    other_run::wait(
        at_most,
        || stop.requested().is_some(),
        || {
            Ok(match try_once(holder)? {
                Attempt::Acquired(lock) => Ok(lock),
                Attempt::Held(holder) => Err(holder),
            })
        },
    )
}

/// For a forced restart: takes the lock if it is free, so that no safe run begins meanwhile, and never waits for it.
pub fn if_possible(holder: &Holder) -> Option<HostLock> {
    match try_once(holder) {
        Ok(Attempt::Acquired(lock)) => Some(lock),
        Ok(Attempt::Held(holder)) => {
            let holder = describe(holder.as_ref());
            log::warn!("--force: another run holds this host, and is not waited for: {holder}");
            None
        }
        Err(error) => {
            log::warn!("--force: going on without the lock of this host: {error}");
            None
        }
    }
}

/// For a recovery: `None` if somebody has it, who finishes its own work.
pub fn if_free(holder: &Holder) -> Result<Option<HostLock>, Failure> {
    Ok(match try_once(holder)? {
        Attempt::Acquired(lock) => Some(lock),
        Attempt::Held(_) => None,
    })
}

/// For a dry run: the same answer as the run would get now, without taking anything.
pub fn nobody_else_runs() -> Result<(), Failure> {
    match lock::peek(Path::new(lock::FOLDER)) {
        Ok(Look::Held(holder)) => {
            let message = format!("another run holds this host: {}", describe(holder.as_ref()));
            Err(Failure::new(ExitCode::TryLater, message))
        }
        Ok(Look::Free) => Ok(()),
        // The folder is root's own: for anybody else this question has no answer.
        Err(error) => {
            log::debug!("cannot tell whether another run holds this host: {error}");
            Ok(())
        }
    }
}
