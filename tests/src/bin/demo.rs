//! The product on one screen: a booted host under load, restarted safely and then by force, phase by phase, with the number
//! of requests that each restart cost.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::host::Output;
use testbed::load::Report;
use testbed::site::{PAGES, POOL, POOL_FILE, Site, UNIT};

/// How long the load runs before and after each restart.
const AROUND: Duration = Duration::from_millis(1500);
/// Requests a second.
const RATE: u32 = 60;
/// The work of each request.
const WORK: Duration = Duration::from_millis(200);

/// What each phase of the report means to somebody who sees it for the first time.
const PHASES: [(&str, &str); 11] = [
    ("look at units", "the unit exists, systemd can restart it"),
    ("read pools", "this host's object in etcd says 'pooled: yes'"),
    ("first look at load balancers", "each of them knows this host"),
    ("open journal", "what is about to be done is on disk"),
    ("depool", "the object now says 'pooled: no'"),
    ("load balancers stop sending", "each of them was seen to let go of this host"),
    ("drain", "requests in flight were counted until there were none"),
    ("last look", "nobody pooled the host meanwhile"),
    ("restart", "the unit was restarted and seen to run"),
    ("repool", "the object says 'pooled: yes' again"),
    ("load balancers send again", "each of them was seen to send to this host"),
];

fn main() -> Result<()> {
    println!("Booting etcd, two load balancers (HAProxy), the host mw1, and mw2, which takes over its traffic ...");
    let began = Instant::now();
    // As the README wants a pool of PHP-FPM: requests in flight can be counted.
    let with_pages = |host: testbed::host::Builder| host.file(POOL_FILE, PAGES);
    let site = Site::builder().binaries(&["safe-service-restart"]).each_host(with_pages).boot()?;
    println!(
        "Up after {:.1} s. {RATE} requests a second go through both load balancers, 200 ms of work each.",
        began.elapsed().as_secs_f64()
    );

    act(&site, "1. A safe restart of PHP-FPM on mw1", &["--pools", POOL, "--services", UNIT])?;
    println!("\nThe deployed code is the outage, and nothing is worth waiting for:");
    act(&site, "2. A forced restart", &["--force", "--services", UNIT])
}

/// One restart under load.
fn act(site: &Site, title: &str, arguments: &[&str]) -> Result<()> {
    println!("\n{title}\n   mw1# safe-service-restart {}", arguments.join(" "));
    let load = site.load().rate(RATE).slow(1, WORK).start()?;
    thread::sleep(AROUND);
    let command = [&["/usr/sbin/safe-service-restart", "--json", "--quiet"], arguments].concat();
    let run = site.host(0).exec(&command)?;
    thread::sleep(AROUND);
    let report = load.stop()?;
    tell(&run)?;
    count(&report);
    ensure!(run.status.success(), "{run}");
    Ok(())
}

fn tell(run: &Output) -> Result<()> {
    for line in run.stderr.lines() {
        println!("   {line}");
    }
    let report: Value = serde_json::from_str(&run.stdout).with_context(|| format!("no report: {run}"))?;
    for phase in report["phases"].as_array().into_iter().flatten() {
        let name = phase["phase"].as_str().unwrap_or_default();
        let meaning = PHASES.iter().find(|(known, _)| *known == name).map_or("", |(_, meaning)| meaning);
        println!("   {:>8.3} s  {name:<29} {meaning}", phase["seconds"].as_f64().unwrap_or_default());
    }
    println!("   exit code {}: {}", report["exit_code"], report["state"].as_str().unwrap_or_default());
    Ok(())
}

fn count(report: &Report) {
    println!("   requests: {} answered, {} lost", report.ok, report.lost);
    if let Some(lost) = report.first_lost.first() {
        println!("   the first one lost: {}", lost.why.trim());
    }
}
