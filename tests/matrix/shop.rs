//! The fault matrix and the kills for `driver: haproxy`. There is no etcd, the store and the load balancer are one, and there are no
//! revisions: so the faults are others, and what must stand in the end is what HAProxy says. Two hosts and one HAProxy, brought to
//! a good state before each cell.

use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use testbed::host::{Output, Running};
use testbed::poolcounterd::Poolcounterd;
use testbed::relay::{Mode, Relay};
use testbed::shop::{POOL, Shop};
use testbed::site::UNIT;
use testbed::{Result, load, wait};

use crate::effects::{CALLS, calls, traced};
use crate::stand::{LIMIT, MEND, MOODS, Seen, TOOL, signal_of};
use crate::{full, say, story};

/// The states of HAProxy's statistics: in service, on the way out because of us, an operator's.
const READY: &str = "no check";
const DRAIN: &str = "DRAIN";
const MAINT: &str = "MAINT";
/// How often a recovery is tried, once a fault is over, until nothing is left.
const RECOVERIES: usize = 40;
const WEIGHT: u32 = 7;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Signal(Signal),
    /// HAProxy is dead: connections are refused.
    Refused,
    /// It stands still.
    Frozen,
    /// It is killed, and another one started: state is forgotten.
    Restarted,
    /// It is reloaded: state is forgotten.
    Reloaded,
    /// It is reloaded, and takes no orders any more.
    Level,
    /// An operator orders this.
    Order(&'static str),
    /// It is reloaded with a health check that nobody answers.
    Down,
    PoolcounterKilled,
    Mood(&'static str),
    DiskFull,
    PowerCut,
    /// The way to HAProxy does this.
    Way(Mode),
}

/// Where it strikes: before the run, while it waits for a slot, while HAProxy is first asked, while it is asked whether it has let go,
/// while requests in flight end, while everything is looked at once more, while systemd restarts, while the unit has to stay up, and
/// while HAProxy is asked whether it sends again.
const PHASES: [&str; 9] = ["start", "queue", "look", "leave", "drain", "last", "restart", "settle", "return"];

/// How slowly HAProxy answers where a run has to stand in a question to it.
const SLOW: Duration = Duration::from_millis(700);

/// The time for one exchange. One that is slow has two questions in it.
const TIMEOUT: Duration = Duration::from_millis(1500);

fn is_slow(phase: &str) -> bool {
    matches!(phase, "look" | "leave" | "last" | "return")
}

/// How a run ends that a fault strikes in each of the phases: a code, or a signal; `5|69` is either; `.` is a cell that means nothing;
/// `*` marks those that are run by default. The last column is how the host stands in the end.
type Row = (&'static str, Fault, &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    //                                                      start  queue  look  leave  drain  last   restart settle  return
    ("nothing",             Fault::None,                    "0*    0      0     0      0      0      0       0       0",      READY),
    ("SIGTERM",             Fault::Signal(Signal::SIGTERM), ".     TERM   TERM  TERM   TERM*  TERM   TERM*   TERM    TERM",   READY),
    ("SIGKILL",             Fault::Signal(Signal::SIGKILL), ".     KILL   KILL  KILL*  KILL*  KILL   KILL*   KILL    KILL*",  READY),
    ("haproxy refused",     Fault::Refused,                 "69*   69     69    5      5*     5      4*      4       4",      READY),
    ("haproxy frozen",      Fault::Frozen,                  "69*   69     69    5      5*     5      4*      4       4",      READY),
    ("haproxy restarted",   Fault::Restarted,               "0     0      0     1      1*     1*     0*      0       0",      READY),
    ("haproxy reloaded",    Fault::Reloaded,                "0     0      0     1*     1*     1      0*      0       0",      READY),
    ("level user",          Fault::Level,                   "78*   78     78*   1      1      1      0*      0       0",      READY),
    ("operator: weight",    Fault::Order("weight 7"),       "0     0      0     0      0*     0      0       0       0",      READY),
    ("operator: ready",     Fault::Order("state ready"),    "0     0      0     1      1*     1*     0*      0       0",      READY),
    ("operator: drain",     Fault::Order("state drain"),    "0*    0      0*    .      .      .      .       .       4",      DRAIN),
    ("operator: maint",     Fault::Order("state maint"),    "0*    0      0     0      0*     0      0*      0       4*",     MAINT),
    ("down by check",       Fault::Down,                    "4*    4      4     1      1      1      0|4     0|4     0|4",    READY),
    ("poolcounter killed",  Fault::PoolcounterKilled,       "69*   69     69    69     69*    69     0       0       0",      READY),
    ("unit fails",          Fault::Mood("fail"),            "3     3      3     3      3*     3      .       .       .",      DRAIN),
    ("unit hangs",          Fault::Mood("hang"),            "3     3      3     3      3      3      .       .       .",      DRAIN),
    ("unit dies",           Fault::Mood("die"),             "3     3      3     3      3*     3      3       .       .",      DRAIN),
    ("disk full",           Fault::DiskFull,                "1*    1      1     0      0      0      0*      0       0",      READY),
    ("power cut",           Fault::PowerCut,                ".     KILL   KILL  KILL   KILL*  KILL   KILL|3* KILL|3  KILL|4", READY),
    // On the way there.
    ("refused",             Fault::Way(Mode::Refuse),       "69    69     69    5      5      5      4       4       4",      READY),
    ("hangs",               Fault::Way(Mode::Hang),         "69    69     69    5      5      5      4       4       4",      READY),
    ("rubbish",             Fault::Way(Mode::Rubbish),      "69*   69     69    5*     5      5      4*      4       4",      READY),
    ("drip",                Fault::Way(Mode::Drip),         "69    69     69    5      5*     5      4       4       4",      READY),
    ("answers lost",        Fault::Way(Mode::LoseAnswers),  "0*    0      0     0      0      0      0*      0       0",      READY),
    ("answers kept back",   Fault::Way(Mode::KeepAnswers),  "0     0      0*    0      0      0      0*      0       0",      READY),
    ("orders lost",         Fault::Way(Mode::LoseOrders),   "69    69     69*   4      4      4      4*      4       0",      READY),
    ("orders kept back",    Fault::Way(Mode::KeepOrders),   "5*    5      5     4      4      4      4*      4       0",      READY),
];

/// One fault in one phase.
#[derive(Clone, Copy)]
struct Cell {
    name: &'static str,
    fault: Fault,
    phase: &'static str,
    ends: &'static str,
    stands: &'static str,
}

fn cells() -> Vec<Cell> {
    let only = std::env::var("MATRIX_ONLY").ok();
    let mut cells = Vec::new();
    for (name, fault, row, stands) in ROWS {
        let columns: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(columns.len(), PHASES.len(), "the row '{name}'");
        for (phase, text) in PHASES.into_iter().zip(columns).filter(|(_, text)| *text != ".") {
            let wanted = match &only {
                Some(only) => format!("haproxy {name} {phase}").contains(only.as_str()),
                None => full() || text.ends_with('*'),
            };
            if wanted {
                cells.push(Cell { name, fault: *fault, phase, ends: text.trim_end_matches('*'), stands });
            }
        }
    }
    cells
}

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

/// What is killed: a safe restart, or the recovery of one that was killed while the host was out.
const VICTIMS: [(&str, &str); 2] = [
    ("run", "--pools web --services php8.2-fpm --max-concurrency 1 --grace-period 0 --settle 0 --lb-timeout 20"),
    ("recovery", "--recover --lb-timeout 20"),
];

#[test]
fn a_run_with_haproxy_alone_that_is_killed_at_any_effect_is_brought_back() {
    let began = Instant::now();
    let mut stand = Stand::boot().unwrap();
    let (mut stories, mut killed, mut out) = (String::new(), 0, 0);
    for (victim, arguments) in VICTIMS {
        let prepare = |stand: &mut Stand| -> Result<()> {
            let before = stand.reset()?;
            if victim == "recovery" {
                let mut run = stand.start("drain", &before)?;
                run.signal(Signal::SIGKILL)?;
                run.wait(LIMIT)?;
            }
            Ok(())
        };
        prepare(&mut stand).unwrap();
        let names: Vec<_> = CALLS.iter().map(|(call, _)| *call).collect();
        let all = format!("--trace={}", names.join(","));
        let (output, said) = traced(stand.shop.host(0), arguments, &[&all]).unwrap();
        assert_eq!(output.code(), Some(0), "an undisturbed {victim}: {output}");
        let counts = calls(&said);
        for needed in ["fsync", "unlinkat", "connect", "sendto", "recvfrom"] {
            assert!(counts.contains_key(needed), "no '{needed}' in a whole {victim}: look at CALLS; {counts:?}");
        }
        for (call, stride) in CALLS {
            let stride = if full() { 1 } else { stride * if victim == "recovery" { 4 } else { 2 } };
            for number in (1..=counts.get(call).copied().unwrap_or_default()).step_by(stride) {
                let result = (|| {
                    prepare(&mut stand)?;
                    let inject = format!("--inject={call}:signal=KILL:when={number}");
                    let (output, _) = traced(stand.shop.host(0), arguments, &[&format!("--trace={call}"), &inject])?;
                    ensure!(signal_of(&output).is_some() || output.code() == Some(0), "{output}");
                    let was_out = stand.stands()? != READY;
                    let held = stand.recovered()?;
                    ensure!(!held && stand.stands()? == READY, "held: {held}, {}: {output}", stand.stands()?);
                    ensure!(stand.shop.weight(0, 0)? == WEIGHT, "the weight was not kept");
                    wait::until("PHP-FPM", LIMIT, || Ok(stand.look()?.active == "active"))?;
                    Ok::<_, anyhow::Error>((signal_of(&output).is_some(), was_out))
                })();
                match result {
                    Ok((was_killed, was_out)) => {
                        (killed, out) = (killed + usize::from(was_killed), out + usize::from(was_out));
                    }
                    Err(error) => {
                        stories += &format!("\n== a {victim} killed at call {number} of {call}:\n{}\n", story(&error));
                        stand = Stand::boot().unwrap();
                    }
                }
            }
        }
    }
    say(&format!("haproxy: killed at {killed} effects, {out} of them out: {:.0?}", began.elapsed()));
    assert!(stories.is_empty(), "{stories}");
    assert!(out > 0, "the host was never out when the run was killed: that proves nothing");
}
