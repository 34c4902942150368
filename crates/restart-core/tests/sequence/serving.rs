//! Requests in flight before the restart, and whether the service serves after it.

use std::time::Duration;

use restart_core::{ExitCode, Phase, Purpose, Share, Signal, sequence};

use crate::world::{Ended, Requests, Scene, Slot, Unit, World, ms};

/// How long this phase took.
fn took(ended: &Ended<'_>, phase: &str) -> Duration {
    let phase = ended.report.phases.iter().find(|report| report.phase == phase);
    phase.unwrap_or_else(|| panic!("no such phase: {}", ended.story())).seconds
}

/// A scene in which requests are in flight that end this long after the drain began.
fn in_flight(ends: &[u64]) -> Scene {
    let ends: Vec<Duration> = ends.iter().map(|end| ms(*end)).collect();
    Scene::new().with(|world| world.requests = Requests::EndAt(Vec::new())).at("in flight", move |world| {
        let now = world.time();
        world.requests = Requests::EndAt(ends.into_iter().map(|end| now + end).collect());
    })
}

#[test]
fn with_nothing_in_flight_the_grace_period_ends_after_two_looks() {
    let scene = in_flight(&[]);
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert!(took(&ended, "drain") < ms(110), "{}", ended.story());
    assert_eq!(ended.report.in_flight, Some(0));
}

#[test]
fn one_look_with_nothing_in_flight_is_not_enough() {
    let scene = in_flight(&[]).at("sleep", |world| {
        let end = world.time() + ms(1000);
        world.requests = Requests::EndAt(vec![end]);
    });
    let scene = scene.job(|job| job.grace = ms(3000));
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert!(took(&ended, "drain") > ms(1000), "{}", ended.story());
}

#[test]
fn requests_in_flight_are_awaited_and_not_longer() {
    let scene = in_flight(&[200, 1500]);
    let ended = scene.safe_restart().exits(ExitCode::Done);
    let drain = took(&ended, "drain");
    assert!(drain > ms(1500) && drain < ms(1800), "{}", ended.story());
    assert_eq!(ended.report.in_flight, Some(0));
}

#[test]
fn what_is_in_flight_at_the_end_of_the_grace_period_is_reported_by_count() {
    let scene = in_flight(&[200, 9000, 9000]);
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert!(took(&ended, "drain") < ms(3100), "{}", ended.story());
    assert_eq!(ended.report.in_flight, Some(2));
    ended.says("2 requests are still in flight");
}

#[test]
fn a_drain_timeout_allows_more_and_is_not_waited_for_when_nothing_is_in_flight() {
    let with = |ends| in_flight(ends).job(|job| job.drain_timeout = ms(30_000));
    let scene = with(&[9000]);
    let ended = scene.safe_restart().exits(ExitCode::Done);
    let drain = took(&ended, "drain");
    assert!(drain > ms(9000) && drain < ms(9400), "{}", ended.story());
    let scene = with(&[]);
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert!(took(&ended, "drain") < ms(110), "{}", ended.story());
}

#[test]
fn a_host_that_has_to_be_drained_and_is_not_is_put_back_unrestarted() {
    let scene = in_flight(&[9000]).job(|job| job.require_drained = true);
    let ended = scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]).leaves("api", "yes w10");
    ended.says("not drained after 3s: 1 request is still in flight");
}

#[test]
fn a_service_too_busy_to_say_gets_the_whole_time_and_is_not_drained() {
    let silent = || Scene::new().with(|world| world.requests = Requests::Silent);
    let scene = silent().job(|job| job.drain_timeout = ms(8000));
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert_eq!(took(&ended, "drain"), ms(8000), "{}", ended.story());
    assert_eq!(ended.report.in_flight, None);
    ended.says("cannot be told what is still in flight");
    let scene = silent().job(|job| job.require_drained = true);
    scene.safe_restart().exits(ExitCode::Failed).did(&["no api", "yes api"]);
}

