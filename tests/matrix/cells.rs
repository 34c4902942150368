//! The fault matrix as data: for each fault, how a run has to end that it strikes in each phase.

use nix::sys::signal::Signal;
use testbed::pybal::Fault as LbFault;

use crate::faults::Fault;
use crate::phases::{PHASES, Phase};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(Signal),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Signal(signal) => write!(f, "{}", signal.as_str().trim_start_matches("SIG")),
        }
    }
}

/// One fault in one phase.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The row.
    pub name: &'static str,
    /// The column.
    pub phase: Phase,
    /// What goes wrong.
    pub fault: Fault,
    /// How the run may end; in any way, if there is none here.
    pub ends: Vec<End>,
    /// Run by default, not only with everything.
    pub critical: bool,
}

/// A row: the name, the fault, and how a run ends that it strikes in each of the [`PHASES`]. `5|69` is either of these, since
/// the fault races with the run; `.` is a cell that means nothing, or that is another cell's; `*` marks the cells that are run
/// by default.
type Row = (&'static str, Fault, &'static str);

/// The exit codes are those of the table in the design: 1, 69 and 78 before the first write (as found), 5 where the host is out
/// and cannot be seen to be put back, 4 the same after the restart, 3 where the unit does not run.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    //                                               start queue   look   leave    drain   last    restart  settle  return
    ("nothing",             Fault::None,            "0*     0*      0      0        0*      0       0*       0       0"),
    ("SIGTERM",             TERM,                   ".      TERM*   TERM   TERM*    TERM*   TERM*   TERM*    TERM*   TERM*"),
    ("SIGINT",              INT,                    ".      INT     INT    INT      INT*    INT     INT      INT     INT"),
    ("SIGHUP",              HUP,                    ".      HUP     HUP    HUP      HUP     HUP*    HUP*     HUP     HUP"),
    ("SIGKILL",             KILL,                   ".      KILL*   KILL*  KILL*    KILL*   KILL*   KILL*    KILL*   KILL*"),
    ("SIGSTOP, SIGKILL",    Fault::StopThenKill,    ".      KILL    KILL   KILL*    KILL    KILL    KILL*    KILL    KILL*"),
    ("etcd refused",        Fault::EtcdRefused,     "69*    69      5|69*  5*       5*      5       4*       4*      0|4*"),
    ("etcd frozen",         Fault::EtcdFrozen,      "69*    69      5|69*  5        5*      5       4*       4       0|4"),
    ("etcd restarted",      Fault::EtcdRestarted,   "0      0       0*     0|69     0*      0|69    0*       0       0*"),
    ("etcd quorum lost",    Fault::QuorumLost,      "69*    69      5|69*  5        5*      5       4*       4*      0|4"),
    ("etcd password",       Fault::Password,        "78*    78      5|78*  5        5*      4|5     4*       4       0|4"),
    ("operator: weight",    Fault::Weight,          "0      0       0*     0*       0*      0       0*       0       0"),
    ("operator: yes",       Fault::OperatorYes,     ".      .       .      1*       1*      1*      0*       0       ."),
    ("operator: no",        Fault::OperatorNo,      "0      0*      0      0        0*      0       0*       0       ."),
    ("operator: inactive",  Fault::Inactive,        "0      0       0|69   0|69*    0*      0|69    0*       0       0|4*"),
    ("operator: deleted",   Fault::Deleted,         "78*    78*     0|69   0|69     0*      0|69    0*       0       0|4*"),
    ("lb slow",             LB_SLOW,                "69     69      69     5        5       5       4*       4       4"),
    ("lb hangs",            Fault::Lb(LbFault::Hang),
                                                    "69*    69      69*    5*       5*      5*      4*       4       4*"),
    ("lb refuses",          Fault::Lb(LbFault::Refuse),
                                                    "69*    69      69     5        5*      5       4        4       4*"),
    ("lb resets",           Fault::Lb(LbFault::Reset),
                                                    "69     69      69     5*       5       5       4        4*      4"),
    ("lb black hole",       Fault::Lb(LbFault::BlackHole),
                                                    "69*    69      69     5        5*      5       4        4       4*"),
    ("lb 500",              Fault::Lb(LbFault::Status(500)),
                                                    "69     69      69     5        5*      5       4        4       4*"),
    ("lb 503",              Fault::Lb(LbFault::Status(503)),
                                                    "69     69      69     5*       5       5       4        4       4"),
    ("lb 404",              Fault::Lb(LbFault::Status(404)),
                                                    "69*    69      69     5*       5       5*      4        4       4*"),
    ("lb rubbish",          Fault::Lb(LbFault::Rubbish),
                                                    "69     69      69*    5        5       5*      4        4       4"),
    ("lb drips",            Fault::Lb(LbFault::Drip),
                                                    "69     69      69     5*       5       5       4        4       4*"),
    ("lb text",             Fault::Lb(LbFault::Text),
                                                    "69*    69      69     5        5       5       4        4       4"),
    ("lb stale",            Fault::LbStale,         "1*     1       1      1|4      4*      4       4        4*      0|4"),
    ("lb holds",            Fault::LbHolds,         "1*     1       1      1*       1*      1       0        0       0"),
    ("lb health check",     Fault::LbDown,          "4      4       4      4        4*      4       4        4       0|4"),
    ("poolcounter killed",  Fault::PoolcounterKilled,
                                                    "69*    69*     69     69*      69*     69      0*       0       0"),
    ("poolcounter frozen",  Fault::PoolcounterFrozen,
                                                    "69*    69*     0      0        0*      0       0*       0       0"),
    ("unit fails",          Fault::UnitFails,       "3      3       3      3        3*      3       .        .       ."),
    ("unit hangs",          Fault::UnitHangs,       "3      3       3      3        3*      3       .        .       ."),
    ("unit dies",           Fault::UnitDies,        "3      3       3      3        3*      3       3*       3*      ."),
    ("forced restart",      Fault::Forced,          ".      0       0      0        0*      0       0*       0*      0"),
    ("disk read-only",      Fault::DiskReadOnly,    "1*     1       1*     0        0*      0       0*       0       0"),
    ("disk full",           Fault::DiskFull,        "1*     1       1*     0        0*      0       0        0*      0"),
    ("host rebooted",       Fault::Reboot,          ".      ANY     ANY    ANY*     ANY     ANY     ANY*     ANY     ANY"),
    ("power cut",           Fault::PowerCut,        ".      KILL    KILL   KILL*    KILL*   KILL    KILL|3*  KILL|3  KILL*"),
];

