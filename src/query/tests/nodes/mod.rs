//! Three nodes in one process over one directory bucket: real gRPC, real blocks, heads and pools that a test bends.

#![allow(dead_code)] // each test binary uses another part

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use koios_block::meta::ThanosMeta;
use koios_block::{BlockMeta, BlockMetaExtras, BlockWriter};
use koios_chunk::{SeriesChunks, encode_xor};
use koios_cluster::{ClusterView, KeyRing, Liveness, Member, NodeRecord, NodeState, Reach, SoleRange};
use koios_model::clock::SystemClock;
use koios_model::{BlockId, Clock, Columns, Labels, Matcher, Slot};
use koios_objstore::{Bucket, BucketConfig};
use koios_proto::peer as pb;
use koios_proto::peer::peer_server::Peer;
use koios_query::ports::{Compute, HeadPort, Reports};
use koios_query::scope::Form;
use koios_query::{
    Coordinator, FragmentLimits, Gap, Hedger, LocalParts, PeerService, Peers, QueryError, Want,
};
use koios_store::federation::Federation;
use koios_store::{CatalogueView, Shelf};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// The external label of the cluster.
pub const OWN_LABEL: (&str, &str) = ("region", "north");
/// Length of a block, ms.
pub const HOUR: i64 = 3_600_000;

/// Runs jobs late.
#[derive(Default)]
pub struct Pool {
    pub delay_ms: AtomicU64,
    pub full: AtomicBool,
}

#[async_trait]
impl Compute for Pool {
    async fn run(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), QueryError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(QueryError::Overloaded("the pool is full".into()));
        }
        tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst))).await;
        tokio::task::spawn_blocking(job).await.map_err(|e| QueryError::Internal(e.to_string()))
    }
}

/// A head with series of one slot. Bent to be endless, it reads on until nobody wants anything.
#[derive(Default)]
pub struct Head {
    pub series: Vec<SeriesChunks>,
    pub endless: AtomicBool,
    pub reading: AtomicBool,
}

