//! A question that got no answer, or none that can be used. One type for all of them, since whoever asks wants to know the same of each:
//! what was asked, where, and what came.

use std::io::ErrorKind;

use crate::fastcgi::{Fault, Response};
use crate::json::JsonFault;
use crate::printable::printable;

/// What was asked, where, and what came instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("{question} at '{place}': {fault}")]
pub struct AskError {
    question: String,
    place: String,
    // Boxed: an error should cost an answer no room.
    fault: Box<AskFault>,
}

impl AskError {
    pub(crate) fn new(question: String, place: String, fault: AskFault) -> Self {
        Self { question, place, fault: Box::new(fault) }
    }

    /// What came instead of an answer.
    pub fn fault(&self) -> &AskFault {
        &self.fault
    }

    /// Whether the time was over: to PHP-FPM that means most often that every process is busy.
    pub fn is_time_out(&self) -> bool {
        matches!(*self.fault, AskFault::NoAnswer(Fault::TimedOut { .. }) | AskFault::HttpTimedOut(_))
    }

    /// Whether it was not asked, since whoever runs this may not connect there.
    pub fn is_not_permitted(&self) -> bool {
        matches!(&*self.fault, AskFault::NoAnswer(Fault::Connect(error)) if error.kind() == ErrorKind::PermissionDenied)
    }
}

/// What can come instead of an answer. What is quoted is printable and short.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    /// No answer, over FastCGI.
    #[error(transparent)]
    NoAnswer(Fault),
    /// No answer, by a pool that lets in others alone, with what would change that.
    #[error("it lets nobody in from this host: {0}")]
    TurnedAway(String),
    /// No answer in time, over HTTP.
    #[error("timed out after {0:?}")]
    HttpTimedOut(std::time::Duration),
    /// No answer, over HTTP, with the reason.
    #[error("{0}")]
    Http(String),
    /// An answer of another HTTP status than 200.
    #[error("it answers {status}{}", said(words, advice.as_deref()))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said with that, on standard error, otherwise in its body.
        words: String,
        /// What would help, as far as that can be known.
        advice: Option<String>,
    },
    /// A ping page that says something else.
    #[error("it says '{found}' instead of '{expected}'")]
    Pong {
        /// What the pool's configuration has it say.
        expected: String,
        /// What it said.
        found: String,
    },
    /// The figures of another pool, which has the socket now.
    #[error("it is the page of pool '{0}'")]
    AnotherPool(String),
    /// An answer that is not the JSON it should be.
    #[error("{fault}{}", said(words, None))]
    Json {
        /// What is wrong with it.
        fault: JsonFault,
        /// What came on standard error.
        words: String,
    },
    /// APCu is there and was not cleared, with PHP's reason.
    #[error("APCu was not cleared: {0}")]
    NotCleared(String),
}

impl From<JsonFault> for AskFault {
    fn from(fault: JsonFault) -> Self {
        Self::Json { fault, words: String::new() }
    }
}

/// An answer that is none, with what it said.
pub(crate) fn refused(response: &Response, advice: Option<String>) -> AskFault {
    let said = if response.errors.trim().is_empty() { &response.body[..] } else { response.errors.as_bytes() };
    AskFault::Refused { status: response.status, words: printable(said.trim_ascii()), advice }
}

fn said(words: &str, advice: Option<&str>) -> String {
    let words = if words.is_empty() { String::new() } else { format!(", '{words}'") };
    advice.map_or(words.clone(), |advice| format!("{words}: {advice}"))
}
