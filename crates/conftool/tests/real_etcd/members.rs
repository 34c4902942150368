//! Members that are dead, frozen, unreachable or without quorum: passed over while another answers, and named, each with its
//! own reason, when none does.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use restart_core::{PoolStore, Pooled, StoreError, Write, WriteError};

use crate::etcd::{Api, Etcd, Kind, own_address};
use crate::fixture::{Files, Opened, POOLED, id, key, pool};

/// An operation may take ten seconds, and the machine may be slow; it must not hang.
const ENDS: Duration = Duration::from_secs(30);

/// A store over all members, and the write that takes the host out, not made yet.
fn about_to_depool(etcd: &Etcd, api: Api) -> (Opened, Write) {
    etcd.set(api, &key("mw1.example"), POOLED);
    let urls: Vec<&str> = etcd.members.iter().map(|member| member.url.as_str()).collect();
    let mut opened = Files::new(api, &urls).open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    (opened, write)
}

fn dead_and_frozen_members_are_passed_over(api: Api) {
    let mut etcd = Etcd::three();
    etcd.set(api, &key("mw1.example"), POOLED);
    let urls: Vec<String> = etcd.members.iter().map(|member| member.url.clone()).collect();
    let dead = format!("http://{}:2379", own_address());
    let mut opened = Files::new(api, &[&dead, &urls[0], &urls[1], &urls[2]]).open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    let depooled = opened.store.write(&write).unwrap();

    // The one that answered last dies: the next one is asked.
    etcd.members[0].kill();
    assert_eq!(opened.node("mw1.example"), depooled);
    etcd.members[0].start();
    etcd.wait_until_healthy();

    // The one that answered last freezes.
    etcd.members[1].freeze();
    let start = Instant::now();
    assert_eq!(opened.node("mw1.example"), depooled);
    let write = opened.store.prepare(&depooled, Pooled::Yes).unwrap();
    let repooled = opened.store.write(&write).unwrap();
    assert!(start.elapsed() < ENDS);
    etcd.members[1].thaw();
    assert_eq!(opened.node("mw1.example"), repooled);
    assert_eq!(etcd.value(api, &key("mw1.example")), POOLED);
    assert_eq!(opened.outcomes(), ["success", "success"]);
}

fn reads_and_writes_wait_while_a_leader_is_elected(api: Api) {
    let mut etcd = Etcd::start(Kind {
        members: 3,
        arguments: &["--heartbeat-interval=50", "--election-timeout=500"],
        ..Kind::default()
    });
    let (mut opened, write) = about_to_depool(&etcd, api);
    etcd.members[2].kill();
    // A member that is needed for a quorum comes back in the very moment in which one is asked for.
    lose_quorum(&mut etcd, &mut opened);
    etcd.members[1].start();
    assert_eq!(opened.node("mw1.example"), write.found);
    lose_quorum(&mut etcd, &mut opened);
    etcd.members[1].start();
    let depooled = opened.store.write(&write).unwrap();
    assert_eq!(opened.node("mw1.example"), depooled);
}

/// Kills one of the two members that are left, and waits until the last one knows that it has lost its leader.
fn lose_quorum(etcd: &mut Etcd, opened: &mut Opened) {
    etcd.members[1].kill();
    opened.store.read(&id("mw1.example")).unwrap_err();
}

fn a_frozen_member_that_a_write_is_sent_to_is_passed_over(api: Api) {
    let etcd = Etcd::three();
    let (mut opened, write) = about_to_depool(&etcd, api);
    etcd.members[0].freeze();
    let start = Instant::now();
    let depooled = opened.store.write(&write).unwrap();
    assert!(start.elapsed() < ENDS);
    // The frozen member now makes its copy of the write, and finds the revision gone.
    etcd.members[0].thaw();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(opened.node("mw1.example"), depooled);
    assert_eq!(opened.outcomes(), ["success"]);
}

fn a_lost_quorum_is_unreachable_and_ends_in_time(api: Api) {
    let mut etcd = Etcd::three();
    let (mut opened, write) = about_to_depool(&etcd, api);
    etcd.members[1].kill();
    etcd.members[2].kill();
    std::thread::sleep(Duration::from_secs(2));

    let start = Instant::now();
    let Err(StoreError::Unreachable(text)) = opened.store.list(&pool()) else {
        panic!("a listing without quorum");
    };
    println!("{api:?} quorum lost: {text}");
    for member in &etcd.members {
        assert!(text.contains(&format!("etcd '{}': ", member.url)), "{text}");
    }
    assert!(text.contains("connection refused"), "{text}");
    let failed = opened.store.write(&write).unwrap_err();
    println!("{api:?} quorum lost: {failed}");
    assert!(matches!(failed, WriteError::NotMade(StoreError::Unreachable(_)) | WriteError::Unknown(_)), "{failed:?}");
    assert!(start.elapsed() < ENDS * 2);
}

