//! The rounds of a query, without the asking: what is asked first, who is asked next, what remains missing. Pure.
//!
//! One view is pinned for all rounds. Round one is the plan; blocks that a holder did not serve go to the next in
//! rank, at most twice; then the coordinator opens them itself. A head has one holder: when it does not answer,
//! `completeness` decides whether another slot covers it. When nothing is open the catalogue is looked at once more:
//! a head forgets only what its node's catalogue shows, and says so when this node's may not, so no sample falls between
//! the two. What remains is a gap with a name. The coordinator carries the questions over the network, the simulator of `cluster-tests` over its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::{ClusterView, Member};
use koios_model::{BlockId, Matcher};
use koios_store::CatalogueView;

use crate::completeness::{Absent, Gap, gaps};
use crate::plan;
use crate::scope::{Missing, Part, Scope, Shard};

/// Rounds of questions before the coordinator reads blocks itself.
pub const ROUNDS_MAX: usize = 3;

/// Most parts of one question.
pub const SHARDS_MAX: u32 = 64;

/// Questions of one round.
pub type Questions = Vec<(Arc<Member>, Scope)>;

/// What is wanted, from all holders together.
#[derive(Clone, Debug)]
pub struct Want {
    /// For logs.
    pub query_id: String,
    /// First sample time, inclusive, milliseconds.
    pub mint: i64,
    /// Last sample time, inclusive, milliseconds.
    pub maxt: i64,
    /// Conditions on labels.
    pub matchers: Vec<Matcher>,
    /// Most series.
    pub series_max: u64,
    /// Most chunk bytes.
    pub bytes_max: u64,
    /// Most samples.
    pub samples_max: u64,
    /// Longest wait altogether.
    pub patience: Duration,
}

impl Want {
    pub(crate) fn scope(&self, own: bool, blocks: Vec<BlockId>, whole_bucket: bool) -> Scope {
        Scope {
            query_id: self.query_id.clone(),
            mint: self.mint,
            maxt: self.maxt,
            own,
            blocks,
            whole_bucket,
            series_max: self.series_max,
            bytes_max: self.bytes_max,
            samples_max: self.samples_max,
            shard: Shard::WHOLE,
            may_split: false,
        }
    }

    /// Questions to another node. Blocks are asked for apart from the head: of those another node can be asked when
    /// this one is late, and by slices of time.
    fn of_peer(&self, catalogue: &CatalogueView, f: plan::Fragment) -> Questions {
        let mut questions = Vec::new();
        let mut ask = |own, blocks, whole| {
            let scope = Scope { may_split: true, ..self.scope(own, blocks, whole) };
            questions.push((f.node.clone(), scope));
        };
        if f.own || f.whole_bucket {
            ask(f.own, Vec::new(), f.whole_bucket);
        }
        let start = |id: BlockId| catalogue.blocks().get(&id).map_or(0, |b| b.min_time);
        plan::slices(&f.blocks, &start).into_iter().for_each(|ids| ask(false, ids, false));
        questions
    }
}

/// What is still open between two rounds.
#[derive(Debug)]
pub struct Rounds {
    view: Arc<ClusterView>,
    want: Want,
    /// As it was looked at last.
    catalogue: Arc<CatalogueView>,
    asked_for: BTreeSet<BlockId>,
    moved: BTreeSet<BlockId>,
    round: usize,
    absent: Vec<Absent>,
    /// Whose head did not answer; its questions may be several.
    silent: BTreeSet<String>,
    gaps: Vec<Gap>,
    todo: BTreeMap<BlockId, String>,
    tried: HashMap<BlockId, BTreeSet<String>>,
    buckets: BTreeMap<String, BTreeSet<String>>,
    open_buckets: BTreeSet<String>,
}

impl Rounds {
    /// The first questions for `want`. `ejected` tells which nodes are better left alone.
    pub fn start(
        view: &Arc<ClusterView>,
        want: &Want,
        catalogue: Arc<CatalogueView>,
        ejected: &dyn Fn(&Member) -> bool,
    ) -> (Self, Questions) {
        let cover = catalogue.cover(want.mint, want.maxt);
        let first = plan::plan(view, &catalogue, &cover, ejected, (want.mint, want.maxt));
        let seen = catalogue.clone();
        let ask = |f: plan::Fragment| match f.node.name == view.me {
            true => vec![(f.node.clone(), want.scope(f.own, f.blocks, f.whole_bucket))],
            false => want.of_peer(&seen, f),
        };
        let rounds = Self {
            view: view.clone(),
            want: want.clone(),
            catalogue,
            asked_for: cover.into_iter().collect(),
            moved: BTreeSet::new(),
            round: 0,
            absent: first.absent,
            silent: BTreeSet::new(),
            gaps: Vec::new(),
            todo: BTreeMap::new(),
            tried: HashMap::new(),
            buckets: BTreeMap::new(),
            open_buckets: BTreeSet::new(),
        };
        (rounds, first.ask.into_iter().flat_map(ask).collect())
    }

