//! A tool's own file of settings, `/etc/TOOL.yaml`: read into a structure of the tool's that refuses unknown keys, with errors that
//! name the line, and with the values that such files have in common, written as on a command line.

use std::fmt;
use std::time::Duration;

use restart_core::Share;
use serde::de::{DeserializeOwned, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use crate::printable::printable;

/// Reads the text of a file; an empty one says nothing. The error names the line where that is known.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! { with_snippet: false, no_schema: true };
    let parsed: Result<Option<T>, serde_saphyr::Error> = serde_saphyr::from_str_with_options(text, options);
    parsed.map(Option::unwrap_or_default).map_err(|error| {
        let place = error.location().filter(|place| *place != serde_saphyr::Location::UNKNOWN);
        let line = place.and_then(|place| usize::try_from(place.line()).ok());
        let words = words(error.without_snippet(), line.and_then(|line| key(text, line)));
        printable(&line.map_or(words.clone(), |line| format!("line {line}: {words}")))
    })
}

/// What is wrong, in words of ours where the parser's are those of whoever wrote the structure.
fn words(error: &serde_saphyr::Error, key: Option<&str>) -> String {
    use serde_saphyr::Error;
    let has_to_be = match error {
        Error::Unexpected { expected: "sequence start", .. } => "a list, such as [one, two]",
        Error::Unexpected { expected: "string scalar", .. } => "a text",
        Error::InvalidScalar { ty: "boolean", .. } => "true or false",
        Error::InvalidScalar { ty: "u16" | "u32" | "u64", .. } => "a whole number, and not too large a one",
        Error::Unexpected { expected: "mapping start", .. } => return "lines of 'key: value' are expected".to_owned(),
        Error::QuotingRequired { value, .. } => {
            return format!("'{value}' has to stand in quotes, to be a text and no number");
        }
        other => return UserMessageFormatter.format_message(other).into_owned(),
    };
    let what = key.map_or("the value".to_owned(), |key| format!("'{key}'"));
    format!("{what} has to be {has_to_be}")
}

/// The key that a line begins with.
fn key(text: &str, line: usize) -> Option<&str> {
    let (key, _) = text.lines().nth(line.checked_sub(1)?)?.split_once(':')?;
    Some(key).filter(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// A span of time as it is typed: `5`, `0.5`, `500ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number of hosts, or a share: `3`, `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Share);

/// Takes a scalar, a number or a string, as the text that it is on a command line.
struct Scalar<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        self.1(text).map_err(|why| E::custom(format!("'{text}' is {why}")))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = Scalar("a time such as 5, 0.5 or 500ms", |text| crate::duration::duration(text).map(Time));
        deserializer.deserialize_any(visitor)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = Scalar("a number of hosts such as 3, or a share such as 10%", |text| text.parse().map(Limit));
        deserializer.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        time: Option<Time>,
        limit: Option<Limit>,
    }

    #[test]
    fn times_and_limits_are_written_as_on_a_command_line() {
        let half = Some(Time(Duration::from_millis(500)));
        for text in ["time: 0.5", "time: 500ms", "time: \"0.5\""] {
            assert_eq!(parse(text), Ok(File { time: half.clone(), limit: None }), "{text}");
        }
        assert_eq!(parse("limit: 3"), Ok(File { time: None, limit: Some(Limit(Share::Count(3))) }));
        assert_eq!(parse("limit: 10%"), Ok(File { time: None, limit: Some(Limit(Share::Percent(10))) }));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, why) in [
            ("time: 1\nlimt: 3\n", "line 2"),
            ("time: -1", "line 1"),
            ("time: soon", "'soon' is not a duration"),
            ("limit: many", "'many' is not a number of hosts"),
            ("limit: [1]", "line 1"),
        ] {
            let error = parse::<File>(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
