//! The fault matrix and the kills for `driver: haproxy`. There is no etcd, the store and the load balancer are one, and there are no
//! revisions: so the faults are others (`rows.rs`), and what must stand in the end is what HAProxy says. Two hosts and one HAProxy,
//! brought to a good state before each cell, and before each kill (`killed.rs`).

mod killed;
mod rows;

use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use testbed::host::{Output, Running};
use testbed::poolcounterd::Poolcounterd;
use testbed::relay::{Mode, Relay};
use testbed::shop::{POOL, Shop};
use testbed::site::UNIT;
use testbed::{Result, load, wait};

use self::rows::{Cell, DRAIN, Fault, READY, cells, is_slow};
use crate::stand::{LIMIT, MEND, MOODS, Seen, TOOL, signal_of};
use crate::{say, story};

/// How often a recovery is tried, once a fault is over, until nothing is left.
const RECOVERIES: usize = 40;
const WEIGHT: u32 = 7;

/// How slowly HAProxy answers where a run has to stand in a question to it.
const SLOW: Duration = Duration::from_millis(700);

/// The time for one exchange. One that is slow has two questions in it.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// Two hosts, of which the first is restarted, one HAProxy, one poolcounterd.
struct Stand {
    shop: Shop,
    relay: Relay,
    poolcounter: Poolcounterd,
    holder: Option<TcpStream>,
}

impl Stand {
    fn boot() -> Result<Self> {
        let shop = Shop::boot(2, 1, &["safe-service-restart"], |host| {
            host.drop_in("php8.2-fpm.service", "moods.conf", MOODS)
        })?;
        let relay = shop.relay(0)?;
        Ok(Self { shop, relay, poolcounter: Poolcounterd::start()?, holder: None })
    }

    fn look(&self) -> Result<Seen> {
        Seen::of(self.shop.host(0))
    }

    /// How HAProxy has the host, in the first word of its status; health checks are off.
    fn stands(&self) -> Result<String> {
        Ok(self.shop.server(0, 0)?.status)
    }

    fn reset(&mut self) -> Result<Seen> {
        self.lift()?;
        self.shop.host(0).exec(&["bash", "-c", MEND])?.success()?;
        self.shop.order(0, 0, "state ready")?;
        self.shop.order(0, 0, &format!("weight {WEIGHT}"))?;
        self.poolcounter = Poolcounterd::start()?;
        self.shop.host(0).write("/etc/poolcounter-backends.yaml", &self.poolcounter.backend("pc1"))?;
        self.serves()?;
        let seen = self.look()?;
        ensure!(seen.active == "active" && seen.files.is_empty(), "not a good state to begin with: {seen:?}");
        Ok(seen)
    }

    /// Lifts every fault from outside the host. A HAProxy that runs as it should is left as it is.
    fn lift(&mut self) -> Result<()> {
        self.holder = None;
        self.relay.set(Mode::Pass)?;
        if self.shop.host(0).exec(&["true"]).is_err() {
            self.shop.host_mut(0).boot_again()?;
        }
        self.shop.haproxy_mut(0).thaw()?;
        if self.shop.haproxy(0).control().command("show info").is_err() {
            self.shop.start_again(0)?;
        }
        self.shop.mend(0)?;
        self.shop.host(0).exec(&["rm", "-f", "/var/lib/safe-service-restart/filler"])?.success()?;
        Ok(())
    }

    fn serves(&self) -> Result<()> {
        wait::until_some("a page of the host", Duration::from_secs(10), || {
            load::fetch(self.shop.host(0).web(), "/index.php", Duration::from_secs(2)).map(Some)
        })?;
        Ok(())
    }

