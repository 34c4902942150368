//! What cannot be read, whom to ask, and what a look leaves alone.

use std::time::Duration;

use testbed::Result;
use testbed::host::Host;
use testbed::wait;

use crate::{TOOL, UNIT, asked, boot, expect, fill, page, tool};

#[test]
fn what_cannot_be_read_is_unknown_and_never_fine() -> Result<()> {
    let host = boot()?;
    let mut table = vec![("mv /usr/share/safe-service-restart/figures.php /root", 69, "it answers 404")];
    table.push((
        "mv /root/figures.php /usr/share/safe-service-restart && chmod 600 /usr/share/safe-service-restart/figures.php",
        69,
        "it answers 403",
    ));
    table.push((
        "chmod 644 /usr/share/safe-service-restart/figures.php && rm /run/php/php8.2-fpm.sock",
        69,
        "cannot connect: no such file",
    ));
    table.push(("systemctl stop php8.2-fpm", 69, "'php8.2-fpm.service': it does not run: it is inactive"));
    for (change, code, words) in table {
        host.exec(&["sh", "-c", change])?.success()?;
        expect(&tool(&host, &[UNIT, "8"])?, code, words);
        let check = tool(&host, &["--check", UNIT, "8"])?;
        expect(&check, 3, "UNKNOWN: php8.2-fpm.service: ");
        assert_eq!(check.stdout.lines().count(), 1, "{check}");
    }
    assert_eq!(asked(&host)?, [""; 0]);
    expect(&tool(&host, &["no-such", "8"])?, 78, "'no-such.service': it does not exist on this host");
    expect(&tool(&host, &["nginx", "8"])?, 78, "is no PHP-FPM: it runs '/usr/sbin/nginx'");
    Ok(())
}

/// PHP-FPM passes over a byte order mark and over a comment in Latin-1: a pool that serves with them is one that can be asked.
#[test]
fn a_pool_file_that_an_old_editor_left_is_read() -> Result<()> {
    let host = boot()?;
    let file = "/etc/php/8.2/fpm/pool.d/www.conf";
    for change in [r"sed -i '1s/^/\xef\xbb\xbf/' $1", r"sed -i '1s/$/ caf\xe9/' $1"] {
        host.exec(&["sh", "-c", change, "sh", file])?.success()?;
        expect(&tool(&host, &[UNIT, "8"])?, 0, "php8.2-fpm.service: ok: opcache has ");
    }
    let change = r"sed -i 's|^listen = .*|listen = /run/php/caf\xe9.sock|' $1";
    host.exec(&["sh", "-c", change, "sh", file])?.success()?;
    expect(&tool(&host, &[UNIT, "8"])?, 78, "the value of 'listen' is not UTF-8");
    Ok(())
}

#[test]
fn a_pool_that_does_not_answer_in_time_is_unknown() -> Result<()> {
    let host = boot()?;
    let pid = host.exec(&["pgrep", "-f", "php-fpm: pool www"])?.success()?;
    host.exec(&[&["kill", "-STOP"], pid.split_whitespace().collect::<Vec<_>>().as_slice()].concat())?.success()?;
    expect(&tool(&host, &["--timeout", "300ms", UNIT, "8"])?, 69, "timed out after 300ms");
    Ok(())
}

#[test]
fn another_pool_is_asked_where_the_first_cannot_tell() -> Result<()> {
    let host = boot()?;
    // In the order of their names: one without opcache, one that sees no script.
    for (name, more) in [("a", "php_admin_value[opcache.enable] = 0"), ("b", "php_admin_value[open_basedir] = /srv")] {
        let pool = format!(
            "[{name}]\nuser = www-data\nlisten = /run/php/{name}.sock\npm = static\npm.max_children = 1\n{more}\n"
        );
        host.write(&format!("/etc/php/8.2/fpm/pool.d/{name}.conf"), &pool)?;
    }
    host.exec(&["systemctl", "restart", UNIT])?.success()?;
    expect(&tool(&host, &["-v", UNIT, "8"])?, 0, "asked pool 'www' at '/run/php/php8.2-fpm.sock'");
    // With the one that could tell too busy, nobody knows; least of all that opcache is not enabled.
    host.exec(&["rm", "/etc/php/8.2/fpm/pool.d/b.conf"])?.success()?;
    host.exec(&["systemctl", "restart", UNIT])?.success()?;
    host.exec(&["pkill", "-STOP", "-f", "php-fpm: pool www"])?.success()?;
    let busy = tool(&host, &["--timeout", "300ms", UNIT, "8"])?;
    expect(&busy, 69, "timed out after 300ms");
    assert!(!busy.stdout.contains("not enabled"), "{busy}");
    Ok(())
}

