//! Readings of the past, in one file for all units: JSON of a bounded size, replaced as a whole. A restart of the cache, by PHP-FPM or
//! by itself, begins a unit's readings anew; what was before says nothing of how it fills now.

use std::collections::BTreeMap;
use std::path::Path;

use host::StateFolder;
use php_fpm::OpcacheFigures;
use restart_core::{ExitCode, Failure, UnitName};
use serde::{Deserialize, Serialize};

use crate::outlook::Sample;

const PURPOSE: &str = "the readings of the past";

/// The readings of a unit; where there are more, every other one of the older half goes, so that what is older is kept more sparsely.
const MOST_SAMPLES: usize = 256;
/// The units; where there are more, the one whose last reading is oldest goes.
const MOST_UNITS: usize = 32;
/// Of a reading with the longest numbers, doubled.
const LONGEST: u64 = (MOST_UNITS * MOST_SAMPLES * 256) as u64;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    /// Changes when the format does.
    version: u32,
    units: BTreeMap<UnitName, Series>,
}

/// The readings of one unit since its cache began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    /// When opcache was started, by its own clock.
    started: u64,
    /// When it last restarted itself.
    restarted: Option<u64>,
    samples: Vec<Sample>,
}

const VERSION: u32 = 1;

impl Default for History {
    fn default() -> Self {
        Self { version: VERSION, units: BTreeMap::new() }
    }
}

/// Adds a reading, and returns all of this life of the cache. With `keep` it is kept, otherwise the file is left as it is.
pub fn add(
    path: &Path,
    unit: &UnitName,
    opcache: &OpcacheFigures,
    now: u64,
    keep: bool,
) -> Result<Vec<Sample>, Failure> {
    let wrong = |why: String| {
        // Some other program's file is not to be replaced.
        let message = format!("cannot use '{}' for {PURPOSE}: {why}: remove it", path.display());
        Failure::new(ExitCode::Configuration, message)
    };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(wrong("it names no file".to_owned()));
    };
    let folder = match keep {
        true => Some(StateFolder::lock(folder, PURPOSE)?),
        false => StateFolder::look(folder, PURPOSE)?,
    };
    let found = folder.as_ref().map(|folder| folder.read(name, LONGEST)).transpose()?.flatten();
    let mut history = found.map_or(Ok(History::default()), |bytes| parse(&bytes)).map_err(wrong)?;
    let samples = history.add(unit, opcache, now);
    if let (Some(folder), true) = (folder, keep) {
        let text = serde_json::to_vec(&history).map_err(|error| wrong(error.to_string()))?;
        folder.write(name, &text)?;
    }
    Ok(samples)
}

fn parse(bytes: &[u8]) -> Result<History, String> {
    let history: History = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if history.version != VERSION {
        return Err(format!("its version is {}, and not {VERSION}", history.version));
    }
    Ok(history)
}

