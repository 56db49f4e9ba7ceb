//! Storage in the simulation: cutting the head into blocks, shipping the log, adopting, loading and unloading.
//!
//! The order of a cut is the engine's: refuse the range, write the block, meta.json last, see it in the catalogue, serve
//! it, wait for the peers to see it too, forget. Every step that fails is done again at the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use koios_block::BlockMeta;
use koios_block::meta::Compaction;
use koios_cluster::adoption::{
    Commit, Created, Decision, LogId, Move, Outcome, Return, Seen, Verdict, judge, on_return,
};
use koios_cluster::unload::Step;
use koios_cluster::{Member, owners};
use koios_model::BlockId;
use koios_query::plan::block_key;
use koios_store::CatalogueView;

use super::ingest::WINDOW_MS;
use super::node::{Bug, Process, ns};
use super::types::{BlockData, Done, Effect, Ms, Msg, Note, Op, Rec, Sample, Tag};

/// Length of a block.
const RANGE_MS: Ms = 90_000;
/// The head forgets all the same after this long.
const PEERS_MS: Ms = 45_000;
/// A segment of the log is closed and shipped after this long.
const SHIP_MS: Ms = 15_000;
/// Blocks that a head speaks of after it forgot their samples.
const MOVED_MAX: usize = 8;
/// Nodes that serve a block.
const COPIES: usize = 2;

/// A cut in hand.
#[derive(Debug)]
pub struct Cutting {
    meta: Arc<BlockMeta>,
    data: Rc<BlockData>,
    step: CutStep,
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum CutStep {
    Data,
    Meta,
    Visible,
    Peers(Ms),
}

/// An adoption in hand.
#[derive(Debug)]
pub struct Adopting {
    log: LogId,
    through: u64,
    block: Option<(Arc<BlockMeta>, Rc<BlockData>)>,
    stored: bool,
    busy: bool,
}

/// Blocks on their way.
#[derive(Debug, Default)]
pub struct Loading {
    under_way: BTreeSet<BlockId>,
    assigned_by: u64,
    /// Owners in the view of this number.
    owners: (u64, BTreeMap<BlockId, Vec<Arc<Member>>>),
}

/// A block's meta.json.
fn meta_of(id: BlockId, data: &BlockData) -> Option<BlockMeta> {
    let min_time = data.values().filter_map(|c| c.keys().next()).min()?;
    let max_time = data.values().filter_map(|c| c.keys().last()).max()? + 1;
    Some(BlockMeta {
        ulid: id,
        min_time: *min_time,
        max_time,
        stats: Default::default(),
        compaction: Compaction { level: 1, sources: vec![id], ..Compaction::default() },
        version: 1,
        thanos: None,
        other: Default::default(),
    })
}

fn insert(data: &mut BlockData, s: &Sample) {
    data.entry(s.key).or_default().insert(s.t, s.v);
}

impl Process {
    pub(super) fn follow_storage(&mut self) {
        if self.ticks % 5 == 1 {
            self.out.push(Effect::Bucket(Op::List, Tag::List));
        }
        if self.ticks % 7 == 2 {
            self.out.push(Effect::Bucket(Op::Logs, Tag::Logs));
        }
        if !self.is_ready() {
            return;
        }
        self.follow_cut();
        self.follow_adoption();
        if self.ticks.is_multiple_of(2) {
            self.follow_blocks();
        }
        if self.mono - self.shipped_at >= SHIP_MS && !self.shipping {
            self.ship();
        }
    }

    fn follow_cut(&mut self) {
        if self.cutting.is_none() && self.ticks.is_multiple_of(3) {
            self.begin_cut();
        }
        let seen = self.cutting.is_some() && self.peers_see();
        let Some(cut) = &mut self.cutting else { return };
        let (id, mono) = (cut.meta.ulid, self.mono);
        match cut.step {
            _ if cut.busy => {}
            CutStep::Data => {
                cut.busy = true;
                self.out.push(Effect::Bucket(Op::PutData(id, cut.data.clone()), Tag::Cut));
            }
            CutStep::Meta => {
                cut.busy = true;
                self.out.push(Effect::Bucket(Op::PutMeta(cut.meta.clone()), Tag::Cut));
            }
            CutStep::Visible if self.catalogue.blocks().contains_key(&id) => cut.step = CutStep::Peers(mono),
            CutStep::Visible => {}
            CutStep::Peers(since) if seen || mono - since > PEERS_MS => self.end_cut(),
            CutStep::Peers(_) => {}
        }
    }

