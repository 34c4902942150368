//! Hosts from a real etcd, through both of its APIs, as `--dry-run` shows them.
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
rolling-restart: error: no host to restart: the store has none for cluster 'parsoid' in 'lab' that is not inactive
rolling-restart: error: ended with 78: no host was touched

"#]]);
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
