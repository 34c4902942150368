//! Ten hosts, all started at once, and never more than three out: by poolcounterd, and by leases in etcd.

use testbed::Result;
use testbed::etcd::Driver;

use crate::fleet::{Counter, Fleet, LONG, all_done, none_lost};

/// How many may be out.
pub const LIMIT: usize = 3;
/// What each run is told.
pub const AT_MOST_THREE: [&str; 4] = ["--max-concurrency", "3", "--grace-period", "0.5"];

fn ten_at_once(driver: Driver, counter: Counter) -> Result<()> {
    let fleet = Fleet::boot(10, driver, counter)?;
    let load = fleet.load()?;
    let runs = fleet.start_all(&AT_MOST_THREE)?;
    let outputs = runs.into_iter().map(|run| run.wait(LONG)).collect::<Result<Vec<_>>>()?;
    all_done(&outputs);
    none_lost(&load.stop()?);
    let seen = fleet.end_well()?;
    let (store, balancers) = seen.most_out();
    assert_eq!(store, LIMIT, "out at once in the store; with fewer than the limit this would prove nothing\n{seen}");
    assert!(balancers <= LIMIT, "{balancers} were out at the load balancers at once\n{seen}");
    // Each of them left and came back, once.
    assert_eq!(seen.history.len(), 1 + 2 * 10, "{seen}");
    Ok(())
}

#[test]
fn ten_hosts_at_once_are_three_at_a_time_by_poolcounter() -> Result<()> {
    ten_at_once(Driver::V2, Counter::Poolcounter)
}

#[test]
fn ten_hosts_at_once_are_three_at_a_time_by_leases() -> Result<()> {
    ten_at_once(Driver::V3, Counter::Leases)
}
