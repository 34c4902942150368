//! FastCGI 1.0 as bytes: one request in the responder role out, its records in. Pure: nothing here touches a socket, so that
//! every way in which bytes can be split, cut short or wrong is a test.
//!
//! The numbers are those of the FastCGI Specification, version 1.0 (Open Market, 1996), whose sections are named below.

use std::fmt;

/// `FCGI_VERSION_1` (section 8), the only version there is.
const VERSION: u8 = 1;
/// `FCGI_HEADER_LEN` (section 8), in bytes: version, type, request id (two), content length (two), padding length, reserved.
const HEADER: usize = 8;
/// The one request of a connection. 0 is for management records (section 3.3).
const REQUEST_ID: u16 = 1;
/// `FCGI_RESPONDER` (section 5.1): answers one request, as CGI programs do.
const RESPONDER: u16 = 1;
/// The most content that a record's length of 16 bits can say (section 3.3), in bytes.
const LONGEST_CONTENT: usize = 0xffff;

// Record types (section 8).
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// The bytes of a request with these parameters and an empty body. The flag `FCGI_KEEP_CONN` is not set, so that the other side
/// closes the connection after its answer (section 5.1).
pub fn request(params: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let [role_high, role_low] = RESPONDER.to_be_bytes();
    record(&mut bytes, BEGIN_REQUEST, &[role_high, role_low, 0, 0, 0, 0, 0, 0]);
    let mut content = Vec::new();
    for (name, value) in params {
        length(&mut content, name.len());
        length(&mut content, value.len());
        content.extend_from_slice(name.as_bytes());
        content.extend_from_slice(value.as_bytes());
    }
    // A stream is any number of records and an empty one (section 3.3).
    for chunk in content.chunks(LONGEST_CONTENT) {
        record(&mut bytes, PARAMS, chunk);
    }
    record(&mut bytes, PARAMS, &[]);
    record(&mut bytes, STDIN, &[]);
    bytes
}

/// The length of a name or value (section 3.4): one byte up to 127, otherwise four with the highest bit set.
fn length(bytes: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => bytes.push(short),
        // No text of ours comes near 2 GiB.
        _ => bytes.extend_from_slice(&(u32::try_from(length).unwrap_or(u32::MAX) | 0x8000_0000).to_be_bytes()),
    }
}

fn record(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let [id_high, id_low] = REQUEST_ID.to_be_bytes();
    // The callers keep to LONGEST_CONTENT.
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    bytes.extend_from_slice(&[VERSION, kind, id_high, id_low, high, low, 0, 0]);
    bytes.extend_from_slice(content);
}

/// How much of an answer is kept, in bytes; more is a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of standard output: header and body together.
    pub output: usize,
    /// Of standard error.
    pub errors: usize,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A record of another version: not FastCGI at all.
    #[error("its answer is not FastCGI 1.0: a record of version {0}")]
    Version(u8),
    /// A record type that has no place in an answer.
    #[error("its answer has a record of type {0}, which no answer has")]
    RecordType(u8),
    /// A record of a request that was not made.
    #[error("its answer is to request {0}, which was not made")]
    RequestId(u16),
    /// The record that ends the answer is too short to say how it ended.
    #[error("its answer ends with a record of {0} bytes instead of 8")]
    EndLength(usize),
    /// The application did not take the request.
    #[error("it did not take the request: {0}")]
    Rejected(Rejection),
    /// More standard output than is kept.
    #[error("its answer is longer than {0} bytes")]
    OutputTooLong(usize),
    /// More standard error than is kept.
    #[error("its error output is longer than {0} bytes")]
    ErrorsTooLong(usize),
}

