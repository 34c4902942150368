//! What the caller sees of the command line, word for word: help, refusals, exit codes. Nothing here gets as far as a host.

use snapbox::cmd::{Command, cargo_bin};
use snapbox::str;

fn tool(arguments: &[&str]) -> Command {
    // What the caller's environment says must not matter, so the tests run with one that would.
    let tool = Command::new(cargo_bin!("rolling-restart")).env("RUST_LOG", "trace").env("COLUMNS", "40");
    tool.args(arguments)
}

#[test]
fn help() {
    tool(&["--help"])
        .assert()
        .success()
        .stdout_eq(str![[r#"
Restart PHP-FPM on every host of a cluster, some at a time, over ssh

Usage: rolling-restart [OPTIONS] CLUSTER DC
       rolling-restart [OPTIONS] --hosts FILE
       rolling-restart --status [OPTIONS] CLUSTER DC

Arguments:
  [CLUSTER]  The cluster, as in conftool's objects
  [DC]       The data centre, likewise

Options:
      --service <SERVICE>       Only hosts that have an object of this service; may be given several
                                times
      --hosts <FILE>            The hosts of this file, one a line, in its order, in place of those
                                of the store; '-' is standard input
      --batch <N|N%>            So many hosts at once, at most, a share rounded up [default: 10%]
      --canaries <N>            So many hosts first, which all have to end well [default: 1; with
                                --force none]
      --gate <COMMAND>          After the canaries and after each batch, go on only if this ends
                                with 0; it is given to /bin/sh
      --gate-timeout <TIME>     How long the gate may take; no answer is a no [default: 5m]
      --pause <TIME>            After the canaries and after each batch, start nothing for so long
                                [default: 0]
      --max-failures <N|N%>     Start no other host once so many have failed [default: 1; with
                                --force 10%]
      --max-unreachable <N|N%>  Start no other host once so many could not be reached [default: 10%]
      --retries <N>             How often a host that says "later" (75: no slot, too few left) is
                                tried again [default: 3]
      --retry-delay <TIME>      How long after [default: 30]
      --host-timeout <TIME>     How long a host may take before it counts as failed [default: 30m;
                                with --status 1m]
      --connect-timeout <TIME>  How long a connection may take to be made [default: 10]
      --user <USER>             Log in as this user
      --key <FILE>              Log in with this key and no other
      --agent <SOCKET>          Let ssh use the agent behind this socket [default: SSH_AUTH_SOCK;
                                for root none]
      --rsh <COMMAND>           Run this in place of ssh: words, no shell; host and remote command
                                are added
      --command <COMMAND>       Run this on each host, by the user's shell there, in place of
                                restart-php-fpm
      --force                   Emergency: restart at once, whatever the pools; no canary, no gate;
                                requests in flight die
      --reload                  Reload in place of restarting
      --since <TIME>            Resume: leave hosts alone that were restarted after this time: RFC
                                3339, or seconds since 1970
      --reason <TEXT>           Why this is done; for the logs of the hosts
      --config <PATH>           conftool's configuration [default: /etc/conftool/config.yaml]
      --status                  Only say which hosts are not pooled, and ask each of them who took
                                it out, why and since when; restart nothing
      --all                     With --status: ask every host, also those that are pooled
      --dry-run                 Print the batches, contact no host
      --json                    Print events on standard output, one JSON object a line
      --no-progress             One line a host, also on a terminal
  -v, --verbose...              Say more; twice: what the libraries say, too
  -q, --quiet                   Say only warnings and errors
  -h, --help                    Print help
  -V, --version                 Print version

Exit status: 0 every host is done; 1 hosts failed; 2 usage; 3 a host was left depooled; 69 hosts or
the store cannot be reached; 75 hosts said "later"; 77 not permitted; 78 configuration. With
--status: 3 a host is held; 4, 5 a run died on a host, which is perhaps depooled.
See rolling-restart(8).

"#]])
        .stderr_eq("");
}

#[test]
fn version() {
    tool(&["--version"]).assert().success().stdout_eq(str![[r#"
rolling-restart 0.1.0

"#]]);
}

#[test]
fn without_arguments_it_says_what_is_missing() {
    tool(&[])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <CLUSTER>

Usage: rolling-restart [OPTIONS] CLUSTER DC
       rolling-restart [OPTIONS] --hosts FILE
       rolling-restart --status [OPTIONS] CLUSTER DC

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn a_cluster_needs_a_data_centre() {
    tool(&["appserver"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <DC>

Usage: rolling-restart [OPTIONS] CLUSTER DC
       rolling-restart [OPTIONS] --hosts FILE
       rolling-restart --status [OPTIONS] CLUSTER DC

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn an_emergency_has_no_gate() {
    tool(&["--force", "--gate", "true", "appserver", "eqiad"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the argument '--force' cannot be used with '--gate <COMMAND>'

Usage: rolling-restart [OPTIONS] CLUSTER DC
       rolling-restart [OPTIONS] --hosts FILE
       rolling-restart --status [OPTIONS] CLUSTER DC

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn a_store_that_is_not_configured_is_78_and_no_host_is_touched() {
    tool(&["--config", "/nonexistent/config.yaml", "appserver", "eqiad"])
        .assert()
        .code(78)
        .stderr_eq(str![[r#"
rolling-restart: error: '/nonexistent/config.yaml' does not exist; what it has to say is in safe-service-restart-files(5)
rolling-restart: error: ended with 78: no host was touched

"#]])
        .stdout_eq("");
}

/// ssh would pass over it, and log in with whatever key the user has.
#[test]
fn a_key_that_is_not_there_is_78_and_no_host_is_touched() {
    for what in [&["appserver", "eqiad"][..], &["--status", "appserver", "eqiad"]] {
        tool(&[&["--key", "/nonexistent/key"], what].concat())
            .assert()
            .code(78)
            .stderr_eq(str![[r#"
rolling-restart: error: cannot log in with the key '/nonexistent/key': No such file or directory (os error 2)
rolling-restart: error: ended with 78: no host was touched

"#]])
            .stdout_eq("");
    }
}

#[test]
fn a_list_without_a_host_is_78() {
    tool(&["--hosts", "-"])
        .stdin("# nobody\n")
        .assert()
        .code(78)
        .stderr_eq(str![[r#"
rolling-restart: error: no host: standard input names none
rolling-restart: error: ended with 78: no host was touched

"#]])
        .stdout_eq("");
}

#[test]
fn what_is_no_host_is_named_with_its_line() {
    tool(&["--hosts", "-", "--json"])
        .stdin("mw1.test\n-oProxyCommand=reboot\n")
        .assert()
        .code(78)
        .stderr_eq(str![[r#"
rolling-restart: error: cannot use the hosts of standard input: line 2: '-oProxyCommand=reboot' is not a fully qualified host name: it has no dot
rolling-restart: error: ended with 78: no host was touched

"#]])
        .stdout_eq(str![[r#"
{"time":"[..]","run":"","event":"end","exit_code":78,"signal":null,"seconds":0.0,"done":[],"skipped":[],"failed":[],"unreachable":[],"busy":[],"still_running":[],"never_tried":[],"perhaps_running":[],"perhaps_depooled":[],"left_depooled":[],"remaining":[],"resume":null,"failures":["cannot use the hosts of standard input: line 2: '-oProxyCommand=reboot' is not a fully qualified host name: it has no dot"]}

"#]]);
}

#[test]
fn hosts_of_standard_input_come_in_their_order() {
    tool(&["--hosts", "-", "--dry-run", "--batch", "2"])
        .stdin("mw3.test\nmw1.test\nmw2.test\nmw3.test\nMW1.test\n")
        .assert()
        .success()
        .stdout_eq(str![[r#"
canaries: mw3.test
batch 1: mw1.test mw2.test

"#]])
        .stderr_eq("");
}

#[test]
fn a_time_in_milliseconds_is_refused_before_any_host_hears_of_it() {
    tool(&["--hosts", "-", "--since", "@1795000000000"])
        .stdin("mw1.test\n")
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
rolling-restart: error: --since is in the future: it is in seconds since 1970, not milliseconds, or RFC 3339 in UTC
rolling-restart: error: ended with 2: no host was touched

"#]])
        .stdout_eq("");
}
