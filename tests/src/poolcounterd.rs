//! A real poolcounterd, which grants slots. It keeps everything in memory: killed, every slot is gone.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::address::Address;
use crate::process::Daemon;
use crate::{scratch, wait};

/// The one port that it knows.
pub const PORT: u16 = 7531;

const READY_LIMIT: Duration = Duration::from_secs(10);

/// It sets no SO_REUSEADDR: killed with clients connected, its sockets keep the port until the clients have closed theirs and
/// TCP's TIME_WAIT of a minute is over.
const BIND_LIMIT: Duration = Duration::from_secs(90);

/// How long one of several tries to start it may take.
const TRY_LIMIT: Duration = Duration::from_secs(2);

/// A running poolcounterd on an address of its own; ends with this value.
#[derive(Debug)]
pub struct Poolcounterd {
    daemon: Option<Daemon>,
    folder: TempDir,
    address: Address,
}

impl Poolcounterd {
    /// Starts one and waits until it can be connected to.
    pub fn start() -> Result<Self> {
        let mut all = Self { daemon: None, folder: scratch::folder("poolcounterd")?, address: Address::reserve()? };
        all.daemon = Some(all.launch(READY_LIMIT)?);
        Ok(all)
    }

    /// Where it listens, on [`PORT`].
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its line in `/etc/poolcounter-backends.yaml`, with this label and weight 1.
    #[must_use]
    pub fn backend(&self, label: &str) -> String {
        format!("- \"{label}:{}:1\"\n", self.address)
    }

    /// Ends it without a warning, and with it every slot.
    pub fn kill(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => daemon.kill(),
            None => Ok(()),
        }
    }

    /// Suspends it: the kernel accepts connections for it, and nothing is answered.
    pub fn freeze(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    /// Starts it again on its address, with no slot given. That takes more than a minute if a client was connected at the kill and
    /// then closed in the ordinary way, since it sets no SO_REUSEADDR; clients that reset their connections, as the crate
    /// `poolcounter` does, cost nothing. A test that cannot choose starts another one on another address.
    pub fn start_again(&mut self) -> Result<()> {
        if self.daemon.is_none() {
            let what = format!("a poolcounterd that can listen on '{}' again", self.address);
            self.daemon = Some(wait::until_some(&what, BIND_LIMIT, || self.launch(TRY_LIMIT).map(Some))?);
        }
        Ok(())
    }

    /// Takes the one slot of this limit, as another host would, until the connection is dropped.
    pub fn take(&self, limit: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address.port(PORT))?;
        // At once: it takes what it reads for a whole line.
        stream.write_all(format!("ACQ4ME {limit} 1 100 60\n").as_bytes())?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"LOCKED\n", "poolcounterd grants no slot of '{limit}'");
        Ok(stream)
    }

    fn running(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("poolcounterd is stopped")
    }

    fn launch(&self, limit: Duration) -> Result<Daemon> {
        let arguments = ["-l".to_owned(), self.address.to_string()];
        let log = self.folder.path().join("log");
        let mut daemon = Daemon::start("poolcounterd", "/usr/bin/poolcounterd", &arguments, &log)?;
        let address = self.address.port(PORT);
        daemon.wait_ready(limit, || Ok(TcpStream::connect(address).is_ok()))?;
        Ok(daemon)
    }
}
