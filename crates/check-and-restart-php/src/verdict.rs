//! What one reading means: pure, and the only place that decides. Each check looks at its own figures and says what it found, in the
//! original's order: free memory, APCu, keys; after them those that the original did not have.
//!
//! A check restarts only what a restart cures: memory and keys that run out, and a cache that is full. What says that something is
//! wrong, but would be wrong again after a restart (a cache that is too small, a low hit rate), is said and no more: it must not
//! restart a fleet.

use std::borrow::Cow;

use php_fpm::{Apcu, Figures, Opcache, OpcacheFigures};
use restart_core::{ExitCode, Failure};
use serde::{Deserialize, Serialize};

use crate::limits::{FreeLimit, Limits, OnFull};

/// A mebibyte, the original's MB.
pub const MIB: u64 = 1024 * 1024;

/// The hit rate counts once there were so many hits a script: before that it tells of the start alone, as in the original's monitor.
const WARM: u64 = 10_000;

/// How bad it is, in the order of a monitor's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be; what is said is only worth knowing.
    Ok,
    /// Worth a look.
    Warning,
    /// It cannot be told.
    Unknown,
    /// A limit is crossed.
    Critical,
}

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// A restart of PHP-FPM, which empties both caches.
    Restart,
    /// Clearing APCu.
    ClearApcu,
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What would be done about it.
    pub remedy: Option<Remedy>,
    /// In words.
    pub message: String,
    /// The exit code of what cannot be told, or not be cured.
    #[serde(skip)]
    pub code: Option<ExitCode>,
    /// What is crossed, of a finding that a restart should cure.
    #[serde(skip)]
    pub threshold: Option<Threshold>,
    /// An earlier restart did not cure it.
    #[serde(skip)]
    pub is_not_cured: bool,
}

