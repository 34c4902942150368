//! What is run here to have something run there: ssh by its path with options that leave nothing open, or whatever `--rsh` says, and
//! the command for the other side, in fixed words. Host names are checked names, so that none can be an option; and what there is to
//! say beside the command goes through standard input, past every shell.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use restart_core::Fqdn;
use serde::Serialize;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::settings::Way;

/// OpenSSH's client.
const SSH: &str = "/usr/bin/ssh";
/// What runs on the host: a rule of sudo allows these words and no other.
pub const REMOTE: [&str; 5] = ["sudo", "-n", "/usr/sbin/restart-php-fpm", "--request", "-"];
/// Where programs are found that are not named by their path, here: by an `--rsh`, a gate, a `ProxyCommand`.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where ssh's sockets are: their names must not be longer than about a hundred bytes.
const FOLDER: &str = "/tmp";
/// A connection without an answer for four times as long is lost: a host that dies is noticed within a minute.
const ALIVE_INTERVAL: u32 = 15;
/// How long a connection is kept for a host that is to be tried again, in seconds.
const PERSIST: u32 = 60;

/// What is done on each host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// restart-php-fpm, by a request.
    Request(Request),
    /// Something else, whose exit code is all that is known of it.
    Command(String),
}

/// The object that restart-php-fpm(8) reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The run, which stands in each host's own log.
    pub run: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reload: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unless_restarted_since: Option<String>,
}

impl Work {
    /// What was typed.
    pub fn new(cli: &Cli, run: &str) -> Self {
        match &cli.command {
            Some(command) => Self::Command(command.clone()),
            None => Self::Request(Request {
                run: run.to_owned(),
                reason: cli.reason.clone(),
                force: cli.force,
                reload: cli.reload,
                unless_restarted_since: cli.since.map(host::clock::utc_exact),
            }),
        }
    }

    /// What goes to standard input.
    pub fn input(&self) -> Vec<u8> {
        match self {
            // Strings and truth values: there is nothing that could not be written.
            Self::Request(request) => serde_json::to_vec(request).unwrap_or_default(),
            Self::Command(_) => Vec::new(),
        }
    }

    /// The remote command.
    pub fn words(&self) -> Vec<&str> {
        match self {
            Self::Request(_) => REMOTE.to_vec(),
            Self::Command(command) => vec![command],
        }
    }
}

/// A way to hosts.
#[derive(Debug)]
pub struct Remote {
    /// Program and arguments up to the host.
    before: Vec<OsString>,
    /// The remote command.
    after: Vec<OsString>,
    /// The socket of an agent, for ssh alone.
    agent: Option<OsString>,
    /// The folder of the sockets by which several ssh share a connection, removed in the end. Whoever could write to one could use
    /// it, so it is ours alone.
    _sockets: Option<TempDir>,
}

impl Remote {
    /// The way that the settings describe, to have this run there.
    pub fn new(way: &Way, remote: &[&str]) -> Self {
        Self::new_in(Path::new(FOLDER), way, remote)
    }

    /// The same, with ssh's sockets somewhere in this folder.
    fn new_in(folder: &Path, way: &Way, remote: &[&str]) -> Self {
        let sockets = if way.rsh.is_none() { sockets(folder) } else { None };
        let found = Self::with_sockets(way, remote, sockets.as_ref().map(TempDir::path));
        Self { _sockets: sockets, ..found }
    }

    fn with_sockets(way: &Way, remote: &[&str], sockets: Option<&Path>) -> Self {
        let mut before = match &way.rsh {
            Some(words) => words.iter().map(OsString::from).collect(),
            None => ssh(way, sockets),
        };
        if let Some(user) = &way.user {
            before.extend(["-l".into(), user.into()]);
        }
        if way.rsh.is_none() {
            before.push("--".into());
        }
        let after = remote.iter().map(OsString::from).collect();
        Self { before, after, agent: way.agent.clone(), _sockets: None }
    }

    /// The command for one host, with an environment of our own making.
    pub fn command(&self, host: &Fqdn) -> Command {
        let mut words = self.before.iter();
        let mut command = Command::new(words.next().map_or(OsStr::new(SSH), OsString::as_os_str));
        command.args(words).arg(host.as_str()).args(&self.after).env_clear().env("PATH", PATH);
        if let Some(agent) = &self.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        command
    }
}

/// A folder for sockets. They save time where a host is tried again, and nothing depends on them: a disk that is full here is no reason
/// to restart nothing there.
fn sockets(folder: &Path) -> Option<TempDir> {
    let made = tempfile::Builder::new().prefix("rolling-restart.").tempdir_in(folder);
    let folder = folder.display();
    made.inspect_err(|error| log::warn!("no folder for ssh's sockets in '{folder}', so no connection is kept: {error}"))
        .ok()
}

