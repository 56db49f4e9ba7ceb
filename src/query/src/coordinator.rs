//! The coordinator: asks, re-plans what was not served, reads itself as the last resort, and gives a verdict.
//!
//! One view is pinned for all rounds. Round one is the plan; blocks that a holder did not serve go to the
//! next in rank, at most twice; then the coordinator opens them itself. A head has one holder: when it does
//! not answer, `completeness` decides whether another slot covers it. What remains is a gap with a name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use koios_chunk::SeriesChunks;
use koios_cluster::{ClusterView, Member};
use koios_model::{BlockId, Labels, Matcher};
use koios_promql::{EvalError, SeriesSet};
use koios_store::CatalogueView;

use crate::client::{CallError, Peers};
use crate::completeness::{Absent, Gap, gaps};
use crate::error::QueryError;
use crate::local::LocalParts;
use crate::merge::{MergedList, MergedSeries};
use crate::picked::Picked;
use crate::plan;
use crate::scope::{Answer, Form, Missing, Part, Scope, Words};

/// Rounds of questions before the coordinator reads blocks itself.
const ROUNDS_MAX: usize = 3;
/// Longest wait for one holder; the replicas of a silent one answer for it.
pub const HOLDER_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Longest wait altogether.
    pub patience: Duration,
}

/// Series, sorted by labels, replicas merged.
#[derive(Debug)]
pub enum Found {
    /// All of them.
    List(MergedList),
    /// Still in their block.
    Picked(Picked),
}

/// Series from the whole cluster.
#[derive(Debug)]
pub struct Selected {
    /// The series.
    pub series: Found,
    /// What may be missing.
    pub gaps: Vec<Gap>,
}

/// Asks the cluster.
pub struct Coordinator {
    /// Channels to peers.
    pub peers: Arc<Peers>,
    /// Own data.
    pub parts: LocalParts,
}

type Asked<T> = Result<(T, Vec<Missing>), CallError>;
type Ask<'a, T> = dyn Fn(Arc<Member>, Scope) -> BoxFuture<'a, Asked<T>> + Send + Sync + 'a;

impl Coordinator {
    /// All series that match.
    ///
    /// # Errors
    /// Only for limits and faults of this node; holders that fail become gaps.
    pub async fn select(
        &self,
        view: &Arc<ClusterView>,
        want: &Want,
        form: Form,
    ) -> Result<Selected, QueryError> {
        // Beside other answers series are merged, so then they are needed as a list.
        let alone = view.members.values().all(|m| m.name == view.me || !m.answers());
        let own_form = if form == Form::Picked && !alone { Form::Chunks } else { form };
        let labels_only = form == Form::Labels;
        let patience = want.patience.min(HOLDER_PATIENCE);
        let ring_hash = view.ring_hash();
        let ask = |node: Arc<Member>, scope: Scope| -> BoxFuture<'_, Asked<Answer>> {
            Box::pin(async move {
                let mut answer = if node.name == view.me {
                    let own = self.parts.select(&scope, want.matchers.clone(), own_form).await;
                    own.map_err(own_failure)?
                } else {
                    self.peers.select(&node, ring_hash, &scope, &want.matchers, labels_only, patience).await?
                };
                let missing = std::mem::take(&mut answer.missing);
                Ok((answer, missing))
            })
        };
        let (answers, gaps) = self.rounds(view, want, &ask).await?;
        let series = crate::ports::compute(&*self.parts.pool, move || merge(answers)).await??;
        if series.len() as u64 > want.series_max {
            return Err(QueryError::Limit(format!(
                "the query selects more than {} series; narrow the selector",
                want.series_max
            )));
        }
        Ok(Selected { series, gaps })
    }

    /// Label names (`name` empty) or the values of one label, sorted and unique.
    ///
    /// # Errors
    /// As `select`.
    pub async fn words(
        &self,
        view: &Arc<ClusterView>,
        want: &Want,
        name: &str,
    ) -> Result<(Vec<String>, Vec<Gap>), QueryError> {
        let patience = want.patience.min(HOLDER_PATIENCE);
        let ring_hash = view.ring_hash();
        let ask = |node: Arc<Member>, scope: Scope| -> BoxFuture<'_, Asked<Words>> {
            Box::pin(async move {
                let mut words = if node.name == view.me {
                    let own = self.parts.words(&scope, name.to_owned(), want.matchers.clone()).await;
                    own.map_err(own_failure)?
                } else {
                    self.peers.words(&node, ring_hash, &scope, name, &want.matchers, patience).await?
                };
                let missing = std::mem::take(&mut words.missing);
                Ok((words, missing))
            })
        };
        let (answers, gaps) = self.rounds(view, want, &ask).await?;
        let all: BTreeSet<String> = answers.into_iter().flat_map(|w| w.values).collect();
        Ok((all.into_iter().collect(), gaps))
    }

    async fn rounds<T>(
        &self,
        view: &Arc<ClusterView>,
        want: &Want,
        ask: &Ask<'_, T>,
    ) -> Result<(Vec<T>, Vec<Gap>), QueryError> {
        if view.own().is_none() {
            // Before the first view nobody, not even this node, would be asked.
            return Err(QueryError::Overloaded(
                "this node has not found its place in the cluster yet".into(),
            ));
        }
        let catalogue = self.parts.catalogue.load_full();
        let cover = catalogue.cover(want.mint, want.maxt);
        let mut seen = Seen { view: catalogue.clone(), blocks: cover.iter().copied().collect() };
        let ejected = |m: &Member| self.peers.reach().is_ejected(&m.name, m.generation);
        let first = plan::plan(view, &cover, &ejected, (want.mint, want.maxt));
        let mut state = Rounds::new(view, want, &catalogue, first.absent);
        let mut questions: Vec<(Arc<Member>, Scope)> = Vec::new();
        for f in first.ask {
            questions.push((f.node, want.scope(f.own, f.blocks, f.whole_bucket)));
        }
        let mut payloads = Vec::new();
        for _ in 0..=ROUNDS_MAX {
            let asked = join_all(questions.drain(..).map(|(node, scope)| {
                let answer = ask(node.clone(), scope.clone());
                async move { (node, scope, answer.await) }
            }))
            .await;
            for (node, scope, result) in asked {
                match result {
                    Ok((payload, missing)) => {
                        payloads.push(payload);
                        state.not_served(&node, &scope, missing);
                    }
                    Err(CallError::Limit(text)) => return Err(QueryError::Limit(text)),
                    Err(e) => state.no_answer(&node, &scope, e.text()),
                }
            }
            questions = state.next_questions(&ejected);
            if questions.is_empty() {
                questions = self.newly_cut(view, want, &mut seen);
            }
            if questions.is_empty() {
                break;
            }
        }
        let not_asked: Vec<BlockId> = questions.into_iter().flat_map(|(_, scope)| scope.blocks).collect();
        if !not_asked.is_empty() {
            let holders = not_asked.iter().map(|id| format!("block {id}")).collect();
            state.gap(holders, "appeared while this was answered");
        }
        if !seen.view.read {
            state.gap(vec![format!("the bucket of {}", view.me)], "has not been read yet");
        }
        Ok((payloads, state.verdict()))
    }
}

