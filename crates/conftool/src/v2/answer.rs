//! Answers of the v2 API, from status and body alone: pure, so that each one etcd can give is a line of a table.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::member::{Change, Kind, Object, Trouble, short};

/// A good answer: what happened (`get`, `compareAndSwap`, ...) to which node.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    action: String,
    node: Node,
}

/// A key, or a directory of them.
#[derive(Debug, Deserialize)]
struct Node {
    #[serde(default)]
    key: String,
    value: Option<String>,
    #[serde(default)]
    dir: bool,
    #[serde(default)]
    nodes: Vec<Node>,
    #[serde(rename = "modifiedIndex", default)]
    modified_index: u64,
    /// When it ends by itself; one without a time to live has none.
    expiration: Option<IgnoredAny>,
    /// The seconds until then, rounded up, and left out when they are none.
    #[serde(default)]
    ttl: i64,
}

impl Node {
    fn into_object(self) -> Option<Object> {
        match (self.dir, self.value) {
            (false, Some(value)) => {
                Some(Object { key: self.key, value: value.into_bytes(), revision: self.modified_index })
            }
            _ => None,
        }
    }
}

impl Answer {
    /// The index of the node's last change.
    pub(super) fn revision(&self) -> u64 {
        self.node.modified_index
    }

    /// The whole seconds that the node has left, at least one; `None`: it stays.
    pub(super) fn time_to_live(&self) -> Option<i64> {
        self.node.expiration.as_ref().map(|_| self.node.ttl.max(1))
    }

    /// The node, unless it is a directory.
    pub(super) fn into_object(self) -> Option<Object> {
        self.node.into_object()
    }

    /// The nodes right below this one, directories left out.
    pub(super) fn into_children(self) -> Vec<Object> {
        self.node.nodes.into_iter().filter_map(Node::into_object).collect()
    }

    /// The nodes below this one at any depth, directories left out.
    pub(super) fn into_descendants(self) -> Vec<Object> {
        let mut found = Vec::new();
        let mut nodes = self.node.nodes;
        // A list in place of recursion: how deep it goes is the store's.
        while let Some(mut node) = nodes.pop() {
            nodes.append(&mut node.nodes);
            found.extend(node.into_object());
        }
        found
    }

    /// An event of a watch.
    pub(super) fn into_change(self) -> Change {
        match (self.action.as_str(), self.node.into_object()) {
            ("set" | "create" | "update" | "compareAndSwap", Some(object)) => {
                Change::Written { value: object.value, revision: object.revision, mark: None }
            }
            _ => Change::Deleted,
        }
    }
}

/// An error of etcd's own (`errorCode`) that the question asked decides about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// 100: there is no such key.
    NotFound,
    /// 101 and 105: the object is not as the write expects it.
    CompareFailed,
    /// 102: the key is a directory.
    NotFile,
    /// 401: the events since then are no longer kept.
    HistoryGone,
}

impl Fault {
    /// For questions that such an answer makes no sense to.
    pub(super) fn into_trouble(self) -> Trouble {
        let why = match self {
            Self::NotFound => "it says that there is no such key",
            Self::CompareFailed => "it says that a comparison failed",
            Self::NotFile => "it says that the key is a directory",
            Self::HistoryGone => "it no longer keeps the history since then",
        };
        Trouble::new(Kind::NoAnswer, why)
    }
}

/// The body of an error.
#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "errorCode", default)]
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    cause: String,
}

/// Sorts an answer by status and body.
pub(super) fn read(status: u16, body: &[u8]) -> Result<Result<Answer, Fault>, Trouble> {
    if matches!(status, 200 | 201) {
        return match serde_json::from_slice(body) {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => Err(Trouble::new(Kind::NoAnswer, format!("its answer is not etcd's: {error}"))),
        };
    }
    let Ok(failure) = serde_json::from_slice::<Failure>(body) else {
        return Err(foreign(status, &String::from_utf8_lossy(body)));
    };
    match failure.code {
        100 => Ok(Err(Fault::NotFound)),
        101 | 105 => Ok(Err(Fault::CompareFailed)),
        102 => Ok(Err(Fault::NotFile)),
        401 => Ok(Err(Fault::HistoryGone)),
        code => {
            let said = match (failure.message.is_empty(), failure.cause.is_empty()) {
                (false, false) => format!("{}: {}", failure.message, failure.cause),
                (false, true) => failure.message,
                _ => format!("status {status}, error {code}"),
            };
            // 110 is "insufficient credentials"; 2xx are faults of the request; 3xx come from raft: no leader, no quorum, or
            // no answer in time, and a write may still be made.
            let kind = match code {
                110 | 200..300 => Kind::Refused,
                _ if matches!(status, 401 | 403) => Kind::Refused,
                _ => Kind::NoAnswer,
            };
            Err(Trouble::new(kind, short(&said)))
        }
    }
}