fn ssh(way: &Way, sockets: Option<&Path>) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![SSH.into(), "-T".into()];
    let mut option = |text: String| words.extend(["-o".into(), text.into()]);
    option("BatchMode=yes".to_owned());
    // Whole seconds, at least one: 0 would be no limit.
    option(format!("ConnectTimeout={}", way.connect_timeout.as_secs_f64().ceil().max(1.0)));
    option(format!("ServerAliveInterval={ALIVE_INTERVAL}"));
    option("ServerAliveCountMax=4".to_owned());
    option("ClearAllForwardings=yes".to_owned());
    option("ForwardAgent=no".to_owned());
    option("ForwardX11=no".to_owned());
    // Its errors are repeated; banners and greetings are not.
    option("LogLevel=ERROR".to_owned());
    match sockets {
        Some(sockets) => {
            option("ControlMaster=auto".to_owned());
            option(format!("ControlPath={}/%C", sockets.display()));
            option(format!("ControlPersist={PERSIST}"));
        }
        // Nor one that the user's own configuration names.
        None => option("ControlPath=none".to_owned()),
    }
    if let Some(key) = &way.key {
        words.extend(["-i".into(), PathBuf::from(key).into(), "-o".into(), "IdentitiesOnly=yes".into()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn way() -> Way {
        Way {
            user: None,
            key: None,
            agent: None,
            rsh: None,
            connect_timeout: Duration::from_millis(1500),
            host_timeout: Duration::from_secs(60),
        }
    }

    fn line(way: &Way, work: &Work) -> String {
        let remote = Remote::with_sockets(way, &work.words(), Some(Path::new("/tmp/x")));
        let command = remote.command(&Fqdn::new("mw1.test").unwrap());
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn ssh_asks_nothing_and_gets_the_command_in_fixed_words() {
        let way = Way { user: Some("mwdeploy".to_owned()), key: Some("/etc/key".into()), ..way() };
        assert_eq!(
            line(&way, &Work::Request(Request::default())),
            "/usr/bin/ssh -T -o BatchMode=yes -o ConnectTimeout=2 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
             -o ClearAllForwardings=yes -o ForwardAgent=no -o ForwardX11=no -o LogLevel=ERROR -o ControlMaster=auto \
             -o ControlPath=/tmp/x/%C -o ControlPersist=60 -i /etc/key -o IdentitiesOnly=yes -l mwdeploy -- mw1.test \
             sudo -n /usr/sbin/restart-php-fpm --request -"
        );
    }

    #[test]
    fn where_no_folder_can_be_made_for_sockets_each_connection_is_one_of_its_own() {
        let remote = Remote::new_in(Path::new("/nonexistent"), &way(), &REMOTE);
        let command = remote.command(&Fqdn::new("mw1.test").unwrap());
        let words: Vec<_> = command.get_args().filter_map(OsStr::to_str).collect();
        assert!(words.contains(&"ControlPath=none") && words.contains(&"mw1.test"), "{words:?}");
        assert!(!words.iter().any(|word| word.contains("ControlMaster") || word.contains("Persist")), "{words:?}");
    }

    #[test]
    fn another_program_gets_user_host_and_command_as_rsync_gives_them() {
        let rsh = Some(vec!["/bin/rsh".to_owned(), "-n".to_owned()]);
        let way = Way { rsh, user: Some("alice".to_owned()), ..way() };
        let work = Work::Command("uptime; id".to_owned());
        assert_eq!(line(&way, &work), "/bin/rsh -n -l alice mw1.test uptime; id");
    }

    #[test]
    fn a_request_says_what_there_is_to_say_and_no_more() {
        let request = Request { run: "r-1".to_owned(), ..Request::default() };
        assert_eq!(Work::Request(request.clone()).input(), br#"{"run":"r-1"}"#);
        let request = Request {
            reason: Some("wmf.5 \"x\"".to_owned()),
            reload: true,
            unless_restarted_since: Some("2026-11-23T10:00:00Z".to_owned()),
            ..request
        };
        let wanted =
            br#"{"run":"r-1","reason":"wmf.5 \"x\"","reload":true,"unless_restarted_since":"2026-11-23T10:00:00Z"}"#;
        assert_eq!(Work::Request(request).input(), wanted);
        assert_eq!(Work::Command("true".to_owned()).input(), b"");
    }

    #[test]
    fn nothing_of_the_environment_is_handed_on_but_the_agent() {
        let way = Way { agent: Some("/run/agent".into()), ..way() };
        let remote = Remote::with_sockets(&way, &["true"], None);
        let command = remote.command(&Fqdn::new("mw1.test").unwrap());
        let names: Vec<_> = command.get_envs().map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "SSH_AUTH_SOCK"]);
    }
}
