//! Programs, readers and terminals that do not do what is expected of them.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{FlowArg, tcflow};

use crate::world::{Ran, World, name, send, wait_for};

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
    let ran = world.run("--host-timeout 2 --max-failures 2 --canaries 0 --batch 1 --json");
    ran.ended_with(1).says("failed: mw0001.test: no end within 2s");
    ran.says("no answer in time, and perhaps still running (1): mw0001.test");
    assert_eq!(ran.listed("done"), [name(2)]);
    await_their_end(&world);
}

/// Events of so many hosts are more than a pipe holds.
const MORE_THAN_A_PIPE: usize = 300;

/// Starts a run whose events nobody reads, and returns what it said until it waits for their reader.
fn unread(world: &World) -> (Child, BufReader<ChildStderr>, String) {
    let mut child = world.start("--json --canaries 0 --batch 30");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("waiting for the reader of standard output") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it ended: {said}");
    }
    assert_eq!(world.restarts().len(), MORE_THAN_A_PIPE);
    (child, stderr, said)
}

#[test]
fn a_reader_that_stands_still_holds_up_no_host_and_no_signal() {
    let world = World::new(MORE_THAN_A_PIPE);
    let (mut child, mut stderr, mut said) = unread(&world);
    send(&child, Signal::SIGTERM);
    stderr.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.contains("cannot print all events"), "{said}");
}

#[test]
fn a_reader_that_is_slow_gets_every_event() {
    let world = World::new(MORE_THAN_A_PIPE);
    let (child, _stderr, _) = unread(&world);
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.ended_with(0);
    assert_eq!(ran.listed("done").len(), MORE_THAN_A_PIPE);
    let ended = ran.events().iter().filter(|event| event["event"] == "host-ended").count();
    assert_eq!(ended, MORE_THAN_A_PIPE);
}

/// As after Ctrl-S, or behind a connection that stalls.
#[test]
fn a_terminal_that_takes_nothing_holds_up_no_host_and_no_signal() {
    const HOSTS: usize = 20;

    let world = World::new(HOSTS);
    world.behave(HOSTS, "sleep 300");
    let terminal = openpty(None, None).unwrap();
    tcflow(&terminal.slave, FlowArg::TCOOFF).unwrap();
    let mut command = world.command("--canaries 0 --batch 100% -v");
    let child = command.env("TERM", "xterm").stderr(terminal.slave).spawn().unwrap();
    wait_for("all but one", || world.restarts().len() == HOSTS - 1);
    // One that comes a while after the first is the second request.
    let child = RefCell::new(child);
    wait_for("its end", || {
        send(&child.borrow(), Signal::SIGTERM);
        child.borrow_mut().try_wait().unwrap().is_some()
    });
    assert_eq!(child.borrow_mut().wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
}

/// The tool on a terminal of its own, as from a shell.
fn at_a_terminal(world: &World, arguments: &[&str]) -> Ran {
    let plain = world.command("--no-progress --canaries 0 --batch 1 --host-timeout 20 --gate-timeout 20");
    let words = [plain.get_program()].into_iter().chain(plain.get_args()).chain(arguments.iter().map(OsStr::new));
    let quoted: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut command = Command::new("/usr/bin/script");
    command.args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]).stdin(Stdio::null());
    let mut ran = Ran::of(command.output().unwrap());
    ran.stderr = std::mem::take(&mut ran.stdout);
    ran
}

#[test]
fn a_program_that_asks_at_the_terminal_is_ended_at_once_and_says_so() {
    let world = World::new(3);
    world.behave(2, "read answer </dev/tty; restart 0");
    let ran = at_a_terminal(&world, &[]);
    ran.ended_with(1).says("failed: mw0002.test: it asks for something at the terminal, where it gets no answer");
    assert_eq!(world.started(), [name(1), name(2)]);
}

#[test]
fn a_gate_that_asks_at_the_terminal_says_no() {
    let world = World::new(3);
    let ran = at_a_terminal(&world, &["--gate", "read answer </dev/tty"]);
    ran.ended_with(1).says("the gate says no: it asks for something at the terminal");
    assert_eq!(world.started(), [name(1)]);
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
