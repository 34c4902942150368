//! A question on its way from member to member: how long it may take at each, and what a trouble at one of them means for the
//! others. Whose turn it is, and how it is asked, is left to `cluster.rs`, which blocks, and to `slots/ring.rs`, which does not.

use std::time::Duration;

use restart_core::StoreError;

use crate::limits::Deadline;
use crate::member::{Kind, Trouble};

/// One question that may be asked twice, and what came of it so far.
pub(crate) struct Walk {
    members: usize,
    deadline: Deadline,
    /// How many members were given up in this round.
    passed: usize,
    /// Whether this is the one other round that silence is worth.
    is_second_round: bool,
    /// The member whose turn it is has dropped a connection once already.
    is_second_attempt: bool,
    failures: Failures,
}

/// What to do after a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask the same member once more.
    AskAgain,
    /// Ask the next one.
    PassOver,
    /// The same, after a pause: a leader is being elected.
    PassOverLater,
    /// Ask nobody else.
    Stop,
}

impl Walk {
    /// A question to so many members that nobody was asked yet.
    pub(crate) fn begin(members: usize, deadline: Deadline) -> Self {
        Self {
            members,
            deadline,
            passed: 0,
            is_second_round: false,
            is_second_attempt: false,
            failures: Failures::default(),
        }
    }

    /// How long the member whose turn it is may take; `None`: all that may be asked were asked, or the time is over.
    pub(crate) fn next_request(&mut self) -> Option<Duration> {
        if self.passed == self.members {
            return None;
        }
        let limit = self.deadline.next_request();
        if limit.is_none() {
            self.failures.out_of_time = Some(self.deadline.total());
        }
        limit
    }

    /// Notes what the member at `url` said instead of answering.
    pub(crate) fn note(&mut self, url: &str, trouble: Trouble) -> Next {
        let kind = trouble.kind;
        self.failures.add(url, trouble);
        match kind {
            Kind::Refused => Next::Stop,
            // An idle connection that a restarted member has forgotten: the second attempt makes a new one.
            Kind::Dropped if !self.is_second_attempt => {
                self.is_second_attempt = true;
                Next::AskAgain
            }
            Kind::Dropped | Kind::NotAsked | Kind::NoLeader | Kind::NoAnswer | Kind::NoRoom | Kind::NoApi => {
                self.is_second_attempt = false;
                self.passed += 1;
                if self.passed == self.members { self.end_round() } else { Next::PassOver }
            }
        }
    }

    /// All were asked: begins another round if that may come to more.
    fn end_round(&mut self) -> Next {
        if self.failures.awaits_leader(self.deadline) {
            self.passed = 0;
            Next::PassOverLater
        } else {
            if self.failures.has_silence() && !self.is_second_round {
                self.is_second_round = true;
                self.passed = 0;
            }
            Next::PassOver
        }
    }

    /// The error that all troubles together are. `what` completes "cannot ...".
    pub(crate) fn into_error(self, what: &str) -> StoreError {
        self.failures.into_error(what)
    }
}

/// What each member said instead of answering.
#[derive(Default)]
pub(crate) struct Failures {
    reasons: Vec<(String, Trouble)>,
    /// The time for the whole operation, if that was what ended it.
    out_of_time: Option<Duration>,
}

impl Failures {
    /// Notes the trouble with a member; of several the last is kept.
    pub(crate) fn add(&mut self, url: &str, trouble: Trouble) {
        log::debug!("etcd '{url}': {}", trouble.why);
        match self.reasons.iter_mut().find(|(known, _)| known == url) {
            Some((_, last)) => *last = trouble,
            None => self.reasons.push((url.to_owned(), trouble)),
        }
    }

    /// Whether somebody among several kept silent. A leader that died or froze takes the requests of the first seconds with it,
    /// whichever member they were sent to; by now another one may have been elected.
    fn has_silence(&self) -> bool {
        self.reasons.len() > 1 && self.has(Kind::NoAnswer)
    }

    /// Whether a member knows of no leader, and there is time to elect one: worth a pause and another round. A member that has
    /// one answers within milliseconds, so that this costs nothing but the time in which nobody could have answered.
    pub(crate) fn awaits_leader(&self, deadline: Deadline) -> bool {
        self.has(Kind::NoLeader) && deadline.is_time_to_elect()
    }

    fn has(&self, kind: Kind) -> bool {
        self.reasons.iter().any(|(_, trouble)| trouble.kind == kind)
    }

    /// One error for all: a refusal if a member refused or none has the API, else that the store cannot be reached.
    pub(crate) fn into_error(self, what: &str) -> StoreError {
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(url, trouble)| format!("etcd '{url}': {}", trouble.why)).collect();
        if let Some(total) = self.out_of_time {
            reasons.push(format!("no time left after {} s", total.as_secs_f32()));
        }
        let text = format!("cannot {what}: {}", reasons.join("; "));
        let mut kinds = self.reasons.iter().map(|(_, trouble)| trouble.kind);
        let is_refused = kinds.clone().any(|kind| kind == Kind::Refused);
        let has_no_api = !self.reasons.is_empty() && kinds.all(|kind| kind == Kind::NoApi);
        if is_refused || has_no_api { StoreError::Refused(text) } else { StoreError::Unreachable(text) }
    }
}
