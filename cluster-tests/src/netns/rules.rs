//! What a link does to the packets of one direction. Pure.
//!
//! Owns the choice what becomes of a packet: the times after which copies of it arrive, none when it is lost. The same
//! seed and packets give the same choices.

use std::time::Duration;

use super::packet::{Packet, TCP, UDP};
use crate::sim::rng::Rng;

/// What does not pass at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Everything passes.
    #[default]
    Nothing,
    /// Nothing passes.
    All,
    /// A firewall that forgot the gossip port.
    Udp,
    /// Connections made before stay open at both ends and carry nothing.
    Tcp,
}

/// One direction between two hosts.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// What does not pass.
    pub cut: Cut,
    /// Packets lost of a hundred, but those of TCP.
    pub loss: u64,
    /// Packets of TCP lost of a hundred.
    pub tcp_loss: u64,
    /// Packets that come twice of a hundred.
    pub double: u64,
    /// Packets of a hundred that are overtaken by those of the next `late_by`.
    pub late: u64,
    /// By how much those are later.
    pub late_by: Duration,
    /// Time on the way.
    pub delay: Duration,
    /// Larger packets, and parts of packets, vanish without a word.
    pub mtu: Option<usize>,
}

impl Link {
    /// Everything passes at once.
    pub fn open() -> Self {
        Self::default()
    }

    /// Something does not pass.
    pub fn cut(cut: Cut) -> Self {
        Self { cut, ..Self::default() }
    }

    /// After which times copies of the packet arrive.
    pub fn arrivals(&self, packet: &Packet, len: usize, rng: &mut Rng) -> [Option<Duration>; 2] {
        let blocked = match self.cut {
            Cut::Nothing => false,
            Cut::All => true,
            Cut::Udp => packet.protocol == UDP,
            Cut::Tcp => packet.protocol == TCP,
        };
        let swallowed = self.mtu.is_some_and(|m| len > m || packet.is_fragment);
        let loss = if packet.protocol == TCP { self.tcp_loss } else { self.loss };
        if blocked || swallowed || rng.chance(loss) {
            return [None, None];
        }
        let once = |rng: &mut Rng| {
            let late = if rng.chance(self.late) { self.late_by } else { Duration::ZERO };
            self.delay + late
        };
        let first = once(rng);
        let second = rng.chance(self.double).then(|| once(rng));
        [Some(first), second]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(link: &Link, protocol: u8, len: usize, is_fragment: bool) -> (usize, usize) {
        let ip = crate::netns::v4(0);
        let packet = Packet { src: ip, dst: ip, protocol, port: 1, is_fragment };
        let mut rng = Rng::new(7);
        let all: Vec<_> = (0..10_000).flat_map(|_| link.arrivals(&packet, len, &mut rng)).flatten().collect();
        (all.len(), all.iter().filter(|d| **d > link.delay).count())
    }

    #[test]
    fn shares_are_kept_and_filters_are_exact() {
        let link = Link { loss: 40, late: 10, late_by: Duration::from_millis(5), ..Link::open() };
        let (got, late) = arrived(&link, UDP, 100, false);
        assert!((5_700..6_300).contains(&got) && (450..750).contains(&late), "{got} {late}");
        assert_eq!(arrived(&link, TCP, 100, false).0, 10_000);
        let double = Link { double: 25, ..Link::open() };
        assert!((12_200..12_800).contains(&arrived(&double, TCP, 100, false).0));
        for (cut, udp, tcp) in [(Cut::All, 0, 0), (Cut::Udp, 0, 10_000), (Cut::Tcp, 10_000, 0)] {
            let link = Link::cut(cut);
            assert_eq!((arrived(&link, UDP, 9, false).0, arrived(&link, TCP, 9, false).0), (udp, tcp));
        }
        let narrow = Link { mtu: Some(1280), ..Link::open() };
        assert_eq!(arrived(&narrow, TCP, 1280, false).0, 10_000);
        assert_eq!((arrived(&narrow, TCP, 1281, false).0, arrived(&narrow, UDP, 9, true).0), (0, 0));
    }
}
