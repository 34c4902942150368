//! The schedule, case by case, and then its promises with any hosts, rules, outcomes and order of events.

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::ZERO;

fn rules(window: usize) -> Rules {
    Rules {
        window,
        canaries: 0,
        pause: Duration::ZERO,
        gate: false,
        max_failures: 1,
        max_unreachable: 1,
        retries: 2,
        retry_delay: Duration::from_secs(30),
    }
}

fn ended(schedule: &mut Schedule, place: Place, ending: Ending) -> Vec<Action> {
    schedule.take(Event::HostEnded(place, ending), NOW)
}

fn starts(places: &[Place]) -> Vec<Action> {
    places.iter().copied().map(Action::Start).collect()
}

#[test]
fn a_host_is_started_as_soon_as_another_ends() {
    let mut schedule = Schedule::new(5, rules(2));
    assert_eq!(schedule.take(Event::Tick, NOW), starts(&[0, 1]));
    assert_eq!(schedule.take(Event::Tick, NOW), []);
    assert_eq!(ended(&mut schedule, 1, Ending::Done), starts(&[2]));
    assert_eq!(ended(&mut schedule, 2, Ending::Skipped), starts(&[3]));
    assert_eq!(ended(&mut schedule, 0, Ending::Done), starts(&[4]));
    assert_eq!(ended(&mut schedule, 4, Ending::Done), []);
    assert!(!schedule.is_over());
    ended(&mut schedule, 3, Ending::Done);
    assert!(schedule.is_over() && schedule.halted().is_none());
}

#[test]
fn canaries_come_first_and_then_the_gate_and_only_then_the_others() {
    let mut schedule = Schedule::new(6, Rules { canaries: 2, gate: true, ..rules(3) });
    assert_eq!(schedule.take(Event::Tick, NOW), starts(&[0, 1]));
    assert_eq!(ended(&mut schedule, 0, Ending::Done), []);
    assert_eq!(ended(&mut schedule, 1, Ending::Done), [Action::RunGate]);
    assert_eq!(schedule.take(Event::Tick, NOW), []);
    assert_eq!(schedule.take(Event::GateEnded { passed: true }, NOW), starts(&[2, 3, 4]));
}

#[test]
fn a_canary_that_fails_ends_the_run_whatever_the_budget() {
    let mut schedule = Schedule::new(6, Rules { canaries: 1, max_failures: 5, ..rules(3) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Failed), []);
    assert!(schedule.is_over());
    assert_eq!(schedule.halted(), Some(Halt::Canary));
}

#[test]
fn a_canary_that_cannot_be_reached_is_replaced_by_the_next_host() {
    let mut schedule = Schedule::new(6, Rules { canaries: 1, max_unreachable: 5, ..rules(3) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Unreachable), starts(&[1]));
    assert_eq!(ended(&mut schedule, 1, Ending::Done), starts(&[2, 3, 4]));
}

#[test]
fn after_as_many_hosts_as_are_out_at_once_comes_the_gate_and_a_no_is_the_end() {
    let mut schedule = Schedule::new(9, Rules { gate: true, ..rules(2) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Done), starts(&[2]));
    assert_eq!(ended(&mut schedule, 1, Ending::Done), [Action::RunGate]);
    assert_eq!(ended(&mut schedule, 2, Ending::Done), [], "nothing is started while the gate runs");
    assert_eq!(schedule.take(Event::GateEnded { passed: false }, NOW), []);
    assert!(schedule.is_over());
    assert_eq!(schedule.halted(), Some(Halt::Gate));
    assert_eq!(schedule.classes()[3], Class::NeverTried);
}

#[test]
fn hosts_that_were_restarted_before_bring_no_gate_nearer() {
    let mut schedule = Schedule::new(9, Rules { gate: true, ..rules(2) });
    schedule.take(Event::Tick, NOW);
    for place in 0..6 {
        assert_eq!(ended(&mut schedule, place, Ending::Skipped), starts(&[place + 2]));
    }
}

#[test]
fn the_pause_comes_before_the_gate() {
    let pause = Duration::from_secs(5);
    let mut schedule = Schedule::new(3, Rules { gate: true, pause, ..rules(1) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Done), []);
    assert_eq!(schedule.wakes_at(), Some(pause));
    assert_eq!(schedule.take(Event::Tick, pause - Duration::from_millis(1)), []);
    assert_eq!(schedule.take(Event::Tick, pause), [Action::RunGate]);
}

