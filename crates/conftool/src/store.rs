//! conftool's node objects as the store of the restart sequence: keys, values and audit lines here, the cluster and its
//! troubles in the modules below.

use std::sync::Arc;
use std::time::Duration;

use restart_core::{
    Fate, Fqdn, Listing, Node, NodeId, PoolPath, PoolStore, Pooled, StoreError, Tag, Unreadable, Write, WriteError,
};

use tokio::runtime::Runtime;

use crate::audit::Trail;
use crate::cluster::Cluster;
use crate::config::Driver;
use crate::judge::{self, Judgement};
use crate::keys::Keys;
use crate::limits::Deadline;
use crate::mark::Mark;
use crate::member::Object;
use crate::node::{self, NodeError};
use crate::slots::Queue;

/// Why nothing may be written, for messages.
const READ_ONLY: &str = "conftool's config.yaml says 'read_only'";

/// The node objects in etcd, through either API. Made by [`Settings::open`](crate::Settings::open). A call lasts ten seconds
/// at most, whatever the members do.
pub struct Store {
    pub(crate) cluster: Cluster,
    /// Which of etcd's two APIs: what they keep is apart.
    pub(crate) driver: Driver,
    pub(crate) keys: Keys,
    pub(crate) request_limit: Duration,
    pub(crate) read_only: bool,
    /// The run that writes, for marks and journal.
    pub(crate) run: String,
    pub(crate) trail: Trail,
    /// The runtime that the members share.
    pub(crate) runtime: Option<Arc<Runtime>>,
}

impl Drop for Store {
    /// A name lookup may hang in the system's resolver, in a thread that the runtime would wait for when it is dropped.
    fn drop(&mut self) {
        self.cluster = Cluster::new(Vec::new());
        if let Some(runtime) = self.runtime.take().and_then(Arc::into_inner) {
            runtime.shutdown_background();
        }
    }
}

impl Store {
    fn deadline(&self) -> Deadline {
        Deadline::begin(self.request_limit)
    }

    /// The nodes of a whole cluster in a data centre, whatever their service, in the order of their keys. What stands deeper or
    /// less deep than a node does is none.
    pub fn list_cluster(&mut self, data_centre: &Tag, cluster: &Tag) -> Result<Listing, StoreError> {
        let directory = self.keys.cluster(data_centre, cluster);
        let deadline = self.deadline();
        let mut objects = self
            .cluster
            .ask(&format!("list '{directory}'"), deadline, |member, limit| member.list_all(&directory, limit))?;
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        let mut listing = Listing::default();
        for object in objects {
            let below = object.key.strip_prefix(directory.as_str()).and_then(|below| below.strip_prefix('/'));
            let Some((service, host)) = below.and_then(|below| below.split_once('/')) else { continue };
            if host.contains('/') {
                continue;
            }
            let (service, host) = (Tag::new(service), host.to_owned());
            match service {
                Ok(service) => {
                    let path = PoolPath { data_centre: data_centre.clone(), cluster: cluster.clone(), service };
                    sort_in(&mut listing, &path, host, object);
                }
                Err(error) => listing.unreadable.push(Unreadable { host, why: error.to_string() }),
            }
        }
        Ok(listing)
    }
}

impl PoolStore for Store {
    fn list(&mut self, path: &PoolPath) -> Result<Listing, StoreError> {
        let directory = self.keys.directory(path);
        let deadline = self.deadline();
        let objects = self
            .cluster
            .ask(&format!("list '{directory}'"), deadline, |member, limit| member.list(&directory, limit))?;
        let mut listing = Listing::default();
        for object in objects {
            let host = object.key.rsplit('/').next().unwrap_or_default().to_owned();
            sort_in(&mut listing, path, host, object);
        }
        Ok(listing)
    }

    fn read(&mut self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let key = self.keys.node(id);
        let deadline = self.deadline();
        let found = self.cluster.ask(&format!("read '{key}'"), deadline, |member, limit| member.get(&key, limit))?;
        match found {
            None => Ok(None),
            Some(object) => node(id.clone(), object).map(Some).map_err(|error| malformed(&key, &error)),
        }
    }

