//! A target that a test controls.
//!
//! Serves self-describing series: `probe_value{target="…",n="…"}` counts the scrapes of this target, so each
//! sample says which scrape it came from. Body and behaviour can be changed while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the target answers.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// That many series.
    Series(usize),
    /// These bytes as the whole HTTP response, then the end of the connection.
    Raw(Vec<u8>),
    /// A body that never ends.
    Endless,
    /// A header and then nothing.
    Stuck,
}

/// A running target; stops when dropped.
pub struct Exporter {
    /// Where it listens.
    pub addr: SocketAddr,
    scrapes: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts a target called `name`.
    pub async fn start(name: &str, behaviour: Behaviour) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), name, behaviour).await
    }

    /// Starts a target called `name` at an address; port 0 is a free one.
    pub async fn start_at(at: SocketAddr, name: &str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(at).await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let scrapes = Arc::new(AtomicU64::new(0));
        let (counter, name) = (scrapes.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(answer(stream, name.clone(), behaviour.clone(), counter.clone()));
            }
        });
        Self { addr, scrapes, task }
    }

    /// How often it was scraped.
    pub fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::SeqCst)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, name: String, behaviour: Behaviour, scrapes: Arc<AtomicU64>) {
    let mut request = Vec::new();
    loop {
        let mut buf = [0u8; 2048];
        let Ok(n) = stream.read(&mut buf).await else { return };
        if n == 0 {
            return;
        }
        request.extend_from_slice(&buf[..n]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        let count = scrapes.fetch_add(1, Ordering::SeqCst) + 1;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
        let reply = match &behaviour {
            Behaviour::Series(n) => {
                let mut body = String::from("# TYPE probe_value counter\n");
                for i in 0..*n {
                    body.push_str(&format!("probe_value{{target=\"{name}\",n=\"{i}\"}} {count}\n"));
                }
                format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
            }
            Behaviour::Raw(bytes) => {
                let _ = stream.write_all(bytes).await;
                return;
            }
            Behaviour::Stuck => {
                let _ = stream.write_all(format!("{head}Content-Length: 100\r\n\r\n").as_bytes()).await;
                std::future::pending::<()>().await;
                return;
            }
            Behaviour::Endless => {
                let _ = stream.write_all(format!("{head}\r\n").as_bytes()).await;
                let line = "endless_value{x=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"} 1\n".repeat(1000);
                while stream.write_all(line.as_bytes()).await.is_ok() {}
                return;
            }
        };
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}
