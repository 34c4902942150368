//! The deploy user's way in: sudo with the shipped rule, and sudo-rs with the same. What it allows runs, and nothing else does,
//! whatever the caller adds.

use std::time::Duration;

use testbed::conftool::HostFile;
use testbed::host::Output;
use testbed::site::Site;
use testbed::{Result, prepared, wait};

use crate::drain::slow_request;
use crate::{expect, field, php, says};

const RULE: &str = include_str!("../../sudoers.d/restart-php-fpm");
/// The user that the shipped rule is for.
const DEPLOYER: &str = "mwdeploy";
const RESTART: &str = "/usr/sbin/restart-php-fpm";
/// Where a host finds the programs of sudo-rs, to put them in the place of sudo's.
const SUDO_RS: &str = "/usr/lib/sudo-rs";
const LIMIT: Duration = Duration::from_secs(30);

fn site() -> Result<Site> {
    let sudo_rs = prepared::sudo_rs()?;
    let site = crate::php::site().each_host(move |host| {
        host.files([HostFile::new("/etc/sudoers.d/restart-php-fpm", RULE).mode(0o440)])
            .bind_read_only(&sudo_rs, SUDO_RS)
    });
    let site = site.boot()?;
    let host = site.host(0);
    host.exec(&["useradd", "--create-home", DEPLOYER])?.success()?;
    host.exec(&["ln", "-s", "restart-php-fpm", "/usr/sbin/restart-php-fpm-all"])?.success()?;
    host.exec(&["visudo", "--check", "--strict"])?.success()?;
    Ok(site)
}

/// The same host with sudo-rs in the place of sudo.
fn with_sudo_rs() -> Result<Site> {
    let site = site()?;
    let host = site.host(0);
    for (mode, name, path) in [("4755", "sudo", "/usr/bin/sudo"), ("755", "visudo", "/usr/sbin/visudo")] {
        host.exec(&["install", "-m", mode, &format!("{SUDO_RS}/{name}"), path])?.success()?;
    }
    let version = host.exec(&["sudo", "--version"])?;
    assert!(version.stdout.starts_with("sudo-rs "), "{version}");
    // Its own does not look into the files that one includes.
    for file in ["/etc/sudoers", "/etc/sudoers.d/restart-php-fpm"] {
        host.exec(&["visudo", "--check", "--strict", "--file", file])?.success()?;
    }
    Ok(site)
}

/// The deploy user's shell, with this script.
fn deployer(site: &Site, script: &str) -> Result<Output> {
    site.host(0).exec(&["runuser", "-u", DEPLOYER, "--", "sh", "-c", script])
}

#[test]
fn what_the_deploy_tool_says_runs_as_root() -> Result<()> {
    what_is_allowed_runs(&site()?)
}

