//! A real HAProxy, so that traffic really moves when a host leaves its pool. It checks nobody's health and repeats no
//! request: the load balancer's stand-in decides who gets traffic, and a request that is lost must show as lost.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::process::Daemon;
use crate::{scratch, wait};

/// The configuration, there as well.
const CONFIG: &str = "haproxy.cfg";
/// The control socket, in the folder of its own that each one has.
const SOCKET: &str = "admin.sock";
/// The process that we start and end is a master, and the one that serves is its child, which ends with it.
const RELOADABLE: &[&str] = &["-W", "-db"];
const READY_LIMIT: Duration = Duration::from_secs(10);
/// A reload takes some 50 ms.
const RELOAD_LIMIT: Duration = Duration::from_secs(2);
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
    daemon: Daemon,
    control: Control,
    /// The process that was stopped.
    frozen: Option<Pid>,
    folder: TempDir,
}

impl Haproxy {
    /// Starts one HAProxy for these pools and waits until it answers.
    pub fn start(pools: &[Pool]) -> Result<Self> {
        // In the foreground: the process we start is the one we end.
        Self::run(&["-db"], |folder| configuration(pools, None, &folder.join(SOCKET)))
    }

    /// The same, and it can be asked at `api` as well, at the level of an onlooker, and be reloaded. Its servers begin with
    /// traffic, which is what a reload brings back.
    pub fn start_with_api(pools: &[Pool], api: SocketAddr) -> Result<Self> {
        Self::run(RELOADABLE, |folder| configuration(pools, Some(api), &folder.join(SOCKET)))
    }

    /// Starts one with a configuration of the caller's, below a section `global` that has the control socket. It can be reloaded.
    pub fn start_with(sections: &str) -> Result<Self> {
        Self::run(RELOADABLE, |folder| format!("{}{sections}", global(&folder.join(SOCKET))))
    }

    fn run(mode: &[&str], configuration: impl FnOnce(&Path) -> String) -> Result<Self> {
        let folder = scratch::folder("haproxy")?;
        let config = folder.path().join(CONFIG);
        fs::write(&config, configuration(folder.path())).context("cannot write haproxy.cfg")?;
        let log = folder.path().join("log");
        let mut arguments: Vec<String> = mode.iter().map(ToString::to_string).collect();
        arguments.extend(["-f".to_owned(), config.display().to_string()]);
        let mut daemon = Daemon::start("haproxy", "/usr/sbin/haproxy", &arguments, &log)?;
        let control = Control { socket: folder.path().join(SOCKET) };
        daemon.wait_ready(READY_LIMIT, || Ok(control.command("show info").is_ok()))?;
        Ok(Self { daemon, control, frozen: None, folder })
    }

    /// Reloads the configuration, as `systemctl reload` does, and waits until another process answers. Only for one
    /// that says it can be.
    pub fn reload(&mut self) -> Result<()> {
        let before = self.control.worker()?;
        let mut asked: Option<Instant> = None;
        let done = wait::until("haproxy to be reloaded", READY_LIMIT, || {
            // A master that was started a moment ago, whose worker answers already, ignores it.
            if asked.is_none_or(|at| at.elapsed() > RELOAD_LIMIT) {
                asked = Some(Instant::now());
                self.daemon.signal(Signal::SIGUSR2)?;
            }
            // While one process hands over to the other, nobody may answer.
            Ok(self.control.worker().is_ok_and(|now| now != before))
        });
        done.with_context(|| self.daemon.last_words())
    }

    /// Gives it another configuration below the section `global`, and reloads. Only for one that says it can be.
    pub fn configure(&mut self, sections: &str) -> Result<()> {
        let text = format!("{}{sections}", global(self.control.socket()));
        fs::write(self.folder.path().join(CONFIG), text).context("cannot write haproxy.cfg")?;
        self.reload()
    }

    /// Stops it where it stands, the process that serves included: whoever connects waits.
    pub fn freeze(&mut self) -> Result<()> {
        let worker = self.control.worker()?.parse().context("a process id")?;
        nix::sys::signal::kill(Pid::from_raw(worker), Signal::SIGSTOP).context("cannot stop haproxy")?;
        self.frozen = Some(Pid::from_raw(worker));
        Ok(())
    }

    /// Lets it go on.
    pub fn thaw(&mut self) -> Result<()> {
        match self.frozen.take() {
            Some(worker) => nix::sys::signal::kill(worker, Signal::SIGCONT).context("cannot let haproxy go on"),
            None => Ok(()),
        }
    }

    /// Kills it: connections are refused.
    pub fn kill(&mut self) -> Result<()> {
        self.thaw()?;
        self.daemon.kill()
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
    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process that answers.
    fn worker(&self) -> Result<String> {
        let info = self.command("show info")?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid: "));
        pid.map(ToOwned::to_owned).context("haproxy does not say its process id")
    }

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

fn global(socket: &Path) -> String {
    format!(
        "global\n\
         \x20 stats socket {} mode 600 level admin\n\
         \x20 nbthread 1\n\
         \x20 maxconn 4000\n",
        socket.display()
    )
}

/// What every test means by a HAProxy. A request is never repeated, so that one that is lost shows.
pub(crate) const DEFAULTS: &str = "defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 0
  no option redispatch
  # One connection for each request: a connection that the web server closes while it is idle must not look
  # like a request that a restart has killed.
  option httpclose
  http-reuse never
";

fn configuration(pools: &[Pool], api: Option<SocketAddr>, socket: &Path) -> String {
    let mut text = global(socket);
    if let Some(address) = api {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  stats socket ipv4@{address} level user");
    }
    text.push_str(DEFAULTS);
    for Pool { name, listen, servers } in pools {
        let _ = write!(
            text,
            "frontend {name}\n  bind {listen}\n  default_backend {name}\n\
             backend {name}\n  balance roundrobin\n"
        );
        for (server, address) in servers {
            let first = if api.is_some() { "" } else { " disabled" };
            let _ = writeln!(text, "  server {server} {address}{first}");
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
