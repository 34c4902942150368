//! Names are checked once, here, where they are made; below this module no function takes a bare string for a host, a pool,
//! a tag or a unit. What cannot be a name (an option such as `-H`, a path, a pattern) never reaches a command line, a URL
//! or an etcd key.

use std::fmt;
use std::str::FromStr;

/// Why a string is not a name of the kind asked for. Its `Display` is the sentence the user reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not {wanted}: {why}")]
pub struct NameError {
    given: String,
    wanted: &'static str,
    why: &'static str,
}

/// Declares a validated string (the check returns it complete, as for a unit's suffix): `new`, `as_str`, `Display`, `FromStr`, and the
/// error in the kind's own words.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $wanted:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $type(String);

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(given: String) -> Result<Self, NameError> {
                Self::new(given)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl $type {
            /// Checks `given` and keeps it; the error says what is wrong with it.
            pub fn new(given: impl Into<String>) -> Result<Self, NameError> {
                let given = given.into();
                let check: fn(&str) -> Result<String, &'static str> = $check;
                match check(&given) {
                    Ok(name) => Ok(Self(name)),
                    Err(why) => Err(NameError { given, wanted: $wanted, why }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(given: &str) -> Result<Self, NameError> {
                Self::new(given)
            }
        }
    };
}

name! {
    /// A host by its fully qualified name, as conftool and PyBal know it (`mw1001.eqiad.wmnet`). Compared exactly, case
    /// included: PyBal does so, and a name that merely begins like ours is another host.
    Fqdn, "a fully qualified host name", |name| {
        if name.len() > 253 {
            return Err("it is longer than 253 characters");
        }
        if !name.contains('.') {
            return Err("it has no dot");
        }
        if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err("each part between dots takes 1 to 63 characters");
        }
        if name.split('.').any(|label| label.starts_with('-')) {
            return Err("a part cannot begin with '-'");
        }
        only(name, "-_.")?;
        Ok(name.to_owned())
    }
}

name! {
    /// A pool by its name in the catalog (`appservers-https`), which is also its name in PyBal's URLs.
    PoolName, "a pool name", word
}

name! {
    /// What HAProxy calls a pool. HAProxy's configuration allows no other characters (its guide, section 4: letters, digits,
    /// `-`, `_`, `.` and `:`), and none of these means anything in a line of its runtime API.
    BackendName, "the name of a backend of HAProxy", |name| {
        if name.is_empty() {
            return Err("it is empty");
        }
        only(name, HAPROXY)?;
        Ok(name.to_owned())
    }
}

name! {
    /// What HAProxy calls this host: a name, in which `{fqdn}` stands for the host's full name and `{short}` for its part before
    /// the first dot.
    ServerPattern, "the name of a server of HAProxy", |name| {
        if name.is_empty() {
            return Err("it is empty");
        }
        let rest = name.replace(FQDN, "").replace(SHORT, "");
        if rest.contains(['{', '}']) {
            return Err("only {fqdn} and {short} can stand in braces");
        }
        only(&rest, HAPROXY)?;
        Ok(name.to_owned())
    }
}

const HAPROXY: &str = "-_.:";
const FQDN: &str = "{fqdn}";
const SHORT: &str = "{short}";

impl ServerPattern {
    /// The name of `host`.
    pub fn of(&self, host: &Fqdn) -> String {
        let host = host.as_str();
        // A host's name has no braces, so that neither can bring in the other.
        self.0.replace(FQDN, host).replace(SHORT, host.split('.').next().unwrap_or(host))
    }
}

/// The full name, by which store and PyBal go too: two hosts never share one.
impl Default for ServerPattern {
    fn default() -> Self {
        Self(FQDN.to_owned())
    }
}

name! {
    /// One tag of a conftool object: a data centre, a cluster or a service; one level of its key in etcd.
    Tag, "a conftool tag", word
}

name! {
    /// A systemd service unit, always with its suffix: `php8.2-fpm` and `php8.2-fpm.service` are the same name.
    UnitName, "a service unit", |given| {
        let stem = given.strip_suffix(".service").unwrap_or(given);
        if stem.len() > 255 - ".service".len() {
            return Err("it is longer than 255 characters");
        }
        if stem.is_empty() {
            return Err("it is empty");
        }
        if stem.starts_with(['-', '.', '@']) {
            return Err("it cannot begin with '-', '.' or '@'");
        }
        if stem.ends_with('@') {
            return Err("a template needs an instance, as in 'name@instance'");
        }
        if OTHER_UNITS.iter().any(|suffix| stem.ends_with(suffix)) {
            return Err("only service units can be restarted");
        }
        only(stem, "-_.:@\\")?;
        Ok(format!("{stem}.service"))
    }
}

/// The other unit types of systemd 252, so that `php.socket` is refused and not taken for `php.socket.service`.
const OTHER_UNITS: [&str; 10] =
    [".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".slice", ".scope"];

/// Accepts ASCII letters, digits and the characters in `also`.
fn only(name: &str, also: &str) -> Result<(), &'static str> {
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !also.contains(*c)) {
        None => Ok(()),
        Some(',') => Err("it has a comma; on a command line, names are separated by spaces"),
        Some(_) => Err("it has a character that such a name cannot have"),
    }
}

