//! What a restart does not cure must not become a loop, whoever dies in between; and who asked is told how it ended.

use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::wait;

use crate::{TOOL, UNIT, asked, boot, builder, expect, fill, main_process, report, tool};

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

/// 15 of 16 MiB are free right after a start.
#[test]
fn a_limit_that_a_fresh_cache_crosses_restarts_once_and_is_a_wrong_configuration_from_then_on() -> Result<()> {
    let mut host = boot()?;
    let words = "a restart does not cure this: opcache has ";
    let first = tool(&host, &["--min-interval", "0", UNIT, "15"])?;
    expect(&first, 78, words);
    assert!(first.stdout.contains("; restarted; a restart does not cure this: "), "{first}");
    let restarted = main_process(&host)?;
    // Whatever the interval, the figures, the boot, and who asks: it is not restarted for this again.
    fill(&host)?;
    let again = tool(&host, &["--min-interval", "0", "--json", UNIT, "15"])?;
    expect(&again, 78, words);
    let unit = report(&again)["units"][0].clone();
    assert_eq!((&unit["done"], &unit["level"]), (&"no-cure".into(), &"critical".into()), "{again}");
    expect(&tool(&host, &["--dry-run", UNIT, "15"])?, 78, "not restarted: a restart does not cure it");
    expect(&tool(&host, &["--check", UNIT, "15"])?, 2, "CRITICAL: php8.2-fpm.service: a restart does not cure this");
    assert_eq!((main_process(&host)?, asked(&host)?.len()), (restarted, 1));
    host.power_cut()?;
    host.boot_again()?;
    expect(&tool(&host, &["--min-interval", "0", UNIT, "15"])?, 78, words);
    assert_eq!(asked(&host)?, [""; 0]);

    // An emergency restarts, and it is known again after it.
    expect(&tool(&host, &["--min-interval", "0", "--force", UNIT, "15"])?, 78, words);
    assert_eq!(asked(&host)?.len(), 1);
    expect(&tool(&host, &["--min-interval", "0", UNIT, "15"])?, 78, "not restarted: a restart does not cure it");
    // Another limit is another question.
    fill(&host)?;
    expect(&tool(&host, &["--min-interval", "0", UNIT, "8"])?, 0, "restarted");
    assert_eq!(asked(&host)?.len(), 2);
    // A demand is none, and answers none: it is known all the same, however often a deploy tool asks for a restart.
    expect(&tool(&host, &[UNIT, "9223372036854775807"])?, 0, "restarted");
    expect(&tool(&host, &["--min-interval", "0", UNIT, "15"])?, 78, "not restarted: a restart does not cure it");
    assert_eq!(asked(&host)?.len(), 3);
    Ok(())
}

#[test]
fn figures_after_a_restart_are_waited_for() -> Result<()> {
    let host = boot()?;
    fill(&host)?;
    // It comes up with its pool's processes stopped, and they go on after a while.
    host.write(
        "/run/stop",
        "pgrep -f 'php-fpm: pool www' | xargs kill -STOP\n(sleep 2; pgrep -f 'php-fpm: pool www' | xargs kill -CONT) &\n",
    )?;
    let service = "[Service]\nExecStartPost=/bin/sh /run/stop\n";
    host.write("/etc/systemd/system/php8.2-fpm.service.d/stop.conf", service)?;
    host.exec(&["systemctl", "daemon-reload"])?.success()?;
    let output = tool(&host, &["--timeout", "200ms", "--json", "-v", UNIT, "8"])?;
    expect(&output, 0, "waiting for the figures of 'php8.2-fpm.service' after its restart, for at most 30s: ");
    assert!(output.stderr.contains("timed out after 200ms"), "{output}");
    let unit = report(&output)["units"][0].clone();
    let free = |figures: &serde_json::Value| figures["opcache"]["free_memory"].as_u64().unwrap_or(0);
    assert!(free(&unit["after"]) > free(&unit["figures"]), "{output}");
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

#[test]
fn a_restart_that_did_not_begin_keeps_no_later_one_away() -> Result<()> {
    let host = boot()?;
    fill(&host)?;
    // Where it is not to be written down, there is nothing to be taken back either.
    host.exec(&["install", "-d", "-m", "777", "/var/lib/check-and-restart-php"])?.success()?;
    host.write("/run/fail", "75")?;
    let unwritten = tool(&host, &["--min-interval", "0", UNIT, "8"])?;
    expect(&unwritten, 75, "restart-php-fpm ended with 75");
    assert!(!unwritten.stderr.contains("counts as restarted"), "{unwritten}");
    host.exec(&["rm", "-r", "/run/fail", "/var/lib/check-and-restart-php"])?.success()?;
    // One that could not even be started, and one that ended before it began.
    host.exec(&["mv", "/usr/sbin/restart-php-fpm", "/root/restart-php-fpm"])?.success()?;
    expect(&tool(&host, &[UNIT, "8"])?, 1, "/usr/sbin/restart-php-fpm: No such file or directory");
    host.exec(&["mv", "/root/restart-php-fpm", "/usr/sbin/restart-php-fpm"])?.success()?;
    host.write("/run/fail", "69")?;
    expect(&tool(&host, &[UNIT, "8"])?, 69, "restart-php-fpm ended with 69");
    host.exec(&["rm", "/run/fail"])?.success()?;
    expect(&tool(&host, &[UNIT, "8"])?, 0, "; restarted");
    Ok(())
}
