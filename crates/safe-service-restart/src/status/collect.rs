//! Looking at everything once, and keeping going: whatever cannot be looked at is a problem of its part, and the rest is shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use conftool::{Audit, Catalog, Keeper};
use host::journal::Found;
use host::{FolderError, JournalFile, Look, Systemctl, environment, ids, lock, trusted};
use load_balancer::{Access, AllAtOnce, AsTheCatalogSays};
use restart_core::{
    ActiveState, ExitCode, Failure, Files, Fqdn, Listing, LoadState, Phase, PoolName, PoolPath, PoolStore, Pooled,
    Question, Record, ServiceManager, StoreError, Tag, UnitName, Verdict, ask_once,
};

use super::{Asked, Holder, InStore, Journal, Left, Lock, Pool, Problem, ROOT, Status, Store, Unit, What, slots};
use crate::cli::Cli;
use crate::run::OPEN;
use crate::store::{self, Opening};
use crate::{held_journal, settings};

/// How often the journal is read because a run began or ended meanwhile.
const LOOKS: u32 = 5;

/// So many places in which the host is not are enough for a note.
const PLACES: usize = 3;

/// More than one request to a load balancer takes beyond its own bound.
const SPARE: Duration = Duration::from_secs(1);

/// All of it, in the order in which each part needs the one before.
pub(super) fn everything(cli: &Cli) -> Status {
    let mut status = Status { time: now(), ..Status::default() };
    let found = look_at_journal(&mut status);
    let own_name = settings::own_name(cli);
    // A record of this machine under another name tells nothing of the pools of this one.
    let record = found.as_ref().filter(|record| own_name.as_ref().map_or(true, |name| *name == record.host));
    let mut names = cli.pools.clone();
    if let Some(record) = record {
        names.extend(record.nodes.iter().flat_map(|node| node.pools.iter().cloned()));
    }
    look_at_pools(cli, &mut status, own_name, &names, record);
    look_at_units(cli, &mut status, record);
    status.way_back = way_back(cli, &status, record);
    status.way_out = way_out(cli, &status, record);
    status
}

/// What somebody types who wants the host back, if nothing of ours is under way.
pub(super) fn way_back(cli: &Cli, status: &Status, record: Option<&Record>) -> Option<String> {
    match (&status.journal, status.ours().map(|left| left.what)) {
        (_, Some(What::UnderWay)) => None,
        (_, Some(What::Interrupted | What::Orphaned)) => Some("safe-service-restart --recover".to_owned()),
        (Journal::Left(left), Some(What::Held)) if status.held_in_vain().is_none() => {
            Some(settings::way_back_to(cli, &files_of(cli, record), &left.pools))
        }
        // Nobody waits to do it: an operator's --depool, another tool's, or a run's whose journal was set aside.
        (Journal::Empty | Journal::Unusable(_), _) if status.lock == Lock::Free => {
            let pools = status.pools_out();
            (!pools.is_empty()).then(|| settings::way_back_to(cli, &settings::files(cli), &pools))
        }
        (Journal::Empty | Journal::Unusable(_) | Journal::Left(_) | Journal::Unknown, _) => None,
    }
}

/// What somebody types who wants the host out again that is held and in service all the same.
pub(super) fn way_out(cli: &Cli, status: &Status, record: Option<&Record>) -> Option<String> {
    let left = status.held_in_vain().and_then(|_| status.ours())?;
    Some(settings::way_out_of(cli, &files_of(cli, record), &left.pools))
}

/// The files by which the run that left the record knew its pools.
fn files_of(cli: &Cli, record: Option<&Record>) -> Files {
    record.map_or_else(|| settings::files(cli), |record| record.files.clone())
}

