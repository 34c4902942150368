//! `systemctl show` prints one `Property=value` line for each property asked for; this module turns those lines into a
//! [`UnitStatus`] and asks nobody anything. The samples in the tests are systemd 252's own.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use restart_core::{ActiveState, LoadState, UnitStatus};

/// The properties that [`parse`] needs, as `--property=` takes them.
pub(crate) const PROPERTIES: &str = "LoadState,ActiveState,SubState,MainPID,InvocationID,NRestarts,Result,Job,CanReload,\
     TimeoutStartUSec,TimeoutStopUSec,ExecStart";

/// Reads the output of `systemctl show`. A property that is not there is an error: what it would have said is not guessed.
pub(crate) fn parse(output: &str) -> Result<UnitStatus, String> {
    let mut properties = Properties(HashMap::new());
    for (name, value) in output.lines().filter_map(|line| line.split_once('=')) {
        // A oneshot unit may have several commands; the first is as good as any.
        properties.0.entry(name).or_insert(value);
    }
    Ok(UnitStatus {
        load: load_state(properties.get("LoadState")?),
        active: active_state(properties.get("ActiveState")?),
        sub: properties.get("SubState")?.to_owned(),
        main_pid: Some(properties.number("MainPID")?).filter(|pid| *pid != 0),
        invocation: Some(properties.get("InvocationID")?.to_owned()).filter(|id| !id.is_empty()),
        restarts: properties.number("NRestarts")?,
        result: properties.get("Result")?.to_owned(),
        // The job's number while there is one, else empty; D-Bus's "no job" is 0.
        job: !matches!(properties.get("Job")?, "" | "0"),
        can_reload: properties.get("CanReload")? == "yes",
        // Not there for a unit that runs nothing.
        command: properties.get("ExecStart").ok().map(str::to_owned).filter(|command| !command.is_empty()),
        limit: sum(properties.time("TimeoutStopUSec")?, properties.time("TimeoutStartUSec")?),
    })
}

/// When a unit came to be as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitTimes {
    /// Whether it runs.
    pub active: ActiveState,
    /// When it was last started; `None` if it never was since the machine's start.
    pub started: Option<SystemTime>,
    /// When it was last started, stopped or reloaded; `None` too if the last reload failed.
    pub changed: Option<SystemTime>,
}

/// Reads the output of `systemctl show --timestamp=us+utc`.
pub(crate) fn times(output: &str) -> Result<UnitTimes, String> {
    let properties = Properties(output.lines().filter_map(|line| line.split_once('=')).collect());
    Ok(UnitTimes {
        active: active_state(properties.get("ActiveState")?),
        started: properties.moment("ActiveEnterTimestamp")?,
        // A reload that failed changes nothing else.
        changed: properties.moment("StateChangeTimestamp")?.filter(|_| properties.get("ReloadResult") == Ok("success")),
    })
}

struct Properties<'a>(HashMap<&'a str, &'a str>);

impl<'a> Properties<'a> {
    fn get(&self, name: &str) -> Result<&'a str, String> {
        self.0.get(name).copied().ok_or_else(|| format!("it does not say {name}"))
    }

    fn number(&self, name: &str) -> Result<u32, String> {
        self.get(name)?.parse().map_err(|_| format!("its {name} is no number"))
    }

    /// `Mon 2026-11-23 20:16:15.123456 UTC`, or nothing.
    fn moment(&self, name: &str) -> Result<Option<SystemTime>, String> {
        let text = self.get(name)?;
        if text.is_empty() {
            return Ok(None);
        }
        let words: Vec<_> = text.split(' ').collect();
        let time = match words[..] {
            [_, date, time, "UTC"] => humantime::parse_rfc3339(&format!("{date}T{time}Z")).ok(),
            _ => None,
        };
        time.map(Some).ok_or_else(|| format!("its {name} is no time"))
    }

    fn time(&self, name: &str) -> Result<Option<Duration>, String> {
        time_span(self.get(name)?).ok_or_else(|| format!("its {name} is no time"))
    }
}

fn load_state(word: &str) -> LoadState {
    match word {
        "loaded" => LoadState::Loaded,
        "not-found" => LoadState::NotFound,
        "masked" => LoadState::Masked,
        other => LoadState::Other(other.to_owned()),
    }
}

fn active_state(word: &str) -> ActiveState {
    match word {
        "active" => ActiveState::Active,
        "reloading" => ActiveState::Reloading,
        "activating" => ActiveState::Activating,
        "deactivating" => ActiveState::Deactivating,
        "inactive" => ActiveState::Inactive,
        "failed" => ActiveState::Failed,
        other => ActiveState::Other(other.to_owned()),
    }
}

fn sum(stop: Option<Duration>, start: Option<Duration>) -> Option<Duration> {
    stop?.checked_add(start?)
}

