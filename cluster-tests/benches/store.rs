//! Queries over a day in an object store, cold and warm, beside Debian's Prometheus on the same block on its disk.
//!
//! `KOIOS_BIN=<release binary> cargo bench -p koios-cluster-tests --bench store`. `KOIOS_BENCH_SERIES` (default 20000) sizes
//! the block: one day, a sample each 30 s. The store is an S3 server on this machine (moto, slow: wall times of cold questions
//! are mostly its own). A cold question meets an empty cache and nothing opened; a warm one is the least of three more; after
//! that the process starts anew with what is on disk. Memory is how far anonymous memory rises during the question.

#[expect(dead_code, reason = "shared with other benches, which use all of it")]
mod subject;

use std::path::Path;
use std::time::Duration;

use koios_block::meta::ThanosMeta;
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::made::START_MS;
use koios_cluster_tests::peers::{self, S3_SECRET, s3_yaml};
use koios_cluster_tests::recorded::on_object_store;
use koios_cluster_tests::{Api, Node, NodeSpec, scratch, until};
use koios_model::{BlockId, Columns, Labels};
use koios_objstore::transfer::upload_block;
use koios_objstore::{Bucket, BucketConfig};
use subject::{Cost, Running};

const DAY_MS: i64 = 86_400_000;
const INTERVAL_MS: i64 = 30_000;
const WARM: usize = 3;
const QUERIES: [(&str, &str); 3] = [
    ("sum(rate)", "sum(rate(requests_total[5m]))"),
    ("one series", "rate(requests_total{path=\"/b17/items\"}[5m])"),
    ("regexp", "sum(rate(requests_total{path=~\"/[ab][0-9]*7/.*\"}[5m]))"),
];

fn write(dir: &Path, series: i64) -> BlockId {
    std::fs::create_dir_all(dir).expect("directory");
    let id = BlockId::from_parts(START_MS as u64, 7);
    let labels = |i: i64| {
        Labels::from_pairs([
            ("__name__", "requests_total"),
            ("job", &format!("job{}", i % 20)),
            ("instance", &format!("host{}:9100", i / 20)),
            ("path", &format!("/{}{i}/items", ["a", "b", "c", "d"][i as usize % 4])),
        ])
    };
    let mut all: Vec<(Labels, i64)> = (0..series).map(|i| (labels(i), i)).collect();
    all.sort();
    let mut w = BlockWriter::create(dir, id).expect("block writer");
    for (labels, i) in all {
        let mut samples = Columns::default();
        for k in 0..DAY_MS / INTERVAL_MS {
            samples.push(START_MS + k * INTERVAL_MS, (k * (10 + i % 90) + (k * i) % 7) as f64);
        }
        w.add_series(&labels, &encode_xor(&samples, 120)).expect("series");
    }
    let labels = [("replica".to_owned(), "0".to_owned())].into();
    let thanos = ThanosMeta { labels, source: "test".into(), ..ThanosMeta::default() };
    let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
    w.finish(START_MS, START_MS + DAY_MS, extras).expect("finished block");
    id
}

