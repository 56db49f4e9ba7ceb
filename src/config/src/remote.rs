//! `remote_write:` and `remote_read:`.

use crate::alerting::signing_key;
use crate::http_client::{HttpClientConfig, SecretSource, check_header, url};
use crate::names::NameScheme;
use crate::read::Section;
use crate::relabel::{RelabelRule, rules};
use crate::secret::MaskedUrl;
use crate::yaml::Span;

/// Message type of remote write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteWriteProtocol {
    /// `prometheus.WriteRequest`
    #[default]
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// AWS request signing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SigV4 {
    /// Region; from the environment when missing.
    pub region: Option<String>,
    /// Access key.
    pub access_key: Option<String>,
    /// Secret key.
    pub secret_key: Option<SecretSource>,
    /// Profile of the shared credentials file.
    pub profile: Option<String>,
    /// Role to assume.
    pub role_arn: Option<String>,
    /// External id when assuming the role.
    pub external_id: Option<String>,
    /// Use the FIPS endpoint of the token service.
    pub use_fips_sts_endpoint: bool,
    /// Service name to sign for.
    pub service_name: Option<String>,
}

pub(crate) fn sigv4(mut s: Section<'_>) -> SigV4 {
    let out = SigV4 {
        region: s.string("region"),
        access_key: s.string("access_key"),
        secret_key: signing_key(&mut s),
        profile: s.string("profile"),
        role_arn: s.string("role_arn"),
        external_id: s.string("external_id"),
        use_fips_sts_endpoint: s.boolean("use_fips_sts_endpoint").unwrap_or(false),
        service_name: s.string("service_name"),
    };
    if out.access_key.is_some() != out.secret_key.is_some() {
        let cause = "`access_key` and `secret_key` belong together";
        s.ctx.error(1309, s.span, cause, "set both, or neither to use the environment's credentials");
    }
    s.finish();
    out
}

/// How samples queue up for sending. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Samples buffered per shard.
    pub capacity: u64,
    /// Most parallel senders.
    pub max_shards: u64,
    /// Fewest parallel senders.
    pub min_shards: u64,
    /// Samples of one request.
    pub max_samples_per_send: u64,
    /// Longest wait for a full request.
    pub batch_send_deadline_ms: i64,
    /// First wait after a failure.
    pub min_backoff_ms: i64,
    /// Longest wait after a failure.
    pub max_backoff_ms: i64,
    /// Retry when the receiver says 429.
    pub retry_on_http_429: bool,
    /// Samples older than this are dropped; 0 means none.
    pub sample_age_limit_ms: i64,
}

/// Metadata sending (protocol 1 only).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataConfig {
    /// Whether metadata is sent.
    pub send: bool,
    /// How often, milliseconds.
    pub send_interval_ms: i64,
    /// Entries of one request.
    pub max_samples_per_send: u64,
}

/// One receiver of everything that is ingested.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteWriteConfig {
    /// Where.
    pub url: MaskedUrl,
    /// Name in metrics and logs, unique.
    pub name: Option<String>,
    /// Message type.
    pub protocol: RemoteWriteProtocol,
    /// Time one request may take, milliseconds.
    pub remote_timeout_ms: i64,
    /// Extra headers.
    pub headers: Vec<(String, String)>,
    /// Rules for what is sent, after external labels.
    pub write_relabel_configs: Vec<RelabelRule>,
    /// Send exemplars.
    pub send_exemplars: bool,
    /// Send native histograms.
    pub send_native_histograms: bool,
    /// Resolve the host anew for each connection.
    pub round_robin_dns: bool,
    /// AWS signing.
    pub sigv4: Option<SigV4>,
    /// Client side of HTTP; HTTP/2 is off by default here.
    pub http: HttpClientConfig,
    /// Queue.
    pub queue: QueueConfig,
    /// Metadata.
    pub metadata: MetadataConfig,
}

/// One source of samples for queries.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteReadConfig {
    /// Where.
    pub url: MaskedUrl,
    /// Name in metrics and logs, unique.
    pub name: Option<String>,
    /// Equality matchers a query must have to be sent.
    pub required_matchers: Vec<(String, String)>,
    /// Time one request may take, milliseconds.
    pub remote_timeout_ms: i64,
    /// Extra headers.
    pub headers: Vec<(String, String)>,
    /// Ask for ranges that local storage has too.
    pub read_recent: bool,
    /// Add external labels as matchers.
    pub filter_external_labels: bool,
    /// Bytes of one frame of a chunked answer.
    pub chunked_read_limit: u64,
    /// Client side of HTTP.
    pub http: HttpClientConfig,
}

pub(crate) fn writers(s: &mut Section<'_>, scheme: NameScheme) -> Vec<RemoteWriteConfig> {
    let mut seen = Vec::new();
    s.sections("remote_write").into_iter().map(|r| write(r, scheme, &mut seen)).collect()
}

pub(crate) fn readers(s: &mut Section<'_>) -> Vec<RemoteReadConfig> {
    let mut seen = Vec::new();
    s.sections("remote_read").into_iter().map(|r| read(r, &mut seen)).collect()
}

fn endpoint(s: &mut Section<'_>, seen: &mut Vec<(String, Span)>) -> (MaskedUrl, Option<String>) {
    let address = url(s, "url");
    if address.is_none() && s.raw("url").is_none_or(|n| matches!(n.kind, crate::yaml::Kind::Null)) {
        s.missing("url", "add `url: https://host/api/v1/write` (or the read endpoint)");
    }
    let name = s.text("name").filter(|n| !n.text.is_empty());
    if let Some(name) = &name {
        if let Some((_, first)) = seen.iter().find(|(n, _)| *n == name.text) {
            let cause = format!("the name {:?} is used twice", name.text);
            s.ctx.error_related(
                1301,
                name.span,
                (cause, "rename one of them".into()),
                (*first, "first used here".into()),
            );
        }
        seen.push((name.text.clone(), name.span));
    }
    (address.unwrap_or_default(), name.map(|n| n.text))
}

