//! Lenses, by hand and by chance.

use super::*;
use koios_chunk::{XorAppender, encode_xor, varint};
use koios_promql::{Plan, QueryParams, parse};
use proptest::prelude::*;

type Samples = Vec<(i64, f64)>;

fn xor(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut a = XorAppender::new();
    samples.iter().for_each(|(t, v)| a.append(*t, *v));
    a.into_bytes()
}

fn raw(samples: &[(i64, f64)], per_chunk: usize) -> Vec<Chunk> {
    let mut c = Columns::default();
    samples.iter().for_each(|(t, v)| c.push(*t, *v));
    encode_xor(&c, per_chunk)
}

/// A downsampled chunk of these aggregates.
fn coarse(bounds: (i64, i64), parts: [&[(i64, f64)]; 5]) -> Chunk {
    let mut data = Vec::new();
    for part in parts.map(xor) {
        varint::put_uvarint(&mut data, part.len() as u64);
        data.push(Encoding::Xor as u8);
        data.extend_from_slice(&part);
    }
    let encoding = Encoding::Aggregate;
    Chunk { min_time: bounds.0, max_time: bounds.1, encoding, data: data.into() }
}

fn samples(c: &Columns) -> Samples {
    c.times.iter().copied().zip(c.values.iter().copied()).collect()
}

fn lens(query: &str) -> Lens {
    let plan = Plan::new(&parse(query).unwrap(), &QueryParams::range(0, 1000, 10)).unwrap();
    Lens::of(&plan.selects()[0], (i64::MIN, i64::MAX), ["replica".to_owned()].into())
}

fn folded(replicas: &[&[(i64, f64)]], lens: &Lens) -> Samples {
    let columns = |r: &&[(i64, f64)]| {
        let mut c = Columns::default();
        r.iter().for_each(|(t, v)| c.push(*t, *v));
        c
    };
    samples(&fold(replicas.iter().map(columns).collect(), lens))
}

#[test]
fn the_function_around_a_selector_chooses_the_aggregate() {
    use Aggregate::{Count, Counter, Max, Min, Sum};
    for (query, reads, adjusted) in [
        ("x", Reads::Average, false),
        ("sum(x)", Reads::Average, false),
        ("sum_over_time(x[5m])", Reads::One(Sum), false),
        ("count by (a) (x)", Reads::One(Count), false),
        ("count_values(\"v\", x)", Reads::One(Count), false),
        ("min(x)", Reads::One(Min), false),
        ("max_over_time(x[5m])", Reads::One(Max), false),
        ("max(-(x))", Reads::One(Max), false),
        ("max(x + 1)", Reads::Average, false),
        ("max(rate(x[5m]))", Reads::One(Counter), true),
        ("max_over_time(x[5m:1m])", Reads::One(Max), false),
        ("resets(x[5m])", Reads::One(Counter), true),
        ("changes(x[5m])", Reads::Average, false),
        ("minute(x)", Reads::Average, false),
    ] {
        let l = lens(query);
        assert_eq!((l.reads, l.adjusted), (reads, adjusted), "{query}");
    }
}

#[test]
fn slopes_want_two_samples_and_lookback_grows_with_the_distance() {
    let of = |query: &str| {
        let plan = Plan::new(&parse(query).unwrap(), &QueryParams::range(0, 1000, 10)).unwrap();
        resolution_of(&plan.selects()[0], 3_600_000)
    };
    assert_eq!((of("rate(x[10m])"), of("max_over_time(x[10m])"), of("x")), (300_000, 3_600_000, 3_600_000));
    assert_eq!(of("deriv(x[1d])"), 3_600_000);
    let (minutes, hour) = (300_000, 3_600_000);
    for (lookback, max, want) in [
        (minutes, 0, minutes),
        (minutes, minutes, minutes),
        (minutes, minutes + 1, hour),
        (60_000, 1, 60_000),
        (60_000, 60_001, minutes),
        (2 * hour, hour, 2 * hour),
    ] {
        assert_eq!(lookback_of(lookback, max), want, "{lookback} {max}");
    }
}