/// Whatever a look costs, the host is not out for longer than it was told.
#[test]
fn the_grace_period_is_never_exceeded() {
    for requests in [Requests::Silent, Requests::Broken, Requests::EndAt(vec![ms(9_000_000)])] {
        for (grace, takes) in [(0, 900), (50, 900), (300, 900), (3000, 1), (3000, 90), (3000, 700)] {
            let requests = requests.clone();
            let scene = Scene::new().job(|job| job.grace = ms(grace)).with(|world| {
                (world.requests, world.look_takes) = (requests, ms(takes));
            });
            let ended = scene.safe_restart().exits(ExitCode::Done);
            let drain = ended.report.phases.iter().find(|phase| phase.phase == "drain").map(|phase| phase.seconds);
            // The shortest look is a tenth of a second, however short the grace period.
            let most = ms(grace.max(100));
            assert!(drain.unwrap_or_default() <= most, "grace {grace}, looks of {takes}: {}", ended.story());
        }
    }
}

#[test]
fn two_looks_are_a_pause_apart_however_long_each_takes() {
    let scene = in_flight(&[]).with(|world| world.look_takes = ms(400));
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert_eq!(took(&ended, "drain"), ms(400 + 100 + 400), "{}", ended.story());
}

#[test]
fn one_quiet_look_at_the_end_is_not_enough_where_a_drained_host_is_required() {
    // Nothing at the only look that the grace period has room for, and something right after it.
    let scene = || {
        in_flight(&[]).job(|job| (job.grace, job.require_drained) = (ms(50), true)).at("no api", |world| {
            world.hook("in flight", |world| {
                world.later(ms(60), |world| {
                    let end = world.time() + ms(9000);
                    world.requests = Requests::EndAt(vec![end]);
                });
            });
        })
    };
    scene().safe_restart().exits(ExitCode::Failed).leaves("api", "yes w10");
    scene().job(|job| job.require_drained = false).safe_restart().exits(ExitCode::Done);
}

#[test]
fn a_page_that_is_no_answer_does_not_draw_the_drain_out() {
    let scene = Scene::new().with(|world| world.requests = Requests::Broken).job(|job| job.drain_timeout = ms(60_000));
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert_eq!(took(&ended, "drain"), ms(3000), "{}", ended.story());
    ended.says("cannot be told what is still in flight: it answers 404");
}

#[test]
fn where_nobody_counts_time_alone_decides_and_what_to_configure_is_said() {
    let scene = Scene::new().job(|job| job.drain_timeout = ms(30_000));
    let ended = scene.safe_restart().exits(ExitCode::Done);
    assert_eq!(took(&ended, "drain"), ms(3000));
    ended.says("add 'pm.status_path'");
}

#[test]
fn a_drained_host_cannot_be_required_where_nobody_counts() {
    let scene = Scene::new().job(|job| job.require_drained = true);
    scene.safe_restart().exits(ExitCode::Configuration).did(&[]).says("add 'pm.status_path'");
}

/// A page that was configured after the service was started: nobody answers there, and nobody will.
#[test]
fn a_drained_host_cannot_be_required_where_nobody_answers() {
    for what in [sequence::safe_restart, sequence::depool] {
        let scene = Scene::new().job(|job| job.require_drained = true).with(|world| world.requests = Requests::Broken);
        let ended = scene.run(what).exits(ExitCode::Configuration).did(&[]).leaves("api", "yes w10");
        ended.says("it answers 404; if what is asked was configured since the service was started, restart it once");
    }
    // Where it is not required, time alone decides.
    let scene = Scene::new().with(|world| world.requests = Requests::Broken);
    scene.safe_restart().exits(ExitCode::Done);
}

/// Whoever looks without root's rights is told that, and nothing of a service that has to be restarted.
#[test]
fn a_drained_host_cannot_be_required_by_who_may_not_ask() {
    let scene = Scene::new().job(|job| job.require_drained = true).with(|world| world.requests = Requests::Forbidden);
    let ended = scene.run(|job, parts| sequence::plan(job, Purpose::Restart, parts));
    let ended = ended.exits(ExitCode::NotPermitted).did(&[]).leaves("api", "yes w10");
    let ended = ended
        .says("cannot require a drained host: requests in flight cannot be counted: cannot connect: permission denied");
    assert!(!ended.story().contains("restart it once"), "{}", ended.story());
}

