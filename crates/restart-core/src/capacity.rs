//! How many hosts of a pool may be out at once, as arithmetic: the floor below which a pool must not fall, and the limit of
//! runs at once. PyBal does not guard this: its threshold limits health-check depools only, and every host of a pool can be
//! depooled by hand (reference, section 3).

use std::fmt;
use std::str::FromStr;

use crate::names::Fqdn;
use crate::pool::{Node, Pooled};

/// A number of hosts, or a share of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many hosts.
    Count(u32),
    /// So many percent, at most 100.
    Percent(u8),
}

impl FromStr for Share {
    type Err = String;

    /// `3` or `30%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match text.strip_suffix('%') {
            None => number(text).map(Self::Count),
            Some(percent) => {
                number(percent).filter(|percent| *percent <= 100).map(|percent| Self::Percent(percent as u8))
            }
        }
        .ok_or_else(|| "not a number of hosts such as 3, or a share such as 30%".to_owned())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Share {
    /// As a floor of a pool of `total` hosts: a share is rounded up, so that half of three is two.
    fn floor_of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        }
    }

    /// As a limit of runs at once in a pool of `total` hosts: a share is rounded down, but is at least one (as in the
    /// original's wrappers). `None` is no limit: the original's 0.
    pub fn limit_of(self, total: usize) -> Option<u32> {
        match self {
            Self::Count(0) => None,
            Self::Count(count) => Some(count),
            Self::Percent(percent) => {
                Some(u32::try_from(total * usize::from(percent) / 100).unwrap_or(u32::MAX).max(1))
            }
        }
    }
}

/// A pool counted from its nodes. Those that are `inactive` are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Nodes that are `yes`.
    pub pooled: usize,
    /// Nodes that are `yes` or `no`.
    pub total: usize,
}

impl Census {
    /// Counts the nodes as they stand.
    pub fn now(nodes: &[Node]) -> Self {
        Self::count(nodes, |node| node.pooled == Pooled::Yes)
    }

    /// Counts the nodes as they stood when that of `host` was written, at the revision `ours`: a depool after that does not
    /// count. Of two hosts that take themselves out at the same time, so only the later one sees too few left. One that was out
    /// `before` and only changed, as by a new weight, was out all the time.
    pub fn at(nodes: &[Node], before: &[Node], host: &Fqdn, ours: u64) -> Self {
        let was_in = |node: &Node| !before.iter().any(|then| then.id == node.id && then.pooled != Pooled::Yes);
        Self::count(nodes, |node| {
            node.pooled == Pooled::Yes || (node.revision > ours && node.id.host != *host && was_in(node))
        })
    }

    fn count(nodes: &[Node], pooled: impl Fn(&Node) -> bool) -> Self {
        let members = || nodes.iter().filter(|node| node.pooled != Pooled::Inactive);
        Self { pooled: members().filter(|node| pooled(node)).count(), total: members().count() }
    }
}

/// Why a host must not leave a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooFew {
    /// Too many others are out: later it will do.
    Now {
        /// How many would be left, or are.
        left: usize,
        /// How many there must be.
        floor: usize,
    },
    /// The pool is so small that it can never do without one.
    Never {
        /// How many there must be.
        floor: usize,
    },
}

