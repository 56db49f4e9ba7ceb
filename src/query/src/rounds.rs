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
use koios_store::{CatalogueView, Cover, Dress};

use crate::completeness::{Absent, Gap, gaps};
use crate::endpoints::Outside;
use crate::lens::Lens;
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
    /// The coarsest blocks to read, milliseconds between samples; 0 for raw data alone.
    pub max_resolution_ms: i64,
    /// Which external labels the series carry.
    pub dress: Dress,
    /// How the parts of a series become one.
    pub lens: Lens,
    /// Not this node's own part, only blocks that it reads.
    pub without_me: bool,
    /// What it means outside of the cluster.
    pub outside: Outside,
}

impl Default for Want {
    /// Everything of all times, raw, without bounds.
    fn default() -> Self {
        Self {
            query_id: String::new(),
            mint: i64::MIN,
            maxt: i64::MAX,
            matchers: Vec::new(),
            series_max: u64::MAX,
            bytes_max: u64::MAX,
            samples_max: u64::MAX,
            patience: Duration::from_secs(120),
            max_resolution_ms: 0,
            dress: Dress::Home,
            lens: Lens::default(),
            without_me: false,
            outside: Outside::default(),
        }
    }
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
            max_resolution_ms: self.max_resolution_ms,
            dress: self.dress,
        }
    }

    fn cover(&self, catalogue: &CatalogueView) -> Cover {
        catalogue.cover_at(self.mint, self.maxt, self.max_resolution_ms)
    }

    /// Questions for blocks, each of which is read as far as the cover says; what it does not name is read whole.
    fn of_blocks(&self, cover: &Cover, blocks: Vec<BlockId>) -> Vec<Scope> {
        let mut by_range: BTreeMap<(i64, i64), Vec<BlockId>> = BTreeMap::new();
        for id in blocks {
            match cover.get(&id) {
                Some(ranges) => ranges.iter().for_each(|r| by_range.entry(*r).or_default().push(id)),
                None => by_range.entry((self.mint, self.maxt)).or_default().push(id),
            }
        }
        let scope = |((mint, maxt), ids)| Scope { mint, maxt, ..self.scope(false, ids, false) };
        by_range.into_iter().map(scope).collect()
    }

    /// Questions to this node itself. Its own part and whole blocks are one question.
    fn of_me(&self, cover: &Cover, f: plan::Fragment) -> Questions {
        let mut scopes = self.of_blocks(cover, f.blocks);
        let own = f.own && !self.without_me;
        match scopes.iter_mut().find(|s| (s.mint, s.maxt) == (self.mint, self.maxt)) {
            Some(s) => (s.own, s.whole_bucket) = (own, f.whole_bucket),
            None => scopes.push(self.scope(own, Vec::new(), f.whole_bucket)),
        }
        scopes.into_iter().map(|s| (f.node.clone(), s)).collect()
    }

    /// Questions to another node. Blocks are asked for apart from the head: of those another node can be asked when
    /// this one is late, and by slices of time.
    fn of_peer(&self, catalogue: &CatalogueView, cover: &Cover, f: plan::Fragment) -> Questions {
        let mut scopes = Vec::new();
        if f.own || f.whole_bucket {
            scopes.push(self.scope(f.own, Vec::new(), f.whole_bucket));
        }
        let start = |id: BlockId| catalogue.blocks().get(&id).map_or(0, |b| b.min_time);
        for ids in plan::slices(&f.blocks, &start) {
            scopes.extend(self.of_blocks(cover, ids));
        }
        scopes.into_iter().map(|s| (f.node.clone(), Scope { may_split: true, ..s })).collect()
    }
}

/// What is still open between two rounds.
#[derive(Debug)]
pub struct Rounds {
    view: Arc<ClusterView>,
    want: Want,
    /// As it was looked at last.
    catalogue: Arc<CatalogueView>,
    cover: Cover,
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
        let cover = want.cover(&catalogue);
        let blocks: Vec<BlockId> = cover.keys().copied().collect();
        let first = plan::plan(view, &catalogue, &blocks, ejected, (want.mint, want.maxt));
        let ask = |f: plan::Fragment| match f.node.name == view.me {
            true => want.of_me(&cover, f),
            false => want.of_peer(&catalogue, &cover, f),
        };
        let questions = first.ask.into_iter().flat_map(ask).collect();
        let rounds = Self {
            view: view.clone(),
            want: want.clone(),
            catalogue,
            cover,
            asked_for: blocks.into_iter().collect(),
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
        (rounds, questions)
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
            let cover = self.want.cover(&now);
            self.catalogue = now;
            new.extend(cover.keys().copied().filter(|id| self.asked_for.insert(*id)));
            for id in &new {
                self.cover.extend(cover.get_key_value(id).map(|(id, ranges)| (*id, ranges.clone())));
            }
        }
        let unseen = std::mem::take(&mut self.moved).into_iter().filter(|id| !self.catalogue.holds(*id));
        new.extend(unseen.filter(|id| self.asked_for.insert(*id)));
        match self.view.own() {
            Some(me) => self.want.of_blocks(&self.cover, new).into_iter().map(|s| (me.clone(), s)).collect(),
            None => Vec::new(),
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
                let scopes = self.want.of_blocks(&self.cover, ids);
                questions.extend(scopes.into_iter().map(|s| (node.clone(), s)));
            } else {
                let part = plan::Fragment { node, own: false, blocks: ids, whole_bucket: false };
                questions.extend(self.want.of_peer(&self.catalogue, &self.cover, part));
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