    fn whereabouts(&self, id: &NodeId) -> String {
        format!("'{}' in etcd's {} API at {}", self.keys.node(id), self.driver.api(), self.cluster.urls().join(", "))
    }

    /// The driver's name as config.yaml spells it: `etcd` or `etcd3`.
    fn kind(&self) -> &str {
        self.driver.name()
    }

    fn prepare(&self, found: &Node, pooled: Pooled) -> Result<Write, StoreError> {
        let key = self.keys.node(&found.id);
        let value = node::with_pooled(&found.value, pooled).map_err(|error| malformed(&key, &error))?;
        Ok(Write { run: self.run.clone(), found: found.clone(), pooled, key, value })
    }

    fn write(&mut self, write: &Write) -> Result<Node, WriteError> {
        if self.read_only {
            let why = format!("cannot set '{}' to pooled={}: {READ_ONLY}", write.key, write.pooled);
            return Err(WriteError::NotMade(StoreError::Refused(why)));
        }
        let deadline = self.deadline();
        let made = judge::make(&mut self.cluster, write, &Mark::new(&self.keys, write), deadline);
        let made = made.map(|revision| written(write, revision));
        self.trail.written(&self.keys.audit_name(&write.found.id), write, &made);
        made
    }

    fn fate(&mut self, write: &Write) -> Result<Fate, StoreError> {
        let deadline = self.deadline();
        let judgement = judge::judge(&mut self.cluster, write, &Mark::new(&self.keys, write), deadline)?;
        let fate = match judgement {
            Judgement::Ours { revision, is_last: true } => Fate::Made(written(write, revision)),
            Judgement::Ours { revision, .. } => Fate::MadeThenChanged(written(write, revision)),
            Judgement::Unchanged | Judgement::Theirs => Fate::NotMade,
            Judgement::Forgotten => Fate::Unclear(judge::forgotten(write)),
        };
        self.trail.found_out(&self.keys.audit_name(&write.found.id), write, &fate);
        Ok(fate)
    }

    /// Removes the note that [`LeaseSlots`](crate::LeaseSlots) left when the host was about to leave, in whichever process. In v2
    /// there are no slots, and nothing is done. A `limit` that names no queue is refused, and so is every other one where nothing
    /// may be written.
    fn no_longer_counts(&mut self, limit: &str, host: &Fqdn) -> Result<(), StoreError> {
        if !self.driver.has_leases() {
            return Ok(());
        }
        let queue = Queue::new(&self.keys, limit)?;
        let what = queue.taking_back(host);
        if self.read_only {
            return Err(StoreError::Refused(format!("cannot {what}: {READ_ONLY}")));
        }
        let (note, deadline) = (queue.out(host), self.deadline());
        self.cluster.ask(&what, deadline, |member, limit| member.remove(&note, limit))
    }
}

/// Puts an object where it belongs: among the nodes, or among those that cannot be read.
fn sort_in(listing: &mut Listing, path: &PoolPath, host: String, object: Object) {
    let read = match Fqdn::new(host.as_str()) {
        Ok(name) => node(path.node(&name), object).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match read {
        Ok(node) => listing.nodes.push(node),
        Err(why) => listing.unreadable.push(Unreadable { host, why }),
    }
}

/// The node that a write made.
fn written(write: &Write, revision: u64) -> Node {
    Node { id: write.found.id.clone(), pooled: write.pooled, value: write.value.clone(), revision }
}

fn node(id: NodeId, object: Object) -> Result<Node, NodeError> {
    let value = String::from_utf8(object.value).map_err(|_| NodeError::Encoding)?;
    Ok(Node { id, pooled: node::pooled(&value)?, value, revision: object.revision })
}

fn malformed(key: &str, error: &NodeError) -> StoreError {
    StoreError::Malformed(format!("object at '{key}': {error}"))
}
