//! The key that makes an output count.
//!
//! Whoever has uploaded all of a block but its meta.json creates `_koios/decision/<ULID>` with `commit` and the whole
//! meta.json; whoever wants an abandoned upload away creates the same key with `abort` first. Creating has one winner, so
//! files are never removed of a block that counts, and a block never comes to count of which files were removed. After a commit
//! anybody can write the meta.json. A block id belongs to one attempt; no other attempt uses it again.

use koios_block::BlockMeta;
use koios_model::BlockId;
use serde::{Deserialize, Serialize};

/// Folder of the keys.
pub const FOLDER: &str = "_koios/decision";

/// Path of a block's key.
pub fn key(block: BlockId) -> String {
    format!("{FOLDER}/{block}")
}

/// The block whose key a path is.
pub fn block_of(path: &str) -> Option<BlockId> {
    path.strip_prefix(FOLDER)?.strip_prefix('/')?.parse().ok()
}

/// What lies under the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Decision {
    /// The block counts.
    Commit {
        /// Its whole meta.json.
        meta: String,
        /// The plan that it was made by.
        plan: String,
        /// The group of the lease under which it was made.
        group: String,
        /// Number of that lease.
        term: u64,
        /// Who made it.
        by: String,
    },
    /// It never will.
    Abort {
        /// Who decided so.
        by: String,
    },
}

impl Decision {
    /// Reads the object.
    ///
    /// # Errors
    /// What is wrong with it, as text.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("a decision that cannot be read: {e}"))
    }

    /// The object.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("BUG: a decision is always valid JSON")
    }

    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Commit { .. } => Verdict::Commit,
            Self::Abort { .. } => Verdict::Abort,
        }
    }

    /// The description of a committed block.
    pub fn meta(&self) -> Option<BlockMeta> {
        match self {
            Self::Commit { meta, .. } => BlockMeta::parse(meta.as_bytes()).ok(),
            Self::Abort { .. } => None,
        }
    }
}

/// What a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The block counts.
    Commit,
    /// It never will.
    Abort,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let id = BlockId::from_parts(7, 7);
        assert_eq!(block_of(&key(id)), Some(id));
        for no in ["_koios/decision/wal/n/1", "_koios/decision", "_koios/plan/x", "_koios/decisionX"] {
            assert_eq!(block_of(no), None, "{no}");
        }
        let (meta, plan) = ("{}".to_owned(), "p".to_owned());
        let commit = Decision::Commit { meta, plan, group: "g".to_owned(), term: 3, by: "n".to_owned() };
        let text = r#"{"verdict":"commit","meta":"{}","plan":"p","group":"g","term":3,"by":"n"}"#;
        assert_eq!(String::from_utf8(commit.to_json()).unwrap(), text);
        let abort = Decision::Abort { by: "m".to_owned() };
        for d in [commit, abort] {
            assert_eq!(Decision::parse(&d.to_json()), Ok(d.clone()));
            assert_eq!(d.meta(), None);
        }
        assert!(Decision::parse(b"{\"verdict\":\"maybe\"}").is_err());
    }
}
