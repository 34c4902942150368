//! The etcdrc files: where etcd is and how to speak to it. They are read as conftool reads them (conftool/drivers/etcd.py,
//! `get_config`): a later file replaces an earlier one key by key, and the result is the argument list of python-etcd's
//! client (etcd/client.py, `__init__`), whose names and defaults are the ones here. A key that it does not have is an error.
//!
//! These files hold a password: no message quotes a value.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::endpoint::{Endpoint, EndpointError, Scheme};
use crate::load::Invalid;
use crate::secret::{Credentials, Password};
use crate::tls::{CertFiles, TlsFiles};
use crate::yaml::{self, Placed};

/// The file that is read first; `~/.etcdrc` is the second, and config.yaml says which is the third.
pub(crate) const SYSTEM: &str = "/etc/etcd/etcdrc";

/// python-etcd's default port, etcd's own before 2015.
const DEFAULT_PORT: u16 = 4001;

/// python-etcd's default host.
const DEFAULT_HOST: &str = "127.0.0.1";

/// Every argument of python-etcd's client. What is not asked for below concerns only python-etcd: `allow_reconnect` (all
/// members are always tried here), `allow_redirect` (etcd does not redirect), and its proxies, pools and locks.
const KEYS: [&str; 16] = [
    "allow_reconnect",
    "allow_redirect",
    "ca_cert",
    "cert",
    "expected_cluster_id",
    "host",
    "lock_prefix",
    "password",
    "per_host_pool_size",
    "port",
    "protocol",
    "read_timeout",
    "srv_domain",
    "use_proxies",
    "username",
    "version_prefix",
];

/// What the files say together, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EtcdRc {
    /// The members, if `host` names any.
    pub(crate) hosts: Option<Vec<Endpoint>>,
    /// The domain whose SRV records name the members. It goes before `host`.
    pub(crate) srv_domain: Option<String>,
    /// The protocol of members that are named without one.
    pub(crate) scheme: Scheme,
    /// The port of members that are named without one.
    pub(crate) port: u16,
    /// The path of the v2 API.
    pub(crate) version_prefix: String,
    /// How long a request may take, if the files say so.
    pub(crate) read_timeout: Option<Duration>,
    /// User and password, if both are given.
    pub(crate) credentials: Option<Credentials>,
    /// The files for TLS.
    pub(crate) tls: TlsFiles,
}

impl EtcdRc {
    /// The member that python-etcd speaks to when nothing says where etcd is.
    pub(crate) fn default_host(&self) -> Result<Endpoint, EndpointError> {
        Endpoint::new(self.scheme, DEFAULT_HOST, self.port)
    }
}

/// The files read so far, merged.
#[derive(Default)]
pub(crate) struct Files {
    entries: HashMap<String, Entry>,
}

/// The value of a key, and where it stands.
struct Entry {
    file: PathBuf,
    placed: Placed,
}

impl Entry {
    fn wrong(&self, what: impl std::fmt::Display) -> Invalid {
        self.placed.wrong(&self.file, what)
    }
}

impl Files {
    /// Adds a file; its keys replace those of the files before it.
    pub(crate) fn add(&mut self, file: &Path, text: &str) -> Result<(), Invalid> {
        for (name, placed) in yaml::parse_mapping(file, text, true)? {
            if !KEYS.contains(&name.as_str()) {
                return Err(placed.wrong(file, format!("unknown key '{name}'")));
            }
            let file = file.to_owned();
            self.entries.insert(name, Entry { file, placed });
        }
        Ok(())
    }

    /// Reads the merged keys.
    pub(crate) fn read(&self) -> Result<EtcdRc, Invalid> {
        for name in ["allow_reconnect", "allow_redirect", "use_proxies"] {
            self.value(name, "true or false", Value::as_bool)?;
        }
        let scheme = match self.get("protocol") {
            None => Scheme::Http,
            Some(entry) => (entry.placed.value.as_str().and_then(Scheme::parse))
                .ok_or_else(|| entry.wrong("'protocol' must be 'http' or 'https'"))?,
        };
        let port = self.value("port", "a number from 1 to 65535", port)?.unwrap_or(DEFAULT_PORT);
        Ok(EtcdRc {
            hosts: self.hosts(scheme, port)?,
            srv_domain: self.text("srv_domain")?,
            scheme,
            port,
            version_prefix: self.version_prefix()?,
            read_timeout: self.read_timeout()?,
            credentials: self.credentials()?,
            tls: TlsFiles { ca: self.text("ca_cert")?.map(PathBuf::from), cert: self.cert()? },
        })
    }

