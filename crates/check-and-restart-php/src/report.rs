//! What is known of each unit at the end of a run, and the exit code that follows.

use php_fpm::{Figures, Opcache, OpcacheFigures};
use restart_core::{ExitCode, Failure, UnitName};
use serde::Serialize;

use crate::last_restart::LastRestart;
use crate::outlook::Outlook;
use crate::verdict::{Level, Verdict};

/// A run.
#[derive(Debug, Default)]
pub struct Report {
    /// The units, in the order in which they were looked at.
    pub units: Vec<UnitReport>,
    /// What failed beside them: a file that could not be written, a list of units that could not be had.
    pub failures: Vec<Failure>,
}

/// One unit.
#[derive(Debug)]
pub struct UnitReport {
    /// Which one.
    pub unit: UnitName,
    /// Who was asked; `None` if nobody answered.
    pub asked: Option<String>,
    /// The figures that were judged.
    pub figures: Option<Figures>,
    /// What there is after something was done.
    pub after: Option<After>,
    /// What they mean.
    pub verdict: Verdict,
    /// What was done.
    pub done: Done,
    /// When opcache will be full, where readings are kept.
    pub outlook: Option<Outlook>,
    /// The last restart by this tool, as far as it is known, this one included.
    pub last_restart: Option<LastRestart>,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// A second reading.
#[derive(Debug)]
pub struct After {
    /// The figures; `None` if they could not be read again.
    pub figures: Option<Figures>,
    /// What they mean; after a restart, also what it has not cured.
    pub verdict: Verdict,
}

impl After {
    /// How bad they are.
    pub fn level(&self) -> Level {
        self.verdict.level()
    }
}

/// What was done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// Nothing was to be done.
    Nothing,
    /// It would be restarted.
    WouldRestart,
    /// APCu would be cleared.
    WouldClearApcu,
    /// `restart-php-fpm` was run, and ended with this code.
    Ran(u8),
    /// APCu was cleared.
    ClearedApcu,
    /// There is reason to restart, and it has to wait: the last restart is too near, or the one before it failed.
    Withheld,
    /// There would be reason to restart, had the last restart cured it.
    NoCure,
    /// It was attempted and did not come about.
    Failed,
}

impl UnitReport {
    pub fn new(unit: UnitName) -> Self {
        Self {
            unit,
            asked: None,
            figures: None,
            after: None,
            verdict: Verdict::default(),
            done: Done::Nothing,
            outlook: None,
            last_restart: None,
            failures: Vec::new(),
        }
    }

    /// Whether the figures that were judged are no more.
    pub fn is_changed(&self) -> bool {
        matches!(self.done, Done::Ran(0) | Done::ClearedApcu)
    }

    /// The figures as they are now, as far as they are known.
    pub fn latest(&self) -> Option<&Figures> {
        if self.is_changed() { self.after.as_ref()?.figures.as_ref() } else { self.figures.as_ref() }
    }

    /// How bad it is now.
    pub fn latest_level(&self) -> Level {
        match &self.after {
            Some(after) if self.is_changed() => after.level().max(self.failed()),
            _ => self.level(),
        }
    }

    /// What a restart has not cured, this one or an earlier one.
    pub fn not_cured(&self) -> Vec<&str> {
        let judged = self.after.as_ref().filter(|_| self.is_changed()).map_or(&self.verdict, |after| &after.verdict);
        judged.findings.iter().filter(|finding| finding.is_not_cured).map(|finding| finding.message.as_str()).collect()
    }

    fn failed(&self) -> Level {
        if self.failures.is_empty() { Level::Ok } else { Level::Unknown }
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        self.verdict.level().max(self.failed())
    }

    /// The worst of what could not be told or cured, what failed, and how the restart ended. Whoever asked for a restart whatever the figures
    /// say, and has it, is not told that there are none.
    fn code(&self) -> u8 {
        let is_demanded = self.verdict.findings.iter().any(|finding| finding.check == "demand");
        let untold = self.verdict.findings.iter().filter_map(|finding| finding.code);
        let after = self.after.iter().flat_map(|after| &after.verdict.findings).filter_map(|finding| finding.code);
        let untold = untold.chain(after).filter(|_| !is_demanded);
        let failed = self.failures.iter().map(|failure| failure.code);
        let ran = match self.done {
            Done::Ran(code) => code,
            _ => 0,
        };
        untold.chain(failed).map(ExitCode::number).chain([ran]).fold(0, worse)
    }
}

/// The figures of an opcache that works.
pub fn opcache(figures: &Figures) -> Option<&OpcacheFigures> {
    match &figures.opcache {
        Opcache::On(opcache) => Some(opcache),
        _ => None,
    }
}

impl Report {
    /// A run that ended before it began.
    pub fn refused(failure: Failure) -> Self {
        Self { units: Vec::new(), failures: vec![failure] }
    }

    /// The worst level.
    pub fn level(&self) -> Level {
        let failed = if self.failures.is_empty() { Level::Ok } else { Level::Unknown };
        self.units.iter().map(UnitReport::level).fold(failed, Ord::max)
    }

    /// The exit code of a run that may act: the worst of all.
    pub fn code(&self) -> u8 {
        let failed = self.failures.iter().map(|failure| failure.code.number());
        self.units.iter().map(UnitReport::code).chain(failed).fold(0, worse)
    }

