//! What the real daemon hardly ever says, from a stand-in of a few lines that says it: a full queue, rubbish, unasked replies,
//! connections closed at every point.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use poolcounter::{Backends, Key, PORT, Poolcounter};
use restart_core::{SlotError, Slots as _};
use testbed::Result;
use testbed::address::Address;

const LONG: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_millis(50);

/// A daemon that answers figures as it should, and an `ACQ4ME` as the test says, given how many there were before. It ends with
/// the test's process.
struct StandIn {
    address: Address,
    /// Every line that it was sent but those for figures.
    lines: Receiver<String>,
}

fn stand_in(acquire: impl Fn(&mut TcpStream, u32) + Send + Sync + Copy + 'static) -> Result<StandIn> {
    static COUNTS: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = &COUNTS[NEXT.fetch_add(1, Ordering::Relaxed) as usize];
    let address = Address::reserve()?;
    let listener = TcpListener::bind(address.port(PORT))?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.expect("a connection"), sender.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
                let mut line = String::new();
                let _ = reader.read_line(&mut line);
                if line == "STATS FULL\n" {
                    let _ = stream.write_all(b"processing_workers: 1\nwaiting_workers: 1\n\n");
                    return;
                }
                let _ = sender.send(line);
                acquire(&mut stream, count.fetch_add(1, Ordering::SeqCst));
            });
        }
    });
    Ok(StandIn { address, lines })
}

fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

/// Keeps the connection open until the other side closes it.
fn keep(stream: &TcpStream) {
    let _ = BufReader::new(stream).read_line(&mut String::new());
}

fn asked(daemon: &StandIn, at_most: Duration) -> Poolcounter {
    let list = format!("- pc1:{}:1\n", daemon.address);
    let backends = Backends::parse(Path::new("/b.yaml"), &list).expect("a good list");
    let mut slots = Poolcounter::new(&backends, Key::new("key").expect("a key"));
    slots.ask(3, at_most).expect("it accepts");
    slots
}

fn answer(slots: &mut Poolcounter) -> Result<(), SlotError> {
    let end = Instant::now() + LONG;
    while !slots.granted(SLICE)? {
        assert!(Instant::now() < end, "no answer within {LONG:?}: {slots:?}");
    }
    Ok(())
}

