//! Watching the load balancers until all of them say what is wanted. This is where checks fail closed (rule 3): a verdict
//! confirms, contradicts, or is unknown, and unknown never confirms.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::{Heed, SLICE, Stopped};
use crate::load_balancer::{Question, Ticket, Verdict};
use crate::sequence::Parts;
use crate::span::span;

/// What the load balancers are to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That they know the host, in whatever state.
    Known,
    /// That they do not send to it.
    NotPooled,
    /// The same, all of them within [`FRESH`]: one that confirmed goes on being asked until the last one has.
    NotPooledNow,
    /// That they send to it.
    Pooled,
}

/// What one verdict means for what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This load balancer says what is wanted.
    Confirmed,
    /// It cannot be told; a quorum of others may do without this one.
    Unknown,
    /// It says something else; no quorum does without it.
    Contrary,
}

/// Judges one verdict. `in_store`: the store has the node as `yes` or `no`, so that a load balancer has to know it; for one
/// that is `inactive` or not there, 404 is the right answer (reference: PyBal drops inactive servers).
pub(crate) fn standing(wanted: Wanted, verdict: &Verdict, in_store: bool) -> Standing {
    use Verdict::{Absent, Down, Draining, Held, NotPooled, Pooled, Unknown};
    match (wanted, verdict) {
        (_, Unknown(_)) => Standing::Unknown,
        (Wanted::Known | Wanted::NotPooled | Wanted::NotPooledNow, Absent) if !in_store => Standing::Confirmed,
        (_, Absent) => Standing::Unknown,
        (Wanted::Known, Pooled | NotPooled | Held | Draining(_) | Down)
        | (Wanted::NotPooled | Wanted::NotPooledNow, NotPooled)
        | (Wanted::Pooled, Pooled) => Standing::Confirmed,
        (Wanted::NotPooled | Wanted::NotPooledNow, Pooled | Held | Draining(_) | Down)
        | (Wanted::Pooled, NotPooled | Held | Draining(_) | Down) => Standing::Contrary,
    }
}

/// One load balancer of one pool, as something to watch.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) question: Question,
    /// The membership whose node stands behind the pool, by its place in the run.
    pub(crate) member: usize,
    /// The store has the node as `yes` or `no`.
    pub(crate) in_store: bool,
    /// What it said last, in this watch or an earlier one.
    pub(crate) last: Option<Verdict>,
}

impl Watched {
    /// Whether `verdict` says what is wanted.
    pub(crate) fn confirmed(&self, wanted: Wanted, verdict: &Verdict) -> bool {
        standing(wanted, verdict, self.in_store) == Standing::Confirmed
    }
}

/// How long and how patiently.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The time allowed.
    pub(crate) allowed: Duration,
    /// The longest pause between two questions to one load balancer.
    pub(crate) longest_pause: Duration,
    /// How many of a pool's load balancers have to confirm; `None` is all.
    pub(crate) quorum: Option<usize>,
    /// Which signal ends the watch.
    pub(crate) heed: Heed,
}

/// Why a watch ended without what was wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unseen {
    /// Time is over.
    TimeOver {
        /// What stands in the way, one clause a load balancer.
        blame: String,
        /// Somebody contradicted; otherwise nobody could be asked.
        contradicted: bool,
    },
    /// A signal came.
    Stopped(Stopped),
}

/// One load balancer during a watch.
struct Poll {
    ticket: Option<Ticket>,
    due: Duration,
    /// By the last answer; one that contradicted is not excused by a later answer that tells nothing.
    standing: Option<Standing>,
    /// It has said nothing but what it said before this watch, and so before the write that this watch waits for.
    unchanged: bool,
    /// When it was last answered.
    heard: Duration,
    backoff: Backoff,
}

impl Poll {
    fn confirmed(&self) -> bool {
        self.standing == Some(Standing::Confirmed)
    }

