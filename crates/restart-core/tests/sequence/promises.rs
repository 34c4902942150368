//! What must hold whatever happens: up to three mishaps at random moments, in every combination that chance finds. The world
//! itself checks the first promise, that no unit is restarted while this host is pooled in the store.

use std::time::Duration;

use proptest::prelude::*;
use restart_core::{ExitCode, Phase, Pooled, Report, Signal, StoreError, Verdict};

use crate::SEED;
use crate::world::{Balance, Scene, Unit, World, ms};

/// The moments at which something happens.
const MOMENTS: [&str; 10] = [
    "list",
    "before write no api",
    "no api",
    "answers",
    "sleep",
    "read",
    "before restart php.service",
    "restart php.service",
    "before write yes api",
    "yes api",
];

#[derive(Debug, Clone)]
enum Mishap {
    Signal,
    StoreAway(Duration),
    LosesAnswer {
        made: bool,
    },
    Balancer(Verdict, Duration),
    BalancerHangs,
    /// An operator takes the host out, or away.
    OperatorTakes(Option<Pooled>),
    OperatorWeighs,
    /// An operator pools the host. What is left in the end depends on when; what counts is that the world sees no restart.
    OperatorPools,
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let time = prop_oneof![Just(ms(100)), Just(ms(3000)), Just(ms(60_000))];
    let verdict = prop_oneof![
        Just(Verdict::Pooled),
        Just(Verdict::NotPooled),
        Just(Verdict::Held),
        Just(Verdict::Draining("1 session is still open".to_owned())),
        Just(Verdict::Down),
        Just(Verdict::Absent),
        Just(Verdict::Unknown("status 500".to_owned())),
    ];
    prop_oneof![
        Just(Mishap::Signal),
        time.clone().prop_map(Mishap::StoreAway),
        any::<bool>().prop_map(|made| Mishap::LosesAnswer { made }),
        (verdict, time).prop_map(|(verdict, time)| Mishap::Balancer(verdict, time)),
        Just(Mishap::BalancerHangs),
        Just(Mishap::OperatorTakes(Some(Pooled::Inactive))),
        Just(Mishap::OperatorTakes(None)),
        Just(Mishap::OperatorWeighs),
        Just(Mishap::OperatorPools),
    ]
}

fn happen(world: &mut World, mishap: Mishap) {
    match mishap {
        Mishap::Signal => world.signal(Signal::Terminate),
        Mishap::StoreAway(time) => {
            world.store_error = Some(StoreError::Unreachable("no member answers".to_owned()));
            world.later(time, |world| world.store_error = None);
        }
        Mishap::LosesAnswer { made } => world.lose_next_write = Some(made),
        Mishap::Balancer(verdict, time) => {
            world.balancers.insert("lb1".to_owned(), Balance::Says(verdict));
            world.later(time, |world| drop(world.balancers.insert("lb1".to_owned(), Balance::Follows(ms(20)))));
        }
        Mishap::BalancerHangs => drop(world.balancers.insert("lb2".to_owned(), Balance::Hangs)),
        Mishap::OperatorTakes(pooled) => {
            world.taken = Some(pooled.map_or(String::new(), |pooled| format!("{pooled} w3")));
            match pooled {
                Some(pooled) => world.set("api", pooled, "w3"),
                None => world.delete("api"),
            }
        }
        Mishap::OperatorWeighs => world.weigh("api"),
        Mishap::OperatorPools => {
            world.pooled_by_operator = true;
            world.set("api", Pooled::Yes, "w10");
        }
    }
}

