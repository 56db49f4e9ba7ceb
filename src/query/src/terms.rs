//! On which terms a question is asked: Thanos' parameters beside a query.
//!
//! Owns how coarse samples may be, whether replicas are one, and which nodes and series are left out. Pure. Refuses the
//! texts of parameters, which are HTTP's. Invariant: the default terms are those of a plain Prometheus.

use std::sync::Arc;

use koios_cluster::{ClusterView, Member};
use koios_model::Matcher;

use koios_store::SeriesShard;

use crate::endpoints::Outside;

/// The label that tells nodes apart in `Terms::stores`: their gRPC address.
pub const ADDRESS: &str = "__address__";

/// How far apart downsampled samples may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// As the node is configured: raw data, or `Auto`.
    #[default]
    Configured,
    /// A fifth of the step; raw data for a single moment.
    Auto,
    /// So many milliseconds; 0 means raw data.
    Fixed(i64),
}

impl Resolution {
    /// In milliseconds, for a query of this step.
    pub fn millis(self, auto: bool, step_ms: i64) -> i64 {
        match self {
            Self::Fixed(ms) => ms,
            Self::Configured if !auto => 0,
            Self::Configured | Self::Auto => step_ms / 5,
        }
    }
}

/// The terms of one question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// How coarse samples may be.
    pub resolution: Resolution,
    /// Other labels that tell replicas apart than the configured ones.
    pub replica_labels: Option<Vec<String>>,
    /// Replicas are shown one by one.
    pub apart: bool,
    /// Only nodes that match any of these; empty for all.
    pub stores: Vec<Vec<Matcher>>,
    /// Only some of the series.
    pub shard: Option<SeriesShard>,
    /// Some of these were named in the words of Thanos, so the answer is given in its words.
    pub named: bool,
}

impl Terms {
    /// Whether somebody else may evaluate a part of the query: nothing is left out and nothing is shown otherwise.
    pub(crate) fn are_plain(&self) -> bool {
        !self.apart && self.stores.is_empty() && self.shard.is_none()
    }

    /// What they mean outside of the cluster.
    pub(crate) fn outside(&self) -> Outside {
        Outside { stores: self.stores.as_slice().into(), via: Vec::new() }
    }

    /// The view without the nodes that are not to be asked, and whether this node is one of them: it stays in the view,
    /// but its own part is not wanted.
    pub(crate) fn narrowed(&self, view: Arc<ClusterView>) -> (Arc<ClusterView>, bool) {
        if self.stores.is_empty() {
            return (view, false);
        }
        let wanted = |m: &Member| {
            let address = m.record.rpc.to_string();
            let value = |name: &str| if name == ADDRESS { address.as_str() } else { "" };
            self.stores.iter().any(|all| all.iter().all(|one| one.matches(value(&one.name))))
        };
        let without_me = !view.own().is_some_and(|m| wanted(m));
        let mut narrow = (*view).clone();
        narrow.members.retain(|name, m| *name == view.me || wanted(m));
        (Arc::new(narrow), without_me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{member, view};
    use koios_model::MatchType;

    #[test]
    fn auto_is_a_fifth_of_the_step() {
        assert_eq!(Resolution::Configured.millis(false, 3_600_000), 0);
        assert_eq!(Resolution::Configured.millis(true, 3_600_000), 720_000);
        assert_eq!(Resolution::Auto.millis(false, 0), 0, "one moment has no step");
        assert_eq!(Resolution::Fixed(7).millis(true, 3_600_000), 7);
    }

    #[test]
    fn stores_are_told_by_their_address() {
        let mut other = member("b", "B");
        other.record.rpc = ([10, 0, 0, 1], 7).into();
        let all = Arc::new(view("a", vec![member("a", "B"), other]));
        let of = |pattern: &str| {
            let stores = vec![vec![Matcher::new(MatchType::Regex, ADDRESS, pattern).unwrap()]];
            let (narrow, without_me) = Terms { stores, ..Terms::default() }.narrowed(all.clone());
            (narrow.members.keys().cloned().collect::<Vec<_>>(), without_me)
        };
        assert_eq!(of("10\\..*"), (vec!["a".to_owned(), "b".to_owned()], true));
        assert_eq!(of("127\\..*"), (vec!["a".to_owned()], false));
        assert!(Arc::ptr_eq(&Terms::default().narrowed(all.clone()).0, &all));
    }
}
