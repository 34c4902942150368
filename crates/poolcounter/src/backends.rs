//! `/etc/poolcounter-backends.yaml`, the list of daemons: `- "label:host:weight"` a line. The caller reads the file, since it
//! knows whose files it trusts; here it is text.
//!
//! The format is the original's, which splits at `:` into exactly three parts. A host therefore cannot carry a port, nor be an
//! IPv6 address; the port is always [`crate::PORT`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::key::Key;
use crate::printable::printable;
use crate::ring::Ring;
use crate::yaml;

/// The greatest weight. Each unit is a hundred hashes, and only the ratio of weights counts.
const HEAVIEST: u32 = 1000;

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    label: String,
    host: String,
    weight: u32,
}

impl Backend {
    /// Its name on the hash ring; keys move when it changes, and stay when the host behind it does.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The host name or IPv4 address where it listens.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its share of the keys, relative to the others'. With 0 it has none.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    fn parse(entry: &str) -> Result<Self, Fault> {
        let parts: Vec<&str> = entry.split(':').collect();
        let [label, host, weight] = parts[..] else { return Err(Fault::Parts(printable(entry.as_bytes()))) };
        if label.is_empty() || label.chars().any(char::is_control) {
            return Err(Fault::Label(printable(label.as_bytes())));
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(is_host) {
            return Err(Fault::Host(printable(host.as_bytes())));
        }
        // Python's int() takes spaces around the digits.
        let weight = match weight.trim().parse() {
            Ok(weight) if weight <= HEAVIEST => weight,
            _ => return Err(Fault::Weight(printable(weight.as_bytes()))),
        };
        Ok(Self { label: label.to_owned(), host: host.to_owned(), weight })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "poolcounter '{}' ({})", self.label, self.host)
    }
}

/// The daemons, at least one of which owns keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backends {
    first: Backend,
    others: Vec<Backend>,
    ring: Ring,
}

/// What is wrong with the list, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendsError {
    file: PathBuf,
    /// From one; none where the file as a whole is meant.
    line: Option<u64>,
    fault: Fault,
}

/// What can be wrong with a list of daemons. What is quoted is printable and short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no YAML, or no list of strings; the reason is the YAML library's.
    #[error("not a list of 'label:host:weight': {0}")]
    NotAList(String),
    /// There is no entry.
    #[error("it names no poolcounter")]
    Empty,
    /// An entry is not three parts.
    #[error("'{0}' is not 'label:host:weight' (the port is always {port})", port = crate::PORT)]
    Parts(String),
    /// An entry's label is empty, or does not print.
    #[error("'{0}' is not a label")]
    Label(String),
    /// An entry's host is neither a host name nor an IPv4 address.
    #[error("'{0}' is not a host")]
    Host(String),
    /// An entry's weight is no number, or too great.
    #[error("'{0}' is not a weight from 0 to {HEAVIEST}")]
    Weight(String),
    /// A label is given twice; the original refuses that as well.
    #[error("the label '{0}' is given twice")]
    Twice(String),
    /// All weights are 0, so that no key belongs anywhere.
    #[error("every weight is 0: no key belongs to any poolcounter")]
    Weightless,
}

impl BackendsError {
    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl fmt::Display for BackendsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for BackendsError {}

impl Backends {
    /// Reads the list in `text`; `file` is for messages. A daemon of weight 0 may stand in it and owns no key, as in the
    /// original; all of them at 0, an empty list, and a label given twice are errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, BackendsError> {
        let wrong = |line, fault| BackendsError { file: file.to_owned(), line, fault };
        let entries = yaml::strings(text).map_err(|error| wrong(error.line, Fault::NotAList(error.why)))?;
        let mut labels = BTreeSet::new();
        let mut backends = Vec::new();
        for (line, entry) in entries {
            let backend = Backend::parse(&entry).map_err(|fault| wrong(Some(line), fault))?;
            if !labels.insert(backend.label.clone()) {
                return Err(wrong(Some(line), Fault::Twice(printable(backend.label.as_bytes()))));
            }
            backends.push(backend);
        }
        if backends.is_empty() {
            return Err(wrong(None, Fault::Empty));
        }
        // Those without a point on the ring are never asked.
        backends.retain(|backend| backend.weight > 0);
        let ring = Ring::new(backends.iter().map(|backend| (backend.label.as_str(), backend.weight)));
        let mut backends = backends.into_iter();
        let first = backends.next().ok_or_else(|| wrong(None, Fault::Weightless))?;
        Ok(Self { first, others: backends.collect(), ring })
    }

