//! A thousand hosts at once.

use nix::sys::resource::{UsageWho, getrusage};

use crate::world::{World, name};

/// Every host ends in one list, also with failures, lost connections and hosts that say "later" in between.
#[test]
fn a_thousand_hosts_are_restarted_within_the_window_and_with_bounded_memory() {
    let world = World::new(1000);
    for number in 1..=1000 {
        // The first fifty do not end before all fifty are there: the window is used as a whole, however fast the machine is.
        if number <= 50 {
            world.before(number, "until [ \"$(grep -c '^+' \"$dir/log\")\" -ge 50 ]; do sleep 0.1; done");
        }
        match number % 50 {
            7 => world.behave(number, "report 1 untouched 'it broke'"),
            21 => world.behave(number, "echo 'ssh: Connection refused' >&2; end 255"),
            35 => {
                world.behave(number, "[ -e \"$dir/later-$host\" ] || { : >\"$dir/later-$host\"; report 75 untouched; }")
            }
            // More than a pipe and all that is kept of it.
            49 => world.behave(number, "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; echo"),
            _ => &world,
        };
    }
    let ran =
        world.run("--canaries 0 --batch 5% --max-failures 100% --max-unreachable 100% --retry-delay 0.2 --json -q");
    ran.ended_with(1);

    assert_eq!(world.most_at_once(), 50);
    assert_eq!(ran.listed("failed").len(), 20);
    assert_eq!(ran.listed("unreachable").len(), 20);
    assert_eq!(ran.listed("done").len(), 960);
    let mut all: Vec<_> = ["done", "failed", "unreachable"].iter().flat_map(|list| ran.listed(list)).collect();
    all.sort();
    assert_eq!(all, (1..=1000).map(name).collect::<Vec<_>>());
    assert!(world.restarts().values().all(|count| *count == 1), "{:?}", world.restarts());
    assert_eq!(world.requests().len(), 1020, "those that said later were asked again");

    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert!(peak < 64 * 1024, "{peak} KiB");
}
