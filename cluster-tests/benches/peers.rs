//! Queries beside Debian's Prometheus and VictoriaMetrics: CPU and memory of each process.
//!
//! `KOIOS_BIN=<release binary> cargo bench -p koios-cluster-tests --bench peers`. `KOIOS_BENCH_SERIES` (default
//! `1000,20000`) and `KOIOS_BENCH_REPEATS` (3) size it. The same samples go into one block for Koios and
//! Prometheus and over the import API into VictoriaMetrics, whose result cache is off. A figure is the least
//! CPU time (user and system) of the repeats, and how far the resident memory rose at most.

use std::collections::BTreeMap;
use std::time::Duration;

use koios_cluster_tests::binary::peer;
use koios_cluster_tests::made::{INTERVAL_MS, START_MS, samples, served, serving, write_block};
use koios_cluster_tests::peers::{PeerProcess, prometheus, victoria_metrics};
use koios_cluster_tests::{Api, scratch, until};
use koios_model::{Columns, Labels};

const SAMPLES: i64 = 480;

/// Name, query, and whether over 480 steps or at one moment.
const QUERIES: [(&str, &str, bool); 11] = [
    ("sum by (rate)", "sum by (job) (rate(requests_total[5m]))", true),
    ("rate", "rate(requests_total[5m])", true),
    ("raw selector", "gauge", true),
    ("avg_over_time 1h", "avg_over_time(gauge[1h])", true),
    ("quantile_over_time 1h", "quantile_over_time(0.9, gauge[1h])", true),
    ("max_over_time 1h:1m", "max_over_time(gauge[1h:1m])", true),
    ("topk", "topk(5, gauge)", true),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))", true),
    ("group_left", "gauge / on () group_left () sum(requests_total)", true),
    ("regexp count", "count(gauge{path=~\".*(a|b|c)[0-9]+.*7\"})", true),
    ("instant sum by (rate)", "sum by (job) (rate(requests_total[5m]))", false),
];

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
        all.insert(
            Labels::from_pairs(base("gauge")),
            samples(SAMPLES, |k| ((k * 7919 + i * 31) % 997) as f64 / 8.0),
        );
        let le = ["0.1", "0.25", "0.5", "1", "+Inf"][i as usize % 5].to_owned();
        let labels = base("latency_bucket").into_iter().chain([("le", le)]);
        all.insert(Labels::from_pairs(labels), samples(SAMPLES, |k| (k * (1 + i % 5)) as f64));
    }
    all
}

/// One server under measurement.
struct Subject {
    name: &'static str,
    api: Api,
    pid: u32,
}

impl Subject {
    /// User and system time so far, ms.
    fn cpu_ms(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |i: usize| fields[i].parse::<u64>().expect("ticks");
        // 100 ticks a second on every Linux that matters here.
        (ticks(11) + ticks(12)) * 10
    }

    fn memory_kib(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("status");
        let line = status.lines().find(|l| l.starts_with(line)).expect("memory");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB")
    }

    /// CPU ms of one query, and by how many KiB memory rose.
    async fn measure(&self, query: &str, range: bool) -> (u64, u64) {
        let end = (START_MS + (SAMPLES - 1) * INTERVAL_MS) / 1000;
        let (start, end, step) = ((START_MS / 1000).to_string(), end.to_string(), "15");
        let range_params =
            [("query", query), ("start", &start), ("end", &end), ("step", step), ("nocache", "1")];
        let instant = [("query", query), ("time", end.as_str()), ("nocache", "1")];
        // Starts the peak anew.
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("clear_refs");
        let (cpu, memory) = (self.cpu_ms(), self.memory_kib("VmRSS:"));
        let (path, params) =
            if range { ("/api/v1/query_range", &range_params[..]) } else { ("/api/v1/query", &instant[..]) };
        let (status, body) = self.api.get(path, params).await.expect("an answer");
        assert_eq!(status, 200, "{}: {query}: {}", self.name, &body[..body.len().min(300)]);
        (self.cpu_ms() - cpu, self.memory_kib("VmHWM:").saturating_sub(memory))
    }
}

