//! What a run knows while it runs: this host's memberships and what was done to each, what the load balancers said, and the
//! report it grows. The steps themselves are in `take_out.rs` and `bring_back.rs`.

use crate::clock::{Heed, Stopped};
use crate::load_balancer::Question;
use crate::outcome::{ExitCode, Failure};
use crate::pool::{Node, NodeId, Pool, Pooled};
use crate::report::{BalancerReport, PhaseReport, PlannedWrite, PoolReport, Report, ServicesState};
use crate::restart::restart;
use crate::sequence::{Job, Parts, Place, Purpose};
use crate::service::UnitStatus;
use crate::store::{StoreError, Write};
use crate::watch::{Patience, Unseen, Wanted, Watched, watch};

/// This host's object in the store, which stands behind one or several of the pools named.
pub(crate) struct Membership {
    pub(crate) id: NodeId,
    /// Those pools, by their place in the job.
    pub(crate) pools: Vec<usize>,
    /// As it was read before anything was written; `None`: there is no such object.
    pub(crate) found: Option<Node>,
    /// As it was last seen or written.
    pub(crate) now: Option<Node>,
    pub(crate) hold: Hold,
}

/// What we did to a node.
pub(crate) enum Hold {
    /// Nothing that still stands.
    Untouched,
    /// A depool whose answer was lost.
    Attempted(Write),
    /// We depooled it; the node as our write left it.
    Ours(Node),
    /// We put it back.
    Returned,
    /// Somebody else took it over while we held it.
    Theirs,
}

impl Membership {
    /// The store has the node as `yes` or `no`, so that every load balancer has to know it.
    pub(crate) fn in_store(&self) -> bool {
        matches!(&self.now, Some(node) if node.pooled != Pooled::Inactive)
    }
}

/// The state a host is left in, as far as the sequence knows.
#[derive(Clone, Copy)]
pub(crate) enum State {
    AsFound,
    PerhapsDepooled,
    LeftDepooled,
    BroughtBack,
    RepoolUnconfirmed,
    Depooled,
    Pooled,
    PoolUnconfirmed,
    Planned,
    Forced,
}

/// Why the way to the restart was left.
pub(crate) enum Abort {
    Failed(Failure),
    Stopped(Stopped),
}

impl From<Failure> for Abort {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Stopped> for Abort {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

/// One run.
pub(crate) struct Run<'a> {
    pub(crate) job: &'a Job,
    /// This host's name, for messages.
    pub(crate) host: &'a str,
    /// The pools of the job.
    pub(crate) pools: &'a [Pool],
    pub(crate) parts: Parts<'a>,
    pub(crate) members: Vec<Membership>,
    pub(crate) watched: Vec<Watched>,
    /// The units as they were before, in the order of the job; empty for a forced restart.
    pub(crate) units: Vec<UnitStatus>,
    pub(crate) report: Report,
    pub(crate) state: State,
}

impl<'a> Run<'a> {
    pub(crate) fn new(job: &'a Job, parts: Parts<'a>) -> Self {
        let place = job.place.as_ref();
        Self {
            job,
            host: place.map_or("this host", |place| place.host.as_str()),
            pools: place.map_or(&[], |place| &place.pools),
            parts,
            members: Vec::new(),
            watched: Vec::new(),
            units: Vec::new(),
            report: Report::new(place),
            state: State::AsFound,
        }
    }

    /// Does one phase, and keeps how long it took.
    pub(crate) fn phase<T>(&mut self, phase: &'static str, step: impl FnOnce(&mut Self) -> T) -> T {
        let began = self.parts.clock.now();
        let result = step(self);
        let seconds = self.parts.clock.now().saturating_sub(began);
        log::debug!("{phase}: {seconds:.1?}");
        self.report.phases.push(PhaseReport { phase, seconds });
        result
    }

