//! What the project promises of its speed, measured on this machine in one run: each figure is a median over interleaved
//! runs, beside what it is compared with. A goal that is missed is said to be, and the bench then fails in the end.

mod fleet;
mod php;
mod slots;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use testbed::etcd::{Driver, Watched};
use testbed::prepared::product_binary;
use testbed::site::{Builder, POOL, Site, UNIT};

const TOOL: &str = "/usr/sbin/safe-service-restart";
/// Interleaved runs of a safe restart, which takes a second or two.
const RUNS: usize = 15;
/// Interleaved runs of a forced one: a single restart of PHP-FPM varies by more than what is looked for.
const FORCED_RUNS: usize = 60;
/// Runs of a program that takes milliseconds.
const QUICK_RUNS: usize = 60;
/// Safe restarts under load.
const LOADED_RUNS: usize = 10;
/// What the load balancers' watches need to be open again after an event (PyBal 1.15 opens them after a second).
const QUIET: Duration = Duration::from_millis(1300);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, program @ ..] = &arguments[..]
        && first == PEAK
    {
        return print_peak(program);
    }
    if let [first, how, host, ..] = &arguments[..]
        && first == fleet::PLAY
    {
        return fleet::play(how, host);
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => all_but_fleets()?,
        ["fleet"] => {}
        _ => bail!("usage: bench [fleet]"),
    }
    fleet::fleet()?;
    let missed = MISSED.load(Ordering::SeqCst);
    ensure!(missed == 0, "{missed} goals were missed");
    Ok(())
}

fn all_but_fleets() -> Result<()> {
    help()?;
    slots::hand_over()?;
    slots::journal_and_slot(Driver::V2)?;
    slots::journal_and_slot(Driver::V3)?;
    let site = site().boot()?;
    forced(&site)?;
    let bare = safe(&site)?;
    println!("  (bare systemctl restart in the same runs: {})", ms(bare));
    under_load(&site)?;
    drop(site);
    php::php()
}

/// How many goals were missed.
static MISSED: AtomicUsize = AtomicUsize::new(0);

/// A site whose units may be started as often as one likes: the start limit would spoil what is measured, and what happens when it
/// hits is a system test.
fn site() -> Builder {
    limitless(Site::builder().binaries(&["safe-service-restart"]))
}

fn limitless(site: Builder) -> Builder {
    let text = "[Unit]\nStartLimitIntervalSec=0\n";
    site.each_host(move |host| host.drop_in("php8.2-fpm.service", "limit.conf", text))
}

/// `--help`: what every start costs, in time and memory.
fn help() -> Result<()> {
    let tool = product_binary("safe-service-restart")?;
    let (mut ours, mut nothing) = (Vec::new(), Vec::new());
    for _ in 0..QUICK_RUNS {
        ours.push(time(&tool, &["--help"])?);
        nothing.push(time(Path::new("/bin/true"), &[])?);
    }
    let (ours, nothing) = (median(ours), median(nothing));
    title("start-up: --help");
    println!("  {} against {} of /bin/true: ratio {:.2}", ms(ours), ms(nothing), ratio(ours, nothing));
    goal("under 5 ms", ours < Duration::from_millis(5));
    let peak = peak(&tool)?;
    println!("  peak memory {:.1} MiB", peak as f64 / 1024.0);
    goal("under 10 MiB", peak < 10 * 1024);
    Ok(())
}

fn time(program: &Path, arguments: &[&str]) -> Result<Duration> {
    let began = Instant::now();
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status()?;
    let took = began.elapsed();
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(took)
}

const PEAK: &str = "--print-peak-memory-of";

/// The peak memory of `program --help` in KiB. getrusage(2) tells only the largest of all children, so a process of its own
/// asks it.
fn peak(program: &Path) -> Result<u64> {
    let output = Command::new(std::env::current_exe()?).arg(PEAK).arg(program).arg("--help").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("not a number: '{text}'"))
}

fn print_peak(program: &[String]) -> Result<()> {
    let (name, arguments) = program.split_first().context("no program given")?;
    Command::new(name).args(arguments).stdout(Stdio::null()).status()?;
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    writeln!(std::io::stdout(), "{peak}")?;
    Ok(())
}

/// A command on the host, timed there.
struct Timed {
    took: Duration,
    /// From its start until systemd began to stop the unit.
    until_stop: Duration,
}

/// Bash's clock has microseconds; systemd's is the same wall clock.
const TIMED: &str = r#"
began=$EPOCHREALTIME
"$@" >/dev/null 2>/tmp/timed.err || { cat /tmp/timed.err >&2; exit 1; }
ended=$EPOCHREALTIME
left=$(systemctl show --value --property=ActiveExitTimestamp --timestamp=us+utc php8.2-fpm)
echo "$began $ended $(date --date="$left" +%s.%6N)"
"#;

fn on_host(site: &Site, command: &[&str]) -> Result<Timed> {
    let output = site.host(0).exec(&[&["bash", "-c", TIMED, "timed"], command].concat())?.success()?;
    let times: Vec<f64> = output.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
    let [began, ended, left] = times[..] else { bail!("three times wanted, not '{output}'") };
    let since = |time: f64| Duration::try_from_secs_f64(time - began).context("a time before the start");
    Ok(Timed { took: since(ended)?, until_stop: since(left)? })
}

