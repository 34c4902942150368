//! The status for people, one host a line in columns, and for programs, one JSON object a line.

use std::io;

use host::output::print;
use restart_core::{Failure, Fqdn, Signal};
use serde::Serialize;
use serde_json::Value;

use super::account::State;
use super::{Answer, Entry, Findings, Subject};

/// Over the columns.
const TITLES: [&str; COLUMNS] = ["HOST", "POOLED", "STATE", "SINCE", "BY", "RUN", "REASON"];
const COLUMNS: usize = 7;
/// Where there is nothing to be said.
const NOTHING: &str = "-";

/// Prints the table. Nothing at all where there is no host to be listed: an empty list is easily seen.
pub(super) fn table(findings: &Findings) -> io::Result<()> {
    if findings.subjects.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> =
        std::iter::once(TITLES.map(ToOwned::to_owned)).chain(findings.subjects.iter().map(row)).collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().try_for_each(|row| print(&aligned(row, &widths)))
}

/// The last cell has no end of its own.
fn aligned(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    cells.join("  ").trim_end().to_owned()
}

pub(super) fn row(subject: &Subject) -> [String; COLUMNS] {
    let (state, run, words) = match &subject.answer {
        Answer::Account(account) => {
            let phase = account.run.phase.as_deref().filter(|_| account.state == State::UnderWay);
            let phase = phase.map(|phase| format!("/{phase}")).unwrap_or_default();
            let words = if account.state == State::Unclear { &account.headline } else { NOTHING };
            (format!("{}{phase}", word(account.state)), account.run.clone(), words)
        }
        Answer::None(why) => ("no-answer".to_owned(), Default::default(), why.as_str()),
    };
    let or_nothing = |cell: Option<String>| cell.unwrap_or_else(|| NOTHING.to_owned());
    [
        subject.host.to_string(),
        pooled(&subject.entries),
        state,
        or_nothing(run.since),
        or_nothing(run.user),
        // The one that whoever restarts a cluster knows it by.
        or_nothing(run.fleet_run.or(run.run)),
        run.reason.unwrap_or_else(|| words.to_owned()),
    ]
}

/// `nginx=no,php=no`.
fn pooled(entries: &[Entry]) -> String {
    let each: Vec<_> = entries.iter().map(|Entry { service, pooled }| format!("{service}={pooled}")).collect();
    if each.is_empty() { NOTHING.to_owned() } else { each.join(",") }
}

fn word(state: State) -> &'static str {
    match state {
        State::Held => "held",
        State::UnderWay => "under-way",
        State::Interrupted => "interrupted",
        State::Orphaned => "orphaned",
        State::NotOurs => "not-ours",
        State::Unclear => "unclear",
    }
}

/// `3 of 120 hosts are listed: 1 held, 2 not-ours`.
pub(super) fn sums(findings: &Findings) -> String {
    let all = [
        Some(State::Held),
        Some(State::UnderWay),
        Some(State::Interrupted),
        Some(State::Orphaned),
        Some(State::NotOurs),
        Some(State::Unclear),
        None,
    ];
    let mut said = Vec::new();
    for state in all {
        let count = findings.subjects.iter().filter(|subject| subject.state() == state).count();
        if count > 0 {
            said.push(format!("{count} {}", state.map_or("no-answer", word)));
        }
    }
    match said.as_slice() {
        [] => format!("every one of {} hosts is pooled", findings.hosts),
        said => format!("{} of {} hosts are listed: {}", findings.subjects.len(), findings.hosts, said.join(", ")),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    /// When, in UTC.
    time: String,
    #[serde(flatten)]
    event: Event<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    HostStatus {
        host: &'a Fqdn,
        nodes: &'a [Entry],
        /// `null` without an answer.
        state: Option<State>,
        since: Option<&'a str>,
        by: Option<&'a str>,
        run: Option<&'a str>,
        fleet_run: Option<&'a str>,
        phase: Option<&'a str>,
        reason: Option<&'a str>,
        /// Its own sentence, or why there is no answer.
        message: &'a str,
        /// All that it answered.
        status: Option<&'a Value>,
    },
    Unreadable {
        host: String,
        message: &'a str,
    },
    End {
        /// As a shell sees it: 128 and its number for a signal.
        exit_code: u8,
        signal: Option<Signal>,
        hosts: usize,
        listed: usize,
        /// Why there is nothing else.
        failures: Vec<&'a str>,
    },
}

/// Prints the lines.
pub(super) fn lines(findings: &Findings) -> io::Result<()> {
    for subject in &findings.subjects {
        line(host_status(subject))?;
    }
    for broken in &findings.unreadable {
        line(Event::Unreadable { host: host::printable(&broken.host), message: &broken.why })?;
    }
    let exit_code = findings.exit_code().number();
    line(Event::End {
        exit_code: findings.signal.map_or(exit_code, |signal| 128 + signal.number()),
        signal: findings.signal,
        hosts: findings.hosts,
        listed: findings.subjects.len(),
        failures: Vec::new(),
    })
}

fn host_status(subject: &Subject) -> Event<'_> {
    let account = match &subject.answer {
        Answer::Account(account) => Ok(account),
        Answer::None(why) => Err(why),
    };
    let run = account.map(|account| &account.run).ok();
    Event::HostStatus {
        host: &subject.host,
        nodes: &subject.entries,
        state: subject.state(),
        since: run.and_then(|run| run.since.as_deref()),
        by: run.and_then(|run| run.user.as_deref()),
        run: run.and_then(|run| run.run.as_deref()),
        fleet_run: run.and_then(|run| run.fleet_run.as_deref()),
        phase: run.and_then(|run| run.phase.as_deref()),
        reason: run.and_then(|run| run.reason.as_deref()),
        message: account.map_or_else(|why| why, |account| &account.headline),
        status: account.map(|account| &account.whole).ok(),
    }
}

/// The one line of a status that nobody could be asked for.
pub fn print_failure(failure: &Failure) {
    let event = Event::End {
        exit_code: failure.code.number(),
        signal: None,
        hosts: 0,
        listed: 0,
        failures: vec![&failure.message],
    };
    if let Err(error) = line(event) {
        log::warn!("cannot print an event: {error}");
    }
}

fn line(event: Event<'_>) -> io::Result<()> {
    print(&serde_json::to_string(&Line { time: host::clock::now_utc(), event })?)
}
