//! Holds restart-php-fpm(8) and restart-php-fpm.yaml(5) to the program.

use clap::CommandFactory;
use testbed::manual;

use crate::cli::Cli;

const MANUAL: &str = include_str!("../../../man/restart-php-fpm.8");
const FILE: &str = include_str!("../../../man/restart-php-fpm.yaml.5");

#[test]
fn every_flag_is_in_the_manual_and_every_flag_of_the_manual_exists() {
    manual::has_the_flags_of(MANUAL, Cli::command());
}

#[test]
fn every_key_of_the_file_is_in_its_manual_and_no_other() {
    let keys = manual::section(FILE, "DESCRIPTION");
    let told: Vec<_> = keys.iter().filter_map(|line| line.strip_prefix(".It Cm ")).collect();
    for key in &told {
        let error = crate::file::File::parse(&format!("{key}: {{}}\n")).unwrap_err();
        assert!(!error.contains("unknown field"), "'{key}' is in the manual alone");
    }
    // The refusal of a key that is not known lists those that are.
    let error = crate::file::File::parse("no_such_key: 1\n").unwrap_err();
    let (_, known) = error.split_once("expected one of ").unwrap_or_default();
    let known: Vec<_> = known.split(", ").collect();
    assert!(known.len() > 20, "{error}");
    for key in known {
        assert!(told.contains(&key), "'{key}' is not in the manual");
    }
}
