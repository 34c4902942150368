//! Every way back into the pools: after the restart, after an abort before it, and by `--pool`. What is put back, and what
//! is left to an operator, is decided in `repool.rs`; here it is done, and seen to be done.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::journal::Phase;
use crate::outcome::{ExitCode, Failure};
use crate::pool::{Node, Pooled};
use crate::repool::{Decision, decide};
use crate::run::{Abort, Hold, Membership, Run};
use crate::sequence::Purpose;
use crate::service::ActiveState;
use crate::span::span;
use crate::state::State;
use crate::store::{Fate, StoreError, Write, WriteError};
use crate::take_out::CONFLICTS;
use crate::watch::{Unseen, Wanted};

/// The pause between two tries to reach a store that does not answer. Each try walks over all its members.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Why a node is not back yet.
enum Hitch {
    /// Something is known now that was not: decide anew.
    Anew,
    /// The store failed.
    Store(StoreError),
    /// It cannot be told whose write stands there.
    Unclear(String),
}

impl From<StoreError> for Hitch {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Run<'_> {
    /// After the restart: puts the host back and sees every load balancer send again.
    pub(crate) fn bring_back(&mut self) {
        self.note_phase(Phase::BringingBack);
        self.bring_back_now(ExitCode::RepoolUnconfirmed);
    }

    /// The same, with the journal as it is until the host is back. What is not confirmed ends with `code`.
    pub(crate) fn bring_back_now(&mut self, code: ExitCode) {
        self.state = State::BroughtBack;
        let failures = self.return_and_see(code, |member| matches!(member.hold, Hold::Returned));
        if failures.is_empty() {
            self.close_journal();
        } else {
            self.report.failures.extend(failures);
            self.state = State::RepoolUnconfirmed;
        }
    }

    /// Puts back what is ours, and watches the load balancers of what `which` picks, also where something else failed.
    fn return_and_see(&mut self, code: ExitCode, which: impl Fn(&Membership) -> bool) -> Vec<Failure> {
        let mut failures = self.return_all(code);
        self.see_what_came_along();
        failures.extend(self.see_pooled(code, which).err());
        failures.extend(std::mem::take(&mut self.unread).into_iter().map(|failure| Failure { code, ..failure }));
        failures
    }

    /// A server of HAProxy that tracks one that we took out went and comes back with it, and so does one that is named by two
    /// addresses of the same HAProxy: it is in service again, and that is to be seen, and said, as of what we put back ourselves.
    fn see_what_came_along(&mut self) {
        if self.parts.store.has_revisions() {
            return;
        }
        let was_in = |member: &Membership| member.found.as_ref().is_some_and(|node| node.pooled == Pooled::Yes);
        // `--pool` and a recovery come when it is out already.
        let (returns, recovers) = (self.purpose == Purpose::Pool, self.purpose == Purpose::Recover);
        let went = |member: &Membership| match member.hold {
            Hold::Untouched => returns || was_in(member),
            Hold::Theirs => returns || recovers || was_in(member),
            Hold::Ours(_) | Hold::Attempted(_) | Hold::Returned => false,
        };
        let is_still_out = |member: &Membership| member.named && went(member) && !member.is_in();
        for member in self.members.iter_mut().filter(|member| is_still_out(member)) {
            if let Ok(Some(now)) = self.parts.store.read(&member.id)
                && now.pooled == Pooled::Yes
            {
                log::info!("'{}' is in service again in {}", self.host, member.names);
                (member.now, member.hold) = (Some(now), Hold::Returned);
            }
        }
    }

    /// Before the restart: whatever went wrong, the host is put back as it was found (rule 1).
    pub(crate) fn put_back(&mut self, abort: Abort) {
        let mut why = String::new();
        match abort {
            Abort::Failed(failure) => {
                why = failure.message.clone();
                self.report.failures.push(failure);
            }
            Abort::Stopped(stopped) => stopped.signal.name().clone_into(&mut why),
        }
        self.state = State::AsFound;
        // What an earlier run held stays held.
        for member in self.members.iter_mut().filter(|member| member.adopted) {
            member.hold = Hold::Untouched;
        }
        let ours = |member: &Membership| matches!(member.hold, Hold::Ours(_) | Hold::Attempted(_));
        if !self.members.iter().any(ours) {
            if self.journal_open {
                self.close_journal_as_found();
            }
            return;
        }
        log::warn!("putting '{}' back: {why}", self.host);
        let failures =
            self.return_and_see(ExitCode::PutBackUnconfirmed, |member| matches!(member.hold, Hold::Returned));
        if !failures.is_empty() {
            // The worse news decides the exit code: the host may be out.
            self.report.failures.splice(0..0, failures);
            self.state = State::PerhapsDepooled;
            return;
        }
        self.close_journal_as_found();
    }