/// What the catalogue showed when it was looked at last.
struct Seen {
    view: Arc<CatalogueView>,
    blocks: BTreeSet<BlockId>,
}

impl Coordinator {
    /// Blocks that appeared while the heads answered. A head forgets only what the catalogue shows already, so
    /// looking once more after the heads have answered leaves no sample between the two.
    fn newly_cut(&self, view: &ClusterView, want: &Want, seen: &mut Seen) -> Vec<(Arc<Member>, Scope)> {
        let now = self.parts.catalogue.load_full();
        if Arc::ptr_eq(&now, &seen.view) {
            return Vec::new();
        }
        let cover = now.cover(want.mint, want.maxt);
        seen.view = now;
        let new: Vec<BlockId> = cover.into_iter().filter(|id| seen.blocks.insert(*id)).collect();
        match view.own() {
            Some(me) if !new.is_empty() => vec![(me.clone(), want.scope(false, new, false))],
            _ => Vec::new(),
        }
    }
}

impl Want {
    fn scope(&self, own: bool, blocks: Vec<BlockId>, whole_bucket: bool) -> Scope {
        Scope {
            query_id: self.query_id.clone(),
            mint: self.mint,
            maxt: self.maxt,
            own,
            blocks,
            whole_bucket,
            series_max: self.series_max,
            bytes_max: self.bytes_max,
        }
    }
}

fn own_failure(e: QueryError) -> CallError {
    match e {
        QueryError::Limit(text) => CallError::Limit(text),
        other => CallError::Refused(other.to_string()),
    }
}

/// What is still open between two rounds.
struct Rounds<'a> {
    view: &'a ClusterView,
    want: &'a Want,
    catalogue: &'a CatalogueView,
    absent: Vec<Absent>,
    gaps: Vec<Gap>,
    todo: BTreeMap<BlockId, String>,
    tried: HashMap<BlockId, BTreeSet<String>>,
    buckets: BTreeMap<String, BTreeSet<String>>,
    open_buckets: BTreeSet<String>,
}

impl<'a> Rounds<'a> {
    fn new(view: &'a ClusterView, want: &'a Want, catalogue: &'a CatalogueView, absent: Vec<Absent>) -> Self {
        Self {
            view,
            want,
            catalogue,
            absent,
            gaps: Vec::new(),
            todo: BTreeMap::new(),
            tried: HashMap::new(),
            buckets: BTreeMap::new(),
            open_buckets: BTreeSet::new(),
        }
    }

