//! Mutation fuzzers of everything that reads files: own log and checkpoint, foreign log, head chunks, chunks of
//! every encoding, index, tombstones, meta.
//!
//! Seeded and deterministic: a failure names its target and round. One pass over all targets takes a few seconds;
//! `KOIOS_FUZZ_SECONDS=1200` goes on for that long with new seeds. What is asserted is that reading ends, without
//! panic, and that what comes out is bounded by what went in.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use common::{batch, far_clock, new_entry, options};
use koios_block::{BlockMeta, IndexReader, Tombstones, list_blocks};
use koios_chunk::{Chunk, Encoding};
use koios_model::metadata::MetricMetadata;
use koios_model::{Columns, SystemClock};
use koios_model::{Exemplar, Labels, Slot};
use koios_tsdb::foreign::{Log, decode_record, read_head_chunks};
use koios_tsdb::{ExemplarEntry, SeriesKey, Shard, ShardOptions};

/// Rounds of each target in one pass.
const ROUNDS: u64 = 300;
/// A round that takes longer hangs, even on a busy machine.
const HANG: Duration = Duration::from_secs(20);

/// `splitmix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Flips, overwrites, inserts, removes, repeats or cuts, one to four times.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(out.len());
            let len = (1 + self.below(16)).min(out.len() - at);
            match self.below(7) {
                0 if !out.is_empty() => out[at] ^= 1 << self.below(8),
                1 if !out.is_empty() => out[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
                2 => drop(out.splice(at..at, (0..len).map(|_| 0xff))),
                3 => drop(out.drain(at..at + len)),
                4 => {
                    let again = out[at..at + len].to_vec();
                    drop(out.splice(at..at, again));
                }
                5 if self.below(4) == 0 => out.truncate(at),
                _ if !out.is_empty() => out[at] = self.next() as u8,
                _ => {}
            }
        }
        out
    }
}

fn data() -> PathBuf {
    let shared = match std::env::var_os("KOIOS_SHARED") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    shared.join("fixtures/prometheus-data/data")
}

fn snapshot() -> PathBuf {
    let dir = std::fs::read_dir(data().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    list_blocks(&dir).unwrap().remove(0).path
}

/// Runs a target on mutations of its corpus, over and over while time is left.
fn fuzz(name: &str, corpus: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let seconds = std::env::var("KOIOS_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let clock = SystemClock::shared();
    let since = |from: u64| Duration::from_nanos(clock.mono_ns() - from);
    let (start, more) = (clock.mono_ns(), Duration::from_secs(seconds));
    let mut round = 0;
    while round < ROUNDS || since(start) < more {
        let mut random = Random(round);
        let pick = random.below(corpus.len());
        let bytes = random.mutate(&corpus[pick]);
        let began = clock.mono_ns();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&bytes)));
        assert!(outcome.is_ok(), "{name} panics in round {round}");
        assert!(since(began) < HANG, "{name} takes {:?} in round {round}", since(began));
        round += 1;
    }
}

#[test]
fn chunks() {
    let block = koios_block::Block::open(&snapshot()).unwrap();
    let mut corpus: Vec<(Encoding, Vec<u8>)> = Vec::new();
    for series in block.select(&[], i64::MIN, i64::MAX).unwrap() {
        corpus.extend(series.chunks.into_iter().map(|c| (c.encoding, c.data.to_vec())));
    }
    let (floats, histograms): (Vec<_>, Vec<_>) = corpus.into_iter().partition(|(e, _)| *e == Encoding::Xor);
    let corpus: Vec<Vec<u8>> =
        floats.into_iter().take(100).chain(histograms.into_iter().take(100)).map(|(_, b)| b).collect();
    fuzz("chunk", &corpus, |bytes| {
        for encoding in [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram] {
            let data = Bytes::copy_from_slice(bytes);
            let chunk = Chunk { min_time: 0, max_time: 1, encoding, data };
            for range in [(i64::MIN, i64::MAX), (0, 1_795_354_400_000)] {
                let mut out = Columns::default();
                let _ = chunk.read(range.0, range.1, &mut out);
                let held: usize =
                    (0..out.len()).filter_map(|i| out.histogram(i)).map(|h| h.memory_bytes()).sum();
                assert!(out.len() <= bytes.len() * 4 && held <= (1 << 16) + bytes.len() * 2048, "{held}");
            }
        }
    });
}

#[test]
fn index() {
    let whole = std::fs::read(snapshot().join("index")).unwrap();
    fuzz("index", &[whole], |bytes| {
        let Ok(index) = IndexReader::open(Bytes::copy_from_slice(bytes)) else { return };
        let Ok(all) = index.select(&[]) else { return };
        for number in all.into_iter().take(50) {
            let _ = index.series(number);
        }
        for name in index.label_names().iter().take(10) {
            let _ = index.label_values(name);
        }
    });
}

