//! Many hosts asked at once, by the way that a run takes to them.

use std::time::Duration;

use restart_core::{Failure, Stop};

use super::account::Account;
use super::{Answer, Subject};
use crate::fleet::{self, Fleet, Job};
use crate::remote::{REMOTE, Remote};
use crate::run::no_fleet;
use crate::settings::Settings;

/// What is asked, on the standard input of restart-php-fpm(8).
const QUESTION: &[u8] = br#"{"status":true}"#;
/// So many at once: an answer takes a second, and asks the store and the load balancers of each host.
const AT_ONCE: usize = 64;
/// The longest time without a look for a signal.
const SLICE: Duration = Duration::from_millis(100);

/// Asks each of them, until all have answered or `stop` says that nobody waits for it.
pub(super) fn everybody(subjects: &mut [Subject], settings: &Settings, stop: &dyn Stop) -> Result<(), Failure> {
    let remote = Remote::new(&settings.way, &REMOTE);
    let mut fleet = Fleet::new().map_err(|error| no_fleet(&error))?;
    let at_once = fleet::room(AT_ONCE);
    let mut next = 0;
    loop {
        while fleet.running() < at_once
            && let Some(subject) = subjects.get_mut(next)
        {
            let mut command = remote.command(&subject.host);
            log::debug!("{}: {command:?}", subject.host);
            if let Err(error) = fleet.start(Job::Host(next), &mut command, QUESTION, settings.way.host_timeout) {
                let program = command.get_program().display();
                subject.answer = Answer::None(format!("cannot run '{program}': {error}"));
            }
            next += 1;
        }
        if fleet.running() == 0 {
            return Ok(());
        }
        for (job, finished) in fleet.wait(SLICE) {
            let Job::Host(place) = job else { continue };
            if let Some(subject) = subjects.get_mut(place) {
                subject.hear(Account::read(&finished, settings.way.host_timeout));
            }
        }
        if stop.requested().is_some() {
            fleet.kill_all();
            return Ok(());
        }
    }
}

impl Subject {
    /// Takes the answer. Where nobody else says how the host stands in the store, it does.
    fn hear(&mut self, answer: Result<Account, String>) {
        self.answer = match answer {
            Ok(account) => {
                if self.entries.is_empty() {
                    self.entries = account.entries();
                }
                Answer::Account(Box::new(account))
            }
            Err(why) => Answer::None(why),
        };
    }
}
