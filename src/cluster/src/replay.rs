//! Frames that were opened before. Pure.
//!
//! A sealed frame can be recorded and sent again as long as its minute is accepted. Each would cost a message to the
//! gossip engine and an answer to whoever the sender says it is. So the nonces of opened frames are remembered for as
//! long as their frames would be accepted. A stranger cannot fill the memory: only frames that were opened enter it.
//! Bound: two generations of `NONCES_MAX`; when one is full the older one is forgotten early, and what is replayed
//! from then is as harmless as it is to a gossip engine, whose merges are monotone.

use std::collections::HashSet;

use crate::secret::CLOCK_MINUTES_MAX;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Most nonces of one generation.
pub const NONCES_MAX: usize = 65_536;
/// A frame is accepted for that many minutes before its own, that many after, and its own: a generation lasts as long.
const GENERATION_NS: u64 = (2 * CLOCK_MINUTES_MAX as u64 + 1) * 60_000_000_000;

/// What was opened lately.
#[derive(Default)]
pub struct Seen {
    young: HashSet<[u8; NONCE_BYTES]>,
    old: HashSet<[u8; NONCE_BYTES]>,
    since_ns: u64,
}

impl Seen {
    /// Whether a frame with this nonce was opened.
    pub fn has(&self, nonce: &[u8; NONCE_BYTES]) -> bool {
        self.young.contains(nonce) || self.old.contains(nonce)
    }

    /// Notes that one was, at monotonic `now_ns`.
    pub fn note(&mut self, nonce: [u8; NONCE_BYTES], now_ns: u64) {
        let is_over = now_ns.saturating_sub(self.since_ns) > GENERATION_NS;
        if is_over || self.young.len() >= NONCES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.since_ns = now_ns;
        }
        self.young.insert(nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(n: u64) -> [u8; NONCE_BYTES] {
        let mut out = [0; NONCE_BYTES];
        out[..8].copy_from_slice(&n.to_be_bytes());
        out
    }

    #[test]
    fn remembers_as_long_as_frames_are_accepted_and_stays_small() {
        let mut seen = Seen::default();
        assert!(!seen.has(&nonce(1)));
        seen.note(nonce(1), 0);
        seen.note(nonce(2), GENERATION_NS);
        seen.note(nonce(3), GENERATION_NS + 1);
        assert!(seen.has(&nonce(1)) && seen.has(&nonce(2)) && seen.has(&nonce(3)));
        seen.note(nonce(4), 2 * GENERATION_NS + 2);
        assert!(!seen.has(&nonce(1)) && !seen.has(&nonce(2)) && seen.has(&nonce(3)) && seen.has(&nonce(4)));
        for n in 10..10 + 3 * NONCES_MAX as u64 {
            seen.note(nonce(n), 2 * GENERATION_NS + 3);
            assert!(seen.young.len() + seen.old.len() <= 2 * NONCES_MAX);
        }
    }
}
