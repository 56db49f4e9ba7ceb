//! Sealed gossip frames: what a datagram between nodes looks like.
//!
//! One chitchat message is split into frames of at most 1,200 bytes (so that no path fragments them),
//! each sealed alone with ChaCha20-Poly1305. Layout, big-endian:
//!
//! ```text
//! "KGS1" | key id 4 | unix minute 4 | nonce 12 | sealed( message id 8 | part 2 | parts 2 | payload ) | tag 16
//! ```
//!
//! The first 12 bytes and the cluster's name are authenticated with it. A frame whose minute is more than
//! two away is dropped, and so is one that was opened before (`replay`). Pure: no socket, no clock.
//!
//! Bounds: 64 parts a message, 256 messages in reassembly, 2 s each.

use std::collections::HashMap;
use std::net::SocketAddr;

use aws_lc_rs::aead::{Aad, Nonce};

use crate::replay::{NONCE_BYTES, Seen};
use crate::secret::{CLOCK_MINUTES_MAX, KeyRing};

/// Largest datagram sent.
pub const FRAME_BYTES_MAX: usize = 1200;
/// Parts a message may have; 64 × 1,148 bytes hold the largest chitchat message.
pub const PARTS_MAX: u16 = 64;
/// Messages in reassembly at a time.
pub const PENDING_MAX: usize = 256;
/// How long a message may stay incomplete, nanoseconds.
pub const PENDING_NS_MAX: u64 = 2_000_000_000;

const MAGIC: &[u8; 4] = b"KGS1";
const HEAD: usize = 4 + 4 + 4 + 12;
const INNER: usize = 8 + 2 + 2;
const TAG: usize = 16;
const PAYLOAD_MAX: usize = FRAME_BYTES_MAX - HEAD - INNER - TAG;

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Not a frame of ours.
    NotAFrame,
    /// Sealed with a key that is not on the ring.
    UnknownKey,
    /// Too old or from a clock too far away.
    Stale,
    /// Authentication failed.
    BadSeal,
    /// Opened before.
    Replayed,
    /// Part numbers make no sense, or too much is in reassembly.
    BadParts,
}

/// Splits and seals `message`; `None` when it cannot fit into the allowed parts.
pub fn seal(ring: &KeyRing, message: &[u8], message_id: u64, now_ms: i64) -> Option<Vec<Vec<u8>>> {
    let parts = message.len().div_ceil(PAYLOAD_MAX).max(1);
    if parts > usize::from(PARTS_MAX) {
        return None;
    }
    let key = ring.primary();
    let minute = u32::try_from(now_ms.div_euclid(60_000)).unwrap_or(0);
    let (mut frames, mut aad) = (Vec::with_capacity(parts), Vec::new());
    for part in 0..parts {
        let payload = &message[part * PAYLOAD_MAX..message.len().min((part + 1) * PAYLOAD_MAX)];
        let mut frame = Vec::with_capacity(HEAD + INNER + payload.len() + TAG);
        frame.extend_from_slice(MAGIC);
        frame.extend_from_slice(&key.id.to_be_bytes());
        frame.extend_from_slice(&minute.to_be_bytes());
        let mut nonce = [0u8; 12];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        frame.extend_from_slice(&nonce);
        write_aad(&mut aad, &frame[..12], ring.cluster());
        let mut inner = Vec::with_capacity(INNER + payload.len() + TAG);
        inner.extend_from_slice(&message_id.to_be_bytes());
        inner.extend_from_slice(&(part as u16).to_be_bytes());
        inner.extend_from_slice(&(parts as u16).to_be_bytes());
        inner.extend_from_slice(payload);
        key.aead
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*aad), &mut inner)
            .ok()?;
        frame.extend_from_slice(&inner);
        frames.push(frame);
    }
    Some(frames)
}

fn write_aad(aad: &mut Vec<u8>, head: &[u8], cluster: &str) {
    aad.clear();
    aad.extend_from_slice(head);
    aad.extend_from_slice(cluster.as_bytes());
}

struct Pending {
    since_ns: u64,
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
}

/// Opens frames and puts messages together.
#[derive(Default)]
pub struct Reassembler {
    pending: HashMap<(SocketAddr, u64), Pending>,
    seen: Seen,
    /// What is being opened, and what is authenticated with it: lent to every frame, so that one that is dropped costs no
    /// memory of its own.
    opened: Vec<u8>,
    aad: Vec<u8>,
}

impl Reassembler {
    /// Takes one datagram; returns a message when it was the last missing part.
    ///
    /// # Errors
    /// `Rejected` says why the datagram was dropped; nothing is put together from it.
    pub fn accept(
        &mut self,
        ring: &KeyRing,
        from: SocketAddr,
        datagram: &[u8],
        now_ms: i64,
        mono_ns: u64,
    ) -> Result<Option<Vec<u8>>, Rejected> {
        let nonce: Option<[u8; NONCE_BYTES]> = datagram.get(12..HEAD).and_then(|n| n.try_into().ok());
        let nonce = nonce.ok_or(Rejected::NotAFrame)?;
        if self.seen.has(&nonce) {
            return Err(Rejected::Replayed);
        }
        let len = open(ring, datagram, now_ms, &mut self.aad, &mut self.opened)?;
        let inner = &self.opened[..len];
        self.seen.note(nonce, mono_ns);
        let message_id = u64::from_be_bytes(inner[..8].try_into().map_err(|_| Rejected::BadParts)?);
        let part = u16::from_be_bytes([inner[8], inner[9]]);
        let parts = u16::from_be_bytes([inner[10], inner[11]]);
        let payload = &inner[INNER..];
        if parts == 0 || parts > PARTS_MAX || part >= parts {
            return Err(Rejected::BadParts);
        }
        if parts == 1 {
            return Ok(Some(payload.to_vec()));
        }
        self.pending.retain(|_, p| mono_ns.saturating_sub(p.since_ns) < PENDING_NS_MAX);
        let key = (from, message_id);
        if !self.pending.contains_key(&key) && self.pending.len() >= PENDING_MAX {
            return Err(Rejected::BadParts);
        }
        let entry = self.pending.entry(key).or_insert_with(|| Pending {
            since_ns: mono_ns,
            parts: vec![None; usize::from(parts)],
            missing: usize::from(parts),
        });
        if entry.parts.len() != usize::from(parts) {
            return Err(Rejected::BadParts);
        }
        let slot = &mut entry.parts[usize::from(part)];
        if slot.is_none() {
            *slot = Some(payload.to_vec());
            entry.missing -= 1;
        }
        if entry.missing > 0 {
            return Ok(None);
        }
        Ok(self.pending.remove(&key).map(|p| p.parts.into_iter().flatten().flatten().collect()))
    }
}

