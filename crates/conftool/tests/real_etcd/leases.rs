//! Objects that end by themselves: somebody gave them a lease (v3) or a time to live (v2). conftool does not; a write of ours
//! must not make them stay for ever.

use restart_core::{PoolStore, Pooled, WriteError};

use crate::etcd::{Api, Etcd};
use crate::fixture::{Files, POOLED, key};

const HOST: &str = "mw1.example";
const MARK: &str = "/conftool/v1/safe-service-restart/writes/lab/appserver/php/mw1.example";

/// Sets the object so that it ends in ten minutes; returns its lease.
fn set_for_ten_minutes(api: Api, etcd: &Etcd) -> String {
    match api {
        Api::V2 => {
            etcd.ctl(api, &["set", "--ttl", "600", &key(HOST), POOLED]);
            String::new()
        }
        Api::V3 => {
            // "lease 694d7a3f2c1b5e07 granted with TTL(600s)"
            let granted = etcd.ctl(api, &["lease", "grant", "600"]);
            let lease = granted.split(' ').nth(1).unwrap().to_owned();
            etcd.ctl(api, &["put", "--lease", &lease, &key(HOST), POOLED]);
            lease
        }
    }
}

/// Whether it ends, and within ten minutes.
fn ends(api: Api, etcd: &Etcd, key: &str) -> bool {
    match api {
        Api::V2 => {
            let answer = ureq::get(format!("{}/v2/keys{key}", etcd.members[0].url)).call().expect("an answer");
            let text = answer.into_body().read_to_string().expect("text");
            let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            answer["node"]["ttl"].as_i64().is_some_and(|seconds| (1..=600).contains(&seconds))
        }
        Api::V3 => {
            let answer: serde_json::Value =
                serde_json::from_str(&etcd.ctl(api, &["get", key, "--write-out=json"])).expect("JSON");
            answer["kvs"][0]["lease"].as_i64().is_some_and(|lease| lease != 0)
        }
    }
}

fn an_object_that_ends_by_itself_still_does_after_our_writes(api: Api) {
    let etcd = Etcd::single();
    let lease = set_for_ten_minutes(api, &etcd);
    let mut opened = Files::new(api, &[&etcd.members[0].url]).open(None);
    let found = opened.node(HOST);
    let depooled = opened.store.write(&opened.store.prepare(&found, Pooled::No).unwrap()).unwrap();
    assert!(ends(api, &etcd, &key(HOST)), "after the depool");
    let repooled = opened.store.write(&opened.store.prepare(&depooled, Pooled::Yes).unwrap()).unwrap();
    assert!(ends(api, &etcd, &key(HOST)), "after the repool");
    assert_eq!(opened.node(HOST), repooled);
    if api == Api::V3 {
        assert!(!ends(api, &etcd, MARK), "the mark outlives the object");
        etcd.ctl(api, &["lease", "revoke", &lease]);
        let write = opened.store.prepare(&repooled, Pooled::No).unwrap();
        assert_eq!(opened.store.write(&write), Err(WriteError::Conflict), "an object that has ended is not made again");
    }
}

fn an_object_that_stays_still_does_after_our_writes(api: Api) {
    let etcd = Etcd::single();
    etcd.set(api, &key(HOST), POOLED);
    let mut opened = Files::new(api, &[&etcd.members[0].url]).open(None);
    let found = opened.node(HOST);
    opened.store.write(&opened.store.prepare(&found, Pooled::No).unwrap()).unwrap();
    assert!(!ends(api, &etcd, &key(HOST)));
}

crate::both_apis!(
    an_object_that_ends_by_itself_still_does_after_our_writes,
    an_object_that_stays_still_does_after_our_writes,
);
