//! A store under test: configuration files as an operator writes them, the store that they lead to, and its audit lines.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conftool::{Audit, Holder, LeaseSlots, LoadError, Settings, Store};
use restart_core::{Fqdn, Node, NodeId, PoolPath, PoolStore, Tag};
use tempfile::TempDir;

use crate::etcd::{Api, reader};

/// The directory of the pool that the tests use.
pub(crate) const POOL: &str = "/conftool/v1/pools/lab/appserver/php";

/// An object as confctl writes it.
pub(crate) const POOLED: &str = r#"{"weight": 10, "pooled": "yes"}"#;

/// The same, depooled.
pub(crate) const DEPOOLED: &str = r#"{"weight": 10, "pooled": "no"}"#;

pub(crate) fn pool() -> PoolPath {
    let tag = |name: &str| Tag::new(name).expect("a tag");
    PoolPath { data_centre: tag("lab"), cluster: tag("appserver"), service: tag("php") }
}

pub(crate) fn host(name: &str) -> Fqdn {
    Fqdn::new(name).expect("a host")
}

pub(crate) fn id(name: &str) -> NodeId {
    pool().node(&host(name))
}

pub(crate) fn key(host: &str) -> String {
    format!("{POOL}/{host}")
}

/// Configuration files in a directory of their own.
pub(crate) struct Files {
    dir: TempDir,
    etcdrc: String,
}

impl Files {
    /// Files that lead to `urls` with the driver for `api`.
    pub(crate) fn new(api: Api, urls: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = format!("driver: {}\nhosts:\n", api.driver());
        for url in urls {
            writeln!(config, "  - {url}").expect("text");
        }
        let etcdrc = dir.path().join("etcdrc");
        writeln!(config, "driver_options: {{etcd_config_file: {}}}", etcdrc.display()).expect("text");
        fs::write(dir.path().join("config.yaml"), config).expect("a configuration file");
        let etcdrc = String::new();
        Self { dir, etcdrc }
    }

    /// Adds a line to the etcdrc file.
    pub(crate) fn with(mut self, line: &str) -> Self {
        writeln!(self.etcdrc, "{line}").expect("text");
        fs::write(self.path("etcdrc"), &self.etcdrc).expect("an etcdrc file");
        self
    }

    /// Adds a line to config.yaml.
    pub(crate) fn with_config(self, line: &str) -> Self {
        let path = self.path("config.yaml");
        let text = fs::read_to_string(&path).expect("the configuration file");
        fs::write(&path, format!("{text}{line}\n")).expect("the configuration file");
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Loads the settings; files outside this directory and `also` do not exist.
    pub(crate) fn load(&self, also: Option<&Path>) -> Result<Settings, LoadError<String>> {
        let ours = reader(self.dir.path());
        let others = also.map(reader);
        let read = move |path: &Path| match (ours(path)?, &others) {
            (None, Some(others)) => others(path),
            (found, _) => Ok(found),
        };
        Settings::load(&self.path("config.yaml"), None, &read)
    }

    /// Opens the store, for a run of no importance.
    pub(crate) fn open(&self, also: Option<&Path>) -> Opened {
        self.open_as("run-0", also)
    }

    /// Opens the store for a run.
    pub(crate) fn open_as(&self, run: &str, also: Option<&Path>) -> Opened {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let audit = Audit {
            user: Some("alice".to_owned()),
            host: "mw1".to_owned(),
            sink: Box::new(move |line| kept.lock().expect("audit lines").push(line.to_owned())),
        };
        let store = self.load(also).expect("settings").open(run, audit).expect("a store");
        Opened { store, lines }
    }
}

/// The queue that the tests use.
pub(crate) const QUEUE: &str = "ServiceRestarter::lab::appservers";

/// The time to live of the tests' leases: the least that etcd grants, and some time for a slow machine.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

impl Files {
    /// Slots for a run on this host.
    pub(crate) fn slots(&self, name: &str) -> LeaseSlots {
        let holder = Holder {
            host: host(name),
            run: format!("run-on-{name}"),
            pid: 7,
            user: Some("alice".to_owned()),
            since: "2026-11-23T10:00:00Z".to_owned(),
        };
        self.load(None).expect("settings").slots(QUEUE, holder).expect("slots").with_lease(LEASE)
    }
}

/// An open store and what it told the audit log.
pub(crate) struct Opened {
    pub(crate) store: Store,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Opened {
    /// The node of a host that is there.
    pub(crate) fn node(&mut self, host: &str) -> Node {
        self.store.read(&id(host)).expect("an answer").expect("a node")
    }

    /// The outcomes in the audit lines so far.
    pub(crate) fn outcomes(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("audit lines");
        let outcome = |line: &String| {
            let object = line.strip_prefix("@cee: ").expect("the prefix that syslog filters look for");
            let fields: serde_json::Value = serde_json::from_str(object).expect("JSON");
            assert_eq!(fields["user.name"], "alice");
            assert_eq!(fields["host.hostname"], "mw1");
            assert!(fields["service.name"].as_str().expect("a name").starts_with("pools/lab/appserver/php/"));
            fields["event.outcome"].as_str().expect("an outcome").to_owned()
        };
        lines.iter().map(outcome).collect()
    }
}
