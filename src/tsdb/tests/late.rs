//! Out-of-order samples through the whole shard: rules, kinds, readers, log, checkpoint, damage, cut.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::{FaultyDisk, batch, everything, far_clock, labels, new_entry};
use koios_block::{Block, BlockMetaExtras};
use koios_chunk::{Encoding, IntHistogram};
use koios_model::histogram::{CounterReset, FloatHistogram, Span};
use koios_model::{BlockId, Columns, Matcher, Slot};
use koios_tsdb::{Entry, HeadView, Reject, SeriesKey, Shard, ShardOptions, Value, cut_block};
use proptest::prelude::*;

fn options(dir: &Path, window: i64) -> ShardOptions {
    ShardOptions { out_of_order_window_ms: window, ..common::options(dir) }
}

fn open(dir: &Path, window: i64) -> Shard {
    Shard::open(options(dir, window), far_clock()).unwrap().0
}

fn value(kind: u8, n: i64) -> Value {
    let h = IntHistogram {
        count: n as u64 * 2,
        sum: n as f64,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive: vec![n, 0],
        hint: if n % 7 == 0 { CounterReset::NotReset } else { CounterReset::Unknown },
        ..IntHistogram::default()
    };
    match kind {
        0 => Value::Float(n as f64 * 0.5),
        1 => Value::Histogram(Arc::new(h)),
        _ => Value::FloatHistogram(Arc::new(FloatHistogram { hint: CounterReset::Gauge, ..h.to_float() })),
    }
}

fn entry(n: usize, t: i64, v: Value) -> Entry {
    Entry { series: SeriesKey::New(Slot(0), labels(n)), t, v }
}

fn read(view: &HeadView, n: usize) -> Columns {
    let all = view.select(&[], i64::MIN, i64::MAX).unwrap();
    let one = all.into_iter().find(|s| s.labels == labels(n));
    one.map_or_else(Columns::default, |s| {
        assert!(s.chunks.windows(2).all(|w| w[0].max_time < w[1].min_time), "chunks overlap");
        s.read(i64::MIN, i64::MAX).unwrap()
    })
}

fn same(c: &Columns, i: usize, v: &Value) -> bool {
    match (c.histogram(i), v) {
        (None, Value::Float(v)) => c.values[i].to_bits() == v.to_bits(),
        (Some(a), Value::Histogram(h)) => **a == h.to_float(),
        (Some(a), Value::FloatHistogram(h)) => a == h,
        _ => false,
    }
}

fn check(shard: &Shard, want: &[BTreeMap<i64, Value>]) {
    for (n, samples) in want.iter().enumerate() {
        let got = read(&shard.view(), n);
        assert_eq!(got.times, samples.keys().copied().collect::<Vec<_>>(), "series {n}");
        for (i, (t, v)) in samples.iter().enumerate() {
            assert!(same(&got, i, v), "series {n} at {t}: {v:?} became {:?}", got.histogram(i));
        }
    }
}

#[test]
fn the_window_decides() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = open(dir.path(), 10_000);
    let ask = |shard: &mut Shard, n, t, v: f64| {
        let done = shard.append(&batch([new_entry(n, t, v)])).unwrap();
        done.rejected.first().map(|r| r.1)
    };
    assert_eq!(ask(&mut shard, 0, 100_000, 1.0), None);
    assert_eq!(ask(&mut shard, 0, 90_000, 2.0), None);
    assert_eq!(ask(&mut shard, 0, 89_999, 2.0), Some(Reject::TooOld));
    // A new series: half a block range, as without a window.
    assert_eq!(ask(&mut shard, 1, 50_000, 3.0), None);
    assert_eq!(ask(&mut shard, 2, 49_999, 3.0), Some(Reject::TooOld));
    // The newest sample of the series: told apart. An older one: the first stays, whatever the value.
    assert_eq!(ask(&mut shard, 0, 100_000, 5.0), Some(Reject::Duplicate));
    assert_eq!((ask(&mut shard, 0, 90_000, 2.0), ask(&mut shard, 0, 90_000, 9.0)), (None, None));
    let stats = shard.view().stats();
    assert_eq!((stats.out_of_order_appended, stats.out_of_order_repeated), (1, 2));
    assert_eq!((stats.min_time, stats.samples_appended, stats.out_of_order_window_ms), (50_000, 3, 10_000));
    let c = read(&shard.view(), 0);
    assert_eq!((c.times, c.values), (vec![90_000, 100_000], vec![2.0, 1.0]));

    let dir = tempfile::tempdir().unwrap();
    let mut off = open(dir.path(), 0);
    assert_eq!(ask(&mut off, 0, 100_000, 1.0), None);
    assert_eq!(ask(&mut off, 0, 99_999, 1.0), Some(Reject::OutOfOrder));
    assert!(
        ShardOptions { out_of_order_window_ms: -1, ..common::options(dir.path()) }.out_of_order_window_ms < 0
    );
    let bad = ShardOptions { out_of_order_window_ms: -1, ..common::options(dir.path()) };
    assert!(Shard::open(bad, far_clock()).unwrap_err().to_string().contains("out-of-order window"));
}

