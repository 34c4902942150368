//! The audit line that each write leaves in syslog: the same JSON fields in the same order as conftool's own
//! (conftool/audit.py, 6.1.0), so that one filter finds both.

use std::collections::HashSet;
use std::time::Duration;

use restart_core::{Fate, Node, Write, WriteError};

use crate::time::{isoformat, now};

/// The user in the line when neither the person is known nor a user of the store, in conftool's word.
pub(crate) const NOBODY: &str = "unauthenticated";

/// Who writes, from where, and where the lines go.
pub struct Audit {
    /// The person behind the run: SUDO_USER unless that is root, as in conftool. `None` stands for the user of the store's
    /// credentials, or `unauthenticated`.
    pub user: Option<String>,
    /// This host by its short name, as `gethostname(2)` tells it.
    pub host: String,
    /// Takes each line, `@cee: {...}` without a line end. conftool sends it to `/dev/log` as local0.info, under the name
    /// `conftool-audit`.
    pub sink: Box<dyn FnMut(&str)>,
}

/// What became of a write: the values of `event.outcome` in the Elastic Common Schema. conftool has no word for the third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was made.
    Success,
    /// It was not made.
    Failure,
    /// The answer was lost and the store cannot be asked.
    Unknown,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
        }
    }
}

/// The lines of one store's writes, one for each as soon as its outcome is known.
pub(crate) struct Trail {
    audit: Audit,
    /// The user when the person is not known.
    fallback: String,
    /// Writes whose outcome has been told: key, revision found, and value.
    told: HashSet<(String, u64, String)>,
}

impl Trail {
    pub(crate) fn new(audit: Audit, fallback: String) -> Self {
        Self { audit, fallback, told: HashSet::new() }
    }

    /// Tells what came of a write to the node that conftool calls `name`.
    pub(crate) fn written(&mut self, name: &str, write: &Write, made: &Result<Node, WriteError>) {
        let outcome = match made {
            Ok(_) => Outcome::Success,
            Err(WriteError::Unknown(_)) => Outcome::Unknown,
            Err(WriteError::Conflict | WriteError::NotMade(_)) => Outcome::Failure,
        };
        self.tell(name, write, outcome);
    }

    /// The same for one that was found out about later.
    pub(crate) fn found_out(&mut self, name: &str, write: &Write, fate: &Fate) {
        let outcome = match fate {
            Fate::Made(_) | Fate::MadeThenChanged(_) => Outcome::Success,
            Fate::NotMade => Outcome::Failure,
            Fate::Unclear(_) => return,
        };
        if !self.told.contains(&identity(write)) {
            self.tell(name, write, outcome);
        }
    }

    fn tell(&mut self, name: &str, write: &Write, outcome: Outcome) {
        if outcome != Outcome::Unknown {
            self.told.insert(identity(write));
        }
        self.audit.write(name, &self.fallback, outcome);
    }
}

fn identity(write: &Write) -> (String, u64, String) {
    (write.key.clone(), write.found.revision, write.value.clone())
}

impl Audit {
    /// Of whoever writes nothing, so that there is nothing to be told.
    pub fn of_nothing() -> Self {
        Self { user: None, host: String::new(), sink: Box::new(|_| {}) }
    }

    /// Sends the line about one write to the node that conftool calls `name`; `fallback` is the user if none is known.
    fn write(&mut self, name: &str, fallback: &str, outcome: Outcome) {
        let user = self.user.as_deref().unwrap_or(fallback);
        let line = line(now(), user, name, &self.host, outcome);
        (self.sink)(&line);
    }
}

/// The line, at the time `now` since 1970.
fn line(now: Duration, user: &str, name: &str, host: &str, outcome: Outcome) -> String {
    let fields = [
        ("ecs.version", "1.11.0"),
        ("@timestamp", &isoformat(now)),
        ("log.level", "info"),
        ("event.action", "write"),
        ("event.dataset", "conftool.audit"),
        ("event.module", "conftool"),
        ("event.kind", "event"),
        ("event.outcome", outcome.as_str()),
        ("user.name", user),
        ("service.type", "node"),
        ("service.name", name),
        ("host.hostname", host),
    ];
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
    format!("@cee: {{{}}}", fields.join(", "))
}

/// A JSON string as Python's `json.dumps` writes it: ASCII alone.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='\u{7e}' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_conftools_fields_in_conftools_order() {
        // As printed by conftool 6.1.0's AuditLogEntry.json(), behind the '@cee: ' of its log format.
        let wanted = concat!(
            r#"@cee: {"ecs.version": "1.11.0", "@timestamp": "2026-11-23T16:05:09.000123+00:00", "log.level": "info", "#,
            r#""event.action": "write", "event.dataset": "conftool.audit", "event.module": "conftool", "#,
            r#""event.kind": "event", "event.outcome": "success", "user.name": "zo\u00eb", "service.type": "node", "#,
            r#""service.name": "pools/eqiad/appserver/php/mw1.example", "host.hostname": "mw1"}"#
        );
        let now = Duration::from_micros(1_795_449_909_000_123);
        let name = "pools/eqiad/appserver/php/mw1.example";
        assert_eq!(line(now, "zoë", name, "mw1", Outcome::Success), wanted);
    }

    #[test]
    fn strings_are_escaped_as_json_dumps_does() {
        assert_eq!(quoted("a\"\\\n\u{1}\u{1F600}"), r#""a\"\\\n\u0001\ud83d\ude00""#);
    }

    #[test]
    fn the_user_falls_back_to_the_stores() {
        let lines = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let kept = std::rc::Rc::clone(&lines);
        let mut audit = Audit {
            user: None,
            host: "mw1".into(),
            sink: Box::new(move |line| kept.borrow_mut().push(line.to_owned())),
        };
        audit.write("pools/x", "unauthenticated", Outcome::Failure);
        audit.user = Some("alice".into());
        audit.write("pools/x", "unauthenticated", Outcome::Unknown);
        assert!(lines.borrow()[0].contains(r#""event.outcome": "failure", "user.name": "unauthenticated""#));
        assert!(lines.borrow()[1].contains(r#""event.outcome": "unknown", "user.name": "alice""#));
    }
}
