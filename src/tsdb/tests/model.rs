//! A shard against a naive map: random batches, selections, restarts, checkpoints, cuts with truncation.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Model, batch, collect, everything, labels, new_entry, options};
use koios_block::{Block, BlockMetaExtras};
use koios_model::{BlockId, ManualClock, MatchType, Matcher, Slot};
use koios_tsdb::{Entry, Reject, SeriesKey, SeriesRef, Shard, cut_block};
use proptest::prelude::*;

const RANGE: i64 = 100_000;
const NOW: i64 = 1_000_000;

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(usize, i64, f64)>),
    Reopen,
    Checkpoint,
    CutAndTruncate(i64),
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![(0i64..50).prop_map(|i| i as f64), any::<u64>().prop_map(f64::from_bits), Just(0.25)]
}

fn op() -> impl Strategy<Value = Op> {
    let time = prop_oneof![4 => -2000i64..9000, 1 => -40_000i64..9000];
    let sample = (0usize..12, time, value());
    prop_oneof![
        12 => proptest::collection::vec(sample, 1..40).prop_map(Op::Append),
        1 => Just(Op::Reopen),
        1 => Just(Op::Checkpoint),
        2 => (0i64..120_000).prop_map(Op::CutAndTruncate),
    ]
}

/// What the rules say, written down a second time as plainly as possible.
#[derive(Default)]
struct Naive {
    head: Model,
    blocks: Model,
    max_time: Option<i64>,
    floor: i64,
    refs: BTreeMap<usize, SeriesRef>,
    window: i64,
}

impl Naive {
    fn late_floor(&self) -> i64 {
        if self.window == 0 { i64::MAX } else { self.max_time.map_or(i64::MIN, |m| m - self.window) }
    }

    fn append(&mut self, (floor, late): (i64, i64), n: usize, t: i64, v: f64) -> Option<Reject> {
        let series = self.head.entry(((n % 2) as u8, labels(n).to_string())).or_default();
        let last = series.iter().next_back().map(|(t, v)| (*t, *v));
        let reject = match last {
            _ if t < floor => Some(Reject::TooOld),
            _ if t > NOW + 600_000 => Some(Reject::TooFarInFuture),
            Some((lt, _)) if t < lt && self.window == 0 => Some(Reject::OutOfOrder),
            Some((lt, _)) if t < lt && t < late => Some(Reject::TooOld),
            Some((lt, _)) if t < lt && series.contains_key(&t) => return None,
            Some((lt, lv)) if t == lt && v.to_bits() != lv => Some(Reject::Duplicate),
            _ => None,
        };
        if reject.is_none() {
            series.insert(t, v.to_bits());
            self.max_time = self.max_time.max(Some(t));
        } else if series.is_empty() {
            self.head.remove(&((n % 2) as u8, labels(n).to_string()));
        }
        reject
    }

    fn all(&self) -> Model {
        let mut all = self.blocks.clone();
        for (k, s) in &self.head {
            all.entry(k.clone()).or_default().extend(s);
        }
        all
    }
}

fn append(shard: &mut Shard, naive: &mut Naive, base: i64, samples: &[(usize, i64, f64)]) {
    let late = naive.late_floor();
    let newest = naive.max_time.map_or(i64::MIN, |m| m - RANGE / 2).min(late);
    let floor = naive.floor.max(newest);
    let mut want = Vec::new();
    let mut entries = Vec::new();
    for (i, &(n, dt, v)) in samples.iter().enumerate() {
        let t = base + dt;
        let reject = naive.append((floor, late), n, t, v);
        want.extend(reject.map(|r| (i, r)));
        // By reference where one is known to be alive, else by labels.
        entries.push(match naive.refs.get(&n) {
            Some(r) if i % 2 == 0 => Entry { series: SeriesKey::Ref(*r), t, v: v.into() },
            _ => new_entry(n, t, v),
        });
    }
    let got = shard.append(&batch(entries)).unwrap();
    assert_eq!(got.rejected, want);
    for (&(n, ..), r) in samples.iter().zip(&got.refs).filter(|(_, r)| **r != SeriesRef::NONE) {
        naive.refs.insert(n, *r);
    }
}

