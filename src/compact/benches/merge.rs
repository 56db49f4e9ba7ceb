//! Time and memory of merging, deduplicating and downsampling blocks.
//!
//! `cargo bench -p koios-compact --bench merge [-- SET [SERIES]]`, where SET is
//! - `small` (when not given): three blocks of two hours one after the other, chunks copied, and the same with a fourth
//!   that overlaps all of them;
//! - `day`: twelve blocks of two hours, 20,000 series, a sample every 15 s (115 million), merged into one, two such
//!   replicas deduplicated, and the merged one downsampled; `KOIOS_BENCH_KEEP=DIR` leaves the sources there for peers;
//! - `million`: eight blocks that overlap, of 1,000,000 series.
//!
//! Ten labels a series. CPU is this process', user and system; memory is what it holds at most that is no file's, and in
//! brackets with mapped files, which the kernel takes back when it needs room; bytes are what system calls read and wrote.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use koios_block::{Block, BlockMeta, BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_compact::downsample::{FIVE_MINUTES, HOUR as ONE_HOUR};
use koios_compact::{CompactError, How, Merge, downsample_block, merge_blocks};
use koios_model::{BlockId, Columns, Labels, SystemClock};

const HOUR: i64 = 3_600_000;

fn labels(i: usize) -> Labels {
    let own: Vec<(String, String)> =
        (0..9).map(|k| (format!("label_{k}"), format!("value-{}", i % (7 << k)))).collect();
    let pairs = own.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let number = format!("metric_{i:08}");
    Labels::from_pairs(pairs.chain([("__name__", number.as_str())]))
}

fn id(n: u64) -> BlockId {
    BlockId::from_parts(n, 0)
}

fn write(dir: &Path, n: u64, series: usize, (from, to): (i64, i64), (offset, step): (i64, i64)) {
    let mut w = BlockWriter::create(dir, id(n)).expect("a block");
    let mut c = Columns::default();
    for i in 0..series {
        c.clear();
        let value = |t: i64| ((t / step * (i as i64 % 13)) % 100_000) as f64 / 8.0;
        (from..to).step_by(step as usize).for_each(|t| c.push(t + offset, value(t)));
        w.add_series(&labels(i), &encode_xor(&c, 120)).expect("a series");
    }
    w.finish(from - from % HOUR, to, BlockMetaExtras::default()).expect("a meta");
}

/// A number of a file below `/proc/self`, by the beginning of its line.
fn said(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Nanoseconds of processor time so far.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = text.rsplit(')').next().unwrap_or_default().to_owned();
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    (field(11) + field(12)) * 10_000_000
}

struct Measure {
    name: &'static str,
    asked: AtomicU64,
    most: AtomicU64,
    resident: AtomicU64,
}

/// Runs one piece of work, which makes blocks, and says what it took.
fn measured(
    name: &'static str,
    work: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> Result<Vec<BlockMeta>, CompactError>,
    samples_in: u64,
) -> Vec<BlockMeta> {
    let (asked, most, resident) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let m = Measure { name, asked, most, resident };
    let look = || {
        if m.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            m.most.fetch_max(said("status", "RssAnon:") << 10, Ordering::Relaxed);
            m.resident.fetch_max(said("status", "VmRSS:") << 10, Ordering::Relaxed);
        }
        false
    };
    let clock = SystemClock::shared();
    let (start, cpu) = (clock.mono_ns(), cpu_ns());
    let (read, wrote) = (said("io", "rchar:"), said("io", "wchar:"));
    let made = work(&look).expect("no fault");
    // What is left to do after the last series (postings) is in here too.
    let peak = m.most.load(Ordering::Relaxed).max(said("status", "RssAnon:") << 10);
    println!(
        "{:>12}: {samples_in} samples, {:.1} ns CPU a sample, {:.1} s, at most {} MiB [{} MiB], wrote {} MiB by calls, read {} MiB",
        m.name,
        (cpu_ns() - cpu) as f64 / samples_in as f64,
        (clock.mono_ns() - start) as f64 / 1e9,
        peak >> 20,
        m.resident.load(Ordering::Relaxed) >> 20,
        (said("io", "wchar:") - wrote) >> 20,
        (said("io", "rchar:") - read) >> 20,
    );
    made
}

