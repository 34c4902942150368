//! A run may die at any instant: what it took out is brought back by the next run, by `--recover`, and by the shipped timer.
//! And never more than N at once.

use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::Output;
use testbed::poolcounterd::Poolcounterd;
use testbed::site::{POOL, Site, UNIT};

use crate::{TOOL, expect, php, put, restart, says, site, start, tool};

const SOON: Duration = Duration::from_secs(30);
const JOURNAL: &str = "/var/lib/safe-service-restart/journal.json";

fn recover(site: &Site) -> Result<Output> {
    site.host(0).exec(&[TOOL, "--recover"])
}

fn has_journal(site: &Site) -> Result<bool> {
    Ok(site.host(0).exec(&["test", "-e", JOURNAL])?.status.success())
}

/// Kills a run once it has said this.
fn killed_after(site: &Site, words: &str) -> Result<()> {
    let mut run = start(site, &["--grace-period", "2", "--settle", "2"])?;
    run.wait_for_stderr(words, SOON)?;
    run.signal(Signal::SIGKILL)?;
    assert_eq!(run.wait(SOON)?.code(), None);
    assert!(has_journal(site)?, "killed after '{words}', and there is no journal");
    Ok(())
}

#[test]
fn what_a_killed_run_took_out_is_brought_back_by_a_recovery() -> Result<()> {
    for driver in [Driver::V2, Driver::V3] {
        let site = site().driver(driver).boot()?;
        expect(&recover(&site)?, 0);
        for words in ["depooled '", "for requests in flight", "restarting '"] {
            killed_after(&site, words)?;
            assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
            // The systemctl that a killed run had started holds the lock until it is done; the timer comes again, too.
            testbed::wait::until("the recovery", SOON, || {
                expect(&recover(&site)?, 0);
                Ok(!has_journal(&site)?)
            })?;
            assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
            site.wait_pooled(0, true)?;
            // Nothing is left to be done, and nothing is said.
            let quiet = recover(&site)?;
            expect(&quiet, 0);
            assert_eq!(quiet.stderr, "", "{quiet}");
        }
    }
    Ok(())
}

/// A caller that does not collect it, such as a script that has gone on as another program, leaves its process behind, dead.
#[test]
fn a_killed_run_that_nobody_collects_is_finished_all_the_same() -> Result<()> {
    let site = site().boot()?;
    let host = site.host(0);
    let script = format!("{TOOL} --pools {POOL} --services {UNIT} --grace-period 20 & exec sleep 300");
    let mut caller = host.spawn(&["bash", "-c", &script])?;
    caller.wait_for_stderr("for requests in flight", SOON)?;
    host.exec(&["pkill", "--signal", "KILL", "--full", &format!("^{TOOL}")])?.success()?;
    let dead = "a run that is dead and still there";
    testbed::wait::until(dead, SOON, || Ok(host.exec(&["ps", "-eo", "stat=,args="])?.success()?.contains("Z ")))?;
    let status = host.exec(&[TOOL, "--status"])?;
    expect(&status, 5);
    assert!(status.stdout.contains("safe-service-restart --recover"), "{status}");
    let run = recover(&site)?;
    expect(&run, 0);
    says(&run, "repooled");
    assert!(!has_journal(&site)?, "{run}");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes", "{run}");
    Ok(())
}

#[test]
fn a_power_cut_forgets_nothing() -> Result<()> {
    let mut site = site().boot()?;
    let mut run = start(&site, &["--grace-period", "20"])?;
    run.wait_for_stderr("for requests in flight", SOON)?;
    site.host_mut(0).power_cut()?;
    drop(run);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
    site.host_mut(0).boot_again()?;
    expect(&recover(&site)?, 0);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    site.wait_pooled(0, true)
}

#[test]
fn the_next_run_finishes_what_a_killed_one_left() -> Result<()> {
    let site = site().boot()?;
    killed_after(&site, "for requests in flight")?;
    let before = php(&site)?;
    let plan = restart(&site, &["--dry-run"])?;
    expect(&plan, 0);
    says(&plan, "that would be finished first");
    says(&plan, "because of an earlier run");
    assert!(plan.stdout.contains("would repool "), "{plan}");
    assert!(!plan.stderr.contains("stays so"), "{plan}");
    expect(&restart(&site, &[])?, 0);
    assert_ne!(php(&site)?, before);
    assert!(!has_journal(&site)?);
    site.wait_pooled(0, true)
}