#[test]
fn aggregates_are_read_beside_raw_chunks() {
    let part = coarse(
        (299, 599),
        [
            &[(299, 2.0), (599, 4.0)],
            &[(299, 6.0), (599, 2.0)],
            &[(299, 1.0), (599, -1.0)],
            &[(299, 5.0), (599, 9.0)],
            &[(10, 1.0), (299, 4.0), (599, 7.0), (599, 3.0)],
        ],
    );
    let chunks = [vec![part], raw(&[(590, 2.0), (610, 4.0), (620, 1.0)], 9)].concat();
    let read = |query: &str| samples(&lens(query).read(chunks.iter()).unwrap());
    assert_eq!(read("x"), [(299, 3.0), (599, 0.5), (610, 4.0), (620, 1.0)]);
    assert_eq!(read("max(x)"), [(299, 5.0), (599, 9.0), (610, 4.0), (620, 1.0)]);
    assert_eq!(read("count(x)")[..2], [(299, 2.0), (599, 4.0)]);
    // 1, 4 and 7; then it really stood at 3 and rose to 4, and fell to 1.
    assert_eq!(read("rate(x[5m])"), [(10, 1.0), (299, 4.0), (599, 7.0), (610, 8.0), (620, 9.0)]);
}

#[test]
fn counters_lose_their_resets_and_no_number_is_no_sample() {
    let chunks = raw(&[(1, 5.0), (2, 7.0), (3, f64::NAN), (4, 2.0), (5, 3.0)], 2);
    let got = samples(&lens("rate(x[5m])").read(chunks.iter()).unwrap());
    assert_eq!(got, [(1, 5.0), (2, 7.0), (4, 9.0), (5, 10.0)]);
}

#[test]
fn a_gap_is_filled_by_the_other_replica_and_nothing_comes_twice() {
    let plain = lens("x");
    let a: Samples = [0, 30, 60, 90, 240, 270, 300].map(|s| (s * 1000, 1.0)).to_vec();
    let b: Samples = (0..11).map(|n| ((n * 30 + 3) * 1000, 2.0)).collect();
    let got: Vec<(i64, f64)> = folded(&[&a, &b], &plain).iter().map(|(t, v)| (t / 1000, *v)).collect();
    // Two distances after the last sample of a, b goes on, and keeps going while a is never two distances ahead.
    let on_b = [153, 183, 213, 243, 273, 303].map(|t| (t, 2.0));
    assert_eq!(got, [&[(0, 1.0), (30, 1.0), (60, 1.0), (90, 1.0)][..], &on_b].concat());
    assert_eq!(folded(&[&a], &plain), a);
    assert_eq!(folded(&[&a, &[]], &plain), a);
}

#[test]
fn a_counter_does_not_fall_where_another_replica_goes_on() {
    let a = [(0, 100.0), (30_000, 110.0)];
    let b = [(3_000, 40.0), (33_000, 50.0), (123_000, 80.0), (153_000, 90.0)];
    let got = folded(&[&a, &b], &lens("rate(x[5m])"));
    assert_eq!(got, [(0, 100.0), (30_000, 110.0), (123_000, 110.0), (153_000, 120.0)]);
    assert_eq!(folded(&[&a, &b], &lens("x"))[2], (123_000, 80.0));
}

#[test]
fn replicas_are_told_apart_or_not() {
    let labels = Labels::from_pairs([("__name__", "m"), ("replica", "a")]);
    let one = lens("x");
    assert_eq!(one.shown(Slot::FOREIGN, labels.clone()).to_string(), "m");
    assert_eq!(one.shown(Slot(0), labels.clone()), labels, "a label of the series itself");
    let apart = Lens { apart: true, ..one };
    assert_eq!(apart.shown(Slot::FOREIGN, labels.clone()), labels);
    assert_eq!(
        apart.shown(Slot(1), Labels::from_pairs([("a", "1")])).to_string(),
        "{a=\"1\", replica=\"1\"}"
    );
}

#[test]
fn shards_part_the_series() {
    let series: Vec<Labels> =
        (0..50).map(|n| Labels::from_pairs([("a", n.to_string()), ("b", "x".to_owned())])).collect();
    for by in [true, false] {
        let shard = |index| SeriesShard { index, count: 3, by, labels: vec!["b".to_owned()] };
        for l in &series {
            assert_eq!((0..3).filter(|i| shard(*i).holds(l)).count(), 1);
        }
        let used = (0..3).filter(|i| series.iter().any(|l| shard(*i).holds(l))).count();
        assert_eq!(used, if by { 1 } else { 3 });
    }
}