    /// Restarts or reloads every unit, in order. One that fails does not keep the others from being tried.
    pub(crate) fn restart_units(&mut self) -> Result<(), Vec<Failure>> {
        let word = self.job.action.verb().as_str();
        let mut failures = Vec::new();
        self.phase("restart", |run| {
            for (place, unit) in run.job.units.iter().enumerate() {
                let done = restart(&mut run.parts, unit, run.job.action, run.job.settle, run.units.get(place));
                for note in done.notes {
                    run.report.warn(note);
                }
                match &done.report.error {
                    None => {
                        let pid = done.report.pid.map(|pid| format!(", main process {pid}")).unwrap_or_default();
                        log::info!("{} '{unit}'{pid}", run.job.action.done());
                    }
                    Some(error) => {
                        let code = if done.missing { ExitCode::Configuration } else { ExitCode::LeftDepooled };
                        failures.push(Failure::new(code, format!("cannot {word} '{unit}': {error}")));
                    }
                }
                run.report.units.push(done.report);
            }
        });
        self.report.services = if failures.is_empty() { ServicesState::Done } else { ServicesState::Failed };
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// After a restart that failed: the host stays out, on purpose.
    pub(crate) fn leave_depooled(&mut self, failures: Vec<Failure>) {
        self.report.failures.extend(failures);
        self.state = State::LeftDepooled;
    }

    /// Watches the load balancers of those memberships that `which` picks.
    pub(crate) fn watch(
        &mut self,
        wanted: Wanted,
        heed: Heed,
        which: impl Fn(&Membership) -> bool,
    ) -> Result<(), Unseen> {
        for watched in &mut self.watched {
            watched.in_store = self.members[watched.member].in_store();
        }
        let all = std::mem::take(&mut self.watched);
        let (mut mine, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| which(&self.members[one.member]));
        let patience = Patience {
            allowed: self.job.allowed,
            longest_pause: self.job.longest_pause,
            quorum: self.job.quorum,
            heed,
        };
        if !mine.is_empty() {
            let wait = format!("waiting for {} to say that '{}' is", balancers(&mine), self.host);
            log::info!("{wait} {}, for at most {:?}", wanted.words(), patience.allowed);
        }
        let result = watch(&mut self.parts, &mut mine, wanted, patience);
        self.watched = mine;
        self.watched.extend(rest);
        result
    }

    /// What would be written, for `--dry-run`.
    pub(crate) fn plan(&mut self, purpose: Purpose) -> Result<(), Abort> {
        let from = if purpose == Purpose::Pool { Pooled::No } else { Pooled::Yes };
        for member in &self.members {
            let Some(found) = member.found.as_ref().filter(|found| found.pooled == from) else {
                continue;
            };
            let to = if purpose == Purpose::Pool { Pooled::Yes } else { Pooled::No };
            let write = self.parts.store.prepare(found, to).map_err(|error| cannot("plan the write", &error))?;
            let step = if purpose == Purpose::Pool { "repool" } else { "depool" };
            // Putting it back writes the fields found at that moment; if nobody changes them, these are the bytes of now.
            let back = PlannedWrite { step: "repool", key: write.key.clone(), value: found.value.clone() };
            self.report.plan.push(PlannedWrite { step, key: write.key, value: write.value });
            if purpose == Purpose::Restart {
                self.report.plan.push(back);
            }
        }
        let (depools, repools): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.report.plan).into_iter().partition(|write| write.step == "depool");
        self.report.plan = depools.into_iter().chain(repools).collect();
        Ok(())
    }

    /// Closes the report.
    pub(crate) fn finish(mut self) -> Report {
        self.report.signal = self.parts.stop.requested().map(|stopped| stopped.signal);
        self.report.state = self.state_in_words();
        for member in &self.members {
            for place in &member.pools {
                let pool = &self.pools[*place];
                let of_pool = self.watched.iter().filter(|watched| watched.question.pool == pool.name);
                let load_balancers = of_pool.map(|watched| {
                    let name = watched.question.balancer.clone();
                    BalancerReport { name, last: watched.last.clone() }
                });
                self.report.pools.push(PoolReport {
                    pool: pool.name.clone(),
                    node: member.id.to_string(),
                    found: member.found.as_ref().map(|node| node.pooled),
                    now: member.now.as_ref().map(|node| node.pooled),
                    load_balancers: load_balancers.collect(),
                });
            }
        }
        self.report.pools.sort_by(|one, other| one.pool.cmp(&other.pool));
        self.report
    }

