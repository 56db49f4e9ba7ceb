//! What may be done to a block, from what lies in the bucket.
//!
//! Looking and acting are two steps, and anything may happen in between. So each answer here stays harmless when it comes
//! late: a block only ever gains a better one that stands for it (`BlockMeta::supersedes` is an order, so two blocks never
//! stand for each other); a key decides once; meta.json goes first and the mark last, so that a deletion that ended half way
//! never looks like an upload.

use koios_block::BlockMeta;
use koios_model::BlockId;

use super::decision::Verdict;

/// What a list of the bucket says of a block's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// There is a meta.json.
    pub meta: bool,
    /// There are other files than meta.json and marks.
    pub data: bool,
    /// All files are there in the size that the description says.
    pub whole: bool,
    /// It is marked for deletion.
    pub marked: bool,
}

impl Files {
    /// Whether others may rely on the block.
    pub fn sound(self) -> bool {
        self.meta && self.whole && !self.marked
    }

    /// Whether the meta.json of a committed block may be written. Not over a block that is short of files, nor over
    /// one whose deletion has begun.
    pub fn may_finish(self) -> bool {
        !self.meta && self.whole && !self.marked
    }
}

/// What becomes of a block that has no meta.json, or nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clean {
    /// Nothing.
    Leave,
    /// Its key is created with `abort`; who wins looks again.
    Abort,
    /// Its meta.json is written from its key.
    Finish,
    /// Its files go.
    Remove,
}

/// What becomes of an upload to which nobody has written for long, or of a deletion that ended half way. The key must have
/// been read before the files were listed: what is short of files although it is decided, stays so.
pub fn clean(files: Files, decision: Option<Verdict>) -> Clean {
    if files.meta && files.data || !(files.meta || files.data || files.marked) {
        return Clean::Leave;
    }
    match decision {
        // Somebody wrote the meta.json of a block that was deleted meanwhile: an upload writes it last.
        _ if files.meta => Clean::Remove,
        _ if files.marked => Clean::Remove,
        None => Clean::Abort,
        Some(Verdict::Commit) if files.whole => Clean::Finish,
        Some(_) => Clean::Remove,
    }
}

/// Which of `sound` blocks hold everything that is in `block`: one of them, or all parts of one that was too large. A block
/// may only be marked, and a marked one only deleted, while there are such.
pub fn replacement<'a>(
    block: &BlockMeta,
    sound: impl IntoIterator<Item = &'a BlockMeta>,
) -> Option<Vec<BlockId>> {
    let first = block.compaction.sources.first()?;
    let mut parts: Vec<&BlockMeta> = Vec::new();
    for other in sound.into_iter().filter(|o| o.compaction.sources.contains(first)) {
        if other.supersedes(block) {
            return Some(vec![other.ulid]);
        }
        if other.part().is_some() && block.part().is_none() && other.ulid != block.ulid {
            parts.push(other);
        }
    }
    parts.iter().find_map(|one| {
        let (_, count) = one.part()?;
        // As if it were not a part: the rest of the rule is the same.
        let mut whole = (*one).clone();
        whole.thanos.as_mut()?.extensions = None;
        if !whole.supersedes(block) {
            return None;
        }
        let sibling = |n: u64| {
            let alike = |p: &&&BlockMeta| {
                p.part() == Some((n, count))
                    && p.compaction.sources == one.compaction.sources
                    && p.external_labels() == one.external_labels()
                    && p.resolution() == one.resolution()
            };
            parts.iter().find(alike).map(|p| p.ulid)
        };
        // A count from outside: never more than there are.
        (count as usize <= parts.len()).then(|| (0..count).map(sibling).collect::<Option<Vec<_>>>())?
    })
}

/// What becomes of a block that was marked long enough ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its files go.
    Delete,
    /// Nothing stands for it any more: the mark goes, and the block counts again.
    Unmark,
    /// It stays as it is: nothing stands for it, and it is no whole block itself.
    Leave,
}