/// Bytes fetched and bytes needed so far.
async fn bytes(api: &Api) -> (f64, f64) {
    let (_, text) = api.get("/metrics", &[]).await.expect("metrics");
    let sum = |name: &str| -> f64 {
        let lines = text.lines().filter(|l| l.starts_with(name));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    (
        sum("koios_store_series_data_size_fetched_bytes_total{"),
        sum("koios_store_series_data_size_touched_bytes_total{"),
    )
}

async fn started(spec: &NodeSpec) -> (Running, Api) {
    let node: Node = spec.start_with(&[(S3_SECRET.0, S3_SECRET.1.to_owned())]);
    node.ready().await;
    let (addr, pid, api) = (node.spec.http(), node.pid(), node.api());
    (Running::over(addr, pid, Box::new(node)), api)
}

async fn ask(running: &Running, query: &str) -> Cost {
    let (start, end) = ((START_MS / 1000).to_string(), ((START_MS + DAY_MS) / 1000 - 60).to_string());
    let params = [("query", query), ("start", &start), ("end", &end), ("step", "300"), ("nocache", "1")];
    running.ask("query_range", &params).await.expect("an answer")
}

async fn least(running: &Running, query: &str) -> Cost {
    let mut best = ask(running, query).await;
    for _ in 1..WARM {
        let next = ask(running, query).await;
        best.cpu_ms = best.cpu_ms.min(next.cpu_ms);
        best.wall_ms = best.wall_ms.min(next.wall_ms);
        best.mib = best.mib.max(next.mib);
    }
    best
}

async fn run(series: i64) {
    let dir = scratch();
    let (data, empty) = (dir.path().join("prometheus"), dir.path().join("empty.yml"));
    std::fs::write(&empty, "global: {evaluation_interval: 1m}\n").expect("configuration");
    let id = write(&data, series);
    let server = peers::s3().await;
    let yaml = s3_yaml(server.port, "");
    let env = |name: &str| (name == S3_SECRET.0).then(|| S3_SECRET.1.to_owned());
    let config = BucketConfig::parse(&yaml, Path::new("."), &env).expect("a good file");
    let bucket = Bucket::open(&config, BlockId::from_parts(1, 1)).await.expect("the bucket opens");
    let size = upload_block(&bucket, &data.join(id.to_string()), id).await.expect("uploaded");
    println!(
        "{series} series x {} samples, {} MiB: CPU ms / wall ms / MiB",
        DAY_MS / INTERVAL_MS,
        size >> 20
    );
    for (n, (name, query)) in QUERIES.iter().enumerate() {
        let root = dir.path().join(format!("koios{n}"));
        std::fs::create_dir_all(&root).expect("directory");
        let spec = on_object_store("store", &root, &yaml);
        let (running, api) = started(&spec).await;
        let cold = ask(&running, query).await;
        let (fetched, needed) = bytes(&api).await;
        let warm = least(&running, query).await;
        let again = bytes(&api).await.0 - fetched;
        drop(running);
        let (running, api) = started(&spec).await;
        let restarted = ask(&running, query).await;
        let after = bytes(&api).await.0;
        drop(running);
        println!(
            "{name:12} koios cold       {cold}   fetched {fetched} of {needed} needed: {:.3}",
            fetched / needed
        );
        println!("{name:12} koios warm       {warm}   fetched {again}");
        println!("{name:12} koios restarted  {restarted}   fetched {after}");
        let process = peers::prometheus(&data, &empty);
        let api = Api::new(([127, 0, 0, 1], process.port).into());
        until("Prometheus is ready", Duration::from_secs(60), || async {
            match api.get("/-/ready", &[]).await? {
                (200, _) => Ok(()),
                (status, _) => Err(status.to_string()),
            }
        })
        .await;
        let (addr, pid) = (([127, 0, 0, 1], process.port).into(), process.pid());
        let running = Running::over(addr, pid, Box::new(process));
        let first = ask(&running, query).await;
        let next = least(&running, query).await;
        println!("{name:12} prometheus first {first}");
        println!("{name:12} prometheus next  {next}");
        println!(
            "{name:12} prometheus / koios: cold CPU {:.2}, warm CPU {:.2}, warm wall {:.2}, memory {:.1}",
            first.cpu_ms / cold.cpu_ms,
            next.cpu_ms / warm.cpu_ms,
            next.wall_ms / warm.wall_ms,
            first.mib / warm.mib.max(0.1),
        );
    }
}

fn main() {
    if !peer("prometheus") || !peer("moto_server") {
        return;
    }
    let series = std::env::var("KOIOS_BENCH_SERIES").unwrap_or_else(|_| "20000".to_owned());
    let series = series.parse().expect("KOIOS_BENCH_SERIES is a number");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(run(series));
}
