//! Blocks are Prometheus': what a node cuts and uploads, promtool accepts and Debian's Prometheus answers from.
//!
//! One node, three targets at different intervals, a block every ten seconds. Both sides are then asked the same
//! questions about the same blocks, and every number must come out as the same text. Prometheus 2 counts a sample
//! that lies exactly on the left end of a window and Prometheus 3 does not, so no question is asked at such a
//! moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use koios_cluster_tests::binary::peer;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, NodeSpec, peers, scratch, until};
use serde_json::Value;

const RANGE_MS: i64 = 10_000;
/// All intervals of the test divide it, so that steps of it keep their distance from every sample.
const BEAT_MS: i64 = 1000;

struct Block {
    dir: PathBuf,
    min: i64,
    max: i64,
}

/// Complete blocks of slot 0, oldest first.
fn blocks(bucket: &Path) -> Vec<Block> {
    let entries = std::fs::read_dir(bucket).into_iter().flatten().flatten();
    let mut found: Vec<Block> = entries
        .filter_map(|e| {
            let dir = e.path();
            let meta: Value = serde_json::from_slice(&std::fs::read(dir.join("meta.json")).ok()?).ok()?;
            let slot = meta["thanos"]["labels"]["replica"].as_str()?.to_owned();
            let (min, max) = (meta["minTime"].as_i64()?, meta["maxTime"].as_i64()?);
            (slot == "0").then_some(Block { dir, min, max })
        })
        .collect();
    found.sort_by_key(|b| b.min);
    found
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("copy's directory");
    for entry in std::fs::read_dir(from).expect("block directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied file");
        }
    }
}

