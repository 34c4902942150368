//! Restarts that fail, and restarts that only look like it.

use restart_core::{Action, ExitCode, sequence};

use crate::world::{Scene, Unit, ms};

#[test]
fn a_failed_restart_leaves_the_host_depooled() {
    let kinds =
        [Unit::Fails, Unit::DiesAfter(ms(200)), Unit::ComesBackAfter(ms(200)), Unit::Ignored, Unit::StartLimitForGood];
    for kind in kinds {
        let scene = Scene::new().unit("php", kind);
        let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
        ended.state("left depooled in 'api'").says("cannot restart 'php.service'");
    }
}

#[test]
fn a_unit_that_never_gets_ready_is_given_up_after_its_own_limits() {
    let scene = Scene::new().unit("php", Unit::Hangs);
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10").says("still activating");
    assert!(ended.took < ms(240_000), "{:?}", ended.took);
}

#[test]
fn every_unit_is_tried_and_every_failure_is_reported() {
    let scene = Scene::new().unit("apache2", Unit::Fails).unit("memcached", Unit::Good).unit("rsyslog", Unit::Fails);
    let effects = [
        "no api",
        "restart php.service",
        "restart apache2.service",
        "restart memcached.service",
        "restart rsyslog.service",
    ];
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).did(&effects);
    ended.says("'apache2.service'").says("'rsyslog.service'");
}

#[test]
fn a_start_limit_is_reset_and_the_unit_started_again() {
    let scene = Scene::new().unit("php", Unit::StartLimit);
    let effects = ["no api", "restart php.service", "reset-failed php.service", "start php.service", "yes api"];
    scene.safe_restart().exits(ExitCode::Done).did(&effects).says("start limit");
}

#[test]
fn somebody_elses_restart_in_between_is_no_failure() {
    let scene = Scene::new().unit("php", Unit::RestartedByOthers);
    let ended = scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
    assert_eq!(ended.report.units[0].pid, Some(888));
}

#[test]
fn a_unit_has_to_stay_up_for_as_long_as_it_is_told() {
    let scene = Scene::new().unit("php", Unit::DiesAfter(ms(1500)));
    scene.safe_restart().exits(ExitCode::Done);
    let scene = Scene::new().unit("php", Unit::DiesAfter(ms(1500))).job(|job| job.settle = ms(2000));
    scene.safe_restart().exits(ExitCode::LeftDepooled);
}

/// A systemctl that somebody's signal hit while it looked left a host held whose PHP-FPM ran.
#[test]
fn a_restart_is_not_judged_by_systemds_silence() {
    let scene = Scene::new().unit("php", Unit::UntoldFor(ms(9000)));
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
    let scene = Scene::new().unit("php", Unit::UntoldFor(ms(60_000)));
    let ended = scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10");
    ended.says("cannot restart 'php.service': the bus is away");
}

/// A package that has systemd execute itself anew left hosts held whose PHP-FPM had not been touched, and an emergency undone.
#[test]
fn an_order_that_systemd_did_not_take_is_given_again() {
    let scene = Scene::new().unit("php", Unit::RefusedOnce);
    let restart = "restart php.service";
    let ended = scene.safe_restart().exits(ExitCode::Done).did(&["no api", restart, restart, "yes api"]);
    ended.says("'php.service' is as it was, and systemd is asked once more: connection reset by systemd");
    let scene = Scene::new().unit("php", Unit::RefusedOnce).job(|job| job.action = Action::Reload);
    scene.safe_restart().exits(ExitCode::Done).leaves("api", "yes w10");
    let scene = Scene::new().unit("php", Unit::RefusedOnce).job(|job| job.place = None);
    let scene = scene.with(|world| world.unsafe_restarts = true);
    scene.run(sequence::forced_restart).exits(ExitCode::Done).did(&[restart, restart]);
    // What is refused for good is not asked for ever.
    let scene = Scene::new().unit("php", Unit::Refused);
    scene.safe_restart().exits(ExitCode::LeftDepooled).did(&["no api", restart, restart]);
}

#[test]
fn an_order_that_systemd_took_is_judged_by_the_unit_where_systemctl_could_not_wait_for_it() {
    let scene = Scene::new().unit("php", Unit::Unawaited);
    scene.safe_restart().exits(ExitCode::Done).did(&["no api", "restart php.service", "yes api"]);
    let scene = Scene::new().unit("php", Unit::Unawaited).job(|job| job.place = None);
    let scene = scene.with(|world| world.unsafe_restarts = true);
    scene.run(sequence::forced_restart).exits(ExitCode::Done).did(&["restart php.service"]);
}

#[test]
fn a_unit_that_systemd_does_not_have_is_an_error_before_anything_is_read() {
    for kind in [Unit::Missing, Unit::Masked] {
        let scene = Scene::new().unit("typo", kind).at("list", |_| panic!("the store was read"));
        scene.safe_restart().exits(ExitCode::Configuration).did(&[]).says("'typo.service'");
    }
}

#[test]
fn a_unit_that_cannot_be_reloaded_is_an_error_before_anything_is_done() {
    let scene = Scene::new().unit("php", Unit::NoReload).job(|job| job.action = Action::Reload);
    scene.safe_restart().exits(ExitCode::Configuration).did(&[]).says("cannot be reloaded");
}

/// While the host was on its way out, systemd started the unit anew by itself; then our own restart is refused.
#[test]
fn a_start_that_was_not_ours_is_not_taken_for_our_restart() {
    let scene = Scene::new().unit("php", Unit::Refused).at("sleep", |world| world.start_anew("php.service"));
    scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10").says("it was not started anew");
}

#[test]
fn what_vanishes_before_its_restart_leaves_the_host_depooled() {
    let scene = Scene::new().at("sleep", |world| world.units.get_mut("php.service").unwrap().0 = Unit::Missing);
    scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10").state("left depooled");
}

#[test]
fn what_does_not_run_cannot_be_reloaded() {
    let scene = Scene::new().with(|world| world.stop("php.service")).job(|job| job.action = Action::Reload);
    scene.safe_restart().exits(ExitCode::Failed).did(&[]).says("what does not run cannot be reloaded");
}

#[test]
fn a_reload_that_fails_or_replaces_the_main_process_leaves_the_host_depooled() {
    for kind in [Unit::Fails, Unit::NewProcessOnReload] {
        let scene = Scene::new().unit("php", kind).job(|job| job.action = Action::Reload);
        scene.safe_restart().exits(ExitCode::LeftDepooled).leaves("api", "no w10").says("cannot reload");
    }
}
