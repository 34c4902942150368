//! Holds safe-service-restart(8) and the README to the program, both ways: every flag and every exit code of the one stands
//! in the other.

use std::collections::BTreeSet;

use clap::CommandFactory;
use restart_core::ExitCode;

use crate::cli::Cli;

const MANUAL: &str = include_str!("../../../man/safe-service-restart.8");
const README: &str = include_str!("../../../README.md");

/// The lines of one section of the manual.
fn section(name: &str) -> Vec<&'static str> {
    let lines = MANUAL.lines().skip_while(|line| *line != format!(".Sh {name}")).skip(1);
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with(".Sh ")).collect();
    assert!(!lines.is_empty(), "the manual has no section {name}");
    lines
}

#[test]
fn every_flag_is_in_the_manual_and_every_flag_of_the_manual_exists() {
    let mut command = Cli::command();
    command.build();
    let mut typed = BTreeSet::new();
    for argument in command.get_arguments() {
        typed.extend(argument.get_long().map(|long| format!("--{long}")));
        typed.extend(argument.get_short().map(|short| format!("-{short}")));
    }
    let mut told = BTreeSet::new();
    for line in section("OPTIONS").iter().filter_map(|line| line.strip_prefix(".It ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        for (place, word) in words.iter().enumerate().filter(|(_, word)| **word != "Fl") {
            match words[..place] {
                [.., "Fl", "Fl"] => _ = told.insert(format!("--{word}")),
                [.., "Fl"] => _ = told.insert(format!("-{word}")),
                _ => {}
            }
        }
    }
    assert_eq!(typed, told);
}

#[test]
fn every_default_in_the_manual_is_the_programs() {
    let command = Cli::command();
    let text = section("OPTIONS").join("\n");
    for (flag, default) in
        [("retries", "5"), ("wait", "3"), ("timeout", "5"), ("grace-period", "3"), ("lock-timeout", "10m")]
    {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag)).unwrap();
        assert_eq!(argument.get_default_values(), [default], "{flag}");
        let entry = text.split(&format!(".It Fl Fl {flag} ")).nth(1).unwrap();
        let entry = entry.split("\n.It ").next().unwrap();
        assert!(entry.contains(&format!("default is {default}.")), "{flag}: {entry}");
    }
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
    let manual: Vec<_> = section("EXIT STATUS").iter().filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(manual, codes);
    let rows = README.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let readme: Vec<_> = rows.filter(|cell| cell.parse::<u8>().is_ok()).collect();
    assert_eq!(readme, codes);
    let help = Cli::command().render_long_help().to_string();
    let line = help.split("Exit status: ").nth(1).unwrap().split('.').next().unwrap();
    let told: Vec<_> = line.split("; ").map(|entry| entry.split_whitespace().next().unwrap()).collect();
    assert_eq!(told, codes);
}
