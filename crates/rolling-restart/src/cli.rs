//! What can be typed. What is not typed may stand in the file (see `file`); what stands in neither has its default in `settings`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{ArgAction, Parser};
use host::duration::{duration, positive};
use host::words::{self, reason};
use restart_core::{Share, Tag};

/// What is about a restart, and so has no meaning where nothing is restarted.
const RESTARTS: [&str; 15] = [
    "batch",
    "canaries",
    "gate",
    "gate_timeout",
    "pause",
    "max_failures",
    "max_unreachable",
    "retries",
    "retry_delay",
    "command",
    "force",
    "reload",
    "since",
    "reason",
    "dry_run",
];

#[derive(Debug, Parser)]
#[command(
    name = "rolling-restart",
    version,
    about = "Restart PHP-FPM on every host of a cluster, some at a time, over ssh",
    override_usage = "rolling-restart [OPTIONS] CLUSTER DC\n       rolling-restart [OPTIONS] --hosts FILE\n       \
                      rolling-restart --status [OPTIONS] CLUSTER DC",
    after_help = "Exit status: 0 every host is done; 1 hosts failed; 2 usage; 3 a host was left depooled; 69 hosts or the store \
                  cannot be reached; 75 hosts said \"later\"; 77 not permitted; 78 configuration. With --status: 3 a host is held; \
                  4, 5 a run died on a host, which is perhaps depooled.\nSee rolling-restart(8).",
    max_term_width = 100
)]
pub struct Cli {
    /// The cluster, as in conftool's objects
    #[arg(value_name = "CLUSTER", required_unless_present = "hosts", requires = "dc")]
    pub cluster: Option<Tag>,

    /// The data centre, likewise
    #[arg(value_name = "DC")]
    pub dc: Option<Tag>,

    /// Only hosts that have an object of this service; may be given several times
    #[arg(long, value_name = "SERVICE", action = ArgAction::Append, conflicts_with = "hosts")]
    pub service: Vec<Tag>,

    /// The hosts of this file, one a line, in its order, in place of those of the store; '-' is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cluster", "dc"])]
    pub hosts: Option<PathBuf>,

    /// So many hosts at once, at most, a share rounded up [default: 10%]
    #[arg(long, value_name = "N|N%", value_parser = share)]
    pub batch: Option<Share>,

    /// So many hosts first, which all have to end well [default: 1; with --force none]
    #[arg(long, value_name = "N", conflicts_with = "force")]
    pub canaries: Option<u32>,

    /// After the canaries and after each batch, go on only if this ends with 0; it is given to /bin/sh
    #[arg(long, value_name = "COMMAND", value_parser = for_a_shell, conflicts_with = "force")]
    pub gate: Option<String>,

    /// How long the gate may take; no answer is a no [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub gate_timeout: Option<Duration>,

