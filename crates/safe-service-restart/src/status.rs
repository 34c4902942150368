//! `--status`: how things stand on this host. It changes nothing, takes no lock, and shows what it can when a part is away.
//!
//! `collect` looks, once at everything; what it saw is one [`Status`], a plain value. What that means is decided here, and
//! `text`, `json` and `metrics` only put it into words and figures: all of them are tested without a host.

mod collect;
mod json;
mod metrics;
mod slots;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

use host::journal::SetAside;
use host::output::print;
use restart_core::{Balancer, ExitCode, Failure, Fqdn, Phase, PoolName, Pooled, Tag, UnitName, Verdict};
use serde::Serialize;

use crate::cli::Cli;

/// Who called a program that nobody called through sudo.
const ROOT: &str = "root";

/// Looks, and says what was seen. A line that nobody reads is no failure; figures that cannot be written are.
pub fn show(cli: &Cli) -> ExitCode {
    let mut status = collect::everything(cli);
    if let Some(path) = &cli.textfile
        && let Err(failure) = write(path, &status)
    {
        status.problems.push(Problem::new("textfile", failure));
    }
    let printed = if cli.json {
        json::line(&status).map_err(Into::into).and_then(|line| print(&line))
    } else {
        text::lines(&status).iter().try_for_each(|line| print(line))
    };
    if let Err(error) = printed {
        log::error!("cannot print the status: {error}");
        return ExitCode::Failed;
    }
    status.exit_code()
}

/// What the journal alone says, written for Prometheus: after a recovery, every minute.
pub fn write_from_journal(path: &Path) -> Result<(), Failure> {
    write(path, &collect::journal_alone())
}

fn write(path: &Path, status: &Status) -> Result<(), Failure> {
    Ok(host::textfile::write(path, &metrics::figures(status))?)
}

/// What was seen at one moment.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Seconds since 1970.
    time: u64,
    host: Option<Fqdn>,
    data_centre: Option<Tag>,
    journal: Journal,
    /// Journals that were set aside and are still there.
    set_aside: Vec<SetAside>,
    lock: Lock,
    store: Store,
    pools: Vec<Pool>,
    units: Vec<Unit>,
    slots: Slots,
    /// What could not be looked at, or is not as it should be, besides what the parts say themselves.
    problems: Vec<Problem>,
    /// Worth a word, and no fault of this host: a broken entry of somebody else's pool.
    notes: Vec<String>,
    /// The command that puts back what is out and not under way, or finishes what is interrupted.
    way_back: Option<String>,
    /// The command that takes the host out, where it is in service and should not be.
    way_out: Option<String>,
}

/// What the journal says.
#[derive(Debug, Clone, Default)]
enum Journal {
    /// It could not be looked at; the problems say why.
    #[default]
    Unknown,
    /// No run left anything to be done.
    Empty,
    /// A run took the host out.
    Left(Box<Left>),
    /// There is one that nobody can act on.
    Unusable(String),
}

/// The run that took the host out, by the journal.
#[derive(Debug, Clone, Serialize)]
struct Left {
    /// Whether somebody is going to bring the host back.
    what: What,
    /// Which host; not always the one that is asked about.
    host: Fqdn,
    run: String,
    /// The run over many hosts that it is part of, where it is.
    fleet_run: Option<String>,
    pid: u32,
    /// Whether that run is alive.
    process_is_there: bool,
    since: String,
    /// How long ago that is; `None` if it cannot be told: the clock was set.
    out_seconds: Option<u64>,
    user: String,
    reason: Option<String>,
    phase: Phase,
    pools: Vec<PoolName>,
    units: Vec<UnitName>,
}

/// Why the host is still out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// A run has the host now and will bring it back.
    UnderWay,
    /// The run died; `--recover` brings it back.
    Interrupted,
    /// The same, but what the run started (a systemctl in the midst of a restart) still has the lock: `--recover` brings the host
    /// back once that has ended.
    Orphaned,
    /// On purpose: a unit does not run. Nobody brings it back but an operator, or the next run that succeeds.
    Held,
}

/// Who has the lock of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "holder")]
enum Lock {
    #[default]
    Unknown,
    Free,
    Held(Option<Holder>),
}

/// What the holder of the lock has said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Holder {
    #[serde(flatten)]
    note: host::Holder,
    /// Whether it is alive. If not, what it started has the lock.
    process_is_there: bool,
}

impl Holder {
    fn new(mut note: host::Holder, process_is_there: bool) -> Self {
        note.user.get_or_insert_with(|| ROOT.to_owned());
        Self { note, process_is_there }
    }
}

/// Whether the store answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Store {
    /// There was nothing to ask it, or nobody knows where it is.
    #[default]
    NotAsked,
    Up,
    Down,
}

