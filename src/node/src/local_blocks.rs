//! The node's own bucket: how much of it is kept, and the actor that compacts and cleans it up.
//!
//! Only `<storage.path>/bucket`, the bucket of a node without an object store. A configured one may be shared and is
//! left alone.

use std::sync::Arc;
use std::time::Duration;

use koios_actors::blocks::{Compactor, LocalBlocks, LocalSetup, compactor};
use koios_actors::kit::{Mailroom, Warden};
use koios_compact::disk::dir_bytes;
use koios_compact::level_ranges;
use koios_compact::retention::Retention;
use koios_config::Config;
use koios_model::duration::{format_duration, parse_duration};
use koios_model::size::{format_size, parse_size};

use crate::cli::RunArgs;
use crate::settings::Settings;
use crate::wire::Foundation;

/// Longest block that compaction makes, as in Prometheus.
const BLOCK_MS_MAX: i64 = 31 * 86_400_000;
/// A block is at most this part of the retention, so that the retention can be kept.
const RETENTION_PART: i64 = 10;
/// Beyond the longest query: answers on their way and clocks; no more than a block's length.
const KEEP_MARGIN: Duration = Duration::from_secs(30);

/// What flags and file say about retention: a flag before `storage.tsdb.retention` before `koios.storage.retention`
/// before 15 days. Where only a size is asked for, the default time does not count.
///
/// # Errors
/// A text for the terminal.
pub fn retention(args: &RunArgs, config: &Config) -> Result<Retention, String> {
    let file = &config.storage.tsdb;
    let bytes = match &args.retention_size {
        Some(text) => parse_size(text)
            .map_err(|e| format!("--storage.tsdb.retention.size: {e}; fix: write a size like 512MB"))?,
        None => file.retention_size.unwrap_or(0),
    };
    // A size on the command line stands against the file's share.
    let percentage =
        if args.retention_size.is_some() { 0.0 } else { file.retention_percentage.unwrap_or(0.0) };
    let time_ms = match (&args.retention_time, file.retention_time_ms) {
        (Some(text), _) => parse_duration(text)
            .map_err(|e| format!("--storage.tsdb.retention.time: {e}; fix: write a duration like 15d"))?,
        (None, Some(ms)) => ms,
        (None, None) => {
            let own = config.koios.storage.retention_ms;
            let default = Config::default().koios.storage.retention_ms;
            if own == default && (bytes > 0 || percentage > 0.0) { 0 } else { own }
        }
    };
    Ok(Retention { time_ms, bytes, percentage })
}

/// As `/api/v1/status/runtimeinfo` says it, e.g. `15d or 10GiB`.
pub fn retention_text(r: &Retention) -> String {
    let mut parts = Vec::new();
    if r.time_ms > 0 {
        parts.push(format_duration(r.time_ms));
    }
    if r.percentage > 0.0 {
        parts.push(format!("{}%", r.percentage));
    } else if r.bytes > 0 {
        parts.push(format_size(r.bytes));
    }
    parts.join(" or ")
}

impl Foundation {
    /// Starts the compactor when the bucket is the node's own.
    pub fn open_compactor(&self, settings: &Settings) {
        let Some(root) = self.bucket.local_root().filter(|_| settings.own_bucket) else { return };
        let logs = settings.args.storage_path.join("head");
        let longest = match settings.retention.time_ms {
            0 => BLOCK_MS_MAX,
            ms => BLOCK_MS_MAX.min(ms / RETENTION_PART),
        };
        let range_ms = settings.config.koios.storage.block_range_ms;
        let block = Duration::from_millis(range_ms.max(0) as u64);
        let local = LocalBlocks::new(LocalSetup {
            root: root.to_path_buf(),
            catalogue: self.catalogue.clone(),
            shelf: self.shelf.clone(),
            pool: self.pool.clone(),
            clock: self.clock.clone(),
            ranges_ms: level_ranges(range_ms, longest),
            retention: settings.retention,
            other_bytes: Arc::new(move || dir_bytes(&logs)),
            keep: Duration::from_millis(settings.query_timeout_ms) + KEEP_MARGIN.min(block),
        });
        let room: Mailroom<Compactor> = Mailroom::new("compactor", compactor::BOUND);
        let (blocks, net) = (local.clone(), self.net.clone());
        let warden = Warden::watch(room.clone(), self.plan.arbiter("background"), move |flare| {
            Compactor::new(blocks.clone(), net.clone(), flare)
        });
        self.keep(&room, warden);
        // Opened once in the life of a node; a second call would find the first one's.
        let _ = self.compactor.set((room, local));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn read(flags: &[&str], yaml: &str) -> Result<String, String> {
        let args = crate::cli::Cli::parse_from([&["koios"], flags].concat()).run;
        let config = koios_config::parse(yaml, "test").map_err(|e| e.to_string())?;
        retention(&args, &config).map(|r| retention_text(&r))
    }

    #[test]
    fn flag_before_file_before_default() {
        let file = "storage: {tsdb: {retention: {time: 30d, size: 100GB}}}";
        let share = "storage: {tsdb: {retention: {size: 1GB, percentage: 80}}}";
        for (flags, yaml, want) in [
            (&[][..], "", "15d"),
            (&[], "koios: {storage: {retention: 3d}}", "3d"),
            (&[], file, "30d or 100GiB"),
            (&["--storage.tsdb.retention.time=2h"], file, "2h or 100GiB"),
            (&["--storage.tsdb.retention.time=0s", "--storage.tsdb.retention.size=0"], file, ""),
            (&["--storage.tsdb.retention.size=512MB"], "", "512MiB"),
            (&[], share, "80%"),
            (&["--storage.tsdb.retention.size=512MB"], share, "512MiB"),
            (&["--storage.tsdb.retention.size=512MB"], "koios: {storage: {retention: 3d}}", "3d or 512MiB"),
        ] {
            assert_eq!(read(flags, yaml).as_deref(), Ok(want), "{flags:?} {yaml}");
        }
        for flag in ["--storage.tsdb.retention.time=soon", "--storage.tsdb.retention.size=10"] {
            assert!(read(&[flag], "").unwrap_err().contains("fix:"));
        }
    }
}
