//! Variable-length integers as Go's `encoding/binary` defines them: seven bits a byte, low bits first, the
//! high bit says "more"; signed values are zigzag-folded first.
//!
//! Owned here because chunks, blocks and the write-ahead log all use them. Invariant: a reader consumes at
//! most ten bytes and refuses anything that does not fit 64 bits.

/// Most bytes one value can take.
pub const MAX_LEN: usize = 10;

/// Appends an unsigned value.
#[inline]
pub fn put_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends a signed value.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, v: i64) {
    put_uvarint(out, zigzag(v));
}

/// Folds the sign into the lowest bit.
#[inline]
pub fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// Undoes `zigzag`.
#[inline]
pub fn unzigzag(u: u64) -> i64 {
    (u >> 1) as i64 ^ -((u & 1) as i64)
}

/// Bytes `put_uvarint` writes for a value.
pub fn uvarint_len(v: u64) -> usize {
    (64 - (v | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads an unsigned value from the front of `input` and moves past it; `None` when the input ends early or
/// the value does not fit.
#[inline]
pub fn get_uvarint(input: &mut &[u8]) -> Option<u64> {
    match **input {
        [a, ref rest @ ..] if a < 0x80 => {
            *input = rest;
            Some(u64::from(a))
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *input = rest;
            Some(u64::from(a & 0x7f) | (u64::from(b) << 7))
        }
        _ => get_long(input),
    }
}

/// Moves past values without reading them; `None` when the input ends early. What does not fit 64 bits is not noticed.
#[inline]
pub fn skip_uvarints(input: &mut &[u8], mut count: u64) -> Option<()> {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while count > 0 {
        let Some(eight) = input.first_chunk::<8>() else {
            let last = input.iter().position(|b| *b < 0x80)?;
            *input = &input[last + 1..];
            count -= 1;
            continue;
        };
        let mut lasts = !u64::from_le_bytes(*eight) & HIGH;
        let here = u64::from(lasts.count_ones());
        if here < count {
            count -= here;
            *input = &input[8..];
            continue;
        }
        (1..count).for_each(|_| lasts &= lasts - 1);
        *input = &input[lasts.trailing_zeros() as usize / 8 + 1..];
        count = 0;
    }
    Some(())
}

#[inline(never)]
fn get_long(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().take(MAX_LEN).enumerate() {
        if i == MAX_LEN - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *input = &input[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Reads a signed value, see `get_uvarint`.
#[inline]
pub fn get_varint(input: &mut &[u8]) -> Option<i64> {
    get_uvarint(input).map(unzigzag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_and_refusals() {
        let mut out = Vec::new();
        put_uvarint(&mut out, 300);
        put_varint(&mut out, -1);
        assert_eq!(out, [0xac, 0x02, 0x01]);
        assert_eq!(get_uvarint(&mut &[0x80u8, 0x80][..]), None);
        assert_eq!(get_uvarint(&mut &[0xffu8; 11][..]), None);
        let mut max = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..];
        assert_eq!(get_uvarint(&mut max), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn round_trips(v in any::<i64>(), shift in 0u32..64) {
            let v = v >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, v);
            put_uvarint(&mut out, v as u64);
            prop_assert_eq!(uvarint_len(v as u64) + uvarint_len(zigzag(v)), out.len());
            let mut rest = &out[..];
            prop_assert_eq!(get_varint(&mut rest), Some(v));
            prop_assert_eq!(get_uvarint(&mut rest), Some(v as u64));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn skips_what_it_would_read(values in proptest::collection::vec(any::<u64>(), 0..40), few in 0usize..40, shift in 0u32..64) {
            let mut out = Vec::new();
            values.iter().for_each(|v| put_uvarint(&mut out, v >> shift));
            let (mut read, mut skipped) = (&out[..], &out[..]);
            let all = (0..few).all(|_| get_uvarint(&mut read).is_some());
            prop_assert_eq!(skip_uvarints(&mut skipped, few as u64).is_some(), all);
            prop_assert!(!all || read == skipped);
        }
    }
}
