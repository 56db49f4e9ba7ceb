//! The front: what HTTP and rules call.
//!
//! Owns the life of one query: parse, plan, admit, pin a view, fetch every select, judge completeness,
//! evaluate on the compute pool. The policy on partial answers is here and nowhere else: an instant query is
//! whole or an error, a range query is whole or carries warnings, and the caller may ask for the other way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use koios_chunk::SeriesChunks;
use koios_cluster::{ClusterView, Member};
use koios_model::{Clock, Labels, Matcher};
use koios_promql::{
    Control, EngineOptions, EvalError, Limits, Plan, Pushable, PushedRows, QueryOutput, QueryParams, Select,
    bare_notes, parse,
};
use koios_store::Dress;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::completeness::Gap;
use crate::coordinator::{Coordinator, Found, Selected, Want};
use crate::dressing;

use crate::error::QueryError;
use crate::lens::{Lens, lookback_of, resolution_of};
use crate::merge::MergedList;
use crate::picture::Facts;
use crate::ports::{Admission, PoolHelpers, compute};
use crate::scope::Form;
use crate::stats::QueryStats;
use crate::terms::Terms;

/// Selects of one query that are fetched at a time.
const SELECTS_IN_FLIGHT: usize = 4;

/// Bounds and defaults of all queries of a node.
#[derive(Clone, Debug)]
pub struct FrontLimits {
    /// Longest time a query may take, milliseconds.
    pub timeout_ms: u64,
    /// How far back an instant selector looks, milliseconds.
    pub lookback_ms: i64,
    /// Step of a subquery that names none, milliseconds.
    pub subquery_step_ms: i64,
    /// Most chunk bytes that one select may fetch.
    pub fetch_bytes_max: u64,
    /// Whether parts of queries are evaluated by the nodes that hold their blocks, where that changes no bit.
    pub push_down: bool,
    /// Most samples that one select may fetch from one holder.
    pub fetch_samples_max: u64,
    /// Bounds of the evaluation.
    pub engine: Limits,
    /// Language behaviour that is off unless asked for.
    pub options: EngineOptions,
    /// External labels that tell replicas of other producers apart.
    pub replica_labels: Arc<[String]>,
    /// Whether range queries read samples as coarse as a fifth of their step unless told otherwise.
    pub auto_downsampling: bool,
}

/// A query as the API was asked it.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    /// PromQL.
    pub query: String,
    /// First evaluation time, milliseconds.
    pub start_ms: i64,
    /// Last evaluation time, milliseconds.
    pub end_ms: i64,
    /// Step, milliseconds; 0 makes an instant query.
    pub step_ms: i64,
    /// Another lookback, milliseconds.
    pub lookback_ms: Option<i64>,
    /// A shorter time limit, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether a partial answer will do; `None` leaves it to the policy.
    pub partial: Option<bool>,
    /// Resolution, replicas, and what is left out.
    pub terms: Terms,
}

/// What came out.
#[derive(Debug)]
pub struct QueryResponse {
    /// Result and annotations.
    pub output: QueryOutput,
    /// What may be missing; empty means complete.
    pub gaps: Vec<Gap>,
    /// Where the time went.
    pub timings: Timings,
}

/// Stages of a query, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for a place among the running queries.
    pub queue_ns: u64,
    /// Fetching the series.
    pub fetch_ns: u64,
    /// Evaluating, sorting the result included, waiting for the pool as well.
    pub eval_ns: u64,
}

/// A question about labels or series.
#[derive(Clone, Debug)]
pub struct MetadataRequest {
    /// Any of these selectors; empty means everything.
    pub selectors: Vec<Vec<Matcher>>,
    /// First time, inclusive, milliseconds.
    pub mint: i64,
    /// Last time, inclusive, milliseconds.
    pub maxt: i64,
    /// Whether a partial answer will do; it will, unless false.
    pub partial: Option<bool>,
    /// Replicas, and what is left out.
    pub terms: Terms,
}

/// A selector whose samples are wanted themselves.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Conditions on labels, external ones included.
    pub matchers: Vec<Matcher>,
    /// First sample time, inclusive, milliseconds.
    pub mint: i64,
    /// Last sample time, inclusive, milliseconds.
    pub maxt: i64,
    /// Most chunk bytes; never more than a query may fetch.
    pub bytes_max: u64,
    /// Whether a partial answer will do.
    pub partial: bool,
}

