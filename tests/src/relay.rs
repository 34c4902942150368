//! A relay in front of HAProxy's runtime API, by which the way there is slow, loses what is sent, or answers something else: what no
//! HAProxy can be made to do by itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait;

/// How often the relay looks whether somebody comes, or what it is to do has changed.
const LOOK: Duration = Duration::from_millis(5);
/// HAProxy answers in microseconds, unless it stands still.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const SWITCH_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two bytes of a drip: within any time-out of one read.
const DRIP: Duration = Duration::from_millis(300);
/// The command by which HAProxy is told something; every other one asks.
const ORDER: &str = "set server";
const RUBBISH: &[u8] = b"HTTP/1.0 400 Bad request\r\n\r\n<html>\n\n";

/// What the relay does to each line that comes from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// It waits so long before it hands it on, so that the answer is of that moment.
    Slow(Duration),
    /// Connections are refused.
    Refuse,
    /// No line is handed on, and none is answered.
    Hang,
    /// No line is handed on, and each is answered with rubbish.
    Rubbish,
    /// Answers come byte by byte.
    Drip,
    /// An order is carried out, and instead of its answer the connection is closed.
    LoseAnswers,
    /// An order is carried out, and its answer never comes.
    KeepAnswers,
    /// An order is not handed on; the connection is closed.
    LoseOrders,
    /// An order is not handed on, and the connection stays open.
    KeepOrders,
}

/// A running relay; ends with this value.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    /// `None`: it is over.
    mode: Mutex<Option<Mode>>,
}

impl Relay {
    /// Listens at `address` for `upstream`.
    pub fn start(address: SocketAddr, upstream: SocketAddr) -> Result<Self> {
        let listener = listen(address)?;
        let shared = Arc::new(Shared { upstream, mode: Mutex::new(Some(Mode::Pass)) });
        let its = Arc::clone(&shared);
        thread::Builder::new().name("relay".to_owned()).spawn(move || run(address, Some(listener), &its))?;
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on. Returns when whoever connects finds it so.
    pub fn set(&self, mode: Mode) -> Result<()> {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = Some(mode);
        wait::until("the relay to take or refuse connections", SWITCH_LIMIT, || {
            Ok(TcpStream::connect(self.address).is_err() == (mode == Mode::Refuse))
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Shared {
    fn mode(&self) -> Option<Mode> {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection open for as long as this is what it does.
    fn keep(&self, mode: Mode) {
        while self.mode() == Some(mode) {
            thread::sleep(LOOK);
        }
    }

    fn hand_on(&self, line: &str) -> Result<Vec<u8>> {
        let mut there = TcpStream::connect(self.upstream)?;
        there.set_read_timeout(Some(ANSWER_LIMIT))?;
        there.write_all(line.as_bytes())?;
        let mut answer = Vec::new();
        there.read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// One connection: a line, and what becomes of it.
    fn serve(&self, mut client: TcpStream) -> Result<()> {
        client.set_nonblocking(false)?;
        let mut line = String::new();
        BufReader::new(&client).read_line(&mut line)?;
        // What comes while it is slow meets what it does next.
        if let Some(Mode::Slow(time)) = self.mode() {
            thread::sleep(time);
        }
        let Some(mode) = self.mode().filter(|_| !line.is_empty()) else { return Ok(()) };
        let is_order = line.contains(ORDER);
        match mode {
            Mode::Pass | Mode::Slow(_) => client.write_all(&self.hand_on(&line)?)?,
            Mode::Refuse => {}
            Mode::Hang => self.keep(mode),
            Mode::Rubbish => client.write_all(RUBBISH)?,
            Mode::Drip => {
                for byte in self.hand_on(&line)? {
                    client.write_all(&[byte])?;
                    thread::sleep(DRIP);
                }
            }
            Mode::LoseAnswers if is_order => drop(self.hand_on(&line)?),
            Mode::KeepAnswers if is_order => {
                self.hand_on(&line)?;
                self.keep(mode);
            }
            Mode::LoseOrders if is_order => {}
            Mode::KeepOrders if is_order => self.keep(mode),
            Mode::LoseAnswers | Mode::KeepAnswers | Mode::LoseOrders | Mode::KeepOrders => {
                client.write_all(&self.hand_on(&line)?)?;
            }
        }
        client.shutdown(Shutdown::Both)?;
        Ok(())
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at '{address}'"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn run(address: SocketAddr, mut listener: Option<TcpListener>, shared: &Arc<Shared>) {
    while let Some(mode) = shared.mode() {
        listener = match (mode, listener) {
            (Mode::Refuse, _) => None,
            (_, None) => listen(address).ok(),
            (_, listening) => listening,
        };
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => {
                let shared = Arc::clone(shared);
                // Whoever gives up before it has its answer is no failure of the relay.
                thread::spawn(move || drop(shared.serve(client)));
            }
            _ => thread::sleep(LOOK),
        }
    }
}
