//! What the command line means together with the files of this host. Everything is checked here, before anything outside is
//! contacted; below it nothing is checked again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conftool::{Keeper, LoadError};
use host::trusted::{self, TrustError};
use host::{address, environment, fqdn};
use poolcounter::{Backends, Key, Poolcounter};
use restart_core::{
    Action, ExitCode, Failure, Files, Fqdn, Job, Origin, Place, Pool, PoolName, Purpose, Record, Share, Tag,
};

use crate::cli::{CATALOG, CONFIG, Cli};

/// Where Puppet writes the name of the data centre.
const DATA_CENTRE: &str = "/etc/wikimedia-cluster";
/// Stands for the data centre where HAProxy keeps the pools, which knows none: `--dc` names another, for the limit's sake.
const IN_HAPROXY: &str = "haproxy";
/// How long a unit has to stay up: a process that cannot work ends within a few milliseconds of its start.
const SETTLE: Duration = Duration::from_millis(500);
/// How long to wait for a slot: the original's lock wait.
const SLOT_TIMEOUT: Duration = Duration::from_secs(600);
/// The same in an emergency.
const FORCED_SLOT_TIMEOUT: Duration = Duration::from_secs(60);

/// What was asked for.
pub fn purpose(cli: &Cli) -> Purpose {
    match (cli.force, cli.depool, cli.pool, cli.recover) {
        (true, ..) => Purpose::Force,
        (_, true, ..) => Purpose::Depool,
        (_, _, true, _) => Purpose::Pool,
        (.., true) => Purpose::Recover,
        _ => Purpose::Restart,
    }
}

/// A job, and what is needed to do it.
#[derive(Debug)]
pub struct Settings {
    /// The job.
    pub job: Job,
    /// The store; `None` when the job has no place in any pool.
    pub store: Option<Keeper>,
    /// Who grants slots; `None` where nobody limits.
    pub slots: Option<SlotService>,
}

/// Who grants slots.
#[derive(Debug)]
pub enum SlotService {
    /// poolcounterd.
    Poolcounter(Box<Poolcounter>),
    /// Leases in etcd, under the limit of this name.
    Leases(Key),
}

impl Settings {
    /// Reads the files that this takes. A forced restart needs none; what is wrong with the one that names the lock
    /// service is a warning.
    pub fn load(cli: &Cli, purpose: Purpose, origin: Origin, left: Option<Record>) -> Result<Self, Failure> {
        let mut job = job(cli, purpose, origin);
        if purpose == Purpose::Force {
            let slots = forced_slots(cli, &mut job);
            return Ok(Self { job, store: None, slots });
        }
        if cli.pools.is_empty() {
            if let Some(left) = &left {
                let message = format!(
                    "run {} left this host out of its pools, and no --pools are named: see 'safe-service-restart --status'",
                    left.run
                );
                return Err(configuration(message));
            }
            must_have_no_pools(cli)?;
            must_have_no_limit(cli)?;
            return Ok(Self { job, store: None, slots: None });
        }
        if let Some(left) = &left {
            // How long the host is out is counted from its beginning.
            job.origin.since.clone_from(&left.since);
        }
        // A restart that succeeds puts all of it back; an operator's word is about the pools that it names.
        let also = left.iter().filter(|_| purpose == Purpose::Restart).flat_map(pools_of).collect();
        let (host, store) = (own_name(cli)?, keeper(&job.origin.files)?);
        let place = place(&job.origin.files, &store, &cli.pools, also, (host, data_centre_of(cli, &store)?))?;
        check_quorum(&place.pools, job.quorum)?;
        let slots = match purpose {
            Purpose::Restart => slots(cli, &place.data_centre, &store)?,
            _ => None,
        };
        if slots.is_none() {
            job.limit = None;
        }
        // `--pool` takes back what a run said of this host whose journal is lost, with the disk that it was on.
        if matches!(slots, Some(SlotService::Leases(_))) || (purpose == Purpose::Pool && store.has_leases()) {
            job.counts_against = vec![limit(cli, &place.data_centre)?.as_str().to_owned()];
        }
        job.way_back = way_back(cli, &place.pools);
        (job.place, job.left) = (Some(place), left);
        Ok(Self { job, store: Some(store), slots })
    }

