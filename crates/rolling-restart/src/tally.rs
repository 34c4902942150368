//! What came of the hosts, host by host and summed up, and the exit code that follows.

use std::time::Duration;

use restart_core::{ExitCode, Fqdn, Signal};
use serde::{Serialize, Serializer};

use crate::answer::Verdict;
use crate::schedule::{Class, Ending, Halt};

/// What is known of one host beside its class.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// How often it was started.
    pub attempts: u32,
    /// When it was started last.
    pub started: Duration,
    /// How long the last attempt took.
    pub took: Duration,
    /// How the last attempt ended.
    pub verdict: Option<Verdict>,
}

/// The sums while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub waiting: usize,
    pub done: usize,
    pub skipped: usize,
    pub failed: usize,
    pub unreachable: usize,
    pub busy: usize,
}

impl Counts {
    pub fn of(classes: &[Class]) -> Self {
        let mut counts = Self::default();
        for class in classes {
            match class {
                Class::NeverTried => {}
                Class::Running | Class::StillRunning => counts.running += 1,
                Class::Waiting => counts.waiting += 1,
                Class::Ended(Ending::Done) => counts.done += 1,
                Class::Ended(Ending::Skipped) => counts.skipped += 1,
                Class::Ended(Ending::Failed | Ending::LeftDepooled) => counts.failed += 1,
                Class::Ended(Ending::Unreachable) => counts.unreachable += 1,
                Class::Ended(Ending::Busy) => counts.busy += 1,
            }
        }
        counts
    }

    /// Those that will not be started again.
    pub fn ended(&self) -> usize {
        self.done + self.skipped + self.failed + self.unreachable + self.busy
    }
}

/// A host and what is to be said of it.
pub type Named<'a> = (&'a Fqdn, &'a str);

/// The hosts at the end, each in exactly one of the lists but for the two that say `perhaps`; also as the last event tells them.
#[derive(Debug, Default, Serialize)]
pub struct Tally<'a> {
    pub done: Vec<&'a Fqdn>,
    pub skipped: Vec<&'a Fqdn>,
    #[serde(serialize_with = "named")]
    pub failed: Vec<Named<'a>>,
    #[serde(serialize_with = "named")]
    pub unreachable: Vec<Named<'a>>,
    #[serde(serialize_with = "named")]
    pub busy: Vec<Named<'a>>,
    pub still_running: Vec<&'a Fqdn>,
    pub never_tried: Vec<&'a Fqdn>,
    /// Some of those that failed: the tool there may still be at it.
    pub perhaps_running: Vec<&'a Fqdn>,
    /// Some of those that failed: whether they are back is not confirmed.
    pub perhaps_depooled: Vec<&'a Fqdn>,
    #[serde(serialize_with = "named")]
    pub left_depooled: Vec<Named<'a>>,
    #[serde(skip)]
    pub halt: Option<Halt>,
}

impl<'a> Tally<'a> {
    /// Sorts the hosts.
    pub fn new(hosts: &'a [Fqdn], classes: &[Class], records: &'a [Record], halt: Option<Halt>) -> Self {
        let mut tally = Self { halt, ..Self::default() };
        for ((host, class), record) in hosts.iter().zip(classes).zip(records) {
            let verdict = record.verdict.as_ref();
            let named = (host, verdict.map_or("", |verdict| verdict.words.as_str()));
            match class {
                Class::NeverTried => tally.never_tried.push(host),
                Class::Running | Class::StillRunning => tally.still_running.push(host),
                Class::Ended(Ending::Done) => tally.done.push(host),
                Class::Ended(Ending::Skipped) => tally.skipped.push(host),
                Class::Ended(Ending::LeftDepooled) => tally.left_depooled.push(named),
                Class::Ended(Ending::Unreachable) => tally.unreachable.push(named),
                Class::Ended(Ending::Busy) | Class::Waiting => tally.busy.push(named),
                Class::Ended(Ending::Failed) => {
                    tally.failed.push(named);
                    tally.perhaps_depooled.extend(verdict.filter(|verdict| verdict.perhaps_depooled).map(|_| host));
                    tally.perhaps_running.extend(verdict.filter(|verdict| verdict.perhaps_running).map(|_| host));
                }
            }
        }
        tally
    }

    /// Those that are not restarted as they should be.
    pub fn remaining(&self) -> Vec<&'a Fqdn> {
        let named = [&self.failed, &self.left_depooled, &self.unreachable, &self.busy].into_iter().flatten();
        let named = named.map(|(host, _)| *host);
        named.chain(self.still_running.iter().copied()).chain(self.never_tried.iter().copied()).collect()
    }

    /// A host that is out of its pools outweighs everything; then what failed, what could not be reached, and what may be tried
    /// later.
    pub fn exit_code(&self) -> ExitCode {
        if !self.left_depooled.is_empty() {
            ExitCode::LeftDepooled
        } else if !self.failed.is_empty() || matches!(self.halt, Some(Halt::Gate)) {
            ExitCode::Failed
        } else if !self.unreachable.is_empty() {
            ExitCode::Unreachable
        } else if !self.busy.is_empty() {
            ExitCode::TryLater
        } else {
            ExitCode::Done
        }
    }

    /// The signal to die by: the one that came, unless there is something that outweighs it.
    pub fn dies_by(&self, signal: Option<Signal>) -> Option<Signal> {
        signal.filter(|_| self.left_depooled.is_empty())
    }
}

fn named<S: Serializer>(hosts: &[Named<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Host<'a> {
        host: &'a Fqdn,
        message: &'a str,
    }
    serializer.collect_seq(hosts.iter().map(|(host, message)| Host { host, message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(hosts: &[Fqdn], endings: &[Ending]) -> (ExitCode, Option<Signal>, usize) {
        let classes: Vec<_> = endings.iter().map(|ending| Class::Ended(*ending)).collect();
        let records = vec![Record::default(); classes.len()];
        let tally = Tally::new(hosts, &classes, &records, None);
        (tally.exit_code(), tally.dies_by(Some(Signal::Terminate)), tally.remaining().len())
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_host() {
        let hosts: Vec<_> = (0..5).map(|number| Fqdn::new(format!("mw{number}.test")).unwrap()).collect();
        use Ending::{Busy, Done, Failed, LeftDepooled, Skipped, Unreachable};
        let all = [Done, Busy, Unreachable, Failed, LeftDepooled];
        for (endings, code, remaining) in [
            (&all[..], ExitCode::LeftDepooled, 4),
            (&all[..4], ExitCode::Failed, 3),
            (&all[..3], ExitCode::Unreachable, 2),
            (&all[..2], ExitCode::TryLater, 1),
            (&[Done, Skipped], ExitCode::Done, 0),
        ] {
            let (found, signal, left) = tally(&hosts, endings);
            assert_eq!((found, left), (code, remaining), "{endings:?}");
            assert_eq!(signal.is_none(), code == ExitCode::LeftDepooled);
        }
    }

    #[test]
    fn a_gate_that_says_no_is_a_failure_though_no_host_failed() {
        let hosts = [Fqdn::new("mw1.test").unwrap()];
        let records = [Record::default()];
        let tally = Tally::new(&hosts, &[Class::NeverTried], &records, Some(Halt::Gate));
        assert_eq!((tally.exit_code(), tally.never_tried.len()), (ExitCode::Failed, 1));
    }
}