fn check(shard: &Shard, naive: &Naive) {
    let view = shard.view();
    assert_eq!(everything(&view), naive.head);
    let stats = view.stats();
    assert_eq!(stats.series, naive.head.len() as u64);
    let times = || naive.head.values().flat_map(|s| s.keys().copied());
    assert_eq!(stats.min_time, times().min().unwrap_or(i64::MAX));
    let m = Matcher::new(MatchType::Regex, "job", "job1|job2").unwrap();
    let some = collect(view.select(std::slice::from_ref(&m), 20_000, 60_000).unwrap(), 20_000, 60_000);
    let mut want = naive.head.clone();
    want.retain(|(_, l), s| {
        s.retain(|t, _| (20_000..=60_000).contains(t));
        !s.is_empty() && !l.contains("job0")
    });
    assert_eq!(some, want);
}

fn cut_and_truncate(shard: &mut Shard, naive: &mut Naive, dir: &std::path::Path, before: i64, seq: u64) {
    shard.refuse_before(before);
    let mut served = Model::new();
    for slot in [Slot(0), Slot(1)] {
        let id = BlockId::from_parts(seq, u128::from(slot.0));
        let meta =
            cut_block(&[shard.view()], slot, i64::MIN, before, dir, id, BlockMetaExtras::default()).unwrap();
        let Some(meta) = meta else { continue };
        let block = Block::open(&dir.join(meta.ulid.to_string())).unwrap().with_slot(slot);
        let report = block.verify().unwrap();
        assert_eq!(report.samples, meta.stats.num_samples);
        served.extend(collect(block.select(&[], i64::MIN, i64::MAX).unwrap(), i64::MIN, i64::MAX));
    }
    let mut want = Model::new();
    for (k, s) in &mut naive.head {
        let tail = s.split_off(&before);
        let cut = std::mem::replace(s, tail);
        if !cut.is_empty() {
            want.insert(k.clone(), cut);
        }
    }
    assert_eq!(served, want);
    naive.head.retain(|_, s| !s.is_empty());
    naive.refs.retain(|n, _| naive.head.contains_key(&((n % 2) as u8, labels(*n).to_string())));
    for (k, s) in want {
        naive.blocks.entry(k).or_default().extend(s);
    }
    naive.floor = naive.floor.max(before);
    shard.truncate(before).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]
    #[test]
    fn a_shard_is_a_map(
        ops in proptest::collection::vec(op(), 1..25),
        segment_kib in 1u64..5,
        window in prop_oneof![Just(0i64), Just(5000), Just(30_000), Just(200_000)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let blocks = tempfile::tempdir().unwrap();
        let mut opts = options(dir.path());
        opts.wal.segment_bytes = segment_kib * 1024;
        opts.out_of_order_window_ms = window;
        let clock = ManualClock::at(NOW);
        let (mut shard, _) = Shard::open(opts.clone(), clock.clone()).unwrap();
        let mut naive = Naive { floor: i64::MIN, window, ..Naive::default() };
        let mut total = 0;
        for (i, op) in ops.iter().enumerate() {
            match op {
                Op::Append(samples) => append(&mut shard, &mut naive, i as i64 * 6000, samples),
                Op::Reopen => {
                    drop(shard);
                    let (again, report) = Shard::open(opts.clone(), clock.clone()).unwrap();
                    prop_assert!(!report.lost_data() && report.torn_bytes == 0, "{:?}", report);
                    shard = again;
                    // Memory starts with what is left: the newest sample may have been truncated away.
                    let newest = naive.head.values().filter_map(|s| s.keys().next_back()).max();
                    naive.max_time = newest.copied();
                    naive.refs.clear();
                }
                Op::Checkpoint => {
                    shard.begin_checkpoint().unwrap().run().unwrap();
                }
                Op::CutAndTruncate(before) => {
                    cut_and_truncate(&mut shard, &mut naive, blocks.path(), *before, i as u64);
                }
            }
            check(&shard, &naive);
            total += naive.all().values().map(BTreeMap::len).sum::<usize>();
        }
        prop_assert!(total > 0 || !ops.iter().any(|o| matches!(o, Op::Append(_))) || naive.floor > i64::MIN);
    }
}

