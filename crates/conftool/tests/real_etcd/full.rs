//! An etcd that has no room left (v3 alone has a quota): it goes on answering reads and refuses every write. That is nobody's
//! configuration, and not the end of a slot that somebody holds.

use restart_core::{Fate, PoolStore, Pooled, SlotError, Slots, StoreError, WriteError};

use crate::etcd::{Api, Etcd, Kind};
use crate::fixture::{Files, POOLED, QUEUE, host, key, pool};
use crate::slots::{LONG, get, keys};

/// etcd's own words.
const WORDS: &str = "mvcc: database space exceeded";

fn with_quota(members: usize) -> Etcd {
    Etcd::start(Kind { members, arguments: &["--quota-backend-bytes=300000"], ..Kind::default() })
}

fn fill(etcd: &Etcd) {
    let much = "x".repeat(50_000);
    let refused = (0..100).find_map(|number| etcd.try_ctl(Api::V3, &["put", &format!("/fill/{number}"), &much]).err());
    assert!(refused.is_some_and(|why| why.contains(WORDS)), "etcd is not full");
}

fn make_room(etcd: &Etcd) {
    etcd.ctl(Api::V3, &["del", "--prefix", "/fill/"]);
    let status = etcd.ctl(Api::V3, &["endpoint", "status", "--write-out=json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    etcd.ctl(Api::V3, &["compact", "--physical", &status[0]["Status"]["header"]["revision"].to_string()]);
    etcd.ctl(Api::V3, &["defrag"]);
    etcd.ctl(Api::V3, &["alarm", "disarm"]);
}

#[test]
fn a_full_etcd_is_read_and_a_write_to_it_is_not_made() {
    let etcd = with_quota(3);
    etcd.set(Api::V3, &key("mw1.example"), POOLED);
    let urls: Vec<&str> = etcd.members.iter().map(|member| member.url.as_str()).collect();
    let mut opened = Files::new(Api::V3, &urls).open(None);
    let found = opened.node("mw1.example");
    fill(&etcd);

    assert_eq!(opened.node("mw1.example"), found);
    assert_eq!(opened.store.list(&pool()).unwrap().nodes, std::slice::from_ref(&found));
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    let Err(WriteError::NotMade(StoreError::Unreachable(text))) = opened.store.write(&write) else {
        panic!("a write to a full etcd");
    };
    println!("{text}");
    for url in &urls {
        assert!(text.contains(&format!("etcd '{url}': {WORDS}")), "every member is asked: {text}");
    }
    assert_eq!(opened.outcomes(), ["failure"]);
    // What became of a write can be found out as well, by this run and by another.
    assert_eq!(opened.store.fate(&write), Ok(Fate::NotMade));
    assert_eq!(Files::new(Api::V3, &urls).open_as("run-1", None).store.fate(&write), Ok(Fate::NotMade));
    assert_eq!(etcd.value(Api::V3, &key("mw1.example")), POOLED);

    make_room(&etcd);
    opened.store.write(&write).unwrap();
}

#[test]
fn a_write_made_before_etcd_was_full_is_known_to_be_made() {
    let etcd = with_quota(1);
    etcd.set(Api::V3, &key("mw1.example"), POOLED);
    let files = Files::new(Api::V3, &[&etcd.members[0].url]);
    let mut opened = files.open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    let made = opened.store.write(&write).unwrap();
    fill(&etcd);
    assert_eq!(files.open_as("run-1", None).store.fate(&write), Ok(Fate::Made(made)));
}

#[test]
fn a_full_etcd_gives_no_slots_and_ends_none() {
    let etcd = with_quota(1);
    let files = Files::new(Api::V3, &[&etcd.members[0].url]);
    let (mut out, mut holder) = (files.slots("mw1.example"), files.slots("mw2.example"));
    for slots in [&mut out, &mut holder] {
        slots.ask(2, LONG).unwrap();
        get(slots);
    }
    out.taking_out().unwrap();
    fill(&etcd);

    let asked = files.slots("mw3.example").ask(2, LONG);
    println!("{asked:?}");
    assert!(matches!(&asked, Err(SlotError::Unreachable(why)) if why.contains(WORDS)), "{asked:?}");
    assert_eq!(holder.look(), Ok(()));
    let refused = holder.taking_out();
    assert!(matches!(&refused, Err(SlotError::Unreachable(why)) if why.contains(WORDS)), "{refused:?}");
    assert_eq!(holder.look(), Ok(()));
    // To take something back takes no room.
    files.open(None).store.no_longer_counts(QUEUE, &host("mw1.example")).unwrap();
    assert_eq!(keys(&etcd, "out"), Vec::<String>::new());
    assert_eq!(files.load(None).unwrap().slot_holders().unwrap()[QUEUE].len(), 2);
}