    /// Who is asked for the blocks of a question in the place of `node`, which is late: the next in rank that is not
    /// better left alone, and this node where nobody is.
    pub fn substitutes(&self, node: &Member, scope: &Scope, avoid: &dyn Fn(&Member) -> bool) -> Questions {
        let mut asked: BTreeMap<String, (Arc<Member>, Vec<BlockId>)> = BTreeMap::new();
        let Some(me) = self.view.own() else { return Vec::new() };
        for id in &scope.blocks {
            let ranked = plan::block_candidates(&self.view, *id, &me.record.bucket, avoid);
            let other = ranked.into_iter().find(|m| m.name != node.name && !avoid(m));
            let other = other.unwrap_or_else(|| me.clone());
            asked.entry(other.name.clone()).or_insert_with(|| (other, Vec::new())).1.push(*id);
        }
        let same = |blocks| Scope { blocks, may_split: false, ..scope.clone() };
        asked.into_values().map(|(m, ids)| (m, same(ids))).collect()
    }

    /// Whether the answer would be whole if these nodes were not heard, as far as heads matter.
    pub fn whole_without(&self, silent: &[&Member]) -> bool {
        let mut absent = self.absent.clone();
        for m in silent {
            if !self.silent.contains(&m.name) {
                absent.push(Absent::from_member(&self.view, m, "is late", &self.catalogue));
            }
        }
        gaps(&absent, self.want.mint, self.want.maxt).is_empty()
    }

    /// The questions in the place of one whose answer would be too large: the same in `parts` parts. What is too
    /// large again is served all the same, within the limits.
    pub fn split(node: &Arc<Member>, scope: &Scope, parts: u32) -> Questions {
        let count = parts.clamp(2, SHARDS_MAX);
        let part = |index| Scope { shard: Shard { index, count }, may_split: false, ..scope.clone() };
        (0..count).map(|index| (node.clone(), part(index))).collect()
    }

    /// The questions of the next round, once all of the last are answered or given up; none means that it is over.
    /// `catalogue` gives the picture of the bucket now.
    pub fn next(
        &mut self,
        catalogue: &dyn Fn() -> Arc<CatalogueView>,
        ejected: &dyn Fn(&Member) -> bool,
    ) -> Questions {
        self.round += 1;
        let mut questions = self.open_questions(ejected);
        if questions.is_empty() {
            questions = self.newly_cut(catalogue());
        }
        if self.round <= ROUNDS_MAX {
            return questions;
        }
        let not_asked: Vec<BlockId> = questions.into_iter().flat_map(|(_, scope)| scope.blocks).collect();
        if !not_asked.is_empty() {
            let holders = not_asked.iter().map(|id| format!("block {id}")).collect();
            self.gap(holders, "appeared while this was answered");
        }
        Vec::new()
    }

    /// Blocks that appeared while the heads answered, or that heads speak of and the catalogue does not show.
    fn newly_cut(&mut self, now: Arc<CatalogueView>) -> Questions {
        let mut new: Vec<BlockId> = Vec::new();
        if !Arc::ptr_eq(&now, &self.catalogue) {
            let cover = now.cover(self.want.mint, self.want.maxt);
            self.catalogue = now;
            new.extend(cover.into_iter().filter(|id| self.asked_for.insert(*id)));
        }
        let unseen = std::mem::take(&mut self.moved).into_iter().filter(|id| !self.catalogue.holds(*id));
        new.extend(unseen.filter(|id| self.asked_for.insert(*id)));
        match self.view.own() {
            Some(me) if !new.is_empty() => vec![(me.clone(), self.want.scope(false, new, false))],
            _ => Vec::new(),
        }
    }

    /// A node answered; `missing` are the parts that it did not serve.
    pub fn answered(&mut self, node: &Member, scope: &Scope, missing: Vec<Missing>) {
        for m in missing {
            match m.part {
                Part::Own => self.unheard(node, &format!("cannot read its head: {}", m.detail)),
                Part::Block(id) if scope.blocks.contains(&id) => {
                    self.tried.entry(id).or_default().insert(node.name.clone());
                    self.todo.insert(id, m.detail);
                }
                Part::Block(id) => self.gap(
                    vec![format!("block {id} on {}", node.name)],
                    &format!("cannot be read: {}", m.detail),
                ),
            }
        }
    }

