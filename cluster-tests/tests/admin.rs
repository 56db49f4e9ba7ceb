//! What an operator asks of storage through any node: exemplars and metadata of the whole cluster, deleting series
//! everywhere, cleaning up after that, snapshots that Prometheus' tools read.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, NodeSpec, scratch, until};
use serde_json::Value;

const OPEN_METRICS: &str = "# HELP latency_seconds How long.\n# TYPE latency_seconds histogram\n# UNIT latency_seconds seconds\n\
    latency_seconds_bucket{le=\"1.0\"} 3 # {trace_id=\"abc\"} 0.5 1700000000.5\n\
    latency_seconds_bucket{le=\"+Inf\"} 4\nlatency_seconds_count 4\nlatency_seconds_sum 3.5\n# EOF\n";

fn config(dir: &Path, targets: &[&Exporter]) -> std::path::PathBuf {
    let list: Vec<String> = targets.iter().map(|t| format!("'{}'", t.addr)).collect();
    let text = format!(
        "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
         scrape_configs:\n  - job_name: probe\n    static_configs: [{{targets: [{}]}}]\n\
         storage: {{tsdb: {{out_of_order_time_window: 0s}}}}\n\
         koios: {{storage: {{block_range: 5s}}}}\n",
        list.join(", ")
    );
    let path = dir.join("prometheus.yml");
    std::fs::write(&path, text).expect("the configuration");
    path
}

fn form(pairs: &[(&str, &str)]) -> String {
    let url = reqwest::Url::parse_with_params("http://x/", pairs).expect("parameters");
    url.query().unwrap_or("").to_owned()
}

async fn admin(api: &Api, what: &str, pairs: &[(&str, &str)]) -> (u16, String) {
    api.post_form(&format!("/api/v1/admin/tsdb/{what}"), &form(pairs)).await.expect("an answer")
}

/// Number of samples of `probe_value{n="…"}` at or before a moment.
async fn samples_until(api: &Api, n: &str, end: f64) -> Result<f64, String> {
    let query = format!("sum(count_over_time(probe_value{{n=\"{n}\"}}[1h])) or vector(0)");
    api.number(&query, end).await
}

#[tokio::test]
async fn deleted_series_are_gone_from_every_node_head_and_block() {
    let dir = scratch();
    let target = Exporter::start("t", Behaviour::Series(3)).await;
    let file = config(dir.path(), &[&target]);
    let allow = "--web.enable-admin-api";
    let first = NodeSpec::new("n0", dir.path()).config(&file).arg(allow);
    let second = NodeSpec::new("n1", dir.path()).config(&file).arg(allow).join(&first);
    let mut nodes = [first.start(), second.start()];
    let apis = nodes.each_ref().map(koios_cluster_tests::Node::api);
    until("two ready nodes", Duration::from_secs(20), || apis[0].all_ready(2)).await;
    let bucket = dir.path().join("n0/bucket");
    let blocks = || async {
        let dirs = std::fs::read_dir(&bucket).map_err(|e| e.to_string())?.flatten();
        let whole = dirs.filter(|d| d.path().join("meta.json").exists()).count();
        if whole >= 2 { Ok(()) } else { Err(format!("{whole} blocks")) }
    };
    until("blocks on the first node", Duration::from_secs(60), blocks).await;

    let end = now();
    let stop = format!("{end:.3}");
    let before = samples_until(&apis[1], "1", end).await.expect("a number");
    assert!(before > 10.0, "{before} samples");
    let ask = [("match[]", "probe_value{n=\"1\"}"), ("match[]", "{n=\"2\"}"), ("end", stop.as_str())];
    let (status, body) = admin(&apis[1], "delete_series", &ask).await;
    assert_eq!((status, body.as_str()), (204, ""));
    for api in &apis {
        assert_eq!(samples_until(api, "1", end).await, Ok(0.0), "deleted");
        assert_eq!(samples_until(api, "2", end).await, Ok(0.0), "deleted");
        assert!(
            samples_until(api, "0", end).await.expect("a number") >= before - 2.0,
            "another series stays"
        );
    }
    // What comes after the deletion is kept, and what was deleted does not come back with a restart.
    until("new samples", Duration::from_secs(20), || async {
        let n = samples_until(&apis[0], "1", now()).await?;
        if n > 2.0 { Ok(()) } else { Err(format!("{n} samples")) }
    })
    .await;
    nodes.iter_mut().for_each(koios_cluster_tests::Node::kill);
    let nodes = [first.start(), second.start()];
    until("two ready nodes again", Duration::from_secs(30), || apis[0].all_ready(2)).await;
    assert_eq!(samples_until(&apis[0], "1", end).await, Ok(0.0), "still deleted");
    let (status, body) = admin(&apis[0], "clean_tombstones", &[]).await;
    assert_eq!((status, body.as_str()), (204, ""));
    for api in &apis {
        assert_eq!(samples_until(api, "1", end).await, Ok(0.0), "and without tombstones");
        assert!(
            samples_until(api, "0", end).await.expect("a number") >= before - 2.0,
            "another series stays"
        );
    }
    drop(nodes);
}

