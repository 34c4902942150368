//! A run that is asked to end: before the restart the host is put back, from the restart on the run is finished.

use restart_core::{ExitCode, Signal};

use crate::world::{Balance, Scene, Unit, World};

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
