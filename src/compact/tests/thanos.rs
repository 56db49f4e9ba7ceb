//! Beside what Thanos' compactor made of the same samples: downsampled blocks chunk by chunk.

use std::path::{Path, PathBuf};

use koios_block::Block;
use koios_chunk::{Aggregate, Chunk};
use koios_compact::downsample::{FIVE_MINUTES, HOUR, finer};
use koios_compact::{Merge, downsample_block};
use koios_model::{BlockId, Columns};

fn bucket() -> PathBuf {
    let shared = match std::env::var_os("KOIOS_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    shared.join("fixtures/thanos-bucket/bucket")
}

fn blocks() -> Vec<Block> {
    let entries = std::fs::read_dir(bucket()).expect("the fixture");
    let dirs = entries.map(|e| e.unwrap().path()).filter(|p| p.join("meta.json").exists());
    dirs.map(|d| Block::open(&d).unwrap()).collect()
}

fn samples(chunk: &Chunk, which: Aggregate) -> Vec<(i64, f64)> {
    let mut all = Columns::default();
    match which {
        Aggregate::Counter => chunk.read_counter(&mut all).unwrap(),
        _ => {
            let part = chunk.aggregate(which).unwrap();
            part.into_iter().for_each(|p| p.read(i64::MIN, i64::MAX, &mut all).unwrap());
        }
    }
    all.times.into_iter().zip(all.values).collect()
}

#[test]
fn the_same_chunks_as_thanos() {
    let all = blocks();
    let scratch = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for theirs in all.iter().filter(|b| b.meta().resolution() > 0) {
        let to = theirs.meta().resolution();
        let is_source = |b: &&Block| {
            let (a, b) = (b.meta(), theirs.meta());
            a.resolution() == finer(to)
                && a.compaction.sources == b.compaction.sources
                && a.external_labels() == b.external_labels()
        };
        let source = all.iter().find(is_source).unwrap();
        let id = BlockId::from_parts(1, compared);
        let meta = downsample_block(source, to, &Merge::new(scratch.path(), id, &|| false)).unwrap().unwrap();
        let ours = Block::open(&scratch.path().join(id.to_string())).unwrap();
        let (a, b) = (&meta, theirs.meta());
        assert_eq!(
            (a.min_time, a.max_time, a.compaction.level),
            (b.min_time, b.max_time, b.compaction.level)
        );
        assert_eq!(
            (&a.compaction.sources, &a.compaction.parents),
            (&b.compaction.sources, &b.compaction.parents)
        );
        let stats =
            |m: &koios_block::BlockMeta| (m.stats.num_samples, m.stats.num_series, m.stats.num_chunks);
        assert_eq!(stats(a), stats(b));
        let numbers = (ours.index().select(&[]).unwrap(), theirs.index().select(&[]).unwrap());
        assert_eq!(numbers.0.len(), numbers.1.len());
        for (n, m) in numbers.0.into_iter().zip(numbers.1) {
            let ((labels, mine), (of, other)) =
                (ours.series_chunks(n).unwrap(), theirs.series_chunks(m).unwrap());
            assert_eq!(labels, of);
            assert_eq!(mine.len(), other.len(), "{labels}");
            for (x, y) in mine.iter().zip(&other) {
                for which in
                    [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Counter]
                {
                    let (got, want) = (samples(x, which), samples(y, which));
                    let differs = got
                        .iter()
                        .zip(&want)
                        .find(|(a, b)| a.0 != b.0 || (a.1 != b.1 && !(a.1.is_nan() && b.1.is_nan())));
                    assert_eq!((got.len(), None), (want.len(), differs), "{labels} {which:?} of {to}");
                }
                assert_eq!((x.min_time, x.max_time, &x.data), (y.min_time, y.max_time, &y.data), "{labels}");
            }
        }
        compared += 1;
    }
    assert_eq!(compared, 12);
    assert_eq!((finer(FIVE_MINUTES), finer(HOUR)), (0, FIVE_MINUTES));
}
