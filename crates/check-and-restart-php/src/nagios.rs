//! `--check`: a report as one line of a Nagios plugin, `LEVEL: words| 'label'=value;warn;crit;min;max ...`. Ranges are the plugins'
//! own: `@0:5` raises from 0 to 5 inclusive, `99.85:` below 99.85.

use php_fpm::{Apcu, Figures};

use crate::limits::{FreeLimit, Limits, Percent};
use crate::outlook::Outlook;
use crate::report::{Report, UnitReport, opcache};
use crate::text;
use crate::verdict::{Level, MIB, interned_strings_used, is_warm};

/// The line.
pub fn line(report: &Report, limits: &Limits, now: u64) -> String {
    let several = report.units.len() > 1;
    let mut words: Vec<String> = report.failures.iter().map(|failure| failure.message.clone()).collect();
    // The worst first: a pager shows no more than the beginning.
    let mut units: Vec<&UnitReport> = report.units.iter().collect();
    units.sort_by_key(|unit| std::cmp::Reverse(unit.level()));
    words.extend(units.iter().map(|unit| of_unit(unit, now)));
    let data: Vec<String> = report.units.iter().flat_map(|unit| performance(unit, limits, several)).collect();
    let words = plain(&format!("{}: {}", text::word(report.level()).to_uppercase(), words.join("; ")));
    if data.is_empty() { words } else { format!("{words}| {}", data.join(" ")) }
}

/// What ended before a unit was looked at: a command line that cannot be read.
pub fn unknown(why: &str) -> String {
    plain(&format!("UNKNOWN: {why}"))
}

/// What is wrong, or what there is if nothing is.
fn of_unit(report: &UnitReport, now: u64) -> String {
    let wrong = report.verdict.findings.iter().filter(|finding| finding.level > Level::Ok);
    let mut words: Vec<String> = wrong.map(|finding| finding.message.clone()).collect();
    words.extend(report.failures.iter().map(|failure| failure.message.clone()));
    if words.is_empty() {
        words = report.figures.as_ref().map(text::figures).unwrap_or_default();
    }
    words.extend(report.outlook.and_then(|outlook| text::outlook(outlook, now)));
    format!("{}: {}", report.unit, words.join(", "))
}

/// One line, in which `|` stands where figures begin and nowhere else.
fn plain(text: &str) -> String {
    host::printable(&text.replace('|', "/"))
}

/// One figure.
struct Datum {
    label: &'static str,
    value: String,
    warn: Option<String>,
    crit: Option<String>,
    min: &'static str,
    max: Option<String>,
}

fn performance(report: &UnitReport, limits: &Limits, several: bool) -> Vec<String> {
    let Some(figures) = &report.figures else { return Vec::new() };
    let words = |datum: Datum| {
        let Datum { label, value, warn, crit, min, max } = datum;
        // With several units the labels have to differ.
        let label = if several { format!("'{} {label}'", report.unit) } else { label.to_owned() };
        let [warn, crit, max] = [warn, crit, max].map(Option::unwrap_or_default);
        format!("{label}={value};{warn};{crit};{min};{max}")
    };
    data(figures, report.outlook, limits).into_iter().map(words).collect()
}

fn data(figures: &Figures, outlook: Option<Outlook>, limits: &Limits) -> Vec<Datum> {
    let mut data = Vec::new();
    let plain = |label, value: String| Datum { label, value, warn: None, crit: None, min: "0", max: None };
    if let Some(opcache) = opcache(figures) {
        let free = match limits.free {
            FreeLimit::Mebibytes(limit) => Some(mebibytes_or_fewer(limit)),
            FreeLimit::Off | FreeLimit::Always => None,
        };
        data.push(Datum {
            warn: (limits.free_warning > 0).then(|| mebibytes_or_fewer(limits.free_warning)),
            crit: free,
            max: Some(opcache.total_memory().to_string()),
            ..plain("opcache_free", format!("{}B", opcache.free_memory))
        });
        data.push(Datum {
            crit: (limits.free_keys > 0).then(|| format!("@0:{}", limits.free_keys)),
            max: Some(opcache.max_cached_keys.to_string()),
            ..plain("opcache_free_keys", opcache.free_keys().to_string())
        });
        data.push(Datum {
            warn: or_more(limits.wasted),
            max: Some("100".to_owned()),
            ..plain("opcache_wasted", format!("{:.2}%", opcache.wasted_percentage))
        });
        if let Some(used) = interned_strings_used(opcache) {
            data.push(Datum {
                warn: or_more(limits.interned_strings),
                max: Some("100".to_owned()),
                ..plain("opcache_interned_strings", format!("{used:.2}%"))
            });
        }
        // A rate that says nothing yet would only raise its own alarm.
        if is_warm(opcache) {
            data.push(Datum {
                warn: below(limits.hit_rate_warning),
                crit: below(limits.hit_rate),
                max: Some("100".to_owned()),
                ..plain("opcache_hit_rate", format!("{:.3}%", opcache.hit_rate))
            });
        }
        data.push(Datum {
            warn: (limits.self_restarts > 0).then(|| format!("@{}:", limits.self_restarts)),
            ..plain("opcache_self_restarts", opcache.oom_restarts.saturating_add(opcache.hash_restarts).to_string())
        });
    }
    if let Apcu::On(apcu) = &figures.apcu {
        data.push(Datum {
            crit: or_more(limits.apcu_fragmentation),
            max: Some("100".to_owned()),
            ..plain("apcu_fragmentation", format!("{:.2}%", apcu.fragmentation))
        });
    }
    if let Some(Outlook::At { memory: Some(at), .. }) = outlook {
        data.push(Datum { min: "", ..plain("opcache_full_at", at.to_string()) });
    }
    data
}