#[test]
fn a_recovery_does_not_disturb_a_living_run() -> Result<()> {
    let site = site().boot()?;
    let mut run = start(&site, &["--grace-period", "3"])?;
    run.wait_for_stderr("for requests in flight", SOON)?;
    let quiet = recover(&site)?;
    expect(&quiet, 0);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
    expect(&run.wait(SOON)?, 0);
    site.wait_pooled(0, true)
}

#[test]
fn what_an_operator_wrote_meanwhile_is_left_by_the_recovery() -> Result<()> {
    for driver in [Driver::V2, Driver::V3] {
        let site = site().driver(driver).boot()?;
        killed_after(&site, "for requests in flight")?;
        site.conftool().set(&site.node(0), "pooled=inactive")?;
        let run = recover(&site)?;
        expect(&run, 0);
        says(&run, "left to whoever changed it");
        assert_eq!(site.conftool().pooled(&site.node(0))?, "inactive");
    }
    Ok(())
}

#[test]
fn a_host_whose_unit_does_not_run_is_held_until_it_is_mended() -> Result<()> {
    let site = site().boot()?;
    killed_after(&site, "for requests in flight")?;
    site.host(0).exec(&["systemctl", "stop", UNIT])?.success()?;
    let held = recover(&site)?;
    expect(&held, 3);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
    // It runs again, but that is no reason for the timer: somebody may be looking at it.
    site.host(0).exec(&["systemctl", "start", UNIT])?.success()?;
    let reported = recover(&site)?;
    expect(&reported, 3);
    says(&reported, "is held depooled since");
    // A good run is.
    expect(&restart(&site, &[])?, 0);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    expect(&recover(&site)?, 0);
    Ok(())
}

#[test]
fn a_damaged_journal_is_reported_until_it_is_removed_and_never_acted_on() -> Result<()> {
    let site = site().boot()?;
    let host = site.host(0);
    host.exec(&["install", "-d", "-m", "0700", "/var/lib/safe-service-restart"])?.success()?;
    put(host, JOURNAL, "{damaged")?;
    host.exec(&["chmod", "0600", JOURNAL])?.success()?;
    expect(&recover(&site)?, 1);
    let run = restart(&site, &[])?;
    expect(&run, 0);
    says(&run, "was set aside");
    let run = recover(&site)?;
    expect(&run, 1);
    says(&run, "set aside");
    host.exec(&["bash", "-c", "rm /var/lib/safe-service-restart/journal.set-aside-*"])?.success()?;
    expect(&recover(&site)?, 0);
    Ok(())
}

#[test]
fn a_disk_that_takes_no_journal_stops_the_run_before_any_write() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    site.host(0)
        .exec(&[
            "bash",
            "-c",
            "install -d -m 0700 /var/lib/safe-service-restart && \
        mount -t tmpfs -o ro,mode=0700 none /var/lib/safe-service-restart",
        ])?
        .success()?;
    let run = restart(&site, &[])?;
    expect(&run, 1);
    says(&run, "Read-only file system");
    assert_eq!(php(&site)?, before);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    // An emergency does not wait for a disk.
    expect(&site.host(0).exec(&[TOOL, "--force", "--services", UNIT])?, 0);
    Ok(())
}

#[test]
fn a_pool_is_never_emptied() -> Result<()> {
    let site = site().boot()?;
    site.conftool().set(&site.node(1), "pooled=no")?;
    site.wait_pooled(1, false)?;
    let before = php(&site)?;
    let run = restart(&site, &[])?;
    expect(&run, 75);
    says(
        &run,
        "would leave 0 of 2 hosts in 'appservers', and 1 have to stay pooled (--min-pooled or 'min_pooled', 50%)",
    );
    assert_eq!(php(&site)?, before);
    expect(&restart(&site, &["--min-pooled", "0"])?, 0);
    Ok(())
}

/// The backends file names the daemon by its address; the port is always poolcounter's own.
fn with_poolcounter(site: &Site, daemon: &Poolcounterd) -> Result<()> {
    put(site.host(0), "/etc/poolcounter-backends.yaml", &daemon.backend("pc1"))
}

#[test]
fn a_limit_that_nobody_counts_is_an_error_and_no_limit_needs_nobody() -> Result<()> {
    let site = site().boot()?;
    let run = restart(&site, &["--max-concurrency", "1"])?;
    expect(&run, 78);
    says(&run, "no lock service");
    expect(&restart(&site, &["--max-concurrency", "0"])?, 0);
    Ok(())
}