fn open(dir: &Path, ids: std::ops::Range<u64>) -> Vec<Block> {
    ids.map(|n| Block::open(&dir.join(id(n).to_string())).expect("opens")).collect()
}

fn merged(name: &'static str, dir: &Path, ids: std::ops::Range<u64>, out: u64, how: How) {
    let blocks = open(dir, ids);
    let samples = blocks.iter().map(|b| b.meta().stats.num_samples).sum();
    let made = measured(
        name,
        |stop| merge_blocks(&blocks, &Merge { how, ..Merge::new(dir, id(out), stop) }),
        samples,
    );
    assert_eq!(made.len(), 1);
}

fn coarse(name: &'static str, dir: &Path, from: u64, out: u64, to: i64) {
    let block = open(dir, from..from + 1).remove(0);
    let samples = block.meta().stats.num_samples;
    let work = |stop: &(dyn Fn() -> bool + Sync)| {
        Ok(downsample_block(&block, to, &Merge::new(dir, id(out), stop))?.into_iter().collect())
    };
    measured(name, work, samples);
}

fn small(dir: &Path, series: usize) {
    (0..3).for_each(|n| write(dir, n as u64, series, (n * 2 * HOUR, (n + 1) * 2 * HOUR), (0, 15_000)));
    write(dir, 3, series, (0, 6 * HOUR), (7, 60_000));
    merged("copied", dir, 0..3, 10, How::Exact);
    merged("overlapping", dir, 0..4, 11, How::Exact);
}

fn day(dir: &Path, series: usize) {
    for n in 0..12 {
        let range = (n * 2 * HOUR, (n + 1) * 2 * HOUR);
        write(dir, n as u64, series, range, (0, 15_000));
    }
    merged("merge", dir, 0..12, 100, How::Exact);
    coarse("to 5m", dir, 100, 101, FIVE_MINUTES);
    coarse("5m to 1h", dir, 101, 102, ONE_HOUR);
    for n in 0..3 {
        let range = (n * 2 * HOUR, (n + 1) * 2 * HOUR);
        write(dir, 20 + n as u64, series, range, (4_200, 15_000));
    }
    for n in 0..3 {
        std::fs::rename(dir.join(id(n).to_string()), dir.join(id(17 + n).to_string())).expect("a name");
        let path = dir.join(id(17 + n).to_string());
        let mut meta = BlockMeta::read(&path).expect("a meta");
        meta.ulid = id(17 + n);
        meta.write(&path).expect("a meta");
    }
    merged("penalty", dir, 17..23, 103, How::Penalty);
    merged("interleaved", dir, 17..23, 104, How::Exact);
}

fn million(dir: &Path, series: usize) {
    (0..8).for_each(|n| write(dir, n as u64, series, (0, 2 * HOUR), (n * 1000, 600_000)));
    merged("million", dir, 0..8, 100, How::Exact);
    let path = dir.join(id(100).to_string());
    Block::open(&path).and_then(|b| b.verify_samples()).expect("verifies");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let series = |default| args.iter().find_map(|a| a.parse().ok()).unwrap_or(default);
    let dir = tempfile::tempdir().expect("a directory");
    let kept = std::env::var_os("KOIOS_BENCH_KEEP").map(PathBuf::from);
    let at = kept.as_deref().unwrap_or(dir.path());
    match args.first().map(String::as_str) {
        Some("day") => day(at, series(20_000)),
        Some("million") => million(at, series(1_000_000)),
        _ => small(at, series(20_000)),
    }
}