/// systemd's units of time and their microseconds, by systemd.time(7); its month is a twelfth of its year of 365.25 days.
const UNITS: [(&str, f64); 9] = [
    ("us", 1.0),
    ("ms", 1e3),
    ("s", 1e6),
    ("min", 60e6),
    ("h", 3_600e6),
    ("d", 86_400e6),
    ("w", 604_800e6),
    ("month", 2_629_800e6),
    ("y", 31_557_600e6),
];

/// Reads `1min 30s`, `1.500000s`, `0`, `infinity` (`Some(None)`); `None` for what is no time span.
fn time_span(text: &str) -> Option<Option<Duration>> {
    match text {
        "infinity" => return Some(None),
        "0" => return Some(Some(Duration::ZERO)),
        _ => {}
    }
    let mut micros = 0.0;
    for part in text.split(' ') {
        let unit_at = part.find(|c: char| c.is_ascii_alphabetic())?;
        let (amount, unit) = part.split_at(unit_at);
        if !amount.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let amount: f64 = amount.parse().ok()?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        micros += amount * size;
    }
    // systemd counts in 64 bits of microseconds; text that says more is not its own.
    (micros < u64::MAX as f64).then(|| Some(Duration::from_micros(micros as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian 12, systemd 252: php8.2-fpm, running.
    const RUNNING: &str = "TimeoutStartUSec=1min 30s\nTimeoutStopUSec=1min 30s\nMainPID=30\nResult=success\nNRestarts=0\n\
        LoadState=loaded\nActiveState=active\nSubState=running\nCanReload=yes\nJob=\n\
        InvocationID=9beea9420dac419c9335073f1e1bec69\n\
        ExecStart={ path=/usr/sbin/php-fpm8.2 ; argv[]=/usr/sbin/php-fpm8.2 --nodaemonize ; ignore_errors=no ; pid=30 }\n";

    const RUNNING_COMMAND: &str =
        "{ path=/usr/sbin/php-fpm8.2 ; argv[]=/usr/sbin/php-fpm8.2 --nodaemonize ; ignore_errors=no ; pid=30 }";

    /// A unit that does not exist.
    const NOT_FOUND: &str = "TimeoutStartUSec=1min 30s\nTimeoutStopUSec=1min 30s\nMainPID=0\nResult=success\nNRestarts=0\n\
        LoadState=not-found\nActiveState=inactive\nSubState=dead\nCanReload=no\nJob=\nInvocationID=\n";

    /// A oneshot unit while it starts.
    const STARTING: &str = "TimeoutStartUSec=infinity\nTimeoutStopUSec=1min 30s\nMainPID=66\nResult=success\nNRestarts=0\n\
        LoadState=loaded\nActiveState=activating\nSubState=start\nCanReload=no\nJob=136\n\
        InvocationID=d457d1d478794829b5b5185470fb4abc\n";

    /// A service that exits at once, between two starts of `Restart=on-failure`.
    const CRASHING: &str = "TimeoutStartUSec=1min 30.500000s\nTimeoutStopUSec=2month 3us\nMainPID=0\nResult=exit-code\n\
        NRestarts=2\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nCanReload=no\nJob=\n\
        InvocationID=18f4efdb03d04095b14ef213d5e1aed0\n";

    /// php8.2-fpm after its sixth restart within ten seconds.
    const LIMIT_HIT: &str = "TimeoutStartUSec=1min 30s\nTimeoutStopUSec=1min 30s\nMainPID=0\nResult=start-limit-hit\n\
        NRestarts=0\nLoadState=loaded\nActiveState=failed\nSubState=failed\nCanReload=yes\nJob=\n\
        InvocationID=70ad56aa8d7d4664873b137fad9f7c9c\n";

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_running_unit() {
        let expected = UnitStatus {
            load: LoadState::Loaded,
            active: ActiveState::Active,
            sub: "running".to_owned(),
            main_pid: Some(30),
            invocation: Some("9beea9420dac419c9335073f1e1bec69".to_owned()),
            restarts: 0,
            result: "success".to_owned(),
            job: false,
            can_reload: true,
            command: Some(RUNNING_COMMAND.to_owned()),
            limit: seconds(180),
        };
        assert_eq!(parse(RUNNING), Ok(expected));
    }

    #[test]
    fn a_unit_that_does_not_exist_is_a_state_and_no_error() {
        let status = parse(NOT_FOUND).unwrap();
        assert_eq!((status.load, status.active), (LoadState::NotFound, ActiveState::Inactive));
        assert_eq!((status.main_pid, status.invocation), (None, None));
    }

    #[test]
    fn a_unit_on_its_way_up_has_a_job_and_perhaps_no_limit() {
        let status = parse(STARTING).unwrap();
        assert_eq!((status.active, status.job, status.limit), (ActiveState::Activating, true, None));
    }

    #[test]
    fn a_crashing_unit_shows_its_restarts_and_waits_without_a_job() {
        let status = parse(CRASHING).unwrap();
        assert_eq!((status.restarts, status.sub.as_str(), status.job), (2, "auto-restart", false));
        let two_months = 2 * 2_629_800;
        assert_eq!(status.limit, Some(Duration::from_micros((two_months + 90) * 1_000_000 + 500_003)));
    }

    #[test]
    fn the_start_limit_shows_in_the_result() {
        let status = parse(LIMIT_HIT).unwrap();
        assert_eq!((status.active, status.result.as_str()), (ActiveState::Failed, "start-limit-hit"));
    }

    #[test]
    fn masked_and_broken_units_are_told_apart() {
        let with =
            |state: &str| parse(&RUNNING.replace("LoadState=loaded", &format!("LoadState={state}"))).unwrap().load;
        assert_eq!(with("masked"), LoadState::Masked);
        assert_eq!(with("bad-setting"), LoadState::Other("bad-setting".to_owned()));
    }

    #[test]
    fn each_property_is_needed() {
        for property in PROPERTIES.split(',').filter(|property| *property != "ExecStart") {
            let without: String =
                RUNNING.lines().filter(|line| !line.starts_with(property)).map(|line| format!("{line}\n")).collect();
            assert_eq!(parse(&without), Err(format!("it does not say {property}")));
        }
        assert!(parse("").is_err());
    }

    #[test]
    fn times_are_of_utc_and_to_the_microsecond() {
        let shown = "ActiveState=active\nActiveEnterTimestamp=Mon 2026-11-23 17:16:15.000250 UTC\n\
            StateChangeTimestamp=Mon 2026-11-23 17:16:20.500000 UTC\nReloadResult=success\n";
        let at = |micros| Some(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        let expected = UnitTimes {
            active: ActiveState::Active,
            started: at(1_795_454_175_000_250),
            changed: at(1_795_454_180_500_000),
        };
        assert_eq!(times(shown), Ok(expected));
        let failed = shown.replace("ReloadResult=success", "ReloadResult=exit-code");
        assert_eq!(times(&failed).map(|times| times.changed), Ok(None));
        let never = "ActiveState=inactive\nActiveEnterTimestamp=\nStateChangeTimestamp=\n";
        assert_eq!(times(never).map(|times| (times.started, times.changed)), Ok((None, None)));
        for other in ["Mon 2026-11-23 20:16:15 MSK", "Mon 2026-11-23 UTC", "@1795454175", "n/a"] {
            let text = shown.replace("Mon 2026-11-23 17:16:15.000250 UTC", other);
            assert_eq!(times(&text), Err("its ActiveEnterTimestamp is no time".to_owned()), "{other}");
        }
    }

    #[test]
    fn a_unit_may_run_nothing() {
        let without: Vec<&str> = RUNNING.lines().filter(|line| !line.starts_with("ExecStart")).collect();
        assert_eq!(parse(&without.join("\n")).map(|status| status.command), Ok(None));
    }

    #[test]
    fn rubbish_in_a_property_is_an_error() {
        assert_eq!(parse(&RUNNING.replace("MainPID=30", "MainPID=x")), Err("its MainPID is no number".to_owned()));
        assert_eq!(
            parse(&RUNNING.replace("NRestarts=0", "NRestarts=-1")),
            Err("its NRestarts is no number".to_owned())
        );
        let odd = RUNNING.replace("TimeoutStopUSec=1min 30s", "TimeoutStopUSec=soon");
        assert_eq!(parse(&odd), Err("its TimeoutStopUSec is no time".to_owned()));
    }

    #[test]
    fn time_spans_as_systemd_prints_them() {
        let table = [
            ("infinity", Some(None)),
            ("0", Some(Some(Duration::ZERO))),
            ("1min 30s", Some(seconds(90))),
            ("1.500000s", Some(Some(Duration::from_millis(1500)))),
            ("1min 30.500000s", Some(Some(Duration::from_millis(90_500)))),
            ("500ms", Some(Some(Duration::from_millis(500)))),
            ("3us", Some(Some(Duration::from_micros(3)))),
            ("1h 2min 3s", Some(seconds(3723))),
            ("1w 1d", Some(seconds(8 * 86_400))),
            ("1y", Some(seconds(31_557_600))),
            ("", None),
            ("s", None),
            ("5", None),
            ("-5s", None),
            ("infs", None),
            ("nans", None),
            ("5 s", None),
            ("5parsecs", None),
            ("1s ", None),
            ("9e99y", None),
            ("99999999999999999999y", None),
        ];
        for (text, expected) in table {
            assert_eq!(time_span(text), expected, "{text:?}");
        }
    }
}
