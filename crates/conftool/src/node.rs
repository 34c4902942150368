//! The node object, `{"weight": 10, "pooled": "yes"}`: reading its field `pooled`, and setting it with every other byte
//! kept. Parsing and printing the object anew would not do: number forms, escapes, spacing and the order of keys are other
//! people's, and a value is also compared byte for byte to tell whose write it was.

use std::ops::Range;

use restart_core::Pooled;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a value in the store is no node object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeError {
    /// Not UTF-8, and so no JSON.
    #[error("not UTF-8")]
    Encoding,
    /// Not a JSON object; the text says where it breaks.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// An object without the field.
    #[error("no field 'pooled'")]
    Absent,
    /// Two fields of that name: readers disagree about which one counts.
    #[error("'pooled' is given twice")]
    Twice,
    /// Something else in it.
    #[error("'pooled' is {0}, not \"yes\", \"no\" or \"inactive\"")]
    Value(String),
}

/// The field `pooled` of the object in `text`.
pub(crate) fn pooled(text: &str) -> Result<Pooled, NodeError> {
    find(text).map(|(pooled, _)| pooled)
}

/// The object in `text` with `pooled` set, and nothing else touched.
pub(crate) fn with_pooled(text: &str, pooled: Pooled) -> Result<String, NodeError> {
    let (_, place) = find(text)?;
    Ok(format!("{}\"{pooled}\"{}", &text[..place.start], &text[place.end..]))
}

/// Longest piece of a bad value that a message quotes.
const QUOTED: usize = 40;

/// The value of `pooled` and the bytes of `text` that hold it, quotes included.
fn find(text: &str) -> Result<(Pooled, Range<usize>), NodeError> {
    let Fields(found) = serde_json::from_str(text).map_err(|error| NodeError::Json(error.to_string()))?;
    let raw = match found.as_slice() {
        [] => return Err(NodeError::Absent),
        [raw] => raw.get(),
        _ => return Err(NodeError::Twice),
    };
    // `raw` is a slice of `text`: the distance of their first bytes is its place.
    let start = (raw.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    let place = start..start.wrapping_add(raw.len());
    if text.get(place.clone()) != Some(raw) {
        return Err(NodeError::Absent);
    }
    match serde_json::from_str::<String>(raw).ok().as_deref().and_then(Pooled::parse) {
        Some(pooled) => Ok((pooled, place)),
        None => Err(NodeError::Value(raw.chars().take(QUOTED).collect())),
    }
}

/// The raw values of all top-level fields named `pooled`, however the name is escaped.
struct Fields<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value: &'de RawValue = map.next_value().map_err(A::Error::custom)?;
                    if key == "pooled" {
                        found.push(value);
                    }
                }
                Ok(Fields(found))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_other_byte_is_kept() {
        for (before, after) in [
            (r#"{"weight": 10, "pooled": "yes"}"#, r#"{"weight": 10, "pooled": "no"}"#),
            (r#"{"pooled":"inactive"}"#, r#"{"pooled":"no"}"#),
            (" {\t\"pooled\" :\n\"yes\" , \"w\":1.0 } \n", " {\t\"pooled\" :\n\"no\" , \"w\":1.0 } \n"),
            (r#"{"weight": 1e2, "x": 1.0, "pooled": "yes"}"#, r#"{"weight": 1e2, "x": 1.0, "pooled": "no"}"#),
            (r#"{"p\u006foled": "y\u0065s", "n": "\u00e9"}"#, r#"{"p\u006foled": "no", "n": "\u00e9"}"#),
            (
                r#"{"a": {"pooled": "x"}, "pooled": "no", "b": [1, 1]}"#,
                r#"{"a": {"pooled": "x"}, "pooled": "no", "b": [1, 1]}"#,
            ),
            (
                r#"{"n": 123456789012345678901234567890, "pooled": "yes"}"#,
                r#"{"n": 123456789012345678901234567890, "pooled": "no"}"#,
            ),
            (r#"{"weight": 1, "weight": 2, "pooled": "yes"}"#, r#"{"weight": 1, "weight": 2, "pooled": "no"}"#),
        ] {
            assert_eq!(with_pooled(before, Pooled::No).as_deref(), Ok(after));
        }
    }

    #[test]
    fn what_is_no_node_object_is_told_apart() {
        for (text, wanted) in [
            (r#"{"weight": 10}"#, NodeError::Absent),
            (r#"{"pooled": "yes", "pooled": "no"}"#, NodeError::Twice),
            (r#"{"pooled": "maybe"}"#, NodeError::Value("\"maybe\"".into())),
            (r#"{"pooled": true}"#, NodeError::Value("true".into())),
            (r#"{"pooled": "Yes"}"#, NodeError::Value("\"Yes\"".into())),
        ] {
            assert_eq!(pooled(text), Err(wanted), "{text}");
        }
        for text in [
            "",
            "null",
            "[]",
            "\"pooled\"",
            "{",
            r#"{"pooled": "yes"} x"#,
            r#"{"pooled": "yes",}"#,
            r#"{pooled: "yes"}"#,
        ] {
            assert!(matches!(pooled(text), Err(NodeError::Json(_))), "{text}");
        }
    }

    #[test]
    fn a_long_bad_value_is_cut_in_the_message() {
        let text = format!(r#"{{"pooled": "{}"}}"#, "é".repeat(500));
        assert!(pooled(&text).unwrap_err().to_string().len() < 200);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("\\PC{0,6}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn state() -> impl Strategy<Value = Pooled> {
        prop_oneof![Just(Pooled::Yes), Just(Pooled::No), Just(Pooled::Inactive)]
    }

    proptest! {
        #[test]
        fn only_pooled_changes_in_any_object(
            before in prop::collection::vec(("\\PC{1,6}", json()), 0..4),
            after in prop::collection::vec(("\\PC{1,6}", json()), 0..4),
            old in state(),
            new in state(),
            pretty in any::<bool>(),
        ) {
            let field = ("pooled".to_owned(), Value::from(old.as_str()));
            let fields = before.into_iter().filter(|(name, _)| name != "pooled").chain([field]);
            let object = Value::Object(fields.chain(after.into_iter().filter(|(name, _)| name != "pooled")).collect());
            let text = if pretty { serde_json::to_string_pretty(&object).unwrap() } else { object.to_string() };
            prop_assert_eq!(pooled(&text), Ok(old));

            let written = with_pooled(&text, new).unwrap();
            let mut wanted = object.clone();
            wanted["pooled"] = Value::from(new.as_str());
            prop_assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), wanted);
            prop_assert_eq!(with_pooled(&written, old).unwrap(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = pooled(&text);
        }
    }
}
