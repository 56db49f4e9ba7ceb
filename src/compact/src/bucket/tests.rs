//! Plans of whole buckets, carried out on metas alone.

use super::*;
use koios_block::meta::{MADE_BY, ThanosMeta};

const HOUR_MS: i64 = 3_600_000;

struct Made(BTreeMap<BlockId, Seen>, u64);

impl Made {
    fn new() -> Self {
        Self(BTreeMap::new(), 0)
    }

    fn add(&mut self, hours: (i64, i64), resolution: i64, labels: &[(&str, &str)], source: &str) -> BlockId {
        self.1 += 1;
        let id = BlockId::from_parts(self.1, 0);
        let text = format!(
            r#"{{"ulid":"{id}","minTime":{},"maxTime":{},"stats":{{"numSamples":1,"numSeries":1}},
                "compaction":{{"level":1,"sources":["{id}"]}},"version":1}}"#,
            hours.0 * HOUR_MS,
            hours.1 * HOUR_MS
        );
        let mut meta = BlockMeta::parse(text.as_bytes()).unwrap();
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut thanos = ThanosMeta { labels, source: source.to_owned(), ..ThanosMeta::default() };
        thanos.downsample.resolution = resolution;
        meta.thanos = Some(thanos);
        self.insert(meta);
        id
    }

    fn insert(&mut self, meta: BlockMeta) {
        let seen = Seen::fresh(meta.into());
        self.0.insert(seen.meta.ulid, seen);
    }

    fn get(&mut self, id: BlockId) -> &mut Seen {
        self.0.get_mut(&id).unwrap()
    }

    /// Does what the policy says until there is nothing left; the steps.
    fn settle(&mut self, policy: &Policy, now_ms: i64) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = policy.next(&self.0, &BTreeSet::new(), now_ms) {
            assert!(steps.len() < 2000, "no end: {:?}", &steps[1990..]);
            self.1 += 1;
            let id = BlockId::from_parts(self.1, 0);
            step.pretend(&mut self.0, id, now_ms);
            steps.push(step);
        }
        steps
    }

    /// Hours of the blocks that are not on their way out.
    fn ranges(&self, resolution: i64) -> Vec<(i64, i64)> {
        let live = self.0.values().filter(|s| s.deletion_ms.is_none() && s.meta.resolution() == resolution);
        let mut out: Vec<_> = live.map(|s| (s.meta.min_time / HOUR_MS, s.meta.max_time / HOUR_MS)).collect();
        out.sort_unstable();
        out
    }
}

const A: [(&str, &str); 2] = [("cluster", "c"), ("replica", "a")];
const B: [(&str, &str); 2] = [("cluster", "c"), ("replica", "b")];

#[test]
fn levels_fill_up_and_become_coarse() {
    let mut made = Made::new();
    for n in 0..12 * 23 {
        made.add((n * 2, n * 2 + 2), 0, &A, "sidecar");
    }
    let steps = made.settle(&Policy::default(), 1000 * HOUR_MS);
    assert_eq!(
        made.ranges(0),
        [(0, 336), (336, 384), (384, 432), (432, 480), (480, 528), (528, 536), (536, 544)]
            .into_iter()
            .chain([(544, 546), (546, 548), (548, 550), (550, 552)])
            .collect::<Vec<_>>()
    );
    assert_eq!(made.ranges(FIVE_MINUTES), [(0, 336), (336, 384), (384, 432), (432, 480), (480, 528)]);
    assert_eq!(made.ranges(HOUR), [(0, 336)]);
    assert!(steps.iter().all(|s| !matches!(s, Step::Leave { .. } | Step::Delete { .. })));
}

