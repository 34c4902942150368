//! A whole site in one value: etcd with conftool's objects, load balancers, and booted hosts that serve a page through
//! them. What a system test needs, in a few lines:
//!
//! ```no_run
//! use testbed::etcd::Driver;
//! use testbed::site::Site;
//!
//! # fn main() -> testbed::Result<()> {
//! let site = Site::builder().driver(Driver::V2).binaries(&["safe-service-restart"]).boot()?;
//! let load = site.load().rate(100).start()?;
//! let run = site.host(0).exec(&["safe-service-restart", "--pools", "appservers", "--services", "php8.2-fpm"])?;
//! assert_eq!(run.code(), Some(0), "{run}");
//! assert_eq!(load.stop()?.lost, 0);
//! # Ok(())
//! # }
//! ```

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::address::Address;
use crate::conftool::{self, CatalogPool, Conftool, Node};
use crate::etcd::{self, Driver, Etcd};
use crate::haproxy::{self, Haproxy};
use crate::host::{self, Host};
use crate::load::{self, Plan};
use crate::pybal::Pybal;
use crate::{prepared, wait};

/// The data centre and the domain of all names.
pub const DC: &str = "eqiad";
/// The cluster of all hosts.
pub const CLUSTER: &str = "appserver";
/// The name of the first pool.
pub const POOL: &str = "appservers";
/// The service of the first pool.
pub const SERVICE: &str = "php";
/// The unit that serves the site's pages, and that is to be restarted.
pub const UNIT: &str = "php8.2-fpm";

/// Where HAProxy's runtime API listens on a load balancer's address, for those who may only look.
const API_PORT: u16 = 9999;

/// How long traffic may take to follow etcd, with a burst of events before it.
const FOLLOW_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
struct PoolPlan {
    name: String,
    service: String,
    port: u16,
}

/// What a PHP-FPM needs to say how it is, behind Debian's own `www.conf`, whose pool it adds to.
pub const POOL_FILE: &str = "/etc/php/8.2/fpm/pool.d/zz-pages.conf";
/// Its content.
pub const PAGES: &str =
    "[www]\npm.status_path = /fpm-status\npm.status_listen = /run/php/status.sock\nping.path = /fpm-ping\n";

type Customise = Box<dyn Fn(host::Builder) -> host::Builder>;

/// What kind of site to boot.
pub struct Builder {
    driver: Driver,
    etcd: etcd::Builder,
    balancers: usize,
    hosts: Vec<String>,
    pools: Vec<PoolPlan>,
    haproxy: bool,
    reopen: Duration,
    binaries: Vec<String>,
    customise: Vec<Customise>,
    beside: Option<(String, Customise)>,
}

impl Builder {
    /// Which interface of etcd everybody uses; v2 by default.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// Another etcd than one plain member.
    #[must_use]
    pub fn etcd(mut self, builder: etcd::Builder) -> Self {
        self.etcd = builder;
        self
    }

    /// How many load balancers, each a stand-in for PyBal with a HAProxy of its own; two by default.
    #[must_use]
    pub fn balancers(mut self, count: usize) -> Self {
        self.balancers = count;
        self
    }

    /// The hosts know the load balancers as HAProxies, and ask these; the stand-in for PyBal is then the glue that has HAProxy
    /// follow etcd.
    #[must_use]
    pub fn haproxy(mut self) -> Self {
        self.haproxy = true;
        self
    }

    /// The hosts; by default mw1.eqiad.test, to be restarted, and mw2.eqiad.test, to take over its traffic.
    #[must_use]
    pub fn hosts(mut self, names: &[&str]) -> Self {
        self.hosts = names.iter().map(ToString::to_string).collect();
        self
    }

    /// One more pool, beside `appservers` on port 80: another service of the same hosts, on another port of the load
    /// balancers.
    #[must_use]
    pub fn pool(mut self, name: &str, service: &str, port: u16) -> Self {
        self.pools.push(PoolPlan { name: name.to_owned(), service: service.to_owned(), port });
        self
    }

    /// How long after an event a load balancer opens its next watch; PyBal's second by default.
    #[must_use]
    pub fn reopen(mut self, pause: Duration) -> Self {
        self.reopen = pause;
        self
    }

    /// Binaries of this workspace to install in /usr/sbin of each host.
    #[must_use]
    pub fn binaries(mut self, names: &[&str]) -> Self {
        self.binaries = names.iter().map(ToString::to_string).collect();
        self
    }

    /// Changes each host before it boots: files, units, binds.
    #[must_use]
    pub fn each_host(mut self, change: impl Fn(host::Builder) -> host::Builder + 'static) -> Self {
        self.customise.push(Box::new(change));
        self
    }

