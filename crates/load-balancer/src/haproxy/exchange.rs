//! One line of commands to HAProxy's runtime API and all that is answered, over a connection of its own: HAProxy takes one
//! line, answers, and closes (its management guide, section 9.3, "non-interactive"). Nothing is kept from one line to the next,
//! so that a process that a reload has replaced is never asked again.
//!
//! One bound holds for everything, connecting included: a Unix socket whose queue is full makes us wait until somebody accepts.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use restart_core::Balancer;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::http::io_reason;

/// What is read of an answer. The state of one server takes some 150 bytes, so this is a backend of 25,000.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// What is left of the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// None is a time so far away that it is never over.
    end: Option<Instant>,
    allowed: Duration,
}

impl Bound {
    pub(super) fn start(allowed: Duration) -> Self {
        Self { end: Instant::now().checked_add(allowed), allowed }
    }

    fn over(self) -> String {
        format!("timed out after {:?}", self.allowed)
    }

    /// Never zero, which a socket would take for "without a limit".
    fn left(self) -> Result<Duration, String> {
        let Some(end) = self.end else { return Ok(Duration::from_secs(86_400)) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.over()) } else { Ok(left.max(Duration::from_millis(1))) }
    }

    fn reason(self, error: &io::Error) -> String {
        io_reason(error, self.allowed)
    }
}

/// Sends `line` to `balancer` and returns the whole answer. The error is a reason in a few words.
pub(super) fn exchange(balancer: &Balancer, line: &str, bound: Bound) -> Result<Vec<u8>, String> {
    let mut conversation = Conversation::begin(balancer, bound)?;
    conversation.say(line, bound)?;
    conversation.answer(bound).map(<[u8]>::to_vec)
}

/// One connection, for one line and its answer. It is kept where the answer to an order is late: the order may still be carried
/// out as long as HAProxy has not closed it.
pub(super) struct Conversation {
    socket: Socket,
    answer: Vec<u8>,
    is_over: bool,
}

impl Conversation {
    /// Connects. Nothing is said yet.
    pub(super) fn begin(balancer: &Balancer, bound: Bound) -> Result<Self, String> {
        let socket = match (balancer.host.starts_with('/'), balancer.port) {
            (true, _) => connect_unix(&balancer.host, bound)?,
            (false, Some(port)) => connect_tcp(&of_one(addresses(&balancer.host, port, bound)?)?, bound)?,
            (false, None) => return Err("it has neither a port nor the path of a socket".to_owned()),
        };
        Ok(Self { socket, answer: Vec::new(), is_over: false })
    }

    /// Sends the line. An error does not mean that nothing of it has arrived.
    pub(super) fn say(&mut self, line: &str, bound: Bound) -> Result<(), String> {
        send(&mut self.socket, format!("{line}\n").as_bytes(), bound)
    }

    /// Waits for the answer, whole. May be called again after an error, to wait for longer.
    pub(super) fn answer(&mut self, bound: Bound) -> Result<&[u8], String> {
        let mut buffer = [0; 16 * 1024];
        while !self.is_over {
            self.socket.set_read_timeout(Some(bound.left()?)).map_err(|error| bound.reason(&error))?;
            match self.socket.read(&mut buffer) {
                Ok(0) => self.is_over = true,
                Ok(count) => self.answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_over = !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    return Err(bound.reason(&error));
                }
            }
            if self.answer.len() > LONGEST_ANSWER {
                self.is_over = true;
                return Err(format!("its answer is longer than {} MiB", LONGEST_ANSWER / 1024 / 1024));
            }
        }
        match self.answer.as_slice() {
            [] => Err("it closed the connection without an answer".to_owned()),
            answer => Ok(answer),
        }
    }

    /// Whether HAProxy has closed it, or is gone: nothing that was said can have an effect any more that is not there already.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// The kernel queues us while the socket's own queue is full, for as long as the send time-out says (`unix(7)`, SO_SNDTIMEO in
/// `socket(7)`), and then gives EAGAIN.
fn connect_unix(path: &str, bound: Bound) -> Result<Socket, String> {
    let reason = |error: io::Error| bound.reason(&error);
    let address = SockAddr::unix(path).map_err(reason)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(reason)?;
    loop {
        socket.set_write_timeout(Some(bound.left()?)).map_err(reason)?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(bound.reason(&error)),
        }
    }
}

/// The first of the addresses that takes the connection.
fn connect_tcp(addresses: &[SocketAddr], bound: Bound) -> Result<Socket, String> {
    let mut last = "no such host".to_owned();
    for (tried, address) in addresses.iter().enumerate() {
        // An address that swallows everything leaves time for the others.
        let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = (bound.left()? / others).max(Duration::from_millis(1));
        let socket =
            Socket::new(Domain::for_address(*address), Type::STREAM, None).map_err(|error| bound.reason(&error))?;
        last = match socket.connect_timeout(&SockAddr::from(*address), share) {
            Ok(()) => return Ok(socket),
            Err(error) => bound.reason(&error),
        };
    }
    Err(last)
}

/// A name for several HAProxies, as by round robin in the DNS, would have one of them told and another one looked at, which then
/// confirms whatever it likes. An address of each family is one machine.
fn of_one(addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    let is_second = |(place, address): (usize, &SocketAddr)| {
        addresses.iter().take(place).any(|other| other != address && other.is_ipv4() == address.is_ipv4())
    };
    if !addresses.iter().enumerate().any(is_second) {
        return Ok(addresses);
    }
    let all: Vec<_> = addresses.iter().map(|address| format!("'{}'", address.ip())).collect();
    Err(format!(
        "its name has several addresses, {}, and may stand for several HAProxies: name each by an address of its own",
        all.join(", ")
    ))
}

/// getaddrinfo knows no time limit, so it has a thread of its own, which ends with the look-up.
fn addresses(host: &str, port: u16, bound: Bound) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = channel();
    let name = host.to_owned();
    let work = move || drop(sender.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
    let thread = thread::Builder::new().name("haproxy-look-up".to_owned()).spawn(work);
    thread.map_err(|error| format!("cannot start a thread to look up its name: {error}"))?;
    match receiver.recv_timeout(bound.left()?) {
        Ok(found) => found.map_err(|error| bound.reason(&error)),
        Err(_) => Err(bound.over()),
    }
}

fn send(socket: &mut Socket, mut bytes: &[u8], bound: Bound) -> Result<(), String> {
    while !bytes.is_empty() {
        socket.set_write_timeout(Some(bound.left()?)).map_err(|error| bound.reason(&error))?;
        match socket.write(bytes) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(bound.reason(&error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_stand_for_several_haproxies_is_none_to_tell_anything() {
        let of_one = |all: &[&str]| of_one(all.iter().map(|address| address.parse().unwrap()).collect());
        for one in [&["192.0.2.1:9999"][..], &["[::1]:9999", "127.0.0.1:9999"], &["192.0.2.1:1", "192.0.2.1:1"], &[]] {
            assert_eq!(of_one(one).map(|all| all.len()), Ok(one.len()));
        }
        for several in [&["192.0.2.1:1", "192.0.2.2:1"][..], &["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"]] {
            assert!(of_one(several).unwrap_err().contains("name each by an address of its own"));
        }
    }
}
