//! Two or three things at once that each are handled well alone: each of these was found by random scripts, or by reading with a
//! grudge, and once ended with a host that was forgotten, an operator who was overwritten, or a sentence that was not true.

use restart_core::{ExitCode, Phase, Pooled, Purpose, Record, Share, Signal, StoreError, Verdict, sequence};

use crate::world::{Balance, Scene, Unit, World, ms};

fn journal(scene: &Scene) -> Option<Record> {
    scene.handle.0.borrow().journal.clone()
}

fn object(scene: &Scene, service: &str) -> String {
    scene.handle.0.borrow().object(service)
}

fn counted(scene: &Scene) -> Vec<String> {
    scene.handle.0.borrow().counted.clone()
}

fn away() -> Option<StoreError> {
    Some(StoreError::Unreachable("no member answers".to_owned()))
}

/// A host that is held in its pools, with its unit mended.
fn held(scene: Scene) -> Scene {
    let scene = scene.unit("php", Unit::Fails);
    scene.safe_restart().exits(ExitCode::LeftDepooled);
    let left = journal(&scene);
    scene.unit("php", Unit::Good).job(|job| job.left = left).with(|world| world.start_anew("php.service"))
}

/// What a run left that was killed at this moment.
fn killed_at(scene: Scene, moment: &str) -> Scene {
    let scene = scene.at(moment, World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    let left = journal(&scene);
    scene.job(|job| job.left = left)
}

/// A run that counts against a limit.
fn limited(scene: Scene) -> Scene {
    let scene = scene.job(|job| (job.limit, job.counts_against) = (Some(Share::Count(1)), vec!["L".to_owned()]));
    scene.with(|world| world.limit = Some("L"))
}

/// The next one has none.
fn unlimited(scene: Scene) -> Scene {
    scene.job(|job| (job.limit, job.counts_against) = (None, Vec::new()))
}

fn silent(balancer: &'static str) -> impl FnOnce(&mut World) {
    move |world| drop(world.balancers.insert(balancer.to_owned(), Balance::Says(Verdict::NotPooled)))
}

/// `--pool` and `--depool` are about no unit.
fn of_no_unit(scene: Scene) -> Scene {
    scene.job(|job| job.units.clear())
}

#[test]
fn an_operator_who_takes_a_host_out_while_its_repool_is_unconfirmed_is_not_overwritten() {
    let mut scene = Scene::new().at("yes api", silent("lb2"));
    scene.safe_restart().exits(ExitCode::RepoolUnconfirmed);
    scene.handle.0.borrow_mut().set("api", Pooled::No, "w5");
    scene.handle.0.borrow_mut().heal();
    scene.recover().exits(ExitCode::Done).leaves("api", "no w5");

    let scene = of_no_unit(Scene::new()).with(|world| world.set("api", Pooled::No, "w10"));
    let mut scene = scene.at("yes api", silent("lb2"));
    scene.run(sequence::pool).exits(ExitCode::PutBackUnconfirmed);
    scene.handle.0.borrow_mut().set("api", Pooled::No, "w5");
    scene.handle.0.borrow_mut().heal();
    scene.recover().exits(ExitCode::Done).leaves("api", "no w5");
}

#[test]
fn a_depool_that_lost_its_race_is_not_taken_for_ours_when_the_run_dies_later() {
    let scene = Scene::new().at("before write no api", |world| world.set("api", Pooled::No, "w10"));
    let scene = scene.at("sleep", World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    assert_eq!((object(&scene, "api").as_str(), journal(&scene)), ("no w10", None));
}

#[test]
fn a_run_without_pools_has_nothing_to_do_with_a_journal() {
    let scene = held(Scene::new()).job(|job| (job.place, job.left) = (None, None));
    let scene = scene.with(|world| world.unsafe_restarts = true);
    scene.safe_restart().exits(ExitCode::Done);
    assert!(journal(&scene).is_some(), "forgotten");
}

#[test]
fn a_depool_that_succeeded_is_not_undone_because_its_journal_stayed_open() {
    // What counts against a limit cannot be said when the run is over.
    let scene = held(limited(Scene::new())).pool("web", &["lb1"], Pooled::Yes);
    let mut scene = of_no_unit(unlimited(scene)).at("sleep", |world| world.store_error = away());
    scene.run(sequence::depool).exits(ExitCode::Done).leaves("web", "no w10");
    scene.handle.0.borrow_mut().heal();
    assert_eq!(journal(&scene).map(|record| record.phase), Some(Phase::Closing));
    // In another store there is nothing to take back, and that must not pass for done.
    scene.handle.0.borrow_mut().store_kind = "etcd3";
    scene.recover().exits(ExitCode::Configuration);
    scene.handle.0.borrow_mut().store_kind = "etcd";
    assert!(journal(&scene).is_some() && !counted(&scene).is_empty());
    scene.recover().exits(ExitCode::Done).leaves("api", "no w10").leaves("web", "no w10");
    assert!(counted(&scene).is_empty() && journal(&scene).is_none());

    // The disk takes no change any more: then that is said.
    let scene = of_no_unit(Scene::new()).with(|world| world.clear_fails = true);
    scene
        .run(sequence::depool)
        .exits(ExitCode::Failed)
        .leaves("api", "no w10")
        .says("the next recovery will put it back");
}

#[test]
fn a_run_that_takes_nothing_out_counts_against_no_limit() {
    let out = || limited(Scene::new()).with(|world| world.set("api", Pooled::No, "w10"));
    for scene in [
        out().at("sleep", |world| world.signal(Signal::Terminate)),
        out().at("sleep", World::freeze),
        out().unit("php", Unit::Fails),
    ] {
        scene.safe_restart();
        assert!(counted(&scene).is_empty() && journal(&scene).is_none());
    }
}

#[test]
fn the_limit_of_a_held_host_is_not_forgotten_with_what_an_operator_took_over() {
    let scene = held(limited(Scene::new())).with(|world| {
        world.set("api", Pooled::No, "w3");
        world.set("api", Pooled::No, "w10");
    });
    let scene = unlimited(scene).at("sleep", |world| world.signal(Signal::Terminate));
    scene.safe_restart();
    assert!(journal(&scene).is_some() || counted(&scene).is_empty(), "counts for ever");
}

#[test]
fn a_pool_that_is_not_confirmed_leaves_a_journal_also_where_there_was_nothing_to_write() {
    let scene = unlimited(killed_at(limited(Scene::new()), "sleep")).with(|world| world.set("api", Pooled::Yes, "w10"));
    let scene = of_no_unit(scene).with(silent("lb1"));
    scene.run(sequence::pool).exits(ExitCode::PutBackUnconfirmed);
    assert!(journal(&scene).is_some(), "forgotten");
    let mut scene = scene.balancer("lb1", Balance::Follows(ms(0)));
    scene.recover().exits(ExitCode::Done);
    assert!(counted(&scene).is_empty() && journal(&scene).is_none());

    let mut scene = of_no_unit(Scene::new()).with(silent("lb1"));
    scene.run(sequence::pool).exits(ExitCode::PutBackUnconfirmed);
    scene.recover().exits(ExitCode::PutBackUnconfirmed);
}

#[test]
fn an_operators_depool_of_what_nobody_can_tell_any_more_is_the_end_of_it() {
    let mut scene = killed_at(Scene::new(), "no api").with(|world| world.history_gone = true);
    scene.recover();
    let left = journal(&scene);
    let scene = of_no_unit(scene.job(|job| job.left = left));
    scene.run(sequence::depool).exits(ExitCode::Done).leaves("api", "no w10");
    assert_eq!(journal(&scene), None);
}

#[test]
fn a_depool_that_was_killed_over_an_interrupted_run_is_finished_as_one() {
    let mut scene = of_no_unit(killed_at(Scene::new(), "sleep")).at("sleep", World::freeze);
    scene.run(sequence::depool);
    scene.handle.0.borrow_mut().thaw();
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(journal(&scene), None);
}

#[test]
fn the_units_of_what_an_operator_took_over_hold_nothing() {
    let scene = held(Scene::new()).unit("apache2", Unit::Good).with(|world| {
        world.stop("php.service");
        world.set("api", Pooled::Yes, "w10");
    });
    let scene = scene.job(|job| drop(job.units.remove(0)));
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_host_that_is_pooled_between_two_units_is_not_restarted_any_further() {
    let scene = Scene::new().unit("zzz", Unit::Good).at("restart php.service", |world| {
        world.set("api", Pooled::Yes, "w10");
    });
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "yes w10");
    ended.did(&["no api", "restart php.service"]).says("somebody pooled 'mw1.eqiad.test' in 'api' meanwhile");
}

#[test]
fn a_plan_that_fails_writes_nothing() {
    let scene = held(limited(Scene::new())).pool("web", &["lb1"], Pooled::Yes);
    let scene = scene.job(|job| (job.counts_against, job.min_pooled) = (vec!["M".to_owned()], Share::Percent(50)));
    let scene = scene.with(|world| world.counted.push("M".to_owned()));
    let before = (counted(&scene), journal(&scene));
    scene.run(|job, parts| sequence::plan(job, Purpose::Restart, parts)).exits(ExitCode::Configuration);
    assert_eq!((counted(&scene), journal(&scene)), before);
}

#[test]
fn a_lost_depool_that_arrives_late_takes_no_host_out_that_is_forgotten() {
    // After an operator's word.
    let scene = Scene::new().with(|world| world.lose_next_write = Some(false));
    let scene = of_no_unit(killed_at(scene, "lost"));
    scene.run(sequence::pool).exits(ExitCode::Done);
    scene.handle.0.borrow_mut().land();
    assert_eq!(object(&scene, "api"), "yes w10");

    // After a recovery that held the host for another node.
    let scene =
        Scene::new().pool("web", &["lb1"], Pooled::Yes).at("no api", |world| world.lose_next_write = Some(false));
    let mut scene = killed_at(scene, "lost").with(|world| world.stop("php.service"));
    scene.recover().exits(ExitCode::LeftDepooled);
    scene.handle.0.borrow_mut().set("api", Pooled::Yes, "w10");
    scene.recover().exits(ExitCode::Done);
    scene.handle.0.borrow_mut().land();
    assert_eq!(object(&scene, "web"), "yes w10");
}

#[test]
fn a_journal_of_another_clusters_configuration_is_kept() {
    let scene = held(Scene::new().job(|job| job.origin.files.config = "/a.yaml".to_owned()));
    let scene = scene.pool("web", &["lb1"], Pooled::Yes).with(|world| world.delete("api"));
    let scene = scene.job(|job| job.origin.files.config = "/b.yaml".to_owned());
    scene.safe_restart().exits(ExitCode::Configuration).says("'/a.yaml'");
    assert!(journal(&scene).is_some(), "forgotten");
}

#[test]
fn the_last_line_names_what_is_out_and_why_and_nothing_else() {
    // One was taken out, the other was not, by a run that died in between; its unit is sick.
    let scene = killed_at(Scene::new().pool("web", &["lb1"], Pooled::Yes), "before write no web");
    let mut scene = scene.with(|world| world.stop("php.service"));
    let ended = scene.recover().exits(ExitCode::LeftDepooled);
    assert!(ended.report.state.contains("left depooled in 'api';"), "{}", ended.story());

    // One of two was put back by an operator.
    let mut scene =
        held(Scene::new().pool("web", &["lb1"], Pooled::Yes)).with(|world| world.set("api", Pooled::Yes, "w"));
    let ended = scene.recover().exits(ExitCode::LeftDepooled);
    assert!(ended.report.state.contains("held depooled in 'web'"), "{}", ended.story());

    // An abort leaves what was held.
    let scene = held(Scene::new()).at("sleep", |world| world.signal(Signal::Terminate));
    let ended = scene.safe_restart();
    assert!(ended.report.state.contains("still depooled in 'api' because of an earlier run"), "{}", ended.story());

    // A recovery of a run that took over what was held.
    let mut scene = killed_at(held(Scene::new()).pool("web", &["lb1"], Pooled::Yes), "sleep");
    let ended = scene.recover().exits(ExitCode::Done);
    assert!(ended.report.state.contains("still depooled in 'api' because of an earlier run"), "{}", ended.story());
    assert_eq!(journal(&scene).map(|record| record.phase), Some(Phase::Held));
}
