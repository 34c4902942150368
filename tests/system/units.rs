//! Services that do not come up, or only seem to: the host stays depooled, and says so.

use testbed::Result;
use testbed::site::{POOL, Site};

use crate::{TOOL, expect, says, site, tool};

/// A service that runs until its file says otherwise: `fail` at the start, or `die` right after it reported ready.
const UNIT: &str = "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/bash -c \
    'grep -qs fail /etc/mood && exit 3; systemd-notify --ready; grep -qs die /etc/mood && { sleep 0.2; exit 4; }; \
     exec sleep infinity'\nTimeoutStartSec=3\n";

fn boot() -> Result<Site> {
    let restarting = format!("{UNIT}Restart=always\nRestartSec=0\n");
    let stuck = "[Service]\nType=notify\nExecStart=/bin/sleep infinity\nTimeoutStartSec=2\n";
    let site = site().each_host(move |host| {
        host.unit("moody.service", UNIT).unit("stubborn.service", &restarting).unit("stuck.service", stuck)
    });
    let site = site.boot()?;
    site.host(0).exec(&["systemctl", "start", "moody", "stubborn"])?.success()?;
    Ok(site)
}

fn mood(site: &Site, mood: &str) -> Result<()> {
    crate::put(site.host(0), "/etc/mood", mood)
}

#[test]
fn a_failed_restart_leaves_the_host_depooled_and_the_way_back_is_said() -> Result<()> {
    let site = boot()?;
    for (set, unit) in [("fail", "moody"), ("die", "moody"), ("die", "stubborn"), ("", "stuck")] {
        mood(&site, set)?;
        let run = tool(&site, &["--services", unit, "--grace-period", "0"])?;
        expect(&run, 3);
        says(&run, &format!("cannot restart '{unit}.service'"));
        says(&run, "left depooled in 'appservers'; once it is healthy, put it back with");
        assert_eq!(site.conftool().pooled(&site.node(0))?, "no");
        site.wait_pooled(0, false)?;
        mood(&site, "")?;
        if unit != "stuck" {
            site.host(0).exec(&["systemctl", "reset-failed", unit])?.success()?;
            site.host(0).exec(&["systemctl", "restart", unit])?.success()?;
        }
        expect(&tool(&site, &["--pool"])?, 0);
    }
    Ok(())
}

#[test]
fn every_unit_is_tried_and_the_first_failure_decides() -> Result<()> {
    let site = boot()?;
    mood(&site, "fail")?;
    let before = crate::php(&site)?;
    let run = tool(&site, &["--services", "moody", "php8.2-fpm", "--grace-period", "0"])?;
    expect(&run, 3);
    assert_ne!(crate::php(&site)?, before, "the second unit was not tried: {run}");
    Ok(())
}

#[test]
fn a_forced_restart_that_fails_is_exit_3_and_touches_no_pool() -> Result<()> {
    let site = boot()?;
    mood(&site, "fail")?;
    let run = site.host(0).exec(&[TOOL, "--force", "--services", "moody"])?;
    expect(&run, 3);
    says(&run, "pools untouched");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    Ok(())
}

/// systemd's own counter must start again with a restart on purpose, or a service that crashed once would never pass again.
#[test]
fn a_service_that_crashed_before_is_restarted_like_any_other() -> Result<()> {
    let site = boot()?;
    let crash = "kill -9 $(systemctl show -p MainPID --value stubborn); sleep 1";
    site.host(0).exec(&["bash", "-c", crash])?.success()?;
    assert_ne!(site.host(0).property("stubborn", "NRestarts")?, "0");
    expect(&tool(&site, &["--services", "stubborn", "--grace-period", "0"])?, 0);
    site.wait_pooled(0, true)
}

#[test]
fn a_unit_that_cannot_be_reloaded_is_refused_before_anything_is_done() -> Result<()> {
    let site = boot()?;
    let run = site.host(0).exec(&[TOOL, "--pools", POOL, "--services", "moody", "--reload"])?;
    expect(&run, 78);
    says(&run, "cannot be reloaded");
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    Ok(())
}
