//! Bytes of both versions, written out, and what they decode to.

mod support;

use koios_model::Labels;
use koios_model::metadata::MetricKind;
use koios_proto::{prometheus as v1, write_v2 as v2};
use koios_remote::{Limits, PushValue, Reason};
use prost::Message;
use support::{Row, owned, row, to_v1, to_v2};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

const V1: &str = concat!(
    "0a26", // timeseries, 38 bytes
    "0a0e",
    "0a085f5f6e616d655f5f",
    "12027570", // __name__="up"
    "0a06",
    "0a0161",
    "120131", // a="1"
    "120c",
    "09000000000000f83f",
    "10e807", // 1.5 at 1000
);

const V2: &str = concat!(
    "2200",                 // ""
    "22085f5f6e616d655f5f", // __name__
    "22027570",             // up
    "220161",
    "220131",       // a, 1
    "2a16",         // timeseries, 22 bytes
    "0a0401020304", // references
    "120e",
    "09000000000000f83f",
    "10e807",
    "1801", // 1.5 at 1000, started at 1
);

fn one() -> Vec<Row> {
    vec![Row {
        labels: owned(&[("__name__", "up"), ("a", "1")]),
        samples: vec![(1000, 1.5)],
        ..Row::default()
    }]
}

#[test]
fn the_bytes_are_these() {
    assert_eq!(hex(&to_v1(&one()).encode_to_vec()), V1);
    assert_eq!(hex(&to_v2(&one()).encode_to_vec()), V2);
}

#[test]
fn both_decode_to_the_same() {
    let l = Limits::default();
    let a = koios_remote::v1::decode(&to_v1(&one()).encode_to_vec(), &l).unwrap();
    let b = koios_remote::v2::decode(&to_v2(&one()).encode_to_vec(), &l).unwrap();
    assert_eq!(a, b);
    assert_eq!(a.batch.series[0].labels, Labels::from_pairs([("__name__", "up"), ("a", "1")]));
    assert_eq!((a.batch.samples[0].t, &a.batch.samples[0].v), (1000, &PushValue::Float(1.5)));
    assert_eq!((a.floats, a.faults.is_empty(), a.dropped_series), (1, true, 0));
}

#[test]
fn version_1_drops_bad_labels_quietly_and_version_2_says_so() {
    let l = Limits::default();
    let mut rows = vec![row("good", &[(1, 1.0)]), row("", &[(1, 1.0), (2, 2.0)])];
    rows.push(Row { labels: owned(&[("__name__", "x"), ("a", "1"), ("a", "2")]), ..rows[0].clone() });
    let a = koios_remote::v1::decode(&to_v1(&rows).encode_to_vec(), &l).unwrap();
    assert_eq!((a.batch.series.len(), a.batch.samples.len(), a.floats), (1, 1, 4));
    assert_eq!((a.dropped_series, a.faults.is_empty()), (2, true));
    assert!(a.dropped_first.unwrap().contains("no metric name"));
    let b = koios_remote::v2::decode(&to_v2(&rows).encode_to_vec(), &l).unwrap();
    assert_eq!(b.batch, a.batch);
    assert_eq!((b.dropped_series, b.faults.count(Reason::InvalidLabels)), (0, 3));
}

#[test]
fn a_series_without_samples() {
    let l = Limits::default();
    let rows = [row("none", &[]), row("some", &[(1, 1.0)])];
    let a = koios_remote::v1::decode(&to_v1(&rows).encode_to_vec(), &l).unwrap();
    assert_eq!((a.batch.series.len(), a.faults.is_empty()), (1, true));
    let b = koios_remote::v2::decode(&to_v2(&rows).encode_to_vec(), &l).unwrap();
    assert_eq!((b.batch, b.faults.count(Reason::EmptySeries)), (a.batch, 1));
}

#[test]
fn references_to_nowhere_cost_only_their_series() {
    let mut request = to_v2(&[row("a", &[(1, 1.0)]), row("b", &[(1, 1.0)]), row("c", &[(1, 1.0)])]);
    request.timeseries[0].labels_refs[1] = 99;
    request.timeseries[1].labels_refs.pop();
    let got = koios_remote::v2::decode(&request.encode_to_vec(), &Limits::default()).unwrap();
    assert_eq!((got.batch.series.len(), got.faults.count(Reason::InvalidLabels)), (1, 2));
    assert_eq!(got.batch.series[0].labels.metric_name(), "c");
}

#[test]
fn metadata_of_both() {
    let l = Limits::default();
    let mut one = to_v1(&[]);
    one.metadata = vec![v1::MetricMetadata {
        r#type: 1,
        metric_family_name: "a_total".to_owned(),
        help: "Help.".to_owned(),
        unit: "s".to_owned(),
    }];
    one.metadata.push(v1::MetricMetadata { help: "again".to_owned(), ..one.metadata[0].clone() });
    let got = koios_remote::v1::decode(&one.encode_to_vec(), &l).unwrap().batch.metadata;
    assert_eq!(got.len(), 1);
    let (name, m) = &got[0];
    assert_eq!(
        (name.as_str(), m.kind, m.help.as_str(), m.unit.as_str()),
        ("a_total", MetricKind::Counter, "Help.", "s")
    );

    let mut two = to_v2(&[row("h_bucket", &[(1, 1.0)]), row("h_sum", &[(1, 1.0)])]);
    two.symbols.push("Help.".to_owned());
    let help_ref = two.symbols.len() as u32 - 1;
    for s in &mut two.timeseries {
        s.metadata = Some(v2::Metadata { r#type: 3, help_ref, unit_ref: 0 });
    }
    let got = koios_remote::v2::decode(&two.encode_to_vec(), &l).unwrap().batch.metadata;
    assert_eq!(got.len(), 1, "one family");
    assert_eq!((got[0].0.as_str(), got[0].1.kind), ("h", MetricKind::Histogram));
}

#[test]
fn exemplars_that_do_not_fit_are_left_out() {
    let mut r = row("a", &[(1, 1.0)]);
    r.exemplars = vec![
        (owned(&[("trace", "x")]), 5, 0.5),
        (owned(&[("trace", &"y".repeat(200))]), 5, 0.5),
        (owned(&[("trace", &"z".repeat(2000))]), 5, 0.5),
    ];
    for decoded in [
        koios_remote::v1::decode(&to_v1(&[r.clone()]).encode_to_vec(), &Limits::default()).unwrap(),
        koios_remote::v2::decode(&to_v2(&[r.clone()]).encode_to_vec(), &Limits::default()).unwrap(),
    ] {
        assert_eq!((decoded.exemplars, decoded.batch.exemplars.len()), (3, 1));
        assert_eq!(decoded.batch.exemplars[0].exemplar.labels, Labels::from_pairs([("trace", "x")]));
        assert!(decoded.faults.is_empty());
    }
}
