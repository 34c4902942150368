//! Holds rolling-restart(8) and rolling-restart.yaml(5) to the program.

use clap::CommandFactory;
use testbed::manual;

use crate::cli::Cli;

const MANUAL: &str = include_str!("../../../man/rolling-restart.8");
const FILE: &str = include_str!("../../../man/rolling-restart.yaml.5");

#[test]
fn every_flag_is_in_the_manual_and_every_flag_of_the_manual_exists() {
    manual::has_the_flags_of(MANUAL, Cli::command());
}

/// The defaults are told by `--help`, since the file has a say in them, and the manual says the same.
#[test]
fn every_default_of_the_help_is_in_the_manual() {
    let text = manual::section(MANUAL, "OPTIONS").join("\n");
    let mut seen = 0;
    for argument in Cli::command().get_arguments() {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, default)) = help.split_once("[default: ") else { continue };
        let default = default.split([';', ']']).next().unwrap_or_default();
        let flag = argument.get_long().unwrap_or_default();
        let entry = text.split(&format!(".It Fl Fl {flag} ")).nth(1).unwrap_or_default();
        let entry =
            entry.split("\n.It ").next().unwrap_or_default().replace(".Pa ", "").replace(".Ev ", "").replace('\n', " ");
        assert!(entry.contains(&format!("default is {default}")), "--{flag}: '{default}' is not in: {entry}");
        seen += 1;
    }
    assert!(seen > 9, "{seen}");
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
    assert!(known.len() > 10, "{error}");
    for key in known {
        assert!(told.contains(&key), "'{key}' is not in the manual");
    }
}

#[test]
fn every_exit_code_is_in_the_manual() {
    assert_eq!(
        manual::exit_codes(MANUAL),
        ["0", "1", "2", "3", "4 , 5", "69", "75", "77", "78", "3", "4", "5", "69", "77", "78", "1", "0"]
    );
}
