//! Mutation fuzzers of everything that reads a block's files: index, chunk segments, chunks of every encoding,
//! tombstones, meta.
//!
//! What is asserted is that reading ends, without panic, and that what comes out is bounded by what went in. Half of
//! the inputs get right checksums again after the mutation, so that the readers behind them are reached.

mod fuzzing;

use bytes::Bytes;
use fuzzing::{fuzz, fuzz_sealed, snapshot};
use koios_block::{
    Block, BlockMeta, ChunkRef, IndexReader, IndexWriter, Interval, LastLabels, SegmentReader, SegmentWriter,
    Tombstones, crc32c,
};
use koios_chunk::{Chunk, Encoding};
use koios_model::{Columns, Labels, MatchType, Matcher};

/// All chunks of the snapshot, floats and histograms apart, a hundred each.
fn chunks() -> Vec<Chunk> {
    let block = Block::open(&snapshot()).unwrap();
    let all = block.select(&[], i64::MIN, i64::MAX).unwrap().into_iter().flat_map(|s| s.chunks);
    let (floats, histograms): (Vec<_>, Vec<_>) = all.partition(|c| c.encoding == Encoding::Xor);
    floats.into_iter().take(100).chain(histograms.into_iter().take(100)).collect()
}

#[test]
fn fuzz_chunk() {
    let corpus: Vec<Vec<u8>> = chunks().into_iter().map(|c| c.data.to_vec()).collect();
    fuzz("chunk", &corpus, |bytes| {
        for encoding in [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram, Encoding::Xor2] {
            let chunk = Chunk { min_time: 0, max_time: 1, encoding, data: Bytes::copy_from_slice(bytes) };
            for range in [(i64::MIN, i64::MAX), (0, 1_795_354_400_000)] {
                let mut out = Columns::default();
                let _ = chunk.read(range.0, range.1, &mut out);
                let held: usize =
                    (0..out.len()).filter_map(|i| out.histogram(i)).map(|h| h.memory_bytes()).sum();
                assert!(out.len() <= bytes.len() * 4 && held <= (1 << 16) + bytes.len() * 2048, "{held}");
            }
            let _ = chunk.typed();
            let _ = chunk.retain(|t| t % 2 == 0);
        }
    });
}

#[test]
fn fuzz_chunk_segment() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("chunks")).unwrap();
    let mut w = SegmentWriter::new(dir.path(), None);
    let refs: Vec<ChunkRef> = chunks().iter().take(20).map(|c| w.add(c).unwrap()).collect();
    w.finish().unwrap();
    let whole = std::fs::read(dir.path().join("chunks/000001")).unwrap();
    let seal = |bytes: &mut Vec<u8>| {
        refs.iter().for_each(|at| seal_varint_framed(bytes, at.reference as usize, 1));
    };
    fuzz_sealed("chunk segment", &[whole], seal, |bytes| {
        let Ok(reader) = SegmentReader::from_bytes(vec![Bytes::copy_from_slice(bytes)]) else { return };
        for at in &refs {
            if let Ok(chunk) = reader.chunk(at) {
                let _ = chunk.typed();
            }
        }
    });
}

fn be32(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*word)).ok()
}

/// Sets the checksum behind `from..end` right, if it is in the file.
fn seal_range(bytes: &mut [u8], from: usize, end: usize) {
    if from <= end && end.saturating_add(4) <= bytes.len() {
        let crc = crc32c(&bytes[from..end]).to_be_bytes();
        bytes[end..end + 4].copy_from_slice(&crc);
    }
}

/// Content behind a four byte length; answers where it ends with its checksum.
fn seal_framed(bytes: &mut [u8], at: usize) -> Option<usize> {
    let end = (at + 4).checked_add(be32(bytes, at)?)?;
    seal_range(bytes, at + 4, end);
    (end + 4 <= bytes.len()).then_some(end + 4)
}

/// Content behind a varint length, `more` bytes longer than that says.
fn seal_varint_framed(bytes: &mut [u8], at: usize, more: usize) {
    let Some(mut rest) = bytes.get(at..) else { return };
    let before = rest.len();
    let Some(len) = koios_chunk::varint::get_uvarint(&mut rest) else { return };
    let from = at + before - rest.len();
    seal_range(bytes, from, from.saturating_add(len as usize).saturating_add(more));
}

