use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testbed::Result;
use testbed::address::Address;
use testbed::conftool::{Conftool, Node};
use testbed::etcd::{Driver, Etcd};
use testbed::haproxy::{Haproxy, Pool};
use testbed::pybal::{Builder, Fault, Health, Pybal};
use testbed::wait;

const LIMIT: Duration = Duration::from_secs(30);
/// For what must not come: long enough for anything that is on its way to arrive on a quiet machine.
const NOT_COMING: Duration = Duration::from_millis(300);
const FOLDER: &str = "/conftool/v1/pools/eqiad/appserver/php";
const DRIVERS: [Driver; 2] = [Driver::V2, Driver::V3];

fn key(host: &str) -> String {
    format!("{FOLDER}/{host}")
}

fn builder(driver: Driver) -> Builder {
    Pybal::builder(driver).pool("appservers", 80, FOLDER)
}

const YES: &str = r#"{"weight": 10, "pooled": "yes"}"#;
const NO: &str = r#"{"weight": 10, "pooled": "no"}"#;
const INACTIVE: &str = r#"{"weight": 10, "pooled": "inactive"}"#;

/// An etcd with one pooled host `mw1`, and a stand-in that serves it.
fn one_pooled() -> Result<(Etcd, Pybal)> {
    let etcd = Etcd::start()?;
    etcd.store(Driver::V2)?.put(&key("mw1"), YES)?;
    let pybal = builder(Driver::V2).start(&etcd.access())?;
    Ok((etcd, pybal))
}

/// A raw answer: everything up to the end of the connection, or what came before the error.
fn ask(address: SocketAddr, path: &str, accept: Option<&str>, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let accept = accept.map(|accept| format!("Accept: {accept}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: lvs1\r\n{accept}\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let text = String::from_utf8(answer.clone())?;
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
            if body.len() == length.parse::<usize>()? {
                return Ok(text);
            }
        }
        let count = stream.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "the connection was closed after '{text}'");
        answer.extend_from_slice(&buffer[..count]);
    }
}

/// Status and body.
fn get(pybal: &Pybal, path: &str, accept: Option<&str>) -> Result<(u16, String)> {
    get_within(pybal, path, accept, LIMIT)
}

fn get_within(pybal: &Pybal, path: &str, accept: Option<&str>, patience: Duration) -> Result<(u16, String)> {
    let answer = ask(pybal.address(), path, accept, patience)?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    Ok((head.split(' ').nth(1).expect("a status").parse()?, body.to_owned()))
}

const JSON: Option<&str> = Some("application/json");
const HOST: &str = "/pools/appservers_80/mw1";