/// What is not here on purpose, printed below the table.
pub const NOT_HERE: &str = "clock stepped: with a fake clock, in crates/restart-core/tests/sequence/signals.rs; a clock of this \
                            machine is not ours to set, and the product measures time by CLOCK_MONOTONIC alone";

const TERM: Fault = Fault::Signal(Signal::SIGTERM);
const INT: Fault = Fault::Signal(Signal::SIGINT);
const HUP: Fault = Fault::Signal(Signal::SIGHUP);
const KILL: Fault = Fault::Signal(Signal::SIGKILL);
/// Slower than the product waits for one answer.
const LB_SLOW: Fault = Fault::Lb(LbFault::Slow(std::time::Duration::from_millis(1800)));

/// Every cell of the table, row by row.
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (name, fault, row) in ROWS {
        let columns: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(columns.len(), PHASES.len(), "the row '{name}'");
        for (phase, text) in PHASES.into_iter().zip(columns).filter(|(_, text)| *text != ".") {
            let ends = text.trim_end_matches('*').split('|').flat_map(ends).collect();
            cells.push(Cell { name, phase, fault: *fault, ends, critical: text.ends_with('*') });
        }
    }
    cells
}

/// The names of the rows, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|(name, ..)| *name)
}

fn ends(text: &str) -> Vec<End> {
    let signal = |name: &str| format!("SIG{name}").parse().ok().map(End::Signal);
    match (text, text.parse()) {
        (_, Ok(code)) => vec![End::Code(code)],
        // What ends then is systemd-run, which runs the run, and is told whatever systemd still can tell.
        ("ANY", _) => vec![],
        (name, Err(_)) => vec![signal(name).unwrap_or_else(|| panic!("'{name}' is no way to end"))],
    }
}
