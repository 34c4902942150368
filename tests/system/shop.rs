//! `driver: haproxy`: two web servers behind HAProxies that keep the pool themselves, and one file on each host.

use std::time::Duration;

use testbed::Result;
use testbed::host::{Output, Running};
use testbed::poolcounterd::Poolcounterd;
use testbed::shop::{FILE, POOL, Shop, WEIGHT};
use testbed::site::UNIT;

use crate::{TOOL, expect, field, says};

const LIMIT: Duration = Duration::from_secs(20);
/// What a drained server's status begins with in HAProxy's statistics, and a ready one's.
const DRAINED: &str = "DRAIN";
const READY: &str = "no check";

fn shop(proxies: usize) -> Result<Shop> {
    Shop::boot(2, proxies, &["safe-service-restart", "restart-php-fpm"], |host| host)
}

fn tool(shop: &Shop, arguments: &[&str]) -> Result<Output> {
    shop.host(0).exec(&[&[TOOL, "--pools", POOL, "--lb-timeout", "3"], arguments].concat())
}

fn restart(shop: &Shop, arguments: &[&str]) -> Result<Output> {
    tool(shop, &[&["--services", UNIT, "--grace-period", "0.3"], arguments].concat())
}

fn start(shop: &Shop, host: usize, arguments: &[&str]) -> Result<Running> {
    let common = [TOOL, "--pools", POOL, "--services", UNIT, "--lb-timeout", "3"];
    shop.host(host).spawn(&[&common, arguments].concat())
}

fn php(shop: &Shop, host: usize) -> Result<String> {
    shop.host(host).property(UNIT, "MainPID")
}

/// How the first host stands at each HAProxy.
fn stands(shop: &Shop, proxy: usize) -> Result<String> {
    Ok(shop.server(proxy, 0)?.status)
}

