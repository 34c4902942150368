//! Being one of N, as told by the one daemon that the hash ring gives for the key.
//!
//! There is no fail-over to another daemon, as in python-poolcounter: another daemon knows nothing of the slots that the first has
//! given, and would be another limit beside it.
//!
//! A slot lives as long as its connection. A daemon that ends, ends every slot it gave; one that is stopped keeps them, and gives
//! no others, so that holding through it is safe.

use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{mem, thread};

use restart_core::{SlotError, Slots};

use crate::backends::{Backend, Backends};
use crate::connection::{Broken, Connection};
use crate::dial::Dial;
use crate::key::Key;
use crate::pulse::Pulse;
use crate::wire::{Reply, Request, Stats};

/// How many may hold or wait, as the original asks.
const MAX_QUEUE: u32 = 10_000;

/// The longest wait that is asked for, in seconds, thirty years: it stays well below 2^31, as the daemon reads it.
const LONGEST_TIMEOUT: u32 = 1_000_000_000;

/// How much later than its time the daemon's `TIMEOUT` may come.
const MARGIN: Duration = Duration::from_secs(1);

/// How long after the request an answer may take before it is "not yet", however short the wait that it is looked for in: a slot
/// that is free is then had also by one who will not wait (`--slot-timeout 0`), from a daemon in another data centre, too.
const FIRST_ANSWER: Duration = Duration::from_millis(100);

/// How long `RELEASED` is waited for. It takes less than a millisecond, and closing the connection frees the slot anyway.
const RELEASE_LIMIT: Duration = Duration::from_millis(500);

/// How long a daemon that was lost while waiting is tried to be reached again. poolcounterd sets no SO_REUSEADDR: restarted, it
/// may have to wait for a minute until it can listen.
const PATIENCE: Duration = Duration::from_secs(90);

/// The pauses between those tries: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A slot from poolcounterd, or the way to it.
#[derive(Debug)]
pub struct Poolcounter {
    backend: Backend,
    key: Key,
    patience: Duration,
    state: State,
    stats: Option<Stats>,
}

#[derive(Debug)]
enum State {
    /// Nothing was asked for, or it was given back.
    Idle,
    Waiting(Waiting),
    Away(Away),
    Held(Connection),
    /// It ended so; the same answer for ever.
    Gone(SlotError),
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    limit: u32,
    at_most: Duration,
    deadline: Instant,
}

/// In the daemon's queue.
#[derive(Debug)]
struct Waiting {
    wish: Wish,
    connection: Connection,
    /// Until when nobody is told "not yet".
    first_answer: Instant,
    /// When the daemon should have answered at the latest.
    answer_due: Instant,
    pulse: Pulse,
    pause: Duration,
}

/// Lost while waiting, and on the way back into the queue, at its end.
#[derive(Debug)]
struct Away {
    wish: Wish,
    since: Instant,
    why: String,
    /// The pause before the next try, if that fails as well.
    pause: Duration,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Pause(Instant),
    Dial(Dial),
}

impl Poolcounter {
    /// Chooses the daemon for `key`; nothing is connected before a slot is asked for.
    pub fn new(backends: &Backends, key: Key) -> Self {
        let backend = backends.of(&key).clone();
        Self { backend, key, patience: PATIENCE, state: State::Idle, stats: None }
    }

    /// Sets how long it is tried to reach the daemon again when the connection is lost while waiting; 90 s unless set. With
    /// zero the first loss is the end, for whoever would rather go on without a slot.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The daemon that is asked.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The name of the limit.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Sends the request over a new connection.
    fn queue(&self, wish: Wish, stream: TcpStream, pause: Duration) -> Result<Waiting, Broken> {
        let mut connection = Connection::new(stream)?;
        let now = Instant::now();
        let timeout = whole_seconds(wish.deadline.saturating_duration_since(now));
        connection.send(Request::Acquire { key: &self.key, workers: wish.limit, max_queue: MAX_QUEUE, timeout })?;
        let answer_due = after(now, Duration::from_secs(timeout.into()) + MARGIN);
        let pulse = Pulse::new(connection.peer()?);
        Ok(Waiting { wish, connection, first_answer: now + FIRST_ANSWER, answer_due, pulse, pause })
    }

    /// Waits in the daemon's queue until `until` at the latest.
    fn wait(&mut self, mut waiting: Waiting, until: Instant) -> Result<State, SlotError> {
        let wake = until.min(waiting.answer_due).min(waiting.pulse.due());
        let reply = waiting.connection.reply(wake.saturating_duration_since(Instant::now()));
        match reply {
            Ok(None) => {}
            Ok(Some(Reply::Locked)) => {
                self.stats = waiting.pulse.stats().or(self.stats);
                return match waiting.connection.hold() {
                    Ok(()) => Ok(State::Held(waiting.connection)),
                    Err(error) => Err(self.refused(&error.to_string())),
                };
            }
            Ok(Some(reply @ (Reply::Timeout | Reply::QueueFull))) => {
                self.stats = waiting.pulse.stats().or(self.stats);
                return Err(SlotError::Taken(self.taken(waiting.wish, reply)));
            }
            Ok(Some(reply)) => return Err(self.refused(&format!("answers '{reply}'"))),
            Err(Broken::Unknown(error)) => return Err(self.refused(&error.to_string())),
            Err(error @ (Broken::Closed | Broken::Io(_))) => {
                let Waiting { wish, connection, pause, .. } = waiting;
                connection.reset();
                return Ok(State::Away(self.lost_while_waiting(wish, format!("it {error}"), pause)));
            }
        }
        let now = Instant::now();
        if now >= waiting.answer_due {
            return Err(self.unreachable(&format!("no answer {MARGIN:?} after the time that it was given")));
        }
        waiting.pulse.check(now).map_err(|why| self.unreachable(&why))?;
        self.stats = waiting.pulse.stats().or(self.stats);
        Ok(State::Waiting(waiting))
    }