    /// What the record of a run that died needs to be finished: its own files, and those of its pools that there still are.
    pub fn of_record(cli: &Cli, record: &Record) -> Result<Self, Failure> {
        // It goes on being the run that it was, in the journal and in every message.
        let Record { run, fleet_run, boot, pid, since, user, reason, files, .. } = record.clone();
        let mut job = job(cli, Purpose::Restart, Origin { run, fleet_run, boot, pid, since, user, reason, files });
        let files = &job.origin.files;
        let store = keeper(files)?;
        let who = (record.host.clone(), record.data_centre.clone());
        let mut place = place(files, &store, &[], pools_of(record).collect(), who)?;
        place.unnamed.clear();
        let pools: Vec<_> = pools_of(record).collect();
        (job.way_back, job.way_out) = (way_back_to(cli, files, &pools), way_out_of(cli, files, &pools));
        (job.place, job.units, job.limit) = (Some(place), record.units.clone(), None);
        job.left = Some(record.clone());
        Ok(Self { job, store: Some(store), slots: None })
    }
}

/// The pools of a record, each once, in the order of their names.
fn pools_of(record: &Record) -> impl Iterator<Item = PoolName> + use<> {
    let pools: BTreeSet<PoolName> = record.nodes.iter().flat_map(|node| node.pools.iter().cloned()).collect();
    pools.into_iter()
}

fn job(cli: &Cli, purpose: Purpose, origin: Origin) -> Job {
    let forced = purpose == Purpose::Force;
    let mut units = Vec::new();
    for unit in &cli.services {
        if !units.contains(unit) {
            units.push(unit.clone());
        }
    }
    Job {
        place: None,
        units,
        action: if cli.reload { Action::Reload } else { Action::Restart },
        grace: cli.grace_period,
        drain_timeout: cli.drain_timeout,
        require_drained: cli.require_drained,
        settle: cli.settle.unwrap_or(if forced { Duration::ZERO } else { SETTLE }),
        ready: cli.ready_timeout,
        allowed: cli.lb_timeout.unwrap_or(cli.wait * cli.retries),
        longest_pause: cli.wait,
        quorum: cli.lb_quorum.map(usize::from),
        min_pooled: cli.min_pooled,
        limit: Some(cli.max_concurrency),
        slot_timeout: cli.slot_timeout.unwrap_or(if forced { FORCED_SLOT_TIMEOUT } else { SLOT_TIMEOUT }),
        counts_against: Vec::new(),
        origin,
        way_back: String::new(),
        way_out: String::new(),
        left: None,
    }
}

/// The files that this run was given, for its journal.
pub fn files(cli: &Cli) -> Files {
    let path = |file: &Path| std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string();
    Files { catalog: path(&cli.catalog), config: path(&cli.config) }
}

/// The command that puts this host back by hand, with everything that this one was told about where things are.
fn way_back(cli: &Cli, pools: &[Pool]) -> String {
    let mut pools: Vec<_> = pools.iter().map(|pool| pool.name.clone()).collect();
    pools.dedup();
    way_back_to(cli, &files(cli), &pools)
}

/// The same for pools known by their names alone.
pub fn way_back_to(cli: &Cli, files: &Files, pools: &[PoolName]) -> String {
    by_hand("--pool", cli, files, pools)
}

/// The command that takes this host out of these pools by hand.
pub fn way_out_of(cli: &Cli, files: &Files, pools: &[PoolName]) -> String {
    by_hand("--depool", cli, files, pools)
}

fn by_hand(what: &str, cli: &Cli, files: &Files, pools: &[PoolName]) -> String {
    let mut command = format!("safe-service-restart {what} --pools");
    for pool in pools {
        command += &format!(" {pool}");
    }
    for (flag, file, default) in [("--catalog", &files.catalog, CATALOG), ("--config", &files.config, CONFIG)] {
        if file != default {
            command += &format!(" {flag} {file}");
        }
    }
    if let Some(name) = &cli.dc {
        command += &format!(" --dc {name}");
    }
    if let Some(host) = &cli.host {
        command += &format!(" --host {host}");
    }
    command
}

/// Who keeps the pools.
fn keeper(files: &Files) -> Result<Keeper, Failure> {
    let keeper = Keeper::load(Path::new(&files.config), environment::home().as_deref(), &trusted::read);
    let keeper = keeper.map_err(load_failure)?;
    if keeper.read_only() {
        return Err(configuration(format!(
            "'{}' says 'read_only: true': nothing may be written to the store",
            files.config
        )));
    }
    Ok(keeper)
}

