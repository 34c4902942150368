//! `--status` over hosts of a list: what each says of itself, and of those that say nothing, why.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::{Ran, World, name, send};

const EMPTY: &str = r#"{"state":"empty","left":null,"set_aside":[]}"#;

/// What a host does that answers with this journal.
fn answers(code: u8, journal: &str) -> String {
    let pools = r#"[{"pool":"app","node":"dc/c/php/x.test","store":{"state":"node","pooled":"no"}}]"#;
    format!(
        "[ \"$request\" = '{{\"status\":true}}' ] || end 99\n\
         echo '{{\"exit_code\":{code},\"state\":\"the headline\",\"journal\":{journal},\"lock\":{{\"state\":\"free\"}},\
         \"pools\":{pools}}}'\nend {code}"
    )
}

fn held(world: &World, number: usize) {
    let host = name(number);
    let left = format!(
        r#"{{"what":"held","host":"{host}","run":"4f2a","since":"2026-11-23T10:00:00Z","user":"alice","reason":"T1","phase":"held"}}"#
    );
    world.behave(number, &answers(3, &format!(r#"{{"state":"left","left":{left},"set_aside":[]}}"#)));
}

#[test]
fn each_host_is_asked_the_one_question_and_nothing_is_restarted() {
    let world = World::new(3);
    world.behave(1, &answers(0, EMPTY));
    held(&world, 2);
    world.behave(3, "echo 'sudo: a password is required' >&2; end 1");
    let ran = world.run("--status");
    ran.ended_with(3).says("3 of 3 hosts are listed: 1 held, 1 not-ours, 1 no-answer");
    assert_eq!(
        ran.stdout,
        "HOST         POOLED  STATE      SINCE                 BY     RUN   REASON\n\
         mw0001.test  php=no  not-ours   -                     -      -     -\n\
         mw0002.test  php=no  held       2026-11-23T10:00:00Z  alice  4f2a  T1\n\
         mw0003.test  -       no-answer  -                     -      -     ended with 1 and no status: sudo: a password is required\n"
    );
    assert!(world.restarts().is_empty());
    assert!(world.requests().iter().all(|request| *request == serde_json::json!({"status": true})));
}

#[test]
fn for_programs_there_is_one_object_for_each_host_and_one_at_the_end() {
    let world = World::new(2);
    held(&world, 1);
    world.behave(2, &answers(0, EMPTY));
    let ran = world.run("--status --json -q");
    ran.ended_with(3);
    let events = ran.events();
    let seen = &events[0];
    assert_eq!(
        (&seen["event"], &seen["host"], &seen["state"]),
        (&"host-status".into(), &name(1).into(), &"held".into())
    );
    assert_eq!((&seen["by"], &seen["reason"], &seen["run"]), (&"alice".into(), &"T1".into(), &"4f2a".into()));
    assert_eq!((&seen["nodes"][0]["pooled"], &seen["status"]["exit_code"]), (&"no".into(), &3.into()));
    assert_eq!((&ran.end()["exit_code"], &ran.end()["listed"]), (&3.into(), &2.into()));
}

#[test]
fn a_host_that_does_not_answer_in_time_is_told_with_the_time() {
    let world = World::new(1);
    world.behave(1, "sleep 300");
    let ran = world.run("--status --host-timeout 0.5 --json");
    ran.ended_with(69).says("1 of 1 hosts are listed: 1 no-answer");
    assert_eq!(ran.events()[0]["message"], "no answer within 500ms");
}

#[test]
fn hosts_that_say_something_else_are_told_with_why() {
    let world = World::new(4);
    world.behave(1, "report 2 untouched 'unknown field'");
    world.behave(2, "echo 'Host key verification failed.' >&2; end 255");
    world.behave(3, "printf '{\"exit_code\":0,\"jour'; end 0");
    world.behave(4, &format!("head -c 9000000 /dev/zero | tr '\\0' x | fold -w 99; echo\n{}", answers(0, EMPTY)));
    let ran = world.run("--status --json");
    ran.ended_with(69).says("4 of 4 hosts are listed: 1 not-ours, 3 no-answer");
    let messages: Vec<_> =
        ran.events().iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(messages[0], "unknown field");
    assert_eq!(messages[1], "Host key verification failed.");
    assert_eq!(messages[2], "ended with 0 and no status: it said nothing");
    assert_eq!(messages[3], "the headline");
}

#[test]
fn more_hosts_than_are_asked_at_once() {
    let world = World::new(200);
    for number in 1..=200 {
        world.behave(number, &format!("sleep 0.02\n{}", answers(0, EMPTY)));
    }
    let ran = world.run("--status");
    ran.ended_with(0).says("200 of 200 hosts are listed: 200 not-ours");
    let names: Vec<_> = ran.stdout.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, (1..=200).map(name).collect::<Vec<_>>(), "in the order of the list");
    assert!(world.most_at_once() <= 64, "{}", world.most_at_once());
}

#[test]
fn ctrl_c_waits_for_none_and_prints_what_there_is() {
    let world = World::new(2);
    held(&world, 1);
    world.behave(2, "echo asked >\"$dir/asked\"; sleep 300");
    let child = world.start("--status --json");
    crate::world::wait_for("the question", || world.path("asked").exists() && world.started().len() == 2);
    std::thread::sleep(Duration::from_millis(300));
    send(&child, Signal::SIGINT);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.signal, Some(2), "{}", ran.stderr);
    assert_eq!(ran.end()["exit_code"], 130);
    assert_eq!(ran.events()[1]["message"], "no answer yet");
}
