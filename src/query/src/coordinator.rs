//! The coordinator: asks, re-plans what was not served, reads itself as the last resort, and gives a verdict.
//!
//! What is asked, in which round and of whom, is decided in `rounds`; here it is carried over the network, with
//! the patience a holder gets, and the answers become series.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use koios_chunk::SeriesChunks;
use koios_cluster::{ClusterView, Member};
use koios_model::Labels;
use koios_promql::{EvalError, SeriesSet};
use koios_store::federation::Federation;

use crate::asking::{Account, Ask, Asked, Asking};
use crate::client::{CallError, Peers, Spent};
use crate::completeness::Gap;
use crate::endpoints;
use crate::error::QueryError;
use crate::hedge::Hedger;
use crate::lens::Lens;
use crate::limits::of_the_query;
use crate::local::LocalParts;
use crate::merge::{MergedList, MergedSeries};
use crate::picked::Picked;
use crate::rounds::Rounds;
pub use crate::rounds::Want;
use crate::scope::{Answer, Form, Scope, Words};
use crate::stats::QueryStats;

/// Longest wait for one holder; the replicas of a silent one answer for it.
pub const HOLDER_PATIENCE: Duration = Duration::from_secs(5);

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
    /// What queries met.
    pub stats: Arc<QueryStats>,
    /// When a question is asked twice.
    pub hedger: Arc<Hedger>,
    /// Who is asked beside the cluster.
    pub federation: Arc<Federation>,
}

impl Coordinator {
    /// Whether a question concerns anybody beside the cluster.
    pub(crate) fn concerns_outside(&self, want: &Want) -> bool {
        endpoints::concerns_any(&self.federation, self.parts.shelf.own_labels(), want)
    }

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
        let alone =
            view.members.values().all(|m| m.name == view.me || !m.is_open()) && !self.concerns_outside(want);
        let own_form = if form == Form::Picked && !alone { Form::Chunks } else { form };
        let labels_only = form == Form::Labels;
        let patience = want.patience.min(HOLDER_PATIENCE);
        let (ring_hash, spent) = (view.ring_hash(), &Spent::of(want.bytes_max));
        let ask = |node: Arc<Member>, mut scope: Scope| -> BoxFuture<'_, Asked<Answer>> {
            Box::pin(async move {
                scope.bytes_max = spent.left();
                scope.may_split &= !labels_only;
                let mut answer = if node.name == view.me {
                    let own = self.parts.select(&scope, want.matchers.clone(), own_form).await;
                    own.map_err(own_failure)?
                } else {
                    let matchers = &want.matchers;
                    self.peers
                        .select(&node, ring_hash, &scope, matchers, labels_only, (patience, spent))
                        .await?
                };
                let account = Account {
                    missing: std::mem::take(&mut answer.missing),
                    moved: std::mem::take(&mut answer.moved),
                    split: answer.split,
                };
                Ok((answer, account))
            })
        };
        let outside = endpoints::series(&self.federation, self.parts.shelf.own_labels(), want, form, spent);
        let (inside, (beside, missing)) = tokio::join!(self.rounds(view, want, &ask, false), outside);
        let (mut answers, mut gaps) = inside?;
        answers.extend(beside);
        gaps.extend(missing);
        let lens = want.lens.clone();
        let series = crate::ports::compute(&*self.parts.pool, move || merge(answers, lens)).await??;
        if series.len() as u64 > want.series_max {
            return Err(QueryError::Limit(of_the_query("series", want.series_max, "max_series")));
        }
        Ok(Selected { series, gaps })
    }

    /// All series that match, replicas unmerged and chunks as they are stored: one entry for each label set and slot,
    /// in this order. Their labels are as `want.dress` says. Copies of a chunk are left out.
    ///
    /// # Errors
    /// As `select`.
    pub async fn raw(
        &self,
        view: &Arc<ClusterView>,
        want: &Want,
        form: Form,
    ) -> Result<(Vec<SeriesChunks>, Vec<Gap>), QueryError> {
        let lens = Lens { plain: true, ..Lens::default() };
        let form = if form == Form::Picked { Form::Chunks } else { form };
        let Selected { series, gaps } = self.select(view, &Want { lens, ..want.clone() }, form).await?;
        let Found::List(list) = series else { unreachable!("BUG: no list although a list was asked for") };
        Ok((list.series.into_iter().flat_map(MergedSeries::into_parts).collect(), gaps))
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
                let (missing, moved) = (std::mem::take(&mut words.missing), std::mem::take(&mut words.moved));
                Ok((words, Account { missing, moved, split: 0 }))
            })
        };
        let outside = endpoints::words(&self.federation, self.parts.shelf.own_labels(), want, name);
        let (inside, (beside, missing)) = tokio::join!(self.rounds(view, want, &ask, true), outside);
        let (answers, mut gaps) = inside?;
        gaps.extend(missing);
        let all: BTreeSet<String> = answers.into_iter().flat_map(|w| w.values).chain(beside).collect();
        Ok((all.into_iter().collect(), gaps))
    }

    /// Whether a node is better asked last.
    pub(crate) fn avoid(&self, m: &Member) -> bool {
        self.peers.reach().is_ejected(&m.name, m.generation) || self.hedger.avoid(&m.name)
    }

    async fn rounds<T: Send>(
        &self,
        view: &Arc<ClusterView>,
        want: &Want,
        ask: &Ask<'_, T>,
        words: bool,
    ) -> Result<(Vec<T>, Vec<Gap>), QueryError> {
        if view.own().is_none() {
            // Before the first view nobody, not even this node, would be asked.
            return Err(QueryError::Overloaded(
                "this node has not found its place in the cluster yet".into(),
            ));
        }
        let hedger = &*self.hedger;
        let avoid = |m: &Member| self.avoid(m);
        let catalogue = || self.parts.catalogue.load_full();
        let asking = Asking { ask, hedger, me: &view.me, nodes: view.members.len(), words };
        let (mut rounds, mut questions) = Rounds::start(view, want, catalogue(), &avoid);
        let mut payloads = Vec::new();
        while !questions.is_empty() {
            let mut split = Vec::new();
            for (node, scope, result) in asking.round(&rounds, questions, &avoid).await {
                match result {
                    Ok((_, account)) if account.split > 0 => {
                        QueryStats::count(&self.stats.split);
                        split.extend(Rounds::split(&node, &scope, account.split));
                    }
                    Ok((payload, account)) => {
                        payloads.push(payload);
                        self.stats.missed(&account.missing);
                        rounds.answered(&node, &scope, account.missing);
                        rounds.forgotten(&node, &account.moved);
                    }
                    Err(CallError::Limit(text)) => return Err(QueryError::Limit(text)),
                    Err(CallError::Full(why)) => {
                        rounds.full(&node, &scope, &why, hedger.full(&node.name, !scope.blocks.is_empty()))
                    }
                    Err(e) => {
                        QueryStats::count(&self.stats.unanswered);
                        rounds.no_answer(&node, &scope, e.text());
                    }
                }
            }
            // Parts cannot be split again, so this ends.
            questions = if split.is_empty() { rounds.next(&catalogue, &avoid) } else { split };
            if questions.iter().any(|(node, _)| node.name == view.me) {
                QueryStats::count(&self.stats.self_reads);
            }
        }
        Ok((payloads, rounds.verdict()))
    }
}