#[test]
fn behind_the_last_host_there_is_no_gate() {
    let mut schedule = Schedule::new(2, Rules { canaries: 1, gate: true, ..rules(1) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Done), [Action::RunGate]);
    assert_eq!(schedule.take(Event::GateEnded { passed: true }, NOW), starts(&[1]));
    assert_eq!(ended(&mut schedule, 1, Ending::Done), []);
    assert_eq!(schedule.take(Event::Tick, NOW), []);
    assert!(schedule.is_over());
    // Nor beside it.
    let mut schedule = Schedule::new(3, Rules { gate: true, ..rules(2) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Done), starts(&[2]));
    assert_eq!(ended(&mut schedule, 1, Ending::Done), []);
    assert_eq!(schedule.take(Event::Tick, NOW), []);
    assert!(!schedule.is_over());
}

#[test]
fn a_host_that_says_later_is_tried_again_so_often_and_no_more() {
    let mut schedule = Schedule::new(1, rules(1));
    schedule.take(Event::Tick, NOW);
    let mut now = NOW;
    for _ in 0..2 {
        assert_eq!(schedule.take(Event::HostEnded(0, Ending::Busy), now), []);
        assert_eq!(schedule.classes(), [Class::Waiting]);
        now += Duration::from_secs(30);
        assert_eq!(schedule.wakes_at(), Some(now));
        assert_eq!(schedule.take(Event::Tick, now), starts(&[0]));
    }
    schedule.take(Event::HostEnded(0, Ending::Busy), now);
    assert!(schedule.is_over());
    assert_eq!(schedule.classes(), [Class::Ended(Ending::Busy)]);
}

#[test]
fn past_the_budget_those_that_run_end_and_no_other_is_started() {
    let mut schedule = Schedule::new(6, Rules { max_failures: 2, ..rules(3) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::LeftDepooled), starts(&[3]));
    assert_eq!(ended(&mut schedule, 1, Ending::Failed), []);
    assert_eq!(schedule.halted(), Some(Halt::Failures));
    assert_eq!(ended(&mut schedule, 2, Ending::Busy), []);
    assert!(!schedule.is_over());
    assert_eq!(ended(&mut schedule, 3, Ending::Done), []);
    assert!(schedule.is_over());
    assert_eq!(schedule.classes()[2], Class::Ended(Ending::Busy));
    assert_eq!(schedule.classes()[4..], [Class::NeverTried; 2]);
}

#[test]
fn unreachable_hosts_have_a_budget_of_their_own() {
    let mut schedule = Schedule::new(6, Rules { max_unreachable: 2, ..rules(1) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Unreachable), starts(&[1]));
    assert_eq!(ended(&mut schedule, 1, Ending::Unreachable), []);
    assert_eq!(schedule.halted(), Some(Halt::Unreachable));
}

#[test]
fn a_signal_starts_no_other_host_and_a_second_waits_for_none() {
    let mut schedule = Schedule::new(6, rules(2));
    schedule.take(Event::Tick, NOW);
    assert_eq!(schedule.take(Event::Signal { again: false }, NOW), []);
    assert_eq!(ended(&mut schedule, 0, Ending::Done), []);
    assert!(!schedule.is_over());
    assert_eq!(schedule.take(Event::Signal { again: true }, NOW), [Action::Abandon]);
    assert!(schedule.is_over());
    assert_eq!(schedule.classes()[..2], [Class::Ended(Ending::Done), Class::StillRunning]);
    assert_eq!(ended(&mut schedule, 1, Ending::Failed), [], "it was given up");
    assert_eq!(schedule.classes()[1], Class::StillRunning);
}

#[test]
fn a_signal_ends_the_gate() {
    let mut schedule = Schedule::new(6, Rules { gate: true, ..rules(1) });
    schedule.take(Event::Tick, NOW);
    assert_eq!(ended(&mut schedule, 0, Ending::Done), [Action::RunGate]);
    assert_eq!(schedule.take(Event::Signal { again: false }, NOW), [Action::EndGate]);
    assert!(schedule.is_over());
}

/// One run with everything drawn from a list of numbers.
struct Story {
    hosts: usize,
    rules: Rules,
    dice: Vec<u8>,
    /// At this step somebody asks for the end, and again at the other.
    signals: Option<(usize, usize)>,
}

/// What came of a story.
#[derive(Debug, PartialEq)]
struct Told {
    classes: Vec<Class>,
    halt: Option<Halt>,
    starts: Vec<Place>,
}

