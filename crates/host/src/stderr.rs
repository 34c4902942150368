//! Standard error that nobody has to read. A terminal stopped with Ctrl-S, a pager that waits, an ssh connection that stalls:
//! a plain write to them blocks for as long as they please, and a run that is blocked has a host out of its pools. So each
//! line waits a moment for room, and is dropped if there is none.
//!
//! Room that was there when we looked may be somebody else's when we write: whoever writes to the same pipe or terminal. Those are opened
//! once more, for us alone, such that a write does not wait. The descriptor that we were given is its other holders' as well, and is
//! left as it is.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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
    fd: Fd,
    /// The same pipe or terminal, opened for us alone.
    own: Option<OwnedFd>,
    stuck: bool,
}

impl<Fd: AsFd> Patient<Fd> {
    /// None of it is stuck yet.
    pub fn new(fd: Fd) -> Self {
        let own = opened_again(fd.as_fd());
        Self { fd, own, stuck: false }
    }

    fn target(&self) -> BorrowedFd<'_> {
        self.own.as_ref().map_or_else(|| self.fd.as_fd(), AsFd::as_fd)
    }

    /// Whether a write would not block; also if it would fail.
    fn has_room(&mut self) -> bool {
        let patience = if self.stuck { PollTimeout::ZERO } else { PollTimeout::from(PATIENCE) };
        let ready = poll(&mut [PollFd::new(self.target(), PollFlags::POLLOUT)], patience);
        // Interrupted by a signal, it has not waited: the line is worth less than the run.
        self.stuck = !matches!(ready, Ok(1..));
        !self.stuck
    }

    /// Writes a piece, or as much of it as there is room for. Of a pipe, there is room for all of it or for none.
    fn put(&self, piece: &[u8]) -> nix::Result<usize> {
        nix::unistd::write(self.target(), piece)
    }
}

/// A pipe or a terminal, opened once more. What is neither (a file, a socket, which nobody else fills) is not, and neither is one that we
/// may not open: then the look before each write has to do.
fn opened_again(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if !fd.is_terminal() && !fs::metadata(&path).ok()?.file_type().is_fifo() {
        return None;
    }
    let opened = OpenOptions::new().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(&path);
    opened.ok().map(OwnedFd::from)
}

impl<Fd: AsFd> Write for Patient<Fd> {
    /// Writes what finds room, and claims to have written all of it: there is nobody to tell of a lost line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut rest = line;
        let mut lost_races = 0;
        while !rest.is_empty() && lost_races < LOST_RACES && self.has_room() {
            match self.put(&rest[..rest.len().min(PIECE)]) {
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
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

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

    /// As between the look and the write, when somebody else fills the pipe.
    #[test]
    fn room_that_somebody_else_was_faster_to_take_costs_a_line_and_not_the_run() {
        let (_reader, writer) = io::pipe().unwrap();
        let other = opened_again(writer.as_fd()).unwrap();
        let stderr = Patient::new(writer);
        while nix::unistd::write(&other, b"x").is_ok() {}
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(stderr.put(b"too late\n")));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(Err(Errno::EAGAIN)), "the write waits");
    }

    #[test]
    fn what_others_hold_is_left_as_it_is() {
        let (_reader, writer) = io::pipe().unwrap();
        let stderr = Patient::new(writer);
        assert!(stderr.own.is_some());
        let flags = nix::fcntl::fcntl(&stderr.fd, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & O_NONBLOCK, 0);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        Patient::new(writer).write_all(b"to nobody\n").unwrap();
    }
}