/// Answers queries for the whole cluster.
pub struct Front {
    coordinator: Coordinator,
    views: watch::Receiver<Arc<ClusterView>>,
    admission: Arc<dyn Admission>,
    clock: Arc<dyn Clock>,
    limits: FrontLimits,
    next_id: AtomicU64,
}

impl Front {
    /// A front over the given parts.
    pub fn new(
        coordinator: Coordinator,
        views: watch::Receiver<Arc<ClusterView>>,
        admission: Arc<dyn Admission>,
        clock: Arc<dyn Clock>,
        limits: FrontLimits,
    ) -> Self {
        Self { coordinator, views, admission, clock, limits, next_id: AtomicU64::new(1) }
    }

    /// The pinned view for a caller that wants to see what a query would.
    pub fn view(&self) -> Arc<ClusterView> {
        self.views.borrow().clone()
    }

    /// Who is asked, and with which data of this node.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Looks at the cluster as a query would now.
    pub fn look<T>(&self, now_ms: i64, see: impl FnOnce(&Facts<'_>) -> T) -> T {
        let (view, catalogue) = (self.view(), self.coordinator.parts.catalogue.load_full());
        let reach = self.coordinator.peers.reach();
        let ejected = |m: &Member| reach.is_ejected(&m.name, m.generation);
        see(&Facts { view: &view, catalogue: &catalogue, ejected: &ejected, now_ms })
    }

    /// The selects of a query: conditions, first and last sample time that may matter.
    ///
    /// # Errors
    /// When the query cannot be planned.
    pub fn selects(&self, request: &QueryRequest) -> Result<Vec<Select>, QueryError> {
        Ok(Plan::new(&parse(&request.query)?, &self.params(request))?.selects().to_vec())
    }

    fn params(&self, request: &QueryRequest) -> QueryParams {
        QueryParams {
            start_ms: request.start_ms,
            end_ms: request.end_ms,
            step_ms: request.step_ms,
            lookback_ms: request
                .lookback_ms
                .unwrap_or_else(|| lookback_of(self.limits.lookback_ms, self.resolution(request))),
            default_subquery_step_ms: self.limits.subquery_step_ms,
            limits: self.limits.engine.clone(),
            options: self.limits.options.clone(),
        }
    }

    /// How coarse samples may be, milliseconds.
    fn resolution(&self, request: &QueryRequest) -> i64 {
        request.terms.resolution.millis(self.limits.auto_downsampling, request.step_ms)
    }

    fn replica_labels(&self, terms: &Terms) -> Arc<[String]> {
        match &terms.replica_labels {
            Some(labels) => labels.as_slice().into(),
            None => self.limits.replica_labels.clone(),
        }
    }

    /// Bounds and defaults.
    pub fn limits(&self) -> &FrontLimits {
        &self.limits
    }

    /// Parses, fetches and evaluates.
    ///
    /// # Errors
    /// See `QueryError`; `Incomplete` by the policy on partial answers.
    pub async fn query(&self, request: QueryRequest) -> Result<QueryResponse, QueryError> {
        let expr = parse(&request.query)?;
        let params = self.params(&request);
        let instant = params.is_instant();
        let plan = Plan::new(&expr, &params)?;
        let timeout_ms = request.timeout_ms.unwrap_or(u64::MAX).min(self.limits.timeout_ms);
        let asked_ns = self.clock.mono_ns();
        let deadline_ns = asked_ns.saturating_add(timeout_ms.saturating_mul(1_000_000));
        let ticket = self.admission.admit(&request.query, timeout_ms).await?;
        let admitted_ns = self.clock.mono_ns();

        let (view, without_me) = request.terms.narrowed(self.view());
        let run = Run {
            view,
            without_me,
            resolution_ms: self.resolution(&request),
            id: self.query_id(),
            plan: Arc::new(plan),
            query: request.query,
            terms: request.terms,
            params,
            deadline_ns,
            partial: request.partial.unwrap_or(!instant),
        };
        let form = if run.terms.are_plain() { Form::Picked } else { Form::Chunks };
        let answered = match self.run(&run, form).await {
            // What is damaged shows only while it is read. As lists, a block that cannot be read is asked of another
            // node or named as missing.
            Err(QueryError::Eval(EvalError::Source(_))) => self.run(&run, Form::Chunks).await,
            other => other,
        };
        let (output, gaps, fetched_ns) = answered?;
        drop(ticket);
        let timings = Timings {
            queue_ns: admitted_ns.saturating_sub(asked_ns),
            fetch_ns: fetched_ns.saturating_sub(admitted_ns),
            eval_ns: self.clock.mono_ns().saturating_sub(fetched_ns),
        };
        Ok(QueryResponse { output, gaps, timings })
    }

    /// Fetches and evaluates. Gives the result, what is missing, and when everything was fetched.
    async fn run(&self, run: &Run, form: Form) -> Result<(QueryOutput, Vec<Gap>, u64), QueryError> {
        let patience = Duration::from_nanos(run.deadline_ns.saturating_sub(self.clock.mono_ns()));
        let wants = self.wants(run, patience);
        let work = async {
            let pushed = self.push(run, &wants, form).await;
            let is_pushed = |i: usize| pushed.iter().any(|(what, _)| what.input == i);
            let fetch = wants.iter().enumerate().map(|(i, want)| (!is_pushed(i)).then(|| want.clone()));
            let fetched = stream::iter(fetch.collect::<Vec<_>>())
                .map(|want| async move {
                    match want {
                        Some(want) => self.coordinator.select(&run.view, &want, form).await.map(Some),
                        None => Ok(None),
                    }
                })
                .buffered(SELECTS_IN_FLIGHT)
                .try_collect::<Vec<_>>();
            fetched.await.map(|fetched| (fetched, pushed))
        };
        let worked = tokio::time::timeout(patience, work).await;
        let (fetched, pushed) = worked.map_err(|_| QueryError::Timeout)??;

        let (mut inputs, mut gaps) = (Vec::with_capacity(fetched.len()), Vec::new());
        let mut thanos = run.terms.named;
        for selected in fetched {
            let nothing = || Selected { series: Found::List(MergedList::default()), gaps: Vec::new() };
            let selected = selected.unwrap_or_else(nothing);
            gaps.extend(selected.gaps);
            thanos |= matches!(&selected.series, Found::List(list) if list.is_foreign());
            inputs.push(selected.series.into_set());
        }
        gaps.dedup();
        if !gaps.is_empty() {
            let stats = &self.coordinator.stats;
            QueryStats::count(if run.partial { &stats.partial } else { &stats.refused });
        }
        if !gaps.is_empty() && !run.partial {
            return Err(QueryError::Incomplete(gaps));
        }
        let fetched_ns = self.clock.mono_ns();
        let (clock, deadline_ns) = (self.clock.clone(), run.deadline_ns);
        let control = Control::with_deadline(move || clock.mono_ns() > deadline_ns);
        let stop = CancelOnDrop(control.clone());
        let pool = self.coordinator.parts.pool.clone();
        let helpers = Arc::new(PoolHelpers { pool: pool.clone(), net: Handle::current() });
        let plan = run.plan.clone();
        let mut output = compute(&*pool, move || match pushed.is_empty() {
            true => plan.evaluate_sets(inputs, &control, helpers),
            false => plan.evaluate_pushed(inputs, pushed, &control, helpers),
        })
        .await??;
        drop(stop);
        if thanos {
            output.warnings = bare_notes(&output.warnings);
            output.infos = bare_notes(&output.infos);
        }
        Ok((output, gaps, fetched_ns))
    }

    fn wants(&self, run: &Run, patience: Duration) -> Vec<Want> {
        let selects = run.plan.selects();
        let first = selects.iter().map(|s| s.min_time_ms).min().unwrap_or(0);
        let last = selects.iter().map(|s| s.max_time_ms).max().unwrap_or(0);
        let replica_labels = self.replica_labels(&run.terms);
        let want = |s: &Select| {
            let max_resolution_ms = resolution_of(s, run.resolution_ms);
            Want {
                query_id: run.id.clone(),
                mint: s.min_time_ms,
                maxt: s.max_time_ms,
                matchers: s.matchers.clone(),
                series_max: self.limits.engine.series_max,
                bytes_max: self.limits.fetch_bytes_max,
                samples_max: self.limits.fetch_samples_max,
                patience,
                max_resolution_ms,
                dress: Dress::Home,
                lens: Lens {
                    coarse: max_resolution_ms > 0,
                    apart: run.terms.apart,
                    shard: run.terms.shard.clone(),
                    ..Lens::of(s, (first, last), replica_labels.clone())
                },
                without_me: run.without_me,
                outside: run.terms.outside(),
            }
        };
        selects.iter().map(want).collect()
    }

    /// What of the query others evaluate. Once something that was fetched turned out to be damaged, nothing.
    async fn push(&self, run: &Run, wants: &[Want], form: Form) -> Vec<(Pushable, Vec<PushedRows>)> {
        let alone = run.view.members.values().all(|m| m.name == run.view.me || !m.answers());
        if !self.limits.push_down || form != Form::Picked || alone {
            return Vec::new();
        }
        let here = |what: &Pushable| {
            let want = &wants[what.input];
            want.max_resolution_ms == 0 && !self.coordinator.concerns_outside(want)
        };
        let asks = run.plan.pushable().into_iter().filter(here).map(|what| async move {
            let want = &wants[what.input];
            let rows = self.coordinator.push(&run.view, &run.query, &run.params, &what, want).await;
            rows.map(|rows| (what, rows))
        });
        let asks: Vec<_> = asks.collect();
        stream::iter(asks).buffered(SELECTS_IN_FLIGHT).filter_map(std::future::ready).collect().await
    }

    /// Label sets of matching series, sorted.
    ///
    /// # Errors
    /// See `QueryError`.
    pub async fn series(&self, request: &MetadataRequest) -> Result<(Vec<Labels>, Vec<Gap>), QueryError> {
        let (mut all, mut gaps) = (Vec::new(), Vec::new());
        let (view, without_me) = request.terms.narrowed(self.view());
        for matchers in &request.selectors {
            let want = Want { without_me, ..self.metadata_want(request, matchers.clone()) };
            let selected = self.coordinator.select(&view, &want, Form::Labels).await?;
            all.extend(selected.series.into_labels());
            gaps.extend(selected.gaps);
        }
        all.sort();
        all.dedup();
        judged(all, gaps, request.partial)
    }

    /// Label names (`name` empty) or the values of label `name`, sorted.
    ///
    /// # Errors
    /// See `QueryError`.
    pub async fn words(
        &self,
        request: &MetadataRequest,
        name: &str,
    ) -> Result<(Vec<String>, Vec<Gap>), QueryError> {
        let everything = [Vec::new()];
        let selectors = if request.selectors.is_empty() { &everything[..] } else { &request.selectors };
        let (mut all, mut gaps) = (Vec::new(), Vec::new());
        let (view, without_me) = request.terms.narrowed(self.view());
        for matchers in selectors {
            let want = Want { without_me, ..self.metadata_want(request, matchers.clone()) };
            let (words, more) = self.coordinator.words(&view, &want, name).await?;
            all.extend(words);
            gaps.extend(more);
        }
        // Only where they are named with the question: the configured ones are labels that people look for.
        if let Some(replicas) = &request.terms.replica_labels {
            all.retain(|word| !replicas.iter().any(|r| if name.is_empty() { r == word } else { r == name }));
        }
        all.sort();
        all.dedup();
        judged(all, gaps, request.partial)
    }

    /// All series that match, from the whole cluster, as they are stored: one entry for each label set and slot, sorted
    /// by both, chunks not decoded and copies left out. With `Dress::Full` in the want the labels are complete but for
    /// the slot of Koios' own data. `want.max_resolution_ms` chooses between raw and downsampled blocks; downsampled
    /// chunks have all their aggregates. `Form::Labels` leaves the chunks out.
    ///
    /// # Errors
    /// See `QueryError`; holders that fail are gaps.
    pub async fn raw_series(
        &self,
        want: &Want,
        form: Form,
    ) -> Result<(Vec<SeriesChunks>, Vec<Gap>), QueryError> {
        self.coordinator.raw(&self.view(), want, form).await
    }

    /// Label names (`name` empty) or the values of label `name` among what `raw_series` would give, sorted.
    ///
    /// # Errors
    /// As `raw_series`.
    pub async fn raw_words(&self, want: &Want, name: &str) -> Result<(Vec<String>, Vec<Gap>), QueryError> {
        self.coordinator.words(&self.view(), want, name).await
    }

    /// Samples of a selector from the whole cluster as series with replicas merged, for those who evaluate themselves.
    /// Raw data alone; without the ticket of a query.
    ///
    /// # Errors
    /// See `QueryError`; gaps are `Incomplete` unless `partial` is true, as with an instant query.
    pub async fn read(
        &self,
        request: ReadRequest,
        external: &Labels,
    ) -> Result<(MergedList, Vec<Gap>), QueryError> {
        let ReadRequest { matchers, mint, maxt, bytes_max, partial } = request;
        let (asked, shown) = dressing::split(external, matchers);
        let want = Want {
            query_id: self.query_id(),
            mint,
            maxt,
            matchers: asked,
            series_max: self.limits.engine.series_max,
            bytes_max: bytes_max.min(self.limits.fetch_bytes_max),
            samples_max: self.limits.fetch_samples_max,
            patience: Duration::from_millis(self.limits.timeout_ms),
            lens: Lens {
                range: (mint, maxt),
                replica_labels: self.limits.replica_labels.clone(),
                ..Lens::default()
            },
            ..Want::default()
        };
        let view = self.view();
        let work = self.coordinator.select(&view, &want, Form::Chunks);
        let worked = tokio::time::timeout(want.patience, work).await;
        let Selected { series, gaps } = worked.map_err(|_| QueryError::Timeout)??;
        let Found::List(list) = series else { unreachable!("BUG: no list although a list was asked for") };
        if !gaps.is_empty() {
            let stats = &self.coordinator.stats;
            QueryStats::count(if partial { &stats.partial } else { &stats.refused });
        }
        let (_, gaps) = judged(Vec::<()>::new(), gaps, Some(partial))?;
        let external = external.clone();
        let dress = move || dressing::dress(list, &external, &shown);
        Ok((compute(&*self.coordinator.parts.pool, dress).await?, gaps))
    }

    /// Runs a job on the pool of queries.
    ///
    /// # Errors
    /// `Overloaded` when there is no room, `Internal` when the job panicked.
    pub async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        compute(&*self.coordinator.parts.pool, job).await
    }

