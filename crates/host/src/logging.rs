//! The tools' messages, on stderr. A line carries no time: the journal adds one. On a terminal or a pipe it begins with the
//! tool's name, as every Unix tool's does; under the journal with the severity that systemd reads off the line (`<4>`),
//! because there the name is known.
//!
//! A message cannot forge another: each of its lines gets the prefix, and control characters are escaped. A stderr that is
//! closed or full costs the line and nothing else.

use std::fmt::Write as _;
use std::io::Write as _;

use env_logger::{Builder, Target, WriteStyle};
use log::{Level, LevelFilter};

use crate::environment::JournalStream;
use crate::printable::printable;
use crate::stderr::Patient;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors (`-q`).
    Quiet,
    /// What is done and waited for.
    Normal,
    /// Also each question and answer (`-v`, `--debug`).
    Verbose,
    /// Also what the libraries below say of connections and protocols (`-vv`).
    Everything,
}

impl Verbosity {
    /// From the flags of a command line: `-q`, and the number of `-v`.
    pub fn new(quiet: bool, verbose: u8) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Normal,
            (false, 1) => Self::Verbose,
            (false, _) => Self::Everything,
        }
    }

    fn level(self) -> LevelFilter {
        match self {
            Self::Quiet => LevelFilter::Warn,
            Self::Normal => LevelFilter::Info,
            Self::Verbose => LevelFilter::Debug,
            Self::Everything => LevelFilter::Trace,
        }
    }
}

/// The beginnings of the names under which libraries log: `hyper` is `hyper_util` too. What they have to say of an error
/// comes back as an error as well, so all of it waits for [`Verbosity::Everything`].
const LIBRARIES: [&str; 9] = ["h2", "hickory", "hyper", "mio", "rustls", "tokio", "tonic", "tower", "ureq"];

/// Makes the log of this process: `tool`'s messages, on stderr, in the journal's form if `journal` names stderr. A second
/// call changes nothing.
pub fn start(tool: &'static str, verbosity: Verbosity, journal: Option<JournalStream>) {
    let form = if is_stderr(journal) { Form::Journal } else { Form::Plain(tool) };
    let mut builder = Builder::new();
    let stderr = Patient::new(std::io::stderr());
    builder.filter_level(verbosity.level()).target(Target::Pipe(Box::new(stderr))).write_style(WriteStyle::Never);
    // Never more than debug: at trace, libraries write out what they send, and that is passwords, too.
    let libraries = if verbosity == Verbosity::Everything { LevelFilter::Debug } else { LevelFilter::Off };
    for library in LIBRARIES {
        builder.filter_module(library, libraries);
    }
    builder.format(move |out, record| {
        out.write_all(lines(form, record.level(), record.target(), &record.args().to_string()).as_bytes())
    });
    // An error means that there is a log already.
    let _ = builder.try_init();
}

/// Whether stderr is the very socket that systemd made for the journal, and was not redirected since.
fn is_stderr(journal: Option<JournalStream>) -> bool {
    let Ok(stderr) = nix::sys::stat::fstat(std::io::stderr()) else { return false };
    journal == Some(JournalStream { device: stderr.st_dev, inode: stderr.st_ino })
}

/// How a line begins.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// With the tool's name and a word for the level.
    Plain(&'static str),
    /// With systemd's severity, sd-daemon(3).
    Journal,
}

/// One message as the lines to be written.
fn lines(form: Form, level: Level, target: &str, text: &str) -> String {
    let prefix = match form {
        Form::Plain(tool) => format!("{tool}: {}", word(level)),
        Form::Journal => format!("<{}>", severity(level)),
    };
    // Our own modules are of no interest to the reader; whose connection a library speaks of is.
    let source = if is_library(target) { format!("{target}: ") } else { String::new() };
    let mut out = String::new();
    for line in text.split('\n') {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{prefix}{source}{}", printable(line));
    }
    out
}

fn is_library(target: &str) -> bool {
    LIBRARIES.iter().any(|library| target.starts_with(library))
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug => "debug: ",
        Level::Trace => "trace: ",
    }
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: Form = Form::Plain("safe-service-restart");

    #[test]
    fn on_a_terminal_a_line_begins_with_the_tool_and_the_level() {
        let table = [
            (Level::Error, "safe-service-restart: error: x\n"),
            (Level::Warn, "safe-service-restart: warning: x\n"),
            (Level::Info, "safe-service-restart: x\n"),
            (Level::Debug, "safe-service-restart: debug: x\n"),
        ];
        for (level, expected) in table {
            assert_eq!(lines(TOOL, level, "restart_core::watch", "x"), expected);
        }
    }

    #[test]
    fn under_the_journal_a_line_begins_with_its_severity_alone() {
        let table =
            [(Level::Error, "<3>x\n"), (Level::Warn, "<4>x\n"), (Level::Info, "<6>x\n"), (Level::Trace, "<7>x\n")];
        for (level, expected) in table {
            assert_eq!(lines(Form::Journal, level, "restart_core::watch", "x"), expected);
        }
    }

    #[test]
    fn each_line_of_a_message_gets_the_prefix_and_nothing_treacherous_passes() {
        assert_eq!(
            lines(Form::Journal, Level::Warn, "x", "one\n<0>two\r\u{1b}[2J"),
            "<4>one\n<4><0>two\\r\\u{1b}[2J\n"
        );
        assert_eq!(lines(Form::Journal, Level::Info, "x", ""), "<6>\n");
    }

    #[test]
    fn libraries_are_named_and_we_are_not() {
        assert_eq!(lines(Form::Journal, Level::Trace, "hyper_util::client", "x"), "<7>hyper_util::client: x\n");
        assert_eq!(lines(Form::Journal, Level::Trace, "host::lock", "x"), "<7>x\n");
    }

    #[test]
    fn the_flags_choose_how_much_is_said() {
        let table = [
            (true, 0, LevelFilter::Warn),
            (true, 2, LevelFilter::Warn),
            (false, 0, LevelFilter::Info),
            (false, 1, LevelFilter::Debug),
            (false, 9, LevelFilter::Trace),
        ];
        for (quiet, verbose, expected) in table {
            assert_eq!(Verbosity::new(quiet, verbose).level(), expected);
        }
    }

    #[test]
    fn the_journal_is_recognised_by_both_numbers() {
        let stderr = nix::sys::stat::fstat(std::io::stderr()).unwrap();
        let journal = JournalStream { device: stderr.st_dev, inode: stderr.st_ino };
        assert!(is_stderr(Some(journal)));
        assert!(!is_stderr(Some(JournalStream { inode: journal.inode + 1, ..journal })));
        assert!(!is_stderr(Some(JournalStream { device: journal.device + 1, ..journal })));
        assert!(!is_stderr(None));
    }
}
