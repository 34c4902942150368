//! A real etcd 3.4: one member or a cluster of three, with both of its interfaces (the v2 HTTP API that conftool and
//! PyBal speak, and v3), with TLS and passwords when asked, and with members that can be stopped, frozen and started again.

pub mod v2;
pub mod v3;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::address::Address;
use crate::certificates::{Authority, Identity};
use crate::process::Daemon;
use crate::scratch;

/// The port on which etcd serves clients.
pub const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// A member is ready in half a second on a quiet machine; an election on a busy one takes a few seconds.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A member told to stop hands over leadership first.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Which of etcd's two interfaces, each with a key space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The v2 HTTP API, conftool's `driver: etcd`.
    V2,
    /// The v3 gRPC API, this project's `driver: etcd3`.
    V3,
}

impl Driver {
    /// The name in conftool's config.yaml.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => "etcd",
            Self::V3 => "etcd3",
        }
    }
}

/// Whether members speak TLS to their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// The server shows a certificate of the test's own authority.
    Server,
    /// Clients must show one as well.
    Mutual,
}

/// A user of a cluster with passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// May do everything.
fn root() -> User {
    User { name: "root".to_owned(), password: "rootsecret".to_owned() }
}

/// May read and write below /conftool, and nothing else.
fn conftool() -> User {
    User { name: "conftool".to_owned(), password: "conftoolsecret".to_owned() }
}

/// What a client must know to get in.
#[derive(Clone, Debug)]
pub struct Access {
    /// `http://ADDRESS:PORT` or `https://...`, one for each member.
    pub endpoints: Vec<String>,
    /// The authority to trust, with TLS.
    pub authority: Option<PathBuf>,
    /// The client's own certificate, where members want one.
    pub identity: Option<Identity>,
    /// Name and password, where etcd wants them.
    pub user: Option<User>,
}

/// A value with the revision of its last change (v2: `modifiedIndex`, v3: `mod_revision`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The full key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The revision of the last change.
    pub revision: u64,
}

/// One change that a watch saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The full key.
    pub key: String,
    /// The new value; none when the key was deleted.
    pub value: Option<String>,
}

/// How a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The first thing that happened, and the revision to watch from to miss nothing after it.
    Changed {
        /// One change; several only when one v3 transaction made them.
        changes: Vec<Change>,
        /// Where the next watch begins.
        next: u64,
    },
    /// The one who waited was told to stop.
    Stopped,
    /// etcd no longer has the history asked for.
    Outdated,
}

/// A client of either interface, for tests that do the same with both.
pub enum Store {
    /// Speaks v2.
    V2(v2::Client),
    /// Speaks v3.
    V3(Box<v3::Client>),
}

impl Store {
    /// A client with this access.
    pub fn new(driver: Driver, access: &Access) -> Result<Self> {
        Ok(match driver {
            Driver::V2 => Self::V2(v2::Client::new(access)?),
            Driver::V3 => Self::V3(Box::new(v3::Client::new(access)?)),
        })
    }

    /// The value of a key and its revision.
    pub fn get(&self, key: &str) -> Result<Option<Entry>> {
        match self {
            Self::V2(client) => client.get(key),
            Self::V3(client) => client.get(key),
        }
    }

    /// Everything below a folder, and the revision of the store when it was read.
    pub fn list(&self, folder: &str) -> Result<(Vec<Entry>, u64)> {
        match self {
            Self::V2(client) => client.list(folder),
            Self::V3(client) => client.list(folder),
        }
    }

    /// Writes a value, whatever was there.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        match self {
            Self::V2(client) => client.put(key, value),
            Self::V3(client) => client.put(key, value),
        }
    }

    /// Deletes a key, which must exist.
    pub fn delete(&self, key: &str) -> Result<()> {
        match self {
            Self::V2(client) => client.delete(key),
            Self::V3(client) => client.delete(key),
        }
    }

    /// Waits below a folder for the first change at or after the revision `from`, until `stop` says true.
    pub fn watch(&self, folder: &str, from: u64, stop: &dyn Fn() -> bool) -> Result<Watched> {
        match self {
            Self::V2(client) => client.watch(folder, from, stop),
            Self::V3(client) => client.watch(folder, from, stop),
        }
    }
}

