//! The texts of several blocks as one sorted list, and the writer that needs it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use koios_block::{Block, BlockError, BlockWriter};

use crate::error::CompactError;
use crate::merge::Merge;

/// Begins output `number` of a merge. Blocks of index version 1 do not sort their texts, so that the writer has to.
///
/// # Errors
/// `CompactError`.
pub(crate) fn writer(
    blocks: &[&Block],
    merge: &Merge<'_>,
    number: usize,
) -> Result<BlockWriter, CompactError> {
    let id = crate::merge::output_id(merge.id, number);
    let sources: Option<Vec<_>> = blocks.iter().map(|b| b.index().texts()).collect();
    Ok(match sources {
        Some(sources) => BlockWriter::create_sorted(merge.parent, id, Merged::new(sources))?,
        None => BlockWriter::create(merge.parent, id)?,
    })
}

/// Sorted lists as one, each text once.
struct Merged<'a, I> {
    sources: Vec<I>,
    heads: BinaryHeap<Reverse<(&'a str, usize)>>,
    failed: Option<BlockError>,
    last: Option<&'a str>,
}

impl<'a, I: Iterator<Item = Result<&'a str, BlockError>>> Merged<'a, I> {
    fn new(sources: Vec<I>) -> Self {
        let mut merged = Self { sources, heads: BinaryHeap::new(), failed: None, last: None };
        (0..merged.sources.len()).for_each(|n| merged.load(n));
        merged
    }

    fn load(&mut self, n: usize) {
        match self.sources[n].next() {
            Some(Ok(text)) => self.heads.push(Reverse((text, n))),
            Some(Err(e)) => self.failed = Some(e),
            None => {}
        }
    }
}

impl<'a, I: Iterator<Item = Result<&'a str, BlockError>>> Iterator for Merged<'a, I> {
    type Item = Result<&'a str, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(e) = self.failed.take() {
                return Some(Err(e));
            }
            let Reverse((text, n)) = self.heads.pop()?;
            self.load(n);
            if self.last != Some(text) {
                self.last = Some(text);
                return Some(Ok(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_once_in_order() {
        let lists: Vec<Vec<&str>> = vec![vec!["", "a", "c"], vec!["b", "c", "d"], vec![]];
        let merged = Merged::new(lists.into_iter().map(|l| l.into_iter().map(Ok)).collect());
        assert_eq!(merged.map(Result::unwrap).collect::<Vec<_>>(), ["", "a", "b", "c", "d"]);
    }
}
