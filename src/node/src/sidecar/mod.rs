//! The sidecar role: a Prometheus beside this node is a producer of the cluster.
//!
//! Owns the flags, who the Prometheus is (`watch`: its external labels, and whether it is there), its data and facts for whoever asks
//! this node (`source`), and its blocks on their way into the bucket (`shipper`). Nothing of it is copied into the head: what it has not
//! cut into blocks yet stays with it, and answers that lack it say so. Refuses to take part without external labels, by which its
//! series are told from others.

mod prometheus;
mod shipper;
mod source;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use koios_config::HttpClientConfig;
use koios_model::Clock;
use koios_model::duration::parse_duration;
use koios_model::timestamp::parse_time;
use koios_objstore::Bucket;
use koios_remote::read::asking::AnswerLimits;
use koios_scrape::http::HttpClient;
use tokio::runtime::Handle;

use prometheus::Prometheus;
pub use shipper::Shipper;
pub use source::Sidecar;
use watch::Watch;

/// Flags of the role, by the names that Thanos' sidecar has where it has them.
#[derive(Args, Clone, Debug, Default)]
pub struct SidecarArgs {
    /// A Prometheus to stand beside: its data is queried through it, by remote read, as part of the cluster. User and password
    /// may stand in the URL.
    #[arg(long = "prometheus.url", env = "KOIOS_PROMETHEUS_URL", value_name = "URL")]
    pub prometheus_url: Option<String>,
    /// Its data directory, whose blocks are uploaded with its external labels; without it nothing is uploaded.
    #[arg(
        long = "prometheus.data-dir",
        alias = "tsdb.path",
        env = "KOIOS_PROMETHEUS_DATA_DIR",
        value_name = "DIR",
        requires = "prometheus_url"
    )]
    pub prometheus_data_dir: Option<PathBuf>,
    /// Older samples are not asked of it: a time, or how long ago, e.g. 2d.
    #[arg(long = "prometheus.min-time", value_name = "TIME", requires = "prometheus_url")]
    pub prometheus_min_time: Option<String>,
    /// Compacted blocks are uploaded too.
    #[arg(long = "shipper.upload-compacted", requires = "prometheus_data_dir")]
    pub shipper_upload_compacted: bool,
    /// Uploads although the Prometheus compacts blocks itself, which may be gone before they are uploaded.
    #[arg(long = "shipper.ignore-unequal-block-size", requires = "prometheus_data_dir")]
    pub shipper_ignore_unequal_block_size: bool,
    /// File in the data directory that says what is uploaded; Prometheus 3 reads it.
    #[arg(
        long = "shipper.meta-file-name",
        value_name = "NAME",
        default_value = "thanos.shipper.json",
        requires = "prometheus_data_dir"
    )]
    pub shipper_meta_file_name: String,
}

/// Since when samples are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Ever,
    At(i64),
    Ago(i64),
}

impl Since {
    fn parse(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::Ever) };
        if let Ok(ago) = parse_duration(text.trim_start_matches('-')) {
            return Ok(Self::Ago(ago));
        }
        let fix = "write a time as 2026-01-31T00:00:00Z, or how long ago as 2d";
        parse_time(text)
            .map(Self::At)
            .ok_or_else(|| format!("--prometheus.min-time: {text:?} is no time; fix: {fix}"))
    }

    /// First moment, milliseconds.
    fn at(self, now_ms: i64) -> i64 {
        match self {
            Self::Ever => 0,
            Self::At(ms) => ms,
            Self::Ago(ms) => now_ms.saturating_sub(ms),
        }
    }
}

impl SidecarArgs {
    /// The URL without user and password.
    pub fn shown_url(&self) -> String {
        let Some(url) = &self.prometheus_url else { return String::new() };
        match reqwest::Url::parse(url) {
            Ok(mut parsed) if parsed.password().is_some() || !parsed.username().is_empty() => {
                let hidden = parsed.set_password(None).and_then(|()| parsed.set_username("hidden"));
                hidden.map_or_else(|()| "hidden".to_owned(), |()| parsed.to_string())
            }
            _ => url.clone(),
        }
    }
}

/// What the role needs of the node.
pub struct Setup<'a> {
    /// Flags.
    pub args: &'a SidecarArgs,
    /// Most that one answer of the Prometheus may have.
    pub limits: AnswerLimits,
    /// Where blocks go.
    pub bucket: &'a Bucket,
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
    /// Where it runs.
    pub net: &'a Handle,
}

/// The role, when the flags ask for it: the source of samples and facts. It watches and uploads as long as the runtime lives.
///
/// # Errors
/// The flag, what is wrong with it, and the fix.
pub fn start(setup: Setup<'_>) -> Result<Option<Arc<Sidecar>>, String> {
    let args = setup.args;
    let Some(url) = &args.prometheus_url else { return Ok(None) };
    let since = Since::parse(args.prometheus_min_time.as_deref())?;
    let base = url.trim_end_matches('/').to_owned();
    let parsed = reqwest::Url::parse(&base).map_err(|e| e.to_string());
    if let Some(why) = parsed.map_or_else(Some, |u| (!u.has_host()).then(|| "it has no host".to_owned())) {
        return Err(format!("--prometheus.url: {url:?}: {why}; fix: write http://HOST:PORT"));
    }
    let client = HttpClient::new(HttpClientConfig::default(), setup.clock.clone());
    let prometheus = Arc::new(Prometheus::new(base, client));
    let watch = Arc::new(Watch::new(prometheus.clone(), args.clone()));
    setup.net.spawn(watch.clone().run());
    if let Some(dir) = &args.prometheus_data_dir {
        let shipper =
            Shipper::new(dir.clone(), args, setup.bucket.clone(), watch.clone(), setup.clock.clone())?;
        setup.net.spawn(shipper.run());
    }
    Ok(Some(Arc::new(Sidecar::new(prometheus, watch, since, setup.limits, setup.clock.clone()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when() {
        let at = |text| Since::parse(Some(text)).map(|s| s.at(10_000_000));
        assert_eq!(at("-1h"), Ok(6_400_000));
        assert_eq!(at("2h"), Ok(2_800_000));
        assert_eq!(at("1970-01-01T00:00:05Z"), Ok(5000));
        assert_eq!(Since::parse(None).map(|s| s.at(7)), Ok(0));
        assert!(at("soon").unwrap_err().contains("fix:"));
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = |url: &str| {
            SidecarArgs { prometheus_url: Some(url.into()), ..SidecarArgs::default() }.shown_url()
        };
        assert_eq!(shown("http://user:secret@host:9090/x"), "http://hidden@host:9090/x");
        assert_eq!(shown("http://host:9090"), "http://host:9090");
    }
}
