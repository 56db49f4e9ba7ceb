//! Any bucket of small blocks, compacted until nothing is left to do: what can be queried is what the policy says.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Data, float, id, int, meaning};
use koios_block::{Block, Interval, Tombstones};
use koios_chunk::{Aggregate, Typed};
use koios_compact::bucket::{Policy, Seen, Step};
use koios_compact::downsample::FIVE_MINUTES;
use koios_compact::{How, Merge, downsample_block, merge_blocks};
use koios_model::{BlockId, Columns, is_stale, stale_nan};
use proptest::prelude::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A block to be: replica, which two hours it begins in, samples as (series, minute, kind), deletions as (series, from, to).
type Spec = (bool, i64, Vec<(usize, i64, u8)>, Vec<(usize, i64, i64)>);

fn sample(kind: u8, t: i64) -> Typed {
    match kind {
        0..=5 => Typed::Float(f64::from(kind)),
        6 => Typed::Float(stale_nan()),
        7 | 8 => int(1 + (t / MINUTE % 40) as u64, i32::from(kind % 2)),
        _ => float(1 + (t / MINUTE % 40) as u64, 1),
    }
}

fn blocks(floats_only: bool) -> impl Strategy<Value = Vec<Spec>> {
    let kinds = if floats_only { 0..6u8 } else { 0..10u8 };
    let samples = prop::collection::vec((0..3usize, 0..180i64, kinds), 1..40);
    let stones = prop::collection::vec((0..3usize, 0..180i64, 0..40i64), 0..3);
    prop::collection::vec((any::<bool>(), 0..26i64, samples, stones), 1..12)
}

fn labelled(replica: bool) -> BTreeMap<String, String> {
    [("cluster", "c"), ("replica", if replica { "a" } else { "b" })]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into()
}

/// Writes the blocks; by replica and series everything that is not deleted.
fn write(dir: &Path, specs: &[Spec]) -> (BTreeMap<BlockId, Seen>, BTreeMap<bool, Vec<Data>>) {
    let (mut seen, mut all) = (BTreeMap::new(), BTreeMap::<bool, Vec<Data>>::new());
    for (n, (replica, from, samples, stones)) in specs.iter().enumerate() {
        let from = from * 2 * HOUR;
        let mut data = Data::new();
        for (series, minute, kind) in samples {
            let t = from + minute * MINUTE;
            data.entry(["a", "b", "up"][*series].to_owned()).or_default().insert(t, sample(*kind, t));
        }
        let block = common::write(dir, n as u64 + 1, (from, from + 3 * HOUR), &data, 9);
        let mut meta = block.meta().clone();
        let thanos = meta.thanos.as_mut().unwrap();
        (thanos.labels, thanos.source) = (labelled(*replica), "sidecar".to_owned());
        meta.write(block.dir()).unwrap();
        let numbers = block.index().select(&[]).unwrap();
        let mut deleted = Tombstones::default();
        for (series, a, len) in stones {
            let number = numbers.get(*series).map(|n| u64::from(*n));
            let (mint, maxt) = (from + a * MINUTE, from + (a + len) * MINUTE);
            number.into_iter().for_each(|n| deleted.add(n, Interval { mint, maxt }));
        }
        deleted.write(block.dir()).unwrap();
        let block = Block::open(block.dir()).unwrap();
        all.entry(*replica).or_default().push(common::read(&block));
        seen.insert(block.meta().ulid, Seen::fresh(block.meta().clone().into()));
    }
    (seen, all)
}

/// Does what the policy says; the blocks that are left.
fn settle(dir: &Path, policy: &Policy, mut blocks: BTreeMap<BlockId, Seen>, now_ms: i64) -> Vec<Block> {
    let none = BTreeSet::new();
    // Two runs may share a directory.
    let base = 1000 + now_ms.unsigned_abs();
    for n in 0.. {
        let Some(step) = policy.next(&blocks, &none, now_ms) else { break };
        assert!(n < 300, "no end: {step:?}");
        let fresh = id(base + n * 10);
        let open = |b: &BlockId| Block::open(&dir.join(b.to_string())).unwrap();
        let made = match &step {
            Step::Merge { blocks, labels, how, .. } => {
                let sources: Vec<Block> = blocks.iter().map(open).collect();
                let index_bytes_max = policy.index_bytes_max;
                let labels = Some(labels.clone());
                merge_blocks(
                    &sources,
                    &Merge { labels, how: *how, index_bytes_max, ..Merge::new(dir, fresh, &|| false) },
                )
                .unwrap()
            }
            Step::Downsample { block, to } => {
                let merge = Merge::new(dir, fresh, &|| false);
                downsample_block(&open(block), *to, &merge).unwrap().into_iter().collect()
            }
            other => {
                other.pretend(&mut blocks, fresh, now_ms);
                continue;
            }
        };
        match &step {
            Step::Merge { blocks: gone, .. } => {
                gone.iter().for_each(|b| blocks.get_mut(b).unwrap().deletion_ms = Some(now_ms));
            }
            Step::Downsample { block, .. } if made.is_empty() => {
                blocks.get_mut(block).unwrap().no_downsample = true
            }
            _ => {}
        }
        made.into_iter().for_each(|m| drop(blocks.insert(m.ulid, Seen::fresh(m.into()))));
    }
    blocks.keys().map(|b| Block::open(&dir.join(b.to_string())).unwrap()).collect()
}

type Meanings = BTreeMap<(BTreeMap<String, String>, String, i64), BTreeSet<String>>;

fn add(out: &mut Meanings, labels: &BTreeMap<String, String>, data: &Data) {
    for (name, samples) in data {
        for (t, v) in samples {
            out.entry((labels.clone(), name.clone(), *t)).or_default().insert(meaning(v));
        }
    }
}