    /// The exit code of a Nagios plugin.
    pub fn nagios_code(&self) -> u8 {
        match self.level() {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
            Level::Unknown => 3,
        }
    }
}

/// The worse of two exit codes: a host that is left out of its pools before one that perhaps is, before one that is as it was. What is
/// in no table, as the end by a signal, leaves everything open and is the worst.
fn worse(one: u8, other: u8) -> u8 {
    const FROM_BEST: [ExitCode; 10] = [
        ExitCode::Done,
        ExitCode::TryLater,
        ExitCode::Unreachable,
        ExitCode::Configuration,
        ExitCode::NotPermitted,
        ExitCode::Usage,
        ExitCode::Failed,
        ExitCode::RepoolUnconfirmed,
        ExitCode::PutBackUnconfirmed,
        ExitCode::LeftDepooled,
    ];
    let place = |code| FROM_BEST.iter().position(|known| known.number() == code).unwrap_or(FROM_BEST.len());
    if place(other) > place(one) { other } else { one }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cure;
    use crate::verdict::tests::{figures, limits};
    use crate::verdict::verdict;

    /// A unit that was asked and is as these arguments judge it.
    pub fn asked(name: &str, figures: Figures, arguments: &str) -> UnitReport {
        let mut report = UnitReport::new(UnitName::new(name).unwrap());
        report.asked = Some("pool 'www' at '/run/php/fpm.sock'".to_owned());
        report.verdict = verdict(&figures, &limits(arguments)).with_demand(&limits(arguments));
        report.figures = Some(figures);
        report
    }

    /// A unit that nobody could ask.
    pub fn unreadable(name: &str) -> UnitReport {
        let mut report = UnitReport::new(UnitName::new(name).unwrap());
        report.verdict = Verdict::unreadable(&Failure::new(ExitCode::Unreachable, "cannot read | it"));
        report
    }

    #[test]
    fn the_code_is_the_worst_of_all() {
        let table: [(&[u8], u8); 9] = [
            (&[], 0),
            (&[0, 75, 0], 75),
            (&[75, 69], 69),
            (&[69, 78, 77], 77),
            (&[77, 1], 1),
            (&[4, 1, 0], 4),
            (&[3, 5, 4], 3),
            (&[3, 137], 137),
            (&[137, 143], 137),
        ];
        for (codes, expected) in table {
            assert_eq!(codes.iter().copied().fold(0, worse), expected, "{codes:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_has_its_code_also_after_a_restart_that_went_well() {
        let mut unit = asked("a", figures(|opcache| opcache.free_memory = 0), "200");
        assert_eq!(unit.code(), 0);
        unit.done = Done::Ran(0);
        unit.verdict.findings.extend(unreadable("a").verdict.findings);
        assert_eq!(unit.code(), 69);
        unit.done = Done::Ran(3);
        assert_eq!(unit.code(), 3);
    }

    #[test]
    fn a_limit_that_a_restart_has_not_cured_is_a_wrong_configuration_unless_a_restart_was_demanded() {
        let crossed = || verdict(&figures(|opcache| opcache.free_memory = 0), &limits("200"));
        let after = || {
            let not_cured = cure::crossed_after(&crossed());
            After { figures: None, verdict: cure::without_those_not_cured(crossed(), &not_cured) }
        };
        let mut unit = asked("a", figures(|opcache| opcache.free_memory = 0), "200");
        (unit.done, unit.after) = (Done::Ran(0), Some(after()));
        assert_eq!((unit.code(), unit.not_cured().len()), (78, 1));
        unit.verdict = unit.verdict.with_demand(&limits("9223372036854775807"));
        assert_eq!(unit.code(), 0);
        // At the next look it is known.
        let mut unit = asked("a", figures(|opcache| opcache.free_memory = 0), "200");
        unit.verdict = after().verdict;
        unit.done = Done::NoCure;
        assert_eq!((unit.code(), unit.not_cured().len(), unit.level()), (78, 1, Level::Critical));
    }

    #[test]
    fn a_restart_on_demand_needs_no_figures() {
        let mut unit = unreadable("a");
        assert_eq!(unit.code(), 69);
        unit.verdict = unit.verdict.with_demand(&limits("9223372036854775807"));
        unit.done = Done::Ran(0);
        assert_eq!(unit.code(), 0);
    }

    #[test]
    fn a_monitors_levels() {
        let level = |units: Vec<UnitReport>| {
            let report = Report { units, failures: Vec::new() };
            (report.level(), report.nagios_code())
        };
        let fine = || asked("a", figures(|_| {}), "200");
        let full = || asked("b", figures(|opcache| opcache.free_memory = 0), "200");
        let odd = || asked("c", figures(|opcache| opcache.oom_restarts = 1), "200");
        assert_eq!(level(vec![fine()]), (Level::Ok, 0));
        assert_eq!(level(vec![fine(), odd()]), (Level::Warning, 1));
        assert_eq!(level(vec![odd(), unreadable("d")]), (Level::Unknown, 3));
        assert_eq!(level(vec![unreadable("d"), full()]), (Level::Critical, 2));
        let failed = Report::refused(Failure::new(ExitCode::Failed, "x"));
        assert_eq!((failed.nagios_code(), failed.code()), (3, 1));
    }
}
