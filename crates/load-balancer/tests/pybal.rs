//! PyBal over real sockets: a server of a few lines that answers well, badly, slowly, or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use load_balancer::{AllAtOnce, PyBal, Technology as _};
use restart_core::{Balancer, Fqdn, LoadBalancers as _, PoolName, Protocol, Question, Ticket, Verdict};

/// Longer than any test should take.
const LONG: Duration = Duration::from_secs(30);
const NOT_POOLED: &str = r#"{"pooled": false, "enabled": false, "up": true, "weight": 10}"#;

/// A load balancer on a port of its own. It gives each request's header, as text, to `requests` and does to each connection
/// what the test says; it ends with the test's process.
struct Server {
    port: u16,
    requests: Receiver<String>,
}

fn server(answer: impl Fn(&mut TcpStream) + Send + Sync + Copy + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.expect("a connection"), sender.clone());
            thread::spawn(move || {
                report(&stream, &sender);
                answer(&mut stream);
            });
        }
    });
    Server { port, requests }
}

fn report(stream: &TcpStream, requests: &Sender<String>) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let _ = requests.send(lines.map(|line| line + "\n").collect());
}

fn respond(stream: &mut TcpStream, status: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

/// Keeps the connection open until the other side closes it.
fn hang(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0]);
}

fn question(host: &str, port: u16) -> Question {
    Question {
        balancer: Balancer { host: host.to_owned(), port: Some(port) },
        pool: PoolName::new("appservers").expect("a pool name"),
        port: 80,
        host: Fqdn::new("mw1.test").expect("a host name"),
        protocol: Protocol::PyBal,
    }
}

fn ask(server: &Server, at_most: Duration) -> Verdict {
    ask_at("127.0.0.1", server.port, at_most)
}

fn ask_at(host: &str, port: u16, at_most: Duration) -> Verdict {
    let question = question(host, port);
    without_url(PyBal.ask(&question, at_most), &question)
}

/// An unknown verdict names what was asked; what is left is why.
fn without_url(verdict: Verdict, Question { balancer, .. }: &Question) -> Verdict {
    let Verdict::Unknown(why) = verdict else { return verdict };
    let url = format!("http://{balancer}/pools/appservers_80/mw1.test: ");
    let Some(why) = why.strip_prefix(&url) else { panic!("'{url}' is not named in '{why}'") };
    unknown(why)
}

fn unknown(why: &str) -> Verdict {
    Verdict::Unknown(why.to_owned())
}

#[test]
fn the_request_is_the_one_that_pybal_answers_in_json() {
    let server = server(|stream| respond(stream, "200 OK", NOT_POOLED.as_bytes()));
    assert_eq!(ask(&server, LONG), Verdict::NotPooled);
    let request = server.requests.recv_timeout(LONG).unwrap().to_lowercase();
    let mut lines: Vec<&str> = request.lines().collect();
    assert_eq!(lines.remove(0), "get /pools/appservers_80/mw1.test http/1.1");
    lines.sort_unstable();
    let expected = [
        "accept: application/json".to_owned(),
        "connection: close".to_owned(),
        format!("host: 127.0.0.1:{}", server.port),
        concat!("user-agent: safe-service-restart/", env!("CARGO_PKG_VERSION")).to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_answer_without_length_ends_with_the_connection() {
    let server = server(|stream| {
        let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{NOT_POOLED}");
    });
    assert_eq!(ask(&server, LONG), Verdict::NotPooled);
}

#[test]
fn statuses_other_than_200_are_what_they_are() {
    assert_eq!(ask(&server(|stream| respond(stream, "404 Not Found", b"x")), LONG), Verdict::Absent);
    let failing = server(|stream| respond(stream, "500 Internal Server Error", NOT_POOLED.as_bytes()));
    assert_eq!(ask(&failing, LONG), unknown("it answers with HTTP status 500"));
}

#[test]
fn a_redirect_is_not_followed() {
    let server = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
    });
    assert_eq!(ask(&server, LONG), unknown("it answers with HTTP status 302"));
    assert!(server.requests.recv_timeout(LONG).is_ok());
    assert!(server.requests.try_recv().is_err(), "it asked again");
}