fn plain_headers(s: &mut Section<'_>) -> Vec<(String, String)> {
    let pairs = s.pairs("headers");
    for (name, _) in &pairs {
        check_header(s, &name.text, name.span);
    }
    pairs.into_iter().map(|(n, v)| (n.text, v.text)).collect()
}

fn write(mut s: Section<'_>, scheme: NameScheme, seen: &mut Vec<(String, Span)>) -> RemoteWriteConfig {
    const PROTOCOLS: &[(&str, RemoteWriteProtocol)] = &[
        ("prometheus.WriteRequest", RemoteWriteProtocol::V1),
        ("io.prometheus.write.v2.Request", RemoteWriteProtocol::V2),
    ];
    let (address, name) = endpoint(&mut s, seen);
    let mut http = HttpClientConfig::read(&mut s);
    http.enable_http2 = s.boolean("enable_http2").unwrap_or(false);
    for other in ["azuread", "google_iam"] {
        if s.has(other) {
            let cause = format!("`{other}` is not supported yet");
            s.ctx.error(
                1402,
                s.key_span(other),
                cause,
                "use `basic_auth`, `authorization`, `oauth2` or `sigv4`",
            );
        }
    }
    s.allow("azuread");
    s.allow("google_iam");
    let out = RemoteWriteConfig {
        url: address,
        name,
        protocol: s.one_of("protobuf_message", PROTOCOLS).unwrap_or_default(),
        remote_timeout_ms: s.duration("remote_timeout").filter(|v| *v > 0).unwrap_or(30_000),
        headers: plain_headers(&mut s),
        write_relabel_configs: rules(&mut s, "write_relabel_configs", scheme),
        send_exemplars: s.boolean("send_exemplars").unwrap_or(false),
        send_native_histograms: s.boolean("send_native_histograms").unwrap_or(false),
        round_robin_dns: s.boolean("round_robin_dns").unwrap_or(false),
        sigv4: s.section("sigv4").map(sigv4),
        http,
        queue: s.section("queue_config").map(queue).unwrap_or_default(),
        metadata: s.section("metadata_config").map(metadata).unwrap_or_default(),
    };
    s.finish();
    out
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            max_shards: 50,
            min_shards: 1,
            max_samples_per_send: 2000,
            batch_send_deadline_ms: 5000,
            min_backoff_ms: 30,
            max_backoff_ms: 5000,
            retry_on_http_429: false,
            sample_age_limit_ms: 0,
        }
    }
}

fn queue(mut s: Section<'_>) -> QueueConfig {
    let d = QueueConfig::default();
    let out = QueueConfig {
        capacity: s.integer_in("capacity", 1..=100_000_000).unwrap_or(d.capacity),
        max_shards: s.integer_in("max_shards", 1..=10_000).unwrap_or(d.max_shards),
        min_shards: s.integer_in("min_shards", 1..=10_000).unwrap_or(d.min_shards),
        max_samples_per_send: s
            .integer_in("max_samples_per_send", 1..=10_000_000)
            .unwrap_or(d.max_samples_per_send),
        batch_send_deadline_ms: s.duration("batch_send_deadline").unwrap_or(d.batch_send_deadline_ms),
        min_backoff_ms: s.duration("min_backoff").unwrap_or(d.min_backoff_ms),
        max_backoff_ms: s.duration("max_backoff").unwrap_or(d.max_backoff_ms),
        retry_on_http_429: s.boolean("retry_on_http_429").unwrap_or(false),
        sample_age_limit_ms: s.duration("sample_age_limit").unwrap_or(0),
    };
    for (low, high, wrong) in [
        ("min_shards", "max_shards", out.min_shards > out.max_shards),
        ("min_backoff", "max_backoff", out.min_backoff_ms > out.max_backoff_ms),
    ] {
        if wrong {
            let cause = format!("`{low}` is greater than `{high}`");
            s.ctx.error(1314, s.value_span(low), cause, format!("lower `{low}` or raise `{high}`"));
        }
    }
    s.finish();
    out
}

impl Default for MetadataConfig {
    fn default() -> Self {
        Self { send: true, send_interval_ms: 60_000, max_samples_per_send: 2000 }
    }
}

fn metadata(mut s: Section<'_>) -> MetadataConfig {
    let d = MetadataConfig::default();
    let out = MetadataConfig {
        send: s.boolean("send").unwrap_or(d.send),
        send_interval_ms: s.duration("send_interval").unwrap_or(d.send_interval_ms),
        max_samples_per_send: s
            .integer_in("max_samples_per_send", 1..=10_000_000)
            .unwrap_or(d.max_samples_per_send),
    };
    s.finish();
    out
}

fn read(mut s: Section<'_>, seen: &mut Vec<(String, Span)>) -> RemoteReadConfig {
    let (address, name) = endpoint(&mut s, seen);
    let matchers = s.pairs("required_matchers");
    let out = RemoteReadConfig {
        url: address,
        name,
        required_matchers: matchers.into_iter().map(|(n, v)| (n.text, v.text)).collect(),
        remote_timeout_ms: s.duration("remote_timeout").filter(|v| *v > 0).unwrap_or(60_000),
        headers: plain_headers(&mut s),
        read_recent: s.boolean("read_recent").unwrap_or(false),
        filter_external_labels: s.boolean("filter_external_labels").unwrap_or(true),
        chunked_read_limit: s.integer("chunked_read_limit").unwrap_or(50 << 20),
        http: HttpClientConfig::read(&mut s),
    };
    s.finish();
    out
}
