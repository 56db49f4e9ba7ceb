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
use crate::keys::{NodeRecord, SoleRange};
use crate::replicas::RING_GRACE_MS;
use crate::view::Member;

/// Most peers remembered.
pub const PEERS_MAX: usize = 256;
/// How long a silent peer is remembered, milliseconds.
pub const PEER_AGE_MS_MAX: i64 = 14 * 86_400_000;

/// How long it is remembered that a peer lost its disk: by then what others have of it is in blocks.
pub const LOST_KEPT_MS: i64 = 6 * 3_600_000;
/// Most stretches remembered of what a peer lost.
const LOST_MAX: usize = 16;

/// How old the note of a living peer may get, milliseconds.
pub const BOOK_STEP_MS: i64 = 60_000;

/// First and last moments.
type Ranges = Vec<(i64, i64)>;

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
    /// What it held on a disk that it came back without, first and last moments; and what it held alone of that.
    #[serde(default)]
    pub lost: Ranges,
    /// See `lost`.
    #[serde(default)]
    pub lost_sole: Ranges,
}

impl KnownPeer {
    /// What the peer has lost when it is back as `m`: on another disk it has nothing of what it held.
    fn lost_by(&self, m: &Member, now_ms: i64) -> (Ranges, Ranges) {
        let (mut lost, mut sole) = (self.lost.clone(), self.lost_sole.clone());
        let Some(old) = NodeRecord::from_lookup(|k| self.pairs.get(k).map(String::as_str)) else {
            return (lost, sole);
        };
        let is_other = match (old.born, m.record.born) {
            (_, 0) => false,
            // Said by no version of before; a disk that is younger than the last process is another one.
            (0, born) => born > self.generation,
            (was, is) => was != is,
        };
        if let (true, Some(from)) = (is_other, old.may_hold_from()) {
            // It may have gone on unheard for as long as others counted it.
            let until = now_ms.min(self.last_alive + BOOK_STEP_MS + RING_GRACE_MS);
            lost.push((from, until));
            sole.extend(old.head.sole.iter().map(|r| (r.from.max(from), r.until.min(until))));
            sole.retain(|(from, until)| from <= until);
            lost.drain(..lost.len().saturating_sub(LOST_MAX));
            sole.drain(..sole.len().saturating_sub(LOST_MAX));
        }
        (lost, sole)
    }
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
            let (lost, lost_sole) =
                self.peers.get(&m.name).map_or_else(Default::default, |p| p.lost_by(m, now_ms));
            let (generation, gossip, last_alive) = (m.generation, m.gossip, now_ms);
            let peer = KnownPeer { generation, gossip, last_alive, pairs, lost, lost_sole };
            self.peers.insert(m.name.clone(), peer);
            self.dirty = true;
        }
    }

    /// Forgets peers that have been silent too long, and the longest silent beyond the bound.
    pub fn prune(&mut self, now_ms: i64) {
        let before = self.peers.len();
        self.peers.retain(|_, p| now_ms - p.last_alive < PEER_AGE_MS_MAX);
        for p in self.peers.values_mut() {
            let old = |r: &(i64, i64)| now_ms - r.1 < LOST_KEPT_MS;
            p.lost.retain(old);
            p.lost_sole.retain(old);
        }
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

    /// A record of a peer with what it lost before.
    pub fn remind(&self, name: &str, record: &NodeRecord) -> Option<NodeRecord> {
        let p = self.peers.get(name).filter(|p| !p.lost.is_empty())?;
        let ranges = |list: &[(i64, i64)]| -> Vec<SoleRange> {
            list.iter().map(|(from, until)| SoleRange { from: *from, until: *until }).collect()
        };
        Some(record.clone().without(&ranges(&p.lost), &ranges(&p.lost_sole)))
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

    #[test]
    fn a_peer_that_is_back_on_another_disk_has_lost_what_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = PeerBook::open(dir.path());
        let at = 1_000_000_000;
        let mut m = member("a", "z", 1);
        (m.record.born, m.record.head.min_time) = (5, Some(at - 100_000));
        m.record.head.sole = vec![SoleRange { from: at - 50_000, until: i64::MAX }];
        book.saw_alive(&m, at);
        book.saw_alive(&Member { generation: 2, ..m.clone() }, at);
        assert!(book.remind("a", &m.record).is_none(), "the same disk");
        let (from, until) = (at - 100_000 - 2_400_000, at + 90_000);
        m.generation = 3;
        (m.record.born, m.record.head) = (6, crate::keys::HeadSummary::default());
        book.save().unwrap();
        let mut book = PeerBook::open(dir.path());
        book.saw_alive(&m, until);
        book.saw_alive(&m, until + 100_000);
        let told = book.remind("a", &m.record).unwrap().head;
        assert_eq!(told.holes, [SoleRange { from, until }]);
        assert_eq!(told.lost_alone, [SoleRange { from: at - 50_000, until }]);
        assert!(told.sole.is_empty(), "it holds nothing alone on the new disk");
        let again = NodeRecord { head: told.clone(), ..m.record.clone() };
        assert_eq!(book.remind("a", &again).unwrap().head, told, "it says so itself by now");
        book.prune(until + LOST_KEPT_MS);
        assert!(book.remind("a", &m.record).is_none());
    }
}
