//! `restart-php-fpm`, as root and the deploy tool call it: the file, the checks before, and what it becomes. And the timer's unit that
//! calls it when the opcode cache runs full.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::{Host, Output};
use testbed::site::{Builder, Site};

use crate::{PAGES, POOL_FILE, expect, field, php, says, start};

const RESTART: &str = "/usr/sbin/restart-php-fpm";
const FILE: &str = "/etc/restart-php-fpm.yaml";
/// What Puppet would write.
const SETTINGS: &str = "pools: [appservers]\nmin_pooled: 0\ngrace_period: 0.3\nwait: 1\nretries: 20\n";

const CHECK_SERVICE: &str = include_str!("../../systemd/check-and-restart-php@.service");
const CHECK_TIMER: &str = include_str!("../../systemd/check-and-restart-php@.timer");
/// The scripts that PHP-FPM is asked by for its figures.
const HELPERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/php-fpm/php");

/// A site whose hosts have the PHP tools.
pub fn site() -> Builder {
    let binaries = ["safe-service-restart", "restart-php-fpm", "check-and-restart-php"];
    let site = Site::builder().binaries(&binaries).reopen(Duration::from_millis(50));
    site.each_host(|host| host.file(POOL_FILE, PAGES).file(FILE, SETTINGS))
}

fn run(site: &Site, arguments: &[&str]) -> Result<Output> {
    site.host(0).exec(&[&[RESTART], arguments].concat())
}

/// With this on standard input.
fn sent(host: &Host, request: &str) -> Result<Output> {
    host.write("/run/request", request)?;
    host.exec(&["sh", "-c", &format!("{RESTART} --request - </run/request")])
}

#[test]
fn with_no_argument_it_restarts_safely_whatever_is_enabled() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    let load = site.load().rate(60).slow(6, Duration::from_millis(300)).start()?;
    let run = run(&site, &[])?;
    expect(&run, 0);
    assert_eq!(run.stdout, "", "{run}");
    site.wait_pooled(0, true)?;
    let report = load.stop()?;
    assert_eq!(report.lost, 0, "{report:?}\n{run}");
    says(&run, "depooled 'mw1.eqiad.test' in 'appservers'");
    says(&run, "restarted 'php8.2-fpm.service'");
    assert_ne!(php(&site)?, before);
    Ok(())
}

#[test]
fn a_broken_configuration_is_an_error_in_phps_own_words_before_anything_is_done() -> Result<()> {
    let site = site().boot()?;
    let (before, object) = (php(&site)?, site.conftool().raw(&site.node(0))?);
    site.host(0)
        .write("/etc/php/8.2/fpm/pool.d/broken.conf", "[broken]\nlisten = /run/php/broken.sock\npm = sideways\n")?;
    let refused = run(&site, &["--json"])?;
    expect(&refused, 78);
    says(&refused, "the configuration '/etc/php/8.2/fpm/php-fpm.conf' of 'php8.2-fpm.service' is broken");
    says(&refused, "broken.conf:3] unable to parse value for entry 'pm': invalid process manager");
    assert_eq!(field(&refused, "exit_code"), 78);
    assert_eq!(site.conftool().raw(&site.node(0))?, object, "{refused}");
    assert_eq!(php(&site)?, before);
    // An emergency asks nobody: it fails where the restart fails, with the pools untouched.
    let forced = run(&site, &["--force"])?;
    expect(&forced, 3);
    assert_eq!(site.conftool().raw(&site.node(0))?, object, "{forced}");
    Ok(())
}

/// A second unit beside Debian's, with a main file and a pool of its own.
const SECOND_UNIT: &str = "[Unit]\nDescription=PHP-FPM of the API\n[Service]\nType=notify\n\
    ExecStart=/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /etc/php/8.2/fpm/api.conf\n\
    ExecReload=/bin/kill -USR2 $MAINPID\n[Install]\nWantedBy=multi-user.target\n";
