//! A report in words: one line a unit, whatever is said in it.

use php_fpm::{Apcu, Figures, Opcache};
use restart_core::ExitCode;

use crate::outlook::{FEWEST, Outlook, SHORTEST};
use crate::report::{Done, UnitReport};
use crate::verdict::{Level, MIB, is_warm, percent};

/// The line of a unit.
pub fn line(report: &UnitReport, now: u64) -> String {
    let mut parts: Vec<String> = report.figures.as_ref().map(figures).unwrap_or_default();
    parts.extend(done(report));
    // A cache that was emptied since has another.
    parts.extend(report.outlook.filter(|_| !report.is_changed()).and_then(|found| outlook(found, now)));
    if parts.is_empty() {
        parts.extend(report.verdict.findings.iter().map(|finding| finding.message.clone()));
    }
    let was = if report.is_changed() { "was " } else { "" };
    host::printable(&format!("{}: {was}{}: {}", report.unit, word(report.level()), parts.join("; ")))
}

/// A monitor's word for a level, in lower case.
pub fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Unknown => "unknown",
        Level::Critical => "critical",
    }
}

/// What there is, of each cache.
pub fn figures(figures: &Figures) -> Vec<String> {
    let opcache = match &figures.opcache {
        Opcache::On(opcache) => {
            let (free, total) = (opcache.free_memory / MIB, opcache.total_memory() / MIB);
            let mut words = format!(
                "opcache has {free} of {total} MiB and {} of {} keys free",
                opcache.free_keys(),
                opcache.max_cached_keys
            );
            if is_warm(opcache) {
                words += &format!(", hit rate {:.3}%", opcache.hit_rate);
            }
            words
        }
        Opcache::Off => "opcache is not enabled".to_owned(),
        Opcache::FilesOnly => "opcache keeps code in files alone".to_owned(),
        Opcache::Missing => "opcache is not loaded".to_owned(),
        Opcache::Refused(_) => "opcache does not tell".to_owned(),
    };
    let apcu = match &figures.apcu {
        Apcu::On(apcu) => format!("APCu is {} in pieces", percent(apcu.fragmentation)),
        Apcu::Off => "APCu is not enabled".to_owned(),
        Apcu::Missing => "APCu is not loaded".to_owned(),
        Apcu::Refused(_) => "APCu does not tell".to_owned(),
    };
    vec![opcache, apcu]
}

fn done(report: &UnitReport) -> Option<String> {
    let because = |reason: Option<String>| reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(match report.done {
        Done::Nothing => return None,
        Done::WouldRestart => format!("would restart it{}", because(report.verdict.restart())),
        Done::WouldClearApcu => format!("would clear APCu{}", because(report.verdict.clearing())),
        Done::Ran(code) if code == ExitCode::Done.number() => {
            ["restarted"].into_iter().chain(report.not_cured()).collect::<Vec<_>>().join("; ")
        }
        Done::Ran(code) => format!("restart-php-fpm ended with {code}"),
        Done::ClearedApcu => "cleared APCu".to_owned(),
        Done::Withheld => "not restarted yet".to_owned(),
        Done::NoCure => "not restarted: a restart does not cure it".to_owned(),
        Done::Failed => "failed".to_owned(),
    })
}

/// What is to be expected; nothing of a cache that is not filling.
pub fn outlook(outlook: Outlook, now: u64) -> Option<String> {
    Some(match outlook {
        Outlook::TooEarly { readings, .. } if readings < FEWEST => {
            format!("too early to say when it will be full: {readings} of {FEWEST} readings since it began")
        }
        Outlook::TooEarly { seconds, .. } => {
            format!("too early to say when it will be full: readings over {} of {}", span(seconds), span(SHORTEST))
        }
        Outlook::At { memory, keys } => {
            let named = [(memory, "memory"), (keys, "keys")];
            let known = named.into_iter().filter_map(|(at, what)| Some((at?, what)));
            match known.min() {
                None => "not filling at the present rate".to_owned(),
                Some((at, what)) => {
                    format!("out of {what} in about {} at the present rate", span(at.saturating_sub(now)))
                }
            }
        }
    })
}

/// A long time as a person says it: the largest unit of which there are two.
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "m")];
    match UNITS.iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{asked, unreadable};
    use crate::verdict::tests::figures as sample;

    const NOW: u64 = 1_795_454_175;

    #[test]
    fn a_unit_is_a_line() {
        let mut unit = asked("php8.2-fpm", sample(|_| {}), "200");
        let words = "php8.2-fpm.service: ok: opcache has 512 of 1024 MiB and 31331 of 32531 keys free, hit rate 99.999%; \
                     APCu is 10.0% in pieces";
        assert_eq!(line(&unit, NOW), words);
        unit.outlook = Some(Outlook::At { memory: Some(NOW + 3 * 86_400), keys: Some(NOW + 9 * 86_400) });
        assert_eq!(line(&unit, NOW), format!("{words}; out of memory in about 3d at the present rate"));
        unit.outlook = Some(Outlook::TooEarly { readings: 1, seconds: 0 });
        assert!(line(&unit, NOW).ends_with("too early to say when it will be full: 1 of 3 readings since it began"));
    }

    #[test]
    fn what_was_done_is_said() {
        let mut unit = asked("php8.2-fpm", sample(|opcache| opcache.free_memory = 0), "200");
        let end = |unit: &UnitReport| line(unit, NOW).rsplit("in pieces; ").next().unwrap().to_owned();
        for (done, words) in [
            (Done::WouldRestart, "would restart it: opcache has 0 of 512 MiB free, at or below the limit of 200"),
            (Done::Ran(0), "restarted"),
            (Done::Ran(3), "restart-php-fpm ended with 3"),
            (Done::Withheld, "not restarted yet"),
            (Done::NoCure, "not restarted: a restart does not cure it"),
        ] {
            unit.done = done;
            assert_eq!(end(&unit), words);
        }
        unit.done = Done::Ran(0);
        unit.outlook = Some(Outlook::At { memory: Some(NOW), keys: None });
        let text = line(&unit, NOW);
        assert!(text.starts_with("php8.2-fpm.service: was critical: ") && text.ends_with("; restarted"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert_eq!(line(&unreadable("php8.2-fpm"), NOW), "php8.2-fpm.service: unknown: cannot read | it");
        let mut unit = unreadable("php8.2-fpm");
        unit.verdict.findings[0].message = "it says \u{1b}[2J\nphp8.2-fpm.service: ok".to_owned();
        let escaped = "php8.2-fpm.service: unknown: it says \\u{1b}[2J\\nphp8.2-fpm.service: ok";
        assert_eq!(line(&unit, NOW), escaped);
    }

    #[test]
    fn long_times_are_short_words() {
        for (seconds, words) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d"), (900_000, "10d")]
        {
            assert_eq!(span(seconds), words);
        }
    }
}
