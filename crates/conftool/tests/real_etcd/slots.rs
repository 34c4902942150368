//! Slots in a healthy etcd: never more than N, first come first served, and hosts that are out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use conftool::LeaseSlots;
use restart_core::{Fqdn, PoolStore, SlotError, Slots, StoreError};

use crate::etcd::{Api, Etcd};
use crate::fixture::{Files, QUEUE, host};
use crate::proxy::Proxy;

/// Longer than anything here may take.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Long enough for a waiting run to have seen what there is to see.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

pub(crate) fn files(etcd: &Etcd) -> Files {
    let urls: Vec<&str> = etcd.members.iter().map(|member| member.url.as_str()).collect();
    Files::new(Api::V3, &urls)
}

/// Waits for the slot.
pub(crate) fn get(slots: &mut LeaseSlots) {
    assert_eq!(slots.granted(LONG), Ok(true));
}

/// Whether the slot is still waited for after a moment.
pub(crate) fn waits(slots: &mut LeaseSlots) -> bool {
    !slots.granted(MOMENT).expect("a place in the queue")
}

/// The entries of the queue, and the hosts that are out.
pub(crate) fn keys(etcd: &Etcd, what: &str) -> Vec<String> {
    let prefix = format!("/conftool/v1/safe-service-restart/{what}/{QUEUE}/");
    let listed = etcd.ctl(Api::V3, &["get", "--prefix", "--keys-only", &prefix]);
    listed.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn never_more_than_n_and_everybody_in_the_end() {
    const RUNS: usize = 16;
    const LIMIT: usize = 3;

    let etcd = Etcd::single();
    let files = Arc::new(files(&etcd));
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let start = Arc::new(Barrier::new(RUNS));
    let threads: Vec<_> = (0..RUNS)
        .map(|number| {
            let name = format!("mw{number}.example");
            let mut slots = files.slots(&name);
            let (files, start) = (Arc::clone(&files), Arc::clone(&start));
            let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
            thread::spawn(move || {
                let mut store = files.open(None).store;
                start.wait();
                slots.ask(LIMIT as u32, LONG).unwrap();
                get(&mut slots);
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Every other one leaves its pools, too.
                if number % 2 == 0 {
                    slots.taking_out().unwrap();
                }
                thread::sleep(Duration::from_millis(50));
                if number % 2 == 0 {
                    store.no_longer_counts(QUEUE, &host(&name)).unwrap();
                }
                assert_eq!(slots.look(), Ok(()));
                inside.fetch_sub(1, Ordering::SeqCst);
                slots.release();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), LIMIT, "all slots were used, and no more");
    assert_eq!(keys(&etcd, "slots"), Vec::<String>::new());
    assert_eq!(keys(&etcd, "out"), Vec::<String>::new());
}

#[test]
fn who_comes_first_is_served_first() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let mut first = files.slots("mw0.example");
    first.ask(1, LONG).unwrap();
    get(&mut first);
    let order = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (1..=6)
        .map(|number| {
            let mut slots = files.slots(&format!("mw{number}.example"));
            slots.ask(1, LONG).unwrap();
            let order = Arc::clone(&order);
            thread::spawn(move || {
                get(&mut slots);
                order.lock().unwrap().push(number);
                slots.release();
            })
        })
        .collect();
    thread::sleep(MOMENT);
    assert!(order.lock().unwrap().is_empty());
    first.release();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_smaller_limit_is_kept_by_those_behind_it() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let [mut a, mut b, mut c] = ["a.example", "b.example", "c.example"].map(|host| files.slots(host));
    a.ask(3, LONG).unwrap();
    get(&mut a);
    b.ask(1, LONG).unwrap();
    c.ask(3, LONG).unwrap();
    assert!(waits(&mut b) && waits(&mut c), "one of one does not go beside another, nor is it overtaken");
    a.release();
    get(&mut b);
    assert!(waits(&mut c));
    b.release();
    get(&mut c);
}

/// How long it takes is measured by `tests/bench`.
#[test]
fn a_slot_goes_back_and_forth_between_two() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let (mut one, mut other) = (files.slots("mw1.example"), files.slots("mw2.example"));
    one.ask(1, LONG).unwrap();
    get(&mut one);
    for _ in 0..10 {
        other.ask(1, LONG).unwrap();
        assert!(!other.granted(Duration::from_millis(50)).unwrap());
        one.release();
        get(&mut other);
        std::mem::swap(&mut one, &mut other);
    }
}

#[test]
fn what_waits_too_long_is_told_who_holds_the_slots() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let (mut one, mut other) = (files.slots("mw1.example"), files.slots("mw2.example"));
    one.ask(1, LONG).unwrap();
    get(&mut one);
    other.ask(1, MOMENT).unwrap();
    assert_eq!(other.granted(Duration::ZERO), Ok(false));
    let clause = "'mw1.example' since 2026-11-23T10:00:00Z by 'alice' (run run-on-mw1.example, process 7)";
    assert_eq!(other.holders(), [clause]);
    thread::sleep(MOMENT);
    let wanted = format!("no slot of '{QUEUE}' within 0.3 s; held by: {clause}");
    assert_eq!(other.granted(MOMENT), Err(SlotError::Taken(wanted)));
    assert_eq!(keys(&etcd, "slots").len(), 1, "who gave up is in nobody's way");
    // One who has asked for nothing can ask who is there.
    assert_eq!(files.slots("mw3.example").holders(), [clause]);
}

