use std::thread;
use std::time::Duration;

use testbed::Result;
use testbed::etcd::Driver;
use testbed::load::fetch;
use testbed::site::{POOL, Site, UNIT};
use testbed::wait;

const LIMIT: Duration = Duration::from_secs(30);

/// Depools through conftool and watches the traffic go and come back, with requests in flight all the time.
fn traffic_follows_conftool(driver: Driver) -> Result<()> {
    let site = Site::builder().driver(driver).reopen(Duration::from_millis(50)).boot()?;
    let (node, host) = (site.node(0), site.host(0).name().to_owned());
    let totals = || -> Result<Vec<u64>> {
        (0..2).map(|balancer| Ok(site.haproxy(balancer).server(POOL, &host)?.total)).collect()
    };
    let load = site.load().rate(60).start()?;
    wait::until("traffic on the host", LIMIT, || Ok(totals()?.iter().all(|total| *total > 10)))?;

    site.conftool().set(&node, "pooled=no")?;
    site.wait_pooled(0, false)?;
    let at_depool = totals()?;
    let sent = load.so_far().ok;
    wait::until("a hundred requests more", LIMIT, || Ok(load.so_far().ok > sent + 100))?;
    // A request that HAProxy was just handing over when it was told may count one more.
    let after = totals()?;
    assert!(at_depool.iter().zip(&after).all(|(before, after)| after - before <= 1), "{at_depool:?} {after:?}");
    for balancer in 0..2 {
        let server = site.haproxy(balancer).server(POOL, &host)?;
        assert_eq!((server.status.as_str(), server.sessions), ("MAINT", 0));
    }

    // With no traffic on it, the service can be restarted, which is what all this is for.
    site.host(0).exec(&["systemctl", "restart", UNIT])?.success()?;

    site.conftool().set(&node, "pooled=yes")?;
    site.wait_pooled(0, true)?;
    wait::until("traffic on the host again", LIMIT, || {
        Ok(totals()?.iter().zip(&after).all(|(now, before)| *now > before + 10))
    })?;
    let report = load.stop()?;
    assert_eq!(report.lost, 0, "{report:?}");
    for pybal in site.pybals() {
        assert_eq!(pybal.problems(), Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn traffic_follows_conftool_in_v2() -> Result<()> {
    traffic_follows_conftool(Driver::V2)
}

#[test]
fn traffic_follows_conftool_in_v3() -> Result<()> {
    traffic_follows_conftool(Driver::V3)
}

#[test]
fn a_request_in_flight_survives_a_depool() -> Result<()> {
    let site = Site::builder().balancers(1).hosts(&["mw1.eqiad.test"]).boot()?;
    let target = site.load().targets[0];
    let host = site.host(0).name();
    let in_flight = thread::spawn(move || fetch(target, "/slow.php?ms=3000", LIMIT));
    wait::until("the request on the host", LIMIT, || Ok(site.haproxy(0).server(POOL, host)?.sessions == 1))?;
    site.conftool().set(&site.node(0), "pooled=no")?;
    site.wait_pooled(0, false)?;
    // It is still there, and nobody else gets in.
    let server = site.haproxy(0).server(POOL, host)?;
    assert_eq!((server.status.as_str(), server.sessions), ("MAINT", 1));
    let refused = fetch(target, "/index.php", LIMIT).expect_err("the only server is out of service");
    assert!(refused.to_string().contains("503"), "{refused:#}");
    let body = in_flight.join().expect("no panic")?;
    assert!(body.contains("ok "), "{body}");
    Ok(())
}

#[test]
fn a_host_knows_everybody_by_name_and_finds_its_pool() -> Result<()> {
    let site =
        Site::builder().pool("api", "api-php", 8080).each_host(|host| host.file("/etc/motd", "a test\n")).boot()?;
    let host = site.host(0);
    assert_eq!(host.exec(&["hostname", "--fqdn"])?.success()?, "mw1.eqiad.test\n");
    assert_eq!(host.read("/etc/motd")?, "a test\n");
    for index in 0..2 {
        let url = format!("http://{}:9090/pools/appservers_80/mw1.eqiad.test", site.balancer_name(index));
        let answer = host.exec(&["curl", "-s", "-H", "Accept: application/json", &url])?.success()?;
        assert_eq!(answer, r#"{"pooled": true, "enabled": true, "up": true, "weight": 10}"#);
    }
    assert!(host.read("/etc/conftool/local_services.yaml")?.contains("api:\n"));
    assert_eq!(site.conftool().pooled(&site.node_in("api", 1)?)?, "yes");
    Ok(())
}
