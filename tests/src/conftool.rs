//! conftool as operators use it: the real `confctl` and `conftool-sync` against the v2 interface, the same bytes written
//! into v3 (which the real ones do not speak), and the files that a host needs to find its pools.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::etcd::{Access, Driver, Store};
use crate::{prepared, scratch};

/// Where node objects live, with conftool's default settings.
const ROOT: &str = "/conftool/v1/pools";

/// A node object: one service of one host in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// The data centre, `eqiad`.
    pub dc: String,
    /// The cluster, `appserver`.
    pub cluster: String,
    /// The service, `php`.
    pub service: String,
    /// The host, `mw1.eqiad.test`.
    pub host: String,
}

impl Node {
    /// A node by its tags and name.
    #[must_use]
    pub fn new(dc: &str, cluster: &str, service: &str, host: &str) -> Self {
        Self { dc: dc.to_owned(), cluster: cluster.to_owned(), service: service.to_owned(), host: host.to_owned() }
    }

    /// The folder in etcd with all hosts of its service.
    #[must_use]
    pub fn folder(&self) -> String {
        folder(&self.dc, &self.cluster, &self.service)
    }

    /// The key in etcd.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.folder(), self.host)
    }

    /// A selector of confctl for this object alone. Selectors are patterns: a plain name means all that begin with it.
    #[must_use]
    pub fn selector(&self) -> String {
        let exactly = |text: &str| format!("^{}$", text.replace('.', r"\."));
        format!(
            "dc={},cluster={},service={},name={}",
            exactly(&self.dc),
            exactly(&self.cluster),
            exactly(&self.service),
            exactly(&self.host)
        )
    }
}

/// The folder in etcd with all hosts of a service.
#[must_use]
pub fn folder(dc: &str, cluster: &str, service: &str) -> String {
    format!("{ROOT}/{dc}/{cluster}/{service}")
}

/// The operator's side of conftool: makes and changes node objects.
pub struct Conftool {
    folder: TempDir,
    store: Store,
    /// All objects made so far: conftool-sync deletes what it is not told about.
    nodes: Mutex<BTreeSet<Node>>,
}

