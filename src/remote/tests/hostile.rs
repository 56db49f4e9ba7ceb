//! Bytes from anywhere: no panic, no memory beyond what the limits say, and what is valid comes back as it was.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use koios_model::Labels;
use koios_remote::negotiate::Message as Kind;
use koios_remote::receiver::decode;
use koios_remote::{DecodeError, Limits, PushValue};
use proptest::prelude::*;
use prost::Message;
use support::{Row, row, to_v1, to_v2};

const SMALL: Limits = Limits {
    body_bytes: 1 << 16,
    decoded_bytes: 1 << 16,
    bytes_in_flight: 1 << 20,
    samples: 500,
    exemplars: 50,
    families: 50,
    symbols: 1000,
    label_bytes: 1 << 16,
    histogram_parts: 1000,
    histogram_bytes: 4096,
    labels: 20,
    name_bytes: 100,
    value_bytes: 1000,
    help_bytes: 1000,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{0,8}", "\\PC{0,12}", Just("__name__".to_owned()), Just("x".repeat(150))]
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let pairs = || prop::collection::vec((text(), text()), 0..6);
    let samples = prop::collection::vec((any::<i64>(), any::<f64>()), 0..5);
    let exemplars = prop::collection::vec((pairs(), any::<i64>(), any::<f64>()), 0..2);
    let row = (pairs(), samples, exemplars).prop_map(|(mut labels, samples, exemplars)| {
        if labels.len() > 1 {
            labels.push(("__name__".to_owned(), "m".to_owned()));
        }
        Row { labels, samples, histograms: Vec::new(), exemplars }
    });
    prop::collection::vec(row, 0..8)
}

/// Any value; -0 is not sent as such by generated encoders.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>().prop_map(|v| v + 0.0), Just(koios_model::stale_nan()), Just(f64::NAN)]
}

/// Series that have nothing wrong with them.
fn sound_rows() -> impl Strategy<Value = Vec<Row>> {
    let labels = prop::collection::btree_map("[a-zé]{1,8}", "\\PC{1,12}", 0..6);
    let samples = prop::collection::vec((any::<i64>(), value()), 1..5);
    let row = (labels, samples).prop_map(|(labels, samples)| {
        let mut labels: Vec<(String, String)> = labels.into_iter().collect();
        labels.push(("__name__".to_owned(), "m".to_owned()));
        Row { labels, samples, ..Row::default() }
    });
    prop::collection::vec(row, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_is_what_is_pushed(rows in sound_rows()) {
        for (kind, bytes) in [(Kind::V1, to_v1(&rows).encode_to_vec()), (Kind::V2, to_v2(&rows).encode_to_vec())] {
            let got = decode(kind, &bytes, &Limits::default()).unwrap();
            prop_assert!(got.faults.is_empty() && got.dropped_series == 0);
            prop_assert_eq!(got.batch.series.len(), rows.len());
            for (series, row) in got.batch.series.iter().zip(&rows) {
                prop_assert_eq!(&series.labels, &Labels::from_pairs(row.labels.iter().map(|(n, v)| (n, v))));
                let range = series.samples.start as usize..series.samples.end as usize;
                let samples: Vec<(i64, PushValue)> =
                    got.batch.samples[range].iter().map(|s| (s.t, s.v.clone())).collect();
                let want: Vec<_> = row.samples.iter().map(|(t, v)| (*t, PushValue::Float(*v))).collect();
                prop_assert_eq!(samples, want);
            }
        }
    }

    #[test]
    fn nothing_is_lost_without_a_word(rows in rows()) {
        let sent: u64 = rows.iter().map(|r| r.samples.len() as u64).sum();
        let two = decode(Kind::V2, &to_v2(&rows).encode_to_vec(), &SMALL).unwrap();
        let empty = two.faults.count(koios_remote::Reason::EmptySeries);
        let bad_and_empty = rows.iter().filter(|r| r.samples.is_empty()).count() as u64 - empty;
        let accounted = two.batch.samples.len() as u64 + two.faults.total() - empty;
        prop_assert!((sent..=sent + bad_and_empty).contains(&accounted), "{sent} {accounted}");
        let one = decode(Kind::V1, &to_v1(&rows).encode_to_vec(), &SMALL).unwrap();
        prop_assert_eq!(&one.batch.samples, &two.batch.samples);
        prop_assert_eq!(one.floats, sent);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for kind in Kind::ALL {
            let _ = bounded(kind, &bytes);
        }
    }

    #[test]
    fn damaged_requests_do_no_harm(
        rows in rows(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for (kind, mut bytes) in [(Kind::V1, to_v1(&rows).encode_to_vec()), (Kind::V2, to_v2(&rows).encode_to_vec())] {
            if bytes.is_empty() {
                continue;
            }
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = bounded(kind, &bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = bounded(kind, &bytes);
        }
    }
}

#[test]
fn small_bytes_do_not_become_much_memory() {
    // Empty messages, two bytes each.
    let samples: Vec<u8> = [[0x12, 0]; 30_000].concat();
    for (kind, tag) in [(Kind::V1, 0x0a), (Kind::V2, 0x2a)] {
        let mut body = vec![tag];
        prost::encoding::encode_varint(samples.len() as u64, &mut body);
        body.extend(&samples);
        assert_eq!(bounded(kind, &body), Err(DecodeError::TooMuch { what: "samples", max: SMALL.samples }));
        let series: Vec<u8> = [[tag, 0]; 30_000].concat();
        assert!(bounded(kind, &series).unwrap().batch.is_empty());
    }
    // One long symbol, named over and over.
    let mut request = to_v2(&[row("m", &[(1, 1.0)])]);
    request.symbols.push("v".repeat(900));
    let long = request.symbols.len() as u32 - 1;
    request.timeseries[0].labels_refs[3] = long;
    request.timeseries = vec![request.timeseries[0].clone(); 400];
    let body = request.encode_to_vec();
    assert!(
        matches!(bounded(Kind::V2, &body), Err(DecodeError::TooMuch { max, .. }) if max == SMALL.label_bytes)
    );
    let symbols: Vec<u8> = [[0x22, 0]; 30_000].concat();
    assert_eq!(
        bounded(Kind::V2, &symbols),
        Err(DecodeError::TooMuch { what: "symbols", max: SMALL.symbols })
    );
}

/// Decodes, and fails when more memory was taken than the limits explain.
fn bounded(kind: Kind, bytes: &[u8]) -> Result<koios_remote::Decoded, DecodeError> {
    TAKEN.with(|t| t.set(0));
    let decoded = decode(kind, bytes, &SMALL);
    let taken = TAKEN.with(Cell::get);
    // Vectors grow by doubling, and what they leave behind is counted too.
    let most =
        64 * 1024 + 40 * bytes.len() + 4 * (SMALL.samples * 24 + SMALL.symbols * 16 + SMALL.label_bytes);
    assert!(taken <= most, "{taken} bytes taken for a request of {} bytes", bytes.len());
    decoded
}

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread takes.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(unsafe_code)] // an allocator cannot be written without; it hands everything on to the system's
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = TAKEN.try_with(|t| t.set(t.get() + layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        unsafe { System.dealloc(p, layout) }
    }
}