const SECOND_FILE: &str = "[global]\npid = /run/php/api.pid\nerror_log = /var/log/api-fpm.log\n[api]\nuser = www-data\n\
    listen = /run/php/api.sock\npm = static\npm.max_children = 1\n\
    pm.status_path = /fpm-status\npm.status_listen = /run/php/api-status.sock\nping.path = /fpm-ping\n";

#[test]
fn each_units_own_configuration_is_tested_and_the_broken_one_named() -> Result<()> {
    let own = "/etc/php/8.2/fpm/api.conf";
    let site =
        site().each_host(move |host| host.unit("php-api-fpm.service", SECOND_UNIT).file(own, SECOND_FILE)).boot()?;
    let host = site.host(0);
    host.exec(&["systemctl", "enable", "--now", "php-api-fpm"])?.success()?;
    let units = |site: &Site| Ok::<_, anyhow::Error>((php(site)?, site.host(0).property("php-api-fpm", "MainPID")?));
    let (before, object) = (units(&site)?, site.conftool().raw(&site.node(0))?);
    host.write(own, &SECOND_FILE.replace("pm = static", "pm = sideways"))?;
    let refused = run(&site, &[])?;
    expect(&refused, 78);
    says(&refused, "the configuration '/etc/php/8.2/fpm/api.conf' of 'php-api-fpm.service' is broken: ");
    says(&refused, "api.conf:7] unable to parse value for entry 'pm': invalid process manager");
    assert_eq!((units(&site)?, site.conftool().raw(&site.node(0))?), (before.clone(), object), "{refused}");
    host.write(own, SECOND_FILE)?;
    expect(&run(&site, &[])?, 0);
    let after = units(&site)?;
    assert!(after.0 != before.0 && after.1 != before.1, "not both were restarted: {before:?} {after:?}");
    Ok(())
}

