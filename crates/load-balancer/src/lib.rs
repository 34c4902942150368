//! Load balancers, asked whether they send to this host. A technology knows one request and what its answer means
//! ([`PyBal`]); [`AllAtOnce`] asks many load balancers at the same time, whatever they speak.
//!
//! A check that cannot be made is no check: whatever goes wrong here ends in `Verdict::Unknown` with a short reason, never in
//! an error that could be dropped, and never in a verdict that was not given.

mod all_at_once;
pub mod http;
mod pybal;

pub use all_at_once::AllAtOnce;
pub use pybal::PyBal;

use std::time::Duration;

use restart_core::{Question, Verdict};

/// One technology of load balancer: how to ask one, and what its answer means. HAProxy's runtime API is to be the second.
pub trait Technology: Send + Sync + 'static {
    /// Asks once and waits for the answer, `at_most` that long for all of it: name, connection, request and the last byte.
    /// What is no answer by then is `Unknown`.
    fn ask(&self, question: &Question, at_most: Duration) -> Verdict;
}
