//! Which pools is this host in, and take it out or put it back: conftool's node objects in etcd, for
//! [`restart_core::PoolStore`]. And may I be one of N: leases in the same etcd, for [`restart_core::Slots`].
//!
//! The files are conftool's own (config.yaml, the etcdrc files, the catalog), read as conftool 6.1.0 and python-etcd read
//! them; safe-service-restart-files(5) lists what we add. Loading ([`Settings::load`], [`Catalog::load`]) contacts nothing.
//! [`Settings::open`] yields a [`Store`], which speaks either of etcd's two APIs: one `Member` for each member of the cluster
//! (`v2.rs`, `v3.rs`), passed over when it does not answer (`cluster.rs`), and a write whose answer was lost is looked into
//! before it is judged (`judge.rs`), in v3 by the mark that it left (`mark.rs`). [`Settings::slots`] yields [`LeaseSlots`], for v3
//! alone, with a thread of their own that keeps the lease alive. This is the only crate that sees tokio, and it does not show.
//!
//! No message and no `Debug` output of this crate holds a password. A logger must keep the HTTP library (`ureq_proto`) above
//! `trace`, where it prints the bytes of its requests.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use conftool::{Audit, Catalog, Settings};
//! use restart_core::{Fqdn, PoolName, PoolStore, Pooled, Tag};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let read = |path: &Path| match std::fs::read_to_string(path) {
//!     Ok(text) => Ok(Some(text)),
//!     Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
//!     Err(error) => Err(error),
//! };
//! let catalog = Catalog::load(Path::new("/etc/conftool/local_services.yaml"), &read)?;
//! let pools = catalog.pools(&[PoolName::new("appservers")?])?;
//! let settings = Settings::load(Path::new("/etc/conftool/config.yaml"), Some(Path::new("/root")), &read)?;
//! let audit = Audit { user: None, host: "mw1001".to_owned(), sink: Box::new(|line| println!("{line}")) };
//! let mut store = settings.open("a-run", audit)?;
//! let listing = store.list(&pools[0].path(&Tag::new("eqiad")?))?;
//! if let Some(node) = listing.node(&Fqdn::new("mw1001.eqiad.wmnet")?)? {
//!     store.write(&store.prepare(node, Pooled::No)?)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A slot, with the host counted as out for as long as it is, whatever happens to this process:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use conftool::{Holder, Settings, Store};
//! use restart_core::{Fqdn, PoolStore, Slots};
//!
//! # fn run(settings: &Settings, mut store: Store) -> Result<(), Box<dyn std::error::Error>> {
//! let host = Fqdn::new("mw1001.eqiad.wmnet")?;
//! let holder = Holder {
//!     host: host.clone(),
//!     run: "a-run".to_owned(),
//!     pid: std::process::id(),
//!     user: None,
//!     since: "2026-11-23T10:00:00Z".to_owned(),
//! };
//! let mut slots = settings.slots("ServiceRestarter::eqiad::appservers", holder)?;
//! slots.ask(3, Duration::from_secs(600))?;
//! while !slots.granted(Duration::from_millis(100))? {}
//! slots.taking_out()?;
//! // depool, restart, repool; `slots.look()?` right before the restart
//! store.no_longer_counts("ServiceRestarter::eqiad::appservers", &host)?;
//! slots.release();
//! # Ok(())
//! # }
//! ```

mod audit;
mod audited;
mod catalog;
mod cluster;
mod config;
mod endpoint;
mod etcdrc;
mod judge;
mod keeper;
mod keys;
mod limits;
mod load;
mod mark;
mod member;
mod node;
mod secret;
mod settings;
mod slots;
mod srv;
mod store;
mod time;
mod tls;
mod v2;
mod v3;
mod walk;
mod yaml;

pub use audit::Audit;
pub use audited::Audited;
pub use catalog::Catalog;
pub use keeper::{InHaproxy, Keeper};
pub use load::{Invalid, LoadError, Read};
pub use settings::Settings;
pub use slots::{Holder, LeaseSlots};
pub use store::Store;
