//! Ping and status, in peace and with every process busy.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use php_fpm::fastcgi::{self, Fault, Request, Response, Stage};
use php_fpm::{Address, AnsweredBy, AskFault, Helper, Pool, Source};
use testbed::address::Address as Reserved;
use testbed::{Result, wait};

use crate::fpm::{Fpm, LONG, Root, section};

/// Enough for an answer that is not going to come.
const SHORT: Duration = Duration::from_millis(300);

const PAGES: &str = "pm.status_path = /status\nping.path = /ping";

/// Blocks until the file is there, and then says so.
const UNTIL: &str = "<?php while (!file_exists('@/go')) { usleep(5000); clearstatcache(); } echo 'gone';";

/// Requests that each keep a process until [`release`].
fn occupy(fpm: &Fpm, pool: &Pool, count: usize) -> Vec<JoinHandle<Response>> {
    let script = fpm.root.write("until.php", UNTIL);
    let request = move |address: Address, script: String| {
        thread::spawn(move || fastcgi::call(&address, &Request::script(&script), LONG).unwrap())
    };
    (0..count).map(|_| request(pool.listen.clone(), script.clone())).collect()
}

fn release(fpm: &Fpm, requests: Vec<JoinHandle<Response>>) {
    fpm.root.write("go", "");
    for request in requests {
        assert_eq!(request.join().unwrap().body, b"gone");
    }
}

/// Waits until the status page says so many in flight.
fn until_in_flight(pool: &Pool, count: u64) -> Result<()> {
    let page = pool.status_page()?;
    wait::until(&format!("{count} in flight"), LONG, || Ok(page.ask(LONG)?.in_flight() == count))
}

#[test]
fn a_pool_answers_its_ping_and_its_status() -> Result<()> {
    let fpm = Root::new()?.start(&section("www", 2, PAGES), &[])?;
    let pool = fpm.pool("www");
    pool.ping()?.ask(LONG)?;
    // The first process answers before the second has reported for duty; and whoever answered the ping is active until it has put
    // that away, after we have the answer.
    let page = pool.status_page()?;
    let status = wait::until_some("both processes with nothing to do", LONG, || {
        Ok(Some(page.ask(LONG)?).filter(|status| (status.total, status.in_flight()) == (2, 0)))
    })?;
    assert_eq!((status.pool.as_str(), status.process_manager.as_str()), ("www", "static"));
    assert_eq!((status.active, status.queued()), (1, None));
    assert!(status.is_drained() && status.processes.is_none());
    let full = pool.status_page()?.ask_full(LONG)?;
    let processes = full.processes.unwrap();
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().any(|process| process.state == "Running" && process.uri == "/status?json&full"));
    Ok(())
}

#[test]
fn the_pools_own_ping_response_is_expected() -> Result<()> {
    let more = "ping.path = /ping\nping.response = \"I am $pool; \"  fine";
    let fpm = Root::new()?.start(&section("www", 1, more), &[])?;
    let pool = fpm.pool("www");
    assert_eq!(pool.ping_response, "I am www; fine");
    pool.ping()?.ask(LONG)?;
    let error = Pool { ping_response: "pong".to_owned(), ..pool }.ping()?.ask(LONG).unwrap_err();
    let expected = format!(
        "ping page '/ping' of pool 'www' at '{}': it says 'I am www; fine' instead of 'pong'",
        fpm.root.path("www.sock")
    );
    assert_eq!(error.to_string(), expected);
    Ok(())
}

#[test]
fn what_clients_send_never_makes_a_page_unreadable() -> Result<()> {
    // A listener of its own, so that the pool's process remembers the client's request and not ours.
    let fpm = Root::new()?.start(&section("www", 1, &format!("{PAGES}\npm.status_listen = @/status.sock")), &[])?;
    let pool = fpm.pool("www");
    let script = fpm.root.write("echo.php", "<?php echo 'ok';");
    let uri = "/a\"b\\c\u{1b}\u{e9}</script>";
    let request = Request { script_name: uri.to_owned(), query: "x=\"}]}\\".to_owned(), ..Request::script(&script) };
    assert_eq!(fastcgi::call(&pool.listen, &request, LONG)?.body, b"ok");
    pool.status_page()?.ask(LONG)?;
    let processes = pool.status_page()?.ask_full(LONG)?.processes.unwrap();
    assert!(processes.iter().any(|process| process.uri == format!("{uri}?x=\"}}]}}\\")), "{processes:?}");
    Ok(())
}

