//! In what state a run leaves the host, and the words for it: the last line that somebody reads who was woken up.

use crate::pool::Pooled;
use crate::report::ServicesState;
use crate::run::{Hold, Membership, Run};
use crate::sequence::Purpose;

/// The state a host is left in, as far as the sequence knows.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    Held,
    /// A recovery did not get as far as the pools.
    NotFinished,
}

impl Run<'_> {
    /// One line, a clause for each thing that the reader has to know.
    pub(crate) fn state_in_words(&self) -> String {
        if self.state == State::Planned {
            return "nothing was changed".to_owned();
        }
        let mut clauses: Vec<String> = Vec::new();
        if self.purpose.restarts() {
            let services = match self.report.services {
                ServicesState::Untouched => "not restarted",
                ServicesState::Failed => self.job.action.failed(),
                ServicesState::Done => self.job.action.done(),
            };
            clauses.push(services.to_owned());
        }
        if self.purpose == Purpose::Force {
            clauses.push("pools untouched".to_owned());
        } else if self.job.place.is_none() {
            if self.state == State::BroughtBack || self.state == State::LeftDepooled {
                clauses.push("there was no pool to leave".to_owned());
            }
        } else {
            clauses.extend(self.pools_in_words());
        }
        clauses.join(", ")
    }

    fn pools_in_words(&self) -> Vec<String> {
        let remedy = format!("put it back with '{}'", self.job.way_back);
        // By the journal: the store may not have been read.
        if let (State::Held | State::NotFinished, Some(left)) = (self.state, &self.job.left) {
            let mut pools: Vec<_> =
                left.nodes.iter().flat_map(|out| &out.pools).map(|pool| format!("'{pool}'")).collect();
            pools.sort();
            pools.dedup();
            let pools = self.held_in.clone().unwrap_or_else(|| pools.join(", "));
            return vec![match self.state {
                State::Held if pools.is_empty() => {
                    let way_out = &self.job.way_out;
                    format!(
                        "held by an earlier run, and in service all the same; repair it, or take it out with '{way_out}'"
                    )
                }
                State::Held => format!("held depooled in {pools} by an earlier run; once it is healthy, {remedy}"),
                _ => format!("perhaps still depooled in {pools}; the next recovery goes on, or {remedy}"),
            }];
        }
        let mut clauses = Vec::new();
        let left = self.state == State::LeftDepooled;
        let out = self.pools_where(|member| match member.hold {
            Hold::Ours(_) => true,
            // Not made, as far as can be told.
            Hold::Attempted(_) => !left,
            Hold::Untouched | Hold::Returned | Hold::Theirs => false,
        });
        let back = self.pools_where(|member| matches!(member.hold, Hold::Returned));
        let theirs = self.pools_where(|member| matches!(member.hold, Hold::Theirs));
        let as_found = match self.state {
            State::AsFound => theirs.is_empty(),
            _ => out.is_empty() && back.is_empty() && theirs.is_empty(),
        };
        if as_found {
            clauses.push("pools as found".to_owned());
        } else if !back.is_empty() {
            let confirmed = matches!(self.state, State::AsFound | State::BroughtBack | State::Pooled);
            let all = if confirmed { "" } else { ", but not every load balancer says so" };
            clauses.push(format!("pooled again in {back}{all}"));
        }
        if !out.is_empty() {
            clauses.push(match self.state {
                State::LeftDepooled => format!("left depooled in {out}; once it is healthy, {remedy}"),
                State::Depooled => format!("depooled in {out}; {remedy}"),
                _ => format!("perhaps still depooled in {out}; recovery goes on trying, or {remedy}"),
            });
        }
        // What could not be read, and is gone on with once it can be.
        let unread: Vec<_> = self.others.iter().filter(|out| !out.held && !out.returned).collect();
        if !unread.is_empty() && self.state == State::RepoolUnconfirmed {
            let unread = unread.iter().map(|out| self.parts.store.whereabouts(&out.write.found.id));
            clauses.push(format!("perhaps still depooled: {}; {remedy}", unread.collect::<Vec<_>>().join(", ")));
        }
        if !theirs.is_empty() {
            clauses.push(format!("left as somebody else set it in {theirs}"));
        }
        let held = self.pools_where(|member| member.adopted && matches!(member.hold, Hold::Untouched));
        if !held.is_empty() {
            clauses.push(format!("still depooled in {held} because of an earlier run"));
        }
        // Not our doing, and all the same what the reader has to know: this host serves nothing there.
        let idle = |member: &Membership| {
            let now = member.now.as_ref().map(|node| node.pooled);
            let untouched = matches!(member.hold, Hold::Untouched) && !member.adopted;
            (untouched || matches!(member.hold, Hold::Theirs)) && matches!(now, Some(Pooled::No | Pooled::Inactive))
        };
        let idle = self.pools_where(idle);
        if !idle.is_empty() {
            clauses.push(format!("NOT in service in {idle}, which is not ours to change"));
        }
        clauses
    }
}
