//! The members of the store in their order, and passing over those that do not answer. Whoever answered last is asked first,
//! so that a dead or frozen member costs its time once and not with every request.

use std::time::Duration;

use restart_core::StoreError;

use crate::limits::{Deadline, PAUSE};
use crate::member::{Member, Trouble};
use crate::walk::{Next, Walk};

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

    /// Puts a question that may be asked twice to member after member, until one answers. `what` completes "cannot ...".
    pub(crate) fn ask<T>(
        &mut self,
        what: &str,
        deadline: Deadline,
        mut question: impl FnMut(&mut dyn Member, Duration) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let mut walk = Walk::begin(self.members.len(), deadline);
        while let (Some(limit), Some(member)) = (walk.next_request(), self.members.get_mut(self.first)) {
            match question(member.as_mut(), limit) {
                Ok(answer) => return Ok(answer),
                Err(trouble) => match walk.note(member.url(), trouble) {
                    Next::AskAgain => {}
                    Next::PassOver => self.pass_over(),
                    Next::PassOverLater => {
                        self.pass_over();
                        std::thread::sleep(PAUSE);
                    }
                    Next::Stop => break,
                },
            }
        }
        Err(walk.into_error(what))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use super::*;
    use crate::limits::REQUEST;
    use crate::member::{Attempt, Change, Kind, Marks, Object, Swap, Trace};

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

        fn list_all(&mut self, _: &str, _: Duration) -> Result<Vec<Object>, Trouble> {
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

        fn remove(&mut self, _: &str, _: Duration) -> Result<(), Trouble> {
            Ok(())
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
            (&[("a", &[Kind::NoRoom; 3]), ("b", &[Kind::NoRoom; 3])], &["a", "b"]),
            (&[("a", &[Kind::NoAnswer; 3])], &["a"]),
            (&[("a", &[Kind::NoAnswer; 3]), ("b", &[Kind::NotAsked; 3])], &["a", "b", "a", "b"]),
        ] {
            let (mut cluster, asked) = self::cluster(members);
            assert!(matches!(get(&mut cluster), Err(StoreError::Unreachable(_))));
            assert_eq!(*asked.borrow(), wanted);
        }
    }

    #[test]
    fn a_leader_is_waited_for_while_one_may_be_elected() {
        let (mut cluster, asked) = cluster(&[("a", &[Kind::NotAsked; 2]), ("b", &[Kind::NoLeader; 2])]);
        assert_eq!(get(&mut cluster), Ok(None));
        assert_eq!(*asked.borrow(), ["a", "b", "a", "b", "a"]);
        // As long as there is time, and no longer.
        let (mut cluster, asked) = self::cluster(&[("a", &[Kind::NoLeader; 99])]);
        let deadline = Deadline::within(PAUSE * 3, REQUEST);
        let answer = cluster.ask("read '/k'", deadline, |member, limit| member.get("/k", limit));
        assert_eq!(answer, Err(StoreError::Unreachable("cannot read '/k': etcd 'a': ill".to_owned())));
        assert!(asked.borrow().len() > 1, "{asked:?}");
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
