//! One run: what was asked for, the file, the checks, and then this process becomes `safe-service-restart`, so that signals and exit
//! code are that program's own.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use clap::Parser;
use clap::error::ErrorKind;
use host::journal::Found;
use host::logging::{self, Verbosity};
use host::output::{self, Context};
use host::{Environment, JournalFile, Look, Systemctl, environment, ids, inherited, lock, other_run, trusted, words};
use restart_core::{ExitCode, Failure, LoadState, Phase, Report, ServiceManager as _, UnitName};

use crate::check;
use crate::cli::Cli;
use crate::command::{Asked, arguments, status_arguments};
use crate::file::{self, File, Time};
use crate::request::Request;

const TOOL: &str = env!("CARGO_PKG_NAME");
/// The program that does it.
const SAFE_SERVICE_RESTART: &str = "/usr/sbin/safe-service-restart";
/// Where Puppet puts the catalog; a host that has one has pools to leave.
const CATALOG: &str = "/etc/conftool/local_services.yaml";
/// Where conftool has its configuration; likewise.
const CONFIG: &str = "/etc/conftool/config.yaml";
/// How long to wait for another run: as safe-service-restart does.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);
/// The units of PHP-FPM, by Debian's names.
const UNITS: &str = "php*-fpm.service";

/// The program.
pub fn main() -> std::process::ExitCode {
    // First of all, while there is one thread: nothing below can be steered through the environment.
    let environment = environment::take();
    inherited::lift_limits();
    inherited::own_signals();
    inherited::leave_folder();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has gone is no reason to fail.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return code(if asked_for { ExitCode::Done } else { ExitCode::Usage });
        }
    };
    logging::start(TOOL, Verbosity::new(cli.quiet, cli.verbose), environment.journal_stream);
    let (asked, wrong) = match cli.request.as_ref().map(|_| Request::read()) {
        None => (Asked::typed(&cli), None),
        Some(Ok(request)) => (Asked::sent(request), None),
        Some(Err(why)) => (Asked::sent(Request::default()), Some(format!("the request cannot be used: {why}"))),
    };
    let report = match wrong {
        Some(message) => Report::refused(Failure::new(ExitCode::Usage, message)),
        None => run(&asked, &environment).unwrap_or_else(Report::refused),
    };
    output::conclude(&report);
    if asked.json {
        output::print_json(&context(&asked, &environment), &report);
    }
    code(report.exit_code())
}

fn code(code: ExitCode) -> std::process::ExitCode {
    std::process::ExitCode::from(code.number())
}

fn context<'a>(asked: &'a Asked, environment: &'a Environment) -> Context<'a> {
    Context {
        tool: TOOL,
        version: env!("CARGO_PKG_VERSION"),
        action: if asked.request.reload { "reload" } else { "restart" },
        force: asked.request.force,
        dry_run: asked.dry_run,
        reason: asked.request.reason.as_deref(),
        user: environment.sudo_user.as_deref().filter(|user| *user != "root"),
        fleet_run: asked.request.run.as_deref(),
    }
}

/// Returns only if there was nothing to do, or if this process could not become the other.
fn run(asked: &Asked, environment: &Environment) -> Result<Report, Failure> {
    if asked.request.status {
        return Err(become_status(environment));
    }
    if !asked.dry_run && !environment::is_root() {
        return Err(Failure::new(ExitCode::NotPermitted, "only root can restart PHP-FPM"));
    }
    let mut systemctl = Systemctl::new().map_err(|error| Failure::new(ExitCode::Unreachable, error.to_string()))?;
    let file = match load() {
        Ok(file) => file,
        // Rule 6: an emergency depends on nothing but systemd.
        Err(failure) if asked.request.force => {
            log::warn!("--force: going on without the file of this host: {failure}");
            None
        }
        Err(failure) => return Err(failure),
    };
    let exists = file.is_some();
    let file = file.unwrap_or_default();
    let units = units(asked, &file, &mut systemctl)?;
    if !asked.request.force {
        must_name_pools(&file, exists)?;
        if already_done(asked, &file, &units, &systemctl, environment)? {
            return Ok(Report::nothing_to_do("every unit was restarted since, nothing was changed"));
        }
        match (file.test.unwrap_or(true), environment::is_root()) {
            (true, true) => check::configurations(&mut systemctl, &units)?,
            (true, false) => {
                log::warn!("PHP-FPM's configuration is not tested: it opens its log for that, which is root's");
            }
            (false, _) => {}
        }
    }
    let error = safe_service_restart(&arguments(asked, &file, &units), environment).exec();
    Err(cannot_run(&error))
}

