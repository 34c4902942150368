//! What is seen while it runs: on a terminal one line that changes, with counts by phase, an estimate and the slowest hosts by name;
//! elsewhere one line a host; with `--json` events as well.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal as _, Stdout};
use std::time::{Duration, Instant, SystemTime};

use host::clock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike as _};
use log::Level;
use restart_core::{Stop, span};

use crate::events::{Event, Line};
use crate::outlet::Outlet;
use crate::screen::Screen;
use crate::tally::Counts;

/// So often a second at most the line is drawn.
const DRAWS: u8 = 5;
/// So many slow hosts are named.
const SLOWEST: usize = 3;
/// Before so much time has passed a host is not slow.
const SLOW: Duration = Duration::from_secs(10);

/// How long the reader of the events may stand still once there are no more. Whoever asked a second time to wait for nothing gets less.
const LAST_PATIENCE: Duration = Duration::from_secs(60);
const IMPATIENCE: Duration = Duration::from_secs(1);
/// The longest wait without a look for a signal, in milliseconds.
const SLICE: u8 = 100;

/// Where it is shown.
#[derive(Debug)]
pub struct Progress {
    run: String,
    /// Where events go, if they are wanted.
    events: Option<RefCell<Outlet<Stdout>>>,
    bar: Option<ProgressBar>,
    /// When the line was last drawn.
    drawn: Cell<Option<Instant>>,
}

impl Progress {
    /// For a run over so many hosts.
    pub fn new(run: &str, hosts: usize, json: bool, may_draw: bool) -> Self {
        let bar = (may_draw && std::io::stderr().is_terminal()).then(|| {
            // Not by the library's own target, which asks an environment that has been emptied whether the terminal can draw.
            let screen = Screen::new();
            let columns = screen.width();
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen), DRAWS);
            let bar = ProgressBar::with_draw_target(u64::try_from(hosts).ok(), target);
            // The template is our own; should it ever be wrong, a plain bar will do.
            match ProgressStyle::with_template(&template(columns)) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let events = json.then(|| RefCell::new(Outlet::new(io::stdout())));
        Self { run: run.to_owned(), events, bar, drawn: Cell::new(None) }
    }

    /// Whether there are events.
    pub fn is_json(&self) -> bool {
        self.events.is_some()
    }

    /// Says a line, above the one that changes.
    pub fn say(&self, level: Level, text: &str) {
        if log::log_enabled!(level) {
            self.beside(|| log::log!(level, "{text}"));
        }
    }

    /// Says that a host ended well, which on a terminal the counts do.
    pub fn say_good(&self, text: &str) {
        let level = if self.bar.is_some() { Level::Debug } else { Level::Info };
        self.say(level, text);
    }

    /// Prints an event, if they are wanted; one that finds no room is printed when there is some.
    pub fn event(&self, event: Event<'_>) {
        let Some(events) = &self.events else { return };
        let last = matches!(event, Event::End(_));
        match serde_json::to_string(&Line { time: clock::utc_exact(SystemTime::now()), run: &self.run, event }) {
            Ok(line) if events.borrow_mut().take(&line, last) => {
                self.say(Level::Warn, "nobody reads the events on standard output: from here on they are dropped");
            }
            Ok(_) => self.flush(),
            Err(error) => self.say(Level::Warn, &format!("cannot print an event: {error}")),
        }
    }

    /// Prints what finds room now of the events that found none.
    pub fn flush(&self) {
        let Some(events) = &self.events else { return };
        if !events.borrow().is_empty() {
            self.beside(|| _ = events.borrow_mut().write(0));
        }
    }

    /// Waits for the reader of the events, as long as it reads. What it did not get is said; the error is the same.
    pub fn finish(&self, stop: Option<&dyn Stop>) -> io::Result<()> {
        let Some(events) = &self.events else { return Ok(()) };
        let mut events = events.borrow_mut();
        let asked = || stop.and_then(Stop::requested);
        let before = asked();
        let patience = if before.is_some_and(|stopped| stopped.at_once) { IMPATIENCE } else { LAST_PATIENCE };
        let mut until = Instant::now() + patience;
        let mut said = false;
        events.write(SLICE);
        while !events.is_empty() && Instant::now() < until && asked() == before {
            if !said {
                said = true;
                log::info!(
                    "waiting for the reader of standard output, for at most {} without a move of it",
                    span(patience)
                );
            }
            if events.write(SLICE) {
                until = Instant::now() + patience;
            }
        }
        events.result().inspect_err(|error| log::warn!("cannot print all events: {error}"))
    }

