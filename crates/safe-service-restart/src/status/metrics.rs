//! The status as metrics in Prometheus's text format. What is not known has no sample: an alarm on absence tells that apart from
//! a host that is well.

use std::fmt::Write as _;

use restart_core::{Pooled, Verdict};

use super::{InStore, Journal, Status, Store, What};

/// Every name begins so.
const PREFIX: &str = "safe_service_restart_";

/// A value with its labels.
type Sample = (Vec<(&'static str, String)>, u64);

/// One metric: its name, what it tells, and its samples.
struct Metric {
    name: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

/// The whole file.
pub(super) fn figures(status: &Status) -> String {
    let mut text = String::new();
    for Metric { name, help, samples } in metrics(status) {
        if samples.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} gauge");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{PREFIX}{name}{labels} {value}");
        }
    }
    text
}

fn metrics(status: &Status) -> Vec<Metric> {
    // Of this machine, whatever name it was asked about: an alarm must not depend on that.
    let journal = |one_of: &[What]| plain(status.journal_says(status.left(), one_of).map(u64::from));
    let pooled = status.pools.iter().filter_map(|pool| {
        let value = match pool.store {
            InStore::Node { pooled, .. } => u64::from(pooled == Pooled::Yes),
            InStore::Absent => 0,
            InStore::Unknown => return None,
        };
        Some((vec![("pool", pool.pool.to_string())], value))
    });
    let told = status.pools.iter().flat_map(|pool| {
        pool.load_balancers.iter().filter_map(|asked| {
            let value = match asked.verdict {
                Verdict::Pooled | Verdict::Held => 1,
                Verdict::NotPooled | Verdict::Draining(_) | Verdict::Down | Verdict::Absent => 0,
                Verdict::Unknown(_) => return None,
            };
            Some((vec![("pool", pool.pool.to_string()), ("load_balancer", asked.name.to_string())], value))
        })
    });
    let units =
        status.units.iter().filter_map(|unit| Some((vec![("unit", unit.unit.to_string())], u64::from(unit.active?))));
    let store_up = match status.store {
        Store::NotAsked => None,
        Store::Up => Some(1),
        Store::Down => Some(0),
    };
    let problem = !status.set_aside.is_empty() || matches!(status.journal, Journal::Unusable(_));
    let readable = !matches!(status.journal, Journal::Unknown);
    vec![
        metric(
            "held",
            "Whether the host is held out of its pools because a unit does not run.",
            journal(&[What::Held]),
        ),
        metric(
            "interrupted",
            "Whether a run died with the host out of its pools, and was not finished yet.",
            journal(&[What::Interrupted, What::Orphaned]),
        ),
        metric("under_way", "Whether a run has the host out of its pools now.", journal(&[What::UnderWay])),
        metric(
            "out_seconds",
            "How long the host has been out of its pools because of a run, 0 if it is not.",
            plain(status.out_seconds(status.left())),
        ),
        metric(
            "journal_problem",
            "Whether a journal is damaged or was set aside, and waits for an operator.",
            plain(readable.then_some(u64::from(problem))),
        ),
        metric("journal_readable", "Whether the journal could be looked at.", plain(Some(u64::from(readable)))),
        metric("pooled", "Whether the store has the host as pooled.", pooled.collect()),
        metric("load_balancer_pooled", "Whether a load balancer says that it sends to the host.", told.collect()),
        metric("unit_active", "Whether a unit runs.", units.collect()),
        metric("store_up", "Whether the store answered.", plain(store_up)),
        metric("status_timestamp", "When this was looked at, in seconds since 1970.", plain(Some(status.time))),
    ]
}

fn metric(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Metric {
    Metric { name, help, samples }
}

/// One sample without labels, if its value is known.
fn plain(value: Option<u64>) -> Vec<Sample> {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

/// A label's value as the format wants it: three characters have an escape.
pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
