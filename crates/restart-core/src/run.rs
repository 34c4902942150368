//! What a run knows while it runs: this host's memberships and what was done to each, what the load balancers said, and the
//! report it grows. The steps themselves are in `take_out.rs` and `bring_back.rs`.

use crate::capacity::Census;
use crate::clock::{Heed, Stopped};
use crate::journal::{Depooled, Phase};
use crate::outcome::{ExitCode, Failure};
use crate::pool::{Node, NodeId, Pool, Pooled};
use crate::ready::{Unready, await_ready};
use crate::report::{BalancerReport, PhaseReport, PlannedStep, PoolReport, Report, ServicesState};
use crate::restart::restart;
use crate::sequence::{Action, Job, Parts, Place, Purpose};
use crate::service::UnitStatus;
use crate::span::span;
use crate::state::State;
use crate::store::Write;
use crate::watch::{Patience, Unseen, Wanted, Watched, watch};

/// This host's object in the store, which stands behind one or several of the pools named.
pub(crate) struct Membership {
    pub(crate) id: NodeId,
    /// Those pools, by their place in the job; none for a node that only the journal knows.
    pub(crate) pools: Vec<usize>,
    /// Those pools as the reader knows them: `'api', 'appservers'`.
    pub(crate) names: String,
    /// One of them was named: the run takes the host out of it.
    pub(crate) named: bool,
    /// As it was read before anything was written; `None`: there is no such object.
    pub(crate) found: Option<Node>,
    /// As it was last seen or written.
    pub(crate) now: Option<Node>,
    pub(crate) hold: Hold,
    /// The depool, as the journal has it: ours, or that of an earlier run.
    pub(crate) out: Option<Write>,
    /// The revision of that depool, once it is known.
    pub(crate) revision: Option<u64>,
    /// An earlier run took it out, and this one took it over.
    pub(crate) adopted: bool,
    /// That earlier run held it: until this one has succeeded, recovery leaves it as it is.
    pub(crate) held: bool,
    /// All nodes of the place, for the count.
    pub(crate) listing: Vec<Node>,
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
    /// A node as it was found, before anything is known of the pools that it stands behind.
    pub(crate) fn of(id: NodeId, found: Option<Node>) -> Self {
        Self {
            id,
            pools: Vec::new(),
            names: String::new(),
            named: false,
            now: found.clone(),
            found,
            hold: Hold::Untouched,
            out: None,
            revision: None,
            adopted: false,
            held: false,
            listing: Vec::new(),
        }
    }

    /// Whether it is in service, as it was last seen or written.
    pub(crate) fn is_in(&self) -> bool {
        matches!(&self.now, Some(node) if node.pooled == Pooled::Yes)
    }

