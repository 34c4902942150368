//! One run of the tool with the real parts: who may run it, the lock, the work, the report, and the end, by exit code or by
//! the signal that asked for it.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use conftool::Audit;
use host::journal::Found;
use host::logging::{self, Verbosity};
use host::{
    Attempt, FolderError, Holder, HostLock, JournalFile, Look, Monotonic, Signals, Systemctl, environment, fqdn, ids,
    lock, signals, syslog,
};
use load_balancer::{AllAtOnce, PyBal};
use restart_core::{
    Clock, ExitCode, Failure, Job, Journal, JournalError, LoadBalancers, Origin, Parts, Phase, PoolStore, Purpose,
    Record, Report, Slots, Stop, Stopped, StoreError, Without, sequence,
};

use crate::cli::Cli;
use crate::output::{self, Context};
use crate::settings::{Settings, SlotService, Work};
use crate::status;

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
    if cli.status {
        return code(status::show(&cli));
    }
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
                Work::Recover => "recover",
            },
            force: self.work == Work::Forced,
            dry_run: self.cli.dry_run,
            reason: self.cli.reason.as_deref(),
            user: self.user.as_deref(),
        };
        let words = self.in_words(&context);
        // A recovery runs every minute; it is worth a line when it had something to do.
        if self.work != Work::Recover {
            self.record(&format!("begins: {words}"));
        }
        let mut report = self.work().unwrap_or_else(Report::refused);
        if let (Work::Recover, Some(path)) = (self.work, &self.cli.textfile)
            && environment::is_root()
            && let Err(failure) = status::write_from_journal(path)
        {
            report.failures.push(failure);
        }
        if !report.is_nothing() {
            output::conclude(&report);
            let failures: String = report.failures.iter().map(|failure| format!("; {failure}")).collect();
            self.record(&format!("{}: {words}: {}{failures}", output::ended(&report), report.state));
        }
        if self.cli.json {
            output::print_json(&context, &report);
        } else if self.cli.dry_run && report.failures.is_empty() {
            output::print_plan(&mut report);
        }
        report
    }

    fn work(&self) -> Result<Report, Failure> {
        if !self.cli.dry_run && !environment::is_root() {
            return Err(Failure::new(ExitCode::NotPermitted, "only root can restart services and write to the store"));
        }
        let stop: Box<dyn Stop> = match Signals::listen() {
            Ok(signals) => Box::new(signals),
            // Not even that keeps an emergency waiting.
            Err(error) if self.work == Work::Forced => {
                log::warn!("cannot listen for signals: {error}");
                Box::new(NoSignals)
            }
            Err(error) => return Err(Failure::new(ExitCode::Failed, format!("cannot listen for signals: {error}"))),
        };
        let stop = stop.as_ref();
        if self.cli.dry_run {
            self.nobody_else_runs()?;
            let settings = Settings::load(self.cli, self.work, self.origin()?, None)?;
            return self
                .with_parts(settings, stop, &mut NoJournal, |job, parts| sequence::plan(job, self.purpose(), parts));
        }
        // Held until this function returns.
        let _lock = match self.work {
            // A forced restart takes the lock if it is free, so that no safe run begins meanwhile, and never waits for it.
            Work::Forced => self.try_lock(),
            Work::Recover => match self.try_lock_quietly()? {
                Some(lock) => Some(lock),
                // A living run finishes its own work.
                None => return Ok(Report::nothing_done()),
            },
            Work::Safe | Work::Depool | Work::Pool => match self.wait_for_lock(stop)? {
                Some(lock) => Some(lock),
                None => return Ok(ended_early(stop)),
            },
        };
        match self.work {
            Work::Forced => self.force(stop),
            Work::Recover => self.recover(stop, &mut self.journal()?),
            Work::Safe => self.restart(stop, &mut self.journal()?),
            Work::Depool => self.do_half(stop, &mut self.journal()?, sequence::depool),
            Work::Pool => self.do_half(stop, &mut self.journal()?, sequence::pool),
        }
    }

    /// Restarts at once; nothing but systemd is needed, and nothing is written down.
    fn force(&self, stop: &dyn Stop) -> Result<Report, Failure> {
        let units: Vec<_> = self.cli.services.iter().map(|unit| format!("'{unit}'")).collect();
        let units = units.join(", ");
        log::warn!("--force: no pool is left and nothing is waited for, requests in flight on {units} die");
        let settings = Settings::load(self.cli, self.work, Origin::nobody(), None)?;
        self.with_parts(settings, stop, &mut NoJournal, sequence::forced_restart)
    }

    /// The main job. What a dead run left is finished first; what one held is put back if this one succeeds.
    fn restart(&self, stop: &dyn Stop, journal: &mut JournalFile) -> Result<Report, Failure> {
        let mut held = None;
        if let Some(record) = self.found(journal)? {
            if record.phase != Phase::Held {
                let report = self.finish(&record, stop, journal)?;
                if report.signal.is_some() || !matches!(report.exit_code(), ExitCode::Done | ExitCode::LeftDepooled) {
                    return Ok(report);
                }
                output::conclude(&report);
            }
            held = self.found(journal)?;
        }
        let settings = Settings::load(self.cli, self.work, self.origin()?, held)?;
        self.with_parts(settings, stop, journal, sequence::safe_restart)
    }

    /// `--depool` and `--pool`: an operator's word, which takes over from any journal if it succeeds.
    fn do_half(
        &self,
        stop: &dyn Stop,
        journal: &mut JournalFile,
        half: impl for<'p> FnOnce(&'p Job, Parts<'p>) -> Report,
    ) -> Result<Report, Failure> {
        let left = self.found(journal)?;
        let settings = Settings::load(self.cli, self.work, self.origin()?, left)?;
        self.with_parts(settings, stop, journal, half)
    }

    /// `--recover`.
    fn recover(&self, stop: &dyn Stop, journal: &mut JournalFile) -> Result<Report, Failure> {
        match self.found(journal)? {
            Some(record) => self.finish(&record, stop, journal),
            None => {
                let mut report = Report::nothing_done();
                // Somebody has to look at these, and a unit that fails every minute is looked at.
                for problem in journal.set_aside().map_err(|error| folder_failure(&error))? {
                    report.failures.push(Failure::new(ExitCode::Failed, problem.to_string()));
                }
                Ok(report)
            }
        }
    }

    fn finish(&self, record: &Record, stop: &dyn Stop, journal: &mut JournalFile) -> Result<Report, Failure> {
        let settings = Settings::of_record(self.cli, record)?;
        self.with_parts(settings, stop, journal, |job, parts| sequence::recover(job, record, parts))
    }

    /// What stands in the journal. One that must not be acted on is set aside, and said until it is removed.
    fn found(&self, journal: &JournalFile) -> Result<Option<Record>, Failure> {
        let found = journal.load().map_err(|error| folder_failure(&error))?;
        if self.work != Work::Recover {
            for problem in journal.set_aside().map_err(|error| folder_failure(&error))? {
                log::warn!("{problem}");
            }
        }
        Ok(match found {
            Found::Nothing => None,
            Found::Record(record) => Some(*record),
            Found::Problem(problem) => {
                log::warn!("{problem}");
                None
            }
        })
    }

    fn journal(&self) -> Result<JournalFile, Failure> {
        let machine = ids::machine().map_err(|error| Failure::new(ExitCode::Configuration, error.to_string()))?;
        Ok(JournalFile::new(Path::new(host::journal::FOLDER), machine))
    }

    fn origin(&self) -> Result<Origin, Failure> {
        let failed = |error: ids::IdError| Failure::new(ExitCode::Failed, error.to_string());
        Ok(Origin {
            run: ids::fresh_run().map_err(failed)?,
            boot: ids::boot().map_err(failed)?,
            pid: std::process::id(),
            since: host::clock::now_utc(),
            user: self.user.clone(),
            reason: self.cli.reason.clone(),
        })
    }

    fn purpose(&self) -> Purpose {
        match self.work {
            Work::Depool => Purpose::Depool,
            Work::Pool => Purpose::Pool,
            Work::Safe | Work::Forced | Work::Recover => Purpose::Restart,
        }
    }

    /// Has `what` done with the real parts.
    fn with_parts(
        &self,
        settings: Settings,
        stop: &dyn Stop,
        journal: &mut dyn Journal,
        what: impl for<'p> FnOnce(&'p Job, Parts<'p>) -> Report,
    ) -> Result<Report, Failure> {
        let Settings { job, store: store_settings, slots } = settings;
        let mut services = Systemctl::new().map_err(|error| Failure::new(ExitCode::Unreachable, error.to_string()))?;
        let clock = Monotonic::new();
        let mut balancers: Box<dyn LoadBalancers> = Box::new(Without);
        let mut store: Box<dyn PoolStore> = Box::new(Without);
        if let Some(settings) = &store_settings {
            balancers = Box::new(AllAtOnce::new(PyBal, self.cli.timeout));
            let opened = settings.open(&job.origin.run, self.audit());
            store = Box::new(opened.map_err(|error| store_failure(&error))?);
        }
        let mut slots = self.slots(slots, store_settings.as_ref(), &job)?;
        let parts = Parts {
            store: store.as_mut(),
            balancers: balancers.as_mut(),
            services: &mut services,
            journal,
            slots: match &mut slots {
                Some(slots) => Some(slots.as_mut()),
                None => None,
            },
            clock: &clock,
            stop,
            asked: 0,
        };
        Ok(what(&job, parts))
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
                let waited = Some(self.cli.lock_timeout).filter(|waited| !waited.is_zero());
                let waited = waited.map(|waited| format!(" for {waited:?} already")).unwrap_or_default();
                let message = format!("another run holds this host{waited}: {held_by}");
                return Err(Failure::new(ExitCode::TryLater, message));
            }
            if !said {
                said = true;
                log::warn!("waiting for another run on this host to end, for at most {left:.0?}: {held_by}");
            }
            clock.sleep(left.min(LOCK_PAUSE));
        }
    }

    fn try_lock(&self) -> Option<HostLock> {
        match HostLock::try_acquire(Path::new(lock::FOLDER), &self.holder()) {
            Ok(Attempt::Acquired(lock)) => Some(lock),
            Ok(Attempt::Held(holder)) => {
                log::warn!(
                    "--force: another run holds this host, and is not waited for: {}",
                    describe(holder.as_ref())
                );
                None
            }
            Err(error) => {
                log::warn!("--force: going on without the lock of this host: {error}");
                None
            }
        }
    }

    /// For a recovery: `None` if somebody has it.
    fn try_lock_quietly(&self) -> Result<Option<HostLock>, Failure> {
        match HostLock::try_acquire(Path::new(lock::FOLDER), &self.holder()) {
            Ok(Attempt::Acquired(lock)) => Ok(Some(lock)),
            Ok(Attempt::Held(_)) => Ok(None),
            Err(error) => Err(folder_failure(&error)),
        }
    }

    /// For a dry run: the same answer as the run would get now, without taking anything.
    fn nobody_else_runs(&self) -> Result<(), Failure> {
        match lock::peek(Path::new(lock::FOLDER)) {
            Ok(Look::Held(holder)) if self.work != Work::Forced => {
                let message = format!("another run holds this host: {}", describe(holder.as_ref()));
                Err(Failure::new(ExitCode::TryLater, message))
            }
            Ok(_) => Ok(()),
            // The folder is root's own: for anybody else this question has no answer.
            Err(error) => {
                log::debug!("cannot tell whether another run holds this host: {error}");
                Ok(())
            }
        }
    }

    fn holder(&self) -> Holder {
        Holder::new(TOOL, self.cli.reason.clone(), self.user.clone())
    }

    /// Who grants slots, ready to be asked.
    fn slots(
        &self,
        service: Option<SlotService>,
        store: Option<&conftool::Settings>,
        job: &Job,
    ) -> Result<Option<Box<dyn Slots>>, Failure> {
        Ok(match (service, store, &job.place) {
            (Some(SlotService::Poolcounter(poolcounter)), ..) => Some(poolcounter),
            (Some(SlotService::Leases(key)), Some(store), Some(place)) => {
                let Origin { run, pid, user, since, .. } = job.origin.clone();
                let holder = conftool::Holder { host: place.host.clone(), run, pid, user, since };
                Some(Box::new(store.slots(key.as_str(), holder).map_err(|error| store_failure(&error))?))
            }
            _ => None,
        })
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
        let mut words = context.action.to_owned();
        if context.force {
            words.insert_str(0, "forced ");
        }
        for unit in &self.cli.services {
            words += &format!(" {unit}");
        }
        for (place, pool) in self.cli.pools.iter().enumerate() {
            words += &format!("{} '{pool}'", if place == 0 { " in" } else { "," });
        }
        words += &format!(", by '{}'", self.user.as_deref().unwrap_or("root"));
        if let Some(reason) = self.cli.reason.as_deref().filter(|reason| !reason.is_empty()) {
            words += &format!(", because: {reason}");
        }
        words
    }
}

/// For a run that writes nothing to the store.
struct NoJournal;

impl Journal for NoJournal {
    fn keep(&mut self, _: &Record) -> Result<(), JournalError> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
}

/// For an emergency on a system that grants no signal handler.
struct NoSignals;

impl Stop for NoSignals {
    fn requested(&self) -> Option<Stopped> {
        None
    }
}

fn folder_failure(error: &FolderError) -> Failure {
    Failure::new(error.exit_code(), error.to_string())
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

pub fn store_failure(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unreachable(_) => ExitCode::Unreachable,
        StoreError::Refused(_) | StoreError::Malformed(_) => ExitCode::Configuration,
    };
    Failure::new(code, format!("cannot open the store: {error}"))
}
