//! What an attempt at a host came to: judged from how ssh ended and from the report that restart-php-fpm printed, fail closed. Facts in,
//! verdict out.

use std::time::Duration;

use host::{printable, shortened};
use restart_core::{ExitCode, span};
use serde::Deserialize;

use crate::schedule::Ending;

/// ssh's own exit code: it did not get through, or lost the connection.
pub const SSH_FAILED: u8 = 255;
/// Those that speak on the host: what a line of theirs begins with.
const TOOLS: [&str; 2] = ["restart-php-fpm", "safe-service-restart"];
/// What is to be said of a program that asks at the terminal.
pub const AT_TERMINAL: &str = "it asks for something at the terminal, where it gets no answer";
/// The longest sentence that is repeated, in characters.
const LONGEST: usize = 300;

/// How the program that was run here ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Code(u8),
    /// By a signal that was not ours.
    Signal(i32),
    /// By us: its time was over.
    TimeOver,
    /// By us: it asks at the terminal, where nobody can answer.
    AtTerminal,
}

/// An attempt, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub ending: Ending,
    /// The exit code of the tool there, where there is one.
    pub exit_code: Option<u8>,
    /// What is to be said about it.
    pub words: String,
    /// Whether the host may be out of its pools, and recovery there is to bring it back.
    pub perhaps_depooled: bool,
    /// Whether the tool there may still be at it.
    pub perhaps_running: bool,
}

/// What restart-php-fpm(8) prints, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Report {
    exit_code: u8,
    #[serde(default)]
    services: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    failures: Vec<String>,
}

/// What is known of an attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub end: End,
    pub stdout: &'a [u8],
    pub stderr: &'a [u8],
    /// Whether a report has to come: of restart-php-fpm, not of any other command.
    pub reports: bool,
    /// A forced restart leaves no pool, and so leaves none behind.
    pub forced: bool,
    /// How long it was allowed to take.
    pub allowed: Duration,
}

impl Attempt<'_> {
    /// What it came to.
    pub fn judge(&self) -> Verdict {
        let report = if self.reports { report(self.stdout) } else { None };
        match (self.end, report) {
            // ssh says 255 as well when the command was ended by a signal; then the report tells.
            (End::Code(code), Some(report)) if code == report.exit_code || code == SSH_FAILED => self.reported(&report),
            (End::Code(code), Some(report)) => {
                let words = format!("ended with {code} and reports {}: {}", report.exit_code, words(&report));
                let worse = [code, report.exit_code].contains(&ExitCode::LeftDepooled.number()) && !self.forced;
                let ending = if worse { Ending::LeftDepooled } else { Ending::Failed };
                Verdict { perhaps_depooled: !self.forced && !worse, ..Verdict::new(ending, Some(code), words) }
            }
            (End::Code(SSH_FAILED), None) => Verdict::new(Ending::Unreachable, None, self.why_unreachable()),
            (End::Code(0), None) if self.reports => {
                let words = format!("ended with 0 and no report: {}", self.last_words("it said nothing"));
                Verdict::new(Ending::Failed, Some(0), words)
            }
            (End::Code(code), None) if self.reports && code == ExitCode::Usage.number() => {
                self.by_code(code, &format!("no request is taken there: {}", self.complaint()))
            }
            (End::Code(code), None) => self.by_code(code, &self.last_words("it does not say why")),
            // A tool's last word is its report. That ssh did not end by itself means no more than that something there holds the connection.
            (End::Signal(_) | End::TimeOver | End::AtTerminal, Some(report)) => self.reported(&report),
            (End::Signal(signal), None) => {
                let words = format!("the program that reaches it was ended by signal {signal}");
                Verdict { perhaps_running: true, ..Verdict::new(Ending::Failed, None, words) }
            }
            (End::TimeOver, None) => {
                let words = format!("no end within {}", span(self.allowed));
                Verdict { perhaps_running: true, ..Verdict::new(Ending::Failed, None, words) }
            }
            // Who asks for a password has not reached the host yet, unless something came from there.
            (End::AtTerminal, None) => Verdict {
                perhaps_running: !self.stdout.is_empty() || is_of_a_tool(&self.last_words("")),
                ..Verdict::new(Ending::Failed, None, AT_TERMINAL.to_owned())
            },
        }
    }

    fn reported(&self, report: &Report) -> Verdict {
        match report.exit_code {
            0 if report.services == "untouched" => Verdict::new(Ending::Skipped, Some(0), words(report)),
            code => self.by_code(code, &words(report)),
        }
    }

    fn by_code(&self, code: u8, words: &str) -> Verdict {
        let is = |known: ExitCode| code == known.number();
        let ending = if is(ExitCode::Done) {
            Ending::Done
        } else if is(ExitCode::TryLater) {
            Ending::Busy
        } else if is(ExitCode::LeftDepooled) && !self.forced {
            Ending::LeftDepooled
        } else {
            Ending::Failed
        };
        let unconfirmed = is(ExitCode::RepoolUnconfirmed) || is(ExitCode::PutBackUnconfirmed);
        Verdict { perhaps_depooled: unconfirmed && !self.forced, ..Verdict::new(ending, Some(code), words.to_owned()) }
    }

    /// ssh says why it did not get through, but nothing of a connection that it had and lost: then the last line is the host's.
    fn why_unreachable(&self) -> String {
        let last = self.last_words("ssh does not say why");
        match is_of_a_tool(&last) {
            true => format!("the connection was lost, and the host may be in the middle of it; it last said: {last}"),
            false => last,
        }
    }

    /// What a tool that does not know `--request` says first; it goes on with how to call it.
    fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(self.stderr);
        let line = text.lines().map(str::trim).find(|line| line.starts_with("error: "));
        line.map_or_else(|| self.last_words("it does not say why"), short)
    }

    fn last_words(&self, otherwise: &str) -> String {
        last_words(self.stderr, otherwise)
    }
}

