//! Which batches a reader may see.
//!
//! Batches are numbered; one at a time is in flight. A reader notes the newest committed batch and sees nothing
//! later; as long as it runs, series remember what it may not see (`SeriesState::begin_batch`). The lock is held
//! for nanoseconds on both sides. Invariant: a number handed to a reader is committed, and the writer learns of
//! the reader before it begins the batch after next.

use std::collections::BTreeMap;

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct Inner {
    committed: u64,
    /// Running readers by the batch they see.
    readers: BTreeMap<u64, u32>,
}

/// Batch numbers of one shard.
#[derive(Debug, Default)]
pub(crate) struct Isolation(Mutex<Inner>);

/// A running reader.
pub(crate) struct Reader<'a> {
    isolation: &'a Isolation,
    /// The newest batch it sees.
    pub(crate) upto: u64,
}

impl Isolation {
    pub(crate) fn read(&self) -> Reader<'_> {
        let mut inner = self.0.lock();
        let upto = inner.committed;
        *inner.readers.entry(upto).or_default() += 1;
        Reader { isolation: self, upto }
    }

    /// Starts the next batch: its number, and the batch that the most backward reader sees (`u64::MAX` when
    /// nobody reads).
    pub(crate) fn begin(&self) -> (u64, u64) {
        let inner = self.0.lock();
        let oldest = inner.readers.keys().next().copied().unwrap_or(u64::MAX);
        (inner.committed + 1, oldest)
    }

    pub(crate) fn commit(&self, batch: u64) {
        self.0.lock().committed = batch;
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut inner = self.isolation.0.lock();
        if let Some(n) = inner.readers.get_mut(&self.upto) {
            *n -= 1;
            if *n == 0 {
                inner.readers.remove(&self.upto);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_hold_back_what_is_forgotten() {
        let i = Isolation::default();
        assert_eq!(i.begin(), (1, u64::MAX));
        i.commit(1);
        let (a, b) = (i.read(), i.read());
        i.commit(2);
        let c = i.read();
        assert_eq!((a.upto, c.upto, i.begin()), (1, 2, (3, 1)));
        drop(a);
        assert_eq!(i.begin().1, 1);
        drop(b);
        assert_eq!(i.begin().1, 2);
        drop(c);
        assert_eq!(i.begin().1, u64::MAX);
    }
}