/// Looks until something is wrong.
fn fault_while_holding(slots: &mut Poolcounter) -> SlotError {
    let end = Instant::now() + LONG;
    loop {
        match slots.look() {
            Err(error) => return error,
            Ok(()) if Instant::now() > end => panic!("nothing found wrong within {LONG:?}"),
            Ok(()) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn the_request_is_the_one_of_the_original() -> Result<()> {
    let daemon = stand_in(|stream, _| say(stream, "LOCKED\n"))?;
    assert_eq!(answer(&mut asked(&daemon, Duration::from_millis(2500))), Ok(()));
    assert_eq!(daemon.lines.recv_timeout(LONG)?, "ACQ4ME key 3 10000 3\n");
    Ok(())
}

/// With `--slot-timeout 0` there is one look, and no time for another.
#[test]
fn a_free_slot_at_a_daemon_far_away_is_had_at_the_first_look_however_short() -> Result<()> {
    let daemon = stand_in(|stream, _| {
        thread::sleep(Duration::from_millis(30));
        say(stream, "LOCKED\n");
        keep(stream);
    })?;
    // On a machine that is too busy for once, it is not.
    assert!((0..20).any(|_| asked(&daemon, Duration::ZERO).granted(Duration::ZERO) == Ok(true)));
    Ok(())
}

#[test]
fn the_first_look_at_a_daemon_that_does_not_answer_is_short_all_the_same() -> Result<()> {
    let daemon = stand_in(|stream, _| keep(stream))?;
    let mut slots = asked(&daemon, LONG);
    let began = Instant::now();
    assert_eq!(slots.granted(Duration::ZERO), Ok(false));
    assert!(began.elapsed() < LONG / 10, "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_full_queue_is_no_slot() -> Result<()> {
    let daemon = stand_in(|stream, _| say(stream, "QUEUE_FULL\n"))?;
    let why = format!(
        "no slot for 'key', at most 3 at once: 10000 hold one or wait for one already (poolcounter 'pc1' ({}))",
        daemon.address
    );
    assert_eq!(answer(&mut asked(&daemon, LONG)), Err(SlotError::Taken(why)));
    Ok(())
}

#[test]
fn whatever_is_no_answer_to_the_request_is_refused() -> Result<()> {
    let table = [
        (stand_in(|stream, _| say(stream, "DONE\n"))?, "answers 'DONE'"),
        (stand_in(|stream, _| say(stream, "LOCK_HELD\n"))?, "answers 'LOCK_HELD'"),
        (stand_in(|stream, _| say(stream, "ERROR OUT_OF_MEMORY\n"))?, "answers 'ERROR OUT_OF_MEMORY'"),
        (stand_in(|stream, _| say(stream, "ERROR WRONG_STAT"))?, "answers 'ERROR WRONG_STAT'"),
        (stand_in(|stream, _| say(stream, "\n"))?, "answers '', which is no reply of poolcounterd"),
        (
            stand_in(|stream, _| say(stream, "LOCKED maybe\n"))?,
            "answers 'LOCKED maybe', which is no reply of poolcounterd",
        ),
    ];
    for (daemon, expected) in table {
        let why = format!("no slot for 'key': poolcounter 'pc1' ({}) {expected}", daemon.address);
        assert_eq!(answer(&mut asked(&daemon, LONG)), Err(SlotError::Refused(why)));
    }
    Ok(())
}

#[test]
fn an_endless_line_is_refused() -> Result<()> {
    let daemon = stand_in(|stream, _| while stream.write_all(&[b'x'; 1024]).is_ok() {})?;
    assert!(matches!(answer(&mut asked(&daemon, LONG)), Err(SlotError::Refused(_))));
    Ok(())
}

#[test]
fn a_connection_closed_while_we_wait_is_made_again_with_the_time_that_remains() -> Result<()> {
    let daemon = stand_in(|stream, before| match before {
        0 => {}
        1 => say(stream, "LOC"),
        2 => thread::sleep(Duration::from_millis(1200)),
        _ => {
            say(stream, "LOCKED\n");
            keep(stream);
        }
    })?;
    let mut slots = asked(&daemon, Duration::from_secs(30));
    assert_eq!(answer(&mut slots), Ok(()));
    assert_eq!(slots.look(), Ok(()));
    let last_word = |line: String| line.split_whitespace().last().and_then(|word| word.parse().ok());
    let timeouts: Vec<u32> = daemon.lines.try_iter().filter_map(last_word).collect();
    assert_eq!((timeouts.len(), timeouts[0]), (4, 30));
    assert!(timeouts[3] < 30, "{timeouts:?}");
    Ok(())
}

#[test]
fn a_daemon_that_always_closes_is_given_up_when_the_time_is_over() -> Result<()> {
    let daemon = stand_in(|_, _| {})?;
    let why = match answer(&mut asked(&daemon, Duration::from_secs(2))) {
        Err(SlotError::Unreachable(why)) => why,
        other => panic!("not unreachable, but {other:?}"),
    };
    assert!(why.contains("was lost while waiting and not reached again"), "{why}");
    // The pauses grow.
    let tries = daemon.lines.try_iter().count();
    assert!((3..=10).contains(&tries), "{tries} tries");
    Ok(())
}

#[test]
fn a_daemon_that_is_alive_but_never_answers_is_given_up_when_the_time_is_over() -> Result<()> {
    let daemon = stand_in(|stream, _| keep(stream))?;
    let why = match answer(&mut asked(&daemon, Duration::from_secs(1))) {
        Err(SlotError::Unreachable(why)) => why,
        other => panic!("not unreachable, but {other:?}"),
    };
    assert!(why.ends_with("does not answer: no answer 1s after the time that it was given"), "{why}");
    Ok(())
}

#[test]
fn a_slot_that_the_daemon_takes_back_is_lost() -> Result<()> {
    for (daemon, word) in [
        (stand_in(|stream, _| (say(stream, "LOCKED\nTIMEOUT\n"), keep(stream)).1)?, "TIMEOUT"),
        (stand_in(|stream, _| (say(stream, "LOCKED\nRELEASED\n"), keep(stream)).1)?, "RELEASED"),
        (stand_in(|stream, _| (say(stream, "LOCKED\nNOT_LOCKED\n"), keep(stream)).1)?, "NOT_LOCKED"),
    ] {
        let mut slots = asked(&daemon, LONG);
        assert_eq!(answer(&mut slots), Ok(()));
        let why = format!("lost the slot for 'key': poolcounter 'pc1' ({}) says '{word}', unasked", daemon.address);
        assert_eq!(fault_while_holding(&mut slots), SlotError::Lost(why.clone()));
        assert_eq!(slots.look(), Err(SlotError::Lost(why)));
    }
    Ok(())
}

#[test]
fn anything_else_unasked_is_no_slot_to_rely_on() -> Result<()> {
    for daemon in [
        stand_in(|stream, _| (say(stream, "LOCKED\nLOCKED\n"), keep(stream)).1)?,
        stand_in(|stream, _| (say(stream, "LOCKED\nERROR BAD_COMMAND\n"), keep(stream)).1)?,
        stand_in(|stream, _| (say(stream, "LOCKED\nrubbish"), keep(stream)).1)?,
    ] {
        let mut slots = asked(&daemon, LONG);
        assert_eq!(answer(&mut slots), Ok(()));
        assert!(matches!(fault_while_holding(&mut slots), SlotError::Refused(_)));
    }
    Ok(())
}

#[test]
fn a_connection_closed_while_we_hold_is_a_lost_slot() -> Result<()> {
    let daemon = stand_in(|stream, _| say(stream, "LOCKED\n"))?;
    let mut slots = asked(&daemon, LONG);
    assert_eq!(answer(&mut slots), Ok(()));
    assert!(matches!(fault_while_holding(&mut slots), SlotError::Lost(_)));
    Ok(())
}

#[test]
fn a_look_costs_microseconds() -> Result<()> {
    let daemon = stand_in(|stream, _| (say(stream, "LOCKED\n"), keep(stream)).1)?;
    let mut slots = asked(&daemon, LONG);
    assert_eq!(answer(&mut slots), Ok(()));
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(slots.look(), Ok(()));
    }
    // A thousand of them within a second, on any machine.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}