/// `--force` against a bare `systemctl restart`.
fn forced(site: &Site) -> Result<()> {
    let (mut forced, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..FORCED_RUNS {
        bare.push(on_host(site, &["systemctl", "restart", UNIT])?);
        forced.push(on_host(site, &[TOOL, "--force", "--services", UNIT])?);
    }
    let took = |runs: &[Timed]| median(runs.iter().map(|run| run.took).collect());
    let until_stop = |runs: &[Timed]| median(runs.iter().map(|run| run.until_stop).collect());
    title("--force against a bare systemctl restart");
    let (ours, theirs) = (took(&forced), took(&bare));
    println!(
        "  whole: {} against {}: ratio {:.3}, {} later",
        ms(ours),
        ms(theirs),
        ratio(ours, theirs),
        later(ours, theirs)
    );
    goal("at most 10 ms later", ours < theirs + Duration::from_millis(10));
    let (ours, theirs) = (until_stop(&forced), until_stop(&bare));
    println!("  until systemd stops the unit: {} against {}, {} later", ms(ours), ms(theirs), later(ours, theirs));
    goal("at most 10 ms before systemctl starts", ours < theirs + Duration::from_millis(10));
    Ok(())
}

/// A safe restart without grace and settling against its floor: the time that the load balancers really take, plus the bare
/// restart. Returns the median of the bare restart.
fn safe(site: &Site) -> Result<Duration> {
    let watch = WriteTimes::default();
    let stop = AtomicBool::new(false);
    let (mut ours, mut bares, mut balancers) = (Vec::new(), Vec::new(), Vec::new());
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch.follow(site, &stop));
        let measured = (0..RUNS).try_for_each(|_| {
            thread::sleep(QUIET);
            bares.push(on_host(site, &["systemctl", "restart", UNIT])?.took);
            let from = Instant::now();
            let safe = ["--pools", POOL, "--services", UNIT, "--grace-period", "0", "--settle", "0"];
            ours.push(on_host(site, &[&[TOOL], &safe[..]].concat())?.took);
            balancers.push(balancers_took(site, &watch, from)?);
            anyhow::Ok(())
        });
        stop.store(true, Ordering::SeqCst);
        let watched = watcher.join().unwrap_or_else(|_| bail!("the watcher of etcd panicked"));
        watched.and(measured)
    })?;
    let bare = median(bares.clone());
    // Each run has a floor of its own, since the load balancers take another time in each.
    let over: Vec<_> = ours.iter().zip(&balancers).map(|(ours, theirs)| ours.saturating_sub(*theirs + bare)).collect();
    let (ours, floor) = (median(ours), median(balancers) + bare);
    title("a safe restart (no grace, no settling) against its floor");
    println!(
        "  {} against {}: ratio {:.3}; over its own floor, median {}",
        ms(ours),
        ms(floor),
        ratio(ours, floor),
        ms(median(over.clone()))
    );
    goal("at most 100 ms above the floor", median(over) <= Duration::from_millis(100));
    Ok(bare)
}

/// When this host's object was written.
#[derive(Default)]
struct WriteTimes(Mutex<Vec<Instant>>);

impl WriteTimes {
    fn follow(&self, site: &Site, stop: &AtomicBool) -> Result<()> {
        let store = site.etcd().store(Driver::V2)?;
        let node = site.node(0);
        let mut next = store.list(&node.folder())?.1 + 1;
        loop {
            match store.watch(&node.folder(), next, &|| stop.load(Ordering::SeqCst))? {
                Watched::Changed { next: after, .. } => {
                    self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                    next = after;
                }
                Watched::Stopped => return Ok(()),
                Watched::Outdated => bail!("etcd's history was outrun"),
            }
        }
    }
}

/// How long the slowest load balancer took to follow each of the two writes since `from`, added up.
fn balancers_took(site: &Site, writes: &WriteTimes, from: Instant) -> Result<Duration> {
    let writes = writes.0.lock().unwrap_or_else(PoisonError::into_inner);
    let writes: Vec<_> = writes.iter().filter(|at| **at >= from).collect();
    ensure!(writes.len() == 2, "{} writes seen in a run, not two", writes.len());
    let mut took = Duration::ZERO;
    for (place, write) in writes.into_iter().enumerate() {
        let mut slowest = Duration::ZERO;
        for pybal in site.pybals() {
            let changes = pybal.changes();
            let changes: Vec<_> = changes.iter().filter(|change| change.at >= from).collect();
            ensure!(changes.len() == 2, "{} changes seen at a load balancer, not two", changes.len());
            slowest = slowest.max(changes[place].at.saturating_duration_since(*write));
        }
        took += slowest;
    }
    Ok(took)
}

/// Safe restarts under load, with the defaults.
fn under_load(site: &Site) -> Result<()> {
    title("requests lost in safe restarts under load, 200 a second, a fifth of them 200 ms long");
    let mut clean = 0;
    let (mut answered, mut lost) = (0, 0);
    for _ in 0..LOADED_RUNS {
        let load = site.load().rate(200).start()?;
        thread::sleep(Duration::from_millis(500));
        site.host(0).exec(&[TOOL, "--pools", POOL, "--services", UNIT])?.success()?;
        thread::sleep(Duration::from_millis(500));
        let report = load.stop()?;
        answered += report.ok;
        lost += report.lost;
        clean += usize::from(report.lost == 0);
    }
    println!("  {lost} lost, {answered} answered; none lost in {clean} runs of {LOADED_RUNS}");
    goal("none lost in any run", clean == LOADED_RUNS);
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn later(one: Duration, other: Duration) -> String {
    format!("{:.1} ms", (one.as_secs_f64() - other.as_secs_f64()) * 1000.0)
}

fn title(what: &str) {
    println!("{what}");
}

fn goal(what: &str, met: bool) {
    MISSED.fetch_add(usize::from(!met), Ordering::SeqCst);
    println!("  goal, {what}: {}", if met { "met" } else { "MISSED" });
}
