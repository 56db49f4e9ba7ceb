//! Histograms that are taken and that are not.

use koios_proto::prometheus as pb;
use prost::Message;

use super::*;

fn sane() -> pb::Histogram {
    pb::Histogram {
        count: Some(pb::histogram::Count::CountInt(9)),
        sum: 12.5,
        schema: 3,
        zero_threshold: 0.001,
        zero_count: Some(pb::histogram::ZeroCount::ZeroCountInt(1)),
        negative_spans: vec![pb::BucketSpan { offset: -2, length: 1 }],
        negative_deltas: vec![2],
        positive_spans: vec![
            pb::BucketSpan { offset: 0, length: 2 },
            pb::BucketSpan { offset: 3, length: 1 },
        ],
        positive_deltas: vec![1, 2, -1],
        reset_hint: pb::histogram::ResetHint::No as i32,
        timestamp: 77,
        ..pb::Histogram::default()
    }
}

fn custom() -> pb::Histogram {
    pb::Histogram {
        count: Some(pb::histogram::Count::CountFloat(3.5)),
        sum: 1.0,
        schema: CUSTOM_SCHEMA,
        positive_spans: vec![pb::BucketSpan { offset: 0, length: 3 }],
        positive_counts: vec![1.0, 2.0, 0.5],
        custom_values: vec![0.5, 1.0],
        timestamp: 78,
        ..pb::Histogram::default()
    }
}

fn run(h: &pb::Histogram) -> Result<PushSample, String> {
    match read(&h.encode_to_vec(), &mut 1000).unwrap() {
        Read::Good(sample) => Ok(sample),
        Read::Bad(t, why) => {
            assert_eq!(t, h.timestamp);
            Err(why)
        }
        Read::Budget => panic!("not that many"),
    }
}

#[test]
fn both_kinds_are_taken_whole() {
    let got = run(&sane()).unwrap();
    let PushValue::Histogram(h) = &got.v else { panic!("{got:?}") };
    assert_eq!((got.t, h.count, h.zero_count, h.sum, h.schema), (77, 9, 1, 12.5, 3));
    assert_eq!(
        (h.hint, h.positive.as_slice(), h.negative.as_slice()),
        (CounterReset::NotReset, &[1, 2, -1][..], &[2][..])
    );
    assert_eq!(h.positive_spans[1], Span { offset: 3, length: 1 });
    let got = run(&custom()).unwrap();
    let PushValue::FloatHistogram(h) = &got.v else { panic!("{got:?}") };
    assert_eq!((got.t, h.count, &h.custom_values[..]), (78, 3.5, &[0.5, 1.0][..]));
    assert_eq!(h.positive.counts, [1.0, 2.0, 0.5]);
}

#[test]
fn stale_markers_need_nothing_else() {
    let stale = koios_model::stale_nan();
    let h = pb::Histogram { sum: stale, schema: 99, ..sane() };
    assert_eq!(run(&h).unwrap().v, PushValue::Histogram(Arc::new(IntHistogram::stale())));
    let got = run(&pb::Histogram { sum: stale, ..custom() }).unwrap();
    assert!(matches!(got.v, PushValue::FloatHistogram(h) if h.is_stale() && h.positive.is_empty()));
}

#[test]
fn contradictions_are_named() {
    let span = |offset, length| pb::BucketSpan { offset, length };
    type Change = fn(&mut pb::Histogram);
    let int: [(&str, Change); 9] = [
        ("count says 10", |h| h.count = Some(pb::histogram::Count::CountInt(10))),
        ("invalid schema 9", |h| h.schema = 9),
        ("spans need 2 buckets, have 1", |h| h.negative_spans[0].length = 2),
        ("spans need 4294967296 buckets", |h| h.positive_spans[0].length = u32::MAX),
        ("negative offset after the first", |h| h.positive_spans[1].offset = -1),
        ("count is negative", |h| h.positive_deltas[1] = -5),
        ("buckets of float counts", |h| h.positive_counts = vec![1.0]),
        ("custom bounds", |h| h.custom_values = vec![1.0]),
        ("beyond 32 bits", |h| h.negative_spans[0].offset = i32::MAX),
    ];
    for (word, change) in int {
        let mut h = sane();
        change(&mut h);
        let why = run(&h).unwrap_err();
        assert!(why.contains(word), "{word}: {why}");
    }
    let float: [(&str, Change); 7] = [
        ("beyond the 2 custom bounds", |h| {
            (h.positive_spans[0].length, h.positive_counts) = (4, vec![1.0; 4])
        }),
        ("increasing order", |h| h.custom_values = vec![1.0, 0.5]),
        ("below +Inf", |h| h.custom_values = vec![1.0, f64::INFINITY]),
        ("must be numbers", |h| h.custom_values = vec![0.5, f64::NAN]),
        ("is negative", |h| h.positive_counts[0] = -1.0),
        ("zero bucket", |h| h.zero_threshold = 1.0),
        ("buckets of integer counts", |h| h.positive_deltas = vec![1]),
    ];
    for (word, change) in float {
        let mut h = custom();
        change(&mut h);
        let why = run(&h).unwrap_err();
        assert!(why.contains(word), "{word}: {why}");
    }
    let mut h = custom();
    h.positive_spans = vec![span(-1, 3)];
    assert!(run(&h).unwrap_err().contains("custom bounds"));
    // NaN observations are in no bucket.
    let nan = pb::Histogram { sum: f64::NAN, count: Some(pb::histogram::Count::CountInt(10)), ..sane() };
    assert!(run(&nan).is_ok());
}

#[test]
fn lists_are_paid_for() {
    let mut parts = 9;
    assert!(matches!(read(&sane().encode_to_vec(), &mut parts), Ok(Read::Good(_))));
    assert_eq!(parts, 2, "3 spans and 4 buckets");
    assert!(matches!(read(&sane().encode_to_vec(), &mut parts), Ok(Read::Budget)));
}
