//! From one pinned view to fragments: who is asked for what.
//!
//! Pure. A fragment is (time range × part of the data × holder). Each node that is open is asked for its
//! own part (its head, and what it has not uploaded yet), even while it still joins. Blocks of the bucket that the coordinator sees too
//! are dealt to the nodes on the same bucket by rendezvous over the block's id. Blocks of a bucket that the
//! coordinator does not see are asked of one node on that bucket. Ejected nodes are asked last: a block goes
//! to the next in rank at once, a head has no second holder and is tried all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use koios_cluster::{ClusterView, Member, ranked};
use koios_model::BlockId;
use koios_store::CatalogueView;
use xxhash_rust::xxh64::xxh64;

use crate::completeness::Absent;

/// One question to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Who is asked.
    pub node: Arc<Member>,
    /// Its own part.
    pub own: bool,
    /// Blocks of the shared bucket.
    pub blocks: Vec<BlockId>,
    /// All blocks of its bucket.
    pub whole_bucket: bool,
}

/// What is asked in the first round.
#[derive(Clone, Debug, Default)]
pub struct Fragments {
    /// Questions, by node name.
    pub ask: Vec<Fragment>,
    /// Nodes that cannot be asked.
    pub absent: Vec<Absent>,
}

/// Plans the first round. `catalogue` is the coordinator's own bucket, of which `cover` is to be read;
/// `ejected` tells which nodes are better left alone.
pub fn plan(
    view: &ClusterView,
    catalogue: &CatalogueView,
    cover: &[BlockId],
    ejected: &dyn Fn(&Member) -> bool,
    range: (i64, i64),
) -> Fragments {
    let mut parts: BTreeMap<String, Fragment> = BTreeMap::new();
    let mut absent = Vec::new();
    let my_bucket = view.own().map(|m| m.record.bucket.clone()).unwrap_or_default();
    for m in view.members.values() {
        absent.extend(m.record.head.holes.iter().map(|lost| Absent::hole(m, *lost, catalogue)));
        if m.is_open() || m.name == view.me {
            if m.name == view.me || holds_own_data(m, range.1) {
                part(&mut parts, m).own = true;
            }
        } else if !is_starting(m) || m.record.head.min_time.is_some() {
            absent.push(Absent::from_member(view, m, &format!("is {}", m.shown_state()), catalogue));
        }
    }
    for (m, id) in deal(view, cover, &my_bucket, ejected) {
        part(&mut parts, &m).blocks.push(id);
    }
    let foreign: BTreeSet<String> = view
        .members
        .values()
        .map(|m| m.record.bucket.clone())
        .filter(|b| !b.is_empty() && *b != my_bucket)
        .collect();
    for bucket in foreign {
        if let Some(m) = bucket_speakers(view, &bucket, ejected).into_iter().next() {
            part(&mut parts, &m).whole_bucket = true;
        }
    }
    Fragments { ask: parts.into_values().collect(), absent }
}

/// Nodes that can speak for a bucket, best first.
pub fn bucket_speakers(
    view: &ClusterView,
    bucket: &str,
    ejected: &dyn Fn(&Member) -> bool,
) -> Vec<Arc<Member>> {
    let on_it: Vec<Arc<Member>> =
        view.members.values().filter(|m| m.answers() && m.record.bucket == bucket).cloned().collect();
    let mut speakers = ranked(&on_it, xxh64(bucket.as_bytes(), 0));
    speakers.sort_by_key(|m| ejected(m));
    speakers
}

/// Candidates to serve a block of the coordinator's bucket, best first; ejected ones last.
pub fn block_candidates(
    view: &ClusterView,
    id: BlockId,
    my_bucket: &str,
    ejected: &dyn Fn(&Member) -> bool,
) -> Vec<Arc<Member>> {
    let on_it: Vec<Arc<Member>> =
        view.ready("store").into_iter().filter(|m| m.record.bucket == my_bucket).collect();
    let mut candidates = ranked(&on_it, block_key(id));
    candidates.sort_by_key(|m| ejected(m));
    candidates
}