    fn not_served(&mut self, node: &Member, scope: &Scope, missing: Vec<Missing>) {
        for m in missing {
            match m.part {
                Part::Own => self
                    .absent
                    .push(Absent::from_member(node, &format!("cannot read its head: {}", m.detail))),
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

    fn no_answer(&mut self, node: &Member, scope: &Scope, why: &str) {
        if scope.own {
            tracing::warn!(node = node.name, why, "a holder does not answer");
            self.absent.push(Absent::from_member(node, "does not answer"));
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

    /// Who is asked next for what is still open; what nobody is left for becomes a gap.
    fn next_questions(&mut self, ejected: &dyn Fn(&Member) -> bool) -> Vec<(Arc<Member>, Scope)> {
        let mut blocks: BTreeMap<String, (Arc<Member>, Vec<BlockId>)> = BTreeMap::new();
        let my_bucket = self.view.own().map(|m| m.record.bucket.clone()).unwrap_or_default();
        for (id, why) in std::mem::take(&mut self.todo) {
            let tried = self.tried.entry(id).or_default();
            let others = plan::block_candidates(self.view, id, &my_bucket, ejected);
            let next = others.into_iter().find(|m| !tried.contains(&m.name) && tried.len() + 1 < ROUNDS_MAX);
            let next = next.or_else(|| self.view.own().filter(|m| !tried.contains(&m.name)).cloned());
            match next {
                Some(m) => blocks.entry(m.name.clone()).or_insert_with(|| (m, Vec::new())).1.push(id),
                None => {
                    let range = self.catalogue.blocks.get(&id).map(|m| (m.min_time, m.max_time - 1));
                    let (from, until) = range.unwrap_or((self.want.mint, self.want.maxt));
                    let (from, until) = (from.max(self.want.mint), until.min(self.want.maxt));
                    let reason = format!("cannot be read: {why}");
                    self.gaps.push(Gap { from, until, holders: vec![format!("block {id}")], reason });
                }
            }
        }
        let mut questions: Vec<_> =
            blocks.into_values().map(|(m, ids)| (m, self.want.scope(false, ids, false))).collect();
        for bucket in std::mem::take(&mut self.open_buckets) {
            let tried = &self.buckets[&bucket];
            let speakers = plan::bucket_speakers(self.view, &bucket, ejected);
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

    fn verdict(mut self) -> Vec<Gap> {
        self.gaps.extend(gaps(&self.absent, self.want.mint, self.want.maxt));
        self.gaps
    }
}

impl Found {
    fn len(&self) -> usize {
        match self {
            Self::List(list) => list.0.len(),
            Self::Picked(picked) => picked.len(),
        }
    }

    /// Their labels, where they were asked for as a list.
    pub fn into_labels(self) -> Vec<Labels> {
        match self {
            Self::List(list) => list.0.into_iter().map(|s| s.labels).collect(),
            Self::Picked(_) => unreachable!("BUG: no list although only a list was asked for"),
        }
    }

    /// As the engine takes them.
    pub fn into_set(self) -> Box<dyn SeriesSet> {
        match self {
            Self::List(list) => Box::new(list),
            Self::Picked(picked) => Box::new(picked),
        }
    }
}

/// What one answer has still in its block is all there is, or joins the lists of the others.
fn merge(mut answers: Vec<Answer>) -> Result<Found, QueryError> {
    answers.retain(|a| !a.series.is_empty() || a.picked.is_some());
    if let [Answer { picked, .. }] = &mut answers[..]
        && let Some(picked) = picked.take()
    {
        return Ok(Found::Picked(picked));
    }
    let mut lists = Vec::with_capacity(answers.len());
    for mut answer in answers {
        if let Some(picked) = answer.picked.take() {
            let list = picked.into_list().map_err(|e| EvalError::Source(e.to_string()))?;
            answer.series.extend(list);
        }
        lists.push(answer.series);
    }
    Ok(Found::List(MergedList(merge_lists(lists))))
}

/// Series of equal labels become one. Answers come sorted as a rule, so this is a merge of sorted runs.
fn merge_lists(lists: Vec<Vec<SeriesChunks>>) -> Vec<MergedSeries> {
    let mut lists = lists.into_iter();
    let mut all: Vec<SeriesChunks> = lists.next().unwrap_or_default();
    lists.for_each(|list| all.extend(list));
    if all.is_sorted_by(|a, b| a.labels < b.labels) {
        // Nothing to merge: the list itself becomes the result.
        let mut series: Vec<MergedSeries> = all.into_iter().map(MergedSeries::from).collect();
        series.iter_mut().for_each(MergedSeries::seal);
        return series;
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut series: Vec<MergedSeries> = Vec::with_capacity(all.len());
    for s in all {
        match series.last_mut() {
            Some(last) if last.labels == s.labels => last.add(s.slot, s.chunks),
            _ => series.push(s.into()),
        }
    }
    series.iter_mut().for_each(MergedSeries::seal);
    series
}