    /// Waits for the next try, or for its outcome, until `until` at the latest.
    fn come_back(&self, mut away: Away, until: Instant) -> Result<State, SlotError> {
        let give_up = after(away.since, self.patience).min(away.wish.deadline);
        let now = Instant::now();
        if now >= give_up {
            let tried = now.saturating_duration_since(away.since).as_secs();
            return Err(SlotError::Unreachable(format!(
                "{}: {} was lost while waiting and not reached again in {tried} s: {}",
                self.no_slot(),
                self.backend,
                away.why
            )));
        }
        let wake = until.min(give_up);
        let failed = match &away.step {
            Step::Pause(at) if now < *at => {
                thread::sleep(wake.min(*at).saturating_duration_since(now));
                return Ok(State::Away(away));
            }
            Step::Pause(_) => match Dial::start(self.backend.host()) {
                Ok(dial) => {
                    away.step = Step::Dial(dial);
                    return Ok(State::Away(away));
                }
                Err(error) => error.to_string(),
            },
            Step::Dial(dial) => match dial.outcome(wake.saturating_duration_since(now)) {
                None => return Ok(State::Away(away)),
                Some(Err(error)) => error.to_string(),
                Some(Ok(stream)) => match self.queue(away.wish, stream, away.pause) {
                    Ok(waiting) => {
                        log::info!("{} is back: waiting for a slot again, at the end of its queue", self.backend);
                        return Ok(State::Waiting(waiting));
                    }
                    Err(error) => format!("it {error}"),
                },
            },
        };
        away.why = failed;
        away.step = Step::Pause(Instant::now() + away.pause);
        away.pause = (away.pause * 2).min(LONGEST_PAUSE);
        Ok(State::Away(away))
    }

    fn lost_while_waiting(&self, wish: Wish, why: String, pause: Duration) -> Away {
        log::warn!("lost {} while waiting for a slot: {why}; asking again", self.backend);
        let now = Instant::now();
        let step = Step::Pause(now + pause);
        Away { wish, since: now, why, pause: (pause * 2).min(LONGEST_PAUSE), step }
    }

    fn no_slot(&self) -> String {
        format!("no slot for '{}'", self.key)
    }

    fn refused(&self, what: &str) -> SlotError {
        SlotError::Refused(format!("{}: {} {what}", self.no_slot(), self.backend))
    }

    fn unreachable(&self, why: &str) -> SlotError {
        SlotError::Unreachable(format!("{}: {} does not answer: {why}", self.no_slot(), self.backend))
    }

    fn taken(&self, wish: Wish, reply: Reply) -> String {
        let Wish { limit, at_most, .. } = wish;
        let why = match reply {
            Reply::QueueFull => format!("{MAX_QUEUE} hold one or wait for one already"),
            _ => format!("none came free in {} s", whole_seconds(at_most)),
        };
        format!("{}, at most {limit} at once: {why} ({})", self.no_slot(), self.backend)
    }

    /// What a look at a slot that we hold finds.
    fn check_held(&self, connection: &mut Connection) -> Result<(), SlotError> {
        let lost = |why: String| SlotError::Lost(format!("lost the slot for '{}': {} {why}", self.key, self.backend));
        match connection.unsolicited() {
            Ok(None) => Ok(()),
            Ok(Some(reply @ (Reply::Released | Reply::NotLocked | Reply::Timeout))) => {
                Err(lost(format!("says '{reply}', unasked")))
            }
            Ok(Some(reply)) => Err(SlotError::Refused(format!(
                "cannot rely on the slot for '{}': {} says '{reply}', unasked",
                self.key, self.backend
            ))),
            Err(Broken::Unknown(error)) => {
                Err(SlotError::Refused(format!("cannot rely on the slot for '{}': {} {error}", self.key, self.backend)))
            }
            Err(error @ (Broken::Closed | Broken::Io(_))) => Err(lost(error.to_string())),
        }
    }

    /// Gives back a slot and waits for the daemon to say so.
    fn give_back(&self, connection: &mut Connection) -> Result<Option<Reply>, Broken> {
        connection.unhold()?;
        connection.send(Request::Release { key: &self.key })?;
        connection.reply(RELEASE_LIMIT)
    }
}

