//! Pushed data on as many nodes as the ring is wide for.
//!
//! Implements the port of remote write over this node's shards and its peers. Which nodes keep a series, and when it
//! counts as kept, are `koios_cluster::{replicas, quorum}`, which are pure; here is what moves: requests to peers,
//! their answers, patience. Counted per sample, the smallest thing a sender can be told about. A sender is answered
//! as soon as every sample is decided; copies that are still on their way go on. Bound: 256 requests to nodes at a time.
//!
//! A sample of which there is one copy only, because the ring is no wider or the other node of two is away, is
//! acknowledged when this node has it and has noted on disk that nobody else does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use koios_cluster::quorum::{Send as ToSend, Stored};
use koios_cluster::replicas::{Unavailable, outlives_a_zone, place, ring, series_key};
use koios_cluster::{ClusterView, Member, Quorum, Replicas, SoleTracker};
use koios_model::Clock;
use koios_query::Peers;
use koios_remote::encode::encode;
use koios_remote::relay::read_outcome;
use koios_remote::{PushBatch, PushError, PushOutcome, PushPort, Reason};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Requests to nodes at a time.
const SENDS_MAX: usize = 256;
/// Longest wait for a node. A sender waits 30 s; there must be time for a spare.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a sender waits when a quorum is missing: nodes come back in seconds, or are seen to be gone.
const RETRY: Duration = Duration::from_secs(5);
/// No clock is that far ahead, and no head takes such samples.
const FUTURE_MS: i64 = 86_400_000;
/// Largest request to a peer, bytes; larger ones are divided.
const REQUEST_BYTES_MAX: usize = 8 << 20;

/// The way to other nodes.
#[async_trait]
pub trait Copies: Send + Sync + 'static {
    /// Has a node keep an encoded batch, all copies of which may lie in `one_zone`: what it answers, or why not now.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn copy(&self, node: &Member, batch: Vec<u8>, one_zone: bool) -> Result<Vec<u8>, String>;

    /// Whether a node could not be reached lately.
    fn is_ejected(&self, node: &Member) -> bool;
}

#[async_trait]
impl Copies for Peers {
    async fn copy(&self, node: &Member, batch: Vec<u8>, one_zone: bool) -> Result<Vec<u8>, String> {
        let answer = self.write(node, batch, one_zone, PATIENCE).await.map_err(|e| e.text().to_owned())?;
        answer.map_err(|why| format!("{}: {why}", node.name))
    }

    fn is_ejected(&self, node: &Member) -> bool {
        self.reach().is_ejected(&node.name, node.generation)
    }
}

/// What replicated writing works with.
pub struct ReplicatedSetup {
    /// This node's shards.
    pub local: Arc<dyn PushPort>,
    /// The other nodes.
    pub peers: Arc<dyn Copies>,
    /// Who they are.
    pub views: watch::Receiver<Arc<ClusterView>>,
    /// What only this node holds.
    pub sole: Arc<Mutex<SoleTracker>>,
    /// What only its zone holds.
    pub zone_sole: Arc<Mutex<SoleTracker>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where requests run.
    pub net: Handle,
}

/// The port.
pub struct Replicated {
    setup: ReplicatedSetup,
    room: Arc<Semaphore>,
}

/// What one node said.
struct Heard {
    node: Arc<Member>,
    /// By sample; none when it is lost.
    results: Result<Vec<(u32, Stored<Reason>)>, String>,
    exemplars_rejected: u32,
}

impl Replicated {
    /// Over this node and its peers.
    pub fn new(setup: ReplicatedSetup) -> Self {
        Self { setup, room: Arc::new(Semaphore::new(SENDS_MAX)) }
    }

    fn claim(&self, sole: &Mutex<SoleTracker>, batch: &PushBatch) -> Result<(), PushError> {
        declare(sole, batch, self.setup.clock.now_ms()).map_err(not_now)
    }

    async fn alone(&self, batch: Arc<PushBatch>) -> Result<PushOutcome, PushError> {
        self.claim(&self.setup.sole, &batch)?;
        self.claim(&self.setup.zone_sole, &batch)?;
        self.setup.local.push(batch).await
    }

    /// Begins what is to be sent; a node for which there is no room is lost at once.
    fn begin(
        &self,
        me: &str,
        batch: &Arc<PushBatch>,
        sends: Vec<ToSend>,
        bare: &mut Bare,
        one_zone: bool,
    ) -> Vec<JoinHandle<Heard>> {
        let mut begun = Vec::with_capacity(sends.len());
        for ToSend { node, series: samples } in sends {
            let bare = bare.remove(&node.name).map(|(_, list)| list).unwrap_or_default();
            begun.push(self.ask(me, batch, node, (samples, bare), one_zone));
        }
        begun
    }