    /// A range is complete when nothing of it can come any more.
    fn begin_cut(&mut self) {
        let min = self.head.values().filter_map(|c| c.keys().next()).min();
        let Some(start) = min.map(|t| t.div_euclid(RANGE_MS) * RANGE_MS) else { return };
        let end = start + RANGE_MS;
        if self.wall < end + WINDOW_MS {
            return;
        }
        self.disk.refuse_before = self.disk.refuse_before.max(end);
        let mut data = BlockData::new();
        for (key, samples) in &self.head {
            let part: BTreeMap<Ms, f64> = samples.range(start..end).map(|(t, v)| (*t, *v)).collect();
            if !part.is_empty() {
                data.insert(*key, part);
            }
        }
        // The log is part of the name: a node that lost its disk cuts the same range again with other samples.
        let random = u128::from(self.disk.log) << 40 | u128::from(start as u64 & 0xff_ffff_ffff);
        let id = BlockId::from_parts(end as u64, random);
        if let Some(meta) = meta_of(id, &data) {
            let (meta, data) = (Arc::new(meta), Rc::new(data));
            self.cutting = Some(Cutting { meta, data, step: CutStep::Data, busy: false });
        }
    }

    /// All peers on the bucket that answer report the same blocks.
    fn peers_see(&self) -> bool {
        let mine = self.catalogue.digest();
        self.view.members.values().all(|m| !m.answers() || m.record.catalogue == mine)
    }

    fn end_cut(&mut self) {
        let Some(cut) = self.cutting.take() else { return };
        self.disk.moved.push(cut.meta.ulid);
        if self.disk.moved.len() > MOVED_MAX {
            self.disk.moved.remove(0);
        }
        let gone = |key, t: Ms| cut.data.get(&key).is_some_and(|c: &BTreeMap<Ms, f64>| c.contains_key(&t));
        self.forget(|r| gone(r.sample.key, r.sample.t));
        let upto =
            self.disk.segments.iter().filter(|(_, max)| *max < cut.meta.max_time).map(|(n, _)| *n).max();
        if let Some(upto) = upto {
            // Only a prefix may go: segments after one that is still needed stay.
            let first_needed =
                self.disk.segments.iter().filter(|(_, max)| *max >= cut.meta.max_time).map(|(n, _)| *n).min();
            let upto = first_needed.map_or(upto, |n| upto.min(n.saturating_sub(1)));
            self.disk.segments.retain(|(n, _)| *n > upto);
            self.out.push(Effect::Bucket(Op::DropSegments(self.log_id(), upto), Tag::Forget));
        }
    }

    /// Head and log forget records.
    fn forget(&mut self, gone: impl Fn(&Rec) -> bool) {
        let lost: Vec<Sample> = self
            .disk
            .durable
            .iter()
            .chain(&self.disk.pending)
            .filter(|r| gone(r))
            .map(|r| r.sample)
            .collect();
        for s in &lost {
            if let Some(c) = self.head.get_mut(&s.key) {
                c.remove(&s.t);
            }
        }
        self.head.retain(|_, c| !c.is_empty());
        self.disk.forget(gone);
        self.out.push(Effect::Note(Note::Forgets(lost)));
    }

    fn ship(&mut self) {
        let from = self.disk.shipped.1;
        let records: Vec<Rec> = self.disk.durable.iter().filter(|r| r.lsn >= from).copied().collect();
        let Some(last) = records.last() else { return };
        self.shipping = true;
        let (n, upto) = (self.disk.shipped.0, last.lsn + 1);
        self.out.push(Effect::Bucket(Op::Ship(self.log_id(), n, Rc::new(records)), Tag::Ship(upto)));
    }

    fn follow_blocks(&mut self) {
        let stores = self.owning.ready("store");
        let mut known = std::mem::take(&mut self.loading.owners);
        if known.0 != self.owning.seq {
            known = (self.owning.seq, BTreeMap::new());
        }
        for id in self.catalogue.blocks().keys().chain(self.loaded.keys()) {
            known.1.entry(*id).or_insert_with(|| owners(&stores, block_key(*id), COPIES));
        }
        self.load_and_unload(&stores, &|id| known.1.get(&id).cloned().unwrap_or_default());
        self.loading.owners = known;
    }

