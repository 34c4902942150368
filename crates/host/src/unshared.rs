//! Room that was there when we looked may be somebody else's when we write: whoever writes to the same pipe or terminal, and a plain
//! write waits then. So those are opened once more, for us alone, such that a write does not wait. The descriptor that we were given is
//! its other holders' as well, and is left as it is.

use std::fs::{self, OpenOptions};
use std::io::IsTerminal as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// A descriptor to write to, which is that of the same pipe or terminal opened for us alone where there is such.
#[derive(Debug)]
pub struct Unshared<Fd> {
    given: Fd,
    own: Option<OwnedFd>,
}

impl<Fd: AsFd> Unshared<Fd> {
    /// What is neither a pipe nor a terminal (a file, a socket, which nobody else fills) is not opened again, and neither is one that we
    /// may not open: then a look before each write has to do.
    pub fn new(given: Fd) -> Self {
        let own = opened_again(given.as_fd());
        Self { given, own }
    }
}

impl<Fd: AsFd> AsFd for Unshared<Fd> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_ref().map_or_else(|| self.given.as_fd(), AsFd::as_fd)
    }
}

fn opened_again(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if !fd.is_terminal() && !fs::metadata(&path).ok()?.file_type().is_fifo() {
        return None;
    }
    let opened = OpenOptions::new().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(&path);
    opened.ok().map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    /// As between the look and the write, when somebody else fills the pipe.
    #[test]
    fn a_write_for_which_somebody_else_took_the_room_does_not_wait() {
        let (_reader, writer) = io::pipe().unwrap();
        let other = opened_again(writer.as_fd()).unwrap();
        let ours = Unshared::new(writer);
        while nix::unistd::write(&other, b"x").is_ok() {}
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(nix::unistd::write(&ours, b"too late\n")));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(Err(Errno::EAGAIN)), "the write waits");
    }

    #[test]
    fn what_others_hold_is_left_as_it_is() {
        let (_reader, writer) = io::pipe().unwrap();
        let ours = Unshared::new(writer);
        assert!(ours.own.is_some());
        let flags = fcntl(&ours.given, FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & O_NONBLOCK, 0);
    }

    #[test]
    fn a_file_is_written_where_its_other_holders_write() {
        let ours = Unshared::new(tempfile::tempfile().unwrap());
        assert!(ours.own.is_none());
    }
}
