//! The chain of decisions of a log, and what became of the log, as they lie in the bucket.
//!
//! Owns reading and creating; what they mean is `koios_cluster::adoption`. Invariant: a decision is made by
//! create-if-absent, and an answer that is neither success nor refusal is settled by reading the key.

use std::collections::BTreeMap;

use koios_cluster::adoption::{Commit, Created, Decision, LogId, Outcome, Seen, judge};
use koios_objstore::{Bucket, ObjstoreError};
use serde::{Deserialize, Serialize};

/// Folder of all shipped logs.
pub const LOGS: &str = "_koios/wal";
/// Folder of all decisions about them.
pub const DECISIONS: &str = "_koios/decision/wal";
/// How often a create that nobody answered is tried again.
const TRIES: usize = 3;

/// What lies under a log's commit key: all blocks of the adopted range. The first is the core's commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The first block.
    #[serde(flatten)]
    pub first: Commit,
    /// The others, of other slots and stretches of time.
    #[serde(default)]
    pub more: Vec<Commit>,
    /// The blocks hold all that the lost node acknowledged of times before this, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<i64>,
}

impl Committed {
    /// Of blocks by the author `by`; none for a range without samples.
    pub fn new(blocks: Vec<(String, String)>, by: &str, settled: Option<i64>) -> Self {
        let one = |(block, meta)| Commit { block: Some(block), meta, by: by.to_owned() };
        let mut all = blocks.into_iter().map(one);
        let empty = || Commit { block: None, meta: String::new(), by: by.to_owned() };
        Self { first: all.next().unwrap_or_else(empty), more: all.collect(), settled }
    }

    /// All blocks.
    pub fn all(&self) -> impl Iterator<Item = &Commit> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

fn text(e: &ObjstoreError) -> String {
    e.to_string()
}

async fn get<T: for<'a> Deserialize<'a>>(bucket: &Bucket, path: &str) -> Result<Option<T>, String> {
    match bucket.get(path).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| format!("{path}: {e}")),
        Err(ObjstoreError::NotFound(_)) => Ok(None),
        Err(e) => Err(text(&e)),
    }
}

/// What became of an adopted range.
///
/// # Errors
/// When the store does not answer.
pub async fn committed(bucket: &Bucket, log: &LogId) -> Result<Option<Committed>, String> {
    get(bucket, &log.commit_key()).await
}

/// Reads the chain of one log. `last_segment` is left empty.
///
/// # Errors
/// When the store does not answer, or holds something else there.
pub async fn read(bucket: &Bucket, log: &LogId) -> Result<Seen, String> {
    let objects = bucket.list(&log.decisions()).await.map_err(|e| text(&e))?;
    let last = objects.iter().filter_map(|(path, _)| path.rsplit('/').next()?.parse::<u64>().ok()).max();
    let mut seen = Seen::default();
    if let Some(term) = last {
        seen.last = decision(bucket, log, term).await?.map(|d| (term, d));
    }
    if objects.iter().any(|(path, _)| *path == log.commit_key()) {
        seen.commit = committed(bucket, log).await?.map(|c| c.first);
    }
    Ok(seen)
}

/// Makes a decision, unless somebody else was first.
///
/// # Errors
/// When it stays unknown whether it was made.
pub async fn decide(bucket: &Bucket, log: &LogId, term: u64, mine: &Decision) -> Result<bool, String> {
    let key = log.decision_key(term);
    let body = serde_json::to_vec(mine).expect("BUG: a decision that is no JSON");
    for _ in 0..TRIES {
        let created = match bucket.create(&key, body.clone()).await {
            Ok(()) => Created::Won,
            Err(_) => get(bucket, &key).await?.map_or(Created::Absent, Created::Holds),
        };
        match judge(mine, &created) {
            Outcome::Won => return Ok(true),
            Outcome::Lost => return Ok(false),
            Outcome::Again => {}
        }
    }
    Err(format!("{key}: the store neither takes the decision nor has another one"))
}

/// Commits blocks for an adopted range, unless somebody else did; answers what is committed.
///
/// # Errors
/// When it stays unknown.
pub async fn commit(bucket: &Bucket, log: &LogId, mine: &Committed) -> Result<Committed, String> {
    let body = serde_json::to_vec(mine).expect("BUG: a commit that is no JSON");
    for _ in 0..TRIES {
        if bucket.create(&log.commit_key(), body.clone()).await.is_ok() {
            return Ok(mine.clone());
        }
        if let Some(there) = committed(bucket, log).await? {
            return Ok(there);
        }
    }
    Err(format!("{}: the store neither takes the commit nor has another one", log.commit_key()))
}

/// Log and number in the path of an object below `root`.
fn place(path: &str, root: &str) -> Option<(LogId, String)> {
    let mut parts = path.strip_prefix(root)?.trim_start_matches('/').split('/');
    let (node, log, name) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    Some((LogId { node: node.to_owned(), log }, name.to_owned()))
}

/// The numbers of all shipped objects, by log.
///
/// # Errors
/// When the store does not answer.
pub async fn shipped(bucket: &Bucket) -> Result<BTreeMap<LogId, Vec<u64>>, String> {
    let mut logs: BTreeMap<LogId, Vec<u64>> = BTreeMap::new();
    for (path, _) in bucket.list(LOGS).await.map_err(|e| text(&e))? {
        if let Some((log, name)) = place(&path, LOGS)
            && let Ok(number) = name.parse()
        {
            logs.entry(log).or_default().push(number);
        }
    }
    logs.values_mut().for_each(|n| n.sort_unstable());
    Ok(logs)
}

/// What a listing tells of a log's chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Number of the last decision.
    pub last: Option<u64>,
    /// Whether blocks are committed.
    pub committed: bool,
}

/// The logs that were decided about.
///
/// # Errors
/// When the store does not answer.
pub async fn decided(bucket: &Bucket) -> Result<BTreeMap<LogId, Decided>, String> {
    let mut logs: BTreeMap<LogId, Decided> = BTreeMap::new();
    for (path, _) in bucket.list(DECISIONS).await.map_err(|e| text(&e))? {
        let Some((log, name)) = place(&path, DECISIONS) else { continue };
        let decided = logs.entry(log).or_default();
        decided.last = decided.last.max(name.parse().ok());
        decided.committed |= name == "block";
    }
    Ok(logs)
}

/// A decision.
///
/// # Errors
/// When the store does not answer.
pub async fn decision(bucket: &Bucket, log: &LogId, term: u64) -> Result<Option<Decision>, String> {
    get(bucket, &log.decision_key(term)).await
}

/// Removes the chain of a log that is done with, the commit last.
///
/// # Errors
/// When the store does not answer; doing it again resumes.
pub async fn forget(bucket: &Bucket, log: &LogId) -> Result<(), String> {
    let objects = bucket.list(&log.decisions()).await.map_err(|e| text(&e))?;
    let terms = objects.into_iter().map(|(path, _)| path).filter(|path| *path != log.commit_key());
    for path in terms.chain([log.commit_key()]) {
        bucket.delete(&path).await.map_err(|e| text(&e))?;
    }
    Ok(())
}
