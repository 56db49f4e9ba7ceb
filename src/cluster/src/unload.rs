//! When a node may let go of a block that others should serve now. Pure.
//!
//! Two conditions: the view is settled (`Freeze::is_settled`), and every new owner said lately that it has the block
//! loaded; after `PATIENCE_NS` one of them is enough, so that one owner who cannot load holds nobody up for ever.
//! A block that comes back to this node stays. Nothing is let go because *this* node looks dead to itself or
//! others. Bound: at most a twentieth of the loaded blocks (at least one) in `PACE_NS`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use koios_model::BlockId;

use crate::view::Member;

/// A report of a new owner counts for this long, nanoseconds.
pub const REPORT_NS: u64 = 30_000_000_000;
/// After this long one new owner is enough, nanoseconds.
pub const PATIENCE_NS: u64 = 30 * 60_000_000_000;
/// The pace of letting go, nanoseconds: one portion in this time.
pub const PACE_NS: u64 = 60_000_000_000;

/// What to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Ask a new owner which of these it has loaded; its answer goes to `Unload::reported`.
    Ask {
        /// The new owner.
        node: Arc<Member>,
        /// The blocks.
        blocks: Vec<BlockId>,
    },
    /// Serve it no longer.
    Drop(BlockId),
}

#[derive(Debug, Default)]
struct Leaving {
    since_ns: u64,
    loaded_by: BTreeMap<(String, u64), u64>,
}

/// The blocks that this node serves and should not.
#[derive(Debug, Default)]
pub struct Unload {
    leaving: BTreeMap<BlockId, Leaving>,
    portion: (u64, usize),
}

impl Unload {
    /// Looks at all blocks that are loaded here. `owners` gives the owners of a block in the view that ownership
    /// goes by; `settled` as `Freeze` says. To be called every few seconds.
    pub fn look(
        &mut self,
        now_ns: u64,
        me: &str,
        loaded: &BTreeSet<BlockId>,
        settled: bool,
        owners: &dyn Fn(BlockId) -> Vec<Arc<Member>>,
    ) -> Vec<Step> {
        let mut asks: BTreeMap<String, (Arc<Member>, Vec<BlockId>)> = BTreeMap::new();
        let mut steps = Vec::new();
        self.leaving.retain(|id, _| loaded.contains(id));
        if now_ns.saturating_sub(self.portion.0) >= PACE_NS {
            self.portion = (now_ns, (loaded.len() / 20).max(1));
        }
        for id in loaded {
            let owners = owners(*id);
            if owners.is_empty() || owners.iter().any(|m| m.name == me) {
                self.leaving.remove(id);
                continue;
            }
            let new = || Leaving { since_ns: now_ns, ..Leaving::default() };
            let leaving = self.leaving.entry(*id).or_insert_with(new);
            if settled && self.portion.1 > 0 && leaving.is_held(now_ns, &owners) {
                self.portion.1 -= 1;
                steps.push(Step::Drop(*id));
                continue;
            }
            for m in &owners {
                asks.entry(m.name.clone()).or_insert_with(|| (m.clone(), Vec::new())).1.push(*id);
            }
        }
        if settled {
            steps.extend(asks.into_values().map(|(node, blocks)| Step::Ask { node, blocks }));
        }
        steps
    }

    /// A new owner of `generation` answered at `now_ns` that it has these blocks loaded and serves them.
    pub fn reported(&mut self, now_ns: u64, node: &str, generation: u64, blocks: &[BlockId]) {
        for id in blocks {
            if let Some(l) = self.leaving.get_mut(id) {
                l.loaded_by.insert((node.to_owned(), generation), now_ns);
            }
        }
    }
}

impl Leaving {
    fn is_held(&self, now_ns: u64, owners: &[Arc<Member>]) -> bool {
        let fresh = |m: &Arc<Member>| {
            let said = self.loaded_by.get(&(m.name.clone(), m.generation));
            said.is_some_and(|t| now_ns.saturating_sub(*t) <= REPORT_NS)
        };
        if now_ns.saturating_sub(self.since_ns) >= PATIENCE_NS {
            owners.iter().any(fresh)
        } else {
            owners.iter().all(fresh)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::tests::member;

    const S: u64 = 1_000_000_000;

    fn id(n: u64) -> BlockId {
        BlockId::from_parts(n, 0)
    }

    fn owners(names: &[&str]) -> Vec<Arc<Member>> {
        names.iter().map(|n| Arc::new(member(n, "z", 1))).collect()
    }

    fn drops(steps: &[Step]) -> Vec<BlockId> {
        steps.iter().filter_map(|s| if let Step::Drop(id) = s { Some(*id) } else { None }).collect()
    }

    #[test]
    fn a_block_goes_when_the_view_is_settled_and_all_new_owners_have_it() {
        let mut u = Unload::default();
        let loaded: BTreeSet<_> = [id(1), id(2)].into();
        let mut look = |now: u64, settled: bool, said: &[(&str, u64)]| {
            said.iter().for_each(|(n, generation)| u.reported(now * S, n, *generation, &[id(1)]));
            u.look(now * S, "me", &loaded, settled, &|b| {
                owners(if b == id(1) { &["a", "b"] } else { &["me"] })
            })
        };
        assert!(look(100, false, &[]).is_empty(), "nothing is asked before the view is settled");
        let asked = look(101, true, &[]);
        assert_eq!((asked.len(), drops(&asked).len()), (2, 0));
        assert_eq!(drops(&look(102, true, &[("a", 1), ("stranger", 1)])), []);
        assert_eq!(drops(&look(103, true, &[("b", 7)])), [], "another generation of b");
        assert_eq!(drops(&look(133, true, &[("b", 1)])), [], "a's report is too old");
        assert_eq!(drops(&look(134, false, &[("a", 1)])), []);
        assert_eq!(drops(&look(135, true, &[])), [id(1)]);
    }

    #[test]
    fn one_owner_is_enough_after_a_while_and_the_pace_is_bounded() {
        let mut u = Unload::default();
        let loaded: BTreeSet<_> = (0..40).map(id).collect();
        let look = |u: &mut Unload, now: u64| u.look(now, "me", &loaded, true, &|_| owners(&["a", "b"]));
        look(&mut u, 0);
        let all: Vec<BlockId> = loaded.iter().copied().collect();
        u.reported(PATIENCE_NS - 1, "a", 1, &all);
        assert_eq!(drops(&look(&mut u, PATIENCE_NS - 1)), []);
        assert_eq!(drops(&look(&mut u, PATIENCE_NS)).len(), 2, "a twentieth");
        assert_eq!(drops(&look(&mut u, PATIENCE_NS + S)).len(), 0);
    }

    #[test]
    fn nobody_owns_it_means_it_stays() {
        let mut u = Unload::default();
        assert!(u.look(0, "me", &[id(1)].into(), true, &|_| Vec::new()).is_empty());
    }
}
