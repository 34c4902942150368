//! Reading and writing through a healthy store.

use std::path::Path;

use restart_core::{PoolStore, Pooled, StoreError, WriteError};

use crate::etcd::{Api, Etcd, Kind};
use crate::fixture::{DEPOOLED, Files, POOL, POOLED, id, key, pool};

fn depool_and_repool_change_nothing_else(api: Api) {
    let etcd = Etcd::single();
    let before =
        "{ \"weight\": 1e1,\"p\\u006foled\" :\"yes\", \"note\": \"\\u00e9 é +&=%\", \"big\": 123456789012345678901 }";
    etcd.set(api, &key("mw1.example"), before);
    let mut opened = Files::new(api, &[&etcd.members[0].url]).open(None);

    let found = opened.node("mw1.example");
    assert_eq!((found.pooled, found.value.as_str()), (Pooled::Yes, before));
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    assert_eq!(write.key, key("mw1.example"));
    let depooled = opened.store.write(&write).unwrap();
    assert_eq!(etcd.value(api, &key("mw1.example")), before.replace("\"yes\"", "\"no\""));
    assert_eq!(opened.node("mw1.example"), depooled, "what a write returns is what is read");

    let write = opened.store.prepare(&depooled, Pooled::Yes).unwrap();
    opened.store.write(&write).unwrap();
    assert_eq!(etcd.value(api, &key("mw1.example")), before);
    assert_eq!(opened.outcomes(), ["success", "success"]);
}

fn only_nodes_right_below_the_directory_are_listed(api: Api) {
    let etcd = Etcd::single();
    for (key, value) in [
        ("mw1.example", POOLED),
        ("mw10.example", DEPOOLED),
        ("sub.example/mw2.example", POOLED),
        ("damaged.example", "{\"weight\": 10, \"pooled\":"),
        ("odd.example", "{\"weight\": 10, \"pooled\": \"maybe\"}"),
        ("nodot", POOLED),
    ] {
        etcd.set(api, &format!("{POOL}/{key}"), value);
    }
    etcd.set(api, &format!("{POOL}-https/mw3.example"), POOLED);
    etcd.set(api, "/conftool/v1/pools/lab/appserver/broken", "no json at all");
    let mut opened = Files::new(api, &[&etcd.members[0].url]).open(None);

    let listing = opened.store.list(&pool()).unwrap();
    let mut nodes: Vec<(String, Pooled)> =
        listing.nodes.iter().map(|node| (node.id.host.to_string(), node.pooled)).collect();
    nodes.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(nodes, [("mw1.example".to_owned(), Pooled::Yes), ("mw10.example".to_owned(), Pooled::No)]);
    let mut unreadable: Vec<&str> = listing.unreadable.iter().map(|broken| broken.host.as_str()).collect();
    unreadable.sort_unstable();
    assert_eq!(unreadable, ["damaged.example", "nodot", "odd.example"]);
    assert_eq!(listing.node(&id("mw1.example").host).unwrap().map(|node| node.pooled), Some(Pooled::Yes));
    assert!(matches!(listing.node(&id("damaged.example").host), Err(StoreError::Malformed(_))));
}

fn a_whole_cluster_is_listed_with_all_its_services_and_nothing_beside_it(api: Api) {
    let etcd = Etcd::single();
    let cluster = "/conftool/v1/pools/lab/appserver";
    for (key, value) in [
        ("php/mw1.example", POOLED),
        ("php/mw2.example", DEPOOLED),
        ("nginx/mw1.example", DEPOOLED),
        ("nginx/damaged.example", "{"),
        ("php/deeper/mw3.example", POOLED),
        ("not-below-a-service", POOLED),
    ] {
        etcd.set(api, &format!("{cluster}/{key}"), value);
    }
    etcd.set(api, "/conftool/v1/pools/lab/appserver2/php/mw4.example", POOLED);
    etcd.set(api, "/conftool/v1/pools/lab2/appserver/php/mw5.example", POOLED);
    let mut opened = Files::new(api, &[&etcd.members[0].url]).open(None);

    let tag = |name: &str| restart_core::Tag::new(name).unwrap();
    let listing = opened.store.list_cluster(&tag("lab"), &tag("appserver")).unwrap();
    let nodes: Vec<String> = listing.nodes.iter().map(|node| format!("{} {}", node.id, node.pooled)).collect();
    assert_eq!(
        nodes,
        ["lab/appserver/nginx/mw1.example no", "lab/appserver/php/mw1.example yes", "lab/appserver/php/mw2.example no",]
    );
    let unreadable: Vec<&str> = listing.unreadable.iter().map(|broken| broken.host.as_str()).collect();
    assert_eq!(unreadable, ["damaged.example"]);
    let nothing = opened.store.list_cluster(&tag("lab"), &tag("nowhere")).unwrap();
    assert!(nothing.nodes.is_empty() && nothing.unreadable.is_empty());
}

