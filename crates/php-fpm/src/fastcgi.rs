//! Asking an application over FastCGI: one connection, one request, one bound over all of it. The bytes are [`crate::wire`]'s, the
//! header is read by [`Response::parse`]; here are the sockets.
//!
//! Connecting needs the bound as much as reading does: connecting to a Unix socket whose queue is full waits until somebody accepts.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

pub use crate::address::{Address, AddressError};
pub use crate::response::{HeaderFault, Response};
use crate::wire::{self, Decoder, Limits};
pub use crate::wire::{Fault as WireFault, Rejection};

/// How much of an answer is kept unless a request says otherwise, in bytes. A status page takes some 500 bytes a process.
pub const LONGEST_ANSWER: usize = 2 * 1024 * 1024;

/// How much of an application's standard error is kept, in bytes. PHP-FPM cuts a message at 1 KiB by default (`log_limit`).
pub const LONGEST_ERRORS: usize = 64 * 1024;

/// Said to the application as `SERVER_SOFTWARE`.
const SOFTWARE: &str = concat!("safe-service-restart/", env!("CARGO_PKG_VERSION"));

/// A GET request without a body, to be seen by the application as made by this host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The script's file, as the application sees it: inside its chroot, if it has one.
    pub script_filename: String,
    /// The path of the URL. PHP-FPM compares this with the paths of its own pages.
    pub script_name: String,
    /// What comes after the question mark; may be empty.
    pub query: String,
    /// How much of an answer is kept, in bytes; a longer one is an error.
    pub longest_answer: usize,
}

impl Request {
    /// A request for a page that is no script: PHP-FPM's own.
    pub fn page(path: &str, query: &str) -> Self {
        Self {
            // PHP-FPM answers nothing at all without one.
            script_filename: path.to_owned(),
            script_name: path.to_owned(),
            query: query.to_owned(),
            longest_answer: LONGEST_ANSWER,
        }
    }

    /// A request for a script, by its file.
    pub fn script(file: &str) -> Self {
        let name = file.rsplit('/').next().unwrap_or(file);
        Self {
            script_filename: file.to_owned(),
            script_name: format!("/{name}"),
            query: String::new(),
            longest_answer: LONGEST_ANSWER,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { script_filename, script_name, query, .. } = self;
        let uri = if query.is_empty() { script_name.clone() } else { format!("{script_name}?{query}") };
        wire::request(&[
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", SOFTWARE),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_NAME", "localhost"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", &uri),
            ("QUERY_STRING", query),
            ("SCRIPT_NAME", script_name),
            ("SCRIPT_FILENAME", script_filename),
        ])
    }
}

/// An exchange that came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("'{address}': {fault}")]
pub struct Error {
    address: Address,
    fault: Fault,
}

impl Error {
    /// Who was asked.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What went wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// What went wrong, to be told in other words.
    pub fn into_fault(self) -> Fault {
        self.fault
    }
}

/// What can go wrong between a request and its answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nobody listens there, or we may not.
    #[error("cannot connect: {}", reason(.0))]
    Connect(io::Error),
    /// The host name has no address.
    #[error("cannot connect: no such host")]
    NoSuchHost,
    /// The time allowed is over.
    #[error("timed out after {after:?}, {stage}")]
    TimedOut {
        /// The time that was allowed, for all of it.
        after: Duration,
        /// What was waited for.
        stage: Stage,
    },
    /// The kernel's error on a connection that was made.
    #[error("the connection broke: {}", reason(.0))]
    Broken(io::Error),
    /// The connection was closed before the answer was whole: the process died, or does not talk to us
    /// (`listen.allowed_clients`).
    #[error("it closed the connection {}", early(*.received, .errors))]
    Closed {
        /// How much of an answer had come, in bytes.
        received: u64,
        /// What had come on standard error.
        errors: String,
    },
    /// What came is no answer in FastCGI.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// What came has no CGI header.
    #[error(transparent)]
    Header(#[from] HeaderFault),
}

/// Where in an exchange the time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking up a name, or waiting to be let into the queue of the socket.
    Connecting,
    /// Sending the request.
    Sending,
    /// Waiting for the rest of the answer: every process may be busy.
    Answering,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "waiting to be connected",
            Self::Sending => "sending the request",
            Self::Answering => "waiting for the answer",
        })
    }
}

