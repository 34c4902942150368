//! Another run that has this host: the wait for its end, and the words for who it is. Whoever waits says for whom, and for how long at
//! most.

use std::time::Duration;

use restart_core::{Clock as _, ExitCode, Failure, span};

use crate::clock::Monotonic;
use crate::lock::Holder;
use crate::own_folder::FolderError;

/// How often it is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks for something that only one run can have until it is there, for `at_most`; an answer without it says who has it, if that is
/// known. `None`: it was to be waited no longer.
pub fn wait<T>(
    at_most: Duration,
    is_stopped: impl Fn() -> bool,
    mut ask: impl FnMut() -> Result<Result<T, Option<Holder>>, FolderError>,
) -> Result<Option<T>, Failure> {
    let clock = Monotonic::new();
    let until = clock.now() + at_most;
    let mut said = false;
    loop {
        let held_by = match ask()? {
            Ok(found) => return Ok(Some(found)),
            Err(holder) => describe(holder.as_ref()),
        };
        if is_stopped() {
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

/// Who has the host, in words.
pub fn describe(holder: Option<&Holder>) -> String {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn holder() -> Option<Holder> {
        let (reason, user) = (Some("T123".to_owned()), Some("alice".to_owned()));
        Some(Holder { pid: 7, since: "2026-11-23T10:00:00Z".to_owned(), tool: "tool".to_owned(), reason, user })
    }

    #[test]
    fn who_waits_in_vain_is_told_who_has_the_host() {
        let failure = wait::<()>(Duration::from_millis(1), || false, || Ok(Err(holder()))).unwrap_err();
        let words = "another run holds this host, and was waited for 1ms: process 7 of tool since 2026-11-23T10:00:00Z, by 'alice', \
                     because: T123";
        assert_eq!((failure.code, failure.message.as_str()), (ExitCode::TryLater, words));
        let failure = wait::<()>(Duration::ZERO, || false, || Ok(Err(None))).unwrap_err();
        assert_eq!(failure.message, "another run holds this host: who it is, it has not said");
    }

    #[test]
    fn it_is_asked_again_until_it_is_there_or_a_signal_comes() {
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            Ok(if asked.get() < 3 { Err(holder()) } else { Ok("it") })
        };
        assert_eq!(wait(Duration::from_secs(60), || false, ask).unwrap(), Some("it"));
        assert_eq!(asked.get(), 3);
        assert_eq!(wait::<()>(Duration::from_secs(60), || true, || Ok(Err(None))).unwrap(), None);
    }
}
