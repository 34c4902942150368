//! The question "does the load balancer send to this host". Answered by the crate `load-balancer`.

use std::fmt;
use std::time::Duration;

use crate::names::{BackendName, Fqdn, PoolName, ServerPattern};

/// Several load balancers, asked at the same time.
pub trait LoadBalancers {
    /// Starts asking and returns at once. The verdict comes with [`LoadBalancers::answers`] under the same ticket, always,
    /// and within the time that one request may take.
    fn ask(&mut self, ticket: Ticket, question: &Question);

    /// Waits until something was answered, `at_most` that long, and returns all that was.
    fn answers(&mut self, at_most: Duration) -> Vec<(Ticket, Verdict)>;
}

/// Names one request; never used twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What one load balancer is asked: do you send traffic of this pool to this host?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whom to ask.
    pub balancer: Balancer,
    /// The pool.
    pub pool: PoolName,
    /// The pool's port.
    pub port: u16,
    /// The host in question.
    pub host: Fqdn,
    /// What the load balancer speaks.
    pub protocol: Protocol,
}

/// What the load balancers of a pool speak, and what they call the pool and its hosts where that is not our name for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Protocol {
    /// PyBal's instrumentation: the pool's name, its port and the host's full name.
    #[default]
    PyBal,
    /// HAProxy's runtime API.
    Haproxy {
        /// The pool there.
        backend: BackendName,
        /// The host there.
        server: ServerPattern,
    },
}

/// A load balancer: a name or an address, with a port where the catalog gives one, or a socket of this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(into = "String")]
pub struct Balancer {
    /// A host name, an IPv4 address, an IPv6 address without brackets, or the path of a Unix socket, which begins with `/`.
    pub host: String,
    /// The port of its instrumentation; `None` is the technology's own, and goes with a path.
    pub port: Option<u16>,
}

impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

impl From<Balancer> for String {
    fn from(balancer: Balancer) -> Self {
        balancer.to_string()
    }
}

/// What a load balancer said of this host in a pool.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// Enabled, and sent traffic.
    Pooled,
    /// Disabled, and not sent traffic: the one answer that confirms a depool.
    NotPooled,
    /// Disabled, and yet sent traffic: the load balancer would have too few servers left.
    Held,
    /// Disabled, and sent nothing new, but what it was sent before is not finished; the text says what is left.
    Draining(String),
    /// Enabled, and not sent traffic, because its health check fails or has not run yet, its name has no address, or its weight
    /// is 0. Not our depool: traffic comes back with the next good check.
    Down,
    /// Not known there (PyBal: 404).
    Absent,
    /// No answer, or none that can be understood; the text says which.
    Unknown(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pooled => f.write_str("says pooled"),
            Self::NotPooled => f.write_str("says not pooled"),
            Self::Held => f.write_str("says disabled, but keeps it pooled"),
            Self::Draining(left) => write!(f, "says disabled, but {left}"),
            Self::Down => f.write_str(
                "says enabled, but not pooled (its health check fails or has not run, or it has no weight or no address)",
            ),
            Self::Absent => f.write_str("does not know it"),
            Self::Unknown(why) => write!(f, "gives no answer that can be used: {why}"),
        }
    }
}
