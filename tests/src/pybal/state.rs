//! What PyBal knows about its servers, and what it answers: the tables of its instrumentation, without any I/O but the
//! order to HAProxy that goes with each change.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Pool;
use crate::conftool::python_json;
use crate::haproxy::{Control, Traffic};

/// What the health checks of a server found last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All passed.
    Up,
    /// Some failed: down, and the text says `partially up`.
    Partial,
    /// All failed.
    Down,
    /// None has run yet.
    Unchecked,
}

/// A server that was given traffic, or lost it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When HAProxy had been told.
    pub at: Instant,
    /// The pool.
    pub pool: String,
    /// The server.
    pub server: String,
    /// Whether it is sent traffic from then on.
    pub pooled: bool,
}

/// One server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    enabled: bool,
    weight: u32,
    health: Health,
    held: bool,
    /// Whether HAProxy was told to send it traffic.
    traffic: bool,
}

impl Server {
    fn pooled(self) -> Option<bool> {
        match self.health {
            _ if self.held => Some(true),
            Health::Unchecked => None,
            Health::Up => Some(self.enabled),
            Health::Partial | Health::Down => Some(false),
        }
    }

    fn json(self) -> Value {
        let (up, weight) = match self.health {
            Health::Up => (Some(true), self.weight),
            Health::Partial | Health::Down => (Some(false), self.weight),
            Health::Unchecked => (None, 0),
        };
        json!({"pooled": self.pooled(), "enabled": self.enabled, "up": up, "weight": weight})
    }

    fn text(self) -> String {
        let enabled = if self.enabled { "enabled" } else { "disabled" };
        let up = match self.health {
            Health::Up => "up",
            Health::Partial | Health::Unchecked => "partially up",
            Health::Down => "down",
        };
        let pooled = if self.pooled() == Some(true) { "pooled" } else { "not pooled" };
        format!("{enabled}/{up}/{pooled}")
    }
}

/// An answer of the instrumentation before HTTP is put around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", body: python_json(body) }
    }

    fn text(status: u16, body: String) -> Self {
        Self { status, content_type: "text/plain", body }
    }
}

/// All that one PyBal knows.
#[derive(Debug)]
pub(super) struct State {
    pools: BTreeMap<String, PoolState>,
    haproxy: Option<Control>,
    changes: Vec<Change>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct PoolState {
    name: String,
    servers: BTreeMap<String, Server>,
    /// Health lasts while a server is out of etcd: a test may set it before the server is there.
    health: BTreeMap<String, Health>,
    held: BTreeMap<String, bool>,
}

impl State {
    pub(super) fn new(pools: &[Pool], haproxy: Option<Control>) -> Self {
        let pools = pools.iter().map(|pool| {
            let state = PoolState {
                name: pool.name.clone(),
                servers: BTreeMap::new(),
                health: BTreeMap::new(),
                held: BTreeMap::new(),
            };
            (pool.key(), state)
        });
        Self { pools: pools.collect(), haproxy, changes: Vec::new(), problems: Vec::new() }
    }

    /// Takes over all objects of a pool's folder; servers without one are gone.
    pub(super) fn replace(&mut self, pool: &Pool, objects: &[(String, String)]) {
        let known: Vec<String> =
            self.pools.get(&pool.key()).into_iter().flat_map(|it| it.servers.keys().cloned()).collect();
        for server in known {
            if !objects.iter().any(|(name, _)| *name == server) {
                self.apply(pool, &server, None);
            }
        }
        for (server, object) in objects {
            self.apply(pool, server, Some(object));
        }
    }

    /// Takes over one object, or its deletion.
    pub(super) fn apply(&mut self, pool: &Pool, server: &str, object: Option<&str>) {
        let wanted = match object.map(serde_json::from_str::<Value>) {
            None => None,
            Some(Ok(object)) => match object["pooled"].as_str() {
                Some("yes") => Some((true, object)),
                Some("no") => Some((false, object)),
                // An inactive server is not in the pool at all: it is answered with 404.
                _ => None,
            },
            Some(Err(error)) => {
                self.problems.push(format!("the object of '{server}' in '{}' is not JSON: {error}", pool.name));
                return;
            }
        };
        let Some(state) = self.pools.get_mut(&pool.key()) else { return };
        match wanted {
            Some((enabled, object)) => {
                let weight = object["weight"].as_u64().and_then(|weight| u32::try_from(weight).ok()).unwrap_or(0);
                let health = state.health.get(server).copied().unwrap_or(Health::Up);
                let held = state.held.get(server).copied().unwrap_or(false);
                let traffic = state.servers.get(server).is_some_and(|old| old.traffic);
                let new = Server { enabled, weight, health, held, traffic };
                state.servers.insert(server.to_owned(), new);
                self.move_traffic(&pool.key(), server);
            }
            None => {
                let gone = state.servers.remove(server);
                if gone.is_some_and(|server| server.traffic) {
                    let name = state.name.clone();
                    self.order(&name, server, Traffic::Off);
                }
            }
        }
    }

