//! A real Prometheus data directory, taken over: its log into shards, a block cut of it again, and the block that
//! Prometheus itself cut of the same head as the judge.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::far_clock;
use koios_block::meta::ThanosMeta;
use koios_block::{Block, BlockMetaExtras, list_blocks};
use koios_chunk::{Chunk, Encoding, SeriesChunks};
use koios_model::{BlockId, Labels, Slot};
use koios_tsdb::foreign::{Log, Moving, adopt_block, blocks_to_adopt, is_prometheus_dir, read_head_chunks};
use koios_tsdb::{Shard, ShardOptions, cut_block};

fn data() -> PathBuf {
    let shared = match std::env::var_os("KOIOS_SHARED") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    shared.join("fixtures/prometheus-data/data")
}

fn snapshot_dir() -> PathBuf {
    std::fs::read_dir(data().join("snapshots")).unwrap().next().unwrap().unwrap().path()
}

fn by_labels(series: Vec<SeriesChunks>) -> BTreeMap<Labels, Vec<Chunk>> {
    series.into_iter().map(|s| (s.labels, s.chunks)).collect()
}

fn move_in(dir: &Path, shards: u16) -> Vec<Shard> {
    let mut log = Log::open(&data()).unwrap();
    let open = |i| Shard::open(ShardOptions::new(dir.join(format!("s{i}")), i), far_clock()).unwrap().0;
    let mut opened: Vec<Shard> = (0..shards).map(open).collect();
    let count = u64::from(shards);
    let report = Moving {
        shards: &mut opened,
        route: &|_, labels| (labels.hash64() % count) as usize,
        out_dir: dir,
        range_ms: 7_200_000,
        extras: BlockMetaExtras::default(),
    }
    .run(&mut log)
    .unwrap();
    assert!(log.report.damaged.is_empty() && log.report.unknown_records == 0, "{:?}", log.report);
    assert_eq!((report.into_blocks, report.contradictions, report.blocks.len()), (0, 0, 0), "{report:?}");
    assert_eq!(report.into_head, log.report.samples);
    assert!(log.report.samples >= 323_456, "{:?}", log.report);
    opened
}

/// The same chunks in the same order, byte for byte: the head closed them where Prometheus did.
#[test]
fn the_log_cuts_into_the_block_that_prometheus_cut() {
    assert!(is_prometheus_dir(&data()) && is_prometheus_dir(&snapshot_dir()));
    let entry = list_blocks(&snapshot_dir()).unwrap().remove(0);
    let theirs = Block::open(&entry.path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let shards = move_in(dir.path(), 2);
    let views: Vec<_> = shards.iter().map(Shard::view).collect();
    let (mint, maxt) = (theirs.meta().min_time, theirs.meta().max_time);
    let id = BlockId::from_parts(1, 1);
    let meta = cut_block(&views, Slot(0), mint, maxt, dir.path(), id, BlockMetaExtras::default());
    let meta = meta.unwrap().unwrap();
    assert_eq!(meta.stats, theirs.meta().stats);
    let index = |block: &Path| std::fs::read(block.join("index")).unwrap();
    assert!(index(&dir.path().join(id.to_string())) == index(&entry.path), "the index, byte for byte");
    let ours = Block::open(&dir.path().join(id.to_string())).unwrap();
    let all = |b: &Block| by_labels(b.select(&[], i64::MIN, i64::MAX).unwrap());
    let (ours, theirs) = (all(&ours), all(&theirs));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let mut later_flags = Vec::new();
    for (labels, want) in &theirs {
        let got = &ours[labels];
        assert_eq!(got.len(), want.len(), "{labels}");
        for (n, (a, b)) in got.iter().zip(want).enumerate() {
            assert_eq!(
                (a.min_time, a.max_time, a.encoding),
                (b.min_time, b.max_time, b.encoding),
                "{labels}"
            );
            // A snapshot encodes the open chunk anew and forgets what its flags said.
            let flags = usize::from(n > 0 && n + 1 == want.len() && b.encoding == Encoding::Histogram);
            let same = a.data[..2] == b.data[..2] && a.data[2 + flags..] == b.data[2 + flags..];
            assert!(same, "{labels} at {}: {:x?} for {:x?}", a.min_time, a.data, b.data);
            later_flags
                .extend((n > 0 && flags == 0 && b.encoding == Encoding::Histogram).then_some(b.data[2]));
        }
    }
    let files = |p: &Path, f: &str| std::fs::read(p.join(f)).unwrap();
    let own = files(&dir.path().join(id.to_string()), "index");
    assert!(own == files(&entry.path, "index"), "index differs");
    assert_eq!(later_flags, [0x40, 0x40], "chunks closed by size say that nothing was reset");
}

/// This head had closed no chunk long enough for Prometheus to map it: the file is all header.
#[test]
fn head_chunks_of_the_directory_are_read() {
    let path = data().join("chunks_head/000001");
    let (chunks, bad) = read_head_chunks(&std::fs::read(path).unwrap().into());
    assert_eq!((chunks.len(), bad), (0, None));
}

#[test]
fn blocks_are_adopted_by_link_and_keep_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, damaged) = blocks_to_adopt(&snapshot_dir()).unwrap();
    assert!(sound.len() == 1 && damaged.is_empty());
    let labels = BTreeMap::from([("replica".to_owned(), "0".to_owned())]);
    let thanos = ThanosMeta { labels, source: "koios".to_owned(), ..ThanosMeta::default() };
    for _ in 0..2 {
        let at = adopt_block(&sound[0], dir.path(), &thanos).unwrap();
        let block = Block::open(&at).unwrap();
        assert_eq!((block.meta().ulid, block.meta().slot()), (sound[0].id, Slot(0)));
        let before = Block::open(&sound[0].path).unwrap();
        assert_eq!(block.meta().stats, before.meta().stats);
        assert!(before.meta().thanos.is_none(), "the original is untouched");
        assert_eq!(block.verify().unwrap(), before.verify().unwrap());
    }
}
