//! A node that scrapes a huge target hands small ones over to its peers, and nobody sees a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, NodeSpec, scratch, until};
use serde_json::Value;

const INTERVAL_S: u64 = 5;
const HUGE: usize = 20_000;
const SMALL: usize = 1_000;
const SMALL_TARGETS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(120);

async fn ownership(api: &Api) -> Result<Value, String> {
    api.data("/api/v1/cluster/ownership", &[]).await
}

/// Series that each node scrapes.
fn series_by_node(data: &Value, huge: &str) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for t in data["targets"].as_array().expect("targets") {
        let series = if t["labels"]["instance"] == huge { HUGE } else { SMALL };
        let slot = &t["slots"][0];
        let node = slot["declined"]["to"].as_str().or(slot["owner"].as_str()).expect("a node");
        *out.entry(node.to_owned()).or_default() += series;
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_of_a_huge_target_hands_small_ones_over_without_a_gap() {
    let root = scratch();
    let mut targets = vec![Exporter::start("huge", Behaviour::Series(HUGE)).await];
    for i in 0..SMALL_TARGETS {
        targets.push(Exporter::start(&format!("t{i}"), Behaviour::Series(SMALL)).await);
    }
    let list: Vec<String> = targets.iter().map(|t| format!("'{}'", t.addr)).collect();
    let config = root.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: {INTERVAL_S}s, scrape_timeout: {INTERVAL_S}s}}\n\
         koios: {{scrape: {{replicas: 1}}}}\n\
         scrape_configs: [{{job_name: probe, static_configs: [{{targets: [{}]}}]}}]\n",
        list.join(", ")
    );
    std::fs::write(&config, text).expect("configuration");
    let first = NodeSpec::new("a", root.path()).config(&config);
    let join = |name: &str| NodeSpec::new(name, root.path()).config(&config).join(&first);
    let nodes = [first.start(), join("b").start(), join("c").start()];
    for n in &nodes {
        let api = n.api();
        until("three ready nodes", PATIENCE, || api.all_ready(3)).await;
    }
    let api = nodes[0].api();
    let huge = targets[0].addr.to_string();
    let since = until("every target is scraped by one node", PATIENCE, || async {
        let there = api.number("count(probe_value{n=\"0\"})", now()).await?;
        let data = ownership(&api).await?;
        match (there as usize, &data["uncovered"], &data["double"]) {
            (n, u, d) if n == targets.len() && u == 0 && d == 0 => Ok(now()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let before = ownership(&api).await.expect("ownership");
    let data = until("small ones have moved and nobody scrapes twice", PATIENCE, || async {
        let data = ownership(&api).await?;
        let series = series_by_node(&data, &huge);
        let mean = series.values().sum::<usize>() as f64 / 3.0;
        let worst = series.values().copied().max().unwrap_or(0) as f64 / mean;
        let (uncovered, double) = (&data["uncovered"], &data["double"]);
        if worst <= 1.25 && uncovered == 0 && double == 0 {
            Ok(data)
        } else {
            Err(format!("{series:?}, {uncovered} uncovered, {double} double"))
        }
    })
    .await;
    println!("{:?} became {:?}", series_by_node(&before, &huge), series_by_node(&data, &huge));
    small_ones_left(&api, &data, &huge).await;
    no_gap(&api, since, targets.len()).await;
}

/// Only the owner of the huge target gave, and only small ones; and it is told why.
async fn small_ones_left(api: &Api, data: &Value, huge: &str) {
    let moved: Vec<&Value> = data["targets"]
        .as_array()
        .expect("targets")
        .iter()
        .filter(|t| t["slots"][0]["declined"].is_object())
        .collect();
    assert!(!moved.is_empty(), "{data}");
    let givers: BTreeSet<&str> =
        moved.iter().filter_map(|t| t["slots"][0]["declined"]["by"].as_str()).collect();
    let of_huge = |t: &&Value| t["labels"]["instance"] == huge;
    assert!(!moved.iter().any(of_huge), "the huge one stays where it is");
    let owner = data["targets"].as_array().expect("targets").iter().find(of_huge).expect("the huge target");
    assert_eq!(givers.into_iter().collect::<Vec<_>>(), [owner["slots"][0]["owner"].as_str().expect("owner")]);
    let url = moved[0]["url"].as_str().expect("url");
    let said = api.data("/api/v1/cluster/explain", &[("target", url)]).await.expect("an explanation");
    assert!(said["lines"].to_string().contains("was declined by"), "{said}");
}

/// Waits for two more rounds: no scrape of any target is missing, and no series ever ended.
async fn no_gap(api: &Api, since: f64, targets: usize) {
    let settled = now();
    until("two rounds after the move", PATIENCE, || async {
        let oldest = api.number("min(timestamp(probe_value{n=\"0\"}))", now()).await?;
        if oldest > settled + INTERVAL_S as f64 { Ok(()) } else { Err(format!("{oldest}")) }
    })
    .await;
    let window = (now() - since) as u64;
    let fewest = format!("min_over_time(count(probe_value{{n=\"0\"}})[{window}s:1s])");
    assert_eq!(
        api.number(&fewest, now()).await,
        Ok(targets as f64),
        "a series ended although its target is there"
    );
    let found = api.query(&format!("probe_value{{n=\"0\"}}[{window}s]"), now()).await.expect("samples");
    let found = found["result"].as_array().expect("a matrix");
    assert_eq!(found.len(), targets);
    for s in found {
        let ms = |p: &Value| (p[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
        let times: Vec<i64> = s["values"].as_array().expect("floats").iter().map(ms).collect();
        let gaps = times.windows(2).filter(|p| p[1] - p[0] != INTERVAL_S as i64 * 1000).count();
        assert_eq!(gaps, 0, "{}: {times:?}", s["metric"]);
    }
}
