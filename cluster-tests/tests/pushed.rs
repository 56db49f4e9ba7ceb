//! Pushed samples on three nodes: nodes die and come back while a real Prometheus sends, and nothing is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::push::{self, Push, ms};
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, exporter::Behaviour, peers, scratch, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);

async fn three_nodes(dir: &Path) -> Vec<Node> {
    let config = dir.join("nodes.yml");
    std::fs::write(&config, "global: {scrape_interval: 1s, scrape_timeout: 1s}\n").expect("configuration");
    let first = NodeSpec::new("n0", dir).config(&config);
    let rest = ["n1", "n2"].map(|n| NodeSpec::new(n, dir).config(&config).join(&first));
    let nodes: Vec<Node> = std::iter::once(&first).chain(&rest).map(NodeSpec::start).collect();
    for node in &nodes {
        let api = node.api();
        until("three ready nodes", PATIENCE, || api.all_ready(3)).await;
    }
    nodes
}

fn sender_config(dir: &Path, target: &Exporter, koios: &Node) -> std::path::PathBuf {
    let path = dir.join("sender.yml");
    let text = format!(
        "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
         scrape_configs:\n  - job_name: pushed\n    static_configs: [{{targets: ['{}']}}]\n\
         remote_write:\n  - url: http://{}/api/v1/write\n    \
         queue_config: {{batch_send_deadline: 100ms, max_backoff: 1s}}\n",
        target.addr,
        koios.spec.http()
    );
    std::fs::write(&path, text).expect("configuration");
    path
}

/// Raw samples of the job within the last two minutes, by series.
async fn raw(api: &Api, time: f64) -> Result<BTreeMap<String, Value>, String> {
    let data = api.query("{job=\"pushed\"}[2m]", time).await?;
    let result = data["result"].as_array().ok_or("no result")?;
    Ok(result.iter().map(|s| (s["metric"].to_string(), s["values"].clone())).collect())
}

/// Whether `api` has exactly what the sender has, after what it scraped before its queue was up.
async fn same(api: &Api, sender: &Api, time: f64) -> Result<usize, String> {
    let (kept, sent) = (raw(api, time).await?, raw(sender, time).await?);
    if sent.len() < 5 || !sent.keys().eq(kept.keys()) {
        return Err(format!("{} series sent, {} kept", sent.len(), kept.len()));
    }
    let mut samples = 0;
    for (labels, values) in &sent {
        let (sent, kept) =
            (values.as_array().ok_or("no values")?, kept[labels].as_array().ok_or("no values")?);
        let skipped = sent.len().saturating_sub(kept.len());
        if skipped > 8 || sent[skipped..] != kept[..] {
            return Err(format!("{labels}: {} samples sent, {} kept", sent.len(), kept.len()));
        }
        samples += kept.len();
    }
    Ok(samples)
}

#[tokio::test]
async fn a_real_sender_loses_nothing_while_nodes_die() {
    if !peer("prometheus") {
        return;
    }
    let dir = scratch();
    let mut nodes = three_nodes(dir.path()).await;
    let target = Exporter::start("made", Behaviour::Series(60)).await;
    let config = sender_config(dir.path(), &target, &nodes[0]);
    let prometheus = peers::prometheus(&dir.path().join("sender"), &config);
    let sender = Api::new(([127, 0, 0, 1], prometheus.port).into());
    let scrapes = |n: f64| {
        let sender = sender.clone();
        async move {
            until("scrapes", PATIENCE, || async {
                let got = sender.number("count_over_time(up{job=\"pushed\"}[2m])", now()).await?;
                if got >= n { Ok(()) } else { Err(format!("{got} scrapes")) }
            })
            .await;
        }
    };
    let mut seen = 12.0;
    scrapes(seen).await;
    // First one that only keeps copies, then the one that is sent to.
    for dying in [1, 0] {
        nodes[dying].kill();
        seen += 12.0;
        scrapes(seen).await;
        nodes[dying] = nodes[dying].spec.start();
        let api = nodes[dying].api();
        until("the node is back", PATIENCE, || api.all_ready(3)).await;
        seen += 8.0;
        scrapes(seen).await;
    }
    let time = now();
    for node in &nodes {
        let api = node.api();
        let samples = until("the sender's samples", PATIENCE, || same(&api, &sender, time)).await;
        assert!(samples > 60 * 40, "{samples}");
        for query in ["count_over_time(probe_value[1m])", "sum_over_time(probe_value[1m])"] {
            let (ours, theirs) = (api.vector(query, time).await, sender.vector(query, time).await);
            assert!(ours.is_ok() && ours == theirs, "{query}: {ours:?} {theirs:?}");
        }
    }
    prometheus.end(PATIENCE);
}

/// Pushes one sample of each of `series` series to a node.
async fn push(node: &Node, name: &str, series: usize, t: i64) -> (u16, String) {
    let row = |n: usize| push::series(&[("__name__", name), ("n", &n.to_string())], &[(t, n as f64)]);
    let reply = Push::v1((0..series).map(row).collect()).to(node.spec.http()).await.expect("an answer");
    (reply.status, reply.body)
}

#[tokio::test]
async fn one_node_less_changes_nothing_and_two_are_named() {
    let dir = scratch();
    let mut nodes = three_nodes(dir.path()).await;
    let at = now();
    let t = (at * 1000.0) as i64;
    assert_eq!(push(&nodes[1], "kept", 200, t).await.0, 204);
    nodes[1].kill();
    for node in [&nodes[0], &nodes[2]] {
        let api = node.api();
        let (_, body) =
            api.get("/api/v1/query", &[("query", "sum(kept)"), ("time", &at.to_string())]).await.unwrap();
        let json: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["data"]["result"][0]["value"][1], "19900", "{json}");
        assert!(json.get("warnings").is_none(), "{json}");
    }
    // Two of three are enough for a write.
    let more = ms();
    until("a write with two nodes", PATIENCE, || async {
        let (status, body) = push(&nodes[0], "more", 50, more).await;
        if status == 204 { Ok(()) } else { Err(format!("{status}: {body}")) }
    })
    .await;
    nodes[2].kill();
    let api = nodes[0].api();
    let (start, end) = ((at - 10.0).to_string(), (at + 10.0).to_string());
    let range = [("query", "sum(kept)"), ("start", start.as_str()), ("end", end.as_str()), ("step", "5")];
    let (status, body) = api.get("/api/v1/query_range", &range).await.unwrap();
    assert!(
        status == 200 && body.contains("warnings") && body.contains("n1") && body.contains("n2"),
        "{status} {body}"
    );
    let (status, body) =
        api.get("/api/v1/query", &[("query", "sum(kept)"), ("time", &at.to_string())]).await.unwrap();
    assert_eq!(status, 503, "{body}");
    let (status, body) = push(&nodes[0], "lost", 10, ms()).await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("quorum"), "{body}");
    nodes[1] = nodes[1].spec.start();
    until("all is well again", PATIENCE, || async {
        let (status, body) = push(&nodes[0], "again", 10, ms()).await;
        if status == 204 { Ok(()) } else { Err(format!("{status}: {body}")) }
    })
    .await;
    assert_eq!(api.number("sum(more)", now()).await, Ok(1225.0));
}
