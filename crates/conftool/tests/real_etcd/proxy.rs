//! A TCP proxy that loses things on purpose, once: the next request, or the answer to it. Reads of the v2 API, which a write there
//! begins with, are not what is meant.

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
    /// The request is passed on, its answer is not: once the store must have done it, the connection is closed. One function is
    /// run before the request is passed on, the other before the connection is closed.
    LoseAnswer(Action, Action),
    /// As before, but the connection stays open and silent: the client has to give up by itself.
    Silence,
}

type Action = Box<dyn FnOnce() + Send>;

impl Fault {
    /// The answer is lost, and then something else happens.
    pub(crate) fn lose_answer_and(then: impl FnOnce() + Send + 'static) -> Self {
        Self::LoseAnswer(Box::new(|| {}), Box::new(then))
    }

    /// Something else is faster than the request, whose answer is then lost.
    pub(crate) fn overtake(first: impl FnOnce() + Send + 'static) -> Self {
        Self::LoseAnswer(Box::new(first), Box::new(|| {}))
    }
}

/// Long enough for an idle etcd to have made a write.
const DONE: Duration = Duration::from_millis(500);

/// A proxy at port 2379 of an address of its own.
pub(crate) struct Proxy {
    pub(crate) url: String,
    armed: Arc<Mutex<Option<Fault>>>,
    is_cut: Arc<AtomicBool>,
}

/// What the connections of a proxy share.
#[derive(Clone)]
struct Shared {
    armed: Arc<Mutex<Option<Fault>>>,
    is_cut: Arc<AtomicBool>,
    /// How long an answer takes.
    delay: Duration,
}

impl Proxy {
    /// A proxy in front of the member at `target`.
    pub(crate) fn start(target: &str) -> Self {
        Self::far_away(target, Duration::ZERO)
    }

    /// The same with a member that is `delay` away.
    pub(crate) fn far_away(target: &str, delay: Duration) -> Self {
        let address = crate::etcd::own_address();
        let listener = TcpListener::bind((address.as_str(), 2379)).expect("a port for the proxy");
        let (armed, is_cut) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let shared = Shared { armed: Arc::clone(&armed), is_cut: Arc::clone(&is_cut), delay };
        let target = target.to_owned();
        // Threads of a proxy end with their connections, the listener with the test process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect((target.as_str(), 2379)) {
                    serve(&client, &server, shared.clone());
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

fn serve(client: &TcpStream, server: &TcpStream, shared: Shared) {
    let muted = Arc::new(Mutex::new(false));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle of a socket");

    let (mut from, mut to, is_muted) = (clone(server), clone(client), Arc::clone(&muted));
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            thread::sleep(shared.delay);
            if !*is_muted.lock().expect("the proxy's state") && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        if !*is_muted.lock().expect("the proxy's state") {
            let _ = to.shutdown(Shutdown::Both);
        }
    });

    let (mut from, mut to) = (clone(client), clone(server));
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if shared.is_cut.load(Ordering::SeqCst) {
                continue;
            }
            let is_read = buffer.starts_with(b"GET ");
            let fault = if is_read { None } else { shared.armed.lock().expect("the proxy's state").take() };
            match fault {
                None => {}
                Some(Fault::DropRequest) => {
                    let _ = from.shutdown(Shutdown::Both);
                    break;
                }
                Some(Fault::LoseAnswer(before, after)) => {
                    before();
                    *muted.lock().expect("the proxy's state") = true;
                    let _ = to.write_all(&buffer[..length]);
                    // A request may come in several pieces.
                    from.set_read_timeout(Some(DONE)).expect("a read time-out");
                    while let Ok(length @ 1..) = from.read(&mut buffer) {
                        let _ = to.write_all(&buffer[..length]);
                    }
                    after();
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
