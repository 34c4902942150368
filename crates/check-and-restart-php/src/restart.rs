//! Has `restart-php-fpm` restart one unit, and waits for its end. Signals that ask us to end are passed on to it: it brings the host to
//! a safe state first, and so do we.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use host::{Environment, Signals, child};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use restart_core::{Stop, UnitName};

/// The program, by absolute path alone.
pub const PROGRAM: &str = "/usr/sbin/restart-php-fpm";

/// What a reason may take, in bytes; `restart-php-fpm` refuses a longer one.
const LONGEST_REASON: usize = 512;

/// How often it is looked whether a signal came, in milliseconds. The end itself is noticed at once.
const SLICE: u8 = 100;

/// What is to be restarted, and why.
pub struct Restart<'a> {
    /// The program: [`PROGRAM`].
    pub program: &'a Path,
    /// The unit.
    pub unit: &'a UnitName,
    /// Why.
    pub because: &'a str,
    /// Whether requests in flight may die.
    pub force: bool,
    /// What is handed down of the environment.
    pub environment: &'a Environment,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an exit code.
    Code(u8),
    /// By a signal.
    Signal(i32),
}

impl Ended {
    /// The exit code, as a shell sees it.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    fn of(status: ExitStatus) -> Self {
        match (status.code().and_then(|code| u8::try_from(code).ok()), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl Restart<'_> {
    /// Runs it to its end. An error means that it was not started.
    pub fn run(&self, signals: &Signals) -> io::Result<Ended> {
        let mut command = Command::new(self.program);
        command.args(["--services", self.unit.as_str(), "--reason", &reason(self.because)]);
        if self.force {
            command.arg("--force");
        }
        command.env_clear().envs(self.environment.handed_down()).stdin(Stdio::null()).current_dir("/");
        // Standard output is ours alone, for the report.
        command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        Ok(Ended::of(wait(command.spawn()?, signals)?))
    }
}

/// Waits for the end, and passes on what came: one signal for the first, one more for a second.
fn wait(mut started: Child, signals: &Signals) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(started.id().cast_signed());
    // Without that notice nothing is passed on, and it is waited for all the same.
    if let Ok(ended) = child::notice_of_end(pid) {
        let mut passed_on = 0;
        // Whether or not a signal to us interrupts this wait, it is looked for after each slice.
        while matches!(poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], SLICE), Ok(0) | Err(Errno::EINTR)) {
            let Some(stopped) = signals.requested() else { continue };
            let wanted = 1 + u8::from(stopped.at_once);
            if passed_on < wanted {
                passed_on += 1;
                if let Ok(signal) = Signal::try_from(i32::from(stopped.signal.number())) {
                    // Gone already is as good.
                    let _ = kill(pid, signal);
                }
            }
        }
    }
    started.wait()
}

/// As `--reason` takes it: one line of a bounded length.
fn reason(because: &str) -> String {
    let mut text = host::printable(&format!("check-and-restart-php: {because}"));
    if text.len() > LONGEST_REASON {
        text.truncate(text.floor_char_boundary(LONGEST_REASON - 3));
        text += "...";
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// Programs that are written and run at once are busy while another test starts one, and signals come to all of a process.
    fn alone() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a script in the place of restart-php-fpm; how it ended, and what it wrote to the file `seen`.
    fn run(body: &str, because: &str, force: bool) -> (Ended, String) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("restart-php-fpm");
        let seen = folder.path().join("seen");
        fs::write(&program, format!("#!/bin/sh\nexec 3>'{}'\n{body}\n", seen.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let unit = UnitName::new("php8.2-fpm").unwrap();
        let environment = Environment { sudo_user: Some("alice".to_owned()), journal_stream: None };
        let restart = Restart { program: &program, unit: &unit, because, force, environment: &environment };
        let ended = restart.run(&Signals::listen().unwrap()).unwrap();
        (ended, fs::read_to_string(seen).unwrap())
    }

    #[test]
    fn it_is_given_the_unit_the_reason_and_nothing_of_the_environment() {
        let _turn = alone();
        let (ended, seen) = run(r#"printf '%s\n' "$@" >&3; export -p >&3; tty >&3; exit 4"#, "full\nof it", true);
        assert_eq!(ended, Ended::Code(4));
        let lines: Vec<_> = seen.lines().collect();
        let expected =
            ["--services", "php8.2-fpm.service", "--reason", "check-and-restart-php: full\\nof it", "--force"];
        assert_eq!(lines[..5], expected);
        // PWD is the shell's own.
        let rest: Vec<_> = lines[5..].iter().filter(|line| !line.contains("PWD=")).collect();
        assert_eq!(rest, [&"export SUDO_USER='alice'", &"not a tty"]);
        let (_, seen) = run(r#"printf '%s\n' "$#" >&3"#, "full", false);
        assert_eq!(seen, "4\n");
    }

    #[test]
    fn an_end_by_a_signal_has_the_code_that_a_shell_gives_it() {
        let _turn = alone();
        let (ended, _) = run("kill -KILL $$", "full", false);
        assert_eq!((ended, ended.code()), (Ended::Signal(9), 137));
    }

    #[test]
    fn a_signal_to_us_is_passed_on_and_its_end_waited_for() {
        let _turn = alone();
        let (ended, seen) =
            run("trap 'echo asked >&3; exit 5' TERM\nkill -TERM $PPID\nwhile :; do sleep 0.05; done", "full", false);
        assert_eq!((ended, seen.as_str()), (Ended::Code(5), "asked\n"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let unit = UnitName::new("php8.2-fpm").unwrap();
        let environment = Environment::default();
        let program = Path::new("/no/such/program");
        let restart = Restart { program, unit: &unit, because: "full", force: false, environment: &environment };
        assert!(restart.run(&Signals::listen().unwrap()).is_err());
    }

    #[test]
    fn a_reason_is_one_line_of_the_length_that_is_taken() {
        for because in ["full", "é\n", &"é".repeat(1000)] {
            assert!(host::words::reason(&reason(because)).is_ok(), "{because}");
        }
    }
}
