//! A world for the sequence to run in: a store, load balancers, units, a clock that only moves when somebody waits, and
//! hooks by which a test lets something happen at a chosen moment. The world itself holds the safety rule: a unit that is
//! restarted while a load balancer sends to this host fails the test, whatever else the test checks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use restart_core::{
    Action, ActiveState, Balancer, Cause, Clock, ExitCode, Fate, Files, Fqdn, InFlight, Job, Journal, JournalError,
    Listing, LoadBalancers, LoadState, NoCount, Node, NodeId, Origin, Parts, Place, Pool, PoolName, PoolPath,
    PoolStore, Pooled, Probe, Protocol, Question, Record, Report, ServiceError, ServiceManager, Share, Signal,
    SlotError, Slots, Stop, Stopped, StoreError, Tag, Ticket, UnitName, UnitStatus, Unreadable, Verb, Verdict, Write,
    WriteError, sequence,
};

pub const HOST: &str = "mw1.eqiad.test";

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How a load balancer of the world answers.
#[derive(Clone)]
pub enum Balance {
    /// As the store says, this long after the write.
    Follows(Duration),
    /// Always this.
    Says(Verdict),
    /// The first until the time, then as the store says at once.
    SaysUntil(Duration, Verdict),
    /// Nothing, until the caller's time-out of five seconds turns it into an unknown.
    Hangs,
}

/// How a unit answers to a restart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Good,
    /// It fails to start.
    Fails,
    /// systemd does not tell how it stands for so long after its restart.
    UntoldFor(Duration),
    /// systemd does not tell how it stands.
    Untold,
    /// It is up, and fails this long afterwards.
    DiesAfter(Duration),
    /// It is up, ends this long afterwards, and systemd starts it again.
    ComesBackAfter(Duration),
    /// systemd stops it and refuses to start it; after reset-failed it starts.
    StartLimit,
    /// Stopped by the start limit, and does not start any more.
    StartLimitForGood,
    /// It never leaves `activating`.
    Hangs,
    /// systemctl reports success, and nothing happened.
    Ignored,
    /// While it settles, somebody else restarts it.
    RestartedByOthers,
    /// Its main process is another one after a reload.
    NewProcessOnReload,
    /// systemctl is refused, and nothing happens.
    Refused,
    /// The same, once: systemd executes itself anew.
    RefusedOnce,
    /// systemctl loses systemd while it waits for the job, which goes on.
    Unawaited,
    /// Started again by systemd each time this is over, of which it is up for the first half.
    CrashLoops(Duration),
    /// Nobody knows it.
    Missing,
    Masked,
    NoReload,
}

struct Object {
    pooled: Pooled,
    rest: String,
    revision: u64,
    /// When `pooled` last changed, and what it was before.
    changed: (Duration, Option<Pooled>),
}

impl Object {
    fn value(&self) -> String {
        format!("{} {}", self.pooled, self.rest)
    }
}

type Hook = Box<dyn FnOnce(&mut World)>;

pub struct World {
    now: Duration,
    objects: BTreeMap<NodeId, Object>,
    revision: u64,
    /// Every write, in order.
    history: Vec<Node>,
    /// etcd's history was compacted away.
    pub history_gone: bool,
    pub damaged: Vec<Unreadable>,
    pub balancers: BTreeMap<String, Balance>,
    /// The place of a load balancer's own, where it keeps the pool for itself.
    parts: BTreeMap<String, String>,
    /// Places that do not answer.
    pub away: BTreeSet<String>,
    /// Which load balancer sends in which pool.
    pairs: Vec<(String, String)>,
    pending: Vec<(Duration, Ticket, Verdict)>,
    pub units: BTreeMap<String, (Unit, UnitStatus, Duration)>,
    /// What was done, in order.
    pub done: Vec<String>,
    hooks: Vec<(String, Hook)>,
    timed: Vec<(Duration, Hook)>,
    signals: Vec<Signal>,
    /// While it is set, the store does not answer.
    pub store_error: Option<StoreError>,
    /// The next write ends in `Unknown`; `true`: it was made all the same.
    pub lose_next_write: Option<bool>,
    pub refuse_writes: Option<StoreError>,
    /// What an operator left when he took the host away, if one did.
    pub taken: Option<String>,
    /// An operator pooled the host.
    pub pooled_by_operator: bool,
    /// Also a forced restart: the safety rule is off.
    pub unsafe_restarts: bool,
    /// Off where load balancers change at random, also in the instant between their last word and the restart.
    pub balancers_must_be_out: bool,
    /// Our process is dead: nothing that it does has an effect any more.
    frozen: bool,
    /// The host is on its way down.
    pub going_down: bool,
    /// Something a test looked at on the way.
    pub seen: Option<Record>,
    /// The journal on disk.
    pub journal: Option<Record>,
    /// While it is set, the disk takes nothing.
    pub disk_full: bool,
    /// Whether slots are taken, free, or cannot be asked for.
    pub slots: Slot,
    /// Somebody removed the lock of this host.
    pub lock_lost: bool,
    /// Which store this is.
    pub store_kind: &'static str,
    /// The limits that this host counts against, as the store remembers it.
    pub counted: Vec<String>,
    /// The limit that a run with a slot counts against from before its first write.
    pub limit: Option<&'static str>,
    /// A journal cannot be removed.
    pub clear_fails: bool,
    /// A write whose answer was lost, and that was not made yet.
    late: Option<Write>,
    /// How long after it was lost such a write arrives by itself; `None`: when a test says so.
    pub late_after: Option<Duration>,
    /// Who the next write is by.
    pub run: String,
    /// Each of our writes by its revision, where writes leave a mark; without, only their bytes tell them from another's.
    pub marks: Option<BTreeMap<u64, String>>,
    /// Whether the store has revisions. One that has none, as HAProxy, keeps for each node what `pooled` is and nothing else.
    pub has_revisions: bool,
    /// What is out because of us.
    pub ours: BTreeSet<String>,
    /// An operator's `--pool`, which may put back what was his.
    pub pooling: bool,
    /// Where a `no` that was not ours was overwritten.
    pub overwritten: Vec<String>,
    /// The services of the pools named, where a restart has to care for these alone.
    pub named: Option<Vec<String>>,
    /// When another hand wrote to the store last, or a lost write arrived.
    pub touched: Duration,
    /// The last look at the store did not get an answer.
    blind: bool,
    /// When that was last so.
    pub blind_at: Duration,
    /// What is in flight.
    pub requests: Requests,
    /// How long a look at that takes.
    pub look_takes: Duration,
    /// How long after its start a unit serves; `None`: never.
    pub serves_after: Option<Duration>,
    /// When the address of `ready_url` answers; `None`: never.
    pub answers_from: Option<Duration>,
}

