//! What an application or a file says may end on a terminal; here it loses what could move a cursor or forge a line, and its
//! length.

/// The most characters of somebody else's text that a message of ours quotes.
const LONGEST: usize = 200;

/// The beginning of `bytes`, with all that does not simply print written as an escape, and a mark where something is missing.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    for c in text.chars().take(LONGEST) {
        if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_escaped_and_what_is_long_is_cut() {
        assert_eq!(printable(b"Access denied."), "Access denied.");
        assert_eq!(printable(b"\x1b[2J\r\n\xff"), r"\u{1b}[2J\r\n\u{fffd}");
        assert_eq!(printable(&[b'x'; 201]), format!("{}...", "x".repeat(200)));
    }
}
