//! Ten hosts at once, of which three die half way, each at another point. What they leave out is brought back by `--recover`,
//! and a second run everywhere finds nothing in its way.
//!
//! The two lock services differ in what a dead run counts for. With leases, a host that it left out counts against the limit
//! until it is back. poolcounterd forgets a run with its connection: at most three are alive, and the capacity check bounds what
//! they and the dead keep out together.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testbed::Result;
use testbed::etcd::Driver;
use testbed::host::{Output, Running};
use testbed::wait;

use crate::fleet::{Counter, Fleet, LONG, Seen, all_done, none_lost};
use crate::history::Moment;
use crate::limit::{AT_MOST_THREE, LIMIT};

/// How many have to be done before the first dies.
const HALF_WAY: usize = 4;
/// What a run has said last when it is killed: the first victim, the second, the third.
const POINTS: [&str; 3] = ["depooled '", "for requests in flight", "restarting '"];

/// A run that was killed.
struct Victim {
    host: usize,
    /// A revision of the store before which it was alive.
    alive_until: u64,
}

/// What became of the first runs.
struct FirstRuns {
    victims: Vec<Victim>,
    /// Those that ended by themselves before the last victim died.
    outputs: BTreeMap<usize, Output>,
    /// Those that had not ended then.
    running: BTreeMap<usize, Running>,
}