#[test]
fn one_file_is_all_that_a_safe_restart_under_load_needs() -> Result<()> {
    let shop = shop(1)?;
    for absent in ["/etc/conftool/local_services.yaml", "/etc/conftool/etcdrc", "/etc/wikimedia-cluster"] {
        assert_ne!(shop.host(0).exec(&["test", "-e", absent])?.code(), Some(0), "'{absent}' is there");
    }
    shop.order(0, 0, "weight 7")?;
    let (mine, other) = (php(&shop, 0)?, php(&shop, 1)?);
    let load = shop.load().rate(100).slow(5, Duration::from_millis(200)).start()?;
    let run = restart(&shop, &["--json"])?;
    expect(&run, 0);
    let report = load.stop()?;
    assert_eq!(report.lost, 0, "{report:?}\n{run}");
    assert_ne!(php(&shop, 0)?, mine, "the unit was not restarted: {run}");
    assert_eq!(php(&shop, 1)?, other);
    assert_eq!(field(&run, "state"), "restarted, pooled again in 'web'");
    assert_eq!(stands(&shop, 0)?, READY);
    assert_eq!((shop.weight(0, 0)?, shop.weight(0, 1)?), (7, WEIGHT), "a weight was not kept: {run}");
    let audit = shop.host(0).exec(&["journalctl", "--quiet", "--output=cat", "--grep=conftool.audit"])?.success()?;
    let name = format!("\"service.name\": \"pools/haproxy/{}/web/web1.shop.test\"", shop.api(0));
    assert_eq!(audit.matches(&name).count(), 2, "{audit}");
    assert_eq!(audit.matches(r#""event.outcome": "success""#).count(), 2, "{audit}");
    Ok(())
}

#[test]
fn the_halves_the_plan_and_the_status_need_no_other_file_either() -> Result<()> {
    let shop = shop(1)?;
    let plan = tool(&shop, &["--services", UNIT, "--dry-run"])?;
    expect(&plan, 0);
    assert!(plan.stdout.contains(&format!("{} web/web1.shop.test", shop.api(0))), "{plan}");
    assert_eq!(stands(&shop, 0)?, READY);
    let status = shop.host(0).exec(&[TOOL, "--status"])?;
    expect(&status, 0);
    assert!(status.stdout.contains("web1.shop.test is IN SERVICE"), "{status}");
    expect(&tool(&shop, &["--depool"])?, 0);
    assert_eq!(stands(&shop, 0)?, DRAINED);
    let status = shop.host(0).exec(&[TOOL, "--status"])?;
    assert!(status.stdout.contains("OUT OF SERVICE") && status.stdout.contains("--pool --pools web"), "{status}");
    expect(&tool(&shop, &["--pool"])?, 0);
    assert_eq!(stands(&shop, 0)?, READY);
    shop.host(0).write("/etc/restart-php-fpm.yaml", "pools: [web]\ngrace_period: 0.3\n")?;
    let before = php(&shop, 0)?;
    let run = shop.host(0).exec(&["/usr/sbin/restart-php-fpm"])?;
    expect(&run, 0);
    assert_ne!(php(&shop, 0)?, before, "{run}");
    Ok(())
}

#[test]
fn an_operators_maint_is_left_alone() -> Result<()> {
    let shop = shop(1)?;
    shop.order(0, 0, "state maint")?;
    let run = restart(&shop, &[])?;
    expect(&run, 0);
    says(&run, "already 'inactive' in 'web', and stays so");
    expect(&tool(&shop, &["--pool"])?, 0);
    assert_eq!(stands(&shop, 0)?, "MAINT");
    // And one that comes while the host is out because of us.
    shop.order(0, 0, "state ready")?;
    let mut run = start(&shop, 0, &["--grace-period", "2"])?;
    run.wait_for_stderr("for requests in flight", LIMIT)?;
    shop.order(0, 0, "state maint")?;
    let run = run.wait(LIMIT)?;
    expect(&run, 0);
    says(&run, "left to whoever changed it");
    assert_eq!(stands(&shop, 0)?, "MAINT");
    Ok(())
}

#[test]
fn a_reload_that_forgets_the_drain_stops_the_restart() -> Result<()> {
    let mut shop = shop(1)?;
    let before = php(&shop, 0)?;
    let mut run = start(&shop, 0, &["--grace-period", "2"])?;
    run.wait_for_stderr("for requests in flight", LIMIT)?;
    shop.haproxy_mut(0).reload()?;
    let run = run.wait(LIMIT)?;
    expect(&run, 1);
    says(&run, "or haproxy was restarted or reloaded and has forgotten that it is out");
    assert_eq!(php(&shop, 0)?, before, "the unit was restarted: {run}");
    assert_eq!(stands(&shop, 0)?, READY, "{run}");
    Ok(())
}

/// Servers are mostly called `web1` in HAProxy, and hosts by their full name here.
#[test]
fn a_name_that_haproxy_calls_otherwise_is_told_with_the_key_that_says_so() -> Result<()> {
    let shop = shop(1)?;
    let file = shop.host(0).read(FILE)?;
    for (key, words, seen) in [
        ("backend: typo", "it has no backend 'typo' (the pool's key 'backend', by default its name)", 78),
        ("server: \"{short}\"", "there is no object 'web/web1' in HAProxy", 0),
    ] {
        shop.host(0).write(FILE, &file.replace("{port:", &format!("{{{key}, port:")))?;
        let run = restart(&shop, &[])?;
        expect(&run, 78);
        says(&run, words);
        let status = shop.host(0).exec(&[TOOL, "--status"])?;
        expect(&status, seen);
        assert!(status.stdout.contains(words), "{status}");
    }
    Ok(())
}

#[test]
fn of_a_pair_both_are_told_and_one_that_is_dead_stops_the_run() -> Result<()> {
    let mut shop = shop(2)?;
    let before = php(&shop, 0)?;
    let load = shop.load().rate(100).slow(5, Duration::from_millis(200)).start()?;
    let run = restart(&shop, &[])?;
    expect(&run, 0);
    assert_eq!(load.stop()?.lost, 0, "{run}");
    for proxy in 0..2 {
        says(&run, &format!("depooled 'web1.shop.test' in 'web' at '{}'", shop.api(proxy)));
        assert_eq!(stands(&shop, proxy)?, READY);
    }
    let restarted = php(&shop, 0)?;
    assert_ne!(restarted, before);
    shop.haproxy_mut(1).kill()?;
    let run = restart(&shop, &[])?;
    expect(&run, 69);
    says(&run, &format!("HAProxy at '{}': connection refused", shop.api(1)));
    assert_eq!((php(&shop, 0)?, stands(&shop, 0)?), (restarted.clone(), READY.to_owned()), "{run}");
    let status = shop.host(0).exec(&[TOOL, "--status"])?;
    expect(&status, 69);
    // An emergency asks nobody.
    expect(&shop.host(0).exec(&[TOOL, "--services", UNIT, "--force"])?, 0);
    assert_ne!(php(&shop, 0)?, restarted);
    Ok(())
}

#[test]
fn a_dead_haproxy_of_a_pair_does_not_keep_a_host_out_of_the_other_one() -> Result<()> {
    let mut shop = shop(2)?;
    let mut run = start(&shop, 0, &["--grace-period", "30"])?;
    run.wait_for_stderr("for requests in flight", LIMIT)?;
    run.signal(nix::sys::signal::Signal::SIGKILL)?;
    run.wait(LIMIT)?;
    assert_eq!([stands(&shop, 0)?, stands(&shop, 1)?], [DRAINED, DRAINED]);
    shop.haproxy_mut(1).kill()?;
    let recover = |shop: &Shop| shop.host(0).exec(&[TOOL, "--recover", "--lb-timeout", "2"]);
    let recovery = recover(&shop)?;
    expect(&recovery, 5);
    says(&recovery, &format!("perhaps still depooled: 'web/web1.shop.test' in HAProxy at '{}'", shop.api(1)));
    assert_eq!(stands(&shop, 0)?, READY, "{recovery}");
    shop.start_again(1)?;
    expect(&recover(&shop)?, 0);
    expect(&shop.host(0).exec(&[TOOL, "--status"])?, 0);
    Ok(())
}

#[test]
fn a_host_that_one_of_a_pair_calls_otherwise_is_not_restarted() -> Result<()> {
    let shop = shop(2)?;
    let before = php(&shop, 0)?;
    let name = format!("{POOL}/{}", shop.host(0).name());
    let gone = format!("set server {name} state maint; del server {name}");
    let answer = shop.haproxy(1).control().command(&gone)?;
    assert!(answer.contains("Server deleted."), "{answer}");
    let run = restart(&shop, &[])?;
    expect(&run, 78);
    says(&run, &format!("there is no '{name}' in HAProxy at '{}'", shop.api(1)));
    assert_eq!((php(&shop, 0)?, stands(&shop, 0)?), (before, READY.to_owned()), "{run}");
    Ok(())
}

#[test]
fn a_haproxy_that_takes_no_orders_is_refused_before_anything_is_done() -> Result<()> {
    let mut shop = shop(1)?;
    let before = php(&shop, 0)?;
    shop.level(0, "user")?;
    for arguments in [&["--dry-run"][..], &[]] {
        let run = restart(&shop, arguments)?;
        expect(&run, 78);
        says(&run, "'set server' takes 'level admin'");
    }
    assert_eq!((php(&shop, 0)?.as_str(), stands(&shop, 0)?.as_str()), (before.as_str(), READY));
    // To look takes no more than that.
    expect(&shop.host(0).exec(&[TOOL, "--status"])?, 0);
    Ok(())
}

/// Without revisions neither of two that leave in the same moment can be told to be the first: both go back.
#[test]
fn of_two_that_leave_at_the_same_time_never_both_restart_at_once() -> Result<()> {
    let shop = shop(1)?;
    for _ in 0..5 {
        let before = [php(&shop, 0)?, php(&shop, 1)?];
        let runs = [start(&shop, 0, &["--grace-period", "0.3"])?, start(&shop, 1, &["--grace-period", "0.3"])?];
        for (host, run) in runs.into_iter().enumerate() {
            let run = run.wait(LIMIT)?;
            let restarted = php(&shop, host)? != before[host];
            assert!(matches!((run.code(), restarted), (Some(0), true) | (Some(75), false)), "{run}");
        }
        assert_eq!([shop.server(0, 0)?.status, shop.server(0, 1)?.status], [READY, READY]);
    }
    // One that is alone is kept from nothing by what the two did.
    expect(&restart(&shop, &[])?, 0);
    Ok(())
}

#[test]
fn with_poolcounter_two_at_the_same_time_take_turns_and_lose_nothing() -> Result<()> {
    let shop = shop(1)?;
    let poolcounter = Poolcounterd::start()?;
    for host in 0..2 {
        shop.host(host).write("/etc/poolcounter-backends.yaml", &poolcounter.backend("pc1"))?;
    }
    let load = shop.load().rate(100).slow(5, Duration::from_millis(200)).start()?;
    let arguments = ["--grace-period", "0.5", "--max-concurrency", "1"];
    let before = [php(&shop, 0)?, php(&shop, 1)?];
    let runs = [start(&shop, 0, &arguments)?, start(&shop, 1, &arguments)?];
    for (host, run) in runs.into_iter().enumerate() {
        let run = run.wait(LIMIT)?;
        expect(&run, 0);
        assert_ne!(php(&shop, host)?, before[host], "{run}");
    }
    let report = load.stop()?;
    assert_eq!(report.lost, 0, "{report:?}");
    Ok(())
}

/// A held host whose HAProxy was restarted is sent requests again, and nobody put it back.
#[test]
fn a_held_host_that_haproxy_forgot_is_said_until_its_unit_runs() -> Result<()> {
    let mut shop = Shop::boot(2, 1, &["safe-service-restart"], |host| {
        host.drop_in("php8.2-fpm.service", "broken.conf", "[Service]\nExecStartPre=/usr/bin/test ! -e /run/broken\n")
    })?;
    shop.host(0).write("/run/broken", "")?;
    expect(&restart(&shop, &[])?, 3);
    assert_eq!(stands(&shop, 0)?, DRAINED);
    shop.haproxy_mut(0).reload()?;
    assert_eq!(stands(&shop, 0)?, READY);
    let recovery = shop.host(0).exec(&[TOOL, "--recover"])?;
    expect(&recovery, 3);
    says(&recovery, "is in service in 'web' all the same");
    let way_out = "safe-service-restart --depool --pools web";
    says(&recovery, &format!("repair it, or take it out with '{way_out}'"));
    let status = shop.host(0).exec(&[TOOL, "--status"])?;
    expect(&status, 3);
    assert!(status.stdout.contains(&format!("take out  {way_out}\n")), "{status}");
    expect(&shop.host(0).exec(&way_out.split(' ').collect::<Vec<_>>())?, 0);
    assert_eq!(stands(&shop, 0)?, DRAINED);
    expect(&shop.host(0).exec(&[TOOL, "--pool", "--pools", "web"])?, 0);
    shop.host(0).exec(&["rm", "/run/broken"])?.success()?;
    expect(&restart(&shop, &[])?, 0);
    expect(&shop.host(0).exec(&[TOOL, "--status"])?, 0);
    Ok(())
}

/// The other one serves nobody, so that this one has to stay.
#[test]
fn a_server_that_is_down_counts_as_not_pooled() -> Result<()> {
    let mut shop = shop(1)?;
    let before = php(&shop, 1)?;
    shop.down(0)?;
    let run = start(&shop, 1, &[])?.wait(LIMIT)?;
    expect(&run, 75);
    says(&run, "would leave 0 of 2 hosts in 'web'");
    assert_eq!(php(&shop, 1)?, before, "{run}");
    Ok(())
}

#[test]
fn a_limit_takes_poolcounter() -> Result<()> {
    let shop = shop(1)?;
    let run = restart(&shop, &["--max-concurrency", "1"])?;
    expect(&run, 78);
    says(&run, "no lock service to count them: '/etc/poolcounter-backends.yaml' does not exist");
    // Who plans without one is told what that means.
    let plan = restart(&shop, &["--dry-run"])?;
    expect(&plan, 0);
    assert!(format!("{plan}").contains("--max-concurrency, which takes poolcounter"), "{plan}");
    Ok(())
}

#[test]
fn a_run_that_was_killed_is_brought_back_also_by_a_haproxy_that_forgot_it() -> Result<()> {
    for forgets in [false, true] {
        let mut shop = shop(1)?;
        let mut run = start(&shop, 0, &["--grace-period", "30"])?;
        run.wait_for_stderr("for requests in flight", LIMIT)?;
        run.signal(nix::sys::signal::Signal::SIGKILL)?;
        run.wait(LIMIT)?;
        assert_eq!(stands(&shop, 0)?, DRAINED);
        if forgets {
            shop.haproxy_mut(0).reload()?;
        }
        let recovery = shop.host(0).exec(&[TOOL, "--recover", "--lb-timeout", "3"])?;
        expect(&recovery, 0);
        assert_eq!(stands(&shop, 0)?, READY, "{recovery}");
        let status = shop.host(0).exec(&[TOOL, "--status"])?;
        expect(&status, 0);
    }
    Ok(())
}

#[test]
fn the_pools_stand_in_the_one_file_with_this_driver_alone() -> Result<()> {
    let shop = shop(1)?;
    let text = shop.host(0).read(FILE)?;
    shop.host(0).write(FILE, &text.replace("driver: haproxy", "driver: etcd3"))?;
    let run = restart(&shop, &[])?;
    expect(&run, 78);
    says(&run, "'pools' stands in this file with 'driver: haproxy' alone");
    Ok(())
}
