//! When opcache will be full if it goes on filling as it does. Pure: readings in, a time out.
//!
//! A cache fills fast after a restart and ever more slowly later, so the present rate is that of the later half of the time since:
//! the line that fits these readings best. It is a guess, and said to be one; with too few readings it is not made.

use serde::{Deserialize, Serialize};

/// A rate needs at least so many readings...
pub const FEWEST: usize = 3;
/// ...over so many seconds.
pub const SHORTEST: u64 = 600;
/// What is further away than ten years is not filling, in seconds.
const FARTHEST: f64 = 10.0 * 365.25 * 86_400.0;

/// What was free at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Seconds since 1970.
    pub time: u64,
    /// Bytes.
    pub memory: u64,
    /// Keys.
    pub keys: u64,
}

/// When it will be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// There are too few readings since the last restart of the cache, or they are too near to each other.
    TooEarly {
        /// How many there are.
        readings: usize,
        /// Over how many seconds.
        seconds: u64,
    },
    /// There are enough.
    At {
        /// When no memory is left, in seconds since 1970; `None` if it is not filling.
        memory: Option<u64>,
        /// The same of keys.
        keys: Option<u64>,
    },
}

/// What the readings since the last restart of the cache, in order, lead one to expect.
pub fn outlook(samples: &[Sample]) -> Outlook {
    let seconds = match samples {
        [first, .., last] => last.time.saturating_sub(first.time),
        _ => 0,
    };
    if samples.len() < FEWEST || seconds < SHORTEST {
        return Outlook::TooEarly { readings: samples.len(), seconds };
    }
    let later = later_half(samples);
    Outlook::At { memory: when_gone(later, |sample| sample.memory), keys: when_gone(later, |sample| sample.keys) }
}

/// The readings of the later half of the time, at least [`FEWEST`].
fn later_half(samples: &[Sample]) -> &[Sample] {
    let [first, .., last] = samples else { return samples };
    let middle = first.time + last.time.saturating_sub(first.time) / 2;
    let from = samples.partition_point(|sample| sample.time < middle).min(samples.len().saturating_sub(FEWEST));
    &samples[from..]
}

/// When `what` is gone by the line of least squares through the samples, continued from the last of them.
fn when_gone(samples: &[Sample], what: impl Fn(&Sample) -> u64) -> Option<u64> {
    let last = samples.last()?;
    if what(last) == 0 {
        return Some(last.time);
    }
    // Seconds before the last: numbers of a size that a double is exact for.
    let points: Vec<(f64, f64)> =
        samples.iter().map(|sample| (-(last.time.saturating_sub(sample.time) as f64), what(sample) as f64)).collect();
    let count = points.len() as f64;
    let mean_time = points.iter().map(|(time, _)| time).sum::<f64>() / count;
    let mean_left = points.iter().map(|(_, left)| left).sum::<f64>() / count;
    let together: f64 = points.iter().map(|(time, left)| (time - mean_time) * (left - mean_left)).sum();
    let spread: f64 = points.iter().map(|(time, _)| (time - mean_time).powi(2)).sum();
    let seconds = what(last) as f64 / -(together / spread);
    // Not so if it is not filling, or if all readings are of one second.
    (0.0..FARTHEST).contains(&seconds).then(|| last.time.saturating_add(seconds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_795_400_000;

    /// Readings each `pace` seconds, of what is left at the n-th.
    fn every(pace: u64, left: &[u64]) -> Vec<Sample> {
        let sample =
            |(place, left): (usize, &u64)| Sample { time: START + pace * place as u64, memory: *left, keys: 100 };
        left.iter().enumerate().map(sample).collect()
    }

    fn memory(samples: &[Sample]) -> Option<u64> {
        match outlook(samples) {
            Outlook::At { memory, .. } => memory,
            early @ Outlook::TooEarly { .. } => panic!("{early:?}"),
        }
    }

    #[test]
    fn too_few_readings_or_too_near_ones_say_nothing() {
        assert_eq!(outlook(&[]), Outlook::TooEarly { readings: 0, seconds: 0 });
        assert_eq!(outlook(&every(86_400, &[10, 5])), Outlook::TooEarly { readings: 2, seconds: 86_400 });
        assert_eq!(outlook(&every(60, &[50, 40, 30, 20])), Outlook::TooEarly { readings: 4, seconds: 180 });
    }

    #[test]
    fn a_steady_rate_is_continued_from_the_last_reading() {
        // A tenth a day, seven tenths left.
        let samples = every(86_400, &[1000, 900, 800, 700]);
        assert_eq!(memory(&samples), Some(samples[3].time + 7 * 86_400));
        assert_eq!(outlook(&samples), Outlook::At { memory: memory(&samples), keys: None });
    }

    #[test]
    fn the_rush_after_a_restart_is_not_the_present_rate() {
        // Half of it within the first readings, then one at a time.
        let samples = every(3600, &[1000, 700, 550, 505, 504, 503, 502, 501, 500]);
        assert_eq!(memory(&samples), Some(samples[8].time + 500 * 3600));
    }

    #[test]
    fn what_is_not_filling_is_never_full() {
        assert_eq!(memory(&every(3600, &[500, 500, 500, 500])), None);
        assert_eq!(memory(&every(3600, &[500, 510, 520, 530])), None);
        let hardly = every(3600, &[1_000_000_000_000, 999_999_999_999, 999_999_999_998]);
        assert_eq!(memory(&hardly), None);
    }

    #[test]
    fn what_is_full_is_full_now() {
        let samples = every(3600, &[500, 0, 0, 0]);
        assert_eq!(memory(&samples), Some(samples[3].time));
    }

    #[test]
    fn no_readings_panic() {
        let same_second = vec![Sample { time: START, memory: 5, keys: 5 }; 9];
        assert_eq!(outlook(&same_second), Outlook::TooEarly { readings: 9, seconds: 0 });
        let far = [0, u64::MAX / 2, u64::MAX].map(|time| Sample { time, memory: u64::MAX - time, keys: time });
        assert!(matches!(outlook(&far), Outlook::At { .. }));
        let mut backwards = every(3600, &[5, 4, 3]);
        backwards.reverse();
        outlook(&backwards);
        // All but the first at one moment: the later half has no width.
        let mut late = every(3600, &[5, 4, 3, 2]);
        (late[1].time, late[2].time) = (late[3].time, late[3].time);
        assert_eq!(memory(&late), None);
    }
}
