//! Who has a slot. etcd names its holders; poolcounter's daemons know figures alone, and each is asked for them once, for one second.

use std::time::Duration;

use conftool::Keeper;
use poolcounter::{Backend, Backends, Key};
use restart_core::{ExitCode, PoolName, Record, StoreError};

use super::{Daemon, Limit, Slots, Status, Store};
use crate::cli::Cli;
use crate::settings;

/// How long the daemons may take, from the look-up of their names to the last byte.
const AT_MOST: Duration = Duration::from_secs(1);

/// The slots of the limits that this host's pools have a part in.
pub(super) fn look(cli: &Cli, status: &mut Status, keeper: Option<&Keeper>, record: Option<&Record>) {
    if cli.slots.as_deref() != Some("etcd") {
        match settings::backends(&cli.poolcounter_config) {
            Ok(Some(backends)) => return ask_daemons(cli, status, &backends, record),
            Ok(None) => {}
            Err(failure) => return status.problem("slots", failure.code, failure.message),
        }
    }
    if let Some(Keeper::Etcd(store)) = keeper {
        look_at_leases(status, store);
    }
}

fn ask_daemons(cli: &Cli, status: &mut Status, backends: &Backends, record: Option<&Record>) {
    let mut asked: Vec<&Backend> = Vec::new();
    for key in limits(cli, status, record) {
        let backend = backends.of(&key);
        if !asked.contains(&backend) {
            asked.push(backend);
        }
    }
    let hosts = asked.iter().map(|backend| backend.host().to_owned()).collect();
    let mut daemons = Vec::new();
    for (backend, answer) in asked.into_iter().zip(poolcounter::figures(hosts, AT_MOST)) {
        let stats = match answer {
            Ok(stats) => Some(stats),
            Err(why) => {
                status.problem("slots", ExitCode::Unreachable, format!("cannot ask {backend}: {why}"));
                None
            }
        };
        daemons.push(Daemon {
            label: backend.label().to_owned(),
            host: backend.host().to_owned(),
            holders: stats.map(|stats| stats.holders),
            waiters: stats.map(|stats| stats.waiters),
        });
    }
    status.slots = Slots::Poolcounter { file: cli.poolcounter_config.display().to_string(), daemons };
}

/// The limits that runs on this host are likely to count against: a limit is of all pools that a run names together.
fn limits(cli: &Cli, status: &Status, record: Option<&Record>) -> Vec<Key> {
    let Some(data_centre) = &status.data_centre else { return Vec::new() };
    let mut groups: Vec<Vec<PoolName>> = vec![cli.pools.clone()];
    groups.extend(record.map(|record| record.nodes.iter().flat_map(|node| node.pools.clone()).collect()));
    if cli.pools.is_empty() {
        groups.extend(status.pools.iter().map(|pool| vec![pool.pool.clone()]));
    }
    let named = groups.iter().filter(|pools| !pools.is_empty());
    // One that is too long for a key can be no limit.
    named.filter_map(|pools| Key::of_pools(data_centre, pools).ok()).collect()
}

fn look_at_leases(status: &mut Status, store: &conftool::Settings) {
    // An answer there would be no news, and a wait.
    if !store.has_leases() || status.store == Store::Down {
        return;
    }
    let limits = match store.slot_holders() {
        Ok(limits) => limits,
        // A user of etcd who may not see them can be one whose runs need none.
        Err(StoreError::Refused(why)) => {
            status.notes.push(why);
            return;
        }
        Err(error) => {
            status.problem("slots", ExitCode::Unreachable, error.to_string());
            return;
        }
    };
    let Some(data_centre) = &status.data_centre else { return };
    let prefix = format!("ServiceRestarter::{data_centre}::");
    let pools: Vec<String> = status.pools.iter().map(|pool| format!("-{}-", pool.pool)).collect();
    let ours = |limit: &String| {
        // `pool1-pool2`: a name with a '-' in it may match more than it should, which shows a line too many.
        let of = limit.strip_prefix(&prefix).map(|of| format!("-{of}-"));
        of.is_some_and(|of| pools.iter().any(|pool| of.contains(pool.as_str())))
    };
    let limits = limits.into_iter().filter(|(limit, _)| ours(limit));
    let limits = limits.map(|(limit, holders)| Limit { limit, holders }).collect();
    status.slots = Slots::Etcd { limits };
}
