//! What can be asked of the figures: one limit for each check, as typed. 0 switches a check off.

use std::str::FromStr;

/// The deploy tool asks for a restart whatever the figures say by Python's `sys.maxsize`.
const ALWAYS: u64 = i64::MAX as u64;

/// The limits of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Free memory of opcache: restart at or below.
    pub free: FreeLimit,
    /// The same: only a warning, at or below so many MiB.
    pub free_warning: u64,
    /// Keys of opcache that are free: restart at or below.
    pub free_keys: u64,
    /// Share of APCu's free memory that is in small pieces: clear it at or above.
    pub apcu_fragmentation: Percent,
    /// What to do when opcache says that it is full.
    pub cache_full: OnFull,
    /// Share of opcache's memory that only a restart gives back: a warning, at or above.
    pub wasted: Percent,
    /// Share of the memory for strings that is in use: a warning, at or above.
    pub interned_strings: Percent,
    /// How often opcache threw everything away by itself: a warning, at or above.
    pub self_restarts: u64,
    /// Hit rate: critical below.
    pub hit_rate: Percent,
    /// Hit rate: a warning below.
    pub hit_rate_warning: Percent,
}

/// `MIN_OPCACHE_FREE_MB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FreeLimit {
    /// 0: nothing is restarted or cleared.
    #[default]
    Off,
    /// Whole MiB.
    Mebibytes(u64),
    /// 9223372036854775807: a restart, whatever the figures say.
    Always,
}

impl FromStr for FreeLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Ok(Self::Off),
            Ok(ALWAYS) => Ok(Self::Always),
            Ok(number) => Ok(Self::Mebibytes(number)),
            Err(_) => Err("not a number of megabytes".to_owned()),
        }
    }
}

/// From 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// The number; `None` where it is 0 and the check is off.
    pub fn limit(self) -> Option<f64> {
        Some(self.0).filter(|number| *number > 0.0)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
        number
            .ok()
            .filter(|number| (0.0..=100.0).contains(number))
            .map(Self)
            .ok_or("not a percentage from 0 to 100".to_owned())
    }
}

/// What a full opcache is a reason for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFull {
    Restart,
    Warn,
    #[value(name = "0")]
    Ignore,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_and_two_numbers_are_words() {
        let table = [
            ("200", Ok(FreeLimit::Mebibytes(200))),
            ("0", Ok(FreeLimit::Off)),
            ("9223372036854775807", Ok(FreeLimit::Always)),
            ("9223372036854775806", Ok(FreeLimit::Mebibytes(ALWAYS - 1))),
            ("18446744073709551615", Ok(FreeLimit::Mebibytes(u64::MAX))),
        ];
        for (text, limit) in table {
            assert_eq!(text.parse(), limit, "{text}");
        }
        for text in ["", "-1", "1.5", "200M", "18446744073709551616", "php8.2-fpm"] {
            assert!(text.parse::<FreeLimit>().is_err(), "'{text}' passed");
        }
    }

    #[test]
    fn a_percentage_is_one_with_or_without_its_sign() {
        assert_eq!("95".parse::<Percent>(), "95%".parse());
        assert_eq!("99.85".parse::<Percent>().unwrap().limit(), Some(99.85));
        assert_eq!("0".parse::<Percent>().unwrap().limit(), None);
        for text in ["", "%", "-1", "100.1", "nan", "inf", "95%%"] {
            assert!(text.parse::<Percent>().is_err(), "'{text}' passed");
        }
    }
}
