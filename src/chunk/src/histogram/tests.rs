//! Golden bytes, chunk borders, recoding and hostile input of the histogram codecs.

use koios_model::histogram::{CUSTOM_SCHEMA, CounterReset, FloatHistogram, Span};
use koios_model::{Columns, is_stale};
use proptest::prelude::*;

use super::*;
use crate::{Chunk, Encoding, encode};

type Ints = HistogramAppender<IntCoder>;
type Floats = HistogramAppender<FloatCoder>;

/// A counter with these positive buckets from index `offset` on, and as many negative ones.
fn counter(offset: i32, counts: &[i64]) -> IntHistogram {
    let spans = vec![Span { offset, length: counts.len() as u32 }];
    let sum: i64 = counts.iter().sum();
    IntHistogram {
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 2,
        count: 2 * sum as u64 + 2,
        sum: sum as f64 * 1.5,
        positive: value::deltas(counts),
        positive_spans: spans.clone(),
        negative: value::deltas(counts),
        negative_spans: spans,
        ..IntHistogram::default()
    }
}

fn decode<C: Coder>(bytes: &[u8]) -> Vec<(i64, C::Value)> {
    HistogramIter::<C>::new(bytes).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Drawn by hand: count 2, no flags, threshold 0, schema 0, one span of 1 at 0, none, t 1, count 1, zero count 0, raw
/// sum, bucket 1; then dod of time, count and zero count, sum unchanged, bucket.
#[test]
fn golden_bytes() {
    let h = IntHistogram {
        count: 1,
        sum: 1.0,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive: vec![1],
        ..IntHistogram::default()
    };
    let mut a = Ints::start(None, 1, &h);
    assert!(a.append(2, &h).is_none());
    let first = "00000000".to_owned() + "0" + "10001" + "10001" + "0" + "0" + "10001" + "10001" + "0";
    let sum = format!("{:064b}", 1.0f64.to_bits());
    let bits = first + &sum + "10001" + "10001" + "0" + "0" + "0" + "0";
    let mut want = vec![0, 2, 0];
    let byte = |c: &[u8]| c.iter().fold(0u8, |b, &d| b << 1 | (d - b'0')) << (8 - c.len());
    want.extend(bits.as_bytes().chunks(8).map(byte));
    assert_eq!(a.to_bytes(), want);
    assert_eq!(decode::<IntCoder>(&want), [(1, h.clone()), (2, h)]);
}

#[test]
fn chunks_end_where_they_must_and_say_why() {
    let base = counter(0, &[2, 0, 5]);
    let next = |v: IntHistogram| {
        let mut a = Ints::start(None, 0, &base);
        a.append(10, &v).map(|n| n.header())
    };
    assert_eq!(next(counter(0, &[3, 0, 5])), None);
    assert_eq!(next(counter(0, &[1, 1, 9])), Some(CounterReset::Reset), "a bucket shrank");
    assert_eq!(next(counter(2, &[9, 9])), Some(CounterReset::Reset), "a full bucket vanished");
    assert_eq!(next(IntHistogram { schema: 0, ..base.clone() }), Some(CounterReset::NotReset));
    assert_eq!(next(IntHistogram { zero_count: 1, ..base.clone() }), Some(CounterReset::Reset));
    let gauge = IntHistogram { hint: CounterReset::Gauge, ..base.clone() };
    assert_eq!(next(gauge.clone()), Some(CounterReset::Gauge));
    assert_eq!(next(IntHistogram { hint: CounterReset::Reset, ..base.clone() }), Some(CounterReset::Reset));
    assert_eq!(next(IntHistogram::stale()), None);
    let mut stale = Ints::start(None, 0, &base);
    assert!(stale.append(1, &IntHistogram::stale()).is_none());
    assert!(stale.append(2, &IntHistogram::stale()).is_none());
    assert!(stale.append(3, &base).is_some(), "after the stale marker only stale markers");
    // A gauge may shrink; its chunk gets the union of buckets.
    let mut g = Ints::start(None, 0, &gauge);
    let lower = IntHistogram { hint: CounterReset::Gauge, ..counter(-3, &[1, 1]) };
    assert!(g.append(1, &lower).is_none());
    let back = decode::<IntCoder>(&g.to_bytes());
    assert_eq!(back[0].1.to_float(), gauge.to_float());
    assert_eq!(back[1].1.to_float(), lower.to_float());
    assert_eq!(back[1].1.positive_spans, [Span { offset: -3, length: 2 }, Span { offset: 1, length: 3 }]);
    assert_eq!(back[1].1.hint, CounterReset::Gauge);
}

#[test]
fn new_and_missing_buckets_are_recoded() {
    let mut a = Ints::start(None, 0, &counter(0, &[2, 0, 5]));
    let samples = [
        counter(0, &[2, 1, 5, 0, 1]),
        IntHistogram {
            positive_spans: vec![Span { offset: 0, length: 3 }, Span { offset: 1, length: 2 }],
            positive: value::deltas(&[2, 1, 6, 1, 1]),
            ..counter(0, &[3, 1, 6, 0, 2])
        },
        IntHistogram::stale(),
    ];
    for (i, h) in samples.iter().enumerate() {
        assert!(a.append(10 + i as i64, h).is_none());
    }
    let bytes = a.to_bytes();
    let back = decode::<IntCoder>(&bytes);
    assert_eq!(back.len(), 4);
    assert_eq!(back[1].1.to_float(), samples[0].to_float());
    assert_eq!(back[2].1.to_float(), samples[1].to_float());
    assert!(back[3].1.is_stale() && back[3].1.positive.is_empty());
    assert_eq!((back[0].1.hint, back[1].1.hint), (CounterReset::Unknown, CounterReset::NotReset));
    let mut resumed = Ints::resume(&bytes).unwrap();
    assert!(resumed.append(99, &IntHistogram::stale()).is_none());
    assert!(a.append(99, &IntHistogram::stale()).is_none());
    assert_eq!(resumed.to_bytes(), a.to_bytes());
}

#[test]
fn custom_bounds_and_columns() {
    let nhcb = |counts: &[i64]| IntHistogram {
        schema: CUSTOM_SCHEMA,
        custom_values: [0.1, 2.5, 1e9].into(),
        zero_threshold: 0.0,
        zero_count: 0,
        negative: vec![],
        negative_spans: vec![],
        ..counter(0, counts)
    };
    let mut a = Ints::start(None, 5, &nhcb(&[1, 2, 3]));
    assert!(a.append(6, &nhcb(&[1, 2, 4])).is_none());
    let other = IntHistogram { custom_values: [0.1, 2.5, 3.0].into(), ..nhcb(&[1, 2, 4]) };
    assert_eq!(a.clone().append(7, &other).map(|n| n.header()), Some(CounterReset::Reset));
    let chunk = Chunk { min_time: 5, max_time: 6, encoding: Encoding::Histogram, data: a.to_bytes().into() };
    let mut out = Columns::default();
    chunk.read(6, 6, &mut out).unwrap();
    assert_eq!((out.len(), out.times[0]), (1, 6));
    let h = out.histogram(0).unwrap();
    assert_eq!(&h.custom_values[..], [0.1, 2.5, 1e9]);
    assert_eq!(h.positive.counts, [1.0, 2.0, 4.0]);
}

fn any_float() -> impl Strategy<Value = FloatHistogram> {
    let counts = proptest::collection::vec(0i64..50, 0..6);
    (counts, -5i32..5, any::<bool>(), 0u8..20).prop_map(|(counts, offset, gauge, odd)| {
        let mut h = counter(offset, &counts).to_float();
        h.sum += 0.1;
        h.hint = if gauge { CounterReset::Gauge } else { CounterReset::Unknown };
        match odd {
            0 => FloatHistogram { sum: koios_model::stale_nan(), ..FloatHistogram::default() },
            1 => FloatHistogram { schema: 3, ..h },
            _ => h,
        }
    })
}

proptest! {
    #[test]
    fn columns_round_trip(items in proptest::collection::vec((any_float(), any::<bool>(), 1i64..99), 0..40)) {
        let mut columns = Columns::default();
        let mut t = -1000;
        for (h, histogram, step) in items {
            t += step;
            if histogram { columns.push_histogram(t, h.into()) } else { columns.push(t, step as f64) }
        }
        let chunks = encode(&columns, 7);
        let mut back = Columns::default();
        for c in &chunks {
            prop_assert!(c.sample_count().unwrap() <= 7);
            c.read(i64::MIN, i64::MAX, &mut back).unwrap();
        }
        prop_assert_eq!(&back.times, &columns.times);
        for i in 0..columns.len() {
            match (columns.histogram(i), back.histogram(i)) {
                (Some(a), Some(b)) if is_stale(a.sum) => prop_assert!(is_stale(b.sum)),
                (a, b) => prop_assert_eq!(a, b),
            }
        }
    }

    /// Whatever happens to the bytes, reading ends and answers what was sound.
    #[test]
    fn hostile_bytes_are_errors(
        items in proptest::collection::vec(any_float(), 1..20),
        flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in any::<u16>(),
    ) {
        let mut a = Floats::start(None, 0, &items[0]);
        for (i, h) in items.iter().enumerate().skip(1) {
            if let Some(next) = a.append(i as i64 * 10, h) {
                a = next;
            }
        }
        let mut bytes = a.to_bytes();
        for (at, with) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= with;
        }
        bytes.truncate(usize::from(cut) % (bytes.len() + 1));
        for encoding in [Encoding::Histogram, Encoding::FloatHistogram] {
            let mut out = Columns::default();
            let _ = read(encoding, &bytes, i64::MIN, i64::MAX, &mut out);
            prop_assert!(out.times.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
