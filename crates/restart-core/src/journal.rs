//! What a run has to leave behind so that nothing is forgotten when it dies (rule 4): which nodes it took out, how they were
//! found, and how far it got. The file is the crate `host`'s; what is done with a record that was found is in `recover.rs`.

use serde::{Deserialize, Serialize};

use crate::names::{Fqdn, PoolName, Tag, UnitName};
use crate::pool::Node;
use crate::store::Write;

/// Keeps one record over the death of this process and of the machine.
pub trait Journal {
    /// Puts the record in the place of the one before, on disk, before it returns.
    fn keep(&mut self, record: &Record) -> Result<(), JournalError>;

    /// Removes the record: the host is as it should be.
    fn clear(&mut self) -> Result<(), JournalError>;

    /// Whether this run is still the only one that may write the journal. Asked before what cannot be taken back, since the lock
    /// that says so is a file, and files can be removed.
    fn is_ours(&mut self) -> Result<(), JournalError>;
}

/// Why a record could not be kept or removed; the text names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// A run that took this host out of its pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Names the run; also in its log lines and in the store.
    pub run: String,
    /// The run over many hosts that it is part of, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet_run: Option<String>,
    /// The boot it ran in, `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Its process.
    pub pid: u32,
    /// When it took the host out, RFC 3339 in UTC.
    pub since: String,
    /// Who called it, as far as is known.
    pub user: Option<String>,
    /// What it was given with `--reason`.
    pub reason: Option<String>,
    /// The host.
    pub host: Fqdn,
    /// The data centre of its nodes.
    pub data_centre: Tag,
    /// The units that it restarts.
    pub units: Vec<UnitName>,
    /// The limits that it counts against while it is out, where that is kept in the store.
    #[serde(default)]
    pub counts_against: Vec<String>,
    /// The store that the nodes are kept in ([`PoolStore::kind`](crate::PoolStore::kind)).
    pub store: String,
    /// Where the run found its configuration.
    pub files: Files,
    /// The nodes that it depools.
    pub nodes: Vec<Depooled>,
    /// How far it got.
    pub phase: Phase,
}

/// A node that a run depools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depooled {
    /// The pools that the node stands behind, by their names in the catalog.
    pub pools: Vec<PoolName>,
    /// The write that depools it, with the node as it was found.
    pub write: Write,
    /// The revision of the node once it is depooled; `None`: the run died before it knew.
    pub revision: Option<u64>,
    /// An earlier run took it out and held it. A run that succeeds puts it back, and says so here before it begins to; until then
    /// recovery leaves it as it is.
    #[serde(default)]
    pub held: bool,
    /// It was put back, and load balancers have not confirmed that yet. Whatever is written to it from now on is somebody else's.
    #[serde(default)]
    pub returned: bool,
}

/// The files of a run that say where pools are and where they are kept: a recovery looks there, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The catalog of pools.
    pub catalog: String,
    /// The configuration of the store.
    pub config: String,
}

impl Depooled {
    /// The node as the depool left it, if that is known.
    pub fn ours(&self) -> Option<Node> {
        let Write { found, pooled, value, .. } = &self.write;
        let revision = self.revision?;
        Some(Node { id: found.id.clone(), pooled: *pooled, value: value.clone(), revision })
    }
}

/// Who runs, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Names the run.
    pub run: String,
    /// Names the run over many hosts that this one is part of.
    pub fleet_run: Option<String>,
    /// The boot.
    pub boot: String,
    /// The process.
    pub pid: u32,
    /// Now, RFC 3339 in UTC.
    pub since: String,
    /// Who called it.
    pub user: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// With which files.
    pub files: Files,
}

impl Origin {
    /// For a run that leaves no record: a forced restart.
    pub fn nobody() -> Self {
        let nothing = String::new;
        Self {
            run: nothing(),
            fleet_run: None,
            boot: nothing(),
            pid: 0,
            since: nothing(),
            user: None,
            reason: None,
            files: Files::default(),
        }
    }
}

/// How far a run got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It takes the host out, or waits until it is out.
    TakingOut,
    /// It restarts the units.
    Restarting,
    /// It puts the host back.
    BringingBack,
    /// It ended, and the host is as it should be. Only that it no longer counts against a limit could not be said.
    Closing,
    /// It ended, and left the host out on purpose: a unit does not run as it should.
    Held,
}
