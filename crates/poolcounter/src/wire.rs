//! poolcounterd's protocol as text: one line for each request, one for each reply, and a page of figures. Nothing here touches
//! a socket. The facts are poolcounterd 1.1.3's, measured.

use std::fmt;

use crate::key::Key;
use crate::printable::printable;

/// The most bytes of a request, line feed included; the daemon answers `ERROR BAD_COMMAND` to more.
pub const LONGEST_REQUEST: usize = 1024;

/// The most bytes that a reply may take before it is taken for rubbish. The longest that the daemon has is a page of figures, well
/// below one KiB.
pub const LONGEST_REPLY: usize = 4096;

/// What can be asked. To be sent in one write: the daemon takes what one read gives it for one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// To be one of `workers` on `key`; answered at once when there is room or the queue is full, otherwise when there is, or
    /// after `timeout`.
    Acquire {
        /// The name of the limit.
        key: &'a Key,
        /// How many may hold it together, we included; from 1. It counts for this request alone: the daemon keeps no limit.
        workers: u32,
        /// How many may hold it or wait for it, we included; from 1.
        max_queue: u32,
        /// How long to wait, in seconds.
        timeout: u32,
    },
    /// To give back what this connection holds.
    Release {
        /// The name of the limit.
        key: &'a Key,
    },
    /// The daemon's figures.
    Stats,
}

impl fmt::Display for Request<'_> {
    /// The request's line, with its line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire { key, workers, max_queue, timeout } => {
                writeln!(f, "ACQ4ME {key} {workers} {max_queue} {timeout}")
            }
            Self::Release { key } => writeln!(f, "RELEASE {key}"),
            Self::Stats => writeln!(f, "STATS FULL"),
        }
    }
}

/// What the daemon answers to a request for a slot, or to its release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The slot is ours.
    Locked,
    /// The time to wait is over.
    Timeout,
    /// As many hold it or wait for it as may.
    QueueFull,
    /// It is given back.
    Released,
    /// It was not ours to give back.
    NotLocked,
    /// This connection holds something already.
    LockHeld,
    /// Somebody else has done the work; answers `ACQ4ANY` alone, which is never asked here.
    Done,
    /// The request was refused.
    Error(Refusal),
}

/// Why the daemon refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It knows no such command, or the line was too long, or came in pieces.
    BadCommand,
    /// It cannot read the command's arguments, or a number is 0.
    BadSyntax,
    /// This connection is waiting already.
    WaitForResponse,
    /// It has no such figures.
    WrongStat,
    /// It has no memory left.
    OutOfMemory,
}

/// Every reply with its line.
const REPLIES: [(&str, Reply); 12] = [
    ("LOCKED", Reply::Locked),
    ("TIMEOUT", Reply::Timeout),
    ("QUEUE_FULL", Reply::QueueFull),
    ("RELEASED", Reply::Released),
    ("NOT_LOCKED", Reply::NotLocked),
    ("LOCK_HELD", Reply::LockHeld),
    ("DONE", Reply::Done),
    ("ERROR BAD_COMMAND", Reply::Error(Refusal::BadCommand)),
    ("ERROR BAD_SYNTAX", Reply::Error(Refusal::BadSyntax)),
    ("ERROR WAIT_FOR_RESPONSE", Reply::Error(Refusal::WaitForResponse)),
    (WRONG_STAT, Reply::Error(Refusal::WrongStat)),
    ("ERROR OUT_OF_MEMORY", Reply::Error(Refusal::OutOfMemory)),
];

/// The one reply that the daemon sends without a line feed.
const WRONG_STAT: &str = "ERROR WRONG_STAT";

impl fmt::Display for Reply {
    /// The reply's line, without its line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REPLIES.iter().find(|(_, reply)| reply == self).map_or("", |(line, _)| line))
    }
}

/// A line that no poolcounterd is known to send; what is quoted is printable and short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("answers '{0}', which is no reply of poolcounterd")]
pub struct UnknownReply(String);

impl UnknownReply {
    /// Keeps the beginning of `bytes` for a message.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(printable(bytes))
    }
}

/// What a reply's line says, given without its line feed.
pub fn parse(line: &[u8]) -> Result<Reply, UnknownReply> {
    let found = REPLIES.iter().find(|(text, _)| text.as_bytes() == line);
    found.map(|(_, reply)| *reply).ok_or_else(|| UnknownReply::new(line))
}

/// Takes the first reply out of what has been received so far; `None` while its line is not complete.
pub fn take_reply(received: &mut Vec<u8>) -> Result<Option<Reply>, UnknownReply> {
    let (line, taken) = match received.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&received[..end], end + 1),
        None if received == WRONG_STAT.as_bytes() => (&received[..], received.len()),
        None if received.len() > LONGEST_REPLY => return Err(UnknownReply::new(received)),
        None => return Ok(None),
    };
    let reply = parse(line);
    received.drain(..taken);
    reply.map(Some)
}

/// The daemon's figures, of all keys together: it tells none apart, and knows no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// How many hold a slot.
    pub holders: u64,
    /// How many wait for one.
    pub waiters: u64,
}