impl History {
    fn add(&mut self, unit: &UnitName, opcache: &OpcacheFigures, now: u64) -> Vec<Sample> {
        let (started, restarted) = (opcache.start_time, opcache.last_restart_time);
        let new = || Series { started, restarted, samples: Vec::new() };
        let series = self.units.entry(unit.clone()).or_insert_with(new);
        if (series.started, series.restarted) != (started, restarted) {
            *series = new();
        }
        // Of a clock that was set back since.
        series.samples.retain(|sample| sample.time < now);
        series.samples.push(Sample { time: now, memory: opcache.free_memory, keys: opcache.free_keys() });
        if series.samples.len() > MOST_SAMPLES {
            let older = series.samples.len() / 2;
            let mut place = 0;
            series.samples.retain(|_| {
                place += 1;
                place > older || place % 2 == 1
            });
        }
        let samples = series.samples.clone();
        while self.units.len() > MOST_UNITS {
            let last = |series: &Series| series.samples.last().map(|sample| sample.time);
            let oldest = self.units.iter().min_by_key(|(_, series)| last(series)).map(|(unit, _)| unit.clone());
            oldest.and_then(|unit| self.units.remove(&unit));
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::verdict::tests::opcache;

    const NOW: u64 = 1_795_454_175;

    fn unit(name: &str) -> UnitName {
        UnitName::new(name).unwrap()
    }

    struct Place {
        base: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { base: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> std::path::PathBuf {
            self.base.path().join("state/opcache.history")
        }

        fn add(&self, name: &str, opcache: &OpcacheFigures, now: u64) -> Vec<u64> {
            let samples = add(&self.path(), &unit(name), opcache, now, true).unwrap();
            samples.iter().map(|sample| sample.time - NOW).collect()
        }
    }

    #[test]
    fn readings_add_up_for_each_unit_by_itself() {
        let place = Place::new();
        assert_eq!(place.add("a", &opcache(), NOW), [0]);
        assert_eq!(place.add("b", &opcache(), NOW + 1), [1]);
        assert_eq!(place.add("a", &opcache(), NOW + 2), [0, 2]);
        let text = fs::read_to_string(place.path()).unwrap();
        assert!(
            text.starts_with(r#"{"version":1,"units":{"a.service":{"started":1795400000,"restarted":null,"#),
            "{text}"
        );
    }

    #[test]
    fn a_look_keeps_nothing() {
        let place = Place::new();
        let look = |now| add(&place.path(), &unit("a"), &opcache(), now, false).unwrap().len();
        assert_eq!(look(NOW), 1);
        assert!(!place.path().parent().unwrap().exists());
        place.add("a", &opcache(), NOW);
        assert_eq!((look(NOW + 1), look(NOW + 2)), (2, 2));
    }

    #[test]
    fn a_restart_begins_anew() {
        let place = Place::new();
        place.add("a", &opcache(), NOW);
        let restarted = OpcacheFigures { start_time: NOW + 5, ..opcache() };
        assert_eq!(place.add("a", &restarted, NOW + 10), [10]);
        let by_itself = OpcacheFigures { last_restart_time: Some(NOW + 15), ..restarted };
        assert_eq!(place.add("a", &by_itself, NOW + 20), [20]);
        assert_eq!(place.add("a", &by_itself, NOW + 30), [20, 30]);
    }

    #[test]
    fn a_clock_that_was_set_back_takes_its_readings_with_it() {
        let place = Place::new();
        for seconds in [0, 10, 20] {
            place.add("a", &opcache(), NOW + seconds);
        }
        assert_eq!(place.add("a", &opcache(), NOW + 10), [0, 10]);
    }

    #[test]
    fn it_stays_bounded_and_keeps_the_first_and_the_last() {
        let mut history = History::default();
        let mut most = 0;
        for now in 0..10_000 {
            most = most.max(history.add(&unit("a"), &opcache(), NOW + now).len());
        }
        assert_eq!(most, MOST_SAMPLES);
        let samples = &history.units[&unit("a")].samples;
        assert_eq!((samples[0].time, samples.last().unwrap().time), (NOW, NOW + 9999));
        assert!(samples.is_sorted_by(|one, other| one.time < other.time));
        for number in 0..100 {
            history.add(&unit(&format!("u{number}")), &opcache(), NOW + 20_000 + number);
        }
        assert_eq!(history.units.len(), MOST_UNITS);
        assert!(history.units.contains_key(&unit("u99")) && !history.units.contains_key(&unit("a")));
        assert!(serde_json::to_vec(&history).unwrap().len() < LONGEST as usize);
    }

    #[test]
    fn another_programs_file_is_not_replaced() {
        let place = Place::new();
        place.add("a", &opcache(), NOW);
        for text in ["root:x:0", "{}", r#"{"version":2,"units":{}}"#, r#"{"version":1,"units":{},"more":1}"#] {
            fs::write(place.path(), text).unwrap();
            let failure = add(&place.path(), &unit("a"), &opcache(), NOW, true).unwrap_err();
            assert_eq!(failure.code, ExitCode::Configuration, "{failure}");
            assert!(failure.message.ends_with(": remove it"), "{failure}");
            assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
        }
    }
}
