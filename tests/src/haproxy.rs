//! A real HAProxy, so that traffic really moves when a host leaves its pool. It checks nobody's health and repeats no
//! request: the load balancer's stand-in decides who gets traffic, and a request that is lost must show as lost.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::Daemon;
use crate::scratch;

const READY_LIMIT: Duration = Duration::from_secs(10);
/// The runtime API answers in microseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A frontend and the backend of the same name that it sends everything to.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The name of both.
    pub name: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Server names with their addresses. They begin without traffic, until somebody says [`Traffic::On`].
    pub servers: Vec<(String, SocketAddr)>,
}

/// Whether a server is sent new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// New requests are sent to it, by weight.
    On {
        /// Its share relative to the others', 1 to 256.
        weight: u32,
    },
    /// No new request is sent to it; those in flight are finished.
    Off,
}

/// A server as HAProxy's statistics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// HAProxy's word: `no check` when in service, `MAINT`, `DRAIN`.
    pub status: String,
    /// Requests being served right now.
    pub sessions: u64,
    /// Requests sent to it since HAProxy started.
    pub total: u64,
}

/// A running HAProxy; ends with this value.
#[derive(Debug)]
pub struct Haproxy {
    // Before `folder`: it ends before its socket goes.
    _daemon: Daemon,
    control: Control,
    _folder: TempDir,
}

impl Haproxy {
    /// Starts one HAProxy for these pools and waits until it answers.
    pub fn start(pools: &[Pool]) -> Result<Self> {
        let folder = scratch::folder("haproxy")?;
        let socket = folder.path().join("admin.sock");
        let config = folder.path().join("haproxy.cfg");
        fs::write(&config, configuration(pools, &socket)).context("cannot write haproxy.cfg")?;
        let log = folder.path().join("log");
        // In the foreground: the process we start is the one we end.
        let arguments = ["-db".to_owned(), "-f".to_owned(), config.display().to_string()];
        let mut daemon = Daemon::start("haproxy", "/usr/sbin/haproxy", &arguments, &log)?;
        let control = Control { socket };
        daemon.wait_ready(READY_LIMIT, || Ok(control.command("show info").is_ok()))?;
        Ok(Self { _daemon: daemon, control, _folder: folder })
    }

    /// A handle on the runtime API.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// What the statistics say about a server.
    pub fn server(&self, pool: &str, server: &str) -> Result<Server> {
        self.control.server(pool, server)
    }
}

/// HAProxy's runtime API.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// Gives a server traffic or takes it away. Servers out of service keep their requests in flight, as behind LVS.
    pub fn set(&self, pool: &str, server: &str, traffic: Traffic) -> Result<()> {
        let orders = match traffic {
            Traffic::On { weight } => {
                format!(
                    "set server {pool}/{server} weight {}; set server {pool}/{server} state ready",
                    weight.clamp(1, 256)
                )
            }
            Traffic::Off => format!("set server {pool}/{server} state maint"),
        };
        let answer = self.command(&orders)?;
        ensure!(answer.trim().is_empty(), "haproxy refuses '{orders}': {}", answer.trim());
        Ok(())
    }

    /// What the statistics say about a server.
    pub fn server(&self, pool: &str, server: &str) -> Result<Server> {
        let table = self.command("show stat")?;
        find_server(&table, pool, server).with_context(|| format!("haproxy knows no server '{server}' in '{pool}'"))
    }

    /// Sends commands, separated by semicolons, and returns all that is answered.
    pub fn command(&self, commands: &str) -> Result<String> {
        let mut socket = UnixStream::connect(&self.socket).context("cannot connect to haproxy's runtime API")?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        writeln!(socket, "{commands}").context("cannot write to haproxy's runtime API")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).context("cannot read from haproxy's runtime API")?;
        Ok(answer)
    }
}

fn configuration(pools: &[Pool], socket: &Path) -> String {
    let mut text = format!(
        "global\n\
         \x20 stats socket {} mode 600 level admin\n\
         \x20 nbthread 1\n\
         \x20 maxconn 4000\n\
         defaults\n\
         \x20 mode http\n\
         \x20 timeout connect 2s\n\
         \x20 timeout client 60s\n\
         \x20 timeout server 60s\n\
         \x20 retries 0\n\
         \x20 no option redispatch\n\
         # One connection for each request: a connection that the web server closes while it is idle must not look\n\
         # like a request that a restart has killed.\n\
         \x20 option httpclose\n\
         \x20 http-reuse never\n",
        socket.display()
    );
    for Pool { name, listen, servers } in pools {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "frontend {name}\n  bind {listen}\n  default_backend {name}\n\
             backend {name}\n  balance roundrobin\n"
        );
        for (server, address) in servers {
            let _ = writeln!(text, "  server {server} {address} disabled");
        }
    }
    text
}

/// Finds a server's row in the CSV table of `show stat`, whose first line names the columns.
fn find_server(table: &str, pool: &str, server: &str) -> Option<Server> {
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let (status, sessions, total) = (column("status")?, column("scur")?, column("stot")?);
    lines.map(|line| line.split(',').collect::<Vec<_>>()).find_map(|row| {
        if *row.first()? != pool || *row.get(1)? != server {
            return None;
        }
        Some(Server {
            status: (*row.get(status)?).to_owned(),
            sessions: row.get(sessions)?.parse().ok()?,
            total: row.get(total)?.parse().ok()?,
        })
    })
}