/// Why an application does not take a request: the protocol status of `FCGI_END_REQUEST` (section 5.5) that is not
/// `FCGI_REQUEST_COMPLETE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// `FCGI_CANT_MPX_CONN`: it takes one request a connection, and has one.
    OneAtATime,
    /// `FCGI_OVERLOADED`: it is out of some resource.
    Overloaded,
    /// `FCGI_UNKNOWN_ROLE`: it is no responder.
    UnknownRole,
    /// A number that the specification does not have.
    Unknown(u8),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneAtATime => f.write_str("it takes one request a connection (FCGI_CANT_MPX_CONN)"),
            Self::Overloaded => f.write_str("it is overloaded (FCGI_OVERLOADED)"),
            Self::UnknownRole => f.write_str("it is no responder (FCGI_UNKNOWN_ROLE)"),
            Self::Unknown(status) => write!(f, "protocol status {status}, which FastCGI does not know"),
        }
    }
}

/// A whole answer: both of the application's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard output: a CGI header and a body.
    pub output: Vec<u8>,
    /// Standard error: what the application logs.
    pub errors: Vec<u8>,
}

/// Takes an answer's bytes as they come, in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    streams: Streams,
    ended: bool,
}

#[derive(Debug)]
enum State {
    /// Collecting the header of the next record.
    Header(Vec<u8>),
    /// Inside a record: what is left of its content and of its padding.
    Content { kind: u8, left: usize, padding: usize, end: Vec<u8> },
}

impl Decoder {
    /// Begins with an answer.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Header(Vec::new()), streams: Streams::default(), ended: false }
    }

    /// Takes the next bytes; true once the answer is whole. Bytes after its end are left alone.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, Fault> {
        while !self.ended && !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Header(header) => {
                    let (taken, rest) = bytes.split_at(bytes.len().min(HEADER - header.len()));
                    header.extend_from_slice(taken);
                    if header.len() == HEADER {
                        self.state = open(header)?;
                        self.close_if_complete()?;
                    }
                    rest
                }
                State::Content { kind, left, padding, end } => {
                    let (content, rest) = bytes.split_at(bytes.len().min(*left));
                    *left -= content.len();
                    let (skipped, rest) = rest.split_at(rest.len().min(*padding));
                    *padding -= skipped.len();
                    match *kind {
                        STDOUT => {
                            keep(&mut self.streams.output, content, self.limits.output, Fault::OutputTooLong)?;
                        }
                        STDERR => {
                            keep(&mut self.streams.errors, content, self.limits.errors, Fault::ErrorsTooLong)?;
                        }
                        _ => end.extend_from_slice(content),
                    }
                    self.close_if_complete()?;
                    rest
                }
            };
        }
        Ok(self.ended)
    }

    /// The answer, if it was whole.
    pub fn finish(self) -> Option<Streams> {
        self.ended.then_some(self.streams)
    }

    /// What has come on standard error so far, also of an answer that is not whole.
    pub fn errors(&self) -> &[u8] {
        &self.streams.errors
    }

    /// Goes on to the next header when a record is complete. The answer's last record counts without its padding, which an
    /// application that closes at once may not send.
    fn close_if_complete(&mut self) -> Result<(), Fault> {
        let State::Content { kind, left: 0, padding, end } = &self.state else { return Ok(()) };
        if *kind == END_REQUEST {
            // Four bytes of the application's own status, the protocol's status, three reserved (section 5.5).
            let rejection = match end[..] {
                [_, _, _, _, 0, _, _, _] => None,
                [_, _, _, _, 1, _, _, _] => Some(Rejection::OneAtATime),
                [_, _, _, _, 2, _, _, _] => Some(Rejection::Overloaded),
                [_, _, _, _, 3, _, _, _] => Some(Rejection::UnknownRole),
                [_, _, _, _, status, _, _, _] => Some(Rejection::Unknown(status)),
                _ => return Err(Fault::EndLength(end.len())),
            };
            self.ended = true;
            return rejection.map_or(Ok(()), |rejection| Err(Fault::Rejected(rejection)));
        }
        if *padding == 0 {
            self.state = State::Header(Vec::new());
        }
        Ok(())
    }
}

