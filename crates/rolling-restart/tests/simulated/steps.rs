//! Canaries, gate, force, and what hosts are told.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::world::{Ran, World, name};

#[test]
fn canaries_come_first_then_the_gate_and_a_no_leaves_the_others_alone() {
    let world = World::new(10);
    let ran = world.run("--canaries 2 --batch 2 --gate false --json");
    ran.ended_with(1).says("the gate says no: ended with 1").says("never tried (8)");
    assert_eq!(ran.listed("done"), [name(1), name(2)]);
    assert_eq!(world.started().len(), 2);
}

#[test]
fn the_gate_is_a_shell_command_and_is_asked_after_each_batch() {
    let world = World::new(7);
    let mut command = world.command("--canaries 1 --batch 2 -q");
    let asked = world.path("asked");
    command.arg("--gate").arg(format!("[ -n \"$PATH\" ] && env >>{0} && echo asked >>{0}", asked.display()));
    assert!(command.env("SECRET", "x").status().unwrap().success());
    let text = fs::read_to_string(asked).unwrap();
    // After the canary and after every two, but for the last ones.
    assert_eq!(text.lines().filter(|line| *line == "asked").count(), 3, "{text}");
    assert!(!text.contains("SECRET"), "{text}");
    assert_eq!(world.restarts().len(), 7);
}

#[test]
fn a_gate_that_does_not_answer_says_no() {
    let ran = World::new(3).run("--gate cat</dev/zero>/dev/null --gate-timeout 0.2");
    ran.ended_with(1).says("the gate says no: no answer in time");
}

#[test]
fn of_a_gate_that_says_too_much_one_line_is_repeated_and_that_is_bounded() {
    let world = World::new(3);
    let gate = world.path("gate");
    fs::write(&gate, "head -c 9000000 /dev/zero | tr '\\0' x; exit 1\n").unwrap();
    let mut command = world.command("--json");
    command.arg("--gate").arg(format!(". {}", gate.display()));
    let ran = Ran::of(command.output().unwrap());
    ran.ended_with(1).says("the gate says no: ended with 1: xxx");
    let longest = ran.stderr.lines().map(str::len).max().unwrap();
    assert!(longest < 500, "a line of {longest} characters");
}

#[test]
fn an_emergency_has_no_canary_and_tells_each_host() {
    let world = World::new(20);
    world.behave(4, "report 3 failed 'it does not run'");
    let ran = world.run("--force --batch 100% --reason T123 --json");
    ran.ended_with(1).says("--force: no pool is left").says("go on with the hosts above that are not done, by --hosts");
    let run = ran.end()["run"].clone();
    assert_eq!(world.requests().len(), 20);
    assert!(world.requests().iter().all(|asked| *asked == json!({"run": run, "reason": "T123", "force": true})));
    assert_eq!(ran.listed("left_depooled").len(), 0, "a forced restart leaves no pool");
}

#[test]
fn a_request_names_the_run_that_stands_in_every_event_and_nothing_that_was_not_asked_for() {
    let world = World::new(2);
    let ran = world.run("--json -q");
    ran.ended_with(0);
    let run = ran.end()["run"].as_str().unwrap().to_owned();
    assert_eq!(run.len(), 32);
    assert!(ran.events().iter().all(|event| event["run"] == run.as_str()));
    assert!(world.requests().iter().all(|request| *request == json!({"run": run})), "{:?}", world.requests());
    let command = fs::read_to_string(world.path("command")).unwrap();
    assert_eq!(command, "sudo -n /usr/sbin/restart-php-fpm --request -\n");
}

#[test]
fn another_command_is_judged_by_its_exit_code_alone() {
    let world = World::new(3);
    world.behave(2, "end 1").behave(1, "end 0").behave(3, "end 0");
    let mut command = world.command("--max-failures 2 --batch 1 --json");
    let ran = Ran::of(command.args(["--command", "sudo -n systemctl restart 'x'"]).output().unwrap());
    ran.ended_with(1);
    assert_eq!(ran.listed("done"), [name(1), name(3)]);
    assert_eq!(fs::read_to_string(world.path("command")).unwrap(), "sudo -n systemctl restart 'x'\n");
}

#[test]
fn what_is_said_to_go_on_with_is_a_command_and_nothing_else_also_for_a_list_from_standard_input() {
    let world = World::new(5);
    world.behave(2, "[ -e \"$dir/repaired\" ] || report 1 untouched 'it broke'");
    let list = || fs::File::open(world.path("hosts")).unwrap();
    let with_list = |command: &mut Command| Ran::of(command.stdin(list()).output().unwrap());
    let mut given: Vec<_> = world.command("--batch 1 --json").get_args().map(ToOwned::to_owned).collect();
    given[1] = "-".into();
    let ran = with_list(Command::new(env!("CARGO_BIN_EXE_rolling-restart")).args(given));
    ran.ended_with(1).says("go on, the same hosts on its standard input, with: rolling-restart --since 20");
    let command = ran.end()["resume"].as_str().unwrap().to_owned();

    fs::write(world.path("repaired"), "").unwrap();
    let path = std::path::Path::new(env!("CARGO_BIN_EXE_rolling-restart")).parent().unwrap();
    let again = with_list(Command::new("/bin/sh").args(["-c", &command]).env("PATH", path));
    again.ended_with(0);
    assert_eq!(again.listed("skipped"), [name(1)]);
    assert!(world.restarts().len() == 5 && world.restarts().values().all(|count| *count == 1));
}

#[test]
fn a_list_from_a_pipe_is_asked_for_again_on_standard_input() {
    let world = World::new(2);
    world.behave(2, "report 1 untouched 'it broke'");
    let tool = world.command("-q");
    let words: Vec<_> = tool.get_args().skip(2).map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let program = tool.get_program().to_str().unwrap();
    let pipe = format!("'{program}' --hosts <(cat '{}') {}", world.path("hosts").display(), words.join(" "));
    let ran = Ran::of(Command::new("/bin/bash").args(["-c", &pipe]).output().unwrap());
    ran.ended_with(1).says("go on, the same hosts on its standard input, with: rolling-restart --since 20");
    ran.says(" --hosts - --rsh ");
}

#[test]
fn a_dry_run_prints_the_batches_and_contacts_nobody() {
    let world = World::new(4);
    let ran = world.run("--dry-run --batch 2");
    ran.ended_with(0);
    assert_eq!(ran.stdout, "canaries: mw0001.test\nbatch 1: mw0002.test mw0003.test\nbatch 2: mw0004.test\n");
    let ran = world.run("--dry-run --batch 2 --json");
    ran.ended_with(0);
    let batches: Vec<_> =
        ran.events().iter().map(|event| json!([event["event"], event["canaries"], event["hosts"]])).collect();
    assert_eq!(
        batches,
        [
            json!(["batch", true, [name(1)]]),
            json!(["batch", false, [name(2), name(3)]]),
            json!(["batch", false, [name(4)]]),
        ]
    );
    assert!(world.started().is_empty());
}

#[test]
fn elsewhere_than_on_a_terminal_there_is_one_line_a_host() {
    let world = World::new(5);
    let ran = world.run("");
    ran.ended_with(0);
    assert_eq!(ran.stderr.lines().filter(|line| line.contains(".test: done in ")).count(), 5, "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 7, "{}", ran.stderr);
}
