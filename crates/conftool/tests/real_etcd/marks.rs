//! Whose write was it, asked by another process than the one that wrote, which has died.

use restart_core::{Fate, Node, PoolStore, Pooled, Write};

use crate::etcd::{Api, Etcd};
use crate::fixture::{DEPOOLED, Files, Opened, POOLED, key};

const HOST: &str = "mw1.example";
const MARK: &str = "/conftool/v1/safe-service-restart/writes/lab/appserver/php/mw1.example";

/// An object, and a run that is about to depool it and has told its journal.
struct Scene {
    api: Api,
    etcd: Etcd,
    first: Opened,
    write: Write,
}

impl Scene {
    fn new(api: Api) -> Self {
        let etcd = Etcd::single();
        etcd.set(api, &key(HOST), POOLED);
        let mut first = Self::opened(api, &etcd, "run-1");
        let found = first.node(HOST);
        let write = first.store.prepare(&found, Pooled::No).unwrap();
        assert_eq!(write.run, "run-1");
        Self { api, etcd, first, write }
    }

    fn opened(api: Api, etcd: &Etcd, run: &str) -> Opened {
        Files::new(api, &[&etcd.members[0].url]).open_as(run, None)
    }

    fn set(&self, value: &str) {
        self.etcd.set(self.api, &key(HOST), value);
    }

    /// What the next run makes of the write that the journal tells of.
    fn fate(&self) -> Fate {
        let journalled: Write = serde_json::from_str(&serde_json::to_string(&self.write).unwrap()).unwrap();
        Self::opened(self.api, &self.etcd, "run-2").store.fate(&journalled).unwrap()
    }

    fn made(&mut self) -> Node {
        self.first.store.write(&self.write).unwrap()
    }

    fn compact(&self) {
        let status = self.etcd.ctl(Api::V3, &["endpoint", "status", "--write-out=json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = status[0]["Status"]["header"]["revision"].to_string();
        self.etcd.ctl(Api::V3, &["compact", &revision]);
    }
}

fn a_write_of_a_run_that_died_is_known(api: Api) {
    let mut scene = Scene::new(api);
    assert_eq!(scene.fate(), Fate::NotMade);
    let made = scene.made();
    assert_eq!(scene.fate(), Fate::Made(made.clone()));
    scene.set(&POOLED.replace("10", "20"));
    assert_eq!(scene.fate(), Fate::MadeThenChanged(made));
}

fn a_write_that_an_operator_was_faster_than_is_not_made(api: Api) {
    let scene = Scene::new(api);
    scene.set(&POOLED.replace("yes", "inactive"));
    assert_eq!(scene.fate(), Fate::NotMade);
}

crate::both_apis!(a_write_of_a_run_that_died_is_known, a_write_that_an_operator_was_faster_than_is_not_made);

#[test]
fn the_mark_is_written_with_the_node() {
    let mut scene = Scene::new(Api::V3);
    let made = scene.made();
    let found = scene.write.found.revision;
    assert_eq!(scene.etcd.value(Api::V3, MARK), format!(r#"{{"run":"run-1","found":{found},"pooled":"no"}}"#));
    let mark = scene.etcd.ctl(Api::V3, &["get", MARK, "--write-out=json"]);
    let mark: serde_json::Value = serde_json::from_str(&mark).unwrap();
    assert_eq!(mark["kvs"][0]["mod_revision"], made.revision);
}

#[test]
fn an_operators_identical_bytes_are_the_operators() {
    // Instead of our write.
    let scene = Scene::new(Api::V3);
    scene.set(DEPOOLED);
    assert_eq!(scene.fate(), Fate::NotMade);
    // After it.
    let mut scene = Scene::new(Api::V3);
    let made = scene.made();
    scene.set(DEPOOLED);
    assert_eq!(scene.fate(), Fate::MadeThenChanged(made));
    // Instead of it, where an earlier run left a mark.
    let mut scene = Scene::new(Api::V3);
    let made = scene.made();
    let mut second = Scene::opened(Api::V3, &scene.etcd, "run-2");
    scene.write = second.store.prepare(&made, Pooled::Yes).unwrap();
    scene.set(POOLED);
    assert_eq!(scene.fate(), Fate::NotMade);
    second.store.write(&scene.write).unwrap_err();
}

#[test]
fn a_compacted_history_takes_nothing_from_what_the_mark_tells() {
    let mut scene = Scene::new(Api::V3);
    let made = scene.made();
    scene.set(&POOLED.replace("10", "20"));
    scene.compact();
    assert_eq!(scene.fate(), Fate::MadeThenChanged(made));
    // A mark from before the revision found: this write was not made.
    let mut second = Scene::opened(Api::V3, &scene.etcd, "run-3");
    let found = second.node(HOST);
    scene.write = second.store.prepare(&found, Pooled::No).unwrap();
    scene.set(DEPOOLED);
    scene.compact();
    assert_eq!(scene.fate(), Fate::NotMade);
}

#[test]
fn without_mark_and_history_nobody_can_tell() {
    let scene = Scene::new(Api::V3);
    scene.set(POOLED);
    scene.set(DEPOOLED);
    scene.compact();
    assert!(matches!(scene.fate(), Fate::Unclear(why) if why.contains("history")));
}

#[test]
fn a_mark_that_a_later_write_took_is_found_in_the_history() {
    let mut scene = Scene::new(Api::V3);
    let made = scene.made();
    let back = scene.first.store.prepare(&made, Pooled::Yes).unwrap();
    scene.first.store.write(&back).unwrap();
    assert_eq!(scene.fate(), Fate::MadeThenChanged(made));
}

#[test]
fn a_mark_that_somebody_deleted_is_found_in_the_history() {
    let mut scene = Scene::new(Api::V3);
    let made = scene.made();
    scene.etcd.delete(Api::V3, MARK);
    assert_eq!(scene.fate(), Fate::Made(made));
}

/// A user who may do what conftool does, and nothing beside the pools: the history alone has to tell.
#[test]
fn a_user_who_may_not_write_marks_does_without() {
    let etcd = Etcd::single();
    let ctl = |arguments: &[&str]| etcd.ctl(Api::V3, arguments);
    ctl(&["put", &key(HOST), POOLED]);
    ctl(&["user", "add", "root:root-password"]);
    ctl(&["user", "grant-role", "root", "root"]);
    ctl(&["role", "add", "pools"]);
    ctl(&["role", "grant-permission", "pools", "--prefix=true", "readwrite", "/conftool/v1/pools/"]);
    ctl(&["user", "add", "conftool:secret"]);
    ctl(&["user", "grant-role", "conftool", "pools"]);
    ctl(&["auth", "enable"]);
    let opened = |run: &str| {
        let files = Files::new(Api::V3, &[&etcd.members[0].url]);
        files.with("username: conftool").with("password: secret").open_as(run, None)
    };
    let mut first = opened("run-1");
    let found = first.node(HOST);
    let write = first.store.prepare(&found, Pooled::No).unwrap();
    let made = first.store.write(&write).unwrap();
    let listed = etcd.ctl(Api::V3, &["--user", "root:root-password", "get", "--prefix", "--keys-only", "/"]);
    assert_eq!(listed.trim(), key(HOST), "there is no mark");
    assert_eq!(opened("run-2").store.fate(&write), Ok(Fate::Made(made.clone())));
    let back = first.store.prepare(&made, Pooled::Yes).unwrap();
    first.store.write(&back).unwrap();
    assert_eq!(first.store.fate(&write), Ok(Fate::MadeThenChanged(made)));
    assert_eq!(first.outcomes(), ["success", "success"]);
}
