//! The phases of a safe restart, and how a run is made to stand in each long enough for a fault.

use std::time::Duration;

use testbed::host::Running;
use testbed::site::UNIT;
use testbed::{Result, wait};

use crate::stand::{LIMIT, Seen, Stand};

/// The phases, in the order of the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The fault is there before the run.
    Start,
    /// Waiting for a slot at poolcounter.
    Queue,
    /// Every load balancer is asked whether it knows the host.
    Look,
    /// The host is `no`, and load balancers are asked to let go of it.
    Leave,
    /// Requests in flight get time to end.
    Drain,
    /// Everything is looked at once more.
    Last,
    /// systemd restarts the unit.
    Restart,
    /// The unit runs, and has to stay up.
    Settle,
    /// The host is `yes`, and load balancers are asked to send to it.
    Return,
}

/// All of them.
pub const PHASES: [Phase; 9] = [
    Phase::Start,
    Phase::Queue,
    Phase::Look,
    Phase::Leave,
    Phase::Drain,
    Phase::Last,
    Phase::Restart,
    Phase::Settle,
    Phase::Return,
];

/// How slowly load balancers answer where a run has to stand in a question to them.
const SLOW: Duration = Duration::from_millis(700);

impl Phase {
    /// The column of the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Queue => "queue",
            Self::Look => "look",
            Self::Leave => "leave",
            Self::Drain => "drain",
            Self::Last => "last",
            Self::Restart => "restart",
            Self::Settle => "settle",
            Self::Return => "return",
        }
    }

    /// What makes a run stand in it: arguments, and the words by which it says that it does.
    fn recipe(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Start => (&["--grace-period", "0.1"], ""),
            Self::Queue => (&["--grace-period", "0.1"], "waiting for a slot"),
            Self::Look => (&["--grace-period", "0.1"], "is known there, for at most"),
            Self::Leave => (&["--grace-period", "0.1"], "is not pooled, for at most"),
            Self::Drain => (&["--grace-period", "1.5"], "for requests in flight"),
            Self::Last => (&["--grace-period", "0.1"], "is still not pooled, right before"),
            Self::Restart => (&["--grace-period", "0.1"], "restarting 'php8.2-fpm"),
            Self::Settle => (&["--grace-period", "0.1", "--settle", "2"], "restarting 'php8.2-fpm"),
            Self::Return => (&["--grace-period", "0.1"], "is pooled, for at most"),
        }
    }

    /// Starts a run and waits until it stands here.
    pub fn reach(self, stand: &mut Stand, before: &Seen) -> Result<Running> {
        match self {
            Self::Queue => stand.take_slot()?,
            Self::Look | Self::Leave | Self::Last | Self::Return => stand.slow(SLOW)?,
            Self::Restart => stand.mood("slow")?,
            Self::Start | Self::Drain | Self::Settle => {}
        }
        let (own, words) = self.recipe();
        let common = "--pools appservers --min-pooled 0 --max-concurrency 1 --slot-timeout 9 --lb-timeout 4 \
                      --timeout 1.5 --wait 0.2 --slots";
        let mut arguments: Vec<&str> = common.split_whitespace().collect();
        arguments.push(stand.slots);
        arguments.extend(["--services", UNIT]);
        arguments.extend(own);
        let mut run = stand.start(&arguments)?;
        run.wait_for_stderr(words, LIMIT)?;
        if self == Self::Settle {
            wait::until("the new PHP-FPM", LIMIT, || {
                let now = stand.look()?;
                Ok(now.invocation != before.invocation && now.active == "active")
            })?;
        }
        Ok(run)
    }
}
