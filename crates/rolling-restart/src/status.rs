//! `--status`: who is out, and why. The store says which hosts are not pooled, and each of them is asked what these tools know of it.
//! Nothing is restarted and nothing is written.
//!
//! `ask` asks, over the same way as a run; `account` reads what a host answers; `say` puts all of it into a table or into lines of
//! JSON. What it means for the exit code is decided here.

mod account;
mod ask;
mod say;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use host::Signals;
use restart_core::{ExitCode, Failure, Fqdn, Node, Pooled, Signal, Stop as _, Tag, Unreadable};
use serde::Serialize;

pub use say::print_failure;

use crate::cli::Cli;
use crate::hosts;
use crate::run::Ended;
use crate::settings::{Settings, Source};
use account::{Account, State};

/// A host in one service, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Entry {
    service: Tag,
    pooled: Pooled,
}

/// A host that is asked, and its answer.
#[derive(Debug)]
struct Subject {
    host: Fqdn,
    /// As the store has it; of a host from a list, as the host itself saw the store.
    entries: Vec<Entry>,
    answer: Answer,
}

/// What a host said.
#[derive(Debug)]
enum Answer {
    Account(Box<Account>),
    /// Nothing that can be used, and why.
    None(String),
}

/// All that was found out.
#[derive(Debug, Default)]
struct Findings {
    /// How many hosts there are, those included that nobody asked about.
    hosts: usize,
    /// Those that there is something to be said of, by name, or in the order of the list.
    subjects: Vec<Subject>,
    unreadable: Vec<Unreadable>,
    signal: Option<Signal>,
}

/// Looks, and says what was found.
pub fn show(cli: &Cli, settings: &Settings, stop: &Signals) -> Result<Ended, Failure> {
    let mut findings = match &settings.source {
        Source::Store(place) => {
            let (nodes, unreadable) = hosts::nodes(place)?;
            let mut subjects = by_host(&nodes);
            let hosts = subjects.len();
            subjects.retain(|subject| cli.all || subject.is_out());
            Findings { hosts, subjects, unreadable, signal: None }
        }
        Source::List(list) => {
            let subjects: Vec<_> =
                hosts::listed(list)?.into_iter().map(|host| Subject::new(host, Vec::new())).collect();
            Findings { hosts: subjects.len(), subjects, ..Findings::default() }
        }
    };
    for broken in &findings.unreadable {
        log::warn!("an object of '{}' cannot be read: {}", host::printable(&broken.host), broken.why);
    }
    if !findings.subjects.is_empty() {
        log::info!("asking {} of {} hosts", findings.subjects.len(), findings.hosts);
    }
    ask::everybody(&mut findings.subjects, settings, stop)?;
    findings.signal = stop.requested().map(|stopped| stopped.signal);
    if matches!(settings.source, Source::Store(_)) {
        findings.subjects.retain(|subject| subject.is_out() || subject.is_of_interest());
    }
    if cli.json { say::lines(&findings) } else { say::table(&findings) }
        .map_err(|error| Failure::new(ExitCode::Failed, format!("cannot print the status: {error}")))?;
    log::info!("{}", say::sums(&findings));
    Ok(Ended { exit_code: findings.exit_code(), signal: findings.signal })
}

/// The hosts of these nodes, by name.
fn by_host(nodes: &[Node]) -> Vec<Subject> {
    let mut hosts: BTreeMap<&Fqdn, Vec<Entry>> = BTreeMap::new();
    for node in nodes {
        let entry = Entry { service: node.id.path.service.clone(), pooled: node.pooled };
        hosts.entry(&node.id.host).or_default().push(entry);
    }
    hosts.into_iter().map(|(host, entries)| Subject::new(host.clone(), entries)).collect()
}

impl Subject {
    fn new(host: Fqdn, entries: Vec<Entry>) -> Self {
        Self { host, entries, answer: Answer::None("no answer yet".to_owned()) }
    }

    /// Somewhere it is not pooled.
    fn is_out(&self) -> bool {
        self.entries.iter().any(|entry| entry.pooled != Pooled::Yes)
    }

    /// It is nowhere `yes` or `no`: an operator took it out for long, and perhaps switched it off.
    fn is_put_away(&self) -> bool {
        !self.entries.is_empty() && self.entries.iter().all(|entry| entry.pooled == Pooled::Inactive)
    }

    /// These tools have something to do with it, or that cannot be told.
    fn is_of_interest(&self) -> bool {
        self.state() != Some(State::NotOurs)
    }

    /// `None`: it did not say.
    fn state(&self) -> Option<State> {
        match &self.answer {
            Answer::Account(account) => Some(account.state),
            Answer::None(_) => None,
        }
    }

    /// What it asks for. Of a host that was put away nobody expects that it answers, or that it serves.
    fn exit_code(&self) -> ExitCode {
        let own = match &self.answer {
            Answer::Account(account) => account.exit_code,
            Answer::None(_) => ExitCode::Unreachable,
        };
        let is_left =
            matches!(own, ExitCode::LeftDepooled | ExitCode::RepoolUnconfirmed | ExitCode::PutBackUnconfirmed);
        if self.is_put_away() && !is_left { ExitCode::Done } else { own }
    }
}

impl Findings {
    /// The worst of what hosts said, in the order that a host itself goes by.
    fn exit_code(&self) -> ExitCode {
        let mut codes: Vec<_> = self.subjects.iter().map(Subject::exit_code).collect();
        codes.extend((!self.unreadable.is_empty()).then_some(ExitCode::Failed));
        ExitCode::of_a_status(&codes)
    }
}