fn when_nobody_listens_nothing_was_written(api: Api) {
    let mut etcd = Etcd::single();
    etcd.set(api, &key("mw1.example"), POOLED);
    let dead = format!("http://{}:2379", own_address());
    let url = etcd.members[0].url.clone();
    let mut opened = Files::new(api, &[&dead, &url]).open(None);
    let found = opened.node("mw1.example");
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    etcd.members[0].kill();

    let unreachable = opened.store.read(&id("mw1.example")).unwrap_err();
    assert_eq!(
        unreachable,
        StoreError::Unreachable(format!(
            "cannot read '{}': etcd '{url}': connection refused; etcd '{dead}': connection refused",
            key("mw1.example")
        ))
    );
    let failed = opened.store.write(&write).unwrap_err();
    assert!(matches!(failed, WriteError::NotMade(StoreError::Unreachable(_))), "{failed:?}");
    assert_eq!(opened.outcomes(), ["failure"]);

    // The member comes back at the same address: the same store goes on.
    etcd.members[0].start();
    etcd.wait_until_healthy();
    opened.store.write(&write).unwrap();
}

fn a_member_that_is_restarted_between_two_requests_is_not_noticed(api: Api) {
    let mut etcd = Etcd::single();
    etcd.set(api, &key("mw1.example"), POOLED);
    let url = etcd.members[0].url.clone();
    let mut opened = Files::new(api, &[&url]).open(None);
    let found = opened.node("mw1.example");
    etcd.members[0].kill();
    etcd.members[0].start();
    etcd.wait_until_healthy();
    assert_eq!(opened.node("mw1.example"), found);
    let write = opened.store.prepare(&found, Pooled::No).unwrap();
    etcd.members[0].kill();
    etcd.members[0].start();
    etcd.wait_until_healthy();
    opened.store.write(&write).unwrap();
    assert_eq!(opened.outcomes(), ["success"]);
}

fn a_black_hole_and_an_unknown_name_are_passed_over(api: Api) {
    let etcd = Etcd::single();
    etcd.set(api, &key("mw1.example"), POOLED);
    // A listener that accepts nothing, its queue full: SYNs are dropped, as by a firewall.
    let hole = TcpListener::bind((own_address().as_str(), 2379)).unwrap();
    let address = hole.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    let hole_url = format!("http://{address}");
    let unknown = "http://no-such-host.invalid:2379";
    let mut opened = Files::new(api, &[&hole_url, unknown, &etcd.members[0].url]).open(None);
    let start = Instant::now();
    opened.node("mw1.example");
    assert!(start.elapsed() < ENDS);

    let mut opened = Files::new(api, &[&hole_url, unknown]).open(None);
    let text = opened.store.read(&id("mw1.example")).unwrap_err().to_string();
    println!("{api:?} black hole: {text}");
    assert!(text.contains(&format!("etcd '{hole_url}': no connection within 1 s")), "{text}");
    assert!(text.contains(&format!("etcd '{unknown}': ")), "{text}");
}

fn what_is_no_etcd_is_told(api: Api) {
    use std::io::{Read, Write};

    let listener = TcpListener::bind((own_address().as_str(), 2379)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    });
    let mut opened = Files::new(api, &[&format!("http://{address}")]).open(None);
    let error = opened.store.read(&id("mw1.example")).unwrap_err();
    println!("{api:?} no etcd: {error}");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
}

crate::both_apis!(
    dead_and_frozen_members_are_passed_over,
    reads_and_writes_wait_while_a_leader_is_elected,
    a_frozen_member_that_a_write_is_sent_to_is_passed_over,
    a_lost_quorum_is_unreachable_and_ends_in_time,
    when_nobody_listens_nothing_was_written,
    a_member_that_is_restarted_between_two_requests_is_not_noticed,
    a_black_hole_and_an_unknown_name_are_passed_over,
    what_is_no_etcd_is_told,
);
