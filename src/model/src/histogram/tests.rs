//! Native histograms: arithmetic, merging and bounds against worked examples.

use super::*;

fn exponential(schema: i32, offset: i32, counts: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema,
        count: counts.iter().sum(),
        sum: 1.0,
        positive: Buckets {
            spans: vec![Span { offset, length: counts.len() as u32 }],
            counts: counts.to_vec(),
        },
        ..FloatHistogram::default()
    }
}

fn custom(bounds: &[f64], counts: &[f64]) -> FloatHistogram {
    FloatHistogram { custom_values: bounds.into(), ..exponential(CUSTOM_SCHEMA, 0, counts) }
}

#[test]
fn bounds_are_powers() {
    assert_eq!(exponential_bound(0, 0), 1.0);
    assert_eq!(exponential_bound(3, 0), 8.0);
    assert_eq!(exponential_bound(-1, -1), 0.25);
    // One ulp below the nearest double, as Go has it.
    let root = f64::from_bits(std::f64::consts::SQRT_2.to_bits() - 1);
    assert_eq!(exponential_bound(1, 1), root);
    assert_eq!(exponential_bound(1024, 0), f64::MAX);
    assert_eq!(exponential_bound(i32::MIN, 8), 0.0);
    assert_eq!(exponential_bound(i32::MAX, 8), f64::INFINITY);
    assert_eq!(go_exp2(0.5), root);
    assert_eq!(go_log2(8.0), 3.0);
}

#[test]
fn adds_at_the_coarser_schema() {
    let mut a = exponential(0, 1, &[2.0, 2.0]);
    let m = a.add(&exponential(-1, 1, &[1.0])).unwrap();
    assert_eq!(a.schema, -1);
    assert_eq!(a.positive.indexed(), vec![(1, 5.0)]);
    assert_eq!((a.count, a.sum), (5.0, 2.0));
    assert_eq!(m, Merged::default());
}

#[test]
fn widens_the_zero_bucket() {
    let mut a = exponential(0, 0, &[1.0, 2.0]);
    let b = FloatHistogram { zero_threshold: 1.5, zero_count: 4.0, count: 4.0, ..FloatHistogram::default() };
    a.add(&b).unwrap();
    assert_eq!((a.zero_threshold, a.zero_count), (2.0, 7.0));
    assert!(a.positive.is_empty());
    let mut s = HistogramSum::new(&exponential(0, 0, &[1.0, 2.0]));
    s.add(&b, 1.0).unwrap();
    assert_eq!(s.finish().zero_count, 7.0);
}

#[test]
fn custom_bounds_meet_at_the_common_ones() {
    let mut a = custom(&[1.0, 2.0, 3.0], &[1.0, 1.0, 1.0, 1.0]);
    let m = a.add(&custom(&[2.0, 4.0], &[5.0, 6.0, 7.0])).unwrap();
    assert!(m.bounds_reconciled);
    assert_eq!(&*a.custom_values, &[2.0]);
    assert_eq!(a.positive.indexed(), vec![(0, 7.0), (1, 15.0)]);
    assert_eq!(a.add(&exponential(0, 0, &[1.0])), Err(Incompatible));
}

#[test]
fn detects_resets() {
    let a = exponential(0, 0, &[1.0, 2.0]);
    assert!(!exponential(0, 0, &[1.0, 2.0, 1.0]).detect_reset(&a));
    assert!(exponential(0, 0, &[0.0, 5.0]).detect_reset(&a));
    assert!(exponential(1, 0, &[5.0, 5.0, 5.0]).detect_reset(&a));
    let hinted = FloatHistogram { hint: CounterReset::NotReset, ..exponential(0, 0, &[0.0]) };
    assert!(!hinted.detect_reset(&a));
    let c = custom(&[5.0], &[1.0]);
    assert!(!custom(&[5.0, 10.0], &[1.0]).detect_reset(&c));
    assert!(custom(&[5.0, 10.0], &[0.0, 1.0]).detect_reset(&c));
}

#[test]
fn hints_combine() {
    let with = |hint| FloatHistogram { hint, ..FloatHistogram::default() };
    let mut a = with(CounterReset::Reset);
    assert!(a.add(&with(CounterReset::NotReset)).unwrap().reset_collision);
    assert_eq!(a.hint, CounterReset::Unknown);
    let mut g = with(CounterReset::NotReset);
    g.add(&with(CounterReset::Gauge)).unwrap();
    assert_eq!(g.hint, CounterReset::Gauge);
}

#[test]
fn sums_keep_small_parts() {
    let with = |sum| FloatHistogram { sum, count: 1.0, ..FloatHistogram::default() };
    let mut s = HistogramSum::new(&with(1.0));
    for v in [1e100, 1.0, -1e100] {
        s.add(&with(v), 1.0).unwrap();
    }
    assert_eq!(s.finish().sum, 2.0);
}

#[test]
fn prints_and_compares_content() {
    let mut h = exponential(0, 0, &[1.0, 0.0, 2.0]);
    assert_eq!(h.to_string(), "{count:3, sum:1, (0.5,1]:1, (2,4]:2}");
    let before = h.clone();
    h.compact();
    assert_eq!(h.positive.spans.len(), 2);
    assert_eq!(h, before);
    assert!(before.validate().is_ok());
    h.positive.counts.push(1.0);
    assert!(h.validate().is_err());
    assert_eq!(h.positive.indexed().len(), 2);
}
