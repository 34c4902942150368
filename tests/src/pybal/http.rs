//! The HTTP server of the stand-in, written by hand down to the socket: what it is there for is to break in each way in
//! which a load balancer, or the network before it, can break.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use super::state::Answer;

/// How often a thread that waits looks whether it still should.
const SLICE: Duration = Duration::from_millis(20);
const SLICE_OF_POLL: u8 = 20;
/// The pace of a dripping body.
const DRIP: Duration = Duration::from_millis(500);
/// Longer request heads are cut off; ours have a few hundred bytes.
const HEAD_LIMIT: u64 = 8192;

/// A way in which a load balancer fails to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: it answers.
    None,
    /// It answers after this time.
    Slow(Duration),
    /// It takes the request and never answers.
    Hang,
    /// Nobody listens: connections are refused.
    Refuse,
    /// It takes the request and resets the connection.
    Reset,
    /// Connection attempts are not even refused: packets vanish.
    BlackHole,
    /// It answers with this status, whatever is asked.
    Status(u16),
    /// It answers 200 and something that only begins like an answer.
    Rubbish,
    /// It answers at once, with the body at a byte every half second.
    Drip,
    /// It answers in text although JSON is asked for.
    Text,
}

/// A request that was received whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its last byte arrived.
    pub at: Instant,
    /// `GET /pools/appservers_80/mw1.eqiad.test HTTP/1.1`.
    pub line: String,
    /// The Accept header, if there was one.
    pub accept: Option<String>,
}

impl Request {
    /// The path asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

type Respond = dyn Fn(&str, Option<&str>) -> Answer + Send + Sync;

/// A server with its faults; ends with this value.
#[derive(Debug)]
pub(super) struct Server {
    inner: Arc<Inner>,
    front: Mutex<Front>,
}

/// What stands at the server's address.
#[derive(Debug)]
enum Front {
    Open {
        _acceptor: Acceptor,
    },
    Closed,
    /// Held open, and its backlog full, for as long as this lasts.
    BlackHole {
        _listener: TcpListener,
        _fillers: Vec<TcpStream>,
    },
}

impl Server {
    /// Listens, and answers with what `respond` says for a path and an Accept header.
    pub(super) fn start(
        address: SocketAddr,
        respond: impl Fn(&str, Option<&str>) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let inner = Arc::new(Inner {
            address,
            respond: Box::new(respond),
            fault: Mutex::new(Fault::None),
            changes_of_fault: AtomicU64::new(0),
            requests: Mutex::new(Vec::new()),
            connections: Mutex::new(HashMap::new()),
        });
        let acceptor = Acceptor::start(&inner)?;
        Ok(Self { inner, front: Mutex::new(Front::Open { _acceptor: acceptor }) })
    }

    /// Puts a fault in place of the one before. Requests that wait in a fault see their connection closed.
    pub(super) fn set_fault(&self, fault: Fault) -> Result<()> {
        let mut front = lock(&self.front);
        *lock(&self.inner.fault) = fault;
        self.inner.changes_of_fault.fetch_add(1, Ordering::SeqCst);
        let wants_listener = !matches!(fault, Fault::Refuse | Fault::BlackHole);
        if wants_listener && matches!(*front, Front::Open { .. }) {
            return Ok(());
        }
        // Whoever holds the port lets go of it before the next one takes it.
        *front = Front::Closed;
        if wants_listener {
            *front = Front::Open { _acceptor: Acceptor::start(&self.inner)? };
            return Ok(());
        }
        self.inner.close_connections();
        if fault == Fault::BlackHole {
            *front = black_hole(self.inner.address)?;
        }
        Ok(())
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        lock(&self.inner.requests).clone()
    }

    pub(super) fn forget_requests(&self) {
        lock(&self.inner.requests).clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *lock(&self.front) = Front::Closed;
        self.inner.changes_of_fault.fetch_add(1, Ordering::SeqCst);
        self.inner.close_connections();
    }
}

/// A listener whose queue is full: the kernel drops further attempts to connect, as a firewall would.
fn black_hole(address: SocketAddr) -> Result<Front> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on '{address}'"))?;
    listen(&listener, Backlog::new(0).context("cannot shorten a backlog")?).context("cannot shorten a backlog")?;
    let mut fillers = Vec::new();
    // The queue takes one more than it is told to; the first that does not get in shows that it is full.
    while let Ok(filler) = TcpStream::connect_timeout(&address, 10 * SLICE) {
        fillers.push(filler);
    }
    Ok(Front::BlackHole { _listener: listener, _fillers: fillers })
}