    /// The value of a key, unless it is `null`, which is python-etcd's "not given".
    fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name).filter(|entry| !entry.placed.value.is_null())
    }

    fn value<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Invalid> {
        match self.get(name) {
            None => Ok(None),
            Some(entry) => match read(&entry.placed.value) {
                Some(value) => Ok(Some(value)),
                None => Err(entry.wrong(format!("'{name}' must be {wanted}"))),
            },
        }
    }

    /// A key that is a string; an empty one is as good as none, as in Python.
    fn text(&self, name: &str) -> Result<Option<String>, Invalid> {
        let text = self.value(name, "a string (quotes help)", Value::as_str)?;
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    fn hosts(&self, scheme: Scheme, default_port: u16) -> Result<Option<Vec<Endpoint>>, Invalid> {
        let Some(entry) = self.get("host") else {
            return Ok(None);
        };
        let shape = || entry.wrong("'host' must be a name, or a list of [name, port]");
        let endpoint = |name: &str, port| {
            Endpoint::new(scheme, name, port).map_err(|why| entry.wrong(format!("an entry of 'host' {why}")))
        };
        let hosts = match &entry.placed.value {
            Value::String(name) => vec![endpoint(name, default_port)?],
            Value::Array(pairs) if !pairs.is_empty() => pairs
                .iter()
                .map(|pair| match pair.as_array().map(Vec::as_slice) {
                    Some([Value::String(name), number]) => {
                        let port = port(number)
                            .ok_or_else(|| entry.wrong(format!("an entry of 'host' {}", EndpointError::Port)))?;
                        endpoint(name, port)
                    }
                    _ => Err(shape()),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(shape()),
        };
        Ok(Some(hosts))
    }

    fn version_prefix(&self) -> Result<String, Invalid> {
        let Some(prefix) = self.text("version_prefix")? else {
            return Ok("/v2".to_owned());
        };
        let is_path =
            prefix.starts_with('/') && prefix.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c));
        match self.get("version_prefix") {
            Some(entry) if !is_path => Err(entry.wrong("'version_prefix' must be a path such as '/v2'")),
            _ => Ok(prefix.trim_end_matches('/').to_owned()),
        }
    }

    fn read_timeout(&self) -> Result<Option<Duration>, Invalid> {
        let wanted = "a number of seconds, not negative";
        let seconds = self.value("read_timeout", wanted, |value| Duration::try_from_secs_f64(value.as_f64()?).ok())?;
        // python-etcd waits without end for 0; here it is bounded like any other request.
        Ok(seconds.filter(|seconds| !seconds.is_zero()))
    }

    fn credentials(&self) -> Result<Option<Credentials>, Invalid> {
        match (self.text("username")?, self.text("password")?) {
            (Some(user), Some(password)) => Ok(Some(Credentials { user, password: Password::new(password) })),
            (None, None) => Ok(None),
            (user, _) => {
                let missing = if user.is_some() { "password" } else { "username" };
                log::warn!(
                    "the etcdrc files name no '{missing}': authenticating to etcd takes both, so it is left out"
                );
                Ok(None)
            }
        }
    }

    fn cert(&self) -> Result<Option<CertFiles>, Invalid> {
        let wanted = "a file, or a list of a certificate's file and its key's";
        self.value("cert", wanted, |value| match value {
            Value::String(both) => Some(CertFiles { cert: PathBuf::from(both), key: PathBuf::from(both) }),
            Value::Array(files) => match files.as_slice() {
                [Value::String(cert), Value::String(key)] => {
                    Some(CertFiles { cert: PathBuf::from(cert), key: PathBuf::from(key) })
                }
                _ => None,
            },
            _ => None,
        })
    }
}

