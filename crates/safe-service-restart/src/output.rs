//! How a run ends for whoever called it: the last lines on stderr, the plan or the JSON report on stdout.

use std::io::Write;

use restart_core::{Report, UnitName};
use serde::Serialize;

/// What the report does not know by itself: the command line and who gave it.
#[derive(Debug, Serialize)]
pub struct Context<'a> {
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
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct Json<'a> {
    tool: &'static str,
    version: &'static str,
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
    let ended = report.signal.map(|signal| format!("ended by {}: ", signal.name())).unwrap_or_default();
    if report.failures.is_empty() && report.signal.is_none() {
        log::info!("done: {}", report.state);
    } else {
        log::error!("{ended}{}", report.state);
    }
}

/// Prints the report as one line of JSON.
pub fn print_json(context: &Context<'_>, report: &Report) {
    let exit_code = report.exit_code().number();
    let json = Json { tool: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), exit_code, context, report };
    match serde_json::to_string(&json) {
        Ok(line) => print(&line),
        Err(error) => log::error!("cannot print the report: {error}"),
    }
}

/// Prints what would be done, in order, one step a line.
pub fn print_plan(context: &Context<'_>, units: &[UnitName], report: &Report) {
    let writes = |step: &'static str| report.plan.iter().filter(move |write| write.step == step);
    for write in writes("depool") {
        print(&format!("would depool {} {}", write.key, write.value));
    }
    for unit in units {
        print(&format!("would {} {unit}", context.action));
    }
    for write in writes("repool") {
        print(&format!("would repool {} {}", write.key, write.value));
    }
}

/// Writes a line to stdout. Nobody reading it any more is no reason to fail: the work is done.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
