//! Whether a restart cures: a limit that is crossed again by the cache that a restart has just emptied would restart the host every
//! day for nothing. What was not cured is kept with the last restart, and nothing is restarted for it until the question is another
//! one: another limit, another size of the cache, or figures that do not cross it any more. Who asks something else meanwhile, as a
//! deploy tool that demands a restart, has not answered it. Pure; `run` asks and keeps.

use php_fpm::OpcacheFigures;
use restart_core::ExitCode;

use crate::limits::Limits;
use crate::verdict::{Remedy, Threshold, Verdict, restarts_for};

/// Marks what a restart did not cure: it is said, as the mistake of the limit that it is, and no reason for another restart.
pub fn without_those_not_cured(mut verdict: Verdict, not_cured: &[Threshold]) -> Verdict {
    for finding in &mut verdict.findings {
        if finding.remedy == Some(Remedy::Restart)
            && finding.threshold.as_ref().is_some_and(|threshold| not_cured.contains(threshold))
        {
            finding.remedy = None;
            finding.code = Some(ExitCode::Configuration);
            finding.is_not_cured = true;
            finding.message = format!("a restart does not cure this: {}", finding.message);
        }
    }
    verdict
}

/// What of it still holds: what these figures cross, and what these limits do not ask.
pub fn still_known(
    not_cured: &[Threshold],
    verdict: &Verdict,
    opcache: &OpcacheFigures,
    limits: &Limits,
) -> Vec<Threshold> {
    let asked = restarts_for(opcache, limits);
    let crossed = |known: &Threshold| verdict.findings.iter().any(|one| one.threshold.as_ref() == Some(known));
    not_cured.iter().filter(|known| crossed(known) || !asked.contains(known)).cloned().collect()
}

/// What a restart has not cured, by the figures right after it: every limit for which one would be restarted again.
pub fn crossed_after(verdict: &Verdict) -> Vec<Threshold> {
    let crossed = verdict.findings.iter().filter(|finding| finding.remedy == Some(Remedy::Restart));
    crossed.filter_map(|finding| finding.threshold.clone()).collect()
}

#[cfg(test)]
mod tests {
    use php_fpm::{Figures, Opcache};

    use super::*;
    use crate::verdict::tests::{figures, limits};
    use crate::verdict::{Level, MIB, verdict};

    /// So many MiB of 1024 are free, and so many keys of 32531.
    fn room(memory: u64, keys: u64) -> Figures {
        figures(|opcache| {
            opcache.free_memory = memory * MIB;
            opcache.used_memory = (1024 - memory) * MIB;
            opcache.cached_keys = opcache.max_cached_keys - keys;
        })
    }

    fn judged(memory: u64, keys: u64, arguments: &str) -> Verdict {
        let limits = limits(arguments);
        verdict(&room(memory, keys), &limits).with_demand(&limits)
    }

    #[test]
    fn nothing_is_restarted_for_what_a_restart_did_not_cure_until_the_question_is_another_one() {
        // Free MiB and keys and the limits right after a restart; the same at the next look; whether that restarts.
        let table = [
            ((1000, 30_000, "1010"), (1000, 30_000, "1010"), false, "the same again"),
            ((1000, 30_000, "1010"), (12, 30_000, "1010"), false, "the same limit, and less room"),
            ((1000, 30_000, "1010"), (1000, 30_000, "1005"), true, "another limit, crossed as well"),
            ((1000, 30_000, "1010"), (1000, 30_000, "900"), false, "another limit, not crossed"),
            ((1000, 30_000, "900"), (800, 30_000, "900"), true, "cured, and full again"),
            ((1000, 30_000, "1010"), (1000, 4000, "1010"), true, "another check crosses its limit as well"),
            (
                (1000, 30_000, "200 --min-free-keys 31000"),
                (1000, 9, "200 --min-free-keys 31000"),
                false,
                "keys, the same again",
            ),
            ((1000, 30_000, "1010"), (1000, 30_000, "9223372036854775807"), true, "a restart is demanded"),
        ];
        for ((memory, keys, arguments), then, restarts, what) in table {
            let not_cured = crossed_after(&judged(memory, keys, arguments));
            let (memory, keys, arguments) = then;
            let next = without_those_not_cured(judged(memory, keys, arguments), &not_cured);
            assert_eq!(next.restart().is_some(), restarts, "{what}: {next:?}");
        }
    }

    #[test]
    fn what_was_not_cured_is_said_as_a_wrong_configuration_and_stays_critical() {
        let all = judged(1000, 30_000, "1010");
        let marked = without_those_not_cured(all.clone(), &crossed_after(&all));
        let [finding] = &marked.findings[..] else { panic!("{marked:?}") };
        assert_eq!((finding.level, finding.code), (Level::Critical, Some(ExitCode::Configuration)));
        let words = "a restart does not cure this: opcache has 1000 of 1024 MiB free, at or below the limit of 1010";
        assert_eq!(finding.message, words);
        // With nothing known, nothing is changed.
        assert_eq!(without_those_not_cured(all.clone(), &[]), all);
    }

    /// What is still known of what was not cured, at a look at so much with these arguments.
    fn known(not_cured: &[Threshold], memory: u64, keys: u64, arguments: &str) -> Vec<Threshold> {
        let Opcache::On(opcache) = room(memory, keys).opcache else { panic!("it is on") };
        still_known(not_cured, &judged(memory, keys, arguments), &opcache, &limits(arguments))
    }

    #[test]
    fn it_is_forgotten_when_it_is_not_crossed_any_more() {
        const ARGUMENTS: &str = "1010 --min-free-keys 31000";
        let not_cured = crossed_after(&judged(1000, 30_000, ARGUMENTS));
        assert_eq!(not_cured.len(), 2, "{not_cured:?}");
        assert_eq!(known(&not_cured, 900, 29_000, ARGUMENTS), not_cured);
        assert_eq!(known(&not_cured, 1015, 29_000, ARGUMENTS), not_cured[1..]);
        assert_eq!(known(&not_cured, 1015, 32_000, ARGUMENTS), []);
    }

    #[test]
    fn it_is_not_forgotten_by_who_asks_something_else() {
        let not_cured = crossed_after(&judged(1000, 30_000, "1010"));
        for arguments in ["9223372036854775807", "1000", "1010 --min-free-keys 0"] {
            assert_eq!(known(&not_cured, 1000, 30_000, arguments), not_cured, "{arguments}");
        }
        assert_eq!(known(&not_cured, 1015, 30_000, "9223372036854775807"), not_cured);
        let full = [Threshold { check: "cache-full".into(), limit: 0, of: 1024 }];
        assert_eq!(known(&full, 1015, 30_000, "1010 --cache-full warn"), full);
        assert_eq!(known(&full, 1015, 30_000, "1010"), []);
    }

    #[test]
    fn a_cache_of_another_size_is_another_question() {
        let of = |total: u64| {
            let figures = figures(|opcache| {
                opcache.free_memory = 100 * MIB;
                opcache.used_memory = (total - 100) * MIB;
            });
            verdict(&figures, &limits("100"))
        };
        assert_eq!(without_those_not_cured(of(256), &crossed_after(&of(128))).restart(), of(256).restart());
        assert_eq!(without_those_not_cured(of(128), &crossed_after(&of(128))).restart(), None);
    }
}
