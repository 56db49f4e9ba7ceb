//! Which view ownership goes by: the last one, unless half the peers vanished at once. Pure.
//!
//! A node that suddenly hears less than half of its peers is more likely cut off than the only survivor. Then
//! nothing changes owner until the picture has stood still for a while: the view from before goes on to say who
//! owns what. Who says that it leaves has not vanished. Routing does not freeze; only ownership (scraping, blocks)
//! asks here.
//!
//! Also tells whether a view is settled: unchanged for two minutes, not frozen, this node itself ready.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::keys::NodeState;
use crate::view::{ClusterView, Member};

/// Peers that vanish within this time vanish at once, nanoseconds: failure detection staggers one event.
pub const AT_ONCE_NS: u64 = 30_000_000_000;
/// A frozen view thaws when the ready nodes have not changed for this long, nanoseconds.
pub const THAW_NS: u64 = 60_000_000_000;
/// A view is settled when the ready nodes have not changed for this long, nanoseconds.
pub const SETTLED_NS: u64 = 120_000_000_000;
/// Most looks remembered; older ones are merged into the oldest.
const LOOKS_MAX: usize = 64;

type Peers = BTreeSet<(String, u64)>;

/// Follows the views of one node.
#[derive(Debug, Default)]
pub struct Freeze {
    looks: VecDeque<(u64, BTreeSet<String>)>,
    ready: Peers,
    changed_ns: Option<u64>,
    kept: Option<Arc<ClusterView>>,
    /// The peers from before the loss, while ownership is frozen.
    frozen: Option<BTreeSet<String>>,
}

impl Freeze {
    /// Takes a look at `view` at monotonic `now_ns` and gives the view that ownership goes by: `view` itself or
    /// the last one from before the loss. To be called at least every few seconds.
    pub fn look(&mut self, now_ns: u64, view: &Arc<ClusterView>) -> Arc<ClusterView> {
        let ready: Peers =
            view.members.values().filter(|m| m.is_ready()).map(|m| (m.name.clone(), m.generation)).collect();
        let peers: BTreeSet<String> =
            ready.iter().filter(|(n, _)| *n != view.me).map(|(n, _)| n.clone()).collect();
        if ready != self.ready || self.changed_ns.is_none() {
            self.ready = ready;
            self.changed_ns = Some(now_ns);
        }
        while self.looks.front().is_some_and(|(t, _)| now_ns.saturating_sub(*t) > AT_ONCE_NS) {
            self.looks.pop_front();
        }
        let still = now_ns.saturating_sub(self.changed_ns.unwrap_or(now_ns));
        let most = self.looks.iter().map(|(_, p)| p).max_by_key(|p| p.len());
        let says_goodbye = |n: &str| {
            let leaves = |m: &Arc<Member>| matches!(m.record.state, NodeState::Draining | NodeState::Leaving);
            view.members.get(n).is_some_and(leaves)
        };
        let is_there = |n: &&String| peers.contains(*n) || says_goodbye(n);
        let lost_half = most.is_some_and(|m| 2 * m.iter().filter(is_there).count() < m.len());
        let is_back = |before: &BTreeSet<String>| 2 * before.intersection(&peers).count() >= before.len();
        match &self.frozen {
            None if lost_half && self.kept.is_some() => self.frozen = most.cloned(),
            Some(before) if still >= THAW_NS || is_back(before) => {
                self.frozen = None;
                self.looks.clear();
            }
            _ => {}
        }
        if self.looks.back().is_none_or(|(_, p)| *p != peers) {
            if self.looks.len() == LOOKS_MAX {
                self.looks.remove(1);
            }
            self.looks.push_back((now_ns, peers));
        } else if self.looks.len() == 1
            && let Some(last) = self.looks.back_mut()
        {
            last.0 = now_ns;
        }
        if self.frozen.is_none() {
            self.kept = Some(view.clone());
        }
        self.kept.clone().unwrap_or_else(|| view.clone())
    }