/// This host in one pool.
#[derive(Debug, Clone, Serialize)]
struct Pool {
    pool: PoolName,
    /// The node's place, `DC/CLUSTER/SERVICE/FQDN`.
    node: String,
    store: InStore,
    /// Its load balancers, none where the catalog says `lb: none`.
    load_balancers: Vec<Asked>,
}

/// A node, as the store has it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
enum InStore {
    /// It was not read, or cannot be understood; the problems say why.
    Unknown,
    /// There is no such object.
    Absent,
    /// It is there.
    Node {
        pooled: Pooled,
        /// How many hosts of the pool are `yes`, this one included.
        pooled_hosts: usize,
        /// How many are `yes` or `no`.
        hosts: usize,
    },
}

/// What one load balancer said.
#[derive(Debug, Clone, Serialize)]
struct Asked {
    name: Balancer,
    #[serde(flatten)]
    verdict: Verdict,
}

/// One unit.
#[derive(Debug, Clone, Serialize)]
struct Unit {
    unit: UnitName,
    /// Whether it runs; `None`: systemd could not be asked.
    active: Option<bool>,
    /// systemd's words.
    state: String,
    pid: Option<u32>,
}

/// Who has a slot.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case", tag = "service")]
enum Slots {
    /// There is no lock service, or it could not be asked.
    #[default]
    Unknown,
    /// poolcounter's daemons count them, and know no names.
    Poolcounter { file: String, daemons: Vec<Daemon> },
    /// etcd has them, by the name of the limit.
    Etcd { limits: Vec<Limit> },
}

/// A daemon of poolcounter that counts a limit of this host's pools; its figures are of all its limits together.
#[derive(Debug, Clone, Serialize)]
struct Daemon {
    label: String,
    host: String,
    /// How many have a slot; `None`: it did not answer, and the problems say why.
    holders: Option<u64>,
    /// How many wait for one.
    waiters: Option<u64>,
}

/// The slots of one limit.
#[derive(Debug, Clone, Serialize)]
struct Limit {
    limit: String,
    holders: Vec<String>,
}

/// Something that could not be looked at, or is not as it should be.
#[derive(Debug, Clone)]
struct Problem {
    part: &'static str,
    failure: Failure,
}

impl Problem {
    fn new(part: &'static str, failure: Failure) -> Self {
        Self { part, failure }
    }
}

/// Whether the load balancers send to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum InService {
    Yes,
    No,
    Partly,
    Unknown,
    /// It is in no pool that could be seen.
    NoPool,
}

impl Pool {
    /// What store and load balancers together say of this pool. Who is sent to is in service, whatever the store says.
    fn in_service(&self) -> InService {
        let count = |wanted: fn(&Verdict) -> bool| self.load_balancers.iter().filter(|lb| wanted(&lb.verdict)).count();
        let sends = count(|verdict| matches!(verdict, Verdict::Pooled | Verdict::Held));
        let unknown = count(|verdict| matches!(verdict, Verdict::Unknown(_)));
        match (&self.store, self.load_balancers.len()) {
            (_, all) if sends > 0 && sends + unknown == all => InService::Yes,
            (_, _) if sends > 0 => InService::Partly,
            (InStore::Node { pooled: Pooled::Yes, .. }, 0) => InService::Yes,
            (InStore::Node { pooled: Pooled::No | Pooled::Inactive, .. } | InStore::Absent, _) => InService::No,
            (InStore::Unknown, 0) => InService::Unknown,
            (_, all) if unknown == 0 && all > 0 => InService::No,
            _ => InService::Unknown,
        }
    }

    /// The load balancers whose answer is not what the store asks for, or is none.
    fn strays(&self) -> impl Iterator<Item = (&Asked, ExitCode)> {
        let wanted = match self.store {
            InStore::Unknown => None,
            InStore::Absent => Some(Pooled::Inactive),
            InStore::Node { pooled, .. } => Some(pooled),
        };
        self.load_balancers.iter().filter_map(move |lb| match (&lb.verdict, wanted) {
            (Verdict::Unknown(_), _) | (Verdict::Absent, Some(Pooled::Yes | Pooled::No)) => {
                Some((lb, ExitCode::Unreachable))
            }
            (_, None)
            | (Verdict::Pooled, Some(Pooled::Yes))
            | (Verdict::NotPooled | Verdict::Draining(_), Some(Pooled::No | Pooled::Inactive))
            | (Verdict::Absent, Some(Pooled::Inactive)) => None,
            _ => Some((lb, ExitCode::Failed)),
        })
    }
}

impl Status {
    /// Over all pools.
    fn in_service(&self) -> InService {
        let all: Vec<InService> = self.pools.iter().map(Pool::in_service).collect();
        let known: Vec<InService> = all.iter().copied().filter(|one| *one != InService::Unknown).collect();
        match known.as_slice() {
            [] if all.is_empty() && self.store != Store::Down && !self.is_in_the_dark() => InService::NoPool,
            [] => InService::Unknown,
            [first, rest @ ..] if rest.iter().all(|one| one == first) => *first,
            _ => InService::Partly,
        }
    }

