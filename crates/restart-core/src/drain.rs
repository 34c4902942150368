//! The time that requests in flight get to end, once no load balancer sends new ones: the grace period, cut short as soon as
//! nothing is in flight any more, and drawn out to `--drain-timeout` while something is.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::outcome::{ExitCode, Failure};
use crate::run::{Abort, Hold, Run};
use crate::span::span;

/// The pause between two looks. Nothing has to be in flight at two of them in a row: a request that a web server has taken and
/// not handed on yet shows in neither place.
const LOOK: Duration = Duration::from_millis(100);

impl Run<'_> {
    /// Gives the requests in flight time to end.
    pub(crate) fn drain(&mut self) -> Result<(), Abort> {
        // Of a host that somebody else took out, only a restart can cost requests.
        let ours = self.members.iter().any(|member| matches!(member.hold, Hold::Ours(_)));
        let longest = self.job.grace.max(self.job.drain_timeout);
        let nothing_to_do = longest.is_zero() && !self.job.require_drained;
        if self.pools.is_empty() || nothing_to_do || !(ours || self.restarts) {
            return Ok(());
        }
        self.phase("drain", |run| match &run.uncounted {
            None => run.drain_by_count(longest),
            Some(_) => {
                log::info!("waiting {} for requests in flight to end", span(run.job.grace));
                let until = run.parts.clock.now() + run.job.grace;
                Ok(sleep_until(run.parts.clock, run.parts.stop, Heed::First, until)?)
            }
        })
    }

    fn drain_by_count(&mut self, longest: Duration) -> Result<(), Abort> {
        log::info!("waiting for requests in flight to end, for at most {}", span(longest));
        let mut ports: Vec<u16> = self.pools.iter().map(|pool| pool.port).collect();
        ports.sort_unstable();
        ports.dedup();
        let until = self.parts.clock.now() + longest;
        let mut quiet = false;
        let left = loop {
            let now = self.parts.clock.now();
            let count = self.parts.probe.in_flight(&ports);
            match &count {
                Ok(0) if quiet => break count,
                Ok(0) => quiet = true,
                Ok(_) | Err(_) => quiet = false,
            }
            if now >= until {
                break count;
            }
            sleep_until(self.parts.clock, self.parts.stop, Heed::First, (now + LOOK).min(until))?;
        };
        self.report.in_flight = left.as_ref().ok().copied();
        let left = match left {
            Ok(0) => return Ok(()),
            Ok(1) => "1 request is still in flight".to_owned(),
            Ok(count) => format!("{count} requests are still in flight"),
            Err(why) => format!("it cannot be told how many requests are still in flight: {why}"),
        };
        if self.job.require_drained {
            let message = format!("'{}' is not drained after {}: {left}", self.host, span(longest));
            return Err(Failure::new(ExitCode::Failed, message).into());
        }
        self.report.warn(format!("the time for requests in flight is over after {}: {left}", span(longest)));
        Ok(())
    }
}
