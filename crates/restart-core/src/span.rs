//! Spans of time as a person says them, in messages: `3s`, `500ms`, `1.5s`, `10m`.

use std::fmt;
use std::time::Duration;

/// Shows a span of time, to the millisecond below ten seconds and to the second above.
pub fn span(time: Duration) -> impl fmt::Display {
    Span(time)
}

struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let seconds = self.0.as_secs_f64().round() as u64;
        match millis {
            1..1000 => write!(f, "{millis}ms"),
            _ if millis < 10_000 && !millis.is_multiple_of(1000) => write!(f, "{:.1}s", self.0.as_secs_f64()),
            _ if seconds >= 120 && seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_person_says_it() {
        let table = [
            (0, "0s"),
            (1, "1ms"),
            (500, "500ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (3571, "3.6s"),
            (15_000, "15s"),
            (15_400, "15s"),
            (60_000, "60s"),
            (90_000, "90s"),
            (600_000, "10m"),
        ];
        for (millis, words) in table {
            assert_eq!(span(Duration::from_millis(millis)).to_string(), words);
        }
    }
}
