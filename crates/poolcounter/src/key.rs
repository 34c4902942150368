//! The name of a limit. Whoever uses the same key shares the limit, so it is made here exactly as the original makes it, and
//! what would break a request's line never becomes a key.

use std::fmt;

use restart_core::{PoolName, Tag};

use crate::printable::printable;

/// The name of a limit in poolcounterd: no spaces, no control characters, short enough for every request to fit its line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has no characters.
    #[error("a poolcounter key cannot be empty")]
    Empty,
    /// It has a character that would end the key, or the request; what there is of it is quoted.
    #[error("'{0}' is not a poolcounter key: it has a space or a control character")]
    Unprintable(String),
    /// It is longer than [`Key::LONGEST`] bytes.
    #[error("'{shown}' is not a poolcounter key: it takes {bytes} bytes, and {} is the most", Key::LONGEST)]
    TooLong {
        /// Its beginning.
        shown: String,
        /// Its length in UTF-8.
        bytes: usize,
    },
}

impl Key {
    /// The most bytes of a key. A request takes 1024 at most, of which 41 are the command, three numbers of ten digits, four
    /// spaces and the line feed.
    pub const LONGEST: usize = crate::wire::LONGEST_REQUEST - 41;

    /// Checks `text` and keeps it.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(KeyError::Unprintable(printable(text.as_bytes())));
        }
        if text.len() > Self::LONGEST {
            return Err(KeyError::TooLong { shown: printable(text.as_bytes()), bytes: text.len() });
        }
        Ok(Self(text))
    }

    /// The key of the original for pools in a data centre: `ServiceRestarter::DC::pool1-pool2`, pools in the order of their
    /// letters. A pool named twice counts once; in the original it would make a limit of its own.
    pub fn of_pools(data_centre: &Tag, pools: &[PoolName]) -> Result<Self, KeyError> {
        let mut names: Vec<&str> = pools.iter().map(PoolName::as_str).collect();
        names.sort_unstable();
        names.dedup();
        Self::new(format!("ServiceRestarter::{data_centre}::{}", names.join("-")))
    }

    /// The key as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_pools(pools: &[&str]) -> String {
        let pools: Vec<PoolName> = pools.iter().map(|pool| PoolName::new(*pool).unwrap()).collect();
        Key::of_pools(&Tag::new("eqiad").unwrap(), &pools).unwrap().to_string()
    }

    #[test]
    fn pools_are_sorted_and_joined_as_the_original_does() {
        assert_eq!(of_pools(&["appservers"]), "ServiceRestarter::eqiad::appservers");
        assert_eq!(
            of_pools(&["appservers-https", "api-https", "api-https"]),
            "ServiceRestarter::eqiad::api-https-appservers-https"
        );
        assert_eq!(of_pools(&[]), "ServiceRestarter::eqiad::");
    }

    #[test]
    fn what_would_break_the_line_is_no_key() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        for given in ["a b", "a\n", "\ta", "a\0", "a\u{7f}", "a\u{a0}b"] {
            assert!(matches!(Key::new(given), Err(KeyError::Unprintable(_))), "{given:?}");
        }
        assert!(Key::new("x".repeat(Key::LONGEST)).is_ok());
        let error = Key::new("x".repeat(Key::LONGEST + 1)).unwrap_err().to_string();
        assert!(error.ends_with("...' is not a poolcounter key: it takes 984 bytes, and 983 is the most"), "{error}");
    }
}
