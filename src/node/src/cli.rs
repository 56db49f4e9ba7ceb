//! The command line: names that people already know.
//!
//! Owns flags and sub-commands and nothing about their meaning.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Prometheus and Thanos in one binary and one kind of process.
#[derive(Debug, Parser)]
#[command(
    name = "koios",
    version,
    about,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Flags of a node.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Configuration: a prometheus.yml, with one optional section `koios:`. Without it the node scrapes the cluster itself.
    #[arg(long = "config.file", env = "KOIOS_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// A node of the cluster to join; repeatable. The port is the seed's cluster port, 7946 by default.
    #[arg(long = "join", env = "KOIOS_JOIN", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub join: Vec<String>,
    /// A node that is asked over TCP who it is, for networks that let no UDP through: its gRPC address. Repeatable; name all
    /// nodes on every node, itself may be among them.
    #[arg(
        long = "cluster.peer",
        env = "KOIOS_CLUSTER_PEER",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub cluster_peer: Vec<String>,
    /// Name of this node; made up and kept when not given.
    #[arg(long = "node.name", env = "KOIOS_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Failure domain of this node.
    #[arg(long = "zone", env = "KOIOS_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
    /// Duties: all, or some of scrape,receive,store,query,compact,rules.
    #[arg(long = "roles", env = "KOIOS_ROLES", value_name = "ROLES")]
    pub roles: Option<String>,
    /// Address of the HTTP API and pages.
    #[arg(long = "web.listen-address", default_value = "0.0.0.0:9090", value_name = "ADDR", value_parser = listen_address)]
    pub web_listen: SocketAddr,
    /// Address of the gRPC services.
    #[arg(long = "grpc.listen-address", default_value = "0.0.0.0:10901", value_name = "ADDR", value_parser = listen_address)]
    pub grpc_listen: SocketAddr,
    /// Address of the cluster port (gossip over UDP, joining over TCP).
    #[arg(long = "cluster.listen-address", default_value = "0.0.0.0:7946", value_name = "ADDR", value_parser = listen_address)]
    pub cluster_listen: SocketAddr,
    /// Address of the cluster port as other nodes reach it, when that is not an address of this machine (NAT, containers).
    /// The HTTP and gRPC ports must be reachable at the same IP.
    #[arg(long = "cluster.advertise-address", env = "KOIOS_CLUSTER_ADVERTISE_ADDRESS", value_name = "ADDR", value_parser = advertise_address)]
    pub cluster_advertise: Option<SocketAddr>,
    /// Name of the cluster; nodes of another name are kept out.
    #[arg(long = "cluster.name", env = "KOIOS_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// File with the cluster's secret, the same on every node.
    #[arg(long = "cluster.secret-file", env = "KOIOS_CLUSTER_SECRET_FILE", value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,
    /// Directory of everything this node keeps.
    #[arg(long = "storage.path", alias = "storage.tsdb.path", default_value = "./data", value_name = "DIR")]
    pub storage_path: PathBuf,
    /// How long samples are kept in the local bucket; 15d unless a size is given. 0 keeps everything.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION")]
    pub retention_time: Option<String>,
    /// How many bytes the local bucket and the logs may take, e.g. 512MB; the oldest blocks go first. 0 for no limit.
    #[arg(long = "storage.tsdb.retention.size", value_name = "SIZE")]
    pub retention_size: Option<String>,
    /// Thanos' object store YAML; without it the bucket is <storage.path>/bucket.
    #[arg(long = "objstore.config-file", env = "KOIOS_OBJSTORE_CONFIG_FILE", value_name = "FILE")]
    pub objstore_config_file: Option<PathBuf>,
    /// How long blocks are read on that are marked for deletion; less than the 48h after which Thanos deletes them.
    #[arg(long = "ignore-deletion-marks-delay", value_name = "DURATION")]
    pub ignore_deletion_marks_delay: Option<String>,
    /// How long blocks that other producers uploaded are not read yet.
    #[arg(long = "consistency-delay", value_name = "DURATION")]
    pub consistency_delay: Option<String>,
    /// The same YAML in place of the file.
    #[arg(long = "objstore.config", value_name = "YAML", conflicts_with = "objstore_config_file")]
    pub objstore_config: Option<String>,
    /// Longest time a query may take.
    #[arg(long = "query.timeout", value_name = "DURATION")]
    pub query_timeout: Option<String>,
    /// Most queries at a time.
    #[arg(long = "query.max-concurrency", value_name = "N")]
    pub query_max_concurrency: Option<u64>,
    /// Most samples of one query in memory.
    #[arg(long = "query.max-samples", value_name = "N")]
    pub query_max_samples: Option<u64>,
    /// How far back an instant selector looks.
    #[arg(long = "query.lookback-delta", value_name = "DURATION")]
    pub query_lookback_delta: Option<String>,
    /// Prometheus' feature flags; repeatable. The whole query language is allowed without any.
    #[arg(
        long = "enable-feature",
        env = "KOIOS_ENABLE_FEATURE",
        value_name = "NAME,...",
        value_delimiter = ','
    )]
    pub enable_feature: Vec<String>,
    /// External label that tells replicas of other producers apart; repeatable, `replica` unless given. Koios' own
    /// replicas need no flag.
    #[arg(long = "query.replica-label", value_name = "LABEL", value_delimiter = ',')]
    pub query_replica_label: Vec<String>,
    /// Range queries read downsampled blocks as coarse as a fifth of their step, unless max_source_resolution says otherwise.
    #[arg(long = "query.auto-downsampling")]
    pub query_auto_downsampling: bool,
    /// A Thanos component or another Koios cluster to ask too, HOST:PORT or dns+HOST:PORT; repeatable.
    #[arg(long = "endpoint", alias = "store", value_name = "ADDRESS")]
    pub endpoint: Vec<String>,
    /// As --endpoint, and answers say when it does not answer, however long that lasts; repeatable.
    #[arg(long = "endpoint-strict", alias = "store-strict", value_name = "HOST:PORT")]
    pub endpoint_strict: Vec<String>,
    /// A name behind which there are several endpoints; repeatable.
    #[arg(long = "endpoint-group", value_name = "HOST:PORT")]
    pub endpoint_group: Vec<String>,
    /// Thanos' YAML of endpoints, with TLS for each.
    #[arg(long = "endpoint.sd-config-file", value_name = "FILE")]
    pub endpoint_sd_config_file: Option<PathBuf>,
    /// The same YAML in place of the file.
    #[arg(long = "endpoint.sd-config", value_name = "YAML", conflicts_with = "endpoint_sd_config_file")]
    pub endpoint_sd_config: Option<String>,
    /// File with lists of endpoints, as Prometheus' file discovery has them; read again every 30 s; repeatable.
    #[arg(long = "store.sd-files", value_name = "FILE")]
    pub store_sd_files: Vec<PathBuf>,
    /// Allow /-/reload and /-/drain.
    #[arg(long = "web.enable-lifecycle")]
    pub web_enable_lifecycle: bool,
    /// Allow /api/v1/admin: deleting series, cleaning up after that, snapshots.
    #[arg(long = "web.enable-admin-api")]
    pub web_enable_admin_api: bool,
    /// Take remote write on /api/v1/write, /api/v1/push and /api/v1/receive; `=false` turns it off.
    #[arg(
        long = "web.enable-remote-write-receiver",
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub web_enable_remote_write_receiver: bool,
    /// Messages that remote write takes: prometheus.WriteRequest (1.0), io.prometheus.write.v2.Request (2.0); both unless named.
    #[arg(
        long = "web.remote-write-receiver.accepted-protobuf-messages",
        value_name = "NAME,...",
        value_delimiter = ','
    )]
    pub web_remote_write_messages: Vec<String>,
    /// The sidecar role.
    #[command(flatten)]
    pub sidecar: crate::sidecar::SidecarArgs,
    /// error, warn, info, debug or trace.
    #[arg(long = "log.level", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// logfmt or json.
    #[arg(long = "log.format", default_value = "logfmt", value_name = "FORMAT")]
    pub log_format: String,
}

