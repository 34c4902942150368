//! Hosts from a real etcd, through both of its APIs, as `--dry-run` shows them and `--status` asks them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use snapbox::cmd::{Command, cargo_bin};
use snapbox::str;
use tempfile::TempDir;
use testbed::etcd::{Driver, Etcd, Store};

/// conftool's configuration for this etcd. As root it is read only from where nobody else can write.
fn configuration(driver: Driver, url: &str) -> TempDir {
    let folder = if nix::unistd::Uid::effective().is_root() { "/run" } else { "/tmp" };
    let folder = tempfile::tempdir_in(folder).unwrap();
    let text = format!("driver: {}\nhosts: [\"{url}\"]\n", driver.name());
    fs::write(folder.path().join("config.yaml"), text).unwrap();
    folder
}

fn dry_run(folder: &TempDir, arguments: &str) -> Command {
    let tool = Command::new(cargo_bin!("rolling-restart")).arg("--dry-run").arg("--config");
    tool.arg(folder.path().join("config.yaml")).args(arguments.split_whitespace())
}

fn fill(store: &Store) {
    for (place, value) in [
        ("php/mw1.test", r#"{"weight": 10, "pooled": "yes", "row": "A"}"#),
        ("php/mw2.test", r#"{"weight": 10, "pooled": "no", "row": "A"}"#),
        ("php/mw3.test", r#"{"weight": 10, "pooled": "inactive", "row": "A"}"#),
        ("php/mw4.test", r#"{"weight": 10, "pooled": "yes", "row": "B"}"#),
        ("nginx/mw4.test", r#"{"weight": 10, "pooled": "yes", "row": "B"}"#),
        ("nginx/mw5.test", r#"{"weight": 10, "pooled": "yes", "row": "B"}"#),
        ("nginx/mw6.test", r#"{"weight": 10"#),
    ] {
        store.put(&format!("/conftool/v1/pools/lab/appserver/{place}"), value).unwrap();
    }
}

#[test]
fn the_hosts_of_a_cluster_come_interleaved_over_their_rows_each_once_and_without_the_inactive() {
    let etcd = Etcd::start().unwrap();
    for driver in [Driver::V2, Driver::V3] {
        let access = etcd.access();
        let folder = configuration(driver, &access.endpoints[0]);
        fill(&Store::new(driver, &access).unwrap());
        dry_run(&folder, "appserver lab --batch 2")
            .assert()
            .success()
            .stdout_eq(str![[r#"
canaries: mw1.test
batch 1: mw4.test mw2.test
batch 2: mw5.test

"#]])
            .stderr_eq(str![[r#"
rolling-restart: warning: left out: an object of 'mw6.test' cannot be read: [..]

"#]]);
        dry_run(&folder, "appserver lab --canaries 0 --service php --batch 9 -q").assert().success().stdout_eq(str![[
            r#"
batch 1: mw1.test mw4.test mw2.test

"#
        ]]);
        dry_run(&folder, "parsoid lab").assert().code(78).stdout_eq("").stderr_eq(str![[r#"
rolling-restart: error: no host: the store has no cluster 'parsoid' in 'lab' (the 'cluster' of a pool's entry in the catalog, not the pool's name)
rolling-restart: error: ended with 78: no host was touched

"#]]);
    }
}

#[test]
fn a_name_that_is_misspelt_is_an_error_that_says_which() {
    let etcd = Etcd::start().unwrap();
    let access = etcd.access();
    let folder = configuration(Driver::V3, &access.endpoints[0]);
    let store = Store::new(Driver::V3, &access).unwrap();
    fill(&store);
    store.put("/conftool/v1/pools/lab/old/php/mw9.test", r#"{"weight": 1, "pooled": "inactive"}"#).unwrap();
    for (arguments, why) in [
        (
            "appserver la",
            "no host: the store has no cluster 'appserver' in 'la' (the 'cluster' of a pool's entry in the catalog, not the pool's name)",
        ),
        (
            "appservers lab",
            "no host: the store has no cluster 'appservers' in 'lab' (the 'cluster' of a pool's entry in the catalog, not the pool's name)",
        ),
        (
            "appserver lab --service php --service fpm",
            "no host: cluster 'appserver' in 'lab' has no object of service 'fpm', but of 'nginx', 'php'",
        ),
        ("old lab", "no host to restart: every one of cluster 'old' in 'lab' is inactive, or cannot be read"),
    ] {
        let wanted =
            format!("rolling-restart: error: {why}\nrolling-restart: error: ended with 78: no host was touched\n");
        dry_run(&folder, arguments).assert().code(78).stdout_eq("").stderr_eq(wanted);
    }
    status(&folder, "appservers lab --json").assert().code(78).stdout_eq(str![[r#"
{"time":"[..]","event":"end","exit_code":78,"signal":null,"hosts":0,"listed":0,"failures":["no host: the store has no cluster 'appservers' in 'lab' (the 'cluster' of a pool's entry in the catalog, not the pool's name)"]}

"#]]);
}

/// `--status`, over hosts that a shell script plays: DIR HOST COMMAND.
fn status(folder: &TempDir, arguments: &str) -> Command {
    let tool = Command::new(cargo_bin!("rolling-restart")).arg("--status").arg("--config");
    let script = folder.path().join("host.sh");
    let tool = tool.arg(folder.path().join("config.yaml")).arg("--rsh").arg(format!("/bin/sh {}", script.display()));
    tool.args(arguments.split_whitespace())
}

const HOST: &str = r#"
answer() {
    echo "{\"exit_code\":$1,\"state\":\"s\",\"host\":\"$host\",\"journal\":$2,\"lock\":{\"state\":\"free\"}}"
    exit "$1"
}
left() {
    echo "{\"state\":\"left\",\"left\":{\"what\":\"$1\",\"host\":\"$host\",\"user\":\"alice\",\"run\":\"4f\",\"since\":\"then\"}}"
}
host=$1
case $host in
    mw2.test) answer 3 "$(left held)" ;;
    mw3.test) echo 'ssh: connect to host mw3.test: No route to host' >&2; exit 255 ;;
    mw5.test) answer 4 "$(left interrupted)" ;;
    *) answer 0 '{"state":"empty","left":null}' ;;
esac
"#;

#[test]
fn those_that_are_not_pooled_are_asked_and_with_all_those_that_are_too() {
    let etcd = Etcd::start().unwrap();
    for driver in [Driver::V2, Driver::V3] {
        let access = etcd.access();
        let folder = configuration(driver, &access.endpoints[0]);
        fs::write(folder.path().join("host.sh"), HOST).unwrap();
        let store = Store::new(driver, &access).unwrap();
        fill(&store);
        status(&folder, "appserver lab")
            .assert()
            .code(3)
            .stdout_eq(str![[r#"
HOST      POOLED        STATE      SINCE  BY     RUN  REASON
mw2.test  php=no        held       then   alice  4f   -
mw3.test  php=inactive  no-answer  -      -      -    ssh: connect to host mw3.test: No route to host

"#]])
            .stderr_eq(str![[r#"
rolling-restart: warning: an object of 'mw6.test' cannot be read: [..]
rolling-restart: asking 2 of 5 hosts
rolling-restart: 2 of 5 hosts are listed: 1 held, 1 no-answer

"#]]);
        status(&folder, "appserver lab --all -q").assert().code(3).stdout_eq(str![[r#"
HOST      POOLED        STATE        SINCE  BY     RUN  REASON
mw2.test  php=no        held         then   alice  4f   -
mw3.test  php=inactive  no-answer    -      -      -    ssh: connect to host mw3.test: No route to host
mw5.test  nginx=yes     interrupted  then   alice  4f   -

"#]]);
        // An object that cannot be read is not as it should be.
        status(&folder, "appserver lab --service nginx").assert().code(1).stdout_eq("").stderr_eq(str![[r#"
rolling-restart: warning: an object of 'mw6.test' cannot be read: [..]
rolling-restart: every one of 2 hosts is pooled

"#]]);
        store.put("/conftool/v1/pools/lab/appserver/nginx/mw6.test", r#"{"weight": 1, "pooled": "yes"}"#).unwrap();
        status(&folder, "appserver lab --service nginx -q").assert().success().stdout_eq("");
    }
}

#[test]
fn a_store_that_does_not_answer_is_69_and_no_host_is_touched() {
    let folder = configuration(Driver::V3, "http://127.0.0.1:1");
    dry_run(&folder, "appserver lab").assert().code(69).stdout_eq("").stderr_eq(str![[r#"
rolling-restart: error: cannot find the hosts: cannot list '/conftool/v1/pools/lab/appserver': [..]
rolling-restart: error: ended with 69: no host was touched

"#]]);
}

#[test]
fn where_haproxy_keeps_the_pools_the_hosts_have_to_be_named() {
    let folder = configuration(Driver::V2, "http://127.0.0.1:1");
    fs::write(folder.path().join("config.yaml"), "driver: haproxy\n").unwrap();
    dry_run(&folder, "appserver lab").assert().code(78).stderr_eq(str![[r#"
rolling-restart: error: '[..]/config.yaml': 'driver: haproxy' keeps no list of a cluster's hosts: name them with --hosts FILE
rolling-restart: error: ended with 78: no host was touched

"#]]);
}
