//! systemd, asked through `systemctl`: one process for each question, no environment, no terminal, a process group of its
//! own (Ctrl-C at our terminal does not cut a restart short), and a bound on every wait.

mod enabled;

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use restart_core::{ServiceError, ServiceManager, UnitName, UnitStatus, Verb, span};

use crate::child::{self, ChildError, Finished};
use crate::printable::{printable, shortened};
use crate::unit_status::{self, UnitTimes};

/// Where systemctl is: Debian since the merge of `/usr`, and hosts where `/bin` is still a folder of its own.
const PLACES: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// How long `systemctl show` may take. It answers within milliseconds; a manager that reads all its units again can keep it
/// for seconds, and systemctl itself gives up on the bus after 25.
const SHOW: Duration = Duration::from_secs(30);

/// How much of systemctl's own words an error repeats, in characters.
const LONGEST_WORDS: usize = 600;

/// The service manager of this host, by its command line.
#[derive(Debug)]
pub struct Systemctl {
    path: PathBuf,
}

impl Systemctl {
    /// Finds systemctl, by absolute path alone; an error on a host without it.
    pub fn new() -> Result<Self, ServiceError> {
        match PLACES.iter().map(Path::new).find(|path| path.exists()) {
            Some(path) => Ok(Self { path: path.to_owned() }),
            None => Err(ServiceError(format!("there is no {} on this host", PLACES.join(" and no ")))),
        }
    }

    /// `systemctl ARGUMENTS -- UNIT`, ready to run.
    fn command(&self, arguments: &[&str], unit: &UnitName) -> Command {
        let mut command = Command::new(&self.path);
        command.env_clear().args(["--no-ask-password", "--no-pager"]).args(arguments).args(["--", unit.as_str()]);
        command
    }

    /// When a unit came to be as it is.
    pub fn times(&self, unit: &UnitName) -> Result<UnitTimes, ServiceError> {
        // To the microsecond, in the one time zone that means the same everywhere (systemd 247 and later).
        let arguments = [
            "--timestamp=us+utc",
            "show",
            "--property=ActiveState,ActiveEnterTimestamp,StateChangeTimestamp,ReloadResult",
        ];
        self.show(&arguments, unit, unit_status::times)
    }

    /// Runs a `systemctl show`, and has what it prints read.
    fn show<T>(
        &self,
        arguments: &[&str],
        unit: &UnitName,
        read: fn(&str) -> Result<T, String>,
    ) -> Result<T, ServiceError> {
        let finished = child::run(&mut self.command(arguments, unit), SHOW).map_err(|error| match error {
            ChildError::TimeOver => {
                ServiceError(format!("systemctl did not show the state of '{unit}' within {}", span(SHOW)))
            }
            other => self.unstarted(&other),
        })?;
        if !finished.status.success() {
            return Err(ServiceError(words(&finished)));
        }
        read(&String::from_utf8_lossy(&finished.stdout))
            .map_err(|why| ServiceError(format!("cannot understand what systemctl shows of '{unit}': {why}")))
    }

    /// Why systemctl did not do what it was asked, as one line.
    fn unstarted(&self, error: &ChildError) -> ServiceError {
        ServiceError(format!("{}: {error}", self.path.display()))
    }
}

impl ServiceManager for Systemctl {
    fn status(&mut self, unit: &UnitName) -> Result<UnitStatus, ServiceError> {
        let properties = format!("--property={}", unit_status::PROPERTIES);
        self.show(&["show", &properties], unit, unit_status::parse)
    }

    /// An error does not always mean that nothing happened: past `at_most` only systemctl is ended, not the job that it
    /// queued, and systemd goes on with that.
    fn run(&mut self, verb: Verb, unit: &UnitName, at_most: Duration) -> Result<(), ServiceError> {
        match child::run(&mut self.command(&[verb.as_str()], unit), at_most) {
            Ok(finished) if finished.status.success() => Ok(()),
            Ok(finished) => Err(ServiceError(words(&finished))),
            Err(ChildError::TimeOver) => Err(ServiceError(format!(
                "systemctl did not end within {} and is no longer waited for; systemd still works on it",
                span(at_most)
            ))),
            Err(error) => Err(self.unstarted(&error)),
        }
    }

    /// As systemd says from the moment at which the way down is queued; what cannot be asked is not going down.
    fn going_down(&mut self) -> bool {
        let mut command = Command::new(&self.path);
        command.env_clear().arg("is-system-running");
        child::run(&mut command, SHOW).is_ok_and(|finished| finished.stdout.trim_ascii() == b"stopping")
    }
}

/// systemctl's last words, or how it ended if it had none.
fn words(finished: &Finished) -> String {
    let text = String::from_utf8_lossy(&finished.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_advice(line)).collect();
    match lines.as_slice() {
        [] => format!("systemctl ended with {}", ending(finished.status)),
        [earlier @ .., last] => {
            let before_last = earlier.last().map(|line| format!("{line} ")).unwrap_or_default();
            shortened(&printable(format!("{before_last}{last}").trim_end_matches('.')), LONGEST_WORDS)
        }
    }
}

