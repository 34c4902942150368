//! The journal, what recovery makes of it, slots, and the count of a pool.

use restart_core::{ExitCode, Phase, Pooled, Record, Share, Verdict, sequence};

use crate::world::{Balance, Scene, Slot, Unit, World, ms};

/// What stood in the journal at the moment of an effect.
fn journal_at(event: &str) -> Record {
    let scene = Scene::new().at(event, |world| {
        let journal = world.journal.clone();
        world.seen = journal;
    });
    scene.safe_restart().exits(ExitCode::Done);
    let seen = scene.handle.0.borrow().seen.clone();
    seen.unwrap_or_else(|| panic!("no journal at '{event}'"))
}

#[test]
fn the_journal_is_open_before_the_first_write_and_knows_our_revision_after_it() {
    let before = journal_at("before write no api");
    assert_eq!((before.phase, before.nodes[0].revision), (Phase::TakingOut, None));
    assert_eq!(before.nodes[0].write.found.value, "yes w10");
    let after = journal_at("sleep");
    assert!(after.nodes[0].revision > Some(before.nodes[0].write.found.revision));
    assert_eq!(journal_at("before restart php.service").phase, Phase::Restarting);
    assert_eq!(journal_at("before write yes api").phase, Phase::BringingBack);
}

#[test]
fn a_run_that_ends_well_and_one_that_is_put_back_leave_no_journal() {
    for scene in [Scene::new(), Scene::new().at("sleep", |world| world.signal(restart_core::Signal::Terminate))] {
        scene.safe_restart().leaves("api", "yes w10");
        assert_eq!(scene.handle.0.borrow().journal, None);
    }
}

#[test]
fn a_disk_that_takes_nothing_stops_the_run_before_any_write() {
    let scene = Scene::new().with(|world| world.disk_full = true);
    scene.safe_restart().exits(ExitCode::Failed).did(&[]).says("no space left").leaves("api", "yes w10");
}

#[test]
fn a_disk_that_fills_up_while_the_host_is_out_has_it_put_back() {
    let scene = Scene::new().at("no api", |world| world.disk_full = true);
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]).leaves("api", "yes w10");
}

#[test]
fn a_failed_restart_is_held_and_the_next_good_run_puts_back_what_it_took_out() {
    let scene = Scene::new().pool("old", &["lb1"], Pooled::No).unit("php", Unit::Fails);
    scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
    let held = scene.handle.0.borrow().journal.clone();
    assert_eq!(held.as_ref().map(|record| record.phase), Some(Phase::Held));
    // Mended; the node that was `no` before is still nobody's business.
    let scene = scene.unit("php", Unit::Good).job(|job| job.left = held);
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10").leaves("old", "no w10");
    assert_eq!(scene.handle.0.borrow().journal, None);
}

fn held() -> (Scene, Record) {
    let scene = Scene::new().unit("php", Unit::Fails);
    scene.safe_restart().exits(ExitCode::LeftDepooled);
    let record = scene.handle.0.borrow().journal.clone().unwrap();
    (scene.unit("php", Unit::Good), record)
}

#[test]
fn a_run_that_is_aborted_leaves_a_held_host_held() {
    let (scene, record) = held();
    let held = record.clone();
    let scene =
        scene.job(|job| job.left = Some(held)).at("sleep", |world| world.signal(restart_core::Signal::Terminate));
    scene.safe_restart().leaves("api", "no w10");
    assert_eq!(scene.handle.0.borrow().journal, Some(record));
}

#[test]
fn a_good_restart_of_another_unit_does_not_release_a_held_host() {
    let (scene, record) = held();
    let scene = scene.with(|world| world.stop("php.service")).unit("apache2", Unit::Good).job(|job| {
        job.left = Some(record);
        job.units.remove(0);
    });
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
    ended.says("held this host because of 'php.service'").state("restarted, left depooled in 'api'");
}

#[test]
fn a_held_node_that_an_operator_took_is_theirs() {
    let (scene, record) = held();
    let scene = scene.with(|world| world.set("api", Pooled::No, "w10")).job(|job| job.left = Some(record));
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "no w10");
}

#[test]
fn an_operators_word_takes_over_from_the_journal() {
    let (scene, record) = held();
    let scene = scene.job(|job| job.left = Some(record));
    scene.run(sequence::pool).exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(scene.handle.0.borrow().journal, None);
    let (scene, record) = held();
    let scene = scene.job(|job| job.left = Some(record));
    scene.run(sequence::depool).exits(ExitCode::Done).leaves("api", "no w10");
    assert_eq!(scene.handle.0.borrow().journal, None);
}

