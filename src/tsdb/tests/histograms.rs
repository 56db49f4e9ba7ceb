//! Native histograms through the whole shard: append, read, log, restart, truncate, cut.

mod common;

use std::sync::Arc;

use common::{FaultyDisk, batch, far_clock, labels, open, options};
use koios_block::{Block, BlockMetaExtras};
use koios_chunk::{Encoding, IntHistogram};
use koios_model::histogram::{CounterReset, FloatHistogram, Span};
use koios_model::{BlockId, Columns, Slot, is_stale, stale_nan};
use koios_tsdb::{Entry, HeadView, Reject, SeriesKey, Shard, Value, cut_block};
use proptest::prelude::*;

fn int(n: i64) -> Value {
    Value::Histogram(Arc::new(IntHistogram {
        count: n as u64 * 3,
        sum: n as f64 * 0.5,
        positive_spans: vec![Span { offset: 2, length: 2 }],
        positive: vec![n, n],
        ..IntHistogram::default()
    }))
}

fn float(n: i64) -> Value {
    let Value::Histogram(h) = int(n) else { unreachable!() };
    Value::FloatHistogram(Arc::new(FloatHistogram {
        sum: n as f64,
        hint: CounterReset::Gauge,
        ..h.to_float()
    }))
}

fn value(kind: u8, n: i64) -> Value {
    match kind {
        0 => Value::Float(n as f64),
        1 => int(n),
        2 => float(n),
        _ => Value::Float(stale_nan()),
    }
}

fn entry(n: usize, t: i64, v: Value) -> Entry {
    Entry { series: SeriesKey::New(Slot(0), labels(n)), t, v }
}

fn as_float(v: &Value) -> Option<FloatHistogram> {
    match v {
        Value::Float(_) => None,
        Value::Histogram(h) => Some(h.to_float()),
        Value::FloatHistogram(h) => Some((**h).clone()),
    }
}

fn same(c: &Columns, i: usize, v: &Value) -> bool {
    match (c.histogram(i), as_float(v), v) {
        (Some(a), Some(b), _) => (is_stale(a.sum) && is_stale(b.sum)) || **a == b,
        (None, None, Value::Float(v)) => c.values[i].to_bits() == v.to_bits(),
        // A stale float after a histogram was stored as the histogram's kind.
        (Some(a), None, Value::Float(v)) => is_stale(a.sum) && is_stale(*v),
        _ => false,
    }
}

fn read(view: &HeadView, n: usize) -> Columns {
    let all = view.select(&[], i64::MIN, i64::MAX).unwrap();
    let one = all.into_iter().find(|s| s.labels == labels(n));
    one.map_or_else(Columns::default, |s| s.read(i64::MIN, i64::MAX).unwrap())
}

fn check(shard: &Shard, want: &[Vec<(i64, Value)>]) {
    for (n, samples) in want.iter().enumerate() {
        let got = read(&shard.view(), n);
        assert_eq!(got.times, samples.iter().map(|s| s.0).collect::<Vec<_>>(), "series {n}");
        for (i, (t, v)) in samples.iter().enumerate() {
            assert!(same(&got, i, v), "series {n} at {t}: {v:?} became {:?}", got.histogram(i));
        }
    }
}

#[test]
fn duplicates_and_unsound_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    let broken = IntHistogram { positive: vec![1], ..IntHistogram::default() };
    let got = shard
        .append(&batch([
            entry(0, 10, int(1)),
            entry(0, 10, int(1)),
            entry(0, 10, int(2)),
            entry(0, 10, 0.5.into()),
            entry(0, 9, int(1)),
            entry(0, 11, Value::Histogram(Arc::new(broken))),
            entry(0, 12, 7.0.into()),
            entry(0, 12, int(3)),
            entry(0, 13, int(4)),
            entry(0, 14, stale_nan().into()),
        ]))
        .unwrap();
    let want = [
        (2, Reject::Duplicate),
        (3, Reject::Duplicate),
        (4, Reject::OutOfOrder),
        (5, Reject::BadHistogram),
        (7, Reject::Duplicate),
    ];
    assert_eq!(got.rejected, want);
    let stale = Value::Histogram(Arc::new(IntHistogram::stale()));
    let want = [vec![(10, int(1)), (12, 7.0.into()), (13, int(4)), (14, stale)]];
    check(&shard, &want);
    drop(shard);
    check(&open(dir.path()).0, &want);
}

