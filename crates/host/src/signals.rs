//! SIGINT, SIGQUIT, SIGTERM and SIGHUP ask for an orderly end; the sequence looks here, in slices, whether one came. The first is
//! remembered, so that the run can die by it in the end; a second means that somebody is in a hurry.
//!
//! One event can send several signals: a terminal that goes away has its shell and the kernel both send SIGHUP, and sudo
//! pass on one of them. So only what comes a while after the first counts as a second request.
//!
//! What was ignored when we were started (`nohup`, a shell's background job) stays ignored; SIGTERM, which nobody has a reason
//! to ignore for us, never is. SIGPIPE is ignored already: Rust's runtime does so before `main`, and a test here makes sure of
//! it. `safe-service-restart | head` must not die with the host depooled.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use restart_core::{Signal, Stop, Stopped};
use signal_hook::low_level;

/// The signals that are heeded.
const HEEDED: [Signal; 4] = [Signal::Interrupt, Signal::Quit, Signal::Terminate, Signal::HangUp];

/// How long after the first signal others still belong to it. Measured when a terminal was closed: three within a
/// millisecond. Nobody asks twice within a second either.
const ECHO: Duration = Duration::from_secs(1);

/// What is said to the first signal of a run that is about this host.
const ENDING: &str = "ending as soon as this host is in a safe state; one more, later, stops the waiting";

fn number(signal: Signal) -> i32 {
    i32::from(signal.number())
}

/// The signals that came to this process since [`Signals::listen`]. A thread of its own takes them, so that it is known when
/// each came, also while the run is busy.
#[derive(Debug)]
pub struct Signals {
    came: Arc<Mutex<Came>>,
}

#[derive(Debug, Default)]
struct Came {
    first: Option<(Signal, Instant)>,
    again: bool,
}

impl Came {
    /// Whether it is the first.
    fn take(&mut self, signal: Signal, now: Instant) -> bool {
        match self.first {
            None => {
                self.first = Some((signal, now));
                true
            }
            Some((_, first)) => {
                self.again |= now.saturating_duration_since(first) >= ECHO;
                false
            }
        }
    }
}

impl Signals {
    /// Installs the handlers. Fails only if the system refuses a handler, a pair of sockets or a thread.
    pub fn listen() -> io::Result<Self> {
        Self::listen_saying(ENDING)
    }

    /// The same, with other words for what the first signal leads to.
    pub fn listen_saying(words: &'static str) -> io::Result<Self> {
        let ignored = ignored_signals(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let heeded = |signal: &Signal| *signal == Signal::Terminate || !is_in(ignored, number(*signal));
        let heeded = HEEDED.into_iter().filter(heeded);
        let mut signals = signal_hook::iterator::Signals::new(heeded.map(number))?;
        let came = Arc::new(Mutex::new(Came::default()));
        let taken = Arc::clone(&came);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for taken_number in signals.forever() {
                if let Some(signal) = HEEDED.into_iter().find(|signal| number(*signal) == taken_number) {
                    let is_first = taken.lock().unwrap_or_else(PoisonError::into_inner).take(signal, Instant::now());
                    if is_first {
                        log::warn!("{}: {words}", signal.name());
                    }
                }
            }
        })?;
        Ok(Self { came })
    }
}

impl Stop for Signals {
    fn requested(&self) -> Option<Stopped> {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.first.map(|(signal, _)| Stopped { signal, at_once: came.again })
    }
}

/// Ends this process by `signal`, as if it had never been caught, so that the parent (a shell, ssh, systemd) sees why the
/// run ended. Whatever has to be said or flushed comes before. Does not return.
pub fn raise_again(signal: Signal) -> ! {
    // An error would mean that the signal is not known, and these are; should the signal not end us, this aborts.
    let _ = low_level::emulate_default_handler(number(signal));
    std::process::abort()
}

/// The set of ignored signals, from the text of /proc/self/status (proc(5): `SigIgn`, hexadecimal). Without it none is taken
/// to be ignored: to be ended in order by a signal is the lesser evil.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(mask: u64, signal: i32) -> bool {
    mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

    use super::*;

    #[test]
    fn only_what_comes_a_while_after_the_first_is_a_second_request() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut came = Came::default();
        for ms in [0, 0, 1, 999] {
            came.take(Signal::HangUp, after(ms));
            assert!(!came.again, "after {ms} ms");
        }
        came.take(Signal::Interrupt, after(1000));
        assert!(came.again);
        assert_eq!(came.first, Some((Signal::HangUp, begin)));
    }

    #[test]
    fn the_numbers_are_those_of_this_system() {
        assert_eq!(HEEDED.map(number), [SIGINT, SIGQUIT, SIGTERM, SIGHUP]);
    }

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        // As under nohup, with Rust's own SIGPIPE (13).
        let mask = ignored_signals(
            "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000440\n",
        );
        assert!(is_in(mask, SIGHUP) && is_in(mask, signal_hook::consts::SIGPIPE));
        assert!(!is_in(mask, SIGINT) && !is_in(mask, SIGTERM));
        for damaged in ["", "SigIgn:\n", "SigIgn:\tzz\n", "SigIgn"] {
            assert_eq!(ignored_signals(damaged), 0, "{damaged:?}");
        }
    }

    #[test]
    fn sigpipe_is_ignored_by_the_runtime() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(is_in(ignored_signals(&status), signal_hook::consts::SIGPIPE), "{status}");
    }
}
