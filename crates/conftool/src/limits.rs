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

/// How long the members may take to agree on a new leader before it counts as lost with the quorum: at etcd's defaults one to
/// two seconds after the last heartbeat of the old one, and the same again if the votes were split.
pub(crate) const ELECTION: Duration = Duration::from_secs(5);

/// Between two rounds over all members, when a write is in doubt and nobody answers, or while a leader is elected.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// For the SRV records of a domain: two attempts at a resolver that loses one packet.
pub(crate) const LOOKUP: Duration = Duration::from_secs(3);

/// For one packet to a resolver.
pub(crate) const LOOKUP_PACKET: Duration = Duration::from_secs(1);

/// Time to live of the lease of a slot: how long a slot stays taken by a run that was killed, and how long etcd may be away
/// before a run that holds one has to give up. An election with its aftermath takes some three seconds. Whole seconds, as etcd
/// counts; etcd may grant more.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// A lease is kept alive this often within its time to live.
pub(crate) const BEATS: u32 = 3;

/// A request to keep a lease alive, or to look at a queue, takes at most this part of the time to live: after the first
/// third there are five attempts before it ends, at one member after the other. A leader that freezes takes those of the first
/// seconds with it, whoever was asked.
pub(crate) const BEAT_PART: u32 = 8;

/// Between two looks at a queue in which nothing happens, with a watch in between that tells at once what does. A watch at a
/// frozen member is silent for ever: this is how soon another one is asked.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// For giving a slot back, all members together. What fails is done by etcd when the lease ends.
pub(crate) const RELEASE: Duration = Duration::from_secs(3);

/// The same when a value is dropped, where nobody expects to wait.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// For a list of those who hold slots, which only a message wants.
pub(crate) const HOLDERS: Duration = Duration::from_secs(3);

/// The end of an operation, and how much of it one request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    begun: Instant,
    end: Instant,
    total: Duration,
    request: Duration,
}

impl Deadline {
    /// An operation that begins now, with requests of at most `request`.
    pub(crate) fn begin(request: Duration) -> Self {
        Self::within(OPERATION, request)
    }

    /// An operation that begins now and takes `total` at most.
    pub(crate) fn within(total: Duration, request: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, end: begun + total, total, request }
    }

    /// The time for the whole operation.
    pub(crate) fn total(&self) -> Duration {
        self.total
    }

    /// The limit for a request that begins now; `None` when the time is over.
    pub(crate) fn next_request(&self) -> Option<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(self.request))
    }

    /// Whether there is time for one more pause.
    fn has_time(&self) -> bool {
        self.end.saturating_duration_since(Instant::now()) > PAUSE
    }

    /// Whether members that have no leader may still get one, and there is time for one more pause.
    pub(crate) fn is_time_to_elect(&self) -> bool {
        self.begun.elapsed() < ELECTION && self.has_time()
    }

    /// Waits before the next round; false, at once, if the time would be over then.
    pub(crate) fn pause(&self) -> bool {
        let has_time = self.has_time();
        if has_time {
            std::thread::sleep(PAUSE);
        }
        has_time
    }
}
