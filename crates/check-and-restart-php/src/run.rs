//! One run of the tool: each unit is asked, judged, and if there is reason to, restarted or its APCu cleared; then all of it is said.

use std::path::Path;
use std::process::ExitCode as Exit;
use std::time::{Duration, SystemTime};

use clap::error::ErrorKind;
use host::logging::{self, Verbosity};
use host::{Environment, Signals, Systemctl, environment, inherited, output, signals, syslog, textfile};
use php_fpm::{AskFault, Cleared};
use restart_core::{ExitCode, Failure, Signal, Stop, UnitName};

use crate::cli::Cli;
use crate::json::{self, Asked};
use crate::last_restart::{self, LastRestart, Leave};
use crate::limits::{FreeLimit, Limits};
use crate::outlook::outlook;
use crate::report::{Done, Report, UnitReport, opcache};
use crate::restart::{self, Ended, Restart};
use crate::source::{Asker, Reading};
use crate::verdict::{Level, Verdict, verdict};
use crate::{history, metrics, nagios, text};

mod again;

const TOOL: &str = env!("CARGO_PKG_NAME");

/// The units of `--all`, as systemd matches names.
const ALL: &str = "php*-fpm.service";

/// What Nagios takes for "it cannot be told".
const NAGIOS_UNKNOWN: u8 = 3;
/// The exit codes by which the restart says that it restarted nothing (the table in safe-service-restart(8)).
const NOT_RESTARTED: [u8; 6] = [
    ExitCode::Failed as u8,
    ExitCode::Usage as u8,
    ExitCode::Unreachable as u8,
    ExitCode::TryLater as u8,
    ExitCode::NotPermitted as u8,
    ExitCode::Configuration as u8,
];

/// The program.
pub fn main() -> Exit {
    // First of all, while there is one thread: nothing below can be steered through the environment.
    let environment = environment::take();
    inherited::lift_limits();
    inherited::own_signals();
    inherited::leave_folder();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    logging::start(TOOL, Verbosity::new(cli.quiet, cli.verbose), environment.journal_stream);
    let mut run = Run { cli: &cli, limits: cli.limits(), environment, now: now(), signals: None };
    let code = run.run();
    if let Some(signal) = run.signal() {
        signals::raise_again(signal);
    }
    Exit::from(code)
}

/// A command line that cannot be read. A monitor gets a line that it can show, and no code that it would take for a verdict.
fn refuse(error: &clap::Error) -> Exit {
    let is_asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !is_asked_for && std::env::args_os().any(|argument| argument == "--check") {
        let words = error.to_string();
        // What is wrong comes first, with a line for each argument where several are; then how it is meant.
        let wrong: Vec<&str> = words.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let _ = output::print(&nagios::unknown(wrong.join(" ").trim_start_matches("error: ")));
        return Exit::from(NAGIOS_UNKNOWN);
    }
    // A reader that has gone is no reason to fail.
    let _ = error.print();
    Exit::from(if is_asked_for { ExitCode::Done.number() } else { ExitCode::Usage.number() })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

struct Run<'a> {
    cli: &'a Cli,
    limits: Limits,
    environment: Environment,
    now: u64,
    /// Listened for from the first restart on: until then nothing is begun that would have to be ended in order.
    signals: Option<Signals>,
}

