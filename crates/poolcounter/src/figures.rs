//! The figures of daemons, for whoever only looks: each is asked once, all at the same time, over a connection that takes no slot.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use restart_core::span;

use crate::PORT;
use crate::wire::{Request, Stats};

/// What the daemon on each of these hosts says of itself, or why it says nothing; after `at_most`, from the look-up of their names to the
/// last byte, whatever is not there is not waited for.
pub fn figures(hosts: Vec<String>, at_most: Duration) -> Vec<Result<Stats, String>> {
    figures_at(hosts, PORT, at_most)
}

fn figures_at(hosts: Vec<String>, port: u16, at_most: Duration) -> Vec<Result<Stats, String>> {
    let deadline = Instant::now() + at_most;
    let left = || deadline.saturating_duration_since(Instant::now());
    let silence = || format!("no answer within {}", span(at_most));
    let asked = hosts.into_iter().map(|host| {
        // On a thread of its own, since looking up a name knows no time limit.
        let (sender, answer) = channel();
        let question = move || drop(sender.send(ask(&host, port, deadline)));
        thread::Builder::new().name("poolcounter".to_owned()).spawn(question).map(|_| answer)
    });
    let asked: Vec<_> = asked.collect();
    let answers = asked.into_iter().map(|answer| match answer {
        Err(error) => Err(format!("cannot start a thread to ask it: {error}")),
        Ok(answer) => match answer.recv_timeout(left()) {
            Ok(Ok(Some(stats))) => Ok(stats),
            Ok(Ok(None)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(silence()),
            Ok(Err(why)) => Err(why),
        },
    });
    answers.collect()
}

/// The figures of the daemon on `host`; `None`: not by the deadline.
fn ask(host: &str, port: u16, deadline: Instant) -> Result<Option<Stats>, String> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let text = |error: std::io::Error| error.to_string();
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(text)?.collect();
    // In the order in which a run tries them.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut stream = Err(std::io::Error::other("its name has no address"));
    for address in addresses {
        stream = TcpStream::connect_timeout(&address, left());
        if stream.is_ok() {
            break;
        }
    }
    let mut stream = match stream {
        Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(None),
        other => other.map_err(text)?,
    };
    stream.set_write_timeout(Some(left())).map_err(text)?;
    stream.write_all(Request::Stats.to_string().as_bytes()).map_err(text)?;
    let mut received = Vec::new();
    let mut buffer = [0; 1024];
    while Instant::now() < deadline {
        stream.set_read_timeout(Some(left())).map_err(text)?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err("it closed the connection".to_owned()),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(text(error)),
        }
        if let Some(stats) = Stats::parse(&received).map_err(|error| format!("it {error}"))? {
            return Ok(Some(stats));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// In place of a daemon: answers each question with these bytes, and keeps the connection open.
    fn stand_in(says: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut asked = [0; 11];
                stream.read_exact(&mut asked).unwrap();
                assert_eq!(&asked, b"STATS FULL\n");
                stream.write_all(says).unwrap();
                open.push(stream);
            }
        });
        port
    }

    fn asked(port: u16, at_most: Duration) -> Result<Stats, String> {
        let mut answers = figures_at(vec!["127.0.0.1".to_owned()], port, at_most);
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    #[test]
    fn a_daemon_says_how_many_hold_a_slot_and_how_many_wait() {
        let port = stand_in(b"uptime: 0 days, 0h 0m 1s\nprocessing_workers: 3\nwaiting_workers: 12\n\n");
        assert_eq!(asked(port, Duration::from_secs(30)), Ok(Stats { holders: 3, waiters: 12 }));
    }

    #[test]
    fn a_daemon_that_refuses_is_silent_or_talks_rubbish_is_told_so_in_bounded_time() {
        let long = Duration::from_secs(30);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(asked(closed, long).unwrap_err(), "Connection refused (os error 111)");
        let rubbish = asked(stand_in(b"HTTP/1.1 400 Bad Request\r\n\n\n"), long).unwrap_err();
        assert!(rubbish.starts_with("it answers 'HTTP/1.1 400 Bad Request"), "{rubbish}");
        let began = Instant::now();
        // The kernel accepts for it, as for one that is stopped; and one that never comes to an end.
        let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
        let short = Duration::from_millis(200);
        for port in [frozen.local_addr().unwrap().port(), stand_in(b"processing_workers: 3\n")] {
            assert_eq!(asked(port, short).unwrap_err(), "no answer within 200ms");
        }
        assert!(began.elapsed() < long / 2, "{:?}", began.elapsed());
    }
}
