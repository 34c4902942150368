//! Time and interruption, as the sequence sees them. The real ones are in the crate `host`; the tests' clock only moves when
//! somebody waits on it.

use std::time::Duration;

/// A monotonic clock to wait on.
pub trait Clock {
    /// Time since a fixed point in the past; never goes back, whatever happens to the wall clock.
    fn now(&self) -> Duration;

    /// Waits for `time`. The sequence calls it in slices of a tenth of a second at most, so that a signal is noticed.
    fn sleep(&self, time: Duration);

    /// A number in `0.0..1.0`, different each time and on each host: it keeps a fleet from asking in step.
    fn jitter(&self) -> f64;
}

/// Tells whether somebody asked this run to end.
pub trait Stop {
    /// The signal that asked for the end, if any did.
    fn requested(&self) -> Option<Stopped>;
}

/// The longest time that the sequence goes without looking for a signal.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// The signals that end a run in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Signal {
    /// Ctrl-C.
    #[serde(rename = "SIGINT")]
    Interrupt,
    /// Ctrl-\.
    #[serde(rename = "SIGQUIT")]
    Quit,
    /// systemd, or an operator's `kill`.
    #[serde(rename = "SIGTERM")]
    Terminate,
    /// The ssh session that started us is gone.
    #[serde(rename = "SIGHUP")]
    HangUp,
}

impl Signal {
    /// The number as in signal(7), the same on every Linux.
    pub fn number(self) -> u8 {
        match self {
            Self::HangUp => 1,
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::Terminate => 15,
        }
    }

    /// The name as in signal(7).
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
        }
    }
}

/// A request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// The first signal that came: the one to die by in the end.
    pub signal: Signal,
    /// A second signal came: stop waiting, say what remains.
    pub at_once: bool,
}

/// Which signal ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heed {
    /// The first: nothing is begun that has to be finished.
    First,
    /// The second: the host is being brought to a safe state, one signal does not end that.
    Second,
}

impl Heed {
    /// The request to end, if one came that this wait heeds.
    pub(crate) fn check(self, stop: &dyn Stop) -> Result<(), Stopped> {
        match stop.requested() {
            Some(stopped) if self == Self::First || stopped.at_once => Err(stopped),
            _ => Ok(()),
        }
    }
}

/// Sleeps until `until`, in slices; ends early, and says so, when a signal comes that is heeded.
pub(crate) fn sleep_until(clock: &dyn Clock, stop: &dyn Stop, heed: Heed, until: Duration) -> Result<(), Stopped> {
    loop {
        heed.check(stop)?;
        let left = until.saturating_sub(clock.now());
        if left.is_zero() {
            return Ok(());
        }
        clock.sleep(left.min(SLICE));
    }
}