    fn strike(&mut self, fault: Fault, run: Option<&mut Running>) -> Result<()> {
        match fault {
            Fault::None => {}
            Fault::Signal(signal) => run.map_or(Ok(()), |run| run.signal(signal))?,
            Fault::Refused => self.shop.haproxy_mut(0).kill()?,
            Fault::Frozen => self.shop.haproxy_mut(0).freeze()?,
            Fault::Restarted => self.shop.start_again(0)?,
            Fault::Reloaded => self.shop.haproxy_mut(0).reload()?,
            Fault::Level => self.shop.level(0, "user")?,
            Fault::Order(words) => self.shop.order(0, 0, words)?,
            Fault::Down => self.shop.down(0)?,
            Fault::PoolcounterKilled => self.poolcounter.kill()?,
            Fault::Mood(mood) => self.shop.host(0).write("/run/mood", mood)?,
            Fault::DiskFull => {
                let fill = "cat /dev/zero >$0/filler 2>/dev/null; test -s $0/filler";
                self.shop.host(0).exec(&["bash", "-c", fill, "/var/lib/safe-service-restart"])?.success()?;
            }
            Fault::PowerCut => self.shop.host_mut(0).power_cut()?,
            Fault::Way(mode) => self.relay.set(mode)?,
        }
        Ok(())
    }

    fn start(&mut self, phase: &str, before: &Seen) -> Result<Running> {
        let (own, words) = match phase {
            "start" => ("--grace-period 0.1", ""),
            "queue" => ("--grace-period 0.1", "waiting for a slot"),
            "look" => ("--grace-period 0.1", "is known there, for at most"),
            "leave" => ("--grace-period 0.1", "is not pooled, for at most"),
            "drain" => ("--grace-period 1.5", "for requests in flight"),
            "last" => ("--grace-period 0.1", "is still not pooled, right before"),
            "return" => ("--grace-period 0.1", "is pooled, for at most"),
            "restart" => ("--grace-period 0.1", "restarting 'php8.2-fpm"),
            _ => ("--grace-period 0.1 --settle 2", "restarting 'php8.2-fpm"),
        };
        if phase == "queue" {
            self.holder = Some(self.poolcounter.take(&format!("ServiceRestarter::haproxy::{POOL}"))?);
        }
        if is_slow(phase) {
            self.relay.set(Mode::Slow(SLOW))?;
        }
        if phase == "restart" {
            self.shop.host(0).write("/run/mood", "slow")?;
        }
        let common = "--max-concurrency 1 --slot-timeout 9 --lb-timeout 4 --wait 0.2";
        let timeout = if is_slow(phase) { SLOW * 4 } else { TIMEOUT }.as_secs_f32();
        let arguments = format!("{TOOL} --pools {POOL} --services {UNIT} {common} --timeout {timeout} {own}");
        let mut run = self.shop.host(0).spawn(&arguments.split_whitespace().collect::<Vec<_>>())?;
        run.wait_for_stderr(words, LIMIT)?;
        if phase == "settle" {
            wait::until("the new PHP-FPM", LIMIT, || {
                let now = self.look()?;
                Ok(now.invocation != before.invocation && now.active == "active")
            })?;
        }
        Ok(run)
    }

    fn recover(&self) -> Result<Output> {
        self.shop.host(0).exec(&[TOOL, "--recover", "--lb-timeout", "5", "--timeout", "1.5", "--wait", "0.2"])
    }

    /// Nothing is forgotten: the timer comes again and again. Whether the host is held in the end.
    fn recovered(&self) -> Result<bool> {
        for number in 1.. {
            let recovery = self.recover()?;
            if recovery.code() == Some(3) {
                return Ok(true);
            }
            if recovery.code() == Some(0) && self.look()?.files.iter().all(|file| file == "filler") {
                return Ok(false);
            }
            ensure!(number < RECOVERIES, "the recovery does not come to an end: {recovery}; {:?}", self.look()?);
            thread::sleep(Duration::from_millis(250));
        }
        Ok(false)
    }

