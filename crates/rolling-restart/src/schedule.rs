//! Which host is started when, and when it is over: a machine that is told what happened and answers what to do. It knows no clock,
//! no process and no name; time is passed in, hosts are numbers in their order. All promises about the order of a run are kept here,
//! and tested here with any outcomes in any order.
//!
//! Hosts are started as others end (a sliding window, no lock-step). Canaries come first, and all of them have to end well. After
//! them, and each time as many hosts have ended as are out at once, comes a checkpoint, the pause and then the gate, during which
//! nothing is started.

use std::collections::VecDeque;
use std::time::Duration;

/// A host, by its place in the plan.
pub type Place = usize;

/// What a run keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// So many at once, at most.
    pub window: usize,
    /// So many come first.
    pub canaries: usize,
    /// How long nothing is started at a checkpoint.
    pub pause: Duration,
    /// Whether there is a gate at a checkpoint.
    pub gate: bool,
    /// Once so many have failed, no other is started.
    pub max_failures: usize,
    /// Once so many could not be reached, no other is started.
    pub max_unreachable: usize,
    /// How often a host that has to wait is tried again.
    pub retries: u32,
    /// How long after.
    pub retry_delay: Duration,
}

/// How an attempt at a host ended, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Restarted.
    Done,
    /// Nothing to do: it was restarted since.
    Skipped,
    /// Not, or not as it should be.
    Failed,
    /// As [`Ending::Failed`], and the host is out of its pools.
    LeftDepooled,
    /// There was no way to it.
    Unreachable,
    /// It said: later.
    Busy,
}

/// What became of a host. Every host is in exactly one of these at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Not started.
    NeverTried,
    /// Started.
    Running,
    /// Said "later", and is to be started again.
    Waiting,
    /// Ended.
    Ended(Ending),
    /// Started, and no longer waited for.
    StillRunning,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An attempt ended.
    HostEnded(Place, Ending),
    /// The gate ended.
    GateEnded {
        /// Whether it says to go on.
        passed: bool,
    },
    /// Somebody asks for the end.
    Signal {
        /// Not for the first time.
        again: bool,
    },
    /// Time went by.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start this host.
    Start(Place),
    /// Run the gate.
    RunGate,
    /// The gate's answer is of no interest any more.
    EndGate,
    /// Wait no longer for those that run.
    Abandon,
}

/// Why no further host is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// The budget of failures is spent.
    Failures,
    /// That of unreachable hosts is.
    Unreachable,
    /// A canary did not end well.
    Canary,
    /// The gate said no.
    Gate,
    /// Somebody asked for it.
    Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the first checkpoint; so many canaries ended well.
    Canaries(usize),
    /// Hosts are started as others end.
    Flowing,
    /// Nothing is started until then.
    Pausing(Duration),
    /// Nothing is started until the gate says so.
    Gating,
}

/// The machine.
#[derive(Debug)]
pub struct Schedule {
    rules: Rules,
    classes: Vec<Class>,
    /// How often each was tried again.
    tried_again: Vec<u32>,
    /// Not tried yet, in order.
    fresh: VecDeque<Place>,
    /// To be tried again, and not before when. The delay is one for all, so that they stand in the order of their times.
    waiting: VecDeque<(Duration, Place)>,
    running: usize,
    failed: usize,
    unreachable: usize,
    /// How many were restarted, or were to be, since the last checkpoint.
    since_checkpoint: usize,
    stage: Stage,
    halt: Option<Halt>,
}

impl Schedule {
    /// A run over so many hosts that has not begun.
    pub fn new(hosts: usize, rules: Rules) -> Self {
        let rules = Rules { window: rules.window.max(1), ..rules };
        let stage = if rules.canaries == 0 { Stage::Flowing } else { Stage::Canaries(0) };
        Self {
            classes: vec![Class::NeverTried; hosts],
            tried_again: vec![0; hosts],
            fresh: (0..hosts).collect(),
            waiting: VecDeque::new(),
            running: 0,
            failed: 0,
            unreachable: 0,
            since_checkpoint: 0,
            stage,
            halt: None,
            rules,
        }
    }

