//! What `koios tsdb ls|analyze|dump` shows of blocks, in the words and columns of `promtool tsdb list|analyze|dump`.
//!
//! Reads a Prometheus data directory, a data directory of ours (its `bucket` is meant) or any directory of blocks.
//! Blocks only: what is still in a head or a log is not shown. Damaged blocks are named and passed over.

mod analyze;
mod dump;
mod ls;

use std::path::{Path, PathBuf};

use koios_block::{Block, BlockEntry, list_blocks};
use koios_model::BlockId;

pub use analyze::{Analysis, analyze};
pub use dump::{DumpFormat, DumpOptions, dump};
pub use ls::ls;

use crate::error::CompactError;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// A block or the directory.
    #[error(transparent)]
    Blocks(#[from] CompactError),
    /// The output does not take it.
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
    /// The block asked for is not there.
    #[error("block {0} is not in {dir}; fix: `koios tsdb ls` names the blocks", dir = .1.display())]
    NoBlock(String, PathBuf),
}

/// The blocks of a directory.
pub struct Shown {
    /// Where they were found.
    pub dir: PathBuf,
    /// Those that open, by time.
    pub blocks: Vec<Block>,
    /// Those that do not, and why.
    pub damaged: Vec<(BlockId, String)>,
}

/// Opens all blocks below `path`, or below `path/bucket` when that is there.
///
/// # Errors
/// `ShowError::Blocks` when the directory cannot be listed.
pub fn open(path: &Path) -> Result<Shown, ShowError> {
    let bucket = path.join("bucket");
    let dir = if bucket.is_dir() { bucket } else { path.to_path_buf() };
    let (mut blocks, mut damaged) = (Vec::new(), Vec::new());
    for BlockEntry { id, path } in list_blocks(&dir).map_err(CompactError::Output)? {
        match Block::open(&path) {
            Ok(block) => blocks.push(block),
            Err(e) => damaged.push((id, e.to_string())),
        }
    }
    blocks.sort_by_key(|b| (b.meta().min_time, b.meta().ulid));
    Ok(Shown { dir, blocks, damaged })
}

/// Milliseconds as Go prints a duration: `1h0m30.001s`.
pub(crate) fn go_duration(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    while seconds.ends_with('0') {
        seconds.pop();
    }
    let seconds = seconds.trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) if rest < 1000 && rest > 0 => format!("{sign}{rest}ms"),
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::go_duration;

    #[test]
    fn durations_as_go_prints_them() {
        for (ms, want) in [
            (0, "0s"),
            (5, "5ms"),
            (1500, "1.5s"),
            (60_000, "1m0s"),
            (3_630_001, "1h0m30.001s"),
            (7_200_000, "2h0m0s"),
            (1_814_400_000, "504h0m0s"),
            (-1500, "-1.5s"),
        ] {
            assert_eq!(go_duration(ms), want);
        }
    }
}
