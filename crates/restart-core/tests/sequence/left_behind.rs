//! What an earlier run left, when the world around it has changed since, or does not do what it should. Each of these once ended
//! with a host that was forgotten, or with an operator who was overwritten.

use restart_core::{ExitCode, Phase, PoolName, Pooled, Record, Signal, StoreError, Verdict, sequence};

use crate::world::{Balance, Scene, Unit, World, ms};

fn journal(scene: &Scene) -> Option<Record> {
    scene.handle.0.borrow().journal.clone()
}

fn says(balancer: &'static str, balance: Balance) -> impl FnOnce(&mut World) {
    move |world| drop(world.balancers.insert(balancer.to_owned(), balance))
}

/// A run that was killed when the host was out.
fn killed(scene: Scene) -> Scene {
    let scene = scene.at("sleep", World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    assert!(journal(&scene).is_some(), "nothing is left");
    scene
}

/// A host that is held in `api`, with its unit mended.
fn held(scene: Scene) -> Scene {
    let scene = scene.unit("php", Unit::Fails);
    scene.safe_restart().exits(ExitCode::LeftDepooled);
    let left = journal(&scene);
    scene.unit("php", Unit::Good).job(|job| job.left = left).with(|world| world.start_anew("php.service"))
}

#[test]
fn what_is_not_confirmed_is_not_finished_by_a_recovery_that_cannot_confirm_it_either() {
    let silent = || Balance::Says(Verdict::NotPooled);
    let mut scene = Scene::new().at("yes api", says("lb2", silent()));
    scene.safe_restart().exits(ExitCode::RepoolUnconfirmed);
    scene.recover().exits(ExitCode::RepoolUnconfirmed).says("'lb2'");
    assert!(journal(&scene).is_some(), "forgotten");
    let mut scene = scene.balancer("lb2", Balance::Follows(ms(20)));
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(journal(&scene), None);

    // The same before the restart.
    let mut scene = Scene::new().at("yes api", says("lb2", silent())).at("sleep", |world| {
        world.signal(Signal::Terminate);
    });
    scene.safe_restart().exits(ExitCode::PutBackUnconfirmed);
    scene.handle.0.borrow_mut().forget_signals();
    scene.recover().exits(ExitCode::PutBackUnconfirmed);
    assert!(journal(&scene).is_some(), "forgotten");
}

/// A package that has systemd execute itself anew, in the moment in which a recovery looked, had a healthy host held.
#[test]
fn a_recovery_does_not_judge_a_unit_by_systemds_silence() {
    let is = |kind| move |world: &mut World| world.units.get_mut("php.service").unwrap().0 = kind;
    let mut scene = killed(Scene::new()).at("sleep", is(Unit::Untold));
    let ended = scene.recover().exits(ExitCode::Unreachable).leaves("api", "no w10");
    ended.says("cannot look at unit 'php.service': the bus is away").state("the next recovery goes on");
    let mut scene = scene.with(is(Unit::Good));
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(journal(&scene), None);
}

#[test]
fn a_recovery_that_nobody_lets_finish_its_look_is_left_to_the_next() {
    let scene = killed(Scene::new()).at("sleep", |world| world.signal(Signal::Interrupt));
    let mut scene = scene.after("sleep", ms(1), |world| world.signal(Signal::Interrupt));
    scene.recover().leaves("api", "no w10");
    scene.handle.0.borrow_mut().forget_signals();
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_recovery_that_nobody_lets_wait_for_an_answer_is_left_to_the_next() {
    let not_serving = |world: &mut World| world.serves_after = None;
    let scene = killed(Scene::new()).job(|job| job.ready = ms(60_000)).with(not_serving);
    let mut scene = scene.after("ready", ms(1000), |world| {
        world.signal(Signal::Interrupt);
        world.signal(Signal::Interrupt);
    });
    scene.recover().leaves("api", "no w10");
    scene.handle.0.borrow_mut().forget_signals();
    let mut scene = scene.with(|world| world.serves_after = Some(ms(0)));
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_host_that_an_operator_pooled_after_a_run_died_is_seen_pooled_before_it_is_forgotten() {
    let mut scene = killed(Scene::new()).with(|world| world.set("api", Pooled::Yes, "w5"));
    scene.handle.0.borrow_mut().balancers.insert("lb1".to_owned(), Balance::Says(Verdict::NotPooled));
    scene.recover().exits(ExitCode::PutBackUnconfirmed).leaves("api", "yes w5");
    scene.handle.0.borrow_mut().balancers.insert("lb1".to_owned(), Balance::Follows(ms(0)));
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w5");
    assert_eq!(journal(&scene), None);
}

#[test]
fn a_journal_of_another_store_is_kept_and_nothing_is_done() {
    let mut scene = killed(Scene::new()).with(|world| world.store_kind = "etcd3");
    let before = journal(&scene);
    scene
        .recover()
        .exits(ExitCode::Configuration)
        .says("'etcd', and 'etcd3' is configured now")
        .leaves("api", "no w10");
    assert_eq!(journal(&scene), before);

    let scene = held(Scene::new()).with(|world| (world.store_kind, world.done) = ("etcd3", Vec::new()));
    let before = journal(&scene);
    scene.safe_restart().exits(ExitCode::Configuration).did(&[]).leaves("api", "no w10");
    scene.run(sequence::pool).exits(ExitCode::Configuration).leaves("api", "no w10");
    assert_eq!(journal(&scene), before);
}

#[test]
fn a_node_whose_pool_has_left_the_catalog_is_put_back_all_the_same() {
    let mut scene = killed(Scene::new()).pools(Vec::clear);
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(journal(&scene), None);

    // The same for one that was held, by the next good run, which is about another pool.
    let scene = held(Scene::new()).pools(Vec::clear).pool("web", &["lb1"], Pooled::Yes);
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10").leaves("web", "yes w10");
    assert_eq!(journal(&scene), None);
}

#[test]
fn what_a_run_wrote_without_knowing_its_revision_is_found_out_before_the_history_is_gone() {
    let scene = Scene::new().at("no api", World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    let mut scene = scene.with(|world| world.stop("php.service"));
    assert_eq!(journal(&scene).unwrap().nodes[0].revision, None);
    scene.recover().exits(ExitCode::LeftDepooled);
    let left = journal(&scene);
    assert!(left.as_ref().unwrap().nodes[0].revision.is_some());
    let scene = scene.job(|job| job.left = left).with(|world| {
        world.history_gone = true;
        world.start_anew("php.service");
    });
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn what_can_no_longer_be_told_is_left_and_reported_for_as_long_as_it_is_out() {
    let scene = Scene::new().at("no api", World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    let mut scene = scene.with(|world| world.history_gone = true);
    for _ in 0..2 {
        scene.recover();
        assert_eq!(journal(&scene).unwrap().phase, Phase::Held);
    }
    scene.recover().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
    let scene = scene.job(|job| job.left.as_mut().unwrap().phase = Phase::Held);
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "no w10").says("perhaps out because of an earlier run");
    assert_eq!(journal(&scene).unwrap().phase, Phase::Held);
    // Until somebody puts it back.
    scene.handle.0.borrow_mut().set("api", Pooled::Yes, "w10");
    let mut scene = scene;
    scene.recover().exits(ExitCode::Done);
    assert_eq!(journal(&scene), None);
}

#[test]
fn a_host_that_is_back_counts_against_no_limit_that_it_was_held_under() {
    let scene = Scene::new().job(|job| job.counts_against = vec!["of api and web".to_owned()]);
    let scene = held(scene.with(|world| world.counted = vec!["of api and web".to_owned(), "of api".to_owned()]));
    let scene = scene.job(|job| job.counts_against = vec!["of api".to_owned()]);
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
    assert!(scene.handle.0.borrow().counted.is_empty());
}

#[test]
fn a_limit_that_the_host_could_not_be_taken_off_is_the_next_recoverys() {
    let scene = Scene::new().job(|job| job.counts_against = vec!["of api".to_owned()]).at("yes api", |world| {
        world.counted = vec!["of api".to_owned()];
        world.store_error = Some(StoreError::Unreachable("no member answers".to_owned()));
    });
    let mut scene = scene;
    scene.safe_restart().exits(ExitCode::Done).says("counts against a limit until the next recovery");
    scene.handle.0.borrow_mut().store_error = None;
    scene.recover().exits(ExitCode::Done);
    assert!(scene.handle.0.borrow().counted.is_empty() && journal(&scene).is_none());
}

/// Held in `api` and in `web`.
fn held_in_two() -> Scene {
    held(Scene::new().pool("web", &["lb1"], Pooled::Yes))
}

fn only(scene: Scene, pool: &str) -> Scene {
    scene.pools(|pools| pools.retain(|one| one.name.as_str() == pool)).with(|world| world.done.clear())
}

#[test]
fn an_operators_word_about_one_pool_is_none_about_another() {
    // An operator had put the host back in `api`.
    let scene = only(held_in_two(), "web").with(|world| world.set("api", Pooled::Yes, "w10"));
    scene.run(sequence::depool).exits(ExitCode::Done).leaves("api", "yes w10").leaves("web", "no w10");

    let scene = only(held_in_two(), "web");
    scene.run(sequence::pool).exits(ExitCode::Done).leaves("api", "no w10").leaves("web", "yes w10");
    let left = journal(&scene).unwrap();
    assert_eq!((left.phase, left.nodes.len()), (Phase::Held, 1));
    assert_eq!(left.nodes[0].pools[0].as_str(), "api");
}

#[test]
fn a_restart_writes_to_no_pool_that_only_the_journal_names_but_to_put_back_what_it_has() {
    let unnamed = |scene: Scene| scene.job(|job| job.place.as_mut().unwrap().unnamed.extend(PoolName::new("api")));
    let scene = unnamed(held_in_two()).with(|world| world.done.clear());
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10").leaves("web", "yes w10");

    let scene = unnamed(held_in_two()).with(|world| {
        world.set("api", Pooled::Yes, "w10");
        (world.done, world.unsafe_restarts) = (Vec::new(), true);
    });
    let ended = scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
    ended.did(&["restart php.service", "yes web"]);
}

#[test]
fn a_unit_that_crashes_again_and_again_is_not_healthy_at_whatever_moment_it_is_looked_at() {
    for offset in (0..1000).step_by(50) {
        let mut scene = killed(Scene::new()).unit("php", Unit::CrashLoops(ms(1000)));
        scene.handle.0.borrow_mut().pass(ms(offset));
        scene.job.settle = ms(500);
        scene.recover().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
        assert_eq!(journal(&scene).unwrap().phase, Phase::Held, "after {offset} ms");
    }
}

#[test]
fn a_run_that_dies_right_before_its_restart_does_not_release_what_was_held() {
    for moment in ["before restart php.service", "restart php.service"] {
        let mut scene = held(Scene::new()).at(moment, World::freeze);
        scene.safe_restart();
        scene.handle.0.borrow_mut().thaw();
        scene.recover();
        assert_eq!(scene.handle.0.borrow().object("api"), "no w10", "{moment}");
        assert_eq!(journal(&scene).unwrap().phase, Phase::Held);
    }
    // From the repool on the run has succeeded.
    let mut scene = held(Scene::new()).at("before write yes api", World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_pool_that_is_not_confirmed_is_confirmed_by_a_later_recovery() {
    let out = || Scene::new().with(|world| world.set("api", Pooled::No, "w10"));
    for scene in [out(), held(Scene::new())] {
        // `--pool` is about no unit.
        let mut scene =
            scene.job(|job| job.units.clear()).at("yes api", says("lb1", Balance::Says(Verdict::NotPooled)));
        scene.run(sequence::pool).exits(ExitCode::PutBackUnconfirmed).leaves("api", "yes w10");
        scene.recover().exits(ExitCode::PutBackUnconfirmed);
        let mut scene = scene.balancer("lb1", Balance::Follows(ms(0)));
        scene.recover().exits(ExitCode::Done);
        assert_eq!(journal(&scene), None);
    }
}

#[test]
fn an_operator_who_pools_a_held_host_is_told_that_its_unit_does_not_run() {
    let scene = held(Scene::new()).with(|world| world.stop("php.service"));
    let ended = scene.run(sequence::pool).exits(ExitCode::Done).leaves("api", "yes w10");
    ended.says("'php.service', because of which this host was out, is failed");
}

#[test]
fn a_recovery_says_that_the_restart_was_not_made() {
    let mut scene = killed(Scene::new());
    scene.recover().exits(ExitCode::Done).says("it had not restarted 'php.service'");
}

#[test]
fn a_host_that_is_held_is_held_no_longer_once_an_operator_has_put_it_back() {
    let mut scene = held(Scene::new()).with(|world| world.set("api", Pooled::Yes, "w10"));
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(journal(&scene), None);
    // A store that does not answer takes nothing over.
    let mut scene = held(Scene::new());
    scene.handle.0.borrow_mut().store_error = Some(StoreError::Unreachable("no member answers".to_owned()));
    scene.recover().exits(ExitCode::LeftDepooled).state("held depooled in 'api'");
}

#[test]
fn a_depool_that_another_made_first_leaves_no_journal_behind() {
    let scene = Scene::new().at("before write no api", |world| world.set("api", Pooled::No, "w3"));
    let scene = scene.balancer("lb1", Balance::Says(Verdict::Pooled)).with(|world| world.balancers_must_be_out = false);
    scene.safe_restart().exits(ExitCode::Failed).leaves("api", "no w3");
    assert_eq!(journal(&scene), None);
}

#[test]
fn a_run_that_has_lost_the_lock_of_its_host_stops_before_it_writes_and_before_it_restarts() {
    let scene = Scene::new().with(|world| world.lock_lost = true);
    scene.safe_restart().exits(ExitCode::Failed).did(&[]).says("lock of this host is gone");
    let scene = Scene::new().at("sleep", |world| world.lock_lost = true);
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]);
}

#[test]
fn a_recovery_that_does_not_get_as_far_as_the_pools_says_which_may_be_out() {
    let mut scene = killed(Scene::new());
    scene.handle.0.borrow_mut().store_error = Some(StoreError::Unreachable("no member answers".to_owned()));
    scene.recover().exits(ExitCode::Unreachable).state("perhaps still depooled in 'api'");
}

/// A pair of HAProxies that each keep the pool, of which one dies while the host is out: it goes back at the one that lives.
#[test]
fn a_dead_haproxy_does_not_keep_a_host_out_of_the_other_one() {
    let away = |scene: &Scene| {
        scene.handle.0.borrow_mut().away.insert("two".to_owned());
    };
    let mut scene = killed(Scene::new().in_parts());
    away(&scene);
    for _ in 0..2 {
        let ended =
            scene.recover().exits(ExitCode::PutBackUnconfirmed).leaves("one", "yes w10").leaves("two", "no w10");
        ended.says("does not answer").state("perhaps still depooled: ");
    }
    scene.handle.0.borrow_mut().away.clear();
    scene.recover().exits(ExitCode::Done).leaves("one", "yes w10").leaves("two", "yes w10");
    assert_eq!(journal(&scene), None);

    // An operator's word is no weaker than the timer's, and what it could not reach is not forgotten.
    let mut scene = killed(Scene::new().in_parts());
    away(&scene);
    scene.job.left = journal(&scene);
    scene.run(sequence::pool).exits(ExitCode::PutBackUnconfirmed).leaves("one", "yes w10").leaves("two", "no w10");
    scene.handle.0.borrow_mut().away.clear();
    scene.recover().exits(ExitCode::Done).leaves("two", "yes w10");
    assert_eq!(journal(&scene), None);

    // Nor is it held there for a unit that does not run, and forgotten where nobody could look.
    let mut scene = killed(Scene::new().in_parts()).with(|world| world.stop("php.service"));
    away(&scene);
    scene.recover().exits(ExitCode::LeftDepooled).leaves("one", "no w10");
    scene.handle.0.borrow_mut().away.clear();
    assert_eq!(journal(&scene).unwrap().nodes.len(), 2);

    // One that is dead from the first look stops a restart, and all of them stop everything.
    let scene = Scene::new().in_parts();
    away(&scene);
    scene.safe_restart().exits(ExitCode::Unreachable).did(&[]);
    scene.handle.0.borrow_mut().away.insert("one".to_owned());
    scene.run(sequence::pool).exits(ExitCode::Unreachable).did(&[]);
}

/// A server of HAProxy that was told to leave as well as the one that it tracks: told to come back first, it follows that one.
#[test]
fn what_comes_along_with_what_a_recovery_puts_back_is_seen_to_come_back() {
    let killed = || {
        let scene = killed(Scene::new().in_parts());
        let scene = scene.at("before write yes one", |world| world.set("one", Pooled::Inactive, "w10"));
        scene.at("yes two", |world| world.set("one", Pooled::Yes, "w10"))
    };
    let mut undisturbed = killed();
    let ended = undisturbed.recover().exits(ExitCode::Done).leaves("one", "yes w10").leaves("two", "yes w10");
    ended.state("pooled again in 'api' at 'lb1', 'api' at 'lb2'");
    let mut deaf = killed().balancer("lb1", Balance::Hangs);
    deaf.recover().exits(ExitCode::PutBackUnconfirmed).says("'lb1'");
}

/// The dead one is not repaired but taken out of the configuration: an operator's word ends what could never be confirmed.
#[test]
fn a_haproxy_that_is_gone_for_good_is_forgotten_by_an_operators_word_and_by_nothing_else() {
    let mut scene = killed(Scene::new().in_parts()).pools(|pools| pools.truncate(1));
    scene.handle.0.borrow_mut().away.insert("two".to_owned());
    scene.recover().exits(ExitCode::PutBackUnconfirmed).leaves("one", "yes w10");
    scene.job.left = journal(&scene);
    scene.safe_restart().exits(ExitCode::Unreachable);
    scene.run(sequence::pool).exits(ExitCode::Done).says("is configured no longer").leaves("one", "yes w10");
    assert_eq!(journal(&scene), None);

    // One that answers is put back all the same.
    let mut scene = killed(Scene::new().in_parts()).pools(|pools| pools.truncate(1));
    scene.job.left = journal(&scene);
    scene.run(sequence::pool).exits(ExitCode::Done).leaves("one", "yes w10").leaves("two", "no w10");
    scene.recover().exits(ExitCode::Done).leaves("two", "yes w10");
    assert_eq!(journal(&scene), None);
}
