//! Load balancers, asked whether they send to this host. A technology knows one request and what its answer means
//! ([`PyBal`], [`Haproxy`]); [`AsTheCatalogSays`] picks the one that a pool's entry names; [`AllAtOnce`] asks many load
//! balancers at the same time, whatever they speak. [`HaproxyStore`] is for pools that HAProxy itself keeps.
//!
//! A check that cannot be made is no check: whatever goes wrong here ends in `Verdict::Unknown` with a short reason, never in
//! an error that could be dropped, and never in a verdict that was not given.

mod all_at_once;
mod haproxy;
pub mod http;
mod pybal;

pub use all_at_once::AllAtOnce;
pub use haproxy::{Access, Haproxy, HaproxyStore};
pub use pybal::PyBal;

use std::time::Duration;

use restart_core::{Protocol, Question, Verdict};

/// One technology of load balancer: how to ask one, and what its answer means.
pub trait Technology: Send + Sync + 'static {
    /// Asks once and waits for the answer, `at_most` that long for all of it: name, connection, request and the last byte.
    /// What is no answer by then is `Unknown`.
    fn ask(&self, question: &Question, at_most: Duration) -> Verdict;
}

/// Any technology: the question says which. One run may have pools behind PyBal and pools behind HAProxy.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsTheCatalogSays;

impl Technology for AsTheCatalogSays {
    fn ask(&self, question: &Question, at_most: Duration) -> Verdict {
        match question.protocol {
            Protocol::PyBal => PyBal.ask(question, at_most),
            Protocol::Haproxy { .. } => Haproxy.ask(question, at_most),
        }
    }
}
