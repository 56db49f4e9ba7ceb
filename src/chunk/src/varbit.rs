//! Variable-length bit integers of histogram chunks: a unary class, then the value in as many bits as the class has.
//!
//! Classes (Prometheus `tsdb/docs/format/chunks.md`, "varbit"): `0` is zero; `10`, `110`, ... carry 3, 6, 9, 12, 18,
//! 25, 56 bits; eight ones carry 64. Signed classes are one off from two's complement: the top value is positive.
//! Invariant: what is written is the shortest class that fits.

use crate::bits::{BitReader, BitWriter};

/// Bits of the value in each class after the zero class.
const WIDTHS: [u32; 8] = [3, 6, 9, 12, 18, 25, 56, 64];

/// Appends a signed value.
pub(crate) fn put_int(w: &mut BitWriter, v: i64) {
    if v == 0 {
        return w.put(0, 1);
    }
    let fits = |n: u32| n == 64 || (-((1i64 << (n - 1)) - 1)..=1i64 << (n - 1)).contains(&v);
    put_class(w, v as u64, fits);
}

/// Appends an unsigned value.
pub(crate) fn put_uint(w: &mut BitWriter, v: u64) {
    if v == 0 {
        return w.put(0, 1);
    }
    put_class(w, v, |n| n == 64 || v >> n == 0);
}

fn put_class(w: &mut BitWriter, v: u64, fits: impl Fn(u32) -> bool) {
    for (class, &width) in WIDTHS.iter().enumerate() {
        if !fits(width) {
            continue;
        }
        // The last class has no closing zero: eight ones are all there can be.
        match class {
            7 => w.put(0xff, 8),
            c => w.put((1 << (c + 2)) - 2, c as u32 + 2),
        }
        let low = if width == 64 { v } else { v & ((1 << width) - 1) };
        return w.put(low, width);
    }
}

/// Reads a signed value; past the end it reads zero bits, which `BitReader::overrun` tells.
pub(crate) fn take_int(r: &mut BitReader<'_>) -> i64 {
    let Some(width) = take_class(r) else { return 0 };
    let raw = r.take(width);
    if width < 64 && raw > 1 << (width - 1) { raw as i64 - (1 << width) } else { raw as i64 }
}

/// Reads an unsigned value, see `take_int`.
pub(crate) fn take_uint(r: &mut BitReader<'_>) -> u64 {
    take_class(r).map_or(0, |width| r.take(width))
}

fn take_class(r: &mut BitReader<'_>) -> Option<u32> {
    let ones = r.peek().leading_ones().min(8);
    r.skip(if ones == 8 { 8 } else { ones + 1 });
    (ones > 0).then(|| WIDTHS[ones as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_end_where_the_format_says() {
        for (v, bits) in [
            (0, 1),
            (4, 5),
            (-3, 5),
            (5, 9),
            (-4, 9),
            (32, 9),
            (33, 13),
            (256, 13),
            (2048, 17),
            (131_072, 24),
            (131_073, 32),
            (1 << 24, 32),
            ((1 << 24) + 1, 64),
            (1 << 55, 64),
            ((1 << 55) + 1, 72),
            (i64::MIN, 72),
        ] {
            let mut w = BitWriter::default();
            put_int(&mut w, v);
            let mut r = BitReader::new(&w.bytes);
            assert_eq!(take_int(&mut r), v);
            assert_eq!(w.bytes.len(), usize::div_ceil(bits, 8), "{v}");
            assert_eq!((8 - usize::from(r.free_bits())) % 8, bits % 8, "{v}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(values in proptest::collection::vec((any::<i64>(), 0u32..64), 1..50)) {
            let mut w = BitWriter::default();
            for &(v, shift) in &values {
                put_int(&mut w, v >> shift);
                put_uint(&mut w, v as u64 >> shift);
            }
            let mut r = BitReader::new(&w.bytes);
            for &(v, shift) in &values {
                prop_assert_eq!(take_int(&mut r), v >> shift);
                prop_assert_eq!(take_uint(&mut r), v as u64 >> shift);
            }
            prop_assert!(!r.overrun());
        }
    }
}
