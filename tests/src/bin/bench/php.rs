//! What the PHP tools are faster at than the scripts that they replace: one check of all figures, and a safe restart of a host on
//! which nothing is in flight.

use std::time::Duration;

use anyhow::Result;
use testbed::conftool::HostFile;
use testbed::site::{PAGES, POOL, POOL_FILE, Site, UNIT};

use crate::{QUICK_RUNS, RUNS, TOOL, goal, median, ms, ratio, title};

/// An admin site as the original's `php7adm` asks it: an endpoint each, behind a password.
const ADMIN_PHP: &str = r"<?php
header('Content-Type: application/json');
switch ($_SERVER['DOCUMENT_URI']) {
    case '/opcache-info': echo json_encode(opcache_get_status(false)); break;
    case '/apcu-frag': echo json_encode(['fragmentation' => 0]); break;
}
";
/// The original's checks, each a pipeline of its own, as `check-and-restart-php` and `php7adm` run them.
const ORIGINAL: &str = r#"
port=$(jq -r '."8.2" // 9181' /etc/php7adm.versions)
ask() { curl --silent --fail --netrc-file /etc/php7adm.netrc "http://127.0.0.1:$port/$1"; }
ask opcache-info | jq .memory_usage.free_memory
ask opcache-info | jq .opcache_statistics.num_cached_keys
ask opcache-info | jq .opcache_statistics.max_cached_keys
ask apcu-frag | jq .fragmentation
ask opcache-info | jq .opcache_enabled
"#;
/// Each way a number of times in one shell, since a single one is too quick for a shell's clock.
const TIMED: &str = r#"
script=$1; shift
run() { for _ in 1 2 3 4 5; do "$@" >/dev/null || exit 1; done; }
began=$EPOCHREALTIME; run "$@"; between=$EPOCHREALTIME; run bash -e "$script"; ended=$EPOCHREALTIME
echo "$began $between $ended"
"#;

/// A safe restart by the original with its defaults: 3 s of sleep, whatever the machine, and 0.4 s of work.
const ORIGINAL_RESTART: Duration = Duration::from_millis(3400);

/// A check of all figures against the original's way; then a safe restart against one that always waits.
pub fn php() -> Result<()> {
    let limitless = "[Unit]\nStartLimitIntervalSec=0\n";
    let binaries = ["safe-service-restart", "restart-php-fpm", "check-and-restart-php"];
    let helper = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/php-fpm/php");
    let site = Site::builder().binaries(&binaries).each_host(move |host| {
        let admin = format!(
            "server {{\n  listen {}:9181;\n  root /var/www/html;\n  location / {{\n    include fastcgi_params;\n    \
             fastcgi_param SCRIPT_FILENAME /var/www/html/admin.php;\n    fastcgi_pass unix:/run/php/php8.2-fpm.sock;\n  }}\n}}\n",
            host.address().ip()
        );
        let netrc = format!("machine {} login php7adm password secret\n", host.address().ip());
        let original = ORIGINAL.replace("127.0.0.1", &host.address().ip().to_string());
        host.drop_in("php8.2-fpm.service", "limit.conf", limitless)
            .file(POOL_FILE, PAGES)
            .file("/etc/nginx/sites-enabled/admin", &admin)
            .file("/var/www/html/admin.php", ADMIN_PHP)
            .file("/etc/php7adm.versions", r#"{"8.2": 9181}"#)
            .files([HostFile::new("/etc/php7adm.netrc", netrc).mode(0o600)])
            .file("/usr/share/original-check", &original)
            .bind_read_only(std::path::Path::new(helper), "/usr/share/safe-service-restart")
    });
    let site = site.boot()?;
    figures(&site)?;
    nothing_in_flight(&site)
}

fn figures(site: &Site) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let check = ["/usr/sbin/check-and-restart-php", "--check", UNIT, "1"];
    site.host(0).exec(&check)?.success()?;
    for _ in 0..QUICK_RUNS / 3 {
        let command = [&["bash", "-c", TIMED, "timed", "/usr/share/original-check"], &check[..]].concat();
        let output = site.host(0).exec(&command)?.success()?;
        let times: Vec<f64> = output.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        let [began, between, ended] = times[..] else { anyhow::bail!("three times wanted, not '{output}'") };
        ours.push(Duration::try_from_secs_f64((between - began) / 5.0)?);
        theirs.push(Duration::try_from_secs_f64((ended - between) / 5.0)?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    title("one check of all figures against the original's five pipelines of curl and jq");
    println!("  {} against {}: {:.1} times faster", ms(ours), ms(theirs), ratio(theirs, ours));
    goal("at least ten times faster", ratio(theirs, ours) >= 10.0);
    Ok(())
}

/// With the defaults, three seconds of grace; the other one has no status page to ask, and so waits, as the original does.
fn nothing_in_flight(site: &Site) -> Result<()> {
    let (mut asks, mut waits) = (Vec::new(), Vec::new());
    let command = [TOOL, "--pools", POOL, "--services", UNIT];
    for _ in 0..RUNS {
        std::thread::sleep(crate::QUIET);
        asks.push(crate::on_host(site, &command)?.took);
        site.host(0).exec(&["mv", POOL_FILE, "/run/pages"])?.success()?;
        std::thread::sleep(crate::QUIET);
        waits.push(crate::on_host(site, &command)?.took);
        site.host(0).exec(&["mv", "/run/pages", POOL_FILE])?.success()?;
        site.host(0).exec(&["systemctl", "restart", UNIT])?.success()?;
    }
    let (asks, waits) = (median(asks), median(waits));
    title("a safe restart with nothing in flight, against one that waits for the grace period");
    println!("  {} against {}: ratio {:.2}", ms(asks), ms(waits), ratio(asks, waits));
    goal("less than a third", ratio(asks, waits) < 1.0 / 3.0);
    println!(
        "  the original's, on the quiet machine that it was measured on: {}; ratio {:.2}",
        ms(ORIGINAL_RESTART),
        ratio(asks, ORIGINAL_RESTART)
    );
    goal("less than a third of the original's", ratio(asks, ORIGINAL_RESTART) < 1.0 / 3.0);
    Ok(())
}
