//! The two ways in which histogram chunks code their numbers: integers by differences of differences, floats by
//! XOR with the sample before.
//!
//! A coder knows the last sample and nothing of spans, time or resets, which `appender` and `reader` do once for
//! both. Invariant: after the same samples, a coder that wrote and one that read are equal.

use koios_model::histogram::{Buckets, CounterReset, FloatHistogram};

use super::layout::Layout;
use super::value::{IntHistogram, absolute, deltas};
use crate::Encoding;
use crate::bits::{BitReader, BitWriter};
use crate::varbit::{put_int, put_uint, take_int, take_uint};

/// Five bits hold the count of leading zeros.
const LEADING_MAX: u8 = 31;

/// A float coded by XOR with the one before, as in XOR chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct XorFloat {
    pub(crate) bits: u64,
    leading: u8,
    trailing: u8,
    /// Whether a difference set the window.
    window: bool,
}

impl XorFloat {
    pub(crate) fn get(self) -> f64 {
        f64::from_bits(self.bits)
    }

    fn put_raw(&mut self, w: &mut BitWriter, v: f64) {
        self.bits = v.to_bits();
        w.put(self.bits, 64);
    }

    fn take_raw(&mut self, r: &mut BitReader<'_>) {
        self.bits = r.take(64);
    }

    fn put(&mut self, w: &mut BitWriter, v: f64) {
        let diff = v.to_bits() ^ self.bits;
        self.bits = v.to_bits();
        if diff == 0 {
            return w.put(0, 1);
        }
        let leading = (diff.leading_zeros() as u8).min(LEADING_MAX);
        let trailing = diff.trailing_zeros() as u8;
        if self.window && leading >= self.leading && trailing >= self.trailing {
            w.put(0b10, 2);
            return w.put(diff >> self.trailing, 64 - u32::from(self.leading + self.trailing));
        }
        (self.leading, self.trailing, self.window) = (leading, trailing, true);
        let width = 64 - u32::from(leading + trailing);
        w.put((0b11 << 11) | (u64::from(leading) << 6) | u64::from(width & 0x3f), 13);
        w.put(diff >> trailing, width);
    }

    fn take(&mut self, r: &mut BitReader<'_>) -> Result<(), &'static str> {
        if r.take(1) == 0 {
            return Ok(());
        }
        if r.take(1) == 1 {
            let leading = r.take(5) as u8;
            let width = match r.take(6) as u8 {
                0 => 64,
                w => w,
            };
            if leading + width > 64 {
                return Err("value window is wider than 64 bits");
            }
            (self.leading, self.trailing, self.window) = (leading, 64 - leading - width, true);
        }
        let width = 64 - u32::from(self.leading + self.trailing);
        self.bits ^= r.take(width) << self.trailing;
        Ok(())
    }
}

/// How one kind of histogram is coded.
pub trait Coder: Clone + Default + std::fmt::Debug {
    /// The histogram.
    type Value: Clone + PartialEq + std::fmt::Debug;
    /// A bucket's count.
    type Count: PartialOrd + Copy + Default;
    /// The chunk's encoding.
    const ENCODING: Encoding;

    #[doc(hidden)]
    fn layout(v: &Self::Value) -> Layout;
    #[doc(hidden)]
    fn hint(v: &Self::Value) -> CounterReset;
    #[doc(hidden)]
    fn sum_of(v: &Self::Value) -> f64;
    #[doc(hidden)]
    fn counts_of(v: &Self::Value) -> [Vec<Self::Count>; 2];
    /// The value with other buckets; its layout is the caller's.
    #[doc(hidden)]
    fn with_counts(v: &Self::Value, counts: [Vec<Self::Count>; 2]) -> Self::Value;
    /// Whether the count of all observations is less than in the last sample.
    #[doc(hidden)]
    fn count_shrunk(&self, v: &Self::Value) -> bool;
    /// The same for the zero bucket.
    #[doc(hidden)]
    fn zero_shrunk(&self, v: &Self::Value) -> bool;
    #[doc(hidden)]
    fn sum(&self) -> f64;
    /// Of a coder that is used for nothing else: the stale marker is made so.
    #[doc(hidden)]
    fn set_sum(&mut self, sum: f64);
    #[doc(hidden)]
    fn counts(&self) -> [Vec<Self::Count>; 2];
    #[doc(hidden)]
    fn put(&mut self, w: &mut BitWriter, v: &Self::Value, first: bool);
    /// Reads a sample; `buckets` counts both sides.
    ///
    /// # Errors
    /// What is wrong.
    #[doc(hidden)]
    fn take(&mut self, r: &mut BitReader<'_>, buckets: [usize; 2], first: bool) -> Result<(), &'static str>;
    /// The sample read last.
    #[doc(hidden)]
    fn value(&self, layout: &Layout, hint: CounterReset) -> Self::Value;
    #[doc(hidden)]
    fn to_float(v: Self::Value) -> FloatHistogram;
    #[doc(hidden)]
    fn heap_bytes(&self) -> usize;
}

/// Encoding 2.
#[derive(Clone, Debug, Default)]
pub struct IntCoder {
    count: u64,
    count_delta: i64,
    zero: u64,
    zero_delta: i64,
    sum: XorFloat,
    /// Of each side: bucket (itself a difference to its neighbour) and its last change.
    buckets: [Vec<(i64, i64)>; 2],
}

impl Coder for IntCoder {
    type Value = IntHistogram;
    type Count = i64;
    const ENCODING: Encoding = Encoding::Histogram;

