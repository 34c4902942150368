//! Holds a manual page to the program that it is about, both ways: every flag of the one stands in the other.

use std::collections::BTreeSet;

use clap::Command;

/// The lines of one section of a page.
pub fn section<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let lines = page.lines().skip_while(|line| *line != format!(".Sh {name}")).skip(1);
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with(".Sh ")).collect();
    assert!(!lines.is_empty(), "the manual has no section {name}");
    lines
}

/// Every flag is in the section OPTIONS, and no other.
pub fn has_the_flags_of(page: &str, mut command: Command) {
    command.build();
    let mut typed = BTreeSet::new();
    for argument in command.get_arguments() {
        typed.extend(argument.get_long().map(|long| format!("--{long}")));
        typed.extend(argument.get_short().map(|short| format!("-{short}")));
    }
    let mut told = BTreeSet::new();
    for line in section(page, "OPTIONS").iter().filter_map(|line| line.strip_prefix(".It ")) {
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

/// The default of each of these flags is what the page says: `The default is 3.`
pub fn has_the_defaults_of(page: &str, command: &Command, flags: &[&str]) {
    let text = section(page, "OPTIONS").join("\n");
    for flag in flags {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
        let argument = argument.unwrap_or_else(|| panic!("there is no --{flag}"));
        let [default] = argument.get_default_values() else { panic!("--{flag} has no default") };
        let entry = text.split(&format!(".It Fl Fl {flag} ")).nth(1).unwrap_or_default();
        let entry = entry.split("\n.It ").next().unwrap_or_default();
        let words = format!("default is {}", default.display());
        let said = ['.', ',', ';'].iter().any(|end| entry.contains(&format!("{words}{end}")));
        assert!(said, "--{flag}: '{words}' is not in:\n{entry}");
    }
}

/// The exit codes that the section EXIT STATUS lists, in order.
#[must_use]
pub fn exit_codes(page: &str) -> Vec<String> {
    section(page, "EXIT STATUS").iter().filter_map(|line| line.strip_prefix(".It ")).map(ToOwned::to_owned).collect()
}