fn what_is_allowed_runs(site: &Site) -> Result<()> {
    let forms = [
        format!("sudo -n {RESTART}"),
        // These very words are the deploy tool's.
        format!("/usr/bin/sudo -u root -- {RESTART} --force"),
        format!("/usr/bin/sudo -u root -- {RESTART}-all"),
        format!("sudo -n {RESTART}-all --force"),
    ];
    for form in forms {
        let before = php(site)?;
        let run = deployer(site, &form)?;
        expect(&run, 0);
        assert_ne!(php(site)?, before, "not restarted: {run}");
    }
    let request = format!(r#"echo '{{"run": "r1", "reason": "wmf.5"}}' | sudo -n {RESTART} --request -"#);
    let run = deployer(site, &request)?;
    expect(&run, 0);
    assert_eq!((field(&run, "user"), field(&run, "fleet_run")), (DEPLOYER.into(), "r1".into()));
    site.wait_pooled(0, true)
}

#[test]
fn the_deploy_user_may_ask_how_things_stand_and_changes_nothing_by_it() -> Result<()> {
    let site = site()?;
    let ask = || deployer(&site, &format!(r#"echo '{{"status": true}}' | sudo -n {RESTART} --request -"#));
    let before = php(&site)?;
    let fine = ask()?;
    expect(&fine, 0);
    assert_eq!((field(&fine, "in_service"), field(&fine, "store")), ("yes".into(), "up".into()), "{fine}");
    assert_eq!(field(&fine, "units")[0]["active"], true, "{fine}");
    assert_eq!(php(&site)?, before, "{fine}");

    let host = site.host(0);
    host.write("/etc/systemd/system/php8.2-fpm.service.d/broken.conf", "[Service]\nExecStartPre=/bin/false\n")?;
    host.exec(&["systemctl", "daemon-reload"])?.success()?;
    let request = format!(r#"echo '{{"run": "r1", "reason": "wmf.5"}}' | sudo -n {RESTART} --request -"#);
    expect(&deployer(&site, &request)?, 3);
    let held = ask()?;
    expect(&held, 3);
    let left = field(&held, "journal")["left"].clone();
    assert_eq!((&left["what"], &left["user"], &left["reason"]), (&"held".into(), &DEPLOYER.into(), &"wmf.5".into()));
    // A file that cannot be used takes nothing away from what the journal says.
    host.write("/etc/restart-php-fpm.yaml", "pols: []\n")?;
    let seen = ask()?;
    expect(&seen, 3);
    says(&seen, "going on without the file of this host");
    assert_eq!(field(&seen, "journal")["left"]["what"], "held", "{seen}");
    Ok(())
}

#[test]
fn nothing_else_runs() -> Result<()> {
    let site = site()?;
    what_is_not_allowed_is_refused(&site)?;
    is_refused(&site, &format!("sudo -n -E {RESTART}"))
}

fn what_is_not_allowed_is_refused(site: &Site) -> Result<()> {
    let arguments = [
        "--dry-run",
        "--dry-run /etc/shadow",
        "--reload",
        "--json",
        "--reason x",
        "--services ssh",
        "--force --reload",
        "--force /etc/shadow",
        "--force ''",
        "''",
        "--request /etc/shadow",
        "--request - --force",
        "--request",
        "--config /tmp/x",
        "--unless-restarted-since 1",
        "--help",
    ];
    let mut refused: Vec<String> = arguments.iter().map(|arguments| format!("sudo -n {RESTART} {arguments}")).collect();
    refused.extend([
        "sudo -n /usr/sbin/safe-service-restart --force --services php8.2-fpm".to_owned(),
        "sudo -n sh -c true".to_owned(),
        format!("sudo -n sh -c {RESTART}"),
        format!("sudo -n LD_PRELOAD=/tmp/x.so {RESTART}"),
        format!("sudo -n PATH=/tmp {RESTART}"),
        format!("RUST_LOG=trace sudo -n --preserve-env=RUST_LOG {RESTART}"),
        format!("sudo -n -g adm {RESTART}"),
        // A program of that name; a link would run the real one, which is allowed.
        "cp /bin/true /tmp/restart-php-fpm && sudo -n /tmp/restart-php-fpm".to_owned(),
    ]);
    refused.iter().try_for_each(|command| is_refused(site, command))
}

fn is_refused(site: &Site, command: &str) -> Result<()> {
    let before = php(site)?;
    let run = deployer(site, command)?;
    assert_eq!(run.code(), Some(1), "{run}");
    assert!(run.stderr.contains("sudo: "), "it was not sudo that refused: {run}");
    assert_eq!(php(site)?, before, "restarted: {run}");
    Ok(())
}

/// One difference: it ignores -E, and says so, where sudo refuses it.
#[test]
fn under_sudo_rs_the_same_runs_and_nothing_else() -> Result<()> {
    let site = with_sudo_rs()?;
    what_is_allowed_runs(&site)?;
    what_is_not_allowed_is_refused(&site)?;
    nothing_gets_through(&site, "-n -E")
}

/// Not even where the site's own rules let everything through: the shipped rule says no, and the programs would remove it.
#[test]
fn nothing_of_the_callers_environment_gets_through() -> Result<()> {
    nothing_gets_through(&site()?, "-n")
}

fn nothing_gets_through(site: &Site, options: &str) -> Result<()> {
    const NAMES: &str = "LD_PRELOAD PATH PYTHONPATH http_proxy https_proxy HOME RUST_LOG RUST_BACKTRACE RES_OPTIONS";
    let host = site.host(0);
    let lax = format!("Defaults env_keep += \"{NAMES}\"\nDefaults !env_reset\n");
    host.write("/etc/sudoers.d/a-lax-site", &lax)?;
    host.exec(&["chmod", "0440", "/etc/sudoers.d/a-lax-site"])?.success()?;
    host.write("/etc/restart-php-fpm.yaml", "pools: [appservers]\nmin_pooled: 0\ngrace_period: 0.3\nsettle: 4\n")?;
    // What stands in the home folder would be read as conftool's file, and names an etcd that is not there.
    host.write("/tmp/home/.etcdrc", "host: 127.0.0.1\nport: 9\n")?;
    let before = php(site)?;
    let environment = "LD_PRELOAD=/tmp/none.so PATH=/tmp PYTHONPATH=/tmp http_proxy=http://127.0.0.1:9 \
                       https_proxy=http://127.0.0.1:9 HOME=/tmp/home RUST_LOG=trace RUST_BACKTRACE=1 RES_OPTIONS=debug";
    let script = format!("export {environment}; exec /usr/bin/sudo {options} {RESTART} 2>/tmp/said");
    let run = host.spawn(&["runuser", "-u", DEPLOYER, "--", "sh", "-c", &script])?;
    // The environment of the program itself, while it waits for the unit to settle.
    let environ = "for p in $(pgrep -x safe-service-re); do tr '\\0' '\\n' </proc/$p/environ; done; cat /tmp/said";
    let seen = wait::until_some("the restart", LIMIT, || {
        let seen = host.exec(&["sh", "-c", environ])?.stdout;
        Ok(Some(seen).filter(|seen| seen.contains("restarting 'php8.2-fpm")))
    })?;
    for name in NAMES.split(' ') {
        assert!(!seen.lines().any(|line| line.starts_with(&format!("{name}="))), "'{name}' got through: {seen}");
    }
    let ended = run.wait(Duration::from_secs(60))?;
    let said = host.read("/tmp/said")?;
    expect(&ended, 0);
    for word in ["trace: ", "debug: ", "127.0.0.1:9", "none.so"] {
        assert!(!said.contains(word), "'{word}' got through: {said}");
    }
    assert_ne!(php(site)?, before);
    Ok(())
}

/// sudo hands on resource limits, ignored signals and the working folder as they are.
#[test]
fn the_callers_limits_end_no_run_in_the_middle() -> Result<()> {
    let site = site()?;
    let before = php(&site)?;
    // Soft ones: to lift a hard one root needs a right that it may not have where tests run, as in a container.
    let limits = "ulimit -S -f 1; ulimit -S -t 1; ulimit -S -v 100000; ulimit -S -n 20; trap '' TERM; cd /tmp";
    let run = deployer(&site, &format!("{limits}; env --ignore-signal=CHLD sudo -n {RESTART}"))?;
    expect(&run, 0);
    let once = php(&site)?;
    assert_ne!(once, before);
    site.wait_pooled(0, true)?;
    let run = deployer(&site, &format!("env --ignore-signal=CHLD sudo -n {RESTART} --force"))?;
    expect(&run, 0);
    assert_ne!(php(&site)?, once);
    Ok(())
}

/// Somebody closes a laptop: either sudo passes that on, and the host is not left out of its pools.
#[test]
fn a_terminal_that_goes_away_puts_the_host_back() -> Result<()> {
    for boot in [site, with_sudo_rs] {
        let site = boot()?;
        let host = site.host(0);
        let before = php(&site)?;
        host.write("/etc/restart-php-fpm.yaml", "pools: [appservers]\nmin_pooled: 0\ngrace_period: 60\n")?;
        // What the run waits for.
        slow_request(&site, Duration::from_secs(60))?;
        let terminal = format!("exec script --quiet --command 'sudo -n {RESTART}' /tmp/said");
        let _script = host.spawn(&["runuser", "-u", DEPLOYER, "--", "sh", "-c", &terminal])?;
        let pooled = || site.conftool().pooled(&site.node(0));
        wait::until("the host to be taken out", LIMIT, || Ok(pooled()? == "no"))?;
        host.exec(&["pkill", "-KILL", "-x", "script"])?.success()?;
        wait::until("the host to be put back", LIMIT, || Ok(pooled()? == "yes"))?;
        site.wait_pooled(0, true)?;
        assert_eq!(php(&site)?, before);
    }
    Ok(())
}

/// Every key of a terminal that kills: one that leaves the host out would be a way to take it out for good, as long as no recovery comes.
#[test]
fn a_key_that_kills_puts_the_host_back() -> Result<()> {
    for (boot, key) in [(site as fn() -> Result<Site>, r"\003"), (site, r"\034"), (with_sudo_rs, r"\034")] {
        let site = boot()?;
        let host = site.host(0);
        let before = php(&site)?;
        host.write("/etc/restart-php-fpm.yaml", "pools: [appservers]\nmin_pooled: 0\ngrace_period: 60\n")?;
        slow_request(&site, Duration::from_secs(60))?;
        host.exec(&["mkfifo", "--mode=666", "/tmp/keys"])?.success()?;
        let terminal = format!("exec 7<>/tmp/keys; exec script --quiet --command 'sudo -n {RESTART}' /tmp/said <&7");
        let _script = host.spawn(&["runuser", "-u", DEPLOYER, "--", "sh", "-c", &terminal])?;
        let pooled = || site.conftool().pooled(&site.node(0));
        wait::until("the host to be taken out", LIMIT, || Ok(pooled()? == "no"))?;
        host.exec(&["sh", "-c", &format!("printf '{key}' >/tmp/keys")])?.success()?;
        wait::until("the host to be put back", LIMIT, || Ok(pooled()? == "yes"))?;
        site.wait_pooled(0, true)?;
        assert_eq!(php(&site)?, before);
    }
    Ok(())
}

#[test]
fn a_file_that_the_caller_can_write_is_refused() -> Result<()> {
    let site = site()?;
    let before = php(&site)?;
    site.host(0).exec(&["chown", DEPLOYER, "/etc/restart-php-fpm.yaml"])?.success()?;
    let refused = deployer(&site, &format!("sudo -n {RESTART}"))?;
    expect(&refused, 77);
    says(&refused, "will not read '/etc/restart-php-fpm.yaml' as root");
    assert_eq!(php(&site)?, before);
    Ok(())
}