/// This host in these pools. Pools that only the journal names come as well, as far as there still are such.
fn place(
    files: &Files,
    keeper: &Keeper,
    named: &[PoolName],
    also: BTreeSet<PoolName>,
    (host, data_centre): (Fqdn, Tag),
) -> Result<Place, Failure> {
    let catalog = keeper.catalog(Path::new(&files.catalog), &trusted::read).map_err(load_failure)?;
    let mut names = named.to_vec();
    let mut unnamed = BTreeSet::new();
    for pool in also.into_iter().filter(|pool| !named.contains(pool)) {
        if catalog.names().any(|known| known == pool.as_str()) {
            names.push(pool.clone());
            unnamed.insert(pool);
        } else {
            log::warn!("an earlier run took this host out of '{pool}', which is not in the catalog any more");
        }
    }
    let mut pools = catalog.pools(&names).map_err(|error| configuration(error.to_string()))?;
    pools.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Place { host, data_centre, pools, unnamed })
}

/// The name of the limit on these pools.
fn limit(cli: &Cli, data_centre: &Tag) -> Result<Key, Failure> {
    Key::of_pools(data_centre, &cli.pools).map_err(|error| configuration(error.to_string()))
}

/// The lock service of a safe run. A limit that nobody can count is an error, never "no limit".
fn slots(cli: &Cli, data_centre: &Tag, store: &Keeper) -> Result<Option<SlotService>, Failure> {
    if cli.max_concurrency == Share::Count(0) {
        return Ok(None);
    }
    let key = limit(cli, data_centre)?;
    match (cli.slots.as_deref(), poolcounter(cli, key.clone())) {
        (Some("etcd"), _) if matches!(store, Keeper::Haproxy(_)) => {
            Err(configuration("--slots etcd, and 'driver: haproxy': there is no etcd".to_owned()))
        }
        (Some("etcd"), _) => Ok(Some(SlotService::Leases(key))),
        (_, Ok(Some(poolcounter))) => Ok(Some(SlotService::Poolcounter(Box::new(poolcounter)))),
        (_, Err(failure)) => Err(failure),
        (None, Ok(None)) if store.has_leases() => Ok(Some(SlotService::Leases(key))),
        (_, Ok(None)) => Err(configuration(format!(
            "at most {} at once (--max-concurrency or 'max_concurrency'), and no lock service to count them: '{}' does not exist, and \
             only 'driver: etcd3' can do without it",
            cli.max_concurrency,
            cli.poolcounter_config.display()
        ))),
    }
}

/// The lock service of a forced run: a plain number, and poolcounter; whatever is in the way is said, and the restart goes on
/// (rule 6).
fn forced_slots(cli: &Cli, job: &mut Job) -> Option<SlotService> {
    let without = |why: String| {
        log::warn!("--force: no slot is waited for: {why}");
        None
    };
    let found = match cli.max_concurrency {
        Share::Count(0) => return None,
        _ if cli.pools.is_empty() => without("a limit is counted for the pools named, and none is".to_owned()),
        _ if cli.slots.as_deref() == Some("etcd") => without("slots in etcd take the store".to_owned()),
        Share::Percent(_) => without("a share of a pool takes the store to count".to_owned()),
        Share::Count(_) => match forced_data_centre(cli).and_then(|name| poolcounter(cli, limit(cli, &name)?)) {
            Ok(Some(poolcounter)) => {
                Some(SlotService::Poolcounter(Box::new(poolcounter.with_patience(Duration::ZERO))))
            }
            Ok(None) => without(format!("'{}' does not exist", cli.poolcounter_config.display())),
            Err(failure) => without(failure.message),
        },
    };
    if found.is_none() {
        job.limit = None;
    }
    found
}

fn poolcounter(cli: &Cli, key: Key) -> Result<Option<Poolcounter>, Failure> {
    Ok(backends(&cli.poolcounter_config)?.map(|backends| Poolcounter::new(&backends, key)))
}

