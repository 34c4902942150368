//! The sequence of a safe restart, its halves (`--depool`, `--pool`), its plan (`--dry-run`) and its opposite (`--force`).
//! [`safe_restart`] is the story. Its steps before the restart are in `take_out.rs`, the restart of one unit is in
//! `restart.rs`, and every way back (after a restart, after an abort, by `--pool`) is in `bring_back.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::capacity::Share;
use crate::clock::{Clock, Stop};
use crate::journal::{Journal, Origin, Record};
use crate::load_balancer::LoadBalancers;
use crate::names::{Fqdn, PoolName, Tag, UnitName};
use crate::pool::Pool;
use crate::probe::Probe;
use crate::report::Report;
use crate::run::{Abort, Run};
use crate::service::{ServiceManager, Verb};
use crate::slots::Slots;
use crate::state::State;
use crate::store::PoolStore;

/// What is done to the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stop and start: a new main process.
    Restart,
    /// The same main process, which reads its configuration and code again.
    Reload,
}

impl Action {
    pub(crate) fn verb(self) -> Verb {
        match self {
            Self::Restart => Verb::Restart,
            Self::Reload => Verb::Reload,
        }
    }

    /// `restart failed` or `reload failed`.
    pub(crate) fn failed(self) -> &'static str {
        match self {
            Self::Restart => "restart failed",
            Self::Reload => "reload failed",
        }
    }

    /// `restarted` or `reloaded`.
    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::Restart => "restarted",
            Self::Reload => "reloaded",
        }
    }
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Out of the pools, restart or reload, back again.
    Restart,
    /// Restart or reload at once (`--force`).
    Force,
    /// Only out (`--depool`).
    Depool,
    /// Only back (`--pool`).
    Pool,
    /// Only finish what a dead run left (`--recover`).
    Recover,
}

impl Purpose {
    /// What was asked for is a restart or a reload, so that its absence is worth a word.
    pub(crate) fn restarts(self) -> bool {
        matches!(self, Self::Restart | Self::Force)
    }
}

/// This host in its pools.
#[derive(Debug, Clone)]
pub struct Place {
    /// This host.
    pub host: Fqdn,
    /// The data centre its nodes are kept under.
    pub data_centre: Tag,
    /// The pools named, in the order of their names, each once.
    pub pools: Vec<Pool>,
    /// Those of them that only the journal names. There a node is put back if it is out because of us, and nothing else is done.
    pub unnamed: BTreeSet<PoolName>,
}

/// What to do, checked.
#[derive(Debug, Clone)]
pub struct Job {
    /// The pools to leave; `None` where there is none to leave: a forced restart, a host that has no catalog.
    pub place: Option<Place>,
    /// The units, in the order in which they are restarted.
    pub units: Vec<UnitName>,
    /// What to do to them.
    pub action: Action,
    /// How long requests in flight get to finish (`--grace-period`).
    pub grace: Duration,
    /// How long as a whole, the grace period included, while something is seen in flight (`--drain-timeout`).
    pub drain_timeout: Duration,
    /// Requests still in flight at the end of that time abort the run (`--require-drained`).
    pub require_drained: bool,
    /// How long a unit has to stay up (`--settle`).
    pub settle: Duration,
    /// How long a unit that runs may take until it serves (`--ready-timeout`).
    pub ready: Duration,
    /// How long the load balancers may take for each change (`--retries` times `--wait`, or `--lb-timeout`).
    pub allowed: Duration,
    /// The longest pause between two questions to one load balancer (`--wait`).
    pub longest_pause: Duration,
    /// How many load balancers of a pool have to confirm (`--lb-quorum`); `None` is all.
    pub quorum: Option<usize>,
    /// How many hosts of each pool have to stay pooled (`--min-pooled`), unless the pool says otherwise.
    pub min_pooled: Share,
    /// How many hosts may be at it at once (`--max-concurrency`); `None` is no limit.
    pub limit: Option<Share>,
    /// How long to wait for a slot (`--slot-timeout`).
    pub slot_timeout: Duration,
    /// The limits that this host counts against while it is out, where the store remembers that.
    pub counts_against: Vec<String>,
    /// Who runs, for the journal.
    pub origin: Origin,
    /// The command that puts this host back by hand, for messages.
    pub way_back: String,
    /// The one that takes it out by hand, where a run that died is finished.
    pub way_out: String,
    /// What an earlier run took out and left so. A restart that succeeds puts it back; `--pool` and `--depool` take over what is
    /// in the pools named; a run that is aborted leaves it as it is.
    pub left: Option<Record>,
}

