//! Real peers: node exporter, Prometheus.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::free_ports;

/// A peer's process; killed when dropped.
pub struct PeerProcess {
    /// Its port on loopback.
    pub port: u16,
    child: Child,
}

impl PeerProcess {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end in order and waits.
    pub fn end(mut self, patience: Duration) {
        let sent = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|s| s.success()), "SIGTERM");
        let begun = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            assert!(begun.elapsed() < patience, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(program: &str, port: u16, args: &[String]) -> PeerProcess {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    PeerProcess { port, child: child.unwrap_or_else(|e| panic!("{program} does not start: {e}")) }
}

/// `prometheus-node-exporter` on a free port.
pub fn node_exporter() -> PeerProcess {
    let [port] = free_ports();
    start("prometheus-node-exporter", port, &[format!("--web.listen-address=127.0.0.1:{port}")])
}

/// Debian's `prometheus` on an existing data directory, scraping nothing, keeping everything.
pub fn prometheus(data: &Path, config: &Path) -> PeerProcess {
    let [port] = free_ports();
    let args = [
        format!("--web.listen-address=127.0.0.1:{port}"),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--config.file={}", config.display()),
        "--storage.tsdb.retention.time=100y".to_owned(),
        "--storage.tsdb.min-block-duration=2h".to_owned(),
        "--storage.tsdb.max-block-duration=2h".to_owned(),
        "--query.timeout=5m".to_owned(),
    ];
    start("prometheus", port, &args)
}

/// Debian's `victoria-metrics` on its own data directory, keeping everything, without a cache of results.
pub fn victoria_metrics(data: &Path) -> PeerProcess {
    let [port] = free_ports();
    let args = [
        format!("-httpListenAddr=127.0.0.1:{port}"),
        format!("-storageDataPath={}", data.display()),
        "-retentionPeriod=100y".to_owned(),
        "-search.disableCache".to_owned(),
        "-search.latencyOffset=0s".to_owned(),
        "-search.maxQueryDuration=5m".to_owned(),
    ];
    start("victoria-metrics", port, &args)
}
