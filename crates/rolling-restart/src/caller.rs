//! What is taken from the caller beside the command line. The environment is emptied first of all; of what stood in it a little is kept
//! for ordinary users, who have an agent for ssh and a terminal of some kind. Root gets nothing from there: whoever made root's
//! environment, a user of sudo among them, is not who chooses with which keys it reaches a fleet. Nor are signals left blocked, since
//! nobody could end a run then.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use host::{Environment, environment, inherited};

/// The caller.
#[derive(Debug)]
pub struct Caller {
    /// The socket of the user's agent, for ssh alone.
    pub agent: Option<OsString>,
    /// Whether the terminal, if it is one, can draw.
    pub can_draw: bool,
    pub environment: Environment,
}

impl Caller {
    /// First of all in `main`, while there is one thread.
    pub fn take() -> Self {
        inherited::every_signal();
        let (agent, can_draw) = heeded(environment::is_root(), |name| std::env::var_os(name));
        Self { agent, can_draw, environment: environment::take() }
    }
}

/// The agent, and whether the terminal can draw.
fn heeded(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> (Option<OsString>, bool) {
    if is_root {
        return (None, true);
    }
    let agent = variable("SSH_AUTH_SOCK").filter(|socket| Path::new(socket).is_absolute());
    (agent, variable("TERM").is_some_and(|terminal| terminal != OsStr::new("dumb")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(is_root: bool, agent: &str, terminal: Option<&str>) -> (Option<OsString>, bool) {
        heeded(is_root, |name| match name {
            "SSH_AUTH_SOCK" => Some(agent.into()),
            "TERM" => terminal.map(OsString::from),
            other => panic!("'{other}' is read"),
        })
    }

    #[test]
    fn an_ordinary_user_has_an_agent_and_a_terminal() {
        assert_eq!(of(false, "/run/agent", Some("xterm")), (Some("/run/agent".into()), true));
        assert!(!of(false, "/run/agent", Some("dumb")).1);
        assert!(!of(false, "/run/agent", None).1);
        assert_eq!(of(false, "agent", Some("xterm")).0, None);
    }

    #[test]
    fn for_root_nothing_is_read() {
        assert_eq!(of(true, "/run/agent", Some("dumb")), (None, true));
    }
}
