//! `/etc/php7adm.netrc`: the user and password of an admin site, in the format that curl and ftp read. The caller opens the file, since
//! it knows whose files it trusts; here it is text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A user with a password that cannot be printed: there is no `Display`, and `Debug` shows that there is one and nothing more.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).field("password", &"<redacted>").finish()
    }
}

/// What is wrong with the file. Nothing of it is quoted: it holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetrcError {
    /// A word that begins nothing.
    #[error("line {0}: a word that is none of machine, default, login, password, account and macdef")]
    Word(usize),
    /// A word that something should follow.
    #[error("line {line}: '{after}' without a value")]
    NoValue {
        /// From one.
        line: usize,
        /// The word.
        after: &'static str,
    },
    /// A user or password before the first machine.
    #[error("line {0}: a login or password before the first machine")]
    NoMachine(usize),
    /// The machine has a password without a login, or a login without a password.
    #[error("the entry of '{0}' lacks its login or its password")]
    Half(String),
}

/// What an entry says; without a machine it is the default.
#[derive(Debug, Default)]
struct Entry<'a> {
    machine: Option<&'a str>,
    user: Option<&'a str>,
    password: Option<&'a str>,
}

impl Credentials {
    /// Those for `host`: of its own entry, otherwise of `default`; the first of each. `None` if there is neither. Values are taken as they
    /// stand: a quote is a part of them.
    pub fn of(host: &str, netrc: &str) -> Result<Option<Self>, NetrcError> {
        let entries = entries(netrc)?;
        let first = |machine: Option<&str>| entries.iter().find(|entry| entry.machine == machine);
        match first(Some(host)).or_else(|| first(None)) {
            None => Ok(None),
            Some(Entry { user: Some(user), password: Some(password), .. }) => {
                Ok(Some(Self { user: (*user).to_owned(), password: (*password).to_owned() }))
            }
            Some(_) => Err(NetrcError::Half(host.to_owned())),
        }
    }

    /// The value of an `Authorization` header (RFC 7617), for the one place that sends it.
    pub(crate) fn basic(&self) -> String {
        let Self { user, password } = self;
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }
}

fn entries(netrc: &str) -> Result<Vec<Entry<'_>>, NetrcError> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    // A keyword whose value comes next, perhaps on another line.
    let mut pending: Option<(usize, &'static str)> = None;
    let mut in_macro = false;
    for (position, text) in netrc.lines().enumerate() {
        let line = position + 1;
        if in_macro {
            // A macro ends at an empty line.
            in_macro = !text.trim().is_empty();
            continue;
        }
        if pending.is_none() && text.trim_start().starts_with('#') {
            continue;
        }
        for word in text.split_ascii_whitespace() {
            if let Some((line, keyword)) = pending.take() {
                if keyword == "machine" {
                    entries.push(Entry { machine: Some(word), ..Entry::default() });
                    continue;
                }
                let entry = entries.last_mut().ok_or(NetrcError::NoMachine(line))?;
                match keyword {
                    "login" => entry.user = Some(word),
                    "password" => entry.password = Some(word),
                    _ => {}
                }
                continue;
            }
            match word {
                "default" => entries.push(Entry::default()),
                "machine" => pending = Some((line, "machine")),
                "login" => pending = Some((line, "login")),
                "password" => pending = Some((line, "password")),
                "account" => pending = Some((line, "account")),
                "macdef" => {
                    in_macro = true;
                    break;
                }
                _ => return Err(NetrcError::Word(line)),
            }
        }
    }
    match pending {
        Some((line, after)) => Err(NetrcError::NoValue { line, after }),
        None => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(netrc: &str) -> Result<Option<(String, String)>, String> {
        let found = Credentials::of("localhost", netrc).map_err(|error| error.to_string())?;
        Ok(found.map(|found| (found.user, found.password)))
    }

    fn pair(user: &str, password: &str) -> Result<Option<(String, String)>, String> {
        Ok(Some((user.to_owned(), password.to_owned())))
    }

    #[test]
    fn the_hosts_own_entry_comes_before_the_default_and_the_first_before_the_second() {
        for netrc in [
            "machine localhost login admin password secret\n",
            "machine\n  localhost\nlogin\n admin\n\tpassword\nsecret",
            "# php7adm\nmachine other login x password y\nmachine localhost password secret account z login admin\n",
            "default login d password e\nmachine localhost login admin password secret",
            "machine localhost login admin password secret\nmachine localhost login x password y\n",
            "macdef init\nmachine localhost login x password y\n\nmachine localhost login admin password secret\n",
        ] {
            assert_eq!(of(netrc), pair("admin", "secret"), "{netrc}");
        }
        assert_eq!(of("machine other login x password y\ndefault login d password e"), pair("d", "e"));
        assert_eq!(of("machine localhost login login password #machine"), pair("login", "#machine"));
    }

    #[test]
    fn no_entry_is_no_error() {
        for netrc in
            ["", "\n\n", "# machine localhost\n", "machine localhost.example login x password y", "macdef x\ny"]
        {
            assert_eq!(of(netrc), Ok(None), "{netrc}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting_a_secret() {
        let table = [
            (
                "machine localhost\nlogin x password y secret",
                "line 2: a word that is none of machine, default, login, password, account and macdef",
            ),
            ("machine localhost login x password", "line 1: 'password' without a value"),
            ("machine", "line 1: 'machine' without a value"),
            ("\npassword secret", "line 2: a login or password before the first machine"),
            ("machine localhost password secret", "the entry of 'localhost' lacks its login or its password"),
            ("default login x", "the entry of 'localhost' lacks its login or its password"),
        ];
        for (netrc, expected) in table {
            assert_eq!(of(netrc), Err(expected.to_owned()), "{netrc}");
        }
    }

    #[test]
    fn debug_output_never_holds_the_password() {
        let credentials = Credentials::of("localhost", "default login admin password hunter2").unwrap().unwrap();
        let shown = format!("{credentials:?} {credentials:#?}");
        assert!(shown.contains("admin") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(credentials.basic(), "Basic YWRtaW46aHVudGVyMg==");
    }

    proptest! {
        #[test]
        fn no_text_panics(netrc in "((machine|default|login|password|macdef|localhost|x|#)[ \\n]{1,2}){0,20}") {
            let _ = of(&netrc);
        }
    }
}