#[test]
fn a_dropped_slot_is_free_at_once() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let mut other = files.slots("mw2.example");
    {
        let mut one = files.slots("mw1.example");
        one.ask(1, LONG).unwrap();
        get(&mut one);
        other.ask(1, LONG).unwrap();
        assert!(waits(&mut other));
    }
    get(&mut other);
}

#[test]
fn a_host_that_was_left_out_counts_until_it_is_back() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let mut dead = files.slots("mw1.example");
    dead.ask(1, LONG).unwrap();
    get(&mut dead);
    dead.taking_out().unwrap();
    // Dies: its lease is gone, and nobody brings the host back.
    dead.release();
    assert_eq!(keys(&etcd, "out"), ["mw1.example"]);

    let mut other = files.slots("mw2.example");
    other.ask(1, LONG).unwrap();
    assert!(waits(&mut other));
    let held = other.holders().join("; ");
    assert!(
        held.starts_with("'mw1.example', left out of its pools since ") && held.contains("run-on-mw1.example"),
        "{held}"
    );

    // The host itself is not kept from its repair by that, nor by those who wait.
    let mut repair = files.slots("mw1.example");
    repair.ask(1, LONG).unwrap();
    get(&mut repair);
    repair.taking_out().unwrap();
    assert!(waits(&mut other));
    files.open(None).store.no_longer_counts(QUEUE, &host("mw1.example")).unwrap();
    repair.release();
    get(&mut other);
}

#[test]
fn the_store_of_another_process_takes_back_that_a_host_is_out() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let mut dead = files.slots("mw1.example");
    dead.ask(1, LONG).unwrap();
    get(&mut dead);
    dead.taking_out().unwrap();
    dead.release();
    let mut other = files.slots("mw2.example");
    other.ask(1, LONG).unwrap();
    assert!(waits(&mut other));
    // Others whose names begin alike, in this queue and in another one.
    let alike = format!("/conftool/v1/safe-service-restart/out/{QUEUE}-https/mw1.example");
    etcd.set(Api::V3, &alike, "{}");
    let longer = format!("/conftool/v1/safe-service-restart/out/{QUEUE}/mw1.example.org");
    etcd.set(Api::V3, &longer, "{}");

    let mut recovery = files.open(None);
    recovery.store.no_longer_counts(QUEUE, &host("mw1.example")).unwrap();
    assert_eq!(keys(&etcd, "out"), ["mw1.example.org"]);
    assert_eq!(etcd.value(Api::V3, &alike), "{}");
    // Nothing to do is no error.
    recovery.store.no_longer_counts(QUEUE, &host("mw1.example")).unwrap();
    recovery.store.no_longer_counts(QUEUE, &host("mw1.example.org")).unwrap();
    get(&mut other);
    assert!(recovery.outcomes().is_empty(), "it is no write to an object");
}

#[test]
fn a_limit_that_names_no_queue_takes_nothing_back() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    for limit in ["", "a/b", "../writes", "a\nb", "a\0"] {
        let refused = files.open(None).store.no_longer_counts(limit, &host("mw1.example"));
        assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("cannot name slots")), "{refused:?}");
    }
}

#[test]
fn taking_back_takes_slots_the_right_to_write_and_a_store_that_answers() {
    let url = "http://127.0.0.1:1";
    let take_back = |files: Files| files.open(None).store.no_longer_counts(QUEUE, &host("mw1.example"));
    assert_eq!(take_back(Files::new(Api::V2, &[url])), Ok(()), "there are no slots in v2");
    assert_eq!(take_back(Files::new(Api::V2, &[url]).with_config("read_only: true")), Ok(()));
    let refused = take_back(Files::new(Api::V3, &[url]).with_config("read_only: true"));
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("read_only")), "{refused:?}");
    let text =
        format!("cannot note that 'mw1.example' no longer takes a slot of '{QUEUE}': etcd '{url}': connection refused");
    assert_eq!(take_back(Files::new(Api::V3, &[url])), Err(StoreError::Unreachable(text)));
}

