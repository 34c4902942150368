//! How often one load balancer is asked: fast at first, since a good one answers within milliseconds of the write, then ever
//! slower, so that a slow one is not stampeded. Pure arithmetic; [`crate::watch`] does the asking.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause while [`EAGER`] lasts.
const LONGEST_EAGER: Duration = Duration::from_millis(100);
/// PyBal sees a second event of one pool up to 0.9 s after it was written; twice that covers the usual case (measured on
/// PyBal 1.15: its watch on etcd opens again a second after it closed).
const EAGER: Duration = Duration::from_secs(2);
/// How much longer each pause is than the one before.
const GROWTH: f64 = 1.5;
/// The share of a pause that chance may take off. A pause is never made longer, so that the limits above hold. Half of
/// it keeps hosts that were asked together apart, and has a change seen a little sooner.
const JITTER: f64 = 0.5;

/// The pauses between the questions to one load balancer.
#[derive(Debug, Clone)]
pub struct Backoff {
    began: Duration,
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    /// Starts at the time `began`; no pause will be longer than `longest`.
    pub fn new(began: Duration, longest: Duration) -> Self {
        Self { began, pause: FIRST, longest }
    }

    /// The pause before the next question, given the time and a number in `0.0..1.0`.
    pub fn next(&mut self, now: Duration, jitter: f64) -> Duration {
        let eager = now.saturating_sub(self.began) < EAGER;
        let limit = if eager { self.longest.min(LONGEST_EAGER) } else { self.longest };
        let pause = self.pause.min(limit);
        self.pause = self.pause.mul_f64(GROWTH).min(limit.max(FIRST));
        pause.mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn starts_at_50_ms_and_stays_within_100_ms_for_two_seconds() {
        let mut backoff = Backoff::new(ms(7000), ms(3000));
        assert_eq!(backoff.next(ms(7000), 0.0), ms(50));
        assert_eq!(backoff.next(ms(7050), 0.0), ms(75));
        for _ in 0..20 {
            assert_eq!(backoff.next(ms(8999), 0.0), ms(100));
        }
    }

    #[test]
    fn grows_to_the_longest_pause_and_no_further() {
        let mut backoff = Backoff::new(ms(0), ms(3000));
        let pauses: Vec<_> = (0..20).map(|_| backoff.next(ms(5000), 0.0)).collect();
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&ms(3000)));
    }

    #[test]
    fn jitter_only_shortens() {
        for tenth in 0..10 {
            let pause = Backoff::new(ms(0), ms(3000)).next(ms(0), f64::from(tenth) / 10.0);
            assert!(pause <= ms(50) && pause >= ms(25), "{pause:?}");
        }
    }

    #[test]
    fn a_short_longest_pause_holds_from_the_start() {
        let mut backoff = Backoff::new(ms(0), ms(10));
        assert_eq!(backoff.next(ms(0), 0.0), ms(10));
        assert_eq!(backoff.next(ms(9000), 0.0), ms(10));
    }
}
