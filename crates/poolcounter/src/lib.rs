//! One of N slots from poolcounterd, so that a fleet in which some hosts still run the original scripts and some run these tools
//! shares one limit: the same key, the same command, the same backends file and the same hash ring.
//!
//! Requests and replies are pure text (`wire.rs`), and so is the choice of the daemon ([`Backends`], by `ring.rs`); sockets are in
//! [`Poolcounter`] and the private modules below it. A daemon that is silent is never taken for one that said yes, nor for
//! one that said no.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use poolcounter::{Backends, Key, Poolcounter};
//! use restart_core::{PoolName, Slots, Tag};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backends = Backends::parse(Path::new(poolcounter::BACKENDS_FILE), "- pc1:pc1.example:1\n- pc2:pc2.example:1\n")?;
//! let key = Key::of_pools(&Tag::new("eqiad")?, &[PoolName::new("appservers")?])?;
//! let mut slots = Poolcounter::new(&backends, key);
//! slots.ask(3, Duration::from_secs(600))?;
//! while !slots.granted(Duration::from_millis(100))? {
//!     // Look for signals here.
//! }
//! slots.look()?;
//! slots.release();
//! # Ok(())
//! # }
//! ```

mod backends;
mod client;
mod connection;
mod dial;
mod figures;
mod key;
mod printable;
mod pulse;
mod ring;
mod wire;
mod yaml;

pub use backends::{Backend, Backends, BackendsError, Fault};
pub use client::Poolcounter;
pub use figures::figures;
pub use key::{Key, KeyError};
pub use wire::Stats;

/// Where Puppet puts the list of daemons; the original reads the same file.
pub const BACKENDS_FILE: &str = "/etc/poolcounter-backends.yaml";

/// The port of every poolcounterd; neither the daemon nor the file can say another.
pub const PORT: u16 = 7531;
