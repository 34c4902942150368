//! The catalog of pools, `/etc/conftool/local_services.yaml`, which Puppet writes:
//!
//! ```yaml
//! appservers:
//!   cluster: appserver
//!   service: php
//!   port: 80
//!   servers: [lvs1001.example, "lvs1002.example:9090"]
//!   lb: pybal            # ours; the default. "haproxy"; "none": no load balancer sends to this pool
//!   min_pooled: 50%      # ours; so many hosts, or so large a share, have to stay pooled
//!   ready_url: http://localhost/ready   # ours; has to answer before a host goes back
//! behind-haproxy:
//!   cluster: appserver
//!   service: php
//!   port: 80
//!   servers: ["lb1:9999", /run/haproxy/admin.sock]   # where the runtime API listens
//!   lb: haproxy
//!   backend: appservers  # ours; what HAProxy calls the pool, by default as we do
//!   server: "{short}"    # ours; what it calls a host, by default "{fqdn}"
//! ```
//!
//! Where HAProxy itself keeps the pools (`driver: haproxy`), an entry needs no `cluster`, no `service` and no `lb`, and each of
//! its HAProxies keeps a pool of its own: what one of them knows, the others may have forgotten.
//!
//! Only the pools asked for are looked into: a broken entry of another team must not stop a restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use restart_core::{BackendName, Balancer, NameError, Pool, PoolName, Protocol, ServerPattern, Share, Tag};
use serde_json::{Map, Value};

use crate::endpoint::{Endpoint, Scheme};
use crate::load::{Invalid, LoadError, Read, required};
use crate::yaml::{self, Placed};

/// The pools of a catalog file, by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    file: PathBuf,
    pools: Vec<(String, Placed)>,
    /// HAProxy keeps them, and not etcd.
    in_haproxy: bool,
}

impl Catalog {
    /// Loads `path`. Its entries are not looked into yet. An empty catalog is an error, and so is a missing one
    /// ([`LoadError::Missing`]).
    pub fn load<E>(path: &Path, read: Read<'_, E>) -> Result<Self, LoadError<E>> {
        let pools = yaml::parse_mapping(path, &required(path, read)?, false)?;
        if pools.is_empty() {
            return Err(Invalid::new(path, "the catalog is empty: it has no pools").into());
        }
        Ok(Self { file: path.to_owned(), pools, in_haproxy: false })
    }

    /// The pools that `file` has beside other things, kept in HAProxy.
    pub(crate) fn kept_in_haproxy(file: &Path, pools: Vec<(String, Placed)>) -> Result<Self, Invalid> {
        if pools.is_empty() {
            return Err(Invalid::new(file, "'pools' is empty: it has no pools"));
        }
        Ok(Self { file: file.to_owned(), pools, in_haproxy: true })
    }

    /// The same pools, kept in HAProxy.
    pub(crate) fn in_haproxy(self) -> Self {
        Self { in_haproxy: true, ..self }
    }

    /// The names of all pools, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pools.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>().into_iter()
    }

    /// The pools of these names, in this order, each once; those that HAProxy keeps once for each HAProxy.
    pub fn pools(&self, names: &[PoolName]) -> Result<Vec<Pool>, Invalid> {
        let mut pools: Vec<Pool> = Vec::with_capacity(names.len());
        for name in names {
            if pools.iter().any(|pool| pool.name == *name) {
                continue;
            }
            let Some((_, entry)) = self.pools.iter().find(|(known, _)| known == name.as_str()) else {
                let known: Vec<&str> = self.names().collect();
                let what = format!("there is no pool '{name}'; there are: {}", known.join(", "));
                return Err(Invalid::new(&self.file, what));
            };
            let found = pool(name, &entry.value, self.in_haproxy);
            pools.extend(found.map_err(|what| entry.wrong(&self.file, format!("pool '{name}': {what}")))?);
        }
        Ok(pools)
    }
}

/// Keys read here.
const KNOWN: [&str; 9] =
    ["cluster", "service", "port", "servers", "lb", "backend", "server", "min_pooled", "ready_url"];

