//! `koios blocks ls|inspect|verify|mark|compact`: a bucket, without a running node.
//!
//! What Thanos' `tools bucket` does of the same names; marks are Thanos' files, so that either program heeds them. Owns the
//! flags and the reading of metas and marks; rows are `table`'s, findings `verify`'s. Refuses to repair: it names what is
//! wrong and which block. Bounds: those of the catalogue.

mod table;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use koios_block::BlockMeta;
use koios_model::{BlockId, Clock, Matcher, SystemClock};
use koios_objstore::{Bucket, ObjstoreError};
use koios_store::visible::DELETION_MARK;
use koios_store::{Catalogue, Visibility};
use serde_json::json;

use crate::compact_tool::{self, CompactArgs};
use crate::settings::read_bucket;

/// The mark of a block that must not be merged.
pub(crate) const NO_COMPACT_MARK: &str = "no-compact-mark.json";
/// The mark of a block of which no coarse one must be made.
pub(crate) const NO_DOWNSAMPLE_MARK: &str = "no-downsample-mark.json";

#[derive(Debug, Subcommand)]
pub enum Blocks {
    /// List the blocks, one a line.
    #[command(alias = "list")]
    Ls {
        /// A table, or a meta.json a line.
        #[arg(short, long, value_enum, default_value = "wide")]
        output: Output,
        #[command(flatten)]
        bucket: BucketArgs,
    },
    /// A table of blocks, chosen by their external labels.
    Inspect {
        /// Only blocks whose external labels match, e.g. 'cluster="eu"'; repeatable.
        #[arg(short = 'l', long, value_name = "MATCHER")]
        selector: Vec<String>,
        /// Columns to sort by, e.g. FROM; repeatable.
        #[arg(long, value_name = "COLUMN", default_value = "FROM")]
        sort_by: Vec<String>,
        /// A table for people or for programs.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
        #[command(flatten)]
        bucket: BucketArgs,
    },
    /// Read every block and compare them with each other; ends with 1 when something is wrong.
    Verify {
        /// Only these blocks; repeatable.
        #[arg(long, value_name = "ULID")]
        id: Vec<BlockId>,
        #[command(flatten)]
        bucket: BucketArgs,
    },
    /// Mark a block, or take a mark back.
    Mark {
        /// Which mark.
        #[arg(long, value_enum)]
        marker: Marker,
        /// The block; repeatable.
        #[arg(long, value_name = "ULID", required = true)]
        id: Vec<BlockId>,
        /// Why, for whoever finds the mark.
        #[arg(long, value_name = "TEXT", default_value = "", required_unless_present = "remove")]
        details: String,
        /// Take the mark back.
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        bucket: BucketArgs,
    },
    /// Merge, deduplicate and downsample until nothing is left to do, apply the retention, remove what is marked.
    Compact(CompactArgs),
}

#[derive(Args, Debug)]
pub struct BucketArgs {
    /// Thanos' object store YAML; without it the bucket is <storage.path>/bucket.
    #[arg(long = "objstore.config-file", env = "KOIOS_OBJSTORE_CONFIG_FILE", value_name = "FILE")]
    objstore_config_file: Option<PathBuf>,
    /// The same YAML in place of the file.
    #[arg(long = "objstore.config", value_name = "YAML", conflicts_with = "objstore_config_file")]
    objstore_config: Option<String>,
    /// Where the node keeps its data.
    #[arg(long = "storage.path", default_value = "./data", value_name = "DIR")]
    storage_path: PathBuf,
}

