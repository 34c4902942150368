//! The client against the real poolcounterd, which is also killed and frozen. Needs what `tests/prepare` installs, and root.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use poolcounter::{Backends, Key, Poolcounter};
use restart_core::{PoolName, SlotError, Slots as _, Tag};
use testbed::Result;
use testbed::poolcounterd::{PORT, Poolcounterd};
use testbed::wait;

/// Longer than anything here should take.
const LONG: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_millis(100);
const KEY: &str = "ServiceRestarter::eqiad::appservers";

fn client_of(list: &str) -> Poolcounter {
    let backends = Backends::parse(Path::new("/etc/poolcounter-backends.yaml"), list).expect("a good list");
    let pools = [PoolName::new("appservers").expect("a pool")];
    let key = Key::of_pools(&Tag::new("eqiad").expect("a tag"), &pools).expect("a key");
    assert_eq!(key.as_str(), KEY);
    Poolcounter::new(&backends, key)
}

fn client(daemon: &Poolcounterd) -> Poolcounter {
    client_of(&daemon.backend("pc1"))
}

/// Waits for the answer, whatever it is.
fn answer(slots: &mut Poolcounter) -> Result<(), SlotError> {
    let end = Instant::now() + LONG;
    while !slots.granted(SLICE)? {
        assert!(Instant::now() < end, "no answer within {LONG:?}: {slots:?}");
    }
    Ok(())
}

/// A client that holds a slot, one of `limit`.
fn holder(daemon: &Poolcounterd, limit: u32) -> Poolcounter {
    let mut slots = client(daemon);
    slots.ask(limit, LONG).expect("the daemon runs");
    assert_eq!(answer(&mut slots), Ok(()));
    slots
}

/// A client in the queue.
fn waiter(daemon: &Poolcounterd, at_most: Duration) -> Poolcounter {
    let mut slots = client(daemon);
    slots.ask(1, at_most).expect("the daemon runs");
    assert_eq!(slots.granted(SLICE), Ok(false));
    slots
}

/// Says a line to the daemon as any program would, and returns what one read gives.
fn say(stream: &mut TcpStream, line: &str) -> Result<String> {
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(line.as_bytes())?;
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Waits until this many wait in the daemon's queues.
fn until_waiting(daemon: &Poolcounterd, count: usize) -> Result<()> {
    wait::until(&format!("{count} in the queue"), LONG, || {
        let mut stream = TcpStream::connect(daemon.address().port(PORT))?;
        Ok(say(&mut stream, "STATS FULL\n")?.contains(&format!("\nwaiting_workers: {count}\n")))
    })
}

fn unreachable(outcome: Result<(), SlotError>) -> String {
    match outcome {
        Err(SlotError::Unreachable(why)) => why,
        other => panic!("not unreachable, but {other:?}"),
    }
}

fn lost(outcome: Result<(), SlotError>) -> String {
    match outcome {
        Err(SlotError::Lost(why)) => why,
        other => panic!("not lost, but {other:?}"),
    }
}

#[test]
fn twenty_at_once_never_exceed_the_limit() -> Result<()> {
    const LIMIT: usize = 3;
    let daemon = Poolcounterd::start()?;
    let (inside, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut slots = client(&daemon);
                for _ in 0..5 {
                    slots.ask(LIMIT as u32, LONG).expect("the daemon runs");
                    assert_eq!(answer(&mut slots), Ok(()));
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(5));
                    assert_eq!(slots.look(), Ok(()));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    slots.release();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!((most.into_inner(), done.into_inner()), (LIMIT, 100));
    Ok(())
}

#[test]
fn first_in_first_out() -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let mut first = holder(&daemon, 1);
    let (sender, order) = channel();
    thread::scope(|scope| -> Result<()> {
        for number in 0..5 {
            let mut slots = waiter(&daemon, LONG);
            until_waiting(&daemon, number + 1)?;
            let sender = sender.clone();
            scope.spawn(move || {
                assert_eq!(answer(&mut slots), Ok(()));
                sender.send(number).expect("the test listens");
                slots.release();
            });
        }
        first.release();
        Ok(())
    })?;
    drop(sender);
    assert_eq!(order.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    Ok(())
}

#[test]
fn the_limit_is_shared_with_whoever_speaks_as_the_original_does() -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let mut original = TcpStream::connect(daemon.address().port(PORT))?;
    assert_eq!(say(&mut original, &format!("ACQ4ME {KEY} 1 10000 600\n"))?, "LOCKED\n");
    let mut slots = waiter(&daemon, LONG);
    assert_eq!(say(&mut original, &format!("RELEASE {KEY}\n"))?, "RELEASED\n");
    assert_eq!(answer(&mut slots), Ok(()));
    original.write_all(format!("ACQ4ME {KEY} 1 10000 600\n").as_bytes())?;
    until_waiting(&daemon, 1)?;
    slots.release();
    let mut buffer = [0; 64];
    let count = original.read(&mut buffer)?;
    assert_eq!(&buffer[..count], b"LOCKED\n");
    Ok(())
}

#[test]
fn another_key_is_another_limit() -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let _holder = holder(&daemon, 1);
    let backends = Backends::parse(Path::new("/b.yaml"), &daemon.backend("pc1"))?;
    let mut other = Poolcounter::new(&backends, Key::new("ServiceRestarter::eqiad::api")?);
    other.ask(1, LONG)?;
    assert_eq!(answer(&mut other), Ok(()));
    Ok(())
}

