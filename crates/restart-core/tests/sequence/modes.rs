//! `--depool`, `--pool`, `--dry-run` and `--force`.

use restart_core::{ExitCode, Pooled, Purpose, StoreError, Verdict, sequence};

use crate::world::{Balance, Scene, Unit, World};

#[test]
fn depool_takes_out_what_is_in_and_can_be_repeated() {
    let scene = Scene::new().pool("spare", &["lb1"], Pooled::Inactive);
    scene.run(sequence::depool).exits(ExitCode::Done).did(&["no api"]).leaves("spare", "inactive w10");
    scene.run(sequence::depool).exits(ExitCode::Done).did(&["no api"]).leaves("api", "no w10");
}

#[test]
fn a_depool_that_is_not_confirmed_is_taken_back() {
    let scene = Scene::new().balancer("lb1", Balance::Says(Verdict::Pooled));
    let ended = scene.run(sequence::depool).exits(ExitCode::Failed).did(&["no api", "yes api"]);
    ended.leaves("api", "yes w10");
}

#[test]
fn a_host_that_came_back_during_the_drain_is_not_said_to_be_depooled() {
    let again = |world: &mut World| drop(world.balancers.insert("lb1".to_owned(), Balance::Says(Verdict::Pooled)));
    let scene = Scene::new().at("sleep", again);
    scene.run(sequence::depool).exits(ExitCode::Failed).did(&["no api", "yes api"]).leaves("api", "yes w10");
    let scene = Scene::new().at("sleep", |world| world.set("api", Pooled::Yes, "w10"));
    scene
        .run(sequence::depool)
        .exits(ExitCode::Failed)
        .did(&["no api"])
        .says("somebody pooled 'mw1.eqiad.test' in 'api' meanwhile");
}

#[test]
fn who_is_away_after_the_drain_does_not_undo_a_depool() {
    let scene = Scene::new().at("sleep", |world| drop(world.balancers.insert("lb1".to_owned(), Balance::Hangs)));
    scene.run(sequence::depool).exits(ExitCode::Done).did(&["no api"]).leaves("api", "no w10").says("after the drain");
    // An etcd without a leader refuses users.
    for error in [StoreError::Unreachable("no answer".to_owned()), StoreError::Refused("no leader".to_owned())] {
        let scene = Scene::new().at("sleep", |world| world.store_error = Some(error));
        scene.run(sequence::depool).exits(ExitCode::Done).did(&["no api"]).leaves("api", "no w10").says("again");
    }
}

#[test]
fn a_host_that_was_seen_back_after_the_drain_is_so_though_another_place_is_away() {
    let scene = Scene::new().pool("web", &["lb1"], Pooled::Yes).at("sleep", |world| {
        world.set("api", Pooled::Yes, "w10");
        world.away.insert("web".to_owned());
    });
    scene.run(sequence::depool).says("somebody pooled 'mw1.eqiad.test' in 'api' meanwhile");
}

#[test]
fn pool_puts_back_what_is_no_and_leaves_what_is_inactive() {
    let scene =
        Scene::new().pool("spare", &["lb1"], Pooled::Inactive).with(|world| world.set("api", Pooled::No, "w10"));
    let ended = scene.run(sequence::pool).exits(ExitCode::Done).did(&["yes api"]).leaves("spare", "inactive w10");
    ended.says("already 'inactive' in 'spare'").state("pooled again in 'api'");
    scene.run(sequence::pool).exits(ExitCode::Done).did(&["yes api"]);
}

#[test]
fn a_dead_load_balancer_does_not_keep_a_host_out() {
    let scene = Scene::new().balancer("lb2", Balance::Hangs).with(|world| world.set("api", Pooled::No, "w10"));
    let ended = scene.run(sequence::pool).exits(ExitCode::PutBackUnconfirmed).did(&["yes api"]);
    ended.leaves("api", "yes w10").says("'lb2'");
}

