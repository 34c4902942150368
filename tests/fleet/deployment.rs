//! A fleet with a deployment host from which the deploy user comes over ssh, as an operator has it: HAProxies in front, the shipped
//! rule of sudo, `restart-php-fpm` with its file on each host, and poolcounterd.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use testbed::Result;
use testbed::conftool::HostFile;
use testbed::etcd::Driver;
use testbed::host::{Host, Output, Running};
use testbed::prepared;
use testbed::site::{CLUSTER, DC, PAGES, POOL_FILE, UNIT};
use testbed::ssh;

use crate::fleet::{Counter, Fleet, LONG};

/// The rule.
const RULE: &str = include_str!("../../sudoers.d/restart-php-fpm");
/// How many the hosts themselves let be out: above what most runs here take, so that it is not what bounds these.
pub const OWN_LIMIT: usize = 3;
/// What Puppet would write for each host.
const SETTINGS: &str = "pools: [appservers]\nmax_concurrency: 3\nsettle: 0.4\nlb_timeout: 60\n";

/// clush, and the Python that runs it, which a host does not have: this machine's, which is the same Debian.
const CLUSH: [(&str, &str); 5] = [
    ("/usr/bin/clush", "/usr/bin/clush"),
    ("/usr/bin/python3", "/usr/bin/python3"),
    ("/usr/lib/python3", "/usr/lib/python3"),
    ("/usr/lib/python3.11", "/usr/lib/python3.11"),
    ("/etc/clustershell", "/etc/clustershell"),
];

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
        let rolling_restart = prepared::product_binary("rolling-restart")?;
        let fleet = Fleet::boot_as(hosts, Driver::V2, Counter::Poolcounter, |site| {
            site.haproxy()
                .binaries(&["safe-service-restart", "restart-php-fpm"])
                .each_host(move |host| {
                    ssh::listening(host)
                        .file(POOL_FILE, PAGES)
                        .file("/etc/restart-php-fpm.yaml", settings)
                        .files([HostFile::new("/etc/sudoers.d/restart-php-fpm", RULE).mode(0o440)])
                })
                .beside("deploy1.eqiad.test", move |host| {
                    let host = host.binary(&rolling_restart);
                    CLUSH.iter().fold(host, |host, (from, to)| host.bind_read_only(Path::new(from), to))
                })
        })?;
        let all = Self { fleet };
        ssh::open(all.host()?, all.fleet.site.hosts())?;
        // There is no password in it here, and whoever deploys is not root.
        all.host()?.exec(&["chmod", "0644", "/etc/conftool/etcdrc"])?.success()?;
        Ok(all)
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
