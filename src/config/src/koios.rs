//! The one section that Prometheus does not have: `koios:`. Every field has a default that works; flags and
//! environment variables of the node win over it.

use std::path::PathBuf;

use koios_model::Slot;

use crate::read::Section;

/// `koios.node`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSection {
    /// Name of the node; the host name when missing.
    pub name: Option<String>,
    /// Roles of the node; all when empty.
    pub roles: Vec<String>,
}

/// `koios.cluster`
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSection {
    /// Name that all nodes share.
    pub name: String,
    /// Failure domain of this node.
    pub zone: Option<String>,
    /// Seeds, `host` or `host:port`.
    pub join: Vec<String>,
    /// gRPC addresses, `host:port`, of nodes that are asked over TCP who they are.
    pub static_peers: Vec<String>,
    /// File that holds the shared secret.
    pub secret_file: Option<PathBuf>,
    /// Time between gossip rounds, milliseconds.
    pub gossip_interval_ms: i64,
    /// How long gossip remembers a node that is dead, milliseconds.
    pub dead_node_grace_ms: i64,
    /// Copies of pushed data.
    pub replication_factor: u64,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self {
            name: "default".into(),
            zone: None,
            join: Vec::new(),
            static_peers: Vec::new(),
            secret_file: None,
            gossip_interval_ms: 1000,
            dead_node_grace_ms: 600_000,
            replication_factor: 3,
        }
    }
}

/// `koios.scrape`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeSection {
    /// Independent scrapers of each target; fewer when there are fewer nodes.
    pub replicas: u8,
}

impl Default for ScrapeSection {
    fn default() -> Self {
        Self { replicas: 2 }
    }
}

/// When the write-ahead log is forced to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalSync {
    /// Before each acknowledgement, many writes sharing one sync.
    #[default]
    Batch,
    /// At most once per `wal_sync_interval`.
    Interval,
    /// The operating system decides; other copies cover a lost machine.
    Os,
}

/// Whether the log is copied to the bucket while it grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShipLog {
    /// While there is one copy of the data and the bucket is not the node's own directory.
    #[default]
    Auto,
    /// Whenever the bucket is not the node's own directory.
    Always,
    /// Not at all.
    Never,
}

/// `koios.storage`. Times are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageSection {
    /// Length of the blocks cut from the head.
    pub block_range_ms: i64,
    /// When the log is forced to disk.
    pub wal_sync: WalSync,
    /// Interval of `WalSync::Interval`.
    pub wal_sync_interval_ms: i64,
    /// How late a sample may be.
    pub out_of_order_window_ms: i64,
    /// Age at which local data is deleted; 0 means never.
    pub retention_ms: i64,
    /// Thanos' object storage file.
    pub objstore_config_file: Option<PathBuf>,
    /// Whether the log is copied to the bucket.
    pub ship_log: ShipLog,
    /// How often that happens; sooner when there is much.
    pub ship_interval_ms: i64,
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            block_range_ms: 7_200_000,
            wal_sync: WalSync::default(),
            wal_sync_interval_ms: 1000,
            out_of_order_window_ms: 1_800_000,
            retention_ms: 15 * 86_400_000,
            objstore_config_file: None,
            ship_log: ShipLog::default(),
            ship_interval_ms: 15_000,
        }
    }
}

/// `koios.store`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSection {
    /// Bytes of blocks fetched from the bucket that are kept on disk.
    pub cache_bytes: u64,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { cache_bytes: 20 << 30 }
    }
}

/// `koios.query`
#[derive(Clone, Debug, PartialEq)]
pub struct QuerySection {
    /// Time a query may take, milliseconds.
    pub timeout_ms: i64,
    /// Queries evaluated at once.
    pub max_concurrency: u64,
    /// Samples one query may hold in memory.
    pub max_samples: u64,
    /// Bytes one query may hold in memory.
    pub max_bytes: u64,
    /// Series one query may select.
    pub max_series: u64,
    /// Samples that one holder may send for one select.
    pub max_fetched_samples: u64,
    /// Series, chunk bytes and samples of one part of a query that this node answers for another, or for itself.
    pub fragment_max_series: u64,
    /// See `fragment_max_series`.
    pub fragment_max_bytes: u64,
    /// See `fragment_max_series`.
    pub fragment_max_samples: u64,
    /// Series and chunk bytes above which a part of a query is asked for in smaller parts.
    pub fragment_series: u64,
    /// See `fragment_series`.
    pub fragment_bytes: u64,
    /// Whether blocks of a node that is late are asked of another one too.
    pub hedging: bool,
    /// Whether parts of a query are evaluated by the nodes that hold their blocks.
    pub push_down: bool,
    /// How far an instant selector looks back, milliseconds.
    pub lookback_delta_ms: i64,
    /// Labels that tell replicas of other producers apart.
    pub replica_labels: Vec<String>,
    /// Whether range queries read samples as coarse as a fifth of their step.
    pub auto_downsampling: bool,
}

