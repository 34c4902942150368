//! What never more than N at once costs, and what it costs to forget nothing: how fast a slot goes from hand to hand, and what
//! journal and slot add to a safe restart.

use std::convert::Infallible;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use conftool::{Holder, LeaseSlots, Settings};
use host::JournalFile;
use host::ids::MachineId;
use host::journal::Found;
use poolcounter::{Backends, Key, Poolcounter};
use restart_core::{Fqdn, Phase, Record, Slots};
use testbed::conftool::host_files;
use testbed::etcd::{Access, Driver, Etcd};
use testbed::poolcounterd::{PORT, Poolcounterd};
use testbed::site::{DC, POOL, Site, UNIT};

use crate::{RUNS, TOOL, goal, median, ms, ratio, site, title};

const QUEUE: &str = "ServiceRestarter::eqiad::appservers";
/// Interleaved hand-overs on each lock service.
const HAND_OVERS: usize = 30;
/// Until whoever waits for a slot only waits, and does not open its watch any more.
const STILL: Duration = Duration::from_millis(200);
/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(60);
/// How long the tool waits for a slot before it looks for a signal.
const SLICE: Duration = Duration::from_millis(100);
/// What the load balancers here need to follow; what they need does not count here.
const REOPEN: Duration = Duration::from_millis(50);
/// Phases of a run that journal and slot have a part in; the pools are read again after the wait for a slot.
const CONCERNED: [&str; 3] = ["read pools", "wait for a slot", "open journal"];

/// From the release of one run's only slot until another, which waits for it, has it: in one process, so by one clock.
pub fn hand_over() -> Result<()> {
    let etcd = Etcd::start()?;
    let daemon = Poolcounterd::start()?;
    let mut leases = [leases(&etcd.access(), "mw1.eqiad.test")?, leases(&etcd.access(), "mw2.eqiad.test")?];
    let mut counters = [counter(&daemon)?, counter(&daemon)?];
    let store = etcd.store(Driver::V3)?;
    let (mut by_lease, mut by_counter) = (Vec::new(), Vec::new());
    let (mut reads, mut stats) = (Vec::new(), Vec::new());
    for _ in 0..HAND_OVERS {
        by_counter.push(from_one_to_the_other(&mut counters)?);
        by_lease.push(from_one_to_the_other(&mut leases)?);
        stats.push(timed(|| ask_stats(&daemon))?);
        reads.push(timed(|| store.get("/conftool/v1/nothing").map(drop))?);
        counters.reverse();
        leases.reverse();
    }
    title("hand-over of a slot, from its release to the run that waits for it");
    let say = |who: &str, took: Duration, what: &str, question: Duration| {
        println!("  {who}: {} against {} for {what}: ratio {:.2}", ms(took), ms(question), ratio(took, question));
    };
    let took = median(by_counter);
    say("poolcounterd", took, "a question to it over a new connection", median(stats));
    goal("at most 5 ms", took <= Duration::from_millis(5));
    let took = median(by_lease);
    say("leases in etcd", took, "a read from it over a new connection", median(reads));
    goal("at most 20 ms", took <= Duration::from_millis(20));
    Ok(())
}

fn counter(daemon: &Poolcounterd) -> Result<Poolcounter> {
    let backends = Backends::parse(Path::new(poolcounter::BACKENDS_FILE), &daemon.backend("pc1"))?;
    Ok(Poolcounter::new(&backends, Key::new(QUEUE)?))
}

fn leases(access: &Access, name: &str) -> Result<LeaseSlots> {
    let files = host_files(Driver::V3, access, DC, &[])?;
    let read = |path: &Path| {
        let found = files.iter().find(|file| file.path == path);
        Ok::<_, Infallible>(found.map(|file| file.content.clone()))
    };
    let settings = Settings::load(Path::new("/etc/conftool/config.yaml"), None, &read)?;
    let holder = Holder {
        host: Fqdn::new(name)?,
        run: format!("run-on-{name}"),
        pid: std::process::id(),
        user: None,
        since: "today".to_owned(),
    };
    settings.slots(QUEUE, holder).map_err(|error| anyhow!("{error}"))
}

fn from_one_to_the_other<S: Slots + Send>([holder, waiter]: &mut [S; 2]) -> Result<Duration> {
    holder.ask(1, LONG)?;
    wait_for(holder)?;
    waiter.ask(1, LONG)?;
    let (released, granted) = thread::scope(|scope| {
        let waiting = scope.spawn(|| wait_for(waiter).map(|()| Instant::now()));
        thread::sleep(STILL);
        let released = Instant::now();
        holder.release();
        let granted = waiting.join().unwrap_or_else(|_| bail!("the thread that waits panicked"));
        anyhow::Ok((released, granted?))
    })?;
    waiter.release();
    Ok(granted.saturating_duration_since(released))
}

fn wait_for(slots: &mut impl Slots) -> Result<()> {
    while !slots.granted(SLICE)? {}
    Ok(())
}

