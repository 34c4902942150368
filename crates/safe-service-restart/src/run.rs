//! One run of the tool with the real parts: who may run it, the lock, the work, the report, and the end, by exit code or by
//! the signal that asked for it.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use conftool::Audit;
use host::logging::{self, Verbosity};
use host::{Attempt, Holder, HostLock, Look, Monotonic, Signals, Systemctl, environment, fqdn, lock, signals, syslog};
use load_balancer::{AllAtOnce, PyBal};
use restart_core::{
    Clock, ExitCode, Failure, LoadBalancers, Parts, PoolStore, Purpose, Report, Stop, StoreError, Without, sequence,
};

use crate::cli::Cli;
use crate::output::{self, Context};
use crate::settings::{Settings, Work};

const TOOL: &str = env!("CARGO_PKG_NAME");
/// How often a run that waits for the lock looks again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The program.
pub fn main() -> std::process::ExitCode {
    // First of all, while there is one thread: nothing below can be steered through the environment.
    let environment = environment::take();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has gone is no reason to fail.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return code(if asked_for { ExitCode::Done } else { ExitCode::Usage });
        }
    };
    let verbosity = Verbosity::new(cli.quiet, cli.verbose + u8::from(cli.debug));
    logging::start(TOOL, verbosity, environment.journal_stream);
    let user = environment.sudo_user.filter(|user| user != "root");
    let report = Run { cli: &cli, work: Work::new(&cli), user }.report();
    if let Some(signal) = report.signal {
        signals::raise_again(signal);
    }
    code(report.exit_code())
}

fn code(code: ExitCode) -> std::process::ExitCode {
    std::process::ExitCode::from(code.number())
}

/// One run: what was typed, and by whom.
struct Run<'a> {
    cli: &'a Cli,
    work: Work,
    user: Option<String>,
}

