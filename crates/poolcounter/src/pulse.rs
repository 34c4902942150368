//! Whether the daemon is alive while we wait in its queue. A queue is silent, and so is a daemon that was stopped, swaps, or sits
//! behind a broken switch; TCP stays open for all of them. So it is asked for its figures over a connection of its own.
//!
//! The pace: first right after we have queued, then every three seconds, each answered within one. Two misses in a row are a
//! daemon that does not answer; a single one may be a lost packet, which TCP repeats only after a second.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::{Broken, Connection, reason};
use crate::wire::{Request, Stats};

/// How long after the request for a slot the first question comes. A slot that is free is granted long before.
const FIRST: Duration = Duration::from_millis(50);
/// The time from one question to the next.
const PACE: Duration = Duration::from_secs(3);
/// How long a question may take: connection, question and answer. The daemon answers in less than a millisecond.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How many questions in a row go unanswered before the daemon is believed to be frozen.
const MISSES: u32 = 2;

type Answer = Result<Stats, String>;

/// The questions to one daemon.
#[derive(Debug)]
pub(crate) struct Pulse {
    daemon: SocketAddr,
    next: Next,
    missed: u32,
    /// What the daemon said last.
    stats: Option<Stats>,
}

#[derive(Debug)]
enum Next {
    /// To be asked at this time.
    Ask(Instant),
    /// Asked, and when.
    Answer(Receiver<Answer>, Instant),
}

impl Pulse {
    /// Questions to a daemon that was asked for a slot just now.
    pub(crate) fn new(daemon: SocketAddr) -> Self {
        Self { daemon, next: Next::Ask(Instant::now() + FIRST), missed: 0, stats: None }
    }

    /// When to [`Self::check`] again at the latest.
    pub(crate) fn due(&self) -> Instant {
        match self.next {
            Next::Ask(at) => at,
            Next::Answer(_, asked) => asked + ANSWER_LIMIT,
        }
    }

    /// Asks, or sees to the answer; does not wait. The error is why the daemon is not believed to be alive any more.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), String> {
        self.collect(now)?;
        if let Next::Ask(at) = self.next
            && at <= now
        {
            match ask(self.daemon, now + ANSWER_LIMIT) {
                Ok(answer) => self.next = Next::Answer(answer, now),
                Err(why) => self.miss(now, why)?,
            }
        }
        Ok(())
    }

    /// What the daemon said last.
    pub(crate) fn stats(&mut self) -> Option<Stats> {
        // The verdict is left to the next check.
        let _ = self.collect(Instant::now());
        self.stats
    }

    fn collect(&mut self, now: Instant) -> Result<(), String> {
        let Next::Answer(answer, asked) = &self.next else { return Ok(()) };
        let asked = *asked;
        let why = match answer.try_recv() {
            Ok(Ok(stats)) => {
                (self.stats, self.missed, self.next) = (Some(stats), 0, Next::Ask(asked + PACE));
                return Ok(());
            }
            Ok(Err(why)) => why,
            Err(TryRecvError::Empty) if now < asked + ANSWER_LIMIT => return Ok(()),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => silence(),
        };
        self.miss(asked, why)
    }

    fn miss(&mut self, asked: Instant, why: String) -> Result<(), String> {
        self.missed += 1;
        self.next = Next::Ask(asked + ANSWER_LIMIT);
        if self.missed < MISSES { Ok(()) } else { Err(why) }
    }
}

fn silence() -> String {
    format!("no answer to STATS FULL within {ANSWER_LIMIT:?}, {MISSES} times")
}

/// Asks on a thread of its own.
fn ask(daemon: SocketAddr, deadline: Instant) -> Result<Receiver<Answer>, String> {
    let (sender, answer) = channel();
    // Nobody listens any more once the wait is over.
    let question = move || drop(sender.send(figures(daemon, deadline)));
    let started = thread::Builder::new().name("poolcounter-pulse".to_owned()).spawn(question);
    started.map_err(|error| format!("cannot start a thread to ask it: {}", reason(&error)))?;
    Ok(answer)
}

fn figures(daemon: SocketAddr, deadline: Instant) -> Answer {
    let told = || -> Result<Option<Stats>, Broken> {
        let left = deadline.saturating_duration_since(Instant::now());
        let stream = TcpStream::connect_timeout(&daemon, left.max(Duration::from_millis(1)))?;
        let mut connection = Connection::new(stream)?;
        connection.send(Request::Stats)?;
        connection.stats(deadline)
    };
    match told() {
        Ok(stats) => stats.ok_or_else(silence),
        Err(Broken::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => Err(silence()),
        Err(error) => Err(format!("asked for STATS FULL, it {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    const PAGE: &[u8] = b"processing_workers: 2\nwaiting_workers: 1\n\n";

    /// Checks whenever it is due, until the daemon was found silent or `enough` says so.
    fn run(pulse: &mut Pulse, mut enough: impl FnMut(&mut Pulse) -> bool) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(30);
        while !enough(pulse) {
            assert!(Instant::now() < end, "in vain: {pulse:?}");
            pulse.check(Instant::now())?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    #[test]
    fn an_answer_is_kept_and_asks_for_the_next_one_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut pulse = Pulse::new(listener.local_addr().unwrap());
        let daemon = thread::spawn(move || listener.accept().unwrap().0.write_all(PAGE).unwrap());
        assert_eq!(run(&mut pulse, |pulse| pulse.stats().is_some()), Ok(()));
        assert_eq!(pulse.stats, Some(Stats { holders: 2, waiters: 1 }));
        assert!(pulse.due() > Instant::now() + Duration::from_secs(1));
        daemon.join().unwrap();
    }

    #[test]
    fn a_daemon_that_misses_one_question_and_answers_the_next_is_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut pulse = Pulse::new(listener.local_addr().unwrap());
        let daemon = thread::spawn(move || {
            let missed = listener.accept().unwrap();
            listener.accept().unwrap().0.write_all(PAGE).unwrap();
            missed
        });
        assert_eq!(run(&mut pulse, |pulse| pulse.stats().is_some()), Ok(()));
        assert_eq!(pulse.missed, 0);
        daemon.join().unwrap();
    }

    #[test]
    fn a_daemon_that_accepts_and_never_answers_is_silent() {
        // The kernel accepts for it, as for a stopped process.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut pulse = Pulse::new(listener.local_addr().unwrap());
        assert_eq!(run(&mut pulse, |_| false), Err(silence()));
    }

    #[test]
    fn something_else_on_the_port_is_no_daemon() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut pulse = Pulse::new(listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\n\n");
            }
        });
        let why = run(&mut pulse, |_| false).unwrap_err();
        assert!(why.starts_with("asked for STATS FULL, it answers 'HTTP/1.1 400 Bad"), "{why}");
    }
}