#[test]
fn requests_are_in_flight_until_they_are_answered() -> Result<()> {
    let fpm = Root::new()?.start(&section("www", 4, PAGES), &[])?;
    let pool = fpm.pool("www");
    let requests = occupy(&fpm, &pool, 2);
    until_in_flight(&pool, 2)?;
    assert!(!pool.status_page()?.ask(LONG)?.is_drained());
    release(&fpm, requests);
    until_in_flight(&pool, 0)?;
    Ok(())
}

#[test]
fn with_every_process_busy_all_pages_time_out_but_the_one_with_a_listener() -> Result<()> {
    let listener = format!("{PAGES}\npm.status_listen = @/status.sock");
    let fpm = Root::new()?.start(&section("www", 2, &listener), &[])?;
    let pool = fpm.pool("www");
    assert_eq!(pool.status_listen, Some(Address::Unix(PathBuf::from(fpm.root.path("status.sock")))));
    let page = pool.status_page()?;
    assert_eq!(page.answered_by(), AnsweredBy::StatusListener);
    assert_eq!(page.ask(LONG)?.in_flight(), 0);

    // Two with a process each and one that waits for one.
    let requests = occupy(&fpm, &pool, 3);
    until_in_flight(&pool, 2)?;
    let busy = page.ask(LONG)?;
    assert_eq!((busy.idle, busy.active, busy.in_flight(), busy.queued()), (0, 2, 2, None));

    let without = Pool { status_listen: None, ..pool.clone() };
    let error = without.status_page()?.ask(SHORT).unwrap_err();
    let expected = format!(
        "status page '/status' of pool 'www' at '{}': timed out after 300ms, waiting for the answer",
        fpm.root.path("www.sock")
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.is_time_out());
    let error = pool.ping()?.ask(SHORT).unwrap_err();
    assert!(error.is_time_out(), "{error}");
    release(&fpm, requests);
    until_in_flight(&pool, 0)?;
    pool.ping()?.ask(LONG)?;
    Ok(())
}

#[test]
fn a_status_listener_alone_answers_at_the_root() -> Result<()> {
    let fpm = Root::new()?.start(&section("www", 1, "pm.status_listen = @/status.sock"), &[])?;
    let status = fpm.pool("www").status_page()?.ask(LONG)?;
    assert_eq!((status.active, status.in_flight()), (0, 0));
    Ok(())
}

#[test]
fn a_full_queue_is_waited_for_in_bounds() -> Result<()> {
    let fpm = Root::new()?.start(&section("www", 1, &format!("{PAGES}\nlisten.backlog = 1")), &[])?;
    let pool = fpm.pool("www");
    let requests = occupy(&fpm, &pool, 1);
    wait::until("the process to be busy", LONG, || Ok(pool.ping()?.ask(SHORT).is_err()))?;
    // Each try that times out at a later stage has left its connection in the queue.
    wait::until("the queue to be full", LONG, || {
        let error = fastcgi::call(&pool.listen, &Request::page("/ping", ""), SHORT).unwrap_err();
        assert!(matches!(error.fault(), Fault::TimedOut { .. }), "{error}");
        Ok(matches!(error.fault(), Fault::TimedOut { stage: Stage::Connecting, .. }))
    })?;
    let error = pool.ping()?.ask(SHORT).unwrap_err();
    assert!(error.to_string().ends_with("timed out after 300ms, waiting to be connected"), "{error}");
    release(&fpm, requests);
    pool.ping()?.ask(LONG)?;
    Ok(())
}

#[test]
fn over_tcp_the_queue_is_known() -> Result<()> {
    let reserved = Reserved::reserve()?;
    let port = reserved.port(9000);
    let text = section("www", 1, PAGES).replace("listen = @/www.sock", &format!("listen = {port}"));
    let fpm = Root::new()?.start(&text, &[])?;
    let pool = fpm.pool("www");
    assert_eq!(pool.listen, Address::Tcp { host: reserved.to_string(), port: 9000 });
    pool.ping()?.ask(LONG)?;
    assert_eq!(pool.status_page()?.ask(LONG)?.queued(), Some(0));
    Ok(())
}

