//! One connection to a daemon: a command in one write, replies as they come. Its life is the lock's: whoever drops it gives
//! back what it holds, and gives up what it waits for.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use crate::wire::{self, Reply, Request, Stats, UnknownReply};

/// How long a write may take. A command is some fifty bytes and fits the socket's buffer at once.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// The kernel's own question whether the other side is still there, after this long without traffic, this often, and this many
/// times: a host that vanished is noticed after 25 s.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMES: u32 = 3;

/// The shortest time that a read can be told to wait; zero would be for ever.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Why a connection is of no more use. Its text goes after "poolcounter 'pc1' (pc1.example)".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// An empty read: the daemon is gone, which is never a reply.
    #[error("closed the connection")]
    Closed,
    /// The kernel's error.
    #[error("broke the connection: {}", reason(.0))]
    Io(#[from] io::Error),
    /// Something else than poolcounterd, or a newer one.
    #[error(transparent)]
    Unknown(#[from] UnknownReply),
}

/// A connection with what has been received and not been taken yet.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Takes over a stream and sets its options.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_TIMES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// The daemon's address.
    pub(crate) fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Sends a command in one write; the daemon takes a part of a line for a bad command.
    pub(crate) fn send(&mut self, request: Request<'_>) -> Result<(), Broken> {
        let line = request.to_string();
        let written = self.stream.write(line.as_bytes())?;
        if written < line.len() {
            return Err(Broken::Io(io::Error::other("a command could not be sent whole")));
        }
        Ok(())
    }

    /// Waits for a reply, for at most about `at_most`; `None` when there is none yet.
    pub(crate) fn reply(&mut self, at_most: Duration) -> Result<Option<Reply>, Broken> {
        if let Some(reply) = wire::take_reply(&mut self.received)? {
            return Ok(Some(reply));
        }
        self.receive(at_most)?;
        Ok(wire::take_reply(&mut self.received)?)
    }

    /// Waits for the page of figures until `deadline`; `None` when it is not complete by then.
    pub(crate) fn stats(&mut self, deadline: Instant) -> Result<Option<Stats>, Broken> {
        loop {
            if let Some(stats) = Stats::parse(&self.received)? {
                return Ok(Some(stats));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.receive(left)?;
        }
    }

    /// From here on nothing is waited for, and [`Self::unsolicited`] may be asked.
    pub(crate) fn hold(&mut self) -> Result<(), Broken> {
        Ok(self.stream.set_nonblocking(true)?)
    }

    /// The end of [`Self::hold`].
    pub(crate) fn unhold(&mut self) -> Result<(), Broken> {
        Ok(self.stream.set_nonblocking(false)?)
    }

    /// What the daemon said although nothing was asked; one system call. `None`: it is silent, and the connection is whole as
    /// far as the kernel knows.
    pub(crate) fn unsolicited(&mut self) -> Result<Option<Reply>, Broken> {
        if self.received.is_empty() {
            self.fill()?;
        }
        if self.received.is_empty() {
            return Ok(None);
        }
        // Even the beginning of a line is too much.
        let whole = wire::take_reply(&mut self.received)?;
        whole.map_or_else(|| Err(UnknownReply::new(&self.received).into()), |reply| Ok(Some(reply)))
    }

    /// Ends a connection whose daemon is gone with a reset. A daemon that died with clients leaves sockets on its port until the
    /// clients have closed and a minute more; it cannot be started again before. A reset removes ours at once.
    pub(crate) fn reset(self) {
        // Without it, the end is an ordinary one.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn receive(&mut self, at_most: Duration) -> Result<(), Broken> {
        self.stream.set_read_timeout(Some(at_most.max(SHORTEST_WAIT)))?;
        self.fill()
    }

    /// Reads once; no bytes yet is no error.
    fn fill(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Broken::Closed),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            // `TimedOut` is not among them: that is keepalive, which found nobody there.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(Broken::Io(error)),
        }
    }
}

/// The kernel's words, without " (os error 111)", which says the same to nobody.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Connection::new(stream).unwrap(), listener.accept().unwrap().0)
    }

    #[test]
    fn replies_come_in_pieces_and_in_heaps() {
        let (mut ours, mut daemon) = pair();
        assert_eq!(ours.reply(Duration::ZERO).unwrap(), None);
        daemon.write_all(b"LOC").unwrap();
        assert_eq!(ours.reply(Duration::from_millis(50)).unwrap(), None);
        daemon.write_all(b"KED\nRELEASED\n").unwrap();
        assert_eq!(ours.reply(LONG).unwrap(), Some(Reply::Locked));
        assert_eq!(ours.reply(LONG).unwrap(), Some(Reply::Released));
    }

    #[test]
    fn an_empty_read_is_a_lost_daemon() {
        let (mut ours, daemon) = pair();
        drop(daemon);
        assert!(matches!(ours.reply(LONG), Err(Broken::Closed)));
    }

    #[test]
    fn silence_while_holding_is_good_and_anything_else_is_told() {
        let (mut ours, mut daemon) = pair();
        ours.hold().unwrap();
        assert_eq!(ours.unsolicited().unwrap(), None);
        daemon.write_all(b"TIMEOUT\n").unwrap();
        let deadline = Instant::now() + LONG;
        let told = loop {
            match ours.unsolicited().unwrap() {
                None if Instant::now() < deadline => std::thread::yield_now(),
                told => break told,
            }
        };
        assert_eq!(told, Some(Reply::Timeout));
        ours.received = b"LOCK".to_vec();
        assert!(matches!(ours.unsolicited(), Err(Broken::Unknown(_))));
    }

    #[test]
    fn reasons_are_in_plain_words() {
        assert_eq!(reason(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(reason(&io::Error::from_raw_os_error(110)), "connection timed out");
    }
}
