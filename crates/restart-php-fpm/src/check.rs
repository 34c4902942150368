//! What is looked at before anything is done: whether PHP-FPM would start with the configuration that it finds, and whether the units
//! were restarted already.

use std::process::Command;
use std::time::{Duration, SystemTime};

use host::child::{self, ChildError};
use host::{Systemctl, printable};
use php_fpm::{CommandError, CommandLine};
use restart_core::{ActiveState, ExitCode, Failure, LoadState, ServiceManager as _, UnitName, span};

/// How long PHP-FPM may test its configuration. It loads every extension for that, and takes a tenth of a second.
const TEST: Duration = Duration::from_secs(60);
/// How many of PHP-FPM's own lines are repeated.
const LINES: usize = 5;

/// Has each unit's PHP-FPM test its configuration, with that unit's own options. A unit that runs something else has none.
pub fn configurations(systemctl: &mut Systemctl, units: &[UnitName]) -> Result<(), Failure> {
    for unit in units {
        let status = systemctl
            .status(unit)
            .map_err(|error| Failure::new(ExitCode::Unreachable, format!("cannot look at unit '{unit}': {error}")))?;
        if status.load == LoadState::NotFound {
            return Err(configuration(format!("unit '{unit}' does not exist on this host")));
        }
        match status.command.as_deref().map(CommandLine::from_exec_start) {
            None | Some(Err(CommandError::NotPhpFpm(_))) => {
                log::warn!("'{unit}' runs no PHP-FPM: it has no configuration to test");
            }
            Some(Err(error)) => {
                return Err(configuration(format!("cannot test the configuration of '{unit}': {error}")));
            }
            Some(Ok(command)) => test(unit, &command)?,
        }
    }
    Ok(())
}

fn test(unit: &UnitName, command: &CommandLine) -> Result<(), Failure> {
    let program = command.program().display();
    let file = command.configuration().display();
    let finished = child::run(Command::new(command.program()).env_clear().args(command.test_arguments()), TEST);
    let finished = finished.map_err(|error| match error {
        ChildError::TimeOver => {
            configuration(format!("'{program}' did not test '{file}' of '{unit}' within {}", span(TEST)))
        }
        ChildError::Start(_) | ChildError::Wait(_) => {
            configuration(format!("cannot test '{file}' of '{unit}' with '{program}': {error}"))
        }
    })?;
    let words = last_words(&finished.stderr);
    if !finished.status.success() {
        return Err(configuration(format!("the configuration '{file}' of '{unit}' is broken: {words}")));
    }
    log::debug!("'{program}': {words}");
    Ok(())
}

/// The last lines of what a program said, as one.
fn last_words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(|line| without_time(line.trim())).filter(|line| !line.is_empty()).collect();
    match lines[lines.len().saturating_sub(LINES)..].join("; ") {
        words if words.is_empty() => "it does not say why".to_owned(),
        words => printable(&words),
    }
}

/// The first unit that was not started after this time; `None`: all were. A reload counts where a reload is asked for.
pub fn not_restarted_since(
    systemctl: &Systemctl,
    units: &[UnitName],
    time: SystemTime,
    reload: bool,
) -> Result<Option<UnitName>, Failure> {
    for unit in units {
        let times = systemctl
            .times(unit)
            .map_err(|error| Failure::new(ExitCode::Unreachable, format!("cannot look at unit '{unit}': {error}")))?;
        let since = if reload { times.changed } else { times.started };
        if times.active != ActiveState::Active || !since.is_some_and(|since| is_after(since, time)) {
            return Ok(Some(unit.clone()));
        }
    }
    Ok(None)
}

/// Whether a unit was started after this time. One in whole seconds, as `date +%s` prints it, is up to a second early: what was started
/// within that second may run what was there before, and is restarted once more.
fn is_after(started: SystemTime, time: SystemTime) -> bool {
    let second = Duration::from_secs(1);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since_1970) if since_1970.subsec_nanos() == 0 => time.checked_add(second).is_some_and(|end| started >= end),
        _ => started > time,
    }
}

/// PHP-FPM's lines without the time of now: `[23-Nov-2026 20:19:27] ERROR: ...`.
fn without_time(line: &str) -> &str {
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, words)) if time.starts_with(|c: char| c.is_ascii_digit()) => words,
        _ => line,
    }
}

fn configuration(message: String) -> Failure {
    Failure::new(ExitCode::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_whole_seconds_counts_to_its_end_and_one_with_a_fraction_as_it_is() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let table = [
            (9_999, 10_000, false),
            (10_000, 10_000, false),
            // By an earlier run: the new code came after it, and the time was noted after that, at 10.8 s.
            (10_300, 10_000, false),
            (11_000, 10_000, true),
            (10_250, 10_250, false),
            (10_251, 10_250, true),
        ];
        for (started, time, expected) in table {
            assert_eq!(is_after(at(started), at(time)), expected, "{started} after {time}");
        }
    }

    #[test]
    fn the_last_lines_are_repeated_as_one() {
        assert_eq!(last_words(b"one\n\n  two \n"), "one; two");
        assert_eq!(last_words(b"1\n2\n3\n4\n5\n6\n"), "2; 3; 4; 5; 6");
        assert_eq!(last_words(b"\n"), "it does not say why");
        let own = b"[23-Nov-2026 20:19:27] ERROR: [/etc/php/8.2/fpm/pool.d/b.conf:3] invalid\n[pool www] it is\n";
        assert_eq!(last_words(own), "ERROR: [/etc/php/8.2/fpm/pool.d/b.conf:3] invalid; [pool www] it is");
        assert_eq!(last_words(b"\x1b[2Jred\xff"), "\\u{1b}[2Jred\u{fffd}");
    }
}
