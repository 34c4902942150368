//! What callers may write: a reason, the name of a run and that of a user, which end in logs and reports, so that they are bounded and
//! without what could forge a line of its own (the journal and JSON escape the rest); and a time.

use std::time::{Duration, SystemTime};

use crate::printable::is_treacherous;

/// The bytes a reason may take in a log line.
const LONGEST_REASON: usize = 512;
/// How far two hosts' clocks may be apart.
const SKEW: Duration = Duration::from_secs(300);
/// The characters of a run's name. Those that these tools make have 32.
const LONGEST_RUN: usize = 64;
/// The longest user name of Linux's user database tools is 32; directory services have longer ones.
const LONGEST_USER: usize = 64;

/// Reads a reason: one line, of a length that one can read.
pub fn reason(text: &str) -> Result<String, String> {
    if text.chars().any(is_treacherous) {
        return Err("has a control character or more than one line".to_owned());
    }
    if text.len() > LONGEST_REASON {
        return Err(format!("is longer than {LONGEST_REASON} bytes"));
    }
    Ok(text.to_owned())
}

/// Reads the name of a run: letters, digits and hyphens.
pub fn run_id(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.is_empty() || text.len() > LONGEST_RUN || !text.chars().all(fits) {
        return Err(format!("not up to {LONGEST_RUN} letters, digits and hyphens"));
    }
    Ok(text.to_owned())
}

/// Reads a user's name, in the characters that one can have, `DOMAIN\user` and `user@domain` among them, and which is no option.
pub fn user(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@+\\$".contains(c);
    if text.is_empty() || text.len() > LONGEST_USER || text.starts_with('-') || !text.chars().all(fits) {
        return Err("not a user's name".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a time: `2026-11-23T10:00:00Z`, or seconds since 1970, with or without `@` before them, as `date +%s` prints them.
pub fn time(text: &str) -> Result<SystemTime, String> {
    let seconds = text.strip_prefix('@').unwrap_or(text).parse().ok().filter(|_| !text.contains(['+', '-']));
    let since = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    match seconds {
        Some(seconds) => since(seconds).ok_or_else(|| "too far away".to_owned()),
        None => humantime::parse_rfc3339(text)
            .map_err(|_| "not a time such as 2026-11-23T10:00:00Z, or seconds since 1970".to_owned()),
    }
}

/// Refuses a time that nothing can have happened after: milliseconds for seconds, or a local time for UTC, and a fleet would be restarted
/// once more.
pub fn not_to_come(time: SystemTime, now: SystemTime) -> Result<(), &'static str> {
    if now.checked_add(SKEW).is_some_and(|latest| time > latest) {
        return Err("is in the future: it is in seconds since 1970, not milliseconds, or RFC 3339 in UTC");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_a_bounded_length() {
        assert_eq!(reason("deploy of 1.43, \"na\u{ef}ve\""), Ok("deploy of 1.43, \"na\u{ef}ve\"".to_owned()));
        let long = "x".repeat(513);
        for text in ["two\nlines", "\u{1b}[2J", "\u{7f}", "\u{85}", "\u{202e}", "\u{2028}", &long] {
            assert!(reason(text).is_err(), "{text:?} passed");
        }
    }

    /// Web pages and documents are full of them, and who pastes a reason in an emergency does not see what would be wrong.
    #[test]
    fn a_mark_that_nobody_sees_keeps_no_reason_from_being_given() {
        for text in ["T123\u{200b}", "\u{feff}T123", "T\u{2060}123"] {
            assert_eq!(reason(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_run_is_named_by_letters_digits_and_hyphens() {
        for text in ["4f2a", "r-2026-11-23", &"a".repeat(64)] {
            assert_eq!(run_id(text).as_deref(), Ok(text));
        }
        for text in ["", "a b", "a/b", "a;b", "\u{e9}", &"a".repeat(65)] {
            assert!(run_id(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn a_user_is_called_as_a_user_can_be() {
        for name in ["root", "alice", "a.b-c_d", "EXAMPLE\\alice", "alice@example.org", "host$"] {
            assert_eq!(user(name).as_deref(), Ok(name));
        }
        for junk in ["", "-x", "a b", "a\nb", "a\u{1b}[2J", "é", "a\"b", "a{b}", &"a".repeat(65)] {
            assert!(user(junk).is_err(), "{junk:?} passed");
        }
    }

    #[test]
    fn times_are_those_of_machines() {
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        for text in ["86400", "@86400", "1970-01-02T00:00:00Z"] {
            assert_eq!(time(text), Ok(day), "{text}");
        }
        for text in ["", "@", "+86400", "-1", "1970-01-02", "1970-01-02 00:00", "99999999999999999999", "2h"] {
            assert!(time(text).is_err(), "'{text}' passed");
        }
    }

    #[test]
    fn a_time_in_the_future_is_refused_unless_two_clocks_may_differ_by_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        for (ahead, passes) in [(0, true), (300, true), (301, false)] {
            assert_eq!(not_to_come(now + Duration::from_secs(ahead), now).is_ok(), passes, "{ahead} s ahead");
        }
    }
}
