//! HAProxy's runtime API (2.6, management guide section 9.3), over TCP or a Unix socket. To ask, the level `user` is enough: nothing
//! is changed here; where HAProxy itself keeps the pools, `store.rs` changes them. What the tables mean for a server is decided in
//! [`standing`] and [`verdict`], pure functions.
//!
//! `show servers state` tells what was ordered and how the health checks see it, and `show stat` how many sessions there are.
//! The second alone would not do: its `status` is `DOWN` for a server that is drained and down (measured on 2.6.12). Nor can
//! it be asked by the backend's name: where a frontend has the same name, it answers with the servers of that, which are none
//! (measured as well). So a first line asks for the state, and where that says that no session should be left, a second one,
//! over a connection of its own, asks for the state once more and then for the sessions: in this order, so that none can begin
//! unseen between the two.

mod exchange;
mod order;
mod store;
mod table;

use std::time::Duration;

use restart_core::{Protocol, Question, Verdict};

pub use self::store::{Access, HaproxyStore};

use self::exchange::{Bound, exchange};
use self::table::{Sessions, State};
use crate::Technology;

/// HAProxy, asked over its runtime API.
#[derive(Debug, Clone, Copy, Default)]
pub struct Haproxy;

impl Technology for Haproxy {
    fn ask(&self, question: &Question, at_most: Duration) -> Verdict {
        let Protocol::Haproxy { backend, server } = &question.protocol else {
            return Verdict::Unknown("the catalog does not say that it is a HAProxy".to_owned());
        };
        let (backend, server) = (backend.as_str(), server.of(&question.host));
        look(question, backend, &server, Bound::start(at_most)).unwrap_or_else(|why| {
            // With all that it takes to ask again by hand.
            Verdict::Unknown(format!("{}, server '{backend}/{server}': {why}", question.balancer))
        })
    }
}

fn look(question: &Question, backend: &str, server: &str, bound: Bound) -> Result<Verdict, String> {
    let state_line = format!("show servers state {backend}");
    let answer = exchange(&question.balancer, &state_line, bound)?;
    let (Some(state), rest) = table::state(&answer, backend, server)? else { return Ok(Verdict::Absent) };
    nothing_more(rest)?;
    if standing(&state)? != Standing::Out {
        return verdict(&state, None);
    }
    let State { backend_id, server_id, .. } = state;
    let line = format!("{state_line};show stat {backend_id} 4 {server_id}");
    let answer = exchange(&question.balancer, &line, bound)?;
    let (Some(state), rest) = table::state(&answer, backend, server)? else { return Ok(Verdict::Absent) };
    verdict(&state, Some(table::sessions(rest, backend, server)?))
}

/// HAProxy closes an answer of one line with nothing behind its empty line.
fn nothing_more(rest: &str) -> Result<(), String> {
    if rest.trim_matches('\n').is_empty() { Ok(()) } else { Err("something follows its table of servers".to_owned()) }
}

/// How new requests stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is sent requests.
    In,
    /// By order it is sent none.
    Out,
    /// It is sent none, and nobody ordered that.
    Down,
}

/// Ordered over the socket, by an agent, or by the configuration (`disabled`), of this server or the one that it tracks
/// (`SRV_ADMF_FMAINT`, `IMAINT`, `FDRAIN`, `IDRAIN`).
const ORDERED: u64 = 0x01 | 0x02 | 0x08 | 0x10;
/// `SRV_ADMF_RMAINT`: its name has no address.
const UNRESOLVED: u64 = 0x20;
/// `SRV_ADMF_CMAINT`, it began in maintenance by its configuration, and `SRV_ADMF_HMAINT`, its name was set over the socket. Both
/// stay when it is made ready (0x04 alone is a server that is sent requests, measured on 2.6.12), and say nothing of the present.
const HISTORY: u64 = 0x04 | 0x40;

/// For bits of a later version.
const UNKNOWN_ORDER: &str = "its administrative state is none that is known here";

/// What a server's state means.
///
/// Out is what somebody ordered, drain or maint, and nothing else. A server that is `DOWN` by its health check, that the check
/// has soft-stopped (`http-check disable-on-404`), whose name has no address, or whose weight is 0, is sent nothing either, but
/// that is not our depool: it is sent requests again with the next good check, answer of the DNS, or reload, which may come in
/// the middle of the restart (design, rule 3, the same as for PyBal). Where it is drained as well, its health does not matter: a
/// server that is `DOWN` does not stand in the way of its own restart once the order has come.
fn standing(state: &State) -> Result<Standing, String> {
    if state.administrative & !(ORDERED | UNRESOLVED | HISTORY) != 0 {
        return Err(UNKNOWN_ORDER.to_owned());
    }
    match state.operational {
        0..=3 if state.administrative & ORDERED != 0 => Ok(Standing::Out),
        0..=3 if state.administrative & UNRESOLVED != 0 || state.weight == 0 => Ok(Standing::Down),
        // Warming up, with a part of its weight; running.
        1 | 2 => Ok(Standing::In),
        // Stopped; soft-stopping.
        0 | 3 => Ok(Standing::Down),
        _ => Err("its operational state is none that is known here".to_owned()),
    }
}

/// The verdict; `sessions` are those of a server that may be out, counted after its state was read.
fn verdict(state: &State, sessions: Option<Sessions>) -> Result<Verdict, String> {
    match (standing(state)?, sessions) {
        (Standing::In, _) => Ok(Verdict::Pooled),
        (Standing::Down, _) => Ok(Verdict::Down),
        (Standing::Out, None) => Err("it does not say how many sessions are open".to_owned()),
        (Standing::Out, Some(Sessions { open: 0, queued: 0 })) => Ok(Verdict::NotPooled),
        (Standing::Out, Some(Sessions { open, queued })) => Ok(Verdict::Draining(left(open, queued))),
    }
}

/// `2 sessions are still open, and 1 request waits for it in the queue`.
fn left(open: u64, queued: u64) -> String {
    let open = match open {
        0 => None,
        1 => Some("1 session is still open".to_owned()),
        many => Some(format!("{many} sessions are still open")),
    };
    let queued = match queued {
        0 => None,
        1 => Some("1 request waits for it in the queue".to_owned()),
        many => Some(format!("{many} requests wait for it in the queue")),
    };
    open.into_iter().chain(queued).collect::<Vec<_>>().join(", and ")
}

#[cfg(test)]
mod tests;
