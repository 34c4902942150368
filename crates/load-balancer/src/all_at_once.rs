//! Asking many load balancers at the same time. Each request has a thread of its own, so that one that hangs delays no other;
//! the answers meet in one channel.
//!
//! That every question is answered in time is promised here and not left to whoever asks: a request that panics, that cannot
//! be started, or that outlives its bound has the verdict unknown. The caller has at most one question open for each load
//! balancer and pool, which bounds the threads.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use restart_core::{LoadBalancers, Question, Ticket, Verdict};

use crate::Technology;

/// How long after its bound a request is given up from outside. It should have given up itself; this is for a technology that
/// did not, and keeps the two from racing.
const GRACE: Duration = Duration::from_millis(250);

/// Load balancers of one technology.
pub struct AllAtOnce {
    technology: Arc<dyn Technology>,
    /// The time that one request may take, whole.
    at_most: Duration,
    /// The questions that are not answered yet, and when they are given up.
    open: BTreeMap<Ticket, Instant>,
    sender: Sender<(Ticket, Verdict)>,
    answered: Receiver<(Ticket, Verdict)>,
}

impl AllAtOnce {
    /// Asks by means of `technology`; no request takes longer than `at_most`.
    pub fn new(technology: impl Technology, at_most: Duration) -> Self {
        let (sender, answered) = channel();
        Self { technology: Arc::new(technology), at_most, open: BTreeMap::new(), sender, answered }
    }

    /// Counts an answer, unless its question was given up before it came.
    fn accept(&mut self, answer: (Ticket, Verdict), accepted: &mut Vec<(Ticket, Verdict)>) {
        if self.open.remove(&answer.0).is_some() {
            accepted.push(answer);
        }
    }

    /// Answers for the requests that are past their time.
    fn give_up(&mut self, now: Instant) -> Vec<(Ticket, Verdict)> {
        let late: Vec<Ticket> =
            self.open.iter().filter(|(_, until)| **until <= now).map(|(ticket, _)| *ticket).collect();
        let why = format!("timed out after {:?}", self.at_most);
        late.into_iter()
            .map(|ticket| {
                self.open.remove(&ticket);
                (ticket, Verdict::Unknown(why.clone()))
            })
            .collect()
    }
}

impl LoadBalancers for AllAtOnce {
    fn ask(&mut self, ticket: Ticket, question: &Question) {
        let (technology, at_most, sender) = (Arc::clone(&self.technology), self.at_most, self.sender.clone());
        let asked = question.clone();
        let request = move || {
            let verdict = catch_unwind(AssertUnwindSafe(|| technology.ask(&asked, at_most)));
            let verdict = verdict.unwrap_or_else(|panic| Verdict::Unknown(panicked(&*panic)));
            // Nobody listens any more once the run is over.
            let _ = sender.send((ticket, verdict));
        };
        let give_up_at = Instant::now().checked_add(at_most.saturating_add(GRACE));
        // A bound beyond the clock's range is as good as a year.
        let give_up_at = give_up_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 86_400));
        self.open.insert(ticket, give_up_at);
        if let Err(error) = thread::Builder::new().name(format!("ask-{}", ticket.0)).spawn(request) {
            let _ = self.sender.send((ticket, Verdict::Unknown(format!("cannot start a thread to ask it: {error}"))));
        }
    }

    fn answers(&mut self, at_most: Duration) -> Vec<(Ticket, Verdict)> {
        let began = Instant::now();
        let mut accepted = Vec::new();
        while accepted.is_empty() {
            let now = Instant::now();
            let left = at_most.saturating_sub(now - began);
            let first_late = self.open.values().min().map(|until| until.saturating_duration_since(now));
            match self.answered.recv_timeout(first_late.map_or(left, |late| late.min(left))) {
                Ok(answer) => self.accept(answer, &mut accepted),
                // Never disconnected: this value holds a sender.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    accepted.extend(self.give_up(Instant::now()));
                    if left.is_zero() || began.elapsed() >= at_most {
                        break;
                    }
                }
            }
        }
        while let Ok(answer) = self.answered.try_recv() {
            self.accept(answer, &mut accepted);
        }
        accepted
    }
}

