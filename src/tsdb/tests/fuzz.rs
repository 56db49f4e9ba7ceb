//! Mutation fuzzers of what reads logs: own log and checkpoint, foreign log and its records, head chunks. Blocks have
//! theirs beside them.
//!
//! Seeded and deterministic: a failure names its target and round. One pass over all targets takes a few seconds;
//! `KOIOS_FUZZ_SECONDS=1200` goes on for that long with new seeds. What is asserted is that reading ends, without
//! panic, and that what comes out is bounded by what went in.

mod common;
#[path = "../../block/tests/fuzzing/mod.rs"]
mod fuzzing;

use std::path::Path;

use bytes::Bytes;
use common::{batch, far_clock, new_entry, options};
use fuzzing::{data, fuzz, fuzz_sealed};
use koios_model::metadata::MetricMetadata;
use koios_model::{Exemplar, Labels, Slot};
use koios_tsdb::foreign::{Log, decode_record, read_head_chunks};
use koios_tsdb::{ExemplarEntry, SeriesKey, Shard, ShardOptions};

#[test]
fn fuzz_head_chunks() {
    let mut made = vec![0x01, 0x30, 0xbc, 0x91, 1, 0, 0, 0];
    for series in 1..20u64 {
        made.extend(series.to_be_bytes());
        made.extend([0; 16]);
        made.extend([1, 3, 0, 0, 0]);
        made.extend([0; 4]);
    }
    seal_head_chunks(&mut made);
    let whole = std::fs::read(data().join("chunks_head/000001")).unwrap();
    let corpus = [made, whole[..whole.len().min(1 << 15)].to_vec()];
    fuzz_sealed(
        "head chunks",
        &corpus,
        |bytes| seal_head_chunks(bytes),
        |bytes| {
            let (chunks, _) = read_head_chunks(&Bytes::copy_from_slice(bytes));
            assert!(chunks.len() <= bytes.len() / 20);
            for found in chunks.into_iter().take(20) {
                let _ = found.chunk.typed();
            }
        },
    );
}

/// Entries: 8 bytes series, 16 bytes times, encoding, uvarint length, data, checksum of all of it.
fn seal_head_chunks(bytes: &mut [u8]) {
    let mut at = 8;
    while at + 26 < bytes.len() {
        let mut rest = &bytes[at + 25..];
        let before = rest.len();
        let Some(len) = koios_chunk::varint::get_uvarint(&mut rest) else { return };
        let end = (at + 25 + before - rest.len()).saturating_add(len as usize);
        if end.saturating_add(4) > bytes.len() {
            return;
        }
        let crc = koios_block::crc32c(&bytes[at..end]).to_be_bytes();
        bytes[end..end + 4].copy_from_slice(&crc);
        at = end + 4;
    }
}

#[test]
fn fuzz_foreign_record() {
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
fn fuzz_foreign_log() {
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
fn fuzz_own_log_and_checkpoint() {
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
