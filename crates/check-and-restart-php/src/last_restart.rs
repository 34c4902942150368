//! When this tool last had a unit restarted, in a file for each unit that outlives a reboot: a limit that a restart does not meet for
//! long must not restart a host, or a fleet, in a loop.
//!
//! It is on disk before the restart begins, so that a crash in the middle counts as one. Of two runs that see the same full cache
//! only one gets to restart: whoever writes has read under the same lock.

use std::path::Path;
use std::time::Duration;

use host::{FolderError, StateFolder};
use restart_core::UnitName;
use serde::{Deserialize, Serialize};

use crate::verdict::Threshold;

/// Root's own.
pub const FOLDER: &str = "/var/lib/check-and-restart-php";

const PURPOSE: &str = "the time of the last restart";

/// A record has some 100 bytes and a reason.
const LONGEST: u64 = 64 * 1024;

/// What stands there for no restart at all.
const NEVER: u64 = 0;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRestart {
    /// When it was begun, in seconds since 1970.
    pub began: u64,
    /// Why.
    pub because: String,
    /// What a restart has not cured, this one or, until the figures after this one are judged, one before it. Older records have none.
    #[serde(default)]
    pub not_cured: Vec<Threshold>,
}

/// Whether a restart may begin.
#[derive(Debug, PartialEq, Eq)]
pub enum Leave {
    /// It is written down, and may.
    Granted,
    /// The last one is too near.
    TooSoon {
        /// The last one.
        last: LastRestart,
        /// When the next may come, in seconds since 1970.
        next: u64,
    },
}

/// Writes down that a restart begins, unless the last one was less than `interval` ago.
pub fn begin(folder: &Path, unit: &UnitName, this: &LastRestart, interval: Duration) -> Result<Leave, FolderError> {
    let folder = StateFolder::lock(folder, PURPOSE)?;
    let name = file(unit);
    let last = read(&folder, &name)?;
    if let Some(last) = last
        && let Some(next) = next(&last, this.began, interval)
    {
        return Ok(Leave::TooSoon { last, next });
    }
    write(&folder, &name, this)?;
    Ok(Leave::Granted)
}

/// Puts another record in the place of this one, if it still stands: another run may have begun a restart meanwhile.
pub fn replace(folder: &Path, unit: &UnitName, this: &LastRestart, by: &LastRestart) -> Result<(), FolderError> {
    let folder = StateFolder::lock(folder, PURPOSE)?;
    let name = file(unit);
    if read(&folder, &name)?.as_ref() == Some(this) { write(&folder, &name, by) } else { Ok(()) }
}

/// Takes back that a restart was begun, since it was not: what was there before is there again. A crash in between counts as a
/// restart.
pub fn take_back(
    folder: &Path,
    unit: &UnitName,
    this: &LastRestart,
    before: Option<&LastRestart>,
) -> Result<(), FolderError> {
    let never = LastRestart { began: NEVER, because: String::new(), not_cured: Vec::new() };
    replace(folder, unit, this, before.unwrap_or(&never))
}

/// The last restart of a unit.
pub fn look(folder: &Path, unit: &UnitName) -> Result<Option<LastRestart>, FolderError> {
    match StateFolder::look(folder, PURPOSE)? {
        Some(folder) => read(&folder, &file(unit)),
        None => Ok(None),
    }
}

/// When the next restart may come, if not now. A last one that lies ahead is the doing of a clock that was set back since: it counts
/// as far as the interval reaches and no further, so that nothing is blocked for ever.
pub fn next(last: &LastRestart, now: u64, interval: Duration) -> Option<u64> {
    (now.abs_diff(last.began) < interval.as_secs()).then(|| last.began.saturating_add(interval.as_secs()))
}

fn file(unit: &UnitName) -> String {
    format!("{unit}.json")
}

/// One that cannot be understood is as good as none: the next takes its place.
fn read(folder: &StateFolder, name: &str) -> Result<Option<LastRestart>, FolderError> {
    let Some(bytes) = folder.read(name, LONGEST)? else { return Ok(None) };
    let record = serde_json::from_slice(&bytes);
    if let Err(error) = &record {
        log::warn!("cannot understand '{}', and do without it: {error}", folder.path(name).display());
    }
    Ok(record.ok().filter(|last: &LastRestart| last.began != NEVER))
}

