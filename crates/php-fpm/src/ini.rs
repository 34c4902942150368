//! The dialect of PHP-FPM's configuration files, one line at a time, as PHP-FPM itself reads them: each line by PHP's own ini scanner.
//!
//! Every rule here was measured on php-fpm 8.2 with `-tt`, which prints what it understood; the test against the real one goes through
//! them again. What that scanner computes and nobody writes in a pool (`1|2`, the names of PHP's constants) is not computed here, and
//! neither is `${NAME}`: it comes from the environment of the unit.

/// What one line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// `[name]`: what follows belongs to it.
    pub(crate) section: Option<String>,
    /// `name = value`, perhaps on the same line.
    pub(crate) entry: Option<Entry<'a>>,
}

/// A directive with its value as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    raw: &'a str,
}

/// What is wrong with a line, or beyond this reader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Text that is neither a section nor a directive with a value; PHP-FPM refuses it too.
    #[error("'{0}' has no value")]
    NoValue(String),
    /// A section without its end, or not at the beginning of its line; PHP-FPM refuses it too.
    #[error("a section is '[name]' at the beginning of a line")]
    Section,
    /// A quote without its end; PHP-FPM refuses it too.
    #[error("the value of '{0}' has an open quote")]
    Quote(String),
    /// A value with bytes that are no UTF-8. In a comment they are nobody's concern.
    #[error("the value of '{0}' is not UTF-8")]
    Encoding(String),
    /// A section whose name has such bytes: two of these could not be told apart.
    #[error("the name of a section is not UTF-8")]
    SectionEncoding,
    /// A value that comes from the unit's environment.
    #[error(
        "the value of '{directive}' is taken from the environment variable '{variable}', which is not known here: write it out"
    )]
    Variable {
        /// The directive.
        directive: String,
        /// The variable's name.
        variable: String,
    },
    /// A value that PHP computes.
    #[error(
        "the value of '{directive}' is an expression with '{operator}': put it in double quotes if that is meant as text"
    )]
    Expression {
        /// The directive.
        directive: String,
        /// What makes it one.
        operator: char,
    },
}

/// Reads a line, without its line feed.
pub(crate) fn line(text: &str) -> Result<Line<'_>, LineFault> {
    // The scanner begins anew with each line, and passes over the mark that some editors put before everything.
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut rest = text.strip_suffix('\r').unwrap_or(text);
    let mut section = None;
    if let Some(inside) = rest.strip_prefix('[') {
        let (name, after) = inside.split_once(']').ok_or(LineFault::Section)?;
        if name.contains(char::REPLACEMENT_CHARACTER) {
            return Err(LineFault::SectionEncoding);
        }
        section = Some(unquoted(name).to_owned());
        rest = after;
    }
    let rest = rest.trim_matches(BLANK);
    if rest.is_empty() || rest.starts_with(';') {
        return Ok(Line { section, entry: None });
    }
    if rest.starts_with('[') {
        return Err(LineFault::Section);
    }
    let no_value = || LineFault::NoValue(crate::printable::printable(rest.as_bytes()));
    let (name, raw) = rest.split_once('=').ok_or_else(no_value)?;
    if name.contains(';') {
        return Err(no_value());
    }
    Ok(Line { section, entry: Some(Entry { name: name.trim_matches(BLANK), raw: raw.trim_matches(BLANK) }) })
}

/// The mark of a file in UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// What the scanner takes for a space.
const BLANK: [char; 2] = [' ', '\t'];

/// A section's name may be quoted.
fn unquoted(name: &str) -> &str {
    let within = |quote: char| name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(name)
}

