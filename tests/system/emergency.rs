//! `--force`: needs nothing but systemd.

use std::time::Duration;

use testbed::Result;
use testbed::site::UNIT;

use crate::{TOOL, expect, php, says, site, start};

#[test]
fn force_restarts_with_store_balancers_and_every_file_gone() -> Result<()> {
    let mut site = site().boot()?;
    site.etcd_mut().kill(0)?;
    for pybal in site.pybals() {
        pybal.forget_requests();
    }
    site.host(0).exec(&["rm", "-rf", "/etc/conftool", "/etc/wikimedia-cluster"])?.success()?;
    let before = php(&site)?;
    let run = site.host(0).exec(&[TOOL, "--force", "--services", UNIT])?;
    expect(&run, 0);
    assert_ne!(php(&site)?, before);
    says(&run, "requests in flight");
    let warnings = run.stderr.lines().filter(|line| line.contains("warning:")).count();
    assert_eq!(warnings, 1, "{run}");
    // With pools named, too: they are not even looked up.
    let run = site.host(0).exec(&[TOOL, "--force", "--pools", "no-such-pool", "--services", UNIT])?;
    expect(&run, 0);
    assert!(site.pybals().all(|pybal| pybal.requests().is_empty()), "a load balancer was asked");
    Ok(())
}

#[test]
fn a_bare_restart_under_load_loses_requests_and_the_test_bed_sees_it() -> Result<()> {
    let site = site().boot()?;
    let load = site.load().rate(200).slow(2, Duration::from_millis(200)).start()?;
    std::thread::sleep(Duration::from_millis(500));
    let run = site.host(0).exec(&[TOOL, "--force", "--services", UNIT])?;
    expect(&run, 0);
    std::thread::sleep(Duration::from_millis(500));
    let report = load.stop()?;
    assert!(report.lost > 0, "a forced restart lost nothing: the load would not see a loss either: {report:?}");
    Ok(())
}

#[test]
fn force_does_not_wait_for_a_safe_run() -> Result<()> {
    let site = site().boot()?;
    let mut safe = start(&site, &["--grace-period", "4"])?;
    safe.wait_for_stderr("for requests in flight", Duration::from_secs(20))?;
    let before = php(&site)?;
    let run = site.host(0).exec(&[TOOL, "--force", "--services", UNIT])?;
    expect(&run, 0);
    assert_ne!(php(&site)?, before);
    assert!(!safe.ended()?, "the safe run was over before the forced one");
    let safe = safe.wait(Duration::from_secs(30))?;
    // The forced restart in between is no surprise to the safe one.
    expect(&safe, 0);
    site.wait_pooled(0, true)
}

/// systemd stops a running service when it is restarted more than five times in ten seconds, and does not start it again.
#[test]
fn a_start_limit_never_leaves_the_service_stopped() -> Result<()> {
    let site = site().each_host(|host| {
        host.drop_in("php8.2-fpm.service", "limit.conf", "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n")
    });
    let site = site.boot()?;
    let mut said = false;
    for _ in 0..8 {
        let run = site.host(0).exec(&[TOOL, "--force", "--services", UNIT])?;
        expect(&run, 0);
        assert_eq!(site.host(0).property(UNIT, "ActiveState")?, "active", "{run}");
        said |= run.stderr.contains("start limit");
    }
    assert!(said, "eight restarts never met the limit");
    for _ in 0..5 {
        expect(&crate::restart(&site, &["--settle", "0"])?, 0);
        assert_eq!(site.host(0).property(UNIT, "ActiveState")?, "active");
    }
    Ok(())
}