    /// The daemon that `key` belongs to, the same on every host with the same labels and weights.
    pub fn of(&self, key: &Key) -> &Backend {
        let position = self.ring.node_of(key.as_str()).and_then(|node| node.checked_sub(1));
        position.and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Backends, String> {
        Backends::parse(Path::new("/b.yaml"), text).map_err(|error| error.to_string())
    }

    fn owner(text: &str, key: &str) -> String {
        parse(text).unwrap().of(&Key::new(key).unwrap()).to_string()
    }

    #[test]
    fn a_key_belongs_to_one_of_the_list() {
        let text = "- 'foo:foo.example:1'\n- bar:10.0.0.1:3\n# a comment\n- \"baz:baz:1\"\n";
        for (key, expected) in [
            ("ServiceRestarter::eqiad::appservers", "poolcounter 'baz' (baz)"),
            ("ServiceRestarter::eqiad::api-appservers", "poolcounter 'foo' (foo.example)"),
            ("ServiceRestarter::codfw::parsoid-php", "poolcounter 'bar' (10.0.0.1)"),
        ] {
            assert_eq!(owner(text, key), expected, "{key}");
        }
    }

    #[test]
    fn weight_0_owns_nothing() {
        let text = "- drained:drained.example:0\n- pc1:pc1.example:1\n";
        for key in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(owner(text, key), "poolcounter 'pc1' (pc1.example)");
        }
        assert_eq!(
            parse("- a:a.example:0\n- b:b.example:0\n"),
            Err("'/b.yaml': every weight is 0: no key belongs to any poolcounter".to_owned())
        );
    }

    #[test]
    fn an_empty_list_is_an_error() {
        for text in ["", "[]\n", "---\n", "~\n", "# nothing\n"] {
            assert_eq!(parse(text), Err("'/b.yaml': it names no poolcounter".to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_label_given_twice_is_an_error_with_its_line() {
        let text = "- pc1:a.example:1\n- pc2:b.example:1\n- pc1:c.example:1\n";
        assert_eq!(parse(text), Err("'/b.yaml' line 3: the label 'pc1' is given twice".to_owned()));
        // Two labels of one host are two shares of it.
        assert!(parse("- pc1:a.example:1\n- pc2:a.example:1\n").is_ok());
    }

    #[test]
    fn an_entry_that_is_wrong_is_an_error_with_its_line() {
        let parts = "is not 'label:host:weight' (the port is always 7531)";
        let weight = "is not a weight from 0 to 1000";
        for (entry, expected) in [
            ("pc1", format!("'pc1' {parts}")),
            ("pc1:host", format!("'pc1:host' {parts}")),
            ("pc1:host:7531:1", format!("'pc1:host:7531:1' {parts}")),
            ("pc1:[::1]:1", format!("'pc1:[::1]:1' {parts}")),
            (":host:1", "'' is not a label".to_owned()),
            ("pc1::1", "'' is not a host".to_owned()),
            ("pc1:a b:1", "'a b' is not a host".to_owned()),
            ("pc1:-x:1", "'-x' is not a host".to_owned()),
            ("pc1:host/x:1", "'host/x' is not a host".to_owned()),
            ("pc1:host:", format!("'' {weight}")),
            ("pc1:host:-1", format!("'-1' {weight}")),
            ("pc1:host:1.5", format!("'1.5' {weight}")),
            ("pc1:host:1001", format!("'1001' {weight}")),
            ("pc1:host:99999999999999999999", format!("'99999999999999999999' {weight}")),
        ] {
            let text = format!("# one daemon\n- '{entry}'\n");
            assert_eq!(parse(&text), Err(format!("'/b.yaml' line 2: {expected}")), "{entry}");
        }
    }

    #[test]
    fn what_is_no_list_of_strings_is_an_error_with_its_line() {
        for text in ["pc1:host:1\n", "pc1: host\n", "- [pc1]\n", "- {pc1: host}\n", "- 'pc1\n", "- 5\n", "{"] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("'/b.yaml' line 1: not a list of 'label:host:weight': "), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{text:?}: {error}");
        }
    }
}