#[test]
fn every_state_is_answered_as_pybal_answers_it() -> Result<()> {
    let etcd = Etcd::start()?;
    let store = etcd.store(Driver::V2)?;
    let cases = [
        (YES, Health::Up, false, r#"{"pooled": true, "enabled": true, "up": true, "weight": 10}"#, "enabled/up/pooled"),
        (
            NO,
            Health::Up,
            false,
            r#"{"pooled": false, "enabled": false, "up": true, "weight": 10}"#,
            "disabled/up/not pooled",
        ),
        (
            YES,
            Health::Partial,
            false,
            r#"{"pooled": false, "enabled": true, "up": false, "weight": 10}"#,
            "enabled/partially up/not pooled",
        ),
        (
            YES,
            Health::Partial,
            true,
            r#"{"pooled": true, "enabled": true, "up": false, "weight": 10}"#,
            "enabled/partially up/pooled",
        ),
        (
            YES,
            Health::Down,
            true,
            r#"{"pooled": true, "enabled": true, "up": false, "weight": 10}"#,
            "enabled/down/pooled",
        ),
        (
            YES,
            Health::Unchecked,
            false,
            r#"{"pooled": null, "enabled": true, "up": null, "weight": 0}"#,
            "enabled/partially up/not pooled",
        ),
        (NO, Health::Up, true, r#"{"pooled": true, "enabled": false, "up": true, "weight": 10}"#, "disabled/up/pooled"),
    ];
    for (object, health, held, json, text) in cases {
        store.put(&key("mw1"), object)?;
        let pybal = builder(Driver::V2).start(&etcd.access())?;
        pybal.set_health("appservers", "mw1", health)?;
        pybal.hold("appservers", "mw1", held)?;
        assert_eq!(get(&pybal, HOST, JSON)?, (200, json.to_owned()));
        assert_eq!(get(&pybal, HOST, None)?, (200, format!("{text}\n")));
        assert_eq!(get(&pybal, "/pools/appservers_80", JSON)?, (200, format!(r#"{{"mw1": {json}}}"#)));
        assert_eq!(get(&pybal, "/pools/appservers_80/", None)?, (200, format!("mw1:\t{text}\n")));
    }
    Ok(())
}

#[test]
fn what_is_not_there_is_not_found() -> Result<()> {
    let etcd = Etcd::start()?;
    let store = etcd.store(Driver::V2)?;
    store.put(&key("mw1"), YES)?;
    store.put(&key("mw2"), INACTIVE)?;
    let pybal = builder(Driver::V2).start(&etcd.access())?;
    let paths = [
        "/",
        "/pools/appservers",
        "/pools/Appservers_80/mw1",
        "/pools/appservers_80/MW1",
        "/pools/appservers_80/mw2",
        "/pools/appservers_80/mw3",
        "/pools/appservers_80/mw1/",
        "/pools/api_80/mw1",
    ];
    for path in paths {
        let json = r#"{"error": "The desired url was not found"}"#;
        assert_eq!(get(&pybal, path, JSON)?, (404, json.to_owned()), "{path}");
        assert_eq!(get(&pybal, path, None)?, (404, "The desired url was not found".to_owned()), "{path}");
    }
    Ok(())
}

#[test]
fn json_is_for_exactly_one_accept_header() -> Result<()> {
    let (_etcd, pybal) = one_pooled()?;
    for accept in ["application/json, text/plain", "application/json;q=1", "Application/JSON", "*/*"] {
        assert_eq!(get(&pybal, HOST, Some(accept))?, (200, "enabled/up/pooled\n".to_owned()), "{accept}");
    }
    let answer = ask(pybal.address(), HOST, JSON, LIMIT)?;
    assert!(answer.contains("\r\nContent-Type: application/json\r\n"), "{answer}");
    Ok(())
}

#[test]
fn pools_and_alerts_are_listed() -> Result<()> {
    let etcd = Etcd::start()?;
    etcd.store(Driver::V2)?.put(&key("mw1"), YES)?;
    let pybal = builder(Driver::V2).pool("api", 443, "/conftool/v1/pools/eqiad/appserver/api").start(&etcd.access())?;
    assert_eq!(get(&pybal, "/pools", JSON)?, (200, r#"["api_443", "appservers_80"]"#.to_owned()));
    assert_eq!(get(&pybal, "/pools", None)?, (200, "api_443\nappservers_80\n".to_owned()));
    assert_eq!(get(&pybal, "/alerts", JSON)?, (200, r#"{"status": "ok", "msg": "All pools are healthy"}"#.to_owned()));
    pybal.set_health("appservers", "mw1", Health::Down)?;
    pybal.hold("appservers", "mw1", true)?;
    let (status, body) = get(&pybal, "/alerts", JSON)?;
    assert_eq!(status, 200);
    assert!(body.starts_with(r#"{"status": "critical", "msg": "appservers_80: "#), "{body}");
    assert!(pybal.set_health("no such pool", "mw1", Health::Up).is_err());
    Ok(())
}

#[test]
fn a_connection_carries_several_requests() -> Result<()> {
    let (_etcd, pybal) = one_pooled()?;
    let mut stream = TcpStream::connect(pybal.address())?;
    stream.set_read_timeout(Some(LIMIT))?;
    for number in 1..=3 {
        write!(stream, "GET {HOST} HTTP/1.1\r\nHost: lvs1\r\nAccept: application/json\r\n\r\n")?;
        let mut answer = String::new();
        while !answer.ends_with("10}") {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer)?;
            assert!(count > 0, "closed at request {number}");
            answer.push_str(std::str::from_utf8(&buffer[..count])?);
        }
    }
    let requests = pybal.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!((requests[0].path(), requests[0].accept.as_deref()), (HOST, JSON));
    assert_eq!(requests[0].line, format!("GET {HOST} HTTP/1.1"));
    assert!(requests.is_sorted_by_key(|request| request.at));
    pybal.forget_requests();
    assert!(pybal.requests().is_empty());
    Ok(())
}

#[test]
fn a_write_of_the_real_confctl_reaches_haproxy() -> Result<()> {
    let etcd = Etcd::start()?;
    let node = Node::new("eqiad", "appserver", "php", "mw1");
    for driver in DRIVERS {
        let conftool = Conftool::new(driver, &etcd.access())?;
        conftool.create(std::slice::from_ref(&node), "weight=10:pooled=yes")?;
        let address = Address::reserve()?;
        let haproxy = Haproxy::start(&[Pool {
            name: "appservers".to_owned(),
            listen: address.port(80),
            servers: vec![("mw1".to_owned(), address.port(8080))],
        }])?;
        let status = || Ok::<_, anyhow::Error>(haproxy.server("appservers", "mw1")?.status);
        assert_eq!(status()?, "MAINT", "traffic before anybody said so");
        let pybal = builder(driver).haproxy(haproxy.control()).start(&etcd.access())?;
        assert_eq!(status()?, "no check");

        conftool.set(&node, "pooled=no")?;
        wait::until("the depool", LIMIT, || Ok(pybal.pooled("appservers", "mw1") == Some(false)))?;
        assert_eq!(status()?, "MAINT");
        conftool.set(&node, "pooled=yes")?;
        wait::until("the repool", LIMIT, || Ok(pybal.pooled("appservers", "mw1") == Some(true)))?;
        assert_eq!(status()?, "no check");

        // Its health moves traffic, too.
        pybal.set_health("appservers", "mw1", Health::Down)?;
        assert_eq!(status()?, "MAINT");
        pybal.set_health("appservers", "mw1", Health::Up)?;
        assert_eq!(status()?, "no check");

        conftool.set(&node, "pooled=inactive")?;
        wait::until("the host to be gone", LIMIT, || Ok(pybal.pooled("appservers", "mw1").is_none()))?;
        assert_eq!(status()?, "MAINT");
        assert_eq!(pybal.problems(), Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_burst_is_seen_whole_in_order_and_one_by_one() -> Result<()> {
    let etcd = Etcd::start()?;
    for driver in DRIVERS {
        let store = etcd.store(driver)?;
        let hosts = ["mw3", "mw1", "mw4", "mw2"];
        for host in hosts {
            store.put(&key(host), YES)?;
        }
        let reopen = Duration::from_millis(100);
        let pybal = builder(driver).reopen(reopen).start(&etcd.access())?;
        let before = pybal.changes().len();
        for host in hosts {
            store.put(&key(host), NO)?;
        }
        wait::until("all four", LIMIT, || Ok(pybal.changes().len() == before + 4))?;
        let changes = &pybal.changes()[before..];
        let order: Vec<_> = changes.iter().map(|change| (change.server.as_str(), change.pooled)).collect();
        assert_eq!(order, hosts.map(|host| (host, false)), "{driver:?}");
        // At least, not about: a busy machine only makes it longer.
        assert!(changes.windows(2).all(|pair| pair[1].at - pair[0].at >= reopen), "{driver:?}: {changes:?}");
    }
    Ok(())
}

#[test]
fn the_pause_between_watches_is_a_second_by_default() -> Result<()> {
    let (etcd, pybal) = one_pooled()?;
    let store = etcd.store(Driver::V2)?;
    store.put(&key("mw1"), NO)?;
    store.put(&key("mw1"), YES)?;
    // Its first change is that it was found pooled at the start.
    wait::until("both events", LIMIT, || Ok(pybal.changes().len() == 3))?;
    let changes = pybal.changes();
    assert!(changes[2].at - changes[1].at >= Duration::from_secs(1), "{changes:?}");
    Ok(())
}

#[test]
fn an_object_that_is_not_json_is_a_problem_and_changes_nothing() -> Result<()> {
    let (etcd, pybal) = one_pooled()?;
    etcd.store(Driver::V2)?.put(&key("mw1"), "rubbish")?;
    wait::until("the complaint", LIMIT, || Ok(!pybal.problems().is_empty()))?;
    assert_eq!(pybal.pooled("appservers", "mw1"), Some(true));
    Ok(())
}

#[test]
fn etcd_may_go_and_come_back() -> Result<()> {
    let (mut etcd, pybal) = one_pooled()?;
    etcd.kill(0)?;
    assert_eq!(get(&pybal, HOST, None)?.1, "enabled/up/pooled\n");
    etcd.start_again(0)?;
    etcd.wait_healthy(0)?;
    etcd.store(Driver::V2)?.put(&key("mw1"), NO)?;
    wait::until("the depool", LIMIT, || Ok(pybal.pooled("appservers", "mw1") == Some(false)))
}

#[test]
fn a_held_server_stays_pooled_after_its_depool() -> Result<()> {
    let (etcd, pybal) = one_pooled()?;
    pybal.hold("appservers", "mw1", true)?;
    etcd.store(Driver::V2)?.put(&key("mw1"), NO)?;
    wait::until("the depool", LIMIT, || Ok(get(&pybal, HOST, None)?.1 == "disabled/up/pooled\n"))?;
    pybal.hold("appservers", "mw1", false)?;
    assert_eq!(get(&pybal, HOST, None)?.1, "disabled/up/not pooled\n");
    Ok(())
}

#[test]
fn a_stale_stand_in_never_changes_until_it_begins_anew() -> Result<()> {
    let (etcd, pybal) = one_pooled()?;
    let other = builder(Driver::V2).start(&etcd.access())?;
    pybal.stale(true);
    etcd.store(Driver::V2)?.put(&key("mw1"), NO)?;
    wait::until("another one to see the depool", LIMIT, || Ok(other.pooled("appservers", "mw1") == Some(false)))?;
    assert_eq!(get(&pybal, HOST, None)?, (200, "enabled/up/pooled\n".to_owned()));
    pybal.stale(false);
    wait::until("the depool", LIMIT, || Ok(pybal.pooled("appservers", "mw1") == Some(false)))
}

/// What the client of a stand-in with this fault gets: an answer, or the kind of its failure.
fn outcome(fault: Fault, patience: Duration) -> Result<Result<(u16, String), String>> {
    let (_etcd, pybal) = one_pooled()?;
    pybal.fault(fault)?;
    let outcome =
        get_within(&pybal, HOST, JSON, patience).map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(error) => format!("{:?}", error.kind()),
            None => format!("{error:#}"),
        });
    // Whatever it was, it can be healed, at the same address.
    pybal.heal()?;
    assert_eq!(get(&pybal, HOST, None)?, (200, "enabled/up/pooled\n".to_owned()), "after {fault:?}");
    Ok(outcome)
}

#[test]
fn faults_that_answer_answer_as_told() -> Result<()> {
    let good = r#"{"pooled": true, "enabled": true, "up": true, "weight": 10}"#;
    assert_eq!(outcome(Fault::None, LIMIT)?, Ok((200, good.to_owned())));
    assert_eq!(outcome(Fault::Slow(Duration::from_millis(50)), LIMIT)?, Ok((200, good.to_owned())));
    assert_eq!(outcome(Fault::Text, LIMIT)?, Ok((200, "enabled/up/pooled\n".to_owned())));
    let not_found = r#"{"error": "The desired url was not found"}"#;
    assert_eq!(outcome(Fault::Status(404), LIMIT)?, Ok((404, not_found.to_owned())));
    for status in [500, 503] {
        assert_eq!(outcome(Fault::Status(status), LIMIT)?.map(|(status, _)| status), Ok(status));
    }
    let rubbish = outcome(Fault::Rubbish, LIMIT)?;
    assert!(matches!(&rubbish, Ok((200, body)) if !body.ends_with('}')), "{rubbish:?}");
    Ok(())
}

#[test]
fn faults_that_do_not_answer_fail_each_in_its_way() -> Result<()> {
    for fault in [Fault::Hang, Fault::Slow(LIMIT), Fault::Drip] {
        assert_eq!(outcome(fault, NOT_COMING)?, Err("WouldBlock".to_owned()), "{fault:?}");
    }
    assert_eq!(outcome(Fault::Refuse, LIMIT)?, Err("ConnectionRefused".to_owned()));
    assert_eq!(outcome(Fault::Reset, LIMIT)?, Err("ConnectionReset".to_owned()));
    assert_eq!(outcome(Fault::BlackHole, NOT_COMING)?, Err("TimedOut".to_owned()));
    Ok(())
}

#[test]
fn a_dripping_answer_drips() -> Result<()> {
    let (_etcd, pybal) = one_pooled()?;
    pybal.fault(Fault::Drip)?;
    let mut stream = TcpStream::connect(pybal.address())?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {HOST} HTTP/1.1\r\nHost: lvs1\r\n\r\n")?;
    let mut received = Vec::new();
    let mut pieces = Vec::new();
    while !received.ends_with(b"\r\n\r\nen") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer)?;
        assert!(count > 0, "closed after {received:?}");
        received.extend_from_slice(&buffer[..count]);
        pieces.push(count);
    }
    // The head at once, then byte after byte; two of them together only when this test was kept from reading.
    assert!(pieces.len() > 1, "{pieces:?}");
    Ok(())
}

#[test]
fn a_fault_hits_connections_that_are_open_and_requests_that_wait() -> Result<()> {
    let (_etcd, pybal) = one_pooled()?;
    pybal.fault(Fault::Hang)?;
    let mut waiting = TcpStream::connect(pybal.address())?;
    waiting.set_read_timeout(Some(LIMIT))?;
    write!(waiting, "GET {HOST} HTTP/1.1\r\nHost: lvs1\r\n\r\n")?;
    wait::until("the request", LIMIT, || Ok(pybal.requests().len() == 1))?;
    pybal.fault(Fault::Refuse)?;
    let mut rest = Vec::new();
    // Closed or reset, but over, and without an answer.
    let _ = waiting.read_to_end(&mut rest);
    assert!(rest.is_empty());
    Ok(())
}
