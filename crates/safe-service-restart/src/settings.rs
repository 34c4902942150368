//! What the command line means together with the files of this host. Everything is checked here, before anything outside is
//! contacted; below it nothing is checked again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conftool::{Catalog, LoadError};
use host::trusted::{self, TrustError};
use host::{address, environment, fqdn};
use restart_core::{Action, ExitCode, Failure, Fqdn, Job, Place, Pool, Tag};

use crate::cli::Cli;

/// Where Puppet writes the name of the data centre.
const DATA_CENTRE: &str = "/etc/wikimedia-cluster";
/// How long a unit has to stay up: a process that cannot work ends within a few milliseconds of its start.
const SETTLE: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Out of the pools, restart or reload, back again.
    Safe,
    /// Restart or reload at once.
    Forced,
    /// Only out.
    Depool,
    /// Only back.
    Pool,
}

impl Work {
    /// What was typed.
    pub fn new(cli: &Cli) -> Self {
        match (cli.force, cli.depool, cli.pool) {
            (true, ..) => Self::Forced,
            (_, true, _) => Self::Depool,
            (.., true) => Self::Pool,
            _ => Self::Safe,
        }
    }
}

/// A job, and what is needed to do it.
#[derive(Debug)]
pub struct Settings {
    /// The job.
    pub job: Job,
    /// The store; `None` when the job has no place in any pool.
    pub store: Option<conftool::Settings>,
}

impl Settings {
    /// Reads the files that this work needs. A forced restart needs none, and reads none.
    pub fn load(cli: &Cli, work: Work) -> Result<Self, Failure> {
        let settle = cli.settle.unwrap_or(if work == Work::Forced { Duration::ZERO } else { SETTLE });
        let mut job = Job {
            place: None,
            units: cli.services.clone(),
            action: if cli.reload { Action::Reload } else { Action::Restart },
            grace: cli.grace_period,
            settle,
            allowed: cli.lb_timeout.unwrap_or(cli.wait * cli.retries),
            longest_pause: cli.wait,
            quorum: cli.lb_quorum.map(usize::from),
        };
        if work == Work::Forced {
            return Ok(Self { job, store: None });
        }
        if cli.pools.is_empty() {
            must_have_no_pools(cli)?;
            return Ok(Self { job, store: None });
        }
        let catalog = Catalog::load(&cli.catalog, &trusted::read).map_err(load_failure)?;
        let mut pools = catalog.pools(&cli.pools).map_err(|error| configuration(error.to_string()))?;
        pools.sort_by(|one, other| one.name.cmp(&other.name));
        check_quorum(&pools, job.quorum)?;
        let data_centre = data_centre(cli)?;
        let store = conftool::Settings::load(&cli.config, environment::home().as_deref(), &trusted::read);
        let store = store.map_err(load_failure)?;
        if store.read_only() {
            let config = cli.config.display();
            return Err(configuration(format!(
                "'{config}' says 'read_only: true': nothing may be written to the store"
            )));
        }
        job.place = Some(Place { host: own_name(cli)?, data_centre, pools });
        Ok(Self { job, store: Some(store) })
    }
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

/// Whether something is there, also if it cannot be looked at.
fn exists(file: &Path) -> bool {
    file.try_exists().unwrap_or(true)
}

fn check_quorum(pools: &[Pool], quorum: Option<usize>) -> Result<(), Failure> {
    let Some(quorum) = quorum else { return Ok(()) };
    match pools.iter().find(|pool| !pool.balancers.is_empty() && pool.balancers.len() < quorum) {
        None => Ok(()),
        Some(pool) => Err(configuration(format!(
            "--lb-quorum {quorum} can never be met: pool '{}' has {} load balancers",
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
    match trusted::read(&file).map_err(|error| untrusted(&error))? {
        None => Err(configuration(format!("the data centre is not known: '{DATA_CENTRE}' does not exist; pass --dc"))),
        Some(text) => Tag::new(text.trim())
            .map_err(|error| configuration(format!("'{DATA_CENTRE}' does not name a data centre: {error}"))),
    }
}

/// This host's name in the pools. Only this host can be restarted here, so only its own name will do.
fn own_name(cli: &Cli) -> Result<Fqdn, Failure> {
    match &cli.host {
        None => fqdn::own().map_err(|error| configuration(error.to_string())),
        Some(name) => {
            address::must_be_ours(name).map_err(|error| configuration(format!("--host: {error}")))?;
            Ok(name.clone())
        }
    }
}

fn configuration(message: String) -> Failure {
    Failure::new(ExitCode::Configuration, message)
}

fn untrusted(error: &TrustError) -> Failure {
    Failure::new(error.exit_code(), error.to_string())
}

fn load_failure(error: LoadError<TrustError>) -> Failure {
    match error {
        LoadError::Read(error) => untrusted(&error),
        LoadError::Missing(_) | LoadError::Invalid(_) => configuration(error.to_string()),
    }
}
