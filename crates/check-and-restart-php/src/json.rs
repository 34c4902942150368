//! A report as one JSON object, for `--json`.

use host::output;
use php_fpm::{Apcu, Figures, Opcache};
use serde_json::{Value, json};

use crate::outlook::Outlook;
use crate::report::{Done, Report, UnitReport};
use crate::text;

/// What was asked for.
pub struct Asked<'a> {
    /// `--dry-run`.
    pub dry_run: bool,
    /// `--force`.
    pub force: bool,
    /// Who called sudo.
    pub user: Option<&'a str>,
}

/// Prints it as one line.
pub fn print(report: &Report, asked: &Asked<'_>, exit_code: u8) {
    if let Err(error) = output::print(&object(report, asked, exit_code).to_string()) {
        log::warn!("cannot print the report: {error}");
    }
}

fn object(report: &Report, asked: &Asked<'_>, exit_code: u8) -> Value {
    json!({
        "exit_code": exit_code,
        "tool": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "force": asked.force,
        "dry_run": asked.dry_run,
        "user": asked.user,
        "level": text::word(report.level()),
        "units": report.units.iter().map(unit).collect::<Vec<_>>(),
        "failures": report.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn unit(report: &UnitReport) -> Value {
    let (done, restart_exit_code) = match report.done {
        Done::Ran(0) => (json!("restarted"), Some(0)),
        Done::Ran(code) => (json!("restart-failed"), Some(code)),
        other => (json!(other), None),
    };
    json!({
        "unit": report.unit,
        "level": report.level(),
        "done": done,
        "restart_exit_code": restart_exit_code,
        "asked": report.asked,
        "findings": report.verdict.findings,
        "figures": report.figures.as_ref().map(figures),
        "after": report.after.as_ref().and_then(|after| after.figures.as_ref()).map(figures),
        "not_cured": report.not_cured(),
        "outlook": report.outlook.map(outlook),
        "last_restart": report.last_restart,
        "failures": report.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// Names are PHP's own where it has one.
fn figures(figures: &Figures) -> Value {
    json!({ "php": figures.php, "opcache": opcache(&figures.opcache), "apcu": apcu(&figures.apcu) })
}

fn opcache(opcache: &Opcache) -> Value {
    let figures = match opcache {
        Opcache::On(figures) => figures,
        Opcache::Off => return json!({ "state": "off" }),
        Opcache::FilesOnly => return json!({ "state": "files-only" }),
        Opcache::Missing => return json!({ "state": "missing" }),
        Opcache::Refused(why) => return json!({ "state": "refused", "why": why }),
    };
    let strings = figures.interned_strings.map(|strings| {
        json!({
            "buffer_size": strings.buffer_size,
            "used_memory": strings.used_memory,
            "free_memory": strings.free_memory,
            "number_of_strings": strings.strings,
        })
    });
    json!({
        "state": "on",
        "cache_full": figures.cache_full,
        "restart_pending": figures.restart_pending,
        "restart_in_progress": figures.restart_in_progress,
        "used_memory": figures.used_memory,
        "free_memory": figures.free_memory,
        "wasted_memory": figures.wasted_memory,
        "current_wasted_percentage": figures.wasted_percentage,
        "interned_strings_usage": strings,
        "num_cached_scripts": figures.cached_scripts,
        "num_cached_keys": figures.cached_keys,
        "max_cached_keys": figures.max_cached_keys,
        "hits": figures.hits,
        "misses": figures.misses,
        "opcache_hit_rate": figures.hit_rate,
        "start_time": figures.start_time,
        "last_restart_time": figures.last_restart_time,
        "oom_restarts": figures.oom_restarts,
        "hash_restarts": figures.hash_restarts,
        "manual_restarts": figures.manual_restarts,
    })
}

fn apcu(apcu: &Apcu) -> Value {
    let figures = match apcu {
        Apcu::On(figures) => figures,
        Apcu::Off => return json!({ "state": "off" }),
        Apcu::Missing => return json!({ "state": "missing" }),
        Apcu::Refused(why) => return json!({ "state": "refused", "why": why }),
    };
    let usage = figures.usage;
    json!({
        "state": "on",
        "fragmentation": figures.fragmentation,
        "memory_size": usage.map(|usage| usage.memory_size),
        "memory_free": usage.map(|usage| usage.memory_free),
        "entries": usage.map(|usage| usage.entries),
        "expunges": usage.map(|usage| usage.expunges),
    })
}

fn outlook(outlook: Outlook) -> Value {
    match outlook {
        Outlook::TooEarly { readings, seconds } => {
            json!({ "state": "too-early", "readings": readings, "seconds": seconds })
        }
        Outlook::At { memory: None, keys: None } => json!({ "state": "not-filling" }),
        Outlook::At { memory, keys } => json!({ "state": "filling", "out_of_memory": memory, "out_of_keys": keys }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{asked, unreadable};
    use crate::verdict::tests::figures as sample;

    const ASKED: Asked<'_> = Asked { dry_run: false, force: true, user: Some("alice") };

    #[test]
    fn a_unit_that_was_restarted() {
        let mut unit = asked("php8.2-fpm", sample(|opcache| opcache.free_memory = 0), "200");
        unit.done = Done::Ran(0);
        unit.outlook = Some(Outlook::TooEarly { readings: 1, seconds: 0 });
        let report = object(&Report { units: vec![unit], failures: Vec::new() }, &ASKED, 0);
        for (pointer, value) in [
            ("/exit_code", json!(0)),
            ("/level", json!("critical")),
            ("/user", json!("alice")),
            ("/units/0/unit", json!("php8.2-fpm.service")),
            ("/units/0/done", json!("restarted")),
            ("/units/0/findings/0/check", json!("free-memory")),
            ("/units/0/findings/0/remedy", json!("restart")),
            ("/units/0/figures/opcache/free_memory", json!(0)),
            ("/units/0/figures/opcache/interned_strings_usage/number_of_strings", json!(1000)),
            ("/units/0/figures/apcu/fragmentation", json!(10.0)),
            ("/units/0/outlook/state", json!("too-early")),
            ("/units/0/last_restart", Value::Null),
        ] {
            assert_eq!(report.pointer(pointer), Some(&value), "{pointer}");
        }
    }

    #[test]
    fn a_unit_that_cannot_be_read_has_no_figures() {
        let report = object(&Report { units: vec![unreadable("a")], failures: Vec::new() }, &ASKED, 69);
        assert_eq!(report.pointer("/units/0/figures"), Some(&Value::Null));
        assert_eq!(report.pointer("/units/0/level"), Some(&json!("unknown")));
        assert_eq!(report.pointer("/units/0/done"), Some(&json!("nothing")));
    }
}
