//! Whole requests through the receiver, with a port that says what a test wants.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use koios_remote::answer::Stored;
use koios_remote::counters::Outcome;
use koios_remote::negotiate::Said;
use koios_remote::{
    Answer, Limits, Message as Kind, PushBatch, PushError, PushOutcome, PushPort, Reason, Receiver,
};
use prost::Message;
use support::{Row, owned, row, to_v1, to_v2};

/// Says the same each time.
struct Says(Result<PushOutcome, PushError>);

#[async_trait::async_trait]
impl PushPort for Says {
    async fn push(&self, _: Arc<PushBatch>) -> Result<PushOutcome, PushError> {
        self.0.clone()
    }
}

fn receiver(says: Result<PushOutcome, PushError>, limits: Limits) -> Receiver {
    Receiver::new(Arc::new(Says(says)), limits, Kind::ALL.to_vec())
}

fn said(kind: Kind) -> Said<'static> {
    let content_type = match kind {
        Kind::V1 => "application/x-protobuf",
        Kind::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    };
    Said { content_type: Some(content_type), content_encoding: Some("snappy"), vm_version: None }
}

fn send(r: &Receiver, said: Said<'_>, body: &[u8]) -> Answer {
    let mut intake = match r.begin(said) {
        Ok(intake) => intake,
        Err(answer) => return answer,
    };
    for piece in body.chunks(7) {
        if let Err(answer) = r.collect(&mut intake, piece) {
            return answer;
        }
    }
    match r.open(intake) {
        Ok(opened) => block_on(r.store(opened)),
        Err(answer) => answer,
    }
}

fn packed(kind: Kind, rows: &[Row]) -> Vec<u8> {
    let body = match kind {
        Kind::V1 => to_v1(rows).encode_to_vec(),
        Kind::V2 => to_v2(rows).encode_to_vec(),
    };
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}

#[test]
fn good_samples_count_and_bad_ones_are_named() {
    let rejected = vec![(1, Reason::Duplicate), (2, Reason::TooOld)];
    let r = receiver(Ok(PushOutcome { rejected, exemplars_rejected: 0 }), Limits::default());
    let rows = [row("a", &[(1, 1.0), (2, 1.0)]), row("b", &[(60_000, 1.0)])];
    for kind in Kind::ALL {
        let a = send(&r, said(kind), &packed(kind, &rows));
        assert_eq!(a.status, 400);
        assert!(
            a.body.starts_with("2 refused, 1 stored: 1 duplicate sample for timestamp, 1 too old sample. "),
            "{}",
            a.body
        );
        assert!(a.body.contains("too old sample: b{job=\"j\"} at 1970-01-01T00:01:00"), "{}", a.body);
        let stored = Stored { samples: 1, histograms: 0, exemplars: 0 };
        assert_eq!(a.stored, (kind == Kind::V2).then_some(stored));
        assert_eq!(r.counters().requests(kind, Outcome::Refused), 1);
    }
    assert_eq!((r.counters().rejected(Reason::TooOld), r.bytes_in_flight()), (2, 0));
}

#[test]
fn what_can_be_sent_again_says_so() {
    let wait = Duration::from_secs(3);
    let why = || "quorum lost".to_owned();
    let r = receiver(Err(PushError::Unavailable { why: why(), retry_after: wait }), Limits::default());
    let a = send(&r, said(Kind::V2), &packed(Kind::V2, &[row("a", &[(1, 1.0)])]));
    assert_eq!((a.status, a.retry_after_seconds(), a.body.as_str()), (503, Some(3), "quorum lost"));
    assert_eq!(a.stored, Some(Stored::default()));
    assert_eq!(r.counters().requests(Kind::V2, Outcome::Again), 1);
    // Nothing to store asks nobody.
    assert_eq!(send(&r, said(Kind::V1), &packed(Kind::V1, &[])).status, 204);
}

