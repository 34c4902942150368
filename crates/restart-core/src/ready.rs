//! Waiting for a service that runs until it serves. systemd knows only of processes: one that reads its configuration, fills its
//! caches or waits for a database runs, and answers nobody.

use std::time::Duration;

use crate::clock::{Heed, sleep_until};
use crate::names::UnitName;
use crate::sequence::Parts;
use crate::service::ActiveState;

/// The pause between two questions. Each question bounds itself.
const LOOK: Duration = Duration::from_millis(100);

/// Why a service does not serve.
pub(crate) enum Unready {
    /// It may come.
    NotYet(String),
    /// It will not.
    Never(String),
}

/// Asks until the answer is yes, or the time is over; the error is the last reason.
pub(crate) fn await_ready(
    parts: &mut Parts<'_>,
    until: Duration,
    mut ask: impl FnMut(&mut Parts<'_>) -> Result<(), Unready>,
) -> Result<(), String> {
    loop {
        let why = match ask(parts) {
            Ok(()) => return Ok(()),
            Err(Unready::Never(why)) => return Err(why),
            Err(Unready::NotYet(why)) => why,
        };
        let now = parts.clock.now();
        if now >= until {
            return Err(why);
        }
        let next = (now + LOOK).min(until);
        sleep_until(parts.clock, parts.stop, Heed::Second, next).map_err(|stopped| {
            format!("not waited for any longer because of a second {}: {why}", stopped.signal.name())
        })?;
    }
}

/// Sees a unit that runs serve within `limit`. One that ends meanwhile never will.
pub(crate) fn see_ready(parts: &mut Parts<'_>, unit: &UnitName, limit: Duration) -> Result<(), String> {
    let until = parts.clock.now() + limit;
    await_ready(parts, until, |parts| {
        let Err(why) = parts.probe.ready(unit) else { return Ok(()) };
        match parts.services.status(unit) {
            Ok(status) if !matches!(status.active, ActiveState::Active | ActiveState::Reloading) => {
                Err(Unready::Never(format!("it is {}; before that: {why}", status.active.as_str())))
            }
            Ok(_) | Err(_) => Err(Unready::NotYet(why)),
        }
    })
}