/// So many whole ones or fewer, in bytes.
fn mebibytes_or_fewer(limit: u64) -> String {
    format!("@0:{}", limit.saturating_add(1).saturating_mul(MIB) - 1)
}

fn or_more(limit: Percent) -> Option<String> {
    limit.limit().map(|limit| format!("@{limit}:100"))
}

fn below(limit: Percent) -> Option<String> {
    limit.limit().map(|limit| format!("{limit}:"))
}

#[cfg(test)]
mod tests {
    use restart_core::{ExitCode, Failure};

    use super::*;
    use crate::report::tests::{asked, unreadable};
    use crate::verdict::tests::{figures, limits};

    const NOW: u64 = 1_795_454_175;

    fn with(units: Vec<UnitReport>, arguments: &str) -> String {
        line(&Report { units, failures: Vec::new() }, &limits(arguments), NOW)
    }

    #[test]
    fn a_cache_as_it_should_be() {
        assert_eq!(
            with(vec![asked("php8.2-fpm", figures(|_| {}), "200")], "200"),
            "OK: php8.2-fpm.service: opcache has 512 of 1024 MiB and 31331 of 32531 keys free, hit rate 99.999%, APCu is \
             10.0% in pieces| opcache_free=536870912B;;@0:210763775;0;1073741824 opcache_free_keys=31331;;@0:5000;0;32531 \
             opcache_wasted=0.00%;@5:100;;0;100 opcache_interned_strings=50.00%;@95:100;;0;100 \
             opcache_hit_rate=99.999%;99.99:;99.85:;0;100 opcache_self_restarts=0;@1:;;0; \
             apcu_fragmentation=10.00%;;@95:100;0;100"
        );
    }

    #[test]
    fn a_limit_that_is_off_has_no_range_and_a_cold_cache_no_hit_rate() {
        let arguments = "0 --warn-free 300 --min-free-keys 0 --max-wasted 0 --max-interned-strings 0 --max-self-restarts 0 \
                         --max-apcu-fragmentation 0";
        let cold = figures(|opcache| opcache.hits = 5);
        let text = with(vec![asked("a", cold, arguments)], arguments);
        assert_eq!(
            text.split_once("| ").unwrap().1,
            "opcache_free=536870912B;@0:315621375;;0;1073741824 opcache_free_keys=31331;;;0;32531 opcache_wasted=0.00%;;;0;100 \
             opcache_interned_strings=50.00%;;;0;100 opcache_self_restarts=0;;;0; apcu_fragmentation=10.00%;;;0;100"
        );
    }

    #[test]
    fn the_worst_stands_first_and_labels_have_their_unit() {
        let full = asked("php8.2-fpm", figures(|opcache| opcache.free_memory = 0), "200");
        let text = with(vec![asked("php7.4-fpm", figures(|_| {}), "200"), full, unreadable("php8.4-fpm")], "200");
        let (words, data) = text.split_once("| ").unwrap();
        assert!(
            words.starts_with("CRITICAL: php8.2-fpm.service: opcache has 0 of 512 MiB free, at or below"),
            "{words}"
        );
        assert!(
            words.contains("; php8.4-fpm.service: cannot read / it; php7.4-fpm.service: opcache has 512"),
            "{words}"
        );
        assert!(data.contains("'php7.4-fpm.service opcache_free'=536870912B;"), "{data}");
        assert!(data.contains("'php8.2-fpm.service opcache_free'=0B;"), "{data}");
        assert!(!data.contains("php8.4"), "{data}");
    }

    #[test]
    fn it_is_one_line_with_one_bar_whatever_is_said() {
        assert_eq!(with(vec![unreadable("a")], "200"), "UNKNOWN: a.service: cannot read / it");
        let report = Report::refused(Failure::new(ExitCode::Failed, "two\nlines | bar"));
        assert_eq!(line(&report, &limits("200"), NOW), "UNKNOWN: two\\nlines / bar");
        assert_eq!(unknown("a|b"), "UNKNOWN: a/b");
    }

    #[test]
    fn what_is_to_be_expected_is_a_figure_too() {
        let mut unit = asked("a", figures(|_| {}), "200");
        unit.outlook = Some(Outlook::At { memory: Some(NOW + 7200), keys: None });
        let text = with(vec![unit], "200");
        assert!(text.contains(", out of memory in about 2h at the present rate| "), "{text}");
        assert!(text.ends_with(" opcache_full_at=1795461375;;;;"), "{text}");
    }
}
