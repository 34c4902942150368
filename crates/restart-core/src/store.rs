//! The question "which pools is this host in, and take it out or put it back". Answered by the crate `conftool` with etcd, and by
//! `load-balancer` with HAProxy itself.

use crate::names::Fqdn;
use crate::outcome::{ExitCode, Failure};
use crate::pool::{Node, NodeId, PoolPath, Pooled};

/// Where the nodes of the pools are kept. Every method bounds its own time: it answers or fails, it does not hang.
pub trait PoolStore {
    /// Reads all nodes kept at `path`, and nothing beside it. A place that does not exist is an empty listing.
    fn list(&mut self, path: &PoolPath) -> Result<Listing, StoreError>;

    /// Reads one node; `None` when there is no such object.
    fn read(&mut self, id: &NodeId) -> Result<Option<Node>, StoreError>;

    /// Where exactly a node is looked for, with all that can be wrong about it (key, kind of store, address); for messages.
    fn whereabouts(&self, id: &NodeId) -> String {
        format!("'{id}'")
    }

    /// Which store this is, so that a journal written for one is never taken to another: the driver's name.
    fn kind(&self) -> &str;

    /// Whether it has a revision for each write, and with it tells ours from everybody else's, also after a restart of its own. One
    /// that has none gives every node the same.
    fn has_revisions(&self) -> bool {
        true
    }

    /// Says what would be written to set `pooled` of `found`, every other byte of it kept. No I/O.
    fn prepare(&self, found: &Node, pooled: Pooled) -> Result<Write, StoreError>;

    /// Writes, if and only if the object is still at the revision it was found at; returns it as it is now. A write whose
    /// answer was lost is read again before it is judged.
    fn write(&mut self, write: &Write) -> Result<Node, WriteError>;

    /// Finds out what became of a write that ended in [`WriteError::Unknown`].
    fn fate(&mut self, write: &Write) -> Result<Fate, StoreError>;

    /// Takes back what [`Slots::taking_out`](crate::Slots::taking_out) said: `host` is back, or out for a reason that is not
    /// ours, and no longer counts against the limit of this name. Nothing to do if nothing was said, and in a store that has no
    /// slots.
    fn no_longer_counts(&mut self, limit: &str, host: &Fqdn) -> Result<(), StoreError> {
        let _ = (limit, host);
        Ok(())
    }
}

/// The nodes of a pool.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Those that could be read.
    pub nodes: Vec<Node>,
    /// Those that could not.
    pub unreadable: Vec<Unreadable>,
}

/// An object of the store that is no node: damaged JSON, or no valid `pooled`.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// The last part of its key.
    pub host: String,
    /// What is wrong with it.
    pub why: String,
}

impl Listing {
    /// The node of exactly this host; damaged is an error, but only if it is this host's.
    pub fn node(&self, host: &Fqdn) -> Result<Option<&Node>, StoreError> {
        if let Some(broken) = self.unreadable.iter().find(|broken| broken.host == host.as_str()) {
            return Err(StoreError::Malformed(format!("object of '{host}': {}", broken.why)));
        }
        Ok(self.nodes.iter().find(|node| node.id.host == *host))
    }
}

/// One change of one node, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Write {
    /// The run that makes it; with `found` it tells this write from every other one.
    pub run: String,
    /// The node as it was found.
    pub found: Node,
    /// The value that `pooled` gets.
    pub pooled: Pooled,
    /// The store's key.
    pub key: String,
    /// The store's new value, whole.
    pub value: String,
}

/// What became of a write whose answer was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was made, by us, and nobody wrote since.
    Made(Node),
    /// It was made, by us, and somebody wrote after it. The node is ours as it was right after our write.
    MadeThenChanged(Node),
    /// It was not made.
    NotMade,
    /// Somebody wrote, and it cannot be shown that it was us.
    Unclear(String),
}

/// Why the store could not do what was asked. The text says which store, what it answered, never a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No member answered in time, or none has quorum.
    #[error("{0}")]
    Unreachable(String),
    /// The store answered and refused: credentials, permissions, an API that is not there.
    #[error("{0}")]
    Refused(String),
    /// The store holds something that is not a node object.
    #[error("{0}")]
    Malformed(String),
}

impl StoreError {
    /// The failure of a run that has written nothing, with the exit code that this asks for; `what` completes "cannot ...".
    pub fn failure(&self, what: &str) -> Failure {
        let code = match self {
            Self::Unreachable(_) => ExitCode::Unreachable,
            Self::Refused(_) => ExitCode::Configuration,
            Self::Malformed(_) => ExitCode::Failed,
        };
        Failure::new(code, format!("cannot {what}: {self}"))
    }
}

/// Why a write was not made, or is not known to be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Somebody else wrote since the node was read. Nothing was written.
    #[error("the object changed since it was read")]
    Conflict,
    /// Nothing was written.
    #[error("{0}")]
    NotMade(StoreError),
    /// The answer was lost, and the store could not be asked again: it may have been written.
    #[error("{0} (the write may have been made)")]
    Unknown(StoreError),
}
