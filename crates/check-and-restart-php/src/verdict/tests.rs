//! Every check at its limit, just beside it, and switched off.

use php_fpm::{ApcuFigures, ApcuUsage, InternedStrings};

use super::*;
use crate::cli::tests::parse;

/// 1 GiB, half of it free, nothing wrong.
pub fn opcache() -> OpcacheFigures {
    OpcacheFigures {
        cache_full: false,
        restart_pending: false,
        restart_in_progress: false,
        used_memory: 512 * MIB,
        free_memory: 512 * MIB,
        wasted_memory: 0,
        wasted_percentage: 0.0,
        interned_strings: Some(InternedStrings {
            buffer_size: 50 * MIB,
            used_memory: 25 * MIB,
            free_memory: 25 * MIB,
            strings: 1000,
        }),
        cached_scripts: 1000,
        cached_keys: 1200,
        max_cached_keys: 32_531,
        hits: 10_000_001,
        misses: 100,
        hit_rate: 99.999,
        start_time: 1_795_400_000,
        last_restart_time: None,
        oom_restarts: 0,
        hash_restarts: 0,
        manual_restarts: 0,
    }
}

pub fn apcu_figures(fragmentation: f64) -> Apcu {
    let usage = ApcuUsage {
        free_blocks: 10,
        memory_size: 100 * MIB,
        memory_free: 25 * MIB,
        entries: 1,
        hits: 2,
        misses: 3,
        inserts: 4,
        expunges: 5,
    };
    Apcu::On(ApcuFigures { fragmentation, usage: Some(usage) })
}

pub fn figures(change: impl FnOnce(&mut OpcacheFigures)) -> Figures {
    let mut opcache = opcache();
    change(&mut opcache);
    Figures { php: Some("8.2.32".to_owned()), opcache: Opcache::On(Box::new(opcache)), apcu: apcu_figures(10.0) }
}

/// The limits of a command line.
pub fn limits(arguments: &str) -> Limits {
    parse(&format!("x {arguments}")).unwrap().limits()
}

/// `CHECK LEVEL REMEDY` of each finding.
fn found(figures: &Figures, arguments: &str) -> Vec<String> {
    let limits = limits(arguments);
    let verdict = verdict(figures, &limits).with_demand(&limits);
    let line = |one: &Finding| match one.remedy {
        Some(remedy) => format!("{} {:?} {remedy:?}", one.check, one.level),
        None => format!("{} {:?}", one.check, one.level),
    };
    verdict.findings.iter().map(line).collect()
}

fn message(figures: &Figures, arguments: &str) -> String {
    verdict(figures, &limits(arguments)).findings[0].message.clone()
}

#[test]
fn a_cache_as_it_should_be_has_no_findings() {
    assert_eq!(found(&figures(|_| {}), "200"), [""; 0]);
    assert_eq!(verdict(&figures(|_| {}), &limits("200")).level(), Level::Ok);
}

#[test]
fn free_memory_counts_in_whole_mebibytes_and_at_the_limit() {
    let free = |free: u64| figures(|opcache| opcache.free_memory = free);
    let table: [(u64, &str, &[&str]); 8] = [
        (201 * MIB, "200", &[]),
        (201 * MIB - 1, "200", &["free-memory Critical Restart"]),
        (200 * MIB, "200", &["free-memory Critical Restart"]),
        (0, "200", &["free-memory Critical Restart"]),
        (0, "0", &[]),
        (300 * MIB, "200 --warn-free 300", &["free-memory Warning"]),
        (301 * MIB, "200 --warn-free 300", &[]),
        (100 * MIB, "0 --warn-free 300", &["free-memory Warning"]),
    ];
    for (bytes, arguments, expected) in table {
        assert_eq!(found(&free(bytes), arguments), expected, "{bytes} {arguments}");
    }
    assert_eq!(message(&free(150 * MIB), "200"), "opcache has 150 of 662 MiB free, at or below the limit of 200");
}

#[test]
fn a_limit_that_an_empty_cache_crosses_is_a_mistake_and_restarts_nothing() {
    let all = figures(|_| {});
    assert_eq!(found(&all, "1023"), ["free-memory Critical Restart"]);
    for limit in ["1024", "9223372036854775806"] {
        let verdict = verdict(&all, &limits(limit));
        let [finding] = &verdict.findings[..] else { panic!("{verdict:?}") };
        assert_eq!(
            (finding.level, finding.remedy, finding.code),
            (Level::Unknown, None, Some(ExitCode::Configuration))
        );
    }
    let few = figures(|opcache| opcache.max_cached_keys = 3907);
    assert_eq!(found(&few, "200"), ["free-keys Unknown"]);
    assert_eq!(
        message(&few, "200"),
        "the limit of 5000 free keys cannot be met: opcache has room for 3907 in all (--min-free-keys)"
    );
}

