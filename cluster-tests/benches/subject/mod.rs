//! One server under measurement: how it starts, what a question costs it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use koios_cluster_tests::made::{START_MS, serving};
use koios_cluster_tests::peers::{PeerProcess, prometheus as prometheus_process, victoria_metrics};
use koios_cluster_tests::{Api, until};
use koios_model::{Columns, Labels};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(300);
/// Distance of looks at the memory.
const LOOK: Duration = Duration::from_millis(1);

/// What one query took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub cpu_ms: f64,
    pub wall_ms: f64,
    /// How far anonymous memory rose.
    pub mib: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.1} / {:9.1} / {:7.1}", self.cpu_ms, self.wall_ms, self.mib)
    }
}

type Process = (SocketAddr, u32, Box<dyn Any>);

/// A server with data, not running.
pub struct Peer {
    pub name: &'static str,
    start: Box<dyn Fn() -> Process>,
}

impl Peer {
    /// Starts it and waits until it answers from its data.
    pub async fn start(&self) -> Running {
        let (addr, pid, process) = (self.start)();
        let api = Api::new(addr);
        let at = START_MS as f64 / 1000.0 + 3600.0;
        until("data is there", Duration::from_secs(60), || api.number("count(gauge{job=\"job1\"})", at))
            .await;
        Running::over(addr, pid, process)
    }
}

/// A running server; ends when dropped.
pub struct Running {
    addr: SocketAddr,
    pid: u32,
    client: reqwest::Client,
    _process: Box<dyn Any>,
}

impl Running {
    /// A process that answers at `addr`.
    pub fn over(addr: SocketAddr, pid: u32, process: Box<dyn Any>) -> Self {
        // Without compression: else the figures for large answers are those of gzip.
        let client = reqwest::Client::builder().timeout(PATIENCE).no_gzip();
        let client = client.build().expect("HTTP client");
        Self { addr, pid, client, _process: process }
    }

    /// Time on a CPU of all threads so far, ms.
    fn cpu_ms(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("tasks");
        let ns = |task: std::fs::DirEntry| -> Option<f64> {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        tasks.flatten().filter_map(ns).sum::<f64>() / 1e6
    }

    /// Asks, reads the whole answer and lets it go.
    pub async fn ask(&self, path: &str, params: &[(&str, &str)]) -> Result<Cost, String> {
        let url = format!("http://{}/api/v1/{path}", self.addr);
        let url = reqwest::Url::parse_with_params(&url, params).map_err(|e| e.to_string())?;
        let (before, watch, begun) = (self.cpu_ms(), Watch::start(self.pid), Instant::now());
        let mut response = self.client.get(url).send().await.map_err(|e| e.to_string())?;
        let status = response.status();
        let mut first = None;
        while let Some(piece) = response.chunk().await.map_err(|e| e.to_string())? {
            first.get_or_insert(piece);
        }
        let wall_ms = begun.elapsed().as_secs_f64() * 1000.0;
        let cost = Cost { cpu_ms: self.cpu_ms() - before, wall_ms, mib: watch.stop() as f64 / 1024.0 };
        if status.is_success() {
            return Ok(cost);
        }
        let said = first.map(|b| String::from_utf8_lossy(&b).chars().take(200).collect::<String>());
        Err(format!("{status}: {}", said.unwrap_or_default()))
    }
}

/// Looks at the anonymous memory of a process.
struct Watch {
    before: u64,
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<()>,
}

fn anonymous_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("RssAnon:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

impl Watch {
    fn start(pid: u32) -> Self {
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, done) = (most.clone(), over.clone());
        let looking = std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                seen.fetch_max(anonymous_kib(pid), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
            seen.fetch_max(anonymous_kib(pid), Ordering::Relaxed);
        });
        Self { before: anonymous_kib(pid), most, over, looking }
    }

    /// KiB above the beginning.
    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.looking.join().expect("the watch ends");
        self.most.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

/// Koios over a bucket.
pub fn koios(root: &Path, bucket: &Path) -> Peer {
    let (root, bucket) = (root.to_path_buf(), bucket.to_path_buf());
    let start = move || -> Process {
        let node = serving(&root, &bucket, "").start();
        (node.spec.http(), node.pid(), Box::new(node))
    };
    Peer { name: "koios", start: Box::new(start) }
}

fn process(p: PeerProcess) -> Process {
    (([127, 0, 0, 1], p.port).into(), p.pid(), Box::new(p))
}

/// Prometheus on its data.
pub fn prometheus(root: &Path, data: &Path) -> Peer {
    let (empty, data): (PathBuf, PathBuf) = (root.join("empty.yml"), data.to_path_buf());
    std::fs::write(&empty, "global: {evaluation_interval: 1m}\n").expect("configuration");
    Peer { name: "prometheus", start: Box::new(move || process(prometheus_process(&data, &empty))) }
}

/// VictoriaMetrics on its data.
pub fn victoria(data: &Path) -> Peer {
    let data = data.to_path_buf();
    Peer { name: "victoria-metrics", start: Box::new(move || process(victoria_metrics(&data))) }
}

/// Loads the samples as JSON lines, a few hundred series at a time, and ends the server in an orderly way.
pub async fn fill_victoria(data: &Path, all: &BTreeMap<Labels, Columns>) {
    let vm = victoria_metrics(data);
    let api = Api::new(([127, 0, 0, 1], vm.port).into());
    until("it answers", Duration::from_secs(30), || async { api.get("/health", &[]).await }).await;
    let client = reqwest::Client::new();
    let series: Vec<_> = all.iter().collect();
    for part in series.chunks(500) {
        let line = |(labels, c): &(&Labels, &Columns)| {
            let metric: BTreeMap<String, String> =
                labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            serde_json::json!({"metric": metric, "values": c.values, "timestamps": c.times}).to_string()
        };
        let body = part.iter().map(line).collect::<Vec<_>>().join("\n");
        let url = format!("http://127.0.0.1:{}/api/v1/import", vm.port);
        assert!(client.post(url).body(body).send().await.expect("import").status().is_success());
    }
    vm.end(Duration::from_secs(60));
}