impl Stats {
    /// Reads the page that answers `STATS FULL`, a `name: value` a line and an empty line at the end; `None` while it is not
    /// complete. Figures that it does not know are passed over; a page without the two is an error.
    pub fn parse(received: &[u8]) -> Result<Option<Self>, UnknownReply> {
        if received == WRONG_STAT.as_bytes() || received.starts_with(b"ERROR ") && received.ends_with(b"\n") {
            return Err(UnknownReply::new(received));
        }
        if !received.ends_with(b"\n\n") {
            return if received.len() > LONGEST_REPLY { Err(UnknownReply::new(received)) } else { Ok(None) };
        }
        let page = String::from_utf8_lossy(received);
        let figure = |name: &str| {
            page.lines().filter_map(|line| line.split_once(": ")).find(|(found, _)| *found == name)?.1.parse().ok()
        };
        match (figure("processing_workers"), figure("waiting_workers")) {
            (Some(holders), Some(waiters)) => Ok(Some(Self { holders, waiters })),
            _ => Err(UnknownReply::new(received)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = "uptime: 0 days, 0h 0m 1s\ntotal processing time: 0.000000s\ntotal_acquired: 1\n\
                        processing_workers: 3\nwaiting_workers: 12\nprocessed_count: 0\n\n";

    #[test]
    fn requests_are_those_of_the_original() {
        let key = Key::new("ServiceRestarter::eqiad::appservers").unwrap();
        let acquire = Request::Acquire { key: &key, workers: 3, max_queue: 10_000, timeout: 600 };
        assert_eq!(acquire.to_string(), "ACQ4ME ServiceRestarter::eqiad::appservers 3 10000 600\n");
        assert_eq!(Request::Release { key: &key }.to_string(), "RELEASE ServiceRestarter::eqiad::appservers\n");
        assert_eq!(Request::Stats.to_string(), "STATS FULL\n");
    }

    #[test]
    fn the_longest_request_fits_its_line() {
        let key = Key::new("k".repeat(Key::LONGEST)).unwrap();
        let request = Request::Acquire { key: &key, workers: u32::MAX, max_queue: u32::MAX, timeout: u32::MAX };
        assert_eq!(request.to_string().len(), LONGEST_REQUEST);
    }

    #[test]
    fn every_reply_is_read_and_written_the_same() {
        for (line, reply) in REPLIES {
            assert_eq!(parse(line.as_bytes()), Ok(reply));
            assert_eq!(reply.to_string(), line);
        }
    }

    #[test]
    fn whatever_else_is_unknown_and_quoted_printably() {
        for line in ["", "locked", "LOCKED ", " LOCKED", "LOCKED\r", "ERROR", "ERROR OTHER", "DONE\0"] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        let error = parse(b"\x1b[2JHTTP/1.1 400 Bad Request").unwrap_err();
        assert_eq!(
            error.to_string(),
            r"answers '\u{1b}[2JHTTP/1.1 400 Bad Request', which is no reply of poolcounterd"
        );
    }

    #[test]
    fn replies_come_out_one_by_one_as_their_lines_are_complete() {
        let mut received = b"LOC".to_vec();
        assert_eq!(take_reply(&mut received), Ok(None));
        received.extend(b"KED\nRELEASED\nTIME");
        assert_eq!(take_reply(&mut received), Ok(Some(Reply::Locked)));
        assert_eq!(take_reply(&mut received), Ok(Some(Reply::Released)));
        assert_eq!(take_reply(&mut received), Ok(None));
        assert_eq!(received, b"TIME");
    }

    #[test]
    fn the_reply_without_a_line_feed_is_complete() {
        let mut received = b"ERROR WRONG_STA".to_vec();
        assert_eq!(take_reply(&mut received), Ok(None));
        received.push(b'T');
        assert_eq!(take_reply(&mut received), Ok(Some(Reply::Error(Refusal::WrongStat))));
        assert!(received.is_empty());
    }

    #[test]
    fn a_reply_that_never_ends_is_rubbish() {
        assert!(take_reply(&mut vec![b'x'; LONGEST_REPLY + 1]).is_err());
        assert!(Stats::parse(&vec![b'x'; LONGEST_REPLY + 1]).is_err());
    }

    #[test]
    fn figures_are_read_once_the_page_is_complete() {
        let whole = PAGE.as_bytes();
        assert_eq!(Stats::parse(whole), Ok(Some(Stats { holders: 3, waiters: 12 })));
        for end in 0..whole.len() {
            assert_eq!(Stats::parse(&whole[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn a_page_without_the_figures_is_an_error() {
        for page in ["\n\n", "processing_workers: 3\n\n", "processing_workers: x\nwaiting_workers: 1\n\n"] {
            assert!(Stats::parse(page.as_bytes()).is_err(), "{page:?}");
        }
        for refusal in ["ERROR WRONG_STAT", "ERROR BAD_COMMAND\n"] {
            assert!(Stats::parse(refusal.as_bytes()).is_err(), "{refusal:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = Stats::parse(&bytes);
            let mut received = bytes.clone();
            while let Ok(Some(_)) = take_reply(&mut received) {}
        }

        #[test]
        fn every_request_is_one_line_of_bounded_length(text in "\\PC{1,1200}", numbers in any::<[u32; 3]>()) {
            if let Ok(key) = Key::new(text) {
                let [workers, max_queue, timeout] = numbers;
                let line = Request::Acquire { key: &key, workers, max_queue, timeout }.to_string();
                prop_assert!(line.len() <= LONGEST_REQUEST);
                prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
                prop_assert_eq!(line.split_whitespace().count(), 5);
            }
        }
    }
}
