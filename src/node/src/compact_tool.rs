//! `koios blocks compact --once`: brings a bucket to where nothing is left to merge, to downsample or to clear away.
//!
//! What Thanos' `compact` does without `--wait`, with its flags. What to do is `koios_compact::bucket`'s, doing one thing
//! `carrying`'s. Owns the flags, the picture of the bucket, the order of phases and the summary. Nothing stops the rest: a
//! block that cannot be read is marked and passed over. Nobody else may compact the bucket meanwhile.
//! Bounds: one step at a time, 100,000 steps.

mod carrying;
mod partial;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use koios_compact::How;
use koios_compact::bucket::{Policy, Seen, Step, Why};
use koios_model::duration::parse_duration;
use koios_model::size::{format_size, parse_size};
use koios_model::{BlockId, Clock, SystemClock};
use koios_objstore::Bucket;
use koios_store::visible::{DELETION_MARK, marked_ms};

use crate::blocks_tool::{self, BucketArgs, NO_COMPACT_MARK, NO_DOWNSAMPLE_MARK};
use carrying::Work;
use progress::Progress;

/// Most steps of one run.
const STEPS_MAX: usize = 100_000;

/// Flags, named as Thanos' are.
#[derive(Args, Debug)]
pub struct CompactArgs {
    /// Do what there is to do and end. A running node compacts its own bucket by itself.
    #[arg(long, required = true)]
    once: bool,
    /// Show the steps and take none.
    #[arg(long)]
    dry_run: bool,
    /// External label that tells replicas apart, which become one; repeatable.
    #[arg(long = "deduplication.replica-label", value_name = "LABEL", value_delimiter = ',')]
    replica_label: Vec<String>,
    /// How: `penalty` for replicas that were scraped at different times; without it every sample of each is kept once. Koios'
    /// own replicas have equal times and are merged exactly either way.
    #[arg(long = "deduplication.func", value_name = "NAME", default_value = "", value_parser = ["", "penalty"])]
    func: String,
    /// Blocks that others uploaded within this time are left alone.
    #[arg(long, value_name = "DURATION", default_value = "30m")]
    consistency_delay: String,
    /// How long a block stays after it was marked for deletion; 0s removes it at once.
    #[arg(long, value_name = "DURATION", default_value = "48h")]
    delete_delay: String,
    /// How long raw samples are kept; 0d for ever.
    #[arg(long = "retention.resolution-raw", value_name = "DURATION", default_value = "0d")]
    retention_raw: String,
    /// How long samples 5 minutes apart are kept.
    #[arg(long = "retention.resolution-5m", value_name = "DURATION", default_value = "0d")]
    retention_5m: String,
    /// How long samples an hour apart are kept.
    #[arg(long = "retention.resolution-1h", value_name = "DURATION", default_value = "0d")]
    retention_1h: String,
    /// Make no coarse blocks.
    #[arg(long = "downsampling.disable")]
    downsampling_disable: bool,
    /// Largest index of a merged block; a merge that comes to more is cut by series into several.
    #[arg(long = "compact.block-max-index-size", value_name = "SIZE", default_value = "64GB")]
    block_max_index_size: String,
    /// Where blocks are written before they are uploaded; <storage.path>/compact unless given. Takes the largest merge once, and
    /// its sources too when the bucket is not on this machine.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    bucket: BucketArgs,
}

/// What the bucket looks like.
struct Picture {
    blocks: BTreeMap<BlockId, Seen>,
    damaged: BTreeMap<BlockId, String>,
}

impl CompactArgs {
    fn policy(&self) -> Result<Policy, String> {
        let ms = |flag: &str, text: &str| match text {
            "0" => Ok(0),
            text => parse_duration(text).map_err(|e| format!("--{flag}={text}: {e}")),
        };
        let size = &self.block_max_index_size;
        let size = parse_size(size).map_err(|e| format!("--compact.block-max-index-size={size}: {e}"))?;
        let policy = Policy {
            replica_labels: self.replica_label.clone(),
            how: if self.func == "penalty" { How::Penalty } else { How::Exact },
            downsample: !self.downsampling_disable,
            retention_ms: [
                ms("retention.resolution-raw", &self.retention_raw)?,
                ms("retention.resolution-5m", &self.retention_5m)?,
                ms("retention.resolution-1h", &self.retention_1h)?,
            ],
            delete_delay_ms: ms("delete-delay", &self.delete_delay)?,
            index_bytes_max: size / 20 * 19,
        };
        policy.check().map(|()| policy)
    }
}

