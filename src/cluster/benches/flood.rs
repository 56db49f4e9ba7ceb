//! What 50,000 forged gossip datagrams a second cost the node that they are sent to, loopback, one sender.
//!
//! `cargo bench -p koios-cluster --bench flood`. The share of a core is that of the whole process without the sender.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chitchat::transport::Transport;
use koios_cluster::KeyRing;
use koios_cluster::frame::seal;
use koios_cluster::transport::{SealedTransport, TransportStats};
use koios_model::{Clock, SystemClock};

const RATE: u64 = 50_000;
const TIME: Duration = Duration::from_secs(5);

/// Processor seconds in a `stat` file of the kernel.
fn seconds(path: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Sends the packets in turn; the sender's own processor seconds and how many were sent.
fn flood(clock: &dyn Clock, to: std::net::SocketAddr, packets: &[Vec<u8>]) -> (f64, u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (begun, mut sent) = (clock.mono_ns(), 0u64);
    let elapsed = || Duration::from_nanos(clock.mono_ns() - begun);
    while elapsed() < TIME {
        let due = (elapsed().as_secs_f64() * RATE as f64) as u64;
        if sent >= due {
            std::thread::sleep(Duration::from_micros(200));
        }
        while sent < due {
            let _ = socket.send_to(&packets[(sent % packets.len() as u64) as usize], to);
            sent += 1;
        }
    }
    (seconds("/proc/thread-self/stat"), sent)
}

fn main() {
    let ring = Arc::new(KeyRing::new("bench", &["correct horse battery staple".to_owned()]));
    let clock = SystemClock::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for bytes in [100, 1_100] {
        let forged: Vec<Vec<u8>> = (0..64)
            .flat_map(|id| seal(&ring, &vec![7; bytes], id, clock.now_ms()).expect("a frame"))
            .map(|mut frame| {
                let last = frame.len() - 1;
                frame[last] ^= 1;
                frame
            })
            .collect();
        let to = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port");
        let stats = Arc::new(TransportStats::default());
        let transport = SealedTransport::new(ring.clone(), clock.clone(), stats.clone());
        let is_open = Arc::new(AtomicBool::new(false));
        let opened = is_open.clone();
        let task = runtime.spawn(async move {
            let mut socket = transport.open(to).await.expect("a socket");
            opened.store(true, Ordering::Release);
            loop {
                let _ = socket.recv().await;
            }
        });
        while !is_open.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let before = seconds("/proc/self/stat");
        let (own, sent) = std::thread::spawn({
            let clock = clock.clone();
            move || flood(&*clock, to, &forged)
        })
        .join()
        .expect("the sender");
        let used = seconds("/proc/self/stat") - before - own;
        let rejected = stats.rejected.load(Ordering::Relaxed);
        println!(
            "{bytes} bytes: {sent} sent, {rejected} rejected, {:.1} % of a core, {:.2} us each",
            100.0 * used / TIME.as_secs_f64(),
            used * 1e6 / rejected.max(1) as f64
        );
        task.abort();
    }
}
