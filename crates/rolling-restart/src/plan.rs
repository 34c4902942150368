//! In which order hosts are restarted: the hosts of the store interleaved over their rows or racks, so that no batch takes much of one
//! of them out at once; those of a list in the order of the list.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use restart_core::{Fqdn, Node, Pooled, Share};

/// The fields of an object that say where a host stands, the one to be preferred first.
const PLACES: [&str; 2] = ["row", "rack"];

/// The hosts of these nodes, each once, in order. One that is `inactive` in every service is none.
pub fn from_nodes(nodes: &[Node]) -> Vec<Fqdn> {
    let mut hosts: BTreeMap<&Fqdn, [Option<String>; 2]> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.pooled != Pooled::Inactive) {
        let fields = fields(&node.value);
        let known = hosts.entry(&node.id.host).or_default();
        for (known, field) in known.iter_mut().zip(fields) {
            *known = known.take().or(field);
        }
    }
    let by = (0..PLACES.len()).find(|field| hosts.values().any(|places| places[*field].is_some()));
    let mut groups: BTreeMap<Option<&str>, Vec<&Fqdn>> = BTreeMap::new();
    for (host, places) in &hosts {
        groups.entry(by.and_then(|field| places[field].as_deref())).or_default().push(host);
    }
    interleave(groups.values())
}

/// Each group spread evenly over the whole: of a group of `n`, the host `i` stands at `(2i+1)/2n` of the way.
fn interleave<'a>(groups: impl Iterator<Item = &'a Vec<&'a Fqdn>>) -> Vec<Fqdn> {
    let mut placed = Vec::new();
    for (number, group) in groups.enumerate() {
        placed.extend(group.iter().enumerate().map(|(i, host)| (2 * i + 1, group.len(), number, *host)));
    }
    // a/b before c/d where a*d < c*b, and where both are the same in the order of the groups.
    placed.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)).then_with(|| a.2.cmp(&b.2)));
    placed.into_iter().map(|(_, _, _, host)| host.clone()).collect()
}

/// Row and rack of an object, where it has them. They are conftool's to check; whatever else it holds is of no interest here.
fn fields(value: &str) -> [Option<String>; 2] {
    let object: serde_json::Value = serde_json::from_str(value).unwrap_or_default();
    PLACES.map(|name| match object.get(name) {
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(serde_json::Value::Number(number)) => Some(number.to_string()),
        _ => None,
    })
}

/// The hosts of a list: one a line, empty lines and those that begin with `#` left out, each host once, in the order of the list.
/// The error names the line.
pub fn from_list(text: &str) -> Result<Vec<Fqdn>, String> {
    let mut seen = HashSet::new();
    let mut hosts = Vec::new();
    // Some editors begin a file with a mark that nobody sees.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let host = Fqdn::new(line).map_err(|error| host::printable(&format!("line {number}: {error}")))?;
        // To ssh and to the name service case is no difference.
        if seen.insert(host.as_str().to_ascii_lowercase()) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// So many of `total`: a share is rounded up, and nothing is less than one.
pub fn rounded_up(share: Share, total: usize) -> usize {
    match share {
        Share::Count(count) => count as usize,
        Share::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
    }
    .max(1)
}

/// Hosts that would be out at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Which batch it is; `None`: canaries.
    pub number: Option<usize>,
    pub hosts: &'a [Fqdn],
}

impl fmt::Display for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.hosts.iter().map(Fqdn::as_str).collect();
        match self.number {
            Some(number) => write!(f, "batch {number}: {}", names.join(" ")),
            None => write!(f, "canaries: {}", names.join(" ")),
        }
    }
}

/// What `--dry-run` prints: the canaries, then batches of as many hosts as are out at once.
pub fn batches(hosts: &[Fqdn], canaries: usize, window: usize) -> impl Iterator<Item = Batch<'_>> {
    let (first, others) = hosts.split_at(canaries.min(hosts.len()));
    let canaries = first.chunks(window.max(1)).map(|hosts| Batch { number: None, hosts });
    canaries.chain((1..).zip(others.chunks(window.max(1))).map(|(number, hosts)| Batch { number: Some(number), hosts }))
}

#[cfg(test)]
mod tests {
    use restart_core::{PoolPath, Tag};

    use super::*;

