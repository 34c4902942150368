//! A runtime that turns in a thread of its own, so that leases are kept alive while the thread that asked for them runs a child
//! process, or sleeps. What is spawned on it ends with it.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// The runtime. It stops, with all that runs on it, when this is dropped; nobody waits for that.
pub(super) struct Engine {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Engine {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("slots".to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
            // A name lookup may hang in the system's resolver, in a thread that must not be waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _stop: stop })
    }

    /// Lets a task run by itself, until it is told to end.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(task).abort_handle()
    }

    /// Runs a request and waits for its answer; `None` if there is none within `limit`.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        limit: Duration,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            let _ = answer.send(request.await);
        });
        answered.recv_timeout(limit).ok()
    }
}
