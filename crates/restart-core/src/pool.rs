//! The objects of the field: a pool as the catalog describes it, and a node, which is this host's entry in a pool's store.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::capacity::Share;
use crate::load_balancer::{Balancer, Protocol, Question};
use crate::names::{Fqdn, PoolName, Tag};

/// A pool of the catalog, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name in the catalog and in PyBal's URLs.
    pub name: PoolName,
    /// The tag `cluster` of its node objects.
    pub cluster: Tag,
    /// The tag `service` of its node objects.
    pub service: Tag,
    /// The TCP port of the service: the second half of PyBal's pool name, `POOL_PORT`.
    pub port: u16,
    /// The load balancers that send to it. Empty only where the catalog says `lb: none`.
    pub balancers: Vec<Balancer>,
    /// What they speak.
    pub protocol: Protocol,
    /// How many of its hosts have to stay pooled, where the catalog says so for this pool (`min_pooled`).
    pub min_pooled: Option<Share>,
    /// The address that has to answer before a host goes back into the pool, where the catalog has one (`ready_url`).
    pub ready_url: Option<String>,
    /// Which part of the catalog's pool this is, where each of its load balancers keeps it for itself: there are then as many
    /// pools of the same name.
    pub part: Option<Balancer>,
}

/// As the reader knows it: `'web'`, or `'web' at 'lb1:9999'`.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.name)?;
        self.part.as_ref().map_or(Ok(()), |part| write!(f, " at '{part}'"))
    }
}

impl Pool {
    /// The question about `host` to each of its load balancers, in their order.
    pub fn questions(&self, host: &Fqdn) -> impl Iterator<Item = Question> {
        self.balancers.iter().map(|balancer| Question {
            balancer: balancer.clone(),
            pool: self.name.clone(),
            port: self.port,
            host: host.clone(),
            protocol: self.protocol.clone(),
        })
    }

    /// Where the pool's nodes of one data centre are kept.
    pub fn path(&self, data_centre: &Tag) -> PoolPath {
        PoolPath { data_centre: data_centre.clone(), cluster: self.cluster.clone(), service: self.service.clone() }
    }
}

/// Where the nodes of a pool are kept: `DC/CLUSTER/SERVICE`. Several pools of the catalog may share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolPath {
    /// The tag `dc`.
    pub data_centre: Tag,
    /// The tag `cluster`.
    pub cluster: Tag,
    /// The tag `service`.
    pub service: Tag,
}

impl PoolPath {
    /// The node of `host` in this place.
    pub fn node(&self, host: &Fqdn) -> NodeId {
        NodeId { path: self.clone(), host: host.clone() }
    }
}

impl fmt::Display for PoolPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.data_centre, self.cluster, self.service)
    }
}

/// Which node: `DC/CLUSTER/SERVICE/FQDN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// The pool's place in the store.
    pub path: PoolPath,
    /// The host.
    pub host: Fqdn,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.path, self.host)
    }
}

/// The field `pooled` of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooled {
    /// The load balancers send to it.
    Yes,
    /// Taken out, and still known to the load balancers.
    No,
    /// Taken out by an operator for long; the load balancers do not know it.
    Inactive,
}

impl Pooled {
    /// The value as conftool writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Inactive => "inactive",
        }
    }

    /// Reads conftool's value; anything else is none of the three.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "yes" => Some(Self::Yes),
            "no" => Some(Self::No),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }
}

impl fmt::Display for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node object as read from the store at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Which node.
    pub id: NodeId,
    /// Its field `pooled`.
    pub pooled: Pooled,
    /// The whole object as the store holds it, byte for byte. The sequence only compares it.
    pub value: String,
    /// The store's revision of this object: etcd's modifiedIndex (v2) or mod_revision (v3).
    pub revision: u64,
}
