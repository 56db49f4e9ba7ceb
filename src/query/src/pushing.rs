//! Parts of a query evaluated by the nodes that hold the blocks, when that cannot change a bit of the result.
//!
//! Owns when: all samples that matter lie in blocks of the shared bucket, no head and no other bucket can hold any, and
//! nobody is missing. Every node that serves the bucket then takes a shard of the series over all of these blocks, so
//! replicas meet on one node and are one series there. Which parts of a query, and that rows may stand for them, says
//! `koios_promql`. Whatever does not go as planned (a node that declines, is late, does not know the call; a block that
//! appeared meanwhile) makes the coordinator fetch chunks as if nothing had been tried.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use koios_cluster::{ClusterView, Member};
use koios_model::BlockId;
use koios_promql::{Control, Plan, Pushable, PushedRows, QueryParams, parse};
use koios_store::CatalogueView;

use crate::completeness::gaps;
use crate::coordinator::{Coordinator, HOLDER_PATIENCE, Want, merge_lists};
use crate::error::QueryError;
use crate::lens::Lens;
use crate::local::LocalParts;
use crate::merge::MergedList;
use crate::plan;
use crate::ports::compute_until;
use crate::scope::{Form, Scope, Shard};
use crate::stats::QueryStats;

/// Most blocks that every holder opens for one question.
const BLOCKS_MAX: usize = 64;
/// Most holders of one question.
const HOLDERS_MAX: usize = 16;
/// About as many bytes as a sample takes in a chunk, and at least fetched of a series: a chunk.
const SAMPLE_BYTES: i64 = 2;
const CHUNK_BYTES: i64 = 200;
/// A usual distance of samples, milliseconds.
const INTERVAL_MS: i64 = 15_000;

/// What a holder needs to evaluate a part.
#[derive(Clone, Debug)]
pub struct PartRequest {
    /// Blocks and shard.
    pub scope: Scope,
    /// The whole query.
    pub query: String,
    /// When it is evaluated. Limits are the holder's own.
    pub params: QueryParams,
    /// Which part of it.
    pub what: Pushable,
    /// Not when chunks are smaller.
    pub only_if_smaller: bool,
}

/// Rows, or why chunks have to be fetched.
pub type Evaluated = Result<PushedRows, String>;

impl LocalParts {
    /// Evaluates a part of a query over blocks of this node. Dropping the future ends the work.
    ///
    /// # Errors
    /// When the query is wrong or passes a limit.
    pub async fn evaluate(&self, request: &PartRequest) -> Result<Evaluated, QueryError> {
        let mut params = request.params.clone();
        params.limits.bytes_max = self.limits.bytes_max;
        params.limits.series_max = self.limits.series_max;
        let plan = Plan::new(&parse(&request.query)?, &params)?;
        let what = request.what.clone();
        let Some(select) = plan.selects().get(what.input) else { return Ok(Err("no such part".into())) };
        let scope = Scope { mint: select.min_time_ms, maxt: select.max_time_ms, ..request.scope.clone() };
        let answer = self.select(&scope, select.matchers.clone(), Form::Chunks).await?;
        if let Some(m) = answer.missing.first() {
            return Ok(Err(format!("a block is missing: {}", m.detail)));
        }
        let only_if_smaller = request.only_if_smaller;
        compute_until(&*self.pool, move |stop| {
            let list = merge_lists(vec![answer.series], &Lens::default());
            let bytes: usize = list.iter().map(|s| s.chunk_bytes()).sum();
            if only_if_smaller && list.len() as i64 * steps(&params).saturating_mul(8) >= bytes as i64 {
                return Ok(Err("its chunks are smaller than its rows".into()));
            }
            let stop = stop.clone();
            let control = Control::with_deadline(move || stop.is_set());
            let rows = plan.evaluate_part(
                &what,
                Box::new(MergedList { series: list, lens: Lens::default() }),
                &control,
            )?;
            Ok(rows.ok_or_else(|| "its rows cannot stand for its series".to_owned()))
        })
        .await?
    }
}

fn steps(params: &QueryParams) -> i64 {
    match params.step_ms {
        0 => 1,
        step => (params.end_ms - params.start_ms) / step + 1,
    }
}

/// Whether rows may well be smaller than the chunks that they come from.
fn may_be_smaller(params: &QueryParams, range: (i64, i64)) -> bool {
    let samples = range.1.saturating_sub(range.0) / INTERVAL_MS;
    steps(params).saturating_mul(8) < samples.saturating_mul(SAMPLE_BYTES).max(CHUNK_BYTES)
}

/// Who evaluates a part: nobody when anything but blocks of the shared bucket may matter.
fn holders(
    view: &ClusterView,
    catalogue: &CatalogueView,
    cover: &[BlockId],
    range: (i64, i64),
    avoid: &dyn Fn(&Member) -> bool,
) -> Vec<Arc<Member>> {
    let Some(me) = view.own() else { return Vec::new() };
    let first = plan::plan(view, catalogue, cover, avoid, range);
    let only_blocks = |f: &plan::Fragment| f.node.name == view.me || !(f.own || f.whole_bucket);
    let blocks_only = first.ask.iter().all(only_blocks) && (1..=BLOCKS_MAX).contains(&cover.len());
    if !blocks_only || !gaps(&first.absent, range.0, range.1).is_empty() {
        return Vec::new();
    }
    let ready = view.ready("store").into_iter();
    let mut nodes: Vec<Arc<Member>> =
        ready.filter(|m| m.record.bucket == me.record.bucket && !avoid(m)).take(HOLDERS_MAX).collect();
    if nodes.len() < 2 {
        nodes.clear();
    }
    nodes
}

