//! Ctrl-C, once and twice, and a run that is killed and begun again.

use std::io::Read as _;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::{Ran, World, name, send, start, wait_for};

/// Sends a signal, and waits until the run says that it ends because of it. What it says from then on is left to be read.
fn ask_for_the_end(child: &mut Child, signal: Signal) -> String {
    send(child, signal);
    let stderr = child.stderr.as_mut().unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"no other host is started: somebody asks for the end") {
        let mut byte = [0];
        let read = stderr.read(&mut byte).unwrap();
        assert_eq!(read, 1, "it ended: {}", String::from_utf8_lossy(&said));
        said.extend(byte);
    }
    String::from_utf8(said).unwrap()
}

/// A second signal counts only a while after the first (see `host::signals`).
const A_WHILE: Duration = Duration::from_millis(1200);

#[test]
fn ctrl_c_starts_no_other_host_and_waits_for_those_that_run() {
    let world = World::new(12);
    for number in 1..=12 {
        world.behave(number, "while [ ! -e \"$dir/go\" ]; do sleep 0.05; done; restart 0");
    }
    let mut child = world.start("--canaries 0 --batch 3 --json --host-timeout 60");
    world.await_starts(3);
    let said = ask_for_the_end(&mut child, Signal::SIGINT);
    assert!(said.contains("SIGINT: no other host is started"), "{said}");
    std::fs::write(world.path("go"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.signal, Some(2), "{}", ran.stderr);
    ran.says("go on with: rolling-restart --since");
    assert_eq!(ran.end()["exit_code"], 130);
    assert_eq!(ran.listed("done").len(), 3);
    assert_eq!(ran.listed("never_tried").len(), 9);
    assert_eq!(world.started().len(), 3);
}

#[test]
fn a_signal_that_the_caller_blocks_is_heeded_all_the_same() {
    let world = World::new(5);
    world.behave(1, "while [ ! -e \"$dir/go\" ]; do sleep 0.05; done; restart 0");
    let mut child = world.start_by("--block-signal", "--json --host-timeout 60");
    world.await_starts(1);
    ask_for_the_end(&mut child, Signal::SIGTERM);
    std::fs::write(world.path("go"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.signal, Some(15), "{}", ran.stderr);
    assert_eq!(ran.listed("never_tried").len(), 4);
}

#[test]
fn ctrl_c_twice_waits_for_none_and_names_those_that_still_run() {
    let world = World::new(5);
    world.behave(1, "restart 0").behave(2, "sleep 300").behave(3, "sleep 300");
    let child = world.start("--batch 2 --json");
    world.await_starts(3);
    send(&child, Signal::SIGTERM);
    std::thread::sleep(A_WHILE);
    send(&child, Signal::SIGTERM);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.signal, Some(15), "{}", ran.stderr);
    ran.says("still running, and no longer waited for (2): mw0002.test mw0003.test");
    assert_eq!(ran.listed("still_running"), [name(2), name(3)]);
}

#[test]
fn a_host_left_depooled_outweighs_the_signal() {
    let world = World::new(5);
    world.behave(1, "while [ ! -e \"$dir/go\" ]; do sleep 0.05; done; report 3 failed 'not ready'");
    let child = world.start("");
    world.await_starts(1);
    send(&child, Signal::SIGINT);
    std::fs::write(world.path("go"), "").unwrap();
    Ran::of(child.wait_with_output().unwrap()).ended_with(3);
}

#[test]
fn killed_half_way_and_resumed_every_host_is_restarted_exactly_once() {
    let world = World::new(60);
    let mut child = world.start("--batch 6 -q");
    world.await_starts(30);
    send(&child, Signal::SIGKILL);
    child.wait().unwrap();
    let before = world.requests().len();
    let ran = world.run("--batch 6 --since 2026-11-23T10:00:00Z --json");
    ran.ended_with(0).says("skipped");
    let restarts = world.restarts();
    assert_eq!(restarts.len(), 60);
    assert!(restarts.values().all(|count| *count == 1), "{restarts:?}");
    assert!(ran.listed("skipped").len() >= 20);
    // The requests of hosts that were cut off may come late, but they are of the first run.
    let run = ran.end()["run"].clone();
    let second: Vec<_> = world.requests().into_iter().filter(|request| request["run"] == run).collect();
    assert_eq!(second.len(), 60, "{before} before");
    assert!(second.iter().all(|request| request["unless_restarted_since"] == "2026-11-23T10:00:00.000Z"));
}

#[test]
fn a_signal_that_comes_while_the_gate_runs_ends_the_gate() {
    let world = World::new(3);
    let asked = world.path("asked");
    let mut command = world.command("--json");
    command.arg("--gate").arg(format!("touch {}; sleep 300", asked.display()));
    let child = start(&command);
    wait_for("the gate", || asked.exists());
    send(&child, Signal::SIGHUP);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.signal, Some(1), "{}", ran.stderr);
    assert_eq!(ran.listed("never_tried").len(), 2);
}

#[test]
fn without_its_terminal_a_run_goes_on_where_it_was_told_to() {
    let world = World::new(6);
    for number in 1..=6 {
        world.behave(number, "while [ ! -e \"$dir/go\" ]; do sleep 0.05; done; restart 0");
    }
    let plain = world.command("--json");
    // As nohup does it.
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    world.await_starts(1);
    // Nobody reads any more what it says.
    drop((child.stdout.take(), child.stderr.take()));
    send(&child, Signal::SIGHUP);
    std::fs::write(world.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(world.restarts().len(), 6);
}