#[test]
fn a_monitor_changes_nothing_and_needs_no_root() -> Result<()> {
    let host = boot()?;
    fill(&host)?;
    let folder = "/var/lib/monitor/state";
    host.exec(&["install", "-d", "-o", "www-data", "/var/lib/monitor"])?.success()?;
    let history = format!("{folder}/opcache.history");
    let as_user = |arguments: &[&str]| {
        host.exec(&[&["setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", TOOL], arguments].concat())
    };
    let check = as_user(&["--check", "--history", &history, UNIT, "8"])?;
    expect(&check, 2, "CRITICAL: php8.2-fpm.service: opcache has ");
    assert!(check.stdout.contains("| opcache_free=") && check.stderr.is_empty(), "{check}");
    assert!(host.read(&history)?.contains("php8.2-fpm.service"));
    expect(&as_user(&["--dry-run", UNIT, "8"])?, 0, "would restart it");
    expect(&as_user(&[UNIT, "8"])?, 77, "only root can restart services");
    assert_eq!(asked(&host)?, [""; 0]);
    Ok(())
}

#[test]
fn readings_that_cannot_be_kept_are_said_and_keep_nothing_from_being_done() -> Result<()> {
    let host = boot()?;
    let history = ["--history", "/tmp/opcache.history"];
    let words = "cannot use '/tmp' for the readings of the past: others can write to it";
    let output = tool(&host, &[&history[..], &[UNIT, "8"]].concat())?;
    expect(&output, 77, words);
    assert_eq!(output.stderr.matches(words).count(), 1, "{output}");
    let check = tool(&host, &[&["--check"], &history[..], &[UNIT, "8"]].concat())?;
    expect(&check, 3, words);
    assert_eq!(check.stderr, "", "{check}");
    fill(&host)?;
    expect(&tool(&host, &[&history[..], &[UNIT, "8"]].concat())?, 77, "; restarted");
    assert_eq!(asked(&host)?.len(), 1);
    fill(&host)?;
    let textfile = ["--min-interval", "0", "--textfile", "/nonexistent/php.prom"];
    expect(&tool(&host, &[&textfile[..], &[UNIT, "8"]].concat())?, 1, "; restarted");
    Ok(())
}

#[test]
fn all_looks_at_every_enabled_unit() -> Result<()> {
    let host = boot()?;
    let second = "[global]\ndaemonize = no\n[www]\nuser = www-data\nlisten = /run/php/second.sock\npm = static\npm.max_children = 1\n";
    host.write("/etc/second.conf", second)?;
    let unit = "[Service]\nExecStart=/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /etc/second.conf\n[Install]\nWantedBy=multi-user.target\n";
    host.write("/etc/systemd/system/php8.2-second-fpm.service", unit)?;
    host.exec(&["systemctl", "enable", "--now", "php8.2-second-fpm"])?.success()?;
    wait::until("the second to listen", Duration::from_secs(10), || {
        Ok(host.exec(&["test", "-S", "/run/php/second.sock"])?.code() == Some(0))
    })?;
    fill(&host)?;
    let check = tool(&host, &["--check", "--all", "8"])?;
    expect(&check, 2, "CRITICAL: php8.2-fpm.service: opcache has ");
    assert!(check.stdout.contains("; php8.2-second-fpm.service: opcache has 1"), "{check}");
    let output = tool(&host, &["--all", "8"])?;
    expect(&output, 0, "php8.2-second-fpm.service: ok: ");
    let lines = asked(&host)?;
    assert!(lines.len() == 1 && lines[0].starts_with("--services php8.2-fpm.service "), "{output}");
    host.exec(&["systemctl", "disable", "php8.2-fpm", "php8.2-second-fpm"])?.success()?;
    expect(&tool(&host, &["--all", "8"])?, 78, "no unit 'php*-fpm.service' is enabled");
    Ok(())
}

/// Six hours in which a MiB went each hour, without waiting for them.
const SIX_HOURS: &str = r#"
cd /var/lib/check-and-restart-php
jq -c '.units["php8.2-fpm.service"].samples |= (.[0] as $now
  | [range(6; 0; -1) | {time: ($now.time - . * 3600), memory: ($now.memory + . * 1048576), keys: $now.keys}] + [$now])' \
  opcache.history >edited