#[test]
fn tombstones_meta_head_chunks_and_records() {
    let mut stones = Tombstones::default();
    (0..50).for_each(|i| stones.add(i, koios_block::Interval { mint: i as i64, maxt: 9 * i as i64 }));
    fuzz("tombstones", &[stones.encode()], |bytes| drop(Tombstones::decode(bytes)));
    let meta = std::fs::read(snapshot().join("meta.json")).unwrap();
    fuzz("meta", &[meta], |bytes| drop(BlockMeta::parse(bytes)));
    let mut head = vec![0x01, 0x30, 0xbc, 0x91, 1, 0, 0, 0];
    for series in 1..20u64 {
        let start = head.len();
        head.extend(series.to_be_bytes());
        head.extend([0; 16]);
        head.extend([1, 3, 0, 0, 0]);
        let crc = koios_block::crc32c(&head[start..]);
        head.extend(crc.to_be_bytes());
    }
    fuzz("head chunks", &[head], |bytes| drop(read_head_chunks(&Bytes::copy_from_slice(bytes))));
    let mut records = vec![vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, b'a', 2, b'x', b'y']];
    for kind in 2..=10u8 {
        let mut record = vec![kind];
        record.extend([0; 15]);
        record.extend([9, 0, 0, 0, 6]);
        record.extend([1; 60]);
        records.push(record);
    }
    fuzz("foreign record", &records, |bytes| drop(decode_record(bytes)));
}

#[test]
fn foreign_log() {
    let whole = std::fs::read(data().join("wal/00000000")).unwrap();
    let corpus = vec![whole[..4 << 15].to_vec()];
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("wal")).unwrap();
    fuzz("foreign log", &corpus, |bytes| {
        std::fs::write(dir.path().join("wal/00000000"), bytes).unwrap();
        let mut log = Log::open(dir.path()).unwrap();
        log.samples(&mut |_, _, _, _| Ok(())).unwrap();
    });
}

#[test]
fn own_log_and_checkpoint() {
    let made = tempfile::tempdir().unwrap();
    let opts = |dir: &Path| ShardOptions { out_of_order_window_ms: 1_000_000, ..options(dir) };
    let (mut shard, _) = Shard::open(opts(made.path()), far_clock()).unwrap();
    let fill = |shard: &mut Shard, times: std::ops::Range<i64>| {
        for t in times {
            let entries = (0..8).map(|n| new_entry(n, t * 1000, (t * n as i64) as f64 * 0.7));
            shard.append(&batch(entries.chain([new_entry(0, t * 1000 - 500, 1.0)]))).unwrap();
            let series = SeriesKey::New(Slot(1), common::labels(1));
            let exemplar = Exemplar { labels: Labels::from_pairs([("id", "x")]), t, v: 1.0 };
            shard.append_exemplars(&[ExemplarEntry { series, exemplar }]).unwrap();
        }
        let said = MetricMetadata { help: "words".to_owned(), ..MetricMetadata::default() };
        shard.append_metadata(&[("metric".to_owned(), said)]).unwrap();
    };
    fill(&mut shard, 0..8);
    shard.begin_checkpoint().unwrap().run().unwrap();
    shard.delete(&[vec![koios_model::Matcher::equal("job", "job1")]], 2000, 3000).unwrap();
    fill(&mut shard, 8..12);
    drop(shard);
    let wal = made.path().join("wal");
    let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&wal)
        .unwrap()
        .map(Result::unwrap)
        .map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).unwrap()))
        .collect();
    assert!(files.len() >= 2, "a checkpoint and a segment");
    let dir = tempfile::tempdir().unwrap();
    // The deletion left a segment that is only a header.
    for broken in (0..files.len()).filter(|i| files[*i].1.len() > 24) {
        fuzz(&files[broken].0, &[files[broken].1.clone()], |bytes| {
            let _ = std::fs::remove_dir_all(dir.path().join("wal"));
            std::fs::create_dir_all(dir.path().join("wal")).unwrap();
            // Half of them with fitting checksums, so that the decoders get to see the damage.
            let bytes = &if bytes.len() % 2 == 0 { repaired(bytes) } else { bytes.to_vec() };
            for (i, (name, whole)) in files.iter().enumerate() {
                std::fs::write(dir.path().join("wal").join(name), if i == broken { bytes } else { whole })
                    .unwrap();
            }
            let (shard, _) = Shard::open(opts(dir.path()), far_clock()).unwrap();
            let Ok(found) = shard.view().select(&[], i64::MIN, i64::MAX) else { return };
            let samples = found.iter().filter_map(|s| s.read(i64::MIN, i64::MAX).ok()).map(|c| c.len());
            assert!(samples.sum::<usize>() <= 200 + bytes.len() * 8);
        });
    }
}

/// With the checksums of all frames that are where they say made to fit.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 24;
    while at + 8 <= out.len() {
        let len = u32::from_le_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]) as usize;
        let Some(payload) = out.get(at + 8..at + 8 + len) else { break };
        let crc = koios_block::crc32c(payload);
        out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at += 8 + len;
    }
    out
}
