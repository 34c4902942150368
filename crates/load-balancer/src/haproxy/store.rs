//! HAProxy as the store itself (`driver: haproxy`): a server that is ready is `yes`, one in the state drain is `no`, one in maint
//! is an operator's and `inactive`. Each HAProxy is a place of its own, and keeps what it is told for as long as it runs.
//!
//! It has neither revisions nor a compare-and-swap, and this is what stands in for them. A server is read, and told only if it
//! stands as it was found; the line that tells it looks right before and right after. Who came in between is seen there, and what
//! our order replaced is ordered again: the write was not made. An order whose answer is late may still be carried out while
//! HAProxy has not closed that connection, so it is kept, and until it is over nothing is taken for "not made".
//!
//! What cannot be had without revisions: an operator's drain looks like ours, a `ready` that somebody ordered looks like one that
//! HAProxy forgot our drain for, and an order that another process of ours left in a HAProxy that stands still can only be waited
//! for a moment. safe-service-restart-files(5) says what follows from that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::thread;
use std::time::Duration;

use restart_core::{
    Balancer, Fate, Fqdn, Listing, Node, NodeId, Pool, PoolPath, PoolStore, Pooled, Protocol, Record, ServerPattern,
    StoreError, Tag, Unreadable, Write, WriteError,
};

use super::exchange::{Bound, Conversation, exchange};
use super::order::{self, Came, Order};
use super::table::{self, Server, Unusable};

/// How long an order of a process that has died may lie in a HAProxy that answers again: it takes up what waited for it before
/// what comes later, or together with it.
const BACKLOG: Duration = Duration::from_millis(200);

/// The revision of every node.
const NO_REVISION: u64 = 0;

/// What the store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To look: any level will do.
    Look,
    /// To change servers: a HAProxy that takes no orders is refused at the first look, before anything is done.
    Change,
}

/// The pools that HAProxies keep. A call lasts a few times as long as one exchange may take, whatever they do.
pub struct HaproxyStore {
    run: String,
    host: Fqdn,
    access: Access,
    /// The time that one exchange may take, whole.
    at_most: Duration,
    places: BTreeMap<PoolPath, Place>,
    /// Servers of this host that only a journal knows.
    remembered: BTreeMap<NodeId, Target>,
    /// Orders that were not answered in time.
    late: BTreeMap<String, Conversation>,
}

/// A backend of one HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    balancer: Balancer,
    backend: String,
    pattern: ServerPattern,
}

/// One server there; its `Display` is the node's key, and can be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    balancer: Balancer,
    backend: String,
    server: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.balancer, self.backend, self.server)
    }
}

impl Target {
    /// Reads a key.
    fn parse(key: &str) -> Option<Self> {
        let (address, server) = key.split_once(' ')?;
        let (backend, server) = server.split_once('/')?;
        let balancer = match address.rsplit_once(':').filter(|_| !address.starts_with('/')) {
            None => Balancer { host: address.to_owned(), port: None },
            Some((host, port)) => {
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                Balancer { host: host.to_owned(), port: Some(port.parse().ok()?) }
            }
        };
        Some(Self { balancer, backend: backend.to_owned(), server: server.to_owned() })
    }
}

impl HaproxyStore {
    /// The store of these pools, for one run on `host`; no exchange takes longer than `at_most`. Nothing is contacted yet.
    ///
    /// Refused where two pools call this host differently in the same backend.
    pub fn new(
        run: &str,
        host: &Fqdn,
        (pools, data_centre): (&[Pool], &Tag),
        access: Access,
        at_most: Duration,
    ) -> Result<Self, StoreError> {
        let mut places = BTreeMap::new();
        for pool in pools {
            let Protocol::Haproxy { backend, server } = &pool.protocol else { continue };
            for balancer in &pool.balancers {
                let place =
                    Place { balancer: balancer.clone(), backend: backend.as_str().to_owned(), pattern: server.clone() };
                let before = places.insert(pool.path(data_centre), place.clone());
                if before.is_some_and(|before| before != place) {
                    return Err(StoreError::Refused(format!(
                        "pool {pool} and another one share the backend '{backend}' of '{balancer}', and not the name of \
                         a server there"
                    )));
                }
            }
        }
        let (run, host) = (run.to_owned(), host.clone());
        Ok(Self { run, host, access, at_most, places, remembered: BTreeMap::new(), late: BTreeMap::new() })
    }

