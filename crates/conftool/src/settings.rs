//! config.yaml, the etcdrc files and the TLS files together: everything that has to be known, and right, before the store is
//! contacted for the first time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use restart_core::StoreError;
use tokio::runtime::Runtime;

use crate::audit::{Audit, NOBODY, Trail};
use crate::cluster::Cluster;
use crate::config::{Config, Driver, HAPROXY, InEtcd};
use crate::endpoint::{Endpoint, Scheme};
use crate::etcdrc::{self, EtcdRc};
use crate::keys::Keys;
use crate::limits::REQUEST;
use crate::load::{Invalid, LoadError, Read, required};
use crate::member::Member;
use crate::secret::Credentials;
use crate::slots::{self, Holder, LeaseSlots, Queue, Ring};
use crate::srv;
use crate::store::Store;
use crate::tls::Tls;
use crate::v2::{self, V2};
use crate::v3::{Connection, V3};

/// What conftool's files say about the store, checked. Nothing has been contacted yet.
#[derive(Debug)]
pub struct Settings {
    driver: Driver,
    members: Members,
    version_prefix: String,
    credentials: Option<Credentials>,
    tls: Option<Tls>,
    request_limit: Duration,
    keys: Keys,
    read_only: bool,
}

/// How the members are known.
#[derive(Debug)]
enum Members {
    /// By their addresses, in the order in which they are tried.
    Listed(Vec<Endpoint>),
    /// By the SRV records of a domain; `otherwise` is used when there are none, as in python-etcd.
    Domain { name: String, scheme: Scheme, otherwise: Option<Vec<Endpoint>> },
}

impl Settings {
    /// Loads `config` (`/etc/conftool/config.yaml`), the etcdrc files that conftool would read, and the TLS files that
    /// those name. `home` is the home directory of the user that the program runs as, from the password database.
    ///
    /// Of the files only `config` has to exist; without it the error is [`LoadError::Missing`]. For whoever can use no other
    /// store than etcd: [`Keeper::load`](crate::Keeper::load) knows all of them.
    pub fn load<E>(config: &Path, home: Option<&Path>, read: Read<'_, E>) -> Result<Self, LoadError<E>> {
        match Config::parse(config, &required(config, read)?)? {
            Config::Etcd(parsed) => Self::of(parsed, config, home, read),
            Config::Haproxy { .. } => {
                let what =
                    format!("'driver: {HAPROXY}' keeps no list of a cluster's hosts: name them with --hosts FILE");
                Err(Invalid::new(config, what).into())
            }
        }
    }

    /// The same from what `config` says.
    pub(crate) fn of<E>(
        parsed: InEtcd,
        config: &Path,
        home: Option<&Path>,
        read: Read<'_, E>,
    ) -> Result<Self, LoadError<E>> {
        let rc = etcdrc(&parsed, home, read)?;
        let members = members(config, &parsed, &rc)?;
        let uses_tls = match &members {
            Members::Listed(endpoints) => endpoints.iter().any(|endpoint| endpoint.scheme == Scheme::Https),
            Members::Domain { scheme, .. } => *scheme == Scheme::Https,
        };
        let tls = if uses_tls { Some(rc.tls.load(read)?) } else { None };
        Ok(Self {
            driver: parsed.driver,
            members,
            version_prefix: rc.version_prefix,
            credentials: rc.credentials,
            tls,
            request_limit: rc.read_timeout.map_or(REQUEST, |given| given.min(REQUEST)),
            keys: parsed.keys,
            read_only: parsed.read_only,
        })
    }

    /// Whether config.yaml says that nothing may be written (`read_only`). The store then refuses every write.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Makes the store ready. Members that are listed are contacted with the first question only; those of a domain are
    /// looked up in DNS now. `run` names the run in what it writes; no other run ever has that name. `audit` gets a line for
    /// every write.
    pub fn open(&self, run: &str, audit: Audit) -> Result<Store, StoreError> {
        let runtime = Arc::new(runtime()?);
        let endpoints = self.endpoints(&runtime)?;
        let credentials = self.credentials.as_ref();
        let members: Vec<Box<dyn Member>> = match self.driver {
            Driver::V2 => {
                let agent = v2::agent(self.tls.as_ref()).map_err(StoreError::Refused)?;
                let prefix = &self.version_prefix;
                let member = |endpoint| V2::new(agent.clone(), endpoint, prefix, self.tls.as_ref(), credentials);
                endpoints.iter().map(|endpoint| Box::new(member(endpoint)) as Box<dyn Member>).collect()
            }
            Driver::V3 => {
                let connection = |endpoint| Connection::new(endpoint, self.tls.as_ref(), credentials);
                let member = |endpoint| V3::new(Arc::clone(&runtime), connection(endpoint));
                endpoints.iter().map(|endpoint| Box::new(member(endpoint)) as Box<dyn Member>).collect()
            }
        };
        let user = credentials.map_or(NOBODY.to_owned(), |credentials| credentials.user.clone());
        Ok(Store {
            cluster: Cluster::new(members),
            driver: self.driver,
            keys: self.keys.clone(),
            request_limit: self.request_limit,
            read_only: self.read_only,
            run: run.to_owned(),
            trail: Trail::new(audit, user),
            runtime: Some(runtime),
        })
    }

