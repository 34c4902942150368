//! What it costs to have `rolling-restart` in between: over a thousand hosts that are played, against the time that they take by
//! themselves; and over ten booted ones, against the plainest way there is to start two ssh at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde_json::Value;
use testbed::deployment::{self, Deployment};
use testbed::host::Output;
use testbed::prepared::product_binary;
use testbed::site::Site;
use testbed::{process, ssh};

use crate::{goal, limitless, median, ms, ratio, title};

/// How this program is called to play a host: `bench --play-host HOW HOST ...`, where HOW is milliseconds or [`VARIED`].
pub const PLAY: &str = "--play-host";
/// Hosts that take as long as real ones do, each another time, and of which some fail.
const VARIED: &str = "varied";
/// So many are played.
const MANY: usize = 1000;
/// A large emergency.
const EMERGENCY: usize = 300;
/// A tenth at once: so many rounds.
const ROUNDS: u32 = 10;
/// Booted hosts.
const BOOTED: usize = 10;
/// Interleaved runs over these, each of which takes some ten seconds.
const RUNS: usize = 5;
/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(300);
/// So often the memory of a run is looked at; the kernel keeps the peak.
const LOOK: Duration = Duration::from_millis(20);
/// What /proc counts processor time in, on every Linux there is.
const TICKS_A_SECOND: f64 = 100.0;
/// Ssh alone, with what it needs for a fleet: no question.
const BARE: &str = "ssh -o BatchMode=yes {} sudo -n /usr/sbin/restart-php-fpm";

/// All of it.
pub fn fleet() -> Result<()> {
    thousand()?;
    let site = Deployment::new("pools: [appservers]\nsettle: 0.4\nlb_timeout: 60\n")?.in_front_of(Site::builder());
    let names: Vec<_> = (1..=BOOTED).map(|number| format!("mw{number}.eqiad.test")).collect();
    let site = limitless(site).hosts(&names.iter().map(String::as_str).collect::<Vec<_>>()).haproxy();
    let site = site.reopen(Duration::from_millis(50)).boot()?;
    deployment::open(&site)?;
    site.beside()?.write("/tmp/hosts", &names.join("\n"))?;
    rolling(&site)?;
    let sequential = forced(&site)?;
    drop(site);
    emergency(sequential / ROUNDS)
}

/// What a safe restart says on standard error, in lines.
const LINES: u32 = 20;

/// Plays a host, in place of ssh.
pub fn play(how: &str, host: &str) -> Result<()> {
    let number: u64 = host.trim_start_matches("mw").split('.').next().unwrap_or_default().parse()?;
    let (time, code) = match how {
        VARIED => (varied(number), varied_code(number)),
        millis => (Duration::from_millis(millis.parse()?), 0),
    };
    // As talkative as a host is.
    for line in 0..LINES {
        // Written at once, as sshd hands it on.
        let text = format!("safe-service-restart: line {line} of what a host says while it is at it\n");
        std::io::stderr().write_all(text.as_bytes())?;
        thread::sleep(time / LINES);
    }
    let services = if code == 0 { "done" } else { "untouched" };
    println!(r#"{{"exit_code":{code},"services":"{services}","state":"played"}}"#);
    ensure!(code == 0, "played");
    Ok(())
}

/// Between half a second and one and a half, and for one in ten up to four; spread by the golden ratio, the same in every run.
fn varied(number: u64) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let part = (number as f64 * GOLDEN).fract();
    Duration::from_secs_f64(if number % 10 == 3 { 1.0 + 3.0 * part } else { 0.5 + part })
}

/// One in a hundred fails.
fn varied_code(number: u64) -> u8 {
    u8::from(number % 100 == 42)
}

/// How long hosts of these times take, in this order, when each begins as another ends: the first alone, the others so many at once.
fn ideal(times: &[Duration], canaries: usize, at_once: usize) -> Duration {
    let (first, others) = times.split_at(canaries.min(times.len()));
    let begin: Duration = first.iter().sum();
    let mut free: BinaryHeap<_> = (0..at_once.max(1)).map(|_| Reverse(begin)).collect();
    let mut end = begin;
    for time in others {
        let Some(Reverse(from)) = free.pop() else { break };
        end = end.max(from + *time);
        free.push(Reverse(from + *time));
    }
    end
}

/// What a run over played hosts took, and what it took itself.
struct Played {
    took: Duration,
    processor: f64,
    peak: u64,
}

/// A run over so many hosts, of which each is this program.
fn played(hosts: usize, how: &str, arguments: &[&str]) -> Result<Played> {
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("hosts");
    fs::write(&list, (1..=hosts).map(|number| format!("mw{number}.test\n")).collect::<String>())?;
    let this = std::env::current_exe()?.display().to_string();
    let began = Instant::now();
    let mut run = Command::new(product_binary("rolling-restart")?)
        .arg("--hosts")
        .arg(&list)
        .args(["--rsh", &format!("{this} {PLAY} {how}"), "--quiet"])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = Pid::from_raw(run.id().cast_signed());
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    let mut peak = 0;
    while waitid(Id::Pid(pid), flags)? == WaitStatus::StillAlive {
        let text = process::status(pid, "VmHWM");
        peak = text.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(peak);
        thread::sleep(LOOK);
    }
    let took = began.elapsed();
    // It has ended and was not waited for: what it took itself can still be read, apart from what its children took.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
    let processor = ticks(11).zip(ticks(12)).context("no processor time in /proc")?;
    let status = run.wait()?;
    ensure!(matches!(status.code(), Some(0 | 1)), "rolling-restart ended with {status}");
    Ok(Played { took, processor: (processor.0 + processor.1) / TICKS_A_SECOND, peak })
}