    /// Learns where the nodes of a record are, also those whose pool is not in the catalog any more.
    pub fn remember(&mut self, record: &Record) {
        for write in record.nodes.iter().map(|out| &out.write) {
            if let Some(target) = Target::parse(&write.key) {
                self.remembered.insert(write.found.id.clone(), target);
            }
        }
    }

    fn place(&self, path: &PoolPath) -> Result<Place, StoreError> {
        self.places
            .get(path)
            .cloned()
            .ok_or_else(|| StoreError::Refused(format!("no pool of the catalog is at '{path}'")))
    }

    /// The catalog's word counts before the journal's: a server has the name of today.
    fn target(&self, id: &NodeId) -> Result<Target, StoreError> {
        match (self.place(&id.path), self.remembered.get(id)) {
            (Ok(Place { balancer, backend, pattern }), _) => {
                Ok(Target { balancer, backend, server: pattern.of(&id.host) })
            }
            (Err(_), Some(target)) => Ok(target.clone()),
            (Err(error), None) => Err(error),
        }
    }

    /// What stands in HAProxy for this server; `None`: its backend has no such server.
    fn order(&self, target: &Target) -> Result<Option<Order>, StoreError> {
        let Target { balancer, backend, server } = target;
        let wrong = |unusable| failed(balancer, unusable);
        let bound = Bound::start(self.at_most);
        let answer =
            exchange(balancer, &format!("show servers state {backend}"), bound).map_err(|why| wrong(why.into()))?;
        let read = || {
            let (servers, rest) = table::servers(table::text(&answer)?, backend)?;
            super::nothing_more(rest)?;
            let state = servers.into_iter().find(|one| one.name == *server).map(|one| one.state);
            Ok::<_, Unusable>(state.map(|state| Order::given(&state)).transpose()?)
        };
        read().map_err(wrong)
    }

    /// Gives an order for a server that was `found` so.
    fn tell(&mut self, target: &Target, found: Order, order: Order) -> Told {
        let Target { balancer, backend, server } = target;
        let bound = Bound::start(self.at_most);
        let mut conversation = match Conversation::begin(balancer, bound) {
            Ok(conversation) => conversation,
            Err(why) => return Told::NotMade(failed(balancer, why.into())),
        };
        let said = conversation.say(&order::line(backend, server, order), bound);
        let answer = said.map_err(Unusable::from).and_then(|()| {
            let answer = conversation.answer(bound)?;
            order::came(table::text(answer)?, backend, server)
        });
        match answer {
            Ok(Came::Refused(why)) => Told::NotMade(failed(balancer, Unusable::Refused(why))),
            Ok(Came::Given { before, after }) if before == found && after == order => Told::Made,
            Ok(Came::Given { before, after }) => Told::Between { before, after },
            Err(unusable) => {
                if !conversation.is_over() {
                    self.late.insert(target.to_string(), conversation);
                }
                Told::Lost(failed(balancer, unusable))
            }
        }
    }

    /// Somebody came between our look and our order. What it replaced is ordered again, unless they have gone on since.
    fn give_back(&mut self, target: &Target, before: Order, ours: Order) -> Result<(), WriteError> {
        // Where only the server that it tracks was taken out, nothing was ordered for this one.
        let before = if before == Order::Tracked { Order::Ready } else { before };
        if before == ours {
            return Ok(());
        }
        let word = before.word();
        match self.tell(target, ours, before) {
            Told::Made | Told::Between { .. } => {
                log::warn!("somebody set '{target}' to '{word}' at the same time, which is set again");
                Ok(())
            }
            Told::NotMade(error) | Told::Lost(error) => Err(WriteError::Unknown(StoreError::Unreachable(format!(
                "somebody set '{target}' to '{word}' at the same time, and that cannot be set again: {error}"
            )))),
        }
    }