fn own_failure(e: QueryError) -> CallError {
    match e {
        QueryError::Limit(text) => CallError::Limit(text),
        other => CallError::Refused(other.to_string()),
    }
}

impl Found {
    fn len(&self) -> usize {
        match self {
            Self::List(list) => list.series.len(),
            Self::Picked(picked) => picked.len(),
        }
    }

    /// Their labels, where they were asked for as a list.
    pub fn into_labels(self) -> Vec<Labels> {
        match self {
            Self::List(list) => list.series.into_iter().map(|s| s.labels).collect(),
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
fn merge(mut answers: Vec<Answer>, lens: Lens) -> Result<Found, QueryError> {
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
    Ok(Found::List(MergedList { series: merge_lists(lists, &lens), lens }))
}

/// Series of equal labels become one. Answers come sorted as a rule, so this is a merge of sorted runs.
pub(crate) fn merge_lists(lists: Vec<Vec<SeriesChunks>>, lens: &Lens) -> Vec<MergedSeries> {
    let mut lists = lists.into_iter();
    let mut all: Vec<SeriesChunks> = lists.next().unwrap_or_default();
    lists.for_each(|list| all.extend(list));
    for s in all.iter_mut().filter(|s| lens.relabels(s.slot)) {
        s.labels = lens.shown(s.slot, std::mem::take(&mut s.labels));
    }
    if let Some(shard) = &lens.shard {
        all.retain(|s| shard.holds(&s.labels));
    }
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
