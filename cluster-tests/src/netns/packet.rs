//! What a router must know of an IP packet, and UDP packets made by hand.
//!
//! RFC 791, RFC 8200, RFC 768. Reads headers only; what it cannot read is no packet. Header options are passed over,
//! of IPv6's extension headers only the fragment header is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP's number.
pub const TCP: u8 = 6;
/// UDP's number.
pub const UDP: u8 = 17;
const FRAGMENT: u8 = 44;

/// Header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From.
    pub src: IpAddr,
    /// To.
    pub dst: IpAddr,
    /// Protocol above IP.
    pub protocol: u8,
    /// Destination port of TCP or UDP; 0 otherwise.
    pub port: u16,
    /// Part of a larger packet.
    pub is_fragment: bool,
}

impl Packet {
    /// Reads the header.
    pub fn read(b: &[u8]) -> Option<Self> {
        match b.first()? >> 4 {
            4 => {
                let at = |i: usize| -> Option<[u8; 4]> { b.get(i..i + 4)?.try_into().ok() };
                let header = usize::from(b[0] & 15) * 4;
                let flags = u16::from_be_bytes(b.get(6..8)?.try_into().ok()?);
                let protocol = *b.get(9)?;
                Some(Self {
                    src: Ipv4Addr::from(at(12)?).into(),
                    dst: Ipv4Addr::from(at(16)?).into(),
                    protocol,
                    port: port(protocol, b.get(header..).unwrap_or(&[])),
                    is_fragment: flags & 0x3fff != 0,
                })
            }
            6 => {
                let at = |i: usize| -> Option<[u8; 16]> { b.get(i..i + 16)?.try_into().ok() };
                let protocol = *b.get(6)?;
                Some(Self {
                    src: Ipv6Addr::from(at(8)?).into(),
                    dst: Ipv6Addr::from(at(24)?).into(),
                    protocol,
                    port: port(protocol, b.get(40..).unwrap_or(&[])),
                    is_fragment: protocol == FRAGMENT,
                })
            }
            _ => None,
        }
    }
}

fn port(protocol: u8, body: &[u8]) -> u16 {
    match body.get(2..4) {
        Some(p) if protocol == TCP || protocol == UDP => u16::from_be_bytes([p[0], p[1]]),
        _ => 0,
    }
}

/// Payload of an unfragmented IPv4 UDP packet.
pub fn udp_payload(b: &[u8]) -> Option<&[u8]> {
    let packet = Packet::read(b)?;
    let header = usize::from(b[0] & 15) * 4;
    (packet.protocol == UDP && packet.src.is_ipv4()).then(|| b.get(header + 8..)).flatten()
}

/// An IPv4 UDP packet, without UDP's optional checksum. The payload is cut at what a packet can carry.
pub fn udp(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(usize::from(u16::MAX) - 28)];
    let total = 28 + payload.len() as u16;
    let mut p = vec![0x45, 0];
    p.extend(total.to_be_bytes());
    p.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    p.extend(src.0.octets());
    p.extend(dst.0.octets());
    let sum = checksum(&p);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
    p.extend(src.1.to_be_bytes());
    p.extend(dst.1.to_be_bytes());
    p.extend((total - 20).to_be_bytes());
    p.extend([0, 0]);
    p.extend(payload);
    p
}

/// Where an IPv4 header keeps an address.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// The sender.
    From,
    /// The receiver.
    To,
}

/// Replaces an address of an IPv4 packet, and mends the sums of the header and of TCP or UDP (RFC 1624), as a
/// translating gateway does. Other packets stay as they are.
pub fn translate(p: &mut [u8], side: Side, to: Ipv4Addr) {
    let at = match side {
        Side::From => 12,
        Side::To => 16,
    };
    if p.len() < 20 || p[0] >> 4 != 4 {
        return;
    }
    let old: [u8; 4] = [p[at], p[at + 1], p[at + 2], p[at + 3]];
    p[at..at + 4].copy_from_slice(&to.octets());
    mend(p, 10, old, to.octets());
    let header = usize::from(p[0] & 15) * 4;
    match p[9] {
        TCP => mend(p, header + 16, old, to.octets()),
        // UDP without a sum stays without one.
        UDP if p.get(header + 6..header + 8).is_some_and(|s| s != [0, 0]) => {
            mend(p, header + 6, old, to.octets());
        }
        _ => {}
    }
}

fn mend(p: &mut [u8], at: usize, old: [u8; 4], new: [u8; 4]) {
    let Some(sum) = p.get(at..at + 2).map(|s| u16::from_be_bytes([s[0], s[1]])) else { return };
    let words = |b: [u8; 4]| [u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]])];
    let mut acc = u32::from(!sum);
    acc += words(old).iter().map(|w| u32::from(!w)).sum::<u32>();
    acc += words(new).iter().map(|w| u32::from(*w)).sum::<u32>();
    while acc > 0xffff {
        acc = (acc & 0xffff) + (acc >> 16);
    }
    p[at..at + 2].copy_from_slice(&(!(acc as u16)).to_be_bytes());
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_packets_are_read_back() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let made = udp((a, 5), (b, 7946), b"hello");
        let read = Packet::read(&made).unwrap();
        assert_eq!(
            read,
            Packet { src: a.into(), dst: b.into(), protocol: UDP, port: 7946, is_fragment: false }
        );
        assert_eq!(udp_payload(&made), Some(&b"hello"[..]));
        assert_eq!(checksum(&made[..20]), 0, "a header with its sum has the sum of zero");
        let mut moved = made.clone();
        let c = Ipv4Addr::new(192, 168, 7, 9);
        translate(&mut moved, Side::From, c);
        assert_eq!(moved, udp((c, 5), (b, 7946), b"hello"));
        translate(&mut moved, Side::To, a);
        assert_eq!(moved, udp((c, 5), (a, 7946), b"hello"));
        let mut part = made.clone();
        part[6] = 0x20;
        assert!(Packet::read(&part).unwrap().is_fragment);
        for len in 0..made.len() {
            let _ = Packet::read(&made[..len]);
            let _ = udp_payload(&made[..len]);
            translate(&mut made[..len].to_vec(), Side::To, c);
        }
        assert_eq!(Packet::read(&[]), None);
        assert_eq!(udp((a, 1), (b, 2), &[0; 70_000]).len(), 65_535);
    }
}