    /// `--pool`: puts every node that is `no` back; `inactive` is an operator's word and stays.
    pub(crate) fn pool(&mut self) {
        if let Err(stopped) = Heed::First.check(self.parts.stop) {
            return self.put_back(stopped.into());
        }
        for member in &mut self.members {
            let Some(found) = member.found.clone().filter(|found| found.pooled != Pooled::Inactive) else { continue };
            if matches!(member.hold, Hold::Attempted(_)) {
                continue;
            }
            // For the journal, as if it had been taken out: should this run die or not be confirmed, recovery goes on.
            member.out = self.parts.store.prepare(&found, Pooled::No).ok();
            (member.revision, member.adopted, member.held) = (Some(found.revision), false, false);
            member.hold = if found.pooled == Pooled::Yes { Hold::Returned } else { Hold::Ours(found) };
        }
        self.warn_of_units_that_do_not_run();
        // A disk that takes nothing does not keep a host out.
        self.note_phase(Phase::BringingBack);
        let failures = self.return_and_see(ExitCode::PutBackUnconfirmed, Membership::is_in);
        if failures.is_empty() {
            // An operator's word takes over from any journal.
            self.close_journal();
            self.state = State::Pooled;
        } else {
            // Once more, should the disk have had no room before.
            self.note_phase(Phase::BringingBack);
            self.report.failures.extend(failures);
            self.state = State::PoolUnconfirmed;
        }
    }

    /// An operator's word is done, but not without a word of why the host was out.
    fn warn_of_units_that_do_not_run(&mut self) {
        for unit in self.job.left.iter().flat_map(|left| &left.units) {
            if let Ok(status) = self.parts.services.status(unit)
                && status.active != ActiveState::Active
            {
                let message = format!("'{unit}', because of which this host was out, is {}", status.active.as_str());
                self.report.warn(message);
            }
        }
    }

    /// Puts back each node that is ours; every one is tried, until the time for a store that is away is over.
    fn return_all(&mut self, code: ExitCode) -> Vec<Failure> {
        self.phase("repool", |run| {
            let deadline = run.parts.clock.now() + run.job.allowed;
            let mut failures = Vec::new();
            for place in 0..run.members.len() {
                let result = if !failures.is_empty() && run.parts.clock.now() >= deadline {
                    Err("not tried any more, the time is over".to_owned())
                } else {
                    run.return_one(place, deadline)
                };
                if let Err(why) = result
                    && matches!(run.members[place].hold, Hold::Ours(_) | Hold::Attempted(_))
                {
                    let names = &run.members[place].names;
                    let message = format!("cannot repool '{}' in {names}: {why}", run.host);
                    failures.push(Failure::new(code, message));
                }
            }
            failures
        })
    }

    /// Puts one node back, with patience for a store that is away and for others who write at the same time.
    pub(crate) fn return_one(&mut self, place: usize, deadline: Duration) -> Result<(), String> {
        let mut lost = None;
        let mut conflicts = 0;
        let mut said = false;
        loop {
            let why = match self.try_return(place, &mut lost) {
                Ok(()) => return Ok(()),
                Err(Hitch::Unclear(why)) => return Err(why),
                Err(Hitch::Anew) => {
                    conflicts += 1;
                    if conflicts >= CONFLICTS {
                        return Err("the object keeps changing".to_owned());
                    }
                    continue;
                }
                // A refusal may pass, too: an etcd without a leader refuses users, an overloaded one refuses work.
                Err(Hitch::Store(StoreError::Unreachable(why) | StoreError::Refused(why))) => why,
                Err(Hitch::Store(StoreError::Malformed(why))) => return Err(why),
            };
            let now = self.parts.clock.now();
            if now >= deadline {
                return Err(why);
            }
            if !said {
                said = true;
                log::warn!("cannot reach the store to repool, trying for {} more: {why}", span(deadline - now));
            }
            let next = (now + STORE_PAUSE).min(deadline);
            sleep_until(self.parts.clock, self.parts.stop, Heed::Second, next).map_err(|stopped| {
                format!("not tried any longer because of a second {}: {why}", stopped.signal.name())
            })?;
        }
    }