fn promtool(args: &[&str]) -> String {
    let out = Command::new("promtool").args(args).output().expect("promtool runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "promtool {args:?}: {text}{errors}");
    text
}

fn scrape_config(own: &str, often: &str, seldom: &str) -> String {
    format!(
        "scrape_configs:\n\
         - {{job_name: often, scrape_interval: 250ms, scrape_timeout: 250ms, static_configs: [{{targets: ['{often}']}}]}}\n\
         - {{job_name: seldom, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{{targets: ['{seldom}']}}]}}\n\
         - {{job_name: self, scrape_interval: 500ms, scrape_timeout: 500ms, static_configs: [{{targets: ['{own}']}}]}}\n\
         storage: {{tsdb: {{out_of_order_time_window: 0s}}}}\n\
         koios: {{storage: {{block_range: 10s}}}}\n"
    )
}

/// Milliseconds within a beat that are farthest from every sample.
async fn quiet_offset(api: &Api, at: f64) -> i64 {
    let data = api.query("{__name__=~\"probe_value|up\"}[8s]", at).await.expect("raw samples");
    let mut busy = BTreeSet::new();
    for series in data["result"].as_array().expect("a matrix") {
        for point in series["values"].as_array().expect("floats") {
            let ms = (point[0].as_f64().expect("a time") * 1000.0).round() as i64;
            busy.insert(ms.rem_euclid(BEAT_MS));
        }
    }
    assert!(busy.len() >= 4, "three schedules: {busy:?}");
    let distance = |ms: i64| {
        let apart = |b: &i64| (ms - b).rem_euclid(BEAT_MS).min((b - ms).rem_euclid(BEAT_MS));
        busy.iter().map(apart).min().expect("not empty")
    };
    let best = (0..BEAT_MS).max_by_key(|ms| distance(*ms)).expect("a beat has milliseconds");
    assert!(distance(best) > 2, "no quiet moment: {busy:?}");
    best
}

/// `data` with vectors in a fixed order: Prometheus does not promise one.
fn ordered(mut data: Value) -> Value {
    if let Some(list) = data["result"].as_array_mut() {
        list.sort_by_key(|s| s["metric"].to_string());
    }
    data
}

const EXPRESSIONS: [&str; 18] = [
    "probe_value",
    "up",
    "probe_value{job=\"often\",n=~\"1|2\"}",
    "probe_value{n!=\"0\"} offset 3s",
    "rate(probe_value[4s])",
    "increase(probe_value{job=\"seldom\"}[5s])",
    "irate(probe_value[3s])",
    "sum by (job) (probe_value)",
    "avg without (n, instance) (probe_value)",
    "max_over_time(probe_value[3s])",
    "count_over_time(up[2s])",
    "{job=\"self\"}",
    "sum_over_time(scrape_duration_seconds[3s])",
    "label_replace(probe_value{n=\"1\"}, \"who\", \"<$1>\", \"target\", \"(.*)\")",
    "topk(2, probe_value)",
    "probe_value{job=\"often\"} - on (n) probe_value{job=\"seldom\"}",
    "quantile(0.5, probe_value) by (job)",
    "count({__name__=~\".+\"}) by (job)",
];

/// Asks both everything at moments inside the blocks; how many values were compared.
async fn compare(koios: &Api, peer: &Api, from: i64, to: i64) -> usize {
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let mut compared = 0;
    for expr in EXPRESSIONS {
        let (start, end) = (seconds(from), seconds(to));
        let range = [("query", expr), ("start", start.as_str()), ("end", end.as_str()), ("step", "1")];
        let instant = [("query", expr), ("time", end.as_str())];
        for (path, params) in [("/api/v1/query_range", &range[..]), ("/api/v1/query", &instant[..])] {
            let ours = ordered(koios.data(path, params).await.expect(expr));
            let theirs = ordered(peer.data(path, params).await.expect(expr));
            assert_eq!(ours["result"], theirs["result"], "{path} {expr} from {start} to {end}");
            compared += ours["result"].as_array().map_or(0, Vec::len);
        }
    }
    compared
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_answers_from_our_blocks() {
    let root = scratch();
    let often = Exporter::start("often", Behaviour::Series(5)).await;
    let seldom = Exporter::start("seldom", Behaviour::Series(7)).await;
    let spec = NodeSpec::new("solo", root.path());
    let config = root.path().join("prometheus.yml");
    let text = scrape_config(&spec.http().to_string(), &often.addr.to_string(), &seldom.addr.to_string());
    std::fs::write(&config, text).expect("configuration");
    let node = spec.config(&config).start();
    node.ready().await;

    let bucket = node.spec.dir.join("bucket");
    let found = until("whole blocks in the bucket", Duration::from_secs(90), || async {
        // The first block begins in the middle of its range, the second one holds young counters.
        let found = blocks(&bucket);
        if found.len() >= 3 { Ok(found) } else { Err(format!("{} blocks", found.len())) }
    })
    .await;
    for pair in found.windows(2) {
        assert_eq!(pair[0].max, pair[1].min, "blocks join without gap or overlap");
        assert_eq!(pair[1].max - pair[1].min, RANGE_MS);
    }
    // Young counters are left out: Prometheus 2 guards their extrapolation below zero in another order.
    let (first, last) = (found[0].max + RANGE_MS, found[found.len() - 1].max);

    let data = root.path().join("copy");
    for b in &found {
        copy_dir(&b.dir, &data.join(b.dir.file_name().expect("a block id")));
    }
    let quiet = quiet_offset(&node.api(), last as f64 / 1000.0).await;
    if !peer("promtool") || !peer("prometheus") {
        return;
    }
    let dir = data.to_str().expect("UTF-8 path");
    let listed = promtool(&["tsdb", "list", dir]);
    for b in &found {
        let id = b.dir.file_name().expect("a block id").to_string_lossy().into_owned();
        assert!(listed.contains(&id), "{id} is not in {listed}");
        let analyzed = promtool(&["tsdb", "analyze", dir, &id]);
        assert!(analyzed.contains("probe_value"), "{analyzed}");
    }

    let empty = root.path().join("empty.yml");
    std::fs::write(&empty, "global: {}\n").expect("configuration");
    let prometheus = peers::prometheus(&data, &empty);
    let theirs = Api::new(([127, 0, 0, 1], prometheus.port).into());
    until("prometheus is ready", Duration::from_secs(30), || theirs.ready()).await;
    // Windows reach back five seconds, so all of them lie in the blocks.
    let compared = compare(&node.api(), &theirs, first + quiet, last - BEAT_MS + quiet).await;
    assert!(compared > 200, "only {compared} series were compared");
}