#[test]
fn what_a_unit_runs_is_learned_again_after_the_wait_for_a_slot() {
    let waiting = |requests: Requests| {
        let scene = in_flight(&[]).job(|job| (job.require_drained, job.limit) = (true, Some(Share::Count(1))));
        let scene = scene.with(|world| world.slots = Slot::FreeAfter(ms(5000)));
        scene.at("queue", |world| world.requests = requests)
    };
    let effects = ["ask for one of 1", "release"];
    waiting(Requests::Uncounted)
        .safe_restart()
        .exits(ExitCode::Configuration)
        .did(&effects)
        .says("add 'pm.status_path'");
    waiting(Requests::Broken).safe_restart().exits(ExitCode::Configuration).did(&effects).says("it answers 404");
    // What can be counted since is counted.
    let scene = Scene::new().job(|job| job.limit = Some(Share::Count(1)));
    let scene = scene.with(|world| world.slots = Slot::FreeAfter(ms(5000)));
    let scene = scene.at("queue", |world| world.requests = Requests::EndAt(Vec::new()));
    assert_eq!(scene.safe_restart().exits(ExitCode::Done).report.in_flight, Some(0));
}

#[test]
fn a_drained_host_is_looked_for_even_without_a_grace_period() {
    let scene = in_flight(&[9000]).job(|job| (job.grace, job.require_drained) = (ms(0), true));
    scene.safe_restart().exits(ExitCode::Failed).leaves("api", "yes w10");
}

#[test]
fn a_signal_ends_the_drain() {
    let scene = in_flight(&[2500]).after("in flight", ms(500), |world: &mut World| world.signal(Signal::Terminate));
    let ended = scene.safe_restart().leaves("api", "yes w10").did(&["no api", "yes api"]);
    assert!(took(&ended, "drain") < ms(700), "{}", ended.story());
}

#[test]
fn a_host_goes_back_only_when_its_unit_serves() {
    let scene = Scene::new().with(|world| world.serves_after = Some(ms(2000)));
    let scene = scene.at("before write yes api", |world| {
        let started = world.units["php.service"].2;
        assert!(world.time() >= started + ms(2000), "put back before it serves");
    });
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
}

#[test]
fn a_unit_that_runs_and_does_not_serve_leaves_the_host_depooled() {
    let scene = Scene::new().with(|world| world.serves_after = None);
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
    ended.says("it runs, and is not ready: no answer to ping");
}

#[test]
fn a_unit_that_ends_before_it_serves_is_not_waited_for() {
    let scene = Scene::new().unit("php", Unit::DiesAfter(ms(1000))).with(|world| world.serves_after = None);
    let ended = scene.job(|job| job.ready = ms(60_000));
    let ended = ended.safe_restart().exits(ExitCode::LeftDepooled).says("it is failed; before that: no answer to ping");
    assert!(took(&ended, "restart") < ms(2000), "{}", ended.story());
}

#[test]
fn a_second_signal_ends_the_wait_for_a_unit_that_does_not_serve() {
    let scene = Scene::new().job(|job| job.ready = ms(60_000)).with(|world| world.serves_after = None);
    let scene = scene.after("ready", ms(1000), |world| {
        world.signal(Signal::Interrupt);
        world.signal(Signal::Interrupt);
    });
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).says("because of a second SIGINT");
    assert!(took(&ended, "restart") < ms(3000), "{}", ended.story());
}

fn with_url(scene: Scene) -> Scene {
    scene.pools(|pools| pools[0].ready_url = Some("http://localhost/ready".to_owned()))
}

#[test]
fn an_address_that_has_to_answer_is_awaited() {
    let scene = with_url(Scene::new()).at("restart php.service", |world| {
        let later = world.time() + ms(3000);
        world.answers_from = Some(later);
    });
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
    let scene = with_url(Scene::new()).with(|world| world.answers_from = None);
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
    ended.says("'http://localhost/ready', by which pool 'api' is known to be ready, does not answer: status 503");
}

#[test]
fn a_recovery_puts_no_host_back_that_does_not_serve() {
    for scene in [with_url(Scene::new()), Scene::new()] {
        let scene = scene.at("sleep", World::freeze);
        scene.safe_restart();
        scene.handle.0.borrow_mut().thaw();
        let mut scene = scene.with(|world| (world.serves_after, world.answers_from) = (None, None));
        scene.recover().exits(ExitCode::LeftDepooled);
        assert_eq!(scene.handle.0.borrow().journal.as_ref().map(|record| record.phase), Some(Phase::Held));
    }
}
