//! The time of day as text, in two forms that RFC 3339 allows: as Python writes it, and as people read it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970. A clock that stands before it counts as 1970: a line with a wrong time is better than none.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time as Python's `datetime.isoformat()` writes it for UTC: microseconds, left out when they are zero.
pub(crate) fn isoformat(since_1970: Duration) -> String {
    let fraction = match since_1970.subsec_micros() {
        0 => String::new(),
        micros => format!(".{micros:06}"),
    };
    format!("{}{fraction}+00:00", to_the_second(since_1970))
}

/// A time for people, as the rest of the tool writes it: `2026-11-23T10:00:00Z`.
pub(crate) fn utc(since_1970: Duration) -> String {
    format!("{}Z", to_the_second(since_1970))
}

fn to_the_second(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// The Gregorian date that is `days` after 1970-01-01, counted through the 400-year cycle from 0000-03-01, so that the leap
/// day is the last of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / DAYS_OF_400_YEARS, shifted % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        // Each checked with datetime.fromtimestamp(N, timezone.utc).isoformat().
        for (seconds, micros, wanted) in [
            (0, 0, "1970-01-01T00:00:00+00:00"),
            (951_782_400, 0, "2000-02-29T00:00:00+00:00"),
            (951_868_799, 999_999, "2000-02-29T23:59:59.999999+00:00"),
            (1_709_251_199, 1, "2024-02-29T23:59:59.000001+00:00"),
            (1_767_225_599, 0, "2025-12-31T23:59:59+00:00"),
            (4_107_542_400, 0, "2100-03-01T00:00:00+00:00"),
        ] {
            assert_eq!(isoformat(Duration::from_secs(seconds) + Duration::from_micros(micros)), wanted);
        }
    }

    #[test]
    fn a_time_for_people_ends_with_its_second() {
        assert_eq!(utc(Duration::from_micros(951_868_799_999_999)), "2000-02-29T23:59:59Z");
    }
}