    /// Whether the last order for this server, given by this process, may still be carried out.
    fn may_still_come(&mut self, target: &Target) -> bool {
        let key = target.to_string();
        let Some(conversation) = self.late.get_mut(&key) else { return false };
        // What it says does not matter, only that it is said: the server is looked at next.
        let _ = conversation.answer(Bound::start(self.at_most));
        let still = !conversation.is_over();
        if !still {
            self.late.remove(&key);
        }
        still
    }

    /// What became of an order, by what stands there now.
    fn judge(&mut self, write: &Write, target: &Target) -> Result<Judgement, StoreError> {
        let may_still_come = self.may_still_come(target);
        let now = self.order(target)?.map(Order::word);
        Ok(match now {
            Some(word) if word == write.value => Judgement::Made,
            Some(word) if word == write.found.value && may_still_come => {
                let why = format!("'{target}' was told '{}', which is not answered yet", write.value);
                return Err(StoreError::Unreachable(why));
            }
            Some(word) if word == write.found.value => Judgement::NotMade,
            _ => Judgement::Theirs,
        })
    }

    fn node(&self, id: &NodeId, order: Order) -> Node {
        Node { id: id.clone(), pooled: order.pooled(), value: order.word().to_owned(), revision: NO_REVISION }
    }

    /// The name by which another server is listed: its host's, where it has that of one, and never ours.
    fn listed_as(&self, server: &Server) -> Result<Fqdn, String> {
        match Fqdn::new(server.name.as_str()) {
            Ok(name) if name != self.host => Ok(name),
            _ => Fqdn::new(format!("server-{}.haproxy", server.state.server_id)).map_err(|error| error.to_string()),
        }
    }
}

/// What came of an order.
enum Told {
    /// It was carried out, on a server that stood as it was found.
    Made,
    /// Somebody else gave one between our looks.
    Between { before: Order, after: Order },
    /// It was not carried out.
    NotMade(StoreError),
    /// It may have been.
    Lost(StoreError),
}

/// What became of an order whose answer was lost.
enum Judgement {
    /// The server stands as we ordered.
    Made,
    /// It stands as it was found.
    NotMade,
    /// It stands as somebody else ordered, or is gone.
    Theirs,
}

fn failed(balancer: &Balancer, unusable: Unusable) -> StoreError {
    match unusable {
        Unusable::Refused(why) => StoreError::Refused(format!("HAProxy at '{balancer}': {why}")),
        Unusable::Rubbish(why) => StoreError::Unreachable(format!("HAProxy at '{balancer}': {why}")),
    }
}

fn written(write: &Write) -> Node {
    Node { id: write.found.id.clone(), pooled: write.pooled, value: write.value.clone(), revision: NO_REVISION }
}

impl PoolStore for HaproxyStore {
    fn list(&mut self, path: &PoolPath) -> Result<Listing, StoreError> {
        let Place { balancer, backend, pattern } = self.place(path)?;
        let wrong = |unusable| failed(&balancer, unusable);
        let bound = Bound::start(self.at_most);
        let ask = |line: String| exchange(&balancer, &line, bound).map_err(|why| wrong(why.into()));
        let changes = self.access == Access::Change;
        let level = if changes { ";show cli level" } else { "" };
        let answer = ask(format!("show servers state {backend}{level}"))?;
        let read = || {
            let (servers, rest) = table::servers(table::text(&answer)?, &backend)?;
            if changes {
                order::may_give_orders(rest)?;
            } else {
                super::nothing_more(rest)?;
            }
            Ok(servers)
        };
        let servers = read().map_err(wrong)?;
        let mut backups = BTreeSet::new();
        if let Some(Server { state, .. }) = servers.first() {
            let answer = ask(format!("show stat {} 4 -1", state.backend_id))?;
            let read = table::text(&answer).and_then(|answer| table::backups(answer, &backend));
            backups = read.map_err(|why| wrong(why.into()))?;
        }
        let (own, mut listing) = (pattern.of(&self.host), Listing::default());
        for server in servers {
            let is_ours = server.name == own;
            let host = if is_ours { Ok(self.host.clone()) } else { self.listed_as(&server) };
            let node = host.and_then(|host| {
                let mut node = self.node(&path.node(&host), Order::given(&server.state)?);
                if !is_ours {
                    node.pooled = order::counted(&server.state, backups.contains(&server.name))?;
                }
                Ok(node)
            });
            match node {
                Ok(node) => listing.nodes.push(node),
                Err(why) => {
                    let host = if is_ours { self.host.as_str().to_owned() } else { server.name };
                    listing.unreadable.push(Unreadable { host, why });
                }
            }
        }
        Ok(listing)
    }