fn write(folder: &StateFolder, name: &str, record: &LastRestart) -> Result<(), FolderError> {
    let text = serde_json::to_vec(record).map_err(|error| FolderError::Io {
        what: "write",
        path: folder.path(name),
        purpose: PURPOSE,
        source: error.into(),
    })?;
    folder.write(name, &text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: u64 = 1_795_454_175;

    fn unit() -> UnitName {
        UnitName::new("php8.2-fpm").unwrap()
    }

    fn at(began: u64) -> LastRestart {
        LastRestart { began, because: "full".to_owned(), not_cured: Vec::new() }
    }

    fn not_curing(began: u64) -> LastRestart {
        let threshold = Threshold { check: "free-memory".into(), limit: 120, of: 128 };
        LastRestart { not_cured: vec![threshold], ..at(began) }
    }

    fn begin_at(folder: &Path, began: u64) -> Leave {
        begin(folder, &unit(), &at(began), HOUR).unwrap()
    }

    #[test]
    fn a_restart_that_was_not_made_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        assert_eq!(begin_at(&folder, NOW), Leave::Granted);
        take_back(&folder, &unit(), &at(NOW), None).unwrap();
        assert_eq!(look(&folder, &unit()).unwrap(), None);
        assert_eq!(begin_at(&folder, NOW + 1), Leave::Granted);
        take_back(&folder, &unit(), &at(NOW + 1), Some(&at(NOW - 7200))).unwrap();
        assert_eq!(look(&folder, &unit()).unwrap(), Some(at(NOW - 7200)));
        // Not that of another run.
        assert_eq!(begin_at(&folder, NOW + 2), Leave::Granted);
        take_back(&folder, &unit(), &at(NOW + 1), None).unwrap();
        assert_eq!(look(&folder, &unit()).unwrap(), Some(at(NOW + 2)));
    }

    #[test]
    fn what_was_not_cured_is_kept_with_the_restart_that_it_is_about() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        begin_at(&folder, NOW);
        replace(&folder, &unit(), &at(NOW), &not_curing(NOW)).unwrap();
        assert_eq!(look(&folder, &unit()).unwrap(), Some(not_curing(NOW)));
        // Not of another one.
        begin_at(&folder, NOW + 3600);
        replace(&folder, &unit(), &not_curing(NOW), &at(NOW)).unwrap();
        assert_eq!(look(&folder, &unit()).unwrap(), Some(at(NOW + 3600)));
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        begin_at(&folder, 1);
        fs::write(folder.join("php8.2-fpm.service.json"), "{\"began\":5,\"because\":\"full\"}").unwrap();
        assert_eq!(look(&folder, &unit()).unwrap(), Some(at(5)));
    }

    #[test]
    fn the_next_restart_waits_for_the_interval() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("state");
        assert_eq!(look(&folder, &unit()).unwrap(), None);
        assert_eq!(begin_at(&folder, NOW), Leave::Granted);
        assert_eq!(begin_at(&folder, NOW + 3599), Leave::TooSoon { last: at(NOW), next: NOW + 3600 });
        assert_eq!(look(&folder, &unit()).unwrap(), Some(at(NOW)), "one that was not granted is not kept");
        assert_eq!(begin(&folder, &UnitName::new("php7.4-fpm").unwrap(), &at(NOW), HOUR).unwrap(), Leave::Granted);
        assert_eq!(begin_at(&folder, NOW + 3600), Leave::Granted);
        assert_eq!(begin(&folder, &unit(), &at(NOW + 3600), Duration::ZERO).unwrap(), Leave::Granted);
    }

    #[test]
    fn a_clock_that_was_set_back_blocks_for_the_interval_at_most() {
        let table = [(0, true), (3599, true), (3600, false), (100_000, false)];
        for (ahead, is_blocked) in table {
            assert_eq!(next(&at(NOW + ahead), NOW, HOUR).is_some(), is_blocked, "{ahead}");
        }
        // What blocked at first does so for twice the interval at most.
        assert_eq!(next(&at(NOW + 3599), NOW + 3599 + 3600, HOUR), None);
        assert_eq!(next(&at(u64::MAX), NOW, HOUR), None);
    }

    #[test]
    fn what_is_damaged_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("state");
        begin_at(&folder, NOW);
        for text in ["", "{", "{}", "{\"began\":-1,\"because\":\"\"}", "\0\0\0"] {
            fs::write(folder.join("php8.2-fpm.service.json"), text).unwrap();
            assert_eq!(look(&folder, &unit()).unwrap(), None);
            assert_eq!(begin_at(&folder, NOW), Leave::Granted);
            assert_eq!(look(&folder, &unit()).unwrap(), Some(at(NOW)));
        }
    }

    #[test]
    fn what_cannot_be_written_down_is_not_begun() {
        let error = begin(Path::new("/nonexistent/deeper"), &unit(), &at(NOW), HOUR).unwrap_err().to_string();
        assert!(error.starts_with("cannot make '/nonexistent/deeper' for the time of the last restart"), "{error}");
    }

    #[test]
    fn of_many_who_see_the_same_only_one_restarts() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("state");
        let granted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    if begin_at(&folder, NOW) == Leave::Granted {
                        granted.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(granted.into_inner(), 1);
    }
}