impl Verdict {
    /// A verdict with nothing in doubt.
    pub fn new(ending: Ending, exit_code: Option<u8>, words: String) -> Self {
        Self { ending, exit_code, words, perhaps_depooled: false, perhaps_running: false }
    }
}

fn report(stdout: &[u8]) -> Option<Report> {
    serde_json::from_slice(last_line(stdout)?).ok()
}

/// The last line, which is what a tool answers; what shells print as they start stands before it.
pub fn last_line(stdout: &[u8]) -> Option<&[u8]> {
    stdout.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty())
}

/// The last line of what it said.
pub fn last_words(said: &[u8], otherwise: &str) -> String {
    let text = String::from_utf8_lossy(said);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map_or_else(|| otherwise.to_owned(), short)
}

/// Whether a line comes from the host, and not from what reaches it.
fn is_of_a_tool(line: &str) -> bool {
    TOOLS.iter().any(|tool| line.strip_prefix(tool).is_some_and(|rest| rest.starts_with(": ")))
}

/// Why it failed, or how it stands.
fn words(report: &Report) -> String {
    match report.failures.first() {
        Some(failure) => short(failure),
        None => short(&report.state),
    }
}

/// What came from elsewhere, as much of it as fits a line.
pub fn short(text: &str) -> String {
    shortened(&printable(text), LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt<'a>(end: End, stdout: &'a str, stderr: &'a str) -> Attempt<'a> {
        let allowed = Duration::from_secs(90);
        Attempt { end, stdout: stdout.as_bytes(), stderr: stderr.as_bytes(), reports: true, forced: false, allowed }
    }

    #[test]
    fn each_exit_code_with_its_report() {
        for (code, services, ending) in [
            (0, "done", Ending::Done),
            (0, "untouched", Ending::Skipped),
            (1, "untouched", Ending::Failed),
            (2, "untouched", Ending::Failed),
            (3, "failed", Ending::LeftDepooled),
            (4, "done", Ending::Failed),
            (5, "untouched", Ending::Failed),
            (69, "untouched", Ending::Failed),
            (75, "untouched", Ending::Busy),
            (77, "untouched", Ending::Failed),
            (78, "untouched", Ending::Failed),
        ] {
            let line = format!(r#"{{"exit_code":{code},"services":"{services}","state":"s","failures":["why"]}}"#);
            let verdict = attempt(End::Code(code), &format!("Welcome!\n{line}\n\n"), "noise").judge();
            assert_eq!((verdict.ending, verdict.exit_code), (ending, Some(code)), "{line}");
            assert_eq!(verdict.words, "why");
            assert_eq!(verdict.perhaps_depooled, [4, 5].contains(&code), "{line}");
        }
    }

    #[test]
    fn without_a_report_nothing_counts_as_done() {
        for (stdout, stderr) in [("", ""), ("restarted\n", "x"), ("{\"exit_code\":0", ""), ("{}", "")] {
            let verdict = attempt(End::Code(0), stdout, stderr).judge();
            assert_eq!(verdict.ending, Ending::Failed, "{stdout}");
        }
        let verdict = attempt(End::Code(1), "", "sudo: a password is required\n").judge();
        assert_eq!((verdict.ending, verdict.words.as_str()), (Ending::Failed, "sudo: a password is required"));
        assert_eq!(attempt(End::Code(3), "", "").judge().ending, Ending::LeftDepooled, "the worse is assumed");
        assert_eq!(attempt(End::Code(75), "", "").judge().ending, Ending::Busy);
    }

    #[test]
    fn of_a_tool_that_is_too_old_for_a_request_what_it_complains_of_is_told() {
        let said = "error: unexpected argument '--request' found\n\nUsage: restart-php-fpm [OPTIONS]\n\n\
                    For more information, try '--help'.\n";
        let verdict = attempt(End::Code(2), "", said).judge();
        let words = "no request is taken there: error: unexpected argument '--request' found";
        assert_eq!((verdict.ending, verdict.words.as_str()), (Ending::Failed, words));
        assert_eq!(attempt(End::Code(2), "", "usage\n").judge().words, "no request is taken there: usage");
    }

    #[test]
    fn a_report_that_says_something_else_is_no_good_end() {
        let done = r#"{"exit_code":0,"services":"done"}"#;
        assert_eq!(attempt(End::Code(1), done, "").judge().ending, Ending::Failed);
        assert_eq!(attempt(End::Code(3), done, "").judge().ending, Ending::LeftDepooled);
        let left = r#"{"exit_code":3,"services":"failed"}"#;
        assert_eq!(attempt(End::Code(0), left, "").judge().ending, Ending::LeftDepooled);
    }

    #[test]
    fn ssh_that_fails_is_a_host_that_cannot_be_reached_unless_there_is_a_report() {
        let verdict = attempt(End::Code(255), "", "ssh: connect to host mw1: Connection refused\r\n").judge();
        assert_eq!(verdict.ending, Ending::Unreachable);
        assert_eq!(verdict.words, "ssh: connect to host mw1: Connection refused");
        let line = r#"{"exit_code":143,"services":"untouched","state":"as found"}"#;
        let verdict = attempt(End::Code(255), line, "").judge();
        assert_eq!((verdict.ending, verdict.exit_code), (Ending::Failed, Some(143)));
    }

    #[test]
    fn a_connection_that_was_lost_is_told_apart_from_one_that_was_never_made() {
        let said = "safe-service-restart: depooled 'mw1.test' in 'a'\n";
        let verdict = attempt(End::Code(255), "", said).judge();
        assert_eq!(verdict.ending, Ending::Unreachable);
        let words = "the connection was lost, and the host may be in the middle of it; it last said: \
                     safe-service-restart: depooled 'mw1.test' in 'a'";
        assert_eq!(verdict.words, words);
    }

    #[test]
    fn what_was_cut_off_may_still_be_at_it() {
        for end in [End::TimeOver, End::Signal(9)] {
            let verdict = attempt(end, "", "").judge();
            assert!(verdict.ending == Ending::Failed && verdict.perhaps_running);
        }
        assert_eq!(attempt(End::TimeOver, "", "").judge().words, "no end within 90s");
    }

    #[test]
    fn a_host_that_reported_has_ended_though_its_ssh_had_to_be() {
        for end in [End::TimeOver, End::AtTerminal, End::Signal(15)] {
            for (code, services, ending) in [(0, "done", Ending::Done), (3, "failed", Ending::LeftDepooled)] {
                let line = format!("{{\"exit_code\":{code},\"services\":\"{services}\",\"state\":\"s\"}}\n");
                let verdict = attempt(end, &line, "").judge();
                assert_eq!((verdict.ending, verdict.exit_code, verdict.perhaps_running), (ending, Some(code), false));
            }
            // What was cut off in the middle of it is none.
            assert_eq!(attempt(end, "{\"exit_code\":0,", "").judge().ending, Ending::Failed);
        }
    }

    #[test]
    fn who_asks_at_the_terminal_has_begun_nothing_unless_the_host_has_said_something() {
        for (stdout, stderr, perhaps) in [
            ("", "Warning: Permanently added 'mw1' to the list of known hosts.", false),
            ("", "safe-service-restart: waiting for the drain", true),
            ("working", "", true),
        ] {
            let verdict = attempt(End::AtTerminal, stdout, stderr).judge();
            assert_eq!((verdict.ending, verdict.perhaps_running), (Ending::Failed, perhaps), "{stdout}{stderr}");
            assert_eq!(verdict.words, AT_TERMINAL);
        }
    }

    #[test]
    fn a_forced_restart_leaves_no_host_depooled() {
        let line = r#"{"exit_code":3,"services":"failed"}"#;
        let verdict = Attempt { forced: true, ..attempt(End::Code(3), line, "") }.judge();
        assert!(verdict.ending == Ending::Failed && !verdict.perhaps_depooled);
    }

    #[test]
    fn of_another_command_the_code_is_all_that_counts() {
        let by = |code| Attempt { reports: false, ..attempt(End::Code(code), "{\"exit_code\":1}", "") }.judge().ending;
        assert_eq!((by(0), by(1), by(255)), (Ending::Done, Ending::Failed, Ending::Unreachable));
    }

    #[test]
    fn what_a_host_says_can_forge_nothing_and_is_cut() {
        let long = format!("\u{1b}[2J{}", "x".repeat(1000));
        let verdict = attempt(End::Code(1), "", &long).judge();
        assert!(verdict.words.starts_with("\\u{1b}[2Jxxx") && verdict.words.len() < 310, "{}", verdict.words);
    }
}
