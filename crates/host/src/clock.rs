//! The real clock behind the sequence's waits.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

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
}
