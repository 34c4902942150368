//! A site of many hosts on which the tool is started everywhere at once, and what must be so when all is done.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::ensure;
use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::{Output, Running};
use testbed::load::{Load, Report};
use testbed::poolcounterd::Poolcounterd;
use testbed::site::{Builder, DC, POOL, Site, UNIT};
use testbed::wait;

use crate::TOOL;
use crate::history::{Moment, Watcher, out_of_balancers};

/// A run's patience is longer than a loaded machine needs for all ten.
pub const LONG: Duration = Duration::from_secs(150);
const JOURNALS: &str = "/var/lib/safe-service-restart";
/// Where leases keep who waits for a slot or has one, and which hosts are out.
const SLOTS: &str = "/conftool/v1/safe-service-restart/slots";
const OUT: &str = "/conftool/v1/safe-service-restart/out";

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Nobody: no limit.
    Nobody,
    /// poolcounterd.
    Poolcounter,
    /// Leases in etcd v3.
    Leases,
}

pub struct Fleet {
    pub site: Site,
    pub driver: Driver,
    counter: Counter,
    watcher: Watcher,
    /// What systemd calls the run of each host's PHP-FPM at the start. A host that boots again may give out the same process ids.
    invocations: Vec<String>,
    // After the site: its hosts end first.
    daemon: Option<Poolcounterd>,
}

impl Fleet {
    /// So many booted hosts, and two load balancers that follow etcd faster than PyBal does.
    pub fn boot(hosts: usize, driver: Driver, counter: Counter) -> Result<Self> {
        Self::boot_as(hosts, driver, counter, |site| site.binaries(&["safe-service-restart"]))
    }