    fn layout(v: &IntHistogram) -> Layout {
        Layout {
            schema: v.schema,
            zero_threshold: v.zero_threshold,
            spans: [v.positive_spans.clone(), v.negative_spans.clone()],
            custom: v.custom_values.clone(),
        }
    }

    fn hint(v: &IntHistogram) -> CounterReset {
        v.hint
    }

    fn sum_of(v: &IntHistogram) -> f64 {
        v.sum
    }

    fn counts_of(v: &IntHistogram) -> [Vec<i64>; 2] {
        [absolute(&v.positive).collect(), absolute(&v.negative).collect()]
    }

    fn with_counts(v: &IntHistogram, [positive, negative]: [Vec<i64>; 2]) -> IntHistogram {
        IntHistogram { positive: deltas(&positive), negative: deltas(&negative), ..v.clone() }
    }

    fn count_shrunk(&self, v: &IntHistogram) -> bool {
        v.count < self.count
    }

    fn zero_shrunk(&self, v: &IntHistogram) -> bool {
        v.zero_count < self.zero
    }

    fn set_sum(&mut self, sum: f64) {
        self.sum.bits = sum.to_bits();
    }

    fn sum(&self) -> f64 {
        self.sum.get()
    }

    fn counts(&self) -> [Vec<i64>; 2] {
        self.buckets.each_ref().map(|side| {
            let mut sum = 0i64;
            side.iter()
                .map(|(d, _)| {
                    sum = sum.wrapping_add(*d);
                    sum
                })
                .collect()
        })
    }

    fn put(&mut self, w: &mut BitWriter, v: &IntHistogram, first: bool) {
        let sides = [&v.positive, &v.negative];
        if first {
            put_uint(w, v.count);
            put_uint(w, v.zero_count);
            self.sum.put_raw(w, v.sum);
            self.buckets = sides.map(|side| side.iter().map(|&b| (b, 0)).collect());
            self.buckets.iter().flatten().for_each(|b| put_int(w, b.0));
        } else {
            let count_delta = v.count.wrapping_sub(self.count) as i64;
            let zero_delta = v.zero_count.wrapping_sub(self.zero) as i64;
            let stale = v.is_stale();
            put_int(w, if stale { 0 } else { count_delta.wrapping_sub(self.count_delta) });
            put_int(w, if stale { 0 } else { zero_delta.wrapping_sub(self.zero_delta) });
            self.sum.put(w, v.sum);
            for (own, new) in self.buckets.iter_mut().zip(sides) {
                for (b, &now) in own.iter_mut().zip(new) {
                    let delta = now.wrapping_sub(b.0);
                    put_int(w, delta.wrapping_sub(b.1));
                    *b = (now, delta);
                }
            }
            (self.count_delta, self.zero_delta) = (count_delta, zero_delta);
        }
        (self.count, self.zero) = (v.count, v.zero_count);
    }

    fn take(&mut self, r: &mut BitReader<'_>, buckets: [usize; 2], first: bool) -> Result<(), &'static str> {
        if first {
            (self.count, self.zero) = (take_uint(r), take_uint(r));
            self.sum.take_raw(r);
            self.buckets = buckets.map(|n| (0..n).map(|_| (take_int(r), 0)).collect());
            return Ok(());
        }
        self.count_delta = self.count_delta.wrapping_add(take_int(r));
        self.count = self.count.wrapping_add(self.count_delta as u64);
        self.zero_delta = self.zero_delta.wrapping_add(take_int(r));
        self.zero = self.zero.wrapping_add(self.zero_delta as u64);
        self.sum.take(r)?;
        if koios_model::is_stale(self.sum.get()) {
            return Ok(());
        }
        for b in self.buckets.iter_mut().flatten() {
            b.1 = b.1.wrapping_add(take_int(r));
            b.0 = b.0.wrapping_add(b.1);
        }
        Ok(())
    }

    fn value(&self, layout: &Layout, hint: CounterReset) -> IntHistogram {
        let [positive, negative] = self.buckets.each_ref().map(|s| s.iter().map(|b| b.0).collect());
        let [positive_spans, negative_spans] = layout.spans.clone();
        IntHistogram {
            hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero,
            count: self.count,
            sum: self.sum.get(),
            positive_spans,
            positive,
            negative_spans,
            negative,
            custom_values: layout.custom.clone(),
        }
    }

    fn to_float(v: IntHistogram) -> FloatHistogram {
        v.to_float()
    }

    fn heap_bytes(&self) -> usize {
        self.buckets.iter().map(|b| b.capacity() * 16).sum()
    }
}

/// Encoding 3.
#[derive(Clone, Debug, Default)]
pub struct FloatCoder {
    count: XorFloat,
    zero: XorFloat,
    sum: XorFloat,
    buckets: [Vec<XorFloat>; 2],
}

impl Coder for FloatCoder {
    type Value = FloatHistogram;
    type Count = f64;
    const ENCODING: Encoding = Encoding::FloatHistogram;

