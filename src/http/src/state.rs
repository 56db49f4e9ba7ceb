//! What handlers may see.
//!
//! Owns the shared state behind all endpoints and the port to the node for everything that is not a query.
//! Queries run on the network runtime, because gRPC channels live there; a client that goes away cancels.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use koios_cluster::{ClusterView, EventLog};
use koios_model::{Clock, Labels};
use koios_query::Front;
use koios_remote::Receiver;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::codec::reply::ApiError;
use crate::facts::ClusterFacts;

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Readiness {
    /// Replaying its log or looking for its peers.
    Starting = 0,
    /// Takes part fully.
    Ready = 1,
    /// Handing over.
    Stopping = 2,
}

/// Facts about this process that do not change.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Node name, for `X-Served-By`.
    pub node: String,
    /// Koios' own version.
    pub version: String,
    /// Source revision, or `unknown`.
    pub revision: String,
    /// Compiler.
    pub rustc: String,
    /// Start, milliseconds.
    pub start_ms: i64,
    /// Command-line flags and their values.
    pub flags: Vec<(String, String)>,
    /// Machine name.
    pub hostname: String,
    /// Working directory.
    pub cwd: String,
    /// Labels that what leaves the cluster gets.
    pub external: Labels,
}

/// What a node can tell and do beside queries. All texts are ready JSON unless said otherwise.
#[async_trait::async_trait]
pub trait NodePort: Send + Sync + 'static {
    /// This node's `/api/v1/targets` data: `{"active":[…],"dropped":[…],"droppedCounts":{…}}`.
    fn targets(&self) -> String;
    /// The configuration in force as YAML, secrets redacted.
    fn config_yaml(&self) -> String;
    /// `data` of `/api/v1/status/tsdb`, at most `limit` entries a list.
    fn tsdb_status(&self, limit: usize) -> String;
    /// Facts for `/api/v1/status/runtimeinfo`.
    fn runtime(&self) -> RuntimeFacts;
    /// Metrics in the text format.
    fn metrics(&self) -> String;
    /// Reads the configuration again; the error is for humans.
    async fn reload(&self) -> Result<(), String>;
    /// This node's part of a report; `None` when there is no such report.
    fn report(&self, kind: &str) -> Option<String>;
    /// Parts of other nodes, e.g. their targets: node name and JSON.
    async fn collect(&self, kind: &str) -> Vec<(String, Result<String, String>)>;
    /// Has every node, this one first, do its part of what an operator asked.
    ///
    /// # Errors
    /// Which node did not, and why.
    async fn act(&self, body: &str) -> Result<(), String>;
    /// Why nobody should be sent to this node now although it serves; for `/-/ready`.
    fn impediment(&self) -> Option<&'static str>;
    /// Begins what SIGTERM begins; returns at once.
    fn drain(&self);
    /// Copies what this node keeps into a new directory and answers its name; `head` says whether with the samples
    /// that are in no block yet.
    ///
    /// # Errors
    /// A text for the operator.
    async fn snapshot(&self, head: bool) -> Result<String, String>;
    /// First, last and current segment of the log that is being read, or was.
    fn wal_replay(&self) -> (u64, u64, u64);
}

/// Facts that change while the process runs.
#[derive(Clone, Debug, Default)]
pub struct RuntimeFacts {
    /// Whether the last reload went well.
    pub reload_ok: bool,
    /// When the configuration was last read, milliseconds.
    pub config_time_ms: i64,
    /// Damaged log segments found.
    pub corruptions: u64,
    /// How long data is kept, as Prometheus words it.
    pub retention: String,
}

/// Shared by all handlers.
pub struct ApiState {
    /// Answers queries.
    pub front: Arc<Front>,
    /// Everything else.
    pub node: Arc<dyn NodePort>,
    /// Constant facts.
    pub facts: NodeFacts,
    /// Where queries run.
    pub net: Handle,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How far the node is.
    pub readiness: Arc<AtomicU8>,
    /// Whether `/-/reload` may be used.
    pub lifecycle: bool,
    /// Whether `/api/v1/admin` may be used.
    pub admin: bool,
    /// What happened lately.
    pub events: Arc<EventLog>,
    /// Copies of a target.
    pub replicas: u8,
    /// The view that ownership goes by: it stands still when half the peers vanish at once.
    pub owning: watch::Receiver<Arc<ClusterView>>,
    /// Takes remote write; `None` when it is switched off.
    pub receiver: Option<Arc<Receiver>>,
    /// Places of remote reads: `READS_MAX`.
    pub reads: Arc<Semaphore>,
}

impl ApiState {
    /// How far the node is.
    pub fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::Acquire) {
            1 => Readiness::Ready,
            2 => Readiness::Stopping,
            _ => Readiness::Starting,
        }
    }

    /// Facts of the whole cluster and of what is beside it.
    pub fn facts_of_all(&self) -> ClusterFacts {
        ClusterFacts { front: self.front.clone(), node: self.node.clone(), me: self.facts.node.clone() }
    }

    /// Runs a future on the network runtime; dropping the caller aborts it.
    ///
    /// # Errors
    /// What the future says, or `internal` when it panicked.
    pub async fn on_net<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Into<ApiError> + Send + 'static,
    {
        struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);
        impl<T> Drop for AbortOnDrop<T> {
            fn drop(&mut self) {
                self.0.abort();
            }
        }
        let mut task = AbortOnDrop(self.net.spawn(work));
        match (&mut task.0).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(ApiError::internal("the query failed inside (a bug; see the log)")),
        }
    }
}
