//! What flags and file come to. Flag before environment before file before default.
//!
//! Owns that precedence and the checks that need both sides.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use koios_cluster::identity::check_name;
use koios_cluster::{KeyRing, Roles};
use koios_compact::retention::Retention;
use koios_config::{Config, WalSync};
use koios_model::duration::parse_duration;
use koios_objstore::BucketConfig;
use koios_store::Visibility;
use koios_store::federation::spec::EndpointSpec;
use koios_tsdb::SyncMode;

use crate::cli::RunArgs;
use crate::features::Features;
use crate::local_blocks;

/// Everything a node needs to know before it starts.
pub struct Settings {
    pub args: RunArgs,
    pub config: Config,
    pub node_name: Option<String>,
    pub zone: String,
    pub roles: Roles,
    pub ring: Arc<KeyRing>,
    /// Where the ring's secrets come from.
    pub secret_file: Option<PathBuf>,
    pub join: Vec<String>,
    /// gRPC addresses of nodes that are asked over TCP who they are.
    pub peers: Vec<String>,
    pub bucket: BucketConfig,
    /// Whether the bucket is the node's own directory, which nobody else compacts or cleans up.
    pub own_bucket: bool,
    pub retention: Retention,
    pub wal_sync: SyncMode,
    pub query_timeout_ms: u64,
    pub query_concurrency: usize,
    pub query_samples_max: u64,
    pub lookback_ms: i64,
    /// Which blocks of the bucket are read.
    pub visibility: Visibility,
    pub features: Features,
    pub push_messages: Vec<koios_remote::Message>,
    /// Who is asked beside the cluster.
    pub endpoints: Vec<EndpointSpec>,
}

impl Settings {
    /// Reads the file and weighs flags against it.
    ///
    /// # Errors
    /// A text for the terminal: what, where, why and the fix.
    pub fn read(args: RunArgs) -> Result<Self, String> {
        let config = read_config(args.config_file.as_deref())?;
        let k = &config.koios;
        let zone =
            args.zone.clone().or_else(|| k.cluster.zone.clone()).unwrap_or_else(|| "default".to_owned());
        check_name("zone", &zone).map_err(|e| e.to_string())?;
        let node_name = args.node_name.clone().or_else(|| k.node.name.clone());
        if let Some(name) = &node_name {
            check_name("node name", name).map_err(|e| e.to_string())?;
        }
        let roles = args.roles.clone().unwrap_or_else(|| k.node.roles.join(","));
        let roles = Roles::parse(if roles.is_empty() { "all" } else { &roles })
            .map_err(|word| format!("--roles: unknown role {word:?}; fix: use all, or some of scrape,receive,store,query,compact,rules"))?;
        let (ring, secret) = key_ring(&args, &config)?;
        let join = if args.join.is_empty() { k.cluster.join.clone() } else { args.join.clone() };
        let peers = static_peers(&args, &config)?;
        let bucket_file =
            args.objstore_config_file.clone().or_else(|| k.storage.objstore_config_file.clone());
        let inline = args.objstore_config.as_deref();
        let own_bucket = bucket_file.is_none() && inline.is_none();
        let bucket = read_bucket(bucket_file.as_deref(), inline, &args.storage_path)?;
        let wal_sync = match k.storage.wal_sync {
            WalSync::Batch => SyncMode::Batch,
            WalSync::Interval => SyncMode::Interval,
            WalSync::Os => SyncMode::Os,
        };
        let timeout = duration("query.timeout", &args.query_timeout, k.query.timeout_ms)?;
        let lookback_ms =
            duration("query.lookback-delta", &args.query_lookback_delta, k.query.lookback_delta_ms)?;
        Ok(Self {
            visibility: visibility(&args)?,
            query_timeout_ms: timeout.max(1) as u64,
            query_concurrency: args.query_max_concurrency.unwrap_or(k.query.max_concurrency).clamp(1, 10_000)
                as usize,
            query_samples_max: args.query_max_samples.unwrap_or(k.query.max_samples).max(1),
            lookback_ms: lookback_ms.max(1),
            features: Features::read(&args.enable_feature)?,
            push_messages: crate::push::messages(&args.web_remote_write_messages)?,
            node_name,
            zone,
            roles,
            ring: Arc::new(ring),
            secret_file: secret,
            join,
            peers,
            bucket,
            own_bucket,
            retention: local_blocks::retention(&args, &config)?,
            endpoints: crate::federating::specs(&args)?,
            wal_sync,
            config,
            args,
        })
    }

    /// Whether range queries read downsampled blocks unless told otherwise.
    pub fn auto_downsampling(&self) -> bool {
        self.args.query_auto_downsampling || self.config.koios.query.auto_downsampling
    }

    /// Labels that tell replicas of other producers apart.
    pub fn replica_labels(&self) -> &[String] {
        let asked = &self.args.query_replica_label;
        if asked.is_empty() { &self.config.koios.query.replica_labels } else { asked }
    }

