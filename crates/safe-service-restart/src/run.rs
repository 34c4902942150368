//! One run of the tool with the real parts: who may run it, the lock, the work, the report, and the end, by exit code or by
//! the signal that asked for it.

use clap::Parser;
use clap::error::ErrorKind;
use conftool::{Audit, Keeper};
use host::journal::Found;
use host::logging::{self, Verbosity};
use host::output::{self, Context};
use host::{Holder, Monotonic, Signals, Systemctl, environment, fqdn, ids, inherited, signals, syslog};
use load_balancer::{Access, AllAtOnce, AsTheCatalogSays};
use restart_core::{
    ExitCode, Failure, Job, Journal, JournalError, LoadBalancers, Origin, Parts, Phase, PoolStore, Probe, Purpose,
    Record, Report, Slots, Stop, Stopped, Without, sequence,
};

use crate::cli::Cli;
use crate::held_journal::{self, HeldJournal};
use crate::locking;
use crate::probe::Services;
use crate::settings::{self, Settings, SlotService};
use crate::status;
use crate::store::{self, Opening};

pub const TOOL: &str = env!("CARGO_PKG_NAME");

/// What goes wrong where the store, or the slots in it, cannot be made ready: "cannot ...".
pub const OPEN: &str = "open the store";

/// The program.
pub fn main() -> std::process::ExitCode {
    // First of all, while there is one thread: nothing below can be steered through the environment.
    let environment = environment::take();
    inherited::lift_limits();
    inherited::own_signals();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has gone is no reason to fail.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return code(if asked_for { ExitCode::Done } else { ExitCode::Usage });
        }
    };
    let verbosity = Verbosity::new(cli.quiet, cli.verbose.saturating_add(u8::from(cli.debug)));
    logging::start(TOOL, verbosity, environment.journal_stream);
    if cli.status {
        return code(status::show(&cli));
    }
    let user = environment.sudo_user.filter(|user| user != "root");
    let report = Run { cli: &cli, purpose: settings::purpose(&cli), user }.report();
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
    purpose: Purpose,
    user: Option<String>,
}

