//! What goes wrong with a HAProxy that keeps the pool, and how each run has to end: the table of the matrix, and the cells that are run.

use nix::sys::signal::Signal;
use testbed::relay::Mode;

use crate::full;

/// The states of HAProxy's statistics: in service, on the way out because of us, an operator's.
pub const READY: &str = "no check";
pub const DRAIN: &str = "DRAIN";
const MAINT: &str = "MAINT";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
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

/// Where a run has to stand in a question to HAProxy, which answers slowly then.
pub fn is_slow(phase: &str) -> bool {
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
pub struct Cell {
    pub name: &'static str,
    pub fault: Fault,
    pub phase: &'static str,
    pub ends: &'static str,
    pub stands: &'static str,
}

/// Those to be run: by default the marked ones, or all, or those that are asked for.
pub fn cells() -> Vec<Cell> {
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