/// Reads a record's header.
fn open(header: &[u8]) -> Result<State, Fault> {
    let [version, kind, id_high, id_low, high, low, padding, _] = *header else { return Err(Fault::EndLength(0)) };
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    if !matches!(kind, STDOUT | STDERR | END_REQUEST) {
        return Err(Fault::RecordType(kind));
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    if id != REQUEST_ID {
        return Err(Fault::RequestId(id));
    }
    let left = usize::from(u16::from_be_bytes([high, low]));
    if kind == END_REQUEST && left != 8 {
        return Err(Fault::EndLength(left));
    }
    Ok(State::Content { kind, left, padding: usize::from(padding), end: Vec::new() })
}

fn keep(kept: &mut Vec<u8>, content: &[u8], limit: usize, fault: impl FnOnce(usize) -> Fault) -> Result<(), Fault> {
    if kept.len() + content.len() > limit {
        return Err(fault(limit));
    }
    kept.extend_from_slice(content);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { output: 10_000, errors: 1_000 };
    const COMPLETE: [u8; 8] = [0; 8];

    fn padded(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        record(&mut bytes, kind, content);
        bytes[6] = padding;
        bytes.extend(vec![0xaa; usize::from(padding)]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Option<Streams>, Fault> {
        let mut decoder = Decoder::new(LIMITS);
        decoder.feed(bytes)?;
        Ok(decoder.finish())
    }

    fn streams(output: &[u8], errors: &[u8]) -> Streams {
        Streams { output: output.to_vec(), errors: errors.to_vec() }
    }

    #[test]
    fn a_request_is_begin_parameters_and_an_empty_body() {
        let bytes = request(&[("A", "b"), ("LONG", &"x".repeat(200))]);
        let mut expected = vec![1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        expected.extend([1, 4, 0, 1, 0, 213, 0, 0, 1, 1, b'A', b'b', 4, 0x80, 0, 0, 200]);
        expected.extend(b"LONG");
        expected.extend([b'x'; 200]);
        expected.extend([1, 4, 0, 1, 0, 0, 0, 0, 1, 5, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn parameters_longer_than_a_record_are_several_records() {
        let bytes = request(&[("A", &"x".repeat(100_000))]);
        assert_eq!(bytes[16..24], [1, 4, 0, 1, 0xff, 0xff, 0, 0]);
        let second = 24 + LONGEST_CONTENT;
        let left = u16::try_from(100_000 + 6 - LONGEST_CONTENT).unwrap();
        let [high, low] = left.to_be_bytes();
        assert_eq!(bytes[second..second + 8], [1, 4, 0, 1, high, low, 0, 0]);
    }

    #[test]
    fn both_streams_are_kept_apart_in_any_order() {
        let bytes = [
            padded(STDERR, b"warn", 4),
            padded(STDOUT, b"Status: 200\r\n\r\n", 1),
            padded(STDERR, b"ing", 0),
            padded(STDOUT, b"body", 255),
            padded(STDOUT, b"", 0),
            padded(STDERR, b"", 8),
            padded(END_REQUEST, &COMPLETE, 0),
        ];
        assert_eq!(decode(&bytes.concat()), Ok(Some(streams(b"Status: 200\r\n\r\nbody", b"warning"))));
    }

    #[test]
    fn an_answer_is_whole_at_its_last_record_whatever_comes_after() {
        let end = padded(END_REQUEST, &COMPLETE, 7);
        assert_eq!(decode(&end), Ok(Some(Streams::default())));
        assert_eq!(decode(&end[..HEADER + 8]), Ok(Some(Streams::default())));
        assert_eq!(decode(&end[..HEADER + 7]), Ok(None));
        assert_eq!(decode(&[end, b"rubbish".to_vec()].concat()), Ok(Some(Streams::default())));
    }

    #[test]
    fn an_application_that_does_not_take_the_request_is_a_fault_that_says_why() {
        let table = [
            (1, "it did not take the request: it takes one request a connection (FCGI_CANT_MPX_CONN)"),
            (2, "it did not take the request: it is overloaded (FCGI_OVERLOADED)"),
            (3, "it did not take the request: it is no responder (FCGI_UNKNOWN_ROLE)"),
            (9, "it did not take the request: protocol status 9, which FastCGI does not know"),
        ];
        for (status, expected) in table {
            let fault = decode(&padded(END_REQUEST, &[0, 0, 0, 0, status, 0, 0, 0], 0)).unwrap_err();
            assert_eq!(fault.to_string(), expected);
        }
    }

    #[test]
    fn the_applications_own_status_is_no_fault() {
        assert!(decode(&padded(END_REQUEST, &[0, 0, 0, 1, 0, 0, 0, 0], 0)).unwrap().is_some());
    }

    #[test]
    fn what_is_no_answer_is_a_named_fault() {
        assert_eq!(decode(b"HTTP/1.1 400 Bad Request\r\n"), Err(Fault::Version(b'H')));
        for kind in [0, 1, 2, 4, 5, 8, 9, 10, 11, 12, 255] {
            assert_eq!(decode(&padded(kind, b"", 0)), Err(Fault::RecordType(kind)));
        }
        let mut other = padded(STDOUT, b"x", 0);
        other[3] = 2;
        assert_eq!(decode(&other), Err(Fault::RequestId(2)));
        assert_eq!(decode(&padded(END_REQUEST, b"", 0)), Err(Fault::EndLength(0)));
        assert_eq!(decode(&padded(END_REQUEST, &[0; 9], 0)), Err(Fault::EndLength(9)));
    }

    #[test]
    fn more_than_is_kept_is_a_fault_and_as_much_is_none() {
        for (kind, limit, fault) in [
            (STDOUT, LIMITS.output, Fault::OutputTooLong(LIMITS.output)),
            (STDERR, LIMITS.errors, Fault::ErrorsTooLong(LIMITS.errors)),
        ] {
            assert_eq!(decode(&padded(kind, &vec![b'x'; limit], 0)), Ok(None));
            assert_eq!(decode(&padded(kind, &vec![b'x'; limit + 1], 0)), Err(fault));
        }
    }

    /// A record of one of the streams.
    fn stream_record() -> impl Strategy<Value = (bool, Vec<u8>, u8)> {
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..50), any::<u8>())
    }

    proptest! {
        #[test]
        fn any_order_of_records_in_any_pieces_gives_the_same_streams(
            records in proptest::collection::vec(stream_record(), 0..10),
            cuts in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let mut expected = Streams::default();
            let mut bytes = Vec::new();
            for (is_error, content, padding) in &records {
                let (kind, stream) =
                    if *is_error { (STDERR, &mut expected.errors) } else { (STDOUT, &mut expected.output) };
                stream.extend(content);
                bytes.extend(padded(kind, content, *padding));
            }
            bytes.extend(padded(END_REQUEST, &COMPLETE, 3));
            let mut decoder = Decoder::new(LIMITS);
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at(rest.len().min(*cut));
                rest = left;
                if decoder.feed(piece).unwrap() {
                    break;
                }
            }
            prop_assert_eq!(decoder.finish(), Some(expected));
        }

        #[test]
        fn an_answer_cut_short_anywhere_is_never_whole(
            records in proptest::collection::vec(stream_record(), 0..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes: Vec<u8> = records
                .iter()
                .flat_map(|(is_error, content, padding)| {
                    padded(if *is_error { STDERR } else { STDOUT }, content, *padding)
                })
                .collect();
            bytes.extend(padded(END_REQUEST, &COMPLETE, 0));
            let cut = cut.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..cut]), Ok(None));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_content_after_a_good_header_panics(
            kind in 0_u8..12, content in proptest::collection::vec(any::<u8>(), 0..300), padding in any::<u8>(),
        ) {
            let _ = decode(&padded(kind, &content, padding));
        }
    }
}
