//! Native histograms of one batch as records: type 4 with integer counts, type 5 with float counts.
//!
//! Every sample stands for itself, so a damaged record touches no other. Layout after the type byte: `uvarint n`,
//! then per sample `varint reference - reference before`, `varint t - t before`, a byte (hint in the lower two
//! bits, 4 = stale marker, after which nothing follows), `varint schema`, zero threshold as 8 bytes, count, zero
//! count (`uvarint`, or 8 bytes each), sum as 8 bytes, and for the positive and the negative side `uvarint spans`,
//! each `varint offset, uvarint length`, then as many buckets as the spans name (`varint` differences, or 8 bytes
//! each); with schema -53 `uvarint bounds` and 8 bytes each. Invariant: decoding never allocates more than a small
//! multiple of the record's length.

use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_chunk::varint::{get_uvarint, get_varint, put_uvarint, put_varint};
use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram, Span};

use super::record::{BadRecord, FLOAT_HISTOGRAMS, HISTOGRAMS, take};
use crate::types::Value;

const STALE: u8 = 4;
const SHORT: BadRecord = BadRecord("histogram record is cut short");

/// A histogram as the log holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RawHistogram {
    pub(crate) id: u64,
    pub(crate) t: i64,
    pub(crate) v: Value,
}

fn hint_bits(hint: CounterReset) -> u8 {
    match hint {
        CounterReset::Unknown => 0,
        CounterReset::Reset => 1,
        CounterReset::NotReset => 2,
        CounterReset::Gauge => 3,
    }
}

fn hint_of(bits: u8) -> CounterReset {
    match bits & 3 {
        1 => CounterReset::Reset,
        2 => CounterReset::NotReset,
        3 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    }
}

/// Writes one record of samples that are all of one kind.
pub(crate) fn put(out: &mut Vec<u8>, samples: &[RawHistogram]) {
    let floats = matches!(samples.first().map(|s| &s.v), Some(Value::FloatHistogram(_)));
    out.push(if floats { FLOAT_HISTOGRAMS } else { HISTOGRAMS });
    put_uvarint(out, samples.len() as u64);
    let (mut id, mut t) = (0u64, 0i64);
    for s in samples {
        put_varint(out, s.id.wrapping_sub(id) as i64);
        put_varint(out, s.t.wrapping_sub(t));
        (id, t) = (s.id, s.t);
        match &s.v {
            Value::Histogram(h) => put_int(out, h),
            Value::FloatHistogram(h) => put_float(out, h),
            Value::Float(_) => unreachable!("BUG: a float in a histogram record"),
        }
    }
}

fn put_f64(out: &mut Vec<u8>, v: f64) {
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_uvarint(out, spans.len() as u64);
    for s in spans {
        put_varint(out, i64::from(s.offset));
        put_uvarint(out, u64::from(s.length));
    }
}

fn put_bounds(out: &mut Vec<u8>, schema: i32, bounds: &[f64]) {
    if schema == CUSTOM_SCHEMA {
        put_uvarint(out, bounds.len() as u64);
        bounds.iter().for_each(|&b| put_f64(out, b));
    }
}

fn put_int(out: &mut Vec<u8>, h: &IntHistogram) {
    if h.is_stale() {
        return out.push(STALE);
    }
    out.push(hint_bits(h.hint));
    put_varint(out, i64::from(h.schema));
    put_f64(out, h.zero_threshold);
    put_uvarint(out, h.count);
    put_uvarint(out, h.zero_count);
    put_f64(out, h.sum);
    for (spans, buckets) in [(&h.positive_spans, &h.positive), (&h.negative_spans, &h.negative)] {
        put_spans(out, spans);
        buckets.iter().for_each(|&b| put_varint(out, b));
    }
    put_bounds(out, h.schema, &h.custom_values);
}

fn put_float(out: &mut Vec<u8>, h: &FloatHistogram) {
    if h.is_stale() {
        return out.push(STALE);
    }
    out.push(hint_bits(h.hint));
    put_varint(out, i64::from(h.schema));
    for v in [h.zero_threshold, h.count, h.zero_count, h.sum] {
        put_f64(out, v);
    }
    for side in [&h.positive, &h.negative] {
        put_spans(out, &side.spans);
        side.counts.iter().for_each(|&b| put_f64(out, b));
    }
    put_bounds(out, h.schema, &h.custom_values);
}

/// Reads a record whose type byte, `kind`, was taken already.
pub(crate) fn get(kind: u8, mut rest: &[u8]) -> Result<Vec<RawHistogram>, BadRecord> {
    let input = &mut rest;
    let (mut id, mut t) = (0u64, 0i64);
    let mut out = Vec::new();
    for _ in 0..get_uvarint(input).ok_or(SHORT)? {
        id = id.wrapping_add(get_varint(input).ok_or(SHORT)? as u64);
        t = t.wrapping_add(get_varint(input).ok_or(SHORT)?);
        let v = if kind == FLOAT_HISTOGRAMS {
            Value::FloatHistogram(Arc::new(get_float(input)?))
        } else {
            Value::Histogram(Arc::new(get_int(input)?))
        };
        if !v.is_sound() {
            return Err(BadRecord("histogram is inconsistent"));
        }
        out.push(RawHistogram { id, t, v });
    }
    if input.is_empty() { Ok(out) } else { Err(BadRecord("histogram record has bytes left over")) }
}