impl Slots for Poolcounter {
    /// Connects within a second, name included, and sends the request. What was asked for or held before is given up first.
    fn ask(&mut self, limit: u32, at_most: Duration) -> Result<(), SlotError> {
        self.release();
        if limit == 0 {
            return Err(SlotError::Refused(format!("{}: at most 0 at once is nobody", self.no_slot())));
        }
        let wish = Wish { limit, at_most, deadline: after(Instant::now(), at_most) };
        let not_reached =
            |why: String| SlotError::Unreachable(format!("{}: cannot reach {}: {why}", self.no_slot(), self.backend));
        let stream = Dial::start(self.backend.host()).and_then(Dial::finish);
        let stream = stream.map_err(|error| not_reached(error.to_string()))?;
        let waiting = self.queue(wish, stream, FIRST_PAUSE).map_err(|error| not_reached(format!("it {error}")))?;
        self.state = State::Waiting(waiting);
        Ok(())
    }

    /// The answer comes at the latest two seconds after the time allowed: the daemon counts whole seconds, so the time is rounded
    /// up, and it has a second more to say so. One that is frozen is noticed about two seconds after we queued, or within six
    /// seconds after it froze, as [`SlotError::Unreachable`]. A connection lost while waiting is made again for as long as
    /// [`Poolcounter::with_patience`] says, within the time allowed; the place in the queue is lost with it. Once an error was
    /// returned, it is returned again until the next [`Slots::ask`]. Within the first 100 ms after the request it waits for an
    /// answer until they are over, also with a shorter `slice`.
    fn granted(&mut self, slice: Duration) -> Result<bool, SlotError> {
        let mut until = after(Instant::now(), slice);
        if let State::Waiting(waiting) = &self.state {
            until = until.max(waiting.first_answer);
        }
        loop {
            let next = match mem::replace(&mut self.state, State::Idle) {
                State::Idle => return Err(SlotError::Refused(format!("{}: none was asked for", self.no_slot()))),
                State::Gone(error) => Err(error),
                State::Held(mut connection) => self.check_held(&mut connection).map(|()| State::Held(connection)),
                State::Waiting(waiting) => self.wait(waiting, until),
                State::Away(away) => self.come_back(away, until),
            };
            match next {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Gone(error.clone());
                    return Err(error);
                }
            }
            if matches!(self.state, State::Held(_)) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// One system call. A daemon whose host vanished is noticed after 25 s, by TCP's keepalive; one that is frozen keeps the slot.
    fn look(&mut self) -> Result<(), SlotError> {
        match &mut self.state {
            State::Gone(error) => Err(error.clone()),
            State::Idle | State::Waiting(_) | State::Away(_) => {
                Err(SlotError::Lost(format!("{}: none is held", self.no_slot())))
            }
            State::Held(_) => {
                let State::Held(mut connection) = mem::replace(&mut self.state, State::Idle) else { return Ok(()) };
                let found = self.check_held(&mut connection);
                self.state = match &found {
                    Ok(()) => State::Held(connection),
                    Err(error) => {
                        connection.reset();
                        State::Gone(error.clone())
                    }
                };
                found
            }
        }
    }

    /// poolcounterd knows no names. What it told last of itself while we waited, if we waited, is one clause: how many hold and
    /// how many wait, over all of its keys.
    fn holders(&mut self) -> Vec<String> {
        if let State::Waiting(waiting) = &mut self.state {
            self.stats = waiting.pulse.stats().or(self.stats);
        }
        let told = |Stats { holders, waiters }| {
            format!("{holders} hold and {waiters} wait on {}, all keys together; it knows no names", self.backend)
        };
        self.stats.map(told).into_iter().collect()
    }

    /// Waits at most half a second for the daemon to confirm; closing the connection frees the slot in any case.
    fn release(&mut self) {
        if let State::Held(mut connection) = mem::replace(&mut self.state, State::Idle) {
            match self.give_back(&mut connection) {
                Ok(Some(Reply::Released)) => {}
                Ok(Some(reply)) => log::warn!("{} answers '{reply}' to the release of '{}'", self.backend, self.key),
                Ok(None) => log::warn!("{} does not confirm the release of '{}'", self.backend, self.key),
                Err(error) => log::warn!("cannot release the slot for '{}': {} {error}", self.key, self.backend),
            }
        }
        self.stats = None;
    }
}

/// A time in whole seconds for the daemon: rounded up, at least one.
fn whole_seconds(time: Duration) -> u32 {
    let up = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(up).map_or(LONGEST_TIMEOUT, |seconds| seconds.clamp(1, LONGEST_TIMEOUT))
}

/// A later time; one beyond the clock's range is as good as a year.
fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_given_whole_seconds_at_least_one() {
        for (milliseconds, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (600_000, 600), (599_999, 600)] {
            assert_eq!(whole_seconds(Duration::from_millis(milliseconds)), expected, "{milliseconds} ms");
        }
        assert_eq!(whole_seconds(Duration::MAX), LONGEST_TIMEOUT);
    }

    #[test]
    fn no_time_that_can_be_written_overflows() {
        assert!(after(Instant::now(), Duration::MAX) > Instant::now());
    }
}