    fn metadata_want(&self, request: &MetadataRequest, matchers: Vec<Matcher>) -> Want {
        Want {
            query_id: self.query_id(),
            mint: request.mint,
            maxt: request.maxt,
            matchers,
            series_max: self.limits.engine.series_max,
            bytes_max: self.limits.fetch_bytes_max,
            samples_max: self.limits.fetch_samples_max,
            patience: Duration::from_millis(self.limits.timeout_ms),
            // Of what retention left, any will do.
            max_resolution_ms: i64::MAX,
            lens: Lens {
                apart: request.terms.apart,
                replica_labels: self.replica_labels(&request.terms),
                shard: request.terms.shard.clone(),
                ..Lens::default()
            },
            outside: request.terms.outside(),
            ..Want::default()
        }
    }

    fn query_id(&self) -> String {
        self.next_id.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

fn judged<T>(
    all: Vec<T>,
    mut gaps: Vec<Gap>,
    partial: Option<bool>,
) -> Result<(Vec<T>, Vec<Gap>), QueryError> {
    gaps.dedup();
    if !gaps.is_empty() && partial == Some(false) {
        Err(QueryError::Incomplete(gaps))
    } else {
        Ok((all, gaps))
    }
}

/// One query that was admitted.
struct Run {
    view: Arc<ClusterView>,
    without_me: bool,
    resolution_ms: i64,
    terms: Terms,
    id: String,
    plan: Arc<Plan>,
    query: String,
    params: QueryParams,
    deadline_ns: u64,
    partial: bool,
}

/// A caller that goes away stops its query.
struct CancelOnDrop(Control);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
