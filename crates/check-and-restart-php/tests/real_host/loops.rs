//! What a restart does not cure must not become a loop, whoever dies in between; and who asked is told how it ended.

use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::wait;

use crate::{TOOL, UNIT, asked, boot, builder, expect, fill, tool};

#[test]
fn the_next_restart_waits_for_the_interval_also_after_a_reboot() -> Result<()> {
    let mut host = boot()?;
    fill(&host)?;
    expect(&tool(&host, &[UNIT, "8"])?, 0, "restarted");
    fill(&host)?;
    let again = tool(&host, &[UNIT, "8"])?;
    expect(&again, 75, "the last restart was ");
    assert!(again.stdout.contains("critical: ") && again.stdout.contains("not restarted yet"), "{again}");
    expect(&tool(&host, &["--dry-run", UNIT, "8"])?, 75, "has not cured it, the next may come in ");
    host.power_cut()?;
    host.boot_again()?;
    fill(&host)?;
    expect(&tool(&host, &[UNIT, "8"])?, 75, "--min-interval");
    // Nothing of /run is left.
    assert_eq!(asked(&host)?, [""; 0]);
    expect(&tool(&host, &["--min-interval", "1ms", UNIT, "8"])?, 0, "restarted");
    let mode = host.exec(&["stat", "-c", "%a %U", "/var/lib/check-and-restart-php/php8.2-fpm.service.json"])?;
    assert_eq!(mode.success()?.trim(), "600 root");
    Ok(())
}

#[test]
fn of_two_runs_at_once_only_one_restarts() -> Result<()> {
    let host = boot()?;
    fill(&host)?;
    let runs: Vec<_> = (0..4).map(|_| host.spawn(&[TOOL, UNIT, "8"])).collect::<Result<_>>()?;
    let mut codes = Vec::new();
    for run in runs {
        codes.push(run.wait(Duration::from_secs(30))?.code());
    }
    assert_eq!(asked(&host)?.len(), 1, "{codes:?}");
    assert!(codes.contains(&Some(0)), "{codes:?}");
    Ok(())
}

#[test]
fn a_run_that_is_killed_has_restarted_for_this_interval() -> Result<()> {
    let host = builder()?.boot()?;
    fill(&host)?;
    host.write("/usr/sbin/restart-php-fpm", "#!/bin/sh\necho \"$*\" >>/run/asked\nexec sleep 600\n")?;
    let mut run = host.spawn(&[TOOL, UNIT, "8"])?;
    wait::until("the restart to begin", Duration::from_secs(20), || Ok(!asked(&host)?.is_empty()))?;
    run.signal(Signal::SIGKILL)?;
    run.wait(Duration::from_secs(10))?;
    expect(&tool(&host, &[UNIT, "8"])?, 75, "--min-interval");
    Ok(())
}

#[test]
fn its_exit_code_and_its_signals_are_passed_on() -> Result<()> {
    let host = boot()?;
    fill(&host)?;
    for code in ["3", "4", "5", "69", "75", "78"] {
        host.write("/run/fail", code)?;
        let output = tool(&host, &["--min-interval", "0", UNIT, "8"])?;
        expect(&output, code.parse()?, &format!("restart-php-fpm ended with {code}"));
    }
    let script =
        "#!/bin/sh\ntrap 'kill $!; echo safe; trap - TERM; kill -TERM $$' TERM\necho begun\nsleep 600 &\nwait\n";
    host.write("/usr/sbin/restart-php-fpm", script)?;
    let mut run = host.spawn(&[TOOL, "--min-interval", "0", UNIT, "8"])?;
    run.wait_for_stderr("begun", Duration::from_secs(20))?;
    let pid = host.exec(&["pgrep", "-x", "check-and-resta"])?.success()?;
    host.exec(&["kill", "-TERM", pid.trim()])?.success()?;
    let output = run.wait(Duration::from_secs(20))?;
    assert_eq!(output.code(), None, "{output}");
    assert!(output.stderr.contains("safe\n"), "{output}");
    assert!(output.stderr.contains("was ended by signal 15"), "{output}");
    Ok(())
}

#[test]
fn a_restart_that_cannot_be_written_down_is_not_begun() -> Result<()> {
    let host = boot()?;
    fill(&host)?;
    host.exec(&["install", "-d", "-m", "777", "/var/lib/check-and-restart-php"])?.success()?;
    expect(&tool(&host, &[UNIT, "8"])?, 77, "is not restarted, since that cannot be written down: cannot use");
    assert_eq!(asked(&host)?, [""; 0]);
    host.exec(&["rm", "-r", "/usr/sbin/restart-php-fpm", "/var/lib/check-and-restart-php"])?.success()?;
    expect(&tool(&host, &[UNIT, "8"])?, 1, "/usr/sbin/restart-php-fpm: No such file or directory");
    Ok(())
}
