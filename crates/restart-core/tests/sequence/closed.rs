//! Load balancers that say something else than they should, or nothing: the checks fail closed.

use restart_core::{ExitCode, Pooled, Verdict, sequence};

use crate::world::{Balance, Scene, ms};

fn unknown() -> Verdict {
    Verdict::Unknown("status 500".to_owned())
}

#[test]
fn a_load_balancer_that_does_not_know_the_host_stops_the_run_before_any_write() {
    let scene = Scene::new().balancer("lb2", Balance::Says(Verdict::Absent));
    scene.safe_restart().exits(ExitCode::Unreachable).did(&[]).says("'lb2'").state("not restarted, pools as found");
}

#[test]
fn a_load_balancer_that_cannot_be_asked_stops_the_run_before_any_write() {
    for balance in [Balance::Says(unknown()), Balance::Hangs] {
        let scene = Scene::new().balancer("lb1", balance);
        scene.safe_restart().exits(ExitCode::Unreachable).did(&[]).says("'lb1'");
    }
}

#[test]
fn one_that_answers_again_within_the_time_allowed_is_enough() {
    let scene = Scene::new().balancer("lb1", Balance::SaysUntil(ms(1_010_000), unknown()));
    scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
}

/// Each of these verdicts after the write, for ever: never a confirmation.
#[test]
fn whatever_is_not_a_confirmation_puts_the_host_back() {
    let draining = Verdict::Draining("1 session is still open".to_owned());
    let contrary = [Verdict::Pooled, Verdict::Held, draining, Verdict::Down];
    let blind = [Verdict::Absent, unknown()];
    let table = contrary.map(|verdict| (verdict, ExitCode::Failed)).into_iter();
    for (verdict, code) in table.chain(blind.map(|verdict| (verdict, ExitCode::Unreachable))) {
        let says = verdict.clone();
        let scene = Scene::new()
            .at("no api", move |world| drop(world.balancers.insert("lb2".to_owned(), Balance::Says(says))))
            .at("yes api", |world| drop(world.balancers.insert("lb2".to_owned(), Balance::Follows(ms(0)))));
        let ended = scene.safe_restart().exits(code).did(&["no api", "yes api"]).leaves("api", "yes w10");
        ended.says(&verdict.to_string()).state("not restarted, pools as found");
    }
}

#[test]
fn one_that_hangs_after_the_write_puts_the_host_back_and_that_is_not_confirmed() {
    let scene = Scene::new().at("no api", |world| drop(world.balancers.insert("lb2".to_owned(), Balance::Hangs)));
    let ended = scene.safe_restart().exits(ExitCode::PutBackUnconfirmed).did(&["no api", "yes api"]);
    ended.leaves("api", "yes w10").state("not restarted, pooled again in 'api', but not every load balancer says so");
}

#[test]
fn one_that_never_changes_its_answer_is_told_apart_from_one_that_does() {
    let stale = Scene::new().balancer("lb1", Balance::Says(Verdict::Pooled));
    stale
        .safe_restart()
        .exits(ExitCode::Failed)
        .says("as before the write: it is slow, or no longer follows the store");
    let held = Scene::new().balancer("lb1", Balance::SaysUntil(ms(1_000_010), Verdict::Pooled));
    let held = held.at("no api", |world| drop(world.balancers.insert("lb1".to_owned(), Balance::Says(Verdict::Held))));
    let held = held.at("yes api", |world| drop(world.balancers.insert("lb1".to_owned(), Balance::Follows(ms(0)))));
    let ended = held.safe_restart().exits(ExitCode::Failed);
    assert!(!ended.report.failures[0].message.contains("as before"), "{}", ended.story());
}

#[test]
fn one_that_pools_the_host_again_is_seen_by_the_last_look() {
    let scene = Scene::new().after("no api", ms(1000), |world| {
        world.balancers.insert("lb1".to_owned(), Balance::Says(Verdict::Pooled));
    });
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]).says("right before the restart");
}

#[test]
fn with_a_quorum_one_may_be_unreachable_from_start_to_end() {
    let scene = Scene::new().balancer("lb2", Balance::Hangs).job(|job| job.quorum = Some(1));
    scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
}

#[test]
fn with_a_quorum_nobody_may_say_pooled() {
    let scene = Scene::new().job(|job| job.quorum = Some(1)).balancer("lb2", Balance::Says(Verdict::Pooled));
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]);
}

