//! A pool with `lb: haproxy`: the hosts ask the HAProxies themselves, over TCP. The stand-in for PyBal is the glue that has them
//! follow etcd (`state maint`, `state ready`).

use std::time::Duration;

use testbed::Result;
use testbed::site::{POOL, Site, UNIT};

use crate::{TOOL, expect, field, php, restart, says, site, start, tool};

const HOST: &str = "mw1.eqiad.test";
const LIMIT: Duration = Duration::from_secs(20);

fn behind_haproxy() -> Result<Site> {
    site().haproxy().boot()
}

/// Whether each HAProxy sends to the host, by its own word.
fn ready(site: &Site) -> Result<[bool; 2]> {
    let ready = |index: usize| Ok::<_, anyhow::Error>(site.haproxy(index).server(POOL, HOST)?.status == "no check");
    Ok([ready(0)?, ready(1)?])
}

#[test]
fn a_safe_restart_under_load_loses_no_request() -> Result<()> {
    let site = behind_haproxy()?;
    let before = php(&site)?;
    let load = site.load().rate(100).slow(5, Duration::from_millis(200)).start()?;
    let run = restart(&site, &["--json"])?;
    expect(&run, 0);
    let report = load.stop()?;
    assert_eq!(report.lost, 0, "{report:?}\n{run}");
    assert_ne!(php(&site)?, before, "the unit was not restarted: {run}");
    assert_eq!(field(&run, "state"), "restarted, pooled again in 'appservers'");
    assert_eq!(ready(&site)?, [true, true], "{run}");
    let status = site.host(0).exec(&[TOOL, "--status", "--json"])?;
    expect(&status, 0);
    assert_eq!(field(&status, "pools")[0]["load_balancers"][1]["verdict"], "pooled", "{status}");
    Ok(())
}

#[test]
fn a_host_that_is_depooled_is_out_when_its_last_session_has_ended() -> Result<()> {
    let site = behind_haproxy()?;
    // Every request takes two seconds, and some are under way when the host leaves.
    let load = site.load().rate(20).slow(20, Duration::from_secs(2)).start()?;
    std::thread::sleep(Duration::from_secs(1));
    let run = tool(&site, &["--depool"])?;
    expect(&run, 0);
    for index in 0..2 {
        let server = site.haproxy(index).server(POOL, HOST)?;
        assert_eq!((server.status.as_str(), server.sessions), ("MAINT", 0), "{run}");
    }
    assert_eq!(load.stop()?.lost, 0);
    expect(&tool(&site, &["--pool"])?, 0);
    assert_eq!(ready(&site)?, [true, true]);
    Ok(())
}

#[test]
fn one_that_does_not_follow_the_store_stops_the_run() -> Result<()> {
    let site = behind_haproxy()?;
    let before = php(&site)?;
    // Its glue has stopped taking this host out.
    site.pybal(1).hold(POOL, HOST, true)?;
    let run = restart(&site, &["--lb-timeout", "1"])?;
    expect(&run, 1);
    says(&run, "'lvs2.eqiad.test:9999'");
    says(&run, "says pooled");
    assert_eq!(php(&site)?, before, "{run}");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    Ok(())
}

/// What was set over the socket is gone with the reload: HAProxy sends to the host again while it is `no` in the store.
#[test]
fn a_reload_that_forgets_the_depool_stops_the_restart() -> Result<()> {
    let mut site = behind_haproxy()?;
    let before = php(&site)?;
    let mut run = start(&site, &["--grace-period", "3", "--lb-timeout", "2"])?;
    run.wait_for_stderr("for requests in flight", LIMIT)?;
    site.haproxy_mut(1).reload()?;
    let run = run.wait(LIMIT)?;
    expect(&run, 1);
    says(&run, "right before the restart");
    says(&run, "'lvs2.eqiad.test:9999'");
    assert_eq!(php(&site)?, before, "the unit was restarted: {run}");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    assert_eq!(ready(&site)?, [true, true], "{run}");
    Ok(())
}

#[test]
fn a_name_that_haproxy_does_not_have_stops_the_run_before_any_write() -> Result<()> {
    let site = behind_haproxy()?;
    let before = php(&site)?;
    let catalog = site.host(0).read("/etc/conftool/local_services.yaml")?;
    for (line, words) in
        [("  backend: typo\n", "it has no backend 'typo'"), ("  server: \"{short}\"\n", "does not know it")]
    {
        site.host(0).write("/etc/conftool/local_services.yaml", &format!("{catalog}{line}"))?;
        let run = tool(&site, &["--services", UNIT, "--lb-timeout", "1"])?;
        expect(&run, 69);
        says(&run, words);
        says(&run, "not restarted, pools as found");
        assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    }
    assert_eq!(php(&site)?, before);
    Ok(())
}