    fn ask(
        &self,
        me: &str,
        batch: &Arc<PushBatch>,
        node: Arc<Member>,
        (samples, bare): (Vec<u32>, Vec<u32>),
        one_zone: bool,
    ) -> JoinHandle<Heard> {
        let (batch, permit) = (batch.clone(), self.room.clone().try_acquire_owned());
        if node.name == me {
            let local = self.setup.local.clone();
            return self.setup.net.spawn(async move {
                let said = match permit {
                    Ok(_) => to_local(&*local, &batch, &samples, &bare).await,
                    Err(_) => Err(format!("{SENDS_MAX} requests are under way")),
                };
                heard(node, said)
            });
        }
        let peers = self.setup.peers.clone();
        self.setup.net.spawn(async move {
            let said = match permit {
                Ok(_) => to_peer(&*peers, &node, &batch, (&samples, &bare), one_zone).await,
                Err(_) => Err(format!("{SENDS_MAX} requests are under way")),
            };
            heard(node, said)
        })
    }
}

/// Series with exemplars alone, by node.
type Bare = BTreeMap<String, (Arc<Member>, Vec<u32>)>;

type Said = Result<(Vec<(u32, Stored<Reason>)>, u32), String>;

fn heard(node: Arc<Member>, said: Said) -> Heard {
    match said {
        Ok((results, exemplars_rejected)) => Heard { node, results: Ok(results), exemplars_rejected },
        Err(why) => Heard { node, results: Err(why), exemplars_rejected: 0 },
    }
}

async fn to_local(local: &dyn PushPort, batch: &Arc<PushBatch>, samples: &[u32], bare: &[u32]) -> Said {
    let whole = samples.len() == batch.samples.len();
    let part = if whole { batch.clone() } else { Arc::new(batch.part(samples, bare)) };
    let outcome = local.push(part).await.map_err(|e| e.to_string())?;
    Ok((results(samples, &outcome), outcome.exemplars_rejected))
}

async fn to_peer(
    peers: &dyn Copies,
    node: &Member,
    batch: &PushBatch,
    (samples, bare): (&[u32], &[u32]),
    one_zone: bool,
) -> Said {
    let (bytes, numbers) = encode(batch, samples, bare);
    if bytes.len() > REQUEST_BYTES_MAX && samples.len() > 1 {
        let (first, second) = samples.split_at(samples.len() / 2);
        let (mut all, exemplars) = Box::pin(to_peer(peers, node, batch, (first, bare), one_zone)).await?;
        let (more, further) = Box::pin(to_peer(peers, node, batch, (second, &[]), one_zone)).await?;
        all.extend(more);
        return Ok((all, exemplars + further));
    }
    let answer = peers.copy(node, bytes, one_zone).await?;
    let outcome = read_outcome(&answer, numbers.len()).map_err(|e| format!("{}: {e}", node.name))?;
    Ok((results(&numbers, &outcome), outcome.exemplars_rejected))
}

/// What became of each sample; `numbers` are those of the batch, in the order in which the node counted them.
fn results(numbers: &[u32], outcome: &PushOutcome) -> Vec<(u32, Stored<Reason>)> {
    let mut all: Vec<(u32, Stored<Reason>)> = numbers.iter().map(|n| (*n, Stored::Yes)).collect();
    for (at, why) in &outcome.rejected {
        if let Some(one) = all.get_mut(*at as usize) {
            one.1 = Stored::Refused(*why);
        }
    }
    all
}

fn not_now(why: String) -> PushError {
    PushError::Unavailable { why, retry_after: RETRY }
}

/// Notes that there is no other copy of what lies between the times of a batch, or none in another zone. Samples of a far
/// future are refused, so there is nothing of them to note.
///
/// # Errors
/// Why it cannot be noted.
pub fn declare(sole: &Mutex<SoleTracker>, batch: &PushBatch, now_ms: i64) -> Result<(), String> {
    let times = || batch.samples.iter().map(|s| s.t).filter(|t| *t <= now_ms.saturating_add(FUTURE_MS));
    let (Some(from), Some(until)) = (times().min(), times().max()) else { return Ok(()) };
    let mut sole = sole.lock();
    if sole.ensure(from, until) {
        sole.save().map_err(|e| format!("it cannot be noted that there are no other copies: {e}"))?;
    }
    Ok(())
}