    /// One more host, which is in no pool: where operators work. It knows everybody's name and has conftool's files, and nothing of
    /// what the others are given but what `change` gives it.
    #[must_use]
    pub fn beside(mut self, name: &str, change: impl Fn(host::Builder) -> host::Builder + 'static) -> Self {
        self.beside = Some((name.to_owned(), Box::new(change)));
        self
    }

    /// Boots all of it, and waits until every load balancer serves pages.
    pub fn boot(self) -> Result<Site> {
        let binaries = self.binaries.iter().map(|name| prepared::product_binary(name)).collect::<Result<Vec<_>>>()?;
        let balancers = (1..=self.balancers)
            .map(|number| Ok(Balancer { name: format!("lvs{number}.{DC}.test"), address: Address::reserve()? }))
            .collect::<Result<Vec<_>>>()?;
        let mut builders = self.hosts.iter().map(|name| Host::builder(name)).collect::<Result<Vec<_>>>()?;
        let beside = self.beside.as_ref().map(|(name, _)| Host::builder(name)).transpose()?;
        let etcd = self.etcd.clone().start()?;
        let access = etcd.conftool_access();

        // Who is who, and what each host is told.
        let names: Vec<_> = balancers
            .iter()
            .map(|balancer| (balancer.name.clone(), balancer.address.ip()))
            .chain(builders.iter().chain(&beside).map(|host| (host.name().to_owned(), host.address().ip())))
            .collect();
        let in_catalog = |balancer: &Balancer| match self.haproxy {
            true => format!("{}:{API_PORT}", balancer.name),
            false => balancer.name.clone(),
        };
        let balancer_names: Vec<String> = balancers.iter().map(in_catalog).collect();
        let lb = self.haproxy.then_some("haproxy");
        let catalog: Vec<_> = self.pools.iter().map(|pool| pool.in_catalog(&balancer_names, lb)).collect();
        let files = conftool::host_files(self.driver, &access, DC, &catalog)?;
        let told = |builder: host::Builder| {
            let own = builder.name().to_owned();
            let others = names.iter().filter(|(name, _)| *name != own);
            others.fold(builder, |builder, (name, ip)| builder.knows(name, *ip)).files(files.clone())
        };
        builders = builders
            .into_iter()
            .map(|builder| {
                let builder = binaries.iter().fold(told(builder), |builder, path| builder.binary(path));
                self.customise.iter().fold(builder, |builder, change| change(builder))
            })
            .collect();
        let servers: Vec<_> = builders.iter().map(|host| (host.name().to_owned(), host.address().port(80))).collect();
        if let (Some(builder), Some((_, change))) = (beside, &self.beside) {
            builders.push(change(told(builder)));
        }

        // Booting takes a second, and so does conftool.
        let (mut hosts, conftool) = thread::scope(|scope| {
            let boot = scope.spawn(|| host::boot_all(builders));
            let conftool = self.make_objects(&access);
            let hosts = boot.join().unwrap_or_else(|_| Err(anyhow!("a boot panicked")));
            anyhow::Ok((hosts?, conftool?))
        })?;
        let beside = self.beside.as_ref().and_then(|_| hosts.pop());
        let balancers = balancers
            .into_iter()
            .map(|Balancer { name, address }| {
                let (pybal, haproxy) = self.start_balancer(&address, &servers, &access)?;
                Ok(RunningBalancer { name, address, pybal, haproxy })
            })
            .collect::<Result<Vec<_>>>()?;
        let site = Site { hosts, beside, balancers, conftool, pools: self.pools, etcd };
        site.wait_until_served()?;
        Ok(site)
    }

    fn make_objects(&self, access: &etcd::Access) -> Result<Conftool> {
        let conftool = Conftool::new(self.driver, access)?;
        let nodes: Vec<Node> = self
            .pools
            .iter()
            .flat_map(|pool| self.hosts.iter().map(|host| Node::new(DC, CLUSTER, &pool.service, host)))
            .collect();
        conftool.create(&nodes, "weight=10:pooled=yes")?;
        Ok(conftool)
    }

    fn start_balancer(
        &self,
        address: &Address,
        servers: &[(String, SocketAddr)],
        access: &etcd::Access,
    ) -> Result<(Pybal, Haproxy)> {
        let pools: Vec<_> = self
            .pools
            .iter()
            .map(|pool| haproxy::Pool {
                name: pool.name.clone(),
                listen: address.port(pool.port),
                servers: servers.to_vec(),
            })
            .collect();
        let haproxy = match self.haproxy {
            true => Haproxy::start_with_api(&pools, address.port(API_PORT))?,
            false => Haproxy::start(&pools)?,
        };
        let pybal = Pybal::builder(self.driver).address(address.clone()).reopen(self.reopen).haproxy(haproxy.control());
        let pybal = self.pools.iter().fold(pybal, |pybal, pool| {
            pybal.pool(&pool.name, pool.port, &conftool::folder(DC, CLUSTER, &pool.service))
        });
        Ok((pybal.start(access)?, haproxy))
    }
}

