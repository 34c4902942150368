//! Durations as they are typed: plain seconds as in the original (`3`), fractions (`0.5`), and with units (`500ms`, `2m`).

use std::time::Duration;

/// No wait of these tools is meant to be longer; a larger number is a slip of the finger.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a duration that may be zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let time = if plain {
        let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
        Duration::try_from_secs_f64(seconds).map_err(|_| "too long".to_owned())?
    } else {
        humantime::parse_duration(text).map_err(|_| "not a duration such as 3, 0.5, 500ms or 2m".to_owned())?
    };
    if time > LONGEST { Err("longer than a day".to_owned()) } else { Ok(time) }
}

/// Reads a duration that has to be more than zero: a time-out of zero would mean that nothing can ever answer.
pub fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time.is_zero() => Err("must be more than zero".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_fractions_and_units() {
        let table = [("3", 3000), ("0.5", 500), ("0", 0), ("500ms", 500), ("2m", 120_000), ("1m 30s", 90_000)];
        for (text, ms) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "-1", "x", "1.2.3", ".", "nan", "inf", "1e9", "99999999999999999999", "25h", "3 apples"] {
            assert!(duration(text).is_err(), "'{text}' passed");
        }
        for text in ["0", "0ms", "0.0"] {
            assert!(positive(text).is_err(), "'{text}' passed");
        }
    }
}
