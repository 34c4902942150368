//! Every way back into the pools: after the restart, after an abort before it, and by `--pool`. What is put back, and what
//! is left to an operator, is decided in `repool.rs`; here it is done, and seen to be done.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::outcome::{ExitCode, Failure};
use crate::pool::{Node, Pooled};
use crate::repool::{Decision, decide};
use crate::run::{Abort, Hold, Membership, Run, State};
use crate::store::{Fate, StoreError, Write, WriteError};
use crate::take_out::CONFLICTS;
use crate::watch::{Unseen, Wanted};

/// The pause between two tries to reach a store that does not answer. Each try walks over all its members.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Why a node is not back yet.
enum Hitch {
    /// Somebody wrote in between: decide anew.
    Conflict,
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
        self.state = State::BroughtBack;
        if let Err(failure) = self
            .return_all(ExitCode::RepoolUnconfirmed)
            .and_then(|()| self.see_pooled(ExitCode::RepoolUnconfirmed, |member| matches!(member.hold, Hold::Returned)))
        {
            self.report.failures.push(failure);
            self.state = State::RepoolUnconfirmed;
        }
    }

    /// Before the restart: whatever went wrong, the host is put back as it was found (rule 1).
    pub(crate) fn put_back(&mut self, abort: Abort) {
        match abort {
            Abort::Failed(failure) => self.report.failures.push(failure),
            Abort::Stopped(stopped) => log::warn!("{}: not restarting", stopped.signal.name()),
        }
        self.state = State::AsFound;
        let ours = |member: &Membership| matches!(member.hold, Hold::Ours(_) | Hold::Attempted(_));
        if !self.members.iter().any(ours) {
            return;
        }
        log::warn!("putting '{}' back", self.host);
        let put_back = self.return_all(ExitCode::PutBackUnconfirmed).and_then(|()| {
            self.see_pooled(ExitCode::PutBackUnconfirmed, |member| matches!(member.hold, Hold::Returned))
        });
        if let Err(failure) = put_back {
            // The worse news decides the exit code: the host may be out.
            self.report.failures.insert(0, failure);
            self.state = State::PerhapsDepooled;
        }
    }

    /// `--pool`: puts every node that is `no` back; `inactive` is an operator's word and stays.
    pub(crate) fn pool(&mut self) {
        for member in &mut self.members {
            if let Some(found) = member.found.clone().filter(|found| found.pooled == Pooled::No) {
                member.hold = Hold::Ours(found);
            }
        }
        let returned = self.return_all(ExitCode::PutBackUnconfirmed);
        let pooled = |member: &Membership| matches!(&member.now, Some(node) if node.pooled == Pooled::Yes);
        let result = returned.and_then(|()| self.see_pooled(ExitCode::PutBackUnconfirmed, pooled));
        self.state = match result {
            Ok(()) => State::Pooled,
            Err(failure) => {
                self.report.failures.push(failure);
                State::PoolUnconfirmed
            }
        };
    }

    /// Puts back each node that is ours; every one is tried, the first failure is returned, the others are reported.
    fn return_all(&mut self, code: ExitCode) -> Result<(), Failure> {
        self.phase("repool", |run| {
            let deadline = run.parts.clock.now() + run.job.allowed;
            let mut failures = Vec::new();
            for place in 0..run.members.len() {
                if let Err(why) = run.return_one(place, deadline) {
                    let names = run.pool_names(&run.members[place].pools);
                    let message = format!("cannot repool '{}' in {names}: {why}", run.host);
                    failures.push(Failure::new(code, message));
                }
            }
            let mut failures = failures.into_iter();
            let first = failures.next();
            run.report.failures.extend(failures);
            first.map_or(Ok(()), Err)
        })
    }

    /// Puts one node back, with patience for a store that is away and for others who write at the same time.
    fn return_one(&mut self, place: usize, deadline: Duration) -> Result<(), String> {
        let mut lost = None;
        let mut conflicts = 0;
        let mut said = false;
        loop {
            let why = match self.try_return(place, &mut lost) {
                Ok(()) => return Ok(()),
                Err(Hitch::Unclear(why)) => return Err(why),
                Err(Hitch::Conflict) => {
                    conflicts += 1;
                    if conflicts >= CONFLICTS {
                        return Err("the object keeps changing".to_owned());
                    }
                    continue;
                }
                Err(Hitch::Store(StoreError::Unreachable(why))) => why,
                Err(Hitch::Store(error)) => return Err(error.to_string()),
            };
            let now = self.parts.clock.now();
            if now >= deadline {
                return Err(why);
            }
            if !said {
                said = true;
                log::warn!("cannot reach the store to repool, trying for {:?} more: {why}", deadline - now);
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
                Fate::Made(node) | Fate::MadeThenChanged(node) => {
                    self.returned(place, node);
                    return Ok(());
                }
                Fate::NotMade | Fate::Unclear(_) => *lost = None,
            }
        }
        let ours = match &self.members[place].hold {
            Hold::Untouched | Hold::Returned | Hold::Theirs => return Ok(()),
            Hold::Ours(node) => node.clone(),
            Hold::Attempted(write) => match self.parts.store.fate(write)? {
                Fate::Made(node) | Fate::MadeThenChanged(node) => {
                    self.members[place].hold = Hold::Ours(node.clone());
                    node
                }
                // The depool may still be on its way, held by a member that is frozen. Writing the node as it is gives it a
                // new revision, which the late write can no longer match.
                Fate::NotMade => write.found.clone(),
                Fate::Unclear(why) => return Err(Hitch::Unclear(why)),
            },
        };
        let member = &mut self.members[place];
        let now = self.parts.store.read(&member.id)?;
        member.now.clone_from(&now);
        let fence = matches!(&member.hold, Hold::Attempted(_)) && now.as_ref() == Some(&ours);
        let node = match decide(&ours, now.as_ref()) {
            Decision::Repool(node) => node,
            Decision::Leave(_) if fence => ours,
            Decision::Leave(why) => {
                member.hold = Hold::Theirs;
                let names = self.pool_names(&self.members[place].pools);
                self.report.note(format!("'{}' in {names} is left to whoever changed it: {why}", self.host));
                return Ok(());
            }
        };
        let write = self.parts.store.prepare(&node, Pooled::Yes)?;
        match self.parts.store.write(&write) {
            Ok(node) => {
                self.returned(place, node);
                Ok(())
            }
            Err(WriteError::Conflict) => Err(Hitch::Conflict),
            Err(WriteError::NotMade(error)) => Err(Hitch::Store(error)),
            Err(WriteError::Unknown(error)) => {
                *lost = Some(write);
                Err(Hitch::Store(error))
            }
        }
    }

    fn returned(&mut self, place: usize, node: Node) {
        let names = self.pool_names(&self.members[place].pools);
        log::info!("repooled '{}' in {names}", self.host);
        self.members[place].now = Some(node);
        self.members[place].hold = Hold::Returned;
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