    fn read(&mut self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let target = self.target(id)?;
        Ok(self.order(&target)?.map(|order| self.node(id, order)))
    }

    fn whereabouts(&self, id: &NodeId) -> String {
        match self.target(id) {
            Ok(Target { balancer, backend, server }) => {
                format!(
                    "'{backend}/{server}' in HAProxy at '{balancer}' (the pool's key 'server' says what it calls this host)"
                )
            }
            Err(_) => format!("'{id}'"),
        }
    }

    /// As config.yaml spells the driver.
    fn kind(&self) -> &str {
        "haproxy"
    }

    fn has_revisions(&self) -> bool {
        false
    }

    fn prepare(&self, found: &Node, pooled: Pooled) -> Result<Write, StoreError> {
        let key = self.target(&found.id)?.to_string();
        let value = Order::of(pooled).word().to_owned();
        Ok(Write { run: self.run.clone(), found: found.clone(), pooled, key, value })
    }

    fn write(&mut self, write: &Write) -> Result<Node, WriteError> {
        let target = self.target(&write.found.id).map_err(WriteError::NotMade)?;
        let (ours, found) = (Order::of(write.pooled), Order::parse(&write.found.value));
        let now = self.order(&target).map_err(WriteError::NotMade)?;
        let Some(found) = found.filter(|found| now == Some(*found)) else { return Err(WriteError::Conflict) };
        match self.tell(&target, found, ours) {
            Told::Made => Ok(written(write)),
            Told::NotMade(error) => Err(WriteError::NotMade(error)),
            Told::Between { before, after } => {
                if before != found && after == ours {
                    self.give_back(&target, before, ours)?;
                }
                Err(WriteError::Conflict)
            }
            Told::Lost(error) => match self.judge(write, &target) {
                Ok(Judgement::Made) => Ok(written(write)),
                Ok(Judgement::NotMade) => Err(WriteError::NotMade(error)),
                Ok(Judgement::Theirs) => Err(WriteError::Conflict),
                Err(_) => Err(WriteError::Unknown(error)),
            },
        }
    }

    fn fate(&mut self, write: &Write) -> Result<Fate, StoreError> {
        let target = self.target(&write.found.id)?;
        let mut judgement = self.judge(write, &target)?;
        if matches!(judgement, Judgement::NotMade) {
            thread::sleep(BACKLOG);
            judgement = self.judge(write, &target)?;
        }
        Ok(match judgement {
            Judgement::Made => Fate::Made(written(write)),
            // Nothing of ours stands there any more, whether it ever did or not.
            Judgement::NotMade | Judgement::Theirs => Fate::NotMade,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_read_back() {
        for (host, port) in
            [("lb1", Some(9999)), ("::1", Some(9999)), ("192.0.2.1", Some(1)), ("/run/h:1/a.sock", None)]
        {
            let balancer = Balancer { host: host.to_owned(), port };
            let target = Target { balancer, backend: "be_web".to_owned(), server: "web-mw1:80".to_owned() };
            assert_eq!(Target::parse(&target.to_string()), Some(target));
        }
        for key in ["", "lb1:9999", "lb1:x web/mw1", "lb1:9999 web", "/conftool/v1/pools/a/b/c/mw1.test"] {
            assert_eq!(Target::parse(key), None, "{key}");
        }
    }
}
