//! Records of a Prometheus log, decoded.
//!
//! References and times of a record stand relative to its first entry. All fixed integers are big-endian. Types:
//! 1 series, 2 samples, 3 tombstones, 4 exemplars, 5 markers of mapped chunks, 6 metadata, 7 and 9 histograms, 8 and
//! 10 float histograms (9 and 10 promise that custom bounds may occur, the layout is one); 11 to 13 carry start
//! timestamps and are not decoded. Invariant: every list is as long as the bytes that carried it allow.

use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_chunk::varint::{get_uvarint, get_varint};
use koios_model::Labels;
use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram, Span};

use crate::types::Value;

/// What a record says. Series are named by Prometheus' references.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// New series.
    Series(Vec<(u64, Labels)>),
    /// Samples of any kind: reference, time, value.
    Samples(Vec<(u64, i64, Value)>),
    /// Deleted ranges: reference, first and last time.
    Tombstones(Vec<(u64, i64, i64)>),
    /// Exemplars: reference, time, value, labels.
    Exemplars(Vec<(u64, i64, f64, Labels)>),
    /// Which mapped chunks an out-of-order log has no samples for any more: series, chunk.
    Markers(Vec<(u64, u64)>),
    /// Metadata: reference, and `(field, text)` pairs such as `TYPE`, `UNIT`, `HELP`.
    Metadata(Vec<(u64, Vec<(String, String)>)>),
    /// Samples with start timestamps, by type.
    WithStarts(u8),
    /// A type that no version known here writes.
    Unknown(u8),
}

type Decoded<T> = Result<T, &'static str>;
const SHORT: &str = "record is cut short";

/// Decodes one record.
///
/// # Errors
/// What is wrong with its bytes.
pub fn decode_record(bytes: &[u8]) -> Decoded<Record> {
    let Some((&kind, mut rest)) = bytes.split_first() else { return Err("record is empty") };
    let input = &mut rest;
    Ok(match kind {
        1 => Record::Series(all(input, |i| Ok((be64(i)?, labels(i)?)))?),
        2 => Record::Samples(relative(input, |i| Ok(Value::Float(f64::from_bits(be64(i)?))))?),
        3 => Record::Tombstones(all(input, |i| Ok((be64(i)?, varint(i)?, varint(i)?)))?),
        4 => {
            let found = relative(input, |i| Ok((f64::from_bits(be64(i)?), labels(i)?)))?;
            Record::Exemplars(found.into_iter().map(|(r, t, (v, l))| (r, t, v, l)).collect())
        }
        5 => Record::Markers(all(input, |i| Ok((be64(i)?, be64(i)?)))?),
        6 => Record::Metadata(all(input, metadata)?),
        7 | 9 => Record::Samples(relative(input, |i| sound(Value::Histogram(Arc::new(int_histogram(i)?))))?),
        8 | 10 => {
            Record::Samples(relative(input, |i| sound(Value::FloatHistogram(Arc::new(float_histogram(i)?))))?)
        }
        11..=13 => Record::WithStarts(kind),
        other => Record::Unknown(other),
    })
}

fn sound(v: Value) -> Decoded<Value> {
    if v.is_sound() { Ok(v) } else { Err("histogram is inconsistent") }
}

fn all<T>(input: &mut &[u8], mut one: impl FnMut(&mut &[u8]) -> Decoded<T>) -> Decoded<Vec<T>> {
    let mut out = Vec::new();
    while !input.is_empty() {
        out.push(one(input)?);
    }
    Ok(out)
}

/// Entries that begin with reference and time relative to the record's first.
fn relative<T>(
    input: &mut &[u8],
    mut one: impl FnMut(&mut &[u8]) -> Decoded<T>,
) -> Decoded<Vec<(u64, i64, T)>> {
    if input.is_empty() {
        return Ok(Vec::new());
    }
    let (first_ref, first_t) = (be64(input)?, be64(input)? as i64);
    all(input, |i| {
        let r = first_ref.wrapping_add(varint(i)? as u64);
        let t = first_t.wrapping_add(varint(i)?);
        Ok((r, t, one(i)?))
    })
}

fn take<'a>(input: &mut &'a [u8], n: usize) -> Decoded<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(n).ok_or(SHORT)?;
    *input = rest;
    Ok(taken)
}

fn be64(input: &mut &[u8]) -> Decoded<u64> {
    let bytes = take(input, 8)?.first_chunk::<8>().ok_or(SHORT)?;
    Ok(u64::from_be_bytes(*bytes))
}

fn varint(input: &mut &[u8]) -> Decoded<i64> {
    get_varint(input).ok_or(SHORT)
}

fn uvarint(input: &mut &[u8]) -> Decoded<u64> {
    get_uvarint(input).ok_or(SHORT)
}

fn text<'a>(input: &mut &'a [u8]) -> Decoded<&'a str> {
    let len = usize::try_from(uvarint(input)?).map_err(|_| SHORT)?;
    std::str::from_utf8(take(input, len)?).map_err(|_| "text is not UTF-8")
}

