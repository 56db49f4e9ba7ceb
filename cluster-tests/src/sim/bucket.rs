//! The bucket of the simulation: blocks, shipped logs, decisions; with latency, outages, lost replies, stale lists.
//!
//! One key has one history: create-if-absent has one winner however slow or doubled requests are. A request takes
//! effect at one moment and is answered later, or never (`Done::Failed`), and a failure says nothing about whether it
//! took effect. A 409 for nothing is such a failure without an effect. Lists may be old; reads of a key are not.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use koios_block::BlockMeta;
use koios_cluster::adoption::{Commit, Created, Decision, LogId, Seen};
use koios_model::BlockId;

use super::types::{BlockData, Done, Op, Rec, Sample};

/// One log in the bucket.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Segments by number.
    pub segments: BTreeMap<u64, Rc<Vec<Rec>>>,
    /// Decisions by number.
    pub decisions: Vec<Decision>,
    /// The block of the adopted range.
    pub commit: Option<Commit>,
}

/// What lies in the bucket, and how it behaves.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    data: BTreeMap<BlockId, Rc<BlockData>>,
    metas: BTreeMap<BlockId, Arc<BlockMeta>>,
    logs: BTreeMap<LogId, Log>,
    list: Rc<Vec<Arc<BlockMeta>>>,
    stale: Option<Rc<Vec<Arc<BlockMeta>>>>,
    /// Does not answer.
    pub down: bool,
    /// Replies lost in percent.
    pub lost_replies: u64,
    /// Requests refused for no reason in percent.
    pub conflicts: u64,
    /// Lists that are old in percent.
    pub stale_lists: u64,
    /// Times longer.
    pub slow: i64,
}

impl Bucket {
    /// Lists show what is there now, for a while.
    pub fn freeze_list(&mut self, freeze: bool) {
        self.stale = freeze.then(|| self.list.clone());
    }

    /// A request takes effect. `stale` asks for an old list, if lists are old at present.
    pub fn apply(&mut self, op: Op, stale: bool) -> Done {
        match op {
            Op::List => match &self.stale {
                Some(old) if stale => Done::Blocks(old.clone()),
                _ => Done::Blocks(self.list.clone()),
            },
            Op::Get(id) => Done::Data(self.data.get(&id).filter(|_| self.metas.contains_key(&id)).cloned()),
            Op::PutData(id, data) => {
                self.data.insert(id, data);
                Done::Ok
            }
            Op::PutMeta(meta) => {
                assert!(self.data.contains_key(&meta.ulid), "BUG: meta.json of a block without data");
                if self.metas.insert(meta.ulid, meta).is_none() {
                    self.list = Rc::new(self.metas.values().cloned().collect());
                }
                Done::Ok
            }
            Op::Ship(log, n, records) => {
                self.logs.entry(log).or_default().segments.entry(n).or_insert(records);
                Done::Ok
            }
            Op::DropSegments(log, upto) => {
                if let Some(l) = self.logs.get_mut(&log) {
                    l.segments.retain(|n, _| *n > upto);
                }
                Done::Ok
            }
            Op::Logs => Done::Logs(Rc::new(self.logs.iter().map(|(id, l)| (id.clone(), l.seen())).collect())),
            Op::Segments(log, upto) => {
                let segments = self.logs.get(&log).map(|l| &l.segments);
                Done::Segments(
                    segments.into_iter().flat_map(|s| s.range(..=upto)).map(|(_, r)| r.clone()).collect(),
                )
            }
            Op::Decide(log, term, mine) => {
                let chain = &mut self.logs.entry(log).or_default().decisions;
                if chain.len() as u64 == term {
                    chain.push(mine);
                    return Done::Created(Created::Won);
                }
                Done::Created(chain.get(term as usize).cloned().map_or(Created::Absent, Created::Holds))
            }
            Op::Commit(log, mine) => {
                Done::Committed(self.logs.entry(log).or_default().commit.get_or_insert(mine).clone())
            }
        }
    }

    /// Whether a committed block holds the sample.
    pub fn holds(&self, s: &Sample) -> bool {
        self.metas.values().any(|m| {
            let range = m.min_time <= s.t && s.t < m.max_time;
            range && self.data[&m.ulid].get(&s.key).is_some_and(|c| c.contains_key(&s.t))
        })
    }

    /// Numbers of visible blocks and of adopted logs that became one.
    pub fn counts(&self) -> (u64, u64) {
        let adopted = self.logs.values().filter(|l| l.commit.is_some()).count();
        (self.metas.len() as u64, adopted as u64)
    }
}

impl Log {
    fn seen(&self) -> Seen {
        let last = self.decisions.last().map(|d| (self.decisions.len() as u64 - 1, d.clone()));
        Seen { last_segment: self.segments.keys().last().copied(), last, commit: self.commit.clone() }
    }
}