#[test]
fn a_refused_batch_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut shard, _) = Shard::open_on(options(dir.path()), far_clock(), Arc::new(disk.clone())).unwrap();
    shard.append(&batch([entry(0, 1, int(1)), entry(1, 1, 1.0.into())])).unwrap();
    disk.fill_after(10);
    let mixed =
        || batch([entry(0, 2, 5.0.into()), entry(0, 3, int(9)), entry(1, 2, int(3)), entry(2, 2, int(1))]);
    shard.append(&mixed()).unwrap_err();
    check(&shard, &[vec![(1, int(1))], vec![(1, 1.0.into())], vec![]]);
    disk.free();
    assert!(shard.append(&mixed()).unwrap().rejected.is_empty());
    let want = [
        vec![(1, int(1)), (2, 5.0.into()), (3, int(9))],
        vec![(1, 1.0.into()), (2, int(3))],
        vec![(2, int(1))],
    ];
    check(&shard, &want);
    drop(shard);
    check(&open(dir.path()).0, &want);
}

#[test]
fn cut_blocks_hold_histograms_and_truncation_forgets_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    let mut want = vec![Vec::new(), Vec::new()];
    for i in 0..200i64 {
        let t = i * 1000;
        let v = [int(i), float(i % 7)];
        shard.append(&batch(v.iter().enumerate().map(|(n, v)| entry(n, t, v.clone())))).unwrap();
        want.iter_mut().zip(v).for_each(|(w, v)| w.push((t, v)));
    }
    let meta = cut_block(
        &[shard.view()],
        Slot(0),
        0,
        100_000,
        dir.path(),
        BlockId::from_parts(1, 1),
        BlockMetaExtras::default(),
    );
    let meta = meta.unwrap().unwrap();
    assert_eq!((meta.stats.num_histogram_samples, meta.stats.num_float_samples), (200, 0));
    let block = Block::open(&dir.path().join(meta.ulid.to_string())).unwrap();
    block.verify().unwrap();
    for (n, kind) in [(0, Encoding::Histogram), (1, Encoding::FloatHistogram)] {
        let series =
            block.select(&[], 0, i64::MAX).unwrap().into_iter().find(|s| s.labels == labels(n)).unwrap();
        assert!(series.chunks.iter().all(|c| c.encoding == kind));
        let got = series.read(i64::MIN, i64::MAX).unwrap();
        assert!((0..100).all(|i| same(&got, i, &want[n][i].1)));
    }
    shard.truncate(100_000).unwrap();
    want.iter_mut().for_each(|w| {
        w.drain(..100);
    });
    check(&shard, &want);
    shard.truncate(150_500).unwrap();
    want.iter_mut().for_each(|w| {
        w.drain(..51);
    });
    check(&shard, &want);
    drop(shard);
    let (mut shard, report) = open(dir.path());
    assert!(report.checkpoint_series == 2 && !report.lost_data(), "{report:?}");
    check(&shard, &want);
    let again = shard.append(&batch([entry(0, 199_000, int(199)), entry(0, 199_000, int(1))])).unwrap();
    assert_eq!(again.rejected, [(1, Reject::Duplicate)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any mixture of kinds in any batches: what was taken is there, before and after a restart.
    #[test]
    fn kinds_mix_freely(
        batches in proptest::collection::vec(
            proptest::collection::vec((0usize..3, 0u8..4, 0i64..3, 0i64..6), 1..12), 1..12),
        checkpoint in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut shard, _) = open(dir.path());
        let mut want: Vec<Vec<(i64, Value)>> = vec![Vec::new(); 3];
        let mut clock = 1000;
        for items in &batches {
            let mut entries = Vec::new();
            let mut expected = Vec::new();
            for &(n, kind, step, v) in items {
                clock += step;
                let v = value(kind, v);
                let reject = match want[n].last() {
                    Some((t, _)) if *t == clock => Some(()),
                    _ => None,
                };
                if reject.is_none() {
                    want[n].push((clock, v.clone()));
                }
                expected.push(reject.is_some());
                entries.push(entry(n, clock, v));
            }
            let got = shard.append(&batch(entries)).unwrap();
            for (i, _) in got.rejected {
                prop_assert!(expected[i], "sample {} was refused", i);
            }
        }
        check(&shard, &want);
        if checkpoint {
            shard.begin_checkpoint().unwrap().run().unwrap();
        }
        drop(shard);
        check(&open(dir.path()).0, &want);
    }
}