/// The rule for pools and tags: one level of a path, nothing that could be an option, a pattern or a walk upwards.
fn word(name: &str) -> Result<String, &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > 255 {
        return Err("it is longer than 255 characters");
    }
    if name.starts_with(['-', '.']) {
        return Err("it cannot begin with '-' or '.'");
    }
    only(name, "-_.:+")?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_taken_with_and_without_suffix() {
        assert_eq!(UnitName::new("php8.2-fpm"), UnitName::new("php8.2-fpm.service"));
        assert_eq!(UnitName::new("getty@tty1").unwrap().as_str(), "getty@tty1.service");
    }

    #[test]
    fn what_is_no_service_unit_is_refused() {
        for given in
            ["", "-H", "--force", "php.socket", "a b", "*", "php@", "../x", "a/b", ".service", "é", "x;y", "php\n"]
        {
            assert!(UnitName::new(given).is_err(), "'{given}' passed");
        }
    }

    #[test]
    fn a_server_of_haproxy_is_named_after_the_host() {
        let host = Fqdn::new("mw1.eqiad.test").unwrap();
        let table = [
            ("{fqdn}", "mw1.eqiad.test"),
            ("{short}", "mw1"),
            ("web-{short}:80", "web-mw1:80"),
            ("{short}.{fqdn}", "mw1.mw1.eqiad.test"),
            ("first", "first"),
        ];
        for (pattern, expected) in table {
            assert_eq!(ServerPattern::new(pattern).unwrap().of(&host), expected);
        }
        assert_eq!(ServerPattern::default().of(&host), "mw1.eqiad.test");
        for wrong in ["", "{host}", "{fqdn", "a b", "a/b", "a;b", "a\nb", "*", "\\"] {
            assert!(ServerPattern::new(wrong).is_err(), "'{wrong}' passed");
        }
        for wrong in ["", "a b", "a/b", "a;b", "{fqdn}", "a\n", "#1"] {
            assert!(BackendName::new(wrong).is_err(), "'{wrong}' passed");
        }
    }

    #[test]
    fn hosts_need_a_dot_and_nothing_odd() {
        assert!(Fqdn::new("mw1001.eqiad.wmnet").is_ok());
        for given in ["", "localhost", "mw1.", ".x", "a..b", "mw1.*", "mw1.x/y", "-a.b", "mw1.x y", "a.-b"] {
            assert!(Fqdn::new(given).is_err(), "'{given}' passed");
        }
    }

    #[test]
    fn pools_and_tags_are_one_level_of_a_path() {
        assert!(PoolName::new("api-appservers_2").is_ok());
        for given in ["", ".", "..", "a/b", "-x", "a b", "a%2fb", "a?b", "a*"] {
            assert!(Tag::new(given).is_err(), "'{given}' passed");
        }
    }

    #[test]
    fn the_error_names_the_subject_and_the_reason() {
        let error = UnitName::new("-H").unwrap_err();
        assert_eq!(error.to_string(), "'-H' is not a service unit: it cannot begin with '-', '.' or '@'");
        let error = PoolName::new("a,b").unwrap_err().to_string();
        assert_eq!(error, "'a,b' is not a pool name: it has a comma; on a command line, names are separated by spaces");
    }
}