fn early(received: u64, errors: &str) -> String {
    let came =
        if received == 0 { "without an answer".to_owned() } else { format!("after {received} bytes of its answer") };
    if errors.is_empty() {
        came
    } else {
        format!("{came}; it says '{}'", crate::printable::printable(errors.as_bytes()))
    }
}

/// The system's reason in plain words, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut letters = words.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Makes a request and waits for the whole answer, `deadline` at most for everything: a name's look-up, connection, request and
/// the last byte.
pub fn call(address: &Address, request: &Request, deadline: Duration) -> Result<Response, Error> {
    exchange(address, request, deadline).map_err(|fault| Error { address: address.clone(), fault })
}

/// What is left of the time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// None is a time so far away that it is never over.
    end: Option<Instant>,
    allowed: Duration,
}

impl Clock {
    fn start(allowed: Duration) -> Self {
        Self { end: Instant::now().checked_add(allowed), allowed }
    }

    fn over(self, stage: Stage) -> Fault {
        Fault::TimedOut { after: self.allowed, stage }
    }

    /// Never zero, which a socket would take for "without a limit".
    fn left(self, stage: Stage) -> Result<Duration, Fault> {
        let Some(end) = self.end else { return Ok(Duration::from_secs(86_400)) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.over(stage)) } else { Ok(left.max(Duration::from_millis(1))) }
    }

    /// What an error of the kernel means: some are the end of the time under another name.
    fn judge(self, error: io::Error, stage: Stage, otherwise: fn(io::Error) -> Fault) -> Fault {
        let is_time = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        if is_time { self.over(stage) } else { otherwise(error) }
    }
}

fn exchange(address: &Address, request: &Request, deadline: Duration) -> Result<Response, Fault> {
    let clock = Clock::start(deadline);
    let mut socket = connect(address, clock)?;
    let sent = send(&mut socket, &request.bytes(), clock);
    match sent {
        // Whoever closes without reading may have said why.
        Err(Fault::Broken(error)) if is_hang_up(&error) => {}
        other => other?,
    }
    let limits = Limits { output: request.longest_answer, errors: LONGEST_ERRORS };
    Ok(Response::parse(receive(&mut socket, limits, clock)?)?)
}

fn connect(address: &Address, clock: Clock) -> Result<Socket, Fault> {
    match address {
        Address::Unix(path) => connect_unix(path, clock),
        Address::Tcp { host, port } => match host.parse::<IpAddr>() {
            Ok(ip) => connect_tcp(&[SocketAddr::new(ip, *port)], clock),
            Err(_) => connect_tcp(&look_up(host, *port, clock)?, clock),
        },
    }
}

/// The kernel queues us while the socket's own queue is full, for as long as the send time-out says (`unix(7)`, SO_SNDTIMEO in
/// `socket(7)`), and then gives EAGAIN.
fn connect_unix(path: &Path, clock: Clock) -> Result<Socket, Fault> {
    let address = SockAddr::unix(path).map_err(Fault::Connect)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(Fault::Connect)?;
    loop {
        socket.set_write_timeout(Some(clock.left(Stage::Connecting)?)).map_err(Fault::Connect)?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(clock.judge(error, Stage::Connecting, Fault::Connect)),
        }
    }
}

/// The first of the addresses that takes the connection.
fn connect_tcp(addresses: &[SocketAddr], clock: Clock) -> Result<Socket, Fault> {
    let mut last = Fault::NoSuchHost;
    for (tried, address) in addresses.iter().enumerate() {
        // An address that swallows everything leaves time for the others.
        let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = (clock.left(Stage::Connecting)? / others).max(Duration::from_millis(1));
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).map_err(Fault::Connect)?;
        last = match socket.connect_timeout(&SockAddr::from(*address), share) {
            Ok(()) => return Ok(socket),
            Err(error) => clock.judge(error, Stage::Connecting, Fault::Connect),
        };
    }
    Err(last)
}