    /// Whether the line is to be drawn anew. What it says takes a look at every host, and something happens far more often.
    pub fn is_due(&self) -> bool {
        const PAUSE: Duration = Duration::from_millis(1000 / DRAWS as u64);

        let is_due = self.bar.is_some() && self.drawn.get().is_none_or(|drawn| drawn.elapsed() >= PAUSE);
        if is_due {
            self.drawn.set(Some(Instant::now()));
        }
        is_due
    }

    /// Draws how it stands. `slow` are the hosts that run, with their times.
    pub fn draw<'a>(
        &self,
        counts: Counts,
        waits_for: Option<&str>,
        left: Option<Duration>,
        slow: impl Iterator<Item = (&'a str, Duration)>,
    ) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(counts.ended() as u64);
        bar.set_message(message(counts, waits_for, left, slow));
    }

    /// Takes the line away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn beside(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }
}

/// The bar takes an eighth of the terminal: the words beside it say more, and where they do not fit their end is cut off.
fn template(columns: u16) -> String {
    format!("{{bar:{}}} {{pos}}/{{len}} {{wide_msg}}", (columns / 8).clamp(4, 24))
}

/// The time that `left` hosts take, so many at once, if each takes what those took that have ended; `None` while there is nothing to
/// go by. What passed so far would say little: the canaries come one by one.
pub fn estimate(took: impl Iterator<Item = Duration>, left: usize, at_once: usize) -> Option<Duration> {
    let (sum, count) = took.fold((Duration::ZERO, 0u32), |(sum, count), time| (sum + time, count + 1));
    let rounds = (left as f64 / at_once.max(1) as f64).max(if left > 0 { 1.0 } else { 0.0 });
    (count > 0).then(|| (sum / count).mul_f64(rounds))
}

fn message<'a>(
    counts: Counts,
    waits_for: Option<&str>,
    estimate: Option<Duration>,
    slow: impl Iterator<Item = (&'a str, Duration)>,
) -> String {
    let parts = [
        (counts.running, "running"),
        (counts.waiting, "to try again"),
        (counts.failed, "failed"),
        (counts.unreachable, "unreachable"),
        (counts.busy, "said \"later\""),
    ];
    let mut said: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    said.extend(waits_for.map(ToOwned::to_owned));
    said.extend(estimate.map(|left| format!("about {} left", span(Duration::from_secs(left.as_secs())))));
    let mut slow: Vec<_> = slow.filter(|(_, time)| *time >= SLOW).collect();
    slow.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
    let slow: Vec<_> = slow
        .iter()
        .take(SLOWEST)
        .map(|(host, time)| format!("{host} {}", span(Duration::from_secs(time.as_secs()))))
        .collect();
    if !slow.is_empty() {
        said.push(format!("slowest: {}", slow.join(", ")));
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_estimate_goes_by_what_hosts_took() {
        let of = |took: &[u64], left, at_once| estimate(took.iter().copied().map(seconds), left, at_once);
        assert_eq!(of(&[], 10, 2), None);
        assert_eq!(of(&[10], 99, 11), Some(seconds(90)), "a canary alone");
        assert_eq!(of(&[20, 40], 8, 2), Some(seconds(120)));
        assert_eq!(of(&[20, 40], 1, 10), Some(seconds(30)), "no sooner than one host takes");
        assert_eq!(of(&[20], 0, 10), Some(seconds(0)));
    }

    #[test]
    fn on_a_narrow_terminal_the_words_have_most_of_the_line() {
        for (columns, bar) in [(0, 4), (40, 5), (80, 10), (400, 24)] {
            assert_eq!(template(columns), format!("{{bar:{bar}}} {{pos}}/{{len}} {{wide_msg}}"));
        }
        let slow = std::iter::once(("mw1001.eqiad.wmnet", seconds(40)));
        let words = message(Counts { running: 30, ..Counts::default() }, None, Some(seconds(300)), slow);
        assert!(10 + " 170/300 ".len() + words.len() <= 80, "on 80 columns the slowest host is cut off: '{words}'");
    }

    #[test]
    fn the_line_tells_counts_the_estimate_and_the_slowest_by_name() {
        let counts = Counts { running: 3, failed: 1, done: 4, ..Counts::default() };
        let slow = [("mw1", 5), ("mw2", 40), ("mw3", 12), ("mw4", 50), ("mw5", 11)];
        let slow = slow.iter().map(|(host, time)| (*host, seconds(*time)));
        assert_eq!(
            message(counts, Some("gate"), Some(seconds(90)), slow),
            "3 running; 1 failed; gate; about 90s left; slowest: mw4 50s, mw2 40s, mw3 12s"
        );
        assert_eq!(message(Counts::default(), None, None, std::iter::empty()), "");
    }
}