/// A window beyond half a block range: old samples of any series are taken as far as it reaches.
#[test]
fn a_long_window_reaches_further_than_half_a_range() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = open(dir.path(), 150_000);
    shard.append(&batch([new_entry(0, 200_000, 1.0)])).unwrap();
    let got = shard.append(&batch([
        new_entry(0, 50_000, 1.0),
        new_entry(1, 49_999, 1.0),
        new_entry(2, 50_000, 1.0),
    ]));
    assert_eq!(got.unwrap().rejected, [(1, Reject::TooOld)]);
    shard.refuse_before(60_000);
    let got = shard.append(&batch([new_entry(0, 59_999, 1.0), new_entry(0, 60_000, 1.0)])).unwrap();
    assert_eq!(got.rejected, [(0, Reject::TooOld)], "what is being cut takes no more");
}

#[test]
fn a_failed_write_takes_nothing_late() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard =
        Shard::open_on(options(dir.path(), 50_000), far_clock(), Arc::new(disk.clone())).unwrap().0;
    shard.append(&batch([new_entry(0, 1000, 1.0)])).unwrap();
    let before = everything(&shard.view());
    let mixed = batch([
        new_entry(0, 500, 2.0),
        new_entry(1, 600, 2.0),
        new_entry(0, 1100, 2.0),
        new_entry(1, 550, 3.0),
    ]);
    for room in [0, 20, 60] {
        disk.fill_after(room);
        assert!(shard.append(&mixed).is_err());
        assert_eq!(everything(&shard.view()), before);
    }
    disk.free();
    assert!(shard.append(&mixed).unwrap().rejected.is_empty());
    let want = everything(&shard.view());
    assert_eq!(want.values().map(BTreeMap::len).sum::<usize>(), 5);
    drop(shard);
    assert_eq!(everything(&open(dir.path(), 50_000).view()), want);
}

/// Late samples in a block: merged with the others, of their own kind, none before or behind the range.
#[test]
fn a_block_has_them_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = open(dir.path(), 90_000);
    let mut want: BTreeMap<i64, Value> = BTreeMap::new();
    let mut push = |shard: &mut Shard, t: i64, kind| {
        shard.append(&batch([entry(0, t, value(kind, t / 10))])).unwrap();
        want.insert(t, value(kind, t / 10));
    };
    for i in 0..60 {
        push(&mut shard, 50_000 + i * 1000, 1);
    }
    for i in 0..50 {
        push(&mut shard, 49_500 + (i * 17 % 50) * 1000, if i % 10 == 0 { 0 } else { 1 });
    }
    shard.refuse_before(100_000);
    let (out, id) = (tempfile::tempdir().unwrap(), BlockId::from_parts(1, 1));
    let meta = cut_block(&[shard.view()], Slot(0), 0, 100_000, out.path(), id, BlockMetaExtras::default());
    let meta = meta.unwrap().unwrap();
    let block = Block::open(&out.path().join(id.to_string())).unwrap();
    assert_eq!(block.verify().unwrap().samples, meta.stats.num_samples);
    let found = block.select(&[], i64::MIN, i64::MAX).unwrap();
    let columns = found[0].read(i64::MIN, i64::MAX).unwrap();
    let cut: Vec<i64> = want.range(..100_000).map(|(t, _)| *t).collect();
    assert_eq!(columns.times, cut);
    assert!(found[0].chunks.iter().any(|c| c.encoding == Encoding::Histogram));
    assert!(found[0].chunks.iter().all(|c| c.encoding != Encoding::FloatHistogram), "kinds stay");
    shard.truncate(100_000).unwrap();
    want.retain(|t, _| *t >= 100_000);
    check(&shard, &[want.clone()]);
    drop(shard);
    check(&open(dir.path(), 90_000), &[want]);
}

/// A flipped byte in a late record loses that record and nothing else.
#[test]
fn damage_to_late_records_is_local() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = open(dir.path(), 90_000);
    shard.append(&batch([new_entry(0, 10_000, 1.0)])).unwrap();
    let from = (shard.lsn().0 & 0xffff_ffff) as usize;
    shard.append(&batch([new_entry(0, 9000, 2.0)])).unwrap();
    let to = (shard.lsn().0 & 0xffff_ffff) as usize;
    shard.append(&batch([new_entry(0, 8000, 3.0)])).unwrap();
    drop(shard);
    let path = dir.path().join("wal/00000001.wal");
    let bytes = std::fs::read(&path).unwrap();
    for at in from + 8..to {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        let trial = tempfile::tempdir().unwrap();
        std::fs::create_dir(trial.path().join("wal")).unwrap();
        std::fs::write(trial.path().join("wal/00000001.wal"), bad).unwrap();
        let (shard, report) = Shard::open(options(trial.path(), 90_000), far_clock()).unwrap();
        assert!(report.lost_data());
        assert_eq!(read(&shard.view(), 0).times, [8000, 10_000]);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(usize, i64, u8)>),
    Reopen,
    Checkpoint,
    Truncate(i64),
    Delete(usize, i64, i64),
    BeginCheckpoint,
    RunCheckpoint,
}