/// Each of them says pooled right after the write; that one then cannot be asked does not make it unsay it.
#[test]
fn one_that_said_pooled_and_then_nothing_is_not_merely_unreachable() {
    let scene = Scene::new().job(|job| job.quorum = Some(1)).balancer("lb2", Balance::Follows(ms(60_000)));
    let scene =
        scene.after("no api", ms(30), |world| drop(world.balancers.insert("lb2".to_owned(), Balance::Says(unknown()))));
    let scene = scene.at("yes api", |world| drop(world.balancers.insert("lb2".to_owned(), Balance::Follows(ms(0)))));
    scene.safe_restart().exits(ExitCode::Unreachable).did(&["no api", "yes api"]);
}

#[test]
fn a_quorum_does_without_one_whose_time_out_is_longer_than_all_the_time_allowed() {
    let scene = Scene::new().balancer("lb2", Balance::Hangs).job(|job| {
        job.quorum = Some(1);
        job.allowed = ms(4000);
    });
    scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
}

/// At the last look one is slow; meanwhile the other, which had confirmed, is given the host again.
#[test]
fn a_confirmation_grows_old() {
    let scene = Scene::new().after("sleep", ms(3000), |world| {
        world.balancers.insert("lb2".to_owned(), Balance::SaysUntil(world.time() + ms(4000), unknown()));
        world.later(ms(1500), |world| drop(world.balancers.insert("lb1".to_owned(), Balance::Says(Verdict::Pooled))));
    });
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]).says("right before the restart");
}

/// The same, and it is an operator who pools the host while the slow one is waited for.
#[test]
fn the_store_has_the_last_word_before_the_restart() {
    let scene = Scene::new().after("sleep", ms(3000), |world| {
        world.balancers.insert("lb2".to_owned(), Balance::Says(unknown()));
        world
            .later(ms(4000), |world| drop(world.balancers.insert("lb2".to_owned(), Balance::Says(Verdict::NotPooled))));
        world.balancers.insert("lb1".to_owned(), Balance::Says(Verdict::NotPooled));
        world.later(ms(3500), |world| world.set("api", Pooled::Yes, "w10"));
    });
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api"]).says("somebody pooled");
}

#[test]
fn a_quorum_is_counted_in_each_pool() {
    let scene = Scene::new().pool("web", &["lb3"], Pooled::Yes).job(|job| job.quorum = Some(1));
    let scene = scene.balancer("lb3", Balance::Hangs);
    scene.safe_restart().exits(ExitCode::Unreachable).did(&[]).says("'lb3' of 'web'");
}

#[test]
fn a_pool_whose_node_was_out_is_verified_too() {
    for pooled in [Pooled::No, Pooled::Inactive] {
        let scene = Scene::new().pool("web", &["lb3"], pooled).balancer("lb3", Balance::Says(Verdict::Pooled));
        scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]).says("'lb3' of 'web' says pooled");
    }
}

#[test]
fn a_slow_load_balancer_is_awaited_within_the_time_allowed() {
    let scene = Scene::new().balancer("lb1", Balance::Follows(ms(14_000)));
    scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
}

#[test]
fn a_health_check_that_fell_into_the_restart_is_awaited() {
    let scene = Scene::new().at("restart php.service", |world| {
        world.balancers.insert("lb1".to_owned(), Balance::SaysUntil(ms(1_014_000), Verdict::Down));
    });
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_repool_that_is_not_confirmed_is_exit_4_and_says_who_does_not_send() {
    let scene = Scene::new().at("yes api", |world| {
        world.balancers.insert("lb1".to_owned(), Balance::Says(Verdict::Down));
    });
    let ended = scene.safe_restart().exits(ExitCode::RepoolUnconfirmed).leaves("api", "yes w10");
    ended
        .says("'lb1' of 'api' says enabled, but not pooled")
        .state("restarted, pooled again in 'api', but not every load balancer says so");
}

/// Two HAProxies that each keep the pool: one of them has this host under another name, or not yet.
#[test]
fn a_host_that_only_one_of_those_who_keep_the_pool_knows_is_not_restarted() {
    let all = ["no one", "no two", "restart php.service", "yes one", "yes two"];
    Scene::new().in_parts().safe_restart().exits(ExitCode::Done).did(&all);
    let scene = Scene::new().in_parts().with(|world| world.delete("two"));
    let ended = scene.safe_restart().exits(ExitCode::Configuration).did(&[]).says("and not in 'api' at 'lb2'");
    ended.state("not restarted, pools as found");
    scene.run(sequence::depool).exits(ExitCode::Configuration).did(&[]);
    scene.run(sequence::pool).exits(ExitCode::Done);
}
