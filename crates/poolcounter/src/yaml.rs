//! The one place that sees the YAML library: it turns text into a list of strings with their lines, and the library's errors
//! into our words.

use serde_saphyr::{Error, Location, MessageFormatter as _, Spanned, UserMessageFormatter};

/// A line and what is wrong there, if the library knows.
pub(crate) struct NoList {
    /// From one.
    pub(crate) line: Option<u64>,
    /// The library's words.
    pub(crate) why: String,
}

/// Reads one document as a list of strings, each with its line, from one. An empty document is an empty list.
pub(crate) fn strings(text: &str) -> Result<Vec<(u64, String)>, NoList> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        no_schema: true,
    };
    let parsed: Result<Option<Vec<Spanned<String>>>, Error> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(list) => {
            let list = list.unwrap_or_default();
            Ok(list.into_iter().map(|entry| (entry.referenced.line(), entry.value)).collect())
        }
        Err(error) => Err(NoList {
            line: error.location().filter(|place| *place != Location::UNKNOWN).map(|place| place.line()),
            why: UserMessageFormatter.format_message(error.without_snippet()).into_owned(),
        }),
    }
}
