//! JSON from PHP, read strictly in what is needed and not at all in the rest: new versions add keys. A key that is missing or of another
//! type is named by its whole path.

use serde_json::{Map, Value};

use crate::printable::printable;

/// Why JSON is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// It is no JSON at all; with its beginning.
    #[error("its answer is not JSON: it begins with '{0}'")]
    NotJson(String),
    /// It is JSON, but no object.
    #[error("its answer is not a JSON object: it begins with '{0}'")]
    NotAnObject(String),
    /// A key that should be there is not.
    #[error("its answer has no '{0}'")]
    Missing(String),
    /// A key has another value than it should have.
    #[error("its answer has '{key}' = {found}, which is not {expected}")]
    Odd {
        /// The key, by its whole path.
        key: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// Any JSON.
pub(crate) fn value(text: &[u8]) -> Result<Value, JsonFault> {
    serde_json::from_slice(text).map_err(|_| JsonFault::NotJson(printable(text)))
}

/// A JSON object.
pub(crate) fn object(text: &[u8]) -> Result<Map<String, Value>, JsonFault> {
    match value(text)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(JsonFault::NotAnObject(printable(text))),
    }
}

/// The keys of an object, with the way to it.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    fields: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, path: String::new() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn integer(&self, key: &str) -> Result<u64, JsonFault> {
        self.read(key, "a whole number from 0", Value::as_u64)
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, JsonFault> {
        self.read(key, "a number from 0", |value| value.as_f64().filter(|number| *number >= 0.0))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<bool, JsonFault> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(crate) fn text(&self, key: &str) -> Result<&'a str, JsonFault> {
        self.read(key, "text", Value::as_str)
    }

    pub(crate) fn object(&self, key: &str) -> Result<Self, JsonFault> {
        let fields = self.read(key, "an object", Value::as_object)?;
        Ok(Self { fields, path: format!("{}{key}.", self.path) })
    }

    /// The objects of a list, each with its place on the way to its keys.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Self>, JsonFault> {
        let list = self.read(key, "a list", Value::as_array)?;
        let item = |(place, value): (usize, &'a Value)| match value.as_object() {
            Some(fields) => Ok(Self { fields, path: format!("{}{key}[{place}].", self.path) }),
            None => Err(self.odd(&format!("{key}[{place}]"), value, "an object")),
        };
        list.iter().enumerate().map(item).collect()
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, JsonFault> {
        let value = self.fields.get(key).ok_or_else(|| JsonFault::Missing(format!("{}{key}", self.path)))?;
        read(value).ok_or_else(|| self.odd(key, value, expected))
    }

    /// The complaint about a key.
    pub(crate) fn odd(&self, key: &str, value: &Value, expected: &'static str) -> JsonFault {
        JsonFault::Odd { key: format!("{}{key}", self.path), found: printable(value.to_string().as_bytes()), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_missing_or_odd_is_named_by_its_path() {
        let text = br#"{"a": {"b": -1, "c": "x", "d": null}, "l": [{"e": 1}, {}], "m": [1]}"#;
        let object = object(text).unwrap();
        let fields = Fields::new(&object);
        let a = fields.object("a").unwrap();
        let message = |fault: JsonFault| fault.to_string();
        assert_eq!(message(a.integer("x").unwrap_err()), "its answer has no 'a.x'");
        let odd = "its answer has 'a.b' = -1, which is not a whole number from 0";
        assert_eq!(message(a.integer("b").unwrap_err()), odd);
        assert_eq!(message(a.number("b").unwrap_err()), "its answer has 'a.b' = -1, which is not a number from 0");
        assert_eq!(message(a.boolean("c").unwrap_err()), "its answer has 'a.c' = \"x\", which is not true or false");
        assert_eq!(message(a.text("d").unwrap_err()), "its answer has 'a.d' = null, which is not text");
        let list = fields.objects("l").unwrap();
        assert_eq!(list[0].integer("e"), Ok(1));
        assert_eq!(message(list[1].integer("e").unwrap_err()), "its answer has no 'l[1].e'");
        assert_eq!(message(fields.objects("m").unwrap_err()), "its answer has 'm[0]' = 1, which is not an object");
        assert!(fields.get("a").is_some() && a.get("d").is_none() && a.get("x").is_none());
    }

    #[test]
    fn what_is_no_object_is_shown() {
        let message = |text: &[u8]| object(text).unwrap_err().to_string();
        assert_eq!(message(b"<html>"), "its answer is not JSON: it begins with '<html>'");
        assert_eq!(message(b"{} x"), "its answer is not JSON: it begins with '{} x'");
        assert_eq!(message(b"[]"), "its answer is not a JSON object: it begins with '[]'");
        assert!(object(&[b'['; 100_000]).is_err());
    }
}