/// The daemons of the file; `None` where there is no such file.
pub fn backends(file: &Path) -> Result<Option<Backends>, Failure> {
    let parse = |text: String| Backends::parse(file, &text);
    trusted::read(file)?.map(parse).transpose().map_err(|error| configuration(error.to_string()))
}

/// Rule 5: no pools named is "nothing to leave" only on a host that has neither catalog nor store.
fn must_have_no_pools(cli: &Cli) -> Result<(), Failure> {
    for file in [&cli.catalog, &cli.config] {
        if exists(file) {
            let message = format!(
                "no --pools named, and this host has '{}': name the pools to leave, or --force the restart",
                file.display()
            );
            return Err(Failure::new(ExitCode::Usage, message));
        }
    }
    Ok(())
}

/// A limit has the name of its pools, and a share is one of the hosts in them. It is never "no limit".
fn must_have_no_limit(cli: &Cli) -> Result<(), Failure> {
    if cli.max_concurrency == Share::Count(0) {
        return Ok(());
    }
    Err(configuration(format!(
        "at most {} at once (--max-concurrency or 'max_concurrency'), and no pool is named in which to count them: name the pools, or \
         leave the limit out",
        cli.max_concurrency
    )))
}

/// Whether something is there, also if it cannot be looked at, and also a link that leads nowhere.
pub fn exists(file: &Path) -> bool {
    !matches!(file.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

fn check_quorum(pools: &[Pool], quorum: Option<usize>) -> Result<(), Failure> {
    let Some(quorum) = quorum else { return Ok(()) };
    match pools.iter().find(|pool| !pool.balancers.is_empty() && pool.balancers.len() < quorum) {
        None => Ok(()),
        Some(pool) => Err(configuration(format!(
            "a quorum of {quorum} (--lb-quorum or 'lb_quorum') can never be met: pool '{}' has {} load balancers",
            pool.name,
            pool.balancers.len()
        ))),
    }
}

/// The data centre is never guessed: a wrong one has no nodes, and a host that is in no pool could be restarted in one.
fn data_centre(cli: &Cli) -> Result<Tag, Failure> {
    if let Some(name) = &cli.dc {
        return Ok(name.clone());
    }
    let file = PathBuf::from(DATA_CENTRE);
    match trusted::read(&file)? {
        None => Err(configuration(format!(
            "the data centre is not known: '{DATA_CENTRE}' does not exist; write it there, or name it by --dc or 'dc'"
        ))),
        Some(text) => Tag::new(text.trim())
            .map_err(|error| configuration(format!("'{DATA_CENTRE}' does not name a data centre: {error}"))),
    }
}

/// The data centre where it is not known who keeps the pools, or is.
pub fn data_centre_if(cli: &Cli, keeper: Option<&Keeper>) -> Result<Tag, Failure> {
    keeper.map_or_else(|| data_centre(cli), |keeper| data_centre_of(cli, keeper))
}

/// The data centre, which a HAProxy that keeps the pools does not know: then only the name of a limit has it.
fn data_centre_of(cli: &Cli, keeper: &Keeper) -> Result<Tag, Failure> {
    match (keeper, &cli.dc) {
        (Keeper::Haproxy(_), None) => Tag::new(IN_HAPROXY).map_err(|error| configuration(error.to_string())),
        _ => data_centre(cli),
    }
}

/// The same for an emergency, which a configuration that cannot be read does not stop.
fn forced_data_centre(cli: &Cli) -> Result<Tag, Failure> {
    let keeper = Keeper::load(&cli.config, environment::home().as_deref(), &trusted::read).ok();
    data_centre_if(cli, keeper.as_ref())
}

/// This host's name in the pools. Only this host can be restarted here, so only its own name will do.
pub fn own_name(cli: &Cli) -> Result<Fqdn, Failure> {
    match &cli.host {
        None => fqdn::own().map_err(|error| configuration(error.to_string())),
        Some(name) => {
            address::must_be_ours(name).map_err(|error| configuration(format!("--host or 'host': {error}")))?;
            Ok(name.clone())
        }
    }
}

fn configuration(message: String) -> Failure {
    Failure::new(ExitCode::Configuration, message)
}

pub fn load_failure(error: LoadError<TrustError>) -> Failure {
    match error {
        LoadError::Read(error) => error.into(),
        LoadError::Missing(_) | LoadError::Invalid(_) => configuration(error.to_string()),
    }
}
