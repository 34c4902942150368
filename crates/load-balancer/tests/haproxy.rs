//! HAProxy's runtime API: the real HAProxy in every state that matters, and servers of a few lines that answer badly, slowly, or
//! not at all.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use load_balancer::{AllAtOnce, AsTheCatalogSays, Haproxy, Technology as _};
use restart_core::{
    BackendName, Balancer, Fqdn, LoadBalancers as _, PoolName, Protocol, Question, ServerPattern, Ticket, Verdict,
};
use socket2::{Domain, SockAddr, Socket, Type};
use testbed::Result;
use testbed::address::Address;
use testbed::haproxy::Haproxy as Daemon;

/// Longer than any test should take.
const LONG: Duration = Duration::from_secs(30);
/// A bound that is meant to be met.
const SHORT: Duration = Duration::from_millis(300);

fn question(balancer: Balancer, backend: &str, server: &str) -> Question {
    Question {
        balancer,
        pool: PoolName::new("appservers").expect("a pool name"),
        port: 80,
        host: Fqdn::new("mw1.test").expect("a host name"),
        protocol: Protocol::Haproxy {
            backend: BackendName::new(backend).expect("a backend"),
            server: ServerPattern::new(server).expect("a server"),
        },
    }
}

fn socket(path: impl AsRef<std::path::Path>) -> Balancer {
    Balancer { host: path.as_ref().display().to_string(), port: None }
}

fn tcp(address: SocketAddr) -> Balancer {
    Balancer { host: address.ip().to_string(), port: Some(address.port()) }
}

fn unknown(why: &str) -> Verdict {
    Verdict::Unknown(why.to_owned())
}

/// An unknown verdict names what was asked; what is left is why.
fn ask_within(balancer: Balancer, at_most: Duration) -> Verdict {
    let names = format!("{balancer}, server 'web/mw1.test': ");
    match Haproxy.ask(&question(balancer, "web", "{fqdn}"), at_most) {
        Verdict::Unknown(why) => match why.strip_prefix(&names) {
            Some(why) => unknown(why),
            None => panic!("'{names}' is not named in '{why}'"),
        },
        known => known,
    }
}

/// A web server that holds each request until it is let go.
struct Origin {
    address: SocketAddr,
    _reservation: Address,
    requests: Receiver<TcpStream>,
}

fn origin() -> Result<Origin> {
    let reservation = Address::reserve()?;
    let address = reservation.port(80);
    let listener = TcpListener::bind(address)?;
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || hold(stream, &sender));
        }
    });
    Ok(Origin { address, _reservation: reservation, requests })
}

/// Health checks come without a request.
fn hold(stream: TcpStream, requests: &Sender<TcpStream>) {
    if BufReader::new(&stream).lines().map_while(Result::ok).any(|line| line.is_empty()) {
        let _ = requests.send(stream);
    }
}

/// A HAProxy whose frontend has the backend's name, as many have: `mw1.test` and `mw2.test` in `web`, and `mw1.test` in `down`,
/// where its health check fails. Whoever may only look may ask at `api`.
struct Site {
    haproxy: Daemon,
    listen: SocketAddr,
    api: SocketAddr,
    origin: Origin,
    _reservation: Address,
}

fn site() -> Result<Site> {
    let (reservation, origin) = (Address::reserve()?, origin()?);
    let (listen, api, server) = (reservation.port(80), reservation.port(9999), origin.address);
    let haproxy = Daemon::start_with(&format!(
        "  stats socket ipv4@{api} level user\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n\
         frontend web\n  bind {listen}\n  default_backend web\n\
         backend web\n  server mw1.test {server}\n  server mw2.test {server} disabled\n\
         backend down\n  server mw1.test {} check inter 100ms fall 1\n",
        reservation.port(2)
    ))?;
    Ok(Site { haproxy, listen, api, origin, _reservation: reservation })
}

impl Site {
    fn ask(&self) -> Verdict {
        ask_within(self.socket(), LONG)
    }

    fn socket(&self) -> Balancer {
        socket(self.haproxy.control().socket())
    }

    fn order(&self, state: &str) -> Result<()> {
        let answer = self.haproxy.control().command(&format!("set server web/mw1.test state {state}"))?;
        assert_eq!(answer.trim(), "", "haproxy refuses");
        Ok(())
    }

    /// A request that has arrived at the web server.
    fn request(&self) -> Result<(TcpStream, TcpStream)> {
        let mut client = TcpStream::connect(self.listen)?;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let held = self.origin.requests.recv_timeout(LONG).expect("the request reaches the web server");
        Ok((client, held))
    }
}

/// Lets a request go, and waits for its answer.
fn finish((mut client, mut held): (TcpStream, TcpStream)) -> Result<()> {
    held.write_all(b"HTTP/1.0 200 OK\r\n\r\n")?;
    drop(held);
    let mut answer = String::new();
    client.set_read_timeout(Some(LONG))?;
    client.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    Ok(())
}

