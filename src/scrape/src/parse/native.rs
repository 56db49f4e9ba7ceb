//! The native part of a protobuf histogram: fields 4 to 16 of `io.prometheus.client.Histogram` (client_model).
//!
//! Repeated numbers may be packed or not. Nothing is allocated by a claimed size: every bucket takes at least a byte of
//! the body, and spans are checked against the buckets that are there.

use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_model::histogram::{Buckets, CounterReset, FloatHistogram, Span};

use super::proto::{Fields, Value, varint};
use crate::native::NativeHistogram;

/// What the fields say, integers and floats apart.
#[derive(Default)]
struct Parts {
    count: u64,
    float_count: f64,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    float_zero_count: f64,
    spans: [Vec<Span>; 2],
    deltas: [Vec<i64>; 2],
    counts: [Vec<f64>; 2],
    native: bool,
}

fn zigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

fn span(message: &[u8]) -> Result<Span, String> {
    let mut span = Span { offset: 0, length: 0 };
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => span.offset = i32::try_from(zigzag(value.int())).map_err(|_| "a span too far away")?,
            2 => span.length = u32::try_from(value.int()).map_err(|_| "a span that is too long")?,
            _ => {}
        }
    }
    Ok(span)
}

fn push_deltas(out: &mut Vec<i64>, value: Value<'_>) -> Result<(), String> {
    if let Value::Varint(v) = value {
        out.push(zigzag(v));
        return Ok(());
    }
    let mut rest = value.bytes();
    while !rest.is_empty() {
        out.push(zigzag(varint(&mut rest)?));
    }
    Ok(())
}

fn push_counts(out: &mut Vec<f64>, value: Value<'_>) -> Result<(), String> {
    if let Value::Fixed64(bits) = value {
        out.push(f64::from_bits(bits));
        return Ok(());
    }
    let (whole, rest) = value.bytes().as_chunks::<8>();
    if !rest.is_empty() {
        return Err("bucket counts are cut off".into());
    }
    out.extend(whole.iter().map(|b| f64::from_le_bytes(*b)));
    Ok(())
}

impl Parts {
    fn read(content: &[u8]) -> Result<Self, String> {
        let mut parts = Self::default();
        let mut fields = Fields::of(content);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => parts.count = value.int(),
                2 => parts.sum = value.double(),
                4 => parts.float_count = value.double(),
                5 => parts.schema = zigzag(value.int()).clamp(-1000, 1000) as i32,
                6 => parts.zero_threshold = value.double(),
                7 => parts.zero_count = value.int(),
                8 => parts.float_zero_count = value.double(),
                9 => parts.spans[1].push(span(value.bytes())?),
                10 => push_deltas(&mut parts.deltas[1], value)?,
                11 => push_counts(&mut parts.counts[1], value)?,
                12 => parts.spans[0].push(span(value.bytes())?),
                13 => push_deltas(&mut parts.deltas[0], value)?,
                14 => push_counts(&mut parts.counts[0], value)?,
                _ => {}
            }
        }
        parts.native = !(parts.spans[0].is_empty() && parts.spans[1].is_empty())
            || parts.zero_threshold > 0.0
            || parts.zero_count > 0
            || parts.float_zero_count > 0.0;
        Ok(parts)
    }

    fn histogram(self, gauge: bool) -> NativeHistogram {
        let hint = if gauge { CounterReset::Gauge } else { CounterReset::Unknown };
        let [positive_spans, negative_spans] = self.spans;
        let (schema, zero_threshold, sum) = (self.schema, self.zero_threshold, self.sum);
        if self.float_count > 0.0 || self.float_zero_count > 0.0 {
            let [positive, negative] = self.counts;
            return NativeHistogram::Float(Arc::new(FloatHistogram {
                hint,
                schema,
                zero_threshold,
                zero_count: self.float_zero_count,
                count: self.float_count,
                sum,
                positive: Buckets { spans: positive_spans, counts: positive },
                negative: Buckets { spans: negative_spans, counts: negative },
                custom_values: Arc::default(),
            }));
        }
        let [positive, negative] = self.deltas;
        NativeHistogram::Int(Arc::new(IntHistogram {
            hint,
            schema,
            zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum,
            positive_spans,
            positive,
            negative_spans,
            negative,
            custom_values: Arc::default(),
        }))
    }
}

/// The native histogram of a message; `None` when it has only classic parts.
///
/// # Errors
/// A broken message, or a histogram that contradicts itself.
pub(super) fn read(content: &[u8], gauge: bool) -> Result<Option<NativeHistogram>, String> {
    let parts = Parts::read(content)?;
    if !parts.native {
        return Ok(None);
    }
    let h = parts.histogram(gauge);
    h.validate()?;
    Ok(Some(h))
}