#[test]
fn the_deploy_tool_gets_its_restart_whatever_the_figures_say() {
    let always = "9223372036854775807";
    assert_eq!(found(&figures(|_| {}), always), ["demand Critical Restart"]);
    let off = Figures { opcache: Opcache::Off, ..figures(|_| {}) };
    assert_eq!(found(&off, always), ["demand Critical Restart", "opcache Unknown"]);
}

#[test]
fn keys_within_the_limit_of_the_most_restart() {
    let keys = |free: u64| figures(|opcache| opcache.cached_keys = 32_531 - free);
    assert_eq!(found(&keys(5001), "200"), [""; 0]);
    assert_eq!(found(&keys(5000), "200"), ["free-keys Critical Restart"]);
    assert_eq!(found(&keys(0), "200 --min-free-keys 0"), [""; 0]);
    assert_eq!(found(&keys(5000), "200 --min-free-keys 4999"), [""; 0]);
    let more_than_fit = figures(|opcache| opcache.cached_keys = 40_000);
    assert_eq!(found(&more_than_fit, "200"), ["free-keys Critical Restart"]);
}

#[test]
fn apcu_in_pieces_is_cleared_and_nothing_restarted() {
    let apcu = |apcu| Figures { apcu, ..figures(|_| {}) };
    let table: [(Apcu, &str, &[&str]); 8] = [
        (apcu_figures(94.9), "200", &[]),
        (apcu_figures(95.0), "200", &["apcu-fragmentation Critical ClearApcu"]),
        (apcu_figures(100.0), "200", &["apcu-fragmentation Critical ClearApcu"]),
        (apcu_figures(100.0), "200 --max-apcu-fragmentation 0", &[]),
        (Apcu::Off, "200", &["apcu-fragmentation Ok"]),
        (Apcu::Missing, "200", &["apcu-fragmentation Ok"]),
        (Apcu::Refused("x".to_owned()), "200", &["apcu-fragmentation Unknown"]),
        (Apcu::Refused("x".to_owned()), "200 --max-apcu-fragmentation 0", &[]),
    ];
    for (state, arguments, expected) in table {
        assert_eq!(found(&apcu(state.clone()), arguments), expected, "{state:?} {arguments}");
    }
    assert_eq!(
        message(&apcu(apcu_figures(99.96)), "200"),
        "APCu's free memory is 99.9% in pieces, at or above the limit of 95%, 75% of it in use"
    );
    assert!(verdict(&apcu(apcu_figures(100.0)), &limits("200")).restart().is_none());
    // Whatever a pool tells, there is an answer.
    let mut told = apcu_figures(100.0);
    if let Apcu::On(ApcuFigures { usage: Some(usage), .. }) = &mut told {
        (usage.memory_size, usage.memory_free) = (u64::MAX, u64::MAX / 2);
    }
    assert!(message(&apcu(told), "200").ends_with("51% of it in use"));
}

#[test]
fn a_full_cache_restarts_unless_told_otherwise() {
    let full = figures(|opcache| opcache.cache_full = true);
    assert_eq!(found(&full, "200"), ["cache-full Critical Restart"]);
    assert_eq!(found(&full, "200 --cache-full warn"), ["cache-full Warning"]);
    assert_eq!(found(&full, "200 --cache-full 0"), [""; 0]);
}

#[test]
fn what_a_restart_does_not_cure_is_only_said() {
    type Change = fn(&mut OpcacheFigures);
    let table: [(Change, &str, &[&str]); 15] = [
        (|opcache| opcache.wasted_percentage = 5.0, "200", &["wasted Warning"]),
        (|opcache| opcache.wasted_percentage = 4.9, "200", &[]),
        (|opcache| opcache.wasted_percentage = 50.0, "200 --max-wasted 0", &[]),
        (|opcache| opcache.interned_strings.as_mut().unwrap().free_memory = 0, "200", &["interned-strings Warning"]),
        (|opcache| opcache.interned_strings.as_mut().unwrap().free_memory = 0, "200 --max-interned-strings 0", &[]),
        (|opcache| opcache.interned_strings = None, "200", &[]),
        (|opcache| opcache.oom_restarts = 1, "200", &["self-restarts Warning"]),
        (|opcache| opcache.hash_restarts = 1, "200", &["self-restarts Warning"]),
        (|opcache| opcache.oom_restarts = 1, "200 --max-self-restarts 2", &[]),
        (|opcache| opcache.oom_restarts = 9, "200 --max-self-restarts 0", &[]),
        (|opcache| opcache.hit_rate = 99.98, "200", &["hit-rate Warning"]),
        (|opcache| opcache.hit_rate = 99.84, "200", &["hit-rate Critical"]),
        (|opcache| opcache.hit_rate = 10.0, "200 --min-hit-rate 0 --warn-hit-rate 0", &[]),
        (|opcache| opcache.restart_pending = true, "200", &["restart-of-its-own Warning"]),
        (|opcache| opcache.restart_in_progress = true, "200", &["restart-of-its-own Warning"]),
    ];
    for (change, arguments, expected) in table {
        assert_eq!(found(&figures(change), arguments), expected, "{arguments}");
    }
}

