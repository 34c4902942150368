//! The boundary between the store and the protocols: what one member of an etcd cluster is asked, and how its silence is
//! told from its refusal. Two files answer it: `v2.rs` and `v3.rs`.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::mark::Mark;
use crate::secret::Credentials;
use crate::tls::Tls;

/// One member of the cluster, spoken to through one of etcd's APIs. Each method ends within `limit`.
pub(crate) trait Member {
    /// The member's URL, for messages.
    fn url(&self) -> &str;

    /// The objects right below `directory`; an absent directory is empty. Read through the quorum.
    fn list(&mut self, directory: &str, limit: Duration) -> Result<Vec<Object>, Trouble>;

    /// The objects below `directory` at any depth; an absent directory is empty. Read through the quorum.
    fn list_all(&mut self, directory: &str, limit: Duration) -> Result<Vec<Object>, Trouble>;

    /// The object at `key`, if there is one. Read through the quorum.
    fn get(&mut self, key: &str, limit: Duration) -> Result<Option<Object>, Trouble>;

    /// What there is at `key` and at `mark`, at one moment. Read through the quorum.
    fn trace(&mut self, key: &str, mark: &str, limit: Duration) -> Result<Trace, Trouble>;

    /// Writes if the object is there and still at the revision expected.
    fn swap(&mut self, attempt: &Attempt<'_>, limit: Duration) -> Result<Swap, Trouble>;

    /// The first thing that happened to `key` after `revision`, from the store's history, and what `mark` held at that moment.
    /// Asked only when it is known that something did.
    fn first_change(
        &mut self,
        key: &str,
        mark: Option<&str>,
        revision: u64,
        limit: Duration,
    ) -> Result<Change, Trouble>;

    /// Removes the note at `key` that a host is out, if there is one. There are no slots in v2, and so there is none.
    fn remove(&mut self, key: &str, limit: Duration) -> Result<(), Trouble>;
}

/// A key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// The whole key.
    pub(crate) key: String,
    /// The value, which need not be text.
    pub(crate) value: Vec<u8>,
    /// The index (v2) or revision (v3) of its last change.
    pub(crate) revision: u64,
}

/// A compare-and-swap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    /// The object's key.
    pub(crate) key: &'a str,
    /// The revision that the object must be at.
    pub(crate) revision: u64,
    /// What it gets.
    pub(crate) value: &'a str,
    /// What is written with it, in one transaction, where the API has transactions and the user may.
    pub(crate) mark: &'a Mark,
}

/// What an object and its mark tell about a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The revision of the object; `None` if there is none.
    pub(crate) revision: Option<u64>,
    /// The mark.
    pub(crate) mark: Marks,
}

/// The mark of a write, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Writes through this API, or by this user, have none.
    Unused,
    /// What stands at its key.
    Used(Option<Object>),
}

/// What a compare-and-swap came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swap {
    /// Written; the object is at this revision now.
    Made(u64),
    /// Not written: the object is at another revision, or gone.
    Changed,
}

/// The first change of a key after a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was written.
    Written {
        /// The value it got.
        value: Vec<u8>,
        /// The revision it got.
        revision: u64,
        /// What was at the mark's key at that revision, if it was asked for.
        mark: Option<Object>,
    },
    /// It was deleted, or expired.
    Deleted,
    /// The store does not remember that far back.
    Forgotten,
}

/// Why a member gave no answer that can be used. The text is a short reason; who was asked for what is added by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What follows from it.
    pub(crate) kind: Kind,
    /// The reason, in words.
    pub(crate) why: String,
}

/// What follows from a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request did not reach etcd: nothing was written. Another member may do better.
    NotAsked,
    /// The member has no leader, and says so before it looks at the request: nothing was written. If the others are well, one is
    /// elected within seconds.
    NoLeader,
    /// The connection ended before the answer. A write may have been made. A connection that had stood idle ends like this
    /// when the member was restarted, so that a read is worth a second attempt.
    Dropped,
    /// No answer, or one that leaves open whether a write was made. Another member may do better.
    NoAnswer,
    /// etcd is full, and says so before a write or, of the one that filled it, after. Nothing of the request is under way any
    /// more: a look tells. Another member may do better.
    NoRoom,
    /// This member lacks the API: nothing was written. Another member may do better.
    NoApi,
    /// The cluster refuses: nothing was written, and no other member will do better.
    Refused,
}

/// How a member is spoken to, for the explanation of a connection that it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// Plain text.
    None,
    /// TLS, and we have no certificate.
    Anonymous,
    /// TLS with a certificate of ours.
    Identified,
}

impl Security {
    /// The security that these files give; `None` is plain text.
    pub(crate) fn of(tls: Option<&Tls>) -> Self {
        match tls {
            None => Self::None,
            Some(Tls { identity: None, .. }) => Self::Anonymous,
            Some(Tls { identity: Some(_), .. }) => Self::Identified,
        }
    }
}

impl Trouble {
    /// A trouble of a kind, with its reason.
    pub(crate) fn new(kind: Kind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }

    /// The same with what an operator would ask next: which user is refused, or why a connection may have been closed.
    pub(crate) fn explained(self, credentials: Option<&Credentials>, security: Security) -> Self {
        let Self { kind, why } = self;
        let why = match (kind, credentials, security) {
            (Kind::Refused, Some(Credentials { user, .. }), _) => format!("it refuses user '{user}': {why}"),
            (Kind::Dropped, _, Security::None) => format!("{why} (does it speak TLS?)"),
            (Kind::Dropped, _, Security::Anonymous) => format!("{why} (does it want a client certificate?)"),
            _ => why,
        };
        Self { kind, why }
    }
}

/// An error of TLS. A certificate of the member's that is not good ends the handshake: nothing was asked. An alert can come
/// after the request, as with TLS 1.3 a refusal of our own certificate does.
pub(crate) fn tls_trouble(error: &rustls::Error) -> Trouble {
    let kind = match error {
        rustls::Error::InvalidCertificate(_) => Kind::NotAsked,
        _ => Kind::NoAnswer,
    };
    Trouble::new(kind, format!("TLS: {}", short(&error.to_string())))
}

/// Longest piece of a foreign message that ours quote.
const QUOTED: usize = 160;

/// A foreign message fit for one of ours: its first line, cut, without control characters.
pub(crate) fn short(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing");
    let mut short: String = line.chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    if line.chars().count() > QUOTED {
        short.push_str("...");
    }
    short
}

/// How the system's resolver begins its complaint; Rust gives it no kind of its own.
const LOOKUP_FAILED: &str = "failed to lookup address information: ";

/// What follows from a failed connection. What is not known to come before the request counts as after it.
pub(crate) fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Kind::NotAsked,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Kind::Dropped,
        _ if error.to_string().starts_with(LOOKUP_FAILED) => Kind::NotAsked,
        _ => Kind::NoAnswer,
    }
}

/// The reason of a failed connection in the words of the system, without an error number.
pub(crate) fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::ConnectionAborted => "connection aborted".to_owned(),
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "connection closed".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timed out".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => {
            let text = error.to_string();
            match text.strip_prefix(LOOKUP_FAILED) {
                Some(why) => format!("its name cannot be looked up: {}", short(why)),
                None => short(text.split(" (os error").next().unwrap_or_default()),
            }
        }
    }
}