/// Asks until something else is said: HAProxy closes its books a moment after the client has its answer.
fn when_no_longer(site: &Site, verdict: &Verdict) -> Verdict {
    let until = Instant::now() + LONG;
    loop {
        let now = site.ask();
        if now != *verdict || Instant::now() > until {
            return now;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ready_is_pooled_over_a_socket_and_over_tcp_for_whoever_may_only_look() -> Result<()> {
    let site = site()?;
    assert_eq!(site.ask(), Verdict::Pooled);
    assert_eq!(ask_within(tcp(site.api), LONG), Verdict::Pooled);
    site.order("drain")?;
    assert_eq!(ask_within(tcp(site.api), LONG), Verdict::NotPooled);
    Ok(())
}

#[test]
fn drain_and_maint_are_not_pooled_once_the_last_session_has_ended() -> Result<()> {
    for state in ["drain", "maint"] {
        let site = site()?;
        let (one, other) = (site.request()?, site.request()?);
        assert_eq!(site.ask(), Verdict::Pooled);
        site.order(state)?;
        let two = Verdict::Draining("2 sessions are still open".to_owned());
        assert_eq!(site.ask(), two, "{state}");
        assert_eq!(ask_within(tcp(site.api), LONG), two, "{state}");
        finish(one)?;
        let last = Verdict::Draining("1 session is still open".to_owned());
        assert_eq!(when_no_longer(&site, &two), last, "{state}");
        finish(other)?;
        assert_eq!(when_no_longer(&site, &last), Verdict::NotPooled, "{state}");
        site.order("ready")?;
        assert_eq!(site.ask(), Verdict::Pooled, "{state}");
    }
    Ok(())
}

#[test]
fn a_server_that_its_configuration_disables_is_not_pooled_until_it_is_made_ready() -> Result<()> {
    let site = site()?;
    let second = question(site.socket(), "web", "mw2.test");
    assert_eq!(Haproxy.ask(&second, LONG), Verdict::NotPooled);
    site.haproxy.control().command("set server web/mw2.test state ready")?;
    assert_eq!(Haproxy.ask(&second, LONG), Verdict::Pooled);
    Ok(())
}

#[test]
fn one_that_is_down_is_no_depool_and_one_that_is_drained_as_well_is() -> Result<()> {
    let site = site()?;
    let question = question(site.socket(), "down", "{fqdn}");
    // Every server is up until its first check.
    let until = Instant::now() + LONG;
    while Haproxy.ask(&question, LONG) == Verdict::Pooled && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(Haproxy.ask(&question, LONG), Verdict::Down);
    site.haproxy.control().command("set server down/mw1.test state drain")?;
    assert_eq!(site.haproxy.server("down", "mw1.test")?.status, "DOWN", "HAProxy shows its order there by now");
    assert_eq!(Haproxy.ask(&question, LONG), Verdict::NotPooled);
    Ok(())
}

#[test]
fn a_weight_of_0_is_no_depool() -> Result<()> {
    let site = site()?;
    site.haproxy.control().command("set server web/mw1.test weight 0")?;
    assert_eq!(site.ask(), Verdict::Down);
    Ok(())
}

#[test]
fn what_haproxy_does_not_have_is_never_not_pooled() -> Result<()> {
    let site = site()?;
    // Not there, as 404 of PyBal: it confirms nothing for a host that the store has as `yes` or `no`.
    for server in ["mw3.test", "mw1", "MW1.test", "{short}"] {
        assert_eq!(Haproxy.ask(&question(site.socket(), "web", server), LONG), Verdict::Absent, "{server}");
    }
    for backend in ["we", "webs", "Web", "1"] {
        let key = "(the pool's key 'backend', by default its name)";
        let why = format!("{}, server '{backend}/mw1.test': it has no backend '{backend}' {key}", site.socket());
        let question = question(site.socket(), backend, "{fqdn}");
        assert_eq!(Haproxy.ask(&question, LONG), Verdict::Unknown(why));
    }
    Ok(())
}

/// The state that was set over the socket is gone with the process that it was set in. The run looks again right before the
/// restart, and must then hear it from the new process.
#[test]
fn a_reload_that_forgets_the_order_is_seen_by_the_next_look() -> Result<()> {
    let mut site = site()?;
    site.order("maint")?;
    let mut balancers = AllAtOnce::new(AsTheCatalogSays, LONG);
    let both = [site.socket(), tcp(site.api)].map(|balancer| question(balancer, "web", "{fqdn}"));
    let mut look = |first: u64| {
        for (number, question) in both.iter().enumerate() {
            balancers.ask(Ticket(first + number as u64), question);
        }
        let mut verdicts = Vec::new();
        while verdicts.len() < both.len() {
            verdicts.extend(balancers.answers(LONG).into_iter().map(|(_, verdict)| verdict));
        }
        verdicts
    };
    assert_eq!(look(0), [Verdict::NotPooled, Verdict::NotPooled]);
    site.haproxy.reload()?;
    assert_eq!(look(2), [Verdict::Pooled, Verdict::Pooled]);
    Ok(())
}

#[test]
fn a_socket_that_is_not_there_or_that_nobody_serves_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("admin.sock");
    assert_eq!(ask_within(socket(&path), LONG), unknown("no such file or directory"));
    drop(UnixListener::bind(&path)?);
    assert_eq!(ask_within(socket(&path), LONG), unknown("connection refused"));
    let too_long = folder.path().join("x".repeat(200));
    assert!(matches!(ask_within(socket(&too_long), LONG), Verdict::Unknown(_)));
    let host = Balancer { host: "lb1".to_owned(), port: None };
    assert_eq!(ask_within(host, LONG), unknown("it has neither a port nor the path of a socket"));
    // A part of a name has at most 63 characters: the resolver refuses this one without asking a server.
    let name = Balancer { host: format!("{}.test", "x".repeat(64)), port: Some(9999) };
    assert_eq!(ask_within(name, LONG), unknown("no such host"));
    Ok(())
}

/// Something that listens on a socket and does to each connection what the test says.
fn served(path: &std::path::Path, answer: impl Fn(&mut dyn Write) + Send + 'static) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            answer(&mut &stream);
        }
    });
    Ok(())
}

