//! Processes side by side: this binary, and `prometheus` and `victoria-metrics` when they are installed.
//!
//! All get the same targets, interval and machine at the same time, each with its defaults. Memory is what the
//! resident set grew by since before the first sample; processor time is all that the process used while it
//! scraped, everything else it does included. Koios forces its log to disk before it counts a scrape as kept;
//! Prometheus leaves that to the system, and VictoriaMetrics, which has no log, writes its parts every few seconds. At
//! the end each is killed without warning and started again; its time to be ready is wall-clock time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use koios_model::Clock;

use super::Row;
use super::process::{Process, Scratch, dir_bytes, find, free_port};
use super::questions::{QUESTIONS, Round, ask};
use super::targets::Targets;

/// Longest wait for a rival to be ready, or to have scraped everything once.
const PATIENCE: Duration = Duration::from_secs(15);
/// After the first scrape: series are made, buffers have grown.
const SETTLE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(100);

/// A killed process reads what it kept.
const RESTART_PATIENCE: Duration = Duration::from_secs(300);

/// How long and how often.
#[derive(Clone, Copy)]
pub struct Length {
    /// Of measured scraping.
    pub seconds: u64,
    /// Between scrapes, seconds.
    pub interval: u64,
}

/// What came out.
pub struct Duel {
    /// Names and versions of the peers.
    pub peers: Vec<String>,
    /// Figures.
    pub rows: Vec<Row>,
}

struct Rival {
    path: &'static str,
    base: String,
    program: PathBuf,
    args: Vec<String>,
    process: Process,
    wal: PathBuf,
}

/// A look at a rival.
#[derive(Clone, Copy)]
struct Look {
    cpu_ns: u64,
    memory: u64,
    samples: u64,
    wal: u64,
}

/// Runs both for `seconds`, then asks both.
///
/// # Errors
/// When a process does not start, or has no answer.
pub fn run(clock: &Arc<dyn Clock>, series: usize, length: Length) -> Result<Duel, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(fight(clock, series, length))
}