impl Coordinator {
    /// Has a part of a query evaluated by those who hold its blocks; `None` means that its chunks are to be fetched.
    pub async fn push(
        &self,
        view: &Arc<ClusterView>,
        query: &str,
        params: &QueryParams,
        what: &Pushable,
        want: &Want,
    ) -> Option<Vec<PushedRows>> {
        let range = (want.mint, want.maxt);
        let catalogue = self.parts.catalogue.load_full();
        let cover = catalogue.cover(want.mint, want.maxt);
        // Replicas of other producers are merged by their chunks.
        if cover.iter().any(|id| catalogue.blocks().get(id).is_none_or(|m| m.is_foreign())) {
            return None;
        }
        let avoid = |m: &Member| self.avoid(m);
        let nodes = holders(view, &catalogue, &cover, range, &avoid);
        if nodes.is_empty() || !catalogue.read() || !(what.partial || may_be_smaller(params, range)) {
            return None;
        }
        let head = want.scope(true, Vec::new(), false);
        let own = self.parts.select(&head, want.matchers.clone(), Form::Labels).await.ok()?;
        if !own.series.is_empty() || !own.missing.is_empty() {
            return None;
        }
        let count = nodes.len() as u32;
        let asks = nodes.into_iter().zip(0..).map(|(node, index)| {
            let scope = Scope { shard: Shard { index, count }, ..want.scope(false, cover.clone(), false) };
            let request = PartRequest {
                scope,
                query: query.to_owned(),
                params: params.clone(),
                what: what.clone(),
                only_if_smaller: !what.partial,
            };
            async move { self.part(view, &node, &request, want.patience).await }
        });
        let rows: Option<Vec<PushedRows>> = join_all(asks).await.into_iter().collect();
        // A block that came meanwhile may hold what a head forgot meanwhile.
        let same = self.parts.catalogue.load().cover(want.mint, want.maxt) == cover;
        let rows = rows.filter(|_| same);
        QueryStats::count(if rows.is_some() { &self.stats.pushed } else { &self.stats.push_declined });
        rows
    }

    async fn part(
        &self,
        view: &ClusterView,
        node: &Member,
        request: &PartRequest,
        patience: Duration,
    ) -> Option<PushedRows> {
        let patience = patience.min(HOLDER_PATIENCE);
        let said = if node.name == view.me {
            tokio::time::timeout(patience, self.parts.evaluate(request))
                .await
                .ok()?
                .map_err(|e| e.to_string())
        } else {
            let asked = self.peers.evaluate(node, view.ring_hash(), request, patience).await;
            asked.map_err(|e| e.text().to_owned())
        };
        said.and_then(|evaluated| evaluated)
            .map_err(|why| tracing::debug!(node = node.name, why, "chunks are fetched instead"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{member, view};

    fn old(name: &str) -> Member {
        let mut m = member(name, "B");
        m.record.head.min_time = Some(100_000_000);
        m
    }

    #[test]
    fn only_blocks_that_all_holders_see_and_nothing_else_matters() {
        let cover: Vec<BlockId> = (0..3).map(|i| BlockId::from_parts(i, 1)).collect();
        let count = |members: Vec<Member>, cover: &[BlockId], maxt| {
            let (view, catalogue) = (view("a", members), CatalogueView::default());
            holders(&view, &catalogue, cover, (0, maxt), &|m| m.name == "ejected").len()
        };
        let all = || vec![old("a"), old("b"), old("c")];
        assert_eq!(count(all(), &cover, 1_000_000), 3);
        assert_eq!(count(all(), &cover, 99_000_000), 0, "heads may hold some of it");
        assert_eq!(count(all(), &[], 1_000_000), 0, "nothing to read");
        let many: Vec<BlockId> = (0..100).map(|i| BlockId::from_parts(i, 1)).collect();
        assert_eq!(count(all(), &many, 1_000_000), 0, "too many to open everywhere");
        let foreign = Member { name: "d".into(), ..member("d", "F") };
        assert_eq!(count([all(), vec![foreign]].concat(), &cover, 1_000_000), 0, "another bucket");
        let mut lost = old("d");
        lost.record.head.holes = vec![koios_cluster::SoleRange { from: 0, until: 9 }];
        let mut lost_too = lost.clone();
        lost_too.name = "e".into();
        assert_eq!(count([all(), vec![lost, lost_too]].concat(), &cover, 1_000_000), 0, "not whole");
        assert_eq!(count(vec![old("a"), old("ejected")], &cover, 1_000_000), 0, "alone");
    }

    #[test]
    fn rows_are_wanted_where_they_are_few() {
        let hour = (0, 3_600_000);
        assert!(may_be_smaller(&QueryParams::instant(3_600_000), hour));
        assert!(may_be_smaller(&QueryParams::range(0, 3_600_000, 120_000), hour));
        assert!(!may_be_smaller(&QueryParams::range(0, 3_600_000, 15_000), hour));
    }
}
