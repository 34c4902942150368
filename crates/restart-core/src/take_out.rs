//! The steps before the restart: each either succeeds or aborts the run, and an abort always goes through
//! [`Run::put_back`], so that no step has to clean up after itself.

use std::collections::BTreeMap;

use crate::clock::Heed;
use crate::journal::Phase;
use crate::names::UnitName;
use crate::outcome::{ExitCode, Failure};
use crate::pool::{PoolPath, Pooled};
use crate::run::{Abort, Hold, Membership, Run, questions};
use crate::sequence::{Action, Purpose};
use crate::service::{ActiveState, LoadState, UnitStatus};
use crate::store::WriteError;
use crate::watch::{Unseen, Wanted};

/// How often a depool is decided anew because somebody else wrote in between.
pub(crate) const CONFLICTS: u32 = 5;

impl Run<'_> {
    /// Every unit must be one that systemd knows, before anything is depooled for it.
    pub(crate) fn look_at_units(&mut self) -> Result<(), Abort> {
        self.phase("look at units", |run| {
            // Looked at again after the wait for a slot, all of them.
            run.uncounted = None;
            for unit in &run.job.units {
                Heed::First.check(run.parts.stop)?;
                let status = run.status(unit)?;
                let wrong = match &status.load {
                    LoadState::Loaded if run.job.action == Action::Reload && !status.can_reload => "cannot be reloaded",
                    LoadState::Loaded => "",
                    LoadState::NotFound => "does not exist on this host",
                    LoadState::Masked => "is masked",
                    LoadState::Other(word) => word.as_str(),
                };
                if !wrong.is_empty() {
                    return Err(Failure::new(ExitCode::Configuration, format!("unit '{unit}' {wrong}")).into());
                }
                if run.job.action == Action::Reload && status.active != ActiveState::Active {
                    let state = status.active.as_str();
                    let message = format!("unit '{unit}' is {state}: what does not run cannot be reloaded");
                    return Err(Failure::new(ExitCode::Failed, message).into());
                }
                run.learn(unit, &status)?;
            }
            Ok(())
        })
    }

    /// How a unit stands.
    pub(crate) fn status(&mut self, unit: &UnitName) -> Result<UnitStatus, Failure> {
        let status = self.parts.services.status(unit);
        status.map_err(|error| Failure::new(ExitCode::Unreachable, format!("cannot look at unit '{unit}': {error}")))
    }

    /// Finds out how this unit's requests in flight are counted.
    fn learn(&mut self, unit: &UnitName, status: &UnitStatus) -> Result<(), Failure> {
        let Err(why) = self.parts.probe.learn(unit, status) else { return Ok(()) };
        let why = format!("requests in flight at '{unit}' cannot be counted: {why}");
        if self.job.require_drained {
            return Err(Failure::new(ExitCode::Configuration, format!("cannot require a drained host: {why}")));
        }
        if !self.pools.is_empty() && !self.job.grace.is_zero() {
            self.report.note(format!("the whole grace period is waited for: {why}"));
        }
        self.uncounted = Some(why);
        Ok(())
    }

    /// Reads this host's nodes, of which there has to be at least one.
    pub(crate) fn read_pools(&mut self) -> Result<(), Abort> {
        self.read_nodes()?;
        self.check_membership()
    }

    /// Reads this host's nodes from the places of the pools named, and from nowhere else.
    pub(crate) fn read_nodes(&mut self) -> Result<(), Abort> {
        let Some(place) = &self.job.place else { return Ok(()) };
        self.phase("read pools", |run| {
            // Read again after the wait for a slot, all of it.
            run.members.clear();
            run.watched.clear();
            run.unread.clear();
            let mut paths: BTreeMap<PoolPath, Vec<usize>> = BTreeMap::new();
            for (number, pool) in place.pools.iter().enumerate() {
                paths.entry(pool.path(&place.data_centre)).or_default().push(number);
            }
            for (path, pools) in paths {
                Heed::First.check(run.parts.stop)?;
                let names = run.pool_names(&pools);
                let listing = run.parts.store.list(&path);
                let read = listing.and_then(|listing| Ok((listing.node(&place.host)?.cloned(), listing.nodes)));
                let (found, listing) = match read.map_err(|error| error.failure(&format!("read pool {names}"))) {
                    Ok(read) => read,
                    Err(failure) if run.goes_on_without_some() => {
                        run.unread.push(failure);
                        continue;
                    }
                    Err(failure) => return Err(failure.into()),
                };
                log::debug!("pool {names}: {}", found.as_ref().map_or("no node", |node| node.pooled.as_str()));
                let id = path.node(&place.host);
                run.watched.extend(questions(place, run.members.len(), &pools));
                let named = pools.iter().any(|pool| !place.unnamed.contains(&place.pools[*pool].name));
                run.members.push(Membership { names, named, pools, listing, ..Membership::of(id, found) });
            }
            match run.unread.first() {
                Some(failure) if run.members.is_empty() => Err(Abort::from(failure.clone())),
                _ => Ok(()),
            }
        })?;
        match &self.job.left {
            Some(left) if self.purpose != Purpose::Recover => self.adopt(left).map_err(Abort::Failed),
            _ => Ok(()),
        }
    }

    /// Where each HAProxy keeps its own, one that is dead does not stand for the others: on a way back what can be put back is put
    /// back. An etcd that does not answer for one place does not for the next.
    pub(crate) fn goes_on_without_some(&self) -> bool {
        matches!(self.purpose, Purpose::Recover | Purpose::Pool) && !self.parts.store.has_revisions()
    }

    /// Rule 5: an empty selection is never "nothing to depool". A host in none of the pools named is an error.
    fn check_membership(&mut self) -> Result<(), Abort> {
        let named = || self.members.iter().filter(|member| member.named);
        let all_read = self.unread.is_empty();
        if all_read && named().count() > 0 && named().all(|member| member.found.is_none()) {
            let places: Vec<_> = named().map(|member| self.parts.store.whereabouts(&member.id)).collect();
            let message =
                format!("'{}' is in none of the pools named: there is no object {}", self.host, places.join(", "));
            return Err(Failure::new(ExitCode::Configuration, message).into());
        }
        self.known_in_every_part()?;
        for place in 0..self.members.len() {
            let member = &self.members[place];
            let names = &member.names;
            match member.found.as_ref().map(|node| node.pooled) {
                Some(Pooled::Yes) => {}
                _ if !member.named && !member.adopted => {}
                // `--pool` is about to change a `no`.
                Some(Pooled::No) if self.purpose == Purpose::Pool => {}
                Some(_) if member.adopted => {
                    self.report.note(format!("'{}' is out of {names} because of an earlier run", self.host));
                }
                Some(pooled) => {
                    self.report.warn(format!("'{}' is already '{pooled}' in {names}, and stays so", self.host));
                }
                None => self.report.note(format!("'{}' is not in {names}: no object '{}'", self.host, member.id)),
            }
        }
        Ok(())
    }

    /// Where each load balancer keeps the pool for itself, all of them must know this host. One that does not may have it under
    /// another name, would go on sending to it, and could not be seen to. An operator's `--pool` does not wait for that.
    fn known_in_every_part(&self) -> Result<(), Failure> {
        let parts = |member: &Membership| {
            let pools = member.pools.iter().map(|place| &self.pools[*place]);
            pools.filter(|pool| pool.part.is_some()).map(|pool| pool.name.clone()).collect::<Vec<_>>()
        };
        let named = || self.members.iter().filter(|member| member.named && self.purpose != Purpose::Pool);
        for absent in named().filter(|member| member.found.is_none()) {
            let shared = parts(absent);
            let knows =
                |member: &&Membership| member.found.is_some() && parts(member).iter().any(|name| shared.contains(name));
            let Some(there) = named().find(knows) else { continue };
            return Err(Failure::new(
                ExitCode::Configuration,
                format!(
                    "'{}' is in {}, and not in {}: there is no {}; under another name it would go on being sent requests there",
                    self.host,
                    there.names,
                    absent.names,
                    self.parts.store.whereabouts(&absent.id)
                ),
            ));
        }
        Ok(())
    }

    /// Watches the load balancers of the pools named; `what` completes "cannot ...". Where one contradicts, that is a failure; where some
    /// could only not be asked, they are unreachable.
    fn see(&mut self, wanted: Wanted, what: &str) -> Result<(), Abort> {
        self.watch(wanted, Heed::First, |member| member.named).map_err(|unseen| match unseen {
            Unseen::Stopped(stopped) => stopped.into(),
            Unseen::TimeOver { blame, contradicted } => {
                let code = if contradicted { ExitCode::Failed } else { ExitCode::Unreachable };
                Failure::new(code, format!("cannot {what}: {blame}")).into()
            }
        })
    }

    /// The first look: each load balancer must know this host in this pool, or it could never be seen to let go of it.
    pub(crate) fn see_known(&mut self) -> Result<(), Abort> {
        self.phase("first look at load balancers", |run| {
            run.see(Wanted::Known, &format!("make sure that every load balancer knows '{}'", run.host))
        })
    }

    /// Writes `no` to each node that is `yes`.
    pub(crate) fn depool(&mut self) -> Result<(), Abort> {
        self.phase("depool", |run| {
            for place in 0..run.members.len() {
                Heed::First.check(run.parts.stop)?;
                if run.members[place].named {
                    run.depool_one(place)?;
                }
            }
            Ok(())
        })
    }

    fn depool_one(&mut self, place: usize) -> Result<(), Failure> {
        let host = self.host;
        let names = self.members[place].names.clone();
        let what = format!("depool '{host}' in {names}");
        for _ in 0..CONFLICTS {
            let member = &mut self.members[place];
            let Some(node) = member.now.clone().filter(|node| node.pooled == Pooled::Yes) else {
                return Ok(());
            };
            let write = self.parts.store.prepare(&node, Pooled::No).map_err(|error| error.failure(&what))?;
            if member.out.as_ref() != Some(&write) {
                member.out = Some(write.clone());
                self.keep(Phase::TakingOut)?;
            }
            match self.parts.store.write(&write) {
                Ok(node) => {
                    log::info!("depooled '{host}' in {names}");
                    let revision = node.revision;
                    self.depooled_at(place, node)?;
                    return self.check_capacity_again(place, revision);
                }
                Err(WriteError::Conflict) => {
                    let member = &mut self.members[place];
                    member.out = None;
                    member.now = self.parts.store.read(&member.id).map_err(|error| error.failure(&what))?;
                    let now = member.now.as_ref().map_or("deleted", |node| node.pooled.as_str());
                    self.report
                        .warn(format!("somebody changed '{host}' in {names} at the same time; it is now '{now}'"));
                    // Or a recovery could take somebody else's write, of the same bytes, for ours. Where it is tried again, the
                    // journal is kept before that, and must not be closed meanwhile: the host would no longer be counted.
                    if now != Pooled::Yes.as_str() {
                        self.keep(Phase::TakingOut)?;
                    }
                }
                Err(WriteError::NotMade(error)) => return Err(error.failure(&what)),
                Err(WriteError::Unknown(error)) => {
                    self.members[place].hold = Hold::Attempted(write);
                    return Err(error.failure(&what));
                }
            }
        }
        Err(Failure::new(ExitCode::Failed, format!("cannot {what}: the object keeps changing")))
    }

    /// Every load balancer of every pool named has to say that it stopped sending, also where the node was `no` already.
    pub(crate) fn see_not_pooled(&mut self) -> Result<(), Abort> {
        self.phase("load balancers stop sending", |run| {
            run.see(Wanted::NotPooled, &format!("confirm that '{}' is not pooled", run.host))
        })
    }

    /// After the wait for requests in flight, where no restart follows: a host that came back meanwhile is not said to be out. It
    /// was seen to be out, so that an outage of those who are asked again is no reason to put it back; nor is a refusal, with which an
    /// etcd without a leader answers users.
    pub(crate) fn see_still_out(&mut self) -> Result<(), Abort> {
        self.phase("last look", |run| {
            let read = run.nobody_pooled().map_err(Abort::from);
            run.unless_away(read)?;
            let what = format!("confirm, after the drain, that '{}' is not pooled", run.host);
            let seen = run.see(Wanted::NotPooledNow, &what);
            run.unless_away(seen)
        })
    }

    fn unless_away(&mut self, looked: Result<(), Abort>) -> Result<(), Abort> {
        match looked {
            Err(Abort::Failed(failure)) if matches!(failure.code, ExitCode::Unreachable | ExitCode::Configuration) => {
                self.report.warn(failure.message);
                Ok(())
            }
            looked => looked,
        }
    }

    /// Right before the restart: nobody put the host back meanwhile, and no load balancer sends again.
    pub(crate) fn last_look(&mut self) -> Result<(), Abort> {
        if self.pools.is_empty() {
            return Ok(Heed::First.check(self.parts.stop)?);
        }
        self.phase("last look", |run| {
            run.nobody_pooled()?;
            let what = format!("confirm, right before the restart, that '{}' is not pooled", run.host);
            run.see(Wanted::NotPooledNow, &what)?;
            run.slot_is_ours()?;
            run.alone()?;
            // All that the restart needs and that takes time, before the store is read for the last time: load balancers
            // follow the store, so it has the last word, and nothing comes between it and the restart.
            run.first_unit = run.job.units.first().and_then(|unit| run.parts.services.status(unit).ok());
            run.note_phase(Phase::Restarting);
            run.nobody_pooled()?;
            Ok(Heed::First.check(run.parts.stop)?)
        })
    }

    /// Reads each node again: an operator who pooled the host while we held it does not want it restarted now.
    fn nobody_pooled(&mut self) -> Result<(), Failure> {
        let mut read = Ok(());
        for member in self.members.iter_mut().filter(|member| member.named) {
            match self.parts.store.read(&member.id) {
                Ok(now) => member.now = now,
                // What was seen before is no less so.
                Err(error) => {
                    read = Err(error.failure(&format!("read '{}' again", member.id)));
                    break;
                }
            }
        }
        let Some(member) = self.members.iter().find(|member| member.named && member.is_in()) else { return read };
        let (names, kind) = (&member.names, self.parts.store.kind());
        // Whose word it was cannot be told where there are no revisions.
        let or = match self.parts.store.has_revisions() {
            true => String::new(),
            false => format!(", or {kind} was restarted or reloaded and has forgotten that it is out"),
        };
        let when = if self.purpose.restarts() { "before the restart" } else { "meanwhile" };
        let message = format!("somebody pooled '{}' in {names} {when}{or}", self.host);
        Err(Failure::new(ExitCode::Failed, message))
    }
}
