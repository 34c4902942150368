//! Scripts at random: many runs of every kind, one after the other, on one host in two services behind three pools, while
//! operators write, processes are killed, the store and the disk fail and recover, answers are lost, and writes arrive when nobody
//! waits for them any more. Each run is told of the journal what the tool tells it. After each step:
//!
//! - no host is out because of us without a journal, and no limit counts it that a journal does not name;
//! - no operator was overwritten, and no unit was restarted while the host was pooled (the world checks that for each unit);
//! - the exit code and the last line are true;
//! - a plan changes nothing, and neither does a restart without pools or by force in the store and the journal.
//!
//! In the end the world heals: then a recovery ends whatever is not held, and a good run what is.

use std::collections::BTreeSet;

use proptest::prelude::*;
use restart_core::{
    Action, ExitCode, Job, Phase, Pool, PoolName, Pooled, Purpose, Record, Report, Share, Signal, StoreError, UnitName,
    Verdict, sequence,
};

use crate::SEED;
use crate::world::{Balance, Handle, Scene, Unit, World, ms, running, tag};

/// The moments at which something happens.
const MOMENTS: [&str; 22] = [
    "list",
    "read",
    "keep",
    "taking out",
    "before write no api",
    "no api",
    "before write no web",
    "no web",
    "answers",
    "sleep",
    "before restart php.service",
    "restart php.service",
    "before restart zzz.service",
    "restart zzz.service",
    "ready",
    "before write yes api",
    "yes api",
    "before write yes web",
    "yes web",
    "no longer counts",
    "clear",
    "lost",
];
const SERVICES: [&str; 2] = ["api", "web"];
const UNITS: [&str; 2] = ["php.service", "zzz.service"];
const LIMITS: [&str; 2] = ["L1", "L2"];
/// The configuration that most runs are given, and another one.
const CONFIGS: [&str; 2] = ["/a.yaml", "/b.yaml"];
/// How many scripts are played.
const CASES: u32 = 1500;
/// A lost write is never later than this (`etcd` gives up first).
const LATE: u64 = 150_000;