/// PHP-FPM closes the connection of whoever is not let in, without a word: who that is has to be known before.
#[test]
fn whom_a_pool_does_not_let_in_is_known_as_php_fpm_has_it() -> Result<()> {
    let table = [
        ("127.0.0.1", true),
        ("127.1.2.3,127.0.0.1", true),
        ("127.1.2.3", false),
        ("127.1.2.3, 127.0.0.1", false),
        ("127.0.0.0/8", false),
        ("any", false),
        ("", false),
    ];
    for (allowed, is_let_in) in table {
        let reserved = Reserved::reserve()?;
        let more = format!("{PAGES}\nlisten.allowed_clients = {allowed}");
        let listen = format!("listen = {}", reserved.port(9000));
        let fpm = Root::new()?.start(&section("www", 1, &more).replace("listen = @/www.sock", &listen), &[])?;
        let pool = fpm.pool("www");
        let answer = fastcgi::call(&pool.listen, &Request::page("/ping", ""), LONG);
        assert_eq!(answer.is_ok(), is_let_in, "'{allowed}': {answer:?}");
        match (pool.ping(), is_let_in) {
            (Ok(ping), true) => ping.ask(LONG)?,
            (Err(error), false) => {
                let words = "pool 'www' does not tell this host its ping page: add '127.0.0.1' to its 'listen.allowed_clients' in ";
                assert!(error.to_string().starts_with(words), "'{allowed}': {error}");
                let figures = Source::Helper(Helper::new(&pool)).read(LONG).unwrap_err().to_string();
                assert!(figures.contains("it lets nobody in from this host: add '127.0.0.1' to its "), "{figures}");
            }
            (found, _) => panic!("'{allowed}': {found:?}"),
        }
        assert_eq!(pool.status_page().is_ok(), is_let_in, "'{allowed}'");
    }
    Ok(())
}

#[test]
fn a_pool_without_pages_says_which_directives_to_add() -> Result<()> {
    let fpm = Root::new()?.start(&section("www", 1, ""), &[])?;
    let pool = fpm.pool("www");
    let file = fpm.root.path("php-fpm.conf");
    let missing = |page: &str, directive: &str| format!("pool 'www' has no {page}: add '{directive}' to '{file}'");
    assert_eq!(pool.ping().unwrap_err().to_string(), missing("ping page", "ping.path = /fpm-ping"));
    assert_eq!(pool.status_page().unwrap_err().to_string(), missing("status page", "pm.status_path = /fpm-status"));
    Ok(())
}

#[test]
fn a_page_that_was_added_and_not_loaded_yet_says_to_reload() -> Result<()> {
    let fpm = Root::new()?.start(&section("www", 1, ""), &[])?;
    let text = format!("[global]\n{}", section("www", 1, PAGES));
    let file = fpm.root.write("php-fpm.conf", &text);
    let pool = fpm.pool("www");
    for error in [pool.ping()?.ask(LONG).unwrap_err(), pool.status_page()?.ask(LONG).unwrap_err()] {
        assert!(matches!(error.fault(), AskFault::Refused { status: 403 | 404, .. }), "{error}");
        assert!(error.to_string().ends_with(&format!("reload it if '{file}' was changed")), "{error}");
    }
    Ok(())
}

#[test]
fn a_socket_that_is_gone_is_named() -> Result<()> {
    let fpm = Root::new()?.start(&section("www", 1, PAGES), &[])?;
    let pool = fpm.pool("www");
    let socket = fpm.root.path("www.sock");
    std::fs::remove_file(&socket)?;
    let error = pool.ping()?.ask(LONG).unwrap_err();
    let expected = format!("ping page '/ping' of pool 'www' at '{socket}': cannot connect: no such file or directory");
    assert_eq!(error.to_string(), expected);
    Ok(())
}

#[test]
fn a_php_fpm_that_died_is_refused_by_its_socket() -> Result<()> {
    let mut fpm = Root::new()?.start(&section("www", 1, PAGES), &[])?;
    let pool = fpm.pool("www");
    let socket = fpm.root.path("www.sock");
    let kept = format!("{socket}.kept");
    // The socket's file outlives its process.
    std::fs::rename(&socket, &kept)?;
    let dead = Pool { listen: Address::Unix(PathBuf::from(kept)), ..pool };
    dead.ping()?.ask(LONG)?;
    fpm.kill();
    // Its processes go one after the other.
    wait::until("the socket to be refused", LONG, || {
        let answer = dead.ping()?.ask(LONG);
        Ok(answer.is_err_and(|error| error.to_string().ends_with("cannot connect: connection refused")))
    })?;
    Ok(())
}
