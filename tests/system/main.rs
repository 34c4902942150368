//! The product on real parts: booted hosts with systemd, PHP-FPM and nginx, etcd, HAProxy carrying traffic. What each kind
//! of test is about:
//!
//! - `main_job`: the safe restart under load, in both drivers, and its halves;
//! - `emergency`: `--force`, with nothing else alive;
//! - `balancers`: every fault of a load balancer;
//! - `haproxy`: a pool whose load balancers are HAProxies, asked over their runtime API;
//! - `store`: etcd away, frozen, with TLS and passwords, and what operators write meanwhile;
//! - `drain`: requests in flight before the restart, and whether the service serves after it;
//! - `php`: `restart-php-fpm`, as root calls it;
//! - `units`: services that do not come up, or only seem to;
//! - `shipped`: the units of systemd/, each of them;
//! - `shop`: pools that HAProxy itself keeps, and no etcd;
//! - `refusals`: what must be an error before anything is changed;
//! - `status`: how things stand, with parts of it away, for people and for Prometheus;
//! - `nothing_forgotten`: runs that are killed, and never more than N at once;
//! - `sudo`: `restart-php-fpm`, as the deploy user may call it;
//! - `two_runs`: the lock, and signals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod balancers;
mod drain;
mod emergency;
mod haproxy;
mod main_job;
mod nothing_forgotten;
mod php;
mod refusals;
mod shipped;
mod shop;
mod status;
mod store;
mod sudo;
mod two_runs;
mod units;

use std::time::Duration;

use testbed::Result;
use testbed::host::{Host, Output, Running};
use testbed::site::{Builder, PAGES, POOL, POOL_FILE, Site, UNIT};

const TOOL: &str = "/usr/sbin/safe-service-restart";

/// A site whose load balancers follow etcd faster than PyBal does: for tests that are not about pace.
fn site() -> Builder {
    Site::builder().binaries(&["safe-service-restart"]).reopen(Duration::from_millis(50))
}

/// The tool on the first host, for the site's pool.
fn tool(site: &Site, arguments: &[&str]) -> Result<Output> {
    site.host(0).exec(&[&[TOOL, "--pools", POOL], arguments].concat())
}

/// A safe restart of PHP-FPM that does not wait longer than a test has to.
fn restart(site: &Site, arguments: &[&str]) -> Result<Output> {
    tool(site, &[&["--services", UNIT, "--grace-period", "0.3"], arguments].concat())
}

/// The same in the background.
fn start(site: &Site, arguments: &[&str]) -> Result<Running> {
    site.host(0).spawn(&[&[TOOL, "--pools", POOL, "--services", UNIT], arguments].concat())
}

/// The main process of PHP-FPM.
fn php(site: &Site) -> Result<String> {
    site.host(0).property(UNIT, "MainPID")
}

/// The report of a run with `--json`, one field of it.
fn field(output: &Output, name: &str) -> serde_json::Value {
    let report: serde_json::Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"));
    report[name].clone()
}

/// Fails with the whole output unless the run ended with this code.
#[track_caller]
fn expect(output: &Output, code: i32) {
    assert_eq!(output.code(), Some(code), "{output}");
}

/// Fails with the whole output unless it says these words on stderr.
#[track_caller]
fn says(output: &Output, words: &str) {
    assert!(output.stderr.contains(words), "'{words}' is not said: {output}");
}

/// Writes a file on a running host that the tool trusts.
fn put(host: &Host, path: &str, content: &str) -> Result<()> {
    host.write(path, content)
}