    /// Whether slots can be kept in this store: only v3 has leases.
    pub fn has_leases(&self) -> bool {
        self.driver.has_leases()
    }

    /// Makes the slots of the queue `key` ready for one run, which is `holder`. Members are looked up as by
    /// [`Settings::open`], and contacted with the first question only. Refused unless the driver is `etcd3`.
    pub fn slots(&self, key: &str, holder: Holder) -> Result<LeaseSlots, StoreError> {
        let queue = Queue::new(&self.keys, key)?;
        Ok(LeaseSlots::new(self.ring()?, queue, holder, self.request_limit, self.read_only))
    }

    /// Who has which slot in this store, a clause each, by the name of the queue: for people. Writes nothing; takes some
    /// three seconds at most. Refused unless the driver is `etcd3`.
    pub fn slot_holders(&self) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
        slots::everybody(self.ring()?, self.keys.clone(), self.request_limit)
    }

    /// The members, for slots.
    fn ring(&self) -> Result<Ring, StoreError> {
        if !self.has_leases() {
            return Err(StoreError::Refused("slots in etcd need 'driver: etcd3' in conftool's config.yaml".to_owned()));
        }
        let runtime = runtime()?;
        let endpoints = self.endpoints(&runtime)?;
        runtime.shutdown_background();
        let connection = |endpoint| Connection::new(endpoint, self.tls.as_ref(), self.credentials.as_ref());
        Ok(Ring::new(endpoints.iter().map(connection).collect()))
    }

    /// The members' addresses.
    fn endpoints(&self, runtime: &Runtime) -> Result<Vec<Endpoint>, StoreError> {
        match &self.members {
            Members::Listed(endpoints) => Ok(endpoints.clone()),
            Members::Domain { name, scheme, otherwise } => match domain_members(runtime, name, *scheme) {
                Ok(endpoints) => Ok(endpoints),
                Err(why) => {
                    let endpoints = otherwise.clone().ok_or_else(|| StoreError::Unreachable(why.clone()))?;
                    log::warn!("{why}; using the members that the etcdrc files name in 'host'");
                    Ok(endpoints)
                }
            },
        }
    }
}

/// A runtime that turns only while something is waited for.
fn runtime() -> Result<Runtime, StoreError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StoreError::Unreachable(format!("cannot start the network runtime: {error}")))
}

/// Reads the etcdrc files in conftool's order; those that do not exist are passed over.
fn etcdrc<E>(config: &InEtcd, home: Option<&Path>, read: Read<'_, E>) -> Result<EtcdRc, LoadError<E>> {
    let mut files = etcdrc::Files::default();
    let places = [Some(PathBuf::from(etcdrc::SYSTEM)), home.map(|home| home.join(".etcdrc")), config.etcdrc.clone()];
    for place in places.into_iter().flatten() {
        match read(&place).map_err(LoadError::Read)? {
            Some(text) => files.add(&place, &text)?,
            None => log::debug!("'{}' does not exist: passed over", place.display()),
        }
    }
    Ok(files.read()?)
}

/// Where the members are: the SRV records of a domain, else `host`, both of the etcdrc files; else `hosts` of config.yaml;
/// else python-etcd's default.
fn members(file: &Path, config: &InEtcd, rc: &EtcdRc) -> Result<Members, Invalid> {
    if let Some(name) = &rc.srv_domain {
        return Ok(Members::Domain { name: name.clone(), scheme: rc.scheme, otherwise: rc.hosts.clone() });
    }
    if let Some(hosts) = &rc.hosts {
        return Ok(Members::Listed(hosts.clone()));
    }
    let hosts = config.hosts.iter().map(|url| Endpoint::parse(url, rc.scheme, rc.port));
    let hosts: Result<Vec<_>, _> = hosts.collect();
    let hosts = hosts.map_err(|why| Invalid::new(file, format!("an entry of 'hosts' {why}")))?;
    if hosts.is_empty() {
        let host = rc.default_host().map_err(|why| Invalid::new(file, why))?;
        return Ok(Members::Listed(vec![host]));
    }
    Ok(Members::Listed(hosts))
}