    fn load_and_unload(&mut self, stores: &[Arc<Member>], owners_of: &dyn Fn(BlockId) -> Vec<Arc<Member>>) {
        let changed = self.owning.seq ^ (self.catalogue.blocks().len() as u64) << 32;
        if self.loading.assigned_by != changed || !self.loading.under_way.is_empty() {
            self.loading.assigned_by = changed;
            for id in self.catalogue.blocks().keys() {
                let mine = owners_of(*id).iter().any(|m| m.name == self.common.names[self.me]);
                if mine && !self.loaded.contains_key(id) && self.loading.under_way.insert(*id) {
                    self.out.push(Effect::Bucket(Op::Get(*id), Tag::Load(*id)));
                }
            }
        }
        let early = self.common.bug == Bug::EarlyUnload;
        let settled = early || self.freeze.is_settled(ns(self.mono));
        if !settled {
            return;
        }
        let me = self.common.names[self.me].clone();
        let ids: BTreeSet<BlockId> = self.loaded.keys().copied().collect();
        if early {
            for m in stores.iter().filter(|m| m.name != me) {
                let all: Vec<BlockId> = ids.iter().copied().collect();
                self.unload.reported(ns(self.mono), &m.name, m.generation, &all);
            }
        }
        for step in self.unload.look(ns(self.mono), &me, &ids, settled, owners_of) {
            match step {
                Step::Ask { node, blocks } => {
                    let to = self.index_of(&node.name);
                    self.send(to, Msg::WhichLoaded { blocks });
                }
                Step::Drop(id) => {
                    self.loaded.remove(&id);
                    self.out.push(Effect::Note(Note::Unloads(id)));
                }
            }
        }
    }

    pub(super) fn stored(&mut self, tag: Tag, done: Done) {
        match (tag, done) {
            (Tag::List, Done::Blocks(metas)) => self.listed(&metas),
            (Tag::Load(id), done) => {
                self.loading.under_way.remove(&id);
                self.loading.assigned_by = 0;
                if let Done::Data(Some(data)) = done {
                    self.loaded.insert(id, data);
                    self.out.push(Effect::Note(Note::Loads(id)));
                }
            }
            (Tag::Cut, done) => {
                let Some(cut) = &mut self.cutting else { return };
                cut.busy = false;
                cut.step = match (cut.step, matches!(done, Done::Ok)) {
                    (CutStep::Data, true) => CutStep::Meta,
                    (CutStep::Meta, true) => CutStep::Visible,
                    (step, _) => step,
                };
            }
            (Tag::Ship(upto), done) => {
                self.shipping = false;
                if matches!(done, Done::Ok) {
                    let (n, from) = self.disk.shipped;
                    let records = self.disk.durable.iter().filter(|r| r.lsn >= from && r.lsn < upto);
                    let max = records.map(|r| r.sample.t).max().unwrap_or(0);
                    self.disk.segments.push((n, max));
                    self.disk.shipped = (n + 1, upto);
                    self.shipped_at = self.mono;
                }
            }
            (Tag::Logs, Done::Logs(logs)) => self.see_logs(&logs),
            (Tag::Decide(log, mine), done) => self.decided(&log, &mine, &done),
            (Tag::Adopt, done) => self.adopting_went(done),
            _ => {}
        }
    }

    fn listed(&mut self, metas: &[Arc<BlockMeta>]) {
        self.catalogue_at = Some(self.mono);
        let same = self.catalogue.read()
            && metas.len() == self.catalogue.blocks().len()
            && metas.iter().all(|m| self.catalogue.blocks().contains_key(&m.ulid));
        if !same {
            let blocks = metas.iter().map(|m| (m.ulid, m.clone())).collect();
            self.catalogue = Arc::new(CatalogueView::new(blocks, BTreeMap::new()));
        }
    }

    fn see_logs(&mut self, logs: &[(LogId, Seen)]) {
        let me = self.name().to_owned();
        for (log, seen) in logs {
            if log.node == me && log.log == self.disk.log {
                self.see_own_log(log, seen);
            } else {
                self.see_other_log(log, seen, log.node == me);
            }
        }
    }

    fn see_own_log(&mut self, log: &LogId, seen: &Seen) {
        match on_return(log, self.generation, seen) {
            Return::Resume { term } => self.decide(log, term, Verdict::Resumed),
            Return::GoOn => {}
            Return::Obey { .. } => {
                // What was not in the adopted range goes to a new log; all of it, as copies do no harm.
                self.disk.log = self.generation.max(self.disk.log + 1);
                self.disk.shipped = (0, 0);
                self.disk.segments.clear();
                self.cutting = None;
            }
        }
    }