    /// The same, with more on them than the one tool.
    pub fn boot_as(
        hosts: usize,
        driver: Driver,
        counter: Counter,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Result<Self> {
        let names: Vec<_> = (1..=hosts).map(|number| format!("mw{number}.{DC}.test")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let daemon = (counter == Counter::Poolcounter).then(Poolcounterd::start).transpose()?;
        let backend = daemon.as_ref().map(|daemon| daemon.backend("pc1"));
        let site =
            Site::builder().driver(driver).hosts(&names).reopen(Duration::from_millis(50)).each_host(move |host| {
                match &backend {
                    Some(backend) => host.file("/etc/poolcounter-backends.yaml", backend),
                    None => host,
                }
            });
        let site = change(site).boot()?;
        let watcher = Watcher::start(&site, driver)?;
        let invocations =
            (0..hosts).map(|host| site.host(host).property(UNIT, "InvocationID")).collect::<Result<_>>()?;
        Ok(Self { site, driver, counter, watcher, invocations, daemon })
    }

    /// Ends whoever counts.
    pub fn kill_counter(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Poolcounterd::kill)
    }

    /// Their number.
    pub fn size(&self) -> usize {
        self.invocations.len()
    }

    pub fn name(&self, host: usize) -> &str {
        self.site.host(host).name()
    }

    /// Users, for as long as a test may take.
    pub fn load(&self) -> Result<Load> {
        let mut plan = self.site.load().rate(20);
        plan.limit = 2 * LONG;
        plan.start()
    }

    /// Starts a safe restart on one host.
    pub fn start(&self, host: usize, arguments: &[&str]) -> Result<Running> {
        let common = [TOOL, "--pools", POOL, "--services", UNIT, "--settle", "0.4", "--lb-timeout", "60"];
        self.site.host(host).spawn(&[&common[..], arguments].concat())
    }

    /// Starts one on each of them.
    pub fn start_all(&self, arguments: &[&str]) -> Result<Vec<Running>> {
        (0..self.size()).map(|host| self.start(host, arguments)).collect()
    }

    /// Whether its PHP-FPM was started since the start.
    pub fn restarted(&self, host: usize) -> Result<bool> {
        Ok(self.site.host(host).property(UNIT, "InvocationID")? != self.invocations[host])
    }

    /// Whether its object in the store says so now.
    pub fn is_out(&self, host: usize) -> Result<bool> {
        let entry = self.site.etcd().store(self.driver)?.get(&self.site.node(host).key())?;
        Ok(entry.is_some_and(|entry| entry.value.contains(r#""pooled": "no""#)))
    }

    /// What has happened in the store so far.
    pub fn so_far(&self) -> Vec<Moment> {
        self.watcher.so_far()
    }

    /// `--recover`, again and again as the timer does, until nothing is left to be finished.
    pub fn recover(&self, host: usize) -> Result<()> {
        let what = format!("the recovery of '{}'", self.name(host));
        wait::until(&what, Duration::from_secs(60), || {
            let run = self.site.host(host).exec(&[TOOL, "--recover"])?;
            ensure!(run.code() == Some(0), "{run}");
            Ok(self.journals(host)?.is_empty())
        })
    }

    /// The files in the folder of journals.
    pub fn journals(&self, host: usize) -> Result<String> {
        let script = format!("ls -A {JOURNALS} 2>/dev/null | grep journal || true");
        self.site.host(host).exec(&["bash", "-c", &script])?.success()
    }

    /// With leases: which hosts have an entry in the queue, as their values say, whoever they are.
    pub fn queue(&self) -> Result<Vec<String>> {
        self.values(SLOTS)
    }

    fn values(&self, folder: &str) -> Result<Vec<String>> {
        let (entries, _) = self.site.etcd().store(self.driver)?.list(folder)?;
        Ok(entries.into_iter().map(|entry| entry.value).collect())
    }

    /// Nothing is forgotten: every host restarted and pooled, in the store and at the load balancers, no journal anywhere, and
    /// nobody counted who is not there. Then what the two witnesses saw.
    pub fn end_well(self) -> Result<Seen> {
        let mut wrong = String::new();
        for host in 0..self.size() {
            self.site.wait_pooled(host, true)?;
            if !self.restarted(host)? {
                writeln!(wrong, "'{}' was not restarted", self.name(host))?;
            }
            let left = self.journals(host)?;
            if !left.is_empty() {
                writeln!(wrong, "'{}' has left: {left}", self.name(host))?;
            }
        }
        if self.counter == Counter::Leases {
            for folder in [SLOTS, OUT] {
                for value in self.values(folder)? {
                    writeln!(wrong, "left in '{folder}': {value}")?;
                }
            }
        }
        let seen = self.seen()?;
        assert!(wrong.is_empty(), "{wrong}\n{seen}");
        assert!(seen.history.last().is_some_and(|moment| moment.out.is_empty()), "somebody is still out\n{seen}");
        Ok(seen)
    }

    /// What the two witnesses saw.
    pub fn seen(self) -> Result<Seen> {
        let balancers = out_of_balancers(&self.site)
            .into_iter()
            .map(|(change, out)| {
                let what = if change.pooled { "sends to" } else { "no longer sends to" };
                (format!("a load balancer {what} {}", change.server), out.len())
            })
            .collect();
        Ok(Seen { history: self.watcher.finish(&self.site, self.driver)?, balancers })
    }
}

/// The story of a fleet.
pub struct Seen {
    /// Every revision of the pool in the store.
    pub history: Vec<Moment>,
    /// Every change at a load balancer, and how many hosts did not get everything after it.
    pub balancers: Vec<(String, usize)>,
}

impl Seen {
    /// The most that were out at once, in the store and at the load balancers.
    pub fn most_out(&self) -> (usize, usize) {
        let store = self.history.iter().map(|moment| moment.out.len()).max();
        let balancers = self.balancers.iter().map(|(_, out)| *out).max();
        (store.unwrap_or_default(), balancers.unwrap_or_default())
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "the store's history of the pool:")?;
        self.history.iter().try_for_each(|moment| writeln!(f, "  {moment}"))?;
        writeln!(f, "the load balancers:")?;
        self.balancers.iter().try_for_each(|(what, out)| writeln!(f, "  {what}: {out} out somewhere"))
    }
}

/// Fails with all that is known unless every run ended well.
#[track_caller]
pub fn all_done(outputs: &[Output]) {
    for output in outputs {
        assert_eq!(output.code(), Some(0), "{output}");
    }
}

/// Fails with the first of the lost unless there is none.
#[track_caller]
pub fn none_lost(report: &Report) {
    assert!(report.ok > 0, "the load has not begun: {report:?}");
    assert_eq!(report.lost, 0, "requests were lost: {report:#?}");
}