fn raw(blocks: &[Block]) -> Meanings {
    let mut out = Meanings::new();
    for block in blocks.iter().filter(|b| b.meta().resolution() == 0) {
        block.verify().unwrap();
        let before: usize = out.values().map(BTreeSet::len).sum();
        let data = common::read(block);
        add(&mut out, &block.meta().external_labels(), &data);
        let added = out.values().map(BTreeSet::len).sum::<usize>() - before;
        assert_eq!(added, data.values().map(BTreeMap::len).sum::<usize>(), "a sample is in two blocks");
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Without deduplication every instant of every replica stays, once, with a value that was there; cut into parts too.
    #[test]
    fn every_instant_stays(specs in blocks(false), index_bytes_max in prop_oneof![Just(u64::MAX), Just(1)]) {
        let dir = tempfile::tempdir().unwrap();
        let (seen, all) = write(dir.path(), &specs);
        let mut want = Meanings::new();
        for (replica, parts) in &all {
            parts.iter().for_each(|p| add(&mut want, &labelled(*replica), p));
        }
        let policy = Policy { downsample: false, delete_delay_ms: 0, index_bytes_max, ..Policy::default() };
        let got = raw(&settle(dir.path(), &policy, seen, 0));
        prop_assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        for (key, values) in got {
            prop_assert!(values.is_subset(&want[&key]), "{:?}", key);
        }
    }

    /// Deduplication invents nothing, keeps no instant twice, and where one replica is alone for a while it is all there.
    #[test]
    fn replicas_become_one(specs in blocks(false)) {
        let dir = tempfile::tempdir().unwrap();
        let (seen, all) = write(dir.path(), &specs);
        let labels: BTreeMap<String, String> = [("cluster".to_owned(), "c".to_owned())].into();
        let mut any = Meanings::new();
        all.values().flatten().for_each(|p| add(&mut any, &labels, p));
        let policy = Policy {
            replica_labels: vec!["replica".to_owned()],
            how: How::Penalty,
            downsample: false,
            delete_delay_ms: 0,
            ..Policy::default()
        };
        let left = settle(dir.path(), &policy, seen, 0);
        let got = raw(&left);
        for (key, values) in &got {
            // A block that never met another one keeps its labels.
            let plain = (labels.clone(), key.1.clone(), key.2);
            prop_assert!(any.get(&plain).is_some_and(|all| values.is_subset(all)), "{:?}", key);
        }
        let series: BTreeSet<&String> = any.keys().map(|k| &k.1).collect();
        prop_assert_eq!(got.keys().map(|k| &k.1).collect::<BTreeSet<_>>(), series);
        if specs.len() == 1 {
            prop_assert_eq!(got.len(), any.len());
        }
    }

    /// Coarse blocks count and sum what raw ones hold; the retention takes whole blocks that ended long enough ago and no other.
    #[test]
    fn coarse_blocks_hold_what_raw_ones_do(specs in blocks(true), keep_hours in 40..60i64) {
        let dir = tempfile::tempdir().unwrap();
        let (mut seen, _) = write(dir.path(), &specs);
        // The whole of the time is there, so that two days become one block.
        let long: Data = [("c".to_owned(), (0..49 * 60).map(|m| (m * MINUTE, Typed::Float(1.0))).collect())].into();
        let block = common::write(dir.path(), 500, (0, 49 * HOUR), &long, 120);
        let mut meta = block.meta().clone();
        meta.thanos.as_mut().unwrap().labels = labelled(true);
        meta.thanos.as_mut().unwrap().source = "sidecar".to_owned();
        meta.write(block.dir()).unwrap();
        seen.insert(meta.ulid, Seen::fresh(meta.into()));
        let policy = Policy { delete_delay_ms: 0, retention_ms: [keep_hours * HOUR, 0, 0], ..Policy::default() };
        let all = settle(dir.path(), &Policy { retention_ms: [0; 3], delete_delay_ms: i64::MAX, ..policy.clone() }, seen.clone(), 0);
        let mut coarse = 0;
        for fine in all.iter().filter(|b| b.meta().resolution() == 0) {
            let of = |b: &&Block| b.meta().resolution() == FIVE_MINUTES && b.meta().compaction.sources == fine.meta().compaction.sources;
            let Some(made) = all.iter().find(of) else { continue };
            coarse += 1;
            let (mut count, mut sum) = (0.0, 0.0);
            for n in made.index().select(&[]).unwrap() {
                for chunk in made.series_chunks(n).unwrap().1 {
                    for (which, total) in [(Aggregate::Count, &mut count), (Aggregate::Sum, &mut sum)] {
                        let mut c = Columns::default();
                        chunk.aggregate(which).unwrap().unwrap().read(i64::MIN, i64::MAX, &mut c).unwrap();
                        *total += c.values.iter().sum::<f64>();
                    }
                }
            }
            let values: Vec<f64> = common::read(fine).values().flatten().map(|(_, v)| v.value()).filter(|v| !is_stale(*v)).collect();
            prop_assert_eq!((count, sum), (values.len() as f64, values.iter().sum::<f64>()));
        }
        prop_assert!(coarse > 0);
        let now_ms = 100 * HOUR;
        let kept = settle(dir.path(), &policy, seen, now_ms);
        for block in all.iter().filter(|b| b.meta().resolution() == 0) {
            let old = now_ms - block.meta().max_time > keep_hours * HOUR;
            let sources = |b: &Block| b.meta().resolution() == 0 && b.meta().compaction.sources == block.meta().compaction.sources;
            prop_assert!(!(old && kept.iter().any(sources)), "{:?}", block.meta().ulid);
        }
    }
}
