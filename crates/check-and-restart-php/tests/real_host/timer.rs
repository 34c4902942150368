//! The units that are shipped: the service under all of its restrictions, and the timer.

use testbed::Result;
use testbed::host::Host;

use crate::{asked, boot, fill, main_process};

const SERVICE: &str = "check-and-restart-php@php8.2-fpm.service";
const TIMER: &str = "check-and-restart-php@php8.2-fpm.timer";

fn start(host: &Host) -> Result<bool> {
    Ok(host.exec(&["systemctl", "start", SERVICE])?.code() == Some(0))
}

#[test]
fn a_cache_that_runs_full_is_restarted_through_the_shipped_service() -> Result<()> {
    let host = boot()?;
    let limit =
        |limit: &str| host.write("/etc/default/check-and-restart-php", &format!("MIN_OPCACHE_FREE_MB={limit}\n"));
    // Without a word from the host the limit is 25, of 16.
    assert!(!start(&host)?);
    assert_eq!(host.property(SERVICE, "ExecMainStatus")?, "78");
    limit("8")?;
    assert!(start(&host)?, "{:?}", host.journal("check-and-restart-php")?);
    assert_eq!(asked(&host)?, [""; 0]);
    fill(&host)?;
    let before = main_process(&host)?;
    host.write(
        "/etc/default/check-and-restart-php.php8.2-fpm",
        "CHECK_OPTIONS=--textfile /run/metrics/php8.2-fpm.prom --max-wasted 0\n",
    )?;
    host.exec(&["mkdir", "/run/metrics"])?.success()?;
    host.write(&format!("/etc/systemd/system/{SERVICE}.d/textfile.conf"), "[Service]\nReadWritePaths=/run/metrics\n")?;
    host.exec(&["systemctl", "daemon-reload"])?.success()?;
    assert!(start(&host)?, "{:?}", host.journal("check-and-restart-php")?);
    assert_eq!(asked(&host)?.len(), 1);
    assert_ne!(main_process(&host)?, before);
    let log = host.journal("check-and-restart-php")?;
    assert!(log.iter().any(|line| line.ends_with("php-fpm.conf test is successful")), "{log:?}");
    let metrics = host.read("/run/metrics/php8.2-fpm.prom")?;
    let free = metrics.lines().find_map(|line| {
        line.strip_prefix("php_fpm_opcache_memory_bytes{unit=\"php8.2-fpm.service\",state=\"free\"} ")
    });
    assert!(free.unwrap().parse::<u64>()? > 8 * 1024 * 1024, "not the new figures: {metrics}");
    assert!(host.read("/var/lib/check-and-restart-php/opcache.history")?.contains("php8.2-fpm.service"));
    // Again, within the interval: a failure that is seen.
    fill(&host)?;
    assert!(!start(&host)?);
    assert_eq!((host.property(SERVICE, "ExecMainStatus")?.as_str(), asked(&host)?.len()), ("75", 1));
    // 0 does nothing.
    limit("0")?;
    assert!(start(&host)?);
    Ok(())
}

#[test]
fn the_timer_starts_it_once_a_day_and_at_a_time_of_its_own() -> Result<()> {
    let host = boot()?;
    host.exec(&["systemctl", "enable", "--now", TIMER])?.success()?;
    assert_eq!(host.property(TIMER, "ActiveState")?, "active");
    let next = host.property(TIMER, "NextElapseUSecRealtime")?;
    host.exec(&["systemctl", "restart", TIMER])?.success()?;
    assert_eq!(host.property(TIMER, "NextElapseUSecRealtime")?, next);
    Ok(())
}
