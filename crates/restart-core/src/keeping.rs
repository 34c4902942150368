//! The journal's part in a run (rule 4): opened before the first write, told of each step, and removed when the host is as it
//! should be. What is left to the journal is left to `--recover`, or to an operator's `--pool`.

use crate::journal::{Depooled, Phase, Record};
use crate::outcome::{ExitCode, Failure};
use crate::pool::{Node, Pooled};
use crate::repool::{Decision, decide};
use crate::run::{Hold, Membership, Run, cannot};
use crate::service::ActiveState;
use crate::state::State;
use crate::store::{Fate, StoreError};

impl Run<'_> {
    /// Puts the run's intent on disk: every node that is about to be depooled, and what an earlier run held.
    pub(crate) fn open_journal(&mut self) -> Result<(), Failure> {
        if self.members.is_empty() {
            return Ok(());
        }
        self.phase("open journal", |run| {
            for member in &mut run.members {
                let Some(node) = member.now.as_ref().filter(|node| node.pooled == Pooled::Yes) else { continue };
                let write = run.parts.store.prepare(node, Pooled::No);
                member.out = Some(write.map_err(|error| cannot(&format!("depool '{}'", member.id), &error))?);
            }
            run.keep(Phase::TakingOut)?;
            run.count_as_out()
        })
    }

    /// Writes the journal; a run that has taken nothing out, and will not, has none.
    pub(crate) fn keep(&mut self, phase: Phase) -> Result<(), Failure> {
        let Some(record) = self.record(phase) else { return Ok(()) };
        self.parts.journal.keep(&record).map_err(|error| {
            Failure::new(ExitCode::Failed, format!("cannot keep the journal of what is depooled: {error}"))
        })
    }

    /// The same where nothing can be aborted any more: what fails is said.
    pub(crate) fn note_phase(&mut self, phase: Phase) {
        if let Err(failure) = self.keep(phase) {
            self.report.warn(failure.message);
        }
    }

    fn record(&self, phase: Phase) -> Option<Record> {
        let place = self.job.place.as_ref()?;
        let origin = &self.job.origin;
        let nodes: Vec<_> = self.members.iter().filter_map(|member| self.depooled(member)).collect();
        let held = self.job.held.iter().flat_map(|held| held.units.iter());
        let mut units = self.job.units.clone();
        units.extend(held.filter(|unit| !self.job.units.contains(unit)).cloned());
        (!nodes.is_empty()).then(|| Record {
            run: origin.run.clone(),
            boot: origin.boot.clone(),
            pid: origin.pid,
            since: origin.since.clone(),
            user: origin.user.clone(),
            reason: origin.reason.clone(),
            host: place.host.clone(),
            data_centre: place.data_centre.clone(),
            units,
            counts_against: self.job.counts_against.clone(),
            nodes,
            phase,
        })
    }

    fn depooled(&self, member: &Membership) -> Option<Depooled> {
        let write = member.out.clone()?;
        let pools = member.pools.iter().map(|place| self.pools[*place].name.clone()).collect();
        Some(Depooled { pools, write, revision: member.revision, held: member.held })
    }

    /// The host is as it should be, or an operator has taken over: nothing is left to be remembered, but for what was not this
    /// run's to put back.
    pub(crate) fn close_journal(&mut self) {
        // A host that is still held counts on.
        if self.remains.is_none() {
            self.count_as_back();
        }
        let closed = match &self.remains {
            None => self.parts.journal.clear(),
            Some(record) => self.parts.journal.keep(record),
        };
        if let Err(error) = closed {
            self.report.warn(format!("the journal could not be closed, and will be finished once more: {error}"));
        }
    }

    /// After an abort: what an earlier run held is held as before.
    pub(crate) fn close_journal_but_for_held(&mut self) {
        self.remains.clone_from(&self.job.held);
        self.close_journal();
    }

    /// Finds the nodes that an earlier run took out and held, as far as they are still out because of it.
    pub(crate) fn adopt(&mut self, record: &Record) -> Result<(), StoreError> {
        for out in &record.nodes {
            let Some(place) = self.members.iter().position(|member| member.id == out.write.found.id) else { continue };
            let ours = match out.ours() {
                Some(node) => Some(node),
                None => match self.parts.store.fate(&out.write)? {
                    Fate::Made(node) | Fate::MadeThenChanged(node) => Some(node),
                    Fate::NotMade => None,
                    Fate::Unclear(why) => {
                        self.report
                            .warn(format!("node '{}' may be out because of an earlier run: {why}", out.write.found.id));
                        None
                    }
                },
            };
            let member = &mut self.members[place];
            if let Some(ours) = ours
                && let Decision::Repool(_) = decide(&ours, member.now.as_ref())
            {
                member.revision = Some(ours.revision);
                member.hold = Hold::Ours(ours);
                member.out = Some(out.write.clone());
                member.held = true;
            }
        }
        Ok(())
    }

    /// A host was held because these units did not run; it goes back only when they do.
    pub(crate) fn held_units_that_do_not_run(&mut self) -> Vec<Failure> {
        let held = self.job.held.iter().flat_map(|held| held.units.iter());
        let others: Vec<_> = held.filter(|unit| !self.job.units.contains(unit)).cloned().collect();
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
        self.close_journal();
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
