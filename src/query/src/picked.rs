//! Series that the engine reads one by one where they lie, instead of getting a list of all of them.
//!
//! When all of an answer comes from one block of this node, nothing has to be merged, and the list of series is a list
//! of numbers. Owns that case; everything else is `merge`. Invariant: what is read is what the list would have given,
//! in the same order. Damage is found only while the engine reads; the front then asks once more for lists, and
//! whoever makes them says what is missing.

use koios_block::{BlockError, Cursor};
use koios_chunk::SeriesChunks;
use koios_model::{Columns, Labels};
use koios_promql::{SeriesReader, SeriesSet};
use koios_store::served::SharedBlock;

use crate::merge::MergedSeries;

/// Some series of one block; there may be some without samples among them.
#[derive(Clone, Debug)]
pub struct Picked {
    block: SharedBlock,
    /// Numbers of the series, in label order.
    numbers: Vec<u32>,
    /// First and last sample time that was asked for.
    range: (i64, i64),
}

impl Picked {
    /// The series of these numbers, as far as their chunks overlap the inclusive range. The block must not add labels
    /// to them.
    pub fn new(block: SharedBlock, numbers: Vec<u32>, range: (i64, i64)) -> Self {
        Self { block, numbers, range }
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The same as a list.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn into_list(self) -> Result<Vec<SeriesChunks>, BlockError> {
        let block = self.block.block();
        let mut cursor = block.cursor(None);
        let mut list = Vec::new();
        for &number in &self.numbers {
            cursor.go_to(number, self.range.0, self.range.1)?;
            let chunks = cursor.chunks()?;
            if !chunks.is_empty() {
                list.push(SeriesChunks { labels: cursor.labels()?, slot: block.slot(), chunks });
            }
        }
        Ok(list)
    }
}

impl SeriesSet for Picked {
    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn is_sorted(&self) -> bool {
        true
    }

    fn reader<'a>(&'a self, labels: Option<&'a [String]>) -> Box<dyn SeriesReader + 'a> {
        Box::new(Reader { picked: self, cursor: self.block.block().cursor(labels) })
    }
}

struct Reader<'a> {
    picked: &'a Picked,
    cursor: Cursor<'a>,
}

impl Reader<'_> {
    fn try_read(
        &mut self,
        at: usize,
        (mint, maxt): (i64, i64),
        out: &mut Columns,
    ) -> Result<Labels, Box<dyn std::error::Error>> {
        self.cursor.go_to(self.picked.numbers[at], mint, maxt)?;
        if !self.cursor.has_chunks() {
            return Ok(Labels::empty());
        }
        let labels = self.cursor.labels()?;
        if !self.cursor.read(mint, maxt, out)? {
            let (slot, chunks) = (self.picked.block.block().slot(), self.cursor.chunks()?);
            let mut series = MergedSeries::from(SeriesChunks { labels: labels.clone(), slot, chunks });
            series.seal();
            series.read(mint, maxt, out)?;
        }
        Ok(labels)
    }
}

impl SeriesReader for Reader<'_> {
    fn labels(&mut self, at: usize) -> Result<Labels, String> {
        let (mint, maxt) = self.picked.range;
        let labels = self.cursor.go_to(self.picked.numbers[at], mint, maxt);
        labels.and_then(|()| self.cursor.labels()).map_err(|e| e.to_string())
    }

    fn read(&mut self, at: usize, mint: i64, maxt: i64, out: &mut Columns) -> Result<Labels, String> {
        self.try_read(at, (mint, maxt), out).map_err(|e| e.to_string())
    }
}