/// `host:port`, `address:port`, or `:port` for all addresses.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs;
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let found =
        full.to_socket_addrs().map_err(|e| format!("{e}; want HOST:PORT, e.g. 0.0.0.0:9090 or :9090"))?;
    found.into_iter().next().ok_or_else(|| "the name has no address".to_owned())
}

/// An address that others can call: not the wildcard, and with a port.
fn advertise_address(text: &str) -> Result<SocketAddr, String> {
    let addr = listen_address(text)?;
    if addr.ip().is_unspecified() || addr.port() == 0 {
        return Err(
            "nobody can call that; want the address and port by which other nodes reach this one".to_owned()
        );
    }
    Ok(addr)
}

/// Commands beside running a node.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check files without running anything.
    Check {
        #[command(subcommand)]
        what: Check,
    },
    /// Ask a running node about its cluster.
    Cluster {
        #[command(subcommand)]
        what: Cluster,
    },
    /// Ask a running node a PromQL question.
    Query {
        #[command(subcommand)]
        what: Query,
    },
    /// Run test files.
    Test {
        #[command(subcommand)]
        what: Test,
    },
    /// Look into blocks on disk.
    Tsdb {
        #[command(subcommand)]
        what: crate::tsdb_tool::Tsdb,
    },
    /// Look into a bucket and mark its blocks.
    Blocks {
        #[command(subcommand)]
        what: crate::blocks_tool::Blocks,
    },
    /// Measure this machine: scraping, appending, queries; beside a Prometheus when one is installed.
    Bench(BenchArgs),
}