/// A thousand hosts with the defaults, but that failures are no end.
fn thousand() -> Result<()> {
    let run = played(MANY, VARIED, &["--max-failures", "100%"])?;
    let times: Vec<_> = (1..=MANY as u64).map(varied).collect();
    let ideal = ideal(&times, 1, MANY / ROUNDS as usize);
    title("rolling-restart over 1,000 played hosts, a tenth at once, against the ideal schedule");
    println!("  {} against {}: ratio {:.3}", ms(run.took), ms(ideal), ratio(run.took, ideal));
    goal("within 5%", ratio(run.took, ideal) <= 1.05);
    println!("  itself: {:.2} s of processor time, peak memory {:.1} MiB", run.processor, run.peak as f64 / 1024.0);
    goal("at most one second", run.processor <= 1.0);
    goal("under 64 MiB", run.peak > 0 && run.peak < 64 * 1024);
    Ok(())
}

/// So many hosts by force, a tenth at once, each of which takes as long as a booted one did, ssh included.
fn emergency(one: Duration) -> Result<()> {
    let run = played(EMERGENCY, &one.as_millis().to_string(), &["--force"])?;
    title("--force over 300 played hosts, a tenth at once, against ten forced restarts over ssh, one after the other");
    println!("  {} against {}: ratio {:.3}", ms(run.took), ms(one * ROUNDS), ratio(run.took, one * ROUNDS));
    goal("at most 10% more", ratio(run.took, one * ROUNDS) <= 1.1);
    Ok(())
}

/// Has the deploy user run this on the deployment host.
fn deploy(site: &Site, command: &[&str]) -> Result<(Duration, Output)> {
    let began = Instant::now();
    let output = ssh::run(site.beside()?, command, LONG)?;
    let took = began.elapsed();
    ensure!(output.code() == Some(0), "{output}");
    Ok((took, output))
}

/// Two at once of ten, safely.
fn rolling(site: &Site) -> Result<()> {
    const AT_ONCE: usize = 2;
    let (mut ours, mut plain, mut efficiency) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let tool = ["rolling-restart", "--hosts", "/tmp/hosts", "--batch", "20%", "--canaries", "0", "--json"];
        let (took, output) = deploy(site, &tool)?;
        ours.push(took);
        let (first_to_last, times) = schedule(&output)?;
        efficiency.push(ideal(&times, 0, AT_ONCE).as_secs_f64() / first_to_last.as_secs_f64());
        plain.push(deploy(site, &["xargs", "-a", "/tmp/hosts", "-P", "2", "-I{}", "sh", "-c", BARE])?.0);
    }
    efficiency.sort_by(f64::total_cmp);
    let efficiency = efficiency.get(RUNS / 2).copied().unwrap_or_default();
    let (ours, plain) = (median(ours), median(plain));
    title(
        "rolling-restart over 10 booted hosts, a fifth at once, from the first host to the last, against xargs -P 2 ssh",
    );
    println!("  {} against {}: ratio {:.3}", ms(ours), ms(plain), ratio(ours, plain));
    goal("at most 10% more", ratio(ours, plain) <= 1.1);
    println!("  rolling efficiency (the schedule that its own hosts' times allow, over the actual): {efficiency:.3}");
    goal("at least 0.95", efficiency >= 0.95);
    Ok(())
}

/// How long a run took by itself, and its hosts, in the order of their starts.
fn schedule(output: &Output) -> Result<(Duration, Vec<Duration>)> {
    let events: Vec<Value> = output.stdout.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let seconds = |event: &Value| Duration::try_from_secs_f64(event["seconds"].as_f64().unwrap_or_default());
    let of = |kind: &str| events.iter().filter(move |event| event["event"] == *kind).collect::<Vec<_>>();
    let ended = of("host-ended");
    let time = |started: &&Value| {
        let ended = ended.iter().find(|ended| ended["host"] == started["host"]).context("a host without an end")?;
        anyhow::Ok(seconds(ended)?)
    };
    let times = of("host-started").iter().map(time).collect::<Result<_>>()?;
    Ok((seconds(events.last().context("no event")?)?, times))
}

/// Ten booted hosts by force, one at a time, against ten ssh in a row. Returns what these took.
fn forced(site: &Site) -> Result<Duration> {
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(deploy(site, &["rolling-restart", "--force", "--hosts", "/tmp/hosts"])?.0);
        let bare = format!("{BARE} --force");
        plain.push(deploy(site, &["xargs", "-a", "/tmp/hosts", "-I{}", "sh", "-c", &bare])?.0);
    }
    let (ours, plain) = (median(ours), median(plain));
    title("rolling-restart --force over 10 booted hosts, one at a time, against ssh in a row");
    println!("  {} against {}: ratio {:.3}", ms(ours), ms(plain), ratio(ours, plain));
    goal("at most 10% more", ratio(ours, plain) <= 1.1);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ideal_schedule_begins_a_host_as_another_ends() {
        let times = [3, 1, 1, 4, 1].map(Duration::from_secs);
        assert_eq!(ideal(&times, 0, 2), Duration::from_secs(6));
        assert_eq!(ideal(&times, 1, 2), Duration::from_secs(8));
        assert_eq!(ideal(&times, 0, 1), Duration::from_secs(10));
        assert_eq!(ideal(&times, 0, 9), Duration::from_secs(4));
    }
}