    /// One clause: what the reader of the last line has to know.
    fn state_in_words(&self) -> String {
        let untouched = match self.report.services {
            ServicesState::Untouched => "not restarted",
            ServicesState::Failed => "not every unit restarted",
            ServicesState::Done => self.job.action.done(),
        };
        let out = self.pools_where(|member| matches!(member.hold, Hold::Ours(_) | Hold::Attempted(_)));
        let back = self.pools_where(|member| matches!(member.hold, Hold::Returned));
        let pool = format!("'safe-service-restart --pool --pools {}'", self.pool_arguments());
        match self.state {
            State::Planned => "nothing was changed".to_owned(),
            State::Forced => format!("{untouched}, pools untouched"),
            State::AsFound if self.pools.is_empty() => untouched.to_owned(),
            State::AsFound => format!("{untouched}, pools as found"),
            State::PerhapsDepooled if out.is_empty() => {
                format!("{untouched}, put back in {back}, but not every load balancer says so")
            }
            State::PerhapsDepooled => format!("{untouched}, perhaps still depooled in {out}; put it back with {pool}"),
            State::LeftDepooled if out.is_empty() => format!("{untouched}, pools untouched"),
            State::LeftDepooled => {
                format!("{untouched}, left depooled in {out}; once it is healthy, put it back with {pool}")
            }
            State::BroughtBack if self.pools.is_empty() => format!("{untouched}, there was no pool to leave"),
            State::BroughtBack if back.is_empty() => format!("{untouched}, pools left as they are"),
            State::BroughtBack => format!("{untouched}, pooled again in {back}"),
            State::RepoolUnconfirmed if out.is_empty() => {
                format!("{untouched}, put back in {back}, but not every load balancer says so")
            }
            State::RepoolUnconfirmed => format!("{untouched}, still depooled in {out}; put it back with {pool}"),
            State::Depooled => "not pooled".to_owned(),
            State::Pooled if back.is_empty() => "pools as found".to_owned(),
            State::Pooled => format!("pooled in {back}"),
            State::PoolUnconfirmed => "not pooled everywhere".to_owned(),
        }
    }

    fn pools_where(&self, which: impl Fn(&Membership) -> bool) -> String {
        let places = self.members.iter().filter(|member| which(member)).flat_map(|member| member.pools.iter());
        self.pool_names(places)
    }

    /// Pools, by their places in the job, as the reader knows them: `'api', 'appservers'`.
    pub(crate) fn pool_names<'b>(&self, places: impl IntoIterator<Item = &'b usize>) -> String {
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort();
        places.iter().map(|place| format!("'{}'", self.pools[**place].name)).collect::<Vec<_>>().join(", ")
    }

    fn pool_arguments(&self) -> String {
        self.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(" ")
    }
}

impl Wanted {
    fn words(self) -> &'static str {
        match self {
            Self::Known => "known there",
            Self::NotPooled => "not pooled",
            Self::Pooled => "pooled",
        }
    }
}

/// `load balancers 'lb1', 'lb2'`, each once.
fn balancers(watched: &[Watched]) -> String {
    let mut names: Vec<_> = watched.iter().map(|watched| format!("'{}'", watched.question.balancer)).collect();
    names.sort();
    names.dedup();
    let noun = if names.len() == 1 { "load balancer" } else { "load balancers" };
    format!("{noun} {}", names.join(", "))
}

/// A failure of the store before anything was written, with the exit code it has.
pub(crate) fn cannot(what: &str, error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unreachable(_) => ExitCode::Unreachable,
        StoreError::Refused(_) => ExitCode::Configuration,
        StoreError::Malformed(_) => ExitCode::Failed,
    };
    Failure::new(code, format!("cannot {what}: {error}"))
}

/// The question to each load balancer of each pool.
pub(crate) fn questions(place: &Place, member: usize, pools: &[usize]) -> Vec<Watched> {
    let pools = pools.iter().map(|number| &place.pools[*number]);
    let questions = pools.flat_map(|pool| {
        pool.balancers.iter().map(|balancer| Question {
            balancer: balancer.clone(),
            pool: pool.name.clone(),
            port: pool.port,
            host: place.host.clone(),
        })
    });
    questions.map(|question| Watched { question, member, in_store: false, last: None }).collect()
}