/// Reads one entry; the error is what is wrong with it.
fn pool(name: &PoolName, entry: &Value, in_haproxy: bool) -> Result<Vec<Pool>, String> {
    let Value::Object(entry) = entry else {
        return Err("not a mapping".to_owned());
    };
    for key in entry.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        log::debug!("catalog: pool '{name}': the key '{key}' is not known here and left alone");
    }
    let port = match entry.get("port") {
        None => return Err("it has no 'port'".to_owned()),
        Some(port) => (port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0))
            .ok_or("'port' must be a number from 1 to 65535")?,
    };
    let (protocol, balancers) = balancers(name, entry, in_haproxy)?;
    let (min_pooled, ready_url) = (min_pooled(entry)?, ready_url(entry)?);
    let pool = |cluster, service, balancers, part| Pool {
        name: name.clone(),
        cluster,
        service,
        port,
        balancers,
        protocol: protocol.clone(),
        min_pooled,
        ready_url: ready_url.clone(),
        part,
    };
    let backend = match &protocol {
        Protocol::Haproxy { backend, .. } if in_haproxy => backend,
        _ => return Ok(vec![pool(tag(entry, "cluster")?, tag(entry, "service")?, balancers, None)]),
    };
    let service = Tag::new(backend.as_str()).map_err(|error| format!("'backend': {error}"))?;
    let several = balancers.len() > 1;
    let part = |balancer: Balancer| {
        let part = several.then(|| balancer.clone());
        Ok(pool(address_tag(&balancer)?, service.clone(), vec![balancer], part))
    };
    balancers.into_iter().map(part).collect()
}

/// The address of a HAProxy as one level of a path, never the same for two: `lb1:9999`, `::1:9999`, `+run+haproxy+admin.sock`.
fn address_tag(balancer: &Balancer) -> Result<Tag, String> {
    const SLASH: &str = "+";

    let wrong = || format!("'{balancer}' in 'servers' has a character that cannot be part of a pool's place");
    let Balancer { host, port } = balancer;
    if host.contains(SLASH) {
        return Err(wrong());
    }
    let text = port.map_or_else(|| host.replace('/', SLASH), |port| format!("{host}:{port}"));
    Tag::new(text).map_err(|_| wrong())
}

fn ready_url(entry: &Map<String, Value>) -> Result<Option<String>, String> {
    match entry.get("ready_url") {
        None => Ok(None),
        Some(Value::String(url)) if is_url(url) => Ok(Some(url.clone())),
        Some(_) => Err("'ready_url' must be an address such as 'http://localhost/ready'".to_owned()),
    }
}

/// Whether it is an address to ask by HTTP, with a host in it, and without what could hide another one.
fn is_url(text: &str) -> bool {
    let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    !host.is_empty() && !host.contains('@') && text.chars().all(|c| c.is_ascii_graphic())
}

fn min_pooled(entry: &Map<String, Value>) -> Result<Option<Share>, String> {
    let text = match entry.get("min_pooled") {
        None => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err("'min_pooled' must be a number of hosts such as 3, or a share such as 30%".to_owned()),
    };
    text.parse().map(Some).map_err(|why| format!("'min_pooled': '{text}' is {why}"))
}

fn tag(entry: &Map<String, Value>, key: &str) -> Result<Tag, String> {
    match entry.get(key) {
        None => Err(format!("it has no '{key}'")),
        Some(Value::String(text)) => Tag::new(text.as_str()).map_err(|error: NameError| format!("'{key}': {error}")),
        Some(_) => Err(format!("'{key}' must be a string")),
    }
}

/// The technology of a pool's load balancers: the key `lb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PyBal,
    Haproxy,
    /// No load balancer sends to this pool.
    None,
}

impl Kind {
    const ALL: [Self; 3] = [Self::PyBal, Self::Haproxy, Self::None];

    /// Its name in the catalog.
    fn name(self) -> &'static str {
        match self {
            Self::PyBal => "pybal",
            Self::Haproxy => "haproxy",
            Self::None => "none",
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(|kind| format!("'{}'", kind.name())).join(", ");
            format!("'lb' is '{name}'; known are {known}")
        })
    }
}