    /// Whether it is to be asked (again) at all.
    fn open(&self, wanted: Wanted) -> bool {
        self.ticket.is_none() && (!self.confirmed() || wanted == Wanted::NotPooledNow)
    }
}

/// Asks all of `watched`, each at its own pace, until every pool is settled or the time is over. One that said what is
/// wanted is not asked again. The last verdicts are left in `watched`; `asked` counts the questions of the whole run, each of which has
/// a ticket of its own.
pub(crate) fn watch(
    parts: &mut Parts<'_>,
    asked: &mut u64,
    watched: &mut [Watched],
    wanted: Wanted,
    patience: Patience,
) -> Result<(), Unseen> {
    let began = parts.clock.now();
    let deadline = began + patience.allowed;
    let last_chance = deadline - LAST_CHANCE.min(patience.allowed / 4);
    let mut polls: Vec<Poll> = watched
        .iter()
        .map(|watched| Poll {
            ticket: None,
            due: began,
            standing: None,
            unchanged: watched.last.is_some(),
            heard: began,
            backoff: Backoff::new(began, patience.longest_pause),
        })
        .collect();
    let mut said = began;
    loop {
        let now = parts.clock.now();
        let stale = |poll: &Poll| wanted == Wanted::NotPooledNow && poll.confirmed() && now > poll.heard + FRESH;
        if settled(watched, &polls, patience.quorum) && !polls.iter().any(stale) {
            return Ok(());
        }
        patience.heed.check(parts.stop).map_err(Unseen::Stopped)?;
        if now >= deadline {
            // One that was asked and has not answered yet can be told as little of as one that cannot be asked.
            for (poll, watched) in polls.iter_mut().zip(watched.iter_mut()) {
                if poll.standing.is_none() || stale(poll) {
                    poll.standing = Some(Standing::Unknown);
                    watched.last = Some(Verdict::Unknown("it has not answered yet".to_owned()));
                }
            }
            if settled(watched, &polls, patience.quorum) {
                return Ok(());
            }
            return Err(time_over(watched, &polls, wanted, patience.allowed));
        }
        if now >= said + SAY_AGAIN {
            said = now;
            log::info!("still waiting: {}", blame(watched, &polls));
        }
        for (poll, watched) in polls.iter_mut().zip(watched.iter()) {
            if poll.open(wanted) && poll.due <= now {
                let ticket = Ticket(*asked);
                *asked += 1;
                parts.balancers.ask(ticket, &watched.question);
                poll.ticket = Some(ticket);
            }
        }
        let next = polls.iter().filter(|poll| poll.open(wanted));
        let next = next.map(|poll| poll.due).fold(deadline, Duration::min).saturating_sub(now).min(SLICE);
        for (ticket, verdict) in parts.balancers.answers(next) {
            // An answer to an earlier watch that was given up meanwhile has a ticket that nobody waits for.
            let Some(place) = polls.iter().position(|poll| poll.ticket == Some(ticket)) else {
                continue;
            };
            let now = parts.clock.now();
            let (poll, watched) = (&mut polls[place], &mut watched[place]);
            poll.ticket = None;
            poll.heard = now;
            poll.standing = Some(match standing(wanted, &verdict, watched.in_store) {
                Standing::Unknown if poll.standing == Some(Standing::Contrary) => Standing::Contrary,
                standing => standing,
            });
            poll.due = now + if poll.confirmed() { FRESH / 2 } else { poll.backoff.next(now, parts.clock.jitter()) };
            if now < last_chance {
                poll.due = poll.due.min(last_chance);
            }
            if watched.last.as_ref() != Some(&verdict) {
                poll.unchanged = false;
                let Question { balancer, pool, .. } = &watched.question;
                log::debug!("load balancer '{balancer}' of '{pool}' {verdict}");
            }
            watched.last = Some(verdict);
        }
    }
}