fn port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<EtcdRc, String> {
        let mut merged = Files::default();
        for (file, text) in files {
            merged.add(Path::new(file), text).map_err(|error| error.to_string())?;
        }
        merged.read().map_err(|error| error.to_string())
    }

    fn urls(rc: &EtcdRc) -> Vec<String> {
        rc.hosts.iter().flatten().map(ToString::to_string).collect()
    }

    #[test]
    fn without_files_the_defaults_are_python_etcds() {
        let rc = read(&[]).unwrap();
        assert_eq!(rc.default_host().unwrap().to_string(), "http://127.0.0.1:4001");
        assert_eq!(rc.version_prefix, "/v2");
        assert_eq!((rc.hosts, rc.srv_domain, rc.read_timeout, rc.credentials), (None, None, None, None));
        assert_eq!(rc.tls, TlsFiles::default());
    }

    #[test]
    fn a_later_file_wins_key_by_key() {
        let rc = read(&[
            ("/etc/etcd/etcdrc", "host: a\nport: 1\nusername: root\npassword: first\nsrv_domain: x.example\n"),
            ("/root/.etcdrc", "username: alice\npassword: second\n"),
            ("/etc/conftool/etcdrc", "port: 2379\nprotocol: https\nsrv_domain: null\n"),
        ])
        .unwrap();
        assert_eq!(urls(&rc), ["https://a:2379"]);
        assert_eq!(rc.srv_domain, None);
        let credentials = rc.credentials.unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.expose()), ("alice", "second"));
    }

    #[test]
    fn every_key_of_python_etcd_is_taken() {
        let rc = read(&[(
            "/rc",
            concat!(
                "host: [[conf1.example, 2379], [conf2.example, 2380], ['::1', 1]]\nport: 4001\nprotocol: https\n",
                "srv_domain: eqiad.example\nversion_prefix: /v2\nread_timeout: 2.5\nallow_reconnect: true\n",
                "allow_redirect: no\nca_cert: /ca.pem\ncert: [/c.pem, /k.pem]\nusername: u\npassword: 'p'\n",
                "use_proxies: false\nexpected_cluster_id: abc\nper_host_pool_size: 10\nlock_prefix: /_locks\n",
            ),
        )])
        .unwrap();
        assert_eq!(urls(&rc), ["https://conf1.example:2379", "https://conf2.example:2380", "https://[::1]:1"]);
        assert_eq!(rc.srv_domain.as_deref(), Some("eqiad.example"));
        assert_eq!(rc.read_timeout, Some(Duration::from_millis(2500)));
        assert_eq!(rc.tls.ca.as_deref(), Some(Path::new("/ca.pem")));
        let cert = rc.tls.cert.unwrap();
        assert_eq!((cert.cert.to_str(), cert.key.to_str()), (Some("/c.pem"), Some("/k.pem")));
    }

    #[test]
    fn one_file_may_hold_certificate_and_key() {
        let cert = read(&[("/rc", "cert: /both.pem\n")]).unwrap().tls.cert.unwrap();
        assert_eq!(cert.cert, cert.key);
    }

    #[test]
    fn half_of_the_credentials_is_none_as_in_python_etcd() {
        assert_eq!(read(&[("/rc", "username: alice\n")]).unwrap().credentials, None);
        assert_eq!(read(&[("/rc", "password: x\n")]).unwrap().credentials, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_without_its_value() {
        for (text, wanted) in [
            ("port: 1\nhots: hunter2\n", "'/rc' line 2, column 7: unknown key 'hots'"),
            ("port: hunter2\n", "'/rc' line 1, column 7: 'port' must be"),
            ("port: 70000\n", "'port' must be"),
            ("protocol: hunter2\n", "'protocol' must be 'http' or 'https'"),
            ("host: http://user:hunter2@conf1\n", "an entry of 'host' is not a host name"),
            ("host: [conf1, conf2]\n", "'host' must be a name, or a list of [name, port]"),
            ("host: []\n", "'host' must be"),
            ("host: [[conf1, 0]]\n", "a port that is not a number"),
            ("username: [hunter2]\n", "'username' must be a string"),
            ("password: 12345\n", "'password' must be a string"),
            ("read_timeout: -1\n", "'read_timeout' must be"),
            ("allow_reconnect: hunter2\n", "'allow_reconnect' must be"),
            ("cert: [/a]\n", "'cert' must be"),
            ("version_prefix: v2?x\n", "'version_prefix' must be"),
            ("host: a\nhost: b\n", "'/rc' line 2"),
            ("hunter2\n", "'/rc' line 1, column 1: not a YAML mapping"),
        ] {
            let error = read(&[("/rc", text)]).unwrap_err();
            assert!(
                error.contains(wanted) && !error.contains("hunter2") && !error.contains("12345"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_wrong_value_that_a_later_file_replaces_does_not_matter() {
        assert!(read(&[("/a", "port: x\n"), ("/b", "port: 1\n")]).is_ok());
    }
}
