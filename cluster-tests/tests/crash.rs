//! `kill -9` of all nodes under load: everything that was acknowledged is back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, scratch, until};

const TARGETS: usize = 6;
const SERIES: usize = 200;

/// What the nodes acknowledged: a scrape's time on `/api/v1/targets` moves only after its samples were
/// appended and synced, so each (target, time) seen there is a promise for all series of that target.
type AckLog = BTreeMap<String, BTreeSet<i64>>;

async fn note_acks(apis: &[Api], log: &mut AckLog) {
    for api in apis {
        let Ok(data) = api.data("/api/v1/targets", &[("state", "active")]).await else { continue };
        for t in data["activeTargets"].as_array().into_iter().flatten() {
            let target = t["labels"]["instance"].as_str().unwrap_or("").to_owned();
            for s in t["scrapers"].as_array().into_iter().flatten().filter(|s| s["health"] == "up") {
                if let Some(ms) = s["lastScrape"].as_str().and_then(millis).filter(|ms| *ms > 0) {
                    log.entry(target.clone()).or_default().insert(ms);
                }
            }
        }
    }
}

/// `2026-11-23T03:54:08.239Z` on one day is enough for a test: milliseconds since the epoch.
fn millis(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut d = date.split('-').map(|p| p.parse::<i64>());
    let (y, m, day) = (d.next()?.ok()?, d.next()?.ok()?, d.next()?.ok()?);
    let days =
        365 * (y - 1970) + (y - 1969).div_euclid(4) - (y - 1901).div_euclid(100) + (y - 1601).div_euclid(400);
    let lengths = [
        31,
        if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let days = days + lengths[..(m - 1) as usize].iter().sum::<i64>() + day - 1;
    let (hms, frac) = time.split_once('.')?;
    let mut t = hms.split(':').map(|p| p.parse::<i64>());
    let seconds = (t.next()?.ok()? * 60 + t.next()?.ok()?) * 60 + t.next()?.ok()?;
    Some((days * 86_400 + seconds) * 1000 + frac.parse::<i64>().ok()?)
}

#[test]
fn times_are_read_right() {
    assert_eq!(millis("2026-11-23T03:54:08.239Z"), Some(1_795_406_048_239));
    assert_eq!(millis("1970-01-01T00:00:00.001Z"), Some(1));
}

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
            note_acks(&apis, &mut log).await;
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