cat edited >opcache.history
rm edited
"#;

#[test]
fn a_history_that_is_kept_says_when_the_cache_will_be_full() -> Result<()> {
    let host = boot()?;
    let history = ["--history", "/var/lib/check-and-restart-php/opcache.history"];
    let look = |more: &[&str]| tool(&host, &[&history, more, &[UNIT, "1"]].concat());
    expect(&look(&[])?, 0, "too early to say when it will be full: 1 of 3 readings");
    host.exec(&["sh", "-ec", SIX_HOURS])?.success()?;
    // Of 16 MiB less than 15 are free.
    for way in ["--quiet", "--dry-run", "--check"] {
        expect(&look(&[way])?, 0, "out of memory in about 14h at the present rate");
    }
    // A cache is known by the second in which it began.
    host.exec(&["sh", "-c", "sleep 1 && systemctl restart php8.2-fpm"])?.success()?;
    expect(&look(&[])?, 0, "too early to say when it will be full: 1 of 3 readings");
    Ok(())
}

/// An admin site as Puppet makes it, by nginx and the same PHP-FPM, with a password.
fn admin_site(host: &Host) -> Result<()> {
    let php = |body: &str| format!("<?php {body}");
    host.write("/srv/admin/opcache.php", &php("echo json_encode(opcache_get_status(false));"))?;
    host.write("/srv/admin/frag.php", &php("echo '{\"fragmentation\": 96.5}';"))?;
    host.write("/srv/admin/free.php", &php("touch('/tmp/freed'); echo 'ok';"))?;
    let location = |at: &str, script: &str| {
        format!(
            "location = /{at} {{ include fastcgi_params; fastcgi_param SCRIPT_FILENAME /srv/admin/{script}.php; fastcgi_pass unix:/run/php/php8.2-fpm.sock; }}\n"
        )
    };
    // Its own port of this machine, which all hosts share.
    let port = host.address().port(0).ip().to_string().rsplit('.').next().unwrap().parse::<u16>()? + 20_000;
    let site = format!(
        "server {{ listen 127.0.0.1:{port}; auth_basic admin; auth_basic_user_file /etc/nginx/admin;\n{}{}{} }}\n",
        location("opcache-info", "opcache"),
        location("apcu-frag", "frag"),
        location("apcu-free", "free")
    );
    host.write("/etc/nginx/sites-enabled/admin", &site)?;
    host.write("/etc/nginx/admin", "php7adm:{PLAIN}secret\n")?;
    host.write("/etc/php7adm.netrc", "machine localhost login php7adm password secret\n")?;
    host.exec(&["chmod", "600", "/etc/php7adm.netrc"])?.success()?;
    host.write("/etc/php7adm.versions", &format!("{{\"8.2\": {port}}}\n"))?;
    host.exec(&["systemctl", "restart", "nginx"])?.success()?;
    Ok(())
}

#[test]
fn the_admin_site_is_asked_where_it_is_wanted_or_nobody_else_answers() -> Result<()> {
    let host = boot()?;
    admin_site(&host)?;
    expect(&tool(&host, &["-v", UNIT, "8"])?, 0, "asked pool 'www'");
    expect(&tool(&host, &["-v", "--dry-run", "--admin-site", UNIT, "8"])?, 0, "asked the admin site of PHP 8.2");
    host.exec(&["rm", "/usr/share/safe-service-restart/figures.php"])?.success()?;
    let output = tool(&host, &[UNIT, "8"])?;
    expect(&output, 0, "cannot be asked itself, so its admin site is: cannot read the figures from ");
    assert!(output.stdout.contains("cleared APCu"), "{output}");
    host.exec(&["test", "-e", "/tmp/freed"])?.success()?;
    host.write("/etc/php7adm.netrc", "machine localhost login php7adm password hunter2\n")?;
    let refused = tool(&host, &["--admin-site", UNIT, "8"])?;
    expect(&refused, 69, "it answers 401");
    assert!(!format!("{refused}").contains("hunter2"), "the password is said: {refused}");
    host.exec(&["systemctl", "stop", "nginx"])?.success()?;
    let output = tool(&host, &[UNIT, "8"])?;
    expect(&output, 69, "; and from the admin site: cannot read the opcache figures at 'http://localhost:");
    page(&host, "fill.php?scripts=1").unwrap_err();
    Ok(())
}
