//! Known peers on disk: extra seeds after a restart, and the memory of nodes that gossip has forgotten.
//!
//! A node that died an hour ago is no longer in gossip, yet its data may exist nowhere else. What it last
//! said of itself stays here until it returns or is forgotten by age, so that answers can still say what is
//! missing. Bounds: 256 peers, 14 days.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ClusterError;
use crate::identity::replace_file;
use crate::view::Member;

/// Most peers remembered.
pub const PEERS_MAX: usize = 256;
/// How long a silent peer is remembered, milliseconds.
pub const PEER_AGE_MS_MAX: i64 = 14 * 86_400_000;

/// How old the note of a living peer may get, milliseconds.
pub const BOOK_STEP_MS: i64 = 60_000;

/// A peer as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// Last generation.
    pub generation: u64,
    /// Last gossip address.
    pub gossip: SocketAddr,
    /// When it was last alive, wall-clock milliseconds.
    pub last_alive: i64,
    /// Its gossip pairs.
    pub pairs: BTreeMap<String, String>,
}

/// The book of peers.
#[derive(Debug)]
pub struct PeerBook {
    path: PathBuf,
    peers: BTreeMap<String, KnownPeer>,
    /// Those that this process heard itself; a subset of the names in `peers`.
    heard: BTreeSet<String>,
    dirty: bool,
    has_news: bool,
}

impl PeerBook {
    /// Opens the book in `dir`. A damaged book is put aside: it is a hint, not data.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join("peers.json");
        let peers = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|e| {
                tracing::warn!(path = %path.display(), error = %e, "peer book is damaged and starts empty");
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self { path, peers, heard: BTreeSet::new(), dirty: false, has_news: false }
    }

    /// Notes that a peer is alive.
    pub fn saw_alive(&mut self, m: &Member, now_ms: i64) {
        let pairs: BTreeMap<String, String> =
            m.record.to_pairs().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let fresh = self.peers.get(&m.name).is_none_or(|p| {
            p.generation != m.generation || p.pairs != pairs || now_ms - p.last_alive > 60_000
        });
        if !self.heard.contains(&m.name) {
            self.heard.insert(m.name.clone());
        }
        if fresh {
            self.has_news |= self.peers.get(&m.name).is_none_or(|p| p.gossip != m.gossip);
            let peer = KnownPeer { generation: m.generation, gossip: m.gossip, last_alive: now_ms, pairs };
            self.peers.insert(m.name.clone(), peer);
            self.dirty = true;
        }
    }

    /// Forgets peers that have been silent too long, and the longest silent beyond the bound.
    pub fn prune(&mut self, now_ms: i64) {
        let before = self.peers.len();
        self.peers.retain(|_, p| now_ms - p.last_alive < PEER_AGE_MS_MAX);
        while self.peers.len() > PEERS_MAX {
            let oldest = self.peers.iter().min_by_key(|(_, p)| p.last_alive).map(|(n, _)| n.clone());
            oldest.map(|n| self.peers.remove(&n));
        }
        self.heard.retain(|name| self.peers.contains_key(name));
        self.dirty |= self.peers.len() != before;
    }

    /// Whether it has a peer, or an address, that is not on disk: a node that dies now would look for it in vain.
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    /// Whether this process heard a peer itself. What is known of any other may have changed after the book was written.
    pub fn was_heard(&self, name: &str) -> bool {
        self.heard.contains(name)
    }

    /// All known peers by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &KnownPeer)> {
        self.peers.iter()
    }

    /// Gossip addresses to try, latest seen first, at most 32.
    pub fn seeds(&self) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.peers.values().collect();
        all.sort_by_key(|p| std::cmp::Reverse(p.last_alive));
        all.into_iter().take(32).map(|p| p.gossip).collect()
    }

    /// Writes the book if it changed.
    ///
    /// # Errors
    /// When the file cannot be written; the book stays usable.
    pub fn save(&mut self) -> Result<(), ClusterError> {
        if self.dirty {
            let text = serde_json::to_string_pretty(&self.peers).unwrap_or_default();
            replace_file(&self.path, &text)?;
            (self.dirty, self.has_news) = (false, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::tests::member;

    #[test]
    fn remembers_across_restarts_and_forgets_by_age() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = PeerBook::open(dir.path());
        book.saw_alive(&member("a", "z", 1), 1000);
        assert!(book.has_news() && book.was_heard("a") && !book.was_heard("b"));
        book.save().unwrap();
        book.saw_alive(&member("a", "z", 2), 1000);
        assert!(!book.has_news(), "the same peer at the same address can wait");
        let mut again = PeerBook::open(dir.path());
        assert!(again.seeds().len() == 1 && !again.was_heard("a"));
        again.prune(1000 + PEER_AGE_MS_MAX);
        assert!(again.seeds().is_empty());
        std::fs::write(dir.path().join("peers.json"), "{broken").unwrap();
        assert!(PeerBook::open(dir.path()).seeds().is_empty());
    }
}