/// Becomes the program that says how things stand. What a run left is told also where nothing else can be found out.
fn become_status(environment: &Environment) -> Failure {
    let file = load().unwrap_or_else(|failure| {
        log::warn!("going on without the file of this host: {failure}");
        None
    });
    let file = file.unwrap_or_default();
    let systemctl = Systemctl::new().map_err(|error| Failure::new(ExitCode::Unreachable, error.to_string()));
    let units = systemctl.and_then(|mut systemctl| units(&Asked::default(), &file, &mut systemctl));
    let units = units.unwrap_or_else(|failure| {
        log::warn!("going on without the units of this host: {failure}");
        Vec::new()
    });
    cannot_run(&safe_service_restart(&status_arguments(&file, &units), environment).exec())
}

/// The file of this host; `None` if there is none.
fn load() -> Result<Option<File>, Failure> {
    let Some(text) = trusted::read(Path::new(file::PATH))? else { return Ok(None) };
    let parsed = File::parse(&text);
    parsed.map(Some).map_err(|why| Failure::new(ExitCode::Configuration, format!("'{}': {why}", file::PATH)))
}

/// The units that were named, else those of the file, else all that are enabled.
fn units(asked: &Asked, file: &File, systemctl: &mut Systemctl) -> Result<Vec<UnitName>, Failure> {
    // A sudo rule that allows any argument must not become one to restart any service.
    if let Some(other) = asked.services.iter().find(|unit| !is_php_fpm(unit) && !file.services.contains(unit)) {
        let message = format!("'{other}' is neither a php*-fpm unit nor named in '{}'", file::PATH);
        return Err(Failure::new(ExitCode::Configuration, message));
    }
    if !asked.services.is_empty() {
        return Ok(asked.services.clone());
    }
    let mut named = file.services.clone();
    if asked.request.force {
        // What is left of an earlier version must not be all that an emergency restarts.
        named.retain(|unit| {
            let gone = systemctl.status(unit).is_ok_and(|status| status.load == LoadState::NotFound);
            if gone {
                log::warn!("--force: '{unit}', which '{}' names, does not exist on this host", file::PATH);
            }
            !gone
        });
    }
    if !named.is_empty() {
        return Ok(named);
    }
    let enabled = systemctl.enabled(UNITS).map_err(|error| {
        Failure::new(ExitCode::Unreachable, format!("cannot find out which units are enabled: {error}"))
    })?;
    if enabled.is_empty() {
        let message = format!(
            "no unit '{UNITS}' is enabled on this host: name them, by --services or as 'services' in '{}'",
            file::PATH
        );
        return Err(Failure::new(ExitCode::Configuration, message));
    }
    Ok(enabled)
}

/// Whether it has a name as PHP-FPM's units have, by the pattern [`UNITS`].
fn is_php_fpm(unit: &UnitName) -> bool {
    unit.as_str().starts_with("php") && unit.as_str().ends_with("-fpm.service")
}