/// getaddrinfo knows no time limit, so it has a thread of its own, which ends with the look-up.
fn look_up(host: &str, port: u16, clock: Clock) -> Result<Vec<SocketAddr>, Fault> {
    let (sender, receiver) = channel();
    let name = host.to_owned();
    let work = move || drop(sender.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
    thread::Builder::new().name("php-fpm-look-up".to_owned()).spawn(work).map_err(Fault::Connect)?;
    match receiver.recv_timeout(clock.left(Stage::Connecting)?) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(Fault::NoSuchHost),
        Err(_) => Err(clock.over(Stage::Connecting)),
    }
}

fn send(socket: &mut Socket, mut bytes: &[u8], clock: Clock) -> Result<(), Fault> {
    while !bytes.is_empty() {
        socket.set_write_timeout(Some(clock.left(Stage::Sending)?)).map_err(Fault::Broken)?;
        match socket.write(bytes) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(clock.judge(error, Stage::Sending, Fault::Broken)),
        }
    }
    Ok(())
}

fn receive(socket: &mut Socket, limits: Limits, clock: Clock) -> Result<wire::Streams, Fault> {
    let mut decoder = Decoder::new(limits);
    let mut buffer = [0; 16 * 1024];
    let mut received = 0;
    let closed = |received, decoder: &Decoder| Fault::Closed {
        received,
        errors: String::from_utf8_lossy(decoder.errors()).into_owned(),
    };
    loop {
        socket.set_read_timeout(Some(clock.left(Stage::Answering)?)).map_err(Fault::Broken)?;
        let count = match socket.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if is_hang_up(&error) => 0,
            Err(error) => return Err(clock.judge(error, Stage::Answering, Fault::Broken)),
        };
        if count == 0 {
            return Err(closed(received, &decoder));
        }
        received += count as u64;
        if decoder.feed(buffer.get(..count).unwrap_or_default())? {
            return decoder.finish().ok_or_else(|| closed(received, &Decoder::new(limits)));
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    /// A whole answer, as PHP-FPM gives it.
    const ANSWER: &[u8] = b"\x01\x07\x00\x01\x00\x03\x05\x00why.....\
                            \x01\x06\x00\x01\x00\x06\x02\x00A: b\n\n..\
                            \x01\x06\x00\x01\x00\x04\x00\x00pong\
                            \x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

    /// An application that reads a request, gives this answer in pieces, and closes.
    fn application(answer: &'static [u8], piece: usize) -> (Address, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            // The empty record of standard input ends it.
            while !request.ends_with(&[1, 5, 0, 1, 0, 0, 0, 0]) && stream.read(&mut byte).unwrap() == 1 {
                request.extend(byte);
            }
            for piece in answer.chunks(piece) {
                // Whoever has read enough does not read the rest.
                if stream.write_all(piece).is_err() {
                    break;
                }
            }
        };
        (Address::Tcp { host: "127.0.0.1".to_owned(), port }, thread::spawn(serve))
    }

    fn ask(answer: &'static [u8], piece: usize) -> Result<Response, String> {
        let (address, served) = application(answer, piece);
        let outcome = call(&address, &Request::page("/ping", ""), LONG);
        served.join().unwrap();
        outcome.map_err(|error| {
            assert_eq!(error.address(), &address);
            error.into_fault().to_string()
        })
    }

    #[test]
    fn an_answer_in_any_pieces_is_an_answer() {
        for piece in [1, 7, 8, 9, 1000] {
            let response = ask(ANSWER, piece).unwrap();
            assert_eq!((response.status, &response.body[..]), (200, &b"pong"[..]));
            assert_eq!(response.errors, "why");
        }
    }

    #[test]
    fn a_connection_closed_early_is_named_and_the_error_output_so_far_is_kept() {
        for end in 0..ANSWER.len() {
            let fault = ask(&ANSWER[..end], 1000).unwrap_err();
            assert!(fault.starts_with("it closed the connection "), "{end}: {fault}");
            assert_eq!(fault.contains("it says 'why'"), end >= 11, "{end}: {fault}");
        }
        assert_eq!(ask(b"", 1).unwrap_err(), "it closed the connection without an answer");
    }

    #[test]
    fn what_is_not_fastcgi_is_named() {
        assert_eq!(
            ask(b"HTTP/1.1 400 Bad Request\r\n\r\n", 100).unwrap_err(),
            "its answer is not FastCGI 1.0: a record of version 72"
        );
        assert_eq!(
            ask(b"\x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00", 100).unwrap_err(),
            "it did not take the request: it is overloaded (FCGI_OVERLOADED)"
        );
        assert_eq!(
            ask(b"\x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 100).unwrap_err(),
            "its answer is empty"
        );
    }

    #[test]
    fn an_answer_longer_than_allowed_is_named() {
        let (address, served) = application(ANSWER, 1000);
        let request = Request { longest_answer: 9, ..Request::page("/ping", "") };
        let error = call(&address, &request, LONG).unwrap_err();
        served.join().unwrap();
        assert_eq!(error.to_string(), format!("'{address}': its answer is longer than 9 bytes"));
    }

    #[test]
    fn an_application_that_says_nothing_times_out_by_that_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let error = call(&address, &Request::page("/ping", ""), SHORT).unwrap_err();
        assert_eq!(error.to_string(), format!("'{address}': timed out after 50ms, waiting for the answer"));
    }

    #[test]
    fn an_application_that_drips_is_bounded_as_a_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let drip = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // An endless row of empty records, each one well within the time.
            while stream.write_all(&[1, 6, 0, 1, 0, 0, 0, 0]).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let error = call(&address, &Request::page("/ping", ""), SHORT).unwrap_err();
        assert!(matches!(error.fault(), Fault::TimedOut { stage: Stage::Answering, .. }), "{error}");
        drip.join().unwrap();
    }

    #[test]
    fn a_unix_socket_whose_queue_is_full_is_waited_for_in_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.sock");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        // Fill the queue, however many it takes.
        let mut queued = Vec::new();
        let address = Address::Unix(path);
        let error = loop {
            match connect(&address, Clock::start(SHORT)) {
                Ok(stream) => queued.push(stream),
                Err(fault) => break Error { address: address.clone(), fault },
            }
            assert!(queued.len() < 100, "a queue without an end");
        };
        assert_eq!(error.to_string(), format!("'{address}': timed out after 50ms, waiting to be connected"));
        // Whoever waits is let in as soon as there is room.
        let waiting = thread::spawn(move || connect(&address, Clock::start(LONG)).map(drop));
        let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
        drop(listener.accept().unwrap());
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn a_socket_that_is_not_there_or_not_listened_on_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let ask = |path: &Path| {
            let error = call(&Address::Unix(path.to_owned()), &Request::page("/", ""), LONG).unwrap_err();
            error.to_string().replace(&format!("{}/", folder.path().display()), "")
        };
        assert_eq!(ask(&path), "'x.sock': cannot connect: no such file or directory");
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(ask(&path), "'x.sock': cannot connect: connection refused");
        let long = folder.path().join("x".repeat(200));
        assert!(ask(&long).contains("': cannot connect: path must be shorter than SUN_LEN"), "{}", ask(&long));
    }

    #[test]
    fn a_port_without_listener_and_a_host_without_address_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let ask = |host: &str| {
            let address = Address::Tcp { host: host.to_owned(), port };
            call(&address, &Request::page("/", ""), LONG).unwrap_err().into_fault().to_string()
        };
        assert_eq!(ask("127.0.0.1"), "cannot connect: connection refused");
        assert_eq!(ask("localhost"), "cannot connect: connection refused");
        assert_eq!(ask("no-such-host.invalid"), "cannot connect: no such host");
    }

    #[test]
    fn no_time_at_all_and_all_the_time_in_the_world_are_no_panic() {
        let (address, served) = application(ANSWER, 1000);
        let error = call(&address, &Request::page("/ping", ""), Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), format!("'{address}': timed out after 0ns, waiting to be connected"));
        assert!(call(&address, &Request::page("/ping", ""), Duration::MAX).is_ok());
        served.join().unwrap();
    }
}