impl Entry<'_> {
    /// The value as PHP-FPM understands it, `$pool` left in it.
    pub(crate) fn value(&self) -> Result<String, LineFault> {
        let directive = || self.name.to_owned();
        let mut value = String::new();
        // Blanks between words stay, those beside double quotes and at either end go.
        let mut blanks = String::new();
        let mut is_plain = true;
        let mut rest = self.raw.char_indices();
        while let Some((at, c)) = rest.next() {
            let after = |taken: usize| self.raw.get(at + taken..).unwrap_or_default();
            match c {
                ';' => break,
                ' ' | '\t' => blanks.push(c),
                '"' => {
                    let (text, taken) = double_quoted(after(1), self.name)?;
                    value.push_str(&text);
                    blanks.clear();
                    let tail = after(1 + taken);
                    let skipped = taken + tail.len() - tail.trim_start_matches(BLANK).len();
                    rest = skip(self.raw, at + 1 + skipped);
                    is_plain = false;
                }
                '\'' => {
                    let (text, _) = after(1).split_once('\'').ok_or_else(|| LineFault::Quote(directive()))?;
                    value.push_str(&std::mem::take(&mut blanks));
                    value.push_str(text);
                    rest = skip(self.raw, at + 1 + text.len() + 1);
                    is_plain = false;
                }
                '$' if after(1).starts_with('{') => return Err(variable(self.name, after(2))),
                '=' | '!' | '(' | ')' | '|' | '&' | '^' | '~' => {
                    return Err(LineFault::Expression { directive: directive(), operator: c });
                }
                other => {
                    value.push_str(&std::mem::take(&mut blanks));
                    value.push(other);
                }
            }
        }
        if value.contains(char::REPLACEMENT_CHARACTER) {
            return Err(LineFault::Encoding(directive()));
        }
        if is_plain {
            match value.to_ascii_lowercase().as_str() {
                "true" | "on" | "yes" => return Ok("1".to_owned()),
                "false" | "off" | "no" | "none" | "null" => return Ok(String::new()),
                _ => {}
            }
        }
        Ok(value)
    }
}

/// `text` from byte `from`, with its places in `text`.
fn skip(text: &str, from: usize) -> std::str::CharIndices<'_> {
    let mut rest = text.char_indices();
    while rest.offset() < from && rest.next().is_some() {}
    rest
}

/// What stands in double quotes, and how many bytes it took with the closing one. A backslash keeps only itself and a double
/// quote from being read.
fn double_quoted(text: &str, directive: &str) -> Result<(String, usize), LineFault> {
    let mut value = String::new();
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        let after = text.get(at + 1..).unwrap_or_default();
        match c {
            '"' => return Ok((value, at + 1)),
            '\\' if after.starts_with(['"', '\\']) => value.extend(rest.next().map(|(_, kept)| kept)),
            '$' if after.starts_with('{') => {
                return Err(variable(directive, text.get(at + 2..).unwrap_or_default()));
            }
            other => value.push(other),
        }
    }
    Err(LineFault::Quote(directive.to_owned()))
}

