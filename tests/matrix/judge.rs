//! One cell: brought about on a stand, and judged by what must hold whatever goes wrong.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::Output;

use crate::cells::{Cell, End};
use crate::faults::Fault;
use crate::phases::Phase;
use crate::stand::{LIMIT, OBJECT, Seen, Stand, signal_of};

/// How often a recovery is tried, once a fault is over, until nothing is left.
const RECOVERIES: usize = 40;

/// What came of one cell, for the table.
pub struct Outcome {
    /// How the run ended.
    pub end: End,
    /// Where the host stood in the end.
    pub state: &'static str,
}

/// Runs one cell. The error is the story of what does not hold.
pub fn run(stand: &mut Stand, cell: &Cell) -> Result<Outcome> {
    let before = stand.reset().context("before the cell")?;
    cell.fault.prepare(stand)?;
    let of_poolcounter = matches!(cell.fault, Fault::PoolcounterKilled | Fault::PoolcounterFrozen);
    let leases = stand.driver == Driver::V3 && !of_poolcounter && cell.phase != Phase::Queue;
    stand.slots = if leases { "etcd" } else { "poolcounter" };
    let run = if cell.phase == Phase::Start {
        cell.fault.strike(cell.phase, stand, None)?;
        cell.phase.reach(stand, &before)?
    } else {
        let mut run = cell.phase.reach(stand, &before)?;
        let struck = cell.fault.strike(cell.phase, stand, Some(&mut run));
        struck.with_context(|| format!("the fault did not come about; the run has said:\n{}", run.stderr()))?;
        run
    };
    if cell.phase == Phase::Queue && !of_poolcounter {
        stand.release();
    }
    let output = run.wait(LIMIT)?;
    judge(stand, cell, &before, &output).with_context(|| format!("the run: {output}"))
}

