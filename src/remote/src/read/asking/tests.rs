//! Questions and answers there and back, by hand and by chance.

use std::sync::Arc;

use koios_model::histogram::{Buckets, FloatHistogram, Span};
use koios_model::{Matcher, stale_nan};
use proptest::prelude::*;

use super::*;
use crate::read::{Frames, ReadRequest, SamplesAnswer};

const LIMITS: AnswerLimits = AnswerLimits { series: 100, bytes: 1 << 20 };

fn columns(n: i64) -> Columns {
    let mut c = Columns::default();
    (0..n).for_each(|k| c.push(k * 1000, if k % 7 == 6 { stale_nan() } else { (k * k) as f64 }));
    c
}

fn read(series: &[SeriesChunks]) -> Vec<(String, Vec<(i64, u64)>)> {
    let one = |s: &SeriesChunks| {
        let mut all = Columns::default();
        s.chunks.iter().for_each(|c| c.read(i64::MIN, i64::MAX, &mut all).unwrap());
        (
            s.labels.to_string(),
            all.times.iter().copied().zip(all.values.iter().map(|v| v.to_bits())).collect(),
        )
    };
    series.iter().map(one).collect()
}

#[test]
fn a_question_is_what_the_answering_side_understands() {
    let kinds = [MatchType::Equal, MatchType::NotEqual, MatchType::Regex, MatchType::NotRegex];
    let matchers = kinds.iter().map(|k| Matcher::new(*k, "job", "a.*").unwrap()).collect();
    let query = ReadQuery { mint: -5, maxt: 7_000_000_000_000, matchers };
    for kind in [Kind::Samples, Kind::Chunks] {
        let back = ReadRequest::open(&question(&query, kind)).unwrap();
        assert_eq!((back.queries, back.kind), (vec![query.clone()], kind));
    }
}

#[test]
fn samples_and_histograms_come_back_as_they_were() {
    let positive = Buckets { spans: vec![Span { offset: -2, length: 2 }], counts: vec![1.0, 2.5] };
    let h =
        Arc::new(FloatHistogram { count: 3.5, sum: 9.0, schema: 1, positive, ..FloatHistogram::default() });
    let mut mixed = columns(5);
    mixed.push_histogram(2500, h.clone());
    let mixed = in_time_order(&mixed);
    let (a, b) = (Labels::from_pairs([("__name__", "a")]), Labels::from_pairs([("__name__", "b")]));
    let mut answer = SamplesAnswer::new(10_000, 1 << 20);
    answer.push(&a, &columns(300)).unwrap();
    answer.push(&b, &mixed).unwrap();
    answer.end_query();
    let found = samples(&answer.finish().unwrap(), &LIMITS).unwrap();
    assert_eq!(found[0].chunks.len(), 3, "chunks of 120");
    assert_eq!(read(&found)[0].1.len(), 300);
    let mut back = Columns::default();
    found[1].chunks.iter().for_each(|c| c.read(i64::MIN, i64::MAX, &mut back).unwrap());
    assert_eq!(back.times, [0, 1000, 2000, 2500, 3000, 4000]);
    assert_eq!((back.histogram(3).unwrap().count, back.histogram(3).unwrap().sum), (3.5, 9.0));
}

#[test]
fn what_is_damaged_or_too_much_is_refused() {
    let mut bytes = Vec::new();
    Frames::default().put_samples(&mut bytes, 0, &Labels::from_pairs([("__name__", "a")]), &columns(300));
    let all = |bytes: &[u8], limits| {
        let mut reader = FrameReader::new(limits);
        reader.push(bytes)?;
        reader.finish()
    };
    assert!(all(&bytes, LIMITS).is_ok());
    assert!(all(&bytes[..bytes.len() - 1], LIMITS).unwrap_err().to_string().contains("inside a frame"));
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(all(&flipped, LIMITS).unwrap_err().to_string().contains("checksum"));
    let few = AnswerLimits { bytes: 100, ..LIMITS };
    assert_eq!(all(&bytes, few).unwrap_err(), AnswerError::TooMuch { what: "bytes", max: 100 });
    let none = AnswerLimits { series: 0, ..LIMITS };
    assert_eq!(all(&bytes, none).unwrap_err(), AnswerError::TooMuch { what: "series", max: 0 });
    assert!(all(&[0xff; 9], LIMITS).is_err() && all(&[0xff, 0xff, 0xff, 0x7f], LIMITS).is_err());
    assert!(samples(b"no snappy", &LIMITS).is_err());
}

proptest! {
    /// However the network cuts an answer, it is the same.
    #[test]
    fn frames_in_any_pieces(sizes in proptest::collection::vec(1i64..400, 1..6), piece in 1usize..3000) {
        let mut bytes = Vec::new();
        let mut want = Vec::new();
        for (i, n) in sizes.iter().enumerate() {
            let labels = Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]);
            let chunks = encode(&columns(*n), 120);
            Frames::default().put(&mut bytes, 0, &labels, &chunks);
            want.push(SeriesChunks { labels, slot: Slot::FOREIGN, chunks });
        }
        let mut reader = FrameReader::new(LIMITS);
        let taken: u64 = bytes.chunks(piece).map(|p| reader.push(p).unwrap()).sum();
        let found = reader.finish().unwrap();
        prop_assert_eq!(read(&found), read(&want));
        prop_assert_eq!(taken, want.iter().flat_map(|s| &s.chunks).map(|c| c.data.len() as u64).sum::<u64>());
    }

    /// Nothing that comes makes a reader panic.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = FrameReader::new(LIMITS).push(&bytes);
        let _ = samples(&bytes, &LIMITS);
        let _ = sampled(&bytes, 100);
        let _ = chunked(&Bytes::from(bytes.clone()), &bytes);
    }
}
