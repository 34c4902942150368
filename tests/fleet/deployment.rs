//! A fleet of which a deployment host is part, with HAProxies in front and poolcounterd, and what is run on that host over it.

use std::collections::BTreeMap;

use serde_json::Value;
use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::{Host, Output, Running};
use testbed::site::{CLUSTER, DC, UNIT};
use testbed::ssh;

use crate::fleet::{Counter, Fleet, LONG};

/// How many the hosts themselves let be out: above what most runs here take, so that it is not what bounds these.
pub const OWN_LIMIT: usize = 3;
/// What Puppet would write for each host.
const SETTINGS: &str = "pools: [appservers]\nmax_concurrency: 3\nsettle: 0.4\nlb_timeout: 60\n";

pub struct Deployment {
    pub fleet: Fleet,
}

impl Deployment {
    /// So many hosts, and one to come from.
    pub fn boot(hosts: usize) -> Result<Self> {
        Self::boot_with(hosts, SETTINGS)
    }

    /// The same, with this file for restart-php-fpm.
    pub fn boot_with(hosts: usize, settings: &'static str) -> Result<Self> {
        let deployment = testbed::deployment::Deployment::new(settings)?;
        let fleet =
            Fleet::boot_as(hosts, Driver::V2, Counter::Poolcounter, |site| deployment.in_front_of(site.haproxy()))?;
        testbed::deployment::open(&fleet.site)?;
        Ok(Self { fleet })
    }

    /// The deployment host.
    pub fn host(&self) -> Result<&Host> {
        self.fleet.site.beside()
    }

    /// Starts something there as the deploy user.
    pub fn start(&self, command: &[&str]) -> Result<Running> {
        ssh::start(self.host()?, command)
    }

    /// Runs something there as the deploy user.
    pub fn run(&self, command: &[&str]) -> Result<Output> {
        ssh::run(self.host()?, command, LONG)
    }

    /// `rolling-restart` over the cluster, by its own way over ssh.
    pub fn start_roll(&self, arguments: &[&str]) -> Result<Running> {
        self.start(&[&["rolling-restart", CLUSTER, DC, "--json"], arguments].concat())
    }

    /// The same, to its end.
    pub fn roll(&self, arguments: &[&str]) -> Result<Output> {
        self.start_roll(arguments)?.wait(LONG)
    }

    /// How often a host's PHP-FPM was restarted since the host booted, by systemd's own count.
    pub fn restarts_of(&self, host: usize) -> Result<usize> {
        let host = self.fleet.site.host(host);
        host.exec(&["journalctl", "--sync", "--quiet"])?.success()?;
        let text = host.exec(&["journalctl", "--quiet", "--no-pager", "--output=cat", "--unit", UNIT])?.success()?;
        Ok(text.lines().filter(|line| line.starts_with("Started ")).count().saturating_sub(1))
    }

    /// The same of all of them, by name.
    pub fn restarts(&self) -> Result<BTreeMap<String, usize>> {
        let of = |host: usize| Ok((self.fleet.name(host).to_owned(), self.restarts_of(host)?));
        (0..self.fleet.size()).map(of).collect()
    }

    /// Fails unless each host was restarted so often.
    #[track_caller]
    pub fn each_restarted(&self, times: usize) -> Result<()> {
        let restarts = self.restarts()?;
        assert!(restarts.values().all(|count| *count == times), "not {times} each: {restarts:#?}");
        Ok(())
    }
}

/// The events of a run with `--json`.
pub fn events(output: &Output) -> Vec<Value> {
    let event = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: '{line}': {output}"));
    output.stdout.lines().map(event).collect()
}

/// The last of them.
pub fn end(output: &Output) -> Value {
    let last = events(output).pop().unwrap_or_else(|| panic!("no event: {output}"));
    assert_eq!(last["event"], "end", "{output}");
    last
}

/// The hosts in one of its lists.
pub fn listed(output: &Output, list: &str) -> Vec<String> {
    let end = end(output);
    let hosts = end[list].as_array().unwrap_or_else(|| panic!("no '{list}': {output}"));
    let name = |host: &Value| host.as_str().or(host["host"].as_str()).unwrap().to_owned();
    hosts.iter().map(name).collect()
}

/// The command that a run says it can be gone on with.
pub fn resume(run: &Output) -> String {
    let command = end(run)["resume"].as_str().unwrap_or_else(|| panic!("no command: {run}")).to_owned();
    says(run, &format!("go on with: {command}"));
    command
}

/// Fails with all that is known unless it ended with this code.
#[track_caller]
pub fn expect(output: &Output, code: i32) {
    assert_eq!(output.code(), Some(code), "{output}");
}

/// Fails with all that is known unless it says these words.
#[track_caller]
pub fn says(output: &Output, words: &str) {
    assert!(output.stderr.contains(words), "'{words}' is not said: {output}");
}