#[test]
fn replicas_become_one_when_they_are_to() {
    let policy = Policy { replica_labels: vec!["replica".into()], how: How::Penalty, ..Policy::default() };
    let mut made = Made::new();
    for n in 0..30 {
        made.add((n * 2, n * 2 + 2), 0, &A, "sidecar");
        made.add((n * 2, n * 2 + 2), 0, &B, "sidecar");
    }
    let mut apart = Made(made.0.clone(), made.1);
    made.settle(&policy, 0);
    assert_eq!(made.ranges(0), [(0, 48), (48, 56), (56, 58), (58, 60)]);
    assert_eq!(made.ranges(FIVE_MINUTES), [(0, 48)]);
    let live: Vec<&Seen> = made.0.values().filter(|s| s.deletion_ms.is_none()).collect();
    assert!(live.iter().all(|s| s.meta.external_labels() == [("cluster".to_owned(), "c".to_owned())].into()));
    apart.settle(&Policy::default(), 0);
    assert_eq!(apart.ranges(0).len(), 8);

    let only = |value: &str, source: &str| {
        let mut made = Made::new();
        let id = made.add((0, 2), 0, &[("replica", value)], source);
        policy.labels(&made.0[&id].meta)["replica"].clone()
    };
    assert_eq!((only("a", "sidecar"), only("1", MADE_BY)), ("deduped".to_owned(), "0".to_owned()));
    // Ours and another producer's never meet, and ours are merged exactly.
    let mut made = Made::new();
    made.add((0, 2), 0, &[("cluster", "c"), ("replica", "0")], MADE_BY);
    made.add((0, 2), 0, &[("cluster", "c"), ("replica", "1")], MADE_BY);
    made.add((0, 2), 0, &A, "sidecar");
    let steps = made.settle(&policy, 0);
    assert!(
        matches!(&steps[0], Step::Merge { how: How::Exact, blocks, .. } if blocks.len() == 2),
        "{steps:?}"
    );
    assert_eq!(made.ranges(0), [(0, 2), (0, 2)]);
}

#[test]
fn marks_are_heeded_and_late_blocks_welcome() {
    let mut made = Made::new();
    let ids: Vec<BlockId> = (0..9).map(|n| made.add((n * 2, n * 2 + 2), 0, &A, "sidecar")).collect();
    made.get(ids[1]).no_compact = true;
    let late = made.add((7, 9), 0, &A, "sidecar");
    let steps = made.settle(&Policy::default(), 0);
    assert!(steps.iter().all(|s| !matches!(s, Step::Merge { blocks, .. } if blocks.contains(&ids[1]))));
    assert!(matches!(&steps[0], Step::Merge { blocks, .. } if blocks.contains(&late)), "{steps:?}");
    assert!(made.ranges(0).contains(&(2, 4)), "{:?}", made.ranges(0));

    let mut made = Made::new();
    let long = made.add((0, 48), 0, &A, "compactor");
    made.get(long).no_downsample = true;
    let gone = made.add((48, 96), 0, &A, "compactor");
    made.get(gone).deletion_ms = Some(0);
    assert_eq!(made.settle(&Policy::default(), HOUR_MS), []);
    assert_eq!(made.settle(&Policy::default(), 48 * HOUR_MS), [Step::Delete { block: gone }]);
}

#[test]
fn coarse_blocks_that_overlap_stay_and_old_ones_expire() {
    let mut made = Made::new();
    let (a, b) =
        (made.add((0, 48), FIVE_MINUTES, &A, "compactor"), made.add((0, 48), FIVE_MINUTES, &B, "compactor"));
    let policy = Policy { replica_labels: vec!["replica".into()], how: How::Penalty, ..Policy::default() };
    assert_eq!(made.settle(&policy, 0), [Step::Leave { block: a }]);
    assert!(!made.get(b).no_compact, "alone it may be merged with what follows");

    let policy = Policy { retention_ms: [40 * HOUR_MS, 0, 0], ..Policy::default() };
    let mut made = Made::new();
    let old = made.add((0, 2), 0, &A, "sidecar");
    made.add((10, 12), 0, &A, "sidecar");
    let steps = made.settle(&policy, 43 * HOUR_MS);
    assert_eq!(steps, [Step::Mark { block: old, why: Why::Expired }]);
    assert!(policy.check().is_ok());
    let short = Policy { retention_ms: [HOUR_MS, 0, 0], ..Policy::default() };
    assert!(short.check().unwrap_err().contains("--retention.resolution-raw"));
    assert!(Policy { downsample: false, ..short }.check().is_ok());
}

#[test]
fn parts_of_one_block_do_not_overlap() {
    let mut made = Made::new();
    let (a, b) = (made.add((0, 8), 0, &A, "compactor"), made.add((0, 8), 0, &A, "compactor"));
    for (n, id) in [a, b].into_iter().enumerate() {
        let mut meta = (*made.get(id).meta).clone();
        meta.compaction.sources = vec![a];
        meta.set_part(n as u64, 2);
        made.get(id).meta = meta.into();
    }
    assert_eq!(made.settle(&Policy::default(), 0), []);
    let late = made.add((4, 6), 0, &A, "sidecar");
    let steps = made.settle(&Policy::default(), 0);
    assert!(matches!(&steps[0], Step::Merge { blocks, .. } if *blocks == [a, b, late]), "{steps:?}");
}