/// Whether so many may be left: `left` of a pool of `total`.
pub fn enough(left: usize, total: usize, min_pooled: Share) -> Result<(), TooFew> {
    let floor = min_pooled.floor_of(total);
    match (left >= floor, total.saturating_sub(1) >= floor) {
        (true, _) => Ok(()),
        (false, true) => Err(TooFew::Now { left, floor }),
        (false, false) => Err(TooFew::Never { floor }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Fqdn, Tag};
    use crate::pool::PoolPath;

    fn nodes(all: &[(Pooled, u64)]) -> Vec<Node> {
        let tag = |text: &str| Tag::new(text).unwrap();
        let path = PoolPath { data_centre: tag("dc"), cluster: tag("c"), service: tag("s") };
        let node = |(place, (pooled, revision)): (usize, &(Pooled, u64))| Node {
            id: path.node(&Fqdn::new(format!("mw{place}.test")).unwrap()),
            pooled: *pooled,
            value: String::new(),
            revision: *revision,
        };
        all.iter().enumerate().map(node).collect()
    }

    #[test]
    fn shares_are_numbers_or_percent() {
        assert_eq!("3".parse(), Ok(Share::Count(3)));
        assert_eq!("30%".parse(), Ok(Share::Percent(30)));
        for text in ["", "%", "-1", "+1", "101%", "1.5", "3 %", "half", "99999999999"] {
            assert!(text.parse::<Share>().is_err(), "'{text}' passed");
        }
    }

    #[test]
    fn a_limit_in_percent_is_rounded_down_and_at_least_one() {
        let table =
            [("10%", 35, Some(3)), ("10%", 5, Some(1)), ("0%", 5, Some(1)), ("100%", 7, Some(7)), ("0", 5, None)];
        for (share, total, limit) in table {
            assert_eq!(share.parse::<Share>().unwrap().limit_of(total), limit, "{share} of {total}");
        }
    }

    #[test]
    fn a_floor_in_percent_is_rounded_up() {
        let half = Share::Percent(50);
        assert_eq!(enough(1, 2, half), Ok(()));
        assert_eq!(enough(2, 3, half), Ok(()));
        assert_eq!(enough(1, 3, half), Err(TooFew::Now { left: 1, floor: 2 }));
        assert_eq!(enough(0, 1, half), Err(TooFew::Never { floor: 1 }));
        assert_eq!(enough(0, 1, Share::Count(0)), Ok(()));
        assert_eq!(enough(2, 3, Share::Count(3)), Err(TooFew::Never { floor: 3 }));
    }

    #[test]
    fn of_two_that_leave_at_once_only_the_later_one_sees_too_few() {
        // Three hosts; two wrote `no` at the revisions 10 and 11.
        let before = nodes(&[(Pooled::Yes, 1), (Pooled::Yes, 1), (Pooled::Yes, 2), (Pooled::Inactive, 3)]);
        let nodes = nodes(&[(Pooled::No, 10), (Pooled::No, 11), (Pooled::Yes, 2), (Pooled::Inactive, 3)]);
        let host = |place: usize| &nodes[place].id.host;
        assert_eq!(Census::at(&nodes, &before, host(0), 10), Census { pooled: 2, total: 3 });
        assert_eq!(Census::at(&nodes, &before, host(1), 11), Census { pooled: 1, total: 3 });
        assert_eq!(Census::now(&nodes), Census { pooled: 1, total: 3 });
    }

    #[test]
    fn without_revisions_neither_of_two_that_leave_at_once_is_taken_for_the_first() {
        let before = nodes(&[(Pooled::Yes, 0), (Pooled::Yes, 0), (Pooled::Yes, 0)]);
        let nodes = nodes(&[(Pooled::No, 0), (Pooled::No, 0), (Pooled::Yes, 0)]);
        for place in 0..2 {
            assert_eq!(Census::at(&nodes, &before, &nodes[place].id.host, 0), Census { pooled: 1, total: 3 });
        }
    }

    #[test]
    fn a_later_change_of_what_was_out_already_is_no_depool() {
        // We wrote at 10; then somebody gave new weights to us, and to one that was out for long.
        let before = nodes(&[(Pooled::Yes, 1), (Pooled::No, 2), (Pooled::Yes, 3)]);
        let nodes = nodes(&[(Pooled::No, 11), (Pooled::No, 12), (Pooled::Yes, 3)]);
        assert_eq!(Census::at(&nodes, &before, &nodes[0].id.host, 10), Census { pooled: 1, total: 3 });
    }
}