/// Who sends to the pool, and what they speak.
fn balancers(
    name: &PoolName,
    entry: &Map<String, Value>,
    in_haproxy: bool,
) -> Result<(Protocol, Vec<Balancer>), String> {
    let kind = match entry.get("lb") {
        None if in_haproxy => Kind::Haproxy,
        None => Kind::PyBal,
        Some(Value::String(kind)) => Kind::named(kind)?,
        Some(_) => return Err("'lb' must be a string".to_owned()),
    };
    if in_haproxy && kind != Kind::Haproxy {
        let kind = kind.name();
        return Err(format!("'lb' is '{kind}'; a pool that HAProxy keeps can have no other load balancer"));
    }
    let protocol = match kind {
        Kind::Haproxy => haproxy(name, entry)?,
        // Where there is none, nobody is asked.
        Kind::PyBal | Kind::None => Protocol::PyBal,
    };
    let read = |server| match protocol {
        Protocol::PyBal => balancer(server),
        Protocol::Haproxy { .. } => runtime_api(server),
    };
    let servers = match entry.get("servers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(servers)) => servers.iter().map(read).collect::<Result<_, _>>()?,
        Some(_) => return Err("'servers' must be a list of load balancers".to_owned()),
    };
    if let Some(twice) = servers.iter().enumerate().find(|(place, server)| servers[..*place].contains(server)) {
        // It would count as two of a quorum.
        return Err(format!("'{}' is named twice in 'servers'", twice.1));
    }
    match (kind, servers.is_empty()) {
        (Kind::PyBal | Kind::Haproxy, false) | (Kind::None, true) => Ok((protocol, servers)),
        (Kind::PyBal | Kind::Haproxy, true) => Err(match in_haproxy {
            true => "it has no 'servers': where HAProxy's runtime API is, such as '/run/haproxy/admin.sock'",
            false => "it has no 'servers'; a pool without load balancers says 'lb: none'",
        }
        .to_owned()),
        (Kind::None, false) => Err("it says 'lb: none', and names load balancers in 'servers'".to_owned()),
    }
}

/// What HAProxy calls the pool and this host.
fn haproxy(name: &PoolName, entry: &Map<String, Value>) -> Result<Protocol, String> {
    let backend = match entry.get("backend") {
        None => BackendName::new(name.as_str()).map_err(|error| format!("it needs a 'backend': {error}"))?,
        Some(Value::String(backend)) => {
            BackendName::new(backend.as_str()).map_err(|error| format!("'backend': {error}"))?
        }
        Some(_) => return Err("'backend' must be a string".to_owned()),
    };
    let server = match entry.get("server") {
        None => ServerPattern::default(),
        Some(Value::String(server)) => {
            ServerPattern::new(server.as_str()).map_err(|error| format!("'server': {error}"))?
        }
        Some(_) => return Err("'server' must be a string".to_owned()),
    };
    Ok(Protocol::Haproxy { backend, server })
}

/// Where HAProxy's runtime API listens, which is no port of its own: `name:port`, `[IPv6]:port`, or the path of a socket.
fn runtime_api(value: &Value) -> Result<Balancer, String> {
    /// What fits into the kernel's address of a socket with the zero behind it (`unix(7)`: 108 bytes).
    const LONGEST_PATH: usize = 107;

    match value {
        Value::String(path) if path.starts_with('/') => {
            if path.len() > LONGEST_PATH || path.ends_with('/') || path.chars().any(char::is_control) {
                return Err(format!("'{}' in 'servers' is not the path of a socket", path.escape_debug()));
            }
            Ok(Balancer { host: path.clone(), port: None })
        }
        value => match balancer(value)? {
            Balancer { host, port: None } => Err(format!(
                "'{host}' in 'servers' has no port: HAProxy's runtime API is at 'HOST:PORT', or a socket such as \
                 '/run/haproxy/admin.sock'"
            )),
            balancer => Ok(balancer),
        },
    }
}

