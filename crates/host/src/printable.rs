//! Text from elsewhere (systemd, a load balancer, a file) ends in logs, terminals and reports; here it loses what could
//! move a cursor, forge a line or reverse the order of letters.

use std::fmt::Write as _;

/// Returns `text` with every character that does not simply print, line feeds included, written as an escape (`\n`, `\u{1b}`).
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_treacherous(c) || is_invisible(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Control characters, line separators, and the marks that change the direction of writing.
pub(crate) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The marks that nobody sees, and that do no harm but make two names look the same: a byte-order mark, a joiner and a space of no
/// width. (Two more joiners are letters' business in some scripts.)
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

/// The beginning of `text`, at most `longest` characters of it, with a mark where something is missing.
pub fn shortened(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_forge_a_line_or_move_the_cursor_passes() {
        assert_eq!(printable("plain text, naïve"), "plain text, naïve");
        assert_eq!(printable("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(printable("\u{1b}[2Jgone"), "\\u{1b}[2Jgone");
        assert_eq!(printable("\u{202e}txt\u{2028}"), "\\u{202e}txt\\u{2028}");
        assert_eq!(printable("\u{feff}mw1\u{200b}.test\u{2060}"), "\\u{feff}mw1\\u{200b}.test\\u{2060}");
        assert_eq!(printable("\0\u{7f}\u{9b}"), "\\u{0}\\u{7f}\\u{9b}");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shortened("ééé", 2), "éé...");
        assert_eq!(shortened("ééé", 3), "ééé");
    }
}
