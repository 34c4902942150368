//! The deploy user's way in: sudo with the shipped rule. What it allows runs, and nothing else does, whatever the caller adds.

use testbed::Result;
use testbed::conftool::HostFile;
use testbed::host::Output;
use testbed::site::Site;

use crate::{expect, field, php, says};

const RULE: &str = include_str!("../../sudoers.d/restart-php-fpm");
/// The user that the shipped rule is for.
const DEPLOYER: &str = "mwdeploy";
const RESTART: &str = "/usr/sbin/restart-php-fpm";

fn site() -> Result<Site> {
    let site = crate::php::site()
        .each_host(|host| host.files([HostFile::new("/etc/sudoers.d/restart-php-fpm", RULE).mode(0o440)]));
    let site = site.boot()?;
    let host = site.host(0);
    host.exec(&["useradd", "--create-home", DEPLOYER])?.success()?;
    host.exec(&["ln", "-s", "restart-php-fpm", "/usr/sbin/restart-php-fpm-all"])?.success()?;
    host.exec(&["visudo", "--check", "--strict"])?.success()?;
    Ok(site)
}

/// The deploy user's shell, with this script.
fn deployer(site: &Site, script: &str) -> Result<Output> {
    site.host(0).exec(&["runuser", "-u", DEPLOYER, "--", "sh", "-c", script])
}

#[test]
fn what_the_deploy_tool_says_runs_as_root() -> Result<()> {
    let site = site()?;
    let forms = [
        format!("sudo -n {RESTART}"),
        // These very words are the deploy tool's.
        format!("/usr/bin/sudo -u root -- {RESTART} --force"),
        format!("/usr/bin/sudo -u root -- {RESTART}-all"),
        format!("sudo -n {RESTART}-all --force"),
    ];
    for form in forms {
        let before = php(&site)?;
        let run = deployer(&site, &form)?;
        expect(&run, 0);
        assert_ne!(php(&site)?, before, "not restarted: {run}");
    }
    let request = format!(r#"echo '{{"run": "r1", "reason": "wmf.5"}}' | sudo -n {RESTART} --request -"#);
    let run = deployer(&site, &request)?;
    expect(&run, 0);
    assert_eq!((field(&run, "user"), field(&run, "fleet_run")), (DEPLOYER.into(), "r1".into()));
    site.wait_pooled(0, true)
}

#[test]
fn nothing_else_runs() -> Result<()> {
    let site = site()?;
    let before = php(&site)?;
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
        format!("sudo -n -E {RESTART}"),
        format!("RUST_LOG=trace sudo -n --preserve-env=RUST_LOG {RESTART}"),
        format!("sudo -n -g adm {RESTART}"),
        // A program of that name; a link would run the real one, which is allowed.
        "cp /bin/true /tmp/restart-php-fpm && sudo -n /tmp/restart-php-fpm".to_owned(),
    ]);
    for command in refused {
        let run = deployer(&site, &command)?;
        assert_eq!(run.code(), Some(1), "{run}");
        assert!(run.stderr.contains("sudo: "), "it was not sudo that refused: {run}");
        assert_eq!(php(&site)?, before, "restarted: {run}");
    }
    Ok(())
}

#[test]
fn nothing_of_the_callers_environment_gets_through() -> Result<()> {
    let site = site()?;
    let before = php(&site)?;
    // Each would be seen: a library that is not there is complained of, a proxy that is not there fails every request.
    let environment = "LD_PRELOAD=/tmp/none.so PATH=/tmp PYTHONPATH=/tmp http_proxy=http://127.0.0.1:9 \
                       https_proxy=http://127.0.0.1:9 HOME=/tmp RUST_LOG=trace RUST_BACKTRACE=1 RES_OPTIONS=debug LC_ALL=x";
    let run = deployer(
        &site,
        &format!(
            "export {environment}; /usr/bin/sudo -n {RESTART} 2>/tmp/said; code=$?; /bin/cat /tmp/said >&2; exit $code"
        ),
    )?;
    expect(&run, 0);
    for word in ["TRACE", "DEBUG", "none.so: cannot be preloaded (", "proxy"] {
        let ours: Vec<&str> = run
            .stderr
            .lines()
            .filter(|line| line.contains("restart-php-fpm:") || line.contains("safe-service-restart:"))
            .collect();
        assert!(!ours.iter().any(|line| line.contains(word)), "'{word}' got through: {run}");
    }
    assert_ne!(php(&site)?, before);
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