    /// The store has the node as `yes` or `no`, so that every load balancer has to know it.
    pub(crate) fn in_store(&self) -> bool {
        matches!(&self.now, Some(node) if node.pooled != Pooled::Inactive)
    }
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
    pub(crate) purpose: Purpose,
    /// This host's name, for messages.
    pub(crate) host: &'a str,
    /// The pools of the job.
    pub(crate) pools: &'a [Pool],
    pub(crate) parts: Parts<'a>,
    pub(crate) members: Vec<Membership>,
    pub(crate) watched: Vec<Watched>,
    /// How many questions the load balancers were asked.
    asked: u64,
    /// What a way back goes on without: places that cannot be read. It is not confirmed as long as there are such.
    pub(crate) unread: Vec<Failure>,
    pub(crate) report: Report,
    pub(crate) state: State,
    /// What the journal had, and this run leaves to others: it stays there.
    pub(crate) others: Vec<Depooled>,
    /// There is a journal of this run's, or one that it took over.
    pub(crate) journal_open: bool,
    /// The phase that stands in it.
    pub(crate) journal_phase: Phase,
    /// The pools in which a held host is still out because of us, once the store has said so.
    pub(crate) held_in: Option<String>,
    /// A slot was asked for: there is one to look after and to give back.
    pub(crate) slot: bool,
    /// It was granted.
    pub(crate) slot_granted: bool,
    /// Why requests in flight cannot be counted; `None` where they can.
    pub(crate) uncounted: Option<String>,
    /// The first unit as the last look before the restart saw it.
    pub(crate) first_unit: Option<UnitStatus>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(job: &'a Job, purpose: Purpose, parts: Parts<'a>) -> Self {
        let place = job.place.as_ref();
        Self {
            job,
            purpose,
            host: place.map_or("this host", |place| place.host.as_str()),
            pools: place.map_or(&[], |place| &place.pools),
            parts,
            members: Vec::new(),
            watched: Vec::new(),
            asked: 0,
            unread: Vec::new(),
            report: Report::new(place),
            state: State::AsFound,
            others: Vec::new(),
            journal_open: false,
            journal_phase: Phase::TakingOut,
            held_in: None,
            slot: false,
            slot_granted: false,
            uncounted: None,
            first_unit: None,
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
        let mut missing = 0;
        self.phase("restart", |run| {
            for (place, unit) in run.job.units.iter().enumerate() {
                if place > 0 && Heed::Second.check(run.parts.stop).is_err() {
                    let message = format!("cannot {word} '{unit}': not tried any more because of a second signal");
                    failures.push(Failure::new(ExitCode::LeftDepooled, message));
                    continue;
                }
                if place > 0
                    && run.purpose != Purpose::Force
                    && let Some(names) = run.pooled_by_somebody()
                {
                    let message =
                        format!("cannot {word} '{unit}': somebody pooled '{}' in {names} meanwhile", run.host);
                    failures.push(Failure::new(ExitCode::LeftDepooled, message));
                    continue;
                }
                // As late as can be, so that whatever happened to the unit meanwhile is not taken for our doing. A forced
                // restart does without: it must not wait for anything.
                let look = run.job.place.is_some() || run.job.action == Action::Reload || run.purpose != Purpose::Force;
                let before = match run.first_unit.take() {
                    Some(status) => Some(status),
                    None if look => run.parts.services.status(unit).ok(),
                    None => None,
                };
                let done = restart(&mut run.parts, unit, run.job, before.as_ref());
                for note in done.notes {
                    run.report.warn(note);
                }
                match &done.report.error {
                    None => {
                        let pid = done.report.pid.map(|pid| format!(", main process {pid}")).unwrap_or_default();
                        log::info!("{} '{unit}'{pid}", run.job.action.done());
                    }
                    Some(error) => {
                        missing += usize::from(done.missing);
                        let message = format!("cannot {word} '{unit}': {error}; see 'journalctl -u {unit}'");
                        failures.push(Failure::new(ExitCode::LeftDepooled, message));
                    }
                }
                run.report.units.push(done.report);
            }
        });
        // Nothing was touched, since there is nothing of these names: that is a wrong command line, not a failed restart.
        if self.job.place.is_none() && missing == self.job.units.len() {
            failures.iter_mut().for_each(|failure| failure.code = ExitCode::Configuration);
        }
        if failures.is_empty() {
            failures = self.urls_that_do_not_answer();
        }
        self.report.services = if failures.is_empty() { ServicesState::Done } else { ServicesState::Failed };
        failures.extend(self.held_units_that_do_not_run());
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// The pools in which somebody pooled this host since it was last looked at. A store that does not answer now says nothing: it
    /// was read right before the first unit.
    fn pooled_by_somebody(&mut self) -> Option<String> {
        for member in self.members.iter_mut().filter(|member| member.named) {
            if let Ok(now) = self.parts.store.read(&member.id) {
                member.now = now;
            }
        }
        Some(self.pools_where(|member| member.named && member.is_in())).filter(|names| !names.is_empty())
    }

    /// The addresses that have to answer before the host goes back (`ready_url` in the catalog), and do not within the time.
    pub(crate) fn urls_that_do_not_answer(&mut self) -> Vec<Failure> {
        let mut failures = Vec::new();
        if self.purpose == Purpose::Force {
            return failures;
        }
        let mut urls: Vec<_> =
            self.pools.iter().filter_map(|pool| Some((pool.ready_url.as_deref()?, &pool.name))).collect();
        urls.sort();
        urls.dedup_by_key(|(url, _)| *url);
        for (url, pool) in urls {
            log::info!("waiting for '{url}' to answer, for at most {}", span(self.job.ready));
            let until = self.parts.clock.now() + self.job.ready;
            if let Err(why) =
                await_ready(&mut self.parts, until, |parts| parts.probe.answers(url).map_err(Unready::NotYet))
            {
                let message = format!("'{url}', by which pool '{pool}' is known to be ready, does not answer: {why}");
                failures.push(Failure::new(ExitCode::LeftDepooled, message));
            }
        }
        failures
    }

    /// After a restart that failed: the host stays out, on purpose. Unless the host is going down, which ends every unit: then
    /// this run was interrupted, and its journal is left to the recovery at the next boot.
    pub(crate) fn leave_depooled(&mut self, failures: Vec<Failure>) {
        if self.journal_open && self.parts.services.going_down() {
            self.report.warn("this host is going down: the recovery after its next boot puts it back".to_owned());
        } else {
            self.note_phase(Phase::Held);
        }
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
            log::info!("{wait} {}, for at most {}", wanted.words(self.purpose), span(patience.allowed));
        }
        let result = watch(&mut self.parts, &mut self.asked, &mut mine, wanted, patience);
        for one in mine.iter().filter(|_| result.is_ok()) {
            if let Some(verdict) = one.last.as_ref().filter(|verdict| !one.confirmed(wanted, verdict)) {
                let (balancer, pool) = (&one.question.balancer, &one.question.pool);
                let why = format!("load balancer '{balancer}' of '{pool}' {verdict}");
                self.report.warn(format!("the quorum does without one that may still send: {why}"));
            }
        }
        self.watched = mine;
        self.watched.extend(rest);
        result
    }

    /// What would be done, for `--dry-run`.
    pub(crate) fn plan(&mut self) -> Result<(), Abort> {
        // What a way back would go on without stays a failure.
        self.report.failures.append(&mut self.unread);
        let returns = matches!(self.purpose, Purpose::Pool | Purpose::Recover);
        let (from, to, step) =
            if returns { (Pooled::No, Pooled::Yes, "repool") } else { (Pooled::Yes, Pooled::No, "depool") };
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for member in &self.members {
            let Some(found) = member.found.as_ref().filter(|found| found.pooled == from) else { continue };
            let write = self.parts.store.prepare(found, to).map_err(|error| error.failure("plan the write"))?;
            // Putting it back writes the fields found at that moment; if nobody changes them, these are the bytes of now.
            back.push(PlannedStep::Write { step: "repool", key: write.key.clone(), value: found.value.clone() });
            there.push(PlannedStep::Write { step, key: write.key, value: write.value });
        }
        // What an earlier run held goes back with this one.
        for member in self.members.iter().filter(|member| member.adopted && self.purpose == Purpose::Restart) {
            let Some(now) = &member.now else { continue };
            let write = self.parts.store.prepare(now, Pooled::Yes).map_err(|error| error.failure("plan the write"))?;
            back.push(PlannedStep::Write { step: "repool", key: write.key, value: write.value });
        }
        self.report.plan = there;
        if !returns {
            self.note_what_limits();
        }
        if self.purpose.restarts() {
            let step = self.job.action.verb().as_str();
            self.report.plan.extend(self.job.units.iter().map(|unit| PlannedStep::Unit { step, unit: unit.clone() }));
            self.report.plan.extend(back);
        }
        Ok(())
    }

    /// A store without revisions cannot tell which of two hosts left first. Said where somebody tries things out, and not at every
    /// run of those who never restart two at the same time.
    fn note_what_limits(&mut self) {
        let others = |member: &Membership| Census::now(&member.listing).total > 1;
        let names = self.pools_where(|member| member.named && others(member));
        if !self.parts.store.has_revisions() && self.job.limit.is_none() && !names.is_empty() {
            self.report.note(format!(
                "nothing keeps two hosts of {names} from leaving in the same moment, in which it has nobody, until both have gone \
                 back: if that can be, use --max-concurrency, which takes poolcounter"
            ));
        }
    }

    /// Closes the report.
    pub(crate) fn finish(mut self) -> Report {
        self.release_slot();
        self.report.signal = self.parts.stop.requested().map(|stopped| stopped.signal);
        self.report.state = self.state_in_words();
        for (number, member) in self.members.iter().enumerate() {
            for place in &member.pools {
                let pool = &self.pools[*place];
                let mut of_pool: Vec<_> = self.watched.iter().filter(|one| one.member == number).collect();
                of_pool.retain(|one| one.question.pool == pool.name);
                let load_balancers = of_pool.into_iter().map(|watched| {
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

    /// The pools of these memberships, as the reader knows them.
    pub(crate) fn pools_where(&self, which: impl Fn(&Membership) -> bool) -> String {
        let mut names: Vec<_> =
            self.members.iter().filter(|member| which(member)).map(|member| &*member.names).collect();
        names.sort_unstable();
        names.join(", ")
    }

    /// Pools, by their places in the job, as the reader knows them: `'api', 'appservers'`.
    pub(crate) fn pool_names<'b>(&self, places: impl IntoIterator<Item = &'b usize>) -> String {
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort();
        places.iter().map(|place| self.pools[**place].to_string()).collect::<Vec<_>>().join(", ")
    }
}

impl Wanted {
    fn words(self, purpose: Purpose) -> &'static str {
        match self {
            Self::Known => "known there",
            Self::NotPooled => "not pooled",
            Self::NotPooledNow if purpose.restarts() => "still not pooled, right before the restart",
            Self::NotPooledNow => "still not pooled, after the drain",
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

/// The question to each load balancer of each pool.
pub(crate) fn questions(place: &Place, member: usize, pools: &[usize]) -> Vec<Watched> {
    let pools = pools.iter().map(|number| &place.pools[*number]);
    let questions = pools.flat_map(|pool| pool.questions(&place.host));
    questions.map(|question| Watched { question, member, in_store: false, last: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_restart_is_spoken_of_where_none_follows() {
        for purpose in [Purpose::Restart, Purpose::Depool, Purpose::Pool, Purpose::Recover] {
            let says_so = Wanted::NotPooledNow.words(purpose).contains("restart");
            assert_eq!(says_so, purpose.restarts(), "{purpose:?}");
        }
    }
}
