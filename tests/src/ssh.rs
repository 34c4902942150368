//! Hosts that can be logged in to: sshd on the address of each, with a host key of its own, and a user who comes from a deployment
//! host with a key that all of them accept. Nothing is asked and nothing is taken on trust: the deployment host knows each host's
//! key beforehand, in `/etc/ssh/ssh_known_hosts`, as Puppet sees to in a fleet.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::{self, Host, Output, Running};

/// Who deploys, and whom the shipped rule of sudo is for.
pub const USER: &str = "mwdeploy";

/// A user, a key and a start of sshd, on a machine that has just booted ten hosts.
const LIMIT: Duration = Duration::from_secs(60);

/// On the deployment host: the user with a key of theirs, which is printed.
const MAKE_USER: &str = r#"
useradd --create-home --shell /bin/bash "$1"
install --directory --mode=700 --owner="$1" --group="$1" "/home/$1/.ssh"
setpriv --reuid="$1" --regid="$1" --init-groups -- ssh-keygen -q -t ed25519 -N '' -f "/home/$1/.ssh/id_ed25519"
cat "/home/$1/.ssh/id_ed25519.pub"
"#;

/// On each other host: the same user, whom this key lets in, and a host key of its own, which is printed.
const LET_IN: &str = r#"
useradd --create-home --shell /bin/bash "$1"
install --directory --mode=700 --owner="$1" --group="$1" "/home/$1/.ssh"
echo "$2" >"/home/$1/.ssh/authorized_keys"
rm /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
systemctl --quiet enable --now ssh
cat /etc/ssh/ssh_host_ed25519_key.pub
"#;

/// A host on which sshd will listen on the host's own address, and on no other: all hosts share the machine's network.
#[must_use]
pub fn listening(host: host::Builder) -> host::Builder {
    let address = format!("ListenAddress {}\n", host.address());
    host.file("/etc/ssh/sshd_config.d/testbed.conf", &address)
}

/// Makes the user on all of them, starts sshd where it is [`listening`], and lets the user in who comes from the deployment host.
pub fn open(deployment: &Host, hosts: &[Host]) -> Result<()> {
    let key = deployment.exec(&["sh", "-ec", MAKE_USER, "sh", USER])?.success()?;
    let opening = |host: &Host| host.spawn(&["sh", "-ec", LET_IN, "sh", USER, key.trim_end()]);
    let opening = hosts.iter().map(opening).collect::<Result<Vec<_>>>()?;
    let mut known = String::new();
    for (host, opening) in hosts.iter().zip(opening) {
        let key = opening.wait(LIMIT)?.success()?;
        writeln!(known, "{},{} {}", host.name(), host.address(), key.trim_end())?;
    }
    deployment.write("/etc/ssh/ssh_known_hosts", &known).context("cannot make the hosts known")
}

/// Starts a command on the deployment host as that user.
pub fn start(deployment: &Host, command: &[&str]) -> Result<Running> {
    let home = format!("HOME=/home/{USER}");
    let names = [format!("USER={USER}"), format!("LOGNAME={USER}")];
    let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
    // Each becomes the next: signals go to the command itself.
    let become_them = ["env", &home, &names[0], &names[1], "setpriv", &user, &group, "--init-groups", "--"];
    deployment.spawn(&[&become_them, command].concat())
}

/// Runs a command there and waits for its end, for so long at most.
pub fn run(deployment: &Host, command: &[&str], limit: Duration) -> Result<Output> {
    start(deployment, command)?.wait(limit)
}