    /// Whether ownership goes by a view from before a loss.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Whether something may be given up on the strength of this view.
    pub fn is_settled(&self, now_ns: u64) -> bool {
        let me_ready = self.kept.as_ref().is_some_and(|v| v.own().is_some_and(|m| m.is_ready()));
        let still = self.changed_ns.is_some_and(|t| now_ns.saturating_sub(t) >= SETTLED_NS);
        self.frozen.is_none() && me_ready && still
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::tests::member;
    use crate::view::Liveness;

    const S: u64 = 1_000_000_000;

    fn view(up: &[&str]) -> Arc<ClusterView> {
        let members = ["me", "a", "b", "c", "d"].map(|n| {
            let mut m = member(n, "z", 1);
            if n != "me" && !up.contains(&n) {
                m.liveness = Liveness::Dead { since: 1 };
            }
            (n.to_owned(), Arc::new(m))
        });
        Arc::new(ClusterView { me: "me".into(), members: members.into(), ..ClusterView::default() })
    }

    fn ready(v: &ClusterView) -> usize {
        v.ready("scrape").len()
    }

    #[test]
    fn one_or_two_of_four_may_go_and_three_at_once_freeze() {
        let mut f = Freeze::default();
        assert_eq!(ready(&f.look(0, &view(&["a", "b", "c", "d"]))), 5);
        assert_eq!(ready(&f.look(S, &view(&["b", "c", "d"]))), 4);
        assert_eq!(ready(&f.look(2 * S, &view(&["c", "d"]))), 3, "half is left");
        assert_eq!(ready(&f.look(3 * S, &view(&["d"]))), 3, "the third within the window");
        assert!(f.is_frozen() && !f.is_settled(3 * S));
        assert_eq!(ready(&f.look(62 * S, &view(&["d"]))), 3);
        assert_eq!(ready(&f.look(63 * S, &view(&["d"]))), 2, "it has stood still");
        assert!(!f.is_frozen());
    }

    #[test]
    fn who_leaves_as_planned_has_not_vanished() {
        let mut f = Freeze::default();
        f.look(0, &view(&["a", "b", "c", "d"]));
        let mut last = (*view(&["a"])).clone();
        for n in ["b", "c", "d"] {
            let mut m = (*last.members[n]).clone();
            m.record.state = NodeState::Leaving;
            last.members.insert(n.to_owned(), Arc::new(m));
        }
        assert_eq!(ready(&f.look(S, &Arc::new(last))), 2);
        assert!(!f.is_frozen());
    }

    #[test]
    fn slow_losses_do_not_freeze() {
        let mut f = Freeze::default();
        let mut up = vec!["a", "b", "c", "d"];
        let mut now = 0;
        while !up.is_empty() {
            for _ in 0..40 {
                f.look(now, &view(&up));
                now += S;
            }
            assert!(!f.is_frozen(), "{up:?}");
            up.pop();
        }
    }

    #[test]
    fn it_thaws_when_they_come_back_and_settles_later() {
        let mut f = Freeze::default();
        f.look(0, &view(&["a", "b", "c", "d"]));
        assert_eq!(ready(&f.look(S, &view(&[]))), 5);
        assert_eq!(ready(&f.look(10 * S, &view(&["a"]))), 5);
        assert_eq!(ready(&f.look(11 * S, &view(&["a", "b"]))), 3, "half is enough");
        assert!(!f.is_frozen() && !f.is_settled(130 * S));
        assert!(f.is_settled(131 * S));
        assert!(!Freeze::default().is_settled(u64::MAX));
    }

    #[test]
    fn the_first_views_of_a_growing_cluster_are_taken() {
        let mut f = Freeze::default();
        for (i, up) in [&[][..], &["a"], &["a", "b"], &["a", "b", "c"]].iter().enumerate() {
            assert_eq!(ready(&f.look(i as u64 * S, &view(up))), i + 1);
        }
    }
}