    pub(super) fn set_health(&mut self, pool: &str, server: &str, health: Health) -> Result<()> {
        let key = self.key(pool)?;
        if let Some(state) = self.pools.get_mut(&key) {
            state.health.insert(server.to_owned(), health);
            if let Some(server) = state.servers.get_mut(server) {
                server.health = health;
            }
        }
        self.move_traffic(&key, server);
        Ok(())
    }

    pub(super) fn hold(&mut self, pool: &str, server: &str, held: bool) -> Result<()> {
        let key = self.key(pool)?;
        if let Some(state) = self.pools.get_mut(&key) {
            state.held.insert(server.to_owned(), held);
            if let Some(server) = state.servers.get_mut(server) {
                server.held = held;
            }
        }
        self.move_traffic(&key, server);
        Ok(())
    }

    pub(super) fn pooled(&self, pool: &str, server: &str) -> Option<bool> {
        self.pools.values().find(|state| state.name == pool)?.servers.get(server)?.pooled()
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    fn key(&self, pool: &str) -> Result<String> {
        let found = self.pools.iter().find(|(_, state)| state.name == pool);
        found.map(|(key, _)| key.clone()).with_context(|| format!("this load balancer has no pool '{pool}'"))
    }

    /// Tells HAProxy what the state of a server means for traffic.
    fn move_traffic(&mut self, key: &str, server: &str) {
        let Some(state) = self.pools.get_mut(key) else { return };
        let Some(found) = state.servers.get_mut(server) else { return };
        let wanted = found.pooled() == Some(true);
        let changed = found.traffic != wanted;
        found.traffic = wanted;
        let traffic = if wanted { Traffic::On { weight: found.weight } } else { Traffic::Off };
        let name = state.name.clone();
        if changed {
            self.order(&name, server, traffic);
        } else if wanted {
            // The weight may have changed.
            self.tell_haproxy(&name, server, traffic);
        }
    }

    fn order(&mut self, pool: &str, server: &str, traffic: Traffic) {
        self.tell_haproxy(pool, server, traffic);
        let pooled = traffic != Traffic::Off;
        self.changes.push(Change { at: Instant::now(), pool: pool.to_owned(), server: server.to_owned(), pooled });
    }

    fn tell_haproxy(&mut self, pool: &str, server: &str, traffic: Traffic) {
        if let Some(Err(error)) = self.haproxy.as_ref().map(|haproxy| haproxy.set(pool, server, traffic)) {
            self.problems.push(format!("{error:#}"));
        }
    }

    /// Answers a GET. Only a header `Accept: application/json`, to the letter, is answered in JSON.
    pub(super) fn answer(&self, path: &str, accept: Option<&str>) -> Answer {
        let want_json = accept == Some("application/json");
        let pick = |value: &dyn Fn() -> Value, text: &dyn Fn() -> String| {
            if want_json { Answer::json(200, &value()) } else { Answer::text(200, text()) }
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        let parts: Vec<&str> = path.split('/').collect();
        let found = match parts.as_slice() {
            ["alerts"] => {
                let (status, message) = self.alerts();
                Some(pick(&|| json!({"status": status, "msg": message}), &|| {
                    format!("{} - {message}", status.to_uppercase())
                }))
            }
            ["pools"] | ["pools", ""] => {
                let names: Vec<&String> = self.pools.keys().collect();
                Some(pick(&|| json!(names), &|| self.pools.keys().map(|name| format!("{name}\n")).collect()))
            }
            ["pools", pool] | ["pools", pool, ""] => self.pools.get(*pool).map(|pool| {
                let all = &pool.servers;
                pick(&|| all.iter().map(|(name, server)| (name.clone(), server.json())).collect(), &|| {
                    all.iter().map(|(name, server)| format!("{name}:\t{}\n", server.text())).collect()
                })
            }),
            ["pools", pool, server] => self
                .pools
                .get(*pool)
                .and_then(|pool| pool.servers.get(*server))
                .map(|server| pick(&|| server.json(), &|| format!("{}\n", server.text()))),
            _ => None,
        };
        found.unwrap_or_else(|| {
            let message = "The desired url was not found";
            if want_json {
                Answer::json(404, &json!({"error": message}))
            } else {
                Answer::text(404, message.to_owned())
            }
        })
    }

    /// PyBal alerts about servers that it had to keep although they are down, and about nothing else that matters here.
    fn alerts(&self) -> (&'static str, String) {
        let kept: Vec<String> = self
            .pools
            .iter()
            .filter_map(|(key, pool)| {
                let down = |server: &Server| matches!(server.health, Health::Partial | Health::Down);
                let kept = pool.servers.iter().filter(|(_, server)| server.held && down(server));
                let names: Vec<&str> = kept.map(|(name, _)| name.as_str()).collect();
                let list = names.join(", ");
                (!names.is_empty()).then(|| format!("{key}: Servers {list} are marked down but pooled"))
            })
            .collect();
        if kept.is_empty() { ("ok", "All pools are healthy".to_owned()) } else { ("critical", kept.join("; ")) }
    }
}
