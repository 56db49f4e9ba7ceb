//! Deleting from a finished block: tombstones, which readers honour at once and a rewrite makes final.
//!
//! Invariant: a deletion covers data only, so its count says how much there is to gain from writing the block again.
//! The file is replaced in one step; the caller keeps others from merging or deleting in the same block meanwhile.

use koios_block::{Block, BlockMeta, Interval};
use koios_model::Matcher;

use crate::error::CompactError;

/// Deletes what the series that satisfy all matchers of any set have in `mint..=maxt`. Answers how many series had
/// something to delete; with none the block is not touched. Readers see it once they open the block again.
///
/// # Errors
/// `CompactError::Source`; the block then is as it was, but for the count in its meta file.
pub fn delete_from_block(
    block: &Block,
    sets: &[Vec<Matcher>],
    mint: i64,
    maxt: i64,
) -> Result<u64, CompactError> {
    let of = CompactError::of(block.meta().ulid);
    let mut stones = block.tombstones().clone();
    let mut touched = 0;
    for set in sets {
        for number in block.index().select(set).map_err(&of)? {
            let chunks = block.index().series(number).map_err(&of)?.chunks;
            let inside = || chunks.iter().filter(|c| c.min_time <= maxt && mint <= c.max_time);
            let (Some(first), Some(last)) = (inside().next(), inside().next_back()) else { continue };
            let gone = Interval { mint: mint.max(first.min_time), maxt: maxt.min(last.max_time) };
            let known =
                stones.get(u64::from(number)).iter().any(|i| i.mint <= gone.mint && gone.maxt <= i.maxt);
            if !known {
                stones.add(u64::from(number), gone);
                touched += 1;
            }
        }
    }
    if touched > 0 {
        stones.write(block.dir()).map_err(&of)?;
        let mut meta = BlockMeta::read(block.dir()).map_err(&of)?;
        meta.stats.num_tombstones = stones.len() as u64;
        meta.write(block.dir()).map_err(&of)?;
    }
    Ok(touched)
}
