//! Every fault of a load balancer: the host is not restarted, it is as it was found, and the message names who is to blame.

use std::time::Duration;

use testbed::Result;
use testbed::pybal::{Fault, Health};
use testbed::site::{POOL, Site, UNIT};

use crate::{TOOL, expect, php, restart, says, site, start};

const HOST: &str = "mw1.eqiad.test";

/// Nothing of what a run could change has changed.
fn as_found(site: &Site, main_process: &str) -> Result<()> {
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    assert_eq!(php(site)?, main_process, "the unit was restarted");
    site.wait_pooled(0, true)
}

const FAULTS: [Fault; 10] = [
    Fault::Hang,
    Fault::Refuse,
    Fault::Reset,
    Fault::BlackHole,
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(404),
    Fault::Rubbish,
    Fault::Drip,
    Fault::Text,
];

#[test]
fn one_that_is_faulty_from_the_start_stops_the_run_before_any_write() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    for fault in FAULTS {
        site.pybal(1).fault(fault)?;
        let run = restart(&site, &["--lb-timeout", "1", "--timeout", "0.5"])?;
        expect(&run, 69);
        says(&run, "'lvs2.eqiad.test'");
        says(&run, "not restarted, pools as found");
        assert!(!run.stderr.contains("depooled '"), "{fault:?}: {run}");
        site.pybal(1).heal()?;
        as_found(&site, &before)?;
    }
    Ok(())
}

#[test]
fn one_that_becomes_faulty_after_the_depool_has_the_host_put_back() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    for fault in FAULTS {
        let mut run = start(&site, &["--lb-timeout", "2", "--timeout", "0.5", "--grace-period", "1.5"])?;
        run.wait_for_stderr("for requests in flight", Duration::from_secs(20))?;
        site.pybal(1).fault(fault)?;
        run.wait_for_stderr("putting 'mw1.eqiad.test' back", Duration::from_secs(20))?;
        site.pybal(1).heal()?;
        let run = run.wait(Duration::from_secs(20))?;
        expect(&run, 69);
        says(&run, "'lvs2.eqiad.test'");
        as_found(&site, &before)?;
    }
    Ok(())
}

#[test]
fn one_that_holds_the_host_pooled_is_never_taken_for_one_that_let_go() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    site.pybal(0).hold(POOL, HOST, true)?;
    let run = restart(&site, &["--lb-timeout", "1"])?;
    expect(&run, 1);
    says(&run, "says disabled, but keeps it pooled");
    site.pybal(0).hold(POOL, HOST, false)?;
    as_found(&site, &before)
}

/// A dead watcher: 200, well formed, and wrong for ever.
#[test]
fn one_that_serves_stale_state_is_believed_only_in_what_it_says() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    site.pybal(0).stale(true);
    let run = restart(&site, &["--lb-timeout", "1"])?;
    expect(&run, 1);
    says(&run, "'lvs1.eqiad.test' of 'appservers' says pooled");
    site.pybal(0).stale(false);
    as_found(&site, &before)
}

#[test]
fn a_failed_health_check_is_not_our_depool() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    site.pybal(0).stale(true);
    site.pybal(0).set_health(POOL, HOST, Health::Down)?;
    let run = restart(&site, &["--lb-timeout", "1"])?;
    expect(&run, 5);
    says(&run, "its health check fails");
    site.pybal(0).set_health(POOL, HOST, Health::Up)?;
    site.pybal(0).stale(false);
    as_found(&site, &before)
}

#[test]
fn a_quorum_does_without_one_that_is_dead_and_not_without_one_that_says_pooled() -> Result<()> {
    let site = site().boot()?;
    site.pybal(1).fault(Fault::Refuse)?;
    let run = restart(&site, &["--lb-quorum", "1", "--lb-timeout", "3"])?;
    expect(&run, 0);
    says(&run, "the quorum does without one that may still send: load balancer 'lvs2.eqiad.test'");
    site.pybal(1).heal()?;
    site.wait_pooled(0, true)?;
    site.pybal(1).hold(POOL, HOST, true)?;
    let before = php(&site)?;
    expect(&restart(&site, &["--lb-quorum", "1", "--lb-timeout", "1"])?, 1);
    site.pybal(1).hold(POOL, HOST, false)?;
    as_found(&site, &before)
}

#[test]
fn one_that_is_slow_is_awaited() -> Result<()> {
    let site = site().boot()?;
    for pybal in site.pybals() {
        pybal.fault(Fault::Slow(Duration::from_millis(400)))?;
        pybal.forget_requests();
    }
    expect(&restart(&site, &[])?, 0);
    let request = &site.pybal(0).requests()[0];
    assert_eq!(request.path(), "/pools/appservers_80/mw1.eqiad.test");
    assert_eq!(request.accept.as_deref(), Some("application/json"));
    site.wait_pooled(0, true)
}

/// Asked one after the other, the one behind the one that hangs would never be asked within the time allowed.
#[test]
fn one_that_hangs_does_not_keep_the_other_from_being_asked() -> Result<()> {
    let site = site().boot()?;
    for (hanging, other) in [(0, 1), (1, 0)] {
        site.pybal(hanging).fault(Fault::Hang)?;
        site.pybal(other).forget_requests();
        expect(&restart(&site, &["--timeout", "30", "--lb-timeout", "1"])?, 69);
        assert!(!site.pybal(other).requests().is_empty(), "'{}' was never asked", site.balancer_name(other));
        site.pybal(hanging).heal()?;
    }
    Ok(())
}

#[test]
fn a_repool_that_one_does_not_follow_is_exit_4() -> Result<()> {
    let site = site().boot()?;
    let mut run = start(&site, &["--lb-timeout", "2", "--grace-period", "1"])?;
    run.wait_for_stderr("for requests in flight", Duration::from_secs(20))?;
    site.pybal(0).stale(true);
    let run = run.wait(Duration::from_secs(30))?;
    expect(&run, 4);
    says(&run, "'lvs1.eqiad.test' of 'appservers' says not pooled");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    site.pybal(0).stale(false);
    // Saying it once more confirms it.
    expect(&site.host(0).exec(&[TOOL, "--pools", POOL, "--pool"])?, 0);
    Ok(())
}

#[test]
fn a_pool_that_has_no_load_balancer_has_to_say_so() -> Result<()> {
    let site = site().boot()?;
    let catalog = |rest: &str| format!("appservers: {{cluster: appserver, service: php, port: 80, {rest}}}\n");
    let host = site.host(0);
    crate::put(host, "/etc/conftool/local_services.yaml", &catalog("servers: []"))?;
    expect(&restart(&site, &[])?, 78);
    crate::put(host, "/etc/conftool/local_services.yaml", &catalog("lb: none"))?;
    expect(&host.exec(&[TOOL, "--pools", POOL, "--services", UNIT, "--grace-period", "0"])?, 0);
    Ok(())
}
