//! Rule 2 as a pure function: what is ours to put back, and what an operator has taken over. Every repool, also the one
//! after an abort, goes through [`decide`].

use crate::pool::{Node, Pooled};

/// What to do with a node that we depooled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is still out because of us: put back what stands there now, with every field changed meanwhile.
    Repool(Node),
    /// Somebody else decided meanwhile: leave it; the text says what was found.
    Leave(String),
}

/// Compares the node as our depool left it with what stands in the store now.
pub fn decide(ours: &Node, now: Option<&Node>) -> Decision {
    let Some(now) = now else {
        return Decision::Leave("the object was deleted meanwhile".to_owned());
    };
    if now.pooled != Pooled::No {
        return Decision::Leave(format!("'pooled' was set to '{}' meanwhile", now.pooled));
    }
    if now.revision != ours.revision && now.value == ours.value {
        return Decision::Leave("'pooled' was set to 'no' again by somebody else meanwhile".to_owned());
    }
    Decision::Repool(now.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Fqdn, Tag};
    use crate::pool::PoolPath;

    fn node(pooled: Pooled, value: &str, revision: u64) -> Node {
        let tag = |text: &str| Tag::new(text).unwrap();
        let path = PoolPath { data_centre: tag("dc"), cluster: tag("c"), service: tag("s") };
        Node { id: path.node(&Fqdn::new("mw1.test").unwrap()), pooled, value: value.to_owned(), revision }
    }

    #[test]
    fn untouched_is_repooled() {
        let ours = node(Pooled::No, "no", 5);
        assert_eq!(decide(&ours, Some(&ours)), Decision::Repool(ours.clone()));
    }

    #[test]
    fn a_new_weight_is_repooled_with_the_new_weight() {
        let now = node(Pooled::No, "no, weight 7", 6);
        assert_eq!(decide(&node(Pooled::No, "no", 5), Some(&now)), Decision::Repool(now.clone()));
    }

    #[test]
    fn what_an_operator_did_stays() {
        let ours = node(Pooled::No, "no", 5);
        let theirs = [
            None,
            Some(node(Pooled::Yes, "yes", 6)),
            Some(node(Pooled::Inactive, "inactive", 6)),
            Some(node(Pooled::No, "no", 6)),
        ];
        for now in theirs {
            assert!(matches!(decide(&ours, now.as_ref()), Decision::Leave(_)), "{now:?}");
        }
    }
}