    fn layout(v: &FloatHistogram) -> Layout {
        Layout {
            schema: v.schema,
            zero_threshold: v.zero_threshold,
            spans: [v.positive.spans.clone(), v.negative.spans.clone()],
            custom: v.custom_values.clone(),
        }
    }

    fn hint(v: &FloatHistogram) -> CounterReset {
        v.hint
    }

    fn sum_of(v: &FloatHistogram) -> f64 {
        v.sum
    }

    fn counts_of(v: &FloatHistogram) -> [Vec<f64>; 2] {
        [v.positive.counts.clone(), v.negative.counts.clone()]
    }

    fn with_counts(v: &FloatHistogram, [positive, negative]: [Vec<f64>; 2]) -> FloatHistogram {
        let mut v = v.clone();
        (v.positive.counts, v.negative.counts) = (positive, negative);
        v
    }

    fn count_shrunk(&self, v: &FloatHistogram) -> bool {
        v.count < self.count.get()
    }

    fn zero_shrunk(&self, v: &FloatHistogram) -> bool {
        v.zero_count < self.zero.get()
    }

    fn set_sum(&mut self, sum: f64) {
        self.sum.bits = sum.to_bits();
    }

    fn sum(&self) -> f64 {
        self.sum.get()
    }

    fn counts(&self) -> [Vec<f64>; 2] {
        self.buckets.each_ref().map(|s| s.iter().map(|b| b.get()).collect())
    }

    fn put(&mut self, w: &mut BitWriter, v: &FloatHistogram, first: bool) {
        let sides = [&v.positive.counts, &v.negative.counts];
        if first {
            self.count.put_raw(w, v.count);
            self.zero.put_raw(w, v.zero_count);
            self.sum.put_raw(w, v.sum);
            self.buckets = sides.map(|s| vec![XorFloat::default(); s.len()]);
            let all = self.buckets.iter_mut().flatten().zip(sides.into_iter().flatten());
            all.for_each(|(b, &v)| b.put_raw(w, v));
            return;
        }
        self.count.put(w, v.count);
        self.zero.put(w, v.zero_count);
        self.sum.put(w, v.sum);
        for (own, new) in self.buckets.iter_mut().zip(sides) {
            own.iter_mut().zip(new).for_each(|(b, &v)| b.put(w, v));
        }
    }

    fn take(&mut self, r: &mut BitReader<'_>, buckets: [usize; 2], first: bool) -> Result<(), &'static str> {
        if first {
            self.count.take_raw(r);
            self.zero.take_raw(r);
            self.sum.take_raw(r);
            self.buckets = buckets.map(|n| vec![XorFloat::default(); n]);
            self.buckets.iter_mut().flatten().for_each(|b| b.take_raw(r));
            return Ok(());
        }
        self.count.take(r)?;
        self.zero.take(r)?;
        self.sum.take(r)?;
        if koios_model::is_stale(self.sum.get()) {
            return Ok(());
        }
        self.buckets.iter_mut().flatten().try_for_each(|b| b.take(r))
    }

    fn value(&self, layout: &Layout, hint: CounterReset) -> FloatHistogram {
        let [positive, negative] = self.counts();
        let [positive_spans, negative_spans] = layout.spans.clone();
        FloatHistogram {
            hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: self.zero.get(),
            count: self.count.get(),
            sum: self.sum.get(),
            positive: Buckets { spans: positive_spans, counts: positive },
            negative: Buckets { spans: negative_spans, counts: negative },
            custom_values: layout.custom.clone(),
        }
    }

    fn to_float(v: FloatHistogram) -> FloatHistogram {
        v
    }

    fn heap_bytes(&self) -> usize {
        self.buckets.iter().map(|b| b.capacity() * size_of::<XorFloat>()).sum()
    }
}
