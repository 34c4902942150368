use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::host::{Host, boot_all};
use testbed::load::fetch;
use testbed::wait;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_host_boots_and_serves_php_on_its_own_address_alone() -> Result<()> {
    let host = Host::builder("mw1.eqiad.test")?.boot()?;
    assert_eq!(host.exec(&["systemctl", "is-system-running"])?.stdout, "running\n");
    assert!(fetch(host.web(), "/index.php", LIMIT)?.contains("ok "));
    assert!(fetch(host.web(), "/slow.php?ms=100", LIMIT)?.contains("ok "));
    // The network is the machine's; the processes column names only the host's own.
    let sockets = host.exec(&["ss", "--no-header", "-ltunp"])?.success()?;
    let own: Vec<&str> = sockets.lines().filter(|line| line.contains("users:")).collect();
    assert!(!own.is_empty(), "{sockets}");
    assert!(own.iter().all(|line| line.contains(&format!("{}:80", host.address()))), "{sockets}");
    Ok(())
}

#[test]
fn a_host_has_a_full_name_a_journal_and_its_own_address() -> Result<()> {
    let other = testbed::address::Address::reserve()?;
    let host = Host::builder("mw1.eqiad.test")?.knows("lvs1.eqiad.test", other.ip()).boot()?;
    assert_eq!(host.exec(&["hostname"])?.success()?, "mw1\n");
    assert_eq!(host.exec(&["hostname", "--fqdn"])?.success()?, "mw1.eqiad.test\n");
    let resolved = host.exec(&["getent", "hosts", "lvs1.eqiad.test"])?.success()?;
    assert!(resolved.starts_with(&format!("{other} ")), "{resolved}");
    host.exec(&["logger", "--tag", "conftool-audit", "--priority", "local0.info", "a line"])?.success()?;
    assert_eq!(host.journal("conftool-audit")?, ["a line"]);
    Ok(())
}

#[test]
fn commands_run_as_on_a_login_and_are_bounded() -> Result<()> {
    let host = Host::builder("mw1.eqiad.test")?.boot()?;
    let failed = host.exec(&["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    assert_eq!((failed.code(), failed.stdout.as_str(), failed.stderr.as_str()), (Some(7), "out\n", "err\n"));
    let report = failed.success().expect_err("it failed").to_string();
    assert!(report.contains("mw1.eqiad.test# sh -c") && report.contains("err"), "{report}");

    let environment = host.exec(&["env"])?.success()?;
    let mut names: Vec<&str> = environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]);

    let endless = host.exec_within(&["sleep", "86400"], Duration::from_millis(200));
    assert!(endless.is_err());
    wait::until("the endless command to be gone", LIMIT, || {
        Ok(host.exec(&["pgrep", "--exact", "sleep"])?.stdout.is_empty())
    })
}

#[test]
fn a_running_command_is_heard_and_signalled() -> Result<()> {
    let host = Host::builder("mw1.eqiad.test")?.boot()?;
    let script = "trap 'echo caught >&2; exit 3' TERM; echo ready >&2; while :; do sleep 0.05; done";
    let mut running = host.spawn(&["bash", "-c", script])?;
    running.wait_for_stderr("ready", LIMIT)?;
    assert!(!running.ended()?);
    running.signal(Signal::SIGTERM)?;
    let output = running.wait(LIMIT)?;
    assert_eq!((output.code(), output.stderr.as_str()), (Some(3), "ready\ncaught\n"));

    let mut killed = host.spawn(&["sleep", "86400"])?;
    killed.signal(Signal::SIGKILL)?;
    assert_eq!(killed.wait(LIMIT)?.code().filter(|code| *code != 137), None);
    Ok(())
}