impl Run<'_> {
    /// Does the work, says how it ended, and returns the exit code.
    fn run(&mut self) -> u8 {
        let mut report = self.work().unwrap_or_else(Report::refused);
        if let Some(path) = &self.cli.textfile
            && !report.units.is_empty()
            && !self.cli.dry_run
            && let Err(error) = textfile::write(path, &metrics::figures(&report, self.now))
        {
            report.failures.push(error.into());
        }
        if self.cli.check {
            let line = nagios::line(&report, &self.limits, self.now);
            return if output::print(&line).is_ok() { report.nagios_code() } else { NAGIOS_UNKNOWN };
        }
        self.say(&report)
    }

    fn work(&mut self) -> Result<Report, Failure> {
        // Puppet puts a program that does nothing in the place of the original where the limit is 0.
        if self.limits.free == FreeLimit::Off && !self.cli.check {
            log::info!("nothing is done: the limit is 0");
            return Ok(Report::default());
        }
        if self.cli.changes_something() && !environment::is_root() {
            return Err(Failure::new(
                ExitCode::NotPermitted,
                "only root can restart services: --check and --dry-run look",
            ));
        }
        let unreachable = |error: restart_core::ServiceError| Failure::new(ExitCode::Unreachable, error.to_string());
        let mut services = Systemctl::new().map_err(unreachable)?;
        let units = match &self.cli.service {
            Some(unit) => vec![unit.clone()],
            None => services.enabled(ALL).map_err(unreachable)?,
        };
        if units.is_empty() {
            return Err(Failure::new(
                ExitCode::Configuration,
                format!("--all: no unit '{ALL}' is enabled on this host"),
            ));
        }
        let mut report = Report::default();
        for unit in units {
            let (admin_site, timeout) = (self.cli.admin_site, self.cli.timeout);
            let mut asker = Asker { services: &mut services, admin_site, timeout, is_fallback_said: false };
            let found = self.unit(unit, &mut asker, report.units.iter().find_map(broken));
            report.units.push(found);
            if self.signal().is_some() {
                break;
            }
        }
        Ok(report)
    }

    /// One unit, from the question to the end. `broken` says which restart of this run went wrong before.
    fn unit(&mut self, unit: UnitName, asker: &mut Asker<'_>, broken: Option<String>) -> UnitReport {
        let mut report = UnitReport::new(unit);
        let reading = match asker.read(&report.unit) {
            Ok(reading) => {
                log::debug!("'{}': asked {}", report.unit, reading.asked);
                report.verdict = verdict(&reading.figures, &self.limits);
                report.asked = Some(reading.asked.clone());
                report.figures = Some(reading.figures.clone());
                Some(reading)
            }
            Err(failure) => {
                report.verdict = Verdict::unreadable(&failure);
                None
            }
        };
        report.verdict = std::mem::take(&mut report.verdict).with_demand(&self.limits);
        self.look_ahead(&mut report);
        if environment::is_root() {
            self.look_back(&mut report);
        }
        if !self.cli.check {
            self.act(&mut report, reading.as_ref(), broken);
        }
        match report.done {
            Done::Ran(0) if report.figures.is_some() => self.judge_again(&mut report, asker),
            // A monitor should not go on seeing what is no more.
            Done::Ran(0) | Done::ClearedApcu if self.cli.textfile.is_some() || self.cli.json => {
                let not_cured = report.last_restart.as_ref().map(|last| last.not_cured.clone()).unwrap_or_default();
                report.after = Some(self.after(asker.read(&report.unit), |_| not_cured));
            }
            _ => {}
        }
        report
    }

    /// Keeps the reading, and says from those before when the cache will be full.
    fn look_ahead(&self, report: &mut UnitReport) {
        let (Some(path), Some(opcache)) = (&self.cli.history, report.figures.as_ref().and_then(opcache)) else {
            return;
        };
        match history::add(path, &report.unit, opcache, self.now, !self.cli.dry_run) {
            Ok(samples) => report.outlook = Some(outlook(&samples)),
            // A monitor finds it in its line.
            Err(failure) if self.cli.check => report.failures.push(failure),
            Err(failure) => fail(report, failure),
        }
    }

    /// Does what the verdict asks for. A restart empties APCu as well; where it has to wait, APCu does not.
    fn act(&mut self, report: &mut UnitReport, reading: Option<&Reading>, broken: Option<String>) {
        let unit = report.unit.clone();
        for finding in &report.verdict.findings {
            match finding.level {
                Level::Ok => log::debug!("'{unit}': {}", finding.message),
                _ if finding.code.is_some() => log::error!("'{unit}': {}", finding.message),
                _ => log::warn!("'{unit}': {}", finding.message),
            }
        }
        if let Some(because) = report.verdict.restart() {
            self.restart(report, &because, broken);
        } else if !report.not_cured().is_empty() {
            report.done = Done::NoCure;
        }
        let is_empty = matches!(report.done, Done::WouldRestart | Done::Ran(0));
        if let (Some(because), Some(reading), false) = (report.verdict.clearing(), reading, is_empty) {
            self.clear(report, reading, &because);
        }
    }

    fn restart(&mut self, report: &mut UnitReport, because: &str, broken: Option<String>) {
        let unit = report.unit.clone();
        if let Some(why) = broken {
            // The next restart that succeeds would put a host back that is held for a good reason.
            return withhold(report, format!("'{unit}' is not restarted: {why}"));
        }
        // What the caller asks for is no limit that could be crossed again and again.
        let is_demanded = self.limits.free == FreeLimit::Always;
        let interval = if is_demanded { Duration::ZERO } else { self.cli.min_interval };
        // Until the figures after this restart are judged, what is known is what the last one has not cured.
        let not_cured = report.last_restart.as_ref().map(|last| last.not_cured.clone()).unwrap_or_default();
        let this = LastRestart { began: self.now, because: because.to_owned(), not_cured };
        let mut is_written = true;
        let leave = if self.cli.dry_run {
            let next = report.last_restart.as_ref().and_then(|last| last_restart::next(last, self.now, interval));
            match (next, &report.last_restart) {
                (Some(next), Some(last)) => Leave::TooSoon { last: last.clone(), next },
                _ => Leave::Granted,
            }
        } else {
            match last_restart::begin(Path::new(last_restart::FOLDER), &unit, &this, interval) {
                Ok(leave) => leave,
                // Nobody asked that a second restart be kept away.
                Err(error) if interval.is_zero() => {
                    log::warn!("{error}");
                    is_written = false;
                    Leave::Granted
                }
                Err(error) => {
                    report.done = Done::Failed;
                    let message = format!("'{unit}' is not restarted, since that cannot be written down: {error}");
                    return fail(report, Failure::new(error.exit_code(), message));
                }
            }
        };
        if let Leave::TooSoon { last, next } = leave {
            let (ago, left) =
                (text::span(self.now.saturating_sub(last.began)), text::span(next.saturating_sub(self.now)));
            return withhold(
                report,
                format!(
                    "'{unit}' is not restarted: the last restart was {ago} ago and has not cured it, the next may come in {left} \
                     (--min-interval)"
                ),
            );
        }
        if self.cli.dry_run {
            report.done = Done::WouldRestart;
            return;
        }
        let before = report.last_restart.replace(this.clone());
        self.start(report, because);
        let is_begun = matches!(report.done, Done::Ran(code) if !NOT_RESTARTED.contains(&code));
        if !is_begun {
            let folder = Path::new(last_restart::FOLDER);
            if is_written && let Err(error) = last_restart::take_back(folder, &unit, &this, before.as_ref()) {
                log::warn!("'{unit}' counts as restarted now, and was not: {error}");
            }
            report.last_restart = before;
        }
    }

    /// Has it restarted.
    fn start(&mut self, report: &mut UnitReport, because: &str) {
        let unit = report.unit.clone();
        report.done = Done::Failed;
        let failed = |why: String| Failure::new(ExitCode::Failed, format!("cannot restart '{unit}': {why}"));
        let signals = match self.signals.take().map_or_else(Signals::listen, Ok) {
            Ok(signals) => self.signals.insert(signals),
            Err(error) => return fail(report, failed(format!("cannot listen for signals: {error}"))),
        };
        record(&self.environment, &format!("restarts {unit}, because: {because}"));
        let program = Path::new(restart::PROGRAM);
        let restart = Restart { program, unit: &unit, because, force: self.cli.force, environment: &self.environment };
        match restart.run(signals) {
            Ok(ended) => {
                report.done = Done::Ran(ended.code());
                match ended {
                    Ended::Code(0) => log::info!("'{unit}' is restarted"),
                    Ended::Code(code) => log::error!("'{unit}': {} ended with {code}", program.display()),
                    Ended::Signal(signal) => {
                        log::error!("'{unit}': {} was ended by signal {signal}", program.display());
                    }
                }
            }
            Err(error) => fail(report, failed(format!("{}: {error}", program.display()))),
        }
    }

    fn clear(&self, report: &mut UnitReport, reading: &Reading, because: &str) {
        if self.cli.dry_run {
            if matches!(report.done, Done::Nothing | Done::NoCure) {
                report.done = Done::WouldClearApcu;
            }
            return;
        }
        let unit = report.unit.clone();
        record(&self.environment, &format!("clears APCu of {unit}, because: {because}"));
        match reading.source.clear_apcu(self.cli.timeout) {
            Ok(cleared) => {
                match cleared {
                    Cleared::Done => log::info!("'{unit}': APCu is cleared"),
                    Cleared::Off | Cleared::Missing => log::info!("'{unit}': there is no APCu any more to clear"),
                }
                if matches!(report.done, Done::Nothing | Done::NoCure) {
                    report.done = Done::ClearedApcu;
                }
            }
            Err(error) => {
                let code = match error.fault() {
                    AskFault::NotCleared(_) => ExitCode::Failed,
                    _ => ExitCode::Unreachable,
                };
                fail(report, Failure::new(code, format!("'{unit}': cannot clear APCu: {error}")));
            }
        }
    }

    /// Says it on stdout and as the exit code.
    fn say(&self, report: &Report) -> u8 {
        for failure in &report.failures {
            log::error!("{failure}");
        }
        let mut code = report.code();
        if let Some(signal) = self.signal() {
            code = 128 + signal.number();
        }
        if self.cli.json {
            let asked = Asked { dry_run: self.cli.dry_run, force: self.cli.force, user: user(&self.environment) };
            json::print(report, &asked, code);
            return code;
        }
        let printed = report.units.iter().try_for_each(|unit| output::print(&text::line(unit, self.now)));
        if let Err(error) = printed {
            log::error!("cannot print the report: {error}");
        }
        code
    }

    /// The signal that asked for the end during a restart, to be raised again.
    fn signal(&self) -> Option<Signal> {
        self.signals.as_ref()?.requested().map(|stopped| stopped.signal)
    }
}

/// Who called sudo.
fn user(environment: &Environment) -> Option<&str> {
    environment.sudo_user.as_deref().filter(|user| *user != "root")
}

/// Who did what and why stays in syslog, wherever stderr goes.
fn record(environment: &Environment, what: &str) {
    syslog::notice(TOOL, &format!("{what}, by '{}'", user(environment).unwrap_or("root")));
}

/// How a restart went wrong after which this run restarts nothing more.
fn broken(report: &UnitReport) -> Option<String> {
    match report.done {
        Done::Ran(code) if code != 0 => Some(format!("the restart of '{}' ended with {code}", report.unit)),
        _ => None,
    }
}

fn withhold(report: &mut UnitReport, why: String) {
    report.done = Done::Withheld;
    fail(report, Failure::new(ExitCode::TryLater, why));
}

fn fail(report: &mut UnitReport, failure: Failure) {
    log::error!("{failure}");
    report.failures.push(failure);
}