/// `name`, `name:port`, `[IPv6]:port`.
fn balancer(value: &Value) -> Result<Balancer, String> {
    const ANY_PORT: u16 = 1;

    let Value::String(text) = value else {
        return Err("an entry of 'servers' is not a string".to_owned());
    };
    let wrong = || format!("'{text}' in 'servers' is not a host, with or without ':PORT'");
    if text.contains('/') {
        return Err(wrong());
    }
    // Checked as the address of a member of etcd is; the scheme and the default port are of no meaning here.
    Endpoint::parse(text, Scheme::Http, ANY_PORT).map_err(|_| wrong())?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            (host, rest.strip_prefix(':'))
        }
        None if text.matches(':').count() == 1 => {
            let (host, port) = text.split_once(':').ok_or_else(wrong)?;
            (host, Some(port))
        }
        None => (text.as_str(), None),
    };
    let port = match port {
        Some(port) => Some(port.parse().map_err(|_| wrong())?),
        None => None,
    };
    let host = host.to_owned();
    Ok(Balancer { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Catalog, LoadError<String>> {
        Catalog::load(Path::new("/c.yaml"), &|_| Ok(Some(text.to_owned())))
    }

    fn pools(text: &str, names: &[&str]) -> Result<Vec<Pool>, String> {
        let names: Vec<PoolName> = names.iter().map(|name| PoolName::new(*name).unwrap()).collect();
        load(text).map_err(|error| error.to_string())?.pools(&names).map_err(|error| error.to_string())
    }

    const PUPPETS: &str = "
appservers:
  cluster: appserver
  service: php
  port: 80
  servers: [lvs1001.example, 'lvs1002.example:9091', '[2001:db8::1]:9090', '2001:db8::2', 192.0.2.1]
appservers-https: {cluster: appserver, service: nginx, port: 443, servers: [lvs1001.example], ready_url: 'https://localhost/x', team: a,
  min_pooled: 75%}
alone: {cluster: lab, service: php, port: 80, lb: none, min_pooled: 0}
broken: {cluster: 5, servers: nothing}
also-broken: 7
";

    #[test]
    fn pools_come_as_asked_for_and_once() {
        let found = pools(PUPPETS, &["appservers-https", "appservers", "alone", "appservers"]).unwrap();
        let names: Vec<&str> = found.iter().map(|pool| pool.name.as_str()).collect();
        assert_eq!(names, ["appservers-https", "appservers", "alone"]);
        assert_eq!((found[0].port, found[0].service.as_str(), found[0].cluster.as_str()), (443, "nginx", "appserver"));
        let balancers: Vec<String> = found[1].balancers.iter().map(ToString::to_string).collect();
        assert_eq!(
            balancers,
            ["lvs1001.example", "lvs1002.example:9091", "[2001:db8::1]:9090", "2001:db8::2", "192.0.2.1"]
        );
        assert!(found[2].balancers.is_empty());
        let urls: Vec<_> = found.iter().map(|pool| pool.ready_url.as_deref()).collect();
        assert_eq!(urls, [Some("https://localhost/x"), None, None]);
        let min_pooled: Vec<_> = found.iter().map(|pool| pool.min_pooled).collect();
        assert_eq!(min_pooled, [Some(Share::Percent(75)), None, Some(Share::Count(0))]);
    }

    #[test]
    fn a_pool_can_have_a_floor_of_its_own() {
        for (line, wanted) in [
            ("", None),
            (", min_pooled: 3", Some(Share::Count(3))),
            (", min_pooled: '3'", Some(Share::Count(3))),
            (", min_pooled: 60%", Some(Share::Percent(60))),
        ] {
            let text = format!("a: {{cluster: c, service: s, port: 80, servers: [l]{line}}}\n");
            assert_eq!(pools(&text, &["a"]).unwrap()[0].min_pooled, wanted, "{line}");
        }
    }

    #[test]
    fn a_pool_behind_haproxy_says_where_its_runtime_api_is_and_what_it_calls_a_host() {
        const TEXT: &str = "
plain: {cluster: c, service: s, port: 80, lb: haproxy, servers: ['lb1:9999', '[::1]:9999', /run/haproxy/admin.sock]}
named: {cluster: c, service: s, port: 80, lb: haproxy, servers: [/a], backend: be_php, server: 'web-{short}'}
plus+: {cluster: c, service: s, port: 80, lb: haproxy, servers: [/a]}
pybal: {cluster: c, service: s, port: 80, servers: [l], backend: somebody's}
";
        let found = pools(TEXT, &["plain", "named", "pybal"]).unwrap();
        let balancers: Vec<String> = found[0].balancers.iter().map(ToString::to_string).collect();
        assert_eq!(balancers, ["lb1:9999", "[::1]:9999", "/run/haproxy/admin.sock"]);
        let haproxy = |backend: &str, server: &str| Protocol::Haproxy {
            backend: BackendName::new(backend).unwrap(),
            server: ServerPattern::new(server).unwrap(),
        };
        let protocols: Vec<Protocol> = found.iter().map(|pool| pool.protocol.clone()).collect();
        assert_eq!(protocols, [haproxy("plain", "{fqdn}"), haproxy("be_php", "web-{short}"), Protocol::PyBal]);
        // HAProxy could not have a backend of this name.
        assert!(pools(TEXT, &["plus+"]).unwrap_err().contains("it needs a 'backend': 'plus+' is not"));
    }

    #[test]
    fn each_haproxy_that_keeps_a_pool_is_a_place_of_its_own() {
        const TEXT: &str = "
web: {port: 80, servers: ['lb1:9999', '[::1]:9999', /run/haproxy/admin.sock], backend: be_web, min_pooled: 1}
alone: {port: 80, servers: ['lb1:9999'], lb: haproxy, cluster: c, service: s}
";
        let catalog = load(TEXT).unwrap().in_haproxy();
        let names = ["web", "alone"].map(|name| PoolName::new(name).unwrap());
        let pools = catalog.pools(&names).unwrap();
        let dc = Tag::new("haproxy").unwrap();
        let seen: Vec<_> = pools.iter().map(|pool| (pool.to_string(), pool.path(&dc).to_string())).collect();
        let wanted = [
            ("'web' at 'lb1:9999'", "haproxy/lb1:9999/be_web"),
            ("'web' at '[::1]:9999'", "haproxy/::1:9999/be_web"),
            ("'web' at '/run/haproxy/admin.sock'", "haproxy/+run+haproxy+admin.sock/be_web"),
            ("'alone'", "haproxy/lb1:9999/alone"),
        ];
        assert_eq!(seen, wanted.map(|(name, path)| (name.to_owned(), path.to_owned())));
        assert!(pools.iter().all(|pool| pool.balancers.len() == 1));
        assert_eq!(pools[2].min_pooled, Some(Share::Count(1)));
    }

    #[test]
    fn a_pool_that_haproxy_keeps_has_to_say_where() {
        for (entry, wanted) in [
            ("{servers: [/a]}", "it has no 'port'"),
            ("{port: 80}", "it has no 'servers': where HAProxy's runtime API is"),
            ("{port: 80, lb: none}", "'lb' is 'none'; a pool that HAProxy keeps"),
            ("{port: 80, lb: pybal, servers: [l]}", "'lb' is 'pybal'; a pool that HAProxy keeps"),
            ("{port: 80, servers: [lb1]}", "'lb1' in 'servers' has no port"),
            ("{port: 80, servers: ['/run/a+b']}", "'/run/a+b' in 'servers' has a character"),
            ("{port: 80, servers: ['/run/a b']}", "'/run/a b' in 'servers' has a character"),
            ("{port: 80, servers: [/a], backend: .x}", "'backend': '.x' is not a conftool tag"),
        ] {
            let catalog = load(&format!("web: {entry}\n")).unwrap().in_haproxy();
            let error = catalog.pools(&[PoolName::new("web").unwrap()]).unwrap_err().to_string();
            assert!(error.starts_with("'/c.yaml' line 1, column 6: pool 'web': ") && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_pool_that_is_not_there_is_named_with_those_that_are() {
        assert_eq!(
            pools(PUPPETS, &["appserver"]).unwrap_err(),
            "'/c.yaml': there is no pool 'appserver'; there are: alone, also-broken, appservers, appservers-https, broken"
        );
    }

    #[test]
    fn only_an_entry_that_is_asked_for_has_to_be_right() {
        for (entry, wanted) in [
            ("7", "not a mapping"),
            ("{service: s, port: 80, servers: [l]}", "it has no 'cluster'"),
            ("{cluster: c, port: 80, servers: [l]}", "it has no 'service'"),
            ("{cluster: c, service: s, servers: [l]}", "it has no 'port'"),
            ("{cluster: c, service: s, port: 0, servers: [l]}", "'port' must be a number"),
            ("{cluster: c, service: s, port: '80', servers: [l]}", "'port' must be a number"),
            ("{cluster: c, service: s, port: 80, servers: [l], ready_url: /x}", "'ready_url' must be an address"),
            ("{cluster: c, service: s, port: 80, servers: [l], ready_url: 7}", "'ready_url' must be an address"),
            ("{cluster: c, service: s, port: 80, servers: [l], ready_url: 'http://a@b/'}", "'ready_url' must be"),
            ("{cluster: c, service: s, port: 80, servers: [l], ready_url: 'http:///x'}", "'ready_url' must be"),
            ("{cluster: a/b, service: s, port: 80, servers: [l]}", "'cluster': 'a/b' is not a conftool tag"),
            ("{cluster: c, service: '.*', port: 80, servers: [l]}", "'service'"),
            (
                "{cluster: c, service: s, port: 80}",
                "it has no 'servers'; a pool without load balancers says 'lb: none'",
            ),
            ("{cluster: c, service: s, port: 80, servers: []}", "it has no 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: l}", "'servers' must be a list"),
            ("{cluster: c, service: s, port: 80, servers: [5]}", "not a string"),
            ("{cluster: c, service: s, port: 80, servers: ['http://l']}", "'http://l' in 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: ['l:x']}", "'l:x' in 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: ['l:0']}", "'l:0' in 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: ['']}", "'' in 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: ['[::1']}", "'[::1' in 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: ['a:b:c']}", "'a:b:c' in 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: [l], lb: none}", "it says 'lb: none', and names"),
            ("{cluster: c, service: s, port: 80, servers: [l], lb: magic}", "'lb' is 'magic'"),
            ("{cluster: c, service: s, port: 80, servers: [l], lb: [haproxy]}", "'lb' must be a string"),
            ("{cluster: c, service: s, port: 80, servers: [/run/x]}", "'/run/x' in 'servers' is not a host"),
            ("{cluster: c, service: s, port: 80, lb: haproxy}", "it has no 'servers'"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [l]}", "'l' in 'servers' has no port"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: ['::1']}", "'::1' in 'servers' has no port"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [run/x]}", "'run/x' in 'servers' is not a"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [/run/]}", "'/run/' in 'servers' is not the"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [/x, /x]}", "'/x' is named twice"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [/x], backend: 'a b'}", "'backend': 'a b' is"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [/x], backend: 7}", "'backend' must be a"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [/x], server: '{host}'}", "'server': '{host}'"),
            ("{cluster: c, service: s, port: 80, lb: haproxy, servers: [/x], server: [a]}", "'server' must be a"),
            ("{cluster: c, service: s, port: 80, servers: [l], min_pooled: 101%}", "'min_pooled': '101%' is not"),
            ("{cluster: c, service: s, port: 80, servers: [l], min_pooled: [1]}", "'min_pooled' must be"),
            ("{cluster: c, service: s, port: 80, servers: [l, m, l]}", "'l' is named twice in 'servers'"),
            ("{cluster: c, service: s, port: 80, servers: [l], min_pooled: half}", "'min_pooled': 'half' is not"),
            ("{cluster: c, service: s, port: 80, servers: [l], min_pooled: -1}", "'min_pooled': '-1' is not"),
        ] {
            let good = "good: {cluster: c, service: s, port: 80, servers: [l]}";
            let text = format!("{good}\nbad: {entry}\n");
            assert!(pools(&text, &["good"]).is_ok(), "{entry}");
            let error = pools(&text, &["good", "bad"]).unwrap_err();
            assert!(
                error.starts_with("'/c.yaml' line 2, column 6: pool 'bad': ") && error.contains(wanted),
                "{entry}: {error}"
            );
        }
    }

    #[test]
    fn an_empty_catalog_says_so() {
        for text in ["", "{}", "---\n"] {
            assert_eq!(load(text).unwrap_err().to_string(), "'/c.yaml': the catalog is empty: it has no pools");
        }
    }

    #[test]
    fn damage_of_the_file_as_a_whole_is_an_error() {
        for text in ["a: {}\na: {}\n", "- a\n", "a: [\n"] {
            assert!(load(text).unwrap_err().to_string().starts_with("'/c.yaml' line "), "{text}");
        }
    }

    #[test]
    fn a_missing_file_and_a_refusing_reader_are_told_apart() {
        let path = Path::new("/c.yaml");
        assert!(matches!(Catalog::load::<String>(path, &|_| Ok(None)), Err(LoadError::Missing(at)) if at == path));
        let refused = Catalog::load(path, &|_| Err("others can write it"));
        assert!(matches!(refused, Err(LoadError::Read("others can write it"))));
    }
}