/// With `--slot-timeout 0` there is one look, and no time for another.
#[test]
fn a_free_slot_is_granted_at_the_first_look_however_short_it_is() {
    let etcd = Etcd::single();
    let far = Proxy::far_away(&etcd.members[0].address, Duration::from_millis(40));
    let mut slots = Files::new(Api::V3, &[&far.url]).slots("mw1.example");
    for _ in 0..5 {
        slots.ask(1, Duration::ZERO).unwrap();
        assert_eq!(slots.granted(Duration::ZERO), Ok(true));
        slots.release();
    }
}

#[test]
fn everybody_who_has_a_slot_is_shown_by_queue() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let holders = || files.load(None).unwrap().slot_holders().unwrap();
    assert!(holders().is_empty());

    let [mut out, mut holder, mut waiter] = ["mw1.example", "mw2.example", "mw3.example"].map(|name| files.slots(name));
    // One whose run has died.
    out.ask(2, LONG).unwrap();
    get(&mut out);
    out.taking_out().unwrap();
    out.release();
    holder.ask(2, LONG).unwrap();
    get(&mut holder);
    waiter.ask(2, LONG).unwrap();
    assert!(waits(&mut waiter));
    // Another queue, and what is none of ours.
    let own = "/conftool/v1/safe-service-restart";
    etcd.set(Api::V3, &format!("{own}/out/other/mw9.example"), "no json");
    etcd.set(Api::V3, &format!("{own}/slots/too/deep/by-one"), "{}");
    etcd.set(Api::V3, &format!("{own}/slots-of-others/queue/entry"), "{}");
    etcd.set(Api::V3, "/lab/v1/safe-service-restart/out/lab/mw9.example", "{}");

    let shown = holders();
    assert_eq!(shown.keys().collect::<Vec<_>>(), [QUEUE, "other"]);
    let [run, left] = &shown[QUEUE][..] else { panic!("who waits has no slot: {shown:?}") };
    assert_eq!(run, "'mw2.example' since 2026-11-23T10:00:00Z by 'alice' (run run-on-mw2.example, process 7)");
    assert!(left.starts_with("'mw1.example', left out of its pools since "), "{left}");
    assert_eq!(shown["other"], ["'mw9.example', left out of its pools by a run that cannot be read"]);

    let lab = Files::new(Api::V3, &[&etcd.members[0].url]).with_config("namespace: /lab");
    assert_eq!(lab.load(None).unwrap().slot_holders().unwrap().into_keys().collect::<Vec<_>>(), ["lab"]);
}

#[test]
fn a_store_that_is_away_or_has_no_slots_shows_nobody() {
    let shown = |api: Api| Files::new(api, &["http://127.0.0.1:1"]).load(None).unwrap().slot_holders();
    let text = "cannot look at the slots: etcd 'http://127.0.0.1:1': connection refused".to_owned();
    assert_eq!(shown(Api::V3), Err(StoreError::Unreachable(text)));
    assert!(matches!(shown(Api::V2), Err(StoreError::Refused(why)) if why.contains("'driver: etcd3'")));
}

#[test]
fn damaged_records_take_slots_and_stop_nobody() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let directory = format!("/conftool/v1/safe-service-restart/slots/{QUEUE}");
    etcd.set(Api::V3, &format!("{directory}/rubbish"), "no json");
    etcd.set(Api::V3, &format!("{directory}-https/other"), "another queue");
    let (mut one, mut other) = (files.slots("mw1.example"), files.slots("mw2.example"));
    one.ask(2, LONG).unwrap();
    get(&mut one);
    other.ask(2, LONG).unwrap();
    assert!(waits(&mut other));
    assert!(other.holders().join("; ").contains("cannot be read"), "{:?}", other.holders());
    etcd.delete(Api::V3, &format!("{directory}/rubbish"));
    get(&mut other);
}

#[test]
fn slots_need_the_v3_driver_a_name_and_the_right_to_write() {
    let holder = || conftool::Holder {
        host: Fqdn::new("mw1.example").unwrap(),
        run: "r".to_owned(),
        pid: 7,
        user: None,
        since: String::new(),
    };
    let refused = |files: Files, key: &str| files.load(None).unwrap().slots(key, holder()).err().unwrap().to_string();
    let url = "http://127.0.0.1:1";
    assert!(refused(Files::new(Api::V2, &[url]), QUEUE).contains("'driver: etcd3'"));
    assert!(refused(Files::new(Api::V3, &[url]), "a/b").contains("'a/b' cannot name slots"));
    let mut slots = Files::new(Api::V3, &[url]).with_config("read_only: true").slots("mw1.example");
    assert!(matches!(slots.ask(1, LONG), Err(SlotError::Refused(why)) if why.contains("read_only")));
}
