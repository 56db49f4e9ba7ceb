//! The disk of a node: a log whose tail is lost with the power, and what else survives a crash.
//!
//! Mirrors `tsdb`'s rules: an append is nothing until a sync that began after it has ended; a crash keeps any
//! prefix of what was not synced (a torn tail ends the replay); a failed sync closes the log until it is opened again.

use koios_cluster::SoleRange;
use koios_cluster::peers::PeerBook;
use koios_model::BlockId;

use super::rng::Rng;
use super::types::{Entry, Ms, Rec, Sample};

/// What survives a crash of the process.
#[derive(Debug, Default)]
pub struct Disk {
    /// Synced records in order.
    pub durable: Vec<Rec>,
    /// Appended, not synced.
    pub pending: Vec<Rec>,
    /// Next position.
    pub next_lsn: u64,
    /// Records below are synced.
    pub synced_lsn: u64,
    /// Number of the log; 0 before the first start.
    pub log: u64,
    /// Segments of the log that were shipped, and the position after the last.
    pub shipped: (u64, u64),
    /// Greatest timestamp in each shipped segment, by number.
    pub segments: Vec<(u64, Ms)>,
    /// Samples before are refused: their range is cut.
    pub refuse_before: Ms,
    /// Blocks that the head forgot samples into, the last ones.
    pub moved: Vec<BlockId>,
    /// Stretches that only this node holds.
    pub sole: Vec<SoleRange>,
    /// Stretches that only its zone holds.
    pub zone_sole: Vec<SoleRange>,
    /// Stretches that this node lost.
    pub holes: Vec<SoleRange>,
    /// What of these was nowhere else.
    pub lost_alone: Vec<SoleRange>,
    /// What peers lost with their disks.
    pub book: Option<PeerBook>,
    /// Generation of the first process on it.
    pub born: u64,
    /// Peers were asked what was on the disk before this one.
    pub recalled: bool,
    /// What was known of peers.
    pub peers: Vec<Entry>,
    /// The log is closed after a failed sync.
    pub poisoned: bool,
    /// The next syncs fail.
    pub fails: bool,
    /// No room.
    pub full: bool,
    /// Syncs take this many times longer.
    pub slow: i64,
}

impl Disk {
    /// A process of `generation` opens it; tells whether it is the first.
    pub fn begin(&mut self, generation: u64) -> bool {
        let fresh = self.log == 0;
        if fresh {
            (self.log, self.born, self.slow) = (generation, generation, self.slow.max(1));
        }
        fresh
    }

    /// Appends, unless the log is closed or the disk is full.
    pub fn append(&mut self, sample: Sample) -> Option<u64> {
        if self.poisoned || self.full {
            return None;
        }
        let lsn = self.next_lsn;
        self.next_lsn += 1;
        self.pending.push(Rec { lsn, sample });
        Some(lsn)
    }

    /// A sync that began when `upto` was the next position has ended. Tells whether it worked.
    pub fn synced(&mut self, upto: u64) -> bool {
        if self.poisoned || self.fails {
            self.poisoned = true;
            return false;
        }
        let n = self.pending.partition_point(|r| r.lsn < upto);
        self.durable.extend(self.pending.drain(..n));
        self.synced_lsn = self.synced_lsn.max(upto);
        true
    }

    /// The process or the machine dies: any prefix of the tail may have reached the disk.
    pub fn crash(&mut self, rng: &mut Rng) {
        let kept = rng.below(self.pending.len() as u64 + 1) as usize;
        self.durable.extend(self.pending.drain(..kept));
        self.pending.clear();
        self.synced_lsn = self.durable.last().map_or(self.synced_lsn, |r| r.lsn + 1);
        self.next_lsn = self.synced_lsn;
        self.poisoned = false;
    }

    /// Truncation: drops records that `gone` names.
    pub fn forget(&mut self, gone: impl Fn(&Rec) -> bool) {
        self.durable.retain(|r| !gone(r));
        self.pending.retain(|r| !gone(r));
    }
}