/// Opens a frame into `opened` and says how much of it is the content. The cheap reasons to drop it come first.
fn open(
    ring: &KeyRing,
    datagram: &[u8],
    now_ms: i64,
    aad: &mut Vec<u8>,
    opened: &mut Vec<u8>,
) -> Result<usize, Rejected> {
    if datagram.len() < HEAD + INNER + TAG || datagram.len() > FRAME_BYTES_MAX || &datagram[..4] != MAGIC {
        return Err(Rejected::NotAFrame);
    }
    let word =
        |at: usize| u32::from_be_bytes([datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]]);
    let minute = i64::from(word(8));
    if now_ms.div_euclid(60_000).abs_diff(minute) > CLOCK_MINUTES_MAX as u64 {
        return Err(Rejected::Stale);
    }
    let key = ring.by_id(word(4)).ok_or(Rejected::UnknownKey)?;
    let nonce: [u8; 12] = datagram[12..24].try_into().map_err(|_| Rejected::NotAFrame)?;
    opened.clear();
    opened.extend_from_slice(&datagram[HEAD..]);
    write_aad(aad, &datagram[..12], ring.cluster());
    let content = key
        .aead
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&*aad), opened)
        .map_err(|_| Rejected::BadSeal)?;
    Ok(content.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000_000;

    fn ring(secret: &str) -> KeyRing {
        KeyRing::new("test", &[secret.to_owned()])
    }

    fn from() -> SocketAddr {
        ([127, 0, 0, 1], 9).into()
    }

    #[test]
    fn frames_fit_and_reassemble_in_any_order() {
        let ring = ring("0123456789abcdef");
        let message: Vec<u8> = (0..65_000u32).map(|i| i as u8).collect();
        let mut frames = seal(&ring, &message, 7, NOW).unwrap();
        assert!(frames.iter().all(|f| f.len() <= FRAME_BYTES_MAX));
        frames.reverse();
        let mut r = Reassembler::default();
        let (last, first) = frames.split_last().unwrap();
        for f in first {
            assert_eq!(r.accept(&ring, from(), f, NOW, 0), Ok(None));
            assert_eq!(r.accept(&ring, from(), f, NOW, 0), Err(Rejected::Replayed), "a copy changes nothing");
        }
        assert_eq!(r.accept(&ring, from(), last, NOW, 0), Ok(Some(message)));
        assert!(r.pending.is_empty());
    }

    #[test]
    fn foreign_forged_and_old_frames_are_dropped() {
        let ours = ring("0123456789abcdef");
        let frame = seal(&ours, b"hello", 1, NOW).unwrap().remove(0);
        let mut r = Reassembler::default();
        assert_eq!(r.accept(&ring("another secret 16"), from(), &frame, NOW, 0), Err(Rejected::UnknownKey));
        assert_eq!(r.accept(&ours, from(), &frame, NOW + 10 * 60_000, 0), Err(Rejected::Stale));
        assert_eq!(r.accept(&ours, from(), b"junk", NOW, 0), Err(Rejected::NotAFrame));
        for i in 12..frame.len() {
            let mut bad = frame.clone();
            bad[i] ^= 1;
            assert_eq!(r.accept(&ours, from(), &bad, NOW, 0), Err(Rejected::BadSeal), "byte {i}");
        }
    }

    #[test]
    fn reassembly_is_bounded_and_forgets() {
        let ring = ring("0123456789abcdef");
        let big = vec![1u8; 3000];
        let mut r = Reassembler::default();
        for id in 0..PENDING_MAX as u64 {
            let f = seal(&ring, &big, id, NOW).unwrap();
            assert_eq!(r.accept(&ring, from(), &f[0], NOW, 0), Ok(None));
        }
        let f = seal(&ring, &big, 9999, NOW).unwrap();
        assert_eq!(r.accept(&ring, from(), &f[0], NOW, 0), Err(Rejected::BadParts));
        let f = seal(&ring, &big, 9999, NOW).unwrap();
        assert_eq!(r.accept(&ring, from(), &f[0], NOW, PENDING_NS_MAX), Ok(None));
        assert_eq!(r.pending.len(), 1);
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let ring = ring("0123456789abcdef");
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend_from_slice(&bytes);
            let mut r = Reassembler::default();
            prop_assert!(r.accept(&ring, from(), &bytes, NOW, 0).is_err());
            prop_assert!(r.accept(&ring, from(), &with_magic, NOW, 0).is_err());
        }
    }
}
