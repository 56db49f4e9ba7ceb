//! Targets that a server tells: it is asked once a zone, and whatever befalls it costs no target.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, scratch, until};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const REFRESH: Duration = Duration::from_secs(2);
const TARGETS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server answers, and what it was asked.
#[derive(Default)]
struct Shelf {
    status: u16,
    content_type: &'static str,
    body: String,
    requests: Vec<String>,
}

/// A server of targets; stops when dropped.
struct Server {
    addr: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let held = shelf.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, held.clone()));
            }
        });
        Self { addr, shelf, task }
    }

    fn tell(&self, status: u16, content_type: &'static str, body: &str) {
        let mut shelf = self.shelf.lock().expect("the lock");
        (shelf.status, shelf.content_type, shelf.body) = (status, content_type, body.to_owned());
    }

    fn requests(&self) -> usize {
        self.shelf.lock().expect("the lock").requests.len()
    }

    /// Waits for so many more requests.
    async fn asked(&self, more: usize) -> Duration {
        let (start, wanted) = (Instant::now(), self.requests() + more);
        until("the server is asked", PATIENCE, || async {
            let n = self.requests();
            if n >= wanted { Ok(()) } else { Err(format!("{n} requests, {wanted} wanted")) }
        })
        .await;
        start.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, shelf: Arc<Mutex<Shelf>>) {
    let (mut request, mut buf) = (Vec::new(), [0u8; 2048]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buf).await {
            Ok(n) if n > 0 => request.extend_from_slice(&buf[..n]),
            _ => return,
        }
    }
    let answer = {
        let mut shelf = shelf.lock().expect("the lock");
        shelf.requests.push(String::from_utf8_lossy(&request).into_owned());
        let (status, kind, body) = (shelf.status, shelf.content_type, &shelf.body);
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn write_config(path: &Path, server: SocketAddr) {
    let refresh = REFRESH.as_secs();
    let text = format!(
        "global: {{scrape_interval: 5s, scrape_timeout: 5s}}\n\
         koios: {{cluster: {{gossip_interval: 200ms}}}}\n\
         scrape_configs:\n\
         - job_name: told\n  http_sd_configs: [{{url: 'http://{server}/targets', refresh_interval: {refresh}s, basic_auth: {{username: u, password: p}}}}]\n"
    );
    std::fs::write(path, text).expect("configuration");
}

/// How many targets are scraped in the cluster, as a node sees it.
async fn targets(api: &Api) -> Result<u64, String> {
    let data = api.data("/api/v1/cluster/ownership", &[]).await?;
    data["count"].as_u64().ok_or_else(|| data.to_string())
}

async fn until_targets(nodes: &[&Node], wanted: u64) {
    for n in nodes {
        let api = n.api();
        until("the targets are scraped", PATIENCE, || async {
            match targets(&api).await? {
                n if n == wanted => Ok(()),
                n => Err(format!("{n} targets, {wanted} wanted")),
            }
        })
        .await;
    }
}

/// A value of a metric of the source.
async fn metric(api: &Api, name: &str) -> Result<f64, String> {
    let (_, text) = api.get("/metrics", &[]).await?;
    let line = text.lines().find(|l| l.starts_with(name) && l.contains("/targets\""));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).ok_or_else(|| format!("no {name}"))
}

/// Which of the nodes asks for the zone.
async fn leader(nodes: &[&Node]) -> Result<usize, String> {
    let mut leaders = Vec::new();
    for (i, n) in nodes.iter().enumerate() {
        if metric(&n.api(), "koios_sd_leads").await? == 1.0 {
            leaders.push(i);
        }
    }
    if let [one] = leaders[..] { Ok(one) } else { Err(format!("leaders: {leaders:?}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_asked_once_a_zone_and_no_error_of_it_costs_a_target() {
    let root = scratch();
    let mut exporters = Vec::new();
    for i in 0..TARGETS {
        exporters.push(Exporter::start(&format!("t{i}"), Behaviour::Series(1)).await);
    }
    let addresses: Vec<String> = exporters.iter().map(|e| e.addr.to_string()).collect();
    let list = serde_json::json!([{ "targets": addresses, "labels": { "team": "x" } }]).to_string();
    let server = Server::start().await;
    server.tell(200, "application/json; charset=utf-8", &list);
    let config = root.path().join("prometheus.yml");
    write_config(&config, server.addr);
    let first = NodeSpec::new("a", root.path()).config(&config);
    let join = |name: &str| NodeSpec::new(name, root.path()).config(&config).join(&first);
    let mut nodes = vec![first.start(), join("b").start(), join("c").start()];
    for n in &nodes {
        let api = n.api();
        until("three ready nodes", PATIENCE, || api.all_ready(3)).await;
    }
    let all: Vec<&Node> = nodes.iter().collect();
    until_targets(&all, TARGETS as u64).await;
    let leads = until("one of them leads", PATIENCE, || leader(&all)).await;

    // Once per refresh, not three times.
    let took = server.asked(5).await;
    assert!(took > REFRESH * 4 - REFRESH / 2, "five requests within {took:?}: more than one node asks");
    let request =
        server.shelf.lock().expect("the lock").requests.last().cloned().expect("a request").to_lowercase();
    for part in ["get /targets ", "x-prometheus-refresh-interval-seconds: 2\r\n", "authorization: basic dtpw"]
    {
        assert!(request.contains(part), "{part:?} is not in {request}");
    }

    // The leader dies while the source is in trouble.
    server.tell(500, "text/plain", "away");
    nodes.remove(leads).kill();
    let all: Vec<&Node> = nodes.iter().collect();
    until("another leads", PATIENCE, || leader(&all)).await;
    server.asked(2).await;
    server.tell(200, "text/html", &list.replace("x", "y"));
    server.asked(2).await;
    server.tell(200, "application/json", "[{\"targets\": [\"a:");
    server.asked(2).await;
    until_targets(&all, TARGETS as u64).await;
    let leads = until("one leads", PATIENCE, || leader(&all)).await;
    let failures = metric(&all[leads].api(), "prometheus_sd_refresh_failures_total").await.expect("metrics");
    assert!(failures >= 5.0, "{failures} failures");

    // An empty list is believed when it came three times.
    server.tell(200, "application/json", "[]");
    server.asked(2).await;
    until_targets(&all, TARGETS as u64).await;
    until_targets(&all, 0).await;
    assert_eq!(metric(&all[leads].api(), "koios_sd_empty_lists_doubted_total").await, Ok(2.0));
    server.tell(200, "application/json", &list);
    until_targets(&all, TARGETS as u64).await;
    remembered(nodes, server, &addresses).await;
}

/// Everything ends; what comes back knows its targets although nobody tells them.
async fn remembered(nodes: Vec<Node>, server: Server, addresses: &[String]) {
    let specs: Vec<NodeSpec> = nodes.iter().map(|n| n.spec.clone()).collect();
    until("the lists are on disk", PATIENCE, || async {
        let kept = |s: &NodeSpec| {
            let mut files = std::fs::read_dir(s.dir.join("discovery")).map_err(|e| e.to_string())?;
            let file = files.next().ok_or("no list")?.map_err(|e| e.to_string())?;
            let text = std::fs::read_to_string(file.path()).map_err(|e| e.to_string())?;
            if text.contains(&addresses[0]) { Ok(()) } else { Err(text) }
        };
        specs.iter().try_for_each(kept)
    })
    .await;
    drop(nodes);
    drop(server);
    let back: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
    until_targets(&back.iter().collect::<Vec<_>>(), addresses.len() as u64).await;
}
