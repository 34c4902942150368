//! Operators, and other tools, who write while we hold a node: only what we depooled is repooled.

use restart_core::{ExitCode, Pooled, sequence};

use crate::world::{Balance, Scene};

#[test]
fn a_new_weight_is_kept_when_the_node_is_repooled() {
    let scene = Scene::new().at("restart php.service", |world| world.set("api", Pooled::No, "w7"));
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w7");
}

#[test]
fn what_an_operator_set_meanwhile_stays_and_is_no_error() {
    for (pooled, rest) in [(Pooled::Inactive, "w10"), (Pooled::No, "w10"), (Pooled::Inactive, "w0")] {
        let scene = Scene::new().at("restart php.service", move |world| world.set("api", pooled, rest));
        let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service"]);
        ended.leaves("api", &format!("{pooled} {rest}")).says("left to whoever changed it");
    }
}

#[test]
fn a_node_that_was_deleted_meanwhile_is_not_created_again() {
    let scene = Scene::new().at("restart php.service", |world| world.delete("api"));
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "").says("deleted meanwhile");
}

#[test]
fn a_host_that_an_operator_pooled_before_the_restart_is_not_restarted() {
    let scene = Scene::new().at("sleep", |world| world.set("api", Pooled::Yes, "w10"));
    let ended = scene.safe_restart().exits(ExitCode::Failed).did(&["no api"]).leaves("api", "yes w10");
    let ended = ended.says("somebody pooled");
    assert!(!ended.story().contains("forgotten"), "{}", ended.story());
}

#[test]
fn a_store_without_revisions_may_have_forgotten_what_looks_like_an_operators_pool() {
    let scene = Scene::new().with(|world| world.has_revisions = false);
    let scene = scene.at("sleep", |world| world.set("api", Pooled::Yes, "w10"));
    let ended = scene.safe_restart().exits(ExitCode::Failed).did(&["no api"]).leaves("api", "yes w10");
    ended.says("somebody pooled").says("was restarted or reloaded and has forgotten that it is out");
}

#[test]
fn a_node_that_was_out_and_is_pooled_by_an_operator_stops_the_restart_too() {
    let scene = Scene::new().pool("web", &["lb1"], Pooled::No);
    let scene = scene.at("sleep", |world| world.set("web", Pooled::Yes, "w10"));
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]).leaves("web", "yes w10");
}

#[test]
fn an_abort_leaves_what_an_operator_set() {
    let scene = Scene::new().pool("web", &["lb1"], Pooled::Yes).at("sleep", |world| {
        world.set("web", Pooled::Yes, "w10");
        world.set("api", Pooled::Inactive, "w10");
    });
    let ended = scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "no web"]);
    ended.leaves("api", "inactive w10").leaves("web", "yes w10");
}

#[test]
fn a_weight_changed_at_the_moment_of_the_depool_is_kept() {
    let scene = Scene::new().at("before write no api", |world| world.set("api", Pooled::Yes, "w7"));
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
    ended.leaves("api", "yes w7");
}

#[test]
fn a_node_taken_out_by_another_at_the_moment_of_the_depool_is_theirs() {
    let scene = Scene::new().at("before write no api", |world| world.set("api", Pooled::No, "w10"));
    scene.safe_restart().exits(ExitCode::Done).did(&["restart php.service"]).leaves("api", "no w10");
}

#[test]
fn an_object_that_never_stands_still_is_given_up() {
    let scene = keeps_changing(Scene::new());
    scene.safe_restart().exits(ExitCode::Failed).did(&[]).says("keeps changing");
}

/// Somebody writes right before each of our writes.
fn keeps_changing(scene: Scene) -> Scene {
    fn again(world: &mut crate::world::World) {
        world.set("api", Pooled::Yes, "w7");
        world.hook("before write no api", again);
    }
    scene.at("before write no api", again)
}

#[test]
fn a_change_at_the_moment_of_the_repool_is_decided_anew() {
    let scene = Scene::new().at("before write yes api", |world| world.set("api", Pooled::Inactive, "w10"));
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "inactive w10");
    let scene = Scene::new().at("before write yes api", |world| world.set("api", Pooled::No, "w7"));
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w7");
}

/// A server that tracks the one that we take out, or the same one by another address of the same HAProxy.
#[test]
fn what_goes_and_comes_with_what_we_take_out_is_seen_to_come_back() {
    let scene = || {
        let scene = Scene::new().in_parts().at("no one", |world| world.set("two", Pooled::Inactive, "w10"));
        scene.at("yes one", |world| world.set("two", Pooled::Yes, "w10"))
    };
    let undisturbed = scene();
    let ended = undisturbed.safe_restart().exits(ExitCode::Done).did(&["no one", "restart php.service", "yes one"]);
    assert_eq!(ended.report.state, "restarted, pooled again in 'api' at 'lb1', 'api' at 'lb2'");
    let deaf = scene().at("yes one", |world| drop(world.balancers.insert("lb2".to_owned(), Balance::Hangs)));
    deaf.safe_restart().exits(ExitCode::RepoolUnconfirmed).says("'lb2'");
}

/// Such a server is `no`, too, where it was told so itself before the other one was; and told to come back while the other one is out,
/// it follows that.
#[test]
fn what_comes_along_with_an_explicit_pool_is_seen_to_come_back() {
    for (follows, other, before) in [("two", "one", Pooled::Inactive), ("one", "two", Pooled::No)] {
        let scene = || {
            let scene = Scene::new().in_parts().with(|world| world.set(other, Pooled::No, "w10"));
            let scene = scene.with(|world| world.set(follows, before, "w10"));
            let told = format!("before write yes {follows}");
            let scene = scene.at(&told, |world| world.set(follows, Pooled::Inactive, "w10"));
            scene.at(&format!("yes {other}"), |world| world.set(follows, Pooled::Yes, "w10"))
        };
        let undisturbed = scene();
        let ended = undisturbed.run(sequence::pool).exits(ExitCode::Done).did(&[&format!("yes {other}")]);
        assert_eq!(ended.report.state, "pooled again in 'api' at 'lb1', 'api' at 'lb2'");
        let balancer = if follows == "one" { "lb1" } else { "lb2" };
        let deaf = scene().with(|world| drop(world.balancers.insert(balancer.to_owned(), Balance::Hangs)));
        deaf.run(sequence::pool).exits(ExitCode::PutBackUnconfirmed).says(&format!("'{balancer}'"));
    }
}