/// What the services say is in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requests {
    /// Nobody counts.
    Uncounted,
    /// Each ends at this time.
    EndAt(Vec<Duration>),
    /// Not to be asked by this user.
    Forbidden,
    /// Too busy to answer.
    Silent,
    /// Something answers that is no count.
    Broken,
}

/// What the lock service says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Free,
    /// After this time.
    FreeAfter(Duration),
    Away,
    /// Granted, and lost before the restart.
    Lost,
}

impl World {
    fn tick(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.timed.sort_by_key(|(at, _)| *at);
            match self.timed.first() {
                Some((at, _)) if *at <= until => {
                    let (at, hook) = self.timed.remove(0);
                    self.now = self.now.max(at);
                    hook(self);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    /// Notes an effect and lets happen what was to happen with it.
    fn effect(&mut self, what: &str) {
        self.done.push(what.to_owned());
        self.event(what);
    }

    fn event(&mut self, what: &str) {
        let (now, later) = std::mem::take(&mut self.hooks).into_iter().partition(|(at, _)| at == what);
        self.hooks = later;
        let now: Vec<(String, Hook)> = now;
        for (_, hook) in now {
            hook(self);
        }
    }

    /// Lets something happen at the next event of this name.
    pub fn hook(&mut self, event: &str, hook: impl FnOnce(&mut Self) + 'static) {
        self.hooks.push((event.to_owned(), Box::new(hook)));
    }

    pub fn time(&self) -> Duration {
        self.now
    }

    pub fn signal(&mut self, signal: Signal) {
        self.signals.push(signal);
    }

    /// The next process was sent none.
    pub fn forget_signals(&mut self) {
        self.signals.clear();
    }

    /// Time passes between two runs.
    pub fn pass(&mut self, time: Duration) {
        self.tick(time);
    }

    /// The process is killed at this instant: it goes on in vain.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.hooks.clear();
    }

    /// The world after its death, ready for the next process.
    pub fn thaw(&mut self) {
        self.frozen = false;
        self.pending.clear();
    }

    /// Everything that was broken is mended, but for what a unit is like.
    pub fn heal(&mut self) {
        self.timed.clear();
        self.mend();
    }

    /// The same, but for what is still to come.
    pub fn mend(&mut self) {
        self.thaw();
        self.signals.clear();
        self.hooks.clear();
        (self.store_error, self.refuse_writes, self.lose_next_write, self.disk_full) = (None, None, None, false);
        (self.clear_fails, self.going_down) = (false, false);
        self.balancers.values_mut().for_each(|balancer| *balancer = Balance::Follows(ms(20)));
    }

    /// systemd starts a unit anew by itself.
    pub fn start_anew(&mut self, unit: &str) {
        if let Some((_, status, _)) = self.units.get_mut(unit) {
            status.invocation = Some("by systemd".to_owned());
            status.restarts += 1;
        }
    }

    /// A unit stops by itself.
    pub fn stop(&mut self, unit: &str) {
        if let Some((_, status, _)) = self.units.get_mut(unit) {
            *status = down(status, "success");
        }
    }

    /// Another host of the pool changes.
    pub fn set_neighbour(&mut self, service: &str, number: usize, pooled: Pooled) {
        let id = neighbour(service, number);
        let before = self.objects.get(&id).map(|object| object.pooled);
        self.put(&id, pooled, "w10".to_owned(), before);
    }

    /// Another hand writes to the store.
    pub fn set(&mut self, service: &str, pooled: Pooled, rest: &str) {
        let id = node(service);
        let before = self.objects.get(&id).map(|object| object.pooled);
        self.touch(service);
        self.put(&id, pooled, rest.to_owned(), before);
    }

    /// Another hand changes the weight to one that it never was, and leaves `pooled` as it is.
    pub fn weigh(&mut self, service: &str) {
        let pooled = self.objects.get(&node(service)).map(|object| object.pooled);
        if let Some(pooled) = pooled {
            let weight = format!("w{}", 100 + self.revision);
            self.set(service, pooled, &weight);
        }
    }

    fn touch(&mut self, service: &str) {
        self.touched = self.now;
        self.ours.remove(service);
    }

    /// Our process is dead.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// What stands beside `pooled` in an object, or stood there until it was deleted.
    pub fn last_fields(&self, service: &str) -> String {
        let id = node(service);
        let last = self.history.iter().rev().find(|node| node.id == id);
        last.and_then(|node| node.value.split_once(' ')).map_or("w10", |(_, rest)| rest).to_owned()
    }

    /// The revision of an object, if there is one.
    pub fn revision(&self, service: &str) -> Option<u64> {
        self.objects.get(&node(service)).map(|object| object.revision)
    }

    /// Lets something happen after this time.
    pub fn later(&mut self, time: Duration, hook: impl FnOnce(&mut Self) + 'static) {
        self.timed.push((self.now + time, Box::new(hook)));
    }

    /// The write that was lost on the way arrives.
    pub fn land(&mut self) {
        let Some(write) = self.late.take() else { return };
        if self.get(&write.found.id).as_ref() == Some(&write.found) {
            self.touched = self.now;
            let pooling = std::mem::replace(&mut self.pooling, true);
            self.make(&write);
            self.pooling = pooling;
        }
    }

    /// One of our writes is made.
    fn make(&mut self, write: &Write) -> Node {
        let rest = match self.objects.get(&write.found.id) {
            Some(object) if !self.has_revisions => object.rest.clone(),
            _ => write.value.split_once(' ').unwrap().1.to_owned(),
        };
        let node = self.put(&write.found.id, write.pooled, rest, Some(write.found.pooled));
        if let Some(marks) = &mut self.marks {
            marks.insert(node.revision, write.run.clone());
        }
        let service = write.found.id.path.service.to_string();
        if write.pooled == Pooled::No {
            self.ours.insert(service);
        } else if !self.ours.remove(&service) && write.found.pooled == Pooled::No && !self.pooling {
            self.overwritten.push(service);
        }
        node
    }

    pub fn delete(&mut self, service: &str) {
        self.touch(service);
        self.objects.remove(&node(service));
    }

    /// An object as `pooled rest`; empty if there is none.
    pub fn object(&self, service: &str) -> String {
        self.objects.get(&node(service)).map(Object::value).unwrap_or_default()
    }

    fn put(&mut self, id: &NodeId, pooled: Pooled, rest: String, before: Option<Pooled>) -> Node {
        self.revision += 1;
        let object = Object { pooled, rest, revision: self.revision, changed: (self.now, before) };
        let node = Node { id: id.clone(), pooled, value: object.value(), revision: self.revision };
        self.objects.insert(id.clone(), object);
        self.history.push(node);
        self.get(id).unwrap()
    }

    fn get(&self, id: &NodeId) -> Option<Node> {
        let object = self.objects.get(id)?;
        let (value, revision) = match self.has_revisions {
            true => (object.value(), object.revision),
            false => (format!("{} -", object.pooled), 0),
        };
        Some(Node { id: id.clone(), pooled: object.pooled, value, revision })
    }

    /// What a load balancer that follows the store with `delay` says now.
    fn follow(&self, service: &str, delay: Duration) -> Verdict {
        let Some(object) = self.objects.get(&node(service)) else { return Verdict::Absent };
        let (at, before) = object.changed;
        let seen = if self.now >= at + delay { Some(object.pooled) } else { before };
        match seen {
            Some(Pooled::Yes) => Verdict::Pooled,
            Some(Pooled::No) => Verdict::NotPooled,
            Some(Pooled::Inactive) | None => Verdict::Absent,
        }
    }

    /// The store answers.
    fn look(&mut self) -> Result<(), StoreError> {
        self.blind = self.store_error.is_some();
        if self.blind {
            self.blind_at = self.now;
        }
        self.store_error.clone().map_or(Ok(()), Err)
    }

    /// So does the part of it where this is kept.
    fn look_at(&mut self, path: &PoolPath) -> Result<(), StoreError> {
        self.look()?;
        match self.away.contains(path.service.as_str()) {
            true => Err(StoreError::Unreachable(format!("'{path}' does not answer"))),
            false => Ok(()),
        }
    }

    fn says(&self, question: &Question) -> (Duration, Verdict) {
        let kept_there = self.parts.get(&question.balancer.host).map(String::as_str);
        let service = kept_there.unwrap_or(question.pool.as_str()).trim_end_matches("-https");
        let quick = self.now + ms(2);
        match &self.balancers[&question.balancer.host] {
            Balance::Follows(delay) => (quick, self.follow(service, *delay)),
            Balance::Says(verdict) => (quick, verdict.clone()),
            Balance::SaysUntil(until, verdict) if self.now < *until => (quick, verdict.clone()),
            Balance::SaysUntil(..) => (quick, self.follow(service, ms(0))),
            Balance::Hangs => (self.now + ms(5000), Verdict::Unknown("timed out after 5s".to_owned())),
        }
    }

    /// The rule of the whole project.
    fn must_be_out(&self) {
        if self.unsafe_restarts {
            return;
        }
        for (balancer, pool) in self.pairs.iter().filter(|_| self.balancers_must_be_out) {
            let verdict = match &self.balancers[balancer] {
                Balance::Follows(delay) => self.follow(pool, *delay),
                Balance::Says(verdict) => verdict.clone(),
                Balance::SaysUntil(until, verdict) if self.now < *until => verdict.clone(),
                Balance::SaysUntil(..) => self.follow(pool, ms(0)),
                Balance::Hangs => continue,
            };
            let sends = matches!(verdict, Verdict::Pooled | Verdict::Held);
            assert!(!sends, "restarted while '{balancer}' sends in '{pool}': done {:?}", self.done);
        }
        // Nobody can see what changes in this very instant, or asks a store again that does not answer.
        let settled = |object: &&Object| self.named.is_none() || !(self.blind || self.now - object.changed.0 <= ms(10));
        let named = |id: &NodeId| self.named.as_ref().is_none_or(|all| all.contains(&id.path.service.to_string()));
        for (id, object) in self.objects.iter().filter(|(id, object)| named(id) && settled(object)) {
            if id.host.as_str() == HOST {
                assert_ne!(
                    object.pooled,
                    Pooled::Yes,
                    "restarted while pooled in the store: {id}, done {:?}",
                    self.done
                );
            }
        }
    }
}

pub fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

/// In this world a pool, its service and its node share a name, but for `-https`, which is the same service once more.
pub fn node(service: &str) -> NodeId {
    PoolPath { data_centre: tag("eqiad"), cluster: tag("web"), service: tag(service) }.node(&Fqdn::new(HOST).unwrap())
}

/// Another host in the same pool.
fn neighbour(service: &str, number: usize) -> NodeId {
    let mut id = node(service);
    id.host = Fqdn::new(format!("mw{}.eqiad.test", number + 2)).unwrap();
    id
}

#[derive(Clone)]
pub struct Handle(pub Rc<RefCell<World>>);

impl PoolStore for Handle {
    fn list(&mut self, path: &PoolPath) -> Result<Listing, StoreError> {
        let mut world = self.0.borrow_mut();
        world.event("list");
        world.look_at(path)?;
        let here = world.objects.keys().filter(|id| id.path == *path);
        Ok(Listing { nodes: here.filter_map(|id| world.get(id)).collect(), unreadable: world.damaged.clone() })
    }

    fn read(&mut self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let mut world = self.0.borrow_mut();
        world.event("read");
        world.look_at(&id.path)?;
        Ok(world.get(id))
    }

    fn kind(&self) -> &str {
        self.0.borrow().store_kind
    }

    fn has_revisions(&self) -> bool {
        self.0.borrow().has_revisions
    }

    fn no_longer_counts(&mut self, limit: &str, _: &Fqdn) -> Result<(), StoreError> {
        let mut world = self.0.borrow_mut();
        world.event("no longer counts");
        world.look()?;
        if world.frozen {
            return Err(StoreError::Malformed("we are dead".to_owned()));
        }
        world.counted.retain(|counted| counted != limit);
        Ok(())
    }

    fn prepare(&self, found: &Node, pooled: Pooled) -> Result<Write, StoreError> {
        let rest = found.value.split_once(' ').unwrap().1;
        Ok(Write {
            run: self.0.borrow().run.clone(),
            found: found.clone(),
            pooled,
            key: format!("/{}", found.id),
            value: format!("{pooled} {rest}"),
        })
    }

    fn write(&mut self, write: &Write) -> Result<Node, WriteError> {
        let mut world = self.0.borrow_mut();
        let service = write.found.id.path.service.to_string();
        world.event(&format!("before write {} {service}", write.pooled));
        if world.away.contains(&service) {
            return Err(WriteError::NotMade(StoreError::Unreachable(format!("'{service}' does not answer"))));
        }
        if let Some(error) = world.store_error.as_ref().or(world.refuse_writes.as_ref()) {
            return Err(WriteError::NotMade(error.clone()));
        }
        if world.frozen {
            return Err(WriteError::NotMade(StoreError::Malformed("we are dead".to_owned())));
        }
        let lost = world.lose_next_write.take();
        if lost == Some(false) {
            world.late = Some(write.clone());
            if let Some(time) = world.late_after {
                world.later(time, World::land);
            }
            world.event("lost");
            return Err(WriteError::Unknown(StoreError::Unreachable("timed out".to_owned())));
        }
        if world.get(&write.found.id).as_ref() != Some(&write.found) {
            return Err(WriteError::Conflict);
        }
        let written = world.make(write);
        world.effect(&format!("{} {service}", write.pooled));
        if lost.is_some() {
            world.event("lost");
            return Err(WriteError::Unknown(StoreError::Unreachable("timed out".to_owned())));
        }
        Ok(written)
    }

    /// As etcd's history tells it: the first event after the revision found is the write, or somebody else's.
    fn fate(&mut self, write: &Write) -> Result<Fate, StoreError> {
        let mut world = self.0.borrow_mut();
        world.look_at(&write.found.id.path)?;
        // What has not changed since needs no history.
        let now = world.get(&write.found.id);
        if now.as_ref() == Some(&write.found) {
            return Ok(Fate::NotMade);
        }
        if !world.has_revisions {
            // All that it can tell is what stands there.
            return Ok(now.filter(|now| now.value == write.value).map_or(Fate::NotMade, Fate::Made));
        }
        if world.history_gone {
            return Ok(Fate::Unclear("etcd no longer has the history".to_owned()));
        }
        let id = &write.found.id;
        let first = world.history.iter().find(|node| node.id == *id && node.revision > write.found.revision);
        let by_us = |node: &Node| world.marks.as_ref().is_none_or(|all| all.get(&node.revision) == Some(&write.run));
        Ok(match (first, world.get(id)) {
            (Some(first), now) if first.value == write.value && first.pooled == write.pooled && by_us(first) => {
                if now.as_ref() == Some(first) {
                    Fate::Made(first.clone())
                } else {
                    Fate::MadeThenChanged(first.clone())
                }
            }
            _ => Fate::NotMade,
        })
    }
}

impl LoadBalancers for Handle {
    fn ask(&mut self, ticket: Ticket, question: &Question) {
        let mut world = self.0.borrow_mut();
        let (at, verdict) = world.says(question);
        world.pending.push((at, ticket, verdict));
    }

    fn answers(&mut self, at_most: Duration) -> Vec<(Ticket, Verdict)> {
        let mut world = self.0.borrow_mut();
        let latest = world.now + at_most;
        let first = world.pending.iter().map(|(at, ..)| *at).min().unwrap_or(latest).min(latest);
        let wait = first.saturating_sub(world.now);
        world.tick(wait);
        let now = world.now;
        let (due, rest) = std::mem::take(&mut world.pending).into_iter().partition(|(at, ..)| *at <= now);
        world.pending = rest;
        let due: Vec<(Duration, Ticket, Verdict)> = due;
        world.event("answers");
        due.into_iter().map(|(_, ticket, verdict)| (ticket, verdict)).collect()
    }
}

impl ServiceManager for Handle {
    fn status(&mut self, unit: &UnitName) -> Result<UnitStatus, ServiceError> {
        let mut world = self.0.borrow_mut();
        world.tick(ms(5));
        let now = world.now;
        let Some((kind, status, started)) = world.units.get_mut(unit.as_str()) else { panic!("no unit {unit}") };
        let since = now.saturating_sub(*started);
        let status = match *kind {
            Unit::Untold => return Err(ServiceError("the bus is away".to_owned())),
            Unit::UntoldFor(time) if status.restarted() && since < time => {
                return Err(ServiceError("the bus is away".to_owned()));
            }
            Unit::DiesAfter(time) if status.restarted() && since >= time => down(status, "exit-code"),
            Unit::ComesBackAfter(time) if status.restarted() && since >= time => UnitStatus {
                invocation: Some("by systemd".to_owned()),
                restarts: 1,
                main_pid: Some(999),
                ..status.clone()
            },
            Unit::CrashLoops(period) => {
                let count = u32::try_from(now.as_millis() / period.as_millis()).unwrap();
                let up = now.as_millis() % period.as_millis() < period.as_millis() / 2;
                UnitStatus {
                    invocation: Some(format!("start {count}")),
                    restarts: count,
                    active: if up { ActiveState::Active } else { ActiveState::Activating },
                    sub: if up { "running" } else { "auto-restart" }.to_owned(),
                    ..status.clone()
                }
            }
            Unit::Unawaited if since >= ms(100) => UnitStatus { job: false, ..status.clone() },
            Unit::RestartedByOthers if status.restarted() && since >= ms(100) => {
                UnitStatus { invocation: Some("by others".to_owned()), main_pid: Some(888), ..status.clone() }
            }
            _ => status.clone(),
        };
        Ok(status)
    }

    fn run(&mut self, verb: Verb, unit: &UnitName, at_most: Duration) -> Result<(), ServiceError> {
        let mut world = self.0.borrow_mut();
        let what = format!("{} {unit}", verb.as_str());
        world.event(&format!("before {what}"));
        if world.frozen {
            return Err(ServiceError("we are dead".to_owned()));
        }
        if matches!(verb, Verb::Restart | Verb::Reload) {
            world.must_be_out();
        }
        world.effect(&what);
        world.tick(ms(100));
        let now = world.now;
        let (kind, status, started) = world.units.get_mut(unit.as_str()).unwrap();
        let up = UnitStatus { invocation: Some("ours".to_owned()), main_pid: Some(200), ..running() };
        let (next, result) = match (verb, *kind) {
            (Verb::ResetFailed, _) => (status.clone(), Ok(())),
            (Verb::Start, Unit::StartLimitForGood) => (down(status, "exit-code"), Err("it failed")),
            (Verb::Start, _) => (up, Ok(())),
            (Verb::Reload, Unit::NewProcessOnReload) => (UnitStatus { main_pid: Some(300), ..status.clone() }, Ok(())),
            (_, Unit::RefusedOnce) => {
                *kind = Unit::Good;
                (status.clone(), Err("connection reset by systemd"))
            }
            (Verb::Restart, Unit::Unawaited) => (UnitStatus { job: true, ..up }, Err("connection terminated")),
            (_, Unit::Refused) => (status.clone(), Err("connection reset by systemd")),
            (_, Unit::Fails) => (down(status, "exit-code"), Err("job failed")),
            (_, Unit::StartLimit | Unit::StartLimitForGood) => (down(status, "start-limit-hit"), Err("start limit")),
            (_, Unit::Hangs) => (UnitStatus { active: ActiveState::Activating, ..up }, Err("no answer")),
            (_, Unit::Missing) => (UnitStatus { load: LoadState::NotFound, ..status.clone() }, Err("not found")),
            (_, Unit::Ignored) | (Verb::Reload, _) => (status.clone(), Ok(())),
            (Verb::Restart, _) => (up, Ok(())),
        };
        assert!(at_most > ms(0));
        *status = next;
        *started = now;
        result.map_err(|error| ServiceError(error.to_owned()))
    }

    fn going_down(&mut self) -> bool {
        self.0.borrow().going_down
    }
}

trait Restarted {
    fn restarted(&self) -> bool;
}

impl Restarted for UnitStatus {
    fn restarted(&self) -> bool {
        self.invocation.as_deref() == Some("ours")
    }
}

pub fn running() -> UnitStatus {
    UnitStatus {
        load: LoadState::Loaded,
        active: ActiveState::Active,
        sub: "running".to_owned(),
        main_pid: Some(100),
        invocation: Some("before".to_owned()),
        restarts: 0,
        result: "success".to_owned(),
        job: false,
        can_reload: true,
        limit: Some(ms(180_000)),
        command: None,
    }
}

fn down(status: &UnitStatus, result: &str) -> UnitStatus {
    UnitStatus {
        active: ActiveState::Failed,
        sub: "failed".to_owned(),
        main_pid: None,
        invocation: Some("ours".to_owned()),
        result: result.to_owned(),
        ..status.clone()
    }
}

impl Probe for Handle {
    fn learn(&mut self, _: &UnitName, _: &UnitStatus) -> Result<(), String> {
        match self.0.borrow().requests {
            Requests::Uncounted => Err("pool 'www' has no status page: add 'pm.status_path'".to_owned()),
            _ => Ok(()),
        }
    }

    fn in_flight(&mut self, _: &[u16], at_most: Duration) -> Result<InFlight, NoCount> {
        let mut world = self.0.borrow_mut();
        world.event("in flight");
        let silent = matches!(world.requests, Requests::Silent);
        let takes = if silent { at_most } else { world.look_takes.min(at_most) };
        world.tick(takes);
        match &world.requests {
            Requests::EndAt(ends) => {
                let count = ends.iter().filter(|end| **end > world.now).count() as u64;
                Ok(InFlight { count, of: "requests" })
            }
            Requests::Broken => Err(NoCount { why: "it answers 404".to_owned(), cause: Cause::NoAnswer }),
            Requests::Forbidden => {
                Err(NoCount { why: "cannot connect: permission denied".to_owned(), cause: Cause::NotPermitted })
            }
            Requests::Uncounted | Requests::Silent => {
                Err(NoCount { why: "the status page timed out".to_owned(), cause: Cause::Busy })
            }
        }
    }

    fn ready(&mut self, unit: &UnitName) -> Result<(), String> {
        let mut world = self.0.borrow_mut();
        world.event("ready");
        let started = world.units[unit.as_str()].2;
        match world.serves_after {
            Some(time) if world.now >= started + time => Ok(()),
            _ => Err("no answer to ping".to_owned()),
        }
    }

    fn answers(&mut self, _: &str) -> Result<(), String> {
        let world = self.0.borrow();
        match world.answers_from {
            Some(time) if world.now >= time => Ok(()),
            _ => Err("status 503".to_owned()),
        }
    }
}

impl Journal for Handle {
    fn keep(&mut self, record: &Record) -> Result<(), JournalError> {
        let mut world = self.0.borrow_mut();
        world.event("keep");
        if world.frozen {
            return Err(JournalError("we are dead".to_owned()));
        }
        if world.disk_full {
            return Err(JournalError("no space left on device".to_owned()));
        }
        world.journal = Some(record.clone());
        Ok(())
    }

    fn clear(&mut self) -> Result<(), JournalError> {
        let mut world = self.0.borrow_mut();
        world.event("clear");
        if world.clear_fails {
            return Err(JournalError("read-only file system".to_owned()));
        }
        if !world.frozen {
            world.journal = None;
        }
        Ok(())
    }

    fn is_ours(&mut self) -> Result<(), JournalError> {
        match self.0.borrow().lock_lost {
            true => Err(JournalError("the lock of this host is gone".to_owned())),
            false => Ok(()),
        }
    }
}

impl Slots for Handle {
    fn ask(&mut self, limit: u32, _: Duration) -> Result<(), SlotError> {
        let mut world = self.0.borrow_mut();
        world.effect(&format!("ask for one of {limit}"));
        match world.slots {
            Slot::Away => Err(SlotError::Unreachable("poolcounter: connection refused".to_owned())),
            Slot::FreeAfter(time) => {
                let at = world.now + time;
                world.slots = Slot::FreeAfter(at);
                Ok(())
            }
            Slot::Free | Slot::Lost => Ok(()),
        }
    }

    fn granted(&mut self, slice: Duration) -> Result<bool, SlotError> {
        let mut world = self.0.borrow_mut();
        match world.slots {
            Slot::FreeAfter(at) if world.now < at => {
                world.tick(slice.max(ms(1)));
                world.event("queue");
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn look(&mut self) -> Result<(), SlotError> {
        match self.0.borrow().slots {
            Slot::Lost => Err(SlotError::Lost("poolcounter: the connection is gone".to_owned())),
            _ => Ok(()),
        }
    }

    fn taking_out(&mut self) -> Result<(), SlotError> {
        let mut world = self.0.borrow_mut();
        world.event("taking out");
        if world.frozen {
            return Err(SlotError::Lost("we are dead".to_owned()));
        }
        if let Some(limit) = world.limit.filter(|limit| !world.counted.iter().any(|counted| counted == limit)) {
            world.counted.push(limit.to_owned());
        }
        Ok(())
    }

    fn holders(&mut self) -> Vec<String> {
        vec!["mw7.eqiad.test".to_owned()]
    }

    fn release(&mut self) {
        self.0.borrow_mut().effect("release");
    }
}

impl Clock for Handle {
    fn now(&self) -> Duration {
        self.0.borrow().now
    }

    fn sleep(&self, time: Duration) {
        let mut world = self.0.borrow_mut();
        world.event("sleep");
        world.tick(time);
    }

    fn jitter(&self) -> f64 {
        0.5
    }
}

impl Stop for Handle {
    fn requested(&self) -> Option<Stopped> {
        let world = self.0.borrow();
        world.signals.first().map(|signal| Stopped { signal: *signal, at_once: world.signals.len() > 1 })
    }
}

/// A test in the making: a job and its world.
pub struct Scene {
    pub job: Job,
    pub handle: Handle,
}

impl Scene {
    /// This host in one pool `api` with two load balancers, `yes`, and one good unit.
    pub fn new() -> Self {
        let world = World {
            now: ms(1_000_000),
            objects: BTreeMap::new(),
            revision: 10,
            has_revisions: true,
            history: Vec::new(),
            history_gone: false,
            damaged: Vec::new(),
            balancers: BTreeMap::new(),
            parts: BTreeMap::new(),
            away: BTreeSet::new(),
            pairs: Vec::new(),
            pending: Vec::new(),
            units: BTreeMap::new(),
            done: Vec::new(),
            hooks: Vec::new(),
            timed: Vec::new(),
            signals: Vec::new(),
            store_error: None,
            lose_next_write: None,
            refuse_writes: None,
            taken: None,
            pooled_by_operator: false,
            unsafe_restarts: false,
            balancers_must_be_out: true,
            frozen: false,
            going_down: false,
            seen: None,
            journal: None,
            disk_full: false,
            slots: Slot::Free,
            lock_lost: false,
            store_kind: "etcd",
            counted: Vec::new(),
            limit: None,
            clear_fails: false,
            late: None,
            late_after: None,
            run: "run-1".to_owned(),
            marks: None,
            ours: BTreeSet::new(),
            pooling: false,
            overwritten: Vec::new(),
            named: None,
            touched: ms(0),
            blind: false,
            blind_at: ms(0),
            requests: Requests::Uncounted,
            look_takes: ms(1),
            serves_after: Some(ms(0)),
            answers_from: Some(ms(0)),
        };
        let job = Job {
            place: Some(Place {
                host: Fqdn::new(HOST).unwrap(),
                data_centre: tag("eqiad"),
                pools: Vec::new(),
                unnamed: BTreeSet::new(),
            }),
            units: Vec::new(),
            action: Action::Restart,
            grace: ms(3000),
            drain_timeout: ms(0),
            require_drained: false,
            settle: ms(500),
            ready: ms(5000),
            allowed: ms(15_000),
            longest_pause: ms(3000),
            quorum: None,
            // Most tests are about one host, alone in its pools.
            min_pooled: Share::Count(0),
            limit: None,
            slot_timeout: ms(60_000),
            counts_against: Vec::new(),
            origin: Origin {
                run: "4f2a".to_owned(),
                fleet_run: None,
                boot: "boot".to_owned(),
                pid: 7,
                since: "2026-11-23T10:00:00Z".to_owned(),
                user: Some("alice".to_owned()),
                reason: None,
                files: Files::default(),
            },
            way_back: "safe-service-restart --pool --pools api".to_owned(),
            way_out: "safe-service-restart --depool --pools api".to_owned(),
            left: None,
        };
        let scene = Self { job, handle: Handle(Rc::new(RefCell::new(world))) };
        scene.pool("api", &["lb1", "lb2"], Pooled::Yes).unit("php", Unit::Good)
    }

    /// One more pool; the load balancers follow the store within 20 ms unless told otherwise.
    pub fn pool(mut self, name: &str, balancers: &[&str], pooled: Pooled) -> Self {
        let balancer = |host: &&str| Balancer { host: (*host).to_owned(), port: None };
        let pools = &mut self.job.place.as_mut().unwrap().pools;
        pools.push(Pool {
            name: PoolName::new(name).unwrap(),
            cluster: tag("web"),
            service: tag(name),
            port: 80,
            balancers: balancers.iter().map(balancer).collect(),
            protocol: Protocol::PyBal,
            min_pooled: None,
            ready_url: None,
            part: None,
        });
        pools.sort_by(|one, other| one.name.cmp(&other.name));
        let mut world = self.handle.0.borrow_mut();
        world.put(&node(name), pooled, "w10".to_owned(), Some(pooled));
        for balancer in balancers {
            world.pairs.push(((*balancer).to_owned(), name.trim_end_matches("-https").to_owned()));
            world.balancers.entry((*balancer).to_owned()).or_insert(Balance::Follows(ms(20)));
        }
        drop(world);
        self
    }

    /// The pool `api` is kept by each of its load balancers for itself, without revisions: by lb1 in the place `one`, by lb2 in `two`.
    pub fn in_parts(self) -> Self {
        let scene = self.pools(Vec::clear).with(|world| {
            world.objects.clear();
            world.pairs.clear();
            world.has_revisions = false;
            world.parts = [("lb1", "one"), ("lb2", "two")].map(|(lb, place)| (lb.to_owned(), place.to_owned())).into();
        });
        scene.pool("one", &["lb1"], Pooled::Yes).pool("two", &["lb2"], Pooled::Yes).pools(|pools| {
            for pool in pools {
                (pool.part, pool.name) = (pool.balancers.first().cloned(), PoolName::new("api").unwrap());
            }
        })
    }

    /// Other hosts in a pool.
    pub fn neighbours(self, service: &str, all: &[Pooled]) -> Self {
        for (number, pooled) in all.iter().enumerate() {
            self.handle.0.borrow_mut().set_neighbour(service, number, *pooled);
        }
        self
    }

    /// One more unit, or another behaviour of one.
    pub fn unit(mut self, name: &str, kind: Unit) -> Self {
        let unit = UnitName::new(name).unwrap();
        if !self.job.units.contains(&unit) {
            self.job.units.push(unit.clone());
        }
        let mut status = running();
        match kind {
            Unit::Missing => status.load = LoadState::NotFound,
            Unit::Masked => status.load = LoadState::Masked,
            Unit::NoReload => status.can_reload = false,
            _ => {}
        }
        self.handle.0.borrow_mut().units.insert(unit.to_string(), (kind, status, ms(0)));
        self
    }

    pub fn balancer(self, name: &str, balance: Balance) -> Self {
        self.handle.0.borrow_mut().balancers.insert(name.to_owned(), balance);
        self
    }

    pub fn with(self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.handle.0.borrow_mut());
        self
    }

    /// Changes the pools of the job.
    pub fn pools(mut self, change: impl FnOnce(&mut Vec<Pool>)) -> Self {
        change(&mut self.job.place.as_mut().unwrap().pools);
        self
    }

    pub fn job(mut self, change: impl FnOnce(&mut Job)) -> Self {
        change(&mut self.job);
        self
    }

    /// Lets something happen right with (or, as `before ...`, right before) an effect.
    pub fn at(self, event: &str, hook: impl FnOnce(&mut World) + 'static) -> Self {
        self.handle.0.borrow_mut().hook(event, hook);
        self
    }

    /// Lets something happen this long after an effect.
    pub fn after(self, event: &str, time: Duration, hook: impl FnOnce(&mut World) + 'static) -> Self {
        self.at(event, move |world| world.later(time, hook))
    }

    pub fn safe_restart(&self) -> Ended<'_> {
        self.run(sequence::safe_restart)
    }

    /// A recovery of what is in the journal.
    pub fn recover(&mut self) -> Ended<'_> {
        self.job.left = self.handle.0.borrow().journal.clone();
        assert!(self.job.left.is_some(), "nothing to recover");
        self.run(sequence::recover)
    }

    pub fn run(&self, what: impl for<'p> FnOnce(&'p Job, Parts<'p>) -> Report) -> Ended<'_> {
        let (mut store, mut balancers, mut services) = (self.handle.clone(), self.handle.clone(), self.handle.clone());
        let (mut journal, mut slots, mut probe) = (self.handle.clone(), self.handle.clone(), self.handle.clone());
        let began = self.handle.now();
        let parts = Parts {
            store: &mut store,
            balancers: &mut balancers,
            services: &mut services,
            probe: &mut probe,
            journal: &mut journal,
            slots: Some(&mut slots),
            clock: &self.handle,
            stop: &self.handle,
        };
        let report = what(&self.job, parts);
        Ended { report, scene: self, took: self.handle.now() - began }
    }
}

/// A test that ran. Each check prints the whole report when it fails.
pub struct Ended<'a> {
    pub report: Report,
    pub took: Duration,
    scene: &'a Scene,
}

impl Ended<'_> {
    #[track_caller]
    pub fn exits(self, code: ExitCode) -> Self {
        assert_eq!(self.report.exit_code(), code, "{}", self.story());
        self
    }

    /// What was done to the store and the units, in order.
    #[track_caller]
    pub fn did(self, effects: &[&str]) -> Self {
        assert_eq!(self.scene.handle.0.borrow().done, effects, "{}", self.story());
        self
    }

    #[track_caller]
    pub fn leaves(self, service: &str, object: &str) -> Self {
        assert_eq!(self.scene.handle.0.borrow().object(service), object, "{}", self.story());
        self
    }

    #[track_caller]
    pub fn state(self, words: &str) -> Self {
        assert!(self.report.state.contains(words), "'{words}' is not in the state: {}", self.story());
        self
    }

    /// Some failure or note contains these words.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        let failures = self.report.failures.iter().map(|failure| &failure.message);
        let said = failures.chain(&self.report.notes).any(|said| said.contains(words));
        assert!(said, "nobody said '{words}': {}", self.story());
        self
    }

    pub fn story(&self) -> String {
        let world = self.scene.handle.0.borrow();
        format!("\ndone: {:?}\ntook: {:?}\nreport: {:#?}", world.done, self.took, self.report)
    }
}
