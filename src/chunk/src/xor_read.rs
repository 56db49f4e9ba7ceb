//! Reading XOR chunks sample by sample. `xor_bulk` decodes whole chunks.
//!
//! Invariants: decoded times are strictly ascending, unless they are said to repeat; a sample is handed out only when all of its bits were there.

use koios_model::Sample;

use crate::bits::BitReader;
use crate::{ChunkError, XOR_HEADER_BYTES};

/// What a writer needs to go on after the last sample.
pub(crate) struct State {
    pub(crate) t: i64,
    pub(crate) v: u64,
    pub(crate) delta: u64,
    pub(crate) leading: u8,
    pub(crate) trailing: u8,
    /// Whether a value difference set the window.
    pub(crate) window: bool,
    pub(crate) count: u16,
    pub(crate) bytes_used: usize,
    pub(crate) free_bits: u8,
}

/// Iterator over the samples of an XOR chunk. Ends after the first error.
#[derive(Clone, Debug)]
pub struct XorIter<'a> {
    d: Decoder<'a>,
    failed: bool,
}

impl<'a> XorIter<'a> {
    /// Starts reading.
    ///
    /// # Errors
    /// `ChunkError::Short` when even the header is missing.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ChunkError> {
        Ok(Self { d: Decoder::new(bytes)?, failed: false })
    }

    /// As `new`, for aggregates of counters, in which a time may come again.
    ///
    /// # Errors
    /// As `new`.
    pub(crate) fn repeating(bytes: &'a [u8]) -> Result<Self, ChunkError> {
        Ok(Self { d: Decoder { repeats: true, ..Decoder::new(bytes)? }, failed: false })
    }

    pub(crate) fn state(&self) -> State {
        let d = &self.d;
        State {
            t: d.t,
            v: d.v,
            delta: d.delta,
            leading: d.leading,
            trailing: d.trailing,
            window: d.window,
            count: d.count as u16,
            bytes_used: XOR_HEADER_BYTES + d.r.bytes_used(),
            free_bits: d.r.free_bits(),
        }
    }
}

impl Iterator for XorIter<'_> {
    type Item = Result<Sample, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.d.done == self.d.count {
            return None;
        }
        match self.d.step() {
            Ok(()) => Some(Ok(Sample { t: self.d.t, v: f64::from_bits(self.d.v) })),
            Err(e) => {
                self.failed = true;
                Some(Err(e))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.d.count - self.d.done))
    }
}

#[derive(Clone, Debug)]
struct Decoder<'a> {
    r: BitReader<'a>,
    bytes: usize,
    count: usize,
    done: usize,
    t: i64,
    v: u64,
    delta: u64,
    leading: u8,
    trailing: u8,
    window: bool,
    repeats: bool,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, ChunkError> {
        let Some((header, body)) = bytes.split_first_chunk::<XOR_HEADER_BYTES>() else {
            return Err(ChunkError::Short { sample: 0, count: 0, bytes: bytes.len() });
        };
        Ok(Self {
            r: BitReader::new(body),
            bytes: bytes.len(),
            count: usize::from(u16::from_be_bytes(*header)),
            done: 0,
            t: 0,
            v: 0,
            delta: 0,
            leading: 0,
            trailing: 0,
            window: false,
            repeats: false,
        })
    }

    #[inline(always)]
    fn step(&mut self) -> Result<(), ChunkError> {
        if self.done < 2 {
            self.first_two()?;
        } else {
            let dod = self.dod();
            self.delta = self.delta.wrapping_add(dod as u64);
            let t = self.t.wrapping_add(self.delta as i64);
            self.value()?;
            if t <= self.t && !self.is_repeat(t) {
                return Err(self.not_ascending());
            }
            self.t = t;
        }
        if self.r.overrun() {
            return Err(self.short());
        }
        self.done += 1;
        Ok(())
    }

    #[cold]
    fn first_two(&mut self) -> Result<(), ChunkError> {
        let bad = ChunkError::Damaged { sample: self.done, what: "timestamp does not fit 64 bits" };
        let raw = self.r.take_uvarint().ok_or(bad)?;
        if self.done == 0 {
            self.t = crate::varint::unzigzag(raw);
            self.v = self.r.take(64);
            return Ok(());
        }
        let t = self.t.wrapping_add(raw as i64);
        self.value()?;
        if t <= self.t && !self.r.overrun() && !self.is_repeat(t) {
            return Err(self.not_ascending());
        }
        self.delta = raw;
        self.t = t;
        Ok(())
    }

    #[inline(always)]
    fn dod(&mut self) -> i64 {
        let word = self.r.peek();
        if word >> 63 == 0 {
            self.r.skip(1);
            return 0;
        }
        let (prefix, width) = match word.leading_ones() {
            1 => (2, 14),
            2 => (3, 17),
            3 => (4, 20),
            _ => {
                self.r.skip(4);
                return self.r.take(64) as i64;
            }
        };
        self.r.skip(prefix + width);
        let raw = ((word << prefix) >> (64 - width)) as i64;
        // The classes are one off from two's complement: the top value is positive.
        if raw > 1 << (width - 1) { raw - (1 << width) } else { raw }
    }

    #[inline(always)]
    fn value(&mut self) -> Result<(), ChunkError> {
        let word = self.r.peek();
        if word >> 63 == 0 {
            self.r.skip(1);
            return Ok(());
        }
        if word >> 62 == 0b10 {
            self.r.skip(2);
        } else {
            let leading = (word << 2 >> 59) as u8;
            let width = match (word << 7 >> 58) as u8 {
                0 => 64,
                w => w,
            };
            self.r.skip(13);
            if leading + width > 64 {
                return Err(self.bad_window());
            }
            self.leading = leading;
            self.trailing = 64 - leading - width;
            self.window = true;
        }
        let width = 64 - u32::from(self.leading) - u32::from(self.trailing);
        self.v ^= self.r.take(width) << self.trailing;
        Ok(())
    }

    #[cold]
    fn is_repeat(&self, t: i64) -> bool {
        self.repeats && t == self.t
    }

    #[cold]
    fn bad_window(&self) -> ChunkError {
        if self.r.overrun() {
            return self.short();
        }
        ChunkError::Damaged { sample: self.done, what: "value window is wider than 64 bits" }
    }

    #[cold]
    fn not_ascending(&self) -> ChunkError {
        if self.r.overrun() {
            return self.short();
        }
        ChunkError::Damaged { sample: self.done, what: "time does not ascend" }
    }

    #[cold]
    fn short(&self) -> ChunkError {
        ChunkError::Short { sample: self.done, count: self.count, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests;
