//! What is taken from the caller's environment, of an ordinary user the agent, of root nothing; and limits that a caller has.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::unistd::Uid;

use crate::world::{Ran, World};

/// A user that every system has and that owns nothing.
const NOBODY: u32 = 65534;

/// A host that writes down the environment in which ssh would run.
fn world() -> World {
    let world = World::new(1);
    world.behave(1, "env >\"$dir/environment\"");
    world
}

/// What ssh got as its environment.
fn handed_on(world: &World, mut command: Command) -> String {
    command
        .env("SSH_AUTH_SOCK", "/run/agent")
        .env("SECRET", "x")
        .env("TMPDIR", "/nonexistent")
        .env("HOME", "/nonexistent");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let environment = fs::read_to_string(world.path("environment")).unwrap();
    assert!(!environment.contains("SECRET") && !environment.contains("nonexistent"), "{environment}");
    environment
}

/// The same command by a user who is not root, also where the tests are root's: with copies of everything in a place that user reaches.
fn by_nobody(world: &World) -> Command {
    let given = world.command("-q");
    if !Uid::effective().is_root() {
        return given;
    }
    let (tool, stand_in) = (world.path("tool"), world.path("stand-in.sh"));
    fs::copy(given.get_program(), &tool).unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulated/stand-in.sh"), &stand_in).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = world.path("");
    for place in ["", "hosts", "before", "behave", "lock", "restarted", "stand-in.sh"] {
        chown(world.path(place), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(tool);
    command.arg("--rsh").arg(format!("/bin/sh {} {}", stand_in.display(), folder.display())).arg("--hosts");
    command.arg(world.path("hosts")).arg("-q").uid(NOBODY).gid(NOBODY).current_dir("/");
    command
}

#[test]
fn an_ordinary_users_agent_is_handed_on_and_nothing_else() {
    let world = world();
    let environment = handed_on(&world, by_nobody(&world));
    assert!(environment.lines().any(|line| line == "SSH_AUTH_SOCK=/run/agent"), "{environment}");
}

#[test]
fn of_roots_environment_not_even_the_agent_is_handed_on() {
    assert!(Uid::effective().is_root(), "this is to be run as root");
    let world = world();
    let environment = handed_on(&world, world.command("-q"));
    assert!(!environment.contains("SSH_AUTH_SOCK"), "{environment}");
}

#[test]
fn an_agent_that_is_named_is_handed_on_in_place_of_the_users_own() {
    for by in [|world: &World| world.command("-q"), by_nobody] {
        let world = world();
        let mut command = by(&world);
        command.args([OsStr::new("--agent"), OsStr::new("/run/keyholder")]);
        let environment = handed_on(&world, command);
        assert!(environment.lines().any(|line| line == "SSH_AUTH_SOCK=/run/keyholder"), "{environment}");
    }
}

/// Runs it where so few files may be open, by the hard limit as well.
fn with_few_files(world: &World, arguments: &str) -> Ran {
    let plain = world.command(arguments);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 96; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    Ran::of(command.output().unwrap())
}

#[test]
fn where_few_files_may_be_open_fewer_hosts_are_out_at_once_and_none_is_taken_to_have_failed() {
    let world = World::new(60);
    let ran = with_few_files(&world, "--force --batch 100% --json");
    ran.ended_with(0).says("at most 16 hosts at once, whatever the batch: the limit of open files (ulimit -n)");
    assert_eq!(ran.listed("done").len(), 60);
    assert!(world.most_at_once() <= 16, "{}", world.most_at_once());
}

#[test]
fn where_few_files_may_be_open_fewer_hosts_are_asked_at_once() {
    let world = World::new(60);
    for number in 1..=60 {
        world.behave(number, "sleep 0.2; end 0");
    }
    let ran = with_few_files(&world, "--status --json");
    assert_eq!(ran.stdout.matches("ended with 0 and no status").count(), 60, "{}", ran.stdout);
    assert!(world.most_at_once() <= 16, "{}", world.most_at_once());
}
