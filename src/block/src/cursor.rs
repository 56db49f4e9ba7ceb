//! Series of a block that are read when somebody looks at them.
//!
//! A query over very many series must not hold them all: it picks their numbers, four bytes each, and then reads one
//! after the other through a cursor. Owns that way of reading; what it gives is what `Block::select` gives. Invariant: nothing
//! is handed out that has not passed its checksum.

use koios_chunk::{Chunk, read_samples};
use koios_model::{Columns, Labels, Matcher};

use crate::block::Block;
use crate::error::BlockError;
use crate::index::{ChunkRef, LabelsAt, LastLabels};
use crate::tombstones::Interval;

impl Block {
    /// Numbers of the series that satisfy all matchers, in label order; none when the block has nothing in
    /// `mint..=maxt`. Series without chunks in that range may be among them, see `retain_in_range`.
    ///
    /// # Errors
    /// `BlockError` for the first damage met.
    pub fn pick(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<u32>, BlockError> {
        if !self.meta().overlaps(mint, maxt) {
            return Ok(Vec::new());
        }
        self.index().select(matchers)
    }

    /// Leaves of picked series those that `select` would answer. Chunks are not looked at.
    ///
    /// # Errors
    /// `BlockError` for the first damage met.
    pub fn retain_in_range(&self, numbers: &mut Vec<u32>, mint: i64, maxt: i64) -> Result<(), BlockError> {
        let mut refs = Vec::new();
        let mut kept = 0;
        for i in 0..numbers.len() {
            let number = numbers[i];
            self.index().chunks_in_range(number, (mint, maxt), &mut refs)?;
            let deleted = self.tombstones().get(u64::from(number));
            if refs.iter().any(|at| !is_covered(at, deleted)) {
                numbers[kept] = number;
                kept += 1;
            }
        }
        numbers.truncate(kept);
        Ok(())
    }

    /// Bytes of the chunks of some series that overlap `mint..=maxt`. Chunks are only measured, not read.
    ///
    /// # Errors
    /// `BlockError` for the first damage met.
    pub fn picked_bytes(&self, numbers: &[u32], mint: i64, maxt: i64) -> Result<u64, BlockError> {
        let (mut refs, mut sum) = (Vec::new(), 0u64);
        for &number in numbers {
            self.index().chunks_in_range(number, (mint, maxt), &mut refs)?;
            for at in &refs {
                sum = sum.saturating_add(self.segments().data_len(at)?);
            }
        }
        Ok(sum)
    }

    /// A cursor at no series yet, which reads only labels of these names; `None` means all.
    pub fn cursor<'a>(&'a self, wanted: Option<&'a [String]>) -> Cursor<'a> {
        Cursor { block: self, number: 0, labels: None, refs: Vec::new(), last: LastLabels::only(wanted) }
    }
}

fn is_covered(at: &ChunkRef, deleted: &[Interval]) -> bool {
    deleted.iter().any(|i| i.mint <= at.min_time && at.max_time <= i.maxt)
}

/// Reads series of a block, one after the other.
pub struct Cursor<'a> {
    block: &'a Block,
    number: u32,
    labels: Option<LabelsAt<'a>>,
    refs: Vec<ChunkRef>,
    last: LastLabels<'a>,
}

impl Cursor<'_> {
    /// Goes to a series, of which only the chunks that overlap `mint..=maxt` count.
    ///
    /// # Errors
    /// `BlockError` when its entry is damaged.
    pub fn go_to(&mut self, number: u32, mint: i64, maxt: i64) -> Result<(), BlockError> {
        self.labels = None;
        let labels = self.block.index().chunks_in_range(number, (mint, maxt), &mut self.refs)?;
        (self.number, self.labels) = (number, Some(labels));
        Ok(())
    }

    /// Whether the series has a chunk that counts.
    pub fn has_chunks(&self) -> bool {
        !self.refs.is_empty()
    }

    /// Whether all chunks that count are deleted.
    pub fn is_deleted(&self) -> bool {
        let deleted = self.block.tombstones().get(u64::from(self.number));
        self.refs.iter().all(|at| is_covered(at, deleted))
    }

    /// Labels of the series.
    ///
    /// # Errors
    /// `BlockError` when they are damaged.
    pub fn labels(&mut self) -> Result<Labels, BlockError> {
        match self.labels {
            Some(at) => self.block.index().labels_at(at, &mut self.last),
            None => Ok(Labels::empty()),
        }
    }

    /// Appends the samples of the series with `mint <= t <= maxt` to `out`; false, and nothing appended, when its chunks
    /// overlap each other or parts of them are deleted, and `chunks` must be asked.
    ///
    /// # Errors
    /// `BlockError` when a chunk is damaged.
    pub fn read(&self, mint: i64, maxt: i64, out: &mut Columns) -> Result<bool, BlockError> {
        let follows = |w: &[ChunkRef]| w[0].max_time < w[1].min_time;
        if !self.refs.windows(2).all(follows)
            || !self.block.tombstones().get(u64::from(self.number)).is_empty()
        {
            return Ok(false);
        }
        for at in &self.refs {
            let (encoding, data) = self.block.segments().data(at)?;
            read_samples(encoding, data, (at.min_time, at.max_time), (mint, maxt), out)
                .map_err(|source| BlockError::Chunk { reference: at.reference, source })?;
        }
        Ok(true)
    }

    /// The chunks of the series, whole but for what is deleted.
    ///
    /// # Errors
    /// `BlockError` when a chunk is damaged.
    pub fn chunks(&self) -> Result<Vec<Chunk>, BlockError> {
        self.block.read_chunks(self.number, &self.refs)
    }
}
