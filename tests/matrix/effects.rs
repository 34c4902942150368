//! SIGKILL at every effect: the run is killed from outside, by strace, at the Nth call of one kind, for N = 1, 2, 3 and so on
//! until it ends by itself. The calls are those by which a run has an effect (on the journal, on the network, on processes) or
//! learns of one. After each kill the recovery has to bring everything back to the byte. The recovery itself is
//! killed in the same way.
//!
//! strace runs on this machine and attaches to the run on the host before its first instruction: a shell stops itself, and
//! becomes the run when it is let go. It follows the main thread alone, which does all of that: so the numbers mean the same
//! call every time, and a systemctl that the run has started is never the one that is killed. The call at which the signal comes
//! is not made; the state right after each effect is the one in which the next call is not made.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use testbed::etcd::Driver;
use testbed::host::{Host, Output};
use testbed::{Result, process, wait};

use crate::stand::{Kind, LIMIT, OBJECT, Stand, TOOL, signal_of};
use crate::{DRIVERS, full, say, story};

/// What is killed at, and at which share of the calls by default: one of so many. One that is not here, and that a later libc
/// uses in the place of one that is, shows as a row that is missing, which fails.
pub const CALLS: [(&str, usize); 14] = [
    ("execve", 1),
    ("openat", 5),
    ("mkdirat", 1),
    ("renameat", 1),
    ("fsync", 1),
    ("unlinkat", 1),
    ("write", 3),
    ("writev", 2),
    ("sendto", 2),
    ("recvfrom", 3),
    ("connect", 1),
    ("clone3", 2),
    ("epoll_wait", 4),
    ("wait4", 1),
];

/// How often a recovery is tried.
const RECOVERIES: usize = 60;

#[test]
fn a_run_that_is_killed_at_any_effect_is_brought_back() {
    let began = Instant::now();
    let results: Vec<Result<String>> = thread::scope(|scope| {
        let runs = DRIVERS.map(|driver| scope.spawn(move || all_of(driver)));
        runs.into_iter().map(|run| run.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")))).collect()
    });
    let mut failed = String::new();
    for result in results {
        match result {
            Ok(table) => say(&table),
            Err(error) => failed += &format!("\n{}", story(&error)),
        }
    }
    say(&format!("kills at effects: {:.0?}", began.elapsed()));
    assert!(failed.is_empty(), "{failed}");
}

/// What is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// A safe restart, with a slot of poolcounter's.
    Run,
    /// One with a slot kept in etcd.
    Leased,
    /// The recovery of one that was killed while the host was out.
    Recovery,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Leased => "leased run",
            Self::Recovery => "recovery",
        }
    }

    /// Its arguments.
    fn arguments(self) -> &'static str {
        match self {
            Self::Run => {
                "--pools appservers --services php8.2-fpm --min-pooled 0 --max-concurrency 1 --grace-period 0 --settle 0 \
                 --lb-timeout 20"
            }
            Self::Leased => {
                "--pools appservers --services php8.2-fpm --min-pooled 0 --max-concurrency 1 --grace-period 0 --settle 0 \
                 --lb-timeout 20 --slots etcd"
            }
            Self::Recovery => "--recover --lb-timeout 20",
        }
    }

    /// Brings the stand to where it begins.
    fn prepare(self, stand: &mut Stand) -> Result<()> {
        stand.reset()?;
        if self == Self::Recovery {
            let arguments = format!("{} --grace-period 30", Self::Run.arguments().replace(" --grace-period 0", ""));
            let mut run = stand.start(&arguments.split_whitespace().collect::<Vec<_>>())?;
            run.wait_for_stderr("for requests in flight", LIMIT)?;
            run.signal(Signal::SIGKILL)?;
            run.wait(LIMIT)?;
        }
        Ok(())
    }
}

/// All kills with one driver, and the table of them.
fn all_of(driver: Driver) -> Result<String> {
    let mut stand = Stand::boot(driver, Kind::Plain)?;
    let mut stories = String::new();
    let mut table = format!(
        "\nkilled at the Nth call, driver {}: brought back of tried, of these depooled when killed (calls of a whole run)",
        driver.name()
    );
    // Leases are etcd v3's.
    let victims = [Victim::Run, Victim::Leased, Victim::Recovery];
    for victim in victims.into_iter().filter(|victim| driver == Driver::V3 || *victim != Victim::Leased) {
        let counts = count(&mut stand, victim)?;
        for needed in ["renameat", "fsync", "unlinkat", "recvfrom", "clone3"] {
            // A recovery whose last act is to remove the journal renames nothing else.
            let seen = counts.contains_key(needed) || (victim, needed) == (Victim::Recovery, "renameat");
            ensure!(seen, "no '{needed}' in a whole {}: look at CALLS; {counts:?}", victim.name());
        }
        for (call, stride) in CALLS {
            let Some(calls) = counts.get(call).copied() else { continue };
            let (recovered, tried, out) = at_each(&mut stand, victim, call, stride, calls, &mut stories)?;
            table += &format!(
                "\n{:<10} {call:<11} {recovered:>3} of {tried:>3}, {out:>3} depooled ({calls})",
                victim.name()
            );
        }
    }
    ensure!(stories.is_empty(), "{table}\n{stories}");
    Ok(table)
}