fn judge(stand: &mut Stand, cell: &Cell, before: &Seen, output: &Output) -> Result<Outcome> {
    let end = match (output.code(), signal_of(output)) {
        (Some(code), _) => End::Code(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => anyhow::bail!("it ended neither with a code nor by a signal"),
    };
    ensure!(cell.ends.is_empty() || cell.ends.contains(&end), "it ended with {end}, not {:?}", cell.ends);
    if matches!(end, End::Code(3..=5)) && cell.fault.lasts() {
        // The timer comes while nothing is better, and must not take that for the end.
        let early = stand.recover("1")?;
        let seen = stand.look()?;
        ensure!(early.code() != Some(0) && seen.journal(), "forgotten while the fault stood: {early}; {seen:?}");
    }
    stand.lift().context("to lift the fault")?;
    let after = stand.look()?;
    let held = end == End::Code(3) && cell.fault != Fault::Reboot;
    if !matches!(cell.fault, Fault::Reboot | Fault::PowerCut | Fault::Forced) {
        restarted_as_the_code_says(cell.phase, end, before, &after)?;
    }
    if !cell.fault.excuses_traffic(cell.phase) && after.invocation != before.invocation {
        let senders = stand.sent_at(after.stopped)?;
        ensure!(senders.is_empty(), "the unit was stopped while load balancers sent: {}", senders.join(", "));
    }
    if matches!(cell.fault, Fault::Signal(Signal::SIGKILL) | Fault::StopThenKill)
        && (Phase::Leave..=Phase::Settle).contains(&cell.phase)
    {
        // Or the recovery would have nothing to do, and prove nothing.
        let now = stand.raw()?.unwrap_or_default();
        ensure!(after.journal() && now.contains(r#""pooled": "no""#), "killed while out: {now}; {after:?}");
    }
    let expected = expected_object(cell.fault, held);
    journal_as_the_code_says(stand, cell.fault, end, &after, expected.as_deref())?;

    // Nothing is forgotten: the timer comes again and again.
    let mut held_now = false;
    for number in 1.. {
        let recovery = stand.recover("20")?;
        let left = stand.look()?;
        held_now = recovery.code() == Some(3);
        if held_now || (recovery.code() == Some(0) && !left.journal()) {
            break;
        }
        ensure!(number < RECOVERIES, "the recovery does not come to an end: {recovery}; {left:?}");
        thread::sleep(Duration::from_millis(250));
    }
    // What ended on the way down is not the run, and no run is held because of it.
    ensure!(held_now == held, "held by the recovery: {held_now}");
    let expected = expected_object(cell.fault, held_now);
    let now = stand.raw()?;
    ensure!(now == expected, "in etcd stands {now:?}, not {expected:?}");
    let pooled = expected.as_deref().is_some_and(|object| object.contains(r#""pooled": "yes""#));
    stand.site.wait_pooled(0, pooled)?;
    ensure!(stand.counted_out()?.is_empty() || held_now, "still counted as out in etcd: {:?}", stand.counted_out()?);
    let last = stand.look()?;
    if held_now {
        held_until_a_good_run(stand)?;
    } else {
        ensure!(last.files.is_empty(), "in the journal's folder is left {:?}", last.files);
        let quiet = stand.recover("20")?;
        ensure!(quiet.code() == Some(0) && quiet.stderr.is_empty(), "a recovery with nothing to do: {quiet}");
    }
    ensure!(stand.look()?.active == "active", "PHP-FPM does not run");
    stand.serves()?;
    let state = match expected.as_deref() {
        _ if held_now => "held",
        None => "deleted",
        Some(_) if pooled => "yes",
        Some(object) if object.contains("inactive") => "inactive",
        Some(_) => "no",
    };
    Ok(Outcome { end, state })
}

/// The column `service restarted` of the table of exit codes.
fn restarted_as_the_code_says(phase: Phase, end: End, before: &Seen, after: &Seen) -> Result<()> {
    let restarted = after.invocation != before.invocation;
    let expected = match end {
        End::Code(0 | 4) => Some(true),
        End::Code(3) => None,
        End::Code(_) => Some(false),
        // A killed run may or may not have got as far as asking systemd.
        End::Signal(Signal::SIGKILL) if phase == Phase::Restart => None,
        End::Signal(_) => Some(phase >= Phase::Restart),
    };
    ensure!(expected.is_none_or(|expected| expected == restarted), "ended with {end}, restarted: {restarted}");
    Ok(())
}

/// The column `pools` of that table, with the fault over and no recovery yet.
fn journal_as_the_code_says(stand: &Stand, fault: Fault, end: End, after: &Seen, expected: Option<&str>) -> Result<()> {
    if fault == Fault::Reboot {
        return Ok(());
    }
    let killed = end == End::Signal(Signal::SIGKILL);
    if matches!(end, End::Code(3..=5)) {
        ensure!(after.journal(), "ended with {end}, and left no journal");
    } else if !killed {
        let disk = matches!(fault, Fault::DiskReadOnly | Fault::DiskFull);
        // That this host no longer counts against the limit could not be said: that is left to the next recovery.
        let counts = stand.slots == "etcd" && fault.takes_etcd_away();
        ensure!(disk || counts || !after.journal(), "ended with {end}, and left a journal");
        let now = stand.raw()?;
        ensure!(now.as_deref() == expected, "ended with {end}, and in etcd stands {now:?}, not {expected:?}");
    }
    Ok(())
}

/// What has to stand in etcd when all is over.
fn expected_object(fault: Fault, held: bool) -> Option<String> {
    match fault {
        Fault::Deleted => None,
        Fault::Inactive => Some(OBJECT.replace("yes", "inactive")),
        Fault::Weight => Some(OBJECT.replace(r#""weight": 10"#, r#""weight": 7"#)),
        Fault::OperatorNo => Some(OBJECT.replace("yes", "no")),
        _ if held => Some(OBJECT.replace("yes", "no")),
        _ => Some(OBJECT.to_owned()),
    }
}

/// A held host is left to the next good run, which brings it back, and to nobody else.
fn held_until_a_good_run(stand: &Stand) -> Result<()> {
    stand.mood("")?;
    let arguments =
        "--pools appservers --services php8.2-fpm --min-pooled 0 --grace-period 0 --lb-timeout 20 --wait 0.2";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let good = stand.start(&arguments)?.wait(LIMIT)?;
    ensure!(good.code() == Some(0), "the run after the repair: {good}");
    let now = stand.raw()?;
    ensure!(now.as_deref() == Some(OBJECT), "after the repair in etcd stands {now:?}");
    ensure!(stand.look()?.files.is_empty(), "after the repair a journal is left");
    Ok(())
}
