//! The socket on which sealed datagrams come in, through calm and flood.
//!
//! Watched by the runtime, it wakes a thread for every datagram, which costs several times what it takes to drop one. So
//! while strangers flood it, the socket is taken from the runtime and looked at every two milliseconds, until the flood is
//! over. Then no more than `TAKEN_PER_MS` are looked at, whatever comes: the system drops the rest for nothing, and gossip, which
//! stands the loss of half its datagrams, goes on. Owns which of both it is; what is dropped, and why, is the caller's to say.
//!
//! Invariant: `wait` may be cancelled at its await; the socket stays where it is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;

/// So many dropped datagrams within a `WINDOW_NS` are a flood: a thousand a second.
const FLOOD: u32 = 100;
const WINDOW_NS: u64 = 100_000_000;
/// A flood is over when there was none for this long.
const CALM_NS: u64 = 1_000_000_000;
/// How long datagrams pile up in a flood. The buffer holds those of some milliseconds; what is more, the system drops.
const PAUSE: Duration = Duration::from_millis(2);
/// Datagrams that are looked at in a flood, per millisecond: what a tenth of a slow core can do.
const TAKEN_PER_MS: u64 = 25;
/// Most of them at a time.
const TAKEN_MAX: u64 = 500;
/// What the system is asked for as a buffer; it gives no more than its own limit, which often is this.
const BUFFER_BYTES: usize = 1 << 20;

enum Mode {
    /// The runtime says when there is something.
    Watched(UdpSocket),
    /// It is looked at again and again.
    Polled(std::net::UdpSocket),
    /// It could not be moved between both, and is closed.
    Lost,
}

/// See the module.
pub struct Outer {
    mode: Mode,
    address: SocketAddr,
    window_ns: u64,
    dropped: u32,
    flooded_ns: u64,
    /// When it was looked at last in this flood, and how many more may be taken now.
    looked_ns: u64,
    left: u64,
}

impl Outer {
    /// Binds.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let address = socket.local_addr()?;
        if let Err(error) = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES) {
            tracing::debug!(%error, "the gossip socket keeps the buffer that it has");
        }
        Ok(Self {
            mode: Mode::Watched(socket),
            address,
            window_ns: 0,
            dropped: 0,
            flooded_ns: 0,
            looked_ns: 0,
            left: 0,
        })
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes a datagram that is there.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; then `wait`.
    pub fn take(&mut self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.mode {
            Mode::Watched(socket) => socket.try_recv_from(buf),
            Mode::Polled(_) if self.left == 0 => Err(io::ErrorKind::WouldBlock.into()),
            Mode::Polled(socket) => {
                self.left -= 1;
                socket.recv_from(buf)
            }
            Mode::Lost => Err(lost()),
        }
    }

    /// A datagram was dropped at monotonic `now_ns`.
    pub fn note_dropped(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.window_ns) > WINDOW_NS {
            (self.window_ns, self.dropped) = (now_ns, 0);
        }
        self.dropped = self.dropped.saturating_add(1);
        if self.dropped >= FLOOD {
            self.flooded_ns = now_ns;
        }
    }

    /// Waits until there may be a datagram.
    ///
    /// # Errors
    /// What the system says; the socket is of no use after that.
    pub async fn wait(&mut self, now_ns: u64) -> io::Result<()> {
        let is_flooded = self.flooded_ns > 0 && now_ns.saturating_sub(self.flooded_ns) < CALM_NS;
        self.mode = match (std::mem::replace(&mut self.mode, Mode::Lost), is_flooded) {
            (Mode::Watched(socket), true) => Mode::Polled(socket.into_std()?),
            (Mode::Polled(socket), false) => Mode::Watched(UdpSocket::from_std(socket)?),
            (same, _) => same,
        };
        match &self.mode {
            Mode::Watched(socket) => socket.readable().await,
            Mode::Polled(_) => {
                tokio::time::sleep(PAUSE).await;
                let elapsed_ms = now_ns.saturating_sub(self.looked_ns) / 1_000_000;
                (self.looked_ns, self.left) =
                    (now_ns, elapsed_ms.max(1).saturating_mul(TAKEN_PER_MS).min(TAKEN_MAX));
                Ok(())
            }
            Mode::Lost => Err(lost()),
        }
    }

    /// Sends.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` in a flood when its buffer is full.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        match &self.mode {
            Mode::Watched(socket) => socket.send_to(datagram, to).await,
            Mode::Polled(socket) => socket.send_to(datagram, to),
            Mode::Lost => Err(lost()),
        }
    }

    #[cfg(test)]
    fn is_polled(&self) -> bool {
        matches!(self.mode, Mode::Polled(_))
    }
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the gossip socket was lost in a flood")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[tokio::test]
    async fn it_is_polled_in_a_flood_and_watched_after_it_and_takes_everything() {
        let mut outer = Outer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (mut buf, here) = ([0u8; 8], outer.address());
        let mut now_ns = 5_000 * MS;
        for round in 0..3u8 {
            assert!(outer.take(&mut buf).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
            peer.send_to(&[round], here).await.unwrap();
            let got = tokio::time::timeout(Duration::from_secs(10), async {
                loop {
                    outer.wait(now_ns).await.unwrap();
                    if let Ok((n, from)) = outer.take(&mut buf) {
                        return (buf[..n].to_vec(), from);
                    }
                }
            });
            assert_eq!(got.await.unwrap(), (vec![round], peer.local_addr().unwrap()));
            assert_eq!(outer.is_polled(), round == 1, "round {round}");
            outer.send_to(&[round], peer.local_addr().unwrap()).await.unwrap();
            let (n, from) = peer.recv_from(&mut buf).await.unwrap();
            assert_eq!((&buf[..n], from), (&[round][..], here));
            match round {
                0 => (0..FLOOD).for_each(|_| outer.note_dropped(now_ns)),
                _ => now_ns += 2_000 * MS,
            }
        }
        // A drop now and then is no flood.
        for i in 0..2 * u64::from(FLOOD) {
            outer.note_dropped(now_ns + i * 2 * MS);
        }
        peer.send_to(b"x", here).await.unwrap();
        outer.wait(now_ns + 400 * MS).await.unwrap();
        assert!(!outer.is_polled());
    }
}
