//! conftool's audit line for the writes to a store that is not etcd: whoever watches syslog for who took which host out does not
//! have to know where the pools are kept.

use restart_core::{Fate, Fqdn, Listing, Node, NodeId, PoolPath, PoolStore, Pooled, StoreError, Write, WriteError};

use crate::audit::{Audit, NOBODY, Trail};

/// Another crate's store, with a line in the audit log for every write.
pub struct Audited<S> {
    store: S,
    trail: Trail,
}

impl<S: PoolStore> Audited<S> {
    /// The same store. Nobody needs a name to write to it: who wrote is the person in `audit`, if that is known.
    pub fn new(store: S, audit: Audit) -> Self {
        Self { store, trail: Trail::new(audit, NOBODY.to_owned()) }
    }
}

/// A node's name in the log, as conftool would call it.
fn name(id: &NodeId) -> String {
    format!("pools/{id}")
}

impl<S: PoolStore> PoolStore for Audited<S> {
    fn list(&mut self, path: &PoolPath) -> Result<Listing, StoreError> {
        self.store.list(path)
    }

    fn read(&mut self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        self.store.read(id)
    }

    fn whereabouts(&self, id: &NodeId) -> String {
        self.store.whereabouts(id)
    }

    fn kind(&self) -> &str {
        self.store.kind()
    }

    fn has_revisions(&self) -> bool {
        self.store.has_revisions()
    }

    fn prepare(&self, found: &Node, pooled: Pooled) -> Result<Write, StoreError> {
        self.store.prepare(found, pooled)
    }

    fn write(&mut self, write: &Write) -> Result<Node, WriteError> {
        let made = self.store.write(write);
        self.trail.written(&name(&write.found.id), write, &made);
        made
    }

    fn fate(&mut self, write: &Write) -> Result<Fate, StoreError> {
        let fate = self.store.fate(write)?;
        self.trail.found_out(&name(&write.found.id), write, &fate);
        Ok(fate)
    }

    fn no_longer_counts(&mut self, limit: &str, host: &Fqdn) -> Result<(), StoreError> {
        self.store.no_longer_counts(limit, host)
    }
}
