//! A load generator that counts lost requests.
//!
//! It sends at a fixed rate whatever the answers do (users do not wait for each other), each request on a connection of
//! its own, and takes for lost whatever a user would: no connection, no answer, a status other than 200, another body.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// Requests that may be under way at once. Enough for 300 a second of which a fifth takes 200 ms, many times over.
const WORKERS: usize = 48;
/// A user's patience for one request, from connecting to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many failures are described; the others are only counted.
const DESCRIBED: usize = 5;
/// How often a thread that waits for its turn looks whether it should end.
const SLICE: Duration = Duration::from_millis(50);

/// What to send, where, and how fast.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Load balancers, used in turn.
    pub targets: Vec<SocketAddr>,
    /// Requests a second.
    pub rate: u32,
    /// Every so many-th request is a slow one; 0 for none.
    pub slow_every: u64,
    /// How long a slow one takes on the server.
    pub slow: Duration,
    /// It stops by itself after this time.
    pub limit: Duration,
}

impl Plan {
    /// 100 requests a second for at most a minute, a fifth of them 200 ms long.
    #[must_use]
    pub fn new(targets: Vec<SocketAddr>) -> Self {
        Self { targets, rate: 100, slow_every: 5, slow: Duration::from_millis(200), limit: Duration::from_secs(60) }
    }

    /// The same at another rate.
    #[must_use]
    pub fn rate(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    /// The same with every `every`-th request taking `time` on the server.
    #[must_use]
    pub fn slow(mut self, every: u64, time: Duration) -> Self {
        self.slow_every = every;
        self.slow = time;
        self
    }

    /// Begins to send.
    pub fn start(self) -> Result<Load> {
        ensure!(!self.targets.is_empty(), "nowhere to send requests to");
        ensure!(self.rate > 0, "a rate of no requests a second");
        let shared = Arc::new(Shared {
            plan: self,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            ok: AtomicU64::new(0),
            failures: Mutex::new((0, Vec::new())),
            latest: AtomicU64::new(0),
        });
        let workers = (0..WORKERS)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().stack_size(128 * 1024).spawn(move || shared.work())
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Load { shared, workers })
    }
}

/// A lost request.
#[derive(Clone, Debug)]
pub struct Lost {
    /// When it was sent, from the start of the load.
    pub sent: Duration,
    /// How long it was under way.
    pub took: Duration,
    /// What went wrong.
    pub why: String,
}

/// What became of the requests.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests answered as they should be.
    pub ok: u64,
    /// Requests lost.
    pub lost: u64,
    /// The first few of the lost, in order.
    pub first_lost: Vec<Lost>,
    /// How far the generator itself fell behind its rate at worst: large when the machine was too busy to tell.
    pub behind: Duration,
}

/// A running load; stops when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// What has become of the requests so far.
    #[must_use]
    pub fn so_far(&self) -> Report {
        self.shared.report()
    }

    /// Sends no more, waits for those under way, and reports.
    pub fn stop(mut self) -> Result<Report> {
        if !self.end() {
            bail!("a thread of the load generator panicked");
        }
        Ok(self.shared.report())
    }

    fn end(&mut self) -> bool {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Every thread is joined, also after one that panicked.
        let panicked = self.workers.drain(..).filter_map(|worker| worker.join().err()).count();
        panicked == 0
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    start: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    ok: AtomicU64,
    failures: Mutex<(u64, Vec<Lost>)>,
    /// Microseconds.
    latest: AtomicU64,
}

impl Shared {
    /// Takes the next request whose time has come, until there is no next.
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_micros(number * 1_000_000 / u64::from(self.plan.rate));
            if due >= self.plan.limit || !self.wait_until(due) {
                return;
            }
            let sent = self.start.elapsed();
            let behind = u64::try_from((sent - due).as_micros()).unwrap_or(u64::MAX);
            self.latest.fetch_max(behind, Ordering::Relaxed);
            match self.request(number) {
                Ok(()) => {
                    self.ok.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let lost = Lost { sent, took: self.start.elapsed() - sent, why: format!("{error:#}") };
                    let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                    failures.0 += 1;
                    failures.1.push(lost);
                    failures.1.sort_by_key(|lost| lost.sent);
                    failures.1.truncate(DESCRIBED);
                }
            }
        }
    }

    fn wait_until(&self, due: Duration) -> bool {
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            let left = due.saturating_sub(self.start.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(SLICE));
        }
    }

    fn request(&self, number: u64) -> Result<()> {
        let plan = &self.plan;
        let slow = plan.slow_every > 0 && number.is_multiple_of(plan.slow_every);
        let path = if slow { format!("/slow.php?ms={}", plan.slow.as_millis()) } else { "/index.php".to_owned() };
        // In turn, but so that slow ones do not all go the same way.
        let turn = number + number.checked_div(plan.slow_every).unwrap_or(0);
        let target = plan.targets[usize::try_from(turn)? % plan.targets.len()];
        fetch(target, &path, PATIENCE).map(|_| ())
    }

    fn report(&self) -> Report {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            ok: self.ok.load(Ordering::Relaxed),
            lost: failures.0,
            first_lost: failures.1.clone(),
            behind: Duration::from_micros(self.latest.load(Ordering::Relaxed)),
        }
    }
}

/// Asks for a page of the default site once, on a connection of its own, and returns the body; anything but
/// `200` and `ok PID` is an error.
pub fn fetch(target: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let end = Instant::now() + limit;
    let left = || {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no answer within {limit:?}");
        Ok(left)
    };
    let mut stream = TcpStream::connect_timeout(&target, left()?)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!(
            "the connection was closed {}",
            if answer.is_empty() { "without an answer" } else { "within the answer" }
        );
    };
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "the answer is '{status}'");
    // nginx sends PHP's output in chunks.
    ensure!(body.contains("ok "), "the body is '{}'", body.trim());
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        ensure!(body.ends_with("0\r\n\r\n"), "the body is cut off: '{}'", body.trim());
    }
    Ok(body.to_owned())
}
