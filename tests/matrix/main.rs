//! Every fault in every phase of a safe restart, on real parts, and a kill at every effect. What is in each file:
//!
//! - `cells`: the fault matrix, as data: how a run has to end that a fault strikes in a phase;
//! - `phases`: how a run is made to stand in a phase;
//! - `faults`: how each fault is brought about;
//! - `judge`: one cell, and what must hold after it whatever went wrong;
//! - `stand`: a host with all around it, brought to a good state before each cell;
//! - `shop`: the same for pools that HAProxy itself keeps, with faults of its own;
//! - `effects`: SIGKILL at each system call by which a run has an effect, or learns of one.
//!
//! By default the critical cells are run, and some of the kills; with `MATRIX=full` (`tests/run --full`) all of them.
//! `MATRIX_ONLY=TEXT` runs the cells whose line has this text: `MATRIX_ONLY='etcd3 SIGKILL drain'`, or `'haproxy SIGKILL drain'` of the
//! test in `shop` alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cells;
mod effects;
mod faults;
mod judge;
mod phases;
mod shop;
mod stand;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use testbed::Result;
use testbed::etcd::Driver;

use cells::Cell;
use judge::Outcome;
use phases::{PHASES, Phase};
use stand::{Kind, Stand};

const DRIVERS: [Driver; 2] = [Driver::V2, Driver::V3];

/// The stands of each driver. Together they are as many hosts as may be up at once.
const STANDS: [Kind; 3] = [Kind::Plain, Kind::Plain, Kind::Cluster];

/// Whether everything is run.
fn full() -> bool {
    std::env::var("MATRIX").is_ok_and(|value| value == "full")
}

/// Says something to whoever runs the tests, whether they pass or not.
fn say(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The cells that are still to be run: those for any stand, and those for a cluster.
type Queues = Mutex<[VecDeque<Cell>; 2]>;

/// An error with its causes, a paragraph each, the one that says most first.
fn story(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\nbecause: ")
}

/// What came of each cell: by row and column.
type Results = Mutex<BTreeMap<(&'static str, Phase), Result<Outcome>>>;

#[test]
fn every_fault_in_every_phase_ends_well() {
    let began = Instant::now();
    let only = std::env::var("MATRIX_ONLY").ok();
    let mut failed = 0;
    let mut cells_run = 0;
    let jobs = DRIVERS.map(|driver| {
        let wanted = |cell: &Cell| match &only {
            Some(text) => format!("{} {} {}", driver.name(), cell.name, cell.phase.name()).contains(text.as_str()),
            None => cell.critical || full(),
        };
        let (cluster, plain) =
            cells::all().into_iter().filter(wanted).partition(|cell| cell.fault.needs() == Kind::Cluster);
        (driver, Mutex::new([plain, cluster]), Results::default())
    });
    thread::scope(|scope| {
        for (driver, queues, results) in &jobs {
            for kind in STANDS {
                scope.spawn(move || work(*driver, kind, queues, results));
            }
        }
    });
    let mut stories = String::new();
    for (driver, _, results) in jobs {
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        say(&table(driver, &results));
        cells_run += results.len();
        for ((name, phase), result) in &results {
            if let Err(error) = result {
                failed += 1;
                let story = story(error);
                stories += &format!("\n== {} '{name}' in '{}':\n{story}\n", driver.name(), phase.name());
            }
        }
    }
    say(&format!("{}\n{cells_run} cells in {:.0?}", cells::NOT_HERE, began.elapsed()));
    assert_eq!(failed, 0, "{failed} cells of {cells_run} failed:{stories}");
    assert!(cells_run > 0, "no cell was run");
}

/// Takes cells until there are none left that this kind of stand can run. After a cell that failed the stand is booted anew, so
/// that no other cell suffers for it.
fn work(driver: Driver, kind: Kind, queues: &Queues, results: &Results) {
    let next = || {
        let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
        let [plain, cluster] = &mut *queues;
        match kind {
            Kind::Plain => plain.pop_front(),
            Kind::Cluster => cluster.pop_front().or_else(|| plain.pop_front()),
        }
    };
    let mut stand: Option<Stand> = None;
    while let Some(cell) = next() {
        let began = Instant::now();
        let result = match stand.take().map_or_else(|| Stand::boot(driver, kind), Ok) {
            Err(error) => Err(error.context("the stand does not boot")),
            Ok(mut booted) => {
                let result = judge::run(&mut booted, &cell);
                stand = result.is_ok().then_some(booted);
                result
            }
        };
        let words = match &result {
            Ok(Outcome { end, state }) => format!("{end} {state}"),
            Err(_) => "FAILED".to_owned(),
        };
        let (name, phase) = (cell.name, cell.phase.name());
        say(&format!("{} {name} {phase}: {words} ({:.1?})", driver.name(), began.elapsed()));
        results.lock().unwrap_or_else(PoisonError::into_inner).insert((cell.name, cell.phase), result);
    }
}

/// Exit code or signal, and where the host stood in the end, for each fault and phase.
fn table(driver: Driver, results: &BTreeMap<(&'static str, Phase), Result<Outcome>>) -> String {
    let mut text = format!("\nfault, driver {:<7}", driver.name());
    for phase in PHASES {
        text += &format!(" {:<12}", phase.name());
    }
    for name in cells::names() {
        let cells = PHASES.map(|phase| match results.get(&(name, phase)) {
            None => "-".to_owned(),
            Some(Ok(Outcome { end, state })) => format!("{end} {state}"),
            Some(Err(_)) => "FAILED".to_owned(),
        });
        if cells.iter().any(|cell| cell != "-") {
            text += &format!("\n{name:<21}");
            for cell in cells {
                text += &format!(" {cell:<12}");
            }
        }
    }
    text
}
