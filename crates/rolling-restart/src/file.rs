//! `/etc/rolling-restart.yaml`: defaults for what can be typed. Every key is in rolling-restart.yaml(5). A key that is not known is an
//! error: a misspelt `max_failures` must not mean another number.

use std::path::PathBuf;

use host::settings_file::{self, Limit, Time};
use host::words;
use restart_core::Share;
use serde::Deserialize;

use crate::cli;

/// Where it is.
pub const PATH: &str = "/etc/rolling-restart.yaml";

/// What can stand in it; whatever does not is `None`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub batch: Option<Limit>,
    pub canaries: Option<u32>,
    pub gate: Option<String>,
    pub gate_timeout: Option<Time>,
    pub pause: Option<Time>,
    pub max_failures: Option<Limit>,
    pub max_failures_forced: Option<Limit>,
    pub max_unreachable: Option<Limit>,
    pub retries: Option<u32>,
    pub retry_delay: Option<Time>,
    pub host_timeout: Option<Time>,
    pub connect_timeout: Option<Time>,
    pub user: Option<String>,
    pub key: Option<PathBuf>,
    pub agent: Option<PathBuf>,
    pub rsh: Option<String>,
    pub config: Option<PathBuf>,
}

impl File {
    /// Reads the text of the file. The error names the line where that is known, else the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = settings_file::parse(text)?;
        let shares = [
            ("batch", file.batch),
            ("max_failures", file.max_failures),
            ("max_failures_forced", file.max_failures_forced),
            ("max_unreachable", file.max_unreachable),
        ];
        for (name, share) in shares {
            if matches!(share, Some(Limit(Share::Count(0) | Share::Percent(0)))) {
                return Err(format!("'{name}' must be more than zero"));
            }
        }
        let times = [
            ("gate_timeout", &file.gate_timeout),
            ("host_timeout", &file.host_timeout),
            ("connect_timeout", &file.connect_timeout),
        ];
        for (name, time) in times {
            if time.as_ref().is_some_and(|time| time.0.is_zero()) {
                return Err(format!("'{name}' must be more than zero"));
            }
        }
        for (name, path) in [("key", &file.key), ("agent", &file.agent), ("config", &file.config)] {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(format!("'{name}' is not an absolute path"));
            }
        }
        if let Some(gate) = &file.gate {
            cli::for_a_shell(gate).map_err(|why| format!("'gate': {why}"))?;
        }
        if let Some(user) = &file.user {
            words::user(user).map_err(|why| format!("'user' is {why}"))?;
        }
        if let Some(rsh) = &file.rsh {
            cli::program(rsh).map_err(|why| format!("'rsh': {why}"))?;
        }
        if file.key.is_some() && file.rsh.is_some() {
            return Err("'key' is for ssh: with 'rsh' it has no meaning".to_owned());
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_key() {
        let text = "
batch: 20%
canaries: 2
gate: curl -fsS https://www.example/health
gate_timeout: 1m
pause: 10
max_failures: 3
max_failures_forced: 5%
max_unreachable: 2%
retries: 5
retry_delay: 1m
host_timeout: 20m
connect_timeout: 5
user: mwdeploy
key: /etc/keyholder.d/mwdeploy
agent: /run/keyholder/proxy.sock
config: /etc/conftool/config.yaml
";
        let file = File::parse(text).unwrap();
        assert_eq!(file.batch, Some(Limit(Share::Percent(20))));
        assert_eq!((file.canaries, file.retries), (Some(2), Some(5)));
        assert_eq!(file.pause, Some(Time(Duration::from_secs(10))));
        assert_eq!(file.user.as_deref(), Some("mwdeploy"));
        assert_eq!(File::parse("rsh: rsh -n\n").unwrap().rsh.as_deref(), Some("rsh -n"));
        assert_eq!(File::parse(""), Ok(File::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("batch: 1\nmax-failures: 1\n", "line 2"),
            ("force: true\n", "force"),
            ("batch: 0\n", "'batch' must be more than zero"),
            ("max_failures_forced: 0%\n", "'max_failures_forced' must"),
            ("host_timeout: 0\n", "'host_timeout' must"),
            ("gate: ''\n", "'gate': no command"),
            ("key: id\n", "'key' is not an absolute path"),
            ("agent: agent\n", "'agent' is not an absolute path"),
            ("user: -x\n", "'user' is not a user's name"),
            ("rsh: ' '\n", "'rsh': no command"),
            ("rsh: rsh\nkey: /k\n", "'key' is for ssh"),
        ] {
            let error = File::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
