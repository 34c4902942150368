//! One look at the load balancers: each question put once, all at the same time, nothing watched and nothing judged. For
//! whoever only wants to know; a run goes on asking (`watch.rs`).

use std::time::Duration;

use crate::load_balancer::{LoadBalancers, Question, Ticket, Verdict};
use crate::span::span;

/// Asks all of `questions` and returns the verdicts in their order. One that is not answered within `at_most`, which has to be
/// more than one request may take, is unknown. `balancers` must not have been asked anything else.
pub fn ask_once(balancers: &mut dyn LoadBalancers, questions: &[Question], at_most: Duration) -> Vec<Verdict> {
    for (ticket, question) in (0..).map(Ticket).zip(questions) {
        balancers.ask(ticket, question);
    }
    let mut verdicts = vec![None; questions.len()];
    let mut open = questions.len();
    while open > 0 {
        // Empty: nobody answered although the time of every request is over.
        let answers = balancers.answers(at_most);
        if answers.is_empty() {
            break;
        }
        for (ticket, verdict) in answers {
            let place = usize::try_from(ticket.0).ok().and_then(|place| verdicts.get_mut(place));
            if let Some(place @ None) = place {
                *place = Some(verdict);
                open -= 1;
            }
        }
    }
    let unknown = || Verdict::Unknown(format!("no answer within {}", span(at_most)));
    verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(unknown)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Balancer, Fqdn, PoolName, Protocol};

    /// Answers the last question first, one at a time, and never the one put to 'silent'.
    #[derive(Default)]
    struct Fake {
        asked: Vec<(Ticket, Verdict)>,
    }

    impl LoadBalancers for Fake {
        fn ask(&mut self, ticket: Ticket, question: &Question) {
            match question.balancer.host.as_str() {
                "silent" => {}
                "up" => self.asked.push((ticket, Verdict::Pooled)),
                _ => self.asked.push((ticket, Verdict::NotPooled)),
            }
        }

        fn answers(&mut self, _: Duration) -> Vec<(Ticket, Verdict)> {
            self.asked.pop().into_iter().collect()
        }
    }

    fn question(balancer: &str) -> Question {
        Question {
            balancer: Balancer { host: balancer.to_owned(), port: None },
            pool: PoolName::new("web").unwrap(),
            port: 80,
            host: Fqdn::new("mw1.example").unwrap(),
            protocol: Protocol::PyBal,
        }
    }

    #[test]
    fn verdicts_come_in_the_order_of_the_questions_and_silence_is_unknown() {
        let questions = ["up", "silent", "down", "up"].map(question);
        let verdicts = ask_once(&mut Fake::default(), &questions, Duration::from_secs(1));
        let silence = Verdict::Unknown("no answer within 1s".to_owned());
        assert_eq!(verdicts, [Verdict::Pooled, silence, Verdict::NotPooled, Verdict::Pooled]);
    }

    #[test]
    fn no_question_is_no_wait() {
        assert_eq!(ask_once(&mut Fake::default(), &[], Duration::from_secs(1)), []);
    }
}
