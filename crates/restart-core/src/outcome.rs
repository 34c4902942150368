//! How a run ends: the exit codes, in one place for every tool, and the failure that carries one.

/// The exit codes of every tool; the table with the state of the host behind each is in safe-service-restart(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed before the restart, for a reason with no code of its own; the pools are as found.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The restart failed or the service is not ready; the host is left depooled, on purpose.
    LeftDepooled = 3,
    /// Restarted and healthy, but the repool is refused or not confirmed everywhere.
    RepoolUnconfirmed = 4,
    /// Not restarted, and putting the host back failed or is not confirmed.
    PutBackUnconfirmed = 5,
    /// The store, a load balancer or the host cannot be reached (`EX_UNAVAILABLE` of sysexits(3)).
    Unreachable = 69,
    /// Another run holds the host, or there is no slot; try later (`EX_TEMPFAIL`).
    TryLater = 75,
    /// Not root, or a configuration file that others can write (`EX_NOPERM`).
    NotPermitted = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Configuration = 78,
}

impl ExitCode {
    /// Those that a status can have beside [`Self::Done`], the worst first: held; interrupted; something that cannot be reached, or
    /// looked at, or is configured wrong; something that is not as it should be.
    pub const OF_A_STATUS: [Self; 7] = [
        Self::LeftDepooled,
        Self::RepoolUnconfirmed,
        Self::PutBackUnconfirmed,
        Self::Unreachable,
        Self::NotPermitted,
        Self::Configuration,
        Self::Failed,
    ];

    /// The worst of what a status saw.
    pub fn of_a_status(seen: &[Self]) -> Self {
        Self::OF_A_STATUS.into_iter().find(|code| seen.contains(code)).unwrap_or(Self::Done)
    }

    /// The number for the shell.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// What went wrong, and the exit code it asks for. The message says what was attempted, on what, and why it failed; what
/// state remains is added at the end of the run, when it is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code that this failure asks for.
    pub code: ExitCode,
    /// The sentence for the user.
    pub message: String,
}

impl Failure {
    /// A failure with its code and its sentence.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
