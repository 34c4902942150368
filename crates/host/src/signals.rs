//! SIGINT, SIGTERM and SIGHUP ask for an orderly end; the sequence looks here, in slices, whether one came. The first is
//! remembered, so that the run can die by it in the end; a second means that somebody is in a hurry.
//!
//! A signal that was ignored when we were started (`nohup`, a shell's background job) stays ignored. SIGPIPE is ignored
//! already: Rust's runtime does so before `main`, and a test here makes sure of it. `safe-service-restart | head` must not
//! die with the host depooled.

use std::cell::Cell;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use restart_core::{Signal, Stop, Stopped};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// The signals that are heeded. Of two different ones that come between two looks the earlier in this list counts as first.
const HEEDED: [Signal; 3] = [Signal::Interrupt, Signal::Terminate, Signal::HangUp];

fn number(signal: Signal) -> i32 {
    match signal {
        Signal::Interrupt => SIGINT,
        Signal::Terminate => SIGTERM,
        Signal::HangUp => SIGHUP,
    }
}

/// The signals that came to this process since [`Signals::listen`].
#[derive(Debug)]
pub struct Signals {
    /// Which signals came: each handler sets one flag,
    came: Vec<(Signal, Arc<AtomicBool>)>,
    /// and how many: each writes one byte.
    bell: UnixStream,
    first: Cell<Option<Signal>>,
    count: Cell<usize>,
}

impl Signals {
    /// Installs the handlers. Fails only if the system refuses a handler or a pair of sockets.
    pub fn listen() -> io::Result<Self> {
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let ignored = ignored_signals(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let mut came = Vec::new();
        for signal in HEEDED {
            if is_in(ignored, number(signal)) {
                continue;
            }
            let flag = Arc::new(AtomicBool::new(false));
            flag::register(number(signal), Arc::clone(&flag))?;
            low_level::pipe::register(number(signal), rope.try_clone()?)?;
            came.push((signal, flag));
        }
        Ok(Self { came, bell, first: Cell::new(None), count: Cell::new(0) })
    }

    /// Adds the bytes that were written since the last look.
    fn count(&self) {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = (&self.bell).read(&mut buffer) {
            self.count.set(self.count.get() + count);
        }
    }
}

impl Stop for Signals {
    fn requested(&self) -> Option<Stopped> {
        let set = || self.came.iter().filter(|(_, flag)| flag.load(Ordering::SeqCst));
        let signal = self.first.get().or_else(|| set().next().map(|(signal, _)| *signal))?;
        self.first.set(Some(signal));
        self.count();
        // A handler that was interrupted between its flag and its byte counts as well.
        let at_once = self.count.get() >= 2 || set().count() >= 2;
        Some(Stopped { signal, at_once })
    }
}

/// Ends this process by `signal`, as if it had never been caught, so that the parent (a shell, ssh, systemd) sees why the
/// run ended. Whatever has to be said or flushed comes before. Does not return.
pub fn raise_again(signal: Signal) -> ! {
    // An error would mean that the signal is not known, and these three are; should the signal not end us, this aborts.
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
    use super::*;

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