    /// Flags and their values for `/api/v1/status/flags`.
    pub fn flags(&self) -> Vec<(String, String)> {
        let a = &self.args;
        let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let addr = |a: SocketAddr| a.to_string();
        let duration = koios_model::duration::format_duration;
        [
            ("cluster.advertise-address", a.cluster_advertise.map(addr).unwrap_or_default()),
            ("cluster.listen-address", addr(a.cluster_listen)),
            ("cluster.name", self.ring.cluster().to_owned()),
            ("cluster.peer", self.peers.join(",")),
            ("cluster.secret-file", path(&a.cluster_secret_file)),
            ("config.file", path(&self.config.file)),
            ("consistency-delay", duration(self.visibility.consistency_delay_ms)),
            ("enable-feature", a.enable_feature.join(",")),
            ("endpoint", a.endpoint.join(",")),
            ("endpoint-strict", a.endpoint_strict.join(",")),
            ("grpc.listen-address", addr(a.grpc_listen)),
            ("ignore-deletion-marks-delay", duration(self.visibility.ignore_deletion_marks_ms)),
            ("join", self.join.join(",")),
            ("log.format", a.log_format.clone()),
            ("log.level", a.log_level.clone()),
            ("node.name", self.node_name.clone().unwrap_or_default()),
            ("objstore.config-file", path(&a.objstore_config_file)),
            ("prometheus.data-dir", path(&a.sidecar.prometheus_data_dir)),
            ("prometheus.min-time", a.sidecar.prometheus_min_time.clone().unwrap_or_default()),
            ("prometheus.url", a.sidecar.shown_url()),
            ("query.auto-downsampling", self.auto_downsampling().to_string()),
            ("query.lookback-delta", duration(self.lookback_ms)),
            ("query.max-concurrency", self.query_concurrency.to_string()),
            ("query.max-samples", self.query_samples_max.to_string()),
            ("query.replica-label", self.replica_labels().join(",")),
            ("query.timeout", duration(self.query_timeout_ms as i64)),
            ("roles", self.roles.names().join(",")),
            ("storage.path", a.storage_path.display().to_string()),
            ("storage.tsdb.retention.size", koios_model::size::format_size(self.retention.bytes)),
            ("storage.tsdb.retention.time", koios_model::duration::format_duration(self.retention.time_ms)),
            ("web.enable-lifecycle", a.web_enable_lifecycle.to_string()),
            ("web.enable-admin-api", a.web_enable_admin_api.to_string()),
            ("web.enable-remote-write-receiver", a.web_enable_remote_write_receiver.to_string()),
            ("web.listen-address", addr(a.web_listen)),
            (
                "web.remote-write-receiver.accepted-protobuf-messages",
                self.push_messages.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(","),
            ),
            ("zone", self.zone.clone()),
        ]
        .into_iter()
        .map(|(n, v)| (n.to_owned(), v))
        .collect()
    }
}

/// The configuration named, or one lying in the working directory, or none.
pub fn read_config(named: Option<&Path>) -> Result<Config, String> {
    if let Some(path) = named {
        return koios_config::load(path).map_err(|e| e.to_string());
    }
    match ["koios.yml", "prometheus.yml"].iter().map(Path::new).find(|p| p.exists()) {
        Some(path) => koios_config::load(path).map_err(|e| e.to_string()),
        None => Ok(Config::default()),
    }
}

fn duration(flag: &str, text: &Option<String>, otherwise: i64) -> Result<i64, String> {
    match text {
        Some(t) => parse_duration(t).map_err(|e| format!("--{flag}: {e}; fix: write a duration like 2m")),
        None => Ok(otherwise),
    }
}

fn visibility(args: &RunArgs) -> Result<Visibility, String> {
    let seen = Visibility::default();
    let (marks, delay) = (&args.ignore_deletion_marks_delay, &args.consistency_delay);
    let ignore_deletion_marks_ms =
        duration("ignore-deletion-marks-delay", marks, seen.ignore_deletion_marks_ms)?;
    let consistency_delay_ms = duration("consistency-delay", delay, seen.consistency_delay_ms)?;
    Ok(Visibility { ignore_deletion_marks_ms, consistency_delay_ms })
}

/// The cluster's name and secrets, and the file they come from.
fn key_ring(args: &RunArgs, config: &Config) -> Result<(KeyRing, Option<PathBuf>), String> {
    let k = &config.koios.cluster;
    let cluster = args.cluster_name.clone().unwrap_or_else(|| k.name.clone());
    check_name("cluster name", &cluster).map_err(|e| e.to_string())?;
    let secret = args.cluster_secret_file.clone().or_else(|| k.secret_file.clone());
    let ring = match &secret {
        Some(path) => KeyRing::from_file(&cluster, path).map_err(|e| e.to_string())?,
        None => KeyRing::new(&cluster, &[]),
    };
    Ok((ring, secret))
}

fn static_peers(args: &RunArgs, config: &Config) -> Result<Vec<String>, String> {
    let peers = match args.cluster_peer.is_empty() {
        true => config.koios.cluster.static_peers.clone(),
        false => args.cluster_peer.clone(),
    };
    match peers.iter().find(|p| !koios_config::is_host_and_port(p)) {
        Some(bad) => Err(format!(
            "--cluster.peer: {bad:?} is no address; fix: write HOST:PORT with the gRPC port, e.g. node-2:10901"
        )),
        None => Ok(peers),
    }
}

/// The bucket of a file, of its text, or the node's own directory.
///
/// # Errors
/// A text for the terminal.
pub fn read_bucket(
    file: Option<&Path>,
    inline: Option<&str>,
    storage: &Path,
) -> Result<BucketConfig, String> {
    let env = |name: &str| std::env::var(name).ok();
    if let Some(text) = inline {
        return BucketConfig::parse(text, Path::new("."), &env)
            .map_err(|e| format!("--objstore.config: {e}"));
    }
    let Some(file) = file else { return Ok(BucketConfig::directory(storage.join("bucket"))) };
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("--objstore.config-file {}: {e}; fix: check the path", file.display()))?;
    let base = file.parent().unwrap_or(Path::new("."));
    BucketConfig::parse(&text, base, &env).map_err(|e| format!("{}: {e}", file.display()))
}
