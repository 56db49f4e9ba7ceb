//! `kill -9` of all nodes under load: everything that was acknowledged is back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use koios_cluster_tests::acks::{self, AckLog};
use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, scratch, until};

const TARGETS: usize = 6;
const SERIES: usize = 200;

#[tokio::test]
async fn killing_every_node_loses_no_acknowledged_sample() {
    let dir = scratch();
    let mut targets = Vec::new();
    for i in 0..TARGETS {
        targets.push(Exporter::start(&format!("t{i}"), Behaviour::Series(SERIES)).await);
    }
    let list: Vec<String> = targets.iter().map(|t| format!("'{}'", t.addr)).collect();
    let config = dir.path().join("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\nscrape_configs:\n  - job_name: probe\n    static_configs: [{{targets: [{}]}}]\n",
            list.join(", ")
        ),
    )
    .unwrap();
    let first = NodeSpec::new("n0", dir.path()).config(&config);
    let specs = [
        first.clone(),
        NodeSpec::new("n1", dir.path()).config(&config).join(&first),
        NodeSpec::new("n2", dir.path()).config(&config).join(&first),
    ];
    let mut nodes: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
    let apis: Vec<Api> = nodes.iter().map(Node::api).collect();
    until("three ready nodes", Duration::from_secs(20), || apis[0].all_ready(3)).await;

    let mut log = AckLog::new();
    for round in 0..3 {
        // Under load, killed at an arbitrary moment of the scrape cycle.
        let end = now() + 4.0 + f64::from(round) * 0.137;
        while now() < end {
            for api in &apis {
                for (target, times) in acks::of(api).await {
                    log.entry(target).or_default().extend(times);
                }
            }
        }
        nodes.iter_mut().for_each(Node::kill);
        nodes = specs.iter().map(NodeSpec::start).collect();
        for api in &apis {
            until("three ready nodes after the crash", Duration::from_secs(40), || api.all_ready(3)).await;
        }
        check(&apis, &log).await;
    }
    let acked: usize = log.values().map(BTreeSet::len).sum();
    eprintln!("{acked} acknowledged scrapes, {} samples, all back after every crash", acked * SERIES);
    assert!(acked > 50, "only {acked} acknowledged scrapes were seen");
}

async fn check(apis: &[Api], log: &AckLog) {
    for api in apis {
        let data = api.query("probe_value[10m]", now()).await.expect("a complete answer");
        let mut found: BTreeMap<String, Vec<BTreeSet<i64>>> = BTreeMap::new();
        for s in data["result"].as_array().unwrap() {
            let times: Vec<i64> = s["values"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| (v[0].as_f64().unwrap() * 1000.0).round() as i64)
                .collect();
            let set: BTreeSet<i64> = times.iter().copied().collect();
            assert_eq!(set.len(), times.len(), "{}: a sample is doubled", s["metric"]);
            found.entry(s["metric"]["instance"].as_str().unwrap().to_owned()).or_default().push(set);
        }
        for (target, acked) in log {
            let series = found.get(target).unwrap_or_else(|| panic!("{target} is gone"));
            assert_eq!(series.len(), SERIES, "{target}");
            for times in series {
                let lost: Vec<&i64> = acked.iter().filter(|t| !times.contains(t)).collect();
                assert!(lost.is_empty(), "{target}: acknowledged and lost: {lost:?}");
            }
        }
    }
}
