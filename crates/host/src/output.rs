//! How a run ends for whoever called it: the last lines on stderr, the plan or the JSON report on stdout.

use std::io::{self, Write as _};

use restart_core::{ExitCode, Failure, Report};
use serde::Serialize;

/// What the report does not know by itself: the tool, its command line, and who gave it.
#[derive(Debug, Serialize)]
pub struct Context<'a> {
    /// The tool.
    pub tool: &'static str,
    /// Its version.
    pub version: &'static str,
    /// `restart`, `reload`, `depool` or `pool`.
    pub action: &'static str,
    /// `--force`.
    pub force: bool,
    /// `--dry-run`.
    pub dry_run: bool,
    /// `--reason`.
    pub reason: Option<&'a str>,
    /// Who called sudo.
    pub user: Option<&'a str>,
    /// The run of a fleet tool that this one is a part of.
    pub fleet_run: Option<&'a str>,
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct Json<'a> {
    /// As a shell sees it: 128 and its number for a signal.
    exit_code: u8,
    #[serde(flatten)]
    context: &'a Context<'a>,
    #[serde(flatten)]
    report: &'a Report,
}

/// Says how the run ended: one line for each failure, then the state of the host.
pub fn conclude(report: &Report) {
    for failure in &report.failures {
        log::error!("{failure}");
    }
    if report.failures.is_empty() && report.signal.is_none() {
        log::info!("done: {}", report.state);
    } else {
        log::error!("{}: {}", ended(report), report.state);
    }
}

/// `ended with 3`, `ended by SIGTERM`.
pub fn ended(report: &Report) -> String {
    match report.signal {
        Some(signal) => format!("ended by {}", signal.name()),
        None => format!("ended with {}", report.exit_code().number()),
    }
}

/// Prints the report as one line of JSON.
pub fn print_json(context: &Context<'_>, report: &Report) {
    let exit_code = report.signal.map_or(report.exit_code().number(), |signal| 128 + signal.number());
    let json = Json { exit_code, context, report };
    let printed = serde_json::to_string(&json).map_err(Into::into).and_then(|line| print(&line));
    if let Err(error) = printed {
        log::warn!("cannot print the report: {error}");
    }
}

/// Prints what would be done, in order, one step a line; what cannot be printed is a failure, since nothing else was asked for.
pub fn print_plan(report: &mut Report) {
    if report.plan.is_empty() {
        log::info!("there is nothing to do");
    }
    let printed = report.plan.iter().try_for_each(|step| print(&step.to_string()));
    if let Err(error) = printed {
        log::error!("cannot print the plan: {error}");
        report.failures.push(Failure::new(ExitCode::Failed, format!("cannot print the plan: {error}")));
    }
}

/// Writes a line to stdout. That a reader had enough is no failure.
pub fn print(line: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