#[test]
fn a_plan_names_each_write_and_makes_none() {
    let scene = Scene::new().pool("web", &["lb1"], Pooled::Yes);
    let ended = scene.run(|job, parts| sequence::plan(job, Purpose::Restart, parts)).exits(ExitCode::Done).did(&[]);
    let plan: Vec<_> = ended.report.plan.iter().map(ToString::to_string).collect();
    let expected = [
        "would depool /eqiad/web/api/mw1.eqiad.test no w10",
        "would depool /eqiad/web/web/mw1.eqiad.test no w10",
        "would restart php.service",
        "would repool /eqiad/web/api/mw1.eqiad.test yes w10",
        "would repool /eqiad/web/web/mw1.eqiad.test yes w10",
    ];
    assert_eq!(plan, expected);
}

#[test]
fn a_plan_fails_as_the_run_would() {
    let scene = Scene::new().balancer("lb2", Balance::Hangs);
    let plan = scene.run(|job, parts| sequence::plan(job, Purpose::Restart, parts));
    plan.exits(ExitCode::Unreachable).did(&[]);
    let scene = Scene::new().unit("php", Unit::Missing);
    scene.run(|job, parts| sequence::plan(job, Purpose::Restart, parts)).exits(ExitCode::Configuration);
}

#[test]
fn a_plan_takes_no_slot() {
    let scene = Scene::new().job(|job| job.limit = Some(restart_core::Share::Count(1)));
    scene.run(|job, parts| sequence::plan(job, Purpose::Restart, parts)).exits(ExitCode::Done).did(&[]);
}

#[test]
fn plans_of_the_halves_name_only_their_own_writes() {
    let scene = Scene::new();
    let ended = scene.run(|job, parts| sequence::plan(job, Purpose::Depool, parts)).exits(ExitCode::Done);
    assert_eq!(ended.report.plan.len(), 1);
    let ended = scene.run(|job, parts| sequence::plan(job, Purpose::Pool, parts)).exits(ExitCode::Done);
    assert_eq!(ended.report.plan.len(), 0);
}

/// What the run itself would put back, its plan does not say to stay out.
#[test]
fn the_plan_of_a_pool_says_of_a_node_that_is_no_only_that_it_is_put_back() {
    let scene = Scene::new().with(|world| world.set("api", Pooled::No, "w10"));
    let ended = scene.run(|job, parts| sequence::plan(job, Purpose::Pool, parts)).exits(ExitCode::Done);
    assert_eq!(ended.report.plan.len(), 1);
    assert_eq!(ended.report.notes, [""; 0]);
}

fn forced(kind: Unit) -> Scene {
    let scene = Scene::new().unit("php", kind).job(|job| {
        job.place = None;
        job.settle = std::time::Duration::ZERO;
    });
    let scene = scene.at("list", |_| panic!("the store was read"));
    scene.with(|world| world.unsafe_restarts = true)
}

#[test]
fn force_restarts_at_once_and_asks_nobody() {
    let scene = forced(Unit::Good).unit("apache2", Unit::Good);
    let ended = scene.run(sequence::forced_restart).exits(ExitCode::Done);
    ended.did(&["restart php.service", "restart apache2.service"]).state("pools untouched");
}

#[test]
fn force_gets_over_a_start_limit() {
    let scene = forced(Unit::StartLimit);
    let effects = ["restart php.service", "reset-failed php.service", "start php.service"];
    scene.run(sequence::forced_restart).exits(ExitCode::Done).did(&effects);
}

/// systemd had started it again by itself some time ago; a reload has nothing to do with that.
#[test]
fn a_forced_reload_is_not_taken_in_by_an_old_restart_counter() {
    let scene = forced(Unit::Good).job(|job| job.action = restart_core::Action::Reload);
    let scene = scene.with(|world| world.units.get_mut("php.service").unwrap().1.restarts = 3);
    scene.run(sequence::forced_restart).exits(ExitCode::Done).did(&["reload php.service"]);
}

#[test]
fn a_forced_restart_that_fails_is_exit_3_and_a_unit_that_is_not_there_78() {
    forced(Unit::Fails).run(sequence::forced_restart).exits(ExitCode::LeftDepooled).state("pools untouched");
    forced(Unit::Missing).run(sequence::forced_restart).exits(ExitCode::Configuration).says("does not exist");
}
