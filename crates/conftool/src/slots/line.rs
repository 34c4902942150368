//! The arithmetic of the queue, apart from all I/O: who of those who stand in it may go.
//!
//! First come, first served, by the revision that etcd gave each entry when it was created. A host that is out of its pools has
//! its slot, whether a run of it is alive or not: such hosts are counted first, and a run on one of them may go at once, since
//! the host takes no second slot. Each of the others may go when fewer slots are taken, those of all before it included, than
//! the smallest limit says of all up to itself. So those who may go are always the first of the line, nobody is overtaken,
//! and whoever joins those who are in makes them no more than its own limit allows, and that of everybody who came before it.

use std::collections::BTreeSet;

use super::record::{Note, Ticket};

/// Who stands in the queue, and which hosts are out, at one revision of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The entries, in any order.
    pub(super) entries: Vec<Entry>,
    /// The hosts that are out.
    pub(super) out: Vec<Out>,
}

/// One who waits for a slot or has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its lease.
    pub(super) lease: i64,
    /// When it came: the revision that created the entry.
    pub(super) created: i64,
    /// Who it is; `None` if that cannot be read.
    pub(super) ticket: Option<Ticket>,
}

/// A host that is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Out {
    /// The host by its key, which is what counts.
    pub(super) host: String,
    /// By whom; `None` if that cannot be read.
    pub(super) note: Option<Note>,
}

/// What one of the line is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may go: it has a slot.
    Go,
    /// Not yet.
    Wait,
    /// It is not in the line (any more).
    Absent,
}

impl Entry {
    fn host(&self) -> Option<&str> {
        self.ticket.as_ref().map(|ticket| ticket.holder.host.as_str())
    }

    /// At least one: an entry that lets nobody go would stop all behind it for ever.
    fn limit(&self) -> usize {
        self.ticket.as_ref().map_or(usize::MAX, |ticket| usize::try_from(ticket.limit.max(1)).unwrap_or(usize::MAX))
    }
}

impl Line {
    /// What the one with this lease is told.
    pub(super) fn turn(&self, lease: i64) -> Turn {
        match self.in_order().into_iter().find(|(entry, _)| entry.lease == lease) {
            Some((_, true)) => Turn::Go,
            Some((_, false)) => Turn::Wait,
            None => Turn::Absent,
        }
    }

    /// Who has a slot, a clause each: those who may go, then the hosts that are out without one of them.
    pub(super) fn holders(&self) -> Vec<String> {
        let gone: Vec<&Entry> = self.in_order().into_iter().filter_map(|(entry, goes)| goes.then_some(entry)).collect();
        let runs = gone.iter().map(|entry| match &entry.ticket {
            Some(ticket) => ticket.clause(),
            None => format!("an entry that cannot be read (lease {:x})", entry.lease),
        });
        let left = self.out.iter().filter(|out| !gone.iter().any(|entry| entry.host() == Some(&out.host)));
        let left = left.map(|out| match &out.note {
            Some(note) => note.clause(),
            None => format!("'{}', left out of its pools by a run that cannot be read", out.host),
        });
        runs.chain(left).collect()
    }

