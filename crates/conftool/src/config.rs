//! conftool's own file, `/etc/conftool/config.yaml`, with the keys and defaults of conftool 6.1.0
//! (conftool/configuration.py): what it does not know is an error there and here. What only conftool needs is accepted by
//! name and not looked into.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::catalog::Catalog;
use crate::keys::Keys;
use crate::load::Invalid;
use crate::yaml::{self, Mapping};

/// The file that conftool reads last of the etcdrc files, unless `driver_options` name another.
const DEFAULT_ETCDRC: &str = "/etc/conftool/etcdrc";

/// The value of `driver` for pools that HAProxy itself keeps. Ours; conftool does not know it.
pub(crate) const HAPROXY: &str = "haproxy";

/// How etcd is spoken to: the key `driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// `etcd`: etcd's v2 HTTP API, what conftool itself speaks.
    V2,
    /// `etcd3`: the same keys and values in etcd v3. Ours; conftool does not know it.
    V3,
}

impl Driver {
    /// All of them.
    const ALL: [Self; 2] = [Self::V2, Self::V3];

    /// Its name in config.yaml.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V2 => "etcd",
            Self::V3 => "etcd3",
        }
    }

    /// The API that it speaks, for messages: what the two keep is apart.
    pub(crate) fn api(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    /// Whether it has leases, and with them slots.
    pub(crate) fn has_leases(self) -> bool {
        self == Self::V3
    }
}

/// config.yaml, checked.
#[derive(Debug)]
pub(crate) enum Config {
    /// The pools are kept in etcd.
    Etcd(InEtcd),
    /// Each HAProxy keeps its own.
    Haproxy {
        /// The pools, where they stand in this file and not in the catalog.
        pools: Option<Catalog>,
        /// Whether nothing may be written.
        read_only: bool,
    },
}

/// What there is to know of pools in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InEtcd {
    /// Which API of etcd.
    pub(crate) driver: Driver,
    /// The members, as URLs, if the file names any. conftool has a default here and uses neither that nor the key; ours are
    /// used when no etcdrc file says where etcd is.
    pub(crate) hosts: Vec<String>,
    /// Where the objects are.
    pub(crate) keys: Keys,
    /// Whether nothing may be written.
    pub(crate) read_only: bool,
    /// The etcdrc file that is read last; `None` if the configuration says there is none.
    pub(crate) etcdrc: Option<PathBuf>,
}

/// The file as typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    driver: String,
    hosts: Option<Vec<String>>,
    namespace: String,
    api_version: String,
    pools_path: String,
    driver_options: Option<DriverOptions>,
    read_only: bool,
    pools: Option<Mapping>,
    #[serde(rename = "tcpircbot_host")]
    _tcpircbot_host: IgnoredAny,
    #[serde(rename = "tcpircbot_port")]
    _tcpircbot_port: IgnoredAny,
    #[serde(rename = "cache_path")]
    _cache_path: IgnoredAny,
    #[serde(rename = "conftool2git_address")]
    _conftool2git_address: IgnoredAny,
    #[serde(rename = "extensions_config")]
    _extensions_config: IgnoredAny,
}

impl Default for File {
    fn default() -> Self {
        Self {
            driver: "etcd".to_owned(),
            hosts: None,
            namespace: "/conftool".to_owned(),
            api_version: "v1".to_owned(),
            pools_path: "pools".to_owned(),
            driver_options: None,
            read_only: false,
            pools: None,
            _tcpircbot_host: IgnoredAny,
            _tcpircbot_port: IgnoredAny,
            _cache_path: IgnoredAny,
            _conftool2git_address: IgnoredAny,
            _extensions_config: IgnoredAny,
        }
    }
}

/// The driver looks up two options and ignores others (conftool/drivers/etcd.py). `suppress_san_warnings` silences a
/// warning of Python's HTTP library that we do not have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DriverOptions {
    etcd_config_file: Option<String>,
    #[serde(rename = "suppress_san_warnings")]
    _suppress_san_warnings: bool,
}

