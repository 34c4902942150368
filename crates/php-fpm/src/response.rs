//! What an application answered: the header that CGI programs print before the body, read apart from the body. Pure text.

use crate::printable::printable;
use crate::wire::Streams;

/// An answer of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status: that of the `Status` line, and 200 without one (RFC 3875, section 6.3.3).
    pub status: u16,
    /// The header's fields in their order, `Status` included; names as they were sent.
    pub fields: Vec<(String, String)>,
    /// Everything after the header.
    pub body: Vec<u8>,
    /// What the application wrote to its standard error: PHP's messages, where they are not logged elsewhere.
    pub errors: String,
}

/// Why standard output is no CGI response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Nothing came but an orderly end.
    #[error("its answer is empty")]
    Empty,
    /// No empty line ends the header.
    #[error("its answer has no header: it begins with '{0}'")]
    Endless(String),
    /// A line of the header is no field.
    #[error("its answer has a header line '{0}'")]
    Line(String),
    /// The status is no number of three digits.
    #[error("its answer has the status '{0}'")]
    Status(String),
}

impl Response {
    /// Reads an application's two streams.
    pub fn parse(streams: Streams) -> Result<Self, HeaderFault> {
        let Streams { output, errors } = streams;
        if output.is_empty() {
            return Err(HeaderFault::Empty);
        }
        let mut fields = Vec::new();
        let mut rest = &output[..];
        loop {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return Err(HeaderFault::Endless(printable(&output)));
            };
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            rest = &rest[end + 1..];
            if line.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(line);
            match text.split_once(':') {
                Some((name, value)) if is_token(name) => fields.push((name.to_owned(), value.trim().to_owned())),
                _ => return Err(HeaderFault::Line(printable(line))),
            }
        }
        let status = match fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("status")) {
            Some((_, value)) => status(value).ok_or_else(|| HeaderFault::Status(printable(value.as_bytes())))?,
            None => 200,
        };
        Ok(Self { status, fields, body: rest.to_vec(), errors: String::from_utf8_lossy(&errors).into_owned() })
    }

    /// The first field of this name, in whatever case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The number in `404 Not Found`.
fn status(value: &str) -> Option<u16> {
    let digits = value.split_ascii_whitespace().next()?;
    if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(output: &[u8]) -> Result<Response, HeaderFault> {
        Response::parse(Streams { output: output.to_vec(), errors: b"why".to_vec() })
    }

    #[test]
    fn the_header_ends_at_an_empty_line_and_the_body_is_kept_byte_for_byte() {
        let response = parse(b"Status: 404 Not Found\r\nContent-type: text/html\r\n\r\nFile\r\n\r\n\xff\n").unwrap();
        assert_eq!(response.status, 404);
        assert_eq!(response.field("content-TYPE"), Some("text/html"));
        assert_eq!(response.field("location"), None);
        assert_eq!(response.body, b"File\r\n\r\n\xff\n");
        assert_eq!(response.errors, "why");
    }

    #[test]
    fn without_a_status_it_is_200_and_line_feeds_alone_do() {
        let response = parse(b"Content-type: text/plain\n\npong").unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"pong"[..]));
        assert_eq!(parse(b"\npong").unwrap().body, b"pong");
    }

    #[test]
    fn what_is_no_header_is_an_error_that_shows_it() {
        let table: [(&[u8], &str); 7] = [
            (b"", "its answer is empty"),
            (b"pong", "its answer has no header: it begins with 'pong'"),
            (b"A: b\r\n", r"its answer has no header: it begins with 'A: b\r\n'"),
            (b"pong\n\n", "its answer has a header line 'pong'"),
            (b"{\"a\": 1}\n\n", "its answer has a header line '{\"a\": 1}'"),
            (b"Status: OK\n\n", "its answer has the status 'OK'"),
            (b"Status: 2000\n\n", "its answer has the status '2000'"),
        ];
        for (output, expected) in table {
            assert_eq!(parse(output).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(output in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&output);
        }

        #[test]
        fn any_body_comes_through(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let output = [b"Status: 201 Created\r\nA: b\r\n\r\n", &body[..]].concat();
            let response = parse(&output).unwrap();
            prop_assert_eq!((response.status, response.body), (201, body));
        }
    }
}
