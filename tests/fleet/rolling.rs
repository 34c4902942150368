//! `rolling-restart` over ten hosts: that it goes well, that it stops where it does not, and that it can be resumed however it ended.

use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::host::Running;
use testbed::load::Load;
use testbed::site::UNIT;
use testbed::wait;

use crate::deployment::{Deployment, OWN_LIMIT, end, events, expect, listed, resume, says};
use crate::fleet::{LONG, none_lost};

const HOSTS: usize = 10;
/// A fifth of them.
const AT_ONCE: usize = 2;
const A_FIFTH: [&str; 2] = ["--batch", "20%"];

/// Users, a fifth of whom wait for a second: longer than all that a restart takes but the drain.
fn load(deployment: &Deployment) -> Result<Load> {
    let mut plan = deployment.fleet.site.load().rate(30).slow(5, Duration::from_secs(1));
    plan.limit = 3 * LONG;
    plan.start()
}

/// Waits until so many hosts were reported done.
fn await_done(run: &Running, count: usize) -> Result<()> {
    let done = || run.stdout().matches(r#""outcome":"done""#).count();
    wait::until(&format!("{count} hosts to be done"), LONG, || Ok(done() >= count))
}

#[test]
fn a_fifth_at_a_time_loses_no_request_and_no_more_are_out_at_once() -> Result<()> {
    let deployment = Deployment::boot(HOSTS)?;
    let load = load(&deployment)?;
    let run = deployment.roll(&[&A_FIFTH[..], &["--reason", "wmf.5: it's \"new\""]].concat())?;
    expect(&run, 0);
    none_lost(&load.stop()?);
    assert_eq!(listed(&run, "done").len(), HOSTS, "{run}");
    deployment.each_restarted(1)?;
    // The run stands in each host's own log, beside what was said to be the reason and who came.
    let name = end(&run)["run"].as_str().unwrap().to_owned();
    for host in deployment.fleet.site.hosts() {
        let log = host.journal("safe-service-restart")?.join("\n");
        for words in [&name[..], "wmf.5: it's \"new\"", "mwdeploy"] {
            assert!(log.contains(words), "'{words}' is not in the log of '{}':\n{log}", host.name());
        }
    }
    let seen = deployment.fleet.end_well()?;
    let (store, balancers) = seen.most_out();
    assert_eq!(store, AT_ONCE, "out at once in the store; with fewer this would prove nothing\n{seen}");
    assert!(balancers <= AT_ONCE, "{balancers} were out at the load balancers at once\n{seen}");
    // Each of them left and came back, once.
    assert_eq!(seen.history.len(), 1 + 2 * HOSTS, "{seen}");
    Ok(())
}

#[test]
fn a_host_whose_service_does_not_come_back_ends_the_run_stays_out_and_is_named() -> Result<()> {
    let deployment = Deployment::boot(HOSTS)?;
    let site = &deployment.fleet.site;
    let broken = site.hosts().iter().position(|host| host.name().starts_with("mw4.")).unwrap();
    let name = site.host(broken).name();
    let drop_in = format!("/etc/systemd/system/{UNIT}.service.d/broken.conf");
    site.host(broken).write(&drop_in, "[Service]\nExecStartPre=/bin/false\n")?;
    site.host(broken).exec(&["systemctl", "daemon-reload"])?.success()?;

    let load = load(&deployment)?;
    let run = deployment.roll(&A_FIFTH)?;
    expect(&run, 3);
    assert_eq!(listed(&run, "left_depooled"), [name], "{run}");
    assert!(listed(&run, "failed").is_empty(), "{run}");
    let (done, never) = (listed(&run, "done"), listed(&run, "never_tried"));
    assert!(!never.is_empty() && done.len() + 1 + never.len() == HOSTS, "{run}");
    says(&run, "no other host is started: the budget of failures is used up (--max-failures)");
    let last = run.stderr.lines().last().unwrap();
    assert!(last.contains(&format!("LEFT DEPOOLED: {name}: ")), "the last line is '{last}'");
    // A terminal may be gone by then; the log of the deployment host is not.
    let log = deployment.host()?.journal("rolling-restart")?.join("\n");
    assert!(log.contains(&format!("left depooled (1): {name}; go on with: {}", resume(&run))), "{log}\n{run}");
    // Those that it says were not touched were not, and it alone is out.
    let restarts = deployment.restarts()?;
    for (host, count) in &restarts {
        assert_eq!(*count, usize::from(done.contains(host)), "'{host}': {restarts:?}\n{run}");
    }
    let out = deployment.fleet.so_far().last().unwrap().out.clone();
    assert_eq!(out.iter().collect::<Vec<_>>(), [name], "{run}");

    // Whoever asks is told the same by the host itself, over the same ssh and the same rule of sudo.
    let status = deployment.roll(&["--status"])?;
    expect(&status, 3);
    let listed_now: Vec<_> = events(&status).into_iter().filter(|event| event["event"] == "host-status").collect();
    let [seen] = &listed_now[..] else { panic!("not one host: {status}") };
    let id = end(&run)["run"].clone();
    for (key, wanted) in [("host", name), ("state", "held"), ("by", "mwdeploy"), ("fleet_run", id.as_str().unwrap())] {
        assert_eq!(seen[key], wanted, "'{key}': {status}");
    }

    // Once it is repaired, the command that was printed does what is left.
    site.host(broken).exec(&["rm", &drop_in])?.success()?;
    site.host(broken).exec(&["systemctl", "daemon-reload"])?.success()?;
    let again = deployment.run(&["sh", "-c", &resume(&run)])?;
    expect(&again, 0);
    none_lost(&load.stop()?);
    let mut skipped = listed(&again, "skipped");
    skipped.sort();
    let mut done = done;
    done.sort();
    assert_eq!(skipped, done, "{again}");
    deployment.each_restarted(1)?;
    let seen = deployment.fleet.end_well()?;
    let (store, balancers) = seen.most_out();
    assert!(store <= AT_ONCE && balancers <= AT_ONCE, "{store} and {balancers} were out at once\n{seen}");
    Ok(())
}

/// Whoever is in a hurry leaves hosts in the middle of it, and their ssh is ended: sudo and the tool there have lost everybody who
/// listens, and go on.
#[test]
fn hosts_that_are_not_waited_for_any_more_finish_their_restart_and_come_back() -> Result<()> {
    // A second signal counts only a while after the first: by then the hosts must still be in the middle of it.
    let deployment = Deployment::boot_with(4, "pools: [appservers]\nmax_concurrency: 3\nsettle: 5\nlb_timeout: 60\n")?;
    let load = load(&deployment)?;
    let mut run = deployment.start_roll(&["--canaries", "0", "--batch", "2"])?;
    let is_out = |host: usize| deployment.fleet.is_out(host);
    wait::until("two hosts to be out", LONG, || Ok(is_out(0)? && is_out(1)?))?;
    run.signal(Signal::SIGINT)?;
    std::thread::sleep(Duration::from_millis(1100));
    run.signal(Signal::SIGINT)?;
    let run = run.wait(LONG)?;
    assert_eq!(run.code(), None, "ends by the signal: {run}");
    let still = listed(&run, "still_running");
    assert!(!still.is_empty(), "all had ended, and this would prove nothing: {run}");
    says(&run, "still running, and no longer waited for");
    for host in 0..2 {
        deployment.fleet.site.wait_pooled(host, true)?;
        assert_eq!(deployment.restarts_of(host)?, 1, "'{}': {run}", deployment.fleet.name(host));
    }
    // What they did by themselves counts for whoever goes on.
    let again = deployment.run(&["sh", "-c", &resume(&run)])?;
    expect(&again, 0);
    none_lost(&load.stop()?);
    deployment.each_restarted(1)?;
    deployment.fleet.end_well()?;
    Ok(())
}

/// Once by a Ctrl-C, after which it says how to go on; once by SIGKILL, after which nobody says anything: whoever goes on names the
/// time when all began.
#[test]
fn a_run_that_is_killed_half_way_and_resumed_restarts_every_host_exactly_once() -> Result<()> {
    let deployment = Deployment::boot(HOSTS)?;
    let load = load(&deployment)?;
    let mut first = deployment.start_roll(&A_FIFTH)?;
    await_done(&first, 2)?;
    first.signal(Signal::SIGINT)?;
    let first = first.wait(LONG)?;
    assert_eq!(first.code(), None, "ends by the signal: {first}");
    let (done, never) = (listed(&first, "done").len(), listed(&first, "never_tried").len());
    assert!(done >= 2 && never > 0 && done + never == HOSTS, "those that ran are waited for: {first}");

    let command = resume(&first);
    let mut second = deployment.start(&["sh", "-c", &format!("exec {command}")])?;
    await_done(&second, 3)?;
    second.signal(Signal::SIGKILL)?;
    let second = second.wait(LONG)?;
    assert!(!second.stdout.contains(r#""event":"end""#), "it had ended: {second}");
    let restarted = deployment.restarts()?.values().filter(|count| **count > 0).count();
    assert!(restarted < HOSTS, "nothing was left to be resumed: {second}");

    let began = events(&first)[0]["time"].as_str().unwrap().to_owned();
    let third = deployment.roll(&[&A_FIFTH[..], &["--since", &began]].concat())?;
    expect(&third, 0);
    none_lost(&load.stop()?);
    let (done, skipped) = (listed(&third, "done").len(), listed(&third, "skipped").len());
    assert!(done > 0 && skipped >= 5 && done + skipped == HOSTS, "{third}");
    deployment.each_restarted(1)?;
    let seen = deployment.fleet.end_well()?;
    // What the killed run had begun goes on beside what the next one begins: now the hosts' own limit counts.
    let (store, balancers) = seen.most_out();
    assert!(store <= OWN_LIMIT && balancers <= OWN_LIMIT, "{store} and {balancers} were out at once\n{seen}");
    Ok(())
}