fn op() -> impl Strategy<Value = Op> {
    let sample = (0usize..3, 0i64..60, 0u8..3);
    prop_oneof![
        10 => proptest::collection::vec(sample, 1..60).prop_map(Op::Append),
        1 => Just(Op::Reopen),
        1 => Just(Op::Checkpoint),
        1 => (0i64..30).prop_map(Op::Truncate),
        2 => (0usize..4, 0i64..70, 0i64..40).prop_map(|(n, from, len)| Op::Delete(n, from, len)),
        1 => Just(Op::BeginCheckpoint),
        1 => Just(Op::RunCheckpoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
    /// Any interleaving of kinds, in and out of order, with deletions, restarts and checkpoints that are overtaken
    /// by all of that, is a sorted map in which the first stays.
    #[test]
    fn every_kind_in_any_order(ops in proptest::collection::vec(op(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = open(dir.path(), 1_000_000);
        let mut want = vec![BTreeMap::<i64, Value>::new(); 3];
        let mut floor = 0;
        let (mut job, mut deletions) = (None, 0);
        for op in &ops {
            match op {
                Op::Append(samples) => {
                    let entries = samples.iter().map(|&(n, t, kind)| entry(n, t * 100, value(kind, t + 1)));
                    let done = shard.append(&batch(entries)).unwrap();
                    for (i, &(n, t, kind)) in samples.iter().enumerate() {
                        let (t, v) = (t * 100, value(kind, t + 1));
                        let newest = want[n].last_key_value().filter(|(last, _)| **last == t);
                        let reject = match newest {
                            _ if t < floor => Some(Reject::TooOld),
                            Some((_, w)) if std::mem::discriminant(w) != std::mem::discriminant(&v) => {
                                Some(Reject::Duplicate)
                            }
                            _ => None,
                        };
                        prop_assert_eq!(done.rejected.iter().find(|r| r.0 == i).map(|r| r.1), reject);
                        if reject.is_none() {
                            want[n].entry(t).or_insert(v);
                        }
                    }
                }
                Op::Delete(n, from, len) => {
                    let (from, to) = (from * 100, (from + len) * 100);
                    // One series, or all of them.
                    let sets: Vec<Vec<Matcher>> = match labels(*n).get("instance") {
                        Some(i) if *n < 3 => vec![vec![Matcher::equal("instance", i)]],
                        _ => vec![vec![], vec![Matcher::equal("job", "job1")]],
                    };
                    let mut met = 0;
                    for (_, s) in want.iter_mut().enumerate().filter(|(i, _)| *n == 3 || i == n) {
                        met += u64::from(s.range(from..=to).next().is_some());
                        s.retain(|t, _| *t < from || *t > to);
                    }
                    let before = shard.lsn();
                    let done = shard.delete(&sets, from, to).unwrap();
                    deletions += u64::from(shard.lsn() != before);
                    prop_assert!(done.series >= met && done.lsn == shard.lsn());
                }
                Op::BeginCheckpoint => job = Some((shard.begin_checkpoint().unwrap(), deletions)),
                Op::RunCheckpoint => {
                    if let Some((job, at)) = job.take() {
                        prop_assert_eq!(job.run().is_ok(), at == deletions);
                    }
                }
                Op::Reopen => {
                    job = None;
                    drop(shard);
                    shard = open(dir.path(), 1_000_000);
                }
                Op::Checkpoint => {
                    job = None;
                    shard.begin_checkpoint().unwrap().run().unwrap();
                }
                Op::Truncate(t) => {
                    job = None;
                    floor = floor.max(t * 100);
                    shard.truncate(floor).unwrap();
                    want.iter_mut().for_each(|s| s.retain(|t, _| *t >= floor));
                }
            }
            check(&shard, &want);
        }
    }
}

/// A reader beside a writer of late samples sees all of a batch or nothing of it.
#[test]
fn readers_see_whole_batches() {
    const SERIES: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let mut shard = open(dir.path(), 90_000);
    shard.append(&batch((0..SERIES).map(|n| new_entry(n, 80_000, 0.0)))).unwrap();
    let view = shard.view();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut most = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let found = view.select(&[], i64::MIN, i64::MAX).unwrap();
                let counts: Vec<usize> =
                    found.iter().map(|s| s.read(i64::MIN, i64::MAX).unwrap().len()).collect();
                assert!(counts.len() == SERIES && counts.iter().all(|c| *c == counts[0]), "{counts:?}");
                assert!(counts[0] >= most, "samples went away");
                most = counts[0];
            }
        })
    };
    for i in 0..400i64 {
        let t = 1000 + i * 7919 % 401 * 100;
        shard.append(&batch((0..SERIES).map(|n| new_entry(n, t, 1.0)))).unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    reader.join().unwrap();
    assert_eq!(shard.view().stats().out_of_order_appended, 400 * SERIES as u64);
}
