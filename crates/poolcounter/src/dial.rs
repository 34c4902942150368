//! Reaching a daemon without waiting for it: a name is looked up and a connection made on a thread of its own, since
//! getaddrinfo knows no time limit. A thread that is given up on ends with its lookup and leaves nothing behind.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::PORT;
use crate::connection::reason;

/// How long name and connection may take together.
pub(crate) const REACH_LIMIT: Duration = Duration::from_secs(1);

/// Why a daemon was not reached. Its text goes after "cannot reach poolcounter 'pc1' (pc1.example): ".
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name has no address.
    #[error("no such host")]
    NoSuchHost,
    /// The name could not be looked up now.
    #[error("its name cannot be resolved: {0}")]
    Resolver(String),
    /// The last address that was tried failed so.
    #[error("{}", reason(.0))]
    Connect(io::Error),
    /// Name or connection took too long.
    #[error("no connection within {REACH_LIMIT:?}")]
    TimedOut,
    /// No thread could be started.
    #[error("cannot start a thread to connect: {}", reason(.0))]
    Thread(io::Error),
}

/// A connection under way.
#[derive(Debug)]
pub(crate) struct Dial {
    outcome: Receiver<Result<TcpStream, DialError>>,
    deadline: Instant,
}

impl Dial {
    /// Begins to reach `host`, a name or an address.
    pub(crate) fn start(host: &str) -> Result<Self, DialError> {
        let deadline = Instant::now() + REACH_LIMIT;
        let (sender, outcome) = channel();
        let host = host.to_owned();
        // Nobody listens any more once it was given up; the stream is then closed here.
        let reach = move || drop(sender.send(reach(&host, deadline)));
        thread::Builder::new().name("poolcounter-dial".to_owned()).spawn(reach).map_err(DialError::Thread)?;
        Ok(Self { outcome, deadline })
    }

    /// Waits for the outcome, however long that takes; see [`REACH_LIMIT`].
    pub(crate) fn finish(self) -> Result<TcpStream, DialError> {
        self.outcome(REACH_LIMIT).unwrap_or(Err(DialError::TimedOut))
    }

    /// Waits for the outcome, for at most `at_most`; `None` when there is none yet.
    pub(crate) fn outcome(&self, at_most: Duration) -> Option<Result<TcpStream, DialError>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.outcome.recv_timeout(left.min(at_most)) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) if left > at_most => None,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Some(Err(DialError::TimedOut)),
        }
    }
}

fn reach(host: &str, deadline: Instant) -> Result<TcpStream, DialError> {
    let mut addresses: Vec<SocketAddr> = (host, PORT).to_socket_addrs().map_err(|error| name_error(&error))?.collect();
    // The original knows IPv4 alone: where a name has both, both shall mean the same daemon.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut last = DialError::NoSuchHost;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // An address that swallows everything leaves time for the others.
        let share = u32::try_from(addresses.len() - tried).map_or(left, |remaining| left / remaining);
        if share.is_zero() {
            return Err(DialError::TimedOut);
        }
        last = match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => DialError::TimedOut,
            Err(error) => DialError::Connect(error),
        };
    }
    Err(last)
}

/// std passes on getaddrinfo's failures as text alone, behind these words.
const LOOKUP: &str = "failed to lookup address information: ";

fn name_error(error: &io::Error) -> DialError {
    let text = error.to_string();
    match text.strip_prefix(LOOKUP) {
        Some("Name or service not known" | "No address associated with hostname") => DialError::NoSuchHost,
        Some(why) => DialError::Resolver(reason(&io::Error::other(why))),
        None => DialError::Resolver(reason(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_quoted_in_plain_words() {
        for (why, expected) in [
            ("Name or service not known", "no such host"),
            ("No address associated with hostname", "no such host"),
            (
                "Temporary failure in name resolution",
                "its name cannot be resolved: temporary failure in name resolution",
            ),
        ] {
            assert_eq!(name_error(&io::Error::other(format!("{LOOKUP}{why}"))).to_string(), expected);
        }
    }
}
