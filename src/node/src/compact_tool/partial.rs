//! Uploads that ended before meta.json: their files are removed when nobody wrote to them for two days.

use std::collections::BTreeMap;

use koios_model::BlockId;
use koios_objstore::Bucket;
use koios_objstore::transfer::{META, delete_block};

/// How old the newest file of an upload must be, milliseconds; Thanos' 48 hours.
const AGE_MS: i64 = 48 * 3_600_000;

/// Removes them; how many there were.
pub(super) async fn clean(bucket: &Bucket, now_ms: i64) -> Result<usize, String> {
    let all = bucket.list_modified("").await.map_err(|e| e.to_string())?;
    let dead = abandoned(&all, now_ms);
    for id in &dead {
        remove(bucket, *id).await?;
    }
    Ok(dead.len())
}

/// Deletes a block's objects, and of a local bucket its directory too.
pub(super) async fn remove(bucket: &Bucket, id: BlockId) -> Result<(), String> {
    delete_block(bucket, id).await.map_err(|e| e.to_string())?;
    if let Some(dir) = bucket.local_block_dir(id) {
        // Empty by now; what cannot be removed is no block.
        let _ = std::fs::remove_dir_all(dir);
    }
    Ok(())
}

/// Blocks without meta.json whose files are all old; objects are paths with the time of their last change.
fn abandoned(objects: &[(String, i64)], now_ms: i64) -> Vec<BlockId> {
    let mut newest: BTreeMap<BlockId, Option<i64>> = BTreeMap::new();
    for (path, modified_ms) in objects {
        let Some((id, file)) = path.split_once('/') else { continue };
        let Ok(id) = id.parse() else { continue };
        let known = newest.entry(id).or_insert(Some(*modified_ms));
        *known = known.filter(|_| file != META).map(|t| t.max(*modified_ms));
    }
    let old = |t: i64| now_ms.saturating_sub(t) > AGE_MS;
    newest.into_iter().filter(|(_, t)| t.is_some_and(old)).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_uploads_without_meta_are_abandoned() {
        let id = |n| BlockId::from_parts(n, 0);
        let now = 10 * AGE_MS;
        let object = |n, file: &str, age: i64| (format!("{}/{file}", id(n)), now - age);
        let objects = [
            object(1, "chunks/000001", AGE_MS + 1),
            object(1, "index", AGE_MS + 5),
            object(2, "chunks/000001", AGE_MS * 2),
            object(2, "index", AGE_MS),
            object(3, "index", AGE_MS * 3),
            object(3, "meta.json", AGE_MS * 3),
            object(3, "tombstones", AGE_MS * 3),
            ("notes/index".to_owned(), 0),
            ("_koios/bucket-id".to_owned(), 0),
        ];
        assert_eq!(abandoned(&objects, now), [id(1)]);
    }
}
