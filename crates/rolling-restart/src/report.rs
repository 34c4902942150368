//! The end of a run for people: the sums, what is left to do and by which command, and last of all the hosts that are out.

use log::Level;
use restart_core::Fqdn;

use crate::events::why;
use crate::tally::{Named, Tally};

/// So many names of hosts that were never tried are enough for a line.
const NAMES: usize = 20;

/// The lines, in order.
pub fn lines(tally: &Tally<'_>, ended: &str, took: &str, resume: &Resume) -> Vec<(Level, String)> {
    let is_good = tally.remaining().is_empty() && tally.halt.is_none();
    let mut lines = Lines(Vec::new());
    let level = if is_good { Level::Info } else { Level::Error };
    lines.0.push((level, format!("{ended}, after {took}: {}", sums(tally))));
    if let Some(halt) = tally.halt {
        lines.problem(format!("not all hosts were started: {}", why(halt)), !tally.never_tried.is_empty());
    }
    lines.each("failed", &tally.failed);
    lines.each("unreachable", &tally.unreachable);
    lines.each("said \"later\" to the end", &tally.busy);
    lines.names("still running, and no longer waited for", &tally.still_running, usize::MAX);
    lines.names("no answer in time, and perhaps still running", &tally.perhaps_running, usize::MAX);
    let most = if matches!(resume, Resume::Command { .. }) { NAMES } else { usize::MAX };
    lines.names("never tried", &tally.never_tried, most);
    if !tally.remaining().is_empty() {
        let names = || "go on with the hosts above that are not done, by --hosts".to_owned();
        lines.0.push((Level::Error, resume.by_command().unwrap_or_else(names)));
    }
    lines.names("perhaps depooled, and recovery there goes on trying", &tally.perhaps_depooled, usize::MAX);
    lines.each("LEFT DEPOOLED", &tally.left_depooled);
    lines.0
}

/// The same as one line for the system's log, which is there when the terminal is not: how it ended, who is out, and what is left to do.
pub fn line(tally: &Tally<'_>, ended: &str, took: &str, resume: &Resume) -> String {
    let mut lines = Lines(Vec::new());
    let remaining = tally.remaining();
    lines.0.push((Level::Info, format!("{ended}, after {took}: {}", sums(tally))));
    let out: Vec<_> = tally.left_depooled.iter().map(|(host, _)| *host).collect();
    lines.names("left depooled", &out, usize::MAX);
    lines.names("perhaps depooled", &tally.perhaps_depooled, usize::MAX);
    match resume.by_command() {
        Some(command) => lines.problem(command, !remaining.is_empty()),
        None => lines.names("not done", &remaining, usize::MAX),
    }
    Vec::from_iter(lines.0.into_iter().map(|(_, line)| line)).join("; ")
}

/// How to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// By this command, which may have to be given the same list of hosts once more.
    Command { command: String, same_input: bool },
    /// By naming the hosts: no host can tell by itself that it is done.
    Names,
}

impl Resume {
    /// In words, if there is a command.
    fn by_command(&self) -> Option<String> {
        let Self::Command { command, same_input } = self else { return None };
        let first = if *same_input { ", the same hosts on its standard input," } else { "" };
        Some(format!("go on{first} with: {command}"))
    }
}

struct Lines(Vec<(Level, String)>);

impl Lines {
    fn problem(&mut self, text: String, applies: bool) {
        self.0.extend(applies.then_some((Level::Error, text)));
    }