impl HeadPort for Head {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
        keep: &dyn Fn(&Labels) -> bool,
    ) -> Result<Vec<SeriesChunks>, String> {
        self.reading.store(true, Ordering::SeqCst);
        let begun = std::time::Duration::from_secs(30);
        let clock = SystemClock::shared();
        while self.endless.load(Ordering::SeqCst) && clock.mono_ns() < begun.as_nanos() as u64 {
            if !keep(&Labels::empty()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.reading.store(false, Ordering::SeqCst);
        let wanted = |s: &&SeriesChunks| {
            matchers.iter().all(|m| m.matches(s.labels.value(&m.name)))
                && s.chunks.iter().any(|c| c.overlaps(mint, maxt))
        };
        let matching: Vec<&SeriesChunks> = self.series.iter().filter(wanted).collect();
        Ok(matching.into_iter().filter(|s| keep(&s.labels)).cloned().collect())
    }

    fn label_names(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>, String> {
        let matching = self.select(matchers, mint, maxt, &|_| true)?;
        Ok(matching.iter().flat_map(|s| s.labels.iter().map(|(n, _)| n.to_owned())).collect())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: i64, _: i64) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

struct NoReports;

#[async_trait]
impl Reports for NoReports {
    fn report(&self, _: &str) -> Option<String> {
        None
    }

    async fn act(&self, _: &[u8]) -> Result<(), String> {
        Err("nothing".into())
    }
}

/// A peer that knows no call but `Select` and `Labels`.
struct Old(PeerService);

type Streamed<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Peer for Old {
    type SelectStream = <PeerService as Peer>::SelectStream;
    type EvaluateStream = <PeerService as Peer>::EvaluateStream;

    async fn select(&self, request: Request<pb::SelectRequest>) -> Streamed<Self::SelectStream> {
        self.0.select(request).await
    }

    async fn labels(&self, request: Request<pb::LabelsRequest>) -> Streamed<pb::LabelsReply> {
        self.0.labels(request).await
    }

    async fn evaluate(&self, _: Request<pb::EvaluateRequest>) -> Streamed<Self::EvaluateStream> {
        Err(Status::unimplemented(""))
    }

    async fn report(&self, _: Request<pb::ReportRequest>) -> Streamed<pb::ReportReply> {
        Err(Status::unimplemented(""))
    }

    async fn act(&self, _: Request<pb::ActRequest>) -> Streamed<pb::ActReply> {
        Err(Status::unimplemented(""))
    }

    async fn write(&self, _: Request<pb::WriteRequest>) -> Streamed<pb::WriteReply> {
        Err(Status::unimplemented(""))
    }
}

/// One node.
pub struct TestNode {
    pub name: &'static str,
    pub addr: SocketAddr,
    pub pool: Arc<Pool>,
    pub head: Arc<Head>,
    pub room: Arc<Semaphore>,
    pub parts: LocalParts,
}

/// The nodes and what they share.
pub struct Cluster {
    pub nodes: Vec<TestNode>,
    pub blocks: Vec<BlockId>,
    /// Who says to hold what alone.
    pub sole: Vec<(&'static str, i64, i64)>,
    /// What all heads say of their oldest sample.
    pub heads_from: Option<i64>,
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    _dir: tempfile::TempDir,
}

fn labels(n: usize) -> Labels {
    let (job, n) = (format!("j{}", n % 3), n.to_string());
    Labels::from_pairs([("__name__", "m"), ("job", job.as_str()), ("n", n.as_str())])
}

/// Values of series `n` in an hour, each minute.
pub fn made(n: usize, hour: i64) -> SeriesChunks {
    let mut columns = Columns::default();
    for k in 0..60 {
        columns.push(hour * HOUR + k * 60_000, ((n as i64 * 31 + hour * 7 + k * k) % 101) as f64 / 3.0);
    }
    SeriesChunks { labels: labels(n), slot: Slot(0), chunks: encode_xor(&columns, 25) }
}

fn write_block(dir: &Path, hour: i64, slot: u8, series: usize) -> BlockId {
    let id = BlockId::from_parts(hour as u64 + 1, u128::from(slot));
    let mut w = BlockWriter::create(dir, id).unwrap();
    let mut all: Vec<SeriesChunks> = (0..series).map(|n| made(n, hour)).collect();
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all.iter().for_each(|s| w.add_series(&s.labels, &s.chunks).unwrap());
    let thanos =
        ThanosMeta { labels: [("replica".to_owned(), slot.to_string())].into(), ..ThanosMeta::default() };
    let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
    w.finish(hour * HOUR, (hour + 1) * HOUR, extras).unwrap();
    id
}

impl Cluster {
    /// Nodes `a`, `b` and `c`; every hour has a block of each of two slots. `heads` are the heads' series, by node.
    pub async fn start(hours: i64, series: usize, limits: FragmentLimits, heads: Vec<Head>) -> Self {
        Self::start_with(hours, series, limits, heads, &[]).await
    }

    /// As `start`; the nodes in `old` know only the calls of before.
    pub async fn start_with(
        hours: i64,
        series: usize,
        limits: FragmentLimits,
        mut heads: Vec<Head>,
        old: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("bucket");
        std::fs::create_dir_all(&root).unwrap();
        let mut blocks = Vec::new();
        (0..hours).for_each(|h| blocks.extend([0, 1].map(|slot| write_block(&root, h, slot, series))));
        let metas: BTreeMap<BlockId, Arc<BlockMeta>> = blocks
            .iter()
            .map(|id| (*id, Arc::new(BlockMeta::read(&root.join(id.to_string())).unwrap())))
            .collect();
        let catalogue = Arc::new(CatalogueView::new(metas, BTreeMap::new()));
        let (ring, clock) = (Arc::new(KeyRing::new("test", &[])), SystemClock::shared());
        let mut nodes = Vec::new();
        heads.resize_with(3, Head::default);
        for (name, head) in ["a", "b", "c"].into_iter().zip(heads) {
            let bucket =
                Bucket::open(&BucketConfig::directory(root.clone()), BlockId::from_parts(9, 9)).await;
            let cache = dir.path().join(format!("cache-{name}"));
            let (pool, head) = (Arc::new(Pool::default()), Arc::new(head));
            let parts = LocalParts {
                head: head.clone(),
                shelf: Arc::new(Shelf::new(bucket.unwrap(), cache, Labels::from_pairs([OWN_LABEL]))),
                catalogue: Arc::new(arc_swap::ArcSwap::from(catalogue.clone())),
                pool: pool.clone(),
                moved: Arc::new(Vec::new),
                limits: Arc::new(limits.clone()),
                served: Arc::default(),
            };
            let room = Arc::new(Semaphore::new(8));
            let service = PeerService {
                node: name.to_owned(),
                generation: 1,
                ring: ring.clone(),
                clock: clock.clone(),
                parts: parts.clone(),
                reports: Arc::new(NoReports),
                keeper: None,
                room: room.clone(),
                writes: Arc::new(Semaphore::new(1)),
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let mut server = tonic::transport::Server::builder();
            if old.contains(&name) {
                let service = koios_proto::peer::peer_server::PeerServer::new(Old(service));
                tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
            } else {
                tokio::spawn(server.add_service(service.into_server()).serve_with_incoming(incoming));
            }
            nodes.push(TestNode { name, addr, pool, head, room, parts });
        }
        Self { nodes, blocks, sole: Vec::new(), heads_from: None, ring, clock, _dir: dir }
    }

    /// What `me` sees.
    pub fn view(&self, me: &str) -> Arc<ClusterView> {
        let members = self.nodes.iter().map(|n| {
            let mut m = member(n.name, n.addr);
            let alone = self.sole.iter().filter(|s| s.0 == n.name);
            m.record.head.sole = alone.map(|&(_, from, until)| SoleRange { from, until }).collect();
            m.record.head.min_time = self.heads_from;
            (n.name.to_owned(), Arc::new(m))
        });
        Arc::new(ClusterView { seq: 1, me: me.into(), cluster: "test".into(), members: members.collect() })
    }

    /// The coordinator of node number `i`.
    pub fn coordinator(&self, i: usize) -> Coordinator {
        let reach = Arc::new(Reach::new(self.clock.clone()));
        Coordinator {
            peers: Arc::new(Peers::new(self.ring.clone(), self.clock.clone(), reach)),
            parts: self.nodes[i].parts.clone(),
            stats: Arc::default(),
            hedger: Arc::new(Hedger::new(self.clock.clone(), true)),
            federation: Arc::new(Federation::none("test".to_owned(), self.clock.clone())),
        }
    }

    /// Everything that `coordinator` of node `i` finds, as labels and bits.
    pub async fn all(&self, coordinator: &Coordinator, i: usize, want: &Want) -> (Vec<Found>, Vec<Gap>) {
        let view = self.view(self.nodes[i].name);
        let selected = coordinator.select(&view, want, Form::Chunks).await.expect("an answer");
        (bits(&*selected.series.into_set(), want), selected.gaps)
    }
}

/// Labels with times and bits of values.
pub type Found = (String, Vec<(i64, u64)>);

/// What the engine would read of a set.
pub fn bits(set: &dyn koios_promql::SeriesSet, want: &Want) -> Vec<Found> {
    let mut reader = set.reader(None);
    let mut all = Vec::new();
    for at in 0..set.len() {
        let mut out = Columns::default();
        let labels = reader.read(at, want.mint, want.maxt, &mut out).unwrap();
        all.push((labels.to_string(), out.iter().map(|s| (s.t, s.v.to_bits())).collect()));
    }
    all
}

/// Everything in the first `hours` hours.
pub fn want(hours: i64) -> Want {
    Want {
        query_id: "q".into(),
        mint: 0,
        maxt: hours * HOUR - 1,
        matchers: vec![Matcher::equal("__name__", "m")],
        series_max: 1_000_000,
        bytes_max: 1 << 30,
        samples_max: u64::MAX,
        patience: Duration::from_secs(20),
        ..Want::default()
    }
}

fn member(name: &str, rpc: SocketAddr) -> Member {
    Member {
        name: name.into(),
        generation: 1,
        gossip: ([127, 0, 0, 1], 1).into(),
        liveness: Liveness::Alive,
        record: NodeRecord {
            state: NodeState::Ready,
            bucket: "B".into(),
            ..NodeRecord::new("z", rpc, ([127, 0, 0, 1], 3).into())
        },
    }
}