/// What kind of etcd to start.
#[derive(Clone, Debug)]
pub struct Builder {
    members: usize,
    tls: Tls,
    passwords: bool,
    names: Vec<String>,
}

impl Builder {
    /// How many members; one by default, three to have a quorum to lose.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// TLS towards clients; off by default.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Passwords on both interfaces: `root` may do everything, `conftool` may use /conftool, nobody else anything.
    #[must_use]
    pub fn passwords(mut self) -> Self {
        self.passwords = true;
        self
    }

    /// Names that the servers' certificate is valid for, beside their addresses.
    #[must_use]
    pub fn names(mut self, names: &[&str]) -> Self {
        self.names = names.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts it and waits until every member serves.
    pub fn start(self) -> Result<Etcd> {
        let addresses = (0..self.members).map(|_| Address::reserve()).collect::<Result<Vec<_>>>()?;
        let certificates = match self.tls {
            Tls::Off => None,
            Tls::Server | Tls::Mutual => Some(Certificates::issue(&self, &addresses)?),
        };
        // etcd syncs every write, which costs more than all else in a test; in memory it costs nothing.
        let data = scratch::folder_in_memory("etcd")?;
        let scheme = if self.tls == Tls::Off { "http" } else { "https" };
        let cluster: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(index, address)| format!("member{index}=http://{}", address.port(PEER_PORT)))
            .collect();
        let members = addresses
            .into_iter()
            .enumerate()
            .map(|(index, address)| {
                let client = format!("{scheme}://{}", address.port(CLIENT_PORT));
                let peer = format!("http://{}", address.port(PEER_PORT));
                let mut arguments: Vec<String> = vec![
                    format!("--name=member{index}"),
                    format!("--data-dir={}", data.path().join(format!("member{index}")).display()),
                    "--enable-v2".to_owned(),
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={peer}"),
                    format!("--initial-advertise-peer-urls={peer}"),
                    format!("--initial-cluster={}", cluster.join(",")),
                ];
                if let Some(certificates) = &certificates {
                    arguments.push(format!("--cert-file={}", certificates.server.certificate.display()));
                    arguments.push(format!("--key-file={}", certificates.server.key.display()));
                    if self.tls == Tls::Mutual {
                        arguments.push(format!("--trusted-ca-file={}", certificates.authority.certificate().display()));
                        arguments.push("--client-cert-auth".to_owned());
                    }
                }
                Member { address, arguments, daemon: None }
            })
            .collect();

        let mut etcd = Etcd { members, scheme, mutual: self.tls == Tls::Mutual, passwords: false, certificates, data };
        for index in 0..etcd.members.len() {
            etcd.launch(index)?;
        }
        for index in 0..etcd.members.len() {
            etcd.wait_healthy(index)?;
        }
        if self.passwords {
            let access = etcd.access();
            v2::Client::new(&access)?.enable_passwords(&root(), &conftool())?;
            v3::Client::new(&access)?.enable_passwords(&root(), &conftool())?;
            etcd.passwords = true;
        }
        Ok(etcd)
    }
}

#[derive(Debug)]
struct Certificates {
    authority: Authority,
    server: Identity,
    client: Identity,
}

impl Certificates {
    fn issue(wanted: &Builder, addresses: &[Address]) -> Result<Self> {
        let authority = Authority::new()?;
        let ips: Vec<_> = addresses.iter().map(Address::ip).collect();
        let names: Vec<&str> = wanted.names.iter().map(String::as_str).collect();
        let server = authority.server("etcd", &ips, &names)?;
        let client = authority.client("testbed")?;
        Ok(Self { authority, server, client })
    }
}