#[test]
fn files_and_units_are_there_at_boot_and_can_be_written_later() -> Result<()> {
    let crashing = "[Service]\nType=exec\nExecStart=/bin/sh -c 'sleep 0.1; exit 1'\n";
    let host = Host::builder("mw1.eqiad.test")?
        .unit("crashing.service", crashing)
        .drop_in("php8.2-fpm.service", "limit.conf", "[Unit]\nStartLimitIntervalSec=123\n")
        .file("/root/note", "a note\n")
        .file("/etc/sudoers.d/deploy", "www-data ALL=(root) NOPASSWD: /bin/true\n")
        .boot()?;
    assert_eq!(host.property("php8.2-fpm", "StartLimitIntervalUSec")?, "2min 3s");
    host.exec(&["systemctl", "start", "crashing"])?.success()?;
    wait::until("the unit to crash", LIMIT, || Ok(host.property("crashing", "ActiveState")? == "failed"))?;
    // The folder kept the permissions that the root file system gives it, and the host's own users can use the file.
    assert_eq!(host.exec(&["stat", "-c", "%a", "/root"])?.success()?, "700\n");
    host.exec(&["runuser", "-u", "www-data", "--", "sudo", "-n", "/bin/true"])?.success()?;

    host.write("/etc/new/folder/file", "text\n")?;
    assert_eq!(host.read("/etc/new/folder/file")?, "text\n");
    Ok(())
}

#[test]
fn a_host_keeps_its_files_through_a_reboot_and_a_power_cut() -> Result<()> {
    let mut host = Host::builder("mw1.eqiad.test")?.boot()?;
    let boot_id = |host: &Host| host.property("php8.2-fpm", "InvocationID");
    let first = boot_id(&host)?;
    host.write("/var/lib/kept", "kept\n")?;
    host.write("/run/forgotten", "forgotten\n")?;
    host.stop()?;
    assert!(host.exec(&["true"]).is_err(), "it is off");
    assert!(fetch(host.web(), "/index.php", LIMIT).is_err(), "it is off");
    host.boot_again()?;
    let second = boot_id(&host)?;
    assert_ne!(first, second);
    assert_eq!(host.read("/var/lib/kept")?, "kept\n");
    assert!(host.read("/run/forgotten").is_err());

    host.power_cut()?;
    assert!(fetch(host.web(), "/index.php", LIMIT).is_err(), "it has no power");
    host.boot_again()?;
    assert_eq!(host.read("/var/lib/kept")?, "kept\n");
    assert!(fetch(host.web(), "/index.php", LIMIT)?.contains("ok "));
    Ok(())
}

#[test]
fn hosts_side_by_side_do_not_count_each_others_processes() -> Result<()> {
    let hosts = boot_all(vec![Host::builder("mw1.eqiad.test")?, Host::builder("mw2.eqiad.test")?])?;
    let main = |index: usize| hosts[index].property("php8.2-fpm", "MainPID");
    let tasks = |index: usize| hosts[index].exec(&["systemctl", "status", "--no-pager", "php8.2-fpm"])?.success();
    let (before, other) = (main(0)?, main(1)?);
    hosts[0].exec(&["systemctl", "restart", "php8.2-fpm"])?.success()?;
    assert_ne!(main(0)?, before);
    assert_eq!(main(1)?, other, "restarted together with its neighbour");
    assert!(fetch(hosts[1].web(), "/index.php", LIMIT)?.contains("ok "));
    // A master and its twenty children, and nobody else's.
    for index in 0..2 {
        let status = tasks(index)?;
        assert_eq!(status.matches("php-fpm: pool www").count(), 20, "{status}");
    }
    Ok(())
}

#[test]
fn a_host_whose_service_does_not_start_is_an_error_that_names_it() -> Result<()> {
    let broken = Host::builder("mw1.eqiad.test")?.file("/etc/nginx/sites-enabled/broken", "nonsense;\n").boot();
    let error = format!("{:#}", broken.expect_err("nginx cannot start"));
    assert!(error.contains("nginx.service"), "{error}");
    Ok(())
}