/// Where everything goes at first.
struct Plan {
    placed: Vec<Result<Replicas, Unavailable>>,
    bare: Bare,
    /// Why a series has no place.
    why: Option<String>,
    /// Of two nodes one copy is enough, but which one has it must be known.
    pair: bool,
    /// Copies in one zone are enough, but that no other has one must be known.
    one_zone: bool,
}

impl Replicated {
    /// `None` when there is no other node.
    fn plan(&self, view: &ClusterView, batch: &PushBatch) -> Option<Plan> {
        let ring = ring(view, self.setup.clock.now_ms());
        if ring.iter().all(|m| m.name == view.me) {
            return None;
        }
        let usable = |m: &Member| m.is_ready() && (m.name == view.me || !self.setup.peers.is_ejected(m));
        let placed = Vec::with_capacity(batch.samples.len());
        let (pair, one_zone) = (ring.len() == 2, !outlives_a_zone(&ring));
        let mut plan = Plan { placed, bare: Bare::new(), why: None, pair, one_zone };
        for (at, series) in batch.series.iter().enumerate() {
            let place = place(&ring, series_key("", &series.labels), &usable);
            plan.why = plan.why.or_else(|| place.as_ref().err().map(ToString::to_string));
            if let (true, Ok(replicas)) = (series.samples.is_empty(), &place) {
                for m in &replicas.nodes {
                    let list = plan.bare.entry(m.name.clone());
                    list.or_insert_with(|| (m.clone(), Vec::new())).1.push(at as u32);
                }
            }
            plan.placed.extend(series.samples.clone().map(|_| place.clone()));
        }
        Some(plan)
    }

    /// What is said about families is kept here, unless it went along with all samples.
    async fn keep_metadata(&self, batch: &PushBatch, went_along: bool) {
        if !batch.metadata.is_empty() && !went_along {
            let metadata = PushBatch { metadata: batch.metadata.clone(), ..PushBatch::default() };
            if let Err(e) = self.setup.local.push(Arc::new(metadata)).await {
                tracing::debug!(error = %e, "pushed metadata not stored");
            }
        }
    }
}

#[async_trait]
impl PushPort for Replicated {
    async fn push(&self, batch: Arc<PushBatch>) -> Result<PushOutcome, PushError> {
        let view = self.setup.views.borrow().clone();
        let me = view.me.as_str();
        let Some(Plan { placed, mut bare, mut why, pair, one_zone }) = self.plan(&view, &batch) else {
            return self.alone(batch).await;
        };
        if one_zone {
            self.claim(&self.setup.zone_sole, &batch)?;
        }
        let (mut quorum, sends) = Quorum::new(placed);
        let went_along = sends.iter().any(|s| s.node.name == me && s.series.len() == batch.samples.len());
        let mut open: FuturesUnordered<_> =
            self.begin(me, &batch, sends, &mut bare, one_zone).into_iter().collect();
        for (node, list) in std::mem::take(&mut bare).into_values() {
            open.push(self.ask(me, &batch, node, (Vec::new(), list), one_zone));
        }
        let (mut copies, mut here, mut exemplars_rejected) = (0, false, 0);
        while pair || quorum.verdict().is_none() {
            let Some(answer) = open.next().await else { break };
            let Ok(heard) = answer else { continue };
            exemplars_rejected = exemplars_rejected.max(heard.exemplars_rejected);
            let further = match heard.results {
                Ok(results) => {
                    copies += 1;
                    here |= heard.node.name == me;
                    quorum.replied(&heard.node.name, &results)
                }
                Err(text) => {
                    tracing::debug!(node = heard.node.name, why = text, "a replica of pushed samples failed");
                    why.get_or_insert(text);
                    quorum.lost(&heard.node.name)
                }
            };
            open.extend(self.begin(me, &batch, further, &mut bare, one_zone));
        }
        let why = || why.unwrap_or_else(|| "a node ended its work early".to_owned());
        let Some(verdict) = quorum.verdict().filter(|v| !v.is_retryable()) else {
            return Err(not_now(format!("no quorum: {}", why())));
        };
        if pair && copies < 2 && !batch.samples.is_empty() {
            if !here {
                return Err(not_now(format!("the only copy would be on another node: {}", why())));
            }
            self.claim(&self.setup.sole, &batch)?;
        }
        self.keep_metadata(&batch, went_along).await;
        Ok(PushOutcome { rejected: verdict.refused, exemplars_rejected })
    }
}

#[cfg(test)]
mod tests;