impl PoolPlan {
    fn in_catalog(&self, balancers: &[String], lb: Option<&'static str>) -> CatalogPool {
        CatalogPool {
            name: self.name.clone(),
            cluster: CLUSTER.to_owned(),
            service: self.service.clone(),
            port: self.port,
            balancers: balancers.to_vec(),
            lb,
        }
    }
}

struct Balancer {
    name: String,
    address: Address,
}

#[derive(Debug)]
struct RunningBalancer {
    name: String,
    address: Address,
    pybal: Pybal,
    haproxy: Haproxy,
}

/// A running site; all of it ends with this value.
pub struct Site {
    hosts: Vec<Host>,
    beside: Option<Host>,
    balancers: Vec<RunningBalancer>,
    conftool: Conftool,
    pools: Vec<PoolPlan>,
    etcd: Etcd,
}

impl Site {
    /// One etcd member, two load balancers, two hosts, one pool, unless told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            driver: Driver::V2,
            etcd: Etcd::builder(),
            balancers: 2,
            hosts: vec![format!("mw1.{DC}.test"), format!("mw2.{DC}.test")],
            pools: vec![PoolPlan { name: POOL.to_owned(), service: SERVICE.to_owned(), port: 80 }],
            haproxy: false,
            reopen: Duration::from_secs(1),
            binaries: Vec::new(),
            customise: Vec::new(),
            beside: None,
        }
    }

    /// A host, by its place in the list of names.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// The same, to turn it off and on.
    #[must_use]
    pub fn host_mut(&mut self, index: usize) -> &mut Host {
        &mut self.hosts[index]
    }

    /// All hosts that are in pools.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host that is in no pool.
    pub fn beside(&self) -> Result<&Host> {
        self.beside.as_ref().context("no host was asked for beside those in pools")
    }

    /// The stand-in for PyBal of a load balancer.
    #[must_use]
    pub fn pybal(&self, index: usize) -> &Pybal {
        &self.balancers[index].pybal
    }

    /// All stand-ins.
    pub fn pybals(&self) -> impl Iterator<Item = &Pybal> {
        self.balancers.iter().map(|balancer| &balancer.pybal)
    }

    /// The HAProxy of a load balancer.
    #[must_use]
    pub fn haproxy(&self, index: usize) -> &Haproxy {
        &self.balancers[index].haproxy
    }

    /// The same, to reload it.
    #[must_use]
    pub fn haproxy_mut(&mut self, index: usize) -> &mut Haproxy {
        &mut self.balancers[index].haproxy
    }

    /// The name of a load balancer: `lvs1.eqiad.test`.
    #[must_use]
    pub fn balancer_name(&self, index: usize) -> &str {
        &self.balancers[index].name
    }

    /// conftool, as an operator uses it.
    #[must_use]
    pub fn conftool(&self) -> &Conftool {
        &self.conftool
    }

    /// etcd.
    #[must_use]
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// etcd, to stop and freeze members.
    #[must_use]
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        &mut self.etcd
    }

    /// The object of a host in the first pool.
    #[must_use]
    pub fn node(&self, host: usize) -> Node {
        Node::new(DC, CLUSTER, SERVICE, self.hosts[host].name())
    }

    /// The object of a host in any pool.
    pub fn node_in(&self, pool: &str, host: usize) -> Result<Node> {
        let plan = self.pools.iter().find(|plan| plan.name == pool).with_context(|| format!("no pool '{pool}'"))?;
        Ok(Node::new(DC, CLUSTER, &plan.service, self.hosts[host].name()))
    }

    /// A load on the first pool through all load balancers in turn.
    #[must_use]
    pub fn load(&self) -> Plan {
        Plan::new(self.balancers.iter().map(|balancer| balancer.address.port(self.pools[0].port)).collect())
    }

    /// Waits until every load balancer sends a host traffic, or until none does, in all pools.
    pub fn wait_pooled(&self, host: usize, pooled: bool) -> Result<()> {
        let host = self.hosts[host].name();
        let what = format!("'{host}' to be {}", if pooled { "pooled everywhere" } else { "pooled nowhere" });
        wait::until(&what, FOLLOW_LIMIT, || {
            Ok(self
                .pybals()
                .all(|pybal| self.pools.iter().all(|pool| (pybal.pooled(&pool.name, host) == Some(true)) == pooled)))
        })
    }

    fn wait_until_served(&self) -> Result<()> {
        for balancer in &self.balancers {
            for pool in &self.pools {
                let address = balancer.address.port(pool.port);
                let what = format!("a page of '{}' through '{}'", pool.name, balancer.name);
                wait::until_some(&what, FOLLOW_LIMIT, || {
                    load::fetch(address, "/index.php", Duration::from_secs(5)).map(Some)
                })?;
            }
        }
        Ok(())
    }
}