/// The world, as the sequence sees it.
pub struct Parts<'a> {
    /// Where pools are kept.
    pub store: &'a mut dyn PoolStore,
    /// Who sends traffic.
    pub balancers: &'a mut dyn LoadBalancers,
    /// Who runs the units.
    pub services: &'a mut dyn ServiceManager,
    /// What the services of this host say of themselves.
    pub probe: &'a mut dyn Probe,
    /// What outlives this process.
    pub journal: &'a mut dyn Journal,
    /// Who says whether it is our turn; `None` where nobody limits.
    pub slots: Option<&'a mut dyn Slots>,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// Whether to end.
    pub stop: &'a dyn Stop,
}

/// Takes the host out of its pools, restarts its units, puts it back, and sees each of these happen.
///
/// Until the restart, whatever goes wrong ends with the host as it was found. From the restart on a signal no longer ends
/// the run: the host is first brought back, or left depooled if a unit does not run.
pub fn safe_restart<'a>(job: &'a Job, parts: Parts<'a>) -> Report {
    let mut run = Run::new(job, Purpose::Restart, parts);
    match take_out(&mut run) {
        Err(abort) => run.put_back(abort),
        Ok(()) => match run.restart_units() {
            Err(failures) => run.leave_depooled(failures),
            Ok(()) => run.bring_back(),
        },
    }
    run.finish()
}

/// Takes the host out of its pools, sees every load balancer stop sending, and lets requests in flight end (`--depool`).
pub fn depool<'a>(job: &'a Job, parts: Parts<'a>) -> Report {
    let mut run = Run::new(job, Purpose::Depool, parts);
    match leave(&mut run).and_then(|()| run.drain()).and_then(|()| run.see_still_out()) {
        Err(abort) => run.put_back(abort),
        Ok(()) => run.stay_out(),
    }
    run.finish()
}

/// Puts the host back wherever it is `no` and sees every load balancer send again (`--pool`). A load balancer that does not
/// answer does not keep a host out of service: there is no look at them before the write.
pub fn pool<'a>(job: &'a Job, parts: Parts<'a>) -> Report {
    let mut run = Run::new(job, Purpose::Pool, parts);
    match run.read_pools() {
        Err(abort) => run.put_back(abort),
        Ok(()) => run.pool(),
    }
    run.finish()
}

/// Reads everything that a run would read before its first write, and says what it would write; changes nothing.
pub fn plan<'a>(job: &'a Job, purpose: Purpose, parts: Parts<'a>) -> Report {
    let mut run = Run::new(job, purpose, parts);
    let read = match purpose {
        Purpose::Restart | Purpose::Force => run.look_at_units().and_then(|()| look(&mut run)),
        Purpose::Depool => look(&mut run),
        Purpose::Pool | Purpose::Recover => run.read_pools(),
    };
    match read.and_then(|()| run.plan()) {
        // Nothing was done that could be put back.
        Err(Abort::Failed(failure)) => run.report.failures.push(failure),
        Err(Abort::Stopped(_)) => {}
        Ok(()) => run.state = State::Planned,
    }
    run.finish()
}

/// Restarts the units at once (`--force`): no store, no load balancer, no waiting but for a slot. Requests in flight die.
pub fn forced_restart<'a>(job: &'a Job, parts: Parts<'a>) -> Report {
    let mut run = Run::new(job, Purpose::Force, parts);
    match run.get_slot_if_possible() {
        Err(abort) => run.put_back(abort),
        Ok(()) => match run.restart_units() {
            Err(failures) => run.leave_depooled(failures),
            Ok(()) => run.state = State::Forced,
        },
    }
    run.finish()
}

/// Finishes what a run left that died (`--recover`), which the job has as `left`: puts the host back if its units are healthy,
/// else holds it. What was held before is only reported. The job's place has the pools of that record, as far as there are such.
pub fn recover<'a>(job: &'a Job, parts: Parts<'a>) -> Report {
    let mut run = Run::new(job, Purpose::Recover, parts);
    if let Some(record) = &job.left {
        run.recover(record);
    }
    run.finish()
}

/// All that comes before the restart, in this order; the first step that fails ends it.
fn take_out(run: &mut Run<'_>) -> Result<(), Abort> {
    run.look_at_units()?;
    leave(run)?;
    run.drain()?;
    run.last_look()
}

/// Out of the pools, and seen to be out.
fn leave(run: &mut Run<'_>) -> Result<(), Abort> {
    run.see_countable()?;
    run.read_pools()?;
    run.get_slot()?;
    run.check_capacity()?;
    run.see_known()?;
    run.open_journal()?;
    run.depool()?;
    run.see_not_pooled()?;
    // Whoever has it now may be about to leave as well; there is still time to go back before requests are waited for.
    Ok(run.slot_is_ours()?)
}

/// What a run looks at before its first write; a plan takes no slot.
fn look(run: &mut Run<'_>) -> Result<(), Abort> {
    run.see_countable()?;
    run.read_pools()?;
    run.check_capacity()?;
    run.see_known()
}