fn what_is_not_there_is_no_error(api: Api) {
    let etcd = Etcd::single();
    let mut opened = Files::new(api, &[&etcd.members[0].url]).open(None);
    let listing = opened.store.list(&pool()).unwrap();
    assert!(listing.nodes.is_empty() && listing.unreadable.is_empty());
    assert_eq!(opened.store.read(&id("mw1.example")), Ok(None));
}

fn a_write_to_an_object_that_changed_or_went_is_a_conflict(api: Api) {
    let etcd = Etcd::single();
    etcd.set(api, &key("mw1.example"), POOLED);
    let mut opened = Files::new(api, &[&etcd.members[0].url]).open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();

    // The same bytes written again are a change all the same.
    etcd.set(api, &key("mw1.example"), POOLED);
    assert_eq!(opened.store.write(&write), Err(WriteError::Conflict));
    assert_eq!(etcd.value(api, &key("mw1.example")), POOLED);
    etcd.delete(api, &key("mw1.example"));
    assert_eq!(opened.store.write(&write), Err(WriteError::Conflict));
    assert_eq!(opened.store.read(&id("mw1.example")), Ok(None), "the object was created again");
    assert_eq!(opened.outcomes(), ["failure", "failure"]);
}

fn read_only_refuses_every_write(api: Api) {
    let etcd = Etcd::single();
    etcd.set(api, &key("mw1.example"), POOLED);
    let files = Files::new(api, &[&etcd.members[0].url]).with_config("read_only: true");
    assert!(files.load(None).unwrap().read_only());
    let mut opened = files.open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    let refused = opened.store.write(&write);
    assert!(matches!(refused, Err(WriteError::NotMade(StoreError::Refused(_)))), "{refused:?}");
    assert_eq!(etcd.value(api, &key("mw1.example")), POOLED);
    assert!(opened.outcomes().is_empty(), "conftool leaves no line for a write it does not try");
}

crate::both_apis!(
    depool_and_repool_change_nothing_else,
    only_nodes_right_below_the_directory_are_listed,
    a_whole_cluster_is_listed_with_all_its_services_and_nothing_beside_it,
    what_is_not_there_is_no_error,
    a_write_to_an_object_that_changed_or_went_is_a_conflict,
    read_only_refuses_every_write,
);

/// A journal has it, so that no run takes to one store what was found in another.
#[test]
fn the_kind_of_a_store_is_its_driver_as_the_configuration_spells_it() {
    for (api, line) in [(Api::V2, "driver: etcd\n"), (Api::V3, "driver: etcd3\n")] {
        let files = Files::new(api, &["http://127.0.0.1:1"]);
        let config = std::fs::read_to_string(files.path("config.yaml")).unwrap();
        assert!(config.starts_with(line), "{config}");
        assert_eq!(format!("driver: {}\n", files.open(None).store.kind()), line);
    }
}

#[test]
fn an_etcd_without_v2_is_told_with_the_way_out() {
    let etcd = Etcd::start(Kind { without_v2: true, ..Kind::default() });
    let mut opened = Files::new(Api::V2, &[&etcd.members[0].url]).open(None);
    let Err(StoreError::Refused(text)) = opened.store.list(&pool()) else {
        panic!("a listing from an etcd without v2");
    };
    assert!(text.contains("no v2 API") && text.contains("driver: etcd3"), "{text}");
}

#[test]
fn a_missing_configuration_is_told_from_a_wrong_one() {
    let missing = conftool::Settings::load::<String>(Path::new("/nowhere/config.yaml"), None, &|_| Ok(None));
    assert!(matches!(missing, Err(conftool::LoadError::Missing(_))));
    let error = Files::new(Api::V2, &[]).with("hosts: x").load(None).unwrap_err();
    assert!(error.to_string().contains("unknown key 'hosts'"), "{error}");
}