#[derive(Debug)]
struct Member {
    address: Address,
    arguments: Vec<String>,
    /// None while it is stopped.
    daemon: Option<Daemon>,
}

/// A running etcd; ends with this value.
#[derive(Debug)]
pub struct Etcd {
    // Before `data`, so that members end before their data goes.
    members: Vec<Member>,
    scheme: &'static str,
    mutual: bool,
    passwords: bool,
    certificates: Option<Certificates>,
    data: TempDir,
}

impl Etcd {
    /// One plain member, unless told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder { members: 1, tls: Tls::Off, passwords: false, names: Vec::new() }
    }

    /// One plain member.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// The address of each member; clients are served on [`CLIENT_PORT`].
    #[must_use]
    pub fn addresses(&self) -> Vec<&Address> {
        self.members.iter().map(|member| &member.address).collect()
    }

    /// Access with all rights.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access_as(self.passwords.then(root))
    }

    /// Access as conftool has it: everything below /conftool, and nothing else where there are passwords.
    #[must_use]
    pub fn conftool_access(&self) -> Access {
        self.access_as(self.passwords.then(conftool))
    }

    /// Access as this user, or as nobody.
    #[must_use]
    pub fn access_as(&self, user: Option<User>) -> Access {
        Access {
            endpoints: self.members.iter().map(|member| self.endpoint(member)).collect(),
            authority: self.certificates.as_ref().map(|all| all.authority.certificate().to_owned()),
            identity: self.certificates.as_ref().filter(|_| self.mutual).map(|all| all.client.clone()),
            user,
        }
    }

    /// The authority that signed the members' certificate, to sign others with.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.certificates.as_ref().map(|all| &all.authority)
    }

    /// A client with all rights.
    pub fn store(&self, driver: Driver) -> Result<Store> {
        Store::new(driver, &self.access())
    }

    /// Ends a member as an administrator would.
    pub fn stop(&mut self, member: usize) -> Result<()> {
        if let Some(mut daemon) = self.members[member].daemon.take() {
            daemon.signal(Signal::SIGTERM)?;
            daemon.wait(STOP_LIMIT)?;
        }
        Ok(())
    }

    /// Ends a member without a warning.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        match self.members[member].daemon.take() {
            Some(mut daemon) => daemon.kill(),
            None => Ok(()),
        }
    }

    /// Suspends a member: it accepts connections and never answers.
    pub fn freeze(&mut self, member: usize) -> Result<()> {
        self.running(member)?.signal(Signal::SIGSTOP)
    }

    /// Lets a suspended member go on.
    pub fn thaw(&mut self, member: usize) -> Result<()> {
        self.running(member)?.signal(Signal::SIGCONT)
    }

    /// Starts a stopped member again with its old data. Does not wait: without a quorum it cannot become healthy.
    pub fn start_again(&mut self, member: usize) -> Result<()> {
        if self.members[member].daemon.is_none() {
            self.launch(member)?;
        }
        Ok(())
    }

    /// Waits until a member serves reads that need the quorum.
    pub fn wait_healthy(&mut self, member: usize) -> Result<()> {
        let mut access = self.access();
        access.endpoints = vec![self.endpoint(&self.members[member])];
        let client = v2::Client::new(&access)?;
        self.running(member)?.wait_ready(READY_LIMIT, || Ok(client.healthy()))
    }

    fn running(&mut self, member: usize) -> Result<&mut Daemon> {
        self.members[member].daemon.as_mut().with_context(|| format!("etcd member {member} is stopped"))
    }

    fn endpoint(&self, member: &Member) -> String {
        format!("{}://{}", self.scheme, member.address.port(CLIENT_PORT))
    }

    fn launch(&mut self, index: usize) -> Result<()> {
        let log = self.data.path().join(format!("member{index}.log"));
        let member = &mut self.members[index];
        member.daemon = Some(Daemon::start("etcd", "etcd", &member.arguments, &log)?);
        Ok(())
    }
}