fn domain_members(runtime: &Runtime, domain: &str, scheme: Scheme) -> Result<Vec<Endpoint>, String> {
    srv::lookup(runtime, domain, &[])?
        .into_iter()
        .map(|(host, port)| {
            Endpoint::new(scheme, &host, port).map_err(|why| format!("a target of the SRV records of '{domain}' {why}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::*;

    const CONFIG: &str = "/etc/conftool/config.yaml";

    /// Loads from files that exist in memory alone; returns which were asked for, too.
    fn load(files: &[(&str, &str)]) -> (Result<Settings, String>, Vec<String>) {
        let files: HashMap<&str, &str> = files.iter().copied().collect();
        let asked = RefCell::new(Vec::new());
        let read = |path: &Path| -> Result<Option<String>, String> {
            let name = path.to_str().unwrap();
            asked.borrow_mut().push(name.to_owned());
            Ok(files.get(name).map(|text| (*text).to_owned()))
        };
        let loaded = Settings::load(Path::new(CONFIG), Some(Path::new("/root")), &read);
        (loaded.map_err(|error| error.to_string()), asked.into_inner())
    }

    fn urls(files: &[(&str, &str)]) -> Vec<String> {
        match load(files).0.unwrap().members {
            Members::Listed(endpoints) => endpoints.iter().map(ToString::to_string).collect(),
            Members::Domain { name, .. } => vec![format!("SRV {name}")],
        }
    }

    #[test]
    fn the_etcdrc_files_are_read_in_conftools_order() {
        let (_, asked) = load(&[(CONFIG, "")]);
        assert_eq!(asked, [CONFIG, "/etc/etcd/etcdrc", "/root/.etcdrc", "/etc/conftool/etcdrc"]);
        let (_, asked) = load(&[(CONFIG, "driver_options: {etcd_config_file: /etc/lab/rc}")]);
        assert_eq!(asked, [CONFIG, "/etc/etcd/etcdrc", "/root/.etcdrc", "/etc/lab/rc"]);
        let (_, asked) = load(&[(CONFIG, "driver_options: {etcd_config_file: ''}")]);
        assert_eq!(asked, [CONFIG, "/etc/etcd/etcdrc", "/root/.etcdrc"]);
    }

    #[test]
    fn members_come_from_srv_then_host_then_hosts_then_the_default() {
        let hosts = (CONFIG, "hosts: ['http://a:2379', 'https://b', c]");
        let ca = include_str!("../tests/ca.pem");
        assert_eq!(urls(&[(CONFIG, "")]), ["http://127.0.0.1:4001"]);
        let rc = ("/etc/etcd/etcdrc", "port: 5000\nca_cert: /ca.pem\n");
        assert_eq!(urls(&[hosts, rc, ("/ca.pem", ca)]), ["http://a:2379", "https://b:5000", "http://c:5000"]);
        let rc = ("/etc/etcd/etcdrc", "host: d\n");
        assert_eq!(urls(&[hosts, rc]), ["http://d:4001"]);
        let rc = ("/etc/etcd/etcdrc", "host: d\nsrv_domain: x.example\n");
        assert_eq!(urls(&[hosts, rc]), ["SRV x.example"]);
    }

    #[test]
    fn https_without_a_ca_is_verified_against_the_systems_bundle() {
        let rc = ("/etc/etcd/etcdrc", "protocol: https\n");
        let (error, asked) = load(&[(CONFIG, ""), rc]);
        assert!(asked.contains(&crate::tls::SYSTEM_CA.to_owned()));
        assert!(error.unwrap_err().contains(crate::tls::SYSTEM_CA));
        // A bundle may hold what is no certificate that we can read; the others still count.
        let bundle = format!(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}",
            include_str!("../tests/ca.pem")
        );
        assert!(load(&[(CONFIG, ""), rc, (crate::tls::SYSTEM_CA, &bundle)]).0.is_ok());
    }

    #[test]
    fn haproxy_is_no_etcd() {
        let error = load(&[(CONFIG, "driver: haproxy")]).0.unwrap_err();
        assert!(error.ends_with("keeps no list of a cluster's hosts: name them with --hosts FILE"), "{error}");
    }

    #[test]
    fn a_read_timeout_shortens_a_request_and_never_lengthens_it() {
        for (line, wanted) in
            [("read_timeout: 60", REQUEST), ("read_timeout: 0", REQUEST), ("read_timeout: 1", Duration::from_secs(1))]
        {
            let settings = load(&[(CONFIG, ""), ("/root/.etcdrc", line)]).0.unwrap();
            assert_eq!(settings.request_limit, wanted, "{line}");
        }
    }

    #[test]
    fn bad_hosts_are_an_error_that_quotes_nothing() {
        let error = load(&[(CONFIG, "hosts: ['http://user:hunter2@a']")]).0.unwrap_err();
        assert!(error.contains("'hosts'") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn settings_shown_for_debugging_hold_no_secret() {
        let rc = ("/root/.etcdrc", "username: alice\npassword: hunter2\n");
        let settings = load(&[(CONFIG, ""), rc]).0.unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("alice") && !shown.contains("hunter2"), "{shown}");
    }
}