fn ask_stats(daemon: &Poolcounterd) -> Result<()> {
    let mut stream = TcpStream::connect(daemon.address().port(PORT))?;
    stream.write_all(b"STATS UPTIME\n")?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

fn timed(what: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    what()?;
    Ok(began.elapsed())
}

/// What journal and slot add to a safe restart. The slot: pairs of runs with and without `--max-concurrency`, of each its whole
/// time but for the phases that are the same in both and vary by more than is looked for (load balancers, writes, the unit).
/// The journal cannot be left out of a run: what one run writes is written again by itself, on the same disk.
pub fn journal_and_slot(driver: Driver) -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let site = site().driver(driver).reopen(REOPEN).boot()?;
    let who = match driver {
        Driver::V2 => {
            site.host(0).write("/etc/poolcounter-backends.yaml", &daemon.backend("pc1"))?;
            "poolcounterd"
        }
        Driver::V3 => "leases in etcd",
    };
    let record = Kept::by_a_run(&site)?;
    let (mut with, mut without, mut journal) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        without.push(Run::on(&site, &[])?);
        with.push(Run::on(&site, &["--max-concurrency", "1"])?);
        journal.push(record.written_as_by_a_run()?);
    }
    // What the machine has to do besides changes slowly: a run is compared with the one before it.
    let mut more: Vec<f64> =
        with.iter().zip(&without).map(|(with, without)| with.own.as_secs_f64() - without.own.as_secs_f64()).collect();
    more.sort_by(f64::total_cmp);
    let slot = Duration::try_from_secs_f64(more[more.len() / 2].max(0.0))?;
    let of = |runs: &[Run], which: fn(&Run) -> Duration| median(runs.iter().map(which).collect());
    let (own, own_without) = (of(&with, |run| run.own), of(&without, |run| run.own));
    let (waited, opened) = (of(&with, |run| run.slot), of(&with, |run| run.open_journal));
    let journal = median(journal);
    title(&format!("what journal and slot add to a safe restart, with a slot of {who}"));
    println!(
        "  slot: {} more with --max-concurrency 1 than in the run before without; all but load balancers, writes and the unit \
         takes {} against {}: ratio {:.2}",
        ms(slot),
        ms(own),
        ms(own_without),
        ratio(own, own_without)
    );
    println!(
        "  journal: {} for the four writes and the removal of one run, by themselves on the same disk",
        ms(journal)
    );
    println!("  (in the runs' own reports: 'wait for a slot' {}, 'open journal' {})", ms(waited), ms(opened));
    println!("  together: {}", ms(slot + journal));
    goal("at most 20 ms together", slot + journal <= Duration::from_millis(20));
    Ok(())
}

/// A run with `--json`, timed on the host.
struct Run {
    /// The whole of it, but for the phases that neither journal nor slot has a part in.
    own: Duration,
    /// The wait for the slot, which nobody else wants.
    slot: Duration,
    open_journal: Duration,
}

const TIMED: &str = r#"began=$EPOCHREALTIME; "$@" 2>/tmp/timed.err || { cat /tmp/timed.err >&2; exit 1; }; echo "$began $EPOCHREALTIME""#;

impl Run {
    fn on(site: &Site, more: &[&str]) -> Result<Self> {
        let restart = ["--pools", POOL, "--services", UNIT, "--grace-period", "0", "--settle", "0", "--json"];
        let output =
            site.host(0).exec(&[&["bash", "-c", TIMED, "timed", TOOL], &restart[..], more].concat())?.success()?;
        let lines: Vec<&str> = output.lines().collect();
        let [report, times] = lines[..] else { bail!("a report and two times wanted, not '{output}'") };
        let (began, ended) = times.split_once(' ').context("two times")?;
        let whole = ended.parse::<f64>()? - began.parse::<f64>()?;
        let report: serde_json::Value = serde_json::from_str(report)?;
        let phases = report["phases"].as_array().with_context(|| format!("no phases in {report}"))?;
        let sum = |which: &dyn Fn(&str) -> bool| -> f64 {
            let of = phases.iter().filter(|phase| phase["phase"].as_str().is_some_and(which));
            of.filter_map(|phase| phase["seconds"].as_f64()).sum()
        };
        Ok(Self {
            own: Duration::try_from_secs_f64(whole - sum(&|phase| !CONCERNED.contains(&phase)))?,
            slot: Duration::try_from_secs_f64(sum(&|phase| phase == "wait for a slot"))?,
            open_journal: Duration::try_from_secs_f64(sum(&|phase| phase == "open journal"))?,
        })
    }
}

/// What a run kept, to be written again.
struct Kept {
    record: Record,
    journal: JournalFile,
    _folder: tempfile::TempDir,
}

impl Kept {
    /// Has a run keep it, and copies it while the run waits.
    fn by_a_run(site: &Site) -> Result<Self> {
        let arguments = [TOOL, "--pools", POOL, "--services", UNIT, "--grace-period", "2"];
        let mut run = site.host(0).spawn(&arguments)?;
        run.wait_for_stderr("for requests in flight", LONG)?;
        let text = site.host(0).read("/var/lib/safe-service-restart/journal.json")?;
        run.wait(LONG)?.success()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("journal");
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        fs::write(path.join("journal.json"), &text)?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let machine = MachineId::new(json["machine"].as_str().context("no machine in the journal")?)?;
        let journal = JournalFile::new(&path, machine);
        match journal.load()? {
            Found::Record(record) => Ok(Self { record: *record, journal, _folder: folder }),
            other => bail!("the journal of a run cannot be read: {other:?}"),
        }
    }

    /// The writes of one run: before the depool, right after it, before the restart, before the repool; and its removal.
    fn written_as_by_a_run(&self) -> Result<Duration> {
        let mut journal = JournalFile::clone(&self.journal);
        let mut record = self.record.clone();
        timed(|| {
            for phase in [Phase::TakingOut, Phase::TakingOut, Phase::Restarting, Phase::BringingBack] {
                record.phase = phase;
                journal.keep(&record)?;
            }
            Ok(journal.clear()?)
        })
    }
}