/// What a run is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Safe(Action),
    Depool,
    Pool,
    Recover,
    Plan(Purpose),
    WithoutPools,
    Forced,
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy)]
enum Event {
    Kill,
    Signals(usize),
    StoreAway(u64),
    LosesAnswer {
        made: bool,
    },
    DiskFull(u64),
    /// The journal cannot be removed.
    ReadOnly(u64),
    /// An operator sets or deletes (`None`) the object of this service.
    Operator(&'static str, Option<Pooled>),
    Weighs(&'static str),
    BalancerSilent(u64),
    GoingDown,
}

/// A run; what it is about in bits, the first for the first pool, unit, and so on.
#[derive(Debug, Clone)]
struct Call {
    kind: Kind,
    pools: u8,
    units: u8,
    fails: u8,
    limit: Option<&'static str>,
    config: &'static str,
    events: Vec<(&'static str, u64, Event)>,
}

#[derive(Debug, Clone)]
enum Step {
    Run(Call),
    Operator(&'static str, Option<Pooled>),
    /// etcd's history is compacted away, or long enough again.
    HistoryGone(bool),
    /// The pool `web` stands in the catalog.
    WebInCatalog(bool),
    UnitsMended,
    Passes,
}

fn pooled() -> impl Strategy<Value = Option<Pooled>> {
    prop::sample::select(vec![Some(Pooled::Yes), Some(Pooled::No), Some(Pooled::Inactive), None])
}

fn service() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&SERVICES[..])
}

fn event() -> impl Strategy<Value = Event> {
    let time = || prop::sample::select(vec![200_u64, 4000, 60_000]);
    prop_oneof![
        4 => Just(Event::Kill),
        2 => (1..=2_usize).prop_map(Event::Signals),
        2 => time().prop_map(Event::StoreAway),
        2 => any::<bool>().prop_map(|made| Event::LosesAnswer { made }),
        1 => time().prop_map(Event::DiskFull),
        1 => time().prop_map(Event::ReadOnly),
        3 => (service(), pooled()).prop_map(|(service, pooled)| Event::Operator(service, pooled)),
        1 => service().prop_map(Event::Weighs),
        2 => time().prop_map(Event::BalancerSilent),
        1 => Just(Event::GoingDown),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let purpose = prop::sample::select(vec![Purpose::Restart, Purpose::Depool, Purpose::Pool]);
    let kind = prop_oneof![
        5 => Just(Kind::Safe(Action::Restart)),
        1 => Just(Kind::Safe(Action::Reload)),
        2 => Just(Kind::Depool),
        2 => Just(Kind::Pool),
        3 => Just(Kind::Recover),
        1 => purpose.prop_map(Kind::Plan),
        1 => Just(Kind::WithoutPools),
        1 => Just(Kind::Forced),
    ];
    let fails = prop_oneof![2 => Just(0), 1 => 0..4_u8];
    let limit = prop::option::of(prop::sample::select(&LIMITS[..]));
    let config = prop_oneof![5 => Just(CONFIGS[0]), 1 => Just(CONFIGS[1])];
    let moment = (prop::sample::select(&MOMENTS[..]), prop_oneof![3 => Just(0), 1 => 0..3000_u64], event());
    let events = prop::collection::vec(moment, 0..3);
    (kind, 1..8_u8, 1..4_u8, fails, limit, config, events).prop_map(
        |(kind, pools, units, fails, limit, config, events)| Call { kind, pools, units, fails, limit, config, events },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => call().prop_map(Step::Run),
        2 => (service(), pooled()).prop_map(|(service, pooled)| Step::Operator(service, pooled)),
        1 => any::<bool>().prop_map(Step::HistoryGone),
        1 => any::<bool>().prop_map(Step::WebInCatalog),
        1 => Just(Step::UnitsMended),
        1 => Just(Step::Passes),
    ]
}

fn operator(world: &mut World, service: &str, pooled: Option<Pooled>) {
    match pooled {
        Some(pooled) => {
            let rest = world.last_fields(service);
            world.set(service, pooled, &rest);
        }
        None => world.delete(service),
    }
}

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Kill => world.freeze(),
        Event::Signals(number) => (0..number).for_each(|_| world.signal(Signal::Terminate)),
        Event::StoreAway(time) => {
            world.store_error = Some(StoreError::Unreachable("no member answers".to_owned()));
            world.later(ms(time), |world| world.store_error = None);
        }
        Event::LosesAnswer { made } => world.lose_next_write = Some(made),
        Event::DiskFull(time) => {
            world.disk_full = true;
            world.later(ms(time), |world| world.disk_full = false);
        }
        Event::ReadOnly(time) => {
            world.clear_fails = true;
            world.later(ms(time), |world| world.clear_fails = false);
        }
        Event::Operator(service, pooled) => operator(world, service, pooled),
        // The weight of what we hold tells an operator's `no` from ours.
        Event::Weighs(service) if world.object(service).starts_with("yes") => world.weigh(service),
        Event::Weighs(_) => {}
        Event::BalancerSilent(time) => {
            world.balancers.insert("lb1".to_owned(), Balance::Says(Verdict::NotPooled));
            let back = |world: &mut World| drop(world.balancers.insert("lb1".to_owned(), Balance::Follows(ms(20))));
            world.later(ms(time), back);
        }
        Event::GoingDown => world.going_down = true,
    }
}

/// What stands in the world, as far as a plan must not change it.
#[derive(Debug, Clone, PartialEq)]
struct Stands {
    objects: [String; 2],
    revisions: [Option<u64>; 2],
    out: [bool; 2],
    counted: Vec<String>,
    journal: Option<Record>,
}

impl Stands {
    fn now(handle: &Handle) -> Self {
        let world = handle.0.borrow();
        Self {
            objects: SERVICES.map(|service| world.object(service)),
            revisions: SERVICES.map(|service| world.revision(service)),
            out: SERVICES.map(|service| world.ours.contains(service) && world.object(service).starts_with("no")),
            counted: world.counted.clone(),
            journal: world.journal.clone(),
        }
    }

    /// The services that are out because of us and that no journal knows.
    fn forgotten(&self) -> Vec<&'static str> {
        let known = |service: &str| {
            let mut nodes = self.journal.iter().flat_map(|record| &record.nodes);
            nodes.any(|out| out.write.found.id.path.service == tag(service))
        };
        let all = SERVICES.iter().zip(self.out);
        all.filter(|(service, out)| *out && !known(service)).map(|(service, _)| *service).collect()
    }

