//! Hosts that cannot be come to, by the real ssh and the real sudo: each is told in one sentence, counts against the budget that is
//! for it, and is done once its trouble is over.

use testbed::Result;
use testbed::host::Output;
use testbed::wait;

use crate::deployment::{Deployment, end, expect, listed, resume, says};
use crate::fleet::LONG;

const WHATEVER_HAPPENS: [&str; 8] =
    ["--canaries", "0", "--batch", "100%", "--max-failures", "100%", "--max-unreachable", "100%"];

/// What is said of a host.
fn message(run: &Output, list: &str, host: &str) -> String {
    let hosts = end(run)[list].as_array().cloned().unwrap_or_default();
    let found = hosts.iter().find(|entry| entry["host"] == *host);
    let found = found.unwrap_or_else(|| panic!("'{host}' is not in '{list}': {run}"));
    found["message"].as_str().unwrap().to_owned()
}

#[test]
fn each_kind_of_trouble_is_one_sentence_and_counts_against_its_own_budget() -> Result<()> {
    let mut deployment = Deployment::boot(5)?;
    let name = |host: usize| format!("mw{}.eqiad.test", host + 1);
    let (off, changed, forbidden, unknown) = (1, 2, 3, 4);
    deployment.fleet.site.host_mut(off).power_cut()?;
    let site = &deployment.fleet.site;
    // Set up anew, and nobody told the deployment host.
    let new_key = "cd /etc/ssh && rm ssh_host_*_key && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key <>/dev/null && \
                   systemctl restart ssh";
    site.host(changed).exec(&["sh", "-ec", new_key])?.success()?;
    site.host(forbidden).exec(&["mv", "/etc/sudoers.d/restart-php-fpm", "/root/rule"])?.success()?;
    site.host(unknown).exec(&["mv", "/home/mwdeploy/.ssh/authorized_keys", "/root/keys"])?.success()?;

    let run = deployment.roll(&WHATEVER_HAPPENS)?;
    expect(&run, 1);
    assert_eq!(listed(&run, "done"), [name(0)], "{run}");
    let unreachable = |host: usize| message(&run, "unreachable", &name(host));
    assert_eq!(unreachable(off), format!("ssh: connect to host {} port 22: Connection refused", name(off)));
    assert_eq!(unreachable(changed), "Host key verification failed.");
    assert_eq!(unreachable(unknown), format!("mwdeploy@{}: Permission denied (publickey,password).", name(unknown)));
    assert_eq!(message(&run, "failed", &name(forbidden)), "sudo: a password is required");
    says(&run, &format!("unreachable: {}: Host key verification failed.", name(changed)));
    says(&run, &format!("failed: {}: sudo: a password is required", name(forbidden)));

    // Each budget by itself: what cannot be reached is no failure, and ends the run no later.
    let list = [name(off), name(changed), name(0)].join("\n");
    deployment.host()?.write("/tmp/hosts", &list)?;
    let roll = |arguments: &[&str]| -> Result<Output> {
        deployment.run(&[&["rolling-restart", "--json", "--hosts", "/tmp/hosts", "--batch", "1"], arguments].concat())
    };
    let run = roll(&["--canaries", "0", "--max-unreachable", "2"])?;
    expect(&run, 69);
    says(&run, "no other host is started: the budget of unreachable hosts is used up (--max-unreachable)");
    assert_eq!(listed(&run, "unreachable"), [name(off), name(changed)], "{run}");
    assert_eq!(listed(&run, "never_tried"), [name(0)], "{run}");
    deployment.host()?.write("/tmp/hosts", &[name(forbidden), name(0)].join("\n"))?;
    let run = deployment.run(&["rolling-restart", "--json", "--hosts", "/tmp/hosts"])?;
    expect(&run, 1);
    says(&run, "no other host is started: the budget of failures is used up (--max-failures)");
    assert_eq!(listed(&run, "never_tried"), [name(0)], "{run}");
    assert_eq!(deployment.restarts_of(0)?, 1, "restarted again: {run}");
    Ok(())
}

/// The power of a host goes while it is out: it is not said to be done, nor blamed on ssh, and once it is up again it is brought back.
#[test]
fn a_host_that_dies_in_the_middle_is_not_done_and_is_restarted_when_it_is_back() -> Result<()> {
    // Half of them have to stay, and two will be out.
    let mut deployment = Deployment::boot(4)?;
    let victim = 1;
    let name = deployment.fleet.name(victim).to_owned();
    let run = deployment.start_roll(&["--canaries", "0", "--batch", "1", "--max-unreachable", "2"])?;
    wait::until(&format!("'{name}' to leave the pool"), LONG, || deployment.fleet.is_out(victim))?;
    deployment.fleet.site.host_mut(victim).power_cut()?;
    let run = run.wait(LONG)?;
    expect(&run, 69);
    let lost = "the connection was lost, and the host may be in the middle of it; it last said: safe-service-restart: ";
    assert!(message(&run, "unreachable", &name).starts_with(lost), "{run}");
    assert_eq!(listed(&run, "done").len(), 3, "{run}");
    assert!(deployment.fleet.is_out(victim)?, "{run}");

    deployment.fleet.site.host_mut(victim).boot_again()?;
    let again = deployment.run(&["sh", "-c", &resume(&run)])?;
    expect(&again, 0);
    assert_eq!(listed(&again, "skipped").len() + listed(&again, "done").len(), 4, "{again}");
    deployment.fleet.end_well()?;
    Ok(())
}
