//! Child processes that never outlive the test that started them.
//!
//! A daemon ends when its value is dropped. But a test can also be interrupted or killed, and then nothing is dropped:
//! so each child asks the kernel for a signal at its parent's death. That signal is bound to the *thread* that started
//! the child, not to the process, and a test's thread ends with the test; therefore all children are started by one
//! thread that lives as long as the process.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::wait;

/// How long a killed process may take to be gone; SIGKILL takes effect at once unless the machine is stuck.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// A line of what the kernel says of a process in `/proc/PID/status`; empty when there is none.
pub fn status(pid: Pid, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a command from the thread that outlives every test, see the top of this file.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Whoever ordered may be gone; its child then ends with this process.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let gone = || io::Error::other("the thread that starts processes has ended");
    let (reply, answer) = mpsc::channel();
    SPAWNER.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// A command that is sent `at_parents_death` when this process ends, however it ends. It execs: the pid is the program's.
pub(crate) fn mortal(program: &str, at_parents_death: Signal) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", at_parents_death.as_str().trim_start_matches("SIG"), "--", program]);
    command
}

/// A daemon in the foreground, with its output in a file. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts `program` in a process group of its own: an interrupt typed at a terminal is ours to handle.
    pub(crate) fn start(name: &str, program: &str, arguments: &[String], log: &Path) -> Result<Self> {
        let mut command = mortal(program, Signal::SIGKILL);
        command.args(arguments).process_group(0);
        Self::adopt(name, command, log)
    }

    /// Starts a command that takes care of its own death and process group.
    pub(crate) fn adopt(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .with_context(|| format!("cannot write '{}'", log.display()))
        };
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let child = spawn(command).with_context(|| format!("cannot start '{name}'"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal, unless the process has ended (its id might be somebody else's by now).
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        signal::kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to '{}'", self.name))
    }

    /// How the process ended, or none while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for '{}'", self.name))
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("'{}' (process {}) to end", self.name, self.pid());
        wait::until_some(&what, limit, || self.ended())
    }

    /// Ends it now, without a chance to tidy up, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(GONE_LIMIT).map(|_| ())
    }

    /// The last lines of its output, for the error that says that it failed.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Waits until `ready` says so; fails at once when the process ends before that.
    pub(crate) fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let what = format!("'{}' to be ready", self.name);
        let outcome = wait::until_some(&what, limit, || {
            Ok(match self.ended()? {
                Some(status) => Some(Err(anyhow::anyhow!("'{}' ended at once, {status}", self.name))),
                None => ready()?.then_some(Ok(())),
            })
        });
        outcome
            .and_then(|ended| ended)
            .with_context(|| format!("'{}' did not start; its last lines are:\n{}", self.name, self.last_words()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            log::warn!("{error:#}");
        }
    }
}
