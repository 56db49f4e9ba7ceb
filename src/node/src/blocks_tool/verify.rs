//! What is wrong with blocks, one by one and beside each other.
//!
//! Reads every series, chunk and sample; a block that is not on this machine is fetched for that and removed again. Blocks
//! of the same labels and resolution must not overlap, unless one was made from the other, and must not have been made from
//! the same ones twice. Those marked for deletion are read, and not compared.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use koios_block::{Block, BlockMeta};
use koios_model::BlockId;
use koios_objstore::{Bucket, transfer};

use super::{Found, Marker};

/// Writes a line for each finding.
///
/// # Errors
/// When there are any.
pub(super) async fn run(
    bucket: &Bucket,
    scratch: &Path,
    found: &[Found],
    damaged: BTreeMap<BlockId, String>,
    out: &mut dyn Write,
) -> Result<(), String> {
    let mut issues: Vec<String> =
        damaged.into_iter().map(|(id, why)| format!("damaged {id}: {why}")).collect();
    for f in found {
        if let Err(why) = one(bucket, scratch, f.meta.ulid).await {
            issues.push(format!("damaged {}: {why}", f.meta.ulid));
        }
    }
    let _ = std::fs::remove_dir(scratch);
    let kept = found.iter().filter(|f| !f.marks.contains(Marker::Deletion.file()));
    issues.extend(beside(kept.map(|f| &*f.meta)));
    let write = |l: &str, out: &mut dyn Write| writeln!(out, "{l}").map_err(|e| format!("output: {e}"));
    for issue in &issues {
        write(issue, out)?;
    }
    match issues.len() {
        0 => write(&format!("{} blocks, nothing is wrong", found.len()), out),
        n => Err(format!("{n} issues in {} blocks", found.len())),
    }
}

async fn one(bucket: &Bucket, scratch: &Path, id: BlockId) -> Result<(), String> {
    let local = bucket.local_block_dir(id);
    let dir = match &local {
        Some(dir) => dir.clone(),
        None => {
            std::fs::create_dir_all(scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
            transfer::fetch_block(bucket, scratch, id).await.map_err(|e| e.to_string())?
        }
    };
    let read = dir.clone();
    let verified = tokio::task::spawn_blocking(move || Block::open(&read)?.verify().map(drop)).await;
    if local.is_none() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    verified.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

fn beside<'a>(metas: impl Iterator<Item = &'a BlockMeta>) -> Vec<String> {
    let mut groups: HashMap<(BTreeMap<String, String>, i64), Vec<&BlockMeta>> = HashMap::new();
    for m in metas {
        groups.entry((m.external_labels(), m.resolution())).or_default().push(m);
    }
    let mut issues = Vec::new();
    for group in groups.values_mut() {
        group.sort_by_key(|m| (m.min_time, m.ulid));
        let mut open: Vec<&BlockMeta> = Vec::new();
        for m in group.iter() {
            open.retain(|o| o.max_time > m.min_time);
            for o in &open {
                let (a, b) = (&o.compaction.sources, &m.compaction.sources);
                if a.len() == b.len() && a.iter().all(|s| b.contains(s)) {
                    issues.push(format!(
                        "duplicated-compaction {} {}: made from the same blocks",
                        o.ulid, m.ulid
                    ));
                } else if !o.supersedes(m) && !m.supersedes(o) {
                    issues.push(format!("overlapped-blocks {} {}: same labels and time", o.ulid, m.ulid));
                }
            }
            open.push(m);
        }
    }
    issues.sort();
    issues
}
