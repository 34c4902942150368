//! Writes whose request or answer is lost on the way. The original repeats such a write, fails on its own first attempt
//! ("Compare failed") and leaves the host depooled: the incident that each test here guards against.

use std::sync::{Arc, Mutex};

use restart_core::{Fate, Node, PoolStore, Pooled, StoreError, Write, WriteError};

use crate::etcd::{Api, Etcd};
use crate::fixture::{DEPOOLED, Files, Opened, POOLED, key};
use crate::proxy::{Fault, Proxy};

const HOST: &str = "mw1.example";

/// A member behind a proxy, an object in it, and a store that reads through the proxy.
struct Scene {
    api: Api,
    etcd: Arc<Mutex<Etcd>>,
    proxy: Proxy,
    opened: Opened,
}

impl Scene {
    fn new(api: Api) -> (Self, Write) {
        let etcd = Etcd::single();
        etcd.set(api, &key(HOST), POOLED);
        let proxy = Proxy::start(&etcd.members[0].address);
        let mut opened = Files::new(api, &[&proxy.url]).open(None);
        // The read makes the connection that the write then uses.
        let found = opened.node(HOST);
        let write = opened.store.prepare(&found, Pooled::No).unwrap();
        let etcd = Arc::new(Mutex::new(etcd));
        (Self { api, etcd, proxy, opened }, write)
    }

    /// Loses the answer to the next request, and runs `then` in between.
    fn lose_answer(&self, then: impl FnOnce(&mut Etcd) + Send + 'static) {
        let etcd = Arc::clone(&self.etcd);
        self.proxy.arm(Fault::lose_answer_and(move || then(&mut etcd.lock().unwrap())));
    }

    /// Runs `first` before the next request, and loses the answer to that.
    fn overtake(&self, first: impl FnOnce(&mut Etcd) + Send + 'static) {
        let etcd = Arc::clone(&self.etcd);
        self.proxy.arm(Fault::overtake(move || first(&mut etcd.lock().unwrap())));
    }

    fn write(&mut self, write: &Write) -> Result<Node, WriteError> {
        let result = self.opened.store.write(write);
        assert!(!self.proxy.is_armed(), "the write did not come through the proxy");
        result
    }

    fn value(&self) -> String {
        self.etcd.lock().unwrap().value(self.api, &key(HOST))
    }
}

fn a_write_whose_answer_is_lost_is_known_to_be_made(api: Api) {
    let (mut scene, write) = Scene::new(api);
    scene.lose_answer(|_| {});
    let made = scene.write(&write).unwrap();
    assert_eq!(made.value, DEPOOLED);
    assert_eq!(scene.opened.node(HOST), made, "the revision is that of our write");
    assert_eq!(scene.opened.outcomes(), ["success"]);
    // The repool goes by that revision.
    let back = scene.opened.store.prepare(&made, Pooled::Yes).unwrap();
    scene.lose_answer(|_| {});
    scene.write(&back).unwrap();
    assert_eq!(scene.value(), POOLED);
}

fn a_silent_connection_is_given_up_and_the_write_known_to_be_made(api: Api) {
    let (mut scene, write) = Scene::new(api);
    scene.proxy.arm(Fault::Silence);
    let made = scene.write(&write).unwrap();
    assert_eq!(scene.opened.node(HOST), made);
    assert_eq!(scene.opened.outcomes(), ["success"]);
}

fn a_write_whose_request_is_lost_is_made_again(api: Api) {
    let (mut scene, write) = Scene::new(api);
    scene.proxy.arm(Fault::DropRequest);
    let made = scene.write(&write).unwrap();
    assert_eq!(scene.opened.node(HOST), made);
    assert_eq!(scene.value(), DEPOOLED);
    assert_eq!(scene.opened.outcomes(), ["success"]);
}

fn our_write_is_recognised_when_somebody_wrote_after_it(api: Api) {
    let (mut scene, write) = Scene::new(api);
    let inactive = POOLED.replace("yes", "inactive");
    let theirs = inactive.clone();
    scene.lose_answer(move |etcd| etcd.set(api, &key(HOST), &theirs));
    let made = scene.write(&write).unwrap();
    assert_eq!(made.value, DEPOOLED);
    let now = scene.opened.node(HOST);
    assert_eq!(now.value, inactive);
    assert!(now.revision > made.revision, "a repool by the returned revision would overwrite the operator");
    let Fate::MadeThenChanged(ours) = scene.opened.store.fate(&write).unwrap() else {
        panic!("our write was followed by another");
    };
    assert_eq!(ours, made);
}