fn get_f64(input: &mut &[u8]) -> Result<f64, BadRecord> {
    let bytes = take(input, 8)?.first_chunk::<8>().ok_or(SHORT)?;
    Ok(f64::from_bits(u64::from_le_bytes(*bytes)))
}

/// Spans, and how many buckets they name; no more than bytes are left, since each bucket takes one.
fn get_spans(input: &mut &[u8]) -> Result<(Vec<Span>, usize), BadRecord> {
    let bad = |_| BadRecord("span does not fit 32 bits");
    let (mut spans, mut buckets) = (Vec::new(), 0u64);
    for _ in 0..get_uvarint(input).ok_or(SHORT)? {
        let offset = i32::try_from(get_varint(input).ok_or(SHORT)?).map_err(bad)?;
        let length = u32::try_from(get_uvarint(input).ok_or(SHORT)?).map_err(bad)?;
        buckets += u64::from(length);
        spans.push(Span { offset, length });
    }
    let buckets = usize::try_from(buckets).ok().filter(|n| *n <= input.len());
    Ok((spans, buckets.ok_or(BadRecord("spans name more buckets than the record has"))?))
}

fn get_schema(input: &mut &[u8]) -> Result<i32, BadRecord> {
    i32::try_from(get_varint(input).ok_or(SHORT)?).map_err(|_| BadRecord("schema does not fit 32 bits"))
}

fn get_bounds(input: &mut &[u8], schema: i32) -> Result<Arc<[f64]>, BadRecord> {
    if schema != CUSTOM_SCHEMA {
        return Ok(Arc::default());
    }
    let n = get_uvarint(input).ok_or(SHORT)?;
    (0..n).map(|_| get_f64(input)).collect()
}

fn get_int(input: &mut &[u8]) -> Result<IntHistogram, BadRecord> {
    let flags = take(input, 1)?[0];
    if flags & STALE != 0 {
        return Ok(IntHistogram::stale());
    }
    let schema = get_schema(input)?;
    let zero_threshold = get_f64(input)?;
    let (count, zero_count) = get_uvarint(input).zip(get_uvarint(input)).ok_or(SHORT)?;
    let sum = get_f64(input)?;
    let mut side = || -> Result<_, BadRecord> {
        let (spans, n) = get_spans(input)?;
        let buckets = (0..n).map(|_| get_varint(input).ok_or(SHORT)).collect::<Result<Vec<_>, _>>()?;
        Ok((spans, buckets))
    };
    let ((positive_spans, positive), (negative_spans, negative)) = (side()?, side()?);
    let custom_values = get_bounds(input, schema)?;
    Ok(IntHistogram {
        hint: hint_of(flags),
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        positive,
        negative_spans,
        negative,
        custom_values,
    })
}

fn get_float(input: &mut &[u8]) -> Result<FloatHistogram, BadRecord> {
    let flags = take(input, 1)?[0];
    if flags & STALE != 0 {
        return Ok(FloatHistogram { sum: koios_model::stale_nan(), ..FloatHistogram::default() });
    }
    let schema = get_schema(input)?;
    let [zero_threshold, count, zero_count, sum] =
        [get_f64(input)?, get_f64(input)?, get_f64(input)?, get_f64(input)?];
    let mut side = || -> Result<_, BadRecord> {
        let (spans, n) = get_spans(input)?;
        let counts = (0..n).map(|_| get_f64(input)).collect::<Result<Vec<_>, _>>()?;
        Ok(Buckets { spans, counts })
    };
    let (positive, negative) = (side()?, side()?);
    let custom_values = get_bounds(input, schema)?;
    let hint = hint_of(flags);
    Ok(FloatHistogram {
        hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive,
        negative,
        custom_values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn custom() -> IntHistogram {
        IntHistogram {
            hint: CounterReset::Gauge,
            schema: CUSTOM_SCHEMA,
            count: 3,
            sum: 1.5,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive: vec![2, -1],
            custom_values: [0.5, 1.0].into(),
            ..IntHistogram::default()
        }
    }

    #[test]
    fn golden_and_round_trip() {
        let samples = [
            RawHistogram { id: 7, t: 1000, v: Value::Histogram(Arc::new(custom())) },
            RawHistogram { id: 6, t: 1000, v: Value::Histogram(Arc::new(IntHistogram::stale())) },
        ];
        let mut out = Vec::new();
        put(&mut out, &samples);
        let mut want = vec![4, 2, 14, 0xd0, 0x0f, 3, 105];
        want.extend([0u8; 8]);
        want.extend([3, 0]);
        want.extend(1.5f64.to_le_bytes());
        want.extend([1, 2, 2, 4, 1, 0, 2]);
        want.extend(0.5f64.to_le_bytes());
        want.extend(1.0f64.to_le_bytes());
        want.extend([1, 0, 4]);
        assert_eq!(out, want);
        assert_eq!(get(4, &out[1..]).unwrap(), samples);
        let floats = [RawHistogram { id: 7, t: -5, v: Value::FloatHistogram(Arc::new(custom().to_float())) }];
        out.clear();
        put(&mut out, &floats);
        let back = get(5, &out[1..]).unwrap();
        assert_eq!(back, floats);
        for cut in 1..out.len() {
            assert!(get(5, &out[1..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = get(HISTOGRAMS, &bytes);
            let _ = get(FLOAT_HISTOGRAMS, &bytes);
        }
    }
}