    /// After the canaries and after each batch, start nothing for so long [default: 0]
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "force")]
    pub pause: Option<Duration>,

    /// Start no other host once so many have failed [default: 1; with --force 10%]
    #[arg(long, value_name = "N|N%", value_parser = share)]
    pub max_failures: Option<Share>,

    /// Start no other host once so many could not be reached [default: 10%]
    #[arg(long, value_name = "N|N%", value_parser = share)]
    pub max_unreachable: Option<Share>,

    /// How often a host that says "later" (75: no slot, too few left) is tried again [default: 3]
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,

    /// How long after [default: 30]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub retry_delay: Option<Duration>,

    /// How long a host may take before it counts as failed [default: 30m; with --status 1m]
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub host_timeout: Option<Duration>,

    /// How long a connection may take to be made [default: 10]
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub connect_timeout: Option<Duration>,

    /// Log in as this user
    #[arg(long, value_name = "USER", value_parser = words::user)]
    pub user: Option<String>,

    /// Log in with this key and no other
    #[arg(long, value_name = "FILE", value_parser = absolute, conflicts_with = "rsh")]
    pub key: Option<PathBuf>,

    /// Let ssh use the agent behind this socket [default: SSH_AUTH_SOCK; for root none]
    #[arg(long, value_name = "SOCKET", value_parser = absolute)]
    pub agent: Option<PathBuf>,

    /// Run this in place of ssh: words, no shell; host and remote command are added
    #[arg(long, value_name = "COMMAND", value_parser = program)]
    pub rsh: Option<String>,

    /// Run this on each host, by the user's shell there, in place of restart-php-fpm
    #[arg(long, value_name = "COMMAND", value_parser = command, conflicts_with_all = ["force", "reload", "since", "reason"])]
    pub command: Option<String>,

    /// Emergency: restart at once, whatever the pools; no canary, no gate; requests in flight die
    #[arg(long)]
    pub force: bool,

    /// Reload in place of restarting
    #[arg(long)]
    pub reload: bool,

    /// Resume: leave hosts alone that were restarted after this time: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = words::time, conflicts_with = "force")]
    pub since: Option<SystemTime>,

    /// Why this is done; for the logs of the hosts
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,

    /// conftool's configuration [default: /etc/conftool/config.yaml]
    #[arg(long, value_name = "PATH", value_parser = absolute, conflicts_with = "hosts")]
    pub config: Option<PathBuf>,

    /// Only say which hosts are not pooled, and ask each of them who took it out, why and since when; restart nothing
    #[arg(long, conflicts_with_all = RESTARTS)]
    pub status: bool,

    /// With --status: ask every host, also those that are pooled
    #[arg(long, requires = "status", conflicts_with = "hosts")]
    pub all: bool,

    /// Print the batches, contact no host
    #[arg(long)]
    pub dry_run: bool,

    /// Print events on standard output, one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// One line a host, also on a terminal
    #[arg(long)]
    pub no_progress: bool,

    /// Say more; twice: what the libraries say, too
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Say only warnings and errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// Reads a number of hosts, or a share; none at all makes no sense.
pub fn share(text: &str) -> Result<Share, String> {
    match text.parse()? {
        Share::Count(0) | Share::Percent(0) => Err("must be more than zero".to_owned()),
        share => Ok(share),
    }
}

/// Reads a path.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("not an absolute path".to_owned()) }
}

/// Reads a command of words.
pub fn program(text: &str) -> Result<String, String> {
    match text.split_whitespace().next() {
        None => Err("no command".to_owned()),
        Some(first) if first.starts_with('-') => Err("not a command".to_owned()),
        Some(_) => command(text),
    }
}

/// Reads what a shell is to run. None at all, as of a variable that is not set, would let everything pass.
pub fn for_a_shell(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("no command".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads what a shell is to run, in one line.
fn command(text: &str) -> Result<String, String> {
    let text = &for_a_shell(text)?;
    if text.chars().any(char::is_control) {
        return Err("has a control character or more than one line".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["rolling-restart"].into_iter().chain(arguments.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for arguments in [
            "",
            "appserver",
            "appserver eqiad stray",
            "app/server eqiad",
            "--hosts f appserver eqiad",
            "--hosts f --service php",
            "a b --batch 0",
            "a b --batch 0%",
            "a b --batch 101%",
            "a b --max-failures 0",
            "a b --max-unreachable 0",
            "a b --force --canaries 1",
            "a b --force --gate true",
            "a b --force --pause 1",
            "a b --force --since @1",
            "a b --since yesterday",
            "a b --user -oProxyCommand=x",
            "a b --user x;y",
            "a b --key key",
            "a b --key /k --rsh rsh",
            "a b --rsh -e",
            "a b --gate=",
            "a b --command=",
            "a b --command true --force",
            "a b --command true --since @1",
            "a b --host-timeout 0",
            "a b --agent agent",
            "a b --status --force",
            "a b --status --batch 1",
            "a b --status --reason x",
            "a b --status --dry-run",
            "a b --all",
            "--hosts f --status --all",
            "a b -q -v",
        ] {
            assert!(parse(arguments).is_err(), "'{arguments}' passed");
        }
        for arguments in [
            "appserver eqiad",
            "--hosts -",
            "a b --service php --service nginx",
            "a b --force --batch 100% --max-failures 5",
            "a b --since 2026-11-23T10:00:00Z --gate true --canaries 0",
            "a b --rsh /usr/bin/rsh --user mwdeploy",
            "a b --status --all --json --service php --host-timeout 5",
            "--hosts - --status --agent /run/agent",
        ] {
            assert!(parse(arguments).is_ok(), "'{arguments}' did not pass");
        }
    }
}
