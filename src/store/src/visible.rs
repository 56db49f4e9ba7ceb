//! Which blocks of a bucket count already, and which do not any more.
//!
//! Owns Thanos' two delays of readers. A block that is marked for deletion (`deletion-mark.json`) is read on until
//! others had time to see what replaces it, and is left alone well before its files go. A block that somebody else has
//! just uploaded may wait until all of its files can be read everywhere; compacted ones replace what is there and do not
//! wait, and neither do our own, whose samples no head has any more. Pure.

use koios_block::BlockMeta;
use koios_model::timestamp::parse_time;
use serde_json::Value;

use crate::error::StoreError;

/// The mark of a block that will be deleted.
pub const DELETION_MARK: &str = "deletion-mark.json";
/// The mark of a block that is not compacted.
pub const NO_COMPACT_MARK: &str = "no-compact-mark.json";
/// The mark of a block that is not downsampled.
pub const NO_DOWNSAMPLE_MARK: &str = "no-downsample-mark.json";
/// All marks.
pub(crate) const MARKS: [&str; 3] = [DELETION_MARK, NO_COMPACT_MARK, NO_DOWNSAMPLE_MARK];

/// What was said about a block beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// When it was marked for deletion, milliseconds.
    pub deletion_ms: Option<i64>,
    /// Why it is not to be compacted.
    pub no_compact: Option<String>,
    /// Why it is not to be downsampled.
    pub no_downsample: Option<String>,
}

/// Why a block is left alone, from the mark's JSON. That there is a mark counts, whatever it says.
pub(crate) fn left_alone_why(bytes: &[u8]) -> String {
    let mark: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let said = ["reason", "details"].into_iter().filter_map(|f| mark[f].as_str()).filter(|t| !t.is_empty());
    let why: String = said.collect::<Vec<_>>().join(": ").chars().take(WHY_CHARS_MAX).collect();
    if why.is_empty() { "the mark does not say why".to_owned() } else { why }
}

/// Most characters of a mark's reason that are kept.
const WHY_CHARS_MAX: usize = 500;

/// Makers of blocks that replace others.
const REPLACING: [&str; 3] = ["compactor", "compactor.repair", "bucket.repair"];

/// How long blocks are and are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visibility {
    /// How long a block is read on that is marked for deletion, milliseconds.
    pub ignore_deletion_marks_ms: i64,
    /// How long a block is not read that another producer uploaded, milliseconds.
    pub consistency_delay_ms: i64,
}

impl Default for Visibility {
    fn default() -> Self {
        Self { ignore_deletion_marks_ms: 86_400_000, consistency_delay_ms: 0 }
    }
}

impl Visibility {
    /// Whether a block is read at `now_ms`; `marked_ms` is when it was marked for deletion.
    pub fn shows(&self, meta: &BlockMeta, marked_ms: Option<i64>, now_ms: i64) -> bool {
        let over = marked_ms.is_some_and(|t| now_ms.saturating_sub(t) > self.ignore_deletion_marks_ms);
        let source = meta.thanos.as_ref().map_or("", |t| t.source.as_str());
        let may_wait = self.consistency_delay_ms > 0 && meta.is_foreign() && !REPLACING.contains(&source);
        let waits = may_wait && now_ms.saturating_sub(uploaded_ms(meta)) < self.consistency_delay_ms;
        !over && !waits
    }
}

/// When a block was uploaded: as it says, else when its id was made.
fn uploaded_ms(meta: &BlockMeta) -> i64 {
    let said = meta.thanos.as_ref().and_then(|t| t.other.get("upload_time")).and_then(Value::as_str);
    said.and_then(parse_time).unwrap_or_else(|| i64::try_from(meta.ulid.timestamp_ms()).unwrap_or(i64::MAX))
}

/// When a block was marked for deletion, milliseconds, from the mark's JSON.
///
/// # Errors
/// `Mark` when it is not a mark of version 1.
pub fn marked_ms(bytes: &[u8]) -> Result<i64, StoreError> {
    let bad = |why: &str| StoreError::Mark(why.to_owned());
    let mark: Value = serde_json::from_slice(bytes).map_err(|e| StoreError::Mark(e.to_string()))?;
    match (mark["version"].as_i64(), mark["deletion_time"].as_i64()) {
        (Some(1), Some(seconds)) => Ok(seconds.saturating_mul(1000)),
        (Some(1), None) => Err(bad("no deletion_time")),
        (version, _) => Err(bad(&format!("version {version:?}, only 1 is known"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(source: &str, uploaded: &str) -> BlockMeta {
        let text = format!(
            r#"{{"ulid":"01M81QHP9VF6A7YYX6M33ADK4B","minTime":0,"maxTime":1,"stats":{{}},"compaction":{{"level":1}},
                "version":1,"thanos":{{"labels":{{"a":"b"}},"source":"{source}"{uploaded}}}}}"#
        );
        BlockMeta::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn marked_blocks_are_read_for_a_day() {
        let v = Visibility::default();
        let m = meta("compactor", "");
        assert!(
            v.shows(&m, None, 0) && v.shows(&m, Some(0), 86_400_000) && !v.shows(&m, Some(0), 86_400_001)
        );
    }

    #[test]
    fn only_what_others_uploaded_waits() {
        let v = Visibility { consistency_delay_ms: 60_000, ..Visibility::default() };
        let at = r#","upload_time":"1970-01-01T00:01:00Z""#;
        assert!(
            !v.shows(&meta("sidecar", at), None, 119_999) && v.shows(&meta("sidecar", at), None, 120_000)
        );
        assert!(v.shows(&meta("compactor", at), None, 60_000) && v.shows(&meta("koios", at), None, 60_000));
        let made = meta("sidecar", "").ulid.timestamp_ms() as i64;
        assert!(
            !v.shows(&meta("sidecar", ""), None, made) && v.shows(&meta("sidecar", ""), None, made + 60_000)
        );
    }

    #[test]
    fn a_mark_that_leaves_a_block_alone_needs_no_reason() {
        let said = br#"{"id":"x","version":1,"details":"by hand","no_compact_time":5,"reason":"manual"}"#;
        assert_eq!(left_alone_why(said), "manual: by hand");
        for said in [&b"{half"[..], b"{}", b"[]"] {
            assert_eq!(left_alone_why(said), "the mark does not say why");
        }
    }

    #[test]
    fn marks_are_read_or_refused() {
        assert_eq!(marked_ms(br#"{"id":"x","version":1,"details":"d","deletion_time":5}"#).unwrap(), 5000);
        for bad in ["", "{}", r#"{"version":1}"#, r#"{"version":2,"deletion_time":5}"#] {
            assert!(marked_ms(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
