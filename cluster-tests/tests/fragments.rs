//! Fragments between real processes over one shared bucket: rows instead of chunks, small parts instead of large
//! answers, and blocks of a node that stands still from another one.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use koios_block::meta::ThanosMeta;
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_cluster_tests::made::START_MS;
use koios_cluster_tests::{Api, Node, NodeSpec, scratch, until};
use koios_model::{BlockId, Columns, Labels};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;
const SERIES: i64 = 40;

/// One block for each of `hours` hours.
fn fill(bucket: &Path, hours: i64) {
    std::fs::create_dir_all(bucket).expect("bucket");
    for hour in 0..hours {
        let from = START_MS + hour * HOUR;
        let id = BlockId::from_parts(from as u64, 7);
        let mut w = BlockWriter::create(bucket, id).expect("block writer");
        let mut all: Vec<(Labels, Columns)> = (0..SERIES)
            .map(|n| {
                let (job, n_text) = (format!("j{}", n % 4), n.to_string());
                let pairs = [("__name__", "made_total"), ("job", job.as_str()), ("n", n_text.as_str())];
                let mut columns = Columns::default();
                for k in 0..240 {
                    columns.push(from + k * 15_000, ((hour * 240 + k) * (n + 1)) as f64 / 7.0);
                }
                (Labels::from_pairs(pairs), columns)
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.iter().for_each(|(l, c)| w.add_series(l, &encode_xor(c, 120)).expect("series"));
        let labels = [("replica".to_owned(), "0".to_owned())].into();
        let thanos = ThanosMeta { labels, source: "test".into(), ..ThanosMeta::default() };
        let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
        w.finish(from, from + HOUR, extras).expect("finished block");
    }
}

/// Three nodes over one bucket; `query` is the YAML of that section on each.
async fn three(dir: &Path, hours: i64, query: [&str; 3]) -> Vec<Node> {
    let bucket = dir.join("bucket");
    fill(&bucket, hours);
    let objstore = dir.join("bucket.yml");
    let text = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display());
    std::fs::write(&objstore, text).expect("bucket configuration");
    let mut specs: Vec<NodeSpec> = Vec::new();
    for (i, query) in query.into_iter().enumerate() {
        let config = dir.join(format!("n{i}.yml"));
        std::fs::write(&config, format!("scrape_configs: []\nkoios: {{query: {{{query}}}}}\n"))
            .expect("configuration");
        let spec = NodeSpec::new(&format!("n{i}"), dir)
            .config(&config)
            .arg(format!("--objstore.config-file={}", objstore.display()));
        specs.push(match specs.first() {
            Some(first) => spec.join(first),
            None => spec,
        });
    }
    let nodes: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
    for node in &nodes {
        let api = node.api();
        until("three ready nodes", PATIENCE, || api.all_ready(3)).await;
        let seen = async || match api.number("count(made_total)", START_MS as f64 / 1000.0 + 1800.0).await? {
            n if n == SERIES as f64 => Ok(()),
            n => Err(format!("{n} series")),
        };
        until("the bucket is seen", PATIENCE, seen).await;
    }
    nodes
}

async fn metric(node: &Node, name: &str) -> f64 {
    let (_, text) = node.api().get("/metrics", &[]).await.expect("metrics");
    text.lines()
        .filter(|l| l.starts_with(name))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

async fn range(api: &Api, query: &str, hours: i64, step: &str) -> Value {
    let (start, end) = (START_MS / 1000 + 600, START_MS / 1000 + hours * 3600 - 60);
    let params =
        [("query", query), ("start", &*start.to_string()), ("end", &*end.to_string()), ("step", step)];
    api.data("/api/v1/query_range", &params).await.unwrap_or_else(|e| panic!("{query}: {e}"))
}

#[tokio::test]
async fn rows_parts_and_chunks_come_to_the_same() {
    let dir = scratch();
    let small = "push_down: false, fragment_series: 7, fragment_bytes: 2KiB";
    let nodes = three(dir.path(), 12, ["push_down: true", small, small]).await;
    let (pushing, fetching) = (nodes[0].api(), nodes[1].api());
    for query in [
        "count by (job) (rate(made_total[5m]))",
        "max without (n) (made_total)",
        "sum by (job) (rate(made_total[1h]))",
        "topk(3, increase(made_total[30m]))",
        "made_total{n=\"3\"} / ignoring (n, job) group_left () avg(made_total)",
        "quantile by (job) (0.5, delta(made_total[20m]))",
    ] {
        for step in ["15", "600"] {
            let (a, b) = (range(&pushing, query, 12, step).await, range(&fetching, query, 12, step).await);
            assert_eq!(a, b, "{query} every {step} s");
            assert!(!a["result"].as_array().expect("a matrix").is_empty(), "{query}");
        }
        let at = START_MS as f64 / 1000.0 + 4000.0;
        let (a, b) = (pushing.query(query, at).await, fetching.query(query, at).await);
        assert_eq!(a, b, "{query} at one moment");
    }
    assert!(metric(&nodes[0], "koios_query_pushed_total").await > 6.0);
    assert_eq!(metric(&nodes[1], "koios_query_pushed_total").await, 0.0);
    assert!(metric(&nodes[1], "koios_query_fragments_split_total").await > 0.0);
    assert!(metric(&nodes[2], "koios_fragments_split_total").await > 0.0);
    assert!(metric(&nodes[2], "koios_peer_bytes_total{direction=\"sent\"}").await > 1000.0);
}

#[tokio::test]
async fn a_node_that_stands_still_delays_an_answer_little() {
    let dir = scratch();
    let nodes = three(dir.path(), 12, ["push_down: false"; 3]).await;
    let api = nodes[0].api();
    let before = range(&api, "sum(made_total)", 12, "60").await;
    let signal = |name: &str| {
        let pid = nodes[2].pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().is_ok_and(|s| s.success()));
    };
    signal("-STOP");
    let begun = Instant::now();
    let during = range(&api, "sum(made_total)", 12, "60").await;
    let took = begun.elapsed();
    signal("-CONT");
    assert_eq!(during, before);
    assert!(
        metric(&nodes[0], "koios_query_hedges_won_total").await >= 1.0,
        "some of twelve blocks are on it"
    );
    // Without another to ask the answer would come after five seconds.
    assert!(took < Duration::from_millis(4500), "{took:?}");
}
