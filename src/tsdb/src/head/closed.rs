//! Closed chunks in 32 bytes each, wherever their data is.
//!
//! Most of them lie together in something large that is mapped: a spill file (`spill`), or the checkpoint that a head
//! was opened from. Such a chunk holds the large thing and a place in it; one that is alone in memory holds an
//! allocation of its own in the same way. Refuses chunks that span more time than a head chunk may.

use std::sync::Arc;

use bytes::Bytes;
use koios_chunk::{Chunk, ChunkError, Encoding};

use super::pack::{self, Timed};

/// Bytes that many chunks lie in, with the place of the next one.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) whole: Arc<Bytes>,
    pub(crate) at: u32,
}

/// A closed chunk.
#[derive(Debug)]
pub(crate) struct ClosedChunk {
    pub(crate) min_time: i64,
    /// Where the data is: `len` bytes from `at` on.
    whole: Arc<Bytes>,
    at: u32,
    len: u32,
    /// Last sample's time minus `min_time`; fits because of `BLOCK_RANGE_MAX_MS`.
    span: u32,
    encoding: Encoding,
    mapped: bool,
}

impl ClosedChunk {
    /// With data of its own. `None` when it spans more time than a head chunk may.
    pub(crate) fn new(min_time: i64, max_time: i64, encoding: Encoding, data: Bytes) -> Option<Self> {
        let len = u32::try_from(data.len()).ok()?;
        let span = u32::try_from(max_time.checked_sub(min_time)?).ok()?;
        Some(Self { min_time, whole: Arc::new(data), at: 0, len, span, encoding, mapped: false })
    }

    /// A copy. `None` when it spans more time than a head chunk may.
    pub(crate) fn of(c: &Chunk) -> Option<Self> {
        // The chunk may be a small part of something large.
        Self::new(c.min_time, c.max_time, c.encoding, Bytes::copy_from_slice(&c.data))
    }

    /// Without a copy where the chunk's data is a part of `file`.
    pub(crate) fn within(c: &Chunk, file: &Windows) -> Option<Self> {
        let Some(Stretch { whole, at }) = file.find(&c.data) else { return Self::of(c) };
        let len = u32::try_from(c.data.len()).ok()?;
        let span = u32::try_from(c.max_time.checked_sub(c.min_time)?).ok()?;
        Some(Self { min_time: c.min_time, whole, at, len, span, encoding: c.encoding, mapped: true })
    }

    pub(crate) fn max_time(&self) -> i64 {
        self.min_time + i64::from(self.span)
    }

    pub(crate) fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.min_time <= maxt && mint <= self.max_time()
    }

    /// Whether the data is in memory.
    pub(crate) fn in_memory(&self) -> bool {
        !self.mapped
    }

    /// Bytes on the heap beside the entry itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        if self.mapped { 0 } else { self.len as usize + size_of::<Bytes>() }
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.whole[self.at as usize..][..self.len as usize]
    }

    /// Gives up the own data for a copy of it in something mapped, which is then at the next one's place.
    pub(crate) fn move_to(&mut self, there: &mut Stretch) {
        (self.whole, self.at, self.mapped) = (there.whole.clone(), there.at, true);
        there.at += self.len;
    }

    /// Every sample.
    ///
    /// # Errors
    /// `ChunkError` when it does not decode.
    pub(crate) fn samples(&self) -> Result<Vec<Timed>, ChunkError> {
        pack::samples_of(self.encoding, self.data())
    }

    /// Whether there is a sample at this time; one that does not decode has none.
    pub(crate) fn has(&self, t: i64) -> bool {
        self.overlaps(t, t) && self.samples().is_ok_and(|s| s.iter().any(|(own, _)| *own == t))
    }

    pub(crate) fn to_chunk(&self) -> Chunk {
        let (from, to) = (self.at as usize, self.at as usize + self.len as usize);
        Chunk {
            min_time: self.min_time,
            max_time: self.max_time(),
            encoding: self.encoding,
            data: self.whole.slice(from..to),
        }
    }
}

/// Something mapped of any size, in parts whose places 32 bits can tell.
pub(crate) struct Windows {
    whole: Bytes,
    window: usize,
    parts: Vec<Arc<Bytes>>,
}

/// Length of a part; a chunk begins in it and may end behind.
const WINDOW: usize = 1 << 30;

impl Windows {
    pub(crate) fn new(whole: Bytes) -> Self {
        Self::of(whole, WINDOW)
    }

    fn of(whole: Bytes, window: usize) -> Self {
        let parts = (0..whole.len()).step_by(window).map(|from| Arc::new(whole.slice(from..))).collect();
        Self { whole, window, parts }
    }

    /// Where a slice of the whole lies; `None` when it is none.
    fn find(&self, part: &[u8]) -> Option<Stretch> {
        let offset = (part.as_ptr() as usize).checked_sub(self.whole.as_ptr() as usize)?;
        if offset.checked_add(part.len())? > self.whole.len() {
            return None;
        }
        let whole = self.parts.get(offset / self.window)?.clone();
        Some(Stretch { whole, at: u32::try_from(offset % self.window).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(data: Bytes) -> Chunk {
        Chunk { min_time: 5, max_time: 9, encoding: Encoding::Xor, data }
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<ClosedChunk>(), 32);
    }

    #[test]
    fn parts_of_a_file_are_found_and_others_copied() {
        let file = Bytes::from((0..100u8).collect::<Vec<_>>());
        for window in [7, 100, 1000] {
            let windows = Windows::of(file.clone(), window);
            for from in 0..100 {
                for to in from + 1..=100 {
                    let c = ClosedChunk::within(&chunk(file.slice(from..to)), &windows).unwrap();
                    assert!(c.mapped && c.heap_bytes() == 0);
                    assert_eq!((c.data(), c.to_chunk().data), (&file[from..to], file.slice(from..to)));
                }
            }
            let other = ClosedChunk::within(&chunk(Bytes::from_static(b"other")), &windows).unwrap();
            assert!(other.in_memory() && other.data() == b"other");
        }
        assert!(ClosedChunk::within(&chunk(file), &Windows::new(Bytes::new())).unwrap().in_memory());
    }

    #[test]
    fn too_long_a_time_is_refused() {
        let long = |max_time| Chunk { max_time, min_time: 0, ..chunk(Bytes::from_static(b"x")) };
        assert!(ClosedChunk::of(&long(i64::from(u32::MAX))).is_some());
        assert!(ClosedChunk::of(&long(i64::from(u32::MAX) + 1)).is_none());
    }
}
