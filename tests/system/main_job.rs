//! The safe restart under load, in both drivers, and its halves.

use std::time::Duration;

use testbed::Result;
use testbed::etcd::Driver;
use testbed::site::{POOL, Site, UNIT};

use crate::{TOOL, expect, field, php, restart, says, site, tool};

/// The whole promise, on PyBal's own pace, with the defaults of the original.
fn no_request_is_lost(driver: Driver) -> Result<()> {
    let site = Site::builder().driver(driver).binaries(&["safe-service-restart"]).boot()?;
    let before = php(&site)?;
    let object = site.conftool().raw(&site.node(0))?;
    let load = site.load().rate(100).slow(5, Duration::from_millis(200)).start()?;
    let run = tool(&site, &["--services", UNIT, "--json", "--reason", "the main job"])?;
    expect(&run, 0);
    site.wait_pooled(0, true)?;
    let report = load.stop()?;
    assert!(report.ok > 300, "the load was too light to show anything: {report:?}\n{run}");
    assert_eq!(report.lost, 0, "{report:?}\n{run}");
    assert_ne!(php(&site)?, before, "the unit was not restarted: {run}");
    assert_eq!(site.conftool().raw(&site.node(0))?, object, "the object is not as it was");
    assert_eq!(field(&run, "state"), "restarted, pooled again in 'appservers'");
    assert_eq!(field(&run, "reason"), "the main job");
    // One line for each of our two writes, as conftool's own writes leave them.
    let audit = site.host(0).exec(&["journalctl", "--quiet", "--output=cat", "--grep=conftool.audit"])?.success()?;
    let ours: Vec<_> = audit.lines().filter(|line| line.contains("pools/eqiad/appserver/php/mw1.eqiad.test")).collect();
    assert_eq!(ours.len(), 2, "audit lines: {audit}");
    for part in ["@cee: {", r#""event.action": "write""#, r#""service.type": "node""#, r#""event.outcome": "success""#]
    {
        assert!(ours[0].contains(part), "'{part}' is not in {}", ours[0]);
    }
    let pybal = site.pybal(0);
    assert_eq!(pybal.problems(), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_safe_restart_under_load_loses_no_request_v2() -> Result<()> {
    no_request_is_lost(Driver::V2)
}

#[test]
fn a_safe_restart_under_load_loses_no_request_v3() -> Result<()> {
    no_request_is_lost(Driver::V3)
}

#[test]
fn a_reload_keeps_the_main_process() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    expect(&restart(&site, &["--reload"])?, 0);
    assert_eq!(php(&site)?, before);
    site.wait_pooled(0, true)
}

#[test]
fn depool_and_pool_are_halves_that_can_be_repeated() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    for _ in 0..2 {
        expect(&tool(&site, &["--depool", "--grace-period", "0"])?, 0);
        assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
        // Confirmed means confirmed: nobody sends at the moment the tool returns.
        assert!(site.pybals().all(|pybal| pybal.pooled(POOL, "mw1.eqiad.test") == Some(false)));
    }
    for _ in 0..2 {
        expect(&tool(&site, &["--pool"])?, 0);
        assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
        assert!(site.pybals().all(|pybal| pybal.pooled(POOL, "mw1.eqiad.test") == Some(true)));
    }
    assert_eq!(php(&site)?, before);
    Ok(())
}

#[test]
fn a_node_that_is_out_is_restarted_and_left_out() -> Result<()> {
    let site = site().boot()?;
    for pooled in ["no", "inactive"] {
        site.conftool().set(&site.node(0), &format!("pooled={pooled}"))?;
        site.wait_pooled(0, false)?;
        let before = php(&site)?;
        let run = restart(&site, &[])?;
        expect(&run, 0);
        says(&run, &format!("is already '{pooled}' in 'appservers'"));
        assert_ne!(php(&site)?, before);
        assert_eq!(site.conftool().pooled(&site.node(0))?, pooled);
    }
    // `--pool` puts back what is `no`, and leaves an operator's `inactive`.
    expect(&tool(&site, &["--pool"])?, 0);
    assert_eq!(site.conftool().pooled(&site.node(0))?, "inactive");
    Ok(())
}

#[test]
fn two_pools_are_left_and_come_back() -> Result<()> {
    let site = site().pool("api", "api", 81).boot()?;
    let run =
        site.host(0).exec(&[TOOL, "--pools", POOL, "api", "--services", UNIT, "--grace-period", "0.1", "--json"])?;
    expect(&run, 0);
    assert_eq!(field(&run, "state"), "restarted, pooled again in 'api', 'appservers'");
    site.wait_pooled(0, true)
}

#[test]
fn a_dry_run_prints_each_write_and_makes_none() -> Result<()> {
    let site = site().boot()?;
    let (before, object) = (php(&site)?, site.conftool().raw(&site.node(0))?.unwrap());
    let run = restart(&site, &["--dry-run"])?;
    expect(&run, 0);
    let key = "/conftool/v1/pools/eqiad/appserver/php/mw1.eqiad.test";
    let out = object.replace(r#""yes""#, r#""no""#);
    let expected = format!("would depool {key} {out}\nwould restart php8.2-fpm.service\nwould repool {key} {object}\n");
    assert_eq!(run.stdout, expected, "{run}");
    assert_eq!((php(&site)?, site.conftool().raw(&site.node(0))?.unwrap()), (before, object));
    // An ordinary user may look, as far as the files let him.
    site.host(0).exec(&["chmod", "0644", "/etc/conftool/etcdrc"])?.success()?;
    let as_user = ["runuser", "-u", "www-data", "--", TOOL, "--pools", POOL, "--services", UNIT];
    let run = site.host(0).exec(&[&as_user[..], &["--dry-run"]].concat())?;
    expect(&run, 0);
    assert_eq!(run.stdout, expected, "{run}");
    expect(&site.host(0).exec(&as_user)?, 77);
    Ok(())
}

#[test]
fn a_dry_run_fails_as_the_run_would() -> Result<()> {
    let site = site().boot()?;
    site.pybal(1).fault(testbed::pybal::Fault::Refuse)?;
    let run = restart(&site, &["--dry-run", "--lb-timeout", "1"])?;
    expect(&run, 69);
    says(&run, "lvs2.eqiad.test");
    Ok(())
}
