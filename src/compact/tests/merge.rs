//! Merging against the obvious way: every sample of every block into one map.

mod common;

use std::collections::BTreeMap;

use common::{Data, bury, float, id, int, labels, meaning, read, write};
use koios_block::Block;
use koios_chunk::{IntHistogram, Typed};
use koios_compact::{CompactError, Merge, delete_from_block, merge_blocks};
use koios_model::{Matcher, is_stale, stale_nan};
use proptest::prelude::*;

fn merged(blocks: &[Block], dir: &std::path::Path, n: u64) -> Option<Block> {
    let merge = Merge::new(dir, id(n), &|| false);
    merge_blocks(blocks, &merge).unwrap().pop().map(|_| Block::open(&dir.join(id(n).to_string())).unwrap())
}

/// A value before the stale marker, for `up` the greater, then the greater bits, then the earlier block.
fn naive(parts: &[Data]) -> BTreeMap<String, BTreeMap<i64, String>> {
    let mut best: BTreeMap<(String, i64), Typed> = BTreeMap::new();
    for part in parts {
        for (name, samples) in part {
            for (t, v) in samples {
                let key = (name.clone(), *t);
                let wins = best.get(&key).is_none_or(|b| {
                    let (a, b) = (v.value(), b.value());
                    match (is_stale(a), is_stale(b)) {
                        (false, true) => true,
                        (true, false) => false,
                        _ if name == "up" && a != b => a > b,
                        _ => a.to_bits() > b.to_bits(),
                    }
                });
                if wins {
                    best.insert(key, v.clone());
                }
            }
        }
    }
    let mut out: BTreeMap<String, BTreeMap<i64, String>> = BTreeMap::new();
    for ((name, t), v) in best {
        out.entry(name).or_default().insert(t, meaning(&v));
    }
    out
}

fn meanings(data: &Data) -> BTreeMap<String, BTreeMap<i64, String>> {
    let one = |samples: &BTreeMap<i64, Typed>| samples.iter().map(|(t, v)| (*t, meaning(v))).collect();
    data.iter().map(|(n, s)| (n.clone(), one(s))).collect()
}

fn sample() -> impl Strategy<Value = Typed> {
    prop_oneof![
        6 => (0..4u32).prop_map(|v| Typed::Float(f64::from(v))),
        1 => Just(Typed::Float(stale_nan())),
        2 => (1..50u64, 0..4i32).prop_map(|(n, at)| int(n, at)),
        1 => Just(Typed::Histogram(IntHistogram::stale())),
        2 => (1..50u64, 0..4i32).prop_map(|(n, at)| float(n, at)),
    ]
}

fn block_data() -> impl Strategy<Value = Data> {
    let samples = prop::collection::btree_map(0..60i64, sample(), 1..40);
    prop::collection::btree_map(
        prop::sample::select(vec!["a", "b", "c", "up"]).prop_map(str::to_owned),
        samples,
        0..4,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_overlapping_blocks_with_deletions_merge_to_the_naive_result(
        parts in prop::collection::vec(
            (block_data(), 1..9u16, prop::collection::vec((0..4usize, 0..60i64, 0..30i64), 0..3)),
            1..4,
        )
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut blocks = Vec::new();
        for (n, (data, per_chunk, stones)) in parts.iter().enumerate() {
            let block = write(dir.path(), n as u64, (0, 100), data, *per_chunk);
            let stones: Vec<_> = stones.iter().map(|&(s, a, len)| (s, a, a + len)).collect();
            blocks.push(bury(&block, &stones));
        }
        let seen: Vec<Data> = blocks.iter().map(read).collect();
        let want = naive(&seen);
        blocks.reverse();
        match merged(&blocks, dir.path(), 50) {
            Some(out) => {
                prop_assert_eq!(meanings(&read(&out)), want);
                out.verify().unwrap();
                prop_assert!(out.tombstones().is_empty());
                prop_assert_eq!(out.meta().compaction.sources.len(), blocks.len());
            }
            None => prop_assert!(want.is_empty()),
        }
    }
}

fn floats(name: &str, times: std::ops::Range<i64>) -> Data {
    [(name.to_owned(), times.map(|t| (t * 10, Typed::Float(t as f64))).collect())].into()
}

#[test]
fn lineage_labels_and_bytes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = [
        write(dir.path(), 1, (0, 1000), &floats("a", 0..100), 120),
        write(dir.path(), 2, (1000, 2000), &floats("a", 100..200), 120),
    ];
    let out = merged(&blocks, dir.path(), 9).unwrap();
    let meta = out.meta();
    assert_eq!((meta.min_time, meta.max_time, meta.compaction.level), (0, 2000, 2));
    assert_eq!(meta.compaction.sources, [id(1), id(2)]);
    assert_eq!(meta.compaction.parents.iter().map(|p| p.ulid).collect::<Vec<_>>(), [id(1), id(2)]);
    assert_eq!(meta.external_labels(), blocks[0].meta().external_labels());
    assert_eq!(meta.thanos.as_ref().unwrap().source, "koios");
    assert_eq!((meta.stats.num_samples, meta.stats.num_chunks, meta.stats.num_series), (200, 2, 1));
    assert!(meta.supersedes(blocks[0].meta()) && meta.supersedes(blocks[1].meta()));
    let chunks = |b: &Block| b.series_chunks(b.index().select(&[]).unwrap()[0]).unwrap().1;
    assert_eq!(chunks(&out), [chunks(&blocks[0]), chunks(&blocks[1])].concat());
}

