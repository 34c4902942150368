//! What the services of this host say of themselves: PHP-FPM by its status and ping pages, any other by its open connections, and
//! whatever the catalog names by an address that has to answer.

use std::collections::BTreeMap;
use std::time::Duration;

use host::connections;
use host::trusted;
use load_balancer::http;
use php_fpm::{CommandError, CommandLine, Ping, Pool, ReadWith, StatusPage, discover};
use restart_core::{Probe, UnitName, UnitStatus};

/// How long one question may take. A service that is asked answers within milliseconds, unless it is too busy to be asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// The services of this host.
#[derive(Default)]
pub struct Services {
    units: BTreeMap<UnitName, Service>,
}

/// What a unit runs.
enum Service {
    PhpFpm {
        command: CommandLine,
        /// One a pool, as far as they are there.
        status: Vec<StatusPage>,
    },
    /// Something that tells nobody how it is.
    Other,
}

impl Probe for Services {
    fn learn(&mut self, unit: &UnitName, status: &UnitStatus) -> Result<(), String> {
        let command = match status.command.as_deref().map(CommandLine::from_exec_start) {
            None | Some(Err(CommandError::NotPhpFpm(_))) => {
                self.units.insert(unit.clone(), Service::Other);
                return Ok(());
            }
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(command)) => command,
        };
        let pools = pools(&command);
        let mut pages = Vec::new();
        let learned = pools.and_then(|pools| {
            for pool in &pools {
                pages.push(pool.status_page().map_err(|missing| missing.to_string())?);
            }
            Ok(())
        });
        self.units.insert(unit.clone(), Service::PhpFpm { command, status: pages });
        learned
    }

    fn in_flight(&mut self, ports: &[u16]) -> Result<u64, String> {
        let mut count = 0;
        let mut ask_kernel = self.units.is_empty();
        for service in self.units.values() {
            match service {
                Service::Other => ask_kernel = true,
                Service::PhpFpm { status, .. } => {
                    for page in status {
                        let status = page.ask(PATIENCE).map_err(|error| error.to_string())?;
                        count += status.in_flight() + status.queued().unwrap_or(0);
                    }
                }
            }
        }
        if ask_kernel {
            count += connections::count(ports).map_err(|error| format!("cannot count connections: {error}"))?;
        }
        Ok(count)
    }

    /// The configuration is read again: it may be what has changed. A pool without a ping page is ready when systemd says so.
    fn ready(&mut self, unit: &UnitName) -> Result<(), String> {
        let Some(Service::PhpFpm { command, .. }) = self.units.get(unit) else { return Ok(()) };
        let pings: Vec<Ping> = match pools(command) {
            Ok(pools) => pools.iter().filter_map(|pool| pool.ping().ok()).collect(),
            Err(why) => {
                log::debug!("'{unit}' is not asked whether it serves: {why}");
                return Ok(());
            }
        };
        pings.iter().try_for_each(|ping| ping.ask(PATIENCE).map_err(|error| error.to_string()))
    }

    fn answers(&mut self, url: &str) -> Result<(), String> {
        match http::get(url, PATIENCE)?.status {
            200..=299 => Ok(()),
            status => Err(format!("it answers with status {status}")),
        }
    }
}

/// The pools of a PHP-FPM, or why they cannot be told.
fn pools(command: &CommandLine) -> Result<Vec<Pool>, String> {
    discover(command, &mut ReadWith(trusted::read))
        .map(|configuration| configuration.pools)
        .map_err(|error| error.to_string())
}
