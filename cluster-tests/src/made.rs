//! Blocks with known content, and a node that serves them.
//!
//! For tests of queries, where what was scraped when must not matter.

use std::path::Path;
use std::time::Duration;

use koios_block::meta::ThanosMeta;
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_model::{BlockId, Columns, Labels};

use crate::{Node, NodeSpec, until};

/// Start of every made block: a multiple of two hours, ms.
pub const START_MS: i64 = 1_700_006_400_000 / 7_200_000 * 7_200_000;
/// Distance of samples, ms.
pub const INTERVAL_MS: i64 = 15_000;

/// Writes one block of two hours into `dir`; series must come sorted by labels.
pub fn write_block(dir: &Path, series: impl IntoIterator<Item = (Labels, Columns)>) {
    std::fs::create_dir_all(dir).expect("block directory");
    let id = BlockId::from_parts(START_MS as u64, 42);
    let mut w = BlockWriter::create(dir, id).expect("block writer");
    for (labels, columns) in series {
        w.add_series(&labels, &encode_xor(&columns, 120)).expect("series");
    }
    let labels = [("replica".to_owned(), "0".to_owned())].into();
    let thanos = ThanosMeta { labels, source: "test".into(), ..ThanosMeta::default() };
    let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
    w.finish(START_MS, START_MS + 7_200_000, extras).expect("finished block");
}

/// Samples every 15 s from the start of the block.
pub fn samples(n: i64, value: impl Fn(i64) -> f64) -> Columns {
    let mut columns = Columns::default();
    for k in 0..n {
        columns.push(START_MS + k * INTERVAL_MS, value(k));
    }
    columns
}

/// How a node starts that scrapes nothing and serves the blocks in `bucket`. `koios` is the YAML of that section.
pub fn serving(root: &Path, bucket: &Path, koios: &str) -> NodeSpec {
    let (config, objstore) = (root.join("serving.yml"), root.join("serving-bucket.yml"));
    let text = format!("global: {{evaluation_interval: 1m}}\nkoios: {{{koios}}}\n");
    std::fs::write(&config, text).expect("configuration");
    let text = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display());
    std::fs::write(&objstore, text).expect("bucket configuration");
    NodeSpec::new("n", root).config(&config).arg(format!("--objstore.config-file={}", objstore.display()))
}

/// Waits until the node answers from the block: `query` is one number at its middle.
pub async fn served(node: &Node, query: &str) {
    node.ready().await;
    let (api, at) = (node.api(), START_MS as f64 / 1000.0 + 3600.0);
    until("the block is served", Duration::from_secs(30), || api.number(query, at)).await;
}