/// Whether a message has native parts.
///
/// # Errors
/// A broken message.
pub(super) fn is_native(content: &[u8]) -> Result<bool, String> {
    Ok(Parts::read(content)?.native)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Pb, delimited, pb};
    use super::super::{Format, OwnExemplar, ParseOptions, ParsedSample, Sink, parse_with};
    use super::*;

    #[derive(Default)]
    struct Seen {
        classic: Vec<String>,
        native: Vec<(String, NativeHistogram, Vec<OwnExemplar>, Option<i64>)>,
    }

    impl Sink for Seen {
        fn sample(&mut self, s: ParsedSample<'_>) {
            self.classic.push(String::from_utf8_lossy(s.series).into_owned());
        }

        fn histogram(&mut self, s: ParsedSample<'_>, h: NativeHistogram, exemplars: &[OwnExemplar]) {
            let series = String::from_utf8_lossy(s.series).into_owned();
            self.native.push((series, h, exemplars.to_vec(), s.start_ms));
        }
    }

    /// Zig-zag.
    fn z(v: i64) -> u64 {
        (v << 1 ^ v >> 63) as u64
    }

    fn span(offset: i64, length: u64) -> Pb {
        pb().int(1, z(offset)).int(2, length)
    }

    fn family(kind: u64, histogram: Pb) -> Vec<u8> {
        delimited(vec![pb().bytes(1, b"h").int(3, kind).msg(4, pb().msg(7, histogram))])
    }

    fn read(body: &[u8], native: bool, classic: bool) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let options = ParseOptions { native, classic, ..ParseOptions::default() };
        parse_with(Format::Protobuf, body, options, &mut seen).map_err(|e| e.to_string())?;
        Ok(seen)
    }

    /// Zero bucket 2, buckets 1..=3 with 1, 3, 2 and -2 with 4.
    fn whole() -> Pb {
        // 2 and -1, packed.
        let deltas = [4, 1];
        let time = pb().int(1, 5);
        let exemplar = |dated: bool| {
            let e = pb().msg(1, pb().bytes(1, b"id").bytes(2, b"7")).double(2, 1.5);
            if dated { e.msg(3, time_of(5)) } else { e }
        };
        pb().int(1, 12)
            .double(2, 4.5)
            .int(5, z(3))
            .double(6, 0.001)
            .int(7, 2)
            .msg(9, span(-2, 1))
            .int(10, z(4))
            .msg(12, span(1, 3))
            .int(13, z(1))
            .bytes(13, &deltas)
            .msg(3, pb().int(1, 12).double(2, 1.0))
            .msg(15, time)
            .msg(16, exemplar(true))
            .msg(16, exemplar(false))
    }

    fn time_of(seconds: u64) -> Pb {
        pb().int(1, seconds)
    }

    #[test]
    fn integers_with_exemplars_and_start() {
        let seen = read(&family(4, whole()), true, false).unwrap();
        assert!(seen.classic.is_empty(), "{:?}", seen.classic);
        let [(series, h, exemplars, start)] = &seen.native[..] else { panic!("{:?}", seen.native) };
        assert_eq!((series.as_str(), *start, exemplars.len()), ("{\"h\"}", Some(5000), 1));
        assert_eq!((exemplars[0].value, exemplars[0].timestamp_ms), (1.5, Some(5000)));
        let want = IntHistogram {
            schema: 3,
            zero_threshold: 0.001,
            zero_count: 2,
            count: 12,
            sum: 4.5,
            positive_spans: vec![Span { offset: 1, length: 3 }],
            positive: vec![1, 2, -1],
            negative_spans: vec![Span { offset: -2, length: 1 }],
            negative: vec![4],
            ..IntHistogram::default()
        };
        assert_eq!(*h, NativeHistogram::Int(Arc::new(want)));
    }

    #[test]
    fn classic_parts_come_when_asked_for_or_when_nothing_is_native() {
        let both = read(&family(4, whole()), true, true).unwrap();
        assert_eq!((both.native.len(), both.classic.len()), (1, 4));
        let off = read(&family(4, whole()), false, false).unwrap();
        assert_eq!((off.native.len(), off.classic.len()), (0, 4));
        let classic = pb().int(1, 3).double(2, 1.0).msg(3, pb().int(1, 3).double(2, 1.0));
        let none = read(&family(4, classic), true, false).unwrap();
        assert_eq!((none.native.len(), none.classic.len()), (0, 4));
    }

    #[test]
    fn floats_packed_or_not_and_gauges() {
        let two = [0.5f64, 1.5].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        let float = || pb().double(4, 4.0).double(2, 1.0).msg(12, span(0, 3)).bytes(14, &two).double(14, 2.0);
        let seen = read(&family(5, float()), true, false).unwrap();
        let NativeHistogram::Float(h) = &seen.native[0].1 else { panic!("{:?}", seen.native) };
        assert_eq!(
            (h.count, &h.positive.counts[..], h.hint),
            (4.0, &[0.5, 1.5, 2.0][..], CounterReset::Gauge)
        );
        let counter = read(&family(4, float()), true, false).unwrap();
        let NativeHistogram::Float(h) = &counter.native[0].1 else { panic!("{:?}", counter.native) };
        assert_eq!(h.hint, CounterReset::Unknown);
    }

    #[test]
    fn an_empty_one_is_marked_by_a_span_of_nothing() {
        let seen = read(&family(4, pb().int(1, 0).msg(12, span(0, 0))), true, false).unwrap();
        assert_eq!(seen.native.len(), 1);
    }

    #[test]
    fn contradictions_fail_the_scrape_and_say_why() {
        let missing = pb().int(1, 12).msg(12, span(1, 3)).int(13, z(1));
        let why = read(&family(4, missing), true, false).err().unwrap();
        assert!(why.contains("histogram \"h\"") && why.contains("buckets"), "{why}");
        let negative = pb().int(1, 1).msg(12, span(1, 1)).int(13, z(-1));
        assert!(read(&family(4, negative), true, false).is_err());
        let cut = pb().double(4, 1.0).msg(12, span(1, 1)).bytes(14, &[1, 2, 3]);
        assert!(read(&family(4, cut), true, false).is_err());
    }
}