/// This long before the time is over each one that did not confirm is asked once more, wherever its pauses had got to.
const LAST_CHANCE: Duration = Duration::from_millis(500);
/// How old a confirmation may be at the last look before the restart.
const FRESH: Duration = Duration::from_secs(1);
/// How often a long wait says what it still waits for.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// Every pool has the confirmations it needs, nobody contradicts, and nobody was not heard at all.
fn settled(watched: &[Watched], polls: &[Poll], quorum: Option<usize>) -> bool {
    let heard = polls.iter().all(|poll| matches!(poll.standing, Some(Standing::Confirmed | Standing::Unknown)));
    heard
        && watched.iter().all(|one| {
            let pool = &one.question.pool;
            let of_pool = || watched.iter().zip(polls).filter(|(other, _)| other.question.pool == *pool);
            let confirmed = of_pool().filter(|(_, poll)| poll.confirmed()).count();
            confirmed >= quorum.unwrap_or(usize::MAX).min(of_pool().count())
        })
}

fn time_over(watched: &[Watched], polls: &[Poll], wanted: Wanted, allowed: Duration) -> Unseen {
    let contradicts = |one: &Watched| {
        let standing = one.last.as_ref().map(|verdict| standing(wanted, verdict, one.in_store));
        standing == Some(Standing::Contrary)
    };
    Unseen::TimeOver {
        blame: format!("after {}, {}", span(allowed), blame(watched, polls)),
        contradicted: watched.iter().any(contradicts),
    }
}

/// Names every load balancer that did not confirm, and what it said.
fn blame(watched: &[Watched], polls: &[Poll]) -> String {
    let clauses = watched.iter().zip(polls).filter(|(_, poll)| !poll.confirmed());
    let clauses = clauses.map(|(watched, poll)| {
        let Question { balancer, pool, .. } = &watched.question;
        match (&watched.last, poll.standing) {
            // A watcher that has died serves what it last saw for ever (reference: PyBal, 200 and wrong).
            (Some(verdict), Some(Standing::Contrary)) if poll.unchanged => format!(
                "load balancer '{balancer}' of '{pool}' {verdict}, as before the write: it is slow, or no longer follows the store"
            ),
            (Some(verdict), Some(_)) => format!("load balancer '{balancer}' of '{pool}' {verdict}"),
            _ => format!("load balancer '{balancer}' of '{pool}' has not answered yet"),
        }
    });
    clauses.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disabled_and_not_pooled_confirms_a_depool() {
        let unknown = Verdict::Unknown("timed out".to_owned());
        let table = [
            (Verdict::Pooled, Standing::Contrary),
            (Verdict::NotPooled, Standing::Confirmed),
            (Verdict::Held, Standing::Contrary),
            (Verdict::Draining("1 session is still open".to_owned()), Standing::Contrary),
            (Verdict::Down, Standing::Contrary),
            (Verdict::Absent, Standing::Unknown),
            (unknown, Standing::Unknown),
        ];
        for (verdict, expected) in table {
            assert_eq!(standing(Wanted::NotPooled, &verdict, true), expected, "{verdict:?}");
        }
    }

    #[test]
    fn only_pooled_confirms_a_repool() {
        for verdict in [Verdict::NotPooled, Verdict::Held, Verdict::Draining("x".to_owned()), Verdict::Down] {
            assert_eq!(standing(Wanted::Pooled, &verdict, true), Standing::Contrary, "{verdict:?}");
        }
        assert_eq!(standing(Wanted::Pooled, &Verdict::Pooled, true), Standing::Confirmed);
        assert_eq!(standing(Wanted::Pooled, &Verdict::Absent, true), Standing::Unknown);
    }

    #[test]
    fn a_404_confirms_only_for_a_node_that_no_load_balancer_has_to_know() {
        for wanted in [Wanted::Known, Wanted::NotPooled] {
            assert_eq!(standing(wanted, &Verdict::Absent, false), Standing::Confirmed);
            assert_eq!(standing(wanted, &Verdict::Absent, true), Standing::Unknown);
        }
        assert_eq!(standing(Wanted::NotPooled, &Verdict::Pooled, false), Standing::Contrary);
    }
}
