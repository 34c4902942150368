//! Holds safe-service-restart(8) and the README to the program, both ways: every flag and every exit code of the one stands
//! in the other.

use clap::CommandFactory;
use restart_core::ExitCode;
use testbed::manual;

use crate::cli::Cli;

const MANUAL: &str = include_str!("../../../man/safe-service-restart.8");
const README: &str = include_str!("../../../README.md");

#[test]
fn every_flag_is_in_the_manual_and_every_flag_of_the_manual_exists() {
    manual::has_the_flags_of(MANUAL, Cli::command());
}

#[test]
fn every_default_in_the_manual_is_the_programs() {
    let flags =
        ["retries", "wait", "timeout", "grace-period", "drain-timeout", "ready-timeout", "min-pooled", "lock-timeout"];
    manual::has_the_defaults_of(MANUAL, &Cli::command(), &flags);
}

const CODES: [ExitCode; 10] = [
    ExitCode::Done,
    ExitCode::Failed,
    ExitCode::Usage,
    ExitCode::LeftDepooled,
    ExitCode::RepoolUnconfirmed,
    ExitCode::PutBackUnconfirmed,
    ExitCode::Unreachable,
    ExitCode::TryLater,
    ExitCode::NotPermitted,
    ExitCode::Configuration,
];

#[test]
fn every_exit_code_is_in_the_manual_the_readme_and_the_help_and_no_other() {
    let codes: Vec<String> = CODES.iter().map(|code| code.number().to_string()).collect();
    assert_eq!(manual::exit_codes(MANUAL), codes);
    let rows = README.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let readme: Vec<_> = rows.filter(|cell| cell.parse::<u8>().is_ok()).collect();
    assert_eq!(readme, codes);
    let help = Cli::command().render_long_help().to_string();
    let line = help.split("Exit status: ").nth(1).unwrap().split('.').next().unwrap();
    let told: Vec<_> = line.split("; ").map(|entry| entry.split_whitespace().next().unwrap()).collect();
    assert_eq!(told, codes);
}
