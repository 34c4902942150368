//! Who was out, at every moment: from etcd's history of a pool, one revision at a time, and from what the load balancers did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use testbed::Result;
use testbed::etcd::{Change, Driver, Entry, Store, Watched};
use testbed::pybal;
use testbed::site::Site;

/// The pool after one revision of the store.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The revision.
    pub revision: u64,
    /// Whose object was written, and what its `pooled` says now.
    pub written: Vec<(String, String)>,
    /// The hosts that are `no` from then on.
    pub out: BTreeSet<String>,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written: Vec<_> = self.written.iter().map(|(host, pooled)| format!("{host} is '{pooled}'")).collect();
        write!(f, "revision {}: {}; out: {:?}", self.revision, written.join(", "), self.out)
    }
}

/// Follows a pool in etcd from now on, one revision at a time.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    moments: Arc<Mutex<Vec<Moment>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Watcher {
    /// Begins with the pool as it is.
    pub fn start(site: &Site, driver: Driver) -> Result<Self> {
        let folder = site.node(0).folder();
        let store = site.etcd().store(driver)?;
        let (entries, revision) = store.list(&folder)?;
        let mut pool = BTreeMap::new();
        for Entry { key, value, .. } in entries {
            pool.insert(host(&key), pooled(&value)?);
        }
        let first = Moment { revision, written: Vec::new(), out: out(&pool) };
        let moments = Arc::new(Mutex::new(vec![first]));
        let stop = Arc::new(AtomicBool::new(false));
        let (until, sink) = (Arc::clone(&stop), Arc::clone(&moments));
        let follow = move || follow(&store, &folder, revision + 1, pool, &until, &sink);
        Ok(Self { stop, moments, thread: Some(thread::spawn(follow)) })
    }

    /// What was seen so far. etcd may be a little ahead.
    pub fn so_far(&self) -> Vec<Moment> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All of it, up to what the store has now: a watch that broke, or left something out, is an error.
    pub fn finish(mut self, site: &Site, driver: Driver) -> Result<Vec<Moment>> {
        let (entries, _) = site.etcd().store(driver)?.list(&site.node(0).folder())?;
        let last = entries.iter().map(|entry| entry.revision).max().context("an empty pool")?;
        let what = format!("the watch of etcd to come to revision {last}");
        testbed::wait::until(&what, std::time::Duration::from_secs(10), || {
            Ok(self.so_far().last().is_some_and(|moment| moment.revision >= last))
        })?;
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("a watch that was ended before")?;
        thread.join().unwrap_or_else(|_| anyhow::bail!("the watch of etcd panicked"))?;
        Ok(self.so_far())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn follow(
    store: &Store,
    folder: &str,
    mut next: u64,
    mut pool: BTreeMap<String, String>,
    stop: &AtomicBool,
    moments: &Mutex<Vec<Moment>>,
) -> Result<()> {
    loop {
        match store.watch(folder, next, &|| stop.load(Ordering::SeqCst))? {
            Watched::Changed { changes, next: after } => {
                let mut written = Vec::new();
                for Change { key, value } in changes {
                    let pooled = value.map_or(Ok("deleted".to_owned()), |value| pooled(&value))?;
                    pool.insert(host(&key), pooled.clone());
                    written.push((host(&key), pooled));
                }
                let moment = Moment { revision: after - 1, written, out: out(&pool) };
                moments.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
                next = after;
            }
            Watched::Stopped => return Ok(()),
            Watched::Outdated => anyhow::bail!("etcd's history was outrun"),
        }
    }
}

fn host(key: &str) -> String {
    key.rsplit('/').next().unwrap_or_default().to_owned()
}

fn pooled(value: &str) -> Result<String> {
    let value: serde_json::Value = serde_json::from_str(value).with_context(|| format!("not JSON: '{value}'"))?;
    Ok(value["pooled"].as_str().with_context(|| format!("no 'pooled' in '{value}'"))?.to_owned())
}

/// Anything but `yes` is out.
fn out(pool: &BTreeMap<String, String>) -> BTreeSet<String> {
    pool.iter().filter(|(_, pooled)| *pooled != "yes").map(|(host, _)| host.clone()).collect()
}

/// The hosts that any load balancer sent nothing to, after each change at any of them, in the order of time.
pub fn out_of_balancers(site: &Site) -> Vec<(pybal::Change, BTreeSet<String>)> {
    let mut changes: Vec<_> = site
        .pybals()
        .enumerate()
        .flat_map(|(balancer, pybal)| pybal.changes().into_iter().map(move |change| (balancer, change)))
        .collect();
    changes.sort_by_key(|(_, change)| change.at);
    let mut closed = BTreeSet::new();
    let after = changes.into_iter().map(|(balancer, change)| {
        let at = (change.server.clone(), balancer);
        if change.pooled {
            closed.remove(&at);
        } else {
            closed.insert(at);
        }
        let out = closed.iter().map(|(server, _)| server.clone()).collect();
        (change, out)
    });
    after.collect()
}