/// Whatever code a pool runs could answer in the place of the helper script.
#[test]
fn figures_that_no_cache_has_are_judged_and_said_all_the_same() {
    const MOST: u64 = u64::MAX;
    let odd = figures(|opcache| {
        *opcache = OpcacheFigures {
            used_memory: MOST,
            free_memory: MOST,
            wasted_memory: MOST,
            wasted_percentage: f64::MAX,
            interned_strings: Some(InternedStrings {
                buffer_size: 0,
                used_memory: MOST,
                free_memory: MOST,
                strings: MOST,
            }),
            cached_scripts: MOST,
            cached_keys: MOST,
            max_cached_keys: MOST,
            hits: MOST,
            misses: MOST,
            hit_rate: f64::MAX,
            start_time: MOST,
            last_restart_time: Some(MOST),
            oom_restarts: MOST,
            hash_restarts: MOST,
            manual_restarts: MOST,
            ..opcache.clone()
        };
    });
    assert_eq!(interned_strings_used(crate::report::opcache(&odd).unwrap()), Some(50.0));
    let mut unit = crate::report::tests::asked("a", odd, "200");
    unit.outlook = Some(crate::outlook::Outlook::At { memory: Some(MOST), keys: Some(0) });
    assert_eq!(unit.level(), Level::Critical);
    assert_eq!(crate::text::line(&unit, MOST).lines().count(), 1);
    let report = crate::report::Report { units: vec![unit], failures: Vec::new() };
    assert_eq!(crate::nagios::line(&report, &limits("200"), 0).lines().count(), 1);
    assert!(crate::metrics::figures(&report, MOST).contains("interned_strings_ratio{unit=\"a.service\"} 0.5\n"));
}

#[test]
fn a_hit_rate_counts_once_the_cache_is_warm() {
    let cold = figures(|opcache| (opcache.hits, opcache.hit_rate) = (10_000_000, 10.0));
    assert_eq!(found(&cold, "200"), [""; 0]);
    let warm = figures(|opcache| (opcache.hits, opcache.hit_rate) = (10_000_001, 10.0));
    assert_eq!(found(&warm, "200"), ["hit-rate Critical"]);
    let border = figures(|opcache| opcache.hit_rate = 99.85);
    assert_eq!(found(&border, "200"), ["hit-rate Warning"]);
    let many = figures(|opcache| (opcache.cached_scripts, opcache.hit_rate) = (u64::MAX, 10.0));
    assert_eq!(found(&many, "200"), [""; 0]);
}

#[test]
fn an_opcache_without_figures_is_unknown_and_apcu_is_looked_at_all_the_same() {
    let states = [Opcache::Off, Opcache::FilesOnly, Opcache::Missing, Opcache::Refused("why".to_owned())];
    for opcache in states {
        let figures = Figures { php: None, opcache: opcache.clone(), apcu: apcu_figures(99.0) };
        assert_eq!(found(&figures, "200"), ["opcache Unknown", "apcu-fragmentation Critical ClearApcu"], "{opcache:?}");
    }
}

#[test]
fn findings_stand_in_the_originals_order_and_the_worst_is_the_level() {
    let mut all = figures(|opcache| {
        opcache.free_memory = MIB;
        opcache.cached_keys = opcache.max_cached_keys;
        opcache.cache_full = true;
        opcache.hit_rate = 99.98;
    });
    all.apcu = apcu_figures(100.0);
    let verdict = verdict(&all, &limits("200"));
    let order: Vec<_> = verdict.findings.iter().map(|finding| finding.check).collect();
    assert_eq!(order, ["free-memory", "apcu-fragmentation", "free-keys", "cache-full", "hit-rate"]);
    assert_eq!(verdict.level(), Level::Critical);
    let because = verdict.restart().unwrap();
    assert_eq!(because.split("; ").count(), 3, "{because}");
    assert!(verdict.clearing().unwrap().starts_with("APCu's free memory is 100.0% in pieces"));
}
