//! Queries beside Debian's Prometheus and VictoriaMetrics: CPU, wall time and memory of each process.
//!
//! `KOIOS_BIN=<release binary> cargo bench -p koios-cluster-tests --bench peers`. `KOIOS_BENCH_SERIES` (default
//! `1000,20000`), `KOIOS_BENCH_INSTANT` (50000), `KOIOS_BENCH_REPEATS` (5) and `KOIOS_BENCH_ONLY` (parts of names)
//! size it. The same samples go into one block for Koios and Prometheus and over the import API into VictoriaMetrics,
//! whose caches are off. Every query meets a fresh process: what it takes in memory is how far anonymous memory
//! rises during the first run; CPU (all threads, user and system) and wall time are the least of the repeats.

mod subject;

use std::collections::BTreeMap;

use koios_cluster_tests::binary::peer;
use koios_cluster_tests::made::{INTERVAL_MS, START_MS, samples, write_block};
use koios_cluster_tests::scratch;
use koios_model::{Columns, Labels};
use subject::{Cost, Peer, fill_victoria, koios, prometheus, victoria};

const SAMPLES: i64 = 480;
/// No more repeats once so much CPU time went into a query, ms.
const ENOUGH_MS: f64 = 3000.0;

/// Name, query, and whether over 480 steps or at one moment.
const QUERIES: [(&str, &str, bool); 13] = [
    ("sum by (rate)", "sum by (job) (rate(requests_total[5m]))", true),
    ("rate", "rate(requests_total[5m])", true),
    ("raw selector", "gauge", true),
    ("avg_over_time 1h", "avg_over_time(gauge[1h])", true),
    ("avg_over_time 1h ratio", "avg_over_time(ratio[1h])", true),
    ("quantile_over_time 1h", "quantile_over_time(0.9, gauge[1h])", true),
    ("max_over_time 1h", "max_over_time(gauge[1h])", true),
    ("max_over_time 1h:1m", "max_over_time(gauge[1h:1m])", true),
    ("topk", "topk(5, gauge)", true),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))", true),
    ("group_left", "gauge / on () group_left () sum(requests_total)", true),
    ("regexp count", "count(gauge{path=~\".*(a|b|c)[0-9]*7/.*\"})", true),
    (INSTANT, "sum by (job) (rate(requests_total[5m]))", false),
];
const INSTANT: &str = "instant sum by (rate)";

fn series(n: usize) -> BTreeMap<Labels, Columns> {
    let mut all = BTreeMap::new();
    for i in 0..n {
        let base = |name: &str| {
            [
                ("__name__", name.to_owned()),
                ("job", format!("job{}", i % 20)),
                ("instance", format!("host{}:9100", i / 20)),
                ("path", format!("/{}{i}/items", ["a", "b", "c", "d"][i % 4])),
            ]
        };
        let i = i as i64;
        let counter = samples(SAMPLES, |k| (k * (10 + i % 90) + (k * i) % 7) as f64);
        all.insert(Labels::from_pairs(base("requests_total")), counter);
        let level = move |k: i64| ((k * 7919 + i * 31) % 997) as f64;
        all.insert(Labels::from_pairs(base("gauge")), samples(SAMPLES, |k| level(k) / 8.0));
        all.insert(Labels::from_pairs(base("ratio")), samples(SAMPLES, |k| level(k) / 997.0));
        let le = ["0.1", "0.25", "0.5", "1", "+Inf"][i as usize % 5].to_owned();
        let labels = base("latency_bucket").into_iter().chain([("le", le)]);
        all.insert(Labels::from_pairs(labels), samples(SAMPLES, |k| (k * (1 + i % 5)) as f64));
    }
    all
}

/// The least of some runs on a fresh process.
async fn measure(peer: &Peer, query: &str, range: bool, repeats: usize) -> Result<Cost, String> {
    let running = peer.start().await;
    let end = (START_MS + (SAMPLES - 1) * INTERVAL_MS) / 1000;
    let (start, end) = ((START_MS / 1000).to_string(), end.to_string());
    let over = [("query", query), ("start", &start), ("end", &end), ("step", "15"), ("nocache", "1")];
    let at = [("query", query), ("time", end.as_str()), ("nocache", "1")];
    let (path, params) = if range { ("query_range", &over[..]) } else { ("query", &at[..]) };
    let mut best = running.ask(path, params).await?;
    let mut spent = best.cpu_ms;
    for _ in 1..repeats {
        if spent > ENOUGH_MS {
            break;
        }
        let next = running.ask(path, params).await?;
        spent += next.cpu_ms;
        best.cpu_ms = best.cpu_ms.min(next.cpu_ms);
        best.wall_ms = best.wall_ms.min(next.wall_ms);
    }
    Ok(best)
}

async fn run(n: usize, repeats: usize, wanted: impl Fn(&str) -> bool) {
    let dir = scratch();
    let all = series(n);
    let (bucket, data) = (dir.path().join("bucket"), dir.path().join("prometheus"));
    for d in [&bucket, &data] {
        write_block(d, all.iter().map(|(l, c)| (l.clone(), c.clone())));
    }
    let mut peers = vec![koios(dir.path(), &bucket), prometheus(dir.path(), &data)];
    if peer("victoria-metrics") {
        fill_victoria(&dir.path().join("vm"), &all).await;
        peers.push(victoria(&dir.path().join("vm")));
    }
    drop(all);
    println!("\n{n} series of each metric x {SAMPLES} samples: CPU ms / wall ms / MiB");
    for (name, query, range) in QUERIES.iter().filter(|q| wanted(q.0)) {
        let mut costs = Vec::new();
        for p in &peers {
            let cost = measure(p, query, *range, repeats).await;
            match &cost {
                Ok(c) => print!("{name:24} {:18} {c}   ", p.name),
                Err(e) => print!("{name:24} {:18} {e}   ", p.name),
            }
            println!();
            costs.push(cost.ok());
        }
        let others: Vec<&Cost> = costs[1..].iter().flatten().collect();
        let (Some(Some(own)), false) = (costs.first(), others.is_empty()) else { continue };
        let least = |f: fn(&Cost) -> f64| others.iter().map(|c| f(c)).fold(f64::INFINITY, f64::min);
        let memory = costs[1].as_ref().map_or(0.0, |c| c.mib / own.mib.max(0.1));
        println!(
            "{name:24} better peer / koios: CPU {:.2}, wall {:.2}; memory prometheus / koios {memory:.1}",
            least(|c| c.cpu_ms) / own.cpu_ms,
            least(|c| c.wall_ms) / own.wall_ms,
        );
    }
}

fn main() {
    if !peer("prometheus") {
        return;
    }
    let text = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let number = |t: &str| t.trim().parse::<usize>().unwrap_or_else(|_| panic!("{t:?} is not a number"));
    let (repeats, only) = (number(&text("KOIOS_BENCH_REPEATS", "5")), text("KOIOS_BENCH_ONLY", ""));
    let wanted = |name: &str| only.split(',').any(|part| name.contains(part));
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    for n in text("KOIOS_BENCH_SERIES", "1000,20000").split(',').filter(|n| !n.is_empty()) {
        runtime.block_on(run(number(n), repeats, |name| wanted(name)));
    }
    for n in text("KOIOS_BENCH_INSTANT", "50000").split(',').filter(|n| !n.is_empty()) {
        runtime.block_on(run(number(n), repeats, |name| name == INSTANT && wanted(name)));
    }
}
