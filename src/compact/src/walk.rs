//! Several blocks side by side, series by series in label order.
//!
//! Memory: one series of each block and the order of the selected series numbers. Invariant: labels ascend strictly; a
//! block whose series do not is an error that names it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use koios_block::{Block, BlockError, LastLabels};
use koios_chunk::Chunk;
use koios_model::{Labels, Matcher};

use crate::error::CompactError;

/// A series and, for each block that has it, the block's position and its chunks without what is deleted.
pub type Found = (Labels, Vec<(usize, Vec<Chunk>)>);

/// A walk over blocks.
pub struct Walk<'a> {
    blocks: Vec<&'a Block>,
    numbers: Vec<std::vec::IntoIter<u32>>,
    chunks: Vec<Vec<Chunk>>,
    last: Vec<LastLabels<'a>>,
    queue: BinaryHeap<Reverse<(Labels, usize)>>,
}

impl<'a> Walk<'a> {
    /// Begins before the first series that satisfies all matchers.
    ///
    /// # Errors
    /// `CompactError::Source`.
    pub fn new(blocks: Vec<&'a Block>, matchers: &[Matcher]) -> Result<Self, CompactError> {
        let select = |b: &&Block| {
            b.index().select(matchers).map(Vec::into_iter).map_err(CompactError::of(b.meta().ulid))
        };
        let numbers = blocks.iter().map(select).collect::<Result<Vec<_>, _>>()?;
        let chunks = blocks.iter().map(|_| Vec::new()).collect();
        let last = blocks.iter().map(|_| LastLabels::default()).collect();
        let mut walk = Self { blocks, numbers, chunks, last, queue: BinaryHeap::new() };
        for i in 0..walk.blocks.len() {
            walk.load(i, None)?;
        }
        Ok(walk)
    }

    fn load(&mut self, i: usize, after: Option<&Labels>) -> Result<(), CompactError> {
        let of = CompactError::of(self.blocks[i].meta().ulid);
        let (labels, chunks) = loop {
            let Some(number) = self.numbers[i].next() else { return Ok(()) };
            let found = self.blocks[i].next_series_chunks(number, &mut self.last[i]).map_err(&of)?;
            if let Some(found) = found {
                break found;
            }
        };
        if after.is_some_and(|before| *before >= labels) {
            return Err(of(BlockError::Write(format!(
                "series {labels} does not sort after the one before it"
            ))));
        }
        self.chunks[i] = chunks;
        self.queue.push(Reverse((labels, i)));
        Ok(())
    }

    /// The next series.
    ///
    /// # Errors
    /// `CompactError::Source`.
    pub fn next_series(&mut self) -> Result<Option<Found>, CompactError> {
        let Some(Reverse((labels, first))) = self.queue.pop() else { return Ok(None) };
        let mut holders = vec![first];
        while self.queue.peek().is_some_and(|Reverse((l, _))| *l == labels) {
            holders.extend(self.queue.pop().map(|Reverse((_, i))| i));
        }
        let mut parts = Vec::with_capacity(holders.len());
        for i in holders {
            parts.push((i, std::mem::take(&mut self.chunks[i])));
            self.load(i, Some(&labels))?;
        }
        Ok(Some((labels, parts)))
    }
}
