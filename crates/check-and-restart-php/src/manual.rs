//! Holds check-and-restart-php(8) to the program, both ways: every flag, default and exit code of the one stands in the other.

use clap::CommandFactory;
use restart_core::ExitCode;
use testbed::manual;

use crate::cli::Cli;

const MANUAL: &str = include_str!("../../../man/check-and-restart-php.8");

#[test]
fn every_flag_is_in_the_manual_and_every_flag_of_the_manual_exists() {
    manual::has_the_flags_of(MANUAL, Cli::command());
}

#[test]
fn every_default_in_the_manual_is_the_programs() {
    let flags = [
        "min-free-keys",
        "max-apcu-fragmentation",
        "cache-full",
        "max-wasted",
        "max-interned-strings",
        "max-self-restarts",
        "min-hit-rate",
        "warn-hit-rate",
        "warn-free",
        "min-interval",
        "timeout",
    ];
    manual::has_the_defaults_of(MANUAL, &Cli::command(), &flags);
}

#[test]
fn every_exit_code_is_in_the_manual_and_no_other() {
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
    assert_eq!(manual::exit_codes(MANUAL), CODES.map(|code| code.number().to_string()));
}