/// Starts a run on each host, and kills three of them at different points once some are done.
fn kill_three_half_way(fleet: &Fleet) -> Result<FirstRuns> {
    let mut running: BTreeMap<_, _> = fleet.start_all(&AT_MOST_THREE)?.into_iter().enumerate().collect();
    let (mut outputs, mut victims) = (BTreeMap::new(), Vec::new());
    let end = Instant::now() + LONG;
    while victims.len() < POINTS.len() {
        let hosts: Vec<_> = running.keys().copied().collect();
        for host in hosts {
            let run = running.get_mut(&host).unwrap();
            if run.ended()? {
                outputs.insert(host, running.remove(&host).unwrap().wait(LONG)?);
                continue;
            }
            let Some(point) = POINTS.get(victims.len()).filter(|_| outputs.len() >= HALF_WAY) else { continue };
            let said = run.stderr();
            if !said.contains(point) || said.contains("restarted '") {
                continue;
            }
            let alive_until = fleet.so_far().last().unwrap().revision;
            // It may have ended just now: then the next look tells.
            if run.signal(Signal::SIGKILL).is_err() {
                continue;
            }
            let output = running.remove(&host).unwrap().wait(LONG)?;
            if output.code().is_some() {
                outputs.insert(host, output);
            } else if fleet.is_out(host)? {
                assert!(!fleet.journals(host)?.is_empty(), "killed, and there is no journal: {output}");
                victims.push(Victim { host, alive_until });
            } else {
                // On a busy machine it may have come back between the look and its death.
                fleet.recover(host)?;
            }
        }
        let story = || outputs.values().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(!running.is_empty() || victims.len() == POINTS.len(), "nobody is left to be killed:\n{}", story());
        assert!(Instant::now() < end, "too few were killed within {LONG:?}:\n{}", story());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(FirstRuns { victims, outputs, running })
}

impl FirstRuns {
    fn names(&self, fleet: &Fleet) -> BTreeSet<String> {
        self.victims.iter().map(|victim| fleet.name(victim.host).to_owned()).collect()
    }

    /// Waits for those who still run.
    fn await_rest(&mut self) -> Result<()> {
        for (host, run) in std::mem::take(&mut self.running) {
            self.outputs.insert(host, run.wait(LONG)?);
        }
        Ok(())
    }

    /// A host that was depooled when its run died stays so: nobody but its recovery brings it back.
    fn all_out(&self, fleet: &Fleet) {
        let moments = fleet.so_far();
        let out = &moments.last().unwrap().out;
        for name in self.names(fleet) {
            assert!(out.contains(&name), "'{name}' is not out although its run was killed: {moments:#?}");
        }
    }
}

#[test]
fn hosts_that_killed_runs_left_out_count_against_the_limit_of_leases() -> Result<()> {
    let fleet = Fleet::boot(10, Driver::V3, Counter::Leases)?;
    let load = fleet.load()?;
    let mut first = kill_three_half_way(&fleet)?;
    first.all_out(&fleet);
    // Their leases end, and with them their places in the queue. Their hosts go on counting: nobody else may go.
    let victims = first.names(&fleet);
    wait::until("the leases of the dead to end", Duration::from_secs(60), || {
        let queue = fleet.queue()?;
        Ok(!victims.iter().any(|name| queue.iter().any(|entry| entry.contains(name))))
    })?;
    let before = fleet.so_far().last().unwrap().clone();
    assert_eq!(before.out, victims);
    // Long enough for those who wait to have gone, if they thought that they may.
    thread::sleep(Duration::from_secs(2));
    let after = fleet.so_far().last().unwrap().clone();
    assert_eq!(after.revision, before.revision, "somebody left while the dead had all slots: {after}");
    for victim in &first.victims {
        fleet.recover(victim.host)?;
    }
    first.await_rest()?;
    all_done(&first.outputs.values().cloned().collect::<Vec<_>>());
    second_run(&fleet)?;
    none_lost(&load.stop()?);
    let seen = fleet.end_well()?;
    let (store, balancers) = seen.most_out();
    assert_eq!(store, LIMIT, "out at once in the store\n{seen}");
    assert!(balancers <= LIMIT, "{balancers} were out at the load balancers at once\n{seen}");
    Ok(())
}

#[test]
fn with_poolcounter_three_runs_are_alive_and_the_capacity_check_bounds_what_the_dead_left() -> Result<()> {
    let fleet = Fleet::boot(10, Driver::V2, Counter::Poolcounter)?;
    let load = fleet.load()?;
    let mut first = kill_three_half_way(&fleet)?;
    first.all_out(&fleet);
    first.await_rest()?;
    // Half of the pool has to stay, and three are out: so some may have had to give up.
    let mut went_on = BTreeSet::new();
    for (host, output) in &first.outputs {
        if output.code() == Some(0) {
            went_on.insert(fleet.name(*host).to_owned());
        }
        let gave_up = output.code() == Some(75)
            && output.stderr.contains("have to stay pooled (--min-pooled or 'min_pooled', 50%)");
        assert!(output.code() == Some(0) || gave_up, "{output}");
    }
    let names: BTreeMap<_, _> =
        first.victims.iter().map(|victim| (fleet.name(victim.host).to_owned(), victim.alive_until)).collect();
    first.all_out(&fleet);
    let up_to = fleet.so_far().last().unwrap().revision;
    for victim in &first.victims {
        fleet.recover(victim.host)?;
    }
    second_run(&fleet)?;
    none_lost(&load.stop()?);
    let seen = fleet.end_well()?;
    at_most_three_alive(&seen, &names, up_to);
    half_stays(&seen, up_to, &went_on);
    Ok(())
}

/// Every host once more, all at once: now nothing is in anybody's way.
fn second_run(fleet: &Fleet) -> Result<()> {
    let runs = fleet.start_all(&AT_MOST_THREE)?;
    all_done(&runs.into_iter().map(|run| run.wait(LONG)).collect::<Result<Vec<_>>>()?);
    Ok(())
}

/// At every revision, at most three are out whose run is alive. `dead` says until when each of them was alive, and all are
/// dead, not recovered, up to the revision `up_to`.
fn at_most_three_alive(seen: &Seen, dead: &BTreeMap<String, u64>, up_to: u64) {
    let alive = |moment: &Moment| {
        let is_dead = |host: &&String| {
            dead.get(*host).is_some_and(|alive_until| moment.revision > *alive_until && moment.revision <= up_to)
        };
        moment.out.iter().filter(|host| !is_dead(host)).count()
    };
    for moment in &seen.history {
        assert!(alive(moment) <= LIMIT, "{} are out alive at {moment}\n{seen}", alive(moment));
    }
    let most = seen.history.iter().map(alive).max();
    assert_eq!(most, Some(LIMIT), "with fewer than the limit alive this would prove nothing\n{seen}");
}

/// Half of the pool has to stay. A run that leaves when half is out already may write that it does, and then has to take it
/// back: one that went on had others come back, between its write and its look at those who left no later than itself.
fn half_stays(seen: &Seen, up_to: u64, went_on: &BTreeSet<String>) {
    const MAY_BE_OUT: usize = 10 / 2;
    let mut written = BTreeMap::new();
    let mut too_many: BTreeMap<String, u64> = BTreeMap::new();
    for moment in seen.history.iter().take_while(|moment| moment.revision <= up_to) {
        for (host, pooled) in &moment.written {
            let stayed = too_many.remove(host).filter(|_| went_on.contains(host));
            assert_eq!(stayed, None, "'{host}' went on with more than half of the pool out, up to {moment}\n{seen}");
            written.insert(host.clone(), moment.revision);
            if pooled == "no" {
                too_many.insert(host.clone(), moment.revision);
            }
        }
        too_many.retain(|_, ours| moment.out.iter().filter(|host| written[*host] <= *ours).count() > MAY_BE_OUT);
    }
}