/// A limit of a check, and how much there is in all: as long as all three are the same, so is the question whether a restart helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Which check.
    pub check: Cow<'static, str>,
    /// Its limit; 0 of a check that has none.
    pub limit: u64,
    /// Of how much.
    pub of: u64,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// What cannot be told because nothing could be read.
    pub fn unreadable(failure: &Failure) -> Self {
        let mut finding = unknown("figures", failure.message.clone());
        finding.code = Some(failure.code);
        Self { findings: vec![finding] }
    }

    /// Adds what the caller asked for, whatever the figures say.
    pub fn with_demand(mut self, limits: &Limits) -> Self {
        if limits.free == FreeLimit::Always {
            let words = "a restart was asked for, whatever the figures say";
            self.findings.insert(0, Finding { threshold: None, ..cured_by_restart("demand", 0, 0, words) });
        }
        self
    }

    /// The worst level.
    pub fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// What a restart is for, in words; `None` if there is no reason for one.
    pub fn restart(&self) -> Option<String> {
        self.because(Remedy::Restart)
    }

    /// What clearing APCu is for, in words.
    pub fn clearing(&self) -> Option<String> {
        self.because(Remedy::ClearApcu)
    }

    fn because(&self, remedy: Remedy) -> Option<String> {
        let reasons = self.findings.iter().filter(|finding| finding.remedy == Some(remedy));
        let reasons: Vec<&str> = reasons.map(|finding| finding.message.as_str()).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// Judges one reading.
pub fn verdict(figures: &Figures, limits: &Limits) -> Verdict {
    let found = match &figures.opcache {
        Opcache::On(opcache) => [
            free_memory(opcache, limits),
            apcu(&figures.apcu, limits),
            keys(opcache, limits),
            cache_full(opcache, limits),
            wasted(opcache, limits),
            interned_strings(opcache, limits),
            self_restarts(opcache, limits),
            hit_rate(opcache, limits),
            restart_of_its_own(opcache),
        ]
        .into_iter()
        .flatten()
        .collect(),
        other => not_on(other).into_iter().chain(apcu(&figures.apcu, limits)).collect(),
    };
    Verdict { findings: found }
}

/// All that these limits restart for: what a cache of this size crosses that has no room left.
pub fn restarts_for(opcache: &OpcacheFigures, limits: &Limits) -> Vec<Threshold> {
    let full = OpcacheFigures {
        free_memory: 0,
        used_memory: opcache.used_memory.saturating_add(opcache.free_memory),
        cached_keys: opcache.max_cached_keys,
        cache_full: true,
        ..opcache.clone()
    };
    let crossed = [free_memory(&full, limits), keys(&full, limits), cache_full(&full, limits)];
    crossed.into_iter().flatten().filter_map(|finding| finding.threshold).collect()
}

/// An opcache without figures. Whoever asks how full it is expects one; an opcache that failed to start looks like one switched off.
fn not_on(opcache: &Opcache) -> Option<Finding> {
    let why = match opcache {
        Opcache::On(_) => return None,
        Opcache::Off => "opcache is not enabled".to_owned(),
        Opcache::FilesOnly => "opcache keeps code in files alone, and has no memory to run out of".to_owned(),
        Opcache::Missing => "opcache is not loaded".to_owned(),
        Opcache::Refused(why) => format!("opcache does not tell its figures: {why}"),
    };
    Some(unknown("opcache", why))
}

fn free_memory(opcache: &OpcacheFigures, limits: &Limits) -> Option<Finding> {
    const CHECK: &str = "free-memory";
    // Whole ones, as the original counts.
    let (free, total) = (opcache.free_memory / MIB, opcache.total_memory() / MIB);
    let words = |limit| format!("opcache has {free} of {total} MiB free, at or below the limit of {limit}");
    match limits.free {
        FreeLimit::Mebibytes(limit) if limit >= total => Some(unmeetable(
            CHECK,
            format!(
                "the limit of {limit} MiB of free memory cannot be met: opcache has {total} MiB in all, and no restart changes that"
            ),
        )),
        FreeLimit::Mebibytes(limit) if free <= limit => Some(cured_by_restart(CHECK, limit, total, words(limit))),
        _ if limits.free_warning > 0 && free <= limits.free_warning => Some(warning(CHECK, words(limits.free_warning))),
        _ => None,
    }
}

fn apcu(apcu: &Apcu, limits: &Limits) -> Option<Finding> {
    const CHECK: &str = "apcu-fragmentation";
    let limit = limits.apcu_fragmentation.limit()?;
    let figures = match apcu {
        Apcu::On(figures) => figures,
        Apcu::Off => return Some(fine(CHECK, "APCu is not enabled")),
        Apcu::Missing => return Some(fine(CHECK, "APCu is not loaded")),
        Apcu::Refused(why) => return Some(unknown(CHECK, format!("APCu does not tell its figures: {why}"))),
    };
    if figures.fragmentation < limit {
        return None;
    }
    // Fragmentation says most where there is little left.
    let full = figures.usage.filter(|usage| usage.memory_size > 0).map(|usage| {
        // A pool can tell any number.
        let (free, size) = (u128::from(usage.memory_free), u128::from(usage.memory_size));
        let used = 100 - 100 * free.min(size) / size;
        format!(", {used}% of it in use")
    });
    let message = format!(
        "APCu's free memory is {} in pieces, at or above the limit of {limit}%{}",
        percent(figures.fragmentation),
        full.unwrap_or_default()
    );
    Some(Finding { level: Level::Critical, remedy: Some(Remedy::ClearApcu), ..fine(CHECK, message) })
}

fn keys(opcache: &OpcacheFigures, limits: &Limits) -> Option<Finding> {
    const CHECK: &str = "free-keys";
    let (free, most, limit) = (opcache.free_keys(), opcache.max_cached_keys, limits.free_keys);
    if limit == 0 || free > limit {
        return None;
    }
    if limit >= most {
        let words = format!(
            "the limit of {limit} free keys cannot be met: opcache has room for {most} in all (--min-free-keys)"
        );
        return Some(unmeetable(CHECK, words));
    }
    let words = format!("opcache has {free} of {most} keys free, at or below the limit of {limit}");
    Some(cured_by_restart(CHECK, limit, most, words))
}

fn cache_full(opcache: &OpcacheFigures, limits: &Limits) -> Option<Finding> {
    const CHECK: &str = "cache-full";
    let words = "opcache is full and takes no more code";
    match limits.cache_full {
        OnFull::Restart if opcache.cache_full => Some(cured_by_restart(CHECK, 0, opcache.total_memory() / MIB, words)),
        OnFull::Warn if opcache.cache_full => Some(warning(CHECK, words)),
        _ => None,
    }
}

fn wasted(opcache: &OpcacheFigures, limits: &Limits) -> Option<Finding> {
    let limit = limits.wasted.limit()?;
    let wasted = opcache.wasted_percentage;
    (wasted >= limit).then(|| {
        let words = format!(
            "{} of opcache's memory is wasted by code that was replaced, at or above the limit of {limit}%",
            percent(wasted)
        );
        warning("wasted", words)
    })
}

fn interned_strings(opcache: &OpcacheFigures, limits: &Limits) -> Option<Finding> {
    let limit = limits.interned_strings.limit()?;
    let used = interned_strings_used(opcache)?;
    (used >= limit).then(|| {
        let words = format!(
            "opcache's memory for strings is {} in use, at or above the limit of {limit}%: raise opcache.interned_strings_buffer",
            percent(used)
        );
        warning("interned-strings", words)
    })
}

/// How much of the memory for strings is in use, in percent; `None` where there is none.
pub fn interned_strings_used(opcache: &OpcacheFigures) -> Option<f64> {
    let strings = opcache.interned_strings?;
    // A pool can tell any two numbers, whose sum need not be one.
    let (used, free) = (strings.used_memory as f64, strings.free_memory as f64);
    (used + free > 0.0).then(|| 100.0 * used / (used + free))
}

fn self_restarts(opcache: &OpcacheFigures, limits: &Limits) -> Option<Finding> {
    let (memory, keys) = (opcache.oom_restarts, opcache.hash_restarts);
    let count = memory.saturating_add(keys);
    (limits.self_restarts > 0 && count >= limits.self_restarts).then(|| {
        let words = format!(
            "opcache restarted itself under requests, {memory} times for want of memory and {keys} for want of keys: give it more"
        );
        warning("self-restarts", words)
    })
}

fn hit_rate(opcache: &OpcacheFigures, limits: &Limits) -> Option<Finding> {
    const CHECK: &str = "hit-rate";
    if !is_warm(opcache) {
        return None;
    }
    let below = |limit: Option<f64>| limit.filter(|limit| opcache.hit_rate < *limit);
    let words = |limit| format!("opcache's hit rate is {:.3}%, below the limit of {limit}%", opcache.hit_rate);
    if let Some(limit) = below(limits.hit_rate.limit()) {
        return Some(Finding { level: Level::Critical, ..warning(CHECK, words(limit)) });
    }
    below(limits.hit_rate_warning.limit()).map(|limit| warning(CHECK, words(limit)))
}

/// Whether the hit rate says anything yet.
pub fn is_warm(opcache: &OpcacheFigures) -> bool {
    opcache.hits > opcache.cached_scripts.saturating_mul(WARM)
}

fn restart_of_its_own(opcache: &OpcacheFigures) -> Option<Finding> {
    let words = match (opcache.restart_in_progress, opcache.restart_pending) {
        (true, _) => "opcache is restarting itself under requests now",
        (false, true) => "opcache waits for requests to end, to restart itself",
        (false, false) => return None,
    };
    Some(warning("restart-of-its-own", words))
}

fn fine(check: &'static str, message: impl Into<String>) -> Finding {
    Finding {
        check,
        level: Level::Ok,
        remedy: None,
        message: message.into(),
        code: None,
        threshold: None,
        is_not_cured: false,
    }
}

fn warning(check: &'static str, message: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..fine(check, message) }
}

fn cured_by_restart(check: &'static str, limit: u64, of: u64, message: impl Into<String>) -> Finding {
    let threshold = Some(Threshold { check: Cow::Borrowed(check), limit, of });
    Finding { level: Level::Critical, remedy: Some(Remedy::Restart), threshold, ..fine(check, message) }
}

fn unknown(check: &'static str, message: impl Into<String>) -> Finding {
    Finding { level: Level::Unknown, code: Some(ExitCode::Unreachable), ..fine(check, message) }
}

/// A limit that is crossed also by an empty cache: the mistake is the limit's, and restarting for it would never end.
fn unmeetable(check: &'static str, message: impl Into<String>) -> Finding {
    Finding { code: Some(ExitCode::Configuration), ..unknown(check, message) }
}

/// A percentage as a person reads it, never rounded up to a limit that it does not reach.
pub fn percent(number: f64) -> String {
    format!("{:.1}%", (number * 10.0).floor() / 10.0)
}

#[cfg(test)]
pub mod tests;