#[test]
fn one_that_hangs_or_drips_is_unknown_within_the_bound() {
    let bound = Duration::from_millis(300);
    let hanging = server(hang);
    let dripping = server(|stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", NOT_POOLED.len());
        for byte in head.bytes().chain(NOT_POOLED.bytes()) {
            thread::sleep(Duration::from_millis(50));
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    for server in [hanging, dripping] {
        let began = Instant::now();
        assert_eq!(ask(&server, bound), unknown("timed out after 300ms"));
        // Whole, it would drip for 5 seconds.
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[test]
fn a_body_that_drips_is_unknown_within_the_bound_too() {
    let server = server(|stream| {
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", NOT_POOLED.len()).as_bytes());
        for byte in NOT_POOLED.bytes() {
            thread::sleep(Duration::from_millis(50));
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    assert_eq!(ask(&server, Duration::from_millis(300)), unknown("timed out after 300ms"));
}

#[test]
fn one_that_refuses_says_so() {
    // A port that was ours a moment ago, and is nobody's now.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(ask_at("127.0.0.1", port, LONG), unknown("connection refused"));
}

#[test]
fn a_name_that_does_not_exist_says_so() {
    // A part of a name has at most 63 characters: the resolver refuses this one without asking a server.
    let name = format!("{}.test", "x".repeat(64));
    assert_eq!(ask_at(&name, 9090, LONG), unknown("no such host"));
}

#[test]
fn rubbish_is_unknown_and_not_repeated() {
    let raw = |bytes: &'static [u8]| {
        server(move |stream| {
            let _ = stream.write_all(bytes);
        })
    };
    let body = |body: &'static [u8]| server(move |stream| respond(stream, "200 OK", body));
    let table = [
        (raw(b"\x16\x03\x01\x02\x00"), "its answer is not HTTP"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "its answer is not HTTP"),
        (body(b"\x1b[2Jhello"), "its answer is not JSON"),
        (body(b"enabled/up/pooled"), "its answer is not JSON"),
        (body(&[b' '; 1024 * 1024]), "its answer is longer than 64 KiB"),
        (
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 62\r\n\r\n{\"pooled\""),
            "connection closed in the middle of its answer",
        ),
    ];
    for (server, why) in table {
        assert_eq!(ask(&server, LONG), unknown(why));
    }
}

#[test]
fn an_ipv6_address_is_asked_in_brackets() {
    // The IPv6 way to write 127.0.0.1, so that nothing beside 127.0.0.0/8 is needed.
    let server = server(|stream| respond(stream, "200 OK", NOT_POOLED.as_bytes()));
    assert_eq!(PyBal.ask(&question("::ffff:127.0.0.1", server.port), LONG), Verdict::NotPooled);
    let request = server.requests.recv_timeout(LONG).unwrap().to_lowercase();
    assert!(request.contains(&format!("host: [::ffff:127.0.0.1]:{}\n", server.port)), "{request}");
}

#[test]
fn two_slow_balancers_are_asked_at_the_same_time() {
    // Neither answers before the test has seen both requests.
    let (slow, slower) = (server(hang), server(hang));
    let quick = server(|stream| respond(stream, "200 OK", NOT_POOLED.as_bytes()));
    let mut balancers = AllAtOnce::new(PyBal, Duration::from_secs(2));
    for (ticket, server) in [&slow, &slower, &quick].into_iter().enumerate() {
        balancers.ask(Ticket(ticket as u64), &question("127.0.0.1", server.port));
    }
    slow.requests.recv_timeout(LONG).expect("the first was asked");
    slower.requests.recv_timeout(LONG).expect("the second was asked while the first had not answered");
    assert_eq!(balancers.answers(LONG), [(Ticket(2), Verdict::NotPooled)]);
    let mut late = BTreeMap::new();
    while late.len() < 2 {
        late.extend(balancers.answers(LONG).into_iter().map(|(ticket, verdict)| {
            let server = if ticket == Ticket(0) { &slow } else { &slower };
            (ticket, without_url(verdict, &question("127.0.0.1", server.port)))
        }));
    }
    let timed_out = unknown("timed out after 2s");
    assert_eq!(late, BTreeMap::from([(Ticket(0), timed_out.clone()), (Ticket(1), timed_out)]));
}