#[test]
fn nothing_left_no_block_and_a_stop_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let block = write(dir.path(), 1, (0, 1000), &floats("a", 0..100), 120);
    let stopped = merge_blocks(std::slice::from_ref(&block), &Merge::new(dir.path(), id(8), &|| true));
    assert!(matches!(stopped, Err(CompactError::Stopped)));
    assert_eq!(
        delete_from_block(&block, &[vec![Matcher::equal("job", "x")]], i64::MIN, i64::MAX).unwrap(),
        1
    );
    let block = Block::open(block.dir()).unwrap();
    assert!(merged(&[block], dir.path(), 9).is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn unlike_and_damaged_blocks_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), 1, (0, 1000), &floats("a", 0..100), 120);
    let b = write(dir.path(), 2, (0, 1000), &floats("a", 50..100), 120);
    let merge = Merge::new(dir.path(), id(9), &|| false);
    let mut other = a.meta().clone();
    other.thanos.as_mut().unwrap().labels.insert("replica".into(), "1".into());
    other.write(a.dir()).unwrap();
    let stranger = Block::open(a.dir()).unwrap();
    assert!(matches!(merge_blocks(&[stranger, b], &merge), Err(CompactError::Unlike(_))));
    a.meta().write(a.dir()).unwrap();
    let path = dir.path().join(id(2).to_string()).join("chunks/000001");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = Block::open(&dir.path().join(id(2).to_string())).unwrap();
    let err = merge_blocks(&[a, damaged], &merge).unwrap_err();
    assert_eq!(err.culprit(), Some(id(2)), "{err}");
    assert!(!dir.path().join(id(9).to_string()).exists());
}

#[test]
fn deletions_cover_data_only_and_are_seen_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = floats("a", 0..100);
    data.extend(floats("b", 0..100));
    let block = write(dir.path(), 1, (0, 1000), &data, 10);
    let only_a = [vec![Matcher::equal("__name__", "a")]];
    assert_eq!(delete_from_block(&block, &only_a, 2000, 3000).unwrap(), 0);
    assert_eq!(block.meta().stats.num_tombstones, 0);
    assert_eq!(delete_from_block(&block, &only_a, 105, 200).unwrap(), 1);
    let block = Block::open(block.dir()).unwrap();
    assert_eq!(block.meta().stats.num_tombstones, 1);
    assert_eq!(delete_from_block(&block, &only_a, 110, 150).unwrap(), 0, "deleted already");
    let left = read(&block);
    assert_eq!((left["a"].len(), left["b"].len()), (90, 100));
    let out = merged(&[block], dir.path(), 2).unwrap();
    assert_eq!((out.meta().stats.num_samples, out.meta().stats.num_tombstones), (190, 0));
    assert!(out.meta().supersedes(Block::open(&dir.path().join(id(1).to_string())).unwrap().meta()));
    assert_eq!(labels("a"), read(&out).keys().next().map(|n| labels(n)).unwrap());
}