impl Run<'_> {
    /// Does the work and says how it ended.
    fn report(&self) -> Report {
        let context = Context {
            tool: TOOL,
            version: env!("CARGO_PKG_VERSION"),
            action: match self.purpose {
                Purpose::Restart | Purpose::Force if self.cli.reload => "reload",
                Purpose::Restart | Purpose::Force => "restart",
                Purpose::Depool => "depool",
                Purpose::Pool => "pool",
                Purpose::Recover => "recover",
            },
            force: self.purpose == Purpose::Force,
            dry_run: self.cli.dry_run,
            reason: self.cli.reason.as_deref(),
            user: self.user.as_deref(),
            fleet_run: self.cli.fleet_run.as_deref(),
        };
        let words = self.in_words(&context);
        // A recovery runs every minute; it is worth a line when it had something to do.
        if self.purpose != Purpose::Recover {
            self.record(&format!("begins: {words}"));
        }
        let mut report = self.work().unwrap_or_else(Report::refused);
        if let (Purpose::Recover, Some(path)) = (self.purpose, &self.cli.textfile)
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
            Err(error) if self.purpose == Purpose::Force => {
                log::warn!("cannot listen for signals: {error}");
                Box::new(NoSignals)
            }
            Err(error) => return Err(Failure::new(ExitCode::Failed, format!("cannot listen for signals: {error}"))),
        };
        let (stop, holder) = (stop.as_ref(), Holder::new(TOOL, self.cli.reason.clone(), self.user.clone()));
        if self.cli.dry_run {
            return self.plan(stop);
        }
        match self.purpose {
            Purpose::Force => {
                // Held until the restart is over.
                let _lock = locking::if_possible(&holder);
                self.force(stop)
            }
            Purpose::Recover => match locking::if_free(&holder)? {
                Some(lock) => self.recover(stop, &mut HeldJournal::new(lock)?),
                None => Ok(Report::nothing_done()),
            },
            Purpose::Restart | Purpose::Depool | Purpose::Pool => {
                let Some(lock) = locking::wait(&holder, self.cli.lock_timeout, stop)? else {
                    // A signal came first.
                    let mut report = Report::nothing_done();
                    report.signal = stop.requested().map(|stopped| stopped.signal);
                    return Ok(report);
                };
                let mut journal = HeldJournal::new(lock)?;
                match self.purpose {
                    Purpose::Depool => self.do_half(stop, &mut journal, sequence::depool),
                    Purpose::Pool => self.do_half(stop, &mut journal, sequence::pool),
                    Purpose::Restart | Purpose::Force | Purpose::Recover => self.restart(stop, &mut journal),
                }
            }
        }
    }

    /// `--dry-run`: what would be done, also with what an earlier run left.
    fn plan(&self, stop: &dyn Stop) -> Result<Report, Failure> {
        if self.purpose != Purpose::Force {
            locking::nobody_else_runs()?;
        }
        let left = match held_journal::file()?.look() {
            Ok(Found::Record(record)) => Some(*record),
            Ok(Found::Problem(problem)) => {
                log::warn!("{problem}");
                None
            }
            Ok(Found::Nothing) => None,
            // The folder is root's own.
            Err(error) => {
                log::debug!("cannot tell what an earlier run left: {error}");
                None
            }
        };
        if let Some(left) = left.as_ref().filter(|left| left.phase != Phase::Held && self.purpose == Purpose::Restart) {
            log::warn!("run {} died with this host out of its pools: that would be finished first", left.run);
        }
        // Seen as it stands: what is out because of that run is not said to stay so. With no pool named there is nothing to show it in.
        let left = left
            .filter(|left| left.phase == Phase::Held || self.purpose != Purpose::Restart || !self.cli.pools.is_empty());
        let settings = Settings::load(self.cli, self.purpose, self.origin()?, left)?;
        self.with_parts(settings, stop, &mut NoJournal, |job, parts| sequence::plan(job, self.purpose, parts))
    }

    /// Restarts at once; nothing but systemd is needed, and nothing is written down.
    fn force(&self, stop: &dyn Stop) -> Result<Report, Failure> {
        let units: Vec<_> = self.cli.services.iter().map(|unit| format!("'{unit}'")).collect();
        let units = units.join(", ");
        log::warn!("--force: no pool is left and no load balancer waited for, requests in flight on {units} die");
        let settings = Settings::load(self.cli, self.purpose, Origin::nobody(), None)?;
        let report = self.with_parts(settings, stop, &mut NoJournal, sequence::forced_restart);
        // Nothing that can go wrong here is worth a delay before.
        if let Ok(file) = held_journal::file() {
            if let Ok(Found::Record(record)) = file.look() {
                let (run, since) = (&record.run, &record.since);
                log::warn!(
                    "this host is out of its pools since {since}, by run {run}: look at 'safe-service-restart --status'"
                );
            }
            for problem in file.set_aside().unwrap_or_default() {
                log::warn!("{problem}");
            }
        }
        report
    }

    /// The main job. What a dead run left is finished first; what one held is put back if this one succeeds.
    fn restart(&self, stop: &dyn Stop, journal: &mut HeldJournal) -> Result<Report, Failure> {
        let mut left = self.found(journal)?;
        if let Some(record) = left.take_if(|record| record.phase != Phase::Held) {
            let mut report = self.finish(&record, stop, journal)?;
            if report.signal.is_some() || !matches!(report.exit_code(), ExitCode::Done | ExitCode::LeftDepooled) {
                // Whatever that run did, this one has restarted nothing.
                for failure in report.failures.iter_mut().filter(|one| one.code == ExitCode::RepoolUnconfirmed) {
                    failure.code = ExitCode::PutBackUnconfirmed;
                }
                return Ok(report);
            }
            output::conclude(&report);
            left = self.found(journal)?;
        }
        let settings = Settings::load(self.cli, self.purpose, self.origin()?, left)?;
        self.with_parts(settings, stop, journal, sequence::safe_restart)
    }

    /// `--depool` and `--pool`: an operator's word, which takes over from any journal if it succeeds.
    fn do_half(
        &self,
        stop: &dyn Stop,
        journal: &mut HeldJournal,
        half: impl for<'p> FnOnce(&'p Job, Parts<'p>) -> Report,
    ) -> Result<Report, Failure> {
        let left = self.found(journal)?;
        let settings = Settings::load(self.cli, self.purpose, self.origin()?, left)?;
        self.with_parts(settings, stop, journal, half)
    }

    /// `--recover`.
    fn recover(&self, stop: &dyn Stop, journal: &mut HeldJournal) -> Result<Report, Failure> {
        let mut report = match journal.load()? {
            Found::Record(record) if record.phase != Phase::Held && held_journal::is_alive(&record) => {
                log::warn!("process {} has this host out of its pools, and the lock is gone: left to it", record.pid);
                Report::nothing_done()
            }
            Found::Record(record) => self.finish(&record, stop, journal)?,
            Found::Problem(problem) => {
                log::warn!("{problem}");
                Report::nothing_done()
            }
            Found::Nothing => Report::nothing_done(),
        };
        // Somebody has to look at these, and a unit that fails every minute is looked at.
        for problem in journal.set_aside()? {
            report.failures.push(Failure::new(ExitCode::Failed, problem.to_string()));
        }
        Ok(report)
    }

    fn finish(&self, record: &Record, stop: &dyn Stop, journal: &mut HeldJournal) -> Result<Report, Failure> {
        self.with_parts(Settings::of_record(self.cli, record)?, stop, journal, sequence::recover)
    }

    /// What stands in the journal. One that must not be acted on is set aside, and said until it is removed.
    fn found(&self, journal: &HeldJournal) -> Result<Option<Record>, Failure> {
        let found = journal.load()?;
        for problem in journal.set_aside()? {
            log::warn!("{problem}");
        }
        match found {
            Found::Record(record) if record.phase != Phase::Held && held_journal::is_alive(&record) => {
                let message = format!(
                    "another run holds this host, though somebody removed its lock: process {} since {}",
                    record.pid, record.since
                );
                Err(Failure::new(ExitCode::TryLater, message))
            }
            Found::Record(record) => Ok(Some(*record)),
            Found::Nothing | Found::Problem(_) => Ok(None),
        }
    }

    fn origin(&self) -> Result<Origin, Failure> {
        let failed = |error: ids::IdError| Failure::new(ExitCode::Failed, error.to_string());
        Ok(Origin {
            run: ids::fresh_run().map_err(failed)?,
            fleet_run: self.cli.fleet_run.clone(),
            boot: ids::boot().map_err(failed)?,
            pid: std::process::id(),
            since: host::clock::now_utc(),
            user: self.user.clone(),
            reason: self.cli.reason.clone(),
            files: settings::files(self.cli),
        })
    }

    /// Has `what` done with the real parts.
    fn with_parts(
        &self,
        settings: Settings,
        stop: &dyn Stop,
        journal: &mut dyn Journal,
        what: impl for<'p> FnOnce(&'p Job, Parts<'p>) -> Report,
    ) -> Result<Report, Failure> {
        let Settings { job, store: keeper, slots } = settings;
        let mut services = Systemctl::new().map_err(|error| Failure::new(ExitCode::Unreachable, error.to_string()))?;
        let clock = Monotonic::new();
        let mut balancers: Box<dyn LoadBalancers> = Box::new(Without);
        let mut store: Box<dyn PoolStore> = Box::new(Without);
        if let (Some(keeper), Some(place)) = (&keeper, &job.place) {
            balancers = Box::new(AllAtOnce::new(AsTheCatalogSays, self.cli.timeout));
            let opening = Opening {
                run: &job.origin.run,
                host: &place.host,
                data_centre: &place.data_centre,
                pools: &place.pools,
                left: job.left.as_ref(),
                access: Access::Change,
                at_most: self.cli.timeout,
            };
            store = store::open(keeper, &opening, self.audit()).map_err(|error| error.failure(OPEN))?;
        }
        let mut slots = self.slots(slots, keeper.as_ref(), &job)?;
        // In an emergency nobody is asked anything.
        let mut probe: Box<dyn Probe> = match self.purpose {
            Purpose::Force => Box::new(Without),
            _ => Box::new(Services::default()),
        };
        let parts = Parts {
            store: store.as_mut(),
            balancers: balancers.as_mut(),
            services: &mut services,
            probe: probe.as_mut(),
            journal,
            slots: match &mut slots {
                Some(slots) => Some(slots.as_mut()),
                None => None,
            },
            clock: &clock,
            stop,
        };
        Ok(what(&job, parts))
    }

    /// Who grants slots, ready to be asked.
    fn slots(
        &self,
        service: Option<SlotService>,
        keeper: Option<&Keeper>,
        job: &Job,
    ) -> Result<Option<Box<dyn Slots>>, Failure> {
        Ok(match (service, keeper, &job.place) {
            (Some(SlotService::Poolcounter(poolcounter)), ..) => Some(poolcounter),
            (Some(SlotService::Leases(key)), Some(Keeper::Etcd(store)), Some(place)) => {
                let Origin { run, pid, user, since, .. } = job.origin.clone();
                let holder = conftool::Holder { host: place.host.clone(), run, pid, user, since };
                Some(Box::new(store.slots(key.as_str(), holder).map_err(|error| error.failure(OPEN))?))
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
        if let Some(run) = &self.cli.fleet_run {
            words += &format!(", for run {run} of the fleet");
        }
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

    fn is_ours(&mut self) -> Result<(), JournalError> {
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
