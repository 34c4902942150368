//! The question "restart, reload, is it running". Answered by `systemctl`, in the crate `host`.

use std::time::Duration;

use crate::names::UnitName;

/// systemd's words for a unit that ended by itself and that it will start again: no job is queued meanwhile.
const CRASHED: &str = "auto-restart";

/// What runs the services of this host.
pub trait ServiceManager {
    /// Reads the state of a unit; a unit that does not exist is a state too ([`LoadState::NotFound`]).
    fn status(&mut self, unit: &UnitName) -> Result<UnitStatus, ServiceError>;

    /// Has the manager do `verb` to `unit`, and waits until it is done or refused, `at_most` that long.
    fn run(&mut self, verb: Verb, unit: &UnitName, at_most: Duration) -> Result<(), ServiceError>;

    /// Whether the whole host is going down, so that a unit that does not run tells nothing of its health.
    fn going_down(&mut self) -> bool;
}

/// What can be done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Stop it and start it anew.
    Restart,
    /// Have it read its configuration and code again, in the same main process.
    Reload,
    /// Start it.
    Start,
    /// Forget earlier failures, so that the start limit no longer holds.
    ResetFailed,
}

impl Verb {
    /// systemctl's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Start => "start",
            Self::ResetFailed => "reset-failed",
        }
    }
}

/// A unit at one moment; the names are systemd's properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStatus {
    /// Whether systemd knows the unit.
    pub load: LoadState,
    /// Whether it runs.
    pub active: ActiveState,
    /// The finer state (`running`, `auto-restart`, ...).
    pub sub: String,
    /// The main process; `None` when there is none.
    pub main_pid: Option<u32>,
    /// Names this start of the unit; changes with each start. `None` when it never ran.
    pub invocation: Option<String>,
    /// How often systemd started it again by itself since it was last started on purpose.
    pub restarts: u32,
    /// How its last run ended, or `success`: `exit-code`, `start-limit-hit`, ...
    pub result: String,
    /// Whether systemd has a job queued or running for it (the property `Job`).
    pub job: bool,
    /// Whether it can be reloaded.
    pub can_reload: bool,
    /// The longest time that stopping and starting it may take by its own settings; `None` is no limit.
    pub limit: Option<Duration>,
    /// What it runs, as systemd shows its first `ExecStart`: `{ path=/usr/sbin/php-fpm8.2 ; argv[]=... ; ... }`; `None` for a
    /// unit that runs nothing.
    pub command: Option<String>,
}

impl UnitStatus {
    /// On its way up or down. One that crashed and waits for systemd to start it again is not on its way.
    pub(crate) fn is_busy(&self) -> bool {
        use ActiveState::{Activating, Deactivating, Reloading};
        let moving = matches!(self.active, Activating | Deactivating | Reloading);
        self.job || (moving && !self.sub.starts_with(CRASHED))
    }
}

/// systemd's LoadState.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadState {
    /// A unit as it should be.
    Loaded,
    /// No such unit.
    NotFound,
    /// Forbidden to start.
    Masked,
    /// Anything else (`bad-setting`, `error`, ...), by systemd's word.
    Other(String),
}

/// systemd's ActiveState.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActiveState {
    /// Running.
    Active,
    /// Running, and reading its configuration again.
    Reloading,
    /// On its way up.
    Activating,
    /// On its way down.
    Deactivating,
    /// Not running.
    Inactive,
    /// Not running, because it failed.
    Failed,
    /// A state that systemd has beside these, by its word.
    Other(String),
}

impl ActiveState {
    /// systemd's word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Other(word) => word,
        }
    }
}

/// Why the service manager could not be asked, or would not do it. The text is the manager's own last words where it had any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(pub String);