    /// Takes note of what happened, and says what to do now.
    pub fn take(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::HostEnded(place, ending) => self.host_ended(place, ending, now),
            Event::GateEnded { passed } if self.stage == Stage::Gating => {
                self.stage = Stage::Flowing;
                if !passed {
                    self.halt(Halt::Gate);
                }
            }
            Event::GateEnded { .. } | Event::Tick => {}
            Event::Signal { again } => {
                self.halt(Halt::Signal);
                if again && self.running > 0 {
                    self.abandon();
                    actions.push(Action::Abandon);
                }
            }
        }
        if self.halt.is_some() {
            if self.stage == Stage::Gating {
                actions.push(Action::EndGate);
            }
            self.stage = Stage::Flowing;
            self.give_up_waiting();
            return actions;
        }
        self.go_on(now, &mut actions);
        actions
    }

    /// Whether all is over: nothing runs, and nothing will.
    pub fn is_over(&self) -> bool {
        self.running == 0 && (self.halt.is_some() || !self.has_more())
    }

    /// When something is to be done next, if nothing happens until then.
    pub fn wakes_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::Pausing(until) => Some(until),
            Stage::Canaries(_) | Stage::Flowing | Stage::Gating => self.waiting.front().map(|(due, _)| *due),
        }
    }

    /// So many are out at once, at most.
    pub fn window(&self) -> usize {
        self.rules.window
    }

    /// Why no further host is started; `None` if all were, or will be.
    pub fn halted(&self) -> Option<Halt> {
        self.halt
    }

    /// What became of each host, in order.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Whether a host that runs is among the canaries.
    pub fn has_canaries_out(&self) -> bool {
        matches!(self.stage, Stage::Canaries(_))
    }

    /// The end of the pause, or whether the gate is waited for: what keeps hosts from being started.
    pub fn is_at_checkpoint(&self) -> bool {
        matches!(self.stage, Stage::Pausing(_) | Stage::Gating)
    }

    fn has_more(&self) -> bool {
        !self.fresh.is_empty() || !self.waiting.is_empty()
    }

    /// The first reason is the one that counts, but for somebody's own word.
    fn halt(&mut self, why: Halt) {
        if self.halt.is_none() || why == Halt::Signal {
            self.halt = Some(why);
        }
    }

    /// Those that were to be tried again are not: "later" was their last word.
    fn give_up_waiting(&mut self) {
        for (_, place) in self.waiting.drain(..) {
            if let Some(class) = self.classes.get_mut(place) {
                *class = Class::Ended(Ending::Busy);
            }
        }
    }

    fn abandon(&mut self) {
        for class in self.classes.iter_mut().filter(|class| **class == Class::Running) {
            *class = Class::StillRunning;
        }
        self.running = 0;
    }

    fn host_ended(&mut self, place: Place, ending: Ending, now: Duration) {
        // What ends after it was given up is no longer counted anywhere.
        if self.classes.get(place) != Some(&Class::Running) {
            return;
        }
        self.running -= 1;
        if let Some(class) = self.classes.get_mut(place) {
            *class = Class::Ended(ending);
        }
        if !matches!(ending, Ending::Skipped | Ending::Busy | Ending::Unreachable) {
            self.since_checkpoint += 1;
        }
        match ending {
            Ending::Done | Ending::Skipped => {
                if let Stage::Canaries(good) = &mut self.stage {
                    *good += 1;
                }
            }
            Ending::Failed | Ending::LeftDepooled => {
                self.failed += 1;
                if self.failed >= self.rules.max_failures {
                    self.halt(Halt::Failures);
                } else if matches!(self.stage, Stage::Canaries(_)) {
                    self.halt(Halt::Canary);
                }
            }
            Ending::Unreachable => {
                self.unreachable += 1;
                if self.unreachable >= self.rules.max_unreachable {
                    self.halt(Halt::Unreachable);
                }
            }
            Ending::Busy => self.later(place, now),
        }
    }

    /// Puts a host back in the queue, a bounded number of times.
    fn later(&mut self, place: Place, now: Duration) {
        let (Some(tried), Some(class)) = (self.tried_again.get_mut(place), self.classes.get_mut(place)) else { return };
        if self.halt.is_none() && *tried < self.rules.retries {
            *tried += 1;
            *class = Class::Waiting;
            self.waiting.push_back((now + self.rules.retry_delay, place));
        }
    }

    /// Starts what may be started, and comes to checkpoints. Where no host is left there is nothing to keep back, and so no checkpoint.
    fn go_on(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while self.has_more() {
            match self.stage {
                Stage::Canaries(good) if good >= self.rules.canaries => self.checkpoint(now),
                Stage::Canaries(good) => {
                    let room = self.rules.window.min(self.rules.canaries - good);
                    return self.start(room, now, actions);
                }
                Stage::Flowing if self.rules.has_checkpoints() && self.since_checkpoint >= self.rules.window => {
                    self.checkpoint(now);
                }
                Stage::Flowing => return self.start(self.rules.window, now, actions),
                Stage::Pausing(until) if now < until => return,
                Stage::Pausing(_) if self.rules.gate => {
                    self.stage = Stage::Gating;
                    actions.push(Action::RunGate);
                }
                Stage::Pausing(_) => self.stage = Stage::Flowing,
                Stage::Gating => return,
            }
        }
    }

    /// Nothing is started for a while.
    fn checkpoint(&mut self, now: Duration) {
        self.since_checkpoint = 0;
        self.stage = if self.rules.has_checkpoints() { Stage::Pausing(now + self.rules.pause) } else { Stage::Flowing };
    }

    /// Starts hosts until so many run.
    fn start(&mut self, at_once: usize, now: Duration, actions: &mut Vec<Action>) {
        while self.running < at_once {
            let Some(place) = self.next(now) else { return };
            if let Some(class) = self.classes.get_mut(place) {
                *class = Class::Running;
            }
            self.running += 1;
            actions.push(Action::Start(place));
        }
    }

    /// Those that wait come when they are due, before those that are new: they are what the run would end with otherwise.
    fn next(&mut self, now: Duration) -> Option<Place> {
        match self.waiting.front() {
            Some((due, _)) if *due <= now => self.waiting.pop_front().map(|(_, place)| place),
            _ => self.fresh.pop_front(),
        }
    }
}

impl Rules {
    fn has_checkpoints(&self) -> bool {
        self.gate || !self.pause.is_zero()
    }
}

#[cfg(test)]
mod tests;
