//! The gRPC library's errors, in our words and by what follows from them. Their own texts are nested debug output, so that
//! only etcd's sentences are shown, and of the rest the innermost reason.

use std::error::Error as StdError;

use etcd_client::Error;
use tonic::{Code, ConnectError};

use crate::limits::CONNECT;
use crate::member::{Kind, Trouble, io_kind, io_reason, short, tls_trouble};

/// An error from connecting: whatever it was, the request was not sent.
pub(super) fn unsent(error: &Error) -> Trouble {
    let trouble = sent(error);
    match trouble.kind {
        Kind::Refused | Kind::NoApi => trouble,
        Kind::NotAsked | Kind::NoLeader | Kind::Dropped | Kind::NoAnswer | Kind::NoRoom => {
            Trouble::new(Kind::NotAsked, trouble.why)
        }
    }
}

/// An error of a request.
pub(super) fn sent(error: &Error) -> Trouble {
    match error {
        Error::GRpcStatus(status) => match connection(status) {
            Some(trouble) => trouble,
            None => said(status.code(), status.message()),
        },
        Error::TransportError(error) => {
            connection(error).unwrap_or_else(|| Trouble::new(Kind::NoAnswer, "connection failed"))
        }
        Error::IoError(error) => Trouble::new(Kind::NoAnswer, io_reason(error)),
        Error::WatchError(why) => Trouble::new(Kind::NoAnswer, short(why)),
        Error::InvalidUri(_) | Error::InvalidArgs(_) => Trouble::new(Kind::NotAsked, "its address cannot be used"),
        _ => Trouble::new(Kind::NoAnswer, "its answer cannot be used"),
    }
}

/// Whether the server says that it knows no users at all.
pub(super) fn is_authentication_off(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// Whether etcd says that users or roles were changed since it gave out our token. Nothing was done.
pub(super) fn is_token_outdated(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("revision of auth store is old"))
}

/// Whether etcd says that this user may not do that with these keys. Nothing was done.
pub(crate) fn is_permission_denied(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

/// Whether there is no such lease (any more). The library has a sentence of its own for a keep-alive that is answered so.
pub(crate) fn is_lease_gone(error: &Error) -> bool {
    match error {
        Error::LeaseKeepAliveError(why) => why == "lease not found",
        Error::GRpcStatus(status) => status.code() == Code::NotFound,
        _ => false,
    }
}

/// Whether etcd no longer keeps what was asked for.
pub(crate) fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::OutOfRange)
}

/// What etcd itself answered.
fn said(code: Code, message: &str) -> Trouble {
    let message = message.strip_prefix("etcdserver: ").unwrap_or(message);
    match code {
        // The member's answer to our wish for a leader; it comes before the request is looked at.
        Code::Unavailable if message == "no leader" => Trouble::new(Kind::NoLeader, "no leader (is the quorum lost?)"),
        // The member lags behind; it says so before the request is proposed to the others.
        Code::ResourceExhausted if message == "too many requests" => Trouble::new(Kind::NotAsked, message),
        Code::ResourceExhausted if message.ends_with("database space exceeded") => Trouble::new(Kind::NoRoom, message),
        // The client's own words when the connection ends under a request.
        Code::Cancelled | Code::Unknown if message == "operation was canceled" => {
            Trouble::new(Kind::Dropped, "connection closed")
        }
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Internal
        // Any other than the two above: HTTP/2's own complaint that there is too much traffic, for one.
        | Code::ResourceExhausted
        | Code::Unavailable
        | Code::DataLoss => Trouble::new(Kind::NoAnswer, short(message)),
        Code::Unimplemented => Trouble::new(Kind::NoApi, "it has no v3 API"),
        _ => Trouble::new(Kind::Refused, short(message)),
    }
}

/// What happened to the connection, if that is what the error is about: it could not be made, or it ended.
fn connection(error: &(dyn StdError + 'static)) -> Option<Trouble> {
    let is_unconnected = causes(error).any(<dyn StdError>::is::<ConnectError>);
    let io = causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let tls = causes(error).find_map(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.and_then(|inner| inner.downcast_ref()).or_else(|| cause.downcast_ref::<rustls::Error>())
    });
    let (kind, why) = match (tls, io) {
        (Some(tls), _) => {
            let trouble = tls_trouble(tls);
            (trouble.kind, trouble.why)
        }
        (None, Some(io)) if is_unconnected && io.kind() == std::io::ErrorKind::TimedOut => {
            (Kind::NotAsked, format!("no connection within {} s", CONNECT.as_secs_f32()))
        }
        (None, Some(io)) => (io_kind(io), io_reason(io)),
        (None, None) if is_unconnected => (Kind::NotAsked, "no connection".to_owned()),
        (None, None) => return None,
    };
    Some(Trouble::new(if is_unconnected { Kind::NotAsked } else { kind }, why))
}

/// The errors behind an error, outermost first.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_own_words_are_sorted_by_what_follows_from_them() {
        for (code, message, kind, wanted) in [
            (Code::Unavailable, "etcdserver: no leader", Kind::NoLeader, "no leader"),
            (Code::Unavailable, "etcdserver: request timed out", Kind::NoAnswer, "request timed out"),
            (Code::Unavailable, "etcdserver: leader changed", Kind::NoAnswer, "leader changed"),
            (Code::Cancelled, "Timeout expired", Kind::NoAnswer, "Timeout expired"),
            (Code::DeadlineExceeded, "context deadline exceeded", Kind::NoAnswer, "deadline"),
            (Code::PermissionDenied, "etcdserver: permission denied", Kind::Refused, "permission denied"),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Kind::Refused, "invalid auth token"),
            (Code::InvalidArgument, "etcdserver: user name is empty", Kind::Refused, "user name is empty"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Kind::NoRoom, "space exceeded"),
            (Code::ResourceExhausted, "etcdserver: too many requests", Kind::NotAsked, "too many requests"),
            (Code::ResourceExhausted, "h2 protocol error: calm down", Kind::NoAnswer, "calm down"),
            (Code::Unimplemented, "unknown service etcdserverpb.KV", Kind::NoApi, "no v3 API"),
        ] {
            let trouble = said(code, message);
            assert_eq!(trouble.kind, kind, "{message}");
            assert!(trouble.why.contains(wanted) && !trouble.why.contains("etcdserver"), "{}", trouble.why);
        }
    }

    #[test]
    fn a_request_that_was_not_sent_cannot_have_been_made() {
        let lost = Error::WatchError("the watch ended".to_owned());
        assert_eq!(sent(&lost).kind, Kind::NoAnswer);
        assert_eq!(unsent(&lost).kind, Kind::NotAsked);
    }
}