    /// A head that answered says which blocks it forgot its samples into lately. What the catalogue here does not
    /// hold yet (this node was paused, or cut off from the bucket) is read by its id.
    /// Of a bucket of its own the node serves the blocks itself.
    pub fn forgotten(&mut self, node: &Member, blocks: &[BlockId]) {
        if self.view.own().is_some_and(|me| me.record.bucket == node.record.bucket) {
            self.moved.extend(blocks);
        }
    }

    /// A node had no room. Unless others may be asked in its place, this node reads the blocks itself.
    pub fn full(&mut self, node: &Member, scope: &Scope, why: &str, others: bool) {
        self.no_answer(node, scope, why);
        if !others {
            let names = || self.view.members.keys().filter(|n| **n != self.view.me).cloned();
            for id in &scope.blocks {
                self.tried.entry(*id).or_default().extend(names());
            }
        }
    }

    /// A node did not answer.
    pub fn no_answer(&mut self, node: &Member, scope: &Scope, why: &str) {
        if scope.own {
            tracing::warn!(node = node.name, why, "a holder does not answer");
            self.unheard(node, "does not answer");
        }
        for id in &scope.blocks {
            self.tried.entry(*id).or_default().insert(node.name.clone());
            self.todo.insert(*id, why.to_owned());
        }
        if scope.whole_bucket {
            let bucket = node.record.bucket.clone();
            self.buckets.entry(bucket.clone()).or_default().insert(node.name.clone());
            self.open_buckets.insert(bucket);
        }
    }

    /// Once for each node: with itself it would make a pair.
    fn unheard(&mut self, node: &Member, why: &str) {
        if self.silent.insert(node.name.clone()) {
            self.absent.push(Absent::from_member(&self.view, node, why, &self.catalogue));
        }
    }

    /// Who is asked next for what is still open; what nobody is left for becomes a gap.
    fn open_questions(&mut self, ejected: &dyn Fn(&Member) -> bool) -> Questions {
        let mut blocks: BTreeMap<String, (Arc<Member>, Vec<BlockId>)> = BTreeMap::new();
        let my_bucket = self.view.own().map(|m| m.record.bucket.clone()).unwrap_or_default();
        for (id, why) in std::mem::take(&mut self.todo) {
            let tried = self.tried.entry(id).or_default();
            let others = plan::block_candidates(&self.view, id, &my_bucket, ejected);
            let next = others.into_iter().find(|m| !tried.contains(&m.name) && tried.len() + 1 < ROUNDS_MAX);
            let next = next.or_else(|| self.view.own().filter(|m| !tried.contains(&m.name)).cloned());
            match next {
                Some(m) => blocks.entry(m.name.clone()).or_insert_with(|| (m, Vec::new())).1.push(id),
                None => {
                    let range = self.catalogue.blocks().get(&id).map(|m| (m.min_time, m.max_time - 1));
                    let (from, until) = range.unwrap_or((self.want.mint, self.want.maxt));
                    let (from, until) = (from.max(self.want.mint), until.min(self.want.maxt));
                    let reason = format!("cannot be read: {why}");
                    self.gaps.push(Gap { from, until, holders: vec![format!("block {id}")], reason });
                }
            }
        }
        let mut questions = Vec::new();
        for (node, ids) in blocks.into_values() {
            if node.name == self.view.me {
                questions.push((node, self.want.scope(false, ids, false)));
            } else {
                let part = plan::Fragment { node, own: false, blocks: ids, whole_bucket: false };
                questions.extend(self.want.of_peer(&self.catalogue, part));
            }
        }
        for bucket in std::mem::take(&mut self.open_buckets) {
            let tried = &self.buckets[&bucket];
            let speakers = plan::bucket_speakers(&self.view, &bucket, ejected);
            // A private bucket dies with its node: `completeness` knows what that node held.
            if let Some(m) = speakers.into_iter().find(|m| !tried.contains(&m.name)) {
                questions.push((m, self.want.scope(false, Vec::new(), true)));
            }
        }
        questions
    }

    /// All of the time that is asked about may lack something.
    fn gap(&mut self, holders: Vec<String>, reason: &str) {
        self.gaps.push(Gap {
            from: self.want.mint,
            until: self.want.maxt,
            holders,
            reason: reason.to_owned(),
        });
    }

    /// What may be missing from the answer.
    pub fn verdict(mut self) -> Vec<Gap> {
        if !self.catalogue.read() {
            self.gap(vec![format!("the bucket of {}", self.view.me)], "has not been read yet");
        }
        self.gaps.extend(gaps(&self.absent, self.want.mint, self.want.maxt));
        self.gaps
    }
}

#[cfg(test)]
mod tests;