    fn node(service: &str, host: &str, value: &str) -> Node {
        let tag = |text: &str| Tag::new(text).unwrap();
        let path = PoolPath { data_centre: tag("dc"), cluster: tag("c"), service: tag(service) };
        let pooled = if value.contains("inactive") { Pooled::Inactive } else { Pooled::Yes };
        Node { id: path.node(&Fqdn::new(host).unwrap()), pooled, value: value.to_owned(), revision: 1 }
    }

    fn names(hosts: &[Fqdn]) -> Vec<&str> {
        hosts.iter().map(Fqdn::as_str).collect()
    }

    #[test]
    fn without_rows_the_order_is_that_of_the_names_and_every_host_comes_once() {
        let yes = r#"{"pooled": "yes"}"#;
        let inactive = r#"{"pooled": "inactive"}"#;
        let nodes = [
            node("php", "mw3.test", yes),
            node("php", "mw1.test", inactive),
            node("nginx", "mw1.test", r#"{"pooled": "no"}"#),
            node("nginx", "mw3.test", yes),
            node("php", "mw2.test", inactive),
            node("php", "mw0.test", yes),
        ];
        assert_eq!(names(&from_nodes(&nodes)), ["mw0.test", "mw1.test", "mw3.test"]);
    }

    #[test]
    fn rows_take_turns_and_a_large_row_is_spread_over_the_whole() {
        let rows = ["A", "A", "A", "A", "B", "B"];
        let nodes = (1..).zip(rows).map(|(number, row)| {
            node("php", &format!("mw{number}.test"), &format!(r#"{{"row": "{row}", "rack": 7}}"#))
        });
        let nodes: Vec<_> = nodes.collect();
        assert_eq!(
            names(&from_nodes(&nodes)),
            ["mw1.test", "mw5.test", "mw2.test", "mw3.test", "mw6.test", "mw4.test"]
        );
    }

    #[test]
    fn racks_count_where_there_are_no_rows() {
        let nodes = [
            node("php", "mw1.test", r#"{"rack": "a1"}"#),
            node("php", "mw2.test", r#"{"rack": "a1"}"#),
            node("php", "mw3.test", r#"{"rack": 2}"#),
            node("php", "mw4.test", r#"{"weight": 1}"#),
        ];
        assert_eq!(names(&from_nodes(&nodes)), ["mw1.test", "mw4.test", "mw3.test", "mw2.test"]);
    }

    #[test]
    fn a_list_keeps_its_order_and_what_is_no_host_is_named_with_its_line() {
        for text in
            ["# first\n mw2.test \n\nmw1.test\nmw2.test\nMW1.test\n", "\u{feff}mw2.test\r\n#\r\nmw1.test\r\n\r\n"]
        {
            assert_eq!(names(&from_list(text).unwrap()), ["mw2.test", "mw1.test"]);
        }
        for (text, why) in [
            ("mw1.test\n-oProxyCommand=x\n", "line 2: '-oProxyCommand=x' is not"),
            ("mw1\n", "line 1"),
            ("mw1.test mw2.test\n", "line 1"),
            ("\u{1b}[2J.test\n", "'\\u{1b}[2J.test'"),
            ("mw1.test\n\u{feff}mw2.test\n", "line 2: '\\u{feff}mw2.test'"),
        ] {
            let error = from_list(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_share_is_rounded_up_and_at_least_one() {
        for (share, total, wanted) in [("10%", 35, 4), ("10%", 3, 1), ("0%", 9, 1), ("7", 3, 7), ("100%", 12, 12)] {
            assert_eq!(rounded_up(share.parse().unwrap(), total), wanted, "{share} of {total}");
        }
    }

    #[test]
    fn batches_are_printed_behind_the_canaries() {
        let hosts = from_list("a.t\nb.t\nc.t\nd.t\n").unwrap();
        let lines =
            |canaries, window| batches(&hosts, canaries, window).map(|batch| batch.to_string()).collect::<Vec<_>>();
        assert_eq!(lines(1, 2), ["canaries: a.t", "batch 1: b.t c.t", "batch 2: d.t"]);
        assert_eq!(lines(9, 9), ["canaries: a.t b.t c.t d.t"]);
        assert_eq!(batches(&[], 1, 1).count(), 0);
    }
}