#[derive(Debug, Subcommand)]
pub enum Check {
    /// Check configuration files.
    Config {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// How the cluster is, what to do when it is not well, and its nodes.
    Status {
        /// A node's HTTP address.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
    },
    /// Which nodes would be asked for a query and why, or who scrapes a target and why.
    Explain {
        /// A node's HTTP address.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
        /// PromQL.
        #[arg(long, required_unless_present = "target", conflicts_with = "target")]
        query: Option<String>,
        /// URL, instance or key of a target.
        #[arg(long)]
        target: Option<String>,
        /// First time of the query, seconds or RFC 3339.
        #[arg(long)]
        start: Option<String>,
        /// Last time of the query; now when not given.
        #[arg(long)]
        end: Option<String>,
    },
    /// Whether the node may stop now without anything missing; the exit status tells.
    SafeToStop {
        /// The node's HTTP address.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Query {
    /// At one moment.
    Instant {
        /// A node's HTTP address.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
        /// Evaluation time, seconds or RFC 3339; now when not given.
        #[arg(long)]
        time: Option<String>,
        /// PromQL.
        expr: String,
    },
    /// Over a stretch of time.
    Range {
        /// A node's HTTP address.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
        /// First time.
        #[arg(long)]
        start: String,
        /// Last time.
        #[arg(long)]
        end: String,
        /// Step, seconds or a duration.
        #[arg(long, default_value = "15s")]
        step: String,
        /// PromQL.
        expr: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Test {
    /// Run rule unit tests (the files of `promtool test rules`).
    Rules {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Run PromQL test scripts (the language of Prometheus' promqltest).
    Promql {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Flags of `koios bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Series, in whole thousands.
    #[arg(long, default_value_t = 10_000)]
    pub series: usize,
    /// Samples of each series inside the process, at most 480.
    #[arg(long, default_value_t = 480)]
    pub samples: usize,
    /// Seconds of scraping beside the peers that are installed.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// Seconds between scrapes.
    #[arg(long, default_value_t = 1)]
    pub interval: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_prometheus_users_write_them() {
        assert_eq!(listen_address(":9090"), Ok(([0, 0, 0, 0], 9090).into()));
        assert_eq!(listen_address("127.0.0.1:1"), Ok(([127, 0, 0, 1], 1).into()));
        assert!(listen_address("9090").unwrap_err().contains("want HOST:PORT"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let cli = Cli::parse_from([
            "koios",
            "--join=a",
            "--join=b:1",
            "--storage.tsdb.path=x",
            "--web.listen-address=:1",
        ]);
        assert_eq!(cli.run.join, ["a", "b:1"]);
        assert_eq!(cli.run.storage_path, PathBuf::from("x"));
    }
}