    /// The limits that nobody will take back.
    fn counts_for_ever(&self) -> bool {
        let named = |limit: &String| self.journal.as_ref().is_some_and(|record| record.counts_against.contains(limit));
        !self.counted.iter().all(named)
    }

    fn held(&self) -> bool {
        self.journal.as_ref().is_some_and(|record| record.phase == Phase::Held)
    }
}

/// The pools that the last line names after these words: `'api', 'web'`.
fn named_after<'s>(state: &'s str, words: &str) -> Vec<&'s str> {
    let mut names = Vec::new();
    let Some((_, mut rest)) = state.split_once(words) else { return names };
    while let Some((name, behind)) = rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
        names.push(name.trim_end_matches("-https"));
        rest = behind.strip_prefix(", ").unwrap_or_default();
    }
    names
}

/// A script that is played.
struct Play {
    scene: Scene,
    /// What every job is made from.
    job: Job,
    catalog: Vec<Pool>,
    web_in_catalog: bool,
    runs: usize,
    /// What happened so far, a line for each run.
    story: String,
}

impl Play {
    fn new() -> Self {
        let scene = Scene::new().pool("web", &["lb1"], Pooled::Yes).pool("api-https", &["lb1"], Pooled::Yes);
        let scene = scene.unit("zzz", Unit::Good).pools(|pools| {
            // Two pools of one service, and so of one object.
            pools
                .iter_mut()
                .filter(|pool| pool.name.as_str() == "api-https")
                .for_each(|pool| pool.service = tag("api"));
        });
        let scene = scene.with(|world| {
            world.delete("api-https");
            world.balancers_must_be_out = false;
            world.marks = Some([].into());
            world.late_after = Some(ms(LATE));
        });
        let job = scene.job.clone();
        let catalog = job.place.as_ref().unwrap().pools.clone();
        Self { scene, job, catalog, web_in_catalog: true, runs: 0, story: String::new() }
    }

