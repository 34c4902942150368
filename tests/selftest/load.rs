use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use testbed::Result;
use testbed::address::Address;
use testbed::load::{Plan, fetch};
use testbed::site::{Site, UNIT};
use testbed::wait;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn nothing_is_lost_when_nothing_happens_and_requests_are_lost_in_a_restart_under_load() -> Result<()> {
    let site = Site::builder().balancers(1).boot()?;
    let load = site.load().rate(100).start()?;
    wait::until("200 requests", LIMIT, || Ok(load.so_far().ok >= 200))?;
    let quiet = load.stop()?;
    assert_eq!(quiet.lost, 0, "{quiet:?}");
    assert!(quiet.first_lost.is_empty());

    // Half of all requests take half a second: at any time there are some that a restart kills.
    let load = site.load().rate(60).slow(2, Duration::from_millis(500)).start()?;
    wait::until("50 requests", LIMIT, || Ok(load.so_far().ok >= 50))?;
    site.host(0).exec(&["systemctl", "restart", UNIT])?.success()?;
    wait::until("50 requests more", LIMIT, || Ok(load.so_far().ok >= 100))?;
    let restarted = load.stop()?;
    assert!(restarted.lost > 0, "{restarted:?}");
    assert!(!restarted.first_lost.is_empty());
    assert!(restarted.first_lost.iter().any(|lost| lost.why.contains("502")), "{restarted:?}");
    Ok(())
}

/// Serves one connection with these bytes and closes it.
fn one_answer(bytes: &'static [u8]) -> Result<(Address, SocketAddr)> {
    let address = Address::reserve()?;
    let listener = TcpListener::bind(address.port(80))?;
    thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(bytes);
        }
    });
    let target = address.port(80);
    Ok((address, target))
}

#[test]
fn whatever_a_user_would_call_lost_is_lost() -> Result<()> {
    let answers: [(&[u8], &str); 5] = [
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nConte", "closed within the answer"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nok 1\n", "502"),
        (b"HTTP/1.1 200 OK\r\n\r\nfatal error", "the body is 'fatal error'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok 1\n\r\n", "cut off"),
    ];
    for (bytes, why) in answers {
        let (_address, target) = one_answer(bytes)?;
        let error = fetch(target, "/", LIMIT).expect_err(why);
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }
    let (_address, target) = one_answer(b"HTTP/1.1 200 OK\r\n\r\nok 1\n")?;
    assert_eq!(fetch(target, "/", LIMIT)?, "ok 1\n");
    let nobody = Address::reserve()?;
    assert!(fetch(nobody.port(80), "/", LIMIT).is_err());
    Ok(())
}

#[test]
fn lost_requests_are_all_counted_and_a_few_described() -> Result<()> {
    let nobody = Address::reserve()?;
    let load = Plan { limit: Duration::from_millis(500), ..Plan::new(vec![nobody.port(80)]) }.start()?;
    // It ends by itself: fifty requests in half a second at a hundred a second.
    wait::until("fifty lost requests", LIMIT, || Ok(load.so_far().lost == 50))?;
    let report = load.stop()?;
    assert_eq!((report.ok, report.lost, report.first_lost.len()), (0, 50, 5));
    assert!(report.first_lost[0].why.contains("refused"), "{report:?}");
    assert!(report.first_lost.is_sorted_by_key(|lost| lost.sent));
    Ok(())
}