impl Run<'_> {
    /// Does the work and says how it ended.
    fn report(&self) -> Report {
        let context = Context {
            action: match self.work {
                Work::Safe | Work::Forced if self.cli.reload => "reload",
                Work::Safe | Work::Forced => "restart",
                Work::Depool => "depool",
                Work::Pool => "pool",
            },
            force: self.work == Work::Forced,
            dry_run: self.cli.dry_run,
            reason: self.cli.reason.as_deref(),
            user: self.user.as_deref(),
        };
        self.record(&format!("begins: {}", self.in_words(&context)));
        let report = self.work().unwrap_or_else(Report::refused);
        output::conclude(&report);
        self.record(&format!("ended with {}: {}", report.exit_code().number(), report.state));
        if self.cli.json {
            output::print_json(&context, &report);
        } else if self.cli.dry_run && report.failures.is_empty() {
            output::print_plan(&context, &self.cli.services, &report);
        }
        report
    }

    fn work(&self) -> Result<Report, Failure> {
        if !self.cli.dry_run && !environment::is_root() {
            return Err(Failure::new(ExitCode::NotPermitted, "only root can restart services and write to the store"));
        }
        let stop = Signals::listen()
            .map_err(|error| Failure::new(ExitCode::Failed, format!("cannot listen for signals: {error}")))?;
        // A forced restart takes the lock if it is free, so that no safe run begins meanwhile, and never waits for it.
        let lock = if self.cli.dry_run {
            self.nobody_else_runs()?
        } else if self.work == Work::Forced {
            self.try_lock()
        } else {
            match self.wait_for_lock(&stop)? {
                Some(lock) => Some(lock),
                None => return Ok(ended_early(&stop)),
            }
        };
        let report = self.do_work(&stop)?;
        drop(lock);
        Ok(report)
    }

    fn do_work(&self, stop: &dyn Stop) -> Result<Report, Failure> {
        let settings = Settings::load(self.cli, self.work)?;
        let mut services = Systemctl::new().map_err(|error| Failure::new(ExitCode::Unreachable, error.to_string()))?;
        let clock = Monotonic::new();
        let mut balancers: Box<dyn LoadBalancers> = Box::new(Without);
        let mut store: Box<dyn PoolStore> = Box::new(Without);
        if let Some(settings) = settings.store {
            balancers = Box::new(AllAtOnce::new(PyBal, self.cli.timeout));
            store = Box::new(settings.open(self.audit()).map_err(|error| store_failure(&error))?);
        }
        let parts = Parts {
            store: store.as_mut(),
            balancers: balancers.as_mut(),
            services: &mut services,
            clock: &clock,
            stop,
            asked: 0,
        };
        let job = &settings.job;
        if !self.cli.dry_run && self.work == Work::Forced {
            let units: Vec<_> = job.units.iter().map(|unit| format!("'{unit}'")).collect();
            log::warn!(
                "--force: no pool is left and nothing is waited for, requests in flight on {} die",
                units.join(", ")
            );
        }
        Ok(match (self.work, self.cli.dry_run) {
            (Work::Safe, false) => sequence::safe_restart(job, parts),
            (Work::Forced, false) => sequence::forced_restart(job, parts),
            (Work::Depool, false) => sequence::depool(job, parts),
            (Work::Pool, false) => sequence::pool(job, parts),
            (Work::Safe | Work::Forced, true) => sequence::plan(job, Purpose::Restart, parts),
            (Work::Depool, true) => sequence::plan(job, Purpose::Depool, parts),
            (Work::Pool, true) => sequence::plan(job, Purpose::Pool, parts),
        })
    }

    /// Waits for the host's lock; `None`: a signal came first.
    fn wait_for_lock(&self, stop: &dyn Stop) -> Result<Option<HostLock>, Failure> {
        let clock = Monotonic::new();
        let until = clock.now() + self.cli.lock_timeout;
        let mut said = false;
        loop {
            let held_by = match HostLock::try_acquire(Path::new(lock::FOLDER), &self.holder()) {
                Ok(Attempt::Acquired(lock)) => return Ok(Some(lock)),
                Ok(Attempt::Held(holder)) => describe(holder.as_ref()),
                Err(error) => return Err(Failure::new(error.exit_code(), error.to_string())),
            };
            if stop.requested().is_some() {
                return Ok(None);
            }
            let left = until.saturating_sub(clock.now());
            if left.is_zero() {
                let waited = self.cli.lock_timeout;
                let message = format!("another run holds this host, waited {waited:?}: {held_by}");
                return Err(Failure::new(ExitCode::TryLater, message));
            }
            if !said {
                said = true;
                log::info!("waiting for another run on this host to end, for at most {left:.0?}: {held_by}");
            }
            clock.sleep(left.min(LOCK_PAUSE));
        }
    }

    fn try_lock(&self) -> Option<HostLock> {
        match HostLock::try_acquire(Path::new(lock::FOLDER), &self.holder()) {
            Ok(Attempt::Acquired(lock)) => Some(lock),
            Ok(Attempt::Held(holder)) => {
                log::info!("another run holds this host, and is not waited for: {}", describe(holder.as_ref()));
                None
            }
            Err(error) => {
                log::info!("going on without the lock: {error}");
                None
            }
        }
    }

    /// For a dry run: the same answer as the run would get now, without taking anything.
    fn nobody_else_runs(&self) -> Result<Option<HostLock>, Failure> {
        match lock::peek(Path::new(lock::FOLDER)) {
            Ok(Look::Held(holder)) if self.work != Work::Forced => {
                let message = format!("another run holds this host: {}", describe(holder.as_ref()));
                Err(Failure::new(ExitCode::TryLater, message))
            }
            Ok(_) => Ok(None),
            // The folder is root's own: for anybody else this question has no answer.
            Err(error) => {
                log::debug!("cannot tell whether another run holds this host: {error}");
                Ok(None)
            }
        }
    }

    fn holder(&self) -> Holder {
        Holder::new(TOOL, self.cli.reason.clone(), self.user.clone())
    }

    fn audit(&self) -> Audit {
        Audit { user: self.user.clone(), host: fqdn::hostname(), sink: Box::new(|line| _ = syslog::audit(line)) }
    }

    /// Who did what and why stays in syslog, wherever stderr goes. A dry run does nothing worth it.
    fn record(&self, what: &str) {
        if !self.cli.dry_run {
            syslog::notice(TOOL, what);
        }
    }

    fn in_words(&self, context: &Context<'_>) -> String {
        let list = |names: Vec<&str>| names.join(" ");
        let force = if context.force { "forced " } else { "" };
        format!(
            "{force}{} of '{}' in '{}', by '{}', because: {}",
            context.action,
            list(self.cli.services.iter().map(restart_core::UnitName::as_str).collect()),
            list(self.cli.pools.iter().map(restart_core::PoolName::as_str).collect()),
            self.user.as_deref().unwrap_or("root"),
            self.cli.reason.as_deref().unwrap_or("no reason given"),
        )
    }
}

/// A run that was asked to end while it waited for the lock.
fn ended_early(stop: &dyn Stop) -> Report {
    let mut report = Report::nothing_done();
    report.signal = stop.requested().map(|stopped| stopped.signal);
    report
}

fn describe(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else { return "who it is, it has not said".to_owned() };
    let mut text = format!("process {} of {} since {}", holder.pid, holder.tool, holder.since);
    if let Some(user) = &holder.user {
        text += &format!(", by '{user}'");
    }
    if let Some(reason) = &holder.reason {
        text += &format!(", because: {reason}");
    }
    text
}

fn store_failure(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unreachable(_) => ExitCode::Unreachable,
        StoreError::Refused(_) | StoreError::Malformed(_) => ExitCode::Configuration,
    };
    Failure::new(code, format!("cannot open the store: {error}"))
}