    /// All in the order in which they came, and whether each may go.
    fn in_order(&self) -> Vec<(&Entry, bool)> {
        let out: BTreeSet<&str> = self.out.iter().map(|out| out.host.as_str()).collect();
        let mut line: Vec<&Entry> = self.entries.iter().collect();
        line.sort_by_key(|entry| entry.created);
        let (mut taken, mut limit) = (out.len(), usize::MAX);
        line.into_iter()
            .map(|entry| {
                limit = limit.min(entry.limit());
                if entry.host().is_some_and(|host| out.contains(host)) {
                    return (entry, true);
                }
                taken += 1;
                (entry, taken <= limit)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use restart_core::Fqdn;

    use super::super::record::Holder;
    use super::*;

    fn entry(place: usize, host: &str, limit: u32) -> Entry {
        let created = i64::try_from(place).unwrap();
        let holder = Holder {
            host: Fqdn::new(format!("{host}.example")).unwrap(),
            run: format!("run-{place}"),
            pid: 7,
            user: None,
            since: "today".to_owned(),
        };
        Entry { lease: 100 + created, created, ticket: Some(Ticket { holder, limit }) }
    }

    fn line(entries: &[(&str, u32)], out: &[&str]) -> Line {
        let entries = entries.iter().enumerate().map(|(place, (host, limit))| entry(place, host, *limit));
        let out = out.iter().map(|host| Out { host: format!("{host}.example"), note: None });
        // etcd lists by key, not by time.
        Line { entries: entries.rev().collect(), out: out.collect() }
    }

    /// `+` may go, `-` waits, in the order in which they came.
    fn turns(line: &Line) -> String {
        line.in_order().iter().map(|(_, goes)| if *goes { '+' } else { '-' }).collect()
    }

    #[test]
    fn who_may_go() {
        /// What it is about, host and limit of each entry, hosts that are out, and the turns.
        type Case = (&'static str, &'static [(&'static str, u32)], &'static [&'static str], &'static str);
        let cases: [Case; 14] = [
            ("nobody is there", &[], &[], ""),
            ("alone", &[("a", 1)], &[], "+"),
            ("the first of equal limits", &[("a", 2), ("b", 2), ("c", 2), ("d", 2)], &[], "++--"),
            (
                "a small limit behind larger ones waits for its own",
                &[("a", 3), ("b", 3), ("c", 1), ("d", 3)],
                &[],
                "++--",
            ),
            ("a small limit that is in keeps later ones out", &[("a", 1), ("b", 3)], &[], "+-"),
            ("a limit of 0 is 1", &[("a", 0), ("b", 0)], &[], "+-"),
            ("a dead host that is out takes a slot", &[("a", 2), ("b", 2)], &["x"], "+-"),
            ("two of them take two", &[("a", 2), ("b", 2)], &["x", "y"], "--"),
            ("a holder that is out counts once", &[("a", 2), ("b", 2), ("c", 2)], &["a"], "++-"),
            ("all holders are out", &[("a", 2), ("b", 2), ("c", 2)], &["a", "b"], "++-"),
            ("its own note does not block a host", &[("a", 1)], &["a"], "+"),
            ("nor do those who came before it", &[("a", 1), ("b", 1)], &["b"], "-+"),
            (
                "a host that is out again in the queue counts before it goes",
                &[("a", 1), ("x", 1), ("b", 1)],
                &["x"],
                "-+-",
            ),
            ("a second run on a host that is out takes no second slot", &[("a", 2), ("a", 2), ("b", 2)], &["a"], "+++"),
        ];
        for (what, entries, out, wanted) in cases {
            assert_eq!(turns(&line(entries, out)), wanted, "{what}");
        }
    }

    #[test]
    fn one_that_is_not_in_the_line_is_told_so() {
        let line = line(&[("a", 1), ("b", 1)], &[]);
        assert_eq!((line.turn(100), line.turn(101), line.turn(102)), (Turn::Go, Turn::Wait, Turn::Absent));
    }

    #[test]
    fn what_cannot_be_read_takes_a_slot_and_limits_nobody() {
        let mut line = line(&[("a", 2), ("b", 2), ("c", 2)], &[]);
        line.entries[2].ticket = None;
        assert_eq!(turns(&line), "++-");
        assert!(line.holders()[0].contains("cannot be read"), "{:?}", line.holders());
    }

    #[test]
    fn holders_are_those_who_may_go_and_hosts_left_out() {
        let mut line = line(&[("a", 3), ("b", 3), ("c", 3)], &["a", "x"]);
        line.out[1].note =
            Some(Note { host: Fqdn::new("x.example").unwrap(), run: "r0".to_owned(), since: "monday".to_owned() });
        assert_eq!(
            line.holders(),
            [
                "'a.example' since today (run run-0, process 7)",
                "'b.example' since today (run run-1, process 7)",
                "'x.example', left out of its pools since monday by run r0",
            ]
        );
    }

    /// The hosts that have a slot: each with an entry that may go, and each that is out.
    fn occupied(line: &Line) -> BTreeSet<String> {
        let gone = line.in_order().into_iter().filter_map(|(entry, goes)| goes.then_some(entry));
        let gone = gone.filter_map(|entry| entry.host().map(str::to_owned));
        gone.chain(line.out.iter().map(|out| out.host.clone())).collect()
    }

    proptest! {
        /// Runs come, go out, come back, end and die at random; as each change is seen, nobody who had a slot loses it, nobody
        /// is overtaken, and no slot is given beyond the limit of the one who gets it or of one who came before it.
        #[test]
        fn never_more_than_the_limit(steps in prop::collection::vec((0..5u8, 0..8usize, 1..4u32), 1..60)) {
            let mut line = Line::default();
            for (place, (what, which, limit)) in steps.into_iter().enumerate() {
                let before = line.clone();
                let host = ["a", "b", "c", "d", "e", "f", "g", "h"][which];
                let name = format!("{host}.example");
                let is_there = line.entries.iter().any(|entry| entry.host() == Some(&name));
                let goes = line.in_order().iter().any(|(entry, goes)| *goes && entry.host() == Some(&name));
                let is_out = line.out.iter().any(|out| out.host == name);
                match what {
                    // The host's lock allows one run at a time.
                    0 | 1 if !is_there => line.entries.push(entry(place, host, limit)),
                    2 if goes && !is_out => line.out.push(Out { host: name.clone(), note: None }),
                    // Ends well: back, and its slot given up.
                    3 if goes => {
                        line.out.retain(|out| out.host != name);
                        line.entries.retain(|entry| entry.host() != Some(&name));
                    }
                    // Dies: what is out stays out.
                    4 => line.entries.retain(|entry| entry.host() != Some(&name)),
                    _ => {}
                }
                for (entry, went) in before.in_order() {
                    if went && line.entries.contains(entry) {
                        prop_assert_eq!(line.turn(entry.lease), Turn::Go, "a slot was taken away");
                    }
                }
                let (now, had) = (occupied(&line), occupied(&before));
                let in_order = line.in_order();
                let is_new = |entry: &Entry| entry.host().is_some_and(|host| now.contains(host) && !had.contains(host));
                if let Some(last) = in_order.iter().rposition(|(entry, _)| is_new(entry)) {
                    let smallest = in_order[..=last].iter().map(|(entry, _)| entry.limit()).min();
                    prop_assert!(now.len() <= smallest.unwrap_or(usize::MAX), "{} in, {:?} allowed", now.len(), smallest);
                }
                let is_free = |entry: &Entry| !line.out.iter().any(|out| Some(out.host.as_str()) == entry.host());
                let free: String = line.in_order().into_iter().filter(|(entry, _)| is_free(entry))
                    .map(|(_, goes)| if goes { '+' } else { '-' }).collect();
                prop_assert!(!free.contains("-+"), "somebody was overtaken: {}", free);
            }
        }
    }
}