/// What is left of a run that was killed at an effect, in a world that goes on.
fn killed_at(event: &str) -> (Scene, Record) {
    let scene = Scene::new().at(event, World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    let record = scene.handle.0.borrow().journal.clone();
    (scene, record.unwrap_or_else(|| panic!("no journal after '{event}'")))
}

const DEATHS: [&str; 6] = [
    "before write no api",
    "no api",
    "sleep",
    "before restart php.service",
    "restart php.service",
    "before write yes api",
];

#[test]
fn what_a_killed_run_took_out_is_put_back_wherever_it_died() {
    for event in DEATHS {
        let (mut scene, _) = killed_at(event);
        let ended = scene.recover().exits(ExitCode::Done);
        ended.leaves("api", "yes w10");
        assert_eq!(scene.handle.0.borrow().journal, None, "{event}");
    }
}

/// A way down ends the run's units before it ends the run, which must not take that for a restart that failed.
#[test]
fn a_host_that_goes_down_during_the_restart_is_put_back_after_its_next_boot() {
    let scene = Scene::new().unit("php", Unit::Fails).at("restart php.service", |world| world.going_down = true);
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
    ended.says("after its next boot");
    let record = scene.handle.0.borrow().journal.clone().unwrap();
    assert_eq!(record.phase, Phase::Restarting);
    let mut scene = scene.unit("php", Unit::Good).with(|world| world.going_down = false);
    scene.recover().exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(scene.handle.0.borrow().journal, None);
}

#[test]
fn a_host_whose_unit_does_not_run_is_held_by_the_recovery_and_then_only_reported() {
    let (mut scene, _) = killed_at("sleep");
    scene.handle.0.borrow_mut().stop("php.service");
    let ended = scene.recover().exits(ExitCode::LeftDepooled);
    ended.leaves("api", "no w10").says("'php.service'");
    let record = scene.handle.0.borrow().journal.clone().unwrap();
    assert_eq!(record.phase, Phase::Held);
    scene.handle.0.borrow_mut().start_anew("php.service");
    let ended = scene.recover().exits(ExitCode::LeftDepooled);
    ended.leaves("api", "no w10").says("is held depooled since").state("held depooled in 'api' by an earlier run");
    assert_eq!(scene.handle.0.borrow().journal, Some(record));
}

#[test]
fn a_recovery_leaves_what_an_operator_did_meanwhile() {
    for pooled in [Pooled::Inactive, Pooled::No] {
        let (mut scene, _) = killed_at("sleep");
        scene.handle.0.borrow_mut().set("api", pooled, "w10");
        let ended = scene.recover().exits(ExitCode::Done);
        ended.leaves("api", &format!("{pooled} w10"));
    }
}

#[test]
fn a_recovery_that_cannot_reach_the_store_goes_on_the_next_time() {
    let (scene, record) = killed_at("sleep");
    let mut scene = scene.with(|world| {
        world.store_error = Some(restart_core::StoreError::Unreachable("no member answers".to_owned()));
    });
    scene.recover().exits(ExitCode::Unreachable);
    assert_eq!(scene.handle.0.borrow().journal, Some(record));
}

/// A run adopts what an earlier one held, and is killed before it restarts anything: the one node is this run's, the other
/// goes on being held.
#[test]
fn a_recovery_puts_back_only_what_the_run_that_died_took_out_itself() {
    let scene = Scene::new().unit("php", Unit::Fails);
    scene.safe_restart().exits(ExitCode::LeftDepooled);
    let held = scene.handle.0.borrow().journal.clone().unwrap();
    let scene = scene.pool("web", &["lb1"], Pooled::Yes).unit("php", Unit::Good);
    let mut scene = scene.job(|job| job.left = Some(held)).at("sleep", World::freeze);
    scene.safe_restart();
    scene.handle.0.borrow_mut().thaw();
    let record = scene.handle.0.borrow().journal.clone().unwrap();
    assert_eq!((record.phase, record.nodes.len()), (Phase::TakingOut, 2));
    scene.handle.0.borrow_mut().start_anew("php.service");
    let ended = scene.recover().exits(ExitCode::Done);
    ended.leaves("web", "yes w10").leaves("api", "no w10");
    let left = scene.handle.0.borrow().journal.clone().unwrap();
    assert_eq!((left.phase, left.nodes.len()), (Phase::Held, 1));
}

#[test]
fn a_depool_that_is_taken_back_leaves_the_journal_as_it_was() {
    let (scene, record) = held();
    let kept = record.clone();
    let scene = scene.pool("web", &["lb9"], Pooled::Yes).job(|job| job.left = Some(kept));
    let scene =
        scene.at("no web", |world| drop(world.balancers.insert("lb9".to_owned(), Balance::Says(Verdict::Held))));
    let scene = scene.at("yes web", |world| drop(world.balancers.insert("lb9".to_owned(), Balance::Follows(ms(0)))));
    scene.run(sequence::depool).exits(ExitCode::Failed).leaves("web", "yes w10").leaves("api", "no w10");
    assert_eq!(scene.handle.0.borrow().journal, Some(record));
}

#[test]
fn a_slot_is_asked_for_before_any_write_and_given_back_at_the_end() {
    let scene = Scene::new().job(|job| job.limit = Some(Share::Count(3)));
    let effects = ["ask for one of 3", "no api", "restart php.service", "yes api", "release"];
    scene.safe_restart().exits(ExitCode::Done).did(&effects);
}

#[test]
fn without_a_slot_nothing_is_changed_and_the_holders_are_named() {
    let scene = Scene::new().job(|job| job.limit = Some(Share::Percent(10)));
    let scene = scene.with(|world| world.slots = Slot::FreeAfter(ms(90_000)));
    let ended = scene.safe_restart().exits(ExitCode::TryLater).did(&["ask for one of 1", "release"]);
    ended.says("mw7.eqiad.test");
}

#[test]
fn what_changed_while_a_slot_was_waited_for_is_read_again() {
    let scene = Scene::new().job(|job| job.limit = Some(Share::Count(1)));
    let scene = scene.with(|world| world.slots = Slot::FreeAfter(ms(5000)));
    let scene = scene.at("queue", |world| world.set("api", Pooled::Inactive, "w10"));
    let effects = ["ask for one of 1", "restart php.service", "release"];
    scene.safe_restart().exits(ExitCode::Done).did(&effects).leaves("api", "inactive w10");
}

#[test]
fn what_is_so_before_and_after_the_wait_for_a_slot_is_told_once() {
    let scene = Scene::new().job(|job| job.limit = Some(Share::Count(1)));
    let scene = scene.with(|world| world.set("api", Pooled::No, "w10"));
    let ended = scene.safe_restart().exits(ExitCode::Done).says("already 'no' in 'api'");
    let told = ended.report.notes.iter().filter(|note| note.contains("already 'no'"));
    assert_eq!(told.count(), 1, "{:?}", ended.report.notes);
}

#[test]
fn a_slot_that_is_lost_before_the_restart_has_the_host_put_back() {
    let scene =
        Scene::new().job(|job| job.limit = Some(Share::Count(1))).at("no api", |world| world.slots = Slot::Lost);
    let effects = ["ask for one of 1", "no api", "yes api", "release"];
    scene.safe_restart().exits(ExitCode::Unreachable).did(&effects).says("the connection is gone");
}

#[test]
fn a_slot_that_is_lost_after_the_restart_is_reported() {
    let scene = Scene::new().job(|job| job.limit = Some(Share::Count(1)));
    let scene = scene.at("restart php.service", |world| world.slots = Slot::Lost);
    scene.safe_restart().exits(ExitCode::Done).says("the slot was lost during the run");
}

#[test]
fn a_lock_service_that_is_away_stops_a_safe_run_and_no_forced_one() {
    let scene = Scene::new().job(|job| job.limit = Some(Share::Count(1))).with(|world| world.slots = Slot::Away);
    scene.safe_restart().exits(ExitCode::Unreachable).did(&["ask for one of 1"]);
    let scene = scene.job(|job| job.place = None).with(|world| {
        world.unsafe_restarts = true;
        world.done.clear();
    });
    let ended = scene.run(sequence::forced_restart).exits(ExitCode::Done);
    ended.did(&["ask for one of 1", "restart php.service"]).says("restarting without a slot");
}

#[test]
fn a_pool_that_would_fall_too_low_is_not_left() {
    let scene =
        Scene::new().neighbours("api", &[Pooled::No, Pooled::Yes]).job(|job| job.min_pooled = Share::Percent(50));
    let ended = scene.safe_restart().exits(ExitCode::TryLater).did(&[]);
    ended.says("would leave 1 of 3 hosts in 'api', and 2 have to stay pooled (--min-pooled or 'min_pooled', 50%)");
}

#[test]
fn a_pool_of_one_can_never_be_left_unless_that_is_meant() {
    let scene = Scene::new().job(|job| job.min_pooled = Share::Percent(50));
    let ended = scene.safe_restart().exits(ExitCode::Configuration).did(&[]).says("--min-pooled 0");
    ended.says("1 of 1 hosts in 'api' have to stay pooled");
    let scene = Scene::new().job(|job| job.min_pooled = Share::Count(0));
    scene.safe_restart().exits(ExitCode::Done);
    let scene = Scene::new().pools(|pools| pools[0].min_pooled = Some(Share::Count(0)));
    scene.job(|job| job.min_pooled = Share::Percent(50)).safe_restart().exits(ExitCode::Done);
}

/// Another host leaves the pool of three right before, or right after, our own write: the later one gives way.
#[test]
fn of_two_hosts_that_leave_at_the_same_time_only_the_later_one_is_put_back() {
    let scene =
        || Scene::new().neighbours("api", &[Pooled::Yes, Pooled::Yes]).job(|job| job.min_pooled = Share::Percent(50));
    let first = scene().at("no api", |world| world.set_neighbour("api", 0, Pooled::No));
    first.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
    let second = scene().at("before write no api", |world| world.set_neighbour("api", 0, Pooled::No));
    let ended = second.safe_restart().exits(ExitCode::TryLater).did(&["no api", "yes api"]).leaves("api", "yes w10");
    ended.says("leaves 1 of 3");
}