/// Loads the same samples as JSON lines, a few hundred series at a time.
async fn import(port: u16, all: &BTreeMap<Labels, Columns>) {
    let client = reqwest::Client::new();
    let series: Vec<_> = all.iter().collect();
    for part in series.chunks(500) {
        let line = |(labels, c): &(&Labels, &Columns)| {
            let metric: BTreeMap<String, String> =
                labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            serde_json::json!({"metric": metric, "values": c.values, "timestamps": c.times}).to_string()
        };
        let body = part.iter().map(line).collect::<Vec<_>>().join("\n");
        let sent = client.post(format!("http://127.0.0.1:{port}/api/v1/import")).body(body).send().await;
        assert!(sent.expect("import").status().is_success());
    }
}

async fn run(n: usize, repeats: usize) {
    let dir = scratch();
    let all = series(n);
    let (bucket, data) = (dir.path().join("bucket"), dir.path().join("prometheus"));
    for d in [&bucket, &data] {
        write_block(d, all.iter().map(|(l, c)| (l.clone(), c.clone())));
    }
    let koios = serving(dir.path(), &bucket, "").start();
    served(&koios, "count(gauge)").await;
    let empty = dir.path().join("empty.yml");
    std::fs::write(&empty, "global: {evaluation_interval: 1m}\n").expect("configuration");
    let api = |p: &PeerProcess| Api::new(([127, 0, 0, 1], p.port).into());
    let mut subjects = vec![Subject { name: "koios", api: koios.api(), pid: koios.pid() }];
    let prom = prometheus(&data, &empty);
    subjects.push(Subject { name: "prometheus", api: api(&prom), pid: prom.pid() });
    let vm = peer("victoria-metrics").then(|| victoria_metrics(&dir.path().join("vm")));
    if let Some(vm) = &vm {
        let subject = Subject { name: "victoria-metrics", api: api(vm), pid: vm.pid() };
        until("it answers", Duration::from_secs(30), || async { subject.api.get("/health", &[]).await })
            .await;
        import(vm.port, &all).await;
        subjects.push(subject);
    }
    for s in &subjects {
        let at = START_MS as f64 / 1000.0 + 3600.0;
        until("data is there", Duration::from_secs(60), || s.api.number("count(gauge)", at)).await;
    }
    report(n, repeats, &subjects).await;
}

async fn report(n: usize, repeats: usize, subjects: &[Subject]) {
    println!("\n{n} series of each metric x {SAMPLES} samples; CPU ms (memory growth MiB)");
    for (name, query, range) in QUERIES {
        let mut row = Vec::new();
        for s in subjects {
            let (mut cpu, mut memory) = (u64::MAX, 0);
            for _ in 0..repeats {
                let (c, m) = s.measure(query, range).await;
                (cpu, memory) = (cpu.min(c), memory.max(m));
            }
            row.push((s.name, cpu, memory));
        }
        let best = row[1..].iter().map(|r| r.1).min().unwrap_or(0);
        let shown: Vec<String> =
            row.iter().map(|(s, c, m)| format!("{s} {c} ({:.1})", *m as f64 / 1024.0)).collect();
        println!(
            "{name:24} {}   better peer / koios {:.2}",
            shown.join("   "),
            best as f64 / row[0].1.max(1) as f64
        );
    }
}

fn main() {
    if !peer("prometheus") {
        return;
    }
    let number = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let repeats = number("KOIOS_BENCH_REPEATS", "3").parse().expect("KOIOS_BENCH_REPEATS is a number");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    for n in number("KOIOS_BENCH_SERIES", "1000,20000").split(',') {
        runtime.block_on(run(n.trim().parse().expect("KOIOS_BENCH_SERIES lists numbers"), repeats));
    }
}