/// Whether the way it ended fits the state that the host was left in.
fn check(scene: &Scene, report: &Report) -> Result<(), TestCaseError> {
    let world = scene.handle.0.borrow();
    let (code, object) = (report.exit_code(), world.object("api"));
    let restarted = world.done.iter().any(|done| done == "restart php.service");
    if world.pooled_by_operator {
        return Ok(());
    }
    if let Some(taken) = &world.taken {
        // Whoever takes a host away keeps it, also against a weight that another sets.
        prop_assert!(object == *taken || object.starts_with("inactive"), "an operator was overwritten: {}", object);
        return Ok(());
    }
    let pooled = object.starts_with("yes");
    match code {
        ExitCode::Done if report.signal.is_none() => prop_assert!(pooled && restarted),
        ExitCode::Done => prop_assert!(pooled, "a signal left the host out"),
        ExitCode::LeftDepooled => prop_assert!(!pooled && restarted),
        ExitCode::RepoolUnconfirmed => prop_assert!(restarted),
        ExitCode::PutBackUnconfirmed => prop_assert!(!restarted),
        _ => prop_assert!(pooled && !restarted, "exit {} and the host is not as it was found", code.number()),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, rng_seed: SEED, ..ProptestConfig::default() })]

    #[test]
    fn the_exit_code_tells_the_truth_and_no_operator_is_overwritten(
        mishaps in prop::collection::vec((prop::sample::select(&MOMENTS[..]), 0_u64..4000, mishap()), 0..=3),
        fails in any::<bool>(),
        revisions in any::<bool>(),
    ) {
        let mut scene = Scene::new().unit("php", if fails { Unit::DiesAfter(ms(200)) } else { Unit::Good });
        scene = scene.with(|world| world.balancers_must_be_out = false).with(|world| world.has_revisions = revisions);
        for (moment, delay, mishap) in mishaps {
            // The one moment that no check can come after: the store has been read, systemctl is being started.
            if moment == "before restart php.service" && matches!(mishap, Mishap::OperatorPools) {
                continue;
            }
            // Half of them at the very moment, half of them a while after it.
            scene = match delay {
                0..2000 => scene.at(moment, move |world| happen(world, mishap)),
                _ => scene.after(moment, ms(delay - 1999), move |world| happen(world, mishap)),
            };
        }
        let ended = scene.safe_restart();
        if let Err(error) = check(&scene, &ended.report) {
            prop_assert!(false, "{}{}", error, ended.story());
        }
    }

    /// A run that meets up to two mishaps and is then killed at any effect, in a world that heals: recovery brings the host
    /// back, or holds it if its unit does not run, and no operator is overwritten.
    #[test]
    fn whatever_a_dead_run_left_is_brought_to_its_end(
        mishaps in prop::collection::vec((prop::sample::select(&MOMENTS[..]), mishap()), 0..=2),
        death in prop::sample::select(&MOMENTS[..]),
        fails in any::<bool>(),
        revisions in any::<bool>(),
    ) {
        let mut scene = Scene::new().unit("php", if fails { Unit::Fails } else { Unit::Good });
        scene = scene.with(|world| world.balancers_must_be_out = false).with(|world| world.has_revisions = revisions);
        for (moment, mishap) in mishaps {
            if moment == "before restart php.service" && matches!(mishap, Mishap::OperatorPools) {
                continue;
            }
            scene = scene.at(moment, move |world| happen(world, mishap));
        }
        let mut scene = scene.at(death, World::freeze);
        scene.safe_restart();
        // The next process, in a world that is as bad as before: it may fail, and must not forget.
        scene.handle.0.borrow_mut().thaw();
        if scene.handle.0.borrow().journal.is_some() {
            let state = scene.recover().report.state;
            let world = scene.handle.0.borrow();
            let out = world.object("api").starts_with("no") && world.taken.is_none() && !world.pooled_by_operator;
            prop_assert!(!out || world.journal.is_some(), "forgotten: {}", state);
        }
        scene.handle.0.borrow_mut().heal();
        for _ in 0..3 {
            if scene.handle.0.borrow().journal.is_some() {
                scene.recover();
            }
        }
        let world = scene.handle.0.borrow();
        let (object, held) = (world.object("api"), world.journal.as_ref().map(|record| record.phase));
        let story = format!("{object}, journal {held:?}, done {:?}", world.done);
        if let (Some(taken), false) = (&world.taken, world.pooled_by_operator) {
            prop_assert!(object == *taken || object.starts_with("inactive"), "an operator was overwritten: {}", story);
        } else if !world.pooled_by_operator {
            prop_assert!(object.starts_with("yes") != (held == Some(Phase::Held)), "{}", story);
            prop_assert!(held.is_none() || fails, "held with a good unit: {}", story);
        }
        prop_assert!(matches!(held, None | Some(Phase::Held)), "not finished: {}", story);
    }
}
