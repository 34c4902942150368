//! What stands in etcd about slots: an entry of the queue, kept by a lease, and a note that a host is out, kept by nothing but
//! itself. Both are JSON for people with `etcdctl` as well. One that cannot be read still counts: it takes a slot, and limits
//! nobody.

use restart_core::Fqdn;
use serde::{Deserialize, Serialize};

/// The run that asks for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The host that it runs on.
    pub host: Fqdn,
    /// Names the run.
    pub run: String,
    /// Its process.
    pub pid: u32,
    /// Who called it, as far as is known.
    pub user: Option<String>,
    /// When it began, RFC 3339 in UTC.
    pub since: String,
}

/// The value of an entry of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    /// Who waits for or holds the slot.
    #[serde(flatten)]
    pub(super) holder: Holder,
    /// How many it suffers at once, itself included.
    pub(super) limit: u32,
}

/// The value of a note that a host is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The host.
    pub(super) host: Fqdn,
    /// The run that takes it out.
    pub(super) run: String,
    /// Since when, RFC 3339 in UTC.
    pub(super) since: String,
}

impl Ticket {
    /// For a message: who it is, with everything that helps to find the run.
    pub(super) fn clause(&self) -> String {
        let Holder { host, run, pid, user, since } = &self.holder;
        let user = user.as_deref().map_or(String::new(), |user| format!(" by '{user}'"));
        format!("'{host}' since {since}{user} (run {run}, process {pid})")
    }
}

impl Note {
    /// For a message: a host that nobody works on, and that is out all the same.
    pub(super) fn clause(&self) -> String {
        format!("'{}', left out of its pools since {} by run {}", self.host, self.since, self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_flat_object() {
        let host = Fqdn::new("mw1.example").unwrap();
        let holder =
            Holder { host, run: "r1".into(), pid: 7, user: Some("alice".into()), since: "2026-11-23T10:00:00Z".into() };
        let ticket = Ticket { holder, limit: 3 };
        let text = serde_json::to_string(&ticket).unwrap();
        let wanted =
            r#"{"host":"mw1.example","run":"r1","pid":7,"user":"alice","since":"2026-11-23T10:00:00Z","limit":3}"#;
        assert_eq!(text, wanted);
        assert_eq!(serde_json::from_str::<Ticket>(&text).unwrap(), ticket);
        assert_eq!(ticket.clause(), "'mw1.example' since 2026-11-23T10:00:00Z by 'alice' (run r1, process 7)");
    }
}
