//! Chitchat's transport, sealed.
//!
//! One forged datagram can end chitchat's own UDP task, so it never listens on a real network. The crate
//! does not export its codec, so a private loopback pair of its own sockets turns messages into bytes and
//! back, and the bytes travel as sealed frames (`frame`). Everything that fails authentication is counted
//! and dropped before the crate sees it.
//!
//! Invariant: `recv` may be cancelled at any await, and is at every round; the message on its way through the codec is
//! kept in the socket itself, with the time until when that may take. A codec that lost one is replaced: what it still
//! had would be taken for the answer to a later question.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket as CodecSocket};
use koios_model::Clock;
use tokio::net::UdpSocket;

use crate::frame::{FRAME_BYTES_MAX, Reassembler, seal};
use crate::outer::Outer;
use crate::secret::KeyRing;

/// How long the codec may take for one message before it is given up.
const CODEC_TIMEOUT: Duration = Duration::from_millis(250);
/// After so many dropped datagrams other tasks of the thread have their turn.
const FAIR: u32 = 128;
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Counts of what passed and what was dropped.
#[derive(Debug, Default)]
pub struct TransportStats {
    /// Frames sent.
    pub sent: AtomicU64,
    /// Bytes of frames sent, with their seals.
    pub sent_bytes: AtomicU64,
    /// Frames opened.
    pub received: AtomicU64,
    /// Datagrams dropped before they reached the gossip engine.
    pub rejected: AtomicU64,
}

/// Says of a frame's receiver that the frame is lost on the way. For tests: a network that loses, or is cut.
pub type Weather = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Opens sealed sockets.
pub struct SealedTransport {
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    stats: Arc<TransportStats>,
    weather: Option<Weather>,
}

impl SealedTransport {
    /// A transport that seals with `ring`.
    pub fn new(ring: Arc<KeyRing>, clock: Arc<dyn Clock>, stats: Arc<TransportStats>) -> Self {
        Self { ring, clock, stats, weather: None }
    }

    /// The same over a bad network.
    pub fn in_weather(self, weather: Option<Weather>) -> Self {
        Self { weather, ..self }
    }
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let outer = Outer::bind(listen_addr).await?;
        let (codec, bridge) = codec().await?;
        Ok(Box::new(SealedSocket {
            ring: self.ring.clone(),
            clock: self.clock.clone(),
            stats: self.stats.clone(),
            weather: self.weather.clone(),
            bridge_addr: bridge.local_addr()?,
            outer,
            codec,
            bridge,
            reassembler: Reassembler::default(),
            next_id: 0,
            dropped: 0,
            encoded: vec![0; DATAGRAM_BYTES_MAX],
            pending: None,
        }))
    }
}

/// The codec and the socket it is spoken to through.
async fn codec() -> anyhow::Result<(CodecSocket, UdpSocket)> {
    let codec = CodecSocket::open(LOOPBACK).await?;
    let bridge = UdpSocket::bind(LOOPBACK).await?;
    bridge.connect(codec.local_addr()?).await?;
    Ok((codec, bridge))
}

struct SealedSocket {
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    stats: Arc<TransportStats>,
    weather: Option<Weather>,
    outer: Outer,
    codec: CodecSocket,
    bridge: UdpSocket,
    bridge_addr: SocketAddr,
    reassembler: Reassembler,
    next_id: u64,
    /// Datagrams dropped so far, for turns.
    dropped: u32,
    /// What the codec made of the message in hand.
    encoded: Vec<u8>,
    pending: Option<Pending>,
}

/// A message on its way through the codec.
struct Pending {
    from: SocketAddr,
    message: Vec<u8>,
    handed_over: bool,
    until_ns: u64,
}

impl SealedSocket {
    /// Takes a fresh codec. With the old one every message from then on could go to, or seem to come from, the wrong
    /// peer.
    async fn renew_codec(&mut self) -> anyhow::Result<()> {
        self.pending = None;
        let (codec, bridge) = codec().await?;
        self.bridge_addr = bridge.local_addr()?;
        (self.codec, self.bridge) = (codec, bridge);
        Ok(())
    }

    /// Waits for a whole, authentic message. Datagrams are taken until there is none, without the scheduler in between.
    async fn next_message(&mut self) -> anyhow::Result<Pending> {
        let mut buf = [0u8; FRAME_BYTES_MAX + 1];
        loop {
            let (len, from) = match self.outer.take(&mut buf) {
                Ok(ok) => ok,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    self.outer.wait(self.clock.mono_ns()).await?;
                    continue;
                }
                Err(e) if transient(&e) => continue,
                Err(e) => return Err(e.into()),
            };
            let (now_ms, mono_ns) = (self.clock.now_ms(), self.clock.mono_ns());
            let accepted = self.reassembler.accept(&self.ring, from, &buf[..len], now_ms, mono_ns);
            koios_model::failpoint::fault("gossip receive");
            match accepted {
                Ok(whole) => {
                    self.stats.received.fetch_add(1, Ordering::Relaxed);
                    let Some(message) = whole else { continue };
                    let until_ns = self.clock.mono_ns() + CODEC_TIMEOUT.as_nanos() as u64;
                    return Ok(Pending { from, message, handed_over: false, until_ns });
                }
                Err(_) => {
                    self.stats.rejected.fetch_add(1, Ordering::Relaxed);
                    self.outer.note_dropped(mono_ns);
                    self.dropped = self.dropped.wrapping_add(1);
                    if self.dropped.is_multiple_of(FAIR) {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }
}

fn transient(e: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        e.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::OutOfMemory
            | ErrorKind::Interrupted
    )
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.outer.address())
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.codec.send(self.bridge_addr, envelope).await?;
        let Ok(encoded) = tokio::time::timeout(CODEC_TIMEOUT, self.bridge.recv(&mut self.encoded)).await
        else {
            return Ok(SendOutcome { num_bytes_sent: 0 });
        };
        let len = encoded?;
        self.next_id += 1;
        let mut num_bytes_sent = 0;
        for frame in
            seal(&self.ring, &self.encoded[..len], self.next_id, self.clock.now_ms()).unwrap_or_default()
        {
            if self.weather.as_ref().is_some_and(|loses| loses(to)) {
                continue;
            }
            // A peer that is gone answers with ICMP; gossip lives with lost datagrams.
            if self.outer.send_to(&frame, to).await.is_ok() {
                num_bytes_sent += frame.len();
                self.stats.sent.fetch_add(1, Ordering::Relaxed);
                self.stats.sent_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(SendOutcome { num_bytes_sent })
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            if self.pending.is_none() {
                self.pending = Some(self.next_message().await?);
            }
            let Some(pending) = &mut self.pending else { continue };
            if !pending.handed_over {
                self.bridge.send(&pending.message).await?;
                pending.handed_over = true;
            }
            let left = Duration::from_nanos(pending.until_ns.saturating_sub(self.clock.mono_ns()));
            match tokio::time::timeout(left, self.codec.recv()).await {
                Ok(Ok(outcome)) if outcome.from_addr == self.bridge_addr => {
                    let Some(Pending { from, message, .. }) = self.pending.take() else { continue };
                    let num_bytes_received = message.len();
                    return Ok(RecvOutcome {
                        from_addr: from,
                        num_bytes_received,
                        envelope: outcome.envelope,
                    });
                }
                // Somebody on this machine wrote to the codec's port: not from the bridge, so not for us.
                Ok(Ok(_)) => {
                    self.stats.rejected.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(e)) => return Err(e),
                Err(_) => self.renew_codec().await?,
            }
        }
    }
}