#[test]
fn the_time_in_the_queue_is_bounded_and_the_message_says_by_whom() -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let mut held = holder(&daemon, 1);
    let mut slots = waiter(&daemon, Duration::from_millis(1500));
    let address = daemon.address();
    let expected =
        format!("no slot for '{KEY}', at most 1 at once: none came free in 2 s (poolcounter 'pc1' ({address}))");
    assert_eq!(answer(&mut slots), Err(SlotError::Taken(expected.clone())));
    // The same answer until it is asked for anew.
    assert_eq!(slots.granted(SLICE), Err(SlotError::Taken(expected.clone())));
    assert_eq!(slots.look(), Err(SlotError::Taken(expected)));
    let who = format!("1 hold and 1 wait on poolcounter 'pc1' ({address}), all keys together; it knows no names");
    assert_eq!(slots.holders(), [who]);
    held.release();
    slots.ask(1, LONG)?;
    assert_eq!(answer(&mut slots), Ok(()));
    Ok(())
}

#[test]
fn a_dropped_client_frees_its_slot_and_its_place_in_the_queue() -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let held = holder(&daemon, 1);
    let queued = waiter(&daemon, LONG);
    until_waiting(&daemon, 1)?;
    drop(queued);
    until_waiting(&daemon, 0)?;
    drop(held);
    let mut next = holder(&daemon, 1);
    assert_eq!(next.look(), Ok(()));
    Ok(())
}

#[test]
fn asking_again_gives_up_what_was_held() -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let mut slots = holder(&daemon, 1);
    slots.ask(1, LONG)?;
    assert_eq!(answer(&mut slots), Ok(()));
    slots.release();
    slots.release();
    lost(slots.look());
    Ok(())
}

#[test]
fn a_daemon_that_does_not_run_is_unreachable_at_once() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    daemon.kill()?;
    let why = unreachable(client(&daemon).ask(1, LONG));
    assert!(
        why.ends_with(&format!("cannot reach poolcounter 'pc1' ({}): connection refused", daemon.address())),
        "{why}"
    );
    Ok(())
}

