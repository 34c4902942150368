//! Programs that do not do what is expected of them.

use std::fs;

use crate::world::{Ran, World, name, wait_for};

#[test]
fn a_host_that_floods_us_is_drained_and_its_report_is_found() {
    let world = World::new(2);
    world.behave(1, "head -c 20000000 /dev/zero | tr '\\0' 'x' | fold -w 1000 | tee /dev/stderr; echo; restart 0");
    let ran = world.run("--json -q");
    ran.ended_with(0);
    assert_eq!(ran.listed("done"), [name(1), name(2)]);
}

#[test]
fn a_host_that_takes_too_long_is_given_up_with_all_that_was_started_for_it_even_if_it_will_not_hear() {
    let world = World::new(2);
    let script = "trap '' TERM; echo $$ >\"$dir/pid\"; sleep 300 & echo $! >>\"$dir/pid\"; wait; sleep 300";
    world.behave(1, script);
    let ran = world.run("--host-timeout 0.5 --max-failures 2 --canaries 0 --batch 1 --json");
    ran.ended_with(1).says("failed: mw0001.test: no end within 500ms");
    ran.says("no answer in time, and perhaps still running (1): mw0001.test");
    assert_eq!(ran.listed("done"), [name(2)]);
    await_their_end(&world);
}

/// Of those that wrote down their numbers.
fn await_their_end(world: &World) {
    let pids = fs::read_to_string(world.path("pid")).unwrap();
    assert!(!pids.is_empty());
    let is_gone = |pid: &str| match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    wait_for("their end", || pids.lines().all(is_gone));
}

#[test]
fn a_gate_that_takes_too_long_leaves_nothing_behind_that_will_not_hear() {
    let world = World::new(2);
    let pid = world.path("pid");
    let gate = format!("trap '' TERM; sleep 300 & echo $! >{}; trap - TERM; sleep 300", pid.display());
    let mut command = world.command("--gate-timeout 3");
    let ran = Ran::of(command.arg("--gate").arg(gate).output().unwrap());
    ran.ended_with(1).says("the gate says no: no answer in time");
    await_their_end(&world);
}

#[test]
fn a_program_that_closes_its_input_unread_is_judged_by_what_it_says() {
    let world = World::new(2);
    world.before(1, "exec <&-; report 2 untouched 'the request cannot be used'");
    let ran = world.run("--max-failures 2 --canaries 0");
    ran.ended_with(1).says("mw0001.test: failed with 2").says("the request cannot be used");
}

#[test]
fn a_program_that_leaves_its_pipes_open_behind_it_has_ended_all_the_same() {
    let world = World::new(1);
    world.behave(1, "sleep 300 & echo $! >\"$dir/pid\"; restart 0");
    world.run("-q").ended_with(0);
    let left: i32 = fs::read_to_string(world.path("pid")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// As sshd keeps a connection open for whatever was started there and holds the output.
#[test]
fn a_host_that_reported_and_does_not_let_go_is_what_it_reported() {
    let world = World::new(2);
    world.behave(1, "(restart 0); sleep 300").behave(2, "(report 3 failed 'not ready'); sleep 300");
    let ran = world.run("--host-timeout 3 --canaries 0 --batch 2 --json");
    ran.ended_with(3);
    assert_eq!((ran.listed("done"), ran.listed("left_depooled")), (vec![name(1)], vec![name(2)]));
    assert!(ran.listed("perhaps_running").is_empty(), "{}", ran.stdout);
}

#[test]
fn without_a_report_nothing_is_taken_to_be_done() {
    let world = World::new(1);
    world.behave(1, "end 0");
    let ran = world.run("");
    ran.ended_with(1).says("mw0001.test: failed after ").says("ended with 0 and no report");
}

#[test]
fn a_program_that_is_not_there_is_a_failure_of_the_first_host() {
    let world = World::new(4);
    let mut command = world.command("");
    command.args(["--max-failures", "1"]);
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let place = arguments.iter().position(|word| word == "--rsh").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rolling-restart"));
    command.args(&arguments[..=place]).arg("/nonexistent/rsh").args(&arguments[place + 2..]);
    let ran = Ran::of(command.output().unwrap());
    ran.ended_with(1).says("mw0001.test: failed").says("cannot run '/nonexistent/rsh'").says("never tried (3)");
}
