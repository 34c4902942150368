//! HAProxy as the store: the real one in every state that matters, frozen, killed and reloaded, and a few lines that answer as it
//! would if somebody came in between.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use load_balancer::{Access, HaproxyStore};
use restart_core::{
    BackendName, Balancer, Census, Fate, Fqdn, NodeId, Pool, PoolName, PoolStore as _, Pooled, Protocol, ServerPattern,
    StoreError, Tag, WriteError,
};
use testbed::Result;
use testbed::address::Address;
use testbed::haproxy::Haproxy as Daemon;

/// Longer than any exchange should take.
const LONG: Duration = Duration::from_secs(30);
/// A bound that is meant to be met.
const SHORT: Duration = Duration::from_millis(300);

fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

fn host() -> Fqdn {
    Fqdn::new("mw1.test").expect("a host name")
}

fn pool(socket: &Path, backend: &str) -> Pool {
    Pool {
        name: PoolName::new(backend).expect("a pool name"),
        cluster: tag("lb"),
        service: tag(backend),
        port: 80,
        balancers: vec![Balancer { host: socket.display().to_string(), port: None }],
        protocol: Protocol::Haproxy {
            backend: BackendName::new(backend).expect("a backend"),
            server: ServerPattern::default(),
        },
        min_pooled: None,
        ready_url: None,
        part: None,
    }
}

fn store(socket: &Path, access: Access, at_most: Duration) -> HaproxyStore {
    let pools = ["web", "main"].map(|backend| pool(socket, backend));
    HaproxyStore::new("a-run", &host(), (&pools, &tag("haproxy")), access, at_most).expect("a store")
}

fn id(backend: &str) -> NodeId {
    pool(Path::new("/x"), backend).path(&tag("haproxy")).node(&host())
}

/// A HAProxy with a backend of all kinds of servers, one of them on an address where nobody listens.
fn haproxy() -> Result<(Daemon, Address)> {
    let address = Address::reserve()?;
    let (listen, dead) = (address.port(80), address.port(2));
    let daemon = Daemon::start_with(&format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n\
         frontend web\n  bind {listen}\n  default_backend web\n\
         backend web\n\
         \x20 server mw1.test {dead} weight 10\n\
         \x20 server mw2.test {dead}\n\
         \x20 server disabled.test {dead} disabled\n\
         \x20 server down.test {dead} check inter 100ms fall 1\n\
         \x20 server sorry {dead} backup\n\
         \x20 server tracks.test {dead} track main/mw1.test\n\
         \x20 server-template none 1-2 no-such-name.invalid:80 init-addr none\n\
         backend main\n  server mw1.test {dead} check inter 1h\n"
    ))?;
    Ok((daemon, address))
}

fn command(daemon: &Daemon, command: &str) -> Result<String> {
    daemon.control().command(command)
}

#[test]
fn a_server_is_taken_out_and_put_back_with_its_weight_and_a_maint_is_nobodys_to_change() -> Result<()> {
    let (daemon, _address) = haproxy()?;
    let mut store = store(daemon.control().socket(), Access::Change, LONG);
    command(&daemon, "set server web/mw1.test weight 7")?;
    let found = store.read(&id("web")).unwrap().unwrap();
    assert_eq!((found.pooled, found.value.as_str()), (Pooled::Yes, "ready"));
    let depool = store.prepare(&found, Pooled::No).unwrap();
    assert_eq!(depool.key, format!("{} web/mw1.test", daemon.control().socket().display()));
    let out = store.write(&depool).unwrap();
    assert_eq!((out.pooled, out.value.as_str()), (Pooled::No, "drain"));
    assert_eq!(store.read(&id("web")).unwrap(), Some(out.clone()));
    assert_eq!(store.fate(&depool), Ok(Fate::Made(out.clone())));
    // The same once more finds something else than it did.
    assert_eq!(store.write(&depool), Err(WriteError::Conflict));
    let repool = store.prepare(&out, Pooled::Yes).unwrap();
    assert_eq!(store.write(&repool).unwrap(), found);
    assert_eq!(store.fate(&depool), Ok(Fate::NotMade));
    assert!(command(&daemon, "get weight web/mw1.test")?.starts_with("7 "), "the weight was not kept");
    command(&daemon, "set server web/mw1.test state maint")?;
    assert_eq!(store.read(&id("web")).unwrap().unwrap().pooled, Pooled::Inactive);
    assert_eq!(store.write(&depool), Err(WriteError::Conflict));
    assert_eq!(store.fate(&depool), Ok(Fate::NotMade));
    assert_eq!(store.read(&id("web")).unwrap().unwrap().value, "maint");
    Ok(())
}

#[test]
fn the_pool_is_counted_by_who_is_sent_requests() -> Result<()> {
    let (daemon, _address) = haproxy()?;
    let mut store = store(daemon.control().socket(), Access::Change, LONG);
    let path = id("web").path;
    testbed::wait::until("the health check", LONG, || Ok(daemon.server("web", "down.test")?.status == "DOWN"))?;
    let listing = store.list(&path).unwrap();
    let pooled = |name: &str| {
        let node = listing.nodes.iter().find(|node| node.id.host.as_str() == name);
        node.map(|node| node.pooled)
    };
    assert_eq!(pooled("mw1.test"), Some(Pooled::Yes));
    assert_eq!(pooled("mw2.test"), Some(Pooled::Yes));
    assert_eq!(pooled("disabled.test"), Some(Pooled::Inactive));
    assert_eq!(pooled("down.test"), Some(Pooled::No));
    assert_eq!(pooled("server-5.haproxy"), Some(Pooled::Inactive), "the backup: {listing:?}");
    assert!(listing.unreadable.is_empty(), "{listing:?}");
    // The server that it tracks goes into maintenance: what is left of the pool is three.
    command(&daemon, "set server main/mw1.test state maint")?;
    let census = Census::now(&store.list(&path).unwrap().nodes);
    assert_eq!(census, Census { pooled: 2, total: 3 });
    // One that only follows another is not ours to change.
    let mut tracks = id("web");
    tracks.host = Fqdn::new("tracks.test").expect("a host name");
    assert_eq!(store.read(&tracks).unwrap().unwrap().pooled, Pooled::Inactive);
    Ok(())
}

