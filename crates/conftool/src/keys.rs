//! Where node objects are kept: `NAMESPACE/API_VERSION/POOLS_PATH/DC/CLUSTER/SERVICE/FQDN`, built as conftool builds it
//! (conftool/drivers/__init__.py `abspath`, conftool/kvobject.py `kvpath`), for both drivers.

use restart_core::{NodeId, PoolPath, Tag};

/// Our own keys stand below this one, beside `pools_path`.
const OWN: &str = "safe-service-restart";

/// The part of the keys that the configuration decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    base: String,
    pools: String,
}

impl Keys {
    /// Keys under `namespace`, `api_version` and `pools_path`. The error names the one that cannot be part of a key.
    pub(crate) fn new(namespace: &str, api_version: &str, pools_path: &str) -> Result<Self, String> {
        for (name, value) in [("namespace", namespace), ("api_version", api_version), ("pools_path", pools_path)] {
            if value.split('/').any(|part| part == "." || part == "..") || value.chars().any(char::is_control) {
                return Err(format!("'{name}' cannot be part of a key: it has a '.', a '..' or a control character"));
            }
        }
        if pools_path.starts_with('/') {
            return Err("'pools_path' must be a relative path".to_owned());
        }
        Ok(Self { base: join(namespace, api_version), pools: pools_path.to_owned() })
    }

    /// The key of the directory that holds the nodes of a pool, without a slash at its end.
    pub(crate) fn directory(&self, path: &PoolPath) -> String {
        clean(&join(&self.base, &join(&self.pools, &path.to_string())))
    }

    /// The key of the directory that holds the services of a cluster, each a directory of nodes, without a slash at its end.
    pub(crate) fn cluster(&self, data_centre: &Tag, cluster: &Tag) -> String {
        clean(&join(&self.base, &join(&self.pools, &format!("{data_centre}/{cluster}"))))
    }

    /// The key of a node.
    pub(crate) fn node(&self, id: &NodeId) -> String {
        format!("{}/{}", self.directory(&id.path), id.host)
    }

    /// The key of the mark that a write to a node leaves.
    pub(crate) fn mark(&self, id: &NodeId) -> String {
        self.own("writes", &id.to_string())
    }

    /// The directory of those who wait for or hold a slot of `queue`, with a slash at its end.
    pub(crate) fn slots(&self, queue: &str) -> String {
        self.own("slots", queue) + "/"
    }

    /// The directory of the hosts that are out of the pools of `queue`, with a slash at its end.
    pub(crate) fn out(&self, queue: &str) -> String {
        self.own("out", queue) + "/"
    }

    /// What this project keeps beside conftool's objects.
    fn own(&self, what: &str, name: &str) -> String {
        clean(&join(&self.base, &format!("{OWN}/{what}/{name}")))
    }

    /// The node's name in conftool's audit log: its key below namespace and version.
    pub(crate) fn audit_name(&self, id: &NodeId) -> String {
        join(&self.pools, &id.to_string())
    }
}

/// Joins as Python's `os.path.join`: one slash in between, and an absolute second part replaces the first.
fn join(first: &str, second: &str) -> String {
    if second.starts_with('/') || first.is_empty() {
        second.to_owned()
    } else if first.ends_with('/') {
        format!("{first}{second}")
    } else {
        format!("{first}/{second}")
    }
}

/// One slash at the start and none doubled: etcd's v2 API cleans keys so; etcd v3 does not, and shall hold the same ones.
fn clean(key: &str) -> String {
    let mut cleaned = String::with_capacity(key.len() + 1);
    for part in key.split('/').filter(|part| !part.is_empty()) {
        cleaned.push('/');
        cleaned.push_str(part);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use restart_core::{Fqdn, Tag};

    use super::*;

    fn id() -> NodeId {
        let tag = |name: &str| Tag::new(name).unwrap();
        PoolPath { data_centre: tag("eqiad"), cluster: tag("appserver"), service: tag("php") }
            .node(&Fqdn::new("mw1.example").unwrap())
    }

    #[test]
    fn keys_are_joined_as_conftool_joins_them() {
        for (namespace, version, pools, wanted) in [
            ("/conftool", "v1", "pools", "/conftool/v1/pools/eqiad/appserver/php/mw1.example"),
            ("/conftool/", "v1/", "pools/", "/conftool/v1/pools/eqiad/appserver/php/mw1.example"),
            ("conftool", "v1", "a/b", "/conftool/v1/a/b/eqiad/appserver/php/mw1.example"),
            ("/conftool", "/v1", "pools", "/v1/pools/eqiad/appserver/php/mw1.example"),
            ("/conftool", "", "pools", "/conftool/pools/eqiad/appserver/php/mw1.example"),
            ("/conftool", "v1", "", "/conftool/v1/eqiad/appserver/php/mw1.example"),
            ("/", "v1", "pools", "/v1/pools/eqiad/appserver/php/mw1.example"),
        ] {
            let keys = Keys::new(namespace, version, pools).unwrap();
            assert_eq!(keys.node(&id()), wanted, "{namespace} {version} {pools}");
        }
    }

    #[test]
    fn the_audit_name_is_the_key_below_namespace_and_version() {
        let keys = Keys::new("/conftool", "v1", "pools").unwrap();
        assert_eq!(keys.audit_name(&id()), "pools/eqiad/appserver/php/mw1.example");
        assert_eq!(keys.directory(&id().path), "/conftool/v1/pools/eqiad/appserver/php");
    }

    #[test]
    fn what_cannot_be_part_of_a_key_is_refused_by_name() {
        for (namespace, version, pools, wanted) in [
            ("/conftool/..", "v1", "pools", "namespace"),
            ("/conftool", ".", "pools", "api_version"),
            ("/conftool", "v1", "a\nb", "pools_path"),
            ("/conftool", "v1", "/pools", "pools_path"),
        ] {
            let error = Keys::new(namespace, version, pools).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
