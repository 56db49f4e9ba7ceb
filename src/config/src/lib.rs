//! Configuration: YAML text to a span-carrying tree (`yaml`) to validated types, with every mistake found
//! in one pass and shown with file, line, column, cause and fix.
//!
//! Owns: the whole of `prometheus.yml` plus the one section `koios:`, all defaults, environment expansion
//! of external labels, path resolution, and what is secret. The raw form is the tree; the typed readers walk
//! it, collect errors and never stop at the first one.
//!
//! Refuses: running anything, talking to the network, reading secrets from the files a configuration names
//! (whoever uses them does), and unknown fields.
//!
//! Invariants: a `Config` that exists is consistent (no job twice, no timeout above its interval, every
//! regular expression compiled); a secret is never printed by `Debug` or by `redacted_yaml`; nothing is
//! allocated by a size that the file claims.

mod alerting;
mod error;
mod glob;
mod global;
mod http_client;
mod koios;
mod names;
mod read;
mod redact;
mod relabel;
mod remote;
mod root;
mod scrape;
mod sd;
mod secret;
mod storage;
mod suggest;
mod telemetry;
mod yaml;

pub use alerting::{AlertingConfig, AlertmanagerApi, AlertmanagerConfig};
pub use error::{ConfigError, ConfigErrors, Place, Related};
pub use glob::{expand_globs, glob_match};
pub use global::{GlobalConfig, Limits};
pub use http_client::{
    Authorization, BasicAuth, HttpClientConfig, HttpHeader, MinTlsVersion, OAuth2, ProxyConfig, SecretSource,
    TlsConfig,
};
pub use koios::{
    ClusterSection, KoiosSection, LimitsSection, NodeSection, QuerySection, ScrapeSection, ShipLog,
    StorageSection, StoreSection, WalSync, is_host_and_port,
};
pub use names::{EscapingScheme, NameScheme, ScrapeProtocol};
pub use relabel::{RelabelAction, RelabelRule};
pub use remote::{
    MetadataConfig, QueueConfig, RemoteReadConfig, RemoteWriteConfig, RemoteWriteProtocol, SigV4,
};
pub use root::{Config, load, parse, parse_with_env};
pub use scrape::{Scheme, ScrapeConfig};
pub use sd::{FileSd, HttpSd, StaticGroup, parse_target_groups};
pub use secret::{MaskedUrl, Secret};
pub use storage::{StorageConfig, TsdbConfig};
pub use telemetry::{OtlpConfig, RuntimeConfig, TracingConfig};
