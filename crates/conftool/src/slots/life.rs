//! Whether a lease is alive, judged by our own clock. etcd deletes a lease once it has not heard of us for the time to live; it
//! heard of us after we sent, so that what is counted from the sending ends on our side first. Once over it stays over: what
//! etcd says later was true of a moment that has passed.

use std::time::{Duration, Instant};

use crate::limits::{BEAT_PART, BEATS};

/// What is known of one lease.
#[derive(Debug, Clone)]
pub(super) struct Life {
    time_to_live: Duration,
    confirmed: Instant,
    over: Option<String>,
}

impl Life {
    /// A lease that etcd granted with this time to live, when it was asked at `asked`.
    pub(super) fn begin(time_to_live: Duration, asked: Instant) -> Self {
        Self { time_to_live, confirmed: asked, over: None }
    }

    /// etcd answered at `now` that it keeps the lease alive, to a request of the time `asked`.
    pub(super) fn confirm(&mut self, asked: Instant, now: Instant) {
        if self.look(now).is_ok() {
            self.confirmed = self.confirmed.max(asked);
        }
    }

    /// The lease is known to be gone; of several reasons the first is kept.
    pub(super) fn end(&mut self, why: &str) {
        self.over.get_or_insert_with(|| why.to_owned());
    }

    /// Whether the lease is alive at `now`; the error says why not.
    pub(super) fn look(&mut self, now: Instant) -> Result<(), String> {
        if now.saturating_duration_since(self.confirmed) >= self.time_to_live {
            let seconds = self.time_to_live.as_secs();
            self.end(&format!("etcd has not confirmed it for {seconds} s, after which it may be another's"));
        }
        self.over.clone().map_or(Ok(()), Err)
    }

    /// When it has to be kept alive again.
    pub(super) fn next_beat(&self) -> Instant {
        self.confirmed + self.time_to_live / BEATS
    }

    /// How long one request for it may take.
    pub(super) fn request(&self) -> Duration {
        self.time_to_live / BEAT_PART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_lives_for_its_time_from_the_sending_of_the_request_that_was_confirmed() {
        let begin = Instant::now();
        let mut life = Life::begin(TTL, begin);
        assert_eq!(life.look(after(begin, 9)), Ok(()));
        // Sent at 4, answered at 9: it lives until 14, not until 19.
        life.confirm(after(begin, 4), after(begin, 9));
        assert_eq!(life.look(after(begin, 13)), Ok(()));
        assert!(life.look(after(begin, 14)).is_err());
    }

    #[test]
    fn what_is_over_stays_over_whatever_etcd_says_later() {
        let begin = Instant::now();
        let mut life = Life::begin(TTL, begin);
        // The process was frozen: the answer to a request of the time 5 is read at 20.
        life.confirm(after(begin, 5), after(begin, 20));
        assert!(life.look(after(begin, 6)).is_err());
        life.confirm(after(begin, 21), after(begin, 21));
        assert!(life.look(after(begin, 21)).is_err());
    }

    #[test]
    fn an_older_confirmation_takes_no_time_away() {
        let begin = Instant::now();
        let mut life = Life::begin(TTL, begin);
        life.confirm(after(begin, 6), after(begin, 7));
        life.confirm(after(begin, 3), after(begin, 8));
        assert_eq!(life.look(after(begin, 15)), Ok(()));
    }

    #[test]
    fn the_first_reason_is_kept() {
        let begin = Instant::now();
        let mut life = Life::begin(TTL, begin);
        life.end("revoked");
        life.end("something else");
        assert_eq!(life.look(after(begin, 30)), Err("revoked".to_owned()));
    }

    #[test]
    fn five_attempts_follow_the_first_third_before_the_end() {
        let begin = Instant::now();
        let life = Life::begin(TTL, begin);
        assert!(life.next_beat() + life.request() * 5 < begin + TTL);
    }
}
