//! What the services of this host say of themselves: PHP-FPM by its status and ping pages, any other by its open connections, and
//! whatever the catalog names by an address that has to answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use host::{connections, queue, trusted};
use load_balancer::http;
use php_fpm::{Address, AskError, CommandError, CommandLine, Pool, ReadWith, StatusPage, discover};
use restart_core::{ActiveState, Cause, InFlight, NoCount, Probe, UnitName, UnitStatus};

/// How long one question may take that nobody else bounds. A service that is asked answers within milliseconds, unless it is too busy
/// to be asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// The services of this host.
#[derive(Default)]
pub struct Services {
    units: BTreeMap<UnitName, Service>,
}

/// What a unit runs.
enum Service {
    PhpFpm(PhpFpm),
    /// Something that tells nobody how it is.
    Other,
    /// The same, and it does not run: nothing is in flight at it, and nothing of it listens.
    OtherAtRest,
}

struct PhpFpm {
    command: CommandLine,
    /// One a pool, where all have one; none for one that does not run, at which nothing is in flight.
    status: Vec<StatusPage>,
    /// The sockets of those pools whose queue PHP-FPM does not know.
    sockets: Vec<PathBuf>,
    /// Some pool had a ping page, by a configuration that could be read.
    had_ping: bool,
}

impl Probe for Services {
    fn learn(&mut self, unit: &UnitName, status: &UnitStatus) -> Result<(), String> {
        let runs = !matches!(status.active, ActiveState::Inactive | ActiveState::Failed) || status.main_pid.is_some();
        let command = match status.command.as_deref().map(CommandLine::from_exec_start) {
            None | Some(Err(CommandError::NotPhpFpm(_))) => {
                self.units.insert(unit.clone(), if runs { Service::Other } else { Service::OtherAtRest });
                return Ok(());
            }
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(command)) => command,
        };
        let mut fpm = PhpFpm { command, status: Vec::new(), sockets: Vec::new(), had_ping: false };
        let learned = fpm.learn(unit, !self.units.contains_key(unit));
        if !runs {
            fpm.status.clear();
            fpm.sockets.clear();
        }
        self.units.insert(unit.clone(), Service::PhpFpm(fpm));
        if runs { learned } else { Ok(()) }
    }

    fn in_flight(&mut self, ports: &[u16], at_most: Duration) -> Result<InFlight, NoCount> {
        let until = Instant::now() + at_most;
        let (mut requests, mut others) = (0_u64, self.units.is_empty());
        for service in self.units.values() {
            let fpm = match service {
                Service::PhpFpm(fpm) => fpm,
                Service::Other => {
                    others = true;
                    continue;
                }
                Service::OtherAtRest => continue,
            };
            for page in &fpm.status {
                // In hundredths of a second, for whoever reads it.
                let left = until.saturating_duration_since(Instant::now()).as_millis() / 10 * 10;
                let left = Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX));
                let status = page.ask(left).map_err(|error| no_count(&error))?;
                requests = requests.saturating_add(status.in_flight()).saturating_add(status.queued().unwrap_or(0));
            }
            let waiting = queue::waiting(&fpm.sockets);
            let waiting = waiting.map_err(|error| NoCount {
                why: format!("what waits cannot be counted: {error}"),
                cause: Cause::NoAnswer,
            })?;
            requests = requests.saturating_add(waiting);
        }
        if !others {
            return Ok(InFlight { count: requests, of: "requests" });
        }
        let connections = connections::count(ports).map_err(|error| NoCount {
            why: format!("connections cannot be counted: {error}"),
            cause: Cause::NoAnswer,
        })?;
        let of = if requests == 0 { "connections" } else { "requests and connections" };
        Ok(InFlight { count: requests.saturating_add(connections), of })
    }

    /// The configuration is read again: it may be what has changed. A pool without a ping page is ready when systemd says so.
    fn ready(&mut self, unit: &UnitName) -> Result<(), String> {
        let Some(Service::PhpFpm(fpm)) = self.units.get(unit) else { return Ok(()) };
        let pools = match pools(&fpm.command) {
            Ok(pools) => pools,
            // It was asked before, and now nobody can: that is no yes.
            Err(why) if fpm.had_ping => return Err(format!("it cannot be asked: {why}")),
            Err(why) => {
                log::debug!("'{unit}' is not asked whether it serves: {why}");
                return Ok(());
            }
        };
        let mut pings = pools.iter().filter_map(|pool| pool.ping().ok());
        pings.try_for_each(|ping| ping.ask(PATIENCE).map_err(|error| error.to_string()))
    }

    fn answers(&mut self, url: &str) -> Result<(), String> {
        match http::get(url, PATIENCE)?.status {
            200..=299 => Ok(()),
            status => Err(format!("it answers with status {status}")),
        }
    }
}

impl PhpFpm {
    /// Finds its pages. The error says what it lacks to be counted.
    fn learn(&mut self, unit: &UnitName, first: bool) -> Result<(), String> {
        let pools = pools(&self.command)?;
        for pool in &pools {
            match pool.ping() {
                Ok(_) => self.had_ping = true,
                Err(missing) if first => {
                    log::info!("'{unit}' counts as serving as soon as it runs: {missing}");
                }
                Err(_) => {}
            }
        }
        let pages: Result<Vec<_>, _> = pools.iter().map(Pool::status_page).collect();
        self.status = pages.map_err(|missing| missing.to_string())?;
        let socket = |pool: Pool| match pool.listen {
            Address::Unix(path) => Some(path),
            Address::Tcp { .. } => None,
        };
        self.sockets = pools.into_iter().filter_map(socket).collect();
        Ok(())
    }
}

fn no_count(error: &AskError) -> NoCount {
    let cause = match error {
        error if error.is_time_out() => Cause::Busy,
        error if error.is_not_permitted() => Cause::NotPermitted,
        _ => Cause::NoAnswer,
    };
    NoCount { why: error.to_string(), cause }
}

/// The pools of a PHP-FPM, or why they cannot be told.
fn pools(command: &CommandLine) -> Result<Vec<Pool>, String> {
    let configuration = discover(command, &mut ReadWith(trusted::read_lossy));
    configuration.map(|configuration| configuration.pools).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use restart_core::LoadState;

    use super::*;

    #[test]
    fn nothing_is_in_flight_at_a_unit_that_does_not_run_and_of_one_that_runs_somebody_has_to_listen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let unit = UnitName::new("nginx").unwrap();
        let status = |active| UnitStatus {
            load: LoadState::Loaded,
            active,
            sub: String::new(),
            main_pid: None,
            invocation: None,
            restarts: 0,
            result: String::new(),
            job: false,
            can_reload: true,
            limit: None,
            command: Some("{ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx ; ignore_errors=no }".to_owned()),
        };
        let mut services = Services::default();
        for (active, count) in
            [(ActiveState::Failed, Some(0)), (ActiveState::Inactive, Some(0)), (ActiveState::Active, None)]
        {
            services.learn(&unit, &status(active.clone())).unwrap();
            let found = services.in_flight(&[port], PATIENCE).ok().map(|in_flight| in_flight.count);
            assert_eq!(found, count, "{active:?}");
        }
    }
}
