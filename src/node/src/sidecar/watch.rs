//! Who the Prometheus beside this node is, and whether it is there.
//!
//! Asked every `EVERY`: its configuration for the external labels, its flags for how it cuts blocks. What it said last stays known
//! while it is away, so that it is known which answers lack its data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use koios_model::Labels;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::watch;

use super::SidecarArgs;
use super::prometheus::Prometheus;

/// How often it is asked.
pub const EVERY: Duration = Duration::from_secs(1);
/// Longest wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What it said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its external labels, once it said them.
    pub external: Option<Labels>,
    /// Why its blocks are not uploaded.
    pub no_upload: Option<String>,
    /// Why it cannot be asked now.
    pub away: Option<String>,
}

/// Watches it.
pub struct Watch {
    prometheus: Arc<Prometheus>,
    args: SidecarArgs,
    known: RwLock<Known>,
    looked: watch::Sender<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    global: Global,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Global {
    external_labels: BTreeMap<String, String>,
}

fn external_labels(yaml: &str) -> Result<Labels, String> {
    let config: Config =
        serde_saphyr::from_str(yaml).map_err(|e| format!("its configuration is not understood: {e}"))?;
    let labels = Labels::from_pairs(config.global.external_labels.iter());
    match labels.is_empty() {
        true => {
            let fix = "set global.external_labels in its configuration, different at each Prometheus";
            Err(format!("it has no external labels, by which its series are told from others; fix: {fix}"))
        }
        false => Ok(labels),
    }
}

/// Why blocks are not uploaded, by the flags of the Prometheus: one that compacts them itself replaces blocks that may not be uploaded yet.
fn no_upload(flags: &BTreeMap<String, String>, args: &SidecarArgs) -> Option<String> {
    let flag = |name: &str| flags.get(name).map_or("", String::as_str);
    let (min, max) = (flag("storage.tsdb.min-block-duration"), flag("storage.tsdb.max-block-duration"));
    let waits = !flag("storage.tsdb.delay-compact-file.path").is_empty();
    if min == max || waits || args.shipper_ignore_unequal_block_size {
        return None;
    }
    Some(format!(
        "the Prometheus compacts blocks itself (min-block-duration {min}, max-block-duration {max}), so some would be uploaded \
         twice or never; fix: start it with --storage.tsdb.max-block-duration={min}, or a Prometheus 3 with \
         --storage.tsdb.delay-compact-file.path=<its data>/{}",
        args.shipper_meta_file_name
    ))
}

impl Watch {
    /// Nothing is known yet.
    pub fn new(prometheus: Arc<Prometheus>, args: SidecarArgs) -> Self {
        let known = Known { away: Some("it was not asked yet".to_owned()), ..Known::default() };
        Self { prometheus, args, known: RwLock::new(known), looked: watch::Sender::new(false) }
    }

    /// What is known.
    pub fn known(&self) -> Known {
        self.known.read().clone()
    }

    /// Waits for the first look.
    pub async fn looked(&self) {
        let _ = self.looked.subscribe().wait_for(|looked| *looked).await;
    }

    /// Asks as long as the runtime lives.
    pub async fn run(self: Arc<Self>) {
        loop {
            let looked = tokio::time::timeout(PATIENCE, self.look()).await;
            self.learn(looked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))));
            self.looked.send_replace(true);
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&self) -> Result<(Labels, Option<String>), String> {
        let (config, _) = self.prometheus.get("/api/v1/status/config", &[]).await?;
        let external = external_labels(config["yaml"].as_str().unwrap_or_default())?;
        let (flags, _) = self.prometheus.get("/api/v1/status/flags", &[]).await?;
        let flags =
            serde_json::from_value(flags).map_err(|e| format!("its flags are not understood: {e}"))?;
        Ok((external, no_upload(&flags, &self.args)))
    }

    fn learn(&self, looked: Result<(Labels, Option<String>), String>) {
        let mut known = self.known.write();
        let before = known.clone();
        match looked {
            Ok((external, no_upload)) => *known = Known { external: Some(external), no_upload, away: None },
            Err(why) => known.away = Some(why),
        }
        if known.away != before.away {
            match &known.away {
                Some(why) => tracing::warn!(why, "the Prometheus beside this node is away; answers say so"),
                None => tracing::info!("the Prometheus beside this node answers"),
            }
        }
        if known.external != before.external {
            let labels = known.external.as_ref().map(Labels::to_string);
            tracing::info!(labels, "external labels of the Prometheus beside this node");
        }
        if let Some(why) = known.no_upload.as_ref().filter(|_| known.no_upload != before.no_upload)
            && self.args.prometheus_data_dir.is_some()
        {
            tracing::error!(why, "blocks of the Prometheus beside this node are not uploaded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_flags() {
        let yaml = "global:\n  scrape_interval: 1m\n  external_labels:\n    cluster: eu\n    replica: \"1\"\nscrape_configs: []\n";
        assert_eq!(external_labels(yaml), Ok(Labels::from_pairs([("cluster", "eu"), ("replica", "1")])));
        assert!(external_labels("global: {}").unwrap_err().contains("external_labels"));
        assert!(external_labels("[").is_err());
        let flags = |min: &str, max: &str, delay: &str| {
            let all = [
                ("storage.tsdb.min-block-duration", min),
                ("storage.tsdb.max-block-duration", max),
                ("storage.tsdb.delay-compact-file.path", delay),
            ];
            all.map(|(n, v)| (n.to_owned(), v.to_owned())).into()
        };
        let args =
            SidecarArgs { shipper_meta_file_name: "thanos.shipper.json".into(), ..SidecarArgs::default() };
        assert_eq!(no_upload(&flags("2h", "2h", ""), &args), None);
        assert_eq!(no_upload(&flags("2h", "36h", "/d/thanos.shipper.json"), &args), None);
        assert!(no_upload(&flags("2h", "36h", ""), &args).unwrap().contains("max-block-duration=2h"));
        let forced = SidecarArgs { shipper_ignore_unequal_block_size: true, ..args };
        assert_eq!(no_upload(&flags("2h", "36h", ""), &forced), None);
    }
}
