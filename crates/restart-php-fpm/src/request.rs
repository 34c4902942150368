//! `--request -`: what a fleet tool has to say, as one JSON object on standard input. A sudo rule fixes the arguments and cannot fix
//! this, so it is bounded in every way: its size, the time that it may take, its keys and their characters.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use host::words;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;

/// More than any request takes, in bytes: a reason of 512, escaped in the longest way, is 3 KiB.
const LONGEST: usize = 4 * 1024;
/// How long it may take. Whoever asks has it ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The run of the fleet tool, for the log.
    pub run: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// `--force`.
    pub force: bool,
    /// `--reload`.
    pub reload: bool,
    /// `--unless-restarted-since`.
    pub unless_restarted_since: Option<SystemTime>,
    /// Only say how things stand here, in place of all of that.
    pub status: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    run: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    reload: bool,
    unless_restarted_since: Option<String>,
    #[serde(default)]
    status: bool,
}

impl Request {
    /// Reads one from standard input, whose end has to come in time.
    pub fn read() -> Result<Self, String> {
        Self::parse(&all_of_stdin()?)
    }

    /// Reads the object. The error is what is wrong with it.
    fn parse(text: &[u8]) -> Result<Self, String> {
        // serde would take a list for the fields in their order.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err("it is not a JSON object".to_owned());
        }
        let typed: Typed = serde_json::from_slice(text).map_err(|error| host::printable(&error.to_string()))?;
        if typed.status {
            return typed.only_status();
        }
        let of = |key: &str, why: String| format!("its '{key}' is {why}");
        let run = typed.run.map(|text: String| words::run_id(&text)).transpose().map_err(|why| of("run", why))?;
        let reason = typed.reason.map(|text: String| words::reason(&text)).transpose();
        let reason = reason.map_err(|why| format!("its 'reason' {why}"))?;
        let since = typed.unless_restarted_since.map(|text: String| words::time(&text)).transpose();
        let since = since.map_err(|why| of("unless_restarted_since", why))?;
        if typed.force && since.is_some() {
            return Err("it has both 'force' and 'unless_restarted_since'".to_owned());
        }
        let (force, reload) = (typed.force, typed.reload);
        Ok(Self { run, reason, force, reload, unless_restarted_since: since, status: false })
    }
}

impl Typed {
    /// A question goes with nothing else: whoever thinks that it restarts something is told so.
    fn only_status(self) -> Result<Request, String> {
        let others = [
            ("run", self.run.is_some()),
            ("reason", self.reason.is_some()),
            ("force", self.force),
            ("reload", self.reload),
            ("unless_restarted_since", self.unless_restarted_since.is_some()),
        ];
        match others.iter().find(|(_, given)| *given) {
            Some((other, _)) => Err(format!("it has both 'status' and '{other}'")),
            None => Ok(Request { status: true, ..Request::default() }),
        }
    }
}

fn all_of_stdin() -> Result<Vec<u8>, String> {
    let until = Instant::now() + PATIENCE;
    let stdin = io::stdin();
    let mut text = Vec::new();
    let mut part = [0; 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut waits = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waits, left) {
            Ok(0) => return Err(format!("its end did not come within {}", restart_core::span(PATIENCE))),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(format!("it cannot be read: {error}")),
        }
        match stdin.lock().read(&mut part).map_err(|error| format!("it cannot be read: {error}"))? {
            0 => return Ok(text),
            count => text.extend_from_slice(&part[..count]),
        }
        if text.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_said() {
        let text =
            br#"{"run": "4f2a-1", "reason": "wmf.5 \"na\u00efve\"", "reload": true, "unless_restarted_since": "@5"}"#;
        let expected = Request {
            run: Some("4f2a-1".to_owned()),
            reason: Some("wmf.5 \"na\u{ef}ve\"".to_owned()),
            force: false,
            reload: true,
            unless_restarted_since: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)),
            status: false,
        };
        assert_eq!(Request::parse(text), Ok(expected));
        assert_eq!(Request::parse(b"{}"), Ok(Request::default()));
        assert!(Request::parse(br#"{"force": true, "reason": null}"#).unwrap().force);
        assert_eq!(Request::parse(br#"{"status": false}"#), Ok(Request::default()));
    }

    #[test]
    fn a_question_for_the_status_goes_with_nothing_else() {
        let expected = Request { status: true, ..Request::default() };
        assert_eq!(Request::parse(br#"{"status": true, "force": false, "run": null}"#), Ok(expected));
        for other in
            ["run\": \"r-1\"", "reason\": \"\"", "force\": true", "reload\": true", "unless_restarted_since\": \"@1\""]
        {
            let error = Request::parse(format!("{{\"status\": true, \"{other}}}").as_bytes()).unwrap_err();
            assert!(error.starts_with("it has both 'status' and '"), "{other}: {error}");
        }
    }

    #[test]
    fn nothing_else_can_be_said() {
        for (text, why) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"["run", "reason", true, false, null]"#, "not a JSON object"),
            ("{} {}", "trailing"),
            (r#"{"services": ["sshd"]}"#, "unknown field `services`"),
            (r#"{"config": "/tmp/x"}"#, "unknown field"),
            (r#"{"force": "yes"}"#, "invalid type"),
            (r#"{"force": 1}"#, "invalid type"),
            (r#"{"status": "all"}"#, "invalid type"),
            (r#"{"reason": "two\nlines"}"#, "'reason' has a control character"),
            (r#"{"reason": "\u001b[2J"}"#, "'reason' has a control character"),
            (r#"{"run": "a b"}"#, "'run' is not up to 64 letters"),
            (r#"{"run": "../x"}"#, "'run' is not"),
            (r#"{"unless_restarted_since": "yesterday"}"#, "'unless_restarted_since' is not a time"),
            (r#"{"force": true, "unless_restarted_since": "@1"}"#, "both"),
            (r#"{"force": true, "force": false}"#, "duplicate"),
        ] {
            let error = Request::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(513));
        assert_eq!(Request::parse(long.as_bytes()), Err("its 'reason' is longer than 512 bytes".to_owned()));
    }
}
