//! No limit, a pool of three, and half of it has to stay: so one host can be spared. Two that start together must not both
//! leave, nor both give up for each other.

use std::time::Duration;

use testbed::Result;
use testbed::etcd::Driver;
use testbed::pybal::Fault;

use crate::fleet::{Counter, Fleet, LONG, none_lost};

const ROUNDS: usize = 4;
/// So long that two runs that start together are out at the same time, or would be.
const ARGUMENTS: [&str; 2] = ["--grace-period", "2"];

/// Starts two, of which one has to do it and one has to give up, and says what the latter said.
fn one_of_two(fleet: &Fleet, between: impl FnOnce(&mut [testbed::host::Running; 2]) -> Result<()>) -> Result<String> {
    let process = |host: usize| fleet.site.host(host).property(testbed::site::UNIT, "MainPID");
    let before = [process(0)?, process(1)?];
    let from = fleet.so_far().len();
    let mut runs = [fleet.start(0, &ARGUMENTS)?, fleet.start(1, &ARGUMENTS)?];
    between(&mut runs)?;
    let [one, other] = runs;
    let outputs = [one.wait(LONG)?, other.wait(LONG)?];
    let after = [process(0)?, process(1)?];
    let story = || {
        let moments: Vec<_> = fleet.so_far()[from..].iter().map(ToString::to_string).collect();
        format!("{}\n{}\n{}", outputs[0], outputs[1], moments.join("\n"))
    };
    let mut codes = outputs.each_ref().map(testbed::host::Output::code);
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(75)], "{}", story());
    for host in [0, 1] {
        let done = outputs[host].code() == Some(0);
        assert_eq!(before[host] != after[host], done, "restarted if and only if it says so: {}", story());
        assert!(fleet.journals(host)?.is_empty(), "{}", story());
        fleet.site.wait_pooled(host, true)?;
    }
    let loser = if outputs[0].code() == Some(0) { &outputs[1] } else { &outputs[0] };
    assert!(loser.stderr.contains("have to stay pooled (--min-pooled or 'min_pooled', 50%)"), "{}", story());
    assert!(loser.stderr.contains("not restarted, pools as found"), "{}", story());
    Ok(loser.stderr.clone())
}

fn two_of_three(driver: Driver) -> Result<()> {
    let fleet = Fleet::boot(3, driver, Counter::Nobody)?;
    let load = fleet.load()?;
    for _ in 0..ROUNDS {
        one_of_two(&fleet, |_| Ok(()))?;
    }
    // Both are past their first look at the pool while the load balancers keep them waiting; then only the second look,
    // right after the write, can tell them apart.
    for _ in 0..ROUNDS {
        for pybal in fleet.site.pybals() {
            pybal.fault(Fault::Status(503))?;
        }
        let said = one_of_two(&fleet, |runs| {
            for run in runs {
                run.wait_for_stderr("is known there", Duration::from_secs(30))?;
            }
            fleet.site.pybals().try_for_each(testbed::pybal::Pybal::heal)
        })?;
        assert!(said.contains(" leaves 1 of 3 hosts"), "it was not the second look that stopped it: {said}");
    }
    none_lost(&load.stop()?);
    Ok(())
}

#[test]
fn of_two_hosts_that_leave_a_pool_of_three_together_one_leaves_with_v2() -> Result<()> {
    two_of_three(Driver::V2)
}

#[test]
fn of_two_hosts_that_leave_a_pool_of_three_together_one_leaves_with_v3() -> Result<()> {
    two_of_three(Driver::V3)
}
