//! A bucket of 10,000 small blocks: the node is ready soon, sooner the second time, stays small, and opens what it needs.

use std::path::Path;
use std::time::{Duration, Instant};

use koios_block::meta::{BlockMeta, ThanosMeta};
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_cluster_tests::made::serving;
use koios_cluster_tests::{Node, scratch};
use koios_model::{BlockId, Columns, Labels};

const BLOCKS: i64 = 10_000;
const RANGE_MS: i64 = 7_200_000;
const START_MS: i64 = 1_600_000_000_000 / RANGE_MS * RANGE_MS;
/// Blocks of one day.
const DAY: i64 = 12;
const PEAK_BYTES: u64 = 300 << 20;

/// Every block has a sample in the middle. A day's blocks are real; the others are a description only: an answer for which
/// one of them had been opened would say what it lacks.
fn fill(bucket: &Path, day: i64) {
    std::fs::create_dir_all(bucket).expect("bucket");
    let mut template: Option<BlockMeta> = None;
    for n in 0..BLOCKS {
        let (id, mint) =
            (BlockId::from_parts((START_MS + n * RANGE_MS) as u64, n as u128), START_MS + n * RANGE_MS);
        let dir = bucket.join(id.to_string());
        match &template {
            Some(meta) if !(day..day + DAY).contains(&n) => {
                let mut meta = meta.clone();
                (meta.ulid, meta.min_time, meta.max_time) = (id, mint, mint + RANGE_MS);
                meta.compaction.sources = vec![id];
                std::fs::create_dir_all(&dir).expect("directory");
                std::fs::write(dir.join("meta.json"), meta.to_json()).expect("meta.json");
            }
            _ => {
                let mut samples = Columns::default();
                samples.push(mint + RANGE_MS / 2, n as f64);
                let mut w = BlockWriter::create(bucket, id).expect("block writer");
                let labels = Labels::from_pairs([("__name__", "small")]);
                w.add_series(&labels, &encode_xor(&samples, 120)).expect("series");
                let labels = [("replica".to_owned(), "0".to_owned())].into();
                let thanos = ThanosMeta { labels, source: "test".into(), ..ThanosMeta::default() };
                let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
                let meta = w.finish(mint, mint + RANGE_MS, extras).expect("finished block");
                template.get_or_insert(meta);
            }
        }
    }
}

async fn metric(node: &Node, name: &str) -> f64 {
    let (_, text) = node.api().get("/metrics", &[]).await.expect("metrics");
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name}")).trim().parse().expect("a number")
}

#[tokio::test]
async fn ten_thousand_blocks_are_listed_and_not_opened() {
    let dir = scratch();
    let (bucket, day) = (dir.path().join("shared"), 5000);
    fill(&bucket, day);
    let spec = serving(dir.path(), &bucket, "cluster: {name: many}");
    let mut took = Vec::new();
    for _ in 0..2 {
        let begun = Instant::now();
        let mut node = spec.start();
        node.ready().await;
        took.push(begun.elapsed());
        assert_eq!(
            metric(&node, "koios_bucket_blocks").await,
            BLOCKS as f64,
            "ready is: the bucket was read"
        );
        assert_eq!(metric(&node, "koios_store_blocks_opened_total").await, 0.0, "nobody asked for one");
        let end = (START_MS + (day + DAY) * RANGE_MS) as f64 / 1000.0 - 1.0;
        let found = node.api().number("count_over_time(small[86390s])", end).await;
        assert_eq!(found, Ok(DAY as f64));
        let opened = metric(&node, "koios_store_blocks_opened_total").await;
        assert!(
            (DAY as f64..=DAY as f64 + 1.0).contains(&opened),
            "{opened} blocks opened for a day of {DAY}"
        );
        let peak = node.peak_memory();
        eprintln!("ready after {:?}, peak {} MiB", took.last(), peak >> 20);
        assert!(peak < PEAK_BYTES, "{} MiB", peak >> 20);
        node.kill();
    }
    let (cold, warm) = (took[0], took[1]);
    assert!(cold < COLD && warm < WARM, "ready after {cold:?}, again after {warm:?}");
}

/// As promised for a release build, times what a development build on a busy machine may take longer.
const COLD: Duration = Duration::from_secs(if cfg!(debug_assertions) { 40 } else { 10 });
const WARM: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