/// What a reload does to requests in flight is PHP-FPM's own doing, and takes a setting of its own.
#[test]
fn a_reload_under_load_loses_nothing_with_process_control_timeout() -> Result<()> {
    let pages = format!("[global]\nprocess_control_timeout = 20\n{PAGES}");
    let site = site().each_host(move |host| host.file(POOL_FILE, &pages)).boot()?;
    let before = php(&site)?;
    // With no pool to leave, so that it is the reload alone that could cost requests.
    site.host(0).exec(&["rm", "-r", FILE, "/etc/conftool"])?.success()?;
    let load = site.load().rate(60).slow(6, Duration::from_millis(1500)).start()?;
    for _ in 0..3 {
        testbed::wait::until("requests under way", Duration::from_secs(20), || {
            let sockets = "ss --no-header --unix --processes src /run/php/php8.2-fpm.sock | grep -c php-fpm || true";
            Ok(site.host(0).exec(&["sh", "-c", sockets])?.success()?.trim() != "0")
        })?;
        let run = run(&site, &["--reload", "--json"])?;
        expect(&run, 0);
        assert_eq!(field(&run, "action"), "reload");
    }
    let report = load.stop()?;
    assert!(report.ok > 20, "the load was too light to show anything: {report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(php(&site)?, before, "a reload keeps the main process");
    Ok(())
}

#[test]
fn an_emergency_goes_on_without_its_file() -> Result<()> {
    let site = site().boot()?;
    for text in ["max-concurrency: 1\n", "pools: [\n", "services: [no-such-unit.socket]\n"] {
        site.host(0).write(FILE, text)?;
        let before = php(&site)?;
        expect(&run(&site, &[])?, 78);
        assert_eq!(php(&site)?, before);
        let forced = run(&site, &["--force"])?;
        expect(&forced, 0);
        says(&forced, "going on without the file of this host");
        assert_ne!(php(&site)?, before, "{forced}");
    }
    // All that the file names is of an earlier version.
    site.host(0).write(FILE, "services: [php7.4-fpm]\n")?;
    let before = php(&site)?;
    let forced = run(&site, &["--force"])?;
    expect(&forced, 0);
    says(&forced, "'php7.4-fpm.service', which '/etc/restart-php-fpm.yaml' names, does not exist on this host");
    assert_ne!(php(&site)?, before, "{forced}");
    site.host(0).exec(&["chmod", "o+w", FILE])?.success()?;
    expect(&run(&site, &[])?, 77);
    expect(&run(&site, &["--force"])?, 0);
    Ok(())
}

#[test]
fn without_a_file_a_host_with_a_catalog_is_not_restarted_and_one_without_is() -> Result<()> {
    let site = site().boot()?;
    let host = site.host(0);
    let before = php(&site)?;
    host.exec(&["rm", FILE])?.success()?;
    let refused = run(&site, &[])?;
    expect(&refused, 78);
    says(&refused, "'/etc/restart-php-fpm.yaml' does not exist: name the pools to leave there");
    assert_eq!(php(&site)?, before);
    host.exec(&["rm", "-r", "/etc/conftool"])?.success()?;
    let run = run(&site, &[])?;
    expect(&run, 0);
    says(&run, "there was no pool to leave");
    assert_ne!(php(&site)?, before);
    Ok(())
}

#[test]
fn what_was_restarted_since_is_left_alone_unless_a_run_left_something() -> Result<()> {
    let site = site().boot()?;
    let now = |site: &Site| Ok::<_, anyhow::Error>(site.host(0).exec(&["date", "+%s"])?.success()?.trim().to_owned());
    let begin = now(&site)?;
    // A whole second counts to its end: what is restarted within it is restarted once more.
    testbed::wait::until("the next second", Duration::from_secs(3), || Ok(now(&site)? != begin))?;
    let before = php(&site)?;
    let since = ["--unless-restarted-since", &begin];
    site.host(0).exec(&["systemctl", "is-active", "php8.2-fpm"])?.success()?;
    expect(&run(&site, &since)?, 0);
    let restarted = php(&site)?;
    assert_ne!(restarted, before);
    // Milliseconds, a slip that would restart every host once more.
    let late = format!("{begin}000");
    expect(&run(&site, &["--unless-restarted-since", &late])?, 2);
    let nothing = run(&site, &[&since[..], &["--json"]].concat())?;
    expect(&nothing, 0);
    says(&nothing, "every unit was restarted since");
    assert_eq!(php(&site)?, restarted, "{nothing}");

    // A run that died after it had taken the host out: that is finished first, and it had restarted nothing.
    let mut dead = start(&site, &["--grace-period", "20", "--require-drained", "--min-pooled", "0"])?;
    dead.wait_for_stderr("depooled 'mw1", Duration::from_secs(30))?;
    dead.signal(Signal::SIGKILL)?;
    dead.wait(Duration::from_secs(10))?;
    let finished = run(&site, &since)?;
    expect(&finished, 0);
    says(&finished, "a run died on this host: finishing what it left");
    says(&finished, "every unit was restarted since");
    assert_eq!(php(&site)?, restarted, "{finished}");
    site.wait_pooled(0, true)?;

    // A run that is alive is waited for, and who that is is said.
    let mut other = start(&site, &["--settle", "3", "--reason", "T123", "--min-pooled", "0"])?;
    other.wait_for_stderr("depooled 'mw1", Duration::from_secs(30))?;
    let waited = run(&site, &since)?;
    expect(&waited, 0);
    says(&waited, "waiting for another run on this host to end, for at most 10m: process ");
    says(&waited, ", because: T123");
    expect(&other.wait(Duration::from_secs(30))?, 0);
    Ok(())
}

/// It is one process to whoever started it: what is sent to it reaches the tool, and how the tool ends is how it ends.
#[test]
fn it_becomes_the_tool_so_that_signals_and_exit_codes_are_its_own() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    // Nobody can be asked what is in flight.
    site.host(0).write(POOL_FILE, "")?;
    site.host(0).exec(&["systemctl", "restart", "php8.2-fpm"])?.success()?;
    let restarted = php(&site)?;
    assert_ne!(restarted, before);
    site.host(0).write(FILE, &SETTINGS.replace("grace_period: 0.3", "grace_period: 60"))?;
    let mut run = site.host(0).spawn(&[RESTART])?;
    run.wait_for_stderr("waiting 60s for requests in flight to end", Duration::from_secs(30))?;
    run.signal(Signal::SIGTERM)?;
    let ended = run.wait(Duration::from_secs(30))?;
    assert_eq!(ended.status.signal(), Some(Signal::SIGTERM as i32), "{ended}");
    assert_eq!(php(&site)?, restarted, "{ended}");
    site.wait_pooled(0, true)?;
    site.host(0).write(FILE, &SETTINGS.replace("min_pooled: 0", "min_pooled: 2"))?;
    let refused = self::run(&site, &[])?;
    expect(&refused, 78);
    says(&refused, "2 of 2 hosts in 'appservers' have to stay pooled");
    Ok(())
}

