//! The journal's part in a run (rule 4): opened before the first write, told of each step, and removed when the host is as it
//! should be. What is left to the journal is left to `--recover`, or to an operator's `--pool`.

use crate::journal::{Depooled, Phase, Record};
use crate::names::{PoolName, UnitName};
use crate::outcome::{ExitCode, Failure};
use crate::pool::{Node, Pooled};
use crate::repool::{Decision, decide};
use crate::run::{Hold, Membership, Run};
use crate::sequence::Purpose;
use crate::service::ActiveState;
use crate::state::State;
use crate::store::{Fate, StoreError};

/// Whose doing it is that a node of a record is out.
pub(crate) enum Whose {
    /// Ours: the node as our depool left it.
    Ours(Node),
    /// Ours no longer, or never made.
    NotOurs,
    /// It cannot be told any more, and why.
    Unclear(String),
}

impl Run<'_> {
    /// Puts the run's intent on disk: every node that is about to be depooled, and what an earlier run held.
    pub(crate) fn open_journal(&mut self) -> Result<(), Failure> {
        if self.members.is_empty() {
            return Ok(());
        }
        self.phase("open journal", |run| {
            run.alone()?;
            run.slot_is_ours()?;
            for member in run.members.iter_mut().filter(|member| member.named) {
                let Some(node) = member.now.as_ref().filter(|node| node.pooled == Pooled::Yes) else { continue };
                let write = run.parts.store.prepare(node, Pooled::No);
                member.out = Some(write.map_err(|error| error.failure(&format!("depool '{}'", member.id)))?);
            }
            run.keep(Phase::TakingOut)?;
            // Without a journal nobody would take that back.
            if run.record(Phase::TakingOut).is_some() { run.count_as_out() } else { Ok(()) }
        })
    }

    /// Nobody else took over this host's journal, and with it this host.
    pub(crate) fn alone(&mut self) -> Result<(), Failure> {
        self.parts.journal.is_ours().map_err(|error| Failure::new(ExitCode::Failed, error.to_string()))
    }

    /// Writes the journal. A run that has taken nothing out, and will not, has none: then what an earlier run left stands there.
    pub(crate) fn keep(&mut self, phase: Phase) -> Result<(), Failure> {
        match (self.record(phase), &self.job.left) {
            (Some(record), _) => self.write_journal(&record)?,
            (None, _) if !self.journal_open => {}
            (None, Some(_)) => self.close_journal_as_found(),
            (None, None) => _ = self.close_journal(),
        }
        Ok(())
    }

    fn write_journal(&mut self, record: &Record) -> Result<(), Failure> {
        self.parts.journal.keep(record).map_err(|error| {
            Failure::new(ExitCode::Failed, format!("cannot keep the journal of what is depooled: {error}"))
        })?;
        (self.journal_open, self.journal_phase) = (true, record.phase);
        Ok(())
    }

    /// The same where nothing can be aborted any more: what fails is said.
    pub(crate) fn note_phase(&mut self, phase: Phase) {
        if let Err(failure) = self.keep(phase) {
            self.report.warn(failure.message);
        }
    }

    /// The journal as it is in this phase; `None` when nothing is out because of us.
    fn record(&self, phase: Phase) -> Option<Record> {
        let nodes = self.members.iter().filter_map(|member| self.depooled(member, phase));
        let nodes: Vec<_> = nodes.chain(self.others.iter().cloned()).collect();
        if nodes.is_empty() { None } else { self.record_of(nodes, phase) }
    }

    fn record_of(&self, nodes: Vec<Depooled>, phase: Phase) -> Option<Record> {
        let place = self.job.place.as_ref()?;
        let origin = &self.job.origin;
        let mut units = self.job.units.clone();
        // An operator's `--pool` does not ask how they are.
        let left = self.units_left().iter().filter(|_| self.purpose != Purpose::Pool || !self.others.is_empty());
        units.extend(left.filter(|unit| !self.job.units.contains(unit)).cloned());
        Some(Record {
            run: origin.run.clone(),
            fleet_run: origin.fleet_run.clone(),
            boot: origin.boot.clone(),
            pid: origin.pid,
            since: origin.since.clone(),
            user: origin.user.clone(),
            // One that only tries again takes the reason with it.
            reason: origin.reason.clone().or_else(|| self.job.left.as_ref()?.reason.clone()),
            host: place.host.clone(),
            data_centre: place.data_centre.clone(),
            units,
            counts_against: self.limits(),
            store: self.parts.store.kind().to_owned(),
            files: origin.files.clone(),
            nodes,
            phase,
        })
    }

    /// The units of an earlier run, as long as something is out because of it.
    fn units_left(&self) -> &[UnitName] {
        let something = !self.others.is_empty() || self.members.iter().any(|member| member.adopted);
        self.job.left.as_ref().filter(|_| something).map_or(&[], |left| &left.units)
    }

    fn depooled(&self, member: &Membership, phase: Phase) -> Option<Depooled> {
        let returned = matches!(member.hold, Hold::Returned);
        let write = member.out.clone().filter(|_| !(returned && phase == Phase::Held))?;
        let known = self.job.left.iter().flat_map(|left| &left.nodes).find(|out| out.write.found.id == member.id);
        let pools = match known {
            Some(known) if member.pools.is_empty() => known.pools.clone(),
            _ => member.pools.iter().map(|place| self.pools[*place].name.clone()).collect(),
        };
        // From here on it is to be brought back, whoever finishes that.
        let held = member.held && phase != Phase::BringingBack;
        Some(Depooled { pools, write, revision: member.revision, held, returned })
    }

    /// The host is as it should be, or an operator has taken over: nothing is left to be remembered, but for what was not this
    /// run's to put back. Whether the disk has taken that.
    pub(crate) fn close_journal(&mut self) -> bool {
        let left = self.job.left.as_ref().filter(|_| !self.others.is_empty());
        let remains = left.map(|left| Record {
            nodes: self.others.clone(),
            phase: if self.others.iter().all(|out| out.held) { Phase::Held } else { left.phase },
            ..left.clone()
        });
        self.close_journal_with(remains)
    }

    /// After an abort: what an earlier run left is as before.
    pub(crate) fn close_journal_as_found(&mut self) {
        self.close_journal_with(self.job.left.clone());
    }

    fn close_journal_with(&mut self, mut remains: Option<Record>) -> bool {
        // A host without a place in any pool has nothing to do with what another run left.
        if self.job.place.is_none() {
            return true;
        }
        // A host that is still held counts on. What cannot be taken back now is the next recovery's, which needs a journal.
        let counts_on = remains.as_ref().map(|record| record.counts_against.clone()).unwrap_or_default();
        let stuck = self.count_as_back(|limit| !counts_on.contains(limit));
        match &mut remains {
            None if !stuck.is_empty() => {
                let closing = self.record_of(Vec::new(), Phase::Closing);
                remains = closing.map(|record| Record { counts_against: stuck, ..record });
            }
            None => {}
            Some(record) => record.counts_against.extend(stuck),
        }
        let closed = match &remains {
            None => self.parts.journal.clear(),
            Some(record) => self.parts.journal.keep(record),
        };
        match closed {
            Ok(()) => {
                self.journal_open = remains.is_some();
                true
            }
            Err(error) => {
                self.report.warn(format!("the journal could not be closed, and will be finished once more: {error}"));
                false
            }
        }
    }

    /// Takes over what an earlier run took out and left so, as far as it is still out because of that run. A restart takes all of
    /// it, also from pools that are no longer in the catalog; `--pool` and `--depool` what is in the pools named.
    pub(crate) fn adopt(&mut self, left: &Record) -> Result<(), Failure> {
        self.must_be_of_this_store(left)?;
        let failed = |error: StoreError| error.failure("find out what an earlier run took out");
        self.others.clear();
        for out in left.nodes.iter().filter(|out| !out.returned) {
            let named = self.members.iter().any(|member| member.named && member.id == out.write.found.id);
            if self.purpose != Purpose::Restart && !named && self.is_gone(out) {
                let there = self.parts.store.whereabouts(&out.write.found.id);
                let message = format!(
                    "{there}, out because of an earlier run, is configured no longer, does not answer, and is forgotten"
                );
                self.report.warn(message);
                continue;
            }
            if self.purpose != Purpose::Restart && !named {
                self.others.push(Depooled { held: out.held || left.phase == Phase::Held, ..out.clone() });
                continue;
            }
            let place = self.membership(out).map_err(failed)?;
            match self.whose(out, place).map_err(failed)? {
                Whose::NotOurs => {
                    // A depool whose answer was lost may still be on its way; an operator's `--pool` is to be the last word.
                    let member = &mut self.members[place];
                    if self.purpose == Purpose::Pool
                        && out.revision.is_none()
                        && member.now.as_ref() == Some(&out.write.found)
                    {
                        (member.out, member.hold) = (Some(out.write.clone()), Hold::Attempted(out.write.clone()));
                    }
                }
                // An operator's word needs no proof, but until it is done the journal must not lose it.
                Whose::Unclear(_) if self.purpose != Purpose::Restart => {
                    let member = &mut self.members[place];
                    (member.out, member.held) = (Some(out.write.clone()), out.held || left.phase == Phase::Held);
                }
                Whose::Unclear(why) => {
                    self.leave_unclear(out, place, &why);
                }
                Whose::Ours(ours) => {
                    let member = &mut self.members[place];
                    member.revision = Some(ours.revision);
                    member.hold = Hold::Ours(ours);
                    member.out = Some(out.write.clone());
                    (member.adopted, member.held) = (true, out.held || left.phase == Phase::Held);
                }
            }
        }
        Ok(())
    }

    /// A node of which it cannot be told whose doing it is that it is out: it is left so, and remembered.
    pub(crate) fn leave_unclear(&mut self, out: &Depooled, place: usize, why: &str) {
        let names = &self.members[place].names;
        let message =
            format!("'{}' in {names} is perhaps out because of an earlier run, and is left so: {why}", self.host);
        self.report.warn(message);
        self.others.push(Depooled { held: true, ..out.clone() });
    }

    /// A HAProxy that was taken out of the pools named, and that nobody can ask any more: without an operator's word it would keep the
    /// journal open, and this host from being restarted, for ever.
    fn is_gone(&mut self, out: &Depooled) -> bool {
        let Some(place) = &self.job.place else { return false };
        let (id, store) = (&out.write.found.id, &mut self.parts.store);
        let is_configured = place.pools.iter().any(|pool| pool.path(&place.data_centre) == id.path);
        let is_named =
            |name: &PoolName| place.pools.iter().any(|pool| pool.name == *name && !place.unnamed.contains(name));
        !store.has_revisions() && !is_configured && out.pools.iter().all(is_named) && store.read(id).is_err()
    }

    /// Whose doing it is that this node of a record is out, as far as it is.
    pub(crate) fn whose(&mut self, out: &Depooled, place: usize) -> Result<Whose, StoreError> {
        if out.returned {
            return Ok(Whose::NotOurs);
        }
        let ours = match out.ours() {
            Some(node) => node,
            None => match self.parts.store.fate(&out.write)? {
                Fate::Made(node) | Fate::MadeThenChanged(node) => node,
                Fate::NotMade => return Ok(Whose::NotOurs),
                // One that is in service is nobody's worry.
                Fate::Unclear(why) => match &self.members[place].now {
                    Some(now) if now.pooled == Pooled::No => return Ok(Whose::Unclear(why)),
                    _ => return Ok(Whose::NotOurs),
                },
            },
        };
        Ok(match decide(&ours, self.members[place].now.as_ref()) {
            Decision::Repool(_) => Whose::Ours(ours),
            Decision::Leave(_) => Whose::NotOurs,
        })
    }

    /// The membership of a node in a record. One whose pool has left the catalog, or is kept elsewhere now, is known by its node
    /// alone: it can be put back, and no load balancer can be asked.
    pub(crate) fn membership(&mut self, out: &Depooled) -> Result<usize, StoreError> {
        let id = &out.write.found.id;
        if let Some(place) = self.members.iter().position(|member| member.id == *id) {
            return Ok(place);
        }
        let found = self.parts.store.read(id)?;
        let names: Vec<_> = out.pools.iter().map(|pool| format!("'{pool}'")).collect();
        self.members.push(Membership { names: names.join(", "), ..Membership::of(id.clone(), found) });
        Ok(self.members.len() - 1)
    }

    /// A journal says what was written to one store, in one place. In another one the host would look as if it were not out, and
    /// be forgotten.
    pub(crate) fn must_be_of_this_store(&self, left: &Record) -> Result<(), Failure> {
        let store = &self.parts.store;
        let elsewhere = |message: String| {
            let nodes: Vec<_> = left.nodes.iter().map(|out| format!("'{}'", out.write.key)).collect();
            let nodes = nodes.join(", ");
            let message = format!(
                "an earlier run took '{}' out of its pools in another store: {message}; look at {nodes} there, and once they are as they should be, remove the journal",
                left.host
            );
            Err(Failure::new(ExitCode::Configuration, message))
        };
        let (theirs, ours) = (&left.files.config, &self.job.origin.files.config);
        if theirs != ours {
            return elsewhere(format!("that of '{theirs}', and not of '{ours}'"));
        }
        if left.store != store.kind() {
            return elsewhere(format!("'{}', and '{}' is configured now", left.store, store.kind()));
        }
        for out in &left.nodes {
            let key = store.prepare(&out.write.found, Pooled::No).map(|write| write.key);
            if key.as_ref().is_ok_and(|key| *key != out.write.key) {
                return elsewhere(format!("the object is '{}' by the configuration of today", key.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// A host was held because these units did not run; it goes back only when they do.
    pub(crate) fn held_units_that_do_not_run(&mut self) -> Vec<Failure> {
        let others: Vec<_> = self.units_left().iter().filter(|unit| !self.job.units.contains(unit)).cloned().collect();
        let mut failures = Vec::new();
        for unit in others {
            let wrong = match self.parts.services.status(&unit) {
                Ok(status) if status.active == ActiveState::Active => continue,
                Ok(status) => format!("it is {}", status.active.as_str()),
                Err(error) => error.to_string(),
            };
            let message = format!("an earlier run held this host because of '{unit}': {wrong}");
            failures.push(Failure::new(ExitCode::LeftDepooled, message));
        }
        failures
    }

    /// `--depool` succeeded: from now on the host is out because an operator wants it.
    pub(crate) fn stay_out(&mut self) {
        if !self.close_journal() && self.journal_open {
            let message =
                format!("'{}' is depooled, and the next recovery will put it back: its journal is open", self.host);
            self.report.failures.push(Failure::new(ExitCode::Failed, message));
        }
        self.state = State::Depooled;
    }

    /// The revision of our own write, as soon as it is known.
    pub(crate) fn depooled_at(&mut self, place: usize, node: Node) -> Result<(), Failure> {
        let member = &mut self.members[place];
        member.revision = Some(node.revision);
        member.now = Some(node.clone());
        member.hold = Hold::Ours(node);
        self.keep(Phase::TakingOut)
    }
}
