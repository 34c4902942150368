//! What was asked for, and what stands in the file, as a command line of `safe-service-restart`. No file is read and nothing is asked
//! of the system here: facts in, arguments out.

use std::path::Path;

use restart_core::{PoolName, UnitName};

use crate::cli::Cli;
use crate::file::{File, Limit, Slots, Time};
use crate::request::Request;

/// How often a load balancer is asked where the file does not say: as the original's wrapper.
const RETRIES: u32 = 10;
/// The longest pause between two questions, in seconds: likewise.
const WAIT: u32 = 5;

/// What was asked for, by whichever way.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// What a fleet tool would say, too.
    pub request: Request,
    /// Only these units.
    pub services: Vec<UnitName>,
    /// Change nothing.
    pub dry_run: bool,
    /// Answer in JSON.
    pub json: bool,
    /// Say less.
    pub quiet: bool,
    /// Say more.
    pub verbose: u8,
}

impl Asked {
    /// What was typed.
    pub fn typed(cli: &Cli) -> Self {
        Self {
            request: Request {
                run: None,
                reason: cli.reason.clone(),
                force: cli.force,
                reload: cli.reload,
                unless_restarted_since: cli.unless_restarted_since,
                status: false,
            },
            services: cli.services.clone(),
            dry_run: cli.dry_run,
            json: cli.json,
            quiet: cli.quiet,
            verbose: cli.verbose,
        }
    }

    /// What a fleet tool said, which is answered as `--json`.
    pub fn sent(request: Request) -> Self {
        Self { request, json: true, ..Self::default() }
    }
}

/// The arguments for these units. An emergency gets nothing that could keep it waiting for more than its turn.
pub fn arguments(asked: &Asked, file: &File, units: &[UnitName]) -> Vec<String> {
    let mut line = Line(Vec::new());
    line.list("--services", units.iter().map(UnitName::as_str));
    line.list("--pools", file.pools.iter().map(PoolName::as_str));
    line.limit("--max-concurrency", file.max_concurrency);
    line.slots(file);
    if asked.request.force {
        line.flag("--force", true);
    } else {
        line.value("--retries", Some(file.retries.unwrap_or(RETRIES)));
        match &file.wait {
            Some(wait) => line.time("--wait", Some(wait)),
            None => line.value("--wait", Some(WAIT)),
        }
        line.time("--slot-timeout", file.slot_timeout.as_ref());
        line.limit("--min-pooled", file.min_pooled);
        line.value("--lb-quorum", file.lb_quorum);
        line.time("--lb-timeout", file.lb_timeout.as_ref());
        line.time("--timeout", file.timeout.as_ref());
        line.time("--grace-period", file.grace_period.as_ref());
        line.time("--drain-timeout", file.drain_timeout.as_ref());
        line.flag("--require-drained", file.require_drained && !file.pools.is_empty());
        line.time("--settle", file.settle.as_ref());
        line.time("--ready-timeout", file.ready_timeout.as_ref());
        line.time("--lock-timeout", file.lock_timeout.as_ref());
        line.store(file);
    }
    line.flag("--reload", asked.request.reload);
    line.flag("--dry-run", asked.dry_run);
    line.flag("--json", asked.json);
    line.flag("--quiet", asked.quiet);
    (0..asked.verbose).for_each(|_| line.flag("--verbose", true));
    line.value("--fleet-run", asked.request.run.as_ref());
    // Last, and in one word: whatever it says, it is no option.
    line.0.extend(asked.request.reason.as_ref().map(|reason| format!("--reason={reason}")));
    line.0
}

/// The arguments that ask how these units and the pools of the file stand: all that says where to look, and nothing of a restart.
pub fn status_arguments(file: &File, units: &[UnitName]) -> Vec<String> {
    let mut line = Line(Vec::new());
    line.flag("--status", true);
    line.list("--services", units.iter().map(UnitName::as_str));
    line.list("--pools", file.pools.iter().map(PoolName::as_str));
    line.limit("--max-concurrency", file.max_concurrency);
    line.slots(file);
    line.time("--timeout", file.timeout.as_ref());
    line.store(file);
    line.flag("--json", true);
    line.0
}

/// A command line that grows.
struct Line(Vec<String>);