impl Conftool {
    /// An operator with this access, who uses the real conftool for v2 and writes the same bytes for v3.
    pub fn new(driver: Driver, access: &Access) -> Result<Self> {
        let folder = scratch::folder("conftool")?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("config.yaml"), config_yaml(driver, &at("etcdrc").display().to_string()))?;
        let mut combined = None;
        if let Some(identity) = &access.identity {
            fs::write(at("client.pem"), identity_pem(identity)?)?;
            combined = Some(at("client.pem"));
        }
        // The real conftool reads a list of hosts, but cannot use it: it is given the first member.
        let first = Access { endpoints: access.endpoints[..1].to_vec(), ..access.clone() };
        fs::write(at("etcdrc"), etcdrc(&first, access.authority.as_ref(), combined.as_ref())?)?;
        let store = Store::new(driver, access)?;
        Ok(Self { folder, store, nodes: Mutex::new(BTreeSet::new()) })
    }

    /// Runs the real `confctl --object-type node ARGUMENTS` and returns what it printed. Speaks v2 only.
    pub fn confctl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--object-type", "node"];
        all.extend(arguments);
        self.run("confctl", &all)
    }

    /// Makes objects that do not exist yet, and sets them: `create(&nodes, "weight=10:pooled=yes")`.
    pub fn create(&self, nodes: &[Node], settings: &str) -> Result<()> {
        match &self.store {
            Store::V2(_) => self.sync(nodes)?,
            Store::V3(_) => {
                for node in nodes {
                    self.store.put(&node.key(), r#"{"weight": 0, "pooled": "inactive"}"#)?;
                }
            }
        }
        for node in nodes {
            self.set(node, settings)?;
        }
        Ok(())
    }

    /// Changes fields of an object: `set(&node, "pooled=no")`. Fails unless the object then says so.
    pub fn set(&self, node: &Node, settings: &str) -> Result<()> {
        let settings_by_name: Vec<(&str, Value)> = settings
            .split(':')
            .map(|setting| {
                let (name, value) =
                    setting.split_once('=').with_context(|| format!("'{setting}' is not NAME=VALUE"))?;
                Ok((name, value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number))))
            })
            .collect::<Result<_>>()?;
        match &self.store {
            Store::V2(_) => {
                self.confctl(&["select", &node.selector(), &format!("set/{settings}")])?;
            }
            Store::V3(_) => {
                let mut object = self.object(node)?;
                for (name, value) in &settings_by_name {
                    object[*name] = value.clone();
                }
                self.store.put(&node.key(), &python_json(&object))?;
            }
        }
        // confctl is content when its selector selects nothing.
        let object = self.object(node)?;
        for (name, value) in &settings_by_name {
            ensure!(object[*name] == *value, "'{}' is {object} after 'set/{settings}'", node.key());
        }
        Ok(())
    }

    /// The object as it stands in etcd, to the byte; none when there is none.
    pub fn raw(&self, node: &Node) -> Result<Option<String>> {
        Ok(self.store.get(&node.key())?.map(|entry| entry.value))
    }

    /// Its field `pooled`.
    pub fn pooled(&self, node: &Node) -> Result<String> {
        let object = self.object(node)?;
        Ok(object["pooled"].as_str().with_context(|| format!("'{}' is {object}", node.key()))?.to_owned())
    }

    /// The store behind it, for bytes that conftool would not write.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn object(&self, node: &Node) -> Result<Value> {
        let text = self.raw(node)?.with_context(|| format!("no object '{}'", node.key()))?;
        serde_json::from_str(&text).with_context(|| format!("'{}' is not JSON: {text}", node.key()))
    }

    /// Makes objects with the real conftool-sync, from a folder of YAML files as Puppet writes it.
    fn sync(&self, nodes: &[Node]) -> Result<()> {
        let mut all = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(nodes.iter().cloned());
        let data = self.folder.path().join("data/node");
        fs::create_dir_all(&data).with_context(|| format!("cannot make '{}'", data.display()))?;
        let mut tree = json!({});
        for Node { dc, cluster, service, host } in &*all {
            let services = &mut tree[dc][cluster][host];
            match services.as_array_mut() {
                Some(services) => services.push(json!(service)),
                None => *services = json!([service]),
            }
        }
        // JSON is YAML.
        fs::write(data.join("all.yaml"), tree.to_string())?;
        let data = self.folder.path().join("data").display().to_string();
        self.run("conftool-sync", &["--directory", &data])?;
        Ok(())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(prepared::conftool(program)?);
        // A schema that does not exist is one that adds nothing to conftool's own.
        let schema = self.folder.path().join("schema.yaml");
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("USER", "root")
            .arg("--config")
            .arg(self.folder.path().join("config.yaml"))
            .arg("--schema")
            .arg(schema)
            .args(arguments)
            .stdin(Stdio::null());
        let output = command.output().with_context(|| format!("cannot run '{program}'"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("'{program} {}' failed, {}:\n{stderr}", arguments.join(" "), output.status);
        }
        // conftool-sync logs what went wrong and goes on.
        ensure!(!stderr.contains("[ERROR]"), "'{program} {}' failed:\n{stderr}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// One entry of the catalog of pools.
#[derive(Clone, Debug)]
pub struct CatalogPool {
    /// The name of the pool.
    pub name: String,
    /// The cluster of its node objects.
    pub cluster: String,
    /// The service of its node objects.
    pub service: String,
    /// The port of the service.
    pub port: u16,
    /// Its load balancers.
    pub balancers: Vec<String>,
    /// What they are, where that is not PyBal: `haproxy`.
    pub lb: Option<&'static str>,
}

/// A file to be put on a host.
#[derive(Clone, Debug)]
pub struct HostFile {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// The content.
    pub content: String,
    /// The permissions.
    pub mode: u32,
}

impl HostFile {
    /// A file that everyone may read.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, content: impl Into<String>) -> Self {
        Self { path: path.into(), content: content.into(), mode: 0o644 }
    }

    /// The same with other permissions.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// The files from which a host learns where etcd is, which pools there are, and which data centre it is in.
pub fn host_files(driver: Driver, access: &Access, dc: &str, pools: &[CatalogPool]) -> Result<Vec<HostFile>> {
    const ETCDRC: &str = "/etc/conftool/etcdrc";
    let mut files = vec![
        HostFile::new("/etc/conftool/config.yaml", config_yaml(driver, ETCDRC)),
        HostFile::new("/etc/conftool/local_services.yaml", catalog(pools)),
        HostFile::new("/etc/wikimedia-cluster", format!("{dc}\n")),
    ];
    let authority = PathBuf::from("/etc/conftool/ca.pem");
    if let Some(source) = &access.authority {
        files.push(HostFile::new(&authority, fs::read_to_string(source)?));
    }
    let client = PathBuf::from("/etc/conftool/client.pem");
    if let Some(identity) = &access.identity {
        files.push(HostFile::new(&client, identity_pem(identity)?).mode(0o600));
    }
    let etcdrc =
        etcdrc(access, access.authority.is_some().then_some(&authority), access.identity.is_some().then_some(&client))?;
    // It may hold a password.
    files.push(HostFile::new(ETCDRC, etcdrc).mode(0o600));
    Ok(files)
}

fn config_yaml(driver: Driver, etcdrc: &str) -> String {
    format!(
        "driver: {}\nnamespace: /conftool\napi_version: v1\npools_path: pools\n\
         driver_options:\n  etcd_config_file: {etcdrc}\n  suppress_san_warnings: false\n",
        driver.name()
    )
}

fn catalog(pools: &[CatalogPool]) -> String {
    let mut text = String::new();
    for CatalogPool { name, cluster, service, port, balancers, lb } in pools {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{name}:\n  cluster: {cluster}\n  service: {service}\n  port: {port}\n  servers: [{}]\n",
            balancers.join(", ")
        );
        if let Some(lb) = lb {
            let _ = writeln!(text, "  lb: {lb}");
        }
    }
    text
}

fn etcdrc(access: &Access, authority: Option<&PathBuf>, client: Option<&PathBuf>) -> Result<String> {
    let members = access.endpoints.iter().map(|endpoint| {
        let (protocol, rest) = endpoint.split_once("://")?;
        let (host, port) = rest.rsplit_once(':')?;
        Some((protocol, host, port))
    });
    let members: Vec<_> = members.collect::<Option<_>>().context("an endpoint is not PROTOCOL://HOST:PORT")?;
    let mut text = match members.as_slice() {
        [] => bail!("an etcd without members"),
        [(protocol, host, port)] => format!("host: {host}\nport: {port}\nprotocol: {protocol}\n"),
        several @ [(protocol, ..), ..] => {
            let list: Vec<String> = several.iter().map(|(_, host, port)| format!("[{host}, {port}]")).collect();
            format!("host: [{}]\nprotocol: {protocol}\nallow_reconnect: true\n", list.join(", "))
        }
    };
    if let Some(authority) = authority {
        let _ = writeln!(text, "ca_cert: {}", authority.display());
    }
    if let Some(client) = client {
        let _ = writeln!(text, "cert: {}", client.display());
    }
    if let Some(user) = &access.user {
        let _ = writeln!(text, "username: {}\npassword: {}", user.name, user.password);
    }
    Ok(text)
}

/// Certificate and key in one file, the form that works with every version of conftool.
fn identity_pem(identity: &crate::certificates::Identity) -> Result<String> {
    Ok(fs::read_to_string(&identity.certificate)? + &fs::read_to_string(&identity.key)?)
}

/// JSON as Python's `json.dumps` writes it: a space after each colon and comma, and nothing but ASCII.
pub(crate) fn python_json(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{}: {}", python_string(name), python_json(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(python_json).collect::<Vec<_>>().join(", ")),
        Value::String(text) => python_string(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn python_string(text: &str) -> String {
    let mut ascii = String::new();
    for unit in json!(text).to_string().encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ b' '..=b'~') => ascii.push(byte.into()),
            _ => {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        // Made with python3 -c 'import json; print(json.dumps(...))'.
        let value =
            json!({"weight": 10, "pooled": "yes", "n": null, "l": [1, "a\"b"], "é": "a\u{7f}\u{1f600}", "o": {}});
        let expected =
            r#"{"weight": 10, "pooled": "yes", "n": null, "l": [1, "a\"b"], "\u00e9": "a\u007f\ud83d\ude00", "o": {}}"#;
        assert_eq!(python_json(&value), expected);
    }
}