proptest! {
    /// Equal replicas are the one that they are, however their chunks are cut.
    #[test]
    fn equal_replicas_are_one(
        steps in proptest::collection::vec((1i64..100_000, 0i64..9), 1..80),
        cuts in (1usize..20, 1usize..20),
        query in proptest::sample::select(vec!["x", "rate(x[5m])", "max(x)"]),
    ) {
        let mut t = 0;
        let all: Samples = steps.iter().map(|(d, v)| { t += d; (t, *v as f64) }).collect();
        let lens = lens(query);
        let alone = lens.read(raw(&all, 120).iter()).unwrap();
        let mut chunks = [raw(&all, cuts.0), raw(&all, cuts.1)].concat();
        chunks.sort_by_key(|c| (c.min_time, c.max_time));
        chunks.dedup();
        let both = lens.read_replicas(&chunks, None, false).unwrap();
        // The cuts may send each sample by another list, but never a sample that is not there.
        prop_assert!(both.times.iter().all(|t| alone.times.contains(t)));
        if cuts.0 == cuts.1 {
            prop_assert_eq!(samples(&both), samples(&alone));
        }
        prop_assert_eq!(samples(&fold(vec![alone.clone(), alone.clone(), alone.clone()], &lens)), samples(&alone));
    }

    /// Times ascend whatever is folded.
    #[test]
    fn time_ascends(
        replicas in proptest::collection::vec(proptest::collection::btree_map(0i64..500_000, -5i64..5, 0..40), 1..6),
        query in proptest::sample::select(vec!["x", "rate(x[5m])"]),
    ) {
        let replicas: Vec<Samples> =
            replicas.iter().map(|r| r.iter().map(|(t, v)| (*t, *v as f64)).collect()).collect();
        let slices: Vec<&[(i64, f64)]> = replicas.iter().map(Vec::as_slice).collect();
        let got = folded(&slices, &lens(query));
        prop_assert!(got.is_sorted_by(|a, b| a.0 < b.0));
        prop_assert_eq!(got.is_empty(), replicas.iter().all(Vec::is_empty));
    }
}

#[test]
fn very_many_replicas_are_folded_in_turns() {
    let replicas: Vec<Samples> = (0..250).map(|n| vec![(n, n as f64), (1_000_000 + n, 1.0)]).collect();
    let slices: Vec<&[(i64, f64)]> = replicas.iter().map(Vec::as_slice).collect();
    let got = folded(&slices, &lens("x"));
    assert_eq!(got[0], (0, 0.0));
}

#[test]
fn one_producer_is_read_as_it_would_read_itself() {
    let rate = lens("rate(x[5m])");
    let whole: Samples = (0..240).map(|k| (k * 1000, (k % 100) as f64)).collect();
    let of_block = raw(&whole[..120], 120);
    let read = |mut chunks: Vec<Chunk>| {
        chunks.sort_by_key(|c| c.min_time);
        samples(&rate.read_replicas(&chunks, None, true).unwrap())
    };
    assert_eq!(read(raw(&whole, 120)), whole, "its resets stay");
    let of_blocks = rate.read_replicas(&raw(&whole, 120), None, false).unwrap();
    assert!(of_blocks.values.is_sorted(), "and are taken out, as by Thanos, where only blocks speak");
    // A block, and a Prometheus that cut the first and the last chunk to what it was asked for.
    for cut in [raw(&whole[30..240], 90), raw(&whole[30..100], 120), raw(&whole[100..], 120)] {
        let until = cut.last().unwrap().max_time.max(119_000) as usize / 1000;
        assert_eq!(read([of_block.clone(), cut].concat()), whole[..=until]);
    }
    let later: Samples = whole.iter().map(|(t, v)| (t + 300, *v)).collect();
    let both = read([of_block.clone(), raw(&later, 120)].concat());
    assert!(both != whole && both.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "two replicas: {both:?}");
    let holes: Samples = whole[..120].iter().filter(|(t, _)| *t != 50_000).copied().collect();
    assert!(one_producer(&[of_block, raw(&holes, 120)].concat()).unwrap().is_none());
}