impl Config {
    /// Reads the text of `file`. An empty one is all defaults.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, Invalid> {
        let found: File = yaml::parse(file, text)?;
        if found.driver == HAPROXY {
            let pools = found.pools.map(|Mapping(pools)| Catalog::kept_in_haproxy(file, pools)).transpose()?;
            return Ok(Self::Haproxy { pools, read_only: found.read_only });
        }
        let Some(driver) = Driver::ALL.into_iter().find(|driver| driver.name() == found.driver) else {
            let what = format!(
                "'driver' is '{}'; this program knows 'etcd' (the v2 API), 'etcd3' and '{HAPROXY}'",
                found.driver
            );
            return Err(Invalid::new(file, what));
        };
        if found.pools.is_some() {
            let what =
                format!("'pools' stands in this file with 'driver: {HAPROXY}' alone; else they are in the catalog");
            return Err(Invalid::new(file, what));
        }
        let keys = Keys::new(&found.namespace, &found.api_version, &found.pools_path)
            .map_err(|what| Invalid::new(file, what))?;
        let etcdrc = match found.driver_options.and_then(|options| options.etcd_config_file) {
            None => Some(PathBuf::from(DEFAULT_ETCDRC)),
            Some(none) if none.is_empty() => None,
            Some(path) => Some(PathBuf::from(path)),
        };
        let hosts = found.hosts.unwrap_or_default();
        Ok(Self::Etcd(InEtcd { driver, hosts, keys, read_only: found.read_only, etcdrc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/conftool/config.yaml"), text).map_err(|error| error.to_string())
    }

    fn parse_etcd(text: &str) -> InEtcd {
        match parse(text).unwrap() {
            Config::Etcd(config) => config,
            Config::Haproxy { .. } => panic!("not in etcd: {text}"),
        }
    }

    #[test]
    fn an_empty_file_has_conftools_defaults() {
        let config = parse_etcd("");
        assert_eq!(config.driver, Driver::V2);
        assert_eq!(config.keys, Keys::new("/conftool", "v1", "pools").unwrap());
        assert_eq!(config.etcdrc, Some(PathBuf::from("/etc/conftool/etcdrc")));
        assert!(config.hosts.is_empty() && !config.read_only);
    }

    #[test]
    fn every_key_of_conftool_is_taken() {
        let config = parse_etcd(concat!(
            "driver: etcd3\nhosts: ['http://a:2379', 'http://b:2379']\nnamespace: /lab\napi_version: v9\n",
            "pools_path: p\nread_only: yes\ntcpircbot_host: irc\ntcpircbot_port: 9200\ncache_path: /var/cache/conftool\n",
            "conftool2git_address: 'localhost:1'\nextensions_config: {reqconfig: {haproxy_path: /x}}\n",
            "driver_options:\n  etcd_config_file: /etc/lab/etcdrc\n  suppress_san_warnings: false\n  other: 1\n",
        ));
        assert_eq!(config.driver, Driver::V3);
        assert_eq!(config.hosts, ["http://a:2379", "http://b:2379"]);
        assert_eq!(config.keys, Keys::new("/lab", "v9", "p").unwrap());
        assert_eq!(config.etcdrc, Some(PathBuf::from("/etc/lab/etcdrc")));
        assert!(config.read_only);
    }

    #[test]
    fn with_haproxy_the_pools_may_stand_in_the_same_file() {
        let text = "driver: haproxy\npools:\n  web: {port: 80, servers: [/run/haproxy/admin.sock]}\n";
        let Config::Haproxy { pools: Some(pools), read_only: false } = parse(text).unwrap() else { panic!("{text}") };
        assert_eq!(pools.names().collect::<Vec<_>>(), ["web"]);
        let text = "driver: haproxy\nread_only: true\n";
        assert!(matches!(parse(text), Ok(Config::Haproxy { pools: None, read_only: true })));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("driver: consul\n", "'driver' is 'consul'"),
            ("pools_path: /pools\n", "'pools_path' must be a relative path"),
            ("namespaces: /x\n", "unknown key 'namespaces'"),
            ("hosts: http://a\n", "line 1"),
            ("namespace: [a]\n", "line 1"),
            ("read_only: 3\n", "line 1"),
            ("driver_options: x\n", "line 1"),
            ("driver: etcd\ndriver: etcd3\n", "'driver' is given twice"),
            ("- driver\n", "line 1"),
            ("pools: {web: {port: 80}}\n", "'pools' stands in this file with 'driver: haproxy' alone"),
            ("driver: haproxy\npools: {}\n", "it has no pools"),
            ("driver: haproxy\npools: [web]\n", "line 2"),
            ("driver: haproxy\npools: {web: {}, web: {}}\n", "'web' is given twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("'/etc/conftool/config.yaml'") && error.contains(wanted), "{text}: {error}");
        }
    }
}