/// A host that has a catalog or a store is in pools, and a restart without leaving them would cost requests.
fn must_name_pools(file: &File, exists: bool) -> Result<(), Failure> {
    let wrong = |message: String| Err(Failure::new(ExitCode::Configuration, message));
    for named in [&file.catalog, &file.config].into_iter().flatten() {
        if !is_there(named) {
            return wrong(format!("'{}' names '{}', which does not exist", file::PATH, named.display()));
        }
    }
    let signs = [file.catalog.as_deref(), file.config.as_deref(), Some(Path::new(CATALOG)), Some(Path::new(CONFIG))];
    match signs.into_iter().flatten().find(|path| is_there(path)) {
        Some(sign) if file.pools.is_empty() => {
            let what = if exists { "names no pools" } else { "does not exist" };
            wrong(format!(
                "this host has '{}', and '{}' {what}: name the pools to leave there ('pools'), or --force the restart",
                sign.display(),
                file::PATH
            ))
        }
        _ => Ok(()),
    }
}

/// Whether something is there, also if it cannot be looked at, and also a link that leads nowhere.
fn is_there(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Whether `--unless-restarted-since` leaves nothing to do. What a run left that died is finished first: its restart counts.
fn already_done(
    asked: &Asked,
    file: &File,
    units: &[UnitName],
    systemctl: &Systemctl,
    environment: &Environment,
) -> Result<bool, Failure> {
    let Some(time) = asked.request.unless_restarted_since else { return Ok(false) };
    words::not_to_come(time, SystemTime::now())
        .map_err(|why| Failure::new(ExitCode::Usage, format!("--unless-restarted-since {why}")))?;
    if !asked.dry_run {
        await_others(file)?;
    }
    if is_interrupted()? && !asked.dry_run {
        log::info!("a run died on this host: finishing what it left");
        let status = safe_service_restart(&["--recover".to_owned()], environment).stdout(Stdio::null()).status();
        let status = status.map_err(|error| cannot_run(&error))?;
        log::debug!("'{SAFE_SERVICE_RESTART} --recover': {status}");
    }
    if left_open()? {
        log::info!("an earlier run has left this host out of its pools, or may have: restarting once more");
        return Ok(false);
    }
    match check::not_restarted_since(systemctl, units, time, asked.request.reload)? {
        Some(unit) => {
            log::debug!("'{unit}' was not restarted since");
            Ok(false)
        }
        None => Ok(true),
    }
}

/// What a run is doing on this host that is alive is judged when it has ended: it may be the restart that is asked for.
fn await_others(file: &File) -> Result<(), Failure> {
    let at_most = file.lock_timeout.as_ref().map_or(LOCK_TIMEOUT, |Time(time)| *time);
    // A signal ends this process here: nothing is begun.
    let free = other_run::wait(
        at_most,
        || false,
        || {
            Ok(match lock::peek(Path::new(lock::FOLDER))? {
                Look::Free => Ok(()),
                Look::Held(holder) => Err(holder),
            })
        },
    );
    free.map(drop)
}

fn journal() -> Result<Found, Failure> {
    let machine = ids::machine().map_err(|error| Failure::new(ExitCode::Configuration, error.to_string()))?;
    let journal = JournalFile::new(Path::new(host::journal::FOLDER), machine);
    Ok(journal.look()?)
}

fn is_interrupted() -> Result<bool, Failure> {
    Ok(matches!(journal()?, Found::Record(record) if record.phase != Phase::Held))
}

fn left_open() -> Result<bool, Failure> {
    Ok(!matches!(journal()?, Found::Nothing))
}

/// The program, with nothing of the environment but what is for its log.
fn safe_service_restart(arguments: &[String], environment: &Environment) -> Command {
    let mut command = Command::new(SAFE_SERVICE_RESTART);
    command.env_clear().envs(environment.handed_down()).args(arguments).stdin(Stdio::null());
    command
}

fn cannot_run(error: &io::Error) -> Failure {
    Failure::new(ExitCode::Configuration, format!("cannot run '{SAFE_SERVICE_RESTART}': {error}"))
}