fn variable(directive: &str, after: &str) -> LineFault {
    let name = after.split('}').next().unwrap_or_default();
    LineFault::Variable { directive: directive.to_owned(), variable: crate::printable::printable(name.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(raw: &str) -> Result<String, String> {
        Entry { name: "d", raw: raw.trim_matches(BLANK) }.value().map_err(|fault| fault.to_string())
    }

    #[test]
    fn sections_directives_and_comments_are_told_apart() {
        let entry = |text| line(text).unwrap().entry.map(|entry| (entry.name, entry.value().unwrap()));
        let section = |text| line(text).unwrap().section;
        for text in ["", "   ", "; [www]", "  ;x = y", "\t", "\r"] {
            assert_eq!(line(text), Ok(Line { section: None, entry: None }), "{text:?}");
        }
        for text in ["[www]", "[www] ; x", "[\"www\"]", "['www']", "[www]\r", "\u{feff}[www]"] {
            assert_eq!((section(text).as_deref(), entry(text)), (Some("www"), None), "{text:?}");
        }
        assert_eq!(section("[ a b ]").as_deref(), Some(" a b "));
        let same_line = line("[www] listen = /x").unwrap();
        assert_eq!(same_line.section.as_deref(), Some("www"));
        assert_eq!(same_line.entry.map(|entry| entry.name), Some("listen"));
        for text in [
            "listen=/x",
            "\u{feff}listen=/x",
            "listen=/x ; caf\u{fffd}",
            "  listen = /x  ",
            "\tlisten\t=\t/x\t;y",
            "listen = \"/x\"\r",
            "listen=/x;y=z",
        ] {
            assert_eq!(entry(text), Some(("listen", "/x".to_owned())), "{text:?}");
        }
        assert_eq!(entry("env[A] = b"), Some(("env[A]", "b".to_owned())));
    }

    /// Or nobody would ask one of them what is in flight.
    #[test]
    fn pools_whose_names_are_no_utf8_are_not_taken_for_one() {
        let why = line("[caf\u{fffd}]").unwrap_err().to_string();
        assert_eq!(why, "the name of a section is not UTF-8");
    }

    #[test]
    fn what_php_fpm_refuses_is_an_error() {
        let message = |text| line(text).unwrap_err().to_string();
        assert_eq!(message("listen /x"), "'listen /x' has no value");
        assert_eq!(message("# listen /x"), "'# listen /x' has no value");
        assert_eq!(message("listen ; = /x"), "'listen ; = /x' has no value");
        assert_eq!(message("[www"), "a section is '[name]' at the beginning of a line");
        assert_eq!(message("  [www]"), "a section is '[name]' at the beginning of a line");
        assert_eq!(message("\u{feff}\u{feff}[www]"), "'\\u{feff}[www]' has no value");
        for raw in ["\"open", "'open", "a \"", "\"a\\\""] {
            assert_eq!(value(raw), Err("the value of 'd' has an open quote".to_owned()), "{raw}");
        }
    }

    #[test]
    fn values_are_read_as_php_fpm_reads_them() {
        // Each of them is what `php-fpm8.2 -tt` printed.
        let table = [
            ("one \"two\" three", "onetwothree"),
            ("'single ; q' x", "single ; q x"),
            ("\"esc\\\\n\\\"d\"", "esc\\n\"d"),
            ("\"a\\'b\\x\\\\c\"", "a\\'b\\x\\c"),
            ("'q'   \"z\"  y 'w'  v", "qzy w  v"),
            ("\"/a b  c  \"  d", "/a b  c  d"),
            ("a  b  ;c", "a  b"),
            ("a'b c'd", "ab cd"),
            ("a\\;b", "a\\"),
            ("\"a;b\"", "a;b"),
            ("'q'   ; x", "q"),
            ("a$b", "a$b"),
            ("\"a$\"", "a$"),
            ("x{y}", "x{y}"),
            ("#y", "#y"),
            ("[b]", "[b]"),
            ("On", "1"),
            ("yes", "1"),
            ("none", ""),
            ("null", ""),
            ("nullx", "nullx"),
            ("\"on\"", "on"),
            ("\"\"", ""),
            ("", ""),
            ("é", "é"),
        ];
        for (raw, expected) in table {
            assert_eq!(value(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn what_cannot_be_known_here_is_an_error_that_says_what_to_do() {
        let from = |variable: &str| {
            format!(
                "the value of 'd' is taken from the environment variable '{variable}', which is not known here: write it out"
            )
        };
        assert_eq!(value("${SOCKET}.sock"), Err(from("SOCKET")));
        assert_eq!(value("\"a ${B} c\""), Err(from("B")));
        assert_eq!(value("/run/caf\u{fffd}.sock"), Err("the value of 'd' is not UTF-8".to_owned()));
        for operator in "=!()|&^~".chars() {
            let expected = format!(
                "the value of 'd' is an expression with '{operator}': put it in double quotes if that is meant as text"
            );
            assert_eq!(value(&format!("a{operator}b")), Err(expected));
            assert_eq!(value(&format!("\"a{operator}b\"")), Ok(format!("a{operator}b")));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            if let Ok(Line { entry: Some(entry), .. }) = line(&text) {
                let _ = entry.value();
            }
        }

        #[test]
        fn no_mixture_of_quotes_panics(text in "[ab \\t\"'\\\\;$é{}=]{0,20}") {
            let _ = value(&text);
        }

        #[test]
        fn whatever_is_double_quoted_comes_back(text in "[^\\x00-\\x1f$\u{fffd}]{0,40}") {
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(value(&quoted), Ok(text));
        }
    }
}