/// Kills at the first, second, third call and so on; how many were brought back, of how many, and how many of these were out.
fn at_each(
    stand: &mut Stand,
    victim: Victim,
    call: &str,
    stride: usize,
    calls: usize,
    stories: &mut String,
) -> Result<(usize, usize, usize)> {
    let (mut recovered, mut tried, mut out) = (0, 0, 0);
    // A recovery is a part of a run, killed at the same calls.
    let stride = if full() { 1 } else { stride * if victim == Victim::Recovery { 2 } else { 1 } };
    for number in (1..).step_by(stride) {
        // With everything, until it ends by itself; else as far as one goes that is not disturbed.
        if !full() && number > calls {
            break;
        }
        match kill_at(stand, victim, call, number) {
            Ok(Killed::No) => break,
            Ok(killed) => {
                (tried, recovered) = (tried + 1, recovered + 1);
                out += usize::from(killed == Killed::Out);
            }
            Err(error) => {
                tried += 1;
                let (driver, victim, story) = (stand.driver.name(), victim.name(), story(&error));
                *stories += &format!("\n== {driver}, a {victim} killed at call {number} of {call}:\n{story}\n");
                *stand = Stand::boot(stand.driver, Kind::Plain)?;
            }
        }
    }
    Ok((recovered, tried, out))
}

/// How many calls of each kind one makes that is not disturbed.
fn count(stand: &mut Stand, victim: Victim) -> Result<BTreeMap<String, usize>> {
    victim.prepare(stand)?;
    let names: Vec<_> = CALLS.iter().map(|(call, _)| *call).collect();
    let (output, said) = traced(stand.site.host(0), victim.arguments(), &[&format!("--trace={}", names.join(","))])?;
    ensure!(output.code() == Some(0), "an undisturbed {}: {output}", victim.name());
    Ok(calls(&said))
}

/// How many calls of each kind strace has seen.
pub fn calls(said: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in said.lines() {
        if let Some((name, _)) = line.split_once('(') {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Where the host was when it was killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killed {
    /// It ended by itself before.
    No,
    /// The host was pooled.
    In,
    /// The host was depooled.
    Out,
}

/// Kills one at this call, and sees the host brought back.
fn kill_at(stand: &mut Stand, victim: Victim, call: &str, number: usize) -> Result<Killed> {
    victim.prepare(stand)?;
    let inject = format!("--inject={call}:signal=KILL:when={number}");
    let (output, said) = traced(stand.site.host(0), victim.arguments(), &[&format!("--trace={call}"), &inject])?;
    if signal_of(&output).is_none() {
        ensure!(output.code() == Some(0), "not killed, and not well: {output}");
        return Ok(Killed::No);
    }
    let last = said.lines().rfind(|line| line.contains('(')).unwrap_or_default().to_owned();
    let out = stand.raw()?.as_deref() != Some(OBJECT);
    brought_back(stand).with_context(|| format!("killed at: {last}\nthe {}: {output}", victim.name()))?;
    Ok(if out { Killed::Out } else { Killed::In })
}

/// Nothing is left of the run that died.
fn brought_back(stand: &Stand) -> Result<()> {
    for number in 1.. {
        let recovery = stand.recover("20")?;
        // A systemctl that outlives its run holds the lock until it is done, and a recovery then has nothing to say.
        if recovery.code() == Some(0) && stand.look()?.files.is_empty() {
            break;
        }
        ensure!(number < RECOVERIES, "the recovery does not come to an end: {recovery}; {:?}", stand.look()?);
        thread::sleep(Duration::from_millis(100));
    }
    let now = stand.raw()?;
    ensure!(now.as_deref() == Some(OBJECT), "in etcd stands {now:?}");
    ensure!(stand.counted_out()?.is_empty(), "still counted as out in etcd: {:?}", stand.counted_out()?);
    stand.site.wait_pooled(0, true)?;
    wait::until("PHP-FPM", Duration::from_secs(20), || Ok(stand.look()?.active == "active"))?;
    stand.serves()
}

/// The product on this host with these arguments, under strace with those; its output, and strace's.
pub fn traced(host: &Host, arguments: &str, strace: &[&str]) -> Result<(Output, String)> {
    let stopped = "kill -STOP $$; exec \"$@\"";
    let mut command = vec!["sh", "-c", stopped, "sh", TOOL];
    command.extend(arguments.split_whitespace());
    let mut run = host.spawn(&command)?;
    let pid = run.pid()?;
    wait::until("the run to stand at its beginning", LIMIT, || Ok(is_stopped(pid)))?;
    let log = tempfile::NamedTempFile::new().context("cannot make a file for strace")?;
    let mut tracer = Tracer::attach(pid, strace, log.path())?;
    // It lets the run go on in turn.
    run.let_go()?;
    let output = run.wait(LIMIT)?;
    tracer.wait()?;
    Ok((output, std::fs::read_to_string(log.path())?))
}

fn is_stopped(pid: Pid) -> bool {
    process::status(pid, "State").starts_with('T')
}

/// strace; ends with this value.
struct Tracer(Child);

impl Tracer {
    /// Attaches to a process that stands still.
    fn attach(pid: Pid, arguments: &[&str], log: &std::path::Path) -> Result<Self> {
        let child = Command::new("strace")
            .args(["--quiet=all", "--attach", &pid.to_string(), "--output"])
            .arg(log)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start strace: run tests/prepare")?;
        let tracer = Self(child);
        wait::until("strace to attach", LIMIT, || Ok(!matches!(process::status(pid, "TracerPid").as_str(), "" | "0")))?;
        Ok(tracer)
    }

    fn wait(&mut self) -> Result<()> {
        wait::until("strace to end", LIMIT, || Ok(self.0.try_wait()?.is_some()))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It ends with the process that it follows.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
