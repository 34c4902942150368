//! What was typed and what stands in the file as one, checked, with every default in one place.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use restart_core::{Share, Tag};

use crate::cli::Cli;
use crate::file::File;
use crate::plan::rounded_up;
use crate::remote::Work;
use crate::schedule::Rules;

/// So many at once: as the deploy tool has it.
const BATCH: Share = Share::Percent(10);
/// One host shows what is wrong with all of them.
const CANARIES: u32 = 1;
/// A restart that fails once will fail elsewhere.
const MAX_FAILURES: Share = Share::Count(1);
/// In an emergency a few that fail are no reason to leave the others broken.
const MAX_FAILURES_FORCED: Share = Share::Percent(10);
/// In a large fleet some hosts are always away.
const MAX_UNREACHABLE: Share = Share::Percent(10);
/// Each try waits for a slot by itself, for ten minutes unless the host's file says otherwise.
const RETRIES: u32 = 3;
/// A restart takes a few seconds, and then there is room for another.
const RETRY_DELAY: Duration = Duration::from_secs(30);
/// More than all the waits of a host in a row, by its own defaults: its lock and its slot, ten minutes each, and the drain.
const HOST_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A status is told from the host's journal at once; its store and its load balancers may take a while not to answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(60);
const GATE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// However large the share: each ssh takes some megabytes and two descriptors here.
pub const MOST_AT_ONCE: usize = 500;

/// Where the hosts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The objects of a cluster.
    Store(Place),
    /// A list.
    List(List),
}

/// Where a list of hosts is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// In a file.
    File(PathBuf),
    /// On standard input.
    Stdin,
}

/// Where in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub cluster: Tag,
    pub data_centre: Tag,
    /// These alone, or any.
    pub services: Vec<Tag>,
    /// Where the store is.
    pub config: PathBuf,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster '{}' in '{}'", self.cluster, self.data_centre)
    }
}

/// How hosts are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub user: Option<String>,
    pub key: Option<PathBuf>,
    /// The socket of an agent.
    pub agent: Option<OsString>,
    /// In place of ssh.
    pub rsh: Option<Vec<String>>,
    pub connect_timeout: Duration,
    pub host_timeout: Duration,
}

/// A gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    pub command: String,
    pub timeout: Duration,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub source: Source,
    pub way: Way,
    pub work: Work,
    pub gate: Option<Gate>,
    pub since: Option<SystemTime>,
    batch: Share,
    canaries: u32,
    pause: Duration,
    max_failures: Share,
    max_unreachable: Share,
    retries: u32,
    retry_delay: Duration,
}

impl Settings {
    /// What this means; `run` names the run, and `agent` is the user's own. `Err` is a usage error that clap cannot see.
    pub fn new(cli: &Cli, file: &File, agent: Option<OsString>, run: &str) -> Result<Self, String> {
        let time = |typed: Option<Duration>, file: &Option<host::settings_file::Time>, otherwise| {
            typed.or(file.as_ref().map(|time| time.0)).unwrap_or(otherwise)
        };
        let share = |typed: Option<Share>, file: Option<host::settings_file::Limit>, otherwise| {
            typed.or(file.map(|limit| limit.0)).unwrap_or(otherwise)
        };
        let (of_file, otherwise) = match cli.force {
            true => (file.max_failures_forced, MAX_FAILURES_FORCED),
            false => (file.max_failures, MAX_FAILURES),
        };
        let gate = cli.gate.clone().or_else(|| file.gate.clone()).filter(|_| !cli.force);
        // Whoever types one of the two does not want the other from the file.
        let rsh = cli.rsh.as_ref().or(file.rsh.as_ref().filter(|_| cli.key.is_none()));
        let key = cli.key.as_ref().or(file.key.as_ref().filter(|_| cli.rsh.is_none()));
        let agents = [&cli.agent, &file.agent];
        let host_timeout = match cli.status {
            true => cli.host_timeout.unwrap_or(STATUS_TIMEOUT),
            false => time(cli.host_timeout, &file.host_timeout, HOST_TIMEOUT),
        };
        Ok(Self {
            source: source(cli, file)?,
            way: Way {
                user: cli.user.clone().or_else(|| file.user.clone()),
                key: key.cloned(),
                agent: agents.into_iter().flatten().next().map(OsString::from).or(agent),
                rsh: rsh.map(|words| words.split_whitespace().map(ToOwned::to_owned).collect()),
                connect_timeout: time(cli.connect_timeout, &file.connect_timeout, CONNECT_TIMEOUT),
                host_timeout,
            },
            work: Work::new(cli, run),
            gate: gate
                .map(|command| Gate { command, timeout: time(cli.gate_timeout, &file.gate_timeout, GATE_TIMEOUT) }),
            since: cli.since,
            batch: share(cli.batch, file.batch, BATCH),
            canaries: cli.canaries.or(file.canaries).filter(|_| !cli.force).unwrap_or(match cli.force {
                true => 0,
                false => CANARIES,
            }),
            pause: if cli.force { Duration::ZERO } else { time(cli.pause, &file.pause, Duration::ZERO) },
            max_failures: share(cli.max_failures, of_file, otherwise),
            max_unreachable: share(cli.max_unreachable, file.max_unreachable, MAX_UNREACHABLE),
            retries: cli.retries.or(file.retries).unwrap_or(RETRIES),
            retry_delay: time(cli.retry_delay, &file.retry_delay, RETRY_DELAY),
        })
    }

