//! What all histograms of one chunk share: schema, zero threshold, where the buckets are, custom bounds.
//!
//! Layout bits (Prometheus `tsdb/chunkenc/histogram_meta.go` and chunks.md): zero threshold in one byte (0 = zero,
//! 255 = 64 bits follow, else a power of two), schema, spans of both sides as length and offset, custom bounds with
//! schema -53 only. Invariant: a layout that was read never promises more buckets than the chunk has bits for.

use std::sync::Arc;

use koios_model::histogram::{CUSTOM_SCHEMA, Span};

use crate::bits::{BitReader, BitWriter};
use crate::varbit::{put_int, put_uint, take_int, take_uint};

/// Thousandths up to here stand as integers, one up, because 0 says that the bound's own bits follow.
const MILLI_MAX: f64 = 33_554_430.0;
/// Spans without buckets that a chunk may have besides two for each bucket.
const EMPTY_SPANS_MAX: usize = 16;

/// The shared part of a chunk's histograms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub(crate) schema: i32,
    pub(crate) zero_threshold: f64,
    /// Positive, negative.
    pub(crate) spans: [Vec<Span>; 2],
    pub(crate) custom: Arc<[f64]>,
}

impl Layout {
    pub(crate) fn put(&self, w: &mut BitWriter) {
        put_zero_threshold(w, self.zero_threshold);
        put_int(w, i64::from(self.schema));
        for spans in &self.spans {
            put_uint(w, spans.len() as u64);
            for s in spans {
                put_uint(w, u64::from(s.length));
                put_int(w, i64::from(s.offset));
            }
        }
        if self.schema == CUSTOM_SCHEMA {
            put_uint(w, self.custom.len() as u64);
            self.custom.iter().for_each(|&bound| put_bound(w, bound));
        }
    }

    /// # Errors
    /// What is wrong.
    pub(crate) fn take(r: &mut BitReader<'_>) -> Result<Self, &'static str> {
        let zero_threshold = take_zero_threshold(r);
        let schema = i32::try_from(take_int(r)).map_err(|_| "schema does not fit 32 bits")?;
        let spans = [take_spans(r)?, take_spans(r)?];
        let mut custom = Vec::new();
        if schema == CUSTOM_SCHEMA {
            let count = take_uint(r);
            for _ in 0..count {
                if r.overrun() {
                    return Err("custom bounds run past the chunk");
                }
                custom.push(take_bound(r));
            }
        }
        Ok(Self { schema, zero_threshold, spans, custom: custom.into() })
    }

    /// Number of buckets of each side.
    pub(crate) fn buckets(&self) -> [usize; 2] {
        [count(&self.spans[0]), count(&self.spans[1])]
    }
}

/// Buckets that spans name.
pub(crate) fn count(spans: &[Span]) -> usize {
    spans.iter().fold(0usize, |n, s| n.saturating_add(s.length as usize))
}

fn put_zero_threshold(w: &mut BitWriter, v: f64) {
    if v == 0.0 {
        return w.put(0, 8);
    }
    // A power of two has an empty fraction; its exponent is one less than that of a fraction in 0.5..1.
    let bits = v.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1022;
    if bits >> 63 == 0 && bits & ((1 << 52) - 1) == 0 && (-242..=11).contains(&exponent) {
        return w.put((exponent + 243) as u64, 8);
    }
    w.put(255, 8);
    w.put(bits, 64);
}

fn take_zero_threshold(r: &mut BitReader<'_>) -> f64 {
    match r.take(8) {
        0 => 0.0,
        255 => f64::from_bits(r.take(64)),
        b => f64::from_bits((b + 1022 - 243) << 52),
    }
}

fn take_spans(r: &mut BitReader<'_>) -> Result<Vec<Span>, &'static str> {
    let mut spans = Vec::new();
    let mut buckets = 0u64;
    for _ in 0..take_uint(r) {
        if r.overrun() {
            return Err("spans run past the chunk");
        }
        let length = u32::try_from(take_uint(r)).map_err(|_| "span length does not fit 32 bits")?;
        let offset = i32::try_from(take_int(r)).map_err(|_| "span offset does not fit 32 bits")?;
        buckets += u64::from(length);
        spans.push(Span { offset, length });
        if spans.len() as u64 > 2 * buckets + EMPTY_SPANS_MAX as u64 {
            return Err("too many spans without buckets");
        }
    }
    // Every bucket takes a bit at least.
    if buckets > r.bits_left() as u64 {
        Err("spans name more buckets than the chunk can hold")
    } else {
        Ok(spans)
    }
}

fn put_bound(w: &mut BitWriter, v: f64) {
    let milli = v * 1000.0;
    let whole = || (milli.round() as u64) as f64 / 1000.0 == v;
    if !(0.0..=MILLI_MAX).contains(&milli) || !whole() {
        w.put(0, 1);
        return w.put(v.to_bits(), 64);
    }
    put_uint(w, milli.round() as u64 + 1);
}

fn take_bound(r: &mut BitReader<'_>) -> f64 {
    match take_uint(r) {
        0 => f64::from_bits(r.take(64)),
        milli => (milli - 1) as f64 / 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_and_bounds_survive() {
        let values = [
            0.0,
            2f64.powi(-128),
            2f64.powi(-243),
            2f64.powi(10),
            2f64.powi(11),
            1e-3,
            0.5,
            1.0,
            -1.0,
            5e-324,
        ];
        for v in values {
            let mut w = BitWriter::default();
            put_zero_threshold(&mut w, v);
            put_bound(&mut w, v);
            let mut r = BitReader::new(&w.bytes);
            assert_eq!((take_zero_threshold(&mut r), take_bound(&mut r)), (v, v));
        }
        let mut w = BitWriter::default();
        put_zero_threshold(&mut w, 2f64.powi(-128));
        assert_eq!(w.bytes, [116]);
    }

    #[test]
    fn absurd_layouts_are_refused() {
        let refused = |fill: &dyn Fn(&mut BitWriter)| {
            let mut w = BitWriter::default();
            fill(&mut w);
            assert!(Layout::take(&mut BitReader::new(&w.bytes)).is_err());
        };
        refused(&|w| {
            w.put(0, 8);
            put_int(w, 1 << 40);
        });
        refused(&|w| {
            w.put(0, 8);
            put_int(w, 0);
            put_uint(w, 1 << 50);
        });
        refused(&|w| {
            w.put(0, 8);
            put_int(w, 0);
            put_uint(w, 1);
            put_uint(w, 1 << 30);
            put_int(w, 0);
        });
    }
}
