//! The consistent hash ring of python-poolcounter. Two hosts that differ here ask two daemons, and the limit is double; so the
//! worked examples below were made with the original.

use md5::{Digest as _, Md5};

/// How many times a node of weight 1 stands on the ring.
const POINTS: u32 = 100;

/// Points on a circle, each of which belongs to one node; a key belongs to the first point after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Sorted, each with the position of its node in the list given.
    points: Vec<(u128, usize)>,
}

impl Ring {
    /// Puts nodes on the ring by label and weight: the points of a node are `md5("label:i:j")` as big-endian numbers, `i` below 100
    /// and `j` below its weight. A node of weight 0 has none.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut points = Vec::new();
        for (node, (label, weight)) in nodes.into_iter().enumerate() {
            for i in 0..POINTS {
                points.extend((0..weight).map(|j| (place(&format!("{label}:{i}:{j}")), node)));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The position, in the list given, of the node that `key` belongs to: that of the first point strictly greater than the
    /// key's hash, or else of the lowest. `None` for a ring without points.
    pub fn node_of(&self, key: &str) -> Option<usize> {
        let hash = place(key);
        let after = self.points.partition_point(|(point, _)| *point <= hash);
        self.points.get(after).or_else(|| self.points.first()).map(|(_, node)| *node)
    }
}

/// Where a text stands on the circle.
fn place(text: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(text.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner<'a>(nodes: &[(&'a str, u32)], key: &str) -> &'a str {
        nodes[Ring::new(nodes.iter().copied()).node_of(key).unwrap()].0
    }

    #[test]
    fn points_are_md5_as_big_endian_numbers() {
        assert_eq!(place("pc1:0:0"), 0xac5b_00d0_a711_3edf_105c_03a4_0034_482e);
    }

    #[test]
    fn keys_belong_where_the_original_puts_them() {
        let two = [("pc1", 1), ("pc2", 1)];
        let real = [("poolcounter1004", 1), ("poolcounter1005", 1)];
        let weighted = [("foo", 1), ("bar", 3), ("baz", 1)];
        let table = [
            ("ServiceRestarter::eqiad::appservers", "pc1", "poolcounter1005", "baz"),
            ("ServiceRestarter::eqiad::api-appservers", "pc1", "poolcounter1005", "foo"),
            ("ServiceRestarter::eqiad::api-https-appservers-https", "pc1", "poolcounter1004", "bar"),
            ("ServiceRestarter::codfw::parsoid-php", "pc1", "poolcounter1005", "bar"),
            ("ServiceRestarter::default::", "pc2", "poolcounter1005", "foo"),
            ("ServiceRestarter::lab::appservers", "pc1", "poolcounter1004", "bar"),
            ("key-é", "pc1", "poolcounter1004", "baz"),
        ];
        for (key, of_two, of_real, of_weighted) in table {
            assert_eq!(
                (owner(&two, key), owner(&real, key), owner(&weighted, key)),
                (of_two, of_real, of_weighted),
                "{key}"
            );
        }
    }

    #[test]
    fn a_key_beyond_the_last_point_belongs_to_the_first() {
        let two = [("pc1", 1), ("pc2", 1)];
        let last = Ring::new(two).points.last().unwrap().0;
        assert!(place("k11") > last);
        assert_eq!(owner(&two, "k11"), "pc2");
    }

    #[test]
    fn a_key_that_is_a_point_belongs_to_the_one_after_it() {
        let ring = Ring::new([("pc1", 1), ("pc2", 1)]);
        let own = ring.points.iter().position(|(point, _)| *point == place("pc1:0:0")).unwrap();
        let after = ring.points[(own + 1) % ring.points.len()].1;
        assert_eq!(ring.node_of("pc1:0:0"), Some(after));
    }

    #[test]
    fn a_ring_without_points_owns_nothing() {
        assert_eq!(Ring::new([]).node_of("key"), None);
        assert_eq!(Ring::new([("pc1", 0)]).node_of("key"), None);
        assert_eq!(Ring::new([("pc1", 0), ("pc2", 1)]).node_of("key"), Some(1));
    }

    proptest! {
        // Each case hashes some thousand points.
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn another_node_takes_keys_and_moves_no_other(
            labels in proptest::collection::btree_set("[a-z]{1,6}", 1..5),
            weights in proptest::collection::vec(1_u32..4, 5),
            keys in proptest::collection::vec("[ -~]{1,30}", 1..50),
        ) {
            let mut nodes: Vec<(&str, u32)> = labels.iter().map(String::as_str).zip(weights).collect();
            let before = Ring::new(nodes.iter().copied());
            nodes.push(("added-last", 2));
            let after = Ring::new(nodes.iter().copied());
            for key in &keys {
                let (was, is) = (before.node_of(key), after.node_of(key));
                prop_assert!(is == was || is == Some(nodes.len() - 1), "'{}' moved from {:?} to {:?}", key, was, is);
            }
        }

        #[test]
        fn the_order_in_the_file_does_not_matter(keys in proptest::collection::vec("[ -~]{1,30}", 1..50)) {
            let nodes = [("foo", 1), ("bar", 3), ("baz", 1)];
            let turned = [("baz", 1), ("foo", 1), ("bar", 3)];
            let (ring, other) = (Ring::new(nodes), Ring::new(turned));
            let label = |nodes: [(&'static str, u32); 3], node: Option<usize>| node.map(|node| nodes[node].0);
            for key in &keys {
                prop_assert_eq!(label(nodes, ring.node_of(key)), label(turned, other.node_of(key)));
            }
        }
    }
}
