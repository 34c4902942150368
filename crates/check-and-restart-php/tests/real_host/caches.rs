//! Caches that really run full.

use testbed::Result;

use crate::{UNIT, asked, boot, expect, fill, main_process, page, report, tool};

#[test]
fn a_cache_that_runs_full_is_restarted_once_and_has_room_again() -> Result<()> {
    let host = boot()?;
    expect(&tool(&host, &[UNIT, "8"])?, 0, "php8.2-fpm.service: ok: opcache has 1");
    fill(&host)?;
    let before = main_process(&host)?;
    let planned = tool(&host, &["--dry-run", UNIT, "8"])?;
    expect(&planned, 0, "would restart it: opcache has ");
    assert_eq!(asked(&host)?, [""; 0], "{planned}");

    let output = host.exec(&["env", "SUDO_USER=alice", "LD_PRELOAD=", "FOO=bar", crate::TOOL, "--json", UNIT, "8"])?;
    let report = report(&output);
    assert_eq!(output.code(), Some(0), "{output}");
    assert_eq!((&report["exit_code"], &report["units"][0]["done"]), (&0.into(), &"restarted".into()), "{output}");
    assert_eq!(report["units"][0]["asked"], "pool 'www' at '/run/php/php8.2-fpm.sock'");
    assert!(output.stderr.contains("printed by restart-php-fpm"), "{output}");
    let lines = asked(&host)?;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with("--services php8.2-fpm.service --reason check-and-restart-php: opcache has "), "{line}");
    assert!(!line.contains("--force"), "{line}");
    let environment = host.read("/run/environment")?;
    assert!(environment.contains("SUDO_USER='alice'") && !environment.contains("FOO"), "{environment}");
    assert_ne!(main_process(&host)?, before);
    expect(&tool(&host, &[UNIT, "8"])?, 0, "php8.2-fpm.service: ok: ");
    assert_eq!(asked(&host)?.len(), 1);
    let syslog = host.journal("check-and-restart-php")?;
    assert!(
        syslog
            .iter()
            .any(|line| line.starts_with("restarts php8.2-fpm.service, because: ") && line.ends_with("by 'alice'")),
        "{syslog:?}"
    );
    Ok(())
}

#[test]
fn keys_that_run_out_restart_and_force_is_passed_on() -> Result<()> {
    let host = boot()?;
    // 200 is rounded up to 223.
    host.write("/etc/php/8.2/fpm/conf.d/98-keys.ini", "opcache.max_accelerated_files=200\n")?;
    host.exec(&["systemctl", "restart", UNIT])?.success()?;
    expect(
        &tool(&host, &[UNIT, "1"])?,
        78,
        "the limit of 5000 free keys cannot be met: opcache has room for 223 in all",
    );
    page(&host, "fill.php?scripts=20")?;
    expect(
        &tool(&host, &["--min-free-keys", "150", "--max-interned-strings", "0", UNIT, "1"])?,
        0,
        "php8.2-fpm.service: ok: ",
    );
    let output = tool(&host, &["--force", "--min-free-keys", "210", UNIT, "1"])?;
    expect(&output, 0, "keys free, at or below the limit of 210");
    assert!(asked(&host)?[0].ends_with(" --force"), "{output}");
    Ok(())
}

#[test]
fn an_apcu_in_pieces_is_cleared_and_nothing_restarted() -> Result<()> {
    let host = boot()?;
    page(&host, "fragment.php")?;
    let before = main_process(&host)?;
    expect(&tool(&host, &["--check", UNIT, "1"])?, 2, "CRITICAL: php8.2-fpm.service: APCu's free memory is ");
    expect(&tool(&host, &["--dry-run", UNIT, "1"])?, 0, "would clear APCu");
    expect(&tool(&host, &[UNIT, "1"])?, 0, "cleared APCu");
    expect(&tool(&host, &["--check", UNIT, "1"])?, 0, "APCu is 0.0% in pieces");
    assert_eq!((main_process(&host)?, asked(&host)?), (before, Vec::new()));
    Ok(())
}

#[test]
fn an_apcu_that_is_absent_is_no_fault() -> Result<()> {
    let host = boot()?;
    host.exec(&["sh", "-c", "rm /etc/php/8.2/fpm/conf.d/*apcu.ini && systemctl restart php8.2-fpm"])?.success()?;
    expect(&tool(&host, &[UNIT, "1"])?, 0, "APCu is not loaded");
    expect(&tool(&host, &["--check", UNIT, "1"])?, 0, "OK: ");
    Ok(())
}

#[test]
fn an_opcache_that_is_disabled_is_unknown() -> Result<()> {
    let host = boot()?;
    host.write("/etc/php/8.2/fpm/conf.d/99-test.ini", "opcache.enable=0\n")?;
    host.exec(&["systemctl", "restart", UNIT])?.success()?;
    expect(&tool(&host, &[UNIT, "1"])?, 69, "opcache is not enabled");
    expect(&tool(&host, &["--check", UNIT, "1"])?, 3, "UNKNOWN: php8.2-fpm.service: opcache is not enabled");
    Ok(())
}

#[test]
fn the_deploy_tool_gets_a_restart_each_time_it_asks() -> Result<()> {
    let host = boot()?;
    for count in 1..=2 {
        expect(&tool(&host, &[UNIT, "9223372036854775807"])?, 0, "restarted");
        assert_eq!(asked(&host)?.len(), count);
    }
    // Also where there are no figures.
    host.exec(&["rm", "/usr/share/safe-service-restart/figures.php"])?.success()?;
    expect(&tool(&host, &[UNIT, "9223372036854775807"])?, 0, "cannot read the figures");
    assert_eq!(asked(&host)?.len(), 3);
    Ok(())
}

#[test]
fn an_opcache_with_its_jit_tells_its_figures() -> Result<()> {
    let host = boot()?;
    host.write("/etc/php/8.2/fpm/conf.d/98-jit.ini", "opcache.jit=tracing\nopcache.jit_buffer_size=8M\n")?;
    host.write("/var/www/html/jit.php", "<?php echo opcache_get_status(false)['jit']['on'] ? 'ok' : 'off';")?;
    host.exec(&["systemctl", "restart", UNIT])?.success()?;
    page(&host, "jit.php")?;
    let output = tool(&host, &["--json", UNIT, "8"])?;
    expect(&output, 0, "\"state\":\"on\"");
    fill(&host)?;
    expect(&tool(&host, &[UNIT, "8"])?, 0, "restarted");
    expect(&tool(&host, &[UNIT, "8"])?, 0, "php8.2-fpm.service: ok: ");
    Ok(())
}
