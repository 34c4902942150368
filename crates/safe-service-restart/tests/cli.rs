//! What the caller sees of the command line, word for word: help, refusals, exit codes. Nothing here gets as far as a store,
//! a load balancer or a unit; what happens there is tested on booted hosts (`tests/system`).

use snapbox::cmd::{Command, cargo_bin};
use snapbox::str;

fn tool(arguments: &[&str]) -> Command {
    // What the caller's environment says must not matter, so the tests run with one that would.
    let tool = Command::new(cargo_bin!("safe-service-restart")).env("RUST_LOG", "trace").env("COLUMNS", "40");
    tool.args(arguments)
}

#[test]
fn help() {
    tool(&["--help"])
        .assert()
        .success()
        .stdout_eq(str![[r#"
Restart services without losing a request: leave the load-balancer pools first, come back after

Usage: safe-service-restart [OPTIONS] --pools POOL... --services UNIT...
       safe-service-restart [OPTIONS] --pools POOL... --depool|--pool
       safe-service-restart [OPTIONS] --force --services UNIT...
       safe-service-restart [OPTIONS] --recover|--status

Options:
      --pools <POOL>...            Pools to leave and to come back to, by their names in the catalog
      --services <UNIT>...         Units to restart, in this order, with or without '.service'
      --pool                       Only put the host back wherever it is 'no', and see it pooled
      --depool                     Only take the host out, and see it not pooled
      --recover                    Only finish what a run left that died on this host
      --status                     Only show how things stand here: pools, load balancers, units,
                                   lock, slots, and what a run left; change nothing
      --force                      Emergency: restart at once, whatever the pools; requests in
                                   flight die
      --reload                     Reload the units instead of restarting them
      --dry-run                    Read everything, print what would be done and written, change
                                   nothing
      --retries <N>                The time allowed for load balancers to follow is this many times
                                   --wait [default: 5]
      --wait <TIME>                The longest pause between two questions to one load balancer
                                   [default: 3]
      --timeout <TIME>             How long one question to a load balancer may take as a whole
                                   [default: 5]
      --lb-timeout <TIME>          How long load balancers may take to follow each change [default:
                                   --retries times --wait]
      --lb-quorum <N>              How many load balancers of each pool have to confirm; the others
                                   may be unreachable, never pooled [default: all]
      --grace-period <TIME>        How long requests in flight get to end, once no load balancer
                                   sends any more [default: 3]
      --drain-timeout <TIME>       How long as a whole, that time included, while requests are seen
                                   in flight [default: 0]
      --require-drained            Do not restart while requests are in flight: put the host back if
                                   they have not ended in time
      --ready-timeout <TIME>       How long a unit that runs may take until it serves [default: 30]
      --settle <TIME>              How long a unit has to stay up to count as restarted [default:
                                   500ms, with --force 0]
      --max-concurrency <N|N%>     How many hosts of these pools may be restarted at once, or which
                                   share of the smallest pool ('10%'); 0 is no limit [default: 0]
      --slots <SERVICE>            Who counts them: poolcounter if its file exists, else etcd,
                                   unless named here [possible values: poolcounter, etcd]
      --slot-timeout <TIME>        How long to wait for a slot [default: 10m, with --force 60s]
      --poolcounter-config <FILE>  poolcounter's list of daemons [default:
                                   /etc/poolcounter-backends.yaml]
      --min-pooled <N|N%>          How many hosts of each pool have to stay pooled, or which share
                                   of it, unless the catalog says otherwise [default: 50%]
      --lock-timeout <TIME>        How long to wait for another run on this host to end [default:
                                   10m]
      --host <FQDN>                This host's name in the pools [default: its fully qualified name]
      --dc <NAME>                  The data centre to look pools up in [default: the content of
                                   /etc/wikimedia-cluster]
      --catalog <FILE>             The catalog of pools [default: /etc/conftool/local_services.yaml]
      --config <FILE>              conftool's configuration [default: /etc/conftool/config.yaml]
      --schema <FILE>              conftool's schema; accepted for the sake of old callers, never
                                   read [default: /etc/conftool/schema.yaml]
      --object-type <TYPE>         The kind of conftool object; only 'node' can be handled [default:
                                   node] [possible values: node]
      --reason <TEXT>              Why this is done; for the log and the report
      --fleet-run <ID>             The run of a fleet tool that this one is a part of; for the log
                                   and the report
      --json                       Print one JSON object on standard output at the end
      --textfile <PATH>            With --status or --recover: write what was seen to this file as
                                   well, as metrics for Prometheus
  -v, --verbose...                 Say more; twice: what the libraries say, too
  -q, --quiet                      Say only warnings and errors
      --debug                      The original's name for --verbose
  -h, --help                       Print help
  -V, --version                    Print version

Exit status: 0 done; 1 failed, pools as found; 2 usage; 3 restart failed, host left depooled; 4
restarted, repool not confirmed; 5 not restarted, perhaps depooled; 69 unreachable; 75 try later; 77
not permitted; 78 configuration.
See safe-service-restart(8).

"#]])
        .stderr_eq("");
}

#[test]
fn version() {
    tool(&["--version"]).assert().success().stdout_eq(str![[r#"
safe-service-restart 0.1.0

"#]]);
}

#[test]
fn without_arguments_it_says_what_is_missing() {
    tool(&[])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <--services <UNIT>...|--pool|--depool|--recover|--status>

Usage: safe-service-restart [OPTIONS] --pools POOL... --services UNIT...
       safe-service-restart [OPTIONS] --pools POOL... --depool|--pool
       safe-service-restart [OPTIONS] --force --services UNIT...
       safe-service-restart [OPTIONS] --recover|--status

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn a_name_that_is_an_option_is_no_unit() {
    tool(&["--pools", "appservers", "--services=-H"]).assert().code(2).stderr_eq(str![[r#"
error: invalid value '-H' for '--services <UNIT>...': '-H' is not a service unit: it cannot begin with '-', '.' or '@'

For more information, try '--help'.

"#]]);
}

#[test]
fn a_pool_is_one_word() {
    tool(&["--pools", "../appservers", "--depool"]).assert().code(2).stderr_eq(str![[r#"
error: invalid value '../appservers' for '--pools <POOL>...': '../appservers' is not a pool name: it cannot begin with '-' or '.'

For more information, try '--help'.

"#]]);
}

#[test]
fn only_nodes_can_be_handled() {
    let arguments = ["--pools", "appservers", "--services", "php8.2-fpm", "--object-type", "mwconfig"];
    tool(&arguments).assert().code(2).stderr_eq(str![[r#"
error: invalid value 'mwconfig' for '--object-type <TYPE>'
  [possible values: node]

For more information, try '--help'.

"#]]);
}

#[test]
fn a_time_out_of_zero_is_refused() {
    tool(&["--pools", "appservers", "--depool", "--timeout", "0"]).assert().code(2).stderr_eq(str![[r#"
error: invalid value '0' for '--timeout <TIME>': must be more than zero

For more information, try '--help'.

"#]]);
}

#[test]
fn force_goes_with_neither_half() {
    tool(&["--pools", "appservers", "--depool", "--force"]).assert().code(2).stderr_eq(str![[r#"
error: the argument '--depool' cannot be used with '--force'

Usage: safe-service-restart [OPTIONS] --pools POOL... --services UNIT...
       safe-service-restart [OPTIONS] --pools POOL... --depool|--pool
       safe-service-restart [OPTIONS] --force --services UNIT...
       safe-service-restart [OPTIONS] --recover|--status

For more information, try '--help'.

"#]]);
}

#[test]
fn a_catalog_that_is_missing_is_named() {
    let arguments =
        ["--dry-run", "--pools", "appservers", "--services", "php8.2-fpm", "--catalog", "/nonexistent/c.yaml"];
    tool(&arguments)
        .assert()
        .code(78)
        .stderr_eq(str![[r#"
safe-service-restart: error: cannot find the full name of this host: 'vm' stands for 'vm', 'localhost', 'vm'; name it by --host or 'host'
safe-service-restart: error: ended with 78: nothing was changed

"#]])
        .stdout_eq("");
}

#[test]
fn a_refusal_is_a_report_too() {
    let arguments = ["--dry-run", "--json", "-q", "--pools", "a", "--depool", "--catalog", "/nonexistent/c.yaml"];
    tool(&arguments).assert().code(78).stdout_eq(str![[r#"
{"exit_code":78,"tool":"safe-service-restart","version":"0.1.0","action":"depool","force":false,"dry_run":true,"reason":null,"user":null,"fleet_run":null,"host":null,"data_centre":null,"services":"untouched","state":"nothing was changed","pools":[],"units":[],"in_flight":null,"phases":[],"notes":[],"failures":["cannot find the full name of this host: 'vm' stands for 'vm', 'localhost', 'vm'; name it by --host or 'host'"],"signal":null}

"#]]);
}