#[test]
fn what_is_not_there_is_told_apart() -> Result<()> {
    let (daemon, _address) = haproxy()?;
    let socket = daemon.control().socket().to_owned();
    let mut there = store(&socket, Access::Change, LONG);
    let mut other = id("web");
    other.host = Fqdn::new("mw9.test").expect("a host name");
    assert_eq!(there.read(&other), Ok(None));
    let pools = [pool(&socket, "typo")];
    let mut typo = HaproxyStore::new("a-run", &host(), (&pools, &tag("haproxy")), Access::Look, LONG).unwrap();
    let refused = typo.list(&id("typo").path).unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(why) if why.contains("no backend 'typo'")), "{refused}");
    let nobody = socket.with_file_name("nobody.sock");
    let away = store(&nobody, Access::Look, LONG).list(&id("web").path).unwrap_err();
    assert!(matches!(away, StoreError::Unreachable(_)), "{away}");
    Ok(())
}

#[test]
fn a_haproxy_that_stands_still_is_told_nothing() -> Result<()> {
    let (mut daemon, _address) = haproxy()?;
    let mut store = store(daemon.control().socket(), Access::Change, SHORT);
    let found = store.read(&id("web")).unwrap().unwrap();
    let depool = store.prepare(&found, Pooled::No).unwrap();
    daemon.freeze()?;
    // It cannot be looked at first, so that nothing is told.
    assert!(matches!(store.write(&depool), Err(WriteError::NotMade(StoreError::Unreachable(_)))));
    assert!(matches!(store.fate(&depool), Err(StoreError::Unreachable(_))));
    daemon.thaw()?;
    assert_eq!(store.fate(&depool), Ok(Fate::NotMade));
    assert_eq!(store.read(&id("web")).unwrap(), Some(found));
    Ok(())
}

const HEADER: &str = "# be_id be_name srv_id srv_name srv_op_state srv_admin_state srv_uweight";

fn table(administrative: u64) -> String {
    format!("1\n{HEADER}\n3 web 1 mw1.test 2 {administrative} 1\n3 web 2 mw2.test 2 0 1\n\n")
}

/// Answers one connection after the other with these, and tells what it was asked. `None` is a connection that is kept open without
/// an answer.
fn answers(socket: &Path, answers: Vec<Option<String>>) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("a socket");
    let (sender, asked) = channel();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let _ = sender.send(line.trim_end().to_owned());
            match answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes())),
                None => silent.push(stream),
            }
        }
        // Until the test is over.
        thread::park();
    });
    asked
}

fn found_and_depool(store: &HaproxyStore) -> restart_core::Write {
    let found = restart_core::Node { id: id("web"), pooled: Pooled::Yes, value: "ready".to_owned(), revision: 0 };
    store.prepare(&found, Pooled::No).expect("a write")
}

#[test]
fn who_comes_between_our_look_and_our_order_is_given_back_what_they_ordered() -> Result<()> {
    // Maintenance; and that of a server which this one tracks, with nothing ordered for this one itself.
    for (theirs, with_ours, word) in [(0x01, 0x08, "maint"), (0x10, 0x18, "ready")] {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("s");
        let script = vec![
            Some(table(0)),
            Some(format!("{}\n{}", table(theirs), table(with_ours))),
            Some(format!("{}\n{}", table(with_ours), table(theirs))),
        ];
        let asked = answers(&socket, script);
        let mut store = store(&socket, Access::Change, LONG);
        let depool = found_and_depool(&store);
        assert_eq!(store.write(&depool), Err(WriteError::Conflict));
        let asked: Vec<String> = asked.try_iter().collect();
        assert!(asked[1].contains("set server web/mw1.test state drain"), "{asked:?}");
        assert!(asked[2].contains(&format!("set server web/mw1.test state {word}")), "{asked:?}");
    }
    Ok(())
}

#[test]
fn a_lost_answer_is_settled_by_a_look() -> Result<()> {
    for (now, wanted) in [(8, "made"), (1, "conflict"), (0, "unknown")] {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("s");
        let _asked = answers(&socket, vec![Some(table(0)), None, Some(table(now)), Some(table(now))]);
        let mut store = store(&socket, Access::Change, SHORT);
        let depool = found_and_depool(&store);
        let seen = match store.write(&depool) {
            Ok(node) => (node.pooled == Pooled::No).then_some("made"),
            Err(WriteError::Conflict) => Some("conflict"),
            // The connection is open: it may still be carried out.
            Err(WriteError::Unknown(_)) => Some("unknown"),
            Err(WriteError::NotMade(_)) => None,
        };
        assert_eq!(seen, Some(wanted));
        if wanted == "unknown" {
            assert!(
                matches!(store.fate(&depool), Err(StoreError::Unreachable(why)) if why.contains("not answered yet"))
            );
        }
    }
    Ok(())
}

#[test]
fn rubbish_is_no_answer() -> Result<()> {
    for rubbish in ["hello\n", "", "1\n", "HTTP/1.0 200 OK\r\n\r\n"] {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("s");
        let _asked = answers(&socket, vec![Some(rubbish.to_owned())]);
        let error = store(&socket, Access::Change, LONG).read(&id("web")).unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{rubbish:?}: {error}");
    }
    Ok(())
}