    /// One try. `lost` is an earlier try whose answer was lost.
    fn try_return(&mut self, place: usize, lost: &mut Option<Write>) -> Result<(), Hitch> {
        if let Some(write) = lost {
            match self.parts.store.fate(write)? {
                Fate::Made(node) => {
                    self.returned(place, node);
                    return Ok(());
                }
                Fate::MadeThenChanged(_) => {
                    match self.parts.store.read(&self.members[place].id)? {
                        Some(now) if now.pooled == Pooled::Yes => self.returned(place, now),
                        now => self.left_to_others(place, now, "it was changed right after it was put back"),
                    }
                    return Ok(());
                }
                Fate::NotMade | Fate::Unclear(_) => *lost = None,
            }
        }
        let node = match &self.members[place].hold {
            Hold::Untouched | Hold::Returned | Hold::Theirs => return Ok(()),
            Hold::Ours(node) => {
                let ours = node.clone();
                let now = self.parts.store.read(&self.members[place].id)?;
                self.members[place].now.clone_from(&now);
                match decide(&ours, now.as_ref()) {
                    Decision::Repool(node) => node,
                    Decision::Leave(why) => {
                        self.left_to_others(place, now, &why);
                        return Ok(());
                    }
                }
            }
            Hold::Attempted(write) => {
                let write = write.clone();
                match self.parts.store.fate(&write)? {
                    Fate::Made(node) | Fate::MadeThenChanged(node) => {
                        self.members[place].revision = Some(node.revision);
                        self.members[place].hold = Hold::Ours(node);
                        return Err(Hitch::Anew);
                    }
                    // The depool may still be on its way, held by a member that is frozen. Writing the node as it is gives
                    // it a new revision, which the late write can no longer match.
                    Fate::NotMade => match self.parts.store.read(&self.members[place].id)? {
                        Some(now) if now == write.found => now,
                        now => {
                            self.left_to_others(place, now, "somebody else wrote while an answer was lost");
                            return Ok(());
                        }
                    },
                    Fate::Unclear(why) => return Err(Hitch::Unclear(why)),
                }
            }
        };
        let write = self.parts.store.prepare(&node, Pooled::Yes)?;
        match self.parts.store.write(&write) {
            Ok(node) => {
                self.returned(place, node);
                Ok(())
            }
            Err(WriteError::Conflict) => Err(Hitch::Anew),
            Err(WriteError::NotMade(error)) => Err(Hitch::Store(error)),
            Err(WriteError::Unknown(error)) => {
                *lost = Some(write);
                Err(Hitch::Store(error))
            }
        }
    }

    /// Rule 2: what somebody else decided stays, and is no error.
    pub(crate) fn left_to_others(&mut self, place: usize, now: Option<Node>, why: &str) {
        self.members[place].now = now;
        self.members[place].hold = Hold::Theirs;
        let names = self.members[place].names.clone();
        self.report.warn(format!("'{}' in {names} is left to whoever changed it: {why}", self.host));
    }

    fn returned(&mut self, place: usize, node: Node) {
        let names = self.members[place].names.clone();
        log::info!("repooled '{}' in {names}", self.host);
        self.members[place].now = Some(node);
        self.members[place].hold = Hold::Returned;
        // What somebody writes from now on is not to be taken for our depool.
        if self.journal_open {
            self.note_phase(self.journal_phase);
        }
    }

    /// Sees every load balancer of the memberships that `which` picks send to the host.
    fn see_pooled(&mut self, code: ExitCode, which: impl Fn(&Membership) -> bool) -> Result<(), Failure> {
        self.phase("load balancers send again", |run| {
            run.watch(Wanted::Pooled, Heed::Second, which).map_err(|unseen| {
                let what = format!("cannot confirm that '{}' is pooled", run.host);
                match unseen {
                    Unseen::TimeOver { blame, .. } => Failure::new(code, format!("{what}: {blame}")),
                    Unseen::Stopped(stopped) => {
                        Failure::new(code, format!("{what}: not awaited because of a second {}", stopped.signal.name()))
                    }
                }
            })
        })
    }
}
