//! What stops a run, and what is said of the hosts then.

use crate::world::{World, name};

#[test]
fn past_the_budget_of_failures_no_host_is_started_and_those_that_run_end() {
    let world = World::new(30);
    world.behave(3, "report 1 untouched 'it broke'").behave(5, "report 78 untouched 'it is wrong'");
    world.behave(4, "restart 0.5");
    let ran = world.run("--canaries 0 --batch 3 --max-failures 2 --json");
    ran.ended_with(1).says("failed: mw0003.test: it broke").says("failed: mw0005.test: it is wrong");
    ran.says("never tried (").says("go on with: rolling-restart --since 20");
    assert_eq!(ran.end()["exit_code"], 1);
    assert_eq!(ran.listed("failed"), [name(3), name(5)]);
    assert!(ran.listed("done").contains(&name(4)), "what ran was not waited for");
    assert!(world.started().len() <= 8, "{:?}", world.started());
    assert_eq!(ran.listed("never_tried").len(), 30 - world.started().len());
}

#[test]
fn a_host_that_is_left_depooled_is_named_last_and_the_exit_code_is_3() {
    let world = World::new(9);
    world.behave(2, "report 3 failed 'php8.2-fpm.service is not ready'");
    let ran = world.run("--batch 2");
    ran.ended_with(3);
    let last = ran.stderr.lines().last().unwrap();
    assert_eq!(last, "rolling-restart: error: LEFT DEPOOLED: mw0002.test: php8.2-fpm.service is not ready");
}

#[test]
fn hosts_that_cannot_be_reached_have_a_budget_of_their_own() {
    let world = World::new(20);
    for number in 2..=20 {
        world.behave(number, "echo 'ssh: connect to host: No route to host' >&2; end 255");
    }
    let ran = world.run("--batch 1 --max-unreachable 3 --json");
    ran.ended_with(69).says("unreachable: mw0002.test: ssh: connect to host: No route to host");
    assert_eq!(ran.listed("unreachable"), [name(2), name(3), name(4)]);
    assert_eq!(world.started().len(), 4);
}

#[test]
fn a_host_that_says_later_is_tried_again_so_often_and_then_the_exit_code_is_75() {
    let world = World::new(3);
    world.behave(2, "report 75 untouched 'no slot within 10m'");
    let ran = world.run("--retries 2 --retry-delay 0.1 --json");
    ran.ended_with(75).says("said \"later\" to the end: mw0002.test: no slot within 10m");
    assert_eq!(ran.listed("busy"), [name(2)]);
    assert_eq!(ran.listed("done"), [name(1), name(3)]);
    assert_eq!(world.started().iter().filter(|host| **host == name(2)).count(), 3);
}

#[test]
fn a_host_that_is_not_confirmed_back_is_named() {
    let world = World::new(2);
    world.behave(1, "report 4 done 'lvs1 does not say that it is back'");
    let ran = world.run("--json");
    ran.ended_with(1).says("perhaps depooled, and recovery there goes on trying (1): mw0001.test");
    assert_eq!(ran.listed("perhaps_depooled"), [name(1)]);
}
