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
