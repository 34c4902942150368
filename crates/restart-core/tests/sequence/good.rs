//! Runs in which nothing goes wrong, and what is left as it is.

use restart_core::{Action, ExitCode, Pooled, ServicesState};

use crate::world::{Scene, Unit, ms};

#[test]
fn a_safe_restart_depools_restarts_and_repools_in_this_order() {
    let scene = Scene::new();
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
    let ended = ended.leaves("api", "yes w10").state("restarted, pooled again in 'api'");
    assert_eq!(ended.report.services, ServicesState::Done);
    let phases: Vec<_> = ended.report.phases.iter().map(|phase| phase.phase).collect();
    let expected = [
        "look at units",
        "read pools",
        "first look at load balancers",
        "open journal",
        "depool",
        "load balancers stop sending",
        "drain",
        "last look",
        "restart",
        "repool",
        "load balancers send again",
    ];
    assert_eq!(phases, expected);
}

#[test]
fn a_fast_load_balancer_costs_milliseconds() {
    let scene = Scene::new().job(|job| {
        job.grace = ms(0);
        job.settle = ms(0);
    });
    let ended = scene.safe_restart().exits(ExitCode::Done);
    // The world's clock is exact: 100 ms for the restart, twice 20 ms until a load balancer follows, and our own pauses.
    assert!(ended.took < ms(300), "{:?}", ended.took);
}

#[test]
fn every_pool_is_left_and_every_unit_is_restarted() {
    let scene = Scene::new().pool("web", &["lb3"], Pooled::Yes).unit("apache2", Unit::Good);
    let effects = ["no api", "no web", "restart php.service", "restart apache2.service", "yes api", "yes web"];
    scene.safe_restart().exits(ExitCode::Done).did(&effects);
}

#[test]
fn two_pools_with_one_node_write_it_once() {
    let scene = Scene::new().pool("api-https", &["lb1"], Pooled::Yes).with(|world| world.delete("api-https"));
    let scene = scene.pools(|pools| {
        let service = pools[0].service.clone();
        for pool in pools {
            pool.service = service.clone();
        }
    });
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
    assert_eq!(ended.report.pools.len(), 2);
}

#[test]
fn a_node_that_was_out_is_left_out() {
    let scene = Scene::new().pool("old", &["lb1"], Pooled::No).pool("spare", &["lb1"], Pooled::Inactive);
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
    ended.leaves("old", "no w10").leaves("spare", "inactive w10").says("already 'no' in 'old'");
}

#[test]
fn a_host_that_is_out_everywhere_is_restarted_and_left_out() {
    let scene = Scene::new().with(|world| world.set("api", Pooled::No, "w10"));
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["restart php.service"]);
    ended.leaves("api", "no w10").state("restarted, pools as found");
}

#[test]
fn a_host_in_none_of_the_pools_is_an_error_and_nothing_is_done() {
    let scene = Scene::new().with(|world| world.delete("api"));
    scene.safe_restart().exits(ExitCode::Configuration).did(&[]).says("in none of the pools");
}

#[test]
fn a_pool_that_the_host_is_not_in_is_said() {
    let scene = Scene::new().pool("web", &["lb1"], Pooled::Yes).with(|world| world.delete("web"));
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
    ended.says("is not in 'web'");
}

#[test]
fn a_pool_without_load_balancers_is_not_watched() {
    let scene = Scene::new().pools(|pools| pools[0].balancers.clear());
    scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
}

#[test]
fn without_any_pool_the_unit_is_restarted_and_it_is_said() {
    let scene = Scene::new().job(|job| job.place = None);
    let scene = scene.with(|world| world.unsafe_restarts = true);
    scene.safe_restart().exits(ExitCode::Done).did(&["restart php.service"]).state("no pool to leave");
}

#[test]
fn a_reload_goes_the_same_way_and_keeps_the_main_process() {
    let scene = Scene::new().job(|job| job.action = Action::Reload);
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "reload php.service", "yes api"]);
    assert_eq!(ended.report.units[0].pid, Some(100));
}

#[test]
fn a_damaged_object_of_another_host_is_none_of_our_business() {
    let damaged = |host: &str| restart_core::Unreadable { host: host.to_owned(), why: "not JSON".to_owned() };
    let other = damaged("mw2.eqiad.test");
    Scene::new().with(|world| world.damaged.push(other)).safe_restart().exits(ExitCode::Done);
    let ours = damaged(crate::world::HOST);
    let scene = Scene::new().with(|world| world.damaged.push(ours));
    scene.safe_restart().exits(ExitCode::Failed).did(&[]).says("not JSON");
}