    fn each(&mut self, what: &str, hosts: &[Named<'_>]) {
        for (host, words) in hosts {
            self.0.push((Level::Error, format!("{what}: {host}: {words}")));
        }
    }

    fn names(&mut self, what: &str, hosts: &[&Fqdn], most: usize) {
        let names: Vec<_> = hosts.iter().take(most).map(|host| host.as_str()).collect();
        let more = match hosts.len().saturating_sub(most) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!("{what} ({}): {}{more}", hosts.len(), names.join(" "));
        self.problem(text, !hosts.is_empty());
    }
}

/// `12 done, 1 failed`: what there is none of is not said.
fn sums(tally: &Tally<'_>) -> String {
    let sums = [
        (tally.done.len(), "done"),
        (tally.skipped.len(), "skipped (restarted since)"),
        (tally.failed.len(), "failed"),
        (tally.unreachable.len(), "unreachable"),
        (tally.busy.len(), "said \"later\""),
        (tally.still_running.len(), "still running"),
        (tally.never_tried.len(), "never tried"),
        (tally.left_depooled.len(), "left depooled"),
    ];
    let said: Vec<_> =
        sums.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use restart_core::Fqdn;

    use super::*;
    use crate::schedule::Halt;

    fn hosts(count: usize) -> Vec<Fqdn> {
        (1..=count).map(|number| Fqdn::new(format!("mw{number}.test")).unwrap()).collect()
    }

    fn text(tally: &Tally<'_>, resume: &Resume) -> Vec<String> {
        lines(tally, "ended", "5m", resume).into_iter().map(|(_, line)| line).collect()
    }

    fn by(command: &str) -> Resume {
        Resume::Command { command: command.to_owned(), same_input: false }
    }

    #[test]
    fn a_run_that_went_well_is_one_line() {
        let hosts = hosts(2);
        let tally = Tally { done: vec![&hosts[0]], skipped: vec![&hosts[1]], ..Tally::default() };
        assert_eq!(text(&tally, &by("x")), ["ended, after 5m: 1 done, 1 skipped (restarted since)"]);
    }

    #[test]
    fn what_is_left_is_named_with_the_command_that_goes_on_and_last_those_that_are_out() {
        let hosts = hosts(40);
        let tally = Tally {
            done: vec![&hosts[0]],
            failed: vec![(&hosts[1], "it broke")],
            left_depooled: vec![(&hosts[2], "php8.2-fpm is not ready")],
            unreachable: vec![(&hosts[3], "Connection refused")],
            busy: vec![(&hosts[4], "no slot within 10m")],
            still_running: vec![&hosts[5]],
            perhaps_depooled: vec![&hosts[1]],
            never_tried: hosts[6..].iter().collect(),
            halt: Some(Halt::Failures),
            ..Tally::default()
        };
        let lines = text(&tally, &by("rolling-restart --since T a b"));
        let of = |what: &str| lines.iter().find(|line| line.starts_with(what)).cloned().unwrap_or_default();
        assert_eq!(of("failed"), "failed: mw2.test: it broke");
        assert_eq!(of("go on"), "go on with: rolling-restart --since T a b");
        assert!(of("never tried (34): mw7.test").ends_with("mw26.test and 14 more"), "{lines:#?}");
        assert_eq!(lines.last().unwrap(), "LEFT DEPOOLED: mw3.test: php8.2-fpm is not ready");
        assert_eq!(lines[lines.len() - 2], "perhaps depooled, and recovery there goes on trying (1): mw2.test");
        let named = text(&tally, &Resume::Names);
        assert!(named.iter().any(|line| line.starts_with("never tried") && line.ends_with("mw40.test")));
    }

    #[test]
    fn the_log_of_the_system_gets_one_line_with_those_that_are_out_and_what_is_left() {
        let hosts = hosts(3);
        let tally = Tally {
            done: vec![&hosts[0]],
            left_depooled: vec![(&hosts[1], "php8.2-fpm is not ready")],
            never_tried: vec![&hosts[2]],
            ..Tally::default()
        };
        let sums = "ended with 3, after 5m: 1 done, 1 never tried, 1 left depooled; left depooled (1): mw2.test";
        let log = |resume: &Resume| line(&tally, "ended with 3", "5m", resume);
        assert_eq!(log(&by("rolling-restart a b")), format!("{sums}; go on with: rolling-restart a b"));
        assert_eq!(log(&Resume::Names), format!("{sums}; not done (2): mw2.test mw3.test"));
        let tally = Tally { done: vec![&hosts[0]], ..Tally::default() };
        assert_eq!(line(&tally, "ended with 0", "5m", &by("x")), "ended with 0, after 5m: 1 done");
    }
}
