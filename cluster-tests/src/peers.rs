//! Real peers: node exporter, Prometheus, object stores.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{free_ports, until};

const STORE_PATIENCE: Duration = Duration::from_secs(60);

/// A peer's process; killed when dropped.
pub struct PeerProcess {
    /// Its port on loopback.
    pub port: u16,
    child: Child,
}

impl PeerProcess {
    /// Ends it without warning, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

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
        self.kill();
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

/// Debian's `prometheus` on an existing data directory, keeping everything.
pub fn prometheus(data: &Path, config: &Path) -> PeerProcess {
    let [port] = free_ports();
    prometheus_at(port, data, config, &[])
}

/// As `prometheus`, on a port, e.g. the one that it had before, and with further flags.
pub fn prometheus_at(port: u16, data: &Path, config: &Path, more: &[&str]) -> PeerProcess {
    let mut args: Vec<String> = vec![
        format!("--web.listen-address=127.0.0.1:{port}"),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--config.file={}", config.display()),
        "--storage.tsdb.retention.time=100y".to_owned(),
        "--storage.tsdb.min-block-duration=2h".to_owned(),
        "--storage.tsdb.max-block-duration=2h".to_owned(),
        "--query.timeout=5m".to_owned(),
    ];
    args.extend(more.iter().map(|a| (*a).to_owned()));
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

/// An S3 server (moto); its bucket `koios` is there when this returns.
pub async fn s3() -> PeerProcess {
    let [port] = free_ports();
    let peer = start(
        "moto_server",
        port,
        &["-H".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), port.to_string()],
    );
    let client = reqwest::Client::builder().no_proxy().build().expect("HTTP client");
    until("the S3 server answers", STORE_PATIENCE, || async {
        let made =
            client.put(format!("http://127.0.0.1:{port}/koios")).send().await.map_err(|e| e.to_string())?;
        if made.status().is_success() { Ok(()) } else { Err(made.status().to_string()) }
    })
    .await;
    peer
}

/// How a node opens the bucket of the S3 server at `port`.
pub fn s3_yaml(port: u16, prefix: &str) -> String {
    format!(
        "type: S3\nprefix: {prefix}\nconfig:\n  bucket: koios\n  endpoint: 127.0.0.1:{port}\n  region: us-east-1\n  insecure: true\n  access_key: a\n  secret_key: $(KOIOS_TEST_SECRET)\n"
    )
}

/// The environment that `s3_yaml` refers to.
pub const S3_SECRET: (&str, &str) = ("KOIOS_TEST_SECRET", "secret");

/// The well-known account of Azure's emulators and its public key.
pub const AZURE_ACCOUNT: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// Makes the container `koios`: a request signed with the shared key, with nothing but Python's own library.
const MAKE_CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
account, key, port = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
path = f"/{account}/koios"
words = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2023-11-03\n/{account}{path}\nrestype:container"
sign = base64.b64encode(hmac.new(base64.b64decode(key), words.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": "2023-11-03", "Authorization": f"SharedKey {account}:{sign}"}
request = urllib.request.Request(f"http://127.0.0.1:{port}{path}?restype=container", method="PUT", headers=headers)
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
"#;

/// An Azure blob server (azurite); its container `koios` is there when this returns.
pub async fn azure(dir: &Path) -> PeerProcess {
    let [port] = free_ports();
    let args =
        ["--blobHost", "127.0.0.1", "--skipApiVersionCheck", "--silent", "--disableTelemetry", "--location"];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    args.extend([dir.display().to_string(), "--blobPort".to_owned(), port.to_string()]);
    let peer = start("azurite-blob", port, &args);
    until("the Azure server listens", STORE_PATIENCE, || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let (account, key) = AZURE_ACCOUNT;
    let made = Command::new("python3").args(["-c", MAKE_CONTAINER, account, key, &port.to_string()]).output();
    let made = made.expect("python3 runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    peer
}
