//! The lock against a second run, and signals.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::site::{POOL, UNIT};

use crate::{TOOL, expect, php, says, site, start, tool};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_second_run_waits_says_who_holds_the_host_and_then_runs() -> Result<()> {
    let site = site().boot()?;
    let mut first = start(&site, &["--grace-period", "3", "--reason", "first of two"])?;
    first.wait_for_stderr("for requests in flight", SOON)?;
    let busy = tool(&site, &["--services", UNIT, "--lock-timeout", "0.3"])?;
    expect(&busy, 75);
    says(&busy, "first of two");
    let dry = tool(&site, &["--services", UNIT, "--dry-run"])?;
    expect(&dry, 75);
    let mut second = start(&site, &["--grace-period", "0"])?;
    second.wait_for_stderr("waiting for another run", SOON)?;
    expect(&first.wait(SOON)?, 0);
    expect(&second.wait(SOON)?, 0);
    site.wait_pooled(0, true)
}

#[test]
fn a_signal_before_the_restart_puts_the_host_back_and_then_kills() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        let site = site().boot()?;
        let before = php(&site)?;
        let mut run = start(&site, &["--grace-period", "20"])?;
        run.wait_for_stderr("for requests in flight", SOON)?;
        run.signal(signal)?;
        let run = run.wait(SOON)?;
        assert_eq!(run.status.signal(), Some(signal as i32), "{run}");
        says(&run, "not restarted, pools as found");
        assert_eq!(php(&site)?, before);
        assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
        site.wait_pooled(0, true)?;
    }
    Ok(())
}

#[test]
fn a_signal_after_the_restart_does_not_keep_the_host_out() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    let mut run = start(&site, &["--grace-period", "0", "--settle", "4"])?;
    testbed::wait::until("the restart", SOON, || Ok(php(&site)? != before))?;
    run.signal(Signal::SIGTERM)?;
    let run = run.wait(SOON)?;
    assert_eq!(run.code(), None, "{run}");
    says(&run, "restarted, pooled again in 'appservers'");
    site.wait_pooled(0, true)
}

#[test]
fn a_signal_while_it_waits_for_the_host_ends_a_run_that_did_nothing() -> Result<()> {
    let site = site().boot()?;
    let mut first = start(&site, &["--grace-period", "3"])?;
    first.wait_for_stderr("for requests in flight", SOON)?;
    let mut second = start(&site, &[])?;
    second.wait_for_stderr("waiting for another run", SOON)?;
    second.signal(Signal::SIGTERM)?;
    let second = second.wait(SOON)?;
    assert_eq!(second.status.signal(), Some(Signal::SIGTERM as i32), "{second}");
    says(&second, "nothing was changed");
    expect(&first.wait(SOON)?, 0);
    Ok(())
}

/// A terminal that goes away sends several hang-ups at once; that is one request, and the host comes back.
#[test]
fn a_terminal_that_goes_away_after_the_restart_does_not_keep_the_host_out() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    let mut run = start(&site, &["--grace-period", "0", "--settle", "4"])?;
    testbed::wait::until("the restart", SOON, || Ok(php(&site)? != before))?;
    for _ in 0..3 {
        run.signal(Signal::SIGHUP)?;
    }
    let run = run.wait(SOON)?;
    assert_eq!(run.status.signal(), Some(Signal::SIGHUP as i32), "{run}");
    says(&run, "restarted, pooled again in 'appservers'");
    site.wait_pooled(0, true)
}

/// Nobody reads what it says, and the pipe is full: that must cost words, not the host.
#[test]
fn a_stderr_that_is_full_does_not_stop_the_run() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    let fill = "mkfifo /tmp/full; exec 7<>/tmp/full; dd if=/dev/zero of=/dev/fd/7 bs=4k oflag=nonblock 2>/dev/null; \
                exec \"$@\" 2>&7";
    let command = ["bash", "-c", fill, "full", TOOL, "--pools", POOL, "--services", UNIT, "--grace-period", "0"];
    let run = site.host(0).exec(&command)?;
    expect(&run, 0);
    assert_ne!(php(&site)?, before);
    site.wait_pooled(0, true)
}

/// The lock lives as long as the systemctl that a killed run has started.
#[test]
fn a_killed_run_keeps_the_lock_until_its_systemctl_is_done() -> Result<()> {
    let slow = "[Service]\nType=notify\nExecStartPre=/bin/sleep 4\n\
                ExecStart=/bin/bash -c 'systemd-notify --ready; exec sleep infinity'\nNotifyAccess=all\n";
    let site = site().each_host(move |host| host.unit("slow.service", slow)).boot()?;
    let mut killed = site.host(0).spawn(&[TOOL, "--pools", POOL, "--services", "slow", "--grace-period", "0"])?;
    testbed::wait::until("the restart", SOON, || Ok(site.host(0).property("slow", "ActiveState")? == "activating"))?;
    killed.signal(Signal::SIGKILL)?;
    assert_eq!(killed.wait(SOON)?.code(), None);
    let busy = tool(&site, &["--services", "slow", "--lock-timeout", "0.2"])?;
    expect(&busy, 75);
    // Once it is done, the next run has the host.
    expect(&tool(&site, &["--services", UNIT, "--grace-period", "0"])?, 0);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_does_not_leave_the_host_depooled() -> Result<()> {
    let site = site().boot()?;
    let command = format!("{TOOL} --pools {POOL} --services {UNIT} --grace-period 0.2 --json 2>&1 | head -n 1");
    site.host(0).exec(&["bash", "-c", &command])?.success()?;
    testbed::wait::until("the run to end", SOON, || Ok(!site.host(0).exec(&["pgrep", "-f", TOOL])?.status.success()))?;
    assert_eq!(site.conftool().pooled(&site.node(0))?, "yes");
    site.wait_pooled(0, true)
}
