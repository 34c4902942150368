//! Standard error that nobody has to read. A terminal stopped with Ctrl-S, a pager that waits, an ssh connection that stalls:
//! a plain write to them blocks for as long as they please, and a run that is blocked has a host out of its pools. So each
//! line waits a moment for room, and is dropped if there is none.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::unshared::Unshared;

/// How many milliseconds a line waits for room: long enough for a reader that is only slow. Once one waited in vain, the next ones do not
/// wait at all until there is room again.
const PATIENCE: u8 = 250;
/// What is written at once. A pipe that has room at all has room for this (pipe(7): `PIPE_BUF` is 4096).
const PIECE: usize = 1024;
/// How often somebody else may be faster than us before a line is given up.
const LOST_RACES: u8 = 10;

/// A descriptor that is written to only when it takes something.
#[derive(Debug)]
pub struct Patient<Fd> {
    fd: Unshared<Fd>,
    stuck: bool,
}

impl<Fd: AsFd> Patient<Fd> {
    /// None of it is stuck yet.
    pub fn new(fd: Fd) -> Self {
        Self { fd: Unshared::new(fd), stuck: false }
    }

    /// Whether a write would not block; also if it would fail.
    fn has_room(&mut self) -> bool {
        let patience = if self.stuck { PollTimeout::ZERO } else { PollTimeout::from(PATIENCE) };
        let ready = poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)], patience);
        // Interrupted by a signal, it has not waited: the line is worth less than the run.
        self.stuck = !matches!(ready, Ok(1..));
        !self.stuck
    }
}

impl<Fd: AsFd> Write for Patient<Fd> {
    /// Writes what finds room, and claims to have written all of it: there is nobody to tell of a lost line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut rest = line;
        let mut lost_races = 0;
        while !rest.is_empty() && lost_races < LOST_RACES && self.has_room() {
            match nix::unistd::write(&self.fd, &rest[..rest.len().min(PIECE)]) {
                Ok(written @ 1..) => rest = &rest[written..],
                Err(Errno::EAGAIN) => lost_races += 1,
                Ok(0) | Err(_) => break,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_full_pipe_costs_lines_and_not_the_run() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut stderr = Patient::new(writer);
        // A pipe holds 64 KiB (pipe(7)); this is far more, and nobody reads.
        for _ in 0..5000 {
            stderr.write_all(&[b'x'; 100]).unwrap();
        }
        let mut some = [0; 8192];
        reader.read_exact(&mut some).unwrap();
        // There is room again, and the next line is written.
        stderr.write_all(b"last words\n").unwrap();
        drop(stderr);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert!(all.ends_with(b"last words\n"), "{} bytes", all.len());
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        Patient::new(writer).write_all(b"to nobody\n").unwrap();
    }
}
