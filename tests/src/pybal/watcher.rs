//! Follows one pool's folder in etcd at PyBal's pace: each watch sees one event and closes, and the next one is opened
//! a second later, from the event after it. Nothing is missed, but a burst is learnt of one by one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Pool, Shared};
use crate::etcd::{Access, Change, Driver, Entry, Store, Watched};

/// How often a pause looks whether it should end.
const SLICE: Duration = Duration::from_millis(20);
/// The pause before etcd is asked again after it failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Reads the folder once, so that the answers are right from the start, and follows it in a thread.
pub(super) fn start(
    pool: Pool,
    driver: Driver,
    access: &Access,
    reopen: Duration,
    shared: Arc<Shared>,
) -> Result<JoinHandle<()>> {
    let store = Store::new(driver, access)?;
    let watcher = Watcher { pool, store, reopen, shared };
    let next = watcher.read_all().with_context(|| format!("cannot read the pool '{}'", watcher.pool.name))?;
    Ok(thread::spawn(move || watcher.run(next)))
}

struct Watcher {
    pool: Pool,
    store: Store,
    reopen: Duration,
    shared: Arc<Shared>,
}

impl Watcher {
    fn run(&self, next: u64) {
        let mut next = Some(next);
        while !self.stopped() {
            if self.stale() {
                // Dead, until somebody restarts us: then everything is read anew.
                next = None;
                self.pause(SLICE, || self.stopped());
                continue;
            }
            next = match next {
                None => self.read_all().ok().or_else(|| self.after_failure(None)),
                Some(from) => match self.store.watch(&self.pool.folder, from, &|| self.ended()) {
                    Ok(Watched::Changed { changes, next }) => {
                        self.apply(&changes);
                        self.pause(self.reopen, || self.ended());
                        Some(next)
                    }
                    Ok(Watched::Stopped) => Some(from),
                    Ok(Watched::Outdated) => {
                        // PyBal's watcher does not survive this.
                        self.shared.stale.store(true, Ordering::SeqCst);
                        None
                    }
                    Err(_) => self.after_failure(Some(from)),
                },
            };
        }
    }

    /// Takes over the whole folder and says from which revision to follow it.
    fn read_all(&self) -> Result<u64> {
        let (entries, revision) = self.store.list(&self.pool.folder)?;
        let objects: Vec<(String, String)> = entries
            .into_iter()
            .filter_map(|Entry { key, value, .. }| Some((self.server_name(&key)?.to_owned(), value)))
            .collect();
        self.shared.state().replace(&self.pool, &objects);
        Ok(revision + 1)
    }

    fn apply(&self, changes: &[Change]) {
        let mut state = self.shared.state();
        // Looked at with the state locked: the watcher may have been declared dead while the event was on its way.
        if self.ended() {
            return;
        }
        for Change { key, value } in changes {
            if let Some(server) = self.server_name(key) {
                state.apply(&self.pool, server, value.as_deref());
            }
        }
    }

    /// The last part of the key of an object that lies directly in the folder.
    fn server_name<'k>(&self, key: &'k str) -> Option<&'k str> {
        let name = key.strip_prefix(self.pool.folder.trim_end_matches('/'))?.strip_prefix('/')?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }

    fn after_failure(&self, next: Option<u64>) -> Option<u64> {
        self.pause(AFTER_FAILURE, || self.ended());
        next
    }

    fn pause(&self, length: Duration, over: impl Fn() -> bool) {
        let end = Instant::now() + length;
        while !over() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(SLICE));
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn stale(&self) -> bool {
        self.shared.stale.load(Ordering::SeqCst)
    }

    fn ended(&self) -> bool {
        self.stopped() || self.stale()
    }
}