#[test]
fn a_request_says_what_arguments_would_and_nothing_else() -> Result<()> {
    let site = site().boot()?;
    let host = site.host(0);
    let before = php(&site)?;
    let run = sent(host, r#"{"run": "rolling-1", "reason": "wmf.5 \"na\u00efve\"", "reload": true}"#)?;
    expect(&run, 0);
    assert_eq!(field(&run, "fleet_run"), "rolling-1");
    assert_eq!(field(&run, "reason"), "wmf.5 \"na\u{ef}ve\"");
    assert_eq!((field(&run, "action"), field(&run, "exit_code")), ("reload".into(), 0.into()));
    assert_eq!(php(&site)?, before, "a reload keeps the main process: {run}");
    let forced = sent(host, r#"{"force": true}"#)?;
    expect(&forced, 0);
    assert_eq!(field(&forced, "force"), true);
    let before = php(&site)?;
    for (request, why) in [
        (r#"{"services": ["ssh"]}"#, "unknown field"),
        (r#"{"reason": "two\nlines"}"#, "control character"),
        ("", "not a JSON object"),
        (r#"["run", "reason", true, false, null]"#, "not a JSON object"),
        (&"x".repeat(5000), "longer than 4096 bytes"),
    ] {
        let refused = sent(host, request)?;
        expect(&refused, 2);
        says(&refused, why);
        assert_eq!(field(&refused, "exit_code"), 2);
        assert_eq!(php(&site)?, before, "{refused}");
    }
    Ok(())
}

#[test]
fn a_dry_run_says_what_would_be_done() -> Result<()> {
    let site = site().boot()?;
    let before = php(&site)?;
    let plan = run(&site, &["--dry-run"])?;
    expect(&plan, 0);
    let steps: Vec<&str> = plan.stdout.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(steps, ["depool", "restart", "repool"], "{plan}");
    assert_eq!(php(&site)?, before);
    Ok(())
}

/// Whatever key is in the file, `safe-service-restart` knows the option that it becomes.
#[test]
fn every_key_of_the_file_is_taken() -> Result<()> {
    const EVERY_KEY: &str = "pools: [appservers]\nservices: [php8.2-fpm]\nmax_concurrency: 100%\nslots: etcd\nslot_timeout: 5m\n\
        poolcounter_config: /etc/none.yaml\nmin_pooled: 0\nretries: 7\nwait: 0.5\nlb_timeout: 30\nlb_quorum: 1\ntimeout: 2\n\
        grace_period: 0\ndrain_timeout: 60s\nrequire_drained: true\nsettle: 1\nready_timeout: 20\nlock_timeout: 1m\n\
        catalog: /etc/conftool/local_services.yaml\nconfig: /etc/conftool/config.yaml\ndc: eqiad\nhost: mw1.eqiad.test\ntest: true\n";
    let site = site().driver(Driver::V3).boot()?;
    site.host(0).write(FILE, EVERY_KEY)?;
    for arguments in [&["--dry-run"][..], &["--dry-run", "--force"], &[]] {
        expect(&run(&site, arguments)?, 0);
    }
    site.wait_pooled(0, true)
}

/// The whole chain: the shipped unit, `check-and-restart-php`, `restart-php-fpm`, `safe-service-restart`, etcd and load balancers.
#[test]
fn a_full_cache_is_restarted_by_the_shipped_unit_without_losing_a_request() -> Result<()> {
    let site = site().each_host(|host| {
        // The smallest cache that PHP has, and enough code to fill it.
        host.unit("check-and-restart-php@.service", CHECK_SERVICE)
            .unit("check-and-restart-php@.timer", CHECK_TIMER)
            .file(
                "/etc/php/8.2/fpm/conf.d/99-small.ini",
                "opcache.memory_consumption = 16\nopcache.jit_buffer_size = 0\n",
            )
            .file("/etc/default/check-and-restart-php", "MIN_OPCACHE_FREE_MB=4\nCHECK_OPTIONS=--min-free-keys 0\n")
            .file("/var/www/html/fill.php", FILL)
            .bind_read_only(Path::new(HELPERS), "/usr/share/safe-service-restart")
    });
    let site = site.boot()?;
    let host = site.host(0);
    let unit = "check-and-restart-php@php8.2-fpm";
    host.exec(&["systemctl", "enable", "--now", &format!("{unit}.timer")])?.success()?;
    let before = php(&site)?;
    host.exec(&["systemctl", "start", unit])?.success()?;
    assert_eq!(php(&site)?, before, "restarted with room in the cache");

    testbed::load::fetch(host.web(), "/fill.php", Duration::from_secs(20))?;
    let load = site.load().rate(60).slow(6, Duration::from_millis(300)).start()?;
    // Not in a day's time, but soon, and once.
    let soon = "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=1us\nPersistent=no\n";
    host.write("/etc/systemd/system/check-and-restart-php@.timer.d/soon.conf", soon)?;
    host.exec(&["systemctl", "daemon-reload"])?.success()?;
    host.exec(&["systemctl", "restart", &format!("{unit}.timer")])?.success()?;
    testbed::wait::until("the timer's restart", Duration::from_secs(60), || {
        Ok(php(&site)? != before && host.property(unit, "ActiveState")? == "inactive")
    })?;
    site.wait_pooled(0, true)?;
    let report = load.stop()?;
    assert_eq!(report.lost, 0, "{report:?}");
    let restarted = php(&site)?;
    let log = host.exec(&["journalctl", "--quiet", "--no-pager", "--output=cat", "--unit", unit])?.success()?;
    assert_ne!(restarted, before, "not restarted: {log}");
    assert!(log.contains("depooled 'mw1.eqiad.test' in 'appservers'"), "{log}");

    // Filled again at once: a limit that a restart does not cure must not restart the host in a loop.
    testbed::load::fetch(host.web(), "/fill.php", Duration::from_secs(20))?;
    let again = host.exec(&["systemctl", "start", unit])?;
    assert_ne!(again.code(), Some(0), "{again}");
    assert_eq!(host.property(unit, "ExecMainStatus")?, "75");
    assert_eq!(php(&site)?, restarted);
    Ok(())
}

/// Compiles files until little of the cache is free.
const FILL: &str = r#"<?php
$folder = sys_get_temp_dir() . '/fill';
@mkdir($folder);
for ($i = 0; $i < 3000 && opcache_get_status(false)['memory_usage']['free_memory'] > 3 << 20; $i++) {
    $code = "<?php\nreturn [";
    for ($j = 0; $j < 300; $j++) {
        $code .= "'k$i-$j' => 'some text that is not short and not like the others $i $j',\n";
    }
    file_put_contents("$folder/$i.php", $code . "];\n");
    touch("$folder/$i.php", time() - 60);
    opcache_compile_file("$folder/$i.php");
}
header('Content-Type: text/plain');
echo 'ok ', getmypid(), "\n";
"#;