impl Story {
    /// Plays it to its end, and looks after every step whether all promises hold.
    fn play(&self) -> Told {
        let mut schedule = Schedule::new(self.hosts, self.rules);
        let mut dice = self.dice.iter().copied().cycle();
        let mut now = Duration::ZERO;
        let (mut running, mut starts) = (Vec::new(), Vec::new());
        let (mut failed, mut unreachable, mut gating, mut stopped) = (0, 0, false, false);
        let mut actions = schedule.take(Event::Tick, now);
        for step in 0.. {
            assert!(step < 100_000, "it has no end");
            for action in actions.drain(..) {
                match action {
                    Action::Start(place) => {
                        assert!(!stopped && !gating, "a start after the end, or during the gate");
                        assert!(failed < self.rules.max_failures, "a start with the budget spent");
                        assert!(unreachable < self.rules.max_unreachable, "a start with the budget spent");
                        assert!(!running.contains(&place));
                        running.push(place);
                        starts.push(place);
                        assert!(running.len() <= self.rules.window, "more than the window at once");
                    }
                    Action::RunGate => {
                        assert!(schedule.has_more(), "the gate is asked about nothing");
                        gating = true;
                    }
                    Action::EndGate => gating = false,
                    Action::Abandon => running.clear(),
                }
            }
            if schedule.is_over() {
                assert!(!gating, "the gate is left behind");
                break;
            }
            now += Duration::from_secs(1);
            // With the step in it no dice can roll the same for ever.
            let roll = dice.next().unwrap_or_default().wrapping_add((step % 251) as u8);
            let event = match self.signals {
                Some((first, _)) if step == first => Event::Signal { again: false },
                Some((_, second)) if step == second => Event::Signal { again: true },
                _ if gating && roll % 3 == 0 => Event::GateEnded { passed: roll % 7 != 0 },
                _ if running.is_empty() || roll % 5 == 0 => Event::Tick,
                _ => {
                    let place = running.swap_remove(usize::from(roll) % running.len());
                    let ending = match dice.next().unwrap_or_default() % 12 {
                        0 => Ending::Failed,
                        1 => Ending::Skipped,
                        2 => Ending::Unreachable,
                        3 | 4 => Ending::Busy,
                        5 => Ending::LeftDepooled,
                        _ => Ending::Done,
                    };
                    failed += usize::from(matches!(ending, Ending::Failed | Ending::LeftDepooled));
                    unreachable += usize::from(ending == Ending::Unreachable);
                    Event::HostEnded(place, ending)
                }
            };
            stopped |= matches!(event, Event::Signal { .. } | Event::GateEnded { passed: false });
            gating &= !matches!(event, Event::GateEnded { .. });
            actions = schedule.take(event, now);
        }
        Told { classes: schedule.classes().to_vec(), halt: schedule.halted(), starts }
    }
}

fn any_story() -> impl Strategy<Value = Story> {
    let numbers = (0..40usize, 1..8usize, 0..4usize, 0..3u64, any::<bool>(), 1..6usize, 1..6usize, 0..4u32);
    let signals = prop::option::of((0..60usize, 0..20usize));
    (numbers, prop::collection::vec(any::<u8>(), 1..200), signals).prop_map(|(numbers, dice, signals)| {
        let (hosts, window, canaries, pause, gate, max_failures, max_unreachable, retries) = numbers;
        let rules = Rules {
            window,
            canaries,
            pause: Duration::from_secs(pause),
            gate,
            max_failures,
            max_unreachable,
            retries,
            retry_delay: Duration::from_secs(3),
        };
        let signals = signals.map(|(first, later)| (first, first + 1 + later));
        Story { hosts, rules, dice, signals }
    })
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hosts, {:?}, signals {:?}, dice {:?}", self.hosts, self.rules, self.signals, self.dice)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_every_promise_holds_and_every_host_ends_in_one_class(story in any_story()) {
        let told = story.play();
        for (place, class) in told.classes.iter().enumerate() {
            let times = told.starts.iter().filter(|started| **started == place).count();
            match class {
                Class::NeverTried => prop_assert_eq!(times, 0),
                Class::Running | Class::Waiting => prop_assert!(false, "host {} is {:?} at the end", place, class),
                Class::StillRunning => prop_assert!(times > 0 && told.halt == Some(Halt::Signal)),
                Class::Ended(_) => prop_assert!(times > 0 && times <= 1 + story.rules.retries as usize),
            }
        }
        if told.halt.is_none() {
            prop_assert!(told.classes.iter().all(|class| matches!(class, Class::Ended(_))), "{:?}", told.classes);
        }
    }

    #[test]
    fn the_same_events_lead_to_the_same_starts(story in any_story()) {
        prop_assert_eq!(story.play(), story.play());
    }
}
