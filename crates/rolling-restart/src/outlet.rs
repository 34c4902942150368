//! Standard output for events, whose reader may stand still: a pager, a terminal stopped with Ctrl-S, a program that hangs. A run
//! that waited for it would start no host and heed no signal. So what finds no room is kept, up to a bound, and written when there
//! is some; a line is written whole or not at all.

use std::io;
use std::os::fd::AsFd;

use host::Unshared;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// So much is kept for a reader that stands still, in bytes: the events of some ten thousand hosts.
const KEPT: usize = 4 * 1024 * 1024;
/// What is written at once. A pipe that has room at all has room for this (pipe(7): `PIPE_BUF` is 4096).
const PIECE: usize = 1024;

/// A descriptor that lines go to as it takes them.
#[derive(Debug)]
pub struct Outlet<Fd> {
    fd: Unshared<Fd>,
    /// What is still to be written.
    waiting: Vec<u8>,
    /// How many lines were not kept.
    lost: usize,
    /// Nothing more can be written, and why; that a reader had enough is no reason to speak of.
    closed: Option<Errno>,
}

impl<Fd: AsFd> Outlet<Fd> {
    pub fn new(fd: Fd) -> Self {
        Self { fd: Unshared::new(fd), waiting: Vec::new(), lost: 0, closed: None }
    }

    /// Takes a line, which is kept if there is room for it or if it is the `last`. Whether it was the first to be lost.
    pub fn take(&mut self, line: &str, last: bool) -> bool {
        if self.closed.is_some() {
            return false;
        }
        if !last && self.waiting.len() + line.len() > KEPT {
            self.lost += 1;
            return self.lost == 1;
        }
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        false
    }

    /// Writes what finds room within so many milliseconds, and says whether that was anything.
    pub fn write(&mut self, at_most: u8) -> bool {
        let mut written = 0;
        let mut patience = PollTimeout::from(at_most);
        while written < self.waiting.len() && self.closed.is_none() && self.has_room(patience) {
            patience = PollTimeout::ZERO;
            let rest = &self.waiting[written..];
            match nix::unistd::write(&self.fd, &rest[..rest.len().min(PIECE)]) {
                Ok(count) => written += count,
                Err(Errno::EINTR | Errno::EAGAIN) => break,
                Err(error) => self.closed = Some(error),
            }
        }
        self.waiting.drain(..written);
        if self.closed.is_some() {
            self.waiting.clear();
        }
        written > 0
    }

    /// Whether a write would not block; also if it would fail.
    fn has_room(&self, patience: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut fds, patience), Ok(1..))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What did not get through. A reader that has gone has had what it wanted.
    pub fn result(&self) -> io::Result<()> {
        match (self.closed, self.lost) {
            (Some(Errno::EPIPE), _) | (None, 0) if self.is_empty() => Ok(()),
            (Some(error), _) => Err(error.into()),
            (None, 0) => Err(io::Error::other("its reader takes nothing")),
            (None, lost) => Err(io::Error::other(format!("its reader took nothing, and {lost} events were dropped"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    /// More than a pipe holds, 64 KiB (pipe(7)).
    const MANY: usize = 2000;

    fn line(number: usize) -> String {
        format!("{number:0100}")
    }

    #[test]
    fn what_finds_no_room_waits_and_comes_whole_and_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::new(writer);
        for number in 0..MANY {
            assert!(!outlet.take(&line(number), false));
            outlet.write(0);
        }
        assert!(!outlet.is_empty() && outlet.result().is_err());
        let mut seen = String::new();
        while !outlet.is_empty() {
            let mut some = [0; 4096];
            let count = reader.read(&mut some).unwrap();
            seen += std::str::from_utf8(&some[..count]).unwrap();
            outlet.write(0);
        }
        assert!(outlet.result().is_ok());
        drop(outlet);
        reader.read_to_string(&mut seen).unwrap();
        assert!(seen.lines().eq((0..MANY).map(line)), "{} bytes", seen.len());
    }

    /// Those who share it, as with `2>&1`, may take the room between a look and a write.
    #[test]
    fn a_write_does_not_wait_though_the_descriptor_of_others_would() {
        let (_reader, writer) = io::pipe().unwrap();
        let others = writer.try_clone().unwrap();
        let outlet = Outlet::new(writer);
        let waits = |fd: &dyn AsFd| {
            let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap());
            !flags.contains(OFlag::O_NONBLOCK)
        };
        assert!(!waits(&outlet.fd) && waits(&others));
    }

    #[test]
    fn for_a_reader_that_stands_still_so_much_is_kept_and_the_last_line_always() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::new(writer);
        let long = "x".repeat(1024 * 1024);
        let first: Vec<bool> = (0..6).map(|_| outlet.take(&long, false)).collect();
        assert_eq!(first, [false, false, false, true, false, false], "said once");
        outlet.take("end", true);
        let why = outlet.result().unwrap_err().to_string();
        assert!(why.contains("3 events were dropped"), "{why}");
        let drain = std::thread::spawn(move || {
            let mut all = String::new();
            reader.read_to_string(&mut all).map(|_| all)
        });
        while !outlet.is_empty() {
            outlet.write(100);
        }
        drop(outlet);
        let all = drain.join().unwrap().unwrap();
        assert!(all.lines().eq([long.as_str(), &long, &long, "end"]), "{} bytes", all.len());
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_keeps_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut outlet = Outlet::new(writer);
        outlet.take("to nobody", false);
        outlet.write(0);
        outlet.take("to nobody", true);
        assert!(outlet.is_empty() && outlet.result().is_ok());
    }
}
