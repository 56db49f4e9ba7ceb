//! The table of blocks.

use std::io::Write;

use koios_model::timestamp::civil_from_days;

use super::{ShowError, Shown, go_duration};
use crate::disk::dir_bytes;

const HEAD: [&str; 8] =
    ["BLOCK ULID", "MIN TIME", "MAX TIME", "DURATION", "NUM SAMPLES", "NUM CHUNKS", "NUM SERIES", "SIZE"];
/// Least width of a column and space between columns, as in promtool.
const WIDTH_MIN: usize = 13;
const SPACE: usize = 2;

/// Writes one line a block, oldest first; `human` makes times and sizes readable.
///
/// # Errors
/// `ShowError::Output`.
pub fn ls(shown: &Shown, human: bool, out: &mut dyn Write) -> Result<(), ShowError> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for block in &shown.blocks {
        let m = block.meta();
        let time = |ms: i64| if human { go_time(ms) } else { ms.to_string() };
        let bytes = dir_bytes(block.dir());
        rows.push([
            m.ulid.to_string(),
            time(m.min_time),
            time(m.max_time),
            go_duration(m.max_time - m.min_time),
            m.stats.num_samples.to_string(),
            m.stats.num_chunks.to_string(),
            m.stats.num_series.to_string(),
            if human { base2_bytes(bytes) } else { bytes.to_string() },
        ]);
    }
    let width = |c: usize| {
        let longest = rows.iter().map(|r| r[c].len()).max().unwrap_or(0);
        (longest + SPACE).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(HEAD.len() - 1) {
            write!(out, "{cell:<width$}")?;
        }
        writeln!(out, "{}", row[HEAD.len() - 1])?;
    }
    Ok(())
}

/// A time as promtool prints it, whole seconds: `2023-11-14 22:13:20 +0000 UTC`.
fn go_time(ms: i64) -> String {
    let seconds = ms / 1000;
    let (y, m, d) = civil_from_days(seconds.div_euclid(86_400));
    let s = seconds.rem_euclid(86_400);
    format!("{y:04}-{m:02}-{d:02} {:02}:{:02}:{:02} +0000 UTC", s / 3600, s / 60 % 60, s % 60)
}

/// Bytes with every unit that is not zero: `1MiB23KiB45B`.
fn base2_bytes(bytes: u64) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    for (unit, name) in
        [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")]
    {
        let n = rest >> unit;
        rest -= n << unit;
        if n > 0 {
            out.push_str(&format!("{n}{name}"));
        }
    }
    if out.is_empty() { "0B".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_as_promtool_prints_them() {
        assert_eq!(go_time(1_700_000_000_000), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(go_time(1_700_000_000_010), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(go_time(-1000), "1969-12-31 23:59:59 +0000 UTC");
        assert_eq!(base2_bytes(875), "875B");
        assert_eq!(base2_bytes((3 << 20) + 45), "3MiB45B");
        assert_eq!(base2_bytes(0), "0B");
    }
}
