//! The lock of the host, as each kind of run takes it (design, rule 7): a safe run waits for it, a recovery goes away, an
//! emergency does without.

use std::path::Path;
use std::time::Duration;

use host::{Attempt, FolderError, Holder, HostLock, Look, Monotonic, lock};
use restart_core::{Clock, ExitCode, Failure, Stop, span};

/// How often a run that waits for the lock looks again.
const PAUSE: Duration = Duration::from_millis(100);

fn try_once(holder: &Holder) -> Result<Attempt, FolderError> {
    HostLock::try_acquire(Path::new(lock::FOLDER), holder)
}

/// Waits for the host's lock for `at_most`; `None`: a signal came first.
pub fn wait(holder: &Holder, at_most: Duration, stop: &dyn Stop) -> Result<Option<HostLock>, Failure> {
    let clock = Monotonic::new();
    let until = clock.now() + at_most;
    let mut said = false;
    loop {
        let held_by = match try_once(holder) {
            Ok(Attempt::Acquired(lock)) => return Ok(Some(lock)),
            Ok(Attempt::Held(holder)) => describe(holder.as_ref()),
            Err(error) => return Err(folder_failure(&error)),
        };
        if stop.requested().is_some() {
            return Ok(None);
        }
        let left = until.saturating_sub(clock.now());
        if left.is_zero() {
            let waited = Some(at_most).filter(|waited| !waited.is_zero());
            let waited = waited.map(|waited| format!(", and was waited for {}", span(waited))).unwrap_or_default();
            let message = format!("another run holds this host{waited}: {held_by}");
            return Err(Failure::new(ExitCode::TryLater, message));
        }
        if !said {
            said = true;
            log::warn!("waiting for another run on this host to end, for at most {}: {held_by}", span(left));
        }
        clock.sleep(left.min(PAUSE));
    }
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
    match try_once(holder) {
        Ok(Attempt::Acquired(lock)) => Ok(Some(lock)),
        Ok(Attempt::Held(_)) => Ok(None),
        Err(error) => Err(folder_failure(&error)),
    }
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

/// A folder of ours that is not as it should be.
pub fn folder_failure(error: &FolderError) -> Failure {
    Failure::new(error.exit_code(), error.to_string())
}

fn describe(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else { return "who it is, it has not said".to_owned() };
    let mut text = format!("process {} of {} since {}", holder.pid, holder.tool, holder.since);
    if let Some(user) = &holder.user {
        text += &format!(", by '{user}'");
    }
    if let Some(reason) = &holder.reason {
        text += &format!(", because: {reason}");
    }
    text
}