/// Only what the journal says, and whether a run has the host.
pub(super) fn journal_alone() -> Status {
    let mut status = Status { time: now(), ..Status::default() };
    look_at_journal(&mut status);
    status
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds from `since`, RFC 3339, until `now`.
pub(super) fn elapsed(since: &str, now: u64) -> Option<u64> {
    let since = humantime::parse_rfc3339(since).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    now.checked_sub(since.as_secs())
}

fn look_at_journal(status: &mut Status) -> Option<Record> {
    let machine = match ids::machine() {
        Ok(machine) => machine,
        Err(error) => {
            status.problem("journal", ExitCode::Configuration, error.to_string());
            return None;
        }
    };
    let file = JournalFile::new(Path::new(host::journal::FOLDER), machine);
    match file.set_aside() {
        Ok(found) => status.set_aside = found,
        // Said below, by the look at the journal itself.
        Err(error) => log::debug!("{error}"),
    }
    let (found, is_alive, lock) = match at_one_moment(&file) {
        Ok((found, is_alive, lock)) => (Some(found), is_alive, lock),
        Err(error) => {
            status.folder_problem("journal", &error);
            (None, false, look_at_lock())
        }
    };
    status.lock = lock.unwrap_or_else(|error| {
        status.folder_problem("lock", &error);
        Lock::Unknown
    });
    match found? {
        Found::Nothing => status.journal = Journal::Empty,
        Found::Problem(problem) => status.journal = Journal::Unusable(problem.to_string()),
        Found::Record(record) => {
            status.journal = Journal::Left(Box::new(left(&record, is_alive, &status.lock, status.time)));
            return Some(*record);
        }
    }
    None
}

/// What is there at one moment: the journal, whether its run is alive, and the lock.
type Moment = (Found, bool, Result<Lock, FolderError>);

/// Without taking the lock: a run that lives holds it from before it writes its record until after it removes it, so a record that
/// is the same before and after a look at the lock and at the processes belongs to what these said.
fn at_one_moment(file: &JournalFile) -> Result<Moment, FolderError> {
    let mut before = file.look()?;
    for _ in 1..LOOKS {
        let lock = look_at_lock();
        let is_alive = matches!(&before, Found::Record(record) if held_journal::is_alive(record));
        let after = file.look()?;
        if before == after {
            return Ok((after, is_alive, lock));
        }
        before = after;
    }
    let is_alive = matches!(&before, Found::Record(record) if held_journal::is_alive(record));
    Ok((before, is_alive, look_at_lock()))
}

fn look_at_lock() -> Result<Lock, FolderError> {
    Ok(match lock::peek(Path::new(lock::FOLDER))? {
        Look::Free => Lock::Free,
        Look::Held(None) => Lock::Held(None),
        Look::Held(Some(note)) => {
            // The lock does not outlive the boot.
            let is_there = ids::runs(note.pid, &note.tool);
            Lock::Held(Some(Holder::new(note, is_there)))
        }
    })
}

/// What becomes of a host whose run wrote this phase last.
pub(super) fn what(phase: Phase, is_alive: bool, lock: &Lock) -> What {
    match lock {
        // Also while a recovery looks at it; a run that works on a held host writes another phase.
        _ if phase == Phase::Held => What::Held,
        // Whatever became of the lock: it goes on by itself.
        _ if is_alive => What::UnderWay,
        // A recovery, or the next run, finishes it.
        Lock::Held(Some(holder)) if holder.process_is_there => What::UnderWay,
        Lock::Held(_) => What::Orphaned,
        Lock::Free | Lock::Unknown => What::Interrupted,
    }
}

fn left(record: &Record, is_alive: bool, lock: &Lock, now: u64) -> Left {
    let mut pools: Vec<PoolName> = record.nodes.iter().flat_map(|node| node.pools.iter().cloned()).collect();
    pools.sort();
    pools.dedup();
    Left {
        what: what(record.phase, is_alive, lock),
        host: record.host.clone(),
        run: record.run.clone(),
        fleet_run: record.fleet_run.clone(),
        pid: record.pid,
        process_is_there: is_alive,
        since: record.since.clone(),
        out_seconds: elapsed(&record.since, now),
        user: record.user.clone().unwrap_or_else(|| ROOT.to_owned()),
        reason: record.reason.clone(),
        phase: record.phase,
        pools,
        units: record.units.clone(),
    }
}

/// Catalog, store, load balancers, slots.
fn look_at_pools(
    cli: &Cli,
    status: &mut Status,
    own_name: Result<Fqdn, Failure>,
    named: &[PoolName],
    record: Option<&Record>,
) {
    if !settings::exists(&cli.catalog) && !settings::exists(&cli.config) && named.is_empty() {
        status.host = own_name.ok();
        status.notes.push(format!("'{}' does not exist: this host is in no pool", cli.catalog.display()));
        return;
    }
    match own_name {
        Ok(host) => status.host = Some(host),
        Err(failure) => {
            status.host = record.map(|record| record.host.clone());
            status.problems.push(Problem::new("configuration", failure));
        }
    }
    let keeper = Keeper::load(&cli.config, environment::home().as_deref(), &trusted::read);
    let keeper =
        keeper.map_err(|error| status.problems.push(Problem::new("store", settings::load_failure(error)))).ok();
    match settings::data_centre_if(cli, keeper.as_ref()) {
        Ok(name) => status.data_centre = Some(name),
        Err(failure) => {
            status.data_centre = record.map(|record| record.data_centre.clone());
            status.problems.push(Problem::new("configuration", failure));
        }
    }
    let pools = known_pools(cli, keeper.as_ref(), status, named);
    let mut store = keeper.as_ref().and_then(|keeper| open(cli, keeper, status, &pools));
    read_pools(cli, status, store.as_deref_mut(), pools, named);
    slots::look(cli, status, keeper.as_ref(), record);
}

/// A store that nothing is written to.
fn open(cli: &Cli, keeper: &Keeper, status: &mut Status, pools: &[restart_core::Pool]) -> Option<Box<dyn PoolStore>> {
    let (host, data_centre) = (status.host.as_ref()?, status.data_centre.as_ref()?);
    let opening =
        Opening { run: "status", host, data_centre, pools, left: None, access: Access::Look, at_most: cli.timeout };
    let opened = store::open(keeper, &opening, Audit::of_nothing());
    let failed = |error: StoreError| status.problems.push(Problem::new("store", error.failure(OPEN)));
    opened.map_err(failed).ok()
}

/// The pools to be looked at: those named, or all of the catalog.
fn known_pools(cli: &Cli, keeper: Option<&Keeper>, status: &mut Status, named: &[PoolName]) -> Vec<restart_core::Pool> {
    let catalog = match keeper {
        Some(keeper) => keeper.catalog(&cli.catalog, &trusted::read),
        None => Catalog::load(&cli.catalog, &trusted::read),
    };
    let catalog = match catalog {
        Ok(catalog) => catalog,
        Err(error) => {
            status.problems.push(Problem::new("configuration", settings::load_failure(error)));
            return Vec::new();
        }
    };
    let mut names = named.to_vec();
    if cli.pools.is_empty() {
        for name in catalog.names() {
            match PoolName::new(name) {
                Ok(name) => names.push(name),
                Err(error) => status.notes.push(format!("'{}': {error}", cli.catalog.display())),
            }
        }
    }
    names.sort();
    names.dedup();
    let mut pools = Vec::new();
    for name in names {
        match catalog.pools(std::slice::from_ref(&name)) {
            Ok(found) => pools.extend(found),
            Err(error) if named.contains(&name) => {
                status.problem("configuration", ExitCode::Configuration, error.to_string());
            }
            Err(error) => status.notes.push(error.to_string()),
        }
    }
    pools
}

/// Reads each place of the pools once, and asks each load balancer once for each pool that is this host's, or may be.
fn read_pools(
    cli: &Cli,
    status: &mut Status,
    mut store: Option<&mut (dyn PoolStore + 'static)>,
    pools: Vec<restart_core::Pool>,
    named: &[PoolName],
) {
    let (Some(host), Some(data_centre)) = (status.host.clone(), status.data_centre.clone()) else { return };
    let listings = read_places(status, store.as_deref_mut(), &data_centre, &pools, named);
    let (mut seen, mut absent) = (Vec::new(), Vec::new());
    for pool in pools {
        let path = pool.path(&data_centre);
        let is_named = named.contains(&pool.name);
        let in_store = match listings.get(&path) {
            None => InStore::Unknown,
            Some(listing) => in_store(listing, &host).unwrap_or_else(|error| {
                status.problem("store", ExitCode::Configuration, format!("pool '{}': {error}", pool.name));
                InStore::Unknown
            }),
        };
        if is_named || !matches!(in_store, InStore::Absent) {
            seen.push((pool, path.node(&host), in_store, is_named));
        } else {
            absent.extend(store.as_deref().map(|store| store.whereabouts(&path.node(&host))));
        }
    }
    let questions: Vec<Question> = seen.iter().flat_map(|(pool, ..)| pool.questions(&host)).collect();
    let mut balancers = AllAtOnce::new(AsTheCatalogSays, cli.timeout);
    let mut verdicts = ask_once(&mut balancers, &questions, cli.timeout + SPARE).into_iter();
    let mut hidden = Vec::new();
    for (pool, node, store, is_named) in seen {
        let load_balancers: Vec<Asked> =
            pool.balancers.iter().cloned().zip(&mut verdicts).map(|(name, verdict)| Asked { name, verdict }).collect();
        // Where the store does not say whether the host is in the pool, a load balancer that knows it does.
        let knows = |asked: &Asked| !matches!(asked.verdict, Verdict::Absent | Verdict::Unknown(_));
        if is_named || !matches!(store, InStore::Unknown) || load_balancers.iter().any(knows) {
            status.pools.push(Pool { pool: pool.name, node: node.to_string(), store, load_balancers });
        } else {
            hidden.push(format!("'{}'", pool.name));
        }
    }
    let in_none = |pool: &Pool| matches!(pool.store, InStore::Absent);
    if !cli.pools.is_empty() && !status.pools.is_empty() && status.pools.iter().all(in_none) {
        status.problem("configuration", ExitCode::Configuration, format!("'{host}' is in none of the pools named"));
    }
    if status.pools.is_empty() && hidden.is_empty() && !absent.is_empty() {
        status.notes.push(nowhere(&absent));
    }
    if !hidden.is_empty() {
        status.notes.push(format!("not known whether this host is in {}", hidden.join(", ")));
    }
}

/// Where this host was looked for and is not: it may be there by another name.
fn nowhere(absent: &[String]) -> String {
    let more = match absent.len().saturating_sub(PLACES) {
        0 => String::new(),
        more => format!(", nor {more} more"),
    };
    let places: Vec<&str> = absent.iter().take(PLACES).map(String::as_str).collect();
    format!("this host is in no pool of the catalog: there is no object {}{more}", places.join(", "))
}

/// Reads each place once. An etcd that cannot be reached is not asked for the next one; a store that refuses a place may be right,
/// where the user of etcd has no business in other pools than those named.
fn read_places(
    status: &mut Status,
    store: Option<&mut (dyn PoolStore + 'static)>,
    data_centre: &Tag,
    pools: &[restart_core::Pool],
    named: &[PoolName],
) -> BTreeMap<PoolPath, Listing> {
    let mut listings = BTreeMap::new();
    let Some(store) = store else { return listings };
    let mut places: BTreeMap<PoolPath, bool> = BTreeMap::new();
    for pool in pools {
        *places.entry(pool.path(data_centre)).or_default() |= named.contains(&pool.name);
    }
    let mut refusals = Vec::new();
    for (path, is_named) in places {
        match store.list(&path) {
            Ok(listing) => _ = listings.insert(path, listing),
            Err(StoreError::Unreachable(why)) => {
                status.store = Store::Down;
                status.problem("store", ExitCode::Unreachable, why);
                // Where HAProxy keeps the pools, the next place is another one's.
                if store.has_revisions() {
                    break;
                }
            }
            Err(error) => refusals.push((is_named, error.to_string())),
        }
    }
    if status.store != Store::Down && !(listings.is_empty() && refusals.is_empty()) {
        status.store = if listings.is_empty() { Store::Down } else { Store::Up };
    }
    for (is_named, why) in refusals {
        if is_named || listings.is_empty() {
            status.problem("store", ExitCode::Configuration, why);
        } else {
            status.notes.push(why);
        }
    }
    listings
}

fn in_store(listing: &Listing, host: &restart_core::Fqdn) -> Result<InStore, StoreError> {
    let count = |wanted: &[Pooled]| listing.nodes.iter().filter(|node| wanted.contains(&node.pooled)).count();
    Ok(match listing.node(host)? {
        None => InStore::Absent,
        Some(node) => InStore::Node {
            pooled: node.pooled,
            pooled_hosts: count(&[Pooled::Yes]),
            hosts: count(&[Pooled::Yes, Pooled::No]),
        },
    })
}

/// The units named, and those that the journal names.
fn look_at_units(cli: &Cli, status: &mut Status, record: Option<&Record>) {
    let mut units: Vec<UnitName> = Vec::new();
    for unit in cli.services.iter().chain(record.iter().flat_map(|record| &record.units)) {
        if !units.contains(unit) {
            units.push(unit.clone());
        }
    }
    if units.is_empty() {
        return;
    }
    let mut services = match Systemctl::new() {
        Ok(services) => services,
        Err(error) => {
            status.problem("units", ExitCode::Unreachable, error.to_string());
            return;
        }
    };
    for unit in units {
        let (active, state, pid) = match services.status(&unit) {
            Ok(seen) => match &seen.load {
                LoadState::Loaded => {
                    let active = matches!(seen.active, ActiveState::Active | ActiveState::Reloading);
                    let mut state = format!("{} ({})", seen.active.as_str(), seen.sub);
                    if seen.result != "success" {
                        state += &format!(", result '{}'", seen.result);
                    }
                    if seen.job {
                        state += ", systemd has a job for it";
                    }
                    (Some(active), state, seen.main_pid)
                }
                LoadState::NotFound => (Some(false), "does not exist on this host".to_owned(), None),
                LoadState::Masked => (Some(false), "is masked".to_owned(), None),
                LoadState::Other(word) => (Some(false), word.clone(), None),
            },
            Err(error) => {
                status.problem("units", ExitCode::Unreachable, format!("cannot look at unit '{unit}': {error}"));
                (None, "not known".to_owned(), None)
            }
        };
        status.units.push(Unit { unit, active, state, pid });
    }
}

impl Status {
    pub(super) fn problem(&mut self, part: &'static str, code: ExitCode, message: String) {
        self.problems.push(Problem::new(part, Failure::new(code, message)));
    }

    fn folder_problem(&mut self, part: &'static str, error: &FolderError) {
        let message = match error.exit_code() {
            // With root's rights it is not a matter of who looks.
            ExitCode::NotPermitted if !environment::is_root() => format!("not permitted to look: {error}"),
            _ => error.to_string(),
        };
        self.problem(part, error.exit_code(), message);
    }
}
