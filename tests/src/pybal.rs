//! A stand-in for PyBal 1.15: it follows etcd, moves the traffic of a real HAProxy, and serves PyBal's instrumentation.
//!
//! PyBal itself cannot be installed from a package. What matters of it to a tool that waits for a load balancer is
//! copied in behaviour: every answer of its instrumentation, and the pace at which it learns of changes (one event for
//! each watch, and a second until the next watch, so that a burst of four takes three seconds to be seen). On top of
//! that it can be told to misbehave in each way that a load balancer, or the network before it, misbehaves.

mod http;
mod state;
mod watcher;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

pub use self::http::{Fault, Request};
pub use self::state::{Change, Health};

use self::state::State;
use crate::address::Address;
use crate::etcd::{Access, Driver};
use crate::haproxy::Control;

/// The port of PyBal's instrumentation.
pub const PORT: u16 = 9090;

/// One pool as a load balancer is configured to serve it.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The name; in the instrumentation it is followed by the port: `appservers_80`.
    pub name: String,
    /// The port of the service.
    pub port: u16,
    /// The folder of its servers in etcd: `/conftool/v1/pools/eqiad/appserver/php`.
    pub folder: String,
}

impl Pool {
    /// The name in the instrumentation.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}_{}", self.name, self.port)
    }
}

/// How to start a stand-in.
#[derive(Clone, Debug)]
pub struct Builder {
    address: Option<Address>,
    pools: Vec<Pool>,
    driver: Driver,
    reopen: Duration,
    haproxy: Option<Control>,
}

impl Builder {
    /// The address to serve on, port [`PORT`]; by default one of its own.
    #[must_use]
    pub fn address(mut self, address: Address) -> Self {
        self.address = Some(address);
        self
    }

    /// Serves one more pool.
    #[must_use]
    pub fn pool(mut self, name: &str, port: u16, folder: &str) -> Self {
        self.pools.push(Pool { name: name.to_owned(), port, folder: folder.to_owned() });
        self
    }

    /// How long after an event the next watch is opened: PyBal takes a second.
    #[must_use]
    pub fn reopen(mut self, pause: Duration) -> Self {
        self.reopen = pause;
        self
    }

    /// Moves the traffic of this HAProxy, whose pools and servers are named as ours; by default nobody's.
    #[must_use]
    pub fn haproxy(mut self, control: Control) -> Self {
        self.haproxy = Some(control);
        self
    }

    /// Starts, reads etcd, and serves.
    pub fn start(self, access: &Access) -> Result<Pybal> {
        let address = match self.address {
            Some(address) => address,
            None => Address::reserve()?,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(&self.pools, self.haproxy)),
            stop: AtomicBool::new(false),
            stale: AtomicBool::new(false),
        });
        let watchers = self
            .pools
            .iter()
            .map(|pool| watcher::start(pool.clone(), self.driver, access, self.reopen, Arc::clone(&shared)))
            .collect::<Result<_>>()?;
        let answers = Arc::clone(&shared);
        let server = http::Server::start(address.port(PORT), move |path, accept| answers.state().answer(path, accept))
            .with_context(|| format!("cannot serve on '{}'", address.port(PORT)))?;
        Ok(Pybal { address, server, shared, watchers })
    }
}

/// A running stand-in; ends with this value.
#[derive(Debug)]
pub struct Pybal {
    address: Address,
    server: http::Server,
    shared: Arc<Shared>,
    watchers: Vec<JoinHandle<()>>,
}

impl Pybal {
    /// A stand-in that follows this interface of etcd.
    #[must_use]
    pub fn builder(driver: Driver) -> Builder {
        Builder { address: None, pools: Vec::new(), driver, reopen: Duration::from_secs(1), haproxy: None }
    }

    /// Where the instrumentation is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.port(PORT)
    }

    /// Answers every request with this fault from now on; connections that wait are hit as well. When this returns,
    /// the fault is in place.
    pub fn fault(&self, fault: Fault) -> Result<()> {
        self.server.set_fault(fault)
    }

    /// Ends a fault.
    pub fn heal(&self) -> Result<()> {
        self.fault(Fault::None)
    }

    /// The result of the health checks of a server, from now on.
    pub fn set_health(&self, pool: &str, server: &str, health: Health) -> Result<()> {
        self.shared.state().set_health(pool, server, health)
    }

    /// Keeps a server pooled whatever etcd and the health check say, as the depool threshold does, or stops doing so.
    pub fn hold(&self, pool: &str, server: &str, held: bool) -> Result<()> {
        self.shared.state().hold(pool, server, held)
    }

    /// Lets the watchers die: the answers never change again, and the traffic does not move. With false, begins anew
    /// from what etcd has now, as after a restart of PyBal.
    pub fn stale(&self, stale: bool) {
        // With the state locked: no change that a watcher is just taking over comes after this.
        let _state = self.shared.state();
        self.shared.stale.store(stale, Ordering::SeqCst);
    }

    /// Whether this server is sent traffic: none while it is unknown or not checked yet.
    #[must_use]
    pub fn pooled(&self, pool: &str, server: &str) -> Option<bool> {
        self.shared.state().pooled(pool, server)
    }

    /// Every change of who is sent traffic, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.shared.state().changes().to_vec()
    }

    /// What went wrong in here: servers that HAProxy does not know, objects that are not JSON.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.shared.state().problems().to_vec()
    }

    /// Every request received since the start or the last [`Pybal::forget_requests`], in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// Begins a new record of requests.
    pub fn forget_requests(&self) {
        self.server.forget_requests();
    }
}

impl Drop for Pybal {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for watcher in self.watchers.drain(..) {
            if watcher.join().is_err() {
                log::warn!("a watcher of the load balancer's stand-in panicked");
            }
        }
    }
}

/// What the threads of one stand-in share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    stale: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
