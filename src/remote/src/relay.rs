//! Batches from node to node, and what became of them.
//!
//! Owns the two messages: a batch travels as version 2 of remote write, not compressed; what is answered is a list of
//! numbers. The sender has checked everything before, so a batch that does not pass here means that the two nodes are
//! of different versions, and is an error that another replica may cure.

use crate::assembly::OnInvalid;
use crate::batch::PushBatch;
use crate::encode::put_varint;
use crate::faults::Reason;
use crate::limits::Limits;
use crate::port::PushOutcome;
use crate::v2;
use crate::wire::varint;

/// The batch in a request.
///
/// # Errors
/// Why it is not taken, in words.
pub fn read_batch(bytes: &[u8], limits: &Limits) -> Result<PushBatch, String> {
    let decoded = v2::decode_with(bytes, limits, OnInvalid::Relay).map_err(|e| e.to_string())?;
    if decoded.faults.is_empty() {
        return Ok(decoded.batch);
    }
    Err(format!("the nodes disagree about what may be stored: {}", decoded.faults.text(0)))
}

/// An outcome as it is answered.
pub fn write_outcome(outcome: &PushOutcome) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 4 * outcome.rejected.len());
    put_varint(&mut out, u64::from(outcome.exemplars_rejected));
    for (sample, reason) in &outcome.rejected {
        put_varint(&mut out, u64::from(*sample));
        out.push(*reason as u8);
    }
    out
}

/// The outcome in an answer about `samples` samples.
///
/// # Errors
/// What is wrong with it.
pub fn read_outcome(mut bytes: &[u8], samples: usize) -> Result<PushOutcome, String> {
    let exemplars_rejected = u32::try_from(varint(&mut bytes)?).map_err(|_| "too many exemplars")?;
    let mut rejected = Vec::new();
    while !bytes.is_empty() {
        let sample = varint(&mut bytes)?;
        let (reason, rest) = bytes.split_first().ok_or("cut off before a reason")?;
        bytes = rest;
        let known = Reason::ALL.get(usize::from(*reason)).copied();
        // A reason that only a newer node has.
        let reason = known.unwrap_or(Reason::OutOfBounds);
        if sample >= samples as u64 || rejected.len() >= samples {
            return Err("an answer about samples that were not sent".to_owned());
        }
        rejected.push((sample as u32, reason));
    }
    Ok(PushOutcome { rejected, exemplars_rejected })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use koios_chunk::IntHistogram;
    use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram, Span};
    use koios_model::{Exemplar, Labels};
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{PushExemplar, PushSample, PushSeries, PushValue};
    use crate::encode::encode;

    fn whole(n: u8) -> PushValue {
        let n = i64::from(n);
        PushValue::Histogram(Arc::new(IntHistogram {
            hint: [CounterReset::Unknown, CounterReset::Gauge][n as usize % 2],
            schema: 3,
            zero_threshold: 0.001,
            zero_count: 2,
            count: (2 + 3 * n) as u64,
            sum: 4.5,
            positive_spans: vec![Span { offset: -3, length: 2 }],
            positive: vec![n, n],
            ..IntHistogram::default()
        }))
    }

    fn float(n: u8) -> PushValue {
        let n = f64::from(n);
        PushValue::FloatHistogram(Arc::new(FloatHistogram {
            schema: CUSTOM_SCHEMA,
            count: n,
            sum: -1.5,
            positive: Buckets { spans: vec![Span { offset: 0, length: 1 }], counts: vec![n] },
            custom_values: [0.5, 2.0].into(),
            ..FloatHistogram::default()
        }))
    }

    prop_compose! {
        fn batch()(kinds in proptest::collection::vec(
            (proptest::collection::vec((0u8..3, any::<u8>(), any::<i64>()), 0..4), 0u8..3), 0..8,
        )) -> PushBatch {
            let mut b = PushBatch::default();
            for (at, (samples, exemplars)) in kinds.into_iter().enumerate() {
                let start = b.samples.len() as u32;
                for (kind, n, t) in samples {
                    let v = match kind {
                        0 => PushValue::Float(f64::from(n) / 3.0),
                        1 => whole(n),
                        _ => float(n),
                    };
                    b.samples.push(PushSample { t, v });
                }
                let labels = Labels::from_pairs([("__name__", "m"), ("n", at.to_string().as_str())]);
                b.series.push(PushSeries { labels, samples: start..b.samples.len() as u32 });
                for i in 0..exemplars {
                    let labels = Labels::from_pairs([("id", "7")]);
                    let exemplar = Exemplar { labels, t: i64::from(i), v: 1.5 };
                    b.exemplars.push(PushExemplar { series: at as u32, exemplar });
                }
            }
            b
        }
    }

    proptest! {
        #[test]
        fn what_is_relayed_is_what_was_chosen(b in batch(), mask in any::<u32>()) {
            let wanted: Vec<u32> = (0..b.samples.len() as u32).filter(|n| mask >> (n % 32) & 1 == 1).collect();
            let empty = |s: &PushSeries| s.samples.is_empty();
            let bare: Vec<u32> =
                (0..b.series.len() as u32).filter(|i| empty(&b.series[*i as usize])).collect();
            let (bytes, numbers) = encode(&b, &wanted, &bare);
            let back = read_batch(&bytes, &Limits::default()).unwrap();
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, wanted.clone());
            prop_assert_eq!(back.samples.len(), numbers.len());
            for (i, n) in numbers.iter().enumerate() {
                prop_assert_eq!(&back.samples[i], &b.samples[*n as usize]);
                let labels = |b: &PushBatch, n| b.series_of(n).map(|at| b.series[at].labels.clone());
                prop_assert_eq!(labels(&back, i as u32), labels(&b, *n));
            }
            let sent = |at: u32| bare.contains(&at) || wanted.iter().any(|n| b.series_of(*n) == Some(at as usize));
            prop_assert_eq!(back.exemplars.len(), b.exemplars.iter().filter(|e| sent(e.series)).count());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_outcome(&bytes, 10);
            let _ = read_batch(&bytes, &Limits::default());
        }
    }

    #[test]
    fn outcomes_come_back() {
        let outcome = PushOutcome {
            rejected: vec![(0, Reason::TooOld), (299, Reason::Duplicate)],
            exemplars_rejected: 300,
        };
        let bytes = write_outcome(&outcome);
        assert_eq!(bytes, [0xac, 2, 0, 2, 0xab, 2, 1]);
        assert_eq!(read_outcome(&bytes, 300).unwrap(), outcome);
        assert!(read_outcome(&bytes, 299).is_err() && read_outcome(&bytes[..3], 300).is_err());
        assert_eq!(read_outcome(&[0, 0, 99], 1).unwrap().rejected, [(0, Reason::OutOfBounds)]);
    }
}
