//! A run that is asked to end: before the restart the host is put back, from the restart on the run is finished.

use restart_core::{ExitCode, Signal};

use crate::world::{Balance, Scene, Unit, World, ms};

fn terminate(world: &mut World) {
    world.signal(Signal::Terminate);
}

#[test]
fn a_signal_before_the_restart_puts_the_host_back() {
    for event in ["no api", "sleep"] {
        let scene = Scene::new().at(event, terminate);
        let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "yes api"]).leaves("api", "yes w10");
        assert_eq!(ended.state("not restarted, pools as found").report.signal, Some(Signal::Terminate), "{event}");
    }
}

#[test]
fn a_signal_before_the_first_write_changes_nothing() {
    let scene = Scene::new().at("list", terminate);
    let ended = scene.safe_restart().did(&[]);
    assert_eq!(ended.report.signal, Some(Signal::Terminate));
}

#[test]
fn a_signal_from_the_restart_on_does_not_keep_the_host_out() {
    for event in ["before restart php.service", "restart php.service", "yes api"] {
        let scene = Scene::new().at(event, terminate);
        let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
        assert_eq!(ended.leaves("api", "yes w10").report.signal, Some(Signal::Terminate), "{event}");
    }
}

#[test]
fn a_second_signal_ends_the_wait_for_load_balancers_and_says_what_remains() {
    let scene = Scene::new().at("yes api", |world| {
        world.balancers.insert("lb1".to_owned(), Balance::Hangs);
        world.signal(Signal::Interrupt);
        world.signal(Signal::Terminate);
    });
    let ended = scene.safe_restart().exits(ExitCode::RepoolUnconfirmed).leaves("api", "yes w10");
    assert_eq!(ended.says("second").report.signal, Some(Signal::Interrupt));
}

#[test]
fn a_second_signal_ends_the_settling_of_a_unit_that_is_up() {
    let scene = Scene::new().at("restart php.service", |world| {
        world.signal(Signal::Interrupt);
        world.signal(Signal::Interrupt);
    });
    // The host goes back; only the wait for the load balancers is not made any more, and that is said.
    let ended = scene.safe_restart().exits(ExitCode::RepoolUnconfirmed).leaves("api", "yes w10");
    ended.state("restarted, pooled again in 'api', but not every load balancer says so");
}

#[test]
fn a_second_signal_ends_the_wait_for_a_unit_that_does_not_come_up() {
    let scene = Scene::new().unit("php", Unit::Hangs).unit("apache2", Unit::Good).at("restart php.service", |world| {
        world.signal(Signal::Interrupt);
        world.signal(Signal::Interrupt);
    });
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).did(&["no api", "restart php.service"]);
    ended.leaves("api", "no w10").says("was not waited for").says("not tried any more");
}

/// A machine that was paused, or a clock that was stepped under a process that trusts it: time leaps by an hour. Whatever was
/// waited for is then late, and that is all: nothing is restarted that load balancers may send to, and nothing is forgotten.
#[test]
fn a_clock_that_leaps_ends_waits_and_promises_nothing() {
    let moments = [
        "list",
        "no api",
        "answers",
        "sleep",
        "read",
        "keep",
        "restart php.service",
        "before write yes api",
        "yes api",
    ];
    for moment in moments {
        let scene = Scene::new().at(moment, |world| world.pass(ms(3_600_000)));
        let ended = scene.safe_restart();
        let world = scene.handle.0.borrow();
        let (object, open) = (world.object("api"), world.journal.is_some());
        assert!(object == "yes w10" || open, "forgotten after a leap at '{moment}': {}", ended.story());
        let restarted = world.done.iter().any(|done| done == "restart php.service");
        if ended.report.exit_code() == ExitCode::Done {
            assert!(restarted && object == "yes w10" && !open, "a leap at '{moment}': {}", ended.story());
        }
    }
}