/// After the reason systemctl says what to type next, which is for a reader at a terminal.
fn is_advice(line: &str) -> bool {
    ["See ", "To force a start use ", "followed by "].iter().any(|beginning| line.starts_with(beginning))
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::MutexGuard;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A systemctl that is a shell script, in a folder that is gone when the value is.
    struct Script {
        _turn: MutexGuard<'static, ()>,
        folder: tempfile::TempDir,
        systemctl: Systemctl,
    }

    fn script(body: &str) -> Script {
        let turn = crate::alone();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("systemctl");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Script { _turn: turn, folder, systemctl: Systemctl { path } }
    }

    fn unit() -> UnitName {
        UnitName::new("php8.2-fpm").unwrap()
    }

    #[test]
    fn the_unit_stands_after_the_options_and_nothing_is_inherited() {
        let mut script =
            script(r#"printf '%s\n' "$0" "$@" >"${0%/*}/seen"; export -p >>"${0%/*}/seen"; tty >>"${0%/*}/seen""#);
        let _ = script.systemctl.run(Verb::Restart, &unit(), LONG);
        let seen = fs::read_to_string(script.folder.path().join("seen")).unwrap();
        let lines: Vec<&str> = seen.lines().skip(1).collect();
        assert_eq!(lines[..5], ["--no-ask-password", "--no-pager", "restart", "--", "php8.2-fpm.service"]);
        // PWD is the shell's own.
        assert!(lines[5..].iter().all(|line| line.contains("PWD=") || *line == "not a tty"), "{seen}");
    }

    #[test]
    fn the_state_is_read_in_one_call() {
        let mut script = script(
            r#"echo "$*" >>"${0%/*}/calls"
            printf 'LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=7\nInvocationID=ab\nNRestarts=0\n'
            printf 'Result=success\nJob=\nCanReload=no\nTimeoutStartUSec=1s\nTimeoutStopUSec=2s\n'"#,
        );
        let status = script.systemctl.status(&unit()).unwrap();
        assert_eq!((status.main_pid, status.limit), (Some(7), Some(Duration::from_secs(3))));
        let calls = fs::read_to_string(script.folder.path().join("calls")).unwrap();
        assert_eq!(calls.lines().count(), 1, "{calls}");
    }

    #[test]
    fn a_refusal_is_reported_in_systemctls_own_words() {
        // Debian 12's own text, start limit included.
        let text = "Job for php8.2-fpm.service failed because start of the service was attempted too often.\n\
            See \"systemctl status php8.2-fpm.service\" and \"journalctl -xeu php8.2-fpm.service\" for details.\n\
            To force a start use \"systemctl reset-failed php8.2-fpm.service\"\n\
            followed by \"systemctl start php8.2-fpm.service\" again.";
        let mut script = script(&format!("cat >&2 <<'END'\n{text}\nEND\nexit 1"));
        let error = script.systemctl.run(Verb::Restart, &unit(), LONG).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Job for php8.2-fpm.service failed because start of the service was attempted too often"
        );
    }

    #[test]
    fn a_failure_without_words_is_reported_by_its_status() {
        let error = script("exit 5").systemctl.run(Verb::Reload, &unit(), LONG).unwrap_err();
        assert_eq!(error.to_string(), "systemctl ended with exit status 5");
        let error = script("kill -9 $$").systemctl.status(&unit()).unwrap_err();
        assert_eq!(error.to_string(), "systemctl ended with signal 9");
    }

    #[test]
    fn words_are_made_printable_and_cut() {
        let mut script =
            script(r"printf 'bad \033[31mred\033[0m\n' >&2; head -c 5000 /dev/zero | tr '\0' x >&2; exit 1");
        let text = script.systemctl.run(Verb::Start, &unit(), LONG).unwrap_err().to_string();
        assert!(text.starts_with("bad \\u{1b}[31mred"), "{text}");
        assert_eq!(text.chars().count(), LONGEST_WORDS + 3);
    }

    #[test]
    fn past_the_bound_systemctl_is_ended_and_the_error_says_that_systemd_goes_on() {
        let mut script = script("exec sleep 60");
        let error = script.systemctl.run(Verb::Restart, &unit(), Duration::from_millis(100)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "systemctl did not end within 100ms and is no longer waited for; systemd still works on it"
        );
    }

    #[test]
    fn a_host_is_going_down_only_when_systemd_says_so() {
        // `is-system-running` succeeds for `running` alone.
        assert!(script("echo stopping; exit 1").systemctl.going_down());
        assert!(!script("echo degraded; exit 1").systemctl.going_down());
        assert!(!script("exit 1").systemctl.going_down());
    }

    #[test]
    fn output_that_is_no_state_is_an_error() {
        let error = script("echo hello").systemctl.status(&unit()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot understand what systemctl shows of 'php8.2-fpm.service': it does not say LoadState"
        );
    }
}
