//! How long the store may take: every time-out of this crate, with its reason.

use std::time::{Duration, Instant};

/// For a connection to one member, TLS included. Within a data centre it takes a millisecond; a black hole shall not cost
/// the time that the other members need.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);

/// For one request to one member, answer included. Longer than an election among healthy members (etcd's default is 1 s
/// without a heartbeat); a `read_timeout` in an etcdrc file that is smaller replaces it.
pub(crate) const REQUEST: Duration = Duration::from_secs(3);

/// For one operation, all members and all second looks together: two frozen members of three, and the answer of the third.
pub(crate) const OPERATION: Duration = Duration::from_secs(10);

/// Between two rounds over all members, when a write is in doubt and nobody answers.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// For the SRV records of a domain: two attempts at a resolver that loses one packet.
pub(crate) const LOOKUP: Duration = Duration::from_secs(3);

/// For one packet to a resolver.
pub(crate) const LOOKUP_PACKET: Duration = Duration::from_secs(1);

/// The end of an operation, and how much of it one request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end: Instant,
    request: Duration,
}

impl Deadline {
    /// An operation that begins now, with requests of at most `request`.
    pub(crate) fn begin(request: Duration) -> Self {
        Self { end: Instant::now() + OPERATION, request }
    }

    /// The limit for a request that begins now; `None` when the time is over.
    pub(crate) fn next_request(&self) -> Option<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(self.request))
    }

    /// Waits before the next round; false, at once, if the time would be over then.
    pub(crate) fn pause(&self) -> bool {
        let has_time = self.end.saturating_duration_since(Instant::now()) > PAUSE;
        if has_time {
            std::thread::sleep(PAUSE);
        }
        has_time
    }
}