impl Default for QuerySection {
    fn default() -> Self {
        Self {
            timeout_ms: 120_000,
            max_concurrency: 20,
            max_samples: 50_000_000,
            max_bytes: 2 << 30,
            max_series: 10_000_000,
            max_fetched_samples: 2_000_000_000,
            fragment_max_series: 5_000_000,
            fragment_max_bytes: 1 << 30,
            fragment_max_samples: 1_000_000_000,
            fragment_series: 20_000,
            fragment_bytes: 32 << 20,
            hedging: true,
            push_down: true,
            lookback_delta_ms: 300_000,
            replica_labels: vec!["replica".into()],
            auto_downsampling: false,
        }
    }
}

/// `koios.limits`: bounds on what is pushed. 0 means none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsSection {
    /// Series in the head of one node.
    pub max_series: u64,
    /// Labels of one series.
    pub max_labels: u64,
    /// Bytes of a label name.
    pub max_label_name_length: u64,
    /// Bytes of a label value.
    pub max_label_value_length: u64,
    /// Bytes of a pushed body after decompression.
    pub max_body_size: u64,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            max_series: 0,
            max_labels: 128,
            max_label_name_length: 1024,
            max_label_value_length: 64 << 10,
            max_body_size: 64 << 20,
        }
    }
}

/// The `koios:` section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KoiosSection {
    /// This node.
    pub node: NodeSection,
    /// The cluster.
    pub cluster: ClusterSection,
    /// Scraping.
    pub scrape: ScrapeSection,
    /// Storage.
    pub storage: StorageSection,
    /// Blocks of the bucket.
    pub store: StoreSection,
    /// Queries.
    pub query: QuerySection,
    /// Bounds on writes.
    pub limits: LimitsSection,
}

impl KoiosSection {
    pub(crate) fn read(mut s: Section<'_>) -> Self {
        let out = Self {
            node: s.section("node").map(node).unwrap_or_default(),
            cluster: s.section("cluster").map(cluster).unwrap_or_default(),
            scrape: s.section("scrape").map(scrape).unwrap_or_default(),
            storage: s.section("storage").map(storage).unwrap_or_default(),
            store: s.section("store").map(store).unwrap_or_default(),
            query: s.section("query").map(query).unwrap_or_default(),
            limits: s.section("limits").map(limits).unwrap_or_default(),
        };
        s.finish();
        out
    }
}

fn strings(s: &mut Section<'_>, name: &'static str) -> Vec<String> {
    s.texts(name).into_iter().map(|t| t.text).collect()
}

/// A duration above zero.
fn positive(s: &mut Section<'_>, name: &'static str, default: i64) -> i64 {
    let value = s.duration(name).unwrap_or(default);
    if value <= 0 {
        s.ctx.error(
            1201,
            s.value_span(name),
            format!("`{name}` must be longer than 0"),
            "write e.g. `1s`, or remove it",
        );
    }
    value
}

fn node(mut s: Section<'_>) -> NodeSection {
    let out =
        NodeSection { name: s.string("name").filter(|n| !n.is_empty()), roles: strings(&mut s, "roles") };
    s.finish();
    out
}

/// Whether a text is `host:port`, with a port that can be connected to.
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_bare_v6 = host.contains(':') && !host.starts_with('[');
    !host.is_empty() && !is_bare_v6 && !text.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn cluster(mut s: Section<'_>) -> ClusterSection {
    let d = ClusterSection::default();
    let mut join = Vec::new();
    for seed in s.texts("join") {
        let fix = "write a host name or address, with `:port` when it is not 7946";
        let port_ok = match seed.text.rsplit_once(':') {
            Some((_, port)) if !seed.text.ends_with(']') => port.parse::<u16>().is_ok_and(|p| p > 0),
            _ => true,
        };
        if seed.text.is_empty() || seed.text.contains(['/', ' ']) || !port_ok {
            s.ctx.error(1209, seed.span, format!("{:?} is not a seed address", seed.text), fix);
        }
        join.push(seed.text);
    }
    let mut static_peers = Vec::new();
    for peer in s.texts("static_peers") {
        if !is_host_and_port(&peer.text) {
            let fix = "write `host:port` with the gRPC port, e.g. `node-2:10901`";
            s.ctx.error(1209, peer.span, format!("{:?} is not the address of a peer", peer.text), fix);
        }
        static_peers.push(peer.text);
    }
    let out = ClusterSection {
        name: s.string("name").filter(|n| !n.is_empty()).unwrap_or(d.name),
        zone: s.string("zone").filter(|z| !z.is_empty()),
        join,
        static_peers,
        secret_file: s.path("secret_file"),
        gossip_interval_ms: positive(&mut s, "gossip_interval", d.gossip_interval_ms),
        dead_node_grace_ms: positive(&mut s, "dead_node_grace", d.dead_node_grace_ms),
        replication_factor: s
            .integer_in("replication_factor", 1..=u64::from(Slot::MAX))
            .unwrap_or(d.replication_factor),
    };
    s.finish();
    out
}

