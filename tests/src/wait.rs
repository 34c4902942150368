//! Waiting for something to become so. Everything in the test bed that starts is polled with a bound, so that a test
//! that fails says what it waited for instead of hanging.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at: short enough to cost a test nothing, long enough to leave two cores to work.
const PACE: Duration = Duration::from_millis(10);

/// Looks again and again until `look` has something to give, for at most `limit`. An error of the last look is part
/// of the error that says what was waited for.
pub fn until_some<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_some_every(PACE, what, limit, look)
}

/// The same at another pace, for a look that costs nothing and an end that is timed.
pub(crate) fn until_some_every<T>(
    pace: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            return match last {
                Some(error) => Err(error).with_context(|| format!("waited {limit:?} for {what}")),
                None => bail!("waited {limit:?} for {what}, in vain"),
            };
        }
        thread::sleep(pace);
    }
}

/// Looks again and again until `look` says true, for at most `limit`.
pub fn until(what: &str, limit: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    until_some(what, limit, || Ok(look()?.then_some(())))
}