/// Runs it.
pub(crate) async fn run(args: CompactArgs, clock: Arc<dyn Clock>, out: &mut dyn Write) -> Result<(), String> {
    debug_assert!(args.once, "BUG: the flag is required");
    let policy = args.policy()?;
    let text = &args.consistency_delay;
    let consistency_ms = match text.as_str() {
        "0" => 0,
        text => parse_duration(text).map_err(|e| format!("--consistency-delay={text}: {e}"))?,
    };
    let bucket = blocks_tool::open(&args.bucket, &*clock).await?;
    let picture = look(&bucket, consistency_ms).await?;
    blocks_tool::say_damaged(&picture.damaged);
    let steps = planned(&policy, &picture.blocks, &*clock);
    if args.dry_run {
        for step in &steps {
            say(out, &describe(step))?;
        }
        return say(out, &format!("{} steps for {} blocks", steps.len(), picture.blocks.len()));
    }
    let start = clock.mono_ns();
    let scratch = args.data_dir.clone().unwrap_or_else(|| args.bucket.storage_path().join("compact"));
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let signal = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            asked.store(true, Ordering::Relaxed);
        }
    });
    let before = picture.blocks.len();
    let mut work = Work::new(bucket, scratch, clock.clone(), picture.blocks, stop)?;
    let mut progress = Progress::new(steps.len());
    let done = settle(&policy, &mut work, &mut progress).await;
    signal.abort();
    progress.end();
    work.clear_up();
    let cleaned = match done {
        Ok(()) => partial::clean(&work.bucket, clock.now_ms()).await?,
        Err(e) => return Err(e),
    };
    let did = &work.did;
    let seconds = (clock.mono_ns() - start) as f64 / 1e9;
    say(out, &format!("{} merges of {} blocks, {} samples", did.merges, did.merged, did.samples))?;
    say(
        out,
        &format!(
            "{} blocks made coarse: {} to 5m, {} to 1h",
            did.coarse[0] + did.coarse[1],
            did.coarse[0],
            did.coarse[1]
        ),
    )?;
    say(
        out,
        &format!(
            "{} marked for deletion, {} deleted, {cleaned} partial uploads removed",
            did.marked, did.deleted
        ),
    )?;
    for (id, why) in &did.passed_over {
        say(out, &format!("passed over {id}: {why}"))?;
    }
    let left = work.blocks.values().filter(|s| s.deletion_ms.is_none()).count();
    let (read, written) = (format_size(did.bytes_read), format_size(did.bytes_written));
    say(out, &format!("{before} blocks became {left} in {seconds:.1}s; read {read}, wrote {written}"))
}

/// Takes steps until there is none.
async fn settle(policy: &Policy, work: &mut Work, progress: &mut Progress) -> Result<(), String> {
    for _ in 0..STEPS_MAX {
        let now_ms = work.clock.now_ms();
        let Some(step) = policy.next(&work.blocks, &work.failed, now_ms) else { return Ok(()) };
        progress.step(&describe(&step));
        work.take(&step, policy).await?;
    }
    Err(format!("more than {STEPS_MAX} steps; fix: run it again"))
}

/// The steps that would be taken if all went well.
fn planned(policy: &Policy, blocks: &BTreeMap<BlockId, Seen>, clock: &dyn Clock) -> Vec<Step> {
    let (mut blocks, mut steps, none) = (blocks.clone(), Vec::new(), BTreeSet::new());
    let now_ms = clock.now_ms();
    while let Some(step) = policy.next(&blocks, &none, now_ms).filter(|_| steps.len() < STEPS_MAX) {
        let id = BlockId::from_parts(now_ms.max(0) as u64, steps.len() as u128);
        step.pretend(&mut blocks, id, now_ms);
        steps.push(step);
    }
    steps
}

/// Blocks with their marks; what somebody uploaded just now is left out.
async fn look(bucket: &Bucket, consistency_ms: i64) -> Result<Picture, String> {
    let (found, damaged) = blocks_tool::read_visible(bucket, consistency_ms).await?;
    let mut blocks = BTreeMap::new();
    for f in found {
        let mut seen = Seen::fresh(f.meta);
        let id = seen.meta.ulid;
        if f.marks.contains(DELETION_MARK) {
            let mark = bucket.get(&format!("{id}/{DELETION_MARK}")).await.map_err(|e| e.to_string())?;
            // A mark that cannot be read is one all the same, and its files stay.
            seen.deletion_ms = Some(marked_ms(&mark).unwrap_or(i64::MAX));
        }
        seen.no_compact = f.marks.contains(NO_COMPACT_MARK);
        seen.no_downsample = f.marks.contains(NO_DOWNSAMPLE_MARK);
        blocks.insert(id, seen);
    }
    Ok(Picture { blocks, damaged })
}

fn describe(step: &Step) -> String {
    let ids = |blocks: &[BlockId]| blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match step {
        Step::Merge { blocks, how, reason, .. } => format!("merge ({reason:?}, {how:?}) {}", ids(blocks)),
        Step::Downsample { block, to } => format!("downsample to {}m {block}", to / 60_000),
        Step::Leave { block } => format!("mark against merging {block}"),
        Step::Mark { block, why: Why::Superseded(by) } => {
            format!("mark for deletion {block}: {by} has it all")
        }
        Step::Mark { block, why: Why::Expired } => format!("mark for deletion {block}: too old"),
        Step::Delete { block } => format!("delete {block}"),
    }
}

fn say(out: &mut dyn Write, line: &str) -> Result<(), String> {
    writeln!(out, "{line}").map_err(|e| format!("output: {e}"))
}

/// With the system's clock.
pub(crate) async fn run_now(args: CompactArgs, out: &mut dyn Write) -> Result<(), String> {
    run(args, SystemClock::shared(), out).await
}
