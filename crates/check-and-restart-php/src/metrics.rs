//! A report as metrics in Prometheus's text format. Every sample names its unit, and every help text is constant: several instances
//! of the timer each have a file of their own, and the textfile collector puts them together. What is not known has no sample.

use std::fmt::Write as _;

use php_fpm::Apcu;

use crate::outlook::Outlook;
use crate::report::{Report, UnitReport, opcache};
use crate::verdict::{Level, interned_strings_used};

/// One metric: its name, its type, what it tells.
type Metric = (&'static str, &'static str, &'static str);

/// Samples: the labels after the unit, and the value.
type Samples = Vec<(&'static str, String)>;

/// The whole file.
pub fn figures(report: &Report, now: u64) -> String {
    let mut text = String::new();
    let of_units: Vec<(String, Vec<(Metric, Samples)>)> =
        report.units.iter().map(|unit| (unit.unit.to_string(), of_unit(unit, now))).collect();
    let Some((_, first)) = of_units.first() else { return text };
    // All samples of a metric stand together.
    for (place, ((name, kind, help), _)) in first.iter().enumerate() {
        let samples =
            of_units.iter().flat_map(|(unit, metrics)| metrics[place].1.iter().map(move |sample| (unit, sample)));
        let samples: Vec<_> = samples.collect();
        if samples.is_empty() {
            continue;
        }
        // Writing to a string cannot fail. A unit's name has nothing that would have to be escaped but a backslash.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (unit, (labels, value)) in samples {
            let _ = writeln!(text, "{name}{{unit=\"{}\"{labels}}} {value}", unit.replace('\\', "\\\\"));
        }
    }
    text
}

/// The same metrics in the same order for each unit.
fn of_unit(report: &UnitReport, now: u64) -> Vec<(Metric, Samples)> {
    let figures = report.latest();
    let mut metrics = of_check(report, now);
    metrics.extend(of_opcache(figures.and_then(opcache)));
    metrics.extend(of_apcu(figures.map(|figures| &figures.apcu)));
    metrics
}

fn of_check(report: &UnitReport, now: u64) -> Vec<(Metric, Samples)> {
    let state = match report.latest_level() {
        Level::Ok => 0u8,
        Level::Warning => 1,
        Level::Critical => 2,
        Level::Unknown => 3,
    };
    let full = match report.outlook {
        // Never, at the present rate.
        Some(Outlook::At { memory, keys }) => vec![(",of=\"memory\"", memory), (",of=\"keys\"", keys)],
        Some(Outlook::TooEarly { .. }) | None => Vec::new(),
    };
    let full = full.into_iter().map(|(labels, at)| (labels, at.map_or("+Inf".to_owned(), |at| at.to_string())));
    vec![
        (
            (
                "php_fpm_check_state",
                "gauge",
                "What check-and-restart-php found: 0 ok, 1 warning, 2 critical, 3 unknown.",
            ),
            one(state),
        ),
        (
            ("php_fpm_check_readable", "gauge", "Whether the figures could be read."),
            one(u8::from(report.latest().is_some())),
        ),
        (("php_fpm_check_timestamp_seconds", "gauge", "When this was looked at, in seconds since 1970."), one(now)),
        (
            (
                "php_fpm_check_last_restart_timestamp_seconds",
                "gauge",
                "When check-and-restart-php last began to restart the unit, in seconds since 1970.",
            ),
            report.last_restart.iter().map(|last| ("", last.began.to_string())).collect(),
        ),
        (
            (
                "php_fpm_opcache_predicted_full_timestamp_seconds",
                "gauge",
                "When opcache will be full at the present rate, in seconds since 1970; +Inf if it is not filling.",
            ),
            full.collect(),
        ),
    ]
}

fn of_opcache(figures: Option<&php_fpm::OpcacheFigures>) -> Vec<(Metric, Samples)> {
    let all = |samples: &dyn Fn(&php_fpm::OpcacheFigures) -> Samples| figures.map(samples).unwrap_or_default();
    vec![
        (
            ("php_fpm_opcache_memory_bytes", "gauge", "Memory of opcache."),
            all(&|opcache| {
                vec![
                    (",state=\"used\"", opcache.used_memory.to_string()),
                    (",state=\"free\"", opcache.free_memory.to_string()),
                    (",state=\"wasted\"", opcache.wasted_memory.to_string()),
                ]
            }),
        ),
        (("php_fpm_opcache_keys", "gauge", "Keys of opcache in use."), all(&|opcache| one(opcache.cached_keys))),
        (
            ("php_fpm_opcache_max_keys", "gauge", "Keys that opcache has room for."),
            all(&|opcache| one(opcache.max_cached_keys)),
        ),
        (("php_fpm_opcache_scripts", "gauge", "Scripts in opcache."), all(&|opcache| one(opcache.cached_scripts))),
        (
            ("php_fpm_opcache_hits_total", "counter", "Scripts that were found in opcache."),
            all(&|opcache| one(opcache.hits)),
        ),
        (
            ("php_fpm_opcache_misses_total", "counter", "Scripts that were not found in opcache."),
            all(&|opcache| one(opcache.misses)),
        ),
        (
            ("php_fpm_opcache_restarts_total", "counter", "How often opcache threw everything away, by reason."),
            all(&|opcache| {
                vec![
                    (",reason=\"oom\"", opcache.oom_restarts.to_string()),
                    (",reason=\"hash\"", opcache.hash_restarts.to_string()),
                    (",reason=\"manual\"", opcache.manual_restarts.to_string()),
                ]
            }),
        ),
        (
            (
                "php_fpm_opcache_interned_strings_ratio",
                "gauge",
                "Share of opcache's memory for strings that is in use, from 0 to 1.",
            ),
            all(&|opcache| {
                interned_strings_used(opcache).map(|used| ("", (used / 100.0).to_string())).into_iter().collect()
            }),
        ),
        (
            ("php_fpm_opcache_full", "gauge", "Whether opcache is full and takes no more code."),
            all(&|opcache| one(u8::from(opcache.cache_full))),
        ),
        (
            ("php_fpm_opcache_restart_pending", "gauge", "Whether opcache is about to restart itself, or does."),
            all(&|opcache| one(u8::from(opcache.restart_pending || opcache.restart_in_progress))),
        ),
        (
            ("php_fpm_opcache_start_timestamp_seconds", "gauge", "When opcache was started, in seconds since 1970."),
            all(&|opcache| one(opcache.start_time)),
        ),
    ]
}

fn of_apcu(apcu: Option<&Apcu>) -> Vec<(Metric, Samples)> {
    let figures = match apcu {
        Some(Apcu::On(figures)) => Some(figures),
        _ => None,
    };
    let usage = figures.and_then(|figures| figures.usage);
    vec![
        (
            (
                "php_fpm_apcu_fragmentation_ratio",
                "gauge",
                "Share of APCu's free memory that is in small pieces, from 0 to 1.",
            ),
            figures.map(|figures| ("", (figures.fragmentation / 100.0).to_string())).into_iter().collect(),
        ),
        (
            ("php_fpm_apcu_memory_bytes", "gauge", "Memory of APCu."),
            usage
                .map(|usage| {
                    let used = usage.memory_size.saturating_sub(usage.memory_free);
                    vec![(",state=\"used\"", used.to_string()), (",state=\"free\"", usage.memory_free.to_string())]
                })
                .unwrap_or_default(),
        ),
        (
            ("php_fpm_apcu_entries", "gauge", "Entries in APCu."),
            usage.map(|usage| one(usage.entries)).unwrap_or_default(),
        ),
        (
            ("php_fpm_apcu_expunges_total", "counter", "How often APCu threw everything away for want of memory."),
            usage.map(|usage| one(usage.expunges)).unwrap_or_default(),
        ),
    ]
}

/// One sample without labels of its own.
fn one(value: impl Into<u64>) -> Samples {
    vec![("", value.into().to_string())]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::tests::{asked, unreadable};
    use crate::report::{After, Done};
    use crate::verdict::Verdict;
    use crate::verdict::tests::figures as sample;

    const NOW: u64 = 1_795_454_175;

    fn text(units: Vec<UnitReport>) -> String {
        figures(&Report { units, failures: Vec::new() }, NOW)
    }

    #[test]
    fn each_figure_stands_with_its_unit_and_its_help() {
        let mut unit = asked("php8.2-fpm", sample(|_| {}), "200");
        unit.outlook = Some(Outlook::At { memory: Some(NOW + 5), keys: None });
        let text = text(vec![unit]);
        for line in [
            "php_fpm_check_state{unit=\"php8.2-fpm.service\"} 0",
            "php_fpm_check_readable{unit=\"php8.2-fpm.service\"} 1",
            "php_fpm_opcache_memory_bytes{unit=\"php8.2-fpm.service\",state=\"free\"} 536870912",
            "php_fpm_opcache_restarts_total{unit=\"php8.2-fpm.service\",reason=\"oom\"} 0",
            "php_fpm_opcache_predicted_full_timestamp_seconds{unit=\"php8.2-fpm.service\",of=\"memory\"} 1795454180",
            "php_fpm_opcache_predicted_full_timestamp_seconds{unit=\"php8.2-fpm.service\",of=\"keys\"} +Inf",
            "php_fpm_apcu_fragmentation_ratio{unit=\"php8.2-fpm.service\"} 0.1",
            "# TYPE php_fpm_opcache_hits_total counter",
        ] {
            assert!(text.lines().any(|one| one == line), "'{line}' is not in:\n{text}");
        }
        assert!(!text.contains("last_restart"), "{text}");
    }

    #[test]
    fn samples_of_a_metric_stand_together_under_one_head() {
        let text = text(vec![unreadable("a"), asked("b", sample(|_| {}), "200"), asked("c", sample(|_| {}), "200")]);
        let mut seen = BTreeSet::new();
        for name in
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(|rest| rest.split(' ').next().unwrap())
        {
            assert!(seen.insert(name), "{name} has two heads");
        }
        let mut now = "";
        for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => now = rest.split(' ').next().unwrap(),
                None => assert!(line.starts_with(&format!("{now}{{")), "{line} under {now}"),
            }
        }
        assert!(
            text.contains("php_fpm_check_state{unit=\"a.service\"} 3\nphp_fpm_check_state{unit=\"b.service\"} 0\n")
        );
        assert!(!text.contains("php_fpm_opcache_keys{unit=\"a.service\"}"), "{text}");
    }

    #[test]
    fn after_a_restart_the_figures_are_the_new_ones() {
        let mut unit = asked("a", sample(|opcache| opcache.free_memory = 0), "200");
        unit.done = Done::Ran(0);
        unit.after = Some(After { figures: Some(sample(|_| {})), verdict: Verdict::default() });
        let after = text(vec![unit]);
        assert!(after.contains("php_fpm_opcache_memory_bytes{unit=\"a.service\",state=\"free\"} 536870912"), "{after}");
        assert!(after.contains("php_fpm_check_state{unit=\"a.service\"} 0"), "{after}");
        // Where they could not be read again, the old ones are not passed off as them.
        let mut unit = asked("a", sample(|opcache| opcache.free_memory = 0), "200");
        unit.done = Done::Ran(0);
        let after = text(vec![unit]);
        assert!(after.contains("php_fpm_check_readable{unit=\"a.service\"} 0"), "{after}");
        assert!(!after.contains("php_fpm_opcache_memory_bytes"), "{after}");
    }
}
