//! Slots when something dies: holders, connections, members, the whole of etcd.

use std::thread;
use std::time::{Duration, Instant};

use restart_core::{PoolStore, SlotError, Slots};

use crate::etcd::{Api, Etcd, own_address};
use crate::fixture::{Files, LEASE, QUEUE, host};
use crate::proxy::{Fault, Proxy};
use crate::slots::{LONG, MOMENT, files, get, keys, waits};
use crate::trust::{SECRET, files_for, with_users};

/// etcd ends a lease within this time, and a slow machine tells of it within some more.
const EXPIRED: Duration = Duration::from_secs(3 * LEASE.as_secs());

/// Ends the lease of the only entry of the queue, as an operator might.
fn revoke_the_only_lease(etcd: &Etcd) {
    let [lease] = keys(etcd, "slots").try_into().unwrap();
    etcd.ctl(Api::V3, &["lease", "revoke", &lease]);
}

fn lost(slots: &mut impl Slots) -> String {
    let end = Instant::now() + EXPIRED;
    loop {
        match slots.look() {
            Err(SlotError::Lost(why)) => return why,
            Err(error) => panic!("{error:?}"),
            Ok(()) => assert!(Instant::now() < end, "the loss is not noticed"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_dead_holders_slot_is_free_when_its_lease_ends() {
    let etcd = Etcd::single();
    let url = etcd.members[0].url.clone();
    // A run that was killed is heard of no more, and says no farewell: its connection is cut for good.
    let proxy = Proxy::start(&etcd.members[0].address);
    let mut dead = Files::new(Api::V3, &[&proxy.url]).slots("mw1.example");
    dead.ask(1, LONG).unwrap();
    get(&mut dead);
    proxy.cut();
    let mut other = Files::new(Api::V3, &[&url]).slots("mw2.example");
    other.ask(1, LONG).unwrap();
    assert!(waits(&mut other));
    get(&mut other);
    assert!(dead.look().is_err(), "both believe to have the slot");
}

#[test]
fn a_lease_is_kept_alive_while_the_caller_is_busy() {
    let etcd = Etcd::single();
    let files = files(&etcd);
    let (mut one, mut other) = (files.slots("mw1.example"), files.slots("mw2.example"));
    one.ask(1, LONG).unwrap();
    get(&mut one);
    other.ask(1, LONG).unwrap();
    thread::sleep(LEASE * 2);
    assert_eq!(one.look(), Ok(()));
    assert!(waits(&mut other));
    assert_eq!(keys(&etcd, "slots").len(), 2, "who waits is kept alive as well");
}

#[test]
fn a_lease_that_was_revoked_is_noticed() {
    let etcd = Etcd::single();
    let mut slots = files(&etcd).slots("mw1.example");
    slots.ask(1, LONG).unwrap();
    get(&mut slots);
    revoke_the_only_lease(&etcd);
    // Before anything is changed it is noticed at once.
    let Err(SlotError::Lost(why)) = slots.taking_out() else { panic!("a host may leave without a slot") };
    assert!(why.contains("its entry in etcd is gone"), "{why}");
    assert_eq!(keys(&etcd, "out"), Vec::<String>::new());

    slots.ask(1, LONG).unwrap();
    get(&mut slots);
    revoke_the_only_lease(&etcd);
    let why = lost(&mut slots);
    assert!(why.contains("etcd no longer knows its lease"), "{why}");
    assert!(matches!(slots.granted(MOMENT), Err(SlotError::Lost(_))));
}

#[test]
fn a_frozen_etcd_is_noticed_by_the_time_the_lease_ends() {
    let etcd = Etcd::three();
    let mut slots = files(&etcd).slots("mw1.example");
    slots.ask(1, LONG).unwrap();
    get(&mut slots);
    etcd.members.iter().for_each(crate::etcd::Member::freeze);
    thread::sleep(LEASE / 3);
    assert_eq!(slots.look(), Ok(()), "too soon");
    let why = lost(&mut slots);
    assert!(why.contains("etcd has not confirmed it for 3 s"), "{why}");
    // Once lost it stays lost, though etcd, frozen as well, may not have ended it.
    etcd.members.iter().for_each(crate::etcd::Member::thaw);
    etcd.wait_until_healthy();
    assert!(slots.look().is_err());
    slots.ask(1, LONG).unwrap();
    get(&mut slots);
}

#[test]
fn a_frozen_etcd_makes_asking_and_leaving_fail_in_time() {
    let etcd = Etcd::three();
    let files = files(&etcd);
    let mut one = files.slots("mw1.example");
    one.ask(1, LONG).unwrap();
    get(&mut one);
    etcd.members.iter().for_each(crate::etcd::Member::freeze);

    let mut other = files.slots("mw2.example");
    let asked = other.ask(1, LONG);
    println!("{asked:?}");
    assert!(matches!(&asked, Err(SlotError::Unreachable(why)) if why.contains("no answer within")), "{asked:?}");
    drop(one);
}

#[test]
fn nobody_there_is_unreachable_at_once() {
    let urls = [format!("http://{}:2379", own_address()), format!("http://{}:2379", own_address())];
    let mut slots = Files::new(Api::V3, &[&urls[0], &urls[1]]).slots("mw1.example");
    let refused = |url: &String| format!("etcd '{url}': connection refused");
    let text = format!("cannot get a lease: {}; {}", refused(&urls[0]), refused(&urls[1]));
    assert_eq!(slots.ask(1, LONG), Err(SlotError::Unreachable(text)));
    assert_eq!(slots.holders(), Vec::<String>::new());
    slots.release();
}

#[test]
fn members_that_die_or_freeze_are_passed_over_by_holder_and_waiter() {
    let mut etcd = Etcd::three();
    let files = files(&etcd);
    // The time to live of the product: also the leader may be among them, and an election takes its time.
    let lease = Duration::from_secs(10);
    let [mut one, mut other] = ["mw1.example", "mw2.example"].map(|host| files.slots(host).with_lease(lease));
    one.ask(1, LONG).unwrap();
    get(&mut one);
    other.ask(1, LONG).unwrap();
    assert!(waits(&mut other));

    // Both talk to the first one.
    etcd.members[0].kill();
    thread::sleep(lease + LEASE);
    assert_eq!(one.look(), Ok(()));
    assert!(waits(&mut other));
    etcd.members[0].start();
    etcd.wait_until_healthy();

    // Now both talk to another one, whichever did not lack a leader just then.
    let frozen = &etcd.members[1];
    frozen.freeze();
    thread::sleep(lease + LEASE);
    assert_eq!(one.look(), Ok(()));
    assert!(waits(&mut other));
    one.taking_out().unwrap();
    files.open(None).store.no_longer_counts(QUEUE, &host("mw1.example")).unwrap();
    assert_eq!(keys(&etcd, "out"), Vec::<String>::new());
    one.release();
    get(&mut other);
    frozen.thaw();
}

#[test]
fn a_hand_over_survives_that_the_waiters_member_freezes() {
    let etcd = Etcd::three();
    let urls: Vec<&str> = etcd.members.iter().map(|member| member.url.as_str()).collect();
    let mut one = Files::new(Api::V3, &urls).slots("mw1.example");
    one.ask(1, LONG).unwrap();
    get(&mut one);
    let mut other = Files::new(Api::V3, &[urls[2], urls[1]]).slots("mw2.example");
    other.ask(1, LONG).unwrap();
    assert!(waits(&mut other));
    etcd.members[2].freeze();
    one.release();
    get(&mut other);
    etcd.members[2].thaw();
}

#[test]
fn who_waits_while_etcd_is_away_for_longer_than_a_lease_queues_again() {
    let mut etcd = Etcd::single();
    let files = files(&etcd);
    let (mut one, mut other) = (files.slots("mw1.example"), files.slots("mw2.example"));
    one.ask(1, LONG).unwrap();
    get(&mut one);
    other.ask(1, LONG).unwrap();
    assert!(waits(&mut other));
    etcd.members[0].kill();
    thread::sleep(LEASE + MOMENT);
    assert!(matches!(one.look(), Err(SlotError::Lost(_))));
    assert_eq!(other.granted(MOMENT), Ok(false), "who has nothing to lose goes on waiting");
    etcd.members[0].start();
    etcd.wait_until_healthy();
    get(&mut other);
}

#[test]
fn who_waits_is_told_when_etcd_does_not_come_back() {
    let mut etcd = Etcd::single();
    let files = files(&etcd);
    let mut one = files.slots("mw1.example");
    one.ask(1, LONG).unwrap();
    get(&mut one);
    let mut other = files.slots("mw2.example");
    other.ask(1, LONG).unwrap();
    etcd.members[0].kill();
    let gone = other.granted(LONG);
    assert!(matches!(gone, Err(SlotError::Unreachable(_))), "{gone:?}");
}

#[test]
fn an_answer_that_is_lost_gives_no_second_place_in_the_queue() {
    let etcd = Etcd::single();
    let proxy = Proxy::start(&etcd.members[0].address);
    let files = Files::new(Api::V3, &[&proxy.url]);
    let mut slots = files.slots("mw1.example");
    slots.ask(1, LONG).unwrap();
    slots.release();
    for fault in [Fault::lose_answer_and(|| {}), Fault::DropRequest] {
        proxy.arm(fault);
        slots.ask(1, LONG).unwrap();
        assert!(!proxy.is_armed());
        get(&mut slots);
        assert_eq!(keys(&etcd, "slots").len(), 1);
        slots.release();
        assert_eq!(keys(&etcd, "slots").len(), 0);
    }
}

#[test]
fn a_user_with_a_password_keeps_a_slot_over_a_restart_of_etcd() {
    let mut etcd = with_users(Api::V3);
    let mut slots = files_for(Api::V3, &etcd, "conftool", SECRET).slots("mw1.example").with_lease(LEASE * 2);
    slots.ask(1, LONG).unwrap();
    get(&mut slots);
    // Its token is gone with the process that gave it out.
    etcd.members[0].kill();
    etcd.members[0].start();
    thread::sleep(LEASE * 3);
    assert_eq!(slots.look(), Ok(()));
    slots.taking_out().unwrap();

    let refused = files_for(Api::V3, &etcd, "reader", SECRET).slots("mw2.example").ask(1, LONG);
    println!("{refused:?}");
    assert!(matches!(&refused, Err(SlotError::Refused(why)) if why.contains("refuses user 'reader'")), "{refused:?}");
    let refused = files_for(Api::V3, &etcd, "conftool", "wrong").slots("mw2.example").ask(1, LONG);
    assert!(matches!(&refused, Err(SlotError::Refused(why)) if !why.contains("wrong")), "{refused:?}");
}
