//! The store of one run, whoever keeps the pools.

use std::time::Duration;

use conftool::{Audit, Audited, Keeper};
use load_balancer::{Access, HaproxyStore};
use restart_core::{Fqdn, Pool, PoolStore, Record, StoreError, Tag};

/// Whose pools, and what for.
pub struct Opening<'a> {
    /// The run, by the name that no other has.
    pub run: &'a str,
    /// The host.
    pub host: &'a Fqdn,
    /// Under which its nodes are kept.
    pub data_centre: &'a Tag,
    /// The pools that it may be in.
    pub pools: &'a [Pool],
    /// What a journal has of it.
    pub left: Option<&'a Record>,
    /// Whether they are to be changed.
    pub access: Access,
    /// The time that one exchange with HAProxy may take; etcd has its own limits.
    pub at_most: Duration,
}

/// Makes the store ready.
pub fn open(keeper: &Keeper, opening: &Opening<'_>, audit: Audit) -> Result<Box<dyn PoolStore>, StoreError> {
    match keeper {
        Keeper::Etcd(settings) => Ok(Box::new(settings.open(opening.run, audit)?)),
        Keeper::Haproxy(_) => {
            let Opening { run, host, data_centre, pools, left, access, at_most } = *opening;
            let mut store = HaproxyStore::new(run, host, (pools, data_centre), access, at_most)?;
            left.into_iter().for_each(|record| store.remember(record));
            Ok(Box::new(Audited::new(store, audit)))
        }
    }
}