    /// Which pools there are, or which are this host's, could not be found out.
    fn is_in_the_dark(&self) -> bool {
        self.problems.iter().any(|problem| matches!(problem.part, "configuration" | "store"))
    }

    /// Something that decides this was not seen.
    fn is_uncertain(&self) -> bool {
        let unknown = |lb: &Asked| matches!(lb.verdict, Verdict::Unknown(_));
        let pools = &self.pools;
        self.store == Store::Down
            || self.is_in_the_dark()
            || pools.iter().any(|pool| matches!(pool.store, InStore::Unknown))
            || pools.iter().any(|pool| pool.load_balancers.iter().any(unknown))
    }

    /// The unit because of which this host is held, where it is in service all the same: somebody put it back, or a HAProxy has
    /// forgotten it. Requests come to what does not run.
    fn held_in_vain(&self) -> Option<&Unit> {
        let left = self.ours().filter(|left| left.what == What::Held && self.in_service() == InService::Yes)?;
        self.units.iter().find(|unit| unit.active == Some(false) && left.units.contains(&unit.unit))
    }

    fn left(&self) -> Option<&Left> {
        match &self.journal {
            Journal::Left(left) => Some(left),
            Journal::Unknown | Journal::Empty | Journal::Unusable(_) => None,
        }
    }

    /// The same, if it is about the host that is asked about: a machine can have several names in the pools (`--host`).
    fn ours(&self) -> Option<&Left> {
        self.left().filter(|left| !self.is_of_another_host(left))
    }

    fn is_of_another_host(&self, left: &Left) -> bool {
        self.host.as_ref().is_some_and(|host| *host != left.host)
    }

    /// No journal tells of the host; one that was set aside may be about it.
    fn may_be_forgotten(&self) -> bool {
        matches!(self.journal, Journal::Empty) && !self.set_aside.is_empty()
    }

    /// Whether what the journal says is one of these, with what it has `left` for whoever asks; `None`: it could not be looked at,
    /// or not be understood.
    fn journal_says(&self, left: Option<&Left>, one_of: &[What]) -> Option<bool> {
        match self.journal {
            Journal::Unknown | Journal::Unusable(_) => None,
            Journal::Empty if self.may_be_forgotten() && !one_of.contains(&What::UnderWay) => None,
            Journal::Empty | Journal::Left(_) => Some(left.is_some_and(|left| one_of.contains(&left.what))),
        }
    }

    /// How long the host has been out because of us; 0 if it is not.
    fn out_seconds(&self, left: Option<&Left>) -> Option<u64> {
        match &self.journal {
            Journal::Unknown | Journal::Unusable(_) => None,
            Journal::Empty if self.may_be_forgotten() => None,
            Journal::Empty | Journal::Left(_) => left.map_or(Some(0), |left| left.out_seconds),
        }
    }

    /// A run works on the host, so that units and pools may be anything for a while.
    fn is_under_way(&self) -> bool {
        self.left().is_some_and(|left| left.what == What::UnderWay) || matches!(self.lock, Lock::Held(_))
    }

    /// The pools that the store has this host out of, and that an operator can put it back into.
    fn pools_out(&self) -> Vec<PoolName> {
        let is_out = |pool: &&Pool| matches!(pool.store, InStore::Node { pooled: Pooled::No, .. });
        let mut pools: Vec<_> = self.pools.iter().filter(is_out).map(|pool| pool.pool.clone()).collect();
        // A pool stands there once for each HAProxy that keeps it.
        pools.dedup();
        pools
    }

    /// The worst of what was seen.
    fn exit_code(&self) -> ExitCode {
        ExitCode::of_a_status(&self.codes())
    }

    fn codes(&self) -> Vec<ExitCode> {
        let mut codes: Vec<ExitCode> = self.problems.iter().map(|problem| problem.failure.code).collect();
        codes.extend(self.left().and_then(|left| match left.what {
            What::UnderWay => None,
            _ if self.is_of_another_host(left) => Some(ExitCode::Failed),
            What::Held => Some(ExitCode::LeftDepooled),
            // As the recovery has it: without units there was no restart to be done.
            What::Interrupted | What::Orphaned if left.phase == Phase::BringingBack && !left.units.is_empty() => {
                Some(ExitCode::RepoolUnconfirmed)
            }
            What::Interrupted | What::Orphaned => Some(ExitCode::PutBackUnconfirmed),
        }));
        if !self.set_aside.is_empty() || matches!(self.journal, Journal::Unusable(_)) {
            codes.push(ExitCode::Failed);
        }
        let strays = self.pools.iter().flat_map(Pool::strays).map(|(_, code)| code);
        codes.extend(strays.filter(|code| *code != ExitCode::Failed || !self.is_under_way()));
        if !self.is_under_way() && self.units.iter().any(|unit| unit.active == Some(false)) {
            codes.push(ExitCode::Failed);
        }
        codes
    }
}
