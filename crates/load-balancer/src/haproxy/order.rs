//! HAProxy as the place where a pool is kept: what was ordered for a server, and what that is in the words of the pools. Pure
//! functions over the tables; each state is decided by name.

use restart_core::Pooled;

use super::table::{self, Server, State, Unusable};
use super::{HISTORY, ORDERED, Standing, UNRESOLVED, standing};

/// `SRV_ADMF_FMAINT` and `SRV_ADMF_FDRAIN`: ordered for this server itself, over the socket, by its agent or by `disabled` in the
/// configuration. An order for the one takes back the other (measured on 2.6.12).
const MAINT: u64 = 0x01;
const DRAIN: u64 = 0x08;
/// `SRV_ADMF_IDRAIN`: the server that it tracks is drained.
const TRACKED_DRAIN: u64 = 0x10;

/// What was ordered for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To serve. Whether it does is its health check's and the DNS's to say.
    Ready,
    /// To be sent nothing new: our way out of the pool, and anybody else's.
    Drain,
    /// To be left alone: an operator's word, or the configuration's, and not ours to change.
    Maint,
    /// Nothing for this server; the one that it tracks is out, and what we ordered for this one would change nothing.
    Tracked,
}

impl Order {
    /// All of them.
    const ALL: [Self; 4] = [Self::Ready, Self::Drain, Self::Maint, Self::Tracked];

    /// The word of the runtime API, and for the last one ours.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Tracked => "tracked",
        }
    }

    /// Reads the word back.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.word() == word)
    }

    /// The same in the words of the pools.
    pub(super) fn pooled(self) -> Pooled {
        match self {
            Self::Ready => Pooled::Yes,
            Self::Drain => Pooled::No,
            Self::Maint | Self::Tracked => Pooled::Inactive,
        }
    }

    /// What has to be ordered for a node to become this.
    pub(super) fn of(pooled: Pooled) -> Self {
        match pooled {
            Pooled::Yes => Self::Ready,
            Pooled::No => Self::Drain,
            Pooled::Inactive => Self::Maint,
        }
    }

    /// What stands in a row. An order for the server itself counts before one for the server that it tracks: it is what can be
    /// taken back.
    pub(super) fn given(state: &State) -> Result<Self, String> {
        if state.administrative & !(ORDERED | UNRESOLVED | HISTORY) != 0 {
            return Err(super::UNKNOWN_ORDER.to_owned());
        }
        Ok(match state.administrative & ORDERED {
            0 => Self::Ready,
            order if order & MAINT != 0 => Self::Maint,
            order if order & DRAIN != 0 => Self::Drain,
            _ => Self::Tracked,
        })
    }
}

/// How somebody else's server counts when the pool is counted. It is in only if it is sent requests; one that is drained or down
/// is out of it for a while, also through the server that it tracks: that is how others of these runs take it out; one in
/// maintenance, without an address, or for the case that no other can be sent to is no part of it.
pub(super) fn counted(state: &State, is_backup: bool) -> Result<Pooled, String> {
    if is_backup || (state.administrative & UNRESOLVED != 0) {
        return Ok(Pooled::Inactive);
    }
    Ok(match (Order::given(state)?.pooled(), standing(state)?) {
        _ if state.administrative & ORDERED == TRACKED_DRAIN => Pooled::No,
        (Pooled::Yes, Standing::In) => Pooled::Yes,
        (Pooled::Yes | Pooled::No, _) => Pooled::No,
        (Pooled::Inactive, _) => Pooled::Inactive,
    })
}

/// The line that gives an order, with a look right before and right after it: HAProxy knows no compare-and-swap, and takes a line
/// of commands one after the other.
pub(super) fn line(backend: &str, server: &str, order: Order) -> String {
    let look = format!("show servers state {backend}");
    format!("{look};set server {backend}/{server} state {};{look}", order.word())
}

/// What came of that line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// HAProxy took the order.
    Given {
        /// What it replaced.
        before: Order,
        /// What stood there afterwards.
        after: Order,
    },
    /// It did not, and says why.
    Refused(String),
}

/// Reads the answer to that line.
pub(super) fn came(answer: &str, backend: &str, server: &str) -> Result<Came, Unusable> {
    let order = |servers: Vec<Server>| match servers.iter().find(|one| one.name == server) {
        Some(one) => Ok(Order::given(&one.state)?),
        None => Err(Unusable::Refused(format!("it has no server '{backend}/{server}'"))),
    };
    let (servers, rest) = table::servers(answer, backend)?;
    let before = order(servers)?;
    // A command that has nothing to say answers with an empty line.
    let Some(rest) = rest.strip_prefix('\n') else {
        let (words, _) = table::first_answer(rest)?;
        return Ok(Came::Refused(refusal(words)));
    };
    let (servers, rest) = table::servers(rest, backend)?;
    super::nothing_more(rest)?;
    Ok(Came::Given { before, after: order(servers)? })
}

/// HAProxy's own words for an order that it does not take, and for a level that may not give any.
fn refusal(words: &str) -> String {
    /// More than its longest sentence.
    const LONGEST: usize = 100;

    if words.starts_with("Permission denied") {
        return MAY_ONLY_LOOK.to_owned();
    }
    let words: String = words.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    format!("it refuses: '{words}'")
}

/// What to do about it stands in the configuration of HAProxy.
const MAY_ONLY_LOOK: &str = "its 'stats socket' lets us only look: 'set server' takes 'level admin'";

