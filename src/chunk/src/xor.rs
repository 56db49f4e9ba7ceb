//! Writing XOR chunks: delta-of-delta timestamps and XORed values.
//!
//! The layout is Prometheus' (`tsdb/docs/format/chunks.md`), which follows Pelkonen et al., "Gorilla: a fast,
//! scalable, in-memory time series database", VLDB 2015, with wider timestamp classes. Invariant: what
//! `to_bytes` and `into_bytes` give is a valid chunk. The sample count, its first two bytes, is put in only there:
//! an append touches the end of the bytes and nothing else.

use bytes::Bytes;
use koios_model::Columns;

use crate::bits::BitWriter;
use crate::varint;
use crate::{Chunk, ChunkError, Encoding, XorIter};

/// Bytes before the first sample: the big-endian sample count.
pub const XOR_HEADER_BYTES: usize = 2;

/// `leading` of an appender that has not written a value difference yet.
const NO_WINDOW: u8 = 0xff;
/// Five bits hold the count of leading zeros.
const LEADING_MAX: u8 = 31;

/// An open XOR chunk that takes samples.
#[derive(Clone, Debug)]
pub struct XorAppender {
    bits: BitWriter,
    t: i64,
    v: u64,
    delta: u64,
    count: u16,
    leading: u8,
    trailing: u8,
}

impl Default for XorAppender {
    fn default() -> Self {
        Self::new()
    }
}

impl XorAppender {
    /// An empty chunk.
    pub fn new() -> Self {
        Self::with_capacity(32)
    }

    /// An empty chunk with room for so many bytes, for who closes it soon.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(bytes.max(XOR_HEADER_BYTES));
        bytes.extend_from_slice(&[0, 0]);
        Self {
            bits: BitWriter::from_bytes(bytes, 0),
            t: 0,
            v: 0,
            delta: 0,
            count: 0,
            leading: NO_WINDOW,
            trailing: 0,
        }
    }

    /// Goes on where the encoded chunk ends. Bytes after the last sample are cut off.
    ///
    /// # Errors
    /// `ChunkError` when the bytes are not a sound XOR chunk.
    pub fn resume(bytes: &[u8]) -> Result<Self, ChunkError> {
        let mut it = XorIter::new(bytes)?;
        for sample in it.by_ref() {
            sample?;
        }
        let state = it.state();
        let mut own = Vec::with_capacity(bytes.len() + 16);
        own.extend_from_slice(&bytes[..state.bytes_used]);
        Ok(Self {
            bits: BitWriter::from_bytes(own, state.free_bits),
            t: state.t,
            v: state.v,
            delta: state.delta,
            count: state.count,
            leading: if state.window { state.leading } else { NO_WINDOW },
            trailing: state.trailing,
        })
    }

    /// Number of samples, at most 65,535.
    #[inline]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Length of the chunk as it would be written now.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.bits.bytes.len()
    }

    /// A copy of the chunk as it would be written now.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bits.bytes.clone();
        bytes[..XOR_HEADER_BYTES].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// Gives up the bytes, without spare capacity.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.bits.bytes;
        bytes[..XOR_HEADER_BYTES].copy_from_slice(&self.count.to_be_bytes());
        bytes.shrink_to_fit();
        bytes
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.bits.bytes.capacity()
    }

    /// Time of the last sample; 0 when there is none.
    pub fn last_time(&self) -> i64 {
        self.t
    }

    /// Value of the last sample; 0 when there is none.
    pub fn last_value(&self) -> f64 {
        f64::from_bits(self.v)
    }

    /// Appends one sample. The caller keeps time ascending and starts a new chunk long before 65,535 samples.
    #[inline]
    pub fn append(&mut self, t: i64, v: f64) {
        let bits = v.to_bits();
        self.make_room();
        match self.count {
            0 => self.append_first(t, bits),
            1 => {
                let delta = t.wrapping_sub(self.t) as u64;
                self.bits.put_uvarint(delta);
                self.put_value(bits);
                self.delta = delta;
            }
            _ => {
                let delta = t.wrapping_sub(self.t) as u64;
                self.put_dod(delta.wrapping_sub(self.delta) as i64);
                self.put_value(bits);
                self.delta = delta;
            }
        }
        self.t = t;
        self.v = bits;
        self.count = self.count.checked_add(1).expect("BUG: more than 65,535 samples in one chunk");
    }

    /// Grows in small steps: a million open chunks must not each hold twice what they need.
    #[inline]
    fn make_room(&mut self) {
        let bytes = &mut self.bits.bytes;
        // A sample takes at most 20 bytes, and `BitWriter::put` reaches 8 further.
        if bytes.capacity() - bytes.len() < 28 {
            bytes.reserve_exact(if bytes.len() < 192 { 32 } else { 64 });
        }
    }

    fn append_first(&mut self, t: i64, bits: u64) {
        self.bits.put_uvarint(varint::zigzag(t));
        self.bits.put(bits, 64);
    }

    #[inline]
    fn put_dod(&mut self, dod: i64) {
        if dod == 0 {
            return self.bits.put(0, 1);
        }
        for (width, prefix, prefix_len) in [(14u32, 0b10u64, 2u32), (17, 0b110, 3), (20, 0b1110, 4)] {
            let high = 1i64 << (width - 1);
            if -(high - 1) <= dod && dod <= high {
                let low = dod as u64 & ((1 << width) - 1);
                return self.bits.put((prefix << width) | low, prefix_len + width);
            }
        }
        self.bits.put(0b1111, 4);
        self.bits.put(dod as u64, 64);
    }

    #[inline]
    fn put_value(&mut self, bits: u64) {
        let diff = bits ^ self.v;
        if diff == 0 {
            return self.bits.put(0, 1);
        }
        let leading = (diff.leading_zeros() as u8).min(LEADING_MAX);
        let trailing = diff.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
            let width = 64 - u32::from(self.leading) - u32::from(self.trailing);
            self.bits.put(0b10, 2);
            return self.bits.put(diff >> self.trailing, width);
        }
        self.leading = leading;
        self.trailing = trailing;
        let width = 64 - u32::from(leading) - u32::from(trailing);
        // 64 does not fit six bits and stands as 0: a difference has at least one bit.
        let head = (0b11 << 11) | (u64::from(leading) << 6) | u64::from(width & 0x3f);
        self.bits.put(head, 13);
        self.bits.put(diff >> trailing, width);
    }
}

/// Packs columns into XOR chunks of at most `per_chunk` samples.
pub fn encode_xor(samples: &Columns, per_chunk: usize) -> Vec<Chunk> {
    let per_chunk = per_chunk.clamp(1, usize::from(u16::MAX));
    let times = samples.times.chunks(per_chunk);
    times
        .zip(samples.values.chunks(per_chunk))
        .map(|(times, values)| {
            let mut a = XorAppender::with_capacity(64 + 4 * times.len());
            times.iter().zip(values).for_each(|(&t, &v)| a.append(t, v));
            Chunk {
                min_time: times[0],
                max_time: times[times.len() - 1],
                encoding: Encoding::Xor,
                data: Bytes::from(a.into_bytes()),
            }
        })
        .collect()
}
