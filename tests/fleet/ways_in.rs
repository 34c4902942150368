//! The other ways to a fleet: by force, in the deploy tool's own words, by another program that fans out, and with another command.

use testbed::Result;
use testbed::host::Output;
use testbed::ssh::USER;

use crate::deployment::{Deployment, expect, listed, says};
use crate::fleet::none_lost;

#[test]
fn an_emergency_restarts_all_hosts_at_once_and_needs_nothing_but_their_names() -> Result<()> {
    let mut deployment = Deployment::boot(10)?;
    let names: Vec<_> = deployment.fleet.site.hosts().iter().map(|host| host.name().to_owned()).collect();
    let before = deployment.fleet.so_far().len();
    let run = deployment.roll(&["--force", "--batch", "100%", "--reason", "the code is the outage"])?;
    expect(&run, 0);
    says(&run, "no pool is left, requests in flight die on every host");
    assert_eq!(listed(&run, "done").len(), names.len(), "{run}");
    deployment.each_restarted(1)?;
    assert_eq!(deployment.fleet.so_far().len(), before, "the pool was touched: {run}");

    // Without a store and without anybody who counts.
    deployment.fleet.site.etcd_mut().kill(0)?;
    deployment.fleet.kill_counter()?;
    deployment.host()?.write("/tmp/hosts", &names.join("\n"))?;
    let run = deployment.run(&["rolling-restart", "--force", "--hosts", "/tmp/hosts", "--json"])?;
    expect(&run, 0);
    assert_eq!(listed(&run, "done"), names, "one after the other, in the order of the list: {run}");
    deployment.each_restarted(2)
}

#[test]
fn the_deploy_tool_comes_in_by_its_own_words() -> Result<()> {
    let deployment = Deployment::boot(2)?;
    let load = deployment.fleet.load()?;
    let host = deployment.fleet.name(0).to_owned();
    let there = format!("{USER}@{host}");
    let says_this = |words: &[&str]| -> Result<Output> { deployment.run(&[&["ssh", &there, "--"], words].concat()) };
    let safe = says_this(&["sudo", "-u", "root", "--", "/usr/sbin/restart-php-fpm"])?;
    expect(&safe, 0);
    says(&safe, &format!("depooled '{host}' in 'appservers'"));
    none_lost(&load.stop()?);
    assert_eq!(deployment.restarts()?[&host], 1, "{safe}");
    let forced = says_this(&["sudo", "-u", "root", "--", "/usr/sbin/restart-php-fpm", "--force"])?;
    expect(&forced, 0);
    assert!(!forced.stderr.contains("depooled '"), "{forced}");
    assert_eq!(deployment.restarts()?[&host], 2, "{forced}");
    assert_eq!(deployment.restarts()?[deployment.fleet.name(1)], 0);
    Ok(())
}

/// Nobody but the hosts themselves keeps to a limit.
#[test]
fn clush_starts_all_and_no_more_are_out_than_the_hosts_themselves_allow() -> Result<()> {
    const AT_MOST: usize = 2;
    let deployment =
        Deployment::boot_with(10, "pools: [appservers]\nmax_concurrency: 2\nsettle: 0.4\nlb_timeout: 60\n")?;
    let load = deployment.fleet.load()?;
    // As the manual has it; -S makes its exit status that of the worst host.
    let hosts = "mw[1-10].eqiad.test";
    let run = deployment.run(&["clush", "-S", "-w", hosts, "-f", "10", "sudo", "-n", "/usr/sbin/restart-php-fpm"])?;
    expect(&run, 0);
    none_lost(&load.stop()?);
    deployment.each_restarted(1)?;
    let seen = deployment.fleet.end_well()?;
    let (store, balancers) = seen.most_out();
    assert_eq!(store, AT_MOST, "out at once in the store; with fewer this would prove nothing\n{seen}");
    assert!(balancers <= AT_MOST, "{balancers} were out at the load balancers at once\n{seen}");
    Ok(())
}

/// Another service of the same hosts, by a rule of the site's own.
#[test]
fn another_command_goes_through_the_same_batches() -> Result<()> {
    const COMMAND: &str = "sudo -n /usr/sbin/safe-service-restart --pools appservers --services nginx";
    let deployment = Deployment::boot(3)?;
    let nginx = |host: &testbed::host::Host| host.property("nginx", "MainPID");
    let hosts = deployment.fleet.site.hosts();
    let before = hosts.iter().map(nginx).collect::<Result<Vec<_>>>()?;
    let rule = format!("{USER} ALL = (root) NOPASSWD: {}\n", COMMAND.trim_start_matches("sudo -n "));
    for host in hosts {
        host.write("/etc/sudoers.d/nginx", &rule)?;
        host.exec(&["chmod", "0440", "/etc/sudoers.d/nginx"])?.success()?;
    }
    let load = deployment.fleet.load()?;
    let run = deployment.roll(&["--batch", "1", "--command", COMMAND])?;
    expect(&run, 0);
    none_lost(&load.stop()?);
    assert_eq!(listed(&run, "done").len(), 3, "{run}");
    for (host, before) in hosts.iter().zip(before) {
        assert_ne!(nginx(host)?, before, "'{}': {run}", host.name());
        deployment.fleet.site.wait_pooled(hosts.iter().position(|other| other.name() == host.name()).unwrap(), true)?;
    }
    deployment.each_restarted(0)?;
    let most = deployment.fleet.so_far().iter().map(|moment| moment.out.len()).max();
    assert_eq!(most, Some(1), "{run}");
    Ok(())
}