async fn fight(clock: &Arc<dyn Clock>, series: usize, length: Length) -> Result<Duel, String> {
    let scratch = Scratch::new("duel").map_err(|e| e.to_string())?;
    let targets = Targets::start(clock, series).await?;
    let client = reqwest::Client::new();
    let mut rivals = vec![koios(scratch.path(), &targets, length.interval)?];
    let mut peers = Vec::new();
    if let Some(program) = find("prometheus") {
        peers.push(version(&program, 2, "prometheus"));
        rivals.push(prometheus(&program, scratch.path(), &targets, length.interval)?);
    }
    if let Some(program) = find("victoria-metrics") {
        peers.push("victoria-metrics".to_owned());
        rivals.push(victoria(&program, scratch.path(), &targets, length.interval)?);
    }
    for rival in &mut rivals {
        rival.ready(&client, PATIENCE).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let empty: Vec<Look> = rivals.iter().map(|r| r.look(&targets)).collect();
    targets.open();
    wait_for_all(&rivals, &targets, series as u64, length.interval).await?;
    tokio::time::sleep(SETTLE).await;

    let (from, before) = (clock.now_ms(), rivals.iter().map(|r| r.look(&targets)).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(length.seconds)).await;
    let (until, after) = (clock.now_ms(), rivals.iter().map(|r| r.look(&targets)).collect::<Vec<_>>());

    let mut rows = resources(series, &empty, &before, &after);
    let bases: Vec<String> = rivals.iter().map(|r| r.base.clone()).collect();
    for question in &QUESTIONS {
        let (expr, range) = (question.text(length.interval), question.range);
        let round = Round { expr, range, span: (from, until) };
        let times = ask(&**clock, &client, &bases, &round).await?;
        let kind = if range { "range" } else { "instant" };
        let what = format!("{kind} {}", round.expr);
        rows.push(Row::beside(what, "ms p50", &times));
    }
    let mut restarts = Vec::new();
    for rival in &mut rivals {
        restarts.push(rival.restart(clock, &client).await?);
    }
    rows.push(Row::beside("restart after kill -9, until ready", "ms", &restarts));
    Ok(Duel { peers, rows })
}

fn resources(series: usize, empty: &[Look], before: &[Look], after: &[Look]) -> Vec<Row> {
    let row = |what, unit, figure: &dyn Fn(usize) -> f64| {
        Row::beside(what, unit, &(0..after.len()).map(figure).collect::<Vec<f64>>())
    };
    let samples = |i: usize| (after[i].samples - before[i].samples).max(1) as f64;
    vec![
        row("samples scraped", "samples", &samples),
        row("processor time per scraped sample", "ns", &|i| {
            (after[i].cpu_ns - before[i].cpu_ns) as f64 / samples(i)
        }),
        row("log on disk per scraped sample", "bytes", &|i| {
            after[i].wal.saturating_sub(before[i].wal) as f64 / samples(i)
        }),
        row("memory grown per series", "bytes", &|i| {
            after[i].memory.saturating_sub(empty[i].memory) as f64 / series as f64
        }),
        row("memory in all", "MiB", &|i| after[i].memory as f64 / f64::from(1 << 20)),
    ]
}

impl Rival {
    fn look(&self, targets: &Targets) -> Look {
        Look {
            cpu_ns: self.process.cpu_ns(),
            memory: self.process.resident_bytes(),
            samples: targets.served(self.path),
            wal: dir_bytes(&self.wal),
        }
    }

    /// Kills and starts it; milliseconds until it is ready. It is stopped for good afterwards, so that the next one
    /// has the machine.
    async fn restart(&mut self, clock: &Arc<dyn Clock>, client: &reqwest::Client) -> Result<f64, String> {
        self.process.kill();
        let start = clock.mono_ns();
        self.process = Process::start(&self.program, &self.args)?;
        self.ready(client, RESTART_PATIENCE).await?;
        let took = clock.mono_ns() - start;
        self.process.kill();
        Ok(took as f64 / 1e6)
    }

    async fn ready(&mut self, client: &reqwest::Client, patience: Duration) -> Result<(), String> {
        let url = format!("{}/-/ready", self.base);
        let waited = tokio::time::timeout(patience, async {
            while self.process.runs() {
                let answer = client.get(&url).timeout(PATIENCE).send().await;
                if answer.is_ok_and(|a| a.status().is_success()) {
                    return true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            false
        });
        if waited.await.unwrap_or(false) { Ok(()) } else { Err(format!("{url} does not turn ready")) }
    }
}

async fn wait_for_all(rivals: &[Rival], targets: &Targets, series: u64, interval: u64) -> Result<(), String> {
    let patience = PATIENCE + 4 * Duration::from_secs(interval);
    let waited = tokio::time::timeout(patience, async {
        while rivals.iter().any(|r| targets.served(r.path) < 2 * series) {
            tokio::time::sleep(PAUSE).await;
        }
    });
    waited.await.map_err(|_| format!("not everything was scraped within {patience:?}"))
}

/// Scrapes the targets on its own path.
fn config(dir: &Path, path: &str, targets: &Targets, interval: u64) -> Result<PathBuf, String> {
    let list: Vec<String> = targets.addrs.iter().map(|a| format!("'{a}'")).collect();
    let text = format!(
        "global: {{scrape_interval: {interval}s, scrape_timeout: {interval}s}}\n\
         scrape_configs:\n- job_name: bench\n  metrics_path: {path}\n  static_configs: [{{targets: [{}]}}]\n",
        list.join(", ")
    );
    let file = dir.join(format!("{}.yml", path.trim_start_matches('/')));
    std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

fn koios(dir: &Path, targets: &Targets, interval: u64) -> Result<Rival, String> {
    let (path, storage) = ("/koios", dir.join("koios"));
    let file = config(dir, path, targets, interval)?;
    let port = || free_port().map_err(|e| e.to_string());
    let (web, grpc, cluster) = (port()?, port()?, port()?);
    let args = vec![
        format!("--web.listen-address=127.0.0.1:{web}"),
        format!("--grpc.listen-address=127.0.0.1:{grpc}"),
        format!("--cluster.listen-address=127.0.0.1:{cluster}"),
        format!("--storage.path={}", storage.display()),
        format!("--config.file={}", file.display()),
    ];
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    rival(path, web, own, args, storage.join("head"))
}

fn rival(
    path: &'static str,
    web: u16,
    program: PathBuf,
    args: Vec<String>,
    wal: PathBuf,
) -> Result<Rival, String> {
    let process = Process::start(&program, &args)?;
    Ok(Rival { path, base: format!("http://127.0.0.1:{web}"), program, args, process, wal })
}

fn prometheus(program: &Path, dir: &Path, targets: &Targets, interval: u64) -> Result<Rival, String> {
    let (path, storage) = ("/prometheus", dir.join("prometheus"));
    let file = config(dir, path, targets, interval)?;
    let web = free_port().map_err(|e| e.to_string())?;
    let args = vec![
        format!("--web.listen-address=127.0.0.1:{web}"),
        format!("--storage.tsdb.path={}", storage.display()),
        format!("--config.file={}", file.display()),
    ];
    rival(path, web, program.to_path_buf(), args, storage.join("wal"))
}

fn victoria(program: &Path, dir: &Path, targets: &Targets, interval: u64) -> Result<Rival, String> {
    let (path, storage) = ("/victoria", dir.join("victoria"));
    let file = config(dir, path, targets, interval)?;
    let web = free_port().map_err(|e| e.to_string())?;
    let args = vec![
        format!("-httpListenAddr=127.0.0.1:{web}"),
        format!("-storageDataPath={}", storage.display()),
        format!("-promscrape.config={}", file.display()),
        // Results that were asked for before and fresh samples that are held back would not be compared fairly.
        "-search.disableCache".to_owned(),
        "-search.latencyOffset=0s".to_owned(),
        // Its default refuses questions over more than 300,000 series.
        "-search.maxUniqueTimeseries=10000000".to_owned(),
        // And gives up after 30 s.
        "-search.maxQueryDuration=120s".to_owned(),
    ];
    rival(path, web, program.to_path_buf(), args, storage)
}

/// The `word`th word of what the program says of its version, after a name.
fn version(program: &Path, word: usize, name: &str) -> String {
    let out = Command::new(program).arg("--version").output();
    let text =
        out.map(|o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned()).unwrap_or_default();
    // "prometheus, version 2.42.0+ds (branch: ...)"
    let found = text.split_whitespace().nth(word).unwrap_or_default();
    format!("{name} {found}").trim().to_owned()
}
