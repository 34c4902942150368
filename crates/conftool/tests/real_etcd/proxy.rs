//! A TCP proxy that loses things on purpose, once: the next request, or the answer to it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What to do to the next request that comes, on whichever connection.
pub(crate) enum Fault {
    /// The request is not passed on; the connection is closed.
    DropRequest,
    /// The request is passed on, its answer is not. Once the store must have done it, the function is run and then the
    /// connection closed.
    LoseAnswer(Box<dyn FnOnce() + Send>),
    /// As before, but the connection stays open and silent: the client has to give up by itself.
    Silence,
}

/// Long enough for an idle etcd to have made a write.
const DONE: Duration = Duration::from_millis(500);

/// A proxy at port 2379 of an address of its own.
pub(crate) struct Proxy {
    pub(crate) url: String,
    armed: Arc<Mutex<Option<Fault>>>,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy in front of the member at `target`.
    pub(crate) fn start(target: &str) -> Self {
        let address = crate::etcd::own_address();
        let listener = TcpListener::bind((address.as_str(), 2379)).expect("a port for the proxy");
        let armed = Arc::new(Mutex::new(None));
        let (faults, target) = (Arc::clone(&armed), target.to_owned());
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        // Threads of a proxy end with their connections, the listener with the test process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect((target.as_str(), 2379)) {
                    serve(&client, &server, &faults, &cut);
                }
            }
        });
        let url = format!("http://{address}:2379");
        Self { url, armed, is_cut }
    }

    /// Arms the proxy for the next request.
    pub(crate) fn arm(&self, fault: Fault) {
        *self.armed.lock().expect("the proxy's state") = Some(fault);
    }

    /// Lets nothing through any more, as if who is behind it were dead: connections stay open, and silent.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// Whether the fault is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.lock().expect("the proxy's state").is_some()
    }
}

fn serve(client: &TcpStream, server: &TcpStream, faults: &Arc<Mutex<Option<Fault>>>, cut: &Arc<AtomicBool>) {
    let muted = Arc::new(Mutex::new(false));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle of a socket");

    let (mut from, mut to, is_muted) = (clone(server), clone(client), Arc::clone(&muted));
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if !*is_muted.lock().expect("the proxy's state") && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        if !*is_muted.lock().expect("the proxy's state") {
            let _ = to.shutdown(Shutdown::Both);
        }
    });

    let (mut from, mut to, faults, cut) = (clone(client), clone(server), Arc::clone(faults), Arc::clone(cut));
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if cut.load(Ordering::SeqCst) {
                continue;
            }
            let fault = faults.lock().expect("the proxy's state").take();
            match fault {
                None => {}
                Some(Fault::DropRequest) => {
                    let _ = from.shutdown(Shutdown::Both);
                    break;
                }
                Some(Fault::LoseAnswer(then)) => {
                    *muted.lock().expect("the proxy's state") = true;
                    let _ = to.write_all(&buffer[..length]);
                    // A request may come in several pieces.
                    from.set_read_timeout(Some(DONE)).expect("a read time-out");
                    while let Ok(length @ 1..) = from.read(&mut buffer) {
                        let _ = to.write_all(&buffer[..length]);
                    }
                    then();
                    let _ = from.shutdown(Shutdown::Both);
                    break;
                }
                Some(Fault::Silence) => *muted.lock().expect("the proxy's state") = true,
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