#[test]
fn an_unknown_host_is_unreachable_within_bounds() {
    let began = Instant::now();
    let why = unreachable(client_of("- pc1:no-such-host.invalid:1\n").ask(1, LONG));
    assert!(why.contains("cannot reach poolcounter 'pc1' (no-such-host.invalid): "), "{why}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_daemon_frozen_before_we_connect_does_not_answer() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    daemon.freeze()?;
    let mut slots = client(&daemon);
    let began = Instant::now();
    // The kernel accepts for it.
    slots.ask(1, LONG)?;
    let why = unreachable(answer(&mut slots));
    assert!(began.elapsed() < LONG / 3, "{:?}", began.elapsed());
    let expected = format!(
        "no slot for '{KEY}': poolcounter 'pc1' ({}) does not answer: no answer to STATS FULL within 1s, 2 times",
        daemon.address()
    );
    assert_eq!(why, expected);
    Ok(())
}

#[test]
fn a_daemon_frozen_while_we_wait_does_not_answer() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let _held = holder(&daemon, 1);
    let mut slots = waiter(&daemon, LONG);
    daemon.freeze()?;
    let began = Instant::now();
    let why = unreachable(answer(&mut slots));
    assert!(why.contains("does not answer: "), "{why}");
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_daemon_frozen_for_a_moment_costs_no_place_in_the_queue() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let mut held = holder(&daemon, 1);
    let mut slots = waiter(&daemon, LONG);
    daemon.freeze()?;
    assert_eq!(slots.granted(Duration::from_millis(500)), Ok(false));
    daemon.thaw()?;
    held.release();
    assert_eq!(answer(&mut slots), Ok(()));
    Ok(())
}

#[test]
fn a_slot_is_kept_through_a_frozen_daemon_and_its_release_is_bounded() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let mut slots = holder(&daemon, 1);
    daemon.freeze()?;
    assert_eq!(slots.look(), Ok(()));
    daemon.thaw()?;
    assert_eq!(slots.look(), Ok(()));
    daemon.freeze()?;
    let began = Instant::now();
    slots.release();
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
    daemon.thaw()?;
    holder(&daemon, 1);
    Ok(())
}

#[test]
fn a_daemon_killed_while_we_hold_is_a_lost_slot() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let mut slots = holder(&daemon, 1);
    daemon.kill()?;
    let why = lost(slots.look());
    let expected = format!("lost the slot for '{KEY}': poolcounter 'pc1' ({}) closed the connection", daemon.address());
    assert_eq!(why, expected);
    assert_eq!(lost(slots.look()), expected);
    assert_eq!(lost(slots.granted(SLICE).map(|_| ())), expected);
    slots.release();
    Ok(())
}

#[test]
fn a_daemon_killed_while_we_wait_is_asked_again_when_it_is_back() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let mut held = holder(&daemon, 1);
    let mut slots = waiter(&daemon, LONG);
    daemon.kill()?;
    lost(held.look());
    assert_eq!(slots.granted(SLICE), Ok(false));
    // Both have reset their connections, so that it can listen again at once.
    daemon.start_again()?;
    assert_eq!(answer(&mut slots), Ok(()));
    assert_eq!(slots.look(), Ok(()));
    Ok(())
}

#[test]
fn a_daemon_killed_while_we_wait_that_stays_away_is_unreachable_in_time() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let _held = holder(&daemon, 1);
    let mut slots = waiter(&daemon, Duration::from_secs(3));
    daemon.kill()?;
    let why = unreachable(answer(&mut slots));
    assert!(why.contains("was lost while waiting and not reached again in "), "{why}");
    assert!(why.ends_with(" s: connection refused"), "{why}");
    Ok(())
}

#[test]
fn with_no_patience_the_first_loss_is_the_end() -> Result<()> {
    let mut daemon = Poolcounterd::start()?;
    let _held = holder(&daemon, 1);
    let mut slots = client(&daemon).with_patience(Duration::ZERO);
    slots.ask(1, LONG)?;
    assert_eq!(slots.granted(SLICE), Ok(false));
    daemon.kill()?;
    let why = unreachable(answer(&mut slots));
    assert!(why.ends_with("not reached again in 0 s: it closed the connection"), "{why}");
    Ok(())
}

#[test]
fn nobody_can_be_one_of_none() -> Result<()> {
    let daemon = Poolcounterd::start()?;
    let mut slots = client(&daemon);
    assert!(matches!(slots.ask(0, LONG), Err(SlotError::Refused(_))));
    assert!(matches!(slots.granted(SLICE), Err(SlotError::Refused(_))));
    Ok(())
}
