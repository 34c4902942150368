//! A small site: booted web servers behind HAProxies that keep the pool themselves. No etcd, no conftool; one file on each host says
//! all that there is to know.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::address::Address;
use crate::haproxy::{DEFAULTS, Haproxy, Server};
use crate::host::{self, Host};
use crate::load::{self, Plan};
use crate::relay::Relay;
use crate::{prepared, wait};

/// The pool, and HAProxy's backend.
pub const POOL: &str = "web";
/// The one file.
pub const FILE: &str = "/etc/conftool/config.yaml";
/// The weight of each server in HAProxy's configuration.
pub const WEIGHT: u32 = 10;

/// Where the runtime API listens on a HAProxy's address.
const API_PORT: u16 = 9999;
/// Where a relay listens on the same address.
const RELAY_PORT: u16 = 9998;
/// The level that takes orders.
const ADMIN: &str = "admin";
const SERVED_LIMIT: Duration = Duration::from_secs(30);

/// A HAProxy, with all that its configuration is made of.
struct Proxy {
    address: Address,
    servers: Vec<(String, SocketAddr)>,
    level: &'static str,
    down: bool,
    haproxy: Haproxy,
}

/// A running shop; all of it ends with this value.
pub struct Shop {
    hosts: Vec<Host>,
    proxies: Vec<Proxy>,
}

impl Shop {
    /// Boots so many web servers behind so many HAProxies, with these binaries, and changes each host before it boots.
    pub fn boot(
        hosts: usize,
        proxies: usize,
        binaries: &[&str],
        change: impl Fn(host::Builder) -> host::Builder,
    ) -> Result<Self> {
        let binaries = binaries.iter().map(|name| prepared::product_binary(name)).collect::<Result<Vec<_>>>()?;
        let addresses = (0..proxies).map(|_| Address::reserve()).collect::<Result<Vec<_>>>()?;
        let builders = (1..=hosts).map(|number| Host::builder(&format!("web{number}.shop.test")));
        let builders = builders.collect::<Result<Vec<_>>>()?;
        let servers: Vec<_> = builders.iter().map(|host| (host.name().to_owned(), host.address().port(80))).collect();
        let apis: Vec<_> = addresses.iter().map(|address| address.port(API_PORT)).collect();
        let file = file(&apis);
        let builders = builders.into_iter().map(|host| {
            let host = binaries.iter().fold(host.file(FILE, &file), |host, path| host.binary(path));
            change(host)
        });
        let hosts = host::boot_all(builders.collect())?;
        let proxies = addresses.into_iter().map(|address| Proxy::start(address, servers.clone()));
        let shop = Self { hosts, proxies: proxies.collect::<Result<_>>()? };
        shop.wait_until_served()?;
        Ok(shop)
    }

    /// A host.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// The same, to turn it off and on.
    pub fn host_mut(&mut self, index: usize) -> &mut Host {
        &mut self.hosts[index]
    }

    /// The HAProxy at this place.
    #[must_use]
    pub fn haproxy(&self, index: usize) -> &Haproxy {
        &self.proxies[index].haproxy
    }

    /// The same, to reload, stop or kill it.
    pub fn haproxy_mut(&mut self, index: usize) -> &mut Haproxy {
        &mut self.proxies[index].haproxy
    }

    /// Where its runtime API is, as the file has it.
    #[must_use]
    pub fn api(&self, proxy: usize) -> SocketAddr {
        self.proxies[proxy].address.port(API_PORT)
    }

    /// Starts a relay in front of that.
    pub fn relay(&self, proxy: usize) -> Result<Relay> {
        Relay::start(self.proxies[proxy].address.port(RELAY_PORT), self.api(proxy))
    }

    /// Has a host ask and tell at these addresses from now on.
    pub fn ask_at(&self, host: usize, apis: &[SocketAddr]) -> Result<()> {
        self.hosts[host].write(FILE, &file(apis))
    }

    /// Reloads a HAProxy so that whoever comes over TCP has this level: `admin`, `operator`, `user`. State is forgotten.
    pub fn level(&mut self, proxy: usize, level: &'static str) -> Result<()> {
        let proxy = &mut self.proxies[proxy];
        proxy.level = level;
        proxy.configure()
    }