    fn world(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.scene.handle.0.borrow_mut());
    }

    fn stands(&self) -> Stands {
        Stands::now(&self.scene.handle)
    }

    fn mend_units(&self) {
        self.world(|world| {
            for unit in UNITS {
                let (kind, status, _) = world.units.get_mut(unit).unwrap();
                (*kind, *status) = (Unit::Good, running());
            }
        });
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Run(call) => return self.call(&call),
            Step::Operator(service, pooled) => self.world(|world| operator(world, service, pooled)),
            Step::HistoryGone(gone) => self.world(|world| world.history_gone = gone),
            Step::WebInCatalog(there) => self.web_in_catalog = there,
            Step::UnitsMended => self.mend_units(),
            Step::Passes => self.world(|world| world.pass(ms(60_000))),
        }
        self.nothing_is_forgotten()
    }

    /// A call of the tool: a restart finishes first what a dead run left.
    fn call(&mut self, call: &Call) -> Result<(), String> {
        for (moment, delay, event) in call.events.clone() {
            self.world(|world| match delay {
                0 => world.hook(moment, move |world| happen(world, event)),
                _ => world.hook(moment, move |world| world.later(ms(delay), move |world| happen(world, event))),
            });
        }
        self.world(|world| {
            for (number, unit) in UNITS.iter().enumerate() {
                let fails = call.fails >> number & 1 == 1;
                world.units.get_mut(*unit).unwrap().0 = if fails { Unit::Fails } else { Unit::Good };
            }
        });
        let interrupted = self.stands().journal.is_some_and(|record| record.phase != Phase::Held);
        let finishes = matches!(call.kind, Kind::Safe(_) | Kind::WithoutPools) && interrupted;
        if !finishes || self.run(call, Kind::Recover)? {
            self.run(call, call.kind)?;
        }
        self.world(|world| {
            world.mend();
            world.pass(ms(100_000));
            world.mend();
        });
        self.nothing_is_forgotten()
    }

    /// One run. Whether the tool goes on after it, if it was the recovery before a restart.
    fn run(&mut self, call: &Call, kind: Kind) -> Result<bool, String> {
        let before = self.stands();
        if kind == Kind::Recover && before.journal.is_none() {
            return Ok(true);
        }
        self.runs += 1;
        self.scene.job = self.job_of(call, kind, before.journal.as_ref());
        let began = self.scene.handle.0.borrow().time();
        let run = self.scene.job.origin.run.clone();
        let named = self.named_services();
        self.world(|world| {
            (world.run, world.limit, world.named) = (run, call.limit, Some(named));
            world.unsafe_restarts = matches!(kind, Kind::Forced | Kind::WithoutPools);
            world.done.clear();
            world.pooling = kind == Kind::Pool;
        });
        let report = match kind {
            Kind::Safe(_) | Kind::WithoutPools => self.scene.run(sequence::safe_restart).report,
            Kind::Depool => self.scene.run(sequence::depool).report,
            Kind::Pool => self.scene.run(sequence::pool).report,
            Kind::Recover => self.scene.run(sequence::recover).report,
            Kind::Plan(purpose) => self.scene.run(|job, parts| sequence::plan(job, purpose, parts)).report,
            Kind::Forced => self.scene.run(sequence::forced_restart).report,
        };
        self.tell(kind, &before, &report);
        self.operator_has_spoken(kind, &report);
        let after = self.stands();
        let (dead, disturbed) = {
            let world = self.scene.handle.0.borrow();
            (world.is_frozen(), world.touched >= began || world.blind_at >= began)
        };
        if !dead {
            self.exit_code_is_true(kind, &before, &after, &report)?;
            // A recovery that was asked to end before it read the store says what the journal says.
            if !(disturbed || kind == Kind::Recover && report.signal.is_some()) {
                self.state_is_true(&before, &after, &report)?;
            }
        }
        let changes_nothing = matches!(kind, Kind::Plan(_) | Kind::WithoutPools | Kind::Forced);
        if changes_nothing && !disturbed && before != after {
            return Err(self.wrong("something was changed"));
        }
        self.nothing_is_forgotten()?;
        let newly_out = (0..2).any(|place| after.out[place] && !before.out[place]);
        let counted = call.limit.is_none_or(|limit| after.counted.iter().any(|counted| counted == limit));
        if matches!(kind, Kind::Safe(_)) && newly_out && !counted {
            return Err(self.wrong("it is out, and counts against no limit"));
        }
        let code = report.exit_code();
        Ok(!dead && report.signal.is_none() && matches!(code, ExitCode::Done | ExitCode::LeftDepooled))
    }

    /// The job as the tool makes it from its arguments and the journal.
    fn job_of(&self, call: &Call, kind: Kind, left: Option<&Record>) -> Job {
        let mut job = self.job.clone();
        job.origin.run = format!("run-{}", self.runs);
        call.config.clone_into(&mut job.origin.files.config);
        job.units = chosen(call.units, &["php", "zzz"]).map(|name| UnitName::new(*name).unwrap()).collect();
        let interrupted = left.is_some_and(|left| left.phase != Phase::Held);
        // A plan does not finish first what a dead run left.
        job.left = left.cloned().filter(|_| !(interrupted && kind == Kind::Plan(Purpose::Restart)));
        let there: Vec<_> =
            self.catalog.iter().filter(|pool| self.web_in_catalog || pool.name.as_str() != "web").cloned().collect();
        let mut named: BTreeSet<PoolName> = chosen(call.pools, &there).map(|pool| pool.name.clone()).collect();
        if named.is_empty() {
            named.insert(there[0].name.clone());
        }
        let of_left: BTreeSet<PoolName> =
            job.left.iter().flat_map(|left| &left.nodes).flat_map(|out| out.pools.iter().cloned()).collect();
        let limits: Vec<String> = call.limit.into_iter().map(str::to_owned).collect();
        let mut also = BTreeSet::new();
        match kind {
            Kind::Safe(_) | Kind::Plan(Purpose::Restart) => {
                also = of_left;
                job.limit = call.limit.map(|_| Share::Count(1));
                job.counts_against = limits;
            }
            Kind::Pool | Kind::Plan(Purpose::Pool) => job.counts_against = limits,
            Kind::Depool | Kind::Plan(Purpose::Depool) => {}
            Kind::Recover | Kind::Plan(Purpose::Recover) => {
                named = of_left;
                let left = left.unwrap();
                (job.units, job.origin.run, job.origin.files) =
                    (left.units.clone(), left.run.clone(), left.files.clone());
            }
            Kind::WithoutPools | Kind::Forced | Kind::Plan(Purpose::Force) => (job.place, job.left) = (None, None),
        }
        if let Kind::Safe(action) = kind {
            job.action = action;
        }
        if matches!(kind, Kind::Depool | Kind::Pool) {
            job.units.clear();
        }
        if let Some(place) = &mut job.place {
            place.unnamed = also.difference(&named).cloned().collect();
            place.pools = there;
            place.pools.retain(|pool| named.contains(&pool.name) || also.contains(&pool.name));
        }
        job
    }

    fn named_services(&self) -> Vec<String> {
        let places = self.scene.job.place.iter();
        let pools = places.flat_map(|place| place.pools.iter().filter(|pool| !place.unnamed.contains(&pool.name)));
        pools.map(|pool| pool.service.to_string()).collect()
    }

    /// After a `--depool` that succeeded it is an operator who wants the host out. After a `--pool` that did not, it is still to be
    /// put back as far as the journal says so.
    fn operator_has_spoken(&self, kind: Kind, report: &Report) {
        let after = self.stands();
        let named = self.named_services();
        self.world(|world| {
            let over = !world.is_frozen() || world.journal.is_none();
            // A signal that came too late, where there was nothing to write.
            let went = report.signal.is_none() || report.state.starts_with("depooled in") || world.journal.is_none();
            if kind == Kind::Depool && report.exit_code() == ExitCode::Done && over && went {
                world.ours.retain(|service| !named.contains(service));
            }
            if kind == Kind::Pool {
                for (place, service) in SERVICES.iter().enumerate() {
                    let mut nodes = after.journal.iter().flat_map(|record| &record.nodes);
                    let to_be_returned = nodes.any(|out| {
                        let id = &out.write.found.id;
                        id.path.service == tag(service) && !out.returned && out.revision == after.revisions[place]
                    });
                    if to_be_returned && world.object(service).starts_with("no") {
                        world.ours.insert((*service).to_owned());
                    }
                }
            }
        });
    }

    fn exit_code_is_true(&self, kind: Kind, before: &Stands, after: &Stands, report: &Report) -> Result<(), String> {
        let code = report.exit_code();
        let did = |what: &str| self.scene.handle.0.borrow().done.iter().any(|done| done.starts_with(what));
        let restarted = did("restart") || did("reload");
        let newly_out = (0..2).any(|place| after.out[place] && !before.out[place]);
        let unconfirmed = matches!(code, ExitCode::RepoolUnconfirmed | ExitCode::PutBackUnconfirmed);
        let may_be_out = match kind {
            Kind::Safe(_) => unconfirmed || code == ExitCode::LeftDepooled,
            // A `--depool` that cannot close its journal says that it will be undone.
            Kind::Depool => unconfirmed || report.state.starts_with("depooled in"),
            _ => true,
        };
        if newly_out && !may_be_out {
            return Err(self.wrong("the exit code does not say that the host is out"));
        }
        if let Kind::Safe(_) = kind {
            let says_no = !matches!(code, ExitCode::Done | ExitCode::LeftDepooled | ExitCode::RepoolUnconfirmed);
            let says_so = matches!(code, ExitCode::LeftDepooled | ExitCode::RepoolUnconfirmed)
                || (code == ExitCode::Done && report.signal.is_none());
            if (restarted && says_no) || (!restarted && says_so) {
                return Err(self.wrong("the exit code does not tell whether it was restarted"));
            }
        }
        // A disk that takes nothing does not keep an operator from putting the host back, and that is said.
        let said = kind == Kind::Pool && report.notes.iter().any(|note| note.contains("cannot keep the journal"));
        if unconfirmed && after.journal.is_none() && !said {
            return Err(self.wrong("not confirmed, and nobody will try again"));
        }
        Ok(())
    }

    /// Where nobody else wrote meanwhile, and the store always answered.
    fn state_is_true(&self, before: &Stands, after: &Stands, report: &Report) -> Result<(), String> {
        let state = &report.state;
        let object = |service: &str| &after.objects[usize::from(service == "web")];
        let out = ["left depooled in ", "held depooled in ", "still depooled in ", "NOT in service in "];
        for words in out.iter().filter(|words| !state.contains(&format!("perhaps {words}"))) {
            if named_after(state, words).into_iter().any(|service| object(service).starts_with("yes")) {
                return Err(self.wrong("the last line says that the host is out"));
            }
        }
        let again = named_after(state, "pooled again in ");
        if again.into_iter().any(|service| !object(service).starts_with("yes")) {
            return Err(self.wrong("the last line says that the host is back"));
        }
        let untouched = ["pools as found", "nothing was changed", "pools untouched"];
        if untouched.iter().any(|words| state.contains(words)) && before.objects != after.objects {
            return Err(self.wrong("the last line says that nothing was changed"));
        }
        Ok(())
    }

    fn nothing_is_forgotten(&self) -> Result<(), String> {
        let stands = self.stands();
        if !stands.forgotten().is_empty() {
            return Err(self.wrong(&format!("forgotten in {:?}", stands.forgotten())));
        }
        if stands.counts_for_ever() {
            return Err(self.wrong("it counts against a limit for ever"));
        }
        let overwritten = self.scene.handle.0.borrow().overwritten.clone();
        if overwritten.is_empty() { Ok(()) } else { Err(self.wrong(&format!("overwritten in {overwritten:?}"))) }
    }

    /// The world heals.
    fn end(&mut self) -> Result<(), String> {
        self.web_in_catalog = true;
        self.mend_units();
        self.world(|world| world.history_gone = false);
        let mut call = Call {
            kind: Kind::Recover,
            pools: 7,
            units: 3,
            fails: 0,
            limit: None,
            config: CONFIGS[0],
            events: Vec::new(),
        };
        // Once before the last lost write has arrived, and once after it.
        for _ in 0..2 {
            for _ in 0..4 {
                self.run(&call, Kind::Recover)?;
            }
            let stands = self.stands();
            if stands.journal.is_some() && !stands.held() {
                return Err(self.wrong("not finished"));
            }
            if stands.held() && stands.out == [false; 2] {
                return Err(self.wrong("held, and nothing is out because of us"));
            }
            self.world(|world| world.pass(ms(LATE)));
            self.nothing_is_forgotten()?;
        }
        if let Some(left) = self.stands().journal {
            call.config = CONFIGS.into_iter().find(|config| *config == left.files.config).unwrap();
            self.run(&call, Kind::Safe(Action::Restart))?;
            if self.stands().journal.is_some() {
                return Err(self.wrong("still held after a good run"));
            }
        }
        Ok(())
    }

    fn tell(&mut self, kind: Kind, before: &Stands, report: &Report) {
        let journal = |stands: &Stands| {
            stands.journal.as_ref().map(|record| {
                let nodes = record
                    .nodes
                    .iter()
                    .map(|out| (out.write.found.id.path.service.to_string(), out.revision, out.held, out.returned));
                (record.phase, nodes.collect::<Vec<_>>(), record.counts_against.clone(), record.files.config.clone())
            })
        };
        let after = self.stands();
        let world = self.scene.handle.0.borrow();
        let failures: Vec<_> = report.failures.iter().map(|failure| &failure.message).collect();
        self.story += &format!(
            "\n  {kind:?} at {:?}{} exits {} '{}', notes {:?}, failures {failures:?}, did {:?}\n    from {:?} {:?}\n    to   {:?} {:?} ours {:?} counted {:?}",
            world.time(),
            if world.is_frozen() { " dies," } else { "" },
            report.exit_code().number(),
            report.state,
            report.notes,
            world.done,
            before.objects,
            journal(before),
            after.objects,
            journal(&after),
            world.ours,
            world.counted,
        );
    }

    fn wrong(&self, what: &str) -> String {
        format!("{what}{}", self.story)
    }
}

/// Those of `all` whose bit is set.
fn chosen<T>(bits: u8, all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().enumerate().filter(move |(number, _)| bits >> number & 1 == 1).map(|(_, one)| one)
}

fn play(steps: Vec<Step>) -> Result<(), String> {
    let mut play = Play::new();
    for step in steps {
        play.step(step)?;
    }
    play.end()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None, max_shrink_iters: 4000,
        rng_seed: SEED,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_run_after_whatever_happened(steps in prop::collection::vec(step(), 1..9)) {
        if let Err(wrong) = play(steps) {
            prop_assert!(false, "{}", wrong);
        }
    }
}