/// Most slices of time that the blocks of one holder are asked for in.
const SLICES_MAX: i64 = 8;
const DAY_MS: i64 = 86_400_000;

/// Blocks by slices of time: whole days, a few of them together where there are many. `start` gives the first moment of
/// a block. A block is in one slice, whatever it reaches into, so nothing is asked for twice.
pub fn slices(blocks: &[BlockId], start: &dyn Fn(BlockId) -> i64) -> Vec<Vec<BlockId>> {
    let day = |id: BlockId| start(id).div_euclid(DAY_MS);
    let first = blocks.iter().map(|id| day(*id)).min().unwrap_or(0);
    let last = blocks.iter().map(|id| day(*id)).max().unwrap_or(0);
    let days = (last.saturating_sub(first) / SLICES_MAX).saturating_add(1);
    let mut slices: BTreeMap<i64, Vec<BlockId>> = BTreeMap::new();
    for id in blocks {
        slices.entry(day(*id).saturating_sub(first) / days).or_default().push(*id);
    }
    slices.into_values().collect()
}

/// Hash that places a block.
pub fn block_key(id: BlockId) -> u64 {
    xxh64(&id.to_u128().to_be_bytes(), 0)
}

fn deal(
    view: &ClusterView,
    cover: &[BlockId],
    my_bucket: &str,
    ejected: &dyn Fn(&Member) -> bool,
) -> Vec<(Arc<Member>, BlockId)> {
    let mut dealt = Vec::with_capacity(cover.len());
    for id in cover {
        let best = block_candidates(view, *id, my_bucket, ejected).into_iter().next();
        // Nobody is ready: the coordinator reads the block itself.
        if let Some(m) = best.or_else(|| view.own().cloned()) {
            dealt.push((m, *id));
        }
    }
    dealt
}

fn part<'a>(parts: &'a mut BTreeMap<String, Fragment>, m: &Arc<Member>) -> &'a mut Fragment {
    parts.entry(m.name.clone()).or_insert_with(|| Fragment {
        node: m.clone(),
        own: false,
        blocks: Vec::new(),
        whole_bucket: false,
    })
}

/// What a node says of its head is a hint; one that says nothing is asked.
fn holds_own_data(m: &Member, maxt: i64) -> bool {
    m.record.may_hold_from().is_none_or(|t| t <= maxt)
}