#[test]
fn shards_merge_into_one_block() {
    let dir = tempfile::tempdir().unwrap();
    let mut shards: Vec<Shard> = (0..3).map(|i| common::open(&dir.path().join(i.to_string())).0).collect();
    for step in 0..30i64 {
        for n in 0..60 {
            let shard = &mut shards[n % 3];
            shard.append(&batch([new_entry(n, step * 1000, n as f64 + step as f64)])).unwrap();
        }
    }
    // The same series in two shards, as after a change of their number: times of both, the first one wins.
    shards[1].append(&batch([new_entry(0, 29_000, -1.0), new_entry(0, 29_500, -2.0)])).unwrap();
    let views: Vec<_> = shards.iter().map(Shard::view).collect();
    let out = tempfile::tempdir().unwrap();
    let id = BlockId::from_parts(9, 9);
    let meta =
        cut_block(&views, Slot(0), 0, 29_800, out.path(), id, BlockMetaExtras::default()).unwrap().unwrap();
    assert_eq!((meta.min_time, meta.max_time, meta.stats.num_series), (0, 29_800, 30));
    assert_eq!(meta.stats.num_samples, 30 * 30 + 1);
    let block = Block::open(&out.path().join(id.to_string())).unwrap();
    block.verify().unwrap();
    let zero = block.select(&[Matcher::equal("instance", "i000")], 0, i64::MAX).unwrap();
    let columns = zero[0].read(28_000, i64::MAX).unwrap();
    assert_eq!((columns.times, columns.values), (vec![28_000, 29_000, 29_500], vec![28.0, 29.0, -2.0]));
    let none = cut_block(
        &views,
        Slot(7),
        0,
        29_800,
        out.path(),
        BlockId::from_parts(1, 1),
        BlockMetaExtras::default(),
    );
    assert!(none.unwrap().is_none());
    let empty = cut_block(
        &views,
        Slot(0),
        500_000,
        600_000,
        out.path(),
        BlockId::from_parts(2, 1),
        BlockMetaExtras::default(),
    );
    assert!(empty.unwrap().is_none());
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn limits_and_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let mut opts = options(dir.path());
    opts.series_max = 2;
    let clock = ManualClock::at(NOW);
    let (mut shard, _) = Shard::open(opts, clock.clone()).unwrap();
    let got = shard.append(&batch((0..3).map(|n| new_entry(n, NOW, 1.0)))).unwrap();
    assert_eq!(got.rejected, [(2, Reject::SeriesLimit)]);
    assert_eq!(got.refs[2], SeriesRef::NONE);
    let far =
        shard.append(&batch([new_entry(0, NOW + 600_001, 1.0), new_entry(5, NOW - RANGE, 1.0)])).unwrap();
    assert_eq!(far.rejected, [(0, Reject::TooFarInFuture), (1, Reject::TooOld)]);
    let by_ref = |r, t, v| Entry { series: SeriesKey::Ref(r), t, v: f64::into(v) };
    let same = shard.append(&batch([by_ref(got.refs[0], NOW, 1.0), by_ref(got.refs[1], NOW, 2.0)])).unwrap();
    assert_eq!(same.rejected, [(1, Reject::Duplicate)]);
    assert_eq!(same.lsn, got.lsn, "nothing was written for a repeated sample");

    shard.truncate(NOW + 1).unwrap();
    let gone = shard.append(&batch([by_ref(got.refs[0], NOW + 5, 1.0)])).unwrap();
    assert_eq!(gone.rejected, [(0, Reject::UnknownRef)]);
    let old = shard.append(&batch([new_entry(0, NOW, 1.0)])).unwrap();
    assert_eq!(old.rejected, [(0, Reject::TooOld)]);
    let back = shard.append(&batch([new_entry(0, NOW + 5, 1.0)])).unwrap();
    assert!(back.rejected.is_empty() && back.refs[0] > got.refs[1], "references are never used again");
}

#[test]
fn names_values_and_cardinality() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = common::open(dir.path());
    shard.append(&batch((0..10).map(|n| new_entry(n, 1, 1.0)))).unwrap();
    let view: Arc<_> = shard.view();
    assert_eq!(view.label_names(&[]), ["__name__", "instance", "job"]);
    assert_eq!(view.label_names(&[Matcher::equal("job", "nope")]), Vec::<String>::new());
    assert_eq!(
        view.label_values("instance", &[Matcher::equal("job", "job0")]),
        ["i000", "i003", "i006", "i009"]
    );
    assert_eq!(view.label_values("job", &[]), ["job0", "job1", "job2"]);
    assert_eq!(shard.slots_present(), [Slot(0), Slot(1)]);
    let top = view.cardinality(2);
    assert_eq!(top.series_by_metric, [("metric".to_owned(), 10)]);
    assert_eq!(top.series_by_pair, [("__name__=metric".to_owned(), 10), ("job=job0".to_owned(), 4)]);
    assert_eq!(top.values_by_label, [("instance".to_owned(), 10), ("job".to_owned(), 3)]);
    assert_eq!(top.bytes_by_label[0], ("instance".to_owned(), 40));
    assert_eq!((view.stats().label_pairs, view.stats().samples_appended, view.stats().chunks), (14, 10, 10));
    assert_eq!(view.series(&[Matcher::equal("instance", "i004")], 0, 9).unwrap(), [(Slot(0), labels(4))]);
}