/// Sets every checksum of an index right that its table of contents and `series` lead to.
fn seal_index(bytes: &mut [u8], series: &[usize]) {
    let Some(toc) = bytes.len().checked_sub(52) else { return };
    seal_range(bytes, toc, toc + 48);
    let offset = |bytes: &[u8], i: usize| be32(bytes, toc + 8 * i + 4).unwrap_or(usize::MAX);
    let (symbols, postings, table) = (offset(bytes, 0), offset(bytes, 4), offset(bytes, 5));
    for at in [symbols, table] {
        if at < bytes.len() {
            seal_framed(bytes, at);
        }
    }
    series.iter().for_each(|&at| seal_varint_framed(bytes, at, 0));
    let mut at = postings;
    while at < table.min(bytes.len()) {
        let Some(end) = seal_framed(bytes, at) else { break };
        at = end.div_ceil(4) * 4;
    }
}

fn read_index(bytes: &[u8]) {
    let Ok(index) = IndexReader::open(Bytes::copy_from_slice(bytes)) else { return };
    if let Ok(all) = index.select(&[]) {
        assert!(all.len() <= bytes.len() / 4);
        let mut last = LastLabels::default();
        for number in all.into_iter().take(50) {
            let alone = index.series(number).ok();
            let after = index.series_in_range(number, i64::MIN, i64::MAX, &mut Vec::new(), &mut last);
            if let (Some(alone), Ok(Some(labels))) = (alone, after) {
                assert_eq!(alone.labels, labels, "labels do not depend on what was read before");
            }
        }
    }
    for name in index.label_names().iter().take(10) {
        let _ = index.label_values(name);
        for (kind, value) in
            [(MatchType::Equal, "v3"), (MatchType::Regex, "v1.*"), (MatchType::NotRegex, "v[12]")]
        {
            let _ = index.select(&[Matcher::new(kind, name.clone(), value).unwrap()]);
        }
    }
}

fn small_index() -> (Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let mut w = IndexWriter::create(dir.path()).unwrap();
    for i in 0..40i64 {
        let (a, b) = (format!("v{i:02}"), format!("v{}", i % 4));
        let chunk = |k: i64| ChunkRef {
            min_time: i + k * 100,
            max_time: i + k * 100 + 50,
            reference: 8 + (i * 3 + k) as u64 * 90,
        };
        w.add_series(&Labels::from_pairs([("a", a.as_str()), ("b", &b)]), &[chunk(0), chunk(1), chunk(2)])
            .unwrap();
    }
    w.finish().unwrap();
    let bytes = std::fs::read(dir.path().join("index")).unwrap();
    let index = IndexReader::open(Bytes::copy_from_slice(&bytes)).unwrap();
    let series = index.select(&[]).unwrap().into_iter().map(|n| n as usize * 16).collect();
    (bytes, series)
}

#[test]
fn fuzz_index() {
    let (small, series) = small_index();
    let mut first = small.clone();
    first[4] = 1;
    let corpus = [small, first, std::fs::read(snapshot().join("index")).unwrap()];
    fuzz_sealed("index", &corpus, |bytes| seal_index(bytes, &series), read_index);
}

#[test]
fn fuzz_tombstones() {
    let mut stones = Tombstones::default();
    (0..40).for_each(|i| stones.add(i, Interval { mint: i as i64 * 7, maxt: 9 * i as i64 }));
    let seal = |bytes: &mut Vec<u8>| {
        let end = bytes.len().saturating_sub(4);
        seal_range(bytes, 5, end);
    };
    fuzz_sealed("tombstones", &[stones.encode()], seal, |bytes| {
        if let Ok(stones) = Tombstones::decode(bytes) {
            assert!(stones.len() <= bytes.len());
            assert_eq!(Tombstones::decode(&stones.encode()).unwrap(), stones);
        }
    });
}

#[test]
fn fuzz_meta() {
    let plain = std::fs::read(snapshot().join("meta.json")).unwrap();
    let mut rich = BlockMeta::parse(&plain).unwrap();
    rich.thanos = Some(koios_block::meta::ThanosMeta {
        labels: [("cluster".to_owned(), "x".to_owned())].into(),
        source: "test".to_owned(),
        ..Default::default()
    });
    fuzz("meta", &[plain, rich.to_json()], |bytes| {
        if let Ok(meta) = BlockMeta::parse(bytes) {
            assert_eq!(BlockMeta::parse(&meta.to_json()).unwrap(), meta);
            let _ = (meta.supersedes(&meta), meta.slot(), meta.overlaps(i64::MIN, i64::MAX));
        }
    });
}