/// An answer that is not in etcd's JSON.
fn foreign(status: u16, body: &str) -> Trouble {
    match status {
        404 if body.trim() == "404 page not found" => Trouble::new(
            Kind::NoApi,
            "it has no v2 API (etcd 3.4 and 3.5 need --enable-v2, 3.6 has none; 'driver: etcd3' speaks v3)",
        ),
        401 | 403 => Trouble::new(Kind::Refused, format!("status {status}: {}", short(body))),
        300..400 => Trouble::new(Kind::NoAnswer, format!("it answers with a redirect (status {status})")),
        // Written by the HTTP server before etcd saw the request.
        400 => Trouble::new(Kind::NotAsked, format!("status 400: {}", short(body))),
        _ => Trouble::new(Kind::NoAnswer, format!("status {status}: {}", short(body))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_whole_seconds_and_never_none_left() {
        for (fields, wanted) in [
            ("", None),
            (r#","expiration":"2026-11-23T10:00:00Z","ttl":57"#, Some(57)),
            // Due, and not deleted yet: etcd leaves a zero out.
            (r#","expiration":"2026-11-23T10:00:00Z""#, Some(1)),
            (r#","expiration":"2026-11-23T10:00:00Z","ttl":-2"#, Some(1)),
        ] {
            let body = format!(r#"{{"action":"get","node":{{"key":"/a","value":"v","modifiedIndex":5{fields}}}}}"#);
            let answer = read(200, body.as_bytes()).unwrap().unwrap();
            assert_eq!((answer.revision(), answer.time_to_live()), (5, wanted), "{fields}");
        }
    }

    #[test]
    fn faults_are_told_by_error_code() {
        for (status, body, wanted) in [
            (404, r#"{"errorCode":100,"message":"Key not found","cause":"/a","index":5}"#, Fault::NotFound),
            (412, r#"{"errorCode":101,"message":"Compare failed","cause":"[1 != 2]","index":5}"#, Fault::CompareFailed),
            (412, r#"{"errorCode":105,"message":"Key already exists","cause":"/a","index":5}"#, Fault::CompareFailed),
            (403, r#"{"errorCode":102,"message":"Not a file","cause":"/a","index":5}"#, Fault::NotFile),
            (
                400,
                r#"{"errorCode":401,"message":"The event in requested index is outdated and cleared"}"#,
                Fault::HistoryGone,
            ),
        ] {
            assert_eq!(read(status, body.as_bytes()).unwrap().unwrap_err(), wanted);
        }
    }

    #[test]
    fn troubles_are_told_by_what_follows_from_them() {
        for (status, body, kind, wanted) in [
            (
                401,
                r#"{"errorCode":110,"message":"The request requires user authentication","cause":"Insufficient credentials","index":0}"#,
                Kind::Refused,
                "Insufficient credentials",
            ),
            (401, r#"{"message":"Insufficient credentials"}"#, Kind::Refused, "Insufficient credentials"),
            (
                400,
                r#"{"errorCode":203,"message":"The given index in POST form is not a number"}"#,
                Kind::Refused,
                "not a number",
            ),
            (
                500,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":1}"#,
                Kind::NoAnswer,
                "request timed out",
            ),
            (
                503,
                r#"{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: no leader"}"#,
                Kind::NoAnswer,
                "no leader",
            ),
            (404, "404 page not found\n", Kind::NoApi, "driver: etcd3"),
            (404, "<html>nginx</html>", Kind::NoAnswer, "status 404"),
            (400, "Client sent an HTTP request to an HTTPS server.\n", Kind::NotAsked, "HTTPS server"),
            (307, "", Kind::NoAnswer, "redirect"),
            (503, "", Kind::NoAnswer, "status 503: nothing"),
            (200, "rubbish", Kind::NoAnswer, "not etcd's"),
            (200, "{}", Kind::NoAnswer, "not etcd's"),
        ] {
            let trouble = read(status, body.as_bytes()).unwrap_err();
            assert_eq!(trouble.kind, kind, "{body}");
            assert!(trouble.why.contains(wanted), "{body}: {}", trouble.why);
        }
    }

    #[test]
    fn only_direct_children_that_are_files_are_listed() {
        let body = r#"{"action":"get","node":{"key":"/p","dir":true,"nodes":[
            {"key":"/p/mw1.x","value":"{}","modifiedIndex":7,"createdIndex":7},
            {"key":"/p/sub","dir":true,"modifiedIndex":8,"createdIndex":8},
            {"key":"/p/empty","value":"","modifiedIndex":9,"createdIndex":9}]}}"#;
        let children = read(200, body.as_bytes()).unwrap().unwrap().into_children();
        let found: Vec<_> = children.iter().map(|object| (object.key.as_str(), object.revision)).collect();
        assert_eq!(found, [("/p/mw1.x", 7), ("/p/empty", 9)]);
    }

    #[test]
    fn events_are_writes_or_deletions() {
        for (action, written) in [
            ("compareAndSwap", true),
            ("set", true),
            ("update", true),
            ("create", true),
            ("delete", false),
            ("expire", false),
            ("compareAndDelete", false),
        ] {
            let value = if written { r#""value":"v","# } else { "" };
            let body = format!(
                r#"{{"action":"{action}","node":{{"key":"/k",{value}"modifiedIndex":9}},"prevNode":{{"key":"/k","value":"o","modifiedIndex":8}}}}"#
            );
            let change = read(200, body.as_bytes()).unwrap().unwrap().into_change();
            let wanted = if written {
                Change::Written { value: b"v".to_vec(), revision: 9, mark: None }
            } else {
                Change::Deleted
            };
            assert_eq!(change, wanted, "{action}");
        }
    }
}
