//! Slots of targets change hands without a gap, without false ends of series, and without scraping twice for long.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, scratch, until};

const INTERVAL_S: u64 = 5;
const TARGETS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(90);
/// What an old owner would go on for if nobody told it: two intervals and ten seconds.
const UNTOLD: Duration = Duration::from_secs(2 * INTERVAL_S + 10);

fn write_config(path: &Path, targets: &[Exporter]) {
    let list: Vec<String> = targets.iter().map(|t| format!("'{}'", t.addr)).collect();
    let text = format!(
        "global: {{scrape_interval: {INTERVAL_S}s, scrape_timeout: {INTERVAL_S}s}}\n\
         scrape_configs: [{{job_name: probe, static_configs: [{{targets: [{}]}}]}}]\n",
        list.join(", ")
    );
    std::fs::write(path, text).expect("configuration");
}

async fn gauge(api: &Api, name: &str) -> Result<f64, String> {
    let (_, text) = api.get("/metrics", &[]).await?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|v| v.trim().parse().ok()).ok_or_else(|| format!("no {name}"))
}

async fn lingering(nodes: &[&Node]) -> Result<f64, String> {
    let mut sum = 0.0;
    for n in nodes {
        sum += gauge(&n.api(), "koios_scrape_slots_lingering").await?;
    }
    Ok(sum)
}

/// Times of all samples of each target, milliseconds.
async fn times(api: &Api) -> Result<BTreeMap<String, Vec<i64>>, String> {
    let data = api.query("probe_value{n=\"0\"}[5m]", now()).await?;
    let mut out = BTreeMap::new();
    for s in data["result"].as_array().ok_or("no matrix")? {
        let points = s["values"].as_array().ok_or("no floats")?;
        let ms = |p: &serde_json::Value| (p[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
        if out.insert(s["metric"].to_string(), points.iter().map(ms).collect()).is_some() {
            return Err(format!("{} comes twice", s["metric"]));
        }
    }
    Ok(out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_node_takes_slots_over_and_the_old_owner_stops_when_told() {
    let root = scratch();
    let mut targets = Vec::new();
    for i in 0..TARGETS {
        targets.push(Exporter::start(&format!("t{i}"), Behaviour::Series(1)).await);
    }
    let config = root.path().join("prometheus.yml");
    write_config(&config, &targets);
    let first = NodeSpec::new("a", root.path()).config(&config);
    let join = |name: &str| NodeSpec::new(name, root.path()).config(&config).join(&first);
    let (a, b) = (first.start(), join("b").start());
    for n in [&a, &b] {
        let api = n.api();
        until("two ready nodes", PATIENCE, || api.all_ready(2)).await;
    }
    let all_scraped = || async {
        let least = times(&a.api()).await?;
        let fewest = least.values().map(Vec::len).min().unwrap_or(0);
        if least.len() == TARGETS && fewest >= 2 { Ok(()) } else { Err(format!("{least:?}")) }
    };
    until("every target has samples", PATIENCE, all_scraped).await;
    until("nothing moves", PATIENCE, || async {
        if lingering(&[&a, &b]).await? == 0.0 { Ok(()) } else { Err("slots linger".to_owned()) }
    })
    .await;
    let c = join("c").start();
    until("slots move", PATIENCE, || async {
        if lingering(&[&a, &b]).await? > 0.0 { Ok(()) } else { Err("none lingers".to_owned()) }
    })
    .await;
    let since = Instant::now();
    // While they move, every target is there at every moment: no series ends because its owner changed.
    let seen = until("the old owners have stopped", PATIENCE, || async {
        let there = a.api().number("count(probe_value)", now() - 1.0).await?;
        assert_eq!(there, TARGETS as f64, "a series ended although its target is there");
        match lingering(&[&a, &b]).await? {
            0.0 => Ok(since.elapsed()),
            n => Err(format!("{n} slots linger")),
        }
    })
    .await;
    println!("slots were scraped twice for {seen:?} at most; untold it would be {UNTOLD:?}");
    assert!(seen < UNTOLD, "nobody told the old owners: {seen:?}");
    let moved = gauge(&c.api(), "koios_scrape_slots_lingering").await.expect("metrics");
    assert_eq!(moved, 0.0);
    let settled = now();
    until("two rounds after the move", PATIENCE, || async {
        let all = times(&a.api()).await?;
        let newest = all.values().filter_map(|t| t.last()).min().copied().unwrap_or(0);
        if newest as f64 / 1000.0 > settled + INTERVAL_S as f64 { Ok(()) } else { Err(format!("{newest}")) }
    })
    .await;
    for n in [&a, &b, &c] {
        let all = times(&n.api()).await.expect("a whole answer");
        assert_eq!(all.len(), TARGETS);
        for (series, times) in &all {
            for pair in times.windows(2) {
                assert_eq!(
                    pair[1] - pair[0],
                    INTERVAL_S as i64 * 1000,
                    "{} says of {series}: {times:?}",
                    n.spec.name
                );
            }
        }
    }
}