    fn cell(&mut self, cell: Cell) -> Result<String> {
        let before = self.reset().context("before the cell")?;
        // Where the relay has nothing to do, it is HAProxy itself that is asked.
        let relayed = matches!(cell.fault, Fault::Way(_)) || is_slow(cell.phase);
        let api = if relayed { self.relay.address() } else { self.shop.api(0) };
        self.shop.ask_at(0, &[api])?;
        if cell.fault == Fault::DiskFull {
            let mount = "install -d -m 0700 $0 && mount -t tmpfs -o size=64k,mode=0700 none $0";
            self.shop.host(0).exec(&["bash", "-c", mount, "/var/lib/safe-service-restart"])?.success()?;
        }
        let run = if cell.phase == "start" {
            self.strike(cell.fault, None)?;
            self.start(cell.phase, &before)?
        } else {
            let mut run = self.start(cell.phase, &before)?;
            let struck = self.strike(cell.fault, Some(&mut run));
            if relayed && !matches!(cell.fault, Fault::Way(_)) {
                // It has been slow for long enough.
                self.relay.set(Mode::Pass)?;
            }
            struck.with_context(|| format!("the fault did not come about; the run has said:\n{}", run.stderr()))?;
            run
        };
        if cell.fault != Fault::PoolcounterKilled {
            self.holder = None;
        }
        let output = run.wait(LIMIT)?;
        self.judge(cell, &before, &output).with_context(|| format!("the run: {output}"))
    }

    fn judge(&mut self, cell: Cell, before: &Seen, output: &Output) -> Result<String> {
        let end = match (output.code(), signal_of(output)) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => signal.as_str().trim_start_matches("SIG").to_owned(),
            (None, None) => anyhow::bail!("it ended neither with a code nor by a signal"),
        };
        ensure!(cell.ends.split('|').any(|one| one == end), "it ended with {end}, not {}", cell.ends);
        // What HAProxy stands for is looked at only when it can be asked: the fault is over.
        self.lift().context("to lift the fault")?;
        let after = self.look()?;
        let restarted = after.invocation != before.invocation;
        let expected = match end.as_str() {
            "0" | "4" => Some(true),
            "1" | "5" | "69" | "75" | "78" => Some(false),
            _ => None,
        };
        ensure!(expected.is_none_or(|expected| expected == restarted), "ended with {end}, restarted: {restarted}");
        if matches!(end.as_str(), "3" | "4" | "5") {
            ensure!(after.journal(), "ended with {end}, and left no journal");
        }
        let held = self.recovered()?;
        ensure!(held == (end == "3"), "held by the recovery: {held}");
        let stands = self.stands()?;
        let wanted = if held { DRAIN } else { cell.stands };
        ensure!(stands == wanted, "HAProxy says {stands}, not {wanted}");
        if matches!(cell.fault, Fault::None | Fault::Signal(_) | Fault::Order(_) | Fault::PowerCut | Fault::Mood(_)) {
            // Those that start another HAProxy bring back what is configured.
            ensure!(self.shop.weight(0, 0)? == WEIGHT, "the weight was not kept");
        }
        if held {
            self.shop.host(0).write("/run/mood", "")?;
            let good = self.start("start", before)?.wait(LIMIT)?;
            ensure!(good.code() == Some(0) && self.stands()? == READY, "the run after the repair: {good}");
        }
        Ok(end)
    }
}

#[test]
fn every_fault_of_a_haproxy_that_keeps_the_pool_ends_well() {
    let began = Instant::now();
    let cells = Mutex::new(cells().into_iter().rev().collect::<Vec<_>>());
    let results = Mutex::new((0, String::new()));
    let work = || {
        let mut stand: Option<Stand> = None;
        loop {
            let Some(cell) = cells.lock().unwrap().pop() else { return };
            let result = match stand.take().map_or_else(Stand::boot, Ok) {
                Err(error) => Err(error.context("the stand does not boot")),
                Ok(mut booted) => {
                    let result = booted.cell(cell);
                    // After a cell that failed the stand is booted anew, so that no other cell suffers for it.
                    stand = result.is_ok().then_some(booted);
                    result
                }
            };
            let Cell { name, phase, .. } = cell;
            let mut results = results.lock().unwrap();
            results.0 += 1;
            match result {
                Ok(end) => say(&format!("haproxy {name} {phase}: {end}")),
                Err(error) => {
                    say(&format!("haproxy {name} {phase}: FAILED"));
                    results.1 += &format!("\n== haproxy '{name}' in '{phase}':\n{}\n", story(&error));
                }
            }
        }
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let (run, stories) = results.into_inner().unwrap();
    say(&format!("{run} cells of haproxy in {:.0?}", began.elapsed()));
    assert!(stories.is_empty(), "{stories}");
}