#[test]
fn one_that_hangs_or_drips_is_unknown_within_the_bound() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    served(&path("hangs"), |_| thread::sleep(LONG * 10))?;
    served(&path("drips"), |stream| {
        while stream.write_all(b"1\n# be_id").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    })?;
    // One waits in a queue of one, and nobody accepts; the next is not let in.
    let full = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    full.bind(&SockAddr::unix(path("full"))?)?;
    full.listen(0)?;
    let waits = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    waits.connect(&SockAddr::unix(path("full"))?)?;
    for name in ["hangs", "drips", "full"] {
        let began = Instant::now();
        assert_eq!(ask_within(socket(path(name)), SHORT), unknown("timed out after 300ms"), "{name}");
        // Not timed: without a bound, none of these would ever end.
        assert!(began.elapsed() < LONG, "{name}");
    }
    Ok(())
}

#[test]
fn rubbish_is_unknown_and_not_repeated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let long = "x".repeat(5 * 1024 * 1024);
    let cut = "1\n# be_id be_name srv_id srv_name srv_op_state srv_admin_state srv_uweight\n1 web 1 mw1.test 2 8 1\n";
    // Without the sessions, which are asked for next.
    let half = format!("{cut}\n");
    let table = [
        ("", "it closed the connection without an answer"),
        ("\x1b[2J\n\n", "its answer is not one of HAProxy's runtime API"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "its answer is not one of HAProxy's runtime API"),
        (cut, "its answer is cut short"),
        (half.as_str(), "its statistics have no header"),
        (long.as_str(), "its answer is longer than 4 MiB"),
    ];
    for (number, (answer, why)) in table.into_iter().enumerate() {
        let path = folder.path().join(number.to_string());
        let sent = answer.to_owned();
        served(&path, move |stream| {
            let _ = stream.write_all(sent.as_bytes());
        })?;
        assert_eq!(ask_within(socket(&path), LONG), unknown(why));
    }
    Ok(())
}

#[test]
fn several_are_asked_at_once_each_in_its_own_language() -> Result<()> {
    let (one, other) = (site()?, site()?);
    other.order("drain")?;
    let folder = tempfile::tempdir()?;
    let hangs = folder.path().join("hangs");
    served(&hangs, |_| thread::sleep(LONG * 10))?;
    let pybal = TcpListener::bind("127.0.0.1:0")?;
    let address = pybal.local_addr()?;
    thread::spawn(move || {
        let (mut stream, _) = pybal.accept().expect("a connection");
        let _ = BufReader::new(&stream).lines().map_while(Result::ok).any(|line| line.is_empty());
        let body = r#"{"pooled": true, "enabled": false, "up": true, "weight": 10}"#;
        let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}");
    });
    let mut questions = [one.socket(), tcp(other.api), socket(&hangs), tcp(address)]
        .map(|balancer| question(balancer, "web", "{fqdn}"));
    questions[3].protocol = Protocol::PyBal;
    let mut balancers = AllAtOnce::new(AsTheCatalogSays, Duration::from_secs(3));
    for (ticket, question) in questions.iter().enumerate() {
        balancers.ask(Ticket(ticket as u64), question);
    }
    let mut answers = BTreeMap::new();
    while answers.len() < questions.len() {
        answers.extend(balancers.answers(LONG));
    }
    let mut verdicts: Vec<_> = answers.into_values().collect();
    let Verdict::Unknown(why) = verdicts.remove(2) else { panic!("one that hangs has answered") };
    assert!(why.ends_with("timed out after 3s"), "{why}");
    assert_eq!(verdicts, [Verdict::Pooled, Verdict::NotPooled, Verdict::Held]);
    Ok(())
}
