//! What the caller sees of the command line, word for word: help, refusals, exit codes. Nothing here gets as far as a unit; what
//! happens there is tested on booted hosts (`real_host`).

use snapbox::cmd::{Command, cargo_bin};
use snapbox::str;

fn tool(arguments: &[&str]) -> Command {
    // What the caller's environment says must not matter, so the tests run with one that would.
    let tool = Command::new(cargo_bin!("check-and-restart-php")).env("RUST_LOG", "trace").env("COLUMNS", "40");
    tool.args(arguments)
}

#[test]
fn help() {
    tool(&["--help"])
        .assert()
        .success()
        .stdout_eq(str![[r#"
Restart a PHP-FPM whose opcache runs full, without losing a request

Usage: check-and-restart-php [OPTIONS] SERVICE MIN_OPCACHE_FREE_MB
       check-and-restart-php [OPTIONS] --all MIN_OPCACHE_FREE_MB

Arguments:
  <SERVICE>              The unit of PHP-FPM, with or without '.service'
  [MIN_OPCACHE_FREE_MB]  Restart when so many megabytes of opcache are free, or fewer; 0 does
                         nothing at all

Options:
      --all
          Every enabled php*-fpm unit, one after the other
      --check
          Only look, as a Nagios plugin: one line, exit status 0, 1, 2 or 3; restart and clear
          nothing
      --dry-run
          Look, and say what would be done; change nothing
      --force
          Restart at once, whatever the pools; requests in flight die
      --min-free-keys <N>
          Restart when so many keys of opcache are free, or fewer [default: 5000]
      --max-apcu-fragmentation <PERCENT>
          Clear APCu when so much of its free memory is in small pieces, or more [default: 95]
      --cache-full <WHAT>
          What to do when opcache is full and takes nothing new [default: restart] [possible values:
          restart, warn, 0]
      --max-wasted <PERCENT>
          Warn when so much of opcache's memory is wasted, or more [default: 5]
      --max-interned-strings <PERCENT>
          Warn when so much of the memory for interned strings is in use, or more [default: 95]
      --max-self-restarts <N>
          Warn when opcache has restarted itself so often, or more often [default: 1]
      --min-hit-rate <PERCENT>
          A hit rate below this is critical; it never restarts [default: 99.85]
      --warn-hit-rate <PERCENT>
          Warn when the hit rate is below this [default: 99.99]
      --warn-free <MB>
          Warn when so many megabytes of opcache are free, or fewer [default: 0]
      --min-interval <TIME>
          How long after one restart the next may come; 0 is at once [default: 1h]
      --admin-site
          Ask the admin site on this host, as php7adm does, and not PHP-FPM itself
      --timeout <TIME>
          How long one question may take [default: 5]
      --history <PATH>
          Keep readings in this file (*.history), and say when opcache will be full
      --textfile <PATH>
          Write what was seen to this file (*.prom) as well, as metrics for Prometheus
      --json
          Print one JSON object on standard output at the end
  -v, --verbose...
          Say more; twice: what the libraries say, too
  -q, --quiet
          Say only warnings and errors
  -h, --help
          Print help
  -V, --version
          Print version

Exit status: 0 done, or nothing to do; 1 failed; 2 usage; 3, 4 and 5 as restart-php-fpm; 69 figures
cannot be read; 75 try later; 77 not permitted; 78 configuration. With --check: 0 OK; 1 WARNING; 2
CRITICAL; 3 UNKNOWN.
See check-and-restart-php(8).

"#]])
        .stderr_eq("");
}

#[test]
fn version() {
    tool(&["--version"]).assert().success().stdout_eq(str![[r#"
check-and-restart-php 0.1.0

"#]]);
}

#[test]
fn without_arguments_it_says_what_is_missing() {
    tool(&[])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <SERVICE>
  <MIN_OPCACHE_FREE_MB>

Usage: check-and-restart-php [OPTIONS] SERVICE MIN_OPCACHE_FREE_MB
       check-and-restart-php [OPTIONS] --all MIN_OPCACHE_FREE_MB

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn a_unit_without_a_limit_is_refused() {
    tool(&["php8.2-fpm"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <MIN_OPCACHE_FREE_MB>

Usage: check-and-restart-php [OPTIONS] SERVICE MIN_OPCACHE_FREE_MB
       check-and-restart-php [OPTIONS] --all MIN_OPCACHE_FREE_MB

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn a_limit_without_a_unit_is_refused() {
    tool(&["200"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <MIN_OPCACHE_FREE_MB>

Usage: check-and-restart-php [OPTIONS] SERVICE MIN_OPCACHE_FREE_MB
       check-and-restart-php [OPTIONS] --all MIN_OPCACHE_FREE_MB

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn a_unit_beside_all_is_refused() {
    tool(&["--all", "php8.2-fpm", "200"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: the argument '--all' cannot be used with '<SERVICE>'

Usage: check-and-restart-php [OPTIONS] SERVICE MIN_OPCACHE_FREE_MB
       check-and-restart-php [OPTIONS] --all MIN_OPCACHE_FREE_MB

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn no_file_but_ones_of_its_own_kind_can_be_replaced() {
    tool(&["php8.2-fpm", "200", "--textfile", "/etc/shadow"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: invalid value '/etc/shadow' for '--textfile <PATH>': not an absolute path that ends in '.prom'

For more information, try '--help'.

"#]])
        .stdout_eq("");
    tool(&["php8.2-fpm", "200", "--history", "/etc/cron.d/x"])
        .assert()
        .code(2)
        .stderr_eq(str![[r#"
error: invalid value '/etc/cron.d/x' for '--history <PATH>': not an absolute path that ends in '.history'

For more information, try '--help'.

"#]])
        .stdout_eq("");
}

#[test]
fn a_monitor_gets_a_line_and_its_own_code_for_a_command_line_that_cannot_be_read() {
    tool(&["--check", "php8.2-fpm", "--no-such"])
        .assert()
        .code(3)
        .stdout_eq(str![[r#"
UNKNOWN: unexpected argument '--no-such' found

"#]])
        .stderr_eq("");
    tool(&["--check", "--json", "php8.2-fpm", "1"])
        .assert()
        .code(3)
        .stdout_eq(str![[r#"
UNKNOWN: the argument '--check' cannot be used with '--json'

"#]])
        .stderr_eq("");
    tool(&["--check"])
        .assert()
        .code(3)
        .stdout_eq(str![[r#"
UNKNOWN: the following required arguments were not provided: <SERVICE> <MIN_OPCACHE_FREE_MB>

"#]])
        .stderr_eq("");
}

#[test]
fn a_limit_of_0_does_nothing_at_all() {
    tool(&["php8.2-fpm", "0"]).assert().success().stdout_eq("").stderr_eq(str![[r#"
check-and-restart-php: nothing is done: the limit is 0

"#]]);
    tool(&["-q", "--json", "php8.2-fpm", "0"]).assert().success().stdout_eq(str![[r#"
{"exit_code":0,"tool":"check-and-restart-php","version":"0.1.0","force":false,"dry_run":false,"user":null,"level":"ok","units":[],"failures":[]}

"#]]).stderr_eq("");
}
