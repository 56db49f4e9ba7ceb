//! A bit stream over bytes, most significant bit first.
//!
//! `BitWriter` appends to a byte vector and remembers how many bits of the last byte are free; `BitReader`
//! looks at 57 or more bits at a time by one unaligned load. Reading past the end yields zero bits and is
//! found out by `overrun`, so that the hot loop checks once per sample and not once per bit.

/// Appends bits to bytes.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    pub(crate) bytes: Vec<u8>,
    /// Bits of the last byte not yet used, 0..8.
    free: u8,
}

impl BitWriter {
    pub(crate) fn from_bytes(bytes: Vec<u8>, free: u8) -> Self {
        Self { bytes, free }
    }

    /// Appends the low `n` bits of `value`, `n` in 1..=64; the bits above must be zero.
    ///
    /// Writes eight bytes and takes back what is not needed: with room for them the compiler makes it one store.
    #[inline]
    pub(crate) fn put(&mut self, value: u64, n: u32) {
        debug_assert!(n > 0 && (n == 64 || value >> n == 0), "BUG: stray bits above the width");
        let used = u32::from((8 - self.free) & 7);
        if used + n > 64 {
            let high = n / 2;
            self.put(value >> (n - high), high);
            return self.put(value & ((1 << (n - high)) - 1), n - high);
        }
        let (mut word, mut end) = (value << (64 - n) >> used, self.bytes.len());
        if used > 0
            && let Some(last) = self.bytes.pop()
        {
            word |= u64::from(last) << 56;
            end -= 1;
        }
        self.bytes.extend_from_slice(&word.to_be_bytes());
        self.bytes.truncate(end + (used + n).div_ceil(8) as usize);
        self.free = ((8 - (used + n) % 8) % 8) as u8;
    }

    /// Appends a varint at the current bit position, which need not be a byte's.
    pub(crate) fn put_uvarint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.put(v & 0x7f | 0x80, 8);
            v >>= 7;
        }
        self.put(v, 8);
    }
}

/// Reads bits from bytes.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, left-aligned; at least 57 are valid, zeros follow the end of the input.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        let from = self.at >> 3;
        let word = match self.bytes.get(from..).and_then(|s| s.first_chunk::<8>()) {
            Some(eight) => u64::from_be_bytes(*eight),
            None => self.peek_tail(from),
        };
        word << (self.at & 7)
    }

    #[cold]
    fn peek_tail(&self, from: usize) -> u64 {
        let mut padded = [0u8; 8];
        if let Some(rest) = self.bytes.get(from..) {
            padded[..rest.len()].copy_from_slice(rest);
        }
        u64::from_be_bytes(padded)
    }

    #[inline(always)]
    pub(crate) fn skip(&mut self, n: u32) {
        self.at += n as usize;
    }

    /// Reads `n` bits, `n` in 1..=64.
    #[inline(always)]
    pub(crate) fn take(&mut self, n: u32) -> u64 {
        if n > 56 {
            let high = self.take(32);
            return (high << (n - 32)) | self.take(n - 32);
        }
        let bits = self.peek() >> (64 - n);
        self.skip(n);
        bits
    }

    /// Reads an unsigned varint that may start inside a byte; `None` when it does not fit 64 bits.
    pub(crate) fn take_uvarint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for i in 0..10 {
            let byte = self.take(8);
            if i == 9 && byte > 1 {
                return None;
            }
            value |= (byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Whether more bits were taken than there are.
    #[inline(always)]
    pub(crate) fn overrun(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    /// Bits that were not taken yet.
    pub(crate) fn bits_left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    /// Bits of the last touched byte that were not taken, 0..8.
    pub(crate) fn free_bits(&self) -> u8 {
        ((8 - self.at % 8) % 8) as u8
    }

    /// Whole bytes touched so far.
    pub(crate) fn bytes_used(&self) -> usize {
        self.at.div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(items in proptest::collection::vec((any::<u64>(), 1u32..=64), 0..60)) {
            let mut w = BitWriter::default();
            for &(v, n) in &items {
                w.put(v & (u64::MAX >> (64 - n)), n);
            }
            let mut r = BitReader::new(&w.bytes);
            for &(v, n) in &items {
                prop_assert_eq!(r.take(n), v & (u64::MAX >> (64 - n)));
            }
            prop_assert!(!r.overrun());
            prop_assert_eq!(r.bytes_used(), w.bytes.len());
            r.take(9);
            prop_assert!(r.overrun());
        }
    }
}