/// The thread that accepts connections; ends, and closes its listener, when dropped.
#[derive(Debug)]
struct Acceptor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    fn start(inner: &Arc<Inner>) -> Result<Self> {
        let listener =
            TcpListener::bind(inner.address).with_context(|| format!("cannot listen on '{}'", inner.address))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let inner = Arc::clone(inner);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let ready =
                    poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::from(SLICE_OF_POLL));
                if !matches!(ready, Ok(1..)) {
                    continue;
                }
                let Ok((stream, _)) = listener.accept() else { continue };
                let inner = Arc::clone(&inner);
                thread::spawn(move || inner.serve(stream));
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::warn!("the stand-in's accepting thread panicked");
        }
    }
}

struct Inner {
    address: SocketAddr,
    respond: Box<Respond>,
    fault: Mutex<Fault>,
    /// Counts up with each change: whoever waits in a fault notices.
    changes_of_fault: AtomicU64,
    requests: Mutex<Vec<Request>>,
    /// Open connections by a number of their own, to be closed from outside.
    connections: Mutex<HashMap<u64, TcpStream>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("address", &self.address).field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl Inner {
    /// Serves one connection until either side has enough.
    fn serve(&self, stream: TcpStream) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A client that goes away ends this; there is nobody to tell.
        let _ = self.converse(number, stream);
        lock(&self.connections).remove(&number);
    }

    fn converse(&self, number: u64, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        lock(&self.connections).insert(number, stream.try_clone()?);
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader)? {
            let began = self.changes_of_fault.load(Ordering::SeqCst);
            let fault = *lock(&self.fault);
            lock(&self.requests).push(request.clone());
            let answer = |accept: Option<&str>| (self.respond)(request.path(), accept);
            let accept = request.accept.as_deref();
            let stream = reader.get_mut();
            match fault {
                Fault::None => send(stream, &answer(accept))?,
                Fault::Text => send(stream, &answer(None))?,
                Fault::Slow(pause) => {
                    if !self.wait(pause, began) {
                        return Ok(());
                    }
                    // What is true now, not what was when it was asked.
                    send(stream, &answer(accept))?;
                }
                Fault::Hang | Fault::BlackHole | Fault::Refuse => {
                    self.wait(Duration::MAX, began);
                    return Ok(());
                }
                Fault::Reset => {
                    lock(&self.connections).remove(&number);
                    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
                    setsockopt(stream, sockopt::Linger, &at_once)?;
                    return Ok(());
                }
                Fault::Status(404) => {
                    send(stream, &(self.respond)("/no/such/path", accept))?;
                }
                Fault::Status(status) => {
                    let body = "<html><body>This load balancer is not well.</body></html>".to_owned();
                    send(stream, &Answer { status, content_type: "text/html", body })?;
                }
                Fault::Rubbish => {
                    let body = r#"{"pooled": false, "enabled": fal"#.to_owned();
                    send(stream, &Answer { status: 200, content_type: "application/json", body })?;
                }
                Fault::Drip => {
                    let answer = answer(accept);
                    stream.write_all(head(&answer).as_bytes())?;
                    for byte in answer.body.as_bytes() {
                        if !self.wait(DRIP, began) {
                            return Ok(());
                        }
                        stream.write_all(&[*byte])?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits; false when the fault has changed meanwhile and the wait is off.
    fn wait(&self, length: Duration, began: u64) -> bool {
        let start = Instant::now();
        loop {
            if self.changes_of_fault.load(Ordering::SeqCst) != began {
                return false;
            }
            let left = length.saturating_sub(start.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(SLICE));
        }
    }

    fn close_connections(&self) {
        for (_, stream) in lock(&self.connections).drain() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Reads a request up to its empty line; none when the client is done.
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut head = reader.take(HEAD_LIMIT);
    let mut line = String::new();
    let mut accept = None;
    let mut request_line = None;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        match request_line {
            None => request_line = Some(text.to_owned()),
            Some(ref first) if text.is_empty() => {
                return Ok(Some(Request { at: Instant::now(), line: first.clone(), accept }));
            }
            Some(_) => {
                if let Some((name, value)) = text.split_once(':')
                    && name.eq_ignore_ascii_case("accept")
                {
                    accept = Some(value.trim().to_owned());
                }
            }
        }
    }
}

fn send(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    // In one write: a client must not see a head whose body has not been sent.
    stream.write_all(format!("{}{}", head(answer), answer.body).as_bytes())
}

fn head(Answer { status, content_type, body }: &Answer) -> String {
    let reason = match status {
        200 => "OK",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Whatever",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nServer: TwistedWeb\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
