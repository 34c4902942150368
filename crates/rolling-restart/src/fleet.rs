//! All programs that run at once, in one poll loop: no thread for each, and a wait that ends when one of them says something, when
//! one ends (SIGCHLD, as a byte in a pipe), or after a time.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::SIGCHLD;

use crate::process::{Finished, Process};
use crate::schedule::Place;

/// Descriptors that each program takes while it runs: its two outputs.
const FOR_EACH: u64 = 2;
/// Descriptors for everything else, also for a program that is being started.
const SPARE: u64 = 64;

/// What programs say is only kept until they end, so that it is not listened to more often than this; their ends are, at once.
const HUSH: Duration = Duration::from_millis(10);
/// Whoever says so much in a row has more to say, and a pipe that is full would hold it up.
const MUCH: usize = 4096;

/// What a program is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    Host(Place),
    Gate,
}

/// The programs.
#[derive(Debug)]
pub struct Fleet {
    running: BTreeMap<Job, Process>,
    /// A byte comes here when a program ended.
    ended: UnixStream,
    /// Whether the last wait ended only because programs said a little.
    was_talk: bool,
}

impl Fleet {
    /// None yet.
    pub fn new() -> io::Result<Self> {
        let (ended, tell) = UnixStream::pair()?;
        ended.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGCHLD, tell)?;
        Ok(Self { running: BTreeMap::new(), ended, was_talk: false })
    }

    /// Starts a program, which has so long.
    pub fn start(&mut self, job: Job, command: &mut Command, input: &[u8], at_most: Duration) -> io::Result<()> {
        let process = Process::start(command, input, at_most)?;
        self.running.insert(job, process);
        Ok(())
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Waits for at most so long, and returns what ended.
    pub fn wait(&mut self, at_most: Duration) -> Vec<(Job, Finished)> {
        let hush = if self.was_talk { at_most.min(HUSH) } else { Duration::ZERO };
        let has_ended = !hush.is_zero() && self.ends_within(hush);
        let at_most = if has_ended { Duration::ZERO } else { at_most - hush };
        let mut polled = vec![PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let mut jobs = Vec::with_capacity(2 * self.running.len());
        for (job, process) in &self.running {
            for pipe in process.pipes() {
                polled.push(PollFd::new(pipe, PollFlags::POLLIN));
                jobs.push(*job);
            }
        }
        let timeout = timeout(at_most);
        let fired: Vec<Job> = match poll(&mut polled, timeout) {
            Ok(_) => {
                let pipes = polled.iter().skip(1).zip(&jobs);
                pipes.filter(|(fd, _)| fd.any().unwrap_or(true)).map(|(_, job)| *job).collect()
            }
            Err(Errno::EINTR) => Vec::new(),
            // Nothing is lost but the waiting; that shall not become a loop that turns at full speed.
            Err(_) => {
                std::thread::sleep(at_most);
                jobs
            }
        };
        let talked = !fired.is_empty();
        let mut most = 0;
        for job in fired {
            if let Some(process) = self.running.get_mut(&job) {
                most = most.max(process.read());
            }
        }
        let mut told = [0; 256];
        let mut signals = 0;
        while let Ok(count @ 1..) = self.ended.read(&mut told) {
            signals += count;
        }
        self.was_talk = signals == 0 && talked && most < MUCH;
        self.take_ended()
    }

    /// Waits so long for the end of a program, whatever they say.
    fn ends_within(&self, at_most: Duration) -> bool {
        let mut polled = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, timeout(at_most)), Ok(1..))
    }

    fn take_ended(&mut self) -> Vec<(Job, Finished)> {
        let now = Instant::now();
        let mut ended = Vec::new();
        for (job, process) in &mut self.running {
            ended.extend(process.look(now).map(|finished| (*job, finished)));
        }
        for (job, _) in &ended {
            self.running.remove(job);
        }
        ended
    }

    /// Ends one of them now.
    pub fn kill(&mut self, job: Job) {
        if let Some(process) = self.running.remove(&job) {
            process.kill();
        }
    }

    /// Ends all of them now.
    pub fn kill_all(&mut self) {
        while let Some((_, process)) = self.running.pop_first() {
            process.kill();
        }
    }
}

/// Rounded up, so that a wait does not end to find some of it left.
fn timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
}

/// How many programs can run at once, up to so many: the descriptors have to suffice, and are had as far as the system lets us. Hosts
/// that there is no descriptor for would be taken for hosts that failed.
pub fn room(wanted: usize) -> usize {
    let descriptors = FOR_EACH * wanted as u64 + SPARE;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let allowed = match soft >= descriptors {
        true => soft,
        false => match setrlimit(Resource::RLIMIT_NOFILE, descriptors.min(hard), hard) {
            Ok(()) => descriptors.min(hard),
            Err(_) => soft,
        },
    };
    fitting(wanted, allowed)
}

/// So many of those wanted find room within so many descriptors; one is always tried.
fn fitting(wanted: usize, descriptors: u64) -> usize {
    let fit = descriptors.saturating_sub(SPARE) / FOR_EACH;
    wanted.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_programs_run_than_there_are_descriptors_for() {
        assert_eq!((fitting(500, 1024), fitting(500, 1064), fitting(500, 256)), (480, 500, 96));
        assert_eq!((fitting(5, 1024), fitting(5, 64), fitting(5, 0)), (5, 1, 1));
    }
}
