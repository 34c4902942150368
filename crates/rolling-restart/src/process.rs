//! One program that runs beside others: its output is taken as it comes and only its end is kept, and when its time is over it is
//! ended with all of its process group. Its end is the end of the process: what it left behind may hold its pipes open for ever, as
//! ssh's shared connections do.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::answer::End;

/// What is kept of standard output. A report is a few kilobytes.
const KEPT: usize = 64 * 1024;
/// What is kept of standard error: its last lines.
const KEPT_OF_ERRORS: usize = 4 * 1024;
/// One read takes at most this much.
const READ: usize = 16 * 1024;
/// So much is read of one program in a row, so that one that floods us keeps no other waiting.
const READS: usize = 8;
/// How long a program has to end by itself after SIGTERM, and the system to end it after SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    pub end: End,
    /// The end of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: Vec<u8>,
}

/// How far we are with ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    Asked,
    Killed,
    /// Killed, since it was stopped at the terminal.
    AtTerminal,
}

/// What it is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    /// Stopped by the system, for wanting something of the terminal.
    AtTerminal,
    Over,
}

/// A program that was started.
#[derive(Debug)]
pub struct Process {
    child: Child,
    streams: [Stream; 2],
    /// When it is asked to end, then killed, then given up.
    until: Option<Instant>,
    ending: Ending,
}

impl Process {
    /// Starts it in a process group of its own, so that a Ctrl-C at the terminal is ours alone.
    pub fn start(command: &mut Command, input: &[u8], at_most: Duration) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Less than the smallest pipe there is, 4 KiB, holds: this does not block. Whoever closes it unread has not read it, and
            // says so in the end.
            let _ = stdin.write_all(input);
        }
        let streams = [
            Stream::new(child.stdout.take().map(OwnedFd::from), KEPT)?,
            Stream::new(child.stderr.take().map(OwnedFd::from), KEPT_OF_ERRORS)?,
        ];
        Ok(Self { child, streams, until: Instant::now().checked_add(at_most), ending: Ending::NotYet })
    }

    /// The pipes that something may come from.
    pub fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().filter_map(|stream| stream.pipe.as_ref().map(AsFd::as_fd))
    }

    /// Takes what there is, without waiting, and says how many bytes that was.
    pub fn read(&mut self) -> usize {
        self.streams.iter_mut().map(Stream::read).sum()
    }

    /// How it ended, if it did; and where its time is over, or nobody can tell it what it asks for, sees to it that it does.
    pub fn look(&mut self, now: Instant) -> Option<Finished> {
        match self.life() {
            Life::Running if self.until.is_none_or(|until| now < until) => return None,
            Life::Running => return self.end(now),
            Life::AtTerminal => {
                self.signal(Signal::SIGKILL);
                (self.ending, self.until) = (Ending::AtTerminal, now.checked_add(GRACE));
                return None;
            }
            Life::Over if self.ending == Ending::NotYet => {}
            // What it started and does not take a request to end for one stays behind otherwise.
            Life::Over => self.signal(Signal::SIGKILL),
        }
        let status = self.child.wait();
        // What it wrote before it ended is in the pipes by now.
        self.read();
        let end = match status {
            _ if self.ending == Ending::AtTerminal => End::AtTerminal,
            _ if self.ending != Ending::NotYet => End::TimeOver,
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => End::Code(u8::try_from(code).unwrap_or(u8::MAX)),
                (None, signal) => End::Signal(signal.unwrap_or_default()),
            },
            Err(_) => End::Signal(0),
        };
        Some(self.finished(end))
    }

    /// Whether it has ended; it is not reaped by that. Whoever reads from the terminal is stopped, since the terminal is ours alone.
    fn life(&self) -> Life {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags) {
            Ok(WaitStatus::Stopped(_, Signal::SIGTTIN | Signal::SIGTTOU)) if self.ending == Ending::NotYet => {
                Life::AtTerminal
            }
            Ok(WaitStatus::StillAlive | WaitStatus::Stopped(..)) => Life::Running,
            Ok(_) | Err(_) => Life::Over,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Asks it to end; kills it if it did not; gives it up if the system cannot even do that.
    fn end(&mut self, now: Instant) -> Option<Finished> {
        match self.ending {
            Ending::NotYet => {
                self.signal(Signal::SIGTERM);
                self.ending = Ending::Asked;
            }
            Ending::Asked => {
                self.signal(Signal::SIGKILL);
                self.ending = Ending::Killed;
            }
            Ending::Killed => return Some(self.finished(End::TimeOver)),
            Ending::AtTerminal => return Some(self.finished(End::AtTerminal)),
        }
        self.until = now.checked_add(GRACE);
        None
    }

    /// Ends it now, whatever it is at. That is not waited for: whoever has somebody killed is in a hurry, and one that the system
    /// holds up, as a file system does that hangs, would take as long as that. Its number stays its own until we end.
    pub fn kill(self) {
        self.signal(Signal::SIGKILL);
    }

    /// Its number is nobody else's as long as it is not reaped. Gone already is as good.
    fn signal(&self, signal: Signal) {
        let _ = killpg(self.pid(), signal);
    }

    fn finished(&mut self, end: End) -> Finished {
        let [stdout, stderr] = &mut self.streams;
        Finished { end, stdout: std::mem::take(&mut stdout.kept), stderr: std::mem::take(&mut stderr.kept) }
    }
}

/// One of a program's two outputs.
#[derive(Debug)]
struct Stream {
    /// `None` once it is closed.
    pipe: Option<File>,
    kept: Vec<u8>,
    most: usize,
}

impl Stream {
    fn new(pipe: Option<OwnedFd>, most: usize) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { pipe: pipe.map(File::from), kept: Vec::new(), most })
    }

    fn read(&mut self) -> usize {
        let mut buffer = [0; READ];
        let mut sum = 0;
        for _ in 0..READS {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    self.keep(&buffer[..count]);
                    sum += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.pipe = None,
            }
        }
        sum
    }

    /// Never more than the bound, also in the space reserved.
    fn keep(&mut self, new: &[u8]) {
        let new = &new[new.len().saturating_sub(self.most)..];
        let surplus = (self.kept.len() + new.len()).saturating_sub(self.most);
        self.kept.drain(..surplus.min(self.kept.len()));
        if self.kept.len() + new.len() > self.kept.capacity() {
            let wanted = (2 * (self.kept.len() + new.len())).min(self.most);
            self.kept.reserve_exact(wanted - self.kept.len());
        }
        self.kept.extend_from_slice(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_stream_the_end_is_kept_and_no_more_room_is_taken() {
        let mut stream = Stream { pipe: None, kept: Vec::new(), most: 10 };
        for text in ["abc", "defg", "hijklm", "n"] {
            stream.keep(text.as_bytes());
            assert!(stream.kept.capacity() <= 10);
        }
        assert_eq!(stream.kept, b"efghijklmn");
        stream.keep(&[b'x'; 25]);
        assert_eq!(stream.kept, [b'x'; 10]);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error() {
        assert!(Process::start(&mut Command::new("/nonexistent/x"), b"", Duration::from_secs(1)).is_err());
    }
}
