//! What the query crate asks of the levels beside and above it.
//!
//! Owns small traits only; `node` plugs in the head, the compute pool, the desk that admits queries, and the
//! reports a node can give of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use koios_chunk::SeriesChunks;
use koios_model::{Labels, Matcher};
use koios_promql::{Helpers, Job};
use tokio::runtime::Handle;

use crate::error::QueryError;

/// The samples this node has not cut into blocks yet.
pub trait HeadPort: Send + Sync + 'static {
    /// Series with chunks that overlap `[mint, maxt]`, any order, slots apart; of the matching ones those that `keep`
    /// wants, whose chunks alone are read.
    ///
    /// # Errors
    /// A text when the head cannot answer.
    fn select(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
        keep: &dyn Fn(&Labels) -> bool,
    ) -> Result<Vec<SeriesChunks>, String>;

    /// Label names of matching series.
    ///
    /// # Errors
    /// A text when the head cannot answer.
    fn label_names(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>, String>;

    /// Values of one label among matching series.
    ///
    /// # Errors
    /// A text when the head cannot answer.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
    ) -> Result<Vec<String>, String>;
}

/// The one pool for CPU work.
#[async_trait]
pub trait Compute: Send + Sync + 'static {
    /// Runs a job to its end on the pool.
    ///
    /// # Errors
    /// `Overloaded` when there is no room, `Internal` when the job panicked.
    async fn run(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), QueryError>;

    /// Number of threads.
    fn threads(&self) -> usize {
        1
    }
}

/// Runs a job on the pool and brings its result back.
///
/// # Errors
/// As `Compute::run`.
pub async fn compute<T: Send + 'static>(
    pool: &dyn Compute,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueryError> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    pool.run(Box::new(move || {
        let _ = tx.send(job());
    }))
    .await?;
    rx.await.map_err(|_| QueryError::Internal("the computation gave no result".into()))
}

/// Tells work on the pool that nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets the stop when it is dropped.
struct Leash(Stop);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// As `compute`, and tells the job to stop when the caller goes away. A job that has not begun by then never does.
///
/// # Errors
/// As `Compute::run`.
pub async fn compute_until<T: Send + 'static>(
    pool: &dyn Compute,
    job: impl FnOnce(&Stop) -> T + Send + 'static,
) -> Result<T, QueryError> {
    let stop = Stop::default();
    let _leash = Leash(stop.clone());
    let done = compute(pool, move || if stop.is_set() { None } else { Some(job(&stop)) }).await?;
    done.ok_or_else(|| QueryError::Internal("the computation was stopped".into()))
}

/// Threads of the pool for the engine to use beside its own.
pub(crate) struct PoolHelpers {
    pub pool: Arc<dyn Compute>,
    /// Where jobs are handed to the pool.
    pub net: Handle,
}

impl Helpers for PoolHelpers {
    fn most(&self) -> usize {
        self.pool.threads().saturating_sub(1)
    }

    fn take(&self, job: Job) {
        let pool = self.pool.clone();
        self.net.spawn(async move {
            // Without room the job is dropped, and the engine does it itself.
            let _ = pool.run(job).await;
        });
    }
}

/// Permission to run one query; given back on drop.
pub struct Ticket {
    _held: Box<dyn Send + Sync>,
}

impl Ticket {
    /// A ticket that holds something until it is dropped.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self { _held: Box::new(held) }
    }
}

/// Who may run a query now.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Waits for a place, at most `patience_ms` milliseconds. `query` is for the list of active queries.
    ///
    /// # Errors
    /// `Overloaded` when no place came free in time.
    async fn admit(&self, query: &str, patience_ms: u64) -> Result<Ticket, QueryError>;
}

/// Keeps copies of pushed samples for other nodes.
#[async_trait]
pub trait Keeper: Send + Sync + 'static {
    /// Keeps a batch; bytes in, bytes out, whose meaning is that of `koios-remote`. When all copies may lie in `one_zone`
    /// that is noted first.
    ///
    /// # Errors
    /// Why not now.
    async fn keep(&self, batch: Vec<u8>, one_zone: bool) -> Result<Vec<u8>, String>;
}

/// What a node can report of itself to a peer, as JSON, and do for it.
#[async_trait]
pub trait Reports: Send + Sync + 'static {
    /// The report called `kind`; `None` when there is no such report.
    fn report(&self, kind: &str) -> Option<String>;

    /// Does this node's part of what an operator asked of the cluster.
    ///
    /// # Errors
    /// A text for the operator.
    async fn act(&self, body: &[u8]) -> Result<(), String>;
}