#[test]
fn without_a_slot_nothing_is_changed() -> Result<()> {
    for driver in [Driver::V2, Driver::V3] {
        let site = site().driver(driver).boot()?;
        let daemon = Poolcounterd::start()?;
        // v3 keeps its own slots unless poolcounter's file is there.
        if driver == Driver::V2 {
            with_poolcounter(&site, &daemon)?;
        }
        expect(&restart(&site, &["--max-concurrency", "50%"])?, 0);
        // The other host of the pool has the one slot.
        if driver == Driver::V2 {
            with_poolcounter_on(&site, 1, &daemon)?;
        }
        let arguments = ["--pools", POOL, "--services", UNIT, "--max-concurrency", "1", "--grace-period", "6"];
        let mut other = site.host(1).spawn(&[&[TOOL][..], &arguments].concat())?;
        other.wait_for_stderr("for requests in flight", SOON)?;
        let before = php(&site)?;
        let run = restart(&site, &["--max-concurrency", "1", "--slot-timeout", "1"])?;
        expect(&run, 75);
        assert_eq!(php(&site)?, before);
        assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
        // With patience it is our turn in the end.
        expect(&restart(&site, &["--max-concurrency", "1"])?, 0);
        expect(&other.wait(SOON)?, 0);
    }
    Ok(())
}

fn with_poolcounter_on(site: &Site, host: usize, daemon: &Poolcounterd) -> Result<()> {
    put(site.host(host), "/etc/poolcounter-backends.yaml", &daemon.backend("pc1"))
}

#[test]
fn a_lock_service_that_is_away_stops_a_safe_run_and_no_forced_one() -> Result<()> {
    let site = site().boot()?;
    let mut daemon = Poolcounterd::start()?;
    with_poolcounter(&site, &daemon)?;
    daemon.freeze()?;
    let before = php(&site)?;
    expect(&restart(&site, &["--max-concurrency", "1"])?, 69);
    assert_eq!(php(&site)?, before);
    let forced = [TOOL, "--force", "--services", UNIT, "--pools", POOL, "--max-concurrency", "1"];
    let run = site.host(0).exec(&forced)?;
    expect(&run, 0);
    says(&run, "without a slot");
    assert_ne!(php(&site)?, before);
    // A share takes the store to count, and an emergency does not ask it.
    let run = site.host(0).exec(&[&forced[..7], &["10%"]].concat())?;
    expect(&run, 0);
    says(&run, "a share of a pool");
    Ok(())
}

#[test]
fn a_slot_that_is_lost_while_the_host_is_out_has_it_put_back() -> Result<()> {
    let site = site().boot()?;
    let mut daemon = Poolcounterd::start()?;
    with_poolcounter(&site, &daemon)?;
    let before = php(&site)?;
    let mut run = start(&site, &["--max-concurrency", "1", "--grace-period", "2"])?;
    run.wait_for_stderr("for requests in flight", SOON)?;
    daemon.kill()?;
    let run = run.wait(SOON)?;
    expect(&run, 69);
    says(&run, "not restarted, pools as found");
    assert_eq!(php(&site)?, before);
    site.wait_pooled(0, true)
}

/// The units as they are shipped, on a host that boots with them.
#[test]
fn the_shipped_timer_brings_a_host_back() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");
    let file = |name: &str| std::fs::read_to_string(format!("{folder}/{name}"));
    let service = file("safe-service-restart-recover.service")?;
    let timer = file("safe-service-restart-recover.timer")?;
    let site = site().each_host(move |host| {
        host.unit("safe-service-restart-recover.service", &service).unit("safe-service-restart-recover.timer", &timer)
    });
    let site = site.boot()?;
    killed_after(&site, "for requests in flight")?;
    // What the timer does when its time has come.
    site.host(0).exec(&["systemctl", "start", "safe-service-restart-recover.service"])?.success()?;
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    assert!(!has_journal(&site)?);
    site.host(0).exec(&["systemctl", "start", "safe-service-restart-recover.timer"])?.success()?;
    assert_eq!(site.host(0).property("safe-service-restart-recover.timer", "ActiveState")?, "active");
    expect(&tool(&site, &["--depool", "--grace-period", "0"])?, 0);
    site.host(0).exec(&["systemctl", "start", "safe-service-restart-recover.service"])?.success()?;
    // What an operator depooled is nobody's to bring back.
    assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
    Ok(())
}
