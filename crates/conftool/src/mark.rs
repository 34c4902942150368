//! The mark of a write: a key beside the node's, written in the same transaction, that says whose write it was. It has the
//! node's revision as its own, outlives the history that etcd compacts, and tells our write from the same bytes written by an
//! operator. One a node, overwritten by the next run, so that marks never pile up.

use restart_core::Write;
use serde::Serialize;

use crate::keys::Keys;
use crate::member::Object;

/// What is written beside a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its key.
    pub(crate) key: String,
    /// Its value: the same for the same write, and for no other.
    pub(crate) value: String,
}

/// The value, in JSON. Among the writes of a run to a node at most one of each revision found is made.
#[derive(Serialize)]
struct Value<'a> {
    run: &'a str,
    found: u64,
    pooled: &'a str,
}

impl Mark {
    /// The mark of a write.
    pub(crate) fn new(keys: &Keys, write: &Write) -> Self {
        let value = Value { run: &write.run, found: write.found.revision, pooled: write.pooled.as_str() };
        // Strings and a number: that cannot fail, and an empty mark would be nobody's.
        let value = serde_json::to_string(&value).unwrap_or_default();
        Self { key: keys.mark(&write.found.id), value }
    }

    /// Whether the mark that was found is this one.
    pub(crate) fn is_in(&self, found: &Object) -> bool {
        !self.value.is_empty() && found.value == self.value.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use restart_core::{Fqdn, Node, PoolPath, Pooled, Tag};

    use super::*;

    fn write(run: &str, revision: u64, pooled: Pooled) -> Write {
        let tag = |name: &str| Tag::new(name).unwrap();
        let path = PoolPath { data_centre: tag("eqiad"), cluster: tag("appserver"), service: tag("php") };
        let id = path.node(&Fqdn::new("mw1.example").unwrap());
        let found = Node { id, pooled: Pooled::Yes, value: String::new(), revision };
        Write { run: run.to_owned(), found, pooled, key: String::new(), value: String::new() }
    }

    #[test]
    fn a_mark_belongs_to_one_write_alone() {
        let keys = Keys::new("/conftool", "v1", "pools").unwrap();
        let mark = Mark::new(&keys, &write("r\"1", 7, Pooled::No));
        assert_eq!(mark.key, "/conftool/v1/safe-service-restart/writes/eqiad/appserver/php/mw1.example");
        assert_eq!(mark.value, r#"{"run":"r\"1","found":7,"pooled":"no"}"#);
        for other in [write("r2", 7, Pooled::No), write("r\"1", 8, Pooled::No), write("r\"1", 7, Pooled::Yes)] {
            let other = Mark::new(&keys, &other);
            let object = Object { key: other.key.clone(), value: other.value.into_bytes(), revision: 9 };
            assert!(!mark.is_in(&object));
        }
    }
}