/// Reads the answer to `show cli level`: whether orders will be taken.
pub(super) fn may_give_orders(answer: &str) -> Result<(), Unusable> {
    match answer.trim_matches('\n') {
        "admin" => Ok(()),
        "user" | "operator" => Err(Unusable::Refused(MAY_ONLY_LOOK.to_owned())),
        _ => Err("it does not say what it lets us do".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(operational: u64, administrative: u64, weight: u64) -> State {
        State { backend_id: 3, server_id: 1, operational, administrative, weight }
    }

    #[test]
    fn an_order_is_read_whatever_else_is_the_matter_with_the_server() {
        for (administrative, wanted) in [
            (0x00, Order::Ready),
            // Began in maintenance, was renamed, has no address: none of these is an order.
            (0x04, Order::Ready),
            (0x40, Order::Ready),
            (0x20, Order::Ready),
            (0x01, Order::Maint),
            (0x05, Order::Maint),
            (0x21, Order::Maint),
            (0x08, Order::Drain),
            (0x0c, Order::Drain),
            // The server that it tracks is in maintenance, or drained; and it is drained as well.
            (0x02, Order::Tracked),
            (0x10, Order::Tracked),
            (0x0a, Order::Drain),
            (0x18, Order::Drain),
        ] {
            for operational in 0..=3 {
                assert_eq!(Order::given(&state(operational, administrative, 1)), Ok(wanted), "{administrative:#x}");
            }
        }
        assert!(Order::given(&state(2, 0x80, 1)).is_err());
    }

    #[test]
    fn only_a_server_that_is_sent_requests_counts_as_pooled() {
        for (operational, administrative, weight, is_backup, wanted) in [
            (2, 0x00, 1, false, Pooled::Yes),
            (1, 0x04, 1, false, Pooled::Yes),
            // Down, soft-stopped, of no weight, drained, drained and down.
            (0, 0x00, 1, false, Pooled::No),
            (3, 0x00, 1, false, Pooled::No),
            (2, 0x00, 0, false, Pooled::No),
            (2, 0x08, 1, false, Pooled::No),
            (0, 0x08, 1, false, Pooled::No),
            // Drained through the server that it tracks.
            (2, 0x10, 1, false, Pooled::No),
            (0, 0x14, 1, false, Pooled::No),
            // In maintenance, by configuration, through another; without an address; a backup.
            (0, 0x01, 1, false, Pooled::Inactive),
            (0, 0x05, 1, false, Pooled::Inactive),
            (0, 0x02, 1, false, Pooled::Inactive),
            (0, 0x12, 1, false, Pooled::Inactive),
            (0, 0x20, 1, false, Pooled::Inactive),
            (2, 0x00, 1, true, Pooled::Inactive),
        ] {
            let counted = counted(&state(operational, administrative, weight), is_backup);
            assert_eq!(counted, Ok(wanted), "{operational} {administrative:#x} {weight} {is_backup}");
        }
        assert!(counted(&state(7, 0, 1), false).is_err());
    }

    const HEADER: &str = "# be_id be_name srv_id srv_name srv_op_state srv_admin_state srv_uweight";

    fn table(administrative: u64) -> String {
        format!("1\n{HEADER}\n3 web 1 mw1 2 {administrative} 1\n3 web 2 mw2 2 0 1\n\n")
    }

    fn answer(before: u64, says: &str, after: u64) -> Result<Came, Unusable> {
        came(&format!("{}{says}\n{}", table(before), table(after)), "web", "mw1")
    }

    #[test]
    fn an_order_that_was_taken_tells_what_it_replaced() {
        assert_eq!(answer(0, "", 8), Ok(Came::Given { before: Order::Ready, after: Order::Drain }));
        assert_eq!(answer(1, "", 8), Ok(Came::Given { before: Order::Maint, after: Order::Drain }));
        assert_eq!(answer(0, "", 1), Ok(Came::Given { before: Order::Ready, after: Order::Maint }));
    }

    #[test]
    fn a_refusal_is_in_haproxys_words_but_for_the_level() {
        assert_eq!(answer(0, "Permission denied\n", 0), Ok(Came::Refused(MAY_ONLY_LOOK.to_owned())));
        let refused = answer(0, "No \u{1b}such server.\n", 0);
        assert_eq!(refused, Ok(Came::Refused("it refuses: 'No such server.'".to_owned())));
    }

    #[test]
    fn what_is_not_such_an_answer_is_none() {
        for text in ["", "1\n", "hello\n\n", &table(0), &format!("{}\n", table(0)), &format!("{}\n1\n", table(0))] {
            let came = came(text, "web", "mw1");
            assert!(!matches!(came, Ok(Came::Given { .. })), "{text}: {came:?}");
        }
        let gone = came(&table(0), "web", "mw3");
        assert_eq!(gone, Err(Unusable::Refused("it has no server 'web/mw3'".to_owned())));
    }

    #[test]
    fn only_an_admin_may_give_orders() {
        assert_eq!(may_give_orders("admin\n\n"), Ok(()));
        for level in ["user\n\n", "operator\n\n"] {
            assert_eq!(may_give_orders(level), Err(Unusable::Refused(MAY_ONLY_LOOK.to_owned())));
        }
        assert!(matches!(may_give_orders("Unknown command\n\n"), Err(Unusable::Rubbish(_))));
    }
}
