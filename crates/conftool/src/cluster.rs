//! The members of the store in their order, and passing over those that do not answer. Whoever answered last is asked first,
//! so that a dead or frozen member costs its time once and not with every request.

use std::time::Duration;

use restart_core::StoreError;

use crate::limits::Deadline;
use crate::member::{Kind, Member, Trouble};

/// All members.
pub(crate) struct Cluster {
    members: Vec<Box<dyn Member>>,
    first: usize,
}

impl Cluster {
    /// Members in the order in which they are to be tried.
    pub(crate) fn new(members: Vec<Box<dyn Member>>) -> Self {
        Self { members, first: 0 }
    }

    /// The members' URLs, for messages.
    pub(crate) fn urls(&self) -> Vec<&str> {
        self.members.iter().map(|member| member.url()).collect()
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The member that is asked first at the moment.
    pub(crate) fn first(&mut self) -> Option<&mut Box<dyn Member>> {
        self.members.get_mut(self.first)
    }

    /// Puts the next member first, since the one that was gave no answer.
    pub(crate) fn pass_over(&mut self) {
        self.first = (self.first + 1) % self.members.len().max(1);
    }

    /// Asks a question that changes nothing, member after member, until one answers. `what` completes "cannot ...".
    pub(crate) fn ask<T>(
        &mut self,
        what: &str,
        deadline: Deadline,
        mut question: impl FnMut(&mut dyn Member, Duration) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let mut failures = Failures::default();
        for asked in 0..self.members.len() * 2 {
            if asked == self.members.len() && !failures.is_worth_another_round() {
                break;
            }
            let Some(limit) = deadline.next_request() else {
                failures.out_of_time = Some(deadline.total());
                break;
            };
            let Some(member) = self.members.get_mut(self.first) else {
                break;
            };
            let answer = match question(member.as_mut(), limit) {
                // An idle connection that a restarted member has forgotten: the second attempt makes a new one.
                Err(trouble) if trouble.kind == Kind::Dropped => match deadline.next_request() {
                    Some(limit) => question(member.as_mut(), limit),
                    None => Err(trouble),
                },
                other => other,
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(trouble) => {
                    let is_final = trouble.kind == Kind::Refused;
                    failures.add(member.url(), trouble);
                    if is_final {
                        break;
                    }
                }
            }
            self.pass_over();
        }
        Err(failures.into_error(what))
    }
}

/// What each member said instead of answering.
#[derive(Default)]
pub(crate) struct Failures {
    reasons: Vec<(String, Trouble)>,
    /// The time for the whole operation, if that was what ended it.
    pub(crate) out_of_time: Option<Duration>,
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
    pub(crate) fn is_worth_another_round(&self) -> bool {
        self.reasons.len() > 1 && self.reasons.iter().any(|(_, trouble)| trouble.kind == Kind::NoAnswer)
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use super::*;
    use crate::limits::REQUEST;
    use crate::member::{Attempt, Change, Marks, Object, Swap, Trace};

    type Asked = Rc<RefCell<Vec<String>>>;

    /// A member that gives the troubles it was told to, then answers.
    struct Fake {
        url: String,
        troubles: VecDeque<Kind>,
        asked: Asked,
    }

    impl Member for Fake {
        fn url(&self) -> &str {
            &self.url
        }

        fn list(&mut self, _: &str, _: Duration) -> Result<Vec<Object>, Trouble> {
            Ok(Vec::new())
        }

        fn get(&mut self, _: &str, _: Duration) -> Result<Option<Object>, Trouble> {
            self.asked.borrow_mut().push(self.url.clone());
            match self.troubles.pop_front() {
                Some(kind) => Err(Trouble::new(kind, "ill")),
                None => Ok(None),
            }
        }

        fn trace(&mut self, _: &str, _: &str, _: Duration) -> Result<Trace, Trouble> {
            Ok(Trace { revision: None, mark: Marks::Unused })
        }

        fn swap(&mut self, _: &Attempt<'_>, _: Duration) -> Result<Swap, Trouble> {
            Ok(Swap::Changed)
        }

        fn first_change(&mut self, _: &str, _: Option<&str>, _: u64, _: Duration) -> Result<Change, Trouble> {
            Ok(Change::Forgotten)
        }
    }

    fn cluster(members: &[(&str, &[Kind])]) -> (Cluster, Asked) {
        let asked = Asked::default();
        let fake = |(url, troubles): &(&str, &[Kind])| {
            let troubles = troubles.iter().copied().collect();
            Box::new(Fake { url: (*url).to_owned(), troubles, asked: Rc::clone(&asked) }) as Box<dyn Member>
        };
        (Cluster::new(members.iter().map(fake).collect()), asked)
    }

    fn get(cluster: &mut Cluster) -> Result<Option<Object>, StoreError> {
        cluster.ask("read '/k'", Deadline::begin(REQUEST), |member, limit| member.get("/k", limit))
    }

    #[test]
    fn who_answered_last_is_asked_first() {
        let (mut cluster, asked) = cluster(&[("a", &[Kind::NoAnswer, Kind::NoAnswer]), ("b", &[]), ("c", &[])]);
        assert_eq!(get(&mut cluster), Ok(None));
        assert_eq!(get(&mut cluster), Ok(None));
        assert_eq!(*asked.borrow(), ["a", "b", "b"]);
    }

    #[test]
    fn a_dropped_connection_is_worth_a_second_attempt_and_no_third() {
        let (mut cluster, asked) = cluster(&[("a", &[Kind::Dropped]), ("b", &[])]);
        assert_eq!(get(&mut cluster), Ok(None));
        assert_eq!(*asked.borrow(), ["a", "a"]);
        let (mut cluster, asked) = self::cluster(&[("a", &[Kind::Dropped; 3]), ("b", &[])]);
        assert_eq!(get(&mut cluster), Ok(None));
        assert_eq!(*asked.borrow(), ["a", "a", "b"]);
    }

    #[test]
    fn all_are_asked_again_if_one_of_several_kept_silent() {
        let (mut cluster, asked) = cluster(&[("a", &[Kind::NoAnswer]), ("b", &[Kind::NotAsked; 2])]);
        assert_eq!(get(&mut cluster), Ok(None));
        assert_eq!(*asked.borrow(), ["a", "b", "a"]);
        for (members, wanted) in [
            (&[("a", &[Kind::NotAsked; 3][..]), ("b", &[Kind::NotAsked; 3])][..], &["a", "b"][..]),
            (&[("a", &[Kind::NoAnswer; 3])], &["a"]),
            (&[("a", &[Kind::NoAnswer; 3]), ("b", &[Kind::NotAsked; 3])], &["a", "b", "a", "b"]),
        ] {
            let (mut cluster, asked) = self::cluster(members);
            assert!(matches!(get(&mut cluster), Err(StoreError::Unreachable(_))));
            assert_eq!(*asked.borrow(), wanted);
        }
    }

    #[test]
    fn a_refusal_is_final() {
        let (mut cluster, asked) = cluster(&[("a", &[Kind::NoAnswer]), ("b", &[Kind::Refused]), ("c", &[])]);
        let text = "cannot read '/k': etcd 'a': ill; etcd 'b': ill".to_owned();
        assert_eq!(get(&mut cluster), Err(StoreError::Refused(text)));
        assert_eq!(*asked.borrow(), ["a", "b"]);
    }

    #[test]
    fn a_missing_api_is_a_refusal_only_if_no_member_may_have_it() {
        let (mut all, _) = cluster(&[("a", &[Kind::NoApi]), ("b", &[Kind::NoApi])]);
        assert!(matches!(get(&mut all), Err(StoreError::Refused(_))));
        let (mut some, _) = cluster(&[("a", &[Kind::NoApi]), ("b", &[Kind::NotAsked])]);
        assert!(matches!(get(&mut some), Err(StoreError::Unreachable(_))));
    }
}