fn is_starting(m: &Member) -> bool {
    m.is_alive() && !m.record.state.is_open()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{member, view};
    use koios_cluster::{Liveness, NodeState};

    fn plan(
        view: &ClusterView,
        cover: &[BlockId],
        ejected: &dyn Fn(&Member) -> bool,
        range: (i64, i64),
    ) -> Fragments {
        super::plan(view, &CatalogueView::default(), cover, ejected, range)
    }

    fn ids(n: u64) -> Vec<BlockId> {
        (0..n).map(|i| BlockId::from_parts(i, u128::from(i))).collect()
    }

    #[test]
    fn every_answering_node_gives_its_own_part_and_blocks_are_dealt_once() {
        let v = view("a", vec![member("a", "B"), member("b", "B"), member("c", "B")]);
        let cover = ids(60);
        let f = plan(&v, &cover, &|_| false, (0, 10));
        assert!(f.ask.iter().all(|p| p.own && !p.whole_bucket) && f.ask.len() == 3);
        let mut dealt: Vec<BlockId> = f.ask.iter().flat_map(|p| p.blocks.clone()).collect();
        dealt.sort();
        assert_eq!(dealt, cover);
        assert!(f.ask.iter().all(|p| p.blocks.len() > 5), "rendezvous spreads them");
        let without_c = plan(&v, &cover, &|m| m.name == "c", (0, 10));
        let c = without_c.ask.iter().find(|p| p.node.name == "c").unwrap();
        assert!(c.own && c.blocks.is_empty(), "an ejected node still is the only holder of its head");
    }

    #[test]
    fn slices_are_days_and_few() {
        let blocks = ids(100);
        let start = |hours: i64| move |id: BlockId| id.timestamp_ms() as i64 * hours * 3_600_000;
        assert_eq!(slices(&blocks, &start(0)).len(), 1);
        assert_eq!(slices(&blocks[..24], &start(2)).len(), 2, "two days of two-hour blocks");
        for hours in [1, 2, 24, 480, 10_000] {
            let cut = slices(&blocks, &start(hours));
            assert!(cut.len() as i64 <= SLICES_MAX + 1, "{} slices", cut.len());
            assert_eq!(cut.concat(), blocks, "each block once, in the order of time");
        }
        assert!(slices(&[], &start(1)).is_empty());
    }

    #[test]
    fn foreign_buckets_have_one_speaker() {
        let v = view("a", vec![member("a", "B"), member("b", "F"), member("c", "F")]);
        let f = plan(&v, &[], &|_| false, (0, 10));
        assert_eq!(f.ask.iter().filter(|p| p.whole_bucket).count(), 1);
        assert!(!f.ask.iter().any(|p| p.whole_bucket && p.node.name == "a"));
    }

    #[test]
    fn dead_nodes_are_absent_and_starting_ones_too_when_they_hold_data() {
        let mut dead = member("b", "B");
        dead.liveness = Liveness::Dead { since: 77 };
        let mut starting = member("c", "B");
        starting.record.state = NodeState::Starting;
        let fresh = {
            let mut m = starting.clone();
            m.name = "d".into();
            m
        };
        starting.record.head.min_time = Some(3);
        let mut joining = starting.clone();
        (joining.name, joining.record.state) = ("e".into(), NodeState::Joining);
        let v = view("a", vec![member("a", "B"), dead, starting, fresh, joining]);
        let f = plan(&v, &[], &|_| false, (0, 10));
        assert_eq!(f.absent.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(f.absent[0].until, 77 + koios_cluster::replicas::RING_GRACE_MS, "it may be cut off only");
        let asked: Vec<_> = f.ask.iter().map(|p| (p.node.name.as_str(), p.own)).collect();
        assert_eq!(asked, [("a", true), ("e", true)], "one that joins has read its log");
    }

    #[test]
    fn a_node_that_lost_its_disk_answers_and_is_absent_for_what_it_lost() {
        let mut b = member("b", "B");
        b.record.head.holes = vec![koios_cluster::SoleRange { from: 5, until: 9 }];
        let mut c = member("c", "B");
        c.record.head.min_time = Some(0);
        c.liveness = Liveness::Dead { since: 77 };
        let f = plan(&view("a", vec![member("a", "B"), b, c]), &[], &|_| false, (0, 10));
        assert_eq!(f.ask.len(), 2);
        let mut alone = f.absent[..1].to_vec();
        alone[0].sole = vec![(0, 6), (8, i64::MAX)];
        let lost: Vec<_> =
            crate::completeness::gaps(&alone, 0, 100).iter().map(|g| (g.from, g.until)).collect();
        assert_eq!(lost, [(5, 6), (8, 9)], "what it alone held is nowhere");
        let gaps = crate::completeness::gaps(&f.absent, 0, 100);
        assert_eq!(gaps.iter().map(|g| (g.from, g.until)).collect::<Vec<_>>(), [(5, 9)]);
        assert_eq!(
            crate::completeness::gaps(&f.absent[..1], 0, 100),
            [],
            "alone its replicas make up for it"
        );
    }

    #[test]
    fn young_heads_are_not_asked_for_old_times() {
        let mut young = member("b", "B");
        young.record.head.min_time = Some(10_000_000);
        let v = view("a", vec![member("a", "B"), young]);
        assert_eq!(plan(&v, &[], &|_| false, (0, 7_000_000)).ask.len(), 1);
        assert_eq!(plan(&v, &[], &|_| false, (0, 7_600_000)).ask.len(), 2);
    }
}