#[test]
fn bounds_on_one_and_on_all() {
    let limits = Limits { body_bytes: 200, decoded_bytes: 3000, bytes_in_flight: 3000, ..Limits::default() };
    let r = receiver(Ok(PushOutcome::default()), limits);
    let zeros = |n: usize| snap::raw::Encoder::new().compress_vec(&vec![0; n]).unwrap();
    let a = send(&r, said(Kind::V1), &[1; 201]);
    assert!(a.status == 400 && a.body.contains("more than 200 bytes"), "{a:?}");
    let a = send(&r, said(Kind::V1), &zeros(3001));
    assert!(a.status == 400 && a.body.contains("unpacks to more than 3000"), "{a:?}");
    let a = send(&r, said(Kind::V1), &zeros(2990));
    assert_eq!((a.status, a.retry_after_seconds()), (503, Some(1)), "the packed body needs room too");
    let a = send(&r, said(Kind::V1), &zeros(2000));
    assert!(a.status == 400 && a.body.contains("broken protobuf"), "{a:?}");
    // A small body whose labels, written out, are too much.
    let name = "n".repeat(900);
    let rows = vec![row(&name, &[(1, 1.0)]); 4];
    let a = send(&r, said(Kind::V2), &packed(Kind::V2, &rows));
    assert_eq!((a.status, a.stored), (400, Some(Stored::default())), "{a:?}");
    assert!(a.body.contains("bytes of memory"), "{a:?}");
    let fits = packed(Kind::V2, &rows[..2]);
    assert_eq!(send(&r, said(Kind::V2), &fits).status, 204);
    // What fits alone waits for what is being worked on.
    let mut first = r.begin(said(Kind::V2)).unwrap();
    r.collect(&mut first, &fits).unwrap();
    let first = r.open(first).unwrap();
    assert_eq!(send(&r, said(Kind::V2), &fits).status, 503);
    assert_eq!(block_on(r.store(first)).status, 204);
    assert_eq!(send(&r, said(Kind::V2), &fits).status, 204);
    assert_eq!(r.bytes_in_flight(), 0);
}

#[test]
fn headers_decide() {
    let r = receiver(Ok(PushOutcome::default()), Limits::default());
    let body = packed(Kind::V1, &[row("a", &[(1, 1.0)])]);
    let gzip = Said { content_encoding: Some("gzip"), ..said(Kind::V1) };
    let a = send(&r, gzip, &body);
    assert_eq!((a.status, a.stored), (415, None));
    assert_eq!(r.counters().unsupported.load(std::sync::atomic::Ordering::Relaxed), 1);
    let a = send(&r, said(Kind::V1), b"not snappy");
    assert!(a.status == 400 && a.body.contains("not valid snappy"), "{a:?}");
    let a = send(&r, said(Kind::V1), &body);
    assert_eq!(a, Answer { status: 204, ..Answer::default() });
    let vm = Said { content_encoding: Some("zstd"), vm_version: Some("1"), ..said(Kind::V1) };
    assert_eq!(send(&r, vm, b"not zstd").status, 409);
    let zstd = zstd::encode_all(&to_v1(&[row("a", &[(1, 1.0)])]).encode_to_vec()[..], 1).unwrap();
    assert_eq!(send(&r, vm, &zstd).status, 204);
}

#[test]
fn histograms_and_exemplars_are_counted_apart() {
    let r = receiver(
        Ok(PushOutcome { rejected: vec![(1, Reason::OutOfOrder)], exemplars_rejected: 1 }),
        Limits::default(),
    );
    let stale = koios_proto::prometheus::Histogram {
        sum: koios_model::stale_nan(),
        timestamp: 5,
        ..Default::default()
    };
    let mut a = row("a", &[(1, 1.0)]);
    a.exemplars = vec![(owned(&[("t", "1")]), 1, 1.0), (owned(&[("t", "2")]), 1, 1.0)];
    let mut h = row("h", &[]);
    h.histograms = vec![stale.clone(), koios_proto::prometheus::Histogram { timestamp: 6, ..stale.clone() }];
    h.histograms.push(koios_proto::prometheus::Histogram { sum: 1.0, schema: 99, ..stale });
    let answer = send(&r, said(Kind::V2), &packed(Kind::V2, &[a, h]));
    assert_eq!(answer.stored, Some(Stored { samples: 1, histograms: 1, exemplars: 1 }));
    assert!(answer.body.contains("1 out of order sample, 1 invalid native histogram"), "{}", answer.body);
}
