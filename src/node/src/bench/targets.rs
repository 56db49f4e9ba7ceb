//! The targets that both rivals scrape.
//!
//! One listener per thousand series. What is served depends on the second alone, so whoever asks gets the same
//! numbers; the path tells who asked. Until the gate opens every scrape is refused, so that the rivals can be
//! looked at while they hold nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use koios_model::Clock;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::data::{TARGET, exposition};

/// Largest request head.
const HEAD_MAX: usize = 64 << 10;

/// Running targets; they end when dropped.
pub struct Targets {
    pub addrs: Vec<SocketAddr>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    open: AtomicBool,
    /// Samples served, by path.
    served: Mutex<HashMap<String, Arc<AtomicU64>>>,
    /// The last body of each target, with its second.
    bodies: Vec<Mutex<(u64, Arc<Vec<u8>>)>>,
}

impl Targets {
    /// Starts `series / 1000` targets.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(clock: &Arc<dyn Clock>, series: usize) -> Result<Self, String> {
        let count = series / TARGET;
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            open: AtomicBool::new(false),
            served: Mutex::default(),
            bodies: (0..count).map(|_| Mutex::default()).collect(),
        });
        let (mut addrs, mut tasks) = (Vec::new(), Vec::new());
        for target in 0..count {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| e.to_string())?;
            addrs.push(listener.local_addr().map_err(|e| e.to_string())?);
            let shared = shared.clone();
            tasks.push(tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, target, shared.clone()));
                }
            }));
        }
        Ok(Self { addrs, shared, tasks })
    }

    /// Lets scrapes succeed.
    pub fn open(&self) {
        self.shared.open.store(true, Ordering::Release);
    }

    /// Samples served on a path.
    pub fn served(&self, path: &str) -> u64 {
        self.shared.served.lock().get(path).map_or(0, |n| n.load(Ordering::Acquire))
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn body(&self, target: usize) -> Arc<Vec<u8>> {
        let tick = (self.clock.now_ms() / 1000).max(1) as u64;
        let mut last = self.bodies[target].lock();
        if last.0 != tick {
            *last = (tick, Arc::new(exposition(target, tick).into_bytes()));
        }
        last.1.clone()
    }
}

/// Answers the requests of one connection, one after the other.
async fn serve(mut stream: TcpStream, target: usize, shared: Arc<Shared>) {
    let mut head = Vec::new();
    loop {
        let mut part = [0u8; 4096];
        match stream.read(&mut part).await {
            Ok(n) if n > 0 && head.len() < HEAD_MAX => head.extend_from_slice(&part[..n]),
            _ => return,
        }
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or("").to_owned();
        head.clear();
        let reply = if shared.open.load(Ordering::Acquire) {
            let body = shared.body(target);
            let counter = shared.served.lock().entry(path).or_default().clone();
            counter.fetch_add(TARGET as u64, Ordering::AcqRel);
            let length = body.len();
            let mut reply =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\r\n")
                    .into_bytes();
            reply.extend_from_slice(&body);
            reply
        } else {
            b"HTTP/1.1 503 Not yet\r\nContent-Length: 0\r\n\r\n".to_vec()
        };
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}