#[tokio::test]
async fn a_snapshot_is_what_promtool_reads() {
    let dir = scratch();
    let target = Exporter::start("t", Behaviour::Series(3)).await;
    let spec =
        NodeSpec::new("n0", dir.path()).config(&config(dir.path(), &[&target])).arg("--web.enable-admin-api");
    let node = spec.start();
    node.ready().await;
    let api = node.api();
    until("samples", Duration::from_secs(30), || async {
        let n = samples_until(&api, "1", now()).await?;
        if n > 40.0 { Ok(()) } else { Err(format!("{n} samples")) }
    })
    .await;
    let end = now() - 1.0;
    let (status, body) = admin(&api, "snapshot", &[]).await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    let name = answer["data"]["name"].as_str().expect("a name");
    let snapshot = spec.dir.join("snapshots").join(name);
    // Its promtool wants to see a log, which a snapshot, like Prometheus' own, has not.
    std::fs::create_dir(snapshot.join("wal")).expect("an empty log");
    let out = Command::new("promtool").args(["tsdb", "dump"]).arg(&snapshot).output().expect("promtool");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    let dumped: std::collections::BTreeSet<i64> = text
        .lines()
        .filter(|l| l.contains("__name__=\"probe_value\"") && l.contains("n=\"1\""))
        .filter_map(|l| l.rsplit(' ').next()?.parse().ok())
        .filter(|t| (*t as f64) <= end * 1000.0)
        .collect();
    let expected = samples_until(&api, "1", end).await.expect("a number");
    assert_eq!(dumped.len() as f64, expected, "every sample is in the snapshot");
    let (status, body) = admin(&api, "snapshot", &[("skip_head", "maybe")]).await;
    assert!(status == 400 && body.contains("skip_head"), "{status} {body}");
    let replay = api.data("/api/v1/status/walreplay", &[]).await.expect("an answer");
    assert_eq!(replay["current"], replay["max"]);
}

#[tokio::test]
async fn exemplars_and_metadata_are_the_whole_clusters() {
    let dir = scratch();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\nConnection: close\r\n";
    let raw = format!("{head}Content-Length: {}\r\n\r\n{OPEN_METRICS}", OPEN_METRICS.len());
    let target = Exporter::start("t", Behaviour::Raw(raw.into_bytes())).await;
    let file = config(dir.path(), &[&target]);
    let first = NodeSpec::new("n0", dir.path()).config(&file);
    let second = NodeSpec::new("n1", dir.path()).config(&file).join(&first);
    let nodes = [first.start(), second.start()];
    let apis = nodes.each_ref().map(koios_cluster_tests::Node::api);
    until("two ready nodes", Duration::from_secs(20), || apis[0].all_ready(2)).await;
    for api in &apis {
        let asked = [
            ("query", "sum(rate(latency_seconds_bucket[5m]))"),
            ("start", "1700000000"),
            ("end", "1700000001"),
        ];
        let found = || async {
            let data = api.data("/api/v1/query_exemplars", &asked).await?;
            let series = data.as_array().cloned().unwrap_or_default();
            if series.is_empty() { Err("none yet".to_owned()) } else { Ok(series) }
        };
        let series = until("the exemplar", Duration::from_secs(20), found).await;
        assert_eq!(series.len(), 1, "{series:?}");
        assert_eq!(series[0]["seriesLabels"]["le"], "1.0");
        let exemplar =
            serde_json::json!([{"labels": {"trace_id": "abc"}, "value": "0.5", "timestamp": 1700000000.5}]);
        assert_eq!(series[0]["exemplars"], exemplar);
        let metadata =
            api.data("/api/v1/metadata", &[("metric", "latency_seconds")]).await.expect("an answer");
        let said = serde_json::json!({"latency_seconds": [{"type": "histogram", "help": "How long.", "unit": "seconds"}]});
        assert_eq!(metadata, said);
        let lines = api
            .data("/api/v1/targets/metadata", &[("match_target", "{job=\"probe\"}")])
            .await
            .expect("lines");
        let line = &lines.as_array().expect("lines")[0];
        assert_eq!((&line["metric"], &line["target"]["job"]), (&"latency_seconds".into(), &"probe".into()));
    }
    let (status, body) = apis[0].get("/api/v1/query_exemplars", &[("query", "1")]).await.expect("an answer");
    assert_eq!((status, body.as_str()), (204, ""));
    let (status, body) = admin(&apis[0], "delete_series", &[("match[]", "up")]).await;
    assert_eq!((status, body.contains("admin APIs disabled")), (500, true), "{body}");
}