fn scrape(mut s: Section<'_>) -> ScrapeSection {
    let replicas = s.integer_in("replicas", 1..=u64::from(Slot::MAX)).unwrap_or(2);
    s.finish();
    ScrapeSection { replicas: replicas as u8 }
}

fn storage(mut s: Section<'_>) -> StorageSection {
    const SYNCS: &[(&str, WalSync)] =
        &[("batch", WalSync::Batch), ("interval", WalSync::Interval), ("os", WalSync::Os)];
    const SHIPS: &[(&str, ShipLog)] =
        &[("auto", ShipLog::Auto), ("always", ShipLog::Always), ("never", ShipLog::Never)];
    let d = StorageSection::default();
    let out = StorageSection {
        block_range_ms: positive(&mut s, "block_range", d.block_range_ms),
        wal_sync: s.one_of("wal_sync", SYNCS).unwrap_or_default(),
        wal_sync_interval_ms: positive(&mut s, "wal_sync_interval", d.wal_sync_interval_ms),
        out_of_order_window_ms: s.duration("out_of_order_window").unwrap_or(d.out_of_order_window_ms),
        retention_ms: s.duration("retention").unwrap_or(d.retention_ms),
        objstore_config_file: s.path("objstore_config_file"),
        ship_log: s.one_of("ship_log", SHIPS).unwrap_or_default(),
        ship_interval_ms: positive(&mut s, "ship_interval", d.ship_interval_ms),
    };
    // Thanos compacts two-hour blocks into fixed, aligned ranges; other lengths would never line up.
    if out.block_range_ms > 0 && 7_200_000 % out.block_range_ms != 0 {
        let cause = "`block_range` must divide 2h evenly".to_owned();
        s.ctx.error(1315, s.value_span("block_range"), cause, "use `2h`, `1h`, `30m` or `15m`");
    }
    s.finish();
    out
}

fn store(mut s: Section<'_>) -> StoreSection {
    let out =
        StoreSection { cache_bytes: s.size("cache_bytes").unwrap_or(StoreSection::default().cache_bytes) };
    s.finish();
    out
}

fn at_least_one(s: &mut Section<'_>, name: &'static str, default: u64) -> u64 {
    s.integer_in(name, 1..=u64::MAX).unwrap_or(default)
}

fn query(mut s: Section<'_>) -> QuerySection {
    let d = QuerySection::default();
    let replica_labels =
        if s.has("replica_labels") { strings(&mut s, "replica_labels") } else { d.replica_labels };
    s.allow("replica_labels");
    let out = QuerySection {
        timeout_ms: positive(&mut s, "timeout", d.timeout_ms),
        max_concurrency: s.integer_in("max_concurrency", 1..=100_000).unwrap_or(d.max_concurrency),
        max_samples: s.integer("max_samples").unwrap_or(d.max_samples),
        max_bytes: s.size("max_bytes").unwrap_or(d.max_bytes),
        max_series: at_least_one(&mut s, "max_series", d.max_series),
        max_fetched_samples: at_least_one(&mut s, "max_fetched_samples", d.max_fetched_samples),
        fragment_max_series: at_least_one(&mut s, "fragment_max_series", d.fragment_max_series),
        fragment_max_bytes: s.size("fragment_max_bytes").unwrap_or(d.fragment_max_bytes).max(1),
        fragment_max_samples: at_least_one(&mut s, "fragment_max_samples", d.fragment_max_samples),
        fragment_series: at_least_one(&mut s, "fragment_series", d.fragment_series),
        fragment_bytes: s.size("fragment_bytes").unwrap_or(d.fragment_bytes).max(1),
        hedging: s.boolean("hedging").unwrap_or(d.hedging),
        push_down: s.boolean("push_down").unwrap_or(d.push_down),
        lookback_delta_ms: positive(&mut s, "lookback_delta", d.lookback_delta_ms),
        replica_labels,
        auto_downsampling: s.boolean("auto_downsampling").unwrap_or(d.auto_downsampling),
    };
    s.finish();
    out
}

fn limits(mut s: Section<'_>) -> LimitsSection {
    let d = LimitsSection::default();
    let out = LimitsSection {
        max_series: s.integer("max_series").unwrap_or(d.max_series),
        max_labels: s.integer("max_labels").unwrap_or(d.max_labels),
        max_label_name_length: s.integer("max_label_name_length").unwrap_or(d.max_label_name_length),
        max_label_value_length: s.integer("max_label_value_length").unwrap_or(d.max_label_value_length),
        max_body_size: s.size("max_body_size").unwrap_or(d.max_body_size),
    };
    s.finish();
    out
}