    fn see_other_log(&mut self, log: &LogId, seen: &Seen, mine: bool) {
        if let Some(id) = seen.commit.as_ref().and_then(Commit::block_id)
            && !self.catalogue.blocks().contains_key(&id)
            && self.finishing.insert(id)
            && let Some(meta) = seen.commit.as_ref().and_then(|c| BlockMeta::parse(c.meta.as_bytes()).ok())
        {
            self.out.push(Effect::Bucket(Op::PutMeta(Arc::new(meta)), Tag::Forget));
        }
        if self.adopting.is_some() || self.deciding || !self.is_ready() {
            return;
        }
        let author = match &seen.last {
            Some((_, d)) if matches!(d.verdict, Verdict::Adopted { .. }) => &d.by,
            _ => &log.node,
        };
        let adopter_is_me = *author == self.common.names[self.me];
        let alive = !mine && !adopter_is_me && self.view.members.get(author).is_some_and(|m| m.is_alive());
        let rank = ((self.me + self.common.names.len()) % self.common.names.len()) as u64;
        // A log of this node that is not on its disk has nobody else to go on with it.
        let own = mine || adopter_is_me;
        let watch = if own { &mut self.own_watch } else { &mut self.watch };
        match watch.look(ns(self.mono), log, seen.clone(), alive, if own { 0 } else { rank % 2 }) {
            Some(Move::Adopt { term, through }) => self.decide(log, term, Verdict::Adopted { through }),
            Some(Move::Work { through }) => self.adopt(log.clone(), through),
            None => {}
        }
    }

    fn decide(&mut self, log: &LogId, term: u64, verdict: Verdict) {
        let mine = Decision { verdict, by: self.name().to_owned(), generation: self.generation };
        self.deciding = true;
        self.out.push(Effect::Bucket(
            Op::Decide(log.clone(), term, mine.clone()),
            Tag::Decide(log.clone(), mine),
        ));
    }

    fn decided(&mut self, log: &LogId, mine: &Decision, done: &Done) {
        self.deciding = false;
        let Done::Created(created) = done else { return };
        if let (Outcome::Won, Verdict::Adopted { through }) = (judge(mine, created), &mine.verdict) {
            debug_assert!(!matches!(created, Created::Absent));
            self.adopt(log.clone(), *through);
        }
    }

    fn adopt(&mut self, log: LogId, through: u64) {
        if self.adopting.is_none() {
            self.adopting = Some(Adopting { log, through, block: None, stored: false, busy: false });
        }
    }

    fn follow_adoption(&mut self) {
        let Some(a) = &mut self.adopting else { return };
        if a.busy {
            return;
        }
        a.busy = true;
        let op = match &a.block {
            None => Op::Segments(a.log.clone(), a.through),
            Some((meta, data)) if !a.stored => Op::PutData(meta.ulid, data.clone()),
            Some((meta, _)) => {
                let text = String::from_utf8_lossy(&meta.to_json()).into_owned();
                let by = self.common.names[self.me].clone();
                Op::Commit(a.log.clone(), Commit { block: Some(meta.ulid.to_string()), meta: text, by })
            }
        };
        self.out.push(Effect::Bucket(op, Tag::Adopt));
    }

    fn adopting_went(&mut self, done: Done) {
        let id = BlockId::from_parts(self.wall as u64, u128::from(self.rng.next()));
        let Some(a) = &mut self.adopting else { return };
        a.busy = false;
        match done {
            Done::Segments(segments) => {
                let mut data = BlockData::new();
                segments.iter().flat_map(|s| s.iter()).for_each(|r| insert(&mut data, &r.sample));
                match meta_of(id, &data) {
                    Some(meta) => a.block = Some((Arc::new(meta), Rc::new(data))),
                    None => self.adopting = None,
                }
            }
            Done::Ok => a.stored = true,
            Done::Committed(commit) => {
                let mine = a.block.as_ref().map(|(m, _)| m.clone());
                // The loser's block never gets a meta.json, so nobody ever sees it.
                if let Some(meta) = mine.filter(|m| commit.block_id() == Some(m.ulid)) {
                    self.out.push(Effect::Bucket(Op::PutMeta(meta), Tag::Forget));
                }
                self.adopting = None;
            }
            _ => {}
        }
    }
}
