//! The tool against real PHP-FPM 8.2 on booted hosts, with everything at its own path: systemd, the unit of Debian's package, the helper
//! scripts, the units that are shipped. Only `restart-php-fpm` is a script that writes down what it is given, has the configuration
//! tested as the real one does, and restarts. Needs what `tests/prepare` installs, and root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod caches;
mod looks;
mod loops;
mod timer;

use std::path::Path;

use testbed::Result;
use testbed::conftool::HostFile;
use testbed::host::{Builder, Host, Output};

const TOOL: &str = "/usr/sbin/check-and-restart-php";
const UNIT: &str = "php8.2-fpm";

/// In the place of restart-php-fpm.
const RESTART: &str = r#"#!/bin/sh
echo "$*" >>/run/asked
echo 'printed by restart-php-fpm'
export -p >/run/environment
if [ -e /run/fail ]; then exit "$(cat /run/fail)"; fi
/usr/sbin/php-fpm8.2 --test --fpm-config /etc/php/8.2/fpm/php-fpm.conf || exit 78
exec systemctl restart "$2"
"#;

/// Small caches that can be filled at once.
const INI: &str =
    "opcache.memory_consumption=16\nopcache.interned_strings_buffer=1\nopcache.file_update_protection=0\n";

/// Compiles so many scripts of some 100 KiB, each once.
const FILL: &str = "<?php
for ($i = 0; $i < (int) $_GET['scripts']; $i++) {
    $file = \"/tmp/fill-$i.php\";
    $code = '<?php return [';
    for ($j = 0; $j < 3000; $j++) $code .= \"['$i.$j', $j],\";
    file_put_contents($file, $code . '];');
    opcache_compile_file($file);
}
echo 'ok';";

/// Leaves APCu's free memory in small pieces: no room between them, and every other entry gone.
const FRAGMENT: &str = "<?php
ini_set('memory_limit', '512M');
for ($i = 0; apcu_store(\"k$i\", str_repeat('x', 4000)) && $i < 7400; $i++);
for ($j = 0; $j < $i; $j += 2) apcu_delete(\"k$j\");
echo 'ok';";

fn builder() -> Result<Builder> {
    let files = [
        HostFile::new("/usr/sbin/restart-php-fpm", RESTART).mode(0o755),
        HostFile::new("/usr/share/safe-service-restart/figures.php", include_str!("../../../php-fpm/php/figures.php")),
        HostFile::new(
            "/usr/share/safe-service-restart/apcu-clear.php",
            include_str!("../../../php-fpm/php/apcu-clear.php"),
        ),
        HostFile::new("/etc/php/8.2/fpm/conf.d/99-test.ini", INI),
        HostFile::new("/var/www/html/fill.php", FILL),
        HostFile::new("/var/www/html/fragment.php", FRAGMENT),
        HostFile::new(
            "/etc/systemd/system/check-and-restart-php@.service",
            include_str!("../../../../systemd/check-and-restart-php@.service"),
        ),
        HostFile::new(
            "/etc/systemd/system/check-and-restart-php@.timer",
            include_str!("../../../../systemd/check-and-restart-php@.timer"),
        ),
    ];
    Ok(Host::builder("mw1.test")?.binary(Path::new(env!("CARGO_BIN_EXE_check-and-restart-php"))).files(files))
}

fn boot() -> Result<Host> {
    builder()?.boot()
}

fn tool(host: &Host, arguments: &[&str]) -> Result<Output> {
    host.exec(&[&[TOOL], arguments].concat())
}

/// A page of the host's web site, which has to say 'ok'.
fn page(host: &Host, page: &str) -> Result<()> {
    let said = host.exec(&["curl", "-sS", &format!("http://{}/{page}", host.web())])?.success()?;
    assert_eq!(said, "ok", "{page}");
    Ok(())
}

/// Less than 8 of opcache's 16 MiB are free then.
fn fill(host: &Host) -> Result<()> {
    page(host, "fill.php?scripts=20")
}

/// What restart-php-fpm was asked for, a line each time.
fn asked(host: &Host) -> Result<Vec<String>> {
    let lines = host.exec(&["sh", "-c", "cat /run/asked 2>/dev/null || true"])?.success()?;
    Ok(lines.lines().map(ToOwned::to_owned).collect())
}

fn main_process(host: &Host) -> Result<String> {
    host.property(UNIT, "MainPID")
}

/// Fails with the whole output unless the run ended with this code and said these words, on stdout or stderr.
#[track_caller]
fn expect(output: &Output, code: i32, words: &str) {
    assert_eq!(output.code(), Some(code), "{output}");
    assert!(output.stdout.contains(words) || output.stderr.contains(words), "'{words}' is not said: {output}");
}

/// The report of a run with `--json`.
fn report(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
}
