//! The real clock behind the sequence's waits, and the time of day for people.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use restart_core::Clock;

/// Time since it was made, by `CLOCK_MONOTONIC`: setting the wall clock neither shortens nor lengthens a wait.
#[derive(Debug)]
pub struct Monotonic {
    began: Instant,
}

impl Monotonic {
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self { began: Instant::now() }
    }
}

impl Default for Monotonic {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sleeps the whole `time`, signals or not: std's sleep goes on after an interruption.
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// std seeds its hash maps from the kernel's random numbers, once a thread, and makes each `RandomState` differ from the
    /// one before. Hashing a constant with it is chance enough to keep hosts out of step, without a crate for it.
    fn jitter(&self) -> f64 {
        /// A double holds 53 bits exactly.
        const BITS: u32 = 53;
        let random = RandomState::new().hash_one(0u8) >> (u64::BITS - BITS);
        random as f64 / (1u64 << BITS) as f64
    }
}

/// The time of day in RFC 3339, UTC, to the second: `2026-11-23T17:16:15Z`. For people, not for arithmetic.
pub fn now_utc() -> String {
    utc(SystemTime::now())
}

/// A time as [`now_utc`] writes it. One that the format has no room for (a file may carry any time) becomes the nearest that it
/// has.
pub fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(within_reach(time)).to_string()
}

/// The same to the millisecond, for comparing: within the second in which something began, something else may have ended.
pub fn utc_exact(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(within_reach(time)).to_string()
}

fn within_reach(time: SystemTime) -> SystemTime {
    /// The last second of the year 9999, in seconds since 1970.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).min(LAST);
    SystemTime::UNIX_EPOCH + since_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_by_at_least_what_was_slept() {
        let clock = Monotonic::new();
        let before = clock.now();
        clock.sleep(Duration::from_millis(20));
        assert!(clock.now() >= before + Duration::from_millis(20));
    }

    #[test]
    fn jitter_is_spread_over_the_unit_interval_and_changes() {
        let clock = Monotonic::new();
        let drawn: Vec<f64> = (0..1000).map(|_| clock.jitter()).collect();
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        assert!(drawn.iter().any(|x| *x < 0.2) && drawn.iter().any(|x| *x > 0.8));
        assert!(drawn.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn any_time_can_be_written() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(utc(epoch + Duration::from_millis(1_795_454_175_999)), "2026-11-23T17:16:15Z");
        assert_eq!(utc(epoch - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        assert_eq!(utc(epoch + Duration::from_secs(1 << 50)), "9999-12-31T23:59:59Z");
    }
}