fn labels(input: &mut &[u8]) -> Decoded<Labels> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for _ in 0..uvarint(input)? {
        pairs.push((text(input)?, text(input)?));
    }
    Ok(Labels::from_pairs(pairs.into_iter().filter(|(_, v)| !v.is_empty())))
}

fn metadata(input: &mut &[u8]) -> Decoded<(u64, Vec<(String, String)>)> {
    let reference = uvarint(input)?;
    let kind = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
    let kind = kind.get(usize::from(take(input, 1)?[0])).copied().unwrap_or("unknown");
    let mut fields = vec![("TYPE".to_owned(), kind.to_owned())];
    for _ in 0..uvarint(input)? {
        fields.push((text(input)?.to_owned(), text(input)?.to_owned()));
    }
    Ok((reference, fields))
}

fn hint(byte: u8) -> CounterReset {
    match byte {
        1 => CounterReset::Reset,
        2 => CounterReset::NotReset,
        3 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    }
}

fn schema(input: &mut &[u8]) -> Decoded<i32> {
    i32::try_from(varint(input)?).map_err(|_| "schema does not fit 32 bits")
}

fn float(input: &mut &[u8]) -> Decoded<f64> {
    be64(input).map(f64::from_bits)
}

fn spans(input: &mut &[u8]) -> Decoded<Vec<Span>> {
    let mut out = Vec::new();
    for _ in 0..uvarint(input)? {
        let offset = i32::try_from(varint(input)?).map_err(|_| "span offset does not fit 32 bits")?;
        let length = u32::try_from(uvarint(input)?).map_err(|_| "span length does not fit 32 bits")?;
        out.push(Span { offset, length });
    }
    Ok(out)
}

fn list<T>(input: &mut &[u8], mut one: impl FnMut(&mut &[u8]) -> Decoded<T>) -> Decoded<Vec<T>> {
    (0..uvarint(input)?).map(|_| one(input)).collect()
}

fn bounds(input: &mut &[u8], schema: i32) -> Decoded<Arc<[f64]>> {
    if schema == CUSTOM_SCHEMA { Ok(list(input, float)?.into()) } else { Ok(Arc::default()) }
}

fn int_histogram(input: &mut &[u8]) -> Decoded<IntHistogram> {
    let hint = hint(take(input, 1)?[0]);
    let schema = schema(input)?;
    let zero_threshold = float(input)?;
    let (zero_count, count) = (uvarint(input)?, uvarint(input)?);
    let sum = float(input)?;
    let (positive_spans, negative_spans) = (spans(input)?, spans(input)?);
    let (positive, negative) = (list(input, varint)?, list(input, varint)?);
    Ok(IntHistogram {
        hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        positive,
        negative_spans,
        negative,
        custom_values: bounds(input, schema)?,
    })
}

fn float_histogram(input: &mut &[u8]) -> Decoded<FloatHistogram> {
    let hint = hint(take(input, 1)?[0]);
    let schema = schema(input)?;
    let (zero_threshold, zero_count, count, sum) =
        (float(input)?, float(input)?, float(input)?, float(input)?);
    let (positive, negative) = (spans(input)?, spans(input)?);
    let positive = Buckets { spans: positive, counts: list(input, float)? };
    let negative = Buckets { spans: negative, counts: list(input, float)? };
    let custom_values = bounds(input, schema)?;
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

    #[test]
    fn golden_records() {
        let mut series = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, b'a', 2, b'x', b'y'];
        assert_eq!(decode_record(&series), Ok(Record::Series(vec![(9, Labels::from_pairs([("a", "xy")]))])));
        series.pop();
        assert_eq!(decode_record(&series), Err(SHORT));
        let mut samples = vec![2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0];
        samples.extend(1.5f64.to_bits().to_be_bytes());
        samples.extend([1, 3]);
        samples.extend(2.5f64.to_bits().to_be_bytes());
        let want = vec![(9, 100, Value::Float(1.5)), (8, 98, Value::Float(2.5))];
        assert_eq!(decode_record(&samples), Ok(Record::Samples(want)));
        let stone = [3, 0, 0, 0, 0, 0, 0, 0, 9, 1, 20];
        assert_eq!(decode_record(&stone), Ok(Record::Tombstones(vec![(9, -1, 10)])));
        assert_eq!(
            decode_record(&[6, 9, 1, 1, 1, b'U', 1, b's']),
            Ok(Record::Metadata(vec![(
                9,
                vec![("TYPE".to_owned(), "counter".to_owned()), ("U".to_owned(), "s".to_owned())]
            )]))
        );
        assert_eq!(decode_record(&[11, 1, 2]), Ok(Record::WithStarts(11)));
        assert_eq!(decode_record(&[77]), Ok(Record::Unknown(77)));
        assert!(decode_record(&[]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(kind in 1u8..14, bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
            let mut record = vec![kind];
            record.extend(bytes);
            let _ = decode_record(&record);
        }
    }
}