impl BucketArgs {
    /// Where the node keeps its data.
    pub(crate) fn storage_path(&self) -> &std::path::Path {
        &self.storage_path
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Wide,
    Json,
    Table,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Marker {
    #[value(name = "deletion-mark.json")]
    Deletion,
    #[value(name = "no-compact-mark.json")]
    NoCompact,
    #[value(name = "no-downsample-mark.json")]
    NoDownsample,
}

impl Marker {
    fn file(self) -> &'static str {
        match self {
            Marker::Deletion => DELETION_MARK,
            Marker::NoCompact => NO_COMPACT_MARK,
            Marker::NoDownsample => NO_DOWNSAMPLE_MARK,
        }
    }

    /// Thanos' JSON of the mark, version 1.
    fn json(self, id: BlockId, details: &str, reason: &str, seconds: i64) -> Vec<u8> {
        let id = id.to_string();
        let mark = match self {
            Marker::Deletion => {
                json!({"id": id, "version": 1, "details": details, "deletion_time": seconds})
            }
            Marker::NoCompact => json!({"id": id, "version": 1, "details": details,
                "no_compact_time": seconds, "reason": reason}),
            Marker::NoDownsample => json!({"id": id, "version": 1, "details": details,
                "no_downsample_time": seconds, "reason": reason}),
        };
        mark.to_string().into_bytes()
    }
}

/// A block and its marks.
pub(crate) struct Found {
    pub(crate) meta: Arc<BlockMeta>,
    pub(crate) marks: BTreeSet<&'static str>,
}

/// Runs one.
pub fn run(what: Blocks) -> ExitCode {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(|e| e.to_string()).and_then(|r| {
        let done = r.block_on(work(what, &*SystemClock::shared(), &mut out));
        out.flush().map_err(|e| format!("output: {e}"))?;
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("koios: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn work(what: Blocks, clock: &dyn Clock, out: &mut dyn Write) -> Result<(), String> {
    match what {
        Blocks::Ls { output, bucket } => {
            let (found, damaged) = read(&open(&bucket, clock).await?).await?;
            say_damaged(&damaged);
            table::write(&found, output, out)
        }
        Blocks::Inspect { selector, sort_by, output, bucket } => {
            let sets = selector.iter().map(|s| matchers(s)).collect::<Result<Vec<_>, _>>()?;
            let (mut found, damaged) = read(&open(&bucket, clock).await?).await?;
            say_damaged(&damaged);
            found.retain(|f| {
                let labels = f.meta.external_labels();
                sets.iter().flatten().all(|m| m.matches(labels.get(&m.name).map_or("", String::as_str)))
            });
            table::sort(&mut found, &sort_by)?;
            table::write(&found, output, out)
        }
        Blocks::Verify { id, bucket: args } => {
            let bucket = open(&args, clock).await?;
            let (mut found, mut damaged) = read(&bucket).await?;
            if !id.is_empty() {
                found.retain(|f| id.contains(&f.meta.ulid));
                damaged.retain(|d, _| id.contains(d));
            }
            verify::run(&bucket, &args.storage_path.join("verify"), &found, damaged, out).await
        }
        Blocks::Compact(args) => compact_tool::run_now(args, out).await,
        Blocks::Mark { marker, id, details, remove, bucket } => {
            let bucket = open(&bucket, clock).await?;
            for id in id {
                mark(&bucket, marker, id, (!remove).then_some((details.as_str(), clock.now_ms() / 1000)))
                    .await?;
                let done = if remove { "removed from" } else { "written for" };
                writeln!(out, "{} {done} {id}", marker.file()).map_err(|e| format!("output: {e}"))?;
            }
            Ok(())
        }
    }
}

/// A matcher in braces or without.
fn matchers(text: &str) -> Result<Vec<Matcher>, String> {
    let selector = if text.starts_with('{') { text.to_owned() } else { format!("{{{text}}}") };
    koios_promql::parse_selector(&selector).map_err(|e| format!("--selector {text}: {e}"))
}

/// Opens the bucket that the flags name.
pub(crate) async fn open(args: &BucketArgs, clock: &dyn Clock) -> Result<Bucket, String> {
    let (file, inline) = (args.objstore_config_file.as_deref(), args.objstore_config.as_deref());
    if file.is_none() && inline.is_none() && !args.storage_path.join("bucket").is_dir() {
        let path = args.storage_path.join("bucket");
        return Err(format!("{}: no such bucket; fix: check --storage.path", path.display()));
    }
    let config = read_bucket(file, inline, &args.storage_path)?;
    let fresh = BlockId::from_parts(clock.now_ms().max(0) as u64, u128::from(std::process::id()));
    Bucket::open(&config, fresh).await.map_err(|e| e.to_string())
}

/// Blocks by id with their marks, and the damaged ones.
async fn read(bucket: &Bucket) -> Result<(Vec<Found>, BTreeMap<BlockId, String>), String> {
    read_visible(bucket, 0).await
}

/// The same without blocks that another producer uploaded less than `consistency_delay_ms` ago.
pub(crate) async fn read_visible(
    bucket: &Bucket,
    consistency_delay_ms: i64,
) -> Result<(Vec<Found>, BTreeMap<BlockId, String>), String> {
    // Marked blocks are shown too.
    let all = Visibility { ignore_deletion_marks_ms: i64::MAX, consistency_delay_ms };
    let mut catalogue = Catalogue::new(bucket.clone(), SystemClock::shared(), all);
    let view = catalogue.refresh().await.map_err(|e| e.to_string())?;
    let mut marks: BTreeMap<BlockId, BTreeSet<&'static str>> = BTreeMap::new();
    for (path, _) in bucket.list("").await.map_err(|e| e.to_string())? {
        let Some((id, file)) = path.split_once('/') else { continue };
        let marker = Marker::value_variants().iter().find(|m| m.file() == file);
        if let (Some(marker), Ok(id)) = (marker, id.parse()) {
            marks.entry(id).or_default().insert(marker.file());
        }
    }
    let found = |(id, meta): (&BlockId, &Arc<BlockMeta>)| Found {
        meta: meta.clone(),
        marks: marks.remove(id).unwrap_or_default(),
    };
    Ok((view.blocks().iter().map(found).collect(), view.damaged().clone()))
}

pub(crate) fn say_damaged(damaged: &BTreeMap<BlockId, String>) {
    for (id, why) in damaged {
        eprintln!("koios: block {id} is passed over: {why}");
    }
}

/// Writes a mark, whatever was there, with its words and, but for deletion, its reason.
pub(crate) async fn put_mark(
    bucket: &Bucket,
    marker: Marker,
    id: BlockId,
    (details, reason): (&str, &str),
    now_ms: i64,
) -> Result<(), String> {
    let json = marker.json(id, details, reason, now_ms / 1000);
    bucket.put(&format!("{id}/{}", marker.file()), json).await.map_err(|e| e.to_string())
}

/// Writes a mark with its words and time in seconds, or removes it. A mark that is there stays: its time counts.
async fn mark(
    bucket: &Bucket,
    marker: Marker,
    id: BlockId,
    words: Option<(&str, i64)>,
) -> Result<(), String> {
    let path = format!("{id}/{}", marker.file());
    let Some((details, seconds)) = words else {
        return bucket.delete(&path).await.map_err(|e| e.to_string());
    };
    bucket.get(&format!("{id}/meta.json")).await.map_err(|e| e.to_string())?;
    match bucket.get(&path).await {
        Ok(_) => Err(format!("{path} is there already; fix: --remove it first")),
        Err(ObjstoreError::NotFound(_)) => {
            bucket.put(&path, marker.json(id, details, "manual", seconds)).await.map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests;
