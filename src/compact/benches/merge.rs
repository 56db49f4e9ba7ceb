//! Time and memory of merging blocks.
//!
//! `cargo bench -p koios-compact --bench merge [SERIES]`. Three blocks of two hours one after the other (chunks are
//! copied), then the same three and a block that overlaps all of them at other instants (chunks are encoded again);
//! ten labels a series, a sample every 15 s. Memory is what the process holds at most while series are merged, mapped
//! files left out.

use std::sync::atomic::{AtomicU64, Ordering};

use koios_block::{Block, BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_compact::{Merge, merge_blocks};
use koios_model::{BlockId, Columns, Labels, SystemClock};

const HOUR: i64 = 3_600_000;

fn labels(i: usize) -> Labels {
    let own: Vec<(String, String)> =
        (0..9).map(|k| (format!("label_{k}"), format!("value-{}", i % (7 << k)))).collect();
    let pairs = own.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let number = format!("metric_{i:08}");
    Labels::from_pairs(pairs.chain([("__name__", number.as_str())]))
}

fn write(dir: &std::path::Path, n: u64, series: usize, from: i64, to: i64, step: i64) {
    let mut w = BlockWriter::create(dir, BlockId::from_parts(n, 0)).expect("a block");
    let mut c = Columns::default();
    for i in 0..series {
        c.clear();
        (from..to).step_by(step as usize).for_each(|t| c.push(t, (t / step * (i as i64 % 13)) as f64));
        w.add_series(&labels(i), &encode_xor(&c, 120)).expect("a series");
    }
    w.finish(from - from % HOUR, to, BlockMetaExtras::default()).expect("a meta");
}

/// Resident bytes of this process that are no file's, where the system says.
fn held() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn main() {
    let series = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(20_000);
    let clock = SystemClock::shared();
    let dir = tempfile::tempdir().expect("a directory");
    for n in 0..3 {
        write(dir.path(), n as u64, series, n * 2 * HOUR, (n + 1) * 2 * HOUR, 15_000);
    }
    write(dir.path(), 3, series, 7, 6 * HOUR, 60_000);
    for (name, count) in [("copied", 3), ("overlapping", 4)] {
        let (before, asked, most) = (held(), AtomicU64::new(0), AtomicU64::new(0));
        let blocks: Vec<Block> = (0..count)
            .map(|n| Block::open(&dir.path().join(BlockId::from_parts(n, 0).to_string())).expect("opens"))
            .collect();
        let look = || {
            if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
                most.fetch_max(held(), Ordering::Relaxed);
            }
            false
        };
        let merge = Merge::new(dir.path(), BlockId::from_parts(9 + count, 0), &look);
        let start = clock.mono_ns();
        let meta = merge_blocks(&blocks, &merge).expect("merges").pop().expect("samples");
        let ns = clock.mono_ns() - start;
        let samples = meta.stats.num_samples;
        let verify = clock.mono_ns();
        Block::open(&dir.path().join(meta.ulid.to_string()))
            .and_then(|b| b.verify_samples())
            .expect("verifies");
        println!(
            "{name:>12}: {series} series, {samples} samples, {:.1} s, {:.1} ns a sample, verified in {:.1} s, at most {} MiB (before: {} MiB)",
            ns as f64 / 1e9,
            ns as f64 / samples as f64,
            (clock.mono_ns() - verify) as f64 / 1e9,
            most.load(Ordering::Relaxed) >> 20,
            before >> 20,
        );
    }
}
