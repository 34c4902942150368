//! A store that is away, refuses, or loses an answer.

use restart_core::{ExitCode, Pooled, StoreError};

use crate::world::{Scene, World, ms};

fn away() -> StoreError {
    StoreError::Unreachable("etcd: no member answers".to_owned())
}

fn goes_away(world: &mut World) {
    world.store_error = Some(away());
}

#[test]
fn a_store_that_cannot_be_read_stops_the_run_before_any_write() {
    let table = [
        (away(), ExitCode::Unreachable),
        (StoreError::Refused("user refused".to_owned()), ExitCode::Configuration),
        (StoreError::Malformed("not JSON".to_owned()), ExitCode::Failed),
    ];
    for (error, code) in table {
        let scene = Scene::new().with(|world| world.store_error = Some(error));
        scene.safe_restart().exits(code).did(&[]).state("not restarted, pools as found");
    }
}

#[test]
fn a_write_that_is_refused_leaves_the_pools_as_found() {
    let scene = Scene::new().with(|world| world.refuse_writes = Some(StoreError::Refused("read only".to_owned())));
    scene.safe_restart().exits(ExitCode::Configuration).did(&[]).leaves("api", "yes w10");
}

#[test]
fn when_the_second_pool_cannot_be_left_the_first_is_put_back() {
    let scene = Scene::new().pool("web", &["lb1"], Pooled::Yes);
    let scene = scene.at("before write no web", |world| world.refuse_writes = Some(away()));
    let scene = scene.at("before write yes api", |world| world.refuse_writes = None);
    scene.safe_restart().exits(ExitCode::Unreachable).did(&["no api", "yes api"]).leaves("api", "yes w10");
}

#[test]
fn a_depool_whose_answer_was_lost_but_that_was_made_is_taken_back() {
    let scene = Scene::new().with(|world| world.lose_next_write = Some(true));
    let ended = scene.safe_restart().exits(ExitCode::Unreachable).did(&["no api", "yes api"]);
    ended.leaves("api", "yes w10").state("pools as found");
}

/// The lost write may still be on its way: the node gets a new revision, so that it can no longer be applied.
#[test]
fn a_depool_whose_answer_was_lost_and_that_was_not_made_can_no_longer_be_made() {
    let scene = Scene::new().with(|world| world.lose_next_write = Some(false));
    scene.safe_restart().exits(ExitCode::Unreachable).did(&["yes api"]).leaves("api", "yes w10");
}

/// The answer was lost, and before it is looked into an operator writes. Whatever he wrote over, his word stays.
#[test]
fn what_an_operator_writes_after_a_lost_depool_stays() {
    for made in [true, false] {
        for pooled in [Pooled::Inactive, Pooled::Yes] {
            let scene = Scene::new().with(|world| world.lose_next_write = Some(made));
            let scene = scene.at("lost", move |world| world.set("api", pooled, "w7"));
            let ended = scene.safe_restart().exits(ExitCode::Unreachable).leaves("api", &format!("{pooled} w7"));
            ended.says("left to whoever changed it");
        }
    }
    // A `no` that was never ours.
    let scene = Scene::new().with(|world| world.lose_next_write = Some(false));
    let scene = scene.at("lost", |world| world.set("api", Pooled::No, "w0"));
    scene.safe_restart().exits(ExitCode::Unreachable).did(&[]).leaves("api", "no w0").says("somebody else wrote");
    // A new weight on the `no` that was ours.
    let scene = Scene::new().with(|world| world.lose_next_write = Some(true));
    let scene = scene.at("lost", |world| world.set("api", Pooled::No, "w7"));
    scene.safe_restart().exits(ExitCode::Unreachable).leaves("api", "yes w7");
}

#[test]
fn a_lost_depool_of_which_nothing_can_be_found_out_is_reported_and_not_touched() {
    let scene = Scene::new().with(|world| world.lose_next_write = Some(true));
    let scene = scene.at("lost", |world| world.history_gone = true);
    let ended = scene.safe_restart().exits(ExitCode::PutBackUnconfirmed).did(&["no api"]).leaves("api", "no w10");
    ended.says("history").state("perhaps still depooled in 'api'");
}

#[test]
fn a_refusal_that_passes_is_awaited_when_the_host_goes_back() {
    let busy = StoreError::Refused("too many requests".to_owned());
    let scene = Scene::new().at("restart php.service", move |world| world.store_error = Some(busy)).after(
        "restart php.service",
        ms(2000),
        |world| world.store_error = None,
    );
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_store_that_is_away_at_the_repool_and_comes_back_is_awaited() {
    let scene = Scene::new()
        .at("restart php.service", goes_away)
        .after("restart php.service", ms(9000), |world| world.store_error = None);
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_store_that_stays_away_at_the_repool_is_exit_4() {
    let scene = Scene::new().at("restart php.service", goes_away);
    let ended = scene.safe_restart().exits(ExitCode::RepoolUnconfirmed).leaves("api", "no w10");
    let ended = ended.state("restarted, perhaps still depooled in 'api'; recovery goes on trying, or put it back with");
    ended.says("no member answers");
}

#[test]
fn a_store_that_stays_away_at_an_abort_is_exit_5() {
    let scene = Scene::new().at("sleep", goes_away);
    let ended = scene.safe_restart().exits(ExitCode::PutBackUnconfirmed).did(&["no api"]).leaves("api", "no w10");
    ended.state("perhaps still depooled in 'api'");
}

#[test]
fn a_repool_whose_answer_was_lost_is_known_as_ours() {
    for made in [true, false] {
        let scene = Scene::new().at("restart php.service", move |world| world.lose_next_write = Some(made));
        let ended = scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
        ended.did(&["no api", "restart php.service", "yes api"]).state("pooled again in 'api'");
    }
}