/// What becomes of a marked block. `ordered`: the mark names no replacement, so somebody (the retention, a person, another
/// program) wants the samples gone. `replaced`: `replacement` has found one just now.
pub fn gone(files: Files, ordered: bool, replaced: bool) -> Gone {
    match files {
        Files { meta: false, .. } | Files { data: false, .. } => Gone::Delete,
        _ if ordered || replaced => Gone::Delete,
        Files { whole: true, .. } => Gone::Unmark,
        _ => Gone::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(id: u64, sources: &[u64], part: Option<(u64, u64)>) -> BlockMeta {
        let ids: Vec<String> =
            sources.iter().map(|s| format!("\"{}\"", BlockId::from_parts(*s, 0))).collect();
        let text = format!(
            r#"{{"ulid":"{}","minTime":0,"maxTime":1,"stats":{{}},"compaction":{{"level":2,"sources":[{}]}},
                "version":1,"thanos":{{"labels":{{"a":"b"}},"source":"koios"}}}}"#,
            BlockId::from_parts(id, 0),
            ids.join(",")
        );
        let mut meta = BlockMeta::parse(text.as_bytes()).unwrap();
        part.into_iter().for_each(|(n, of)| meta.set_part(n, of));
        meta
    }

    #[test]
    fn all_parts_stand_for_a_block_and_not_fewer() {
        let (a, b) = (meta(1, &[1], None), meta(2, &[2], None));
        let parts: Vec<BlockMeta> = (0..3).map(|n| meta(10 + n, &[1, 2], Some((n, 3)))).collect();
        let ids: Vec<BlockId> = parts.iter().map(|p| p.ulid).collect();
        assert_eq!(replacement(&a, &parts), Some(ids.clone()));
        assert_eq!(replacement(&b, parts.iter().rev()), Some(ids));
        assert_eq!(replacement(&a, &parts[1..]), None);
        assert_eq!(replacement(&parts[0], &parts), None, "siblings do not stand for each other");
        assert_eq!(replacement(&meta(3, &[3], None), &parts), None);
        let absurd = [meta(10, &[1, 2], Some((0, u64::MAX)))];
        assert_eq!(replacement(&a, &absurd), None);
        let one = meta(9, &[1, 2, 3], None);
        assert_eq!(replacement(&a, [&parts[0], &one]), Some(vec![one.ulid]));
        assert_eq!(replacement(&one, [&a, &one]), None);
    }

    #[test]
    fn an_upload_is_never_taken_for_a_deletion() {
        let part = Files { data: true, ..Files::default() };
        let whole = Files { whole: true, ..part };
        let (commit, abort) = (Some(Verdict::Commit), Some(Verdict::Abort));
        assert_eq!(clean(part, None), Clean::Abort);
        assert_eq!(clean(whole, None), Clean::Abort);
        assert_eq!((clean(whole, commit), clean(part, commit)), (Clean::Finish, Clean::Remove));
        assert_eq!(clean(whole, abort), Clean::Remove);
        assert_eq!(clean(Files { marked: true, ..whole }, commit), Clean::Remove);
        assert_eq!(clean(Files { marked: true, ..Files::default() }, commit), Clean::Remove);
        assert_eq!(clean(Files { meta: true, ..whole }, abort), Clean::Leave);
        assert_eq!(clean(Files { meta: true, ..Files::default() }, commit), Clean::Remove);
        assert_eq!(clean(Files::default(), commit), Clean::Leave);
        assert!(whole.may_finish() && !part.may_finish());
        assert!(!Files { marked: true, ..whole }.may_finish());
    }

    #[test]
    fn what_nothing_stands_for_is_not_deleted() {
        let sound = Files { meta: true, data: true, whole: true, marked: true };
        assert_eq!(gone(sound, false, true), Gone::Delete);
        assert_eq!(gone(sound, true, false), Gone::Delete);
        assert_eq!(gone(sound, false, false), Gone::Unmark);
        assert_eq!(gone(Files { whole: false, ..sound }, false, false), Gone::Leave);
        assert_eq!(gone(Files { meta: false, ..sound }, false, false), Gone::Delete, "it has begun");
        let bare = Files { data: false, whole: false, ..sound };
        assert_eq!(gone(bare, false, false), Gone::Delete, "nothing is in it");
    }
}
