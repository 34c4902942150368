//! The time that requests in flight get to end, once no load balancer sends new ones: the grace period, cut short as soon as
//! nothing is in flight any more, and drawn out to `--drain-timeout` while something is.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::outcome::{ExitCode, Failure};
use crate::probe::{Cause, InFlight, NoCount};
use crate::run::{Abort, Hold, Run};
use crate::span::span;

/// The pause between the answer to one look and the next look. Nothing has to be in flight at two of them in a row: a request that a
/// web server has taken and not handed on yet shows in neither place.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one look may take. A service answers within milliseconds, unless it is too busy to.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// How long it may take even when the time is over: for a host that has to be drained and gets no grace period.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);

impl Run<'_> {
    /// Gives the requests in flight time to end.
    pub(crate) fn drain(&mut self) -> Result<(), Abort> {
        // Of a host that somebody else took out, only a restart can cost requests.
        let ours = self.members.iter().any(|member| matches!(member.hold, Hold::Ours(_)));
        let longest = self.job.grace.max(self.job.drain_timeout);
        let nothing_to_do = longest.is_zero() && !self.job.require_drained;
        if self.pools.is_empty() || nothing_to_do || !(ours || self.purpose.restarts()) {
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

    /// Where a drained host is required: what is to be counted then is counted once, while nothing is changed yet. A page that stands
    /// in the configuration of a service that was not restarted since answers nobody. One that is too busy to answer will, once no
    /// load balancer sends any more.
    pub(crate) fn see_countable(&mut self) -> Result<(), Abort> {
        if !self.job.require_drained || self.pools.is_empty() {
            return Ok(());
        }
        self.phase("first look at requests in flight", |run| {
            let ports = run.ports();
            match run.parts.probe.in_flight(&ports, LONGEST_LOOK) {
                Err(NoCount { why, cause }) => {
                    let what = format!("cannot require a drained host: requests in flight cannot be counted: {why}");
                    match cause {
                        Cause::Busy => {
                            log::info!("requests in flight cannot be counted yet: {why}");
                            Ok(())
                        }
                        Cause::NotPermitted => Err(Failure::new(ExitCode::NotPermitted, what).into()),
                        Cause::NoAnswer => {
                            let message = format!(
                                "{what}; if what is asked was configured since the service was started, restart it once without \
                                 requiring that"
                            );
                            Err(Failure::new(ExitCode::Configuration, message).into())
                        }
                    }
                }
                Ok(InFlight { count, of }) => {
                    log::debug!("{count} {of} are in flight");
                    Ok(())
                }
            }
        })
    }

    /// The ports of the pools, each once.
    fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.pools.iter().map(|pool| pool.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn drain_by_count(&mut self, longest: Duration) -> Result<(), Abort> {
        log::info!("waiting for requests in flight to end, for at most {}", span(longest));
        let began = self.parts.clock.now();
        let last = self.look_until_drained(began, longest)?;
        let waited = span(self.parts.clock.now().saturating_sub(began)).to_string();
        self.report.in_flight = last.as_ref().ok().map(|in_flight| in_flight.count);
        let left = match last {
            Ok(InFlight { count: 0, .. }) => return Ok(()),
            Ok(InFlight { count: 1, of }) => format!("1 {} is still in flight", of.trim_end_matches('s')),
            Ok(InFlight { count, of }) => format!("{count} {of} are still in flight"),
            Err(NoCount { why, .. }) => format!("it cannot be told what is still in flight: {why}"),
        };
        if self.job.require_drained {
            let message = format!("'{}' is not drained after {waited}: {left}", self.host);
            return Err(Failure::new(ExitCode::Failed, message).into());
        }
        self.report.warn(format!("the time for requests in flight is over after {waited}: {left}"));
        Ok(())
    }

    /// Looks until nothing was in flight at two looks in a row, or the time is over: what the last look showed.
    fn look_until_drained(&mut self, began: Duration, longest: Duration) -> Result<Result<InFlight, NoCount>, Abort> {
        let ports = self.ports();
        let mut quiet = false;
        loop {
            let left = (began + longest).saturating_sub(self.parts.clock.now());
            let look = self.parts.probe.in_flight(&ports, left.clamp(SHORTEST_LOOK, LONGEST_LOOK));
            let was_quiet = std::mem::replace(&mut quiet, matches!(look, Ok(InFlight { count: 0, .. })));
            if quiet && was_quiet {
                return Ok(look);
            }
            // Only what is seen to be in flight, or a service too busy to say, draws it out beyond the grace period.
            let until = match &look {
                Err(NoCount { cause: Cause::NotPermitted | Cause::NoAnswer, .. }) => began + self.job.grace,
                Err(NoCount { cause: Cause::Busy, .. }) | Ok(_) => began + longest,
            };
            let next = self.parts.clock.now() + PAUSE;
            // Where it is required, one quiet look is none.
            if next > until && !(quiet && self.job.require_drained) {
                sleep_until(self.parts.clock, self.parts.stop, Heed::First, until)?;
                return Ok(look);
            }
            sleep_until(self.parts.clock, self.parts.stop, Heed::First, next)?;
        }
    }
}