/// A bug in this program, in its own words.
fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text: String = text.unwrap_or("no reason given").chars().filter(|c| !c.is_control()).take(100).collect();
    format!("asking it failed: {text}")
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use restart_core::{Balancer, Fqdn, PoolName, Protocol};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn question(balancer: &str) -> Question {
        Question {
            balancer: Balancer { host: balancer.to_owned(), port: None },
            pool: PoolName::new("appservers").unwrap(),
            port: 80,
            host: Fqdn::new("mw1.test").unwrap(),
            protocol: Protocol::PyBal,
        }
    }

    /// A technology that is a function of the load balancer's name.
    struct Fake<F>(F);

    impl<F: Fn(&str) -> Verdict + Send + Sync + 'static> Technology for Fake<F> {
        fn ask(&self, question: &Question, _: Duration) -> Verdict {
            self.0(&question.balancer.host)
        }
    }

    /// Waits until `count` questions are answered.
    fn collect(balancers: &mut AllAtOnce, count: usize) -> BTreeMap<Ticket, Verdict> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            let answers = balancers.answers(LONG);
            assert!(!answers.is_empty(), "no answer within {LONG:?}");
            all.extend(answers);
        }
        all
    }

    #[test]
    fn all_requests_are_under_way_together() {
        // Each request waits for both to have begun: asked one after the other, neither would ever answer.
        let both = Barrier::new(2);
        let fake = Fake(move |_: &str| {
            both.wait();
            Verdict::Pooled
        });
        let mut balancers = AllAtOnce::new(fake, LONG);
        balancers.ask(Ticket(1), &question("lb1"));
        balancers.ask(Ticket(2), &question("lb2"));
        let answers = collect(&mut balancers, 2);
        assert_eq!(answers, BTreeMap::from([(Ticket(1), Verdict::Pooled), (Ticket(2), Verdict::Pooled)]));
    }

    #[test]
    fn one_that_hangs_delays_no_other() {
        let (release, hung) = channel::<()>();
        let hung = Mutex::new(hung);
        let fake = Fake(move |balancer: &str| {
            if balancer == "hangs" {
                let _ = hung.lock().unwrap().recv();
            }
            Verdict::NotPooled
        });
        let mut balancers = AllAtOnce::new(fake, LONG);
        balancers.ask(Ticket(1), &question("hangs"));
        balancers.ask(Ticket(2), &question("answers"));
        assert_eq!(balancers.answers(LONG), [(Ticket(2), Verdict::NotPooled)]);
        assert_eq!(balancers.answers(Duration::ZERO), []);
        drop(release);
        assert_eq!(balancers.answers(LONG), [(Ticket(1), Verdict::NotPooled)]);
    }

    #[test]
    fn a_panic_is_an_answer_too() {
        let fake = Fake(|_: &str| panic!("a bug\u{1b}[2J"));
        let mut balancers = AllAtOnce::new(fake, LONG);
        balancers.ask(Ticket(7), &question("lb1"));
        let unknown = Verdict::Unknown("asking it failed: a bug[2J".to_owned());
        assert_eq!(balancers.answers(LONG), [(Ticket(7), unknown)]);
    }

    #[test]
    fn a_request_that_outlives_its_bound_is_answered_for_and_its_late_answer_dropped() {
        let (release, hung) = channel::<()>();
        let hung = Mutex::new(hung);
        let fake = Fake(move |balancer: &str| {
            if balancer == "hangs" {
                let _ = hung.lock().unwrap().recv();
            }
            Verdict::NotPooled
        });
        let mut balancers = AllAtOnce::new(fake, Duration::from_millis(50));
        balancers.ask(Ticket(1), &question("hangs"));
        let unknown = Verdict::Unknown("timed out after 50ms".to_owned());
        assert_eq!(balancers.answers(LONG), [(Ticket(1), unknown)]);
        drop(release);
        assert_eq!(balancers.answers(Duration::from_millis(200)), []);
    }

    #[test]
    fn with_nothing_asked_the_wait_is_as_long_as_asked_for() {
        let mut balancers = AllAtOnce::new(Fake(|_: &str| Verdict::Pooled), LONG);
        let began = Instant::now();
        assert_eq!(balancers.answers(Duration::from_millis(30)), []);
        assert!(began.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn no_bound_that_can_be_written_overflows() {
        let mut balancers = AllAtOnce::new(Fake(|_: &str| Verdict::Pooled), Duration::MAX);
        balancers.ask(Ticket(1), &question("lb1"));
        assert_eq!(balancers.answers(Duration::MAX), [(Ticket(1), Verdict::Pooled)]);
    }
}