fn our_write_is_recognised_when_the_object_was_deleted_after_it(api: Api) {
    let (mut scene, write) = Scene::new(api);
    scene.lose_answer(move |etcd| etcd.delete(api, &key(HOST)));
    assert_eq!(scene.write(&write).unwrap().value, DEPOOLED);
    assert!(matches!(scene.opened.store.fate(&write), Ok(Fate::MadeThenChanged(_))));
}

fn a_lost_request_and_somebody_elses_write_are_a_conflict(api: Api) {
    for theirs in [Some(POOLED.replace("10", "20")), Some(POOLED.to_owned()), None] {
        let (mut scene, write) = Scene::new(api);
        // The operator is faster: the object has changed when the request comes, and the refusal of it is lost.
        let value = theirs.clone();
        scene.overtake(move |etcd| match value {
            Some(value) => etcd.set(api, &key(HOST), &value),
            None => etcd.delete(api, &key(HOST)),
        });
        assert_eq!(scene.write(&write), Err(WriteError::Conflict), "{theirs:?}");
        assert_eq!(scene.opened.store.fate(&write), Ok(Fate::NotMade));
        assert_eq!(scene.opened.outcomes(), ["failure"]);
    }
}

fn a_store_that_stays_away_leaves_the_write_unknown_until_it_is_back(api: Api) {
    let (mut scene, write) = Scene::new(api);
    scene.lose_answer(|etcd| etcd.members[0].kill());
    let unknown = scene.write(&write);
    assert!(matches!(unknown, Err(WriteError::Unknown(StoreError::Unreachable(_)))), "{unknown:?}");
    assert_eq!(scene.opened.outcomes(), ["unknown"]);
    assert!(matches!(scene.opened.store.fate(&write), Err(StoreError::Unreachable(_))));

    {
        let mut etcd = scene.etcd.lock().unwrap();
        etcd.members[0].start();
        etcd.wait_until_healthy();
    }
    match scene.opened.store.fate(&write).unwrap() {
        Fate::Made(node) => assert_eq!(node, scene.opened.node(HOST)),
        // A v2 member keeps its history in memory alone: after a restart nobody can tell.
        Fate::Unclear(why) => assert!(api == Api::V2 && why.contains("history"), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn a_store_that_is_away_for_a_moment_is_waited_for(api: Api) {
    let (mut scene, write) = Scene::new(api);
    let etcd = Arc::clone(&scene.etcd);
    scene.proxy.arm(Fault::DropRequest);
    etcd.lock().unwrap().members[0].kill();
    let starter = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        etcd.lock().unwrap().members[0].start();
    });
    let result = scene.opened.store.write(&write);
    starter.join().unwrap();
    let made = result.unwrap();
    assert_eq!(made.value, DEPOOLED);
    assert_eq!(scene.opened.node(HOST), made);
}

/// A write of ours whose fate is asked for when the history no longer reaches back to it. In v3 its mark tells (`marks.rs`).
#[test]
fn a_forgotten_history_is_unclear_and_not_guessed() {
    let (mut scene, write) = Scene::new(Api::V2);
    scene.lose_answer(move |etcd| {
        etcd.set(Api::V2, &key(HOST), POOLED);
        // The v2 API keeps the last thousand events.
        for _ in 0..1100 {
            overwrite_noise(&etcd.members[0].url);
        }
    });
    let unknown = scene.write(&write);
    assert!(matches!(&unknown, Err(WriteError::Unknown(_))), "{unknown:?}");
    assert!(matches!(scene.opened.store.fate(&write), Ok(Fate::Unclear(_))));
    assert_eq!(scene.opened.outcomes(), ["unknown"]);
}

/// Writes a key of no meaning through the v2 API.
fn overwrite_noise(url: &str) {
    ureq::put(format!("{url}/v2/keys/noise")).send_form([("value", "1")]).expect("a write");
}

crate::both_apis!(
    a_write_whose_answer_is_lost_is_known_to_be_made,
    a_silent_connection_is_given_up_and_the_write_known_to_be_made,
    a_write_whose_request_is_lost_is_made_again,
    our_write_is_recognised_when_somebody_wrote_after_it,
    our_write_is_recognised_when_the_object_was_deleted_after_it,
    a_lost_request_and_somebody_elses_write_are_a_conflict,
    a_store_that_stays_away_leaves_the_write_unknown_until_it_is_back,
    a_store_that_is_away_for_a_moment_is_waited_for,
);
