//! The one place that sees the YAML library: it turns text into typed values, and the library's errors into our sentence
//! with file, line and column. Keys given twice are errors here; PyYAML silently keeps the last.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Location, MessageFormatter, UserMessageFormatter};

use crate::load::Invalid;

/// A value and where it stood: line and column, from one.
#[derive(Clone)]
pub(crate) struct Placed {
    /// The value.
    pub(crate) value: serde_json::Value,
    line: u64,
    column: u64,
}

/// The place alone: the value may be a password.
impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<line {}, column {}>", self.line, self.column)
    }
}

impl Placed {
    /// The error that this value is wrong.
    pub(crate) fn wrong(&self, file: &Path, what: impl std::fmt::Display) -> Invalid {
        if self.line == 0 { Invalid::new(file, what) } else { Invalid::at(file, self.line, self.column, what) }
    }
}

/// Reads one document as a `T`. An empty one, or `null`, is `T::default()`.
pub(crate) fn parse<T: DeserializeOwned + Default>(file: &Path, text: &str) -> Result<T, Invalid> {
    let parsed: Result<Option<T>, Error> = serde_saphyr::from_str_with_options(text, options());
    match parsed {
        Ok(value) => Ok(value.unwrap_or_default()),
        Err(error) => Err(place(file, &error, &sentence(&error))),
    }
}

/// Reads one document as a mapping of names to values of any kind, each with its place, in the order of the file. `secret`
/// is for files with a password in them: the library's errors quote what they stumble over, so only the place is told.
pub(crate) fn parse_mapping(file: &Path, text: &str, secret: bool) -> Result<Vec<(String, Placed)>, Invalid> {
    let parsed: Result<Option<Mapping>, Error> = serde_saphyr::from_str_with_options(text, options());
    match parsed {
        Ok(mapping) => Ok(mapping.map_or_else(Vec::new, |mapping| mapping.0)),
        Err(error) if secret => {
            let what = match error.without_snippet() {
                Error::DuplicateMappingKey { .. } => "a key is given twice",
                _ => "not a YAML mapping of names to values",
            };
            Err(place(file, &error, what))
        }
        Err(error) => Err(place(file, &error, &sentence(&error))),
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        no_schema: true,
    }
}

fn sentence(error: &Error) -> String {
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("'{key}' is given twice"),
        Error::SerdeUnknownField { field, .. } => format!("unknown key '{field}'"),
        other => UserMessageFormatter.format_message(other).into_owned(),
    }
}

fn place(file: &Path, error: &Error, what: &str) -> Invalid {
    match error.location() {
        Some(place) if place != Location::UNKNOWN => Invalid::at(file, place.line(), place.column(), what),
        _ => Invalid::new(file, what),
    }
}

/// A mapping in the order of the file.
#[derive(Debug)]
pub(crate) struct Mapping(pub(crate) Vec<(String, Placed)>);

impl<'de> serde::Deserialize<'de> for Mapping {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Mapping;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mapping of names to values")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Mapping, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, found)) = map.next_entry::<String, serde_saphyr::Spanned<serde_json::Value>>()? {
                    let placed =
                        Placed { line: found.referenced.line(), column: found.referenced.column(), value: found.value };
                    entries.push((name, placed));
                }
                Ok(Mapping(entries))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        name: String,
        flag: bool,
    }

    fn sample(text: &str) -> Result<Sample, String> {
        parse(Path::new("/x.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        for text in ["", "\n", "# nothing\n", "---\n", "~\n"] {
            assert_eq!(sample(text), Ok(Sample::default()), "{text:?}");
        }
    }

    #[test]
    fn errors_name_file_line_and_column() {
        for (text, wanted) in [
            ("name: a\nnane: b\n", "'/x.yaml' line 2, column 1: unknown key 'nane'"),
            ("name: a\nname: b\n", "'/x.yaml' line 2, column 1: 'name' is given twice"),
        ] {
            assert_eq!(sample(text), Err(wanted.to_owned()));
        }
        for text in ["name: [a]\n", "name: 5\n", "flag: maybe\n", "name: 'a\n", "- a\n", "a\n", "{"] {
            let error = sample(text).unwrap_err();
            assert!(error.starts_with("'/x.yaml' line 1, column "), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn booleans_are_those_of_yaml_1_1_as_in_pyyaml() {
        for (text, wanted) in [("flag: yes", true), ("flag: On", true), ("flag: false", false), ("flag: no", false)] {
            assert_eq!(sample(text).map(|sample| sample.flag), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn errors_in_a_file_with_secrets_quote_nothing_of_it() {
        for text in [
            "password hunter2",
            "password: 'hunter2",
            "password: hunter2: x",
            "password: *hunter2",
            "password: [hunter2",
            "- hunter2",
            "password: @hunter2",
            "password: !!int hunter2",
            "hunter2: 1\nhunter2: 2",
        ] {
            if let Err(error) = parse_mapping(Path::new("/rc"), text, true) {
                assert!(!error.to_string().contains("hunter2"), "{text}: {error}");
                assert!(error.to_string().starts_with("'/rc' line "), "{text}: {error}");
            }
        }
    }

    #[test]
    fn mappings_keep_order_kinds_and_places() {
        let found = parse_mapping(Path::new("/c"), "b: {x: 1}\na: [one]\nc: none\nd: yes\ne: 4001\n", false).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c", "d", "e"]);
        assert_eq!(found[0].1.value, serde_json::json!({"x": 1}));
        assert_eq!(found[2].1.value, serde_json::json!("none"));
        assert_eq!(found[3].1.value, serde_json::json!(true));
        assert_eq!(found[4].1.value, serde_json::json!(4001));
        assert_eq!(found[1].1.wrong(Path::new("/c"), "bad").to_string(), "'/c' line 2, column 4: bad");
    }
}