    /// How many of so many hosts are to be out at once, by what was asked for.
    pub fn batch(&self, hosts: usize) -> usize {
        rounded_up(self.batch, hosts).min(hosts)
    }

    /// The rules for so many hosts, of which no more than `most` can be out at once.
    pub fn rules(&self, hosts: usize, most: usize) -> Rules {
        Rules {
            window: rounded_up(self.batch, hosts).min(most),
            canaries: self.canaries as usize,
            pause: self.pause,
            gate: self.gate.is_some(),
            max_failures: rounded_up(self.max_failures, hosts),
            max_unreachable: rounded_up(self.max_unreachable, hosts),
            retries: self.retries,
            retry_delay: self.retry_delay,
        }
    }
}

fn source(cli: &Cli, file: &File) -> Result<Source, String> {
    match (&cli.hosts, &cli.cluster, &cli.dc) {
        (Some(path), _, _) if path == Path::new("-") => Ok(Source::List(List::Stdin)),
        (Some(path), _, _) => Ok(Source::List(List::File(path.clone()))),
        (None, Some(cluster), Some(data_centre)) => Ok(Source::Store(Place {
            cluster: cluster.clone(),
            data_centre: data_centre.clone(),
            services: cli.service.clone(),
            config: cli.config.clone().or_else(|| file.config.clone()).unwrap_or_else(|| PathBuf::from(CONFIG)),
        })),
        (None, _, _) => Err("neither a cluster nor '--hosts' is given".to_owned()),
    }
}

/// Where conftool has its configuration.
const CONFIG: &str = "/etc/conftool/config.yaml";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn settings(arguments: &str, file: &str) -> Settings {
        let words = ["rolling-restart"].into_iter().chain(arguments.split_whitespace());
        Settings::new(&Cli::try_parse_from(words).unwrap(), &File::parse(file).unwrap(), Some("/own".into()), "run")
            .unwrap()
    }

    #[test]
    fn without_a_word_it_is_a_tenth_at_once_behind_one_canary_and_one_failure_is_the_end() {
        let rules = settings("appserver eqiad", "").rules(35, MOST_AT_ONCE);
        assert_eq!((rules.window, rules.canaries, rules.max_failures, rules.max_unreachable), (4, 1, 1, 4));
        assert!(!rules.gate && rules.pause.is_zero());
    }

    #[test]
    fn an_emergency_has_no_canary_no_gate_no_pause_and_may_fail_on_a_tenth() {
        let file = "gate: 'false'\npause: 5m\ncanaries: 3\nmax_failures: 1\n";
        let settings = settings("appserver eqiad --force", file);
        let rules = settings.rules(300, MOST_AT_ONCE);
        assert_eq!((rules.window, rules.canaries, rules.max_failures), (30, 0, 30));
        assert!(!rules.gate && rules.pause.is_zero() && settings.gate.is_none());
    }

    #[test]
    fn what_is_typed_comes_before_what_stands_in_the_file() {
        let file = "batch: 5\nkey: /k\nuser: filed\nretries: 9\nmax_failures: 7\nconfig: /c\n";
        let settings = settings("a b --batch 50% --rsh /bin/rsh --user typed", file);
        assert_eq!(settings.rules(10, MOST_AT_ONCE).window, 5);
        assert_eq!((settings.rules(10, MOST_AT_ONCE).retries, settings.rules(10, MOST_AT_ONCE).max_failures), (9, 7));
        assert_eq!(settings.way.user.as_deref(), Some("typed"));
        assert_eq!((settings.way.key, settings.way.rsh), (None, Some(vec!["/bin/rsh".to_owned()])));
        assert!(matches!(settings.source, Source::Store(place) if place.config == Path::new("/c")));
    }

    #[test]
    fn the_agent_that_is_typed_comes_before_that_of_the_file_and_this_before_the_users_own() {
        for (arguments, file, wanted) in [
            ("a b --agent /typed", "agent: /filed\n", "/typed"),
            ("a b", "agent: /filed\n", "/filed"),
            ("a b", "", "/own"),
        ] {
            assert_eq!(settings(arguments, file).way.agent.unwrap(), wanted);
        }
    }

    #[test]
    fn a_status_has_no_patience_for_a_restart() {
        let timeout = |arguments| settings(arguments, "host_timeout: 20m\n").way.host_timeout;
        assert_eq!(timeout("a b"), Duration::from_secs(1200));
        assert_eq!(timeout("a b --status"), Duration::from_secs(60));
        assert_eq!(timeout("a b --status --host-timeout 5"), Duration::from_secs(5));
    }

    #[test]
    fn no_more_than_can_be_carried_are_out_at_once() {
        let settings = settings("a b --batch 100%", "");
        assert_eq!((settings.batch(2000), settings.rules(2000, MOST_AT_ONCE).window), (2000, MOST_AT_ONCE));
        assert_eq!(settings.rules(300, 96).window, 96);
    }
}