    /// Reloads a HAProxy so that it checks the health of the first host, at a port where nobody listens. State is forgotten.
    pub fn down(&mut self, proxy: usize) -> Result<()> {
        self.proxies[proxy].down = true;
        self.proxies[proxy].configure()?;
        wait::until("the health check to fail", SERVED_LIMIT, || Ok(self.server(proxy, 0)?.status == "DOWN"))
    }

    /// Takes back what [`level`](Self::level) and [`down`](Self::down) did; nothing is forgotten where there is nothing to do.
    pub fn mend(&mut self, proxy: usize) -> Result<()> {
        let proxy = &mut self.proxies[proxy];
        if proxy.level == ADMIN && !proxy.down {
            return Ok(());
        }
        (proxy.level, proxy.down) = (ADMIN, false);
        proxy.configure()
    }

    /// Starts another HAProxy in the place of one that was killed.
    pub fn start_again(&mut self, proxy: usize) -> Result<()> {
        let proxy = &mut self.proxies[proxy];
        proxy.haproxy.kill()?;
        proxy.haproxy = Haproxy::start_with(&proxy.sections())?;
        Ok(())
    }

    /// What a HAProxy has to say of a host.
    pub fn server(&self, proxy: usize, host: usize) -> Result<Server> {
        self.haproxy(proxy).server(POOL, self.hosts[host].name())
    }

    /// Orders a state for a host, or a weight, as an operator: `state drain`, `weight 7`.
    pub fn order(&self, proxy: usize, host: usize, words: &str) -> Result<()> {
        let order = format!("set server {POOL}/{} {words}", self.hosts[host].name());
        let answer = self.haproxy(proxy).control().command(&order)?;
        ensure!(answer.trim().is_empty(), "haproxy refuses '{order}': {}", answer.trim());
        Ok(())
    }

    /// A host's weight at a HAProxy.
    pub fn weight(&self, proxy: usize, host: usize) -> Result<u32> {
        let answer =
            self.haproxy(proxy).control().command(&format!("get weight {POOL}/{}", self.hosts[host].name()))?;
        let weight = answer.split(' ').next().and_then(|word| word.parse().ok());
        weight.with_context(|| format!("haproxy says '{answer}' of a weight"))
    }

    /// A load through all HAProxies in turn.
    #[must_use]
    pub fn load(&self) -> Plan {
        Plan::new(self.proxies.iter().map(|proxy| proxy.address.port(80)).collect())
    }

    fn wait_until_served(&self) -> Result<()> {
        let through = self.proxies.iter().map(|proxy| proxy.address.port(80));
        for address in through.chain(self.hosts.iter().map(Host::web)) {
            wait::until_some(&format!("a page from '{address}'"), SERVED_LIMIT, || {
                load::fetch(address, "/index.php", Duration::from_secs(5)).map(Some)
            })?;
        }
        Ok(())
    }
}

impl Proxy {
    fn start(address: Address, servers: Vec<(String, SocketAddr)>) -> Result<Self> {
        let (level, down) = (ADMIN, false);
        let haproxy = Haproxy::start_with(&sections(&address, &servers, level, down))?;
        Ok(Self { address, servers, level, down, haproxy })
    }

    fn sections(&self) -> String {
        sections(&self.address, &self.servers, self.level, self.down)
    }

    fn configure(&mut self) -> Result<()> {
        let sections = self.sections();
        self.haproxy.configure(&sections)
    }
}

/// The one file, for HAProxies with their runtime API at these addresses.
fn file(apis: &[SocketAddr]) -> String {
    let apis: Vec<_> = apis.iter().map(|api| format!("\"{api}\"")).collect();
    format!("driver: haproxy\npools:\n  {POOL}: {{port: 80, servers: [{}]}}\n", apis.join(", "))
}

/// Everything below the beginning of `global`.
fn sections(address: &Address, servers: &[(String, SocketAddr)], level: &str, down: bool) -> String {
    let mut text = format!(
        "  stats socket ipv4@{} level {level}\n\
         {DEFAULTS}\
         frontend {POOL}\n  bind {}\n  default_backend {POOL}\n\
         backend {POOL}\n  balance roundrobin\n",
        address.port(API_PORT),
        address.port(80),
    );
    for (place, (name, server)) in servers.iter().enumerate() {
        let check = if down && place == 0 { " check port 2 inter 100ms fall 1" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  server {name} {server} weight {WEIGHT}{check}");
    }
    text
}