impl Line {
    /// Who counts slots, and in which data centre.
    fn slots(&mut self, file: &File) {
        self.value("--slots", file.slots.map(|slots| if slots == Slots::Etcd { "etcd" } else { "poolcounter" }));
        self.path("--poolcounter-config", file.poolcounter_config.as_deref());
        self.value("--dc", file.dc.as_ref());
    }

    /// Where the pools are, and what this host is called in them.
    fn store(&mut self, file: &File) {
        self.path("--catalog", file.catalog.as_deref());
        self.path("--config", file.config.as_deref());
        self.value("--host", file.host.as_ref());
    }

    fn flag(&mut self, flag: &str, given: bool) {
        self.0.extend(given.then(|| flag.to_owned()));
    }

    fn value(&mut self, flag: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.extend([flag.to_owned(), value.to_string()]);
        }
    }

    fn list<'a>(&mut self, flag: &str, values: impl Iterator<Item = &'a str>) {
        for value in values {
            self.value(flag, Some(value));
        }
    }

    fn time(&mut self, flag: &str, time: Option<&Time>) {
        self.value(flag, time.map(|Time(time)| format!("{}ms", time.as_millis())));
    }

    fn limit(&mut self, flag: &str, limit: Option<Limit>) {
        self.value(flag, limit.map(|Limit(share)| share));
    }

    fn path(&mut self, flag: &str, path: Option<&Path>) {
        self.value(flag, path.map(|path| path.display().to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::EVERY_KEY;

    fn unit() -> UnitName {
        UnitName::new("php8.2-fpm").unwrap()
    }

    /// The command line for this file and this request, in one line.
    fn line(file: &str, request: Request) -> String {
        let asked = Asked { request, ..Asked::default() };
        arguments(&asked, &File::parse(file).unwrap(), &[unit()]).join(" ")
    }

    #[test]
    fn a_file_that_names_pools_alone_waits_as_the_originals_wrapper_did() {
        assert_eq!(
            line("pools: [appservers]", Request::default()),
            "--services php8.2-fpm.service --pools appservers --retries 10 --wait 5"
        );
    }

    #[test]
    fn every_key_of_the_file_has_its_option() {
        assert_eq!(
            line(EVERY_KEY, Request::default()),
            "--services php8.2-fpm.service --pools appservers --pools api-https --max-concurrency 10% --slots etcd \
             --poolcounter-config /etc/pc.yaml --dc eqiad --retries 7 --wait 500ms --slot-timeout 300000ms --min-pooled 3 \
             --lb-quorum 1 --lb-timeout 30000ms --timeout 2000ms --grace-period 0ms --drain-timeout 60000ms --require-drained \
             --settle 1000ms --ready-timeout 20000ms --lock-timeout 60000ms --catalog /etc/c.yaml --config /etc/d.yaml \
             --host mw1.eqiad.test"
        );
    }

    #[test]
    fn an_emergency_waits_for_its_turn_and_nothing_else() {
        assert_eq!(
            line(EVERY_KEY, Request { force: true, ..Request::default() }),
            "--services php8.2-fpm.service --pools appservers --pools api-https --max-concurrency 10% --slots etcd \
             --poolcounter-config /etc/pc.yaml --dc eqiad --force"
        );
    }

    /// Nobody but the pools' load balancers can be asked whether the host is drained.
    #[test]
    fn without_a_pool_to_leave_nothing_has_to_be_drained() {
        assert!(!line("require_drained: true", Request::default()).contains("--require-drained"));
    }

    #[test]
    fn what_a_fleet_tool_says_is_passed_on_and_a_reason_is_never_an_option() {
        let request = Request { run: Some("r1".to_owned()), reason: Some("--force".to_owned()), ..Request::default() };
        let said = arguments(&Asked::sent(request), &File::default(), &[unit()]);
        assert!(
            said.ends_with(&["--json", "--fleet-run", "r1", "--reason=--force"].map(ToOwned::to_owned)),
            "{said:?}"
        );
    }

    #[test]
    fn the_status_is_asked_of_the_same_places() {
        assert_eq!(
            status_arguments(&File::parse(EVERY_KEY).unwrap(), &[unit()]).join(" "),
            "--status --services php8.2-fpm.service --pools appservers --pools api-https --max-concurrency 10% --slots etcd \
             --poolcounter-config /etc/pc.yaml --dc eqiad --timeout 2000ms --catalog /etc/c.yaml --config /etc/d.yaml \
             --host mw1.eqiad.test --json"
        );
    }
}
