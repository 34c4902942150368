//! One GET, whole, within one bound, from a server that nobody vouches for. Nothing is kept from one request to the next, so
//! that each answer stands by itself.

use std::io;
use std::time::Duration;

use ureq::{Agent, Error};

/// What is read of a body. PyBal's answers take 70 bytes.
const LONGEST_BODY: u64 = 64 * 1024;

/// What a load balancer finds in its access log.
const USER_AGENT: &str = concat!("safe-service-restart/", env!("CARGO_PKG_VERSION"));

/// A server's answer, of any status.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Gets `url` as JSON, within `at_most`. Redirects are not followed, and no proxy is asked. The error is a reason in a few words.
pub fn get(url: &str, at_most: Duration) -> Result<Answer, String> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(at_most))
        .max_redirects(0)
        .proxy(None)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .user_agent(USER_AGENT)
        // PyBal answers in JSON to exactly this, and in text to anything longer.
        .accept("application/json")
        .build()
        .into();
    let reason = |error: Error| reason(&error, at_most);
    let mut response = agent.get(url).header("connection", "close").call().map_err(reason)?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(LONGEST_BODY).read_to_vec().map_err(reason)?;
    Ok(Answer { status, body })
}

/// What went wrong, without anything that the server sent.
fn reason(error: &Error, at_most: Duration) -> String {
    match error {
        Error::Timeout(_) => format!("timed out after {at_most:?}"),
        Error::HostNotFound => "no such host".to_owned(),
        Error::ConnectionFailed => "cannot connect".to_owned(),
        Error::BodyExceedsLimit(_) => format!("its answer is longer than {} KiB", LONGEST_BODY / 1024),
        Error::LargeResponseHeader(..) => "the header of its answer is too long".to_owned(),
        Error::Protocol(_) | Error::Http(_) => "its answer is not HTTP".to_owned(),
        Error::BadUri(_) => "it has no address that can be asked".to_owned(),
        Error::Io(error) => io_reason(error, at_most),
        _ => "the request failed".to_owned(),
    }
}

/// What went wrong on a socket, in a few words.
pub(crate) fn io_reason(error: &io::Error, at_most: Duration) -> String {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        ConnectionRefused => "connection refused".to_owned(),
        ConnectionReset => "connection reset".to_owned(),
        UnexpectedEof => "connection closed in the middle of its answer".to_owned(),
        TimedOut | WouldBlock => format!("timed out after {at_most:?}"),
        _ => name_reason(error),
    }
}

/// std passes on getaddrinfo's failures as text alone, behind these words.
const LOOKUP: &str = "failed to lookup address information: ";

/// A reason of the resolver or the system; both speak from a fixed list.
fn name_reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix(LOOKUP) {
        Some("Name or service not known" | "No address associated with hostname") => "no such host".to_owned(),
        Some(why) => format!("its name cannot be resolved: {}", lower(why)),
        // Without " (os error 113)", which says the same to nobody.
        None => lower(text.split(" (os error").next().unwrap_or_default()),
    }
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn reasons_are_short_and_in_plain_words() {
        let unreachable = io::Error::from_raw_os_error(113);
        let lookup = |why: &str| Error::Io(io::Error::other(format!("{LOOKUP}{why}")));
        let table = [
            (Error::Timeout(ureq::Timeout::Global), "timed out after 1s"),
            (Error::HostNotFound, "no such host"),
            (lookup("Name or service not known"), "no such host"),
            (
                lookup("Temporary failure in name resolution"),
                "its name cannot be resolved: temporary failure in name resolution",
            ),
            (Error::Io(io::ErrorKind::ConnectionRefused.into()), "connection refused"),
            (Error::Io(io::ErrorKind::ConnectionReset.into()), "connection reset"),
            (Error::Io(io::ErrorKind::WouldBlock.into()), "timed out after 1s"),
            (Error::Io(io::ErrorKind::UnexpectedEof.into()), "connection closed in the middle of its answer"),
            (Error::Io(unreachable), "no route to host"),
            (Error::BodyExceedsLimit(1), "its answer is longer than 64 KiB"),
        ];
        for (error, expected) in table {
            assert_eq!(reason(&error, SECOND), expected, "{error:?}");
        }
    }
}
