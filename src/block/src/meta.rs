//! `meta.json`: what a block is, where it came from, what Thanos needs to know.
//!
//! Owns version 1 of Prometheus' file and Thanos' `thanos` section. Invariant: fields that this version does
//! not know are kept and written back, so a Koios rewrite loses nothing that a peer put there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use koios_model::{BlockId, Slot, failpoint};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::BlockError;

/// The file's name in a block directory.
pub const META_FILE: &str = "meta.json";
/// The external label that carries the slot of Koios' own blocks.
pub const REPLICA_LABEL: &str = "replica";
/// What `source` says in blocks of Koios.
pub const MADE_BY: &str = "koios";
/// What a replica label says where removing it would have left no external label; Thanos' word.
pub const DEDUPED: &str = "deduped";
/// Where `extensions` says which part of a block this is.
const PART: &str = "koios_part";
/// What it says in blocks that no component of Thanos made; `test` is Thanos' own word.
const OURS: [&str; 3] = ["", "test", MADE_BY];
/// Largest meta file read: one of a maximal compaction with thousands of sources is below 1 MiB.
const META_BYTES_MAX: u64 = 64 << 20;

/// Description of a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockMeta {
    /// The block's id and directory name.
    #[serde(with = "ulid_text")]
    pub ulid: BlockId,
    /// First instant covered, milliseconds.
    #[serde(rename = "minTime")]
    pub min_time: i64,
    /// End of the range, exclusive.
    #[serde(rename = "maxTime")]
    pub max_time: i64,
    /// Counts.
    #[serde(default)]
    pub stats: BlockStats,
    /// Lineage.
    #[serde(default)]
    pub compaction: Compaction,
    /// Always 1.
    pub version: u64,
    /// Thanos' section; absent in blocks that never were in a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thanos: Option<ThanosMeta>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Counts of what a block holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples of all kinds.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Float samples.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Native histogram samples.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Deleted ranges.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
    /// Fields of later versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Where a block came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// 1 for a block cut from a head.
    pub level: u32,
    /// Level-1 ancestors, the block itself at level 1.
    #[serde(with = "ulid_list", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<BlockId>,
    /// The blocks it was made from directly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<BlockDesc>,
    /// Result of a compaction without samples.
    #[serde(skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// Compacting it failed.
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Free texts such as `from-out-of-order`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A parent of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockDesc {
    /// Its id.
    #[serde(with = "ulid_text")]
    pub ulid: BlockId,
    /// First instant covered.
    pub min_time: i64,
    /// End, exclusive.
    pub max_time: i64,
}

/// Thanos' part of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThanosMeta {
    /// Version of the section; Thanos omits 0 and writes 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u64,
    /// External labels, the replica among them.
    pub labels: BTreeMap<String, String>,
    /// Resolution.
    pub downsample: Downsample,
    /// Which program made it, e.g. `sidecar`, `compactor`.
    pub source: String,
    /// Names under `chunks/`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segment_files: Vec<String>,
    /// All files with sizes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileEntry>,
    /// Anything an extension wants to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
    /// Fields of later versions: `index_stats`, `upload_time`, `rewrites` and what may come.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Resolution of the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Downsample {
    /// Milliseconds between samples, 0 for raw data.
    pub resolution: i64,
}

/// One file of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileEntry {
    /// Path below the block directory.
    pub rel_path: String,
    /// Size; absent for `meta.json` itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: u64,
    /// Fields of later versions, e.g. `hash`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What the maker of a block knows and the writer does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockMetaExtras {
    /// Compaction level; 0 stands for 1.
    pub level: u32,
    /// Level-1 ancestors; empty stands for the block itself.
    pub sources: Vec<BlockId>,
    /// Direct parents.
    pub parents: Vec<BlockDesc>,
    /// Compaction hints.
    pub hints: Vec<String>,
    /// Thanos section; the writer fills in `files` and `segment_files`.
    pub thanos: Option<ThanosMeta>,
    /// Which part of how many, of a block that would have been too large.
    pub part: Option<(u64, u64)>,
}

impl BlockMeta {
    /// Reads the file of a block directory.
    ///
    /// # Errors
    /// `BlockError::Io`, or `Meta` when it is too large, not JSON, lacks a field, or has another version.
    pub fn read(dir: &Path) -> Result<Self, BlockError> {
        let path = dir.join(META_FILE);
        let bad = |detail: String| BlockError::Meta { path: path.clone(), detail };
        let size = fs::metadata(&path).map_err(BlockError::io("stat", &path))?.len();
        if size > META_BYTES_MAX {
            return Err(bad(format!("{size} bytes is more than the {META_BYTES_MAX} a meta.json may have")));
        }
        let bytes = fs::read(&path).map_err(BlockError::io("read", &path))?;
        Self::parse(&bytes).map_err(bad)
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// A text saying what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let meta: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if meta.version != 1 {
            return Err(format!("meta.json version {} is not supported, only 1 is", meta.version));
        }
        if meta.min_time > meta.max_time {
            return Err(format!("minTime {} is after maxTime {}", meta.min_time, meta.max_time));
        }
        Ok(meta)
    }

    /// The file's bytes: JSON indented by tabs, as Prometheus and Thanos write it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut ser = serde_json::Serializer::with_formatter(
            &mut out,
            serde_json::ser::PrettyFormatter::with_indent(b"\t"),
        );
        self.serialize(&mut ser).expect("BUG: a block's meta is always valid JSON");
        out.push(b'\n');
        out
    }

    /// Writes the file durably: temporary name, sync, rename, sync of the directory.
    ///
    /// # Errors
    /// `BlockError::Io`.
    pub fn write(&self, dir: &Path) -> Result<(), BlockError> {
        let tmp = dir.join("meta.json.tmp");
        let mut file = File::create(&tmp).map_err(BlockError::io("create", &tmp))?;
        failpoint::write("meta write", &self.to_json(), |part| file.write_all(part))
            .map_err(BlockError::io("write", &tmp))?;
        failpoint::pass("meta sync");
        file.sync_all().map_err(BlockError::io("sync", &tmp))?;
        let path = dir.join(META_FILE);
        failpoint::pass("meta rename");
        fs::rename(&tmp, &path).map_err(BlockError::io("rename", &tmp))?;
        crate::dir::sync_dir(dir)
    }

    /// The replica slot that the external labels name: the label `replica`, and 0 without one. `Slot::FOREIGN` for a
    /// block of another producer.
    pub fn slot(&self) -> Slot {
        let replica = self.thanos.as_ref().and_then(|t| t.labels.get(REPLICA_LABEL));
        match self.is_foreign() {
            true => Slot::FOREIGN,
            false => Slot(replica.and_then(|r| r.parse().ok()).unwrap_or(0)),
        }
    }

    /// Whether a Prometheus or a component of Thanos wrote it: it has external labels, and it names a maker that is not
    /// Koios, or its label `replica` is no slot. What Prometheus wrote without external labels counts as ours.
    pub fn is_foreign(&self) -> bool {
        let slot = |r: &String| r.parse::<u8>().is_ok_and(|n| n < Slot::MAX);
        self.thanos.as_ref().is_some_and(|t| {
            let ours = OURS.contains(&t.source.as_str()) && t.labels.get(REPLICA_LABEL).is_none_or(slot);
            !ours && !t.labels.is_empty()
        })
    }

    /// External labels; empty for a block that never was in a bucket.
    pub fn external_labels(&self) -> BTreeMap<String, String> {
        self.thanos.as_ref().map(|t| t.labels.clone()).unwrap_or_default()
    }

    /// Which part of how many this block is of one that would have been too large: they have the same sources and share
    /// no series. `None` for a whole one.
    pub fn part(&self) -> Option<(u64, u64)> {
        let part = self.thanos.as_ref()?.extensions.as_ref()?.get(PART)?;
        Some((part.get(0)?.as_u64()?, part.get(1)?.as_u64()?))
    }

    /// Says that this block is part `number`, from 0, of `count`.
    pub fn set_part(&mut self, number: u64, count: u64) {
        let extensions =
            self.thanos.get_or_insert_default().extensions.get_or_insert_with(|| Value::Object(Map::new()));
        if let Some(all) = extensions.as_object_mut() {
            all.insert(PART.to_owned(), serde_json::json!([number, count]));
        }
    }

    /// Whether what was made of blocks with `other`'s external labels may have this block's: the same, or fewer, when
    /// replicas became one; Thanos says `deduped` where nothing would be left.
    fn stands_for_labels_of(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.external_labels(), other.external_labels());
        mine.iter().all(|(name, value)| theirs.get(name).is_some_and(|v| v == value || value == DEDUPED))
    }

    /// Whether everything that is in `other` is also in this block, by lineage: the same resolution, external labels that
    /// are the same or lack what told replicas apart, and this block was made from all of `other`'s sources and more, or
    /// from the same ones by more steps. Of two equals the smaller id wins, so of any set of blocks at least one is not
    /// superseded. A part stands for the same part only.
    pub fn supersedes(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.compaction, &other.compaction);
        if self.ulid == other.ulid
            || theirs.sources.is_empty()
            || self.resolution() != other.resolution()
            || !theirs.sources.iter().all(|s| mine.sources.contains(s))
            || self.part() != other.part()
            || !self.stands_for_labels_of(other)
        {
            return false;
        }
        if !mine.sources.iter().all(|s| theirs.sources.contains(s)) {
            return true;
        }
        match mine.level.cmp(&theirs.level) {
            std::cmp::Ordering::Equal => self.ulid < other.ulid,
            order => order.is_gt(),
        }
    }

    /// Milliseconds between samples, 0 for raw.
    pub fn resolution(&self) -> i64 {
        self.thanos.as_ref().map_or(0, |t| t.downsample.resolution)
    }

    /// Whether any instant of the inclusive range can be in the block.
    pub fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.min_time <= maxt && mint < self.max_time
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

mod ulid_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &BlockId, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BlockId, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

mod ulid_list {
    use super::*;

    pub(super) fn serialize<S: Serializer>(ids: &[BlockId], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(ids.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<BlockId>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(d)?.unwrap_or_default();
        texts.iter().map(|t| t.parse().map_err(serde::de::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{
        "ulid": "01M81QHP9VF6A7YYX6M33ADK4B", "minTime": 10, "maxTime": 21, "future": {"a": [1]},
        "stats": {"numSamples": 7, "numSeries": 2, "numChunks": 3, "numWhatever": 4},
        "compaction": {"level": 2, "sources": ["01M81QAH3VPD5DQA8SHFWPCKEB"],
            "parents": [{"ulid": "01M81QAJSGRTD1EGRWZZV9Q71M", "minTime": 10, "maxTime": 21}], "odd": true},
        "version": 1,
        "thanos": {"version": 1, "labels": {"cluster": "eu1", "replica": "1"}, "downsample": {"resolution": 300000},
            "source": "compactor", "files": [{"rel_path": "index", "size_bytes": 9, "hash": {"func": "x"}}, {"rel_path": "meta.json"}],
            "index_stats": {"series_max_size": 64}, "upload_time": "2026-11-22T13:36:21Z"}
    }"#;

    #[test]
    fn keeps_every_field_it_does_not_know() {
        let meta = BlockMeta::parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!((meta.slot(), meta.resolution(), meta.stats.num_samples), (Slot::FOREIGN, 300_000, 7));
        let back: Value = serde_json::from_slice(&meta.to_json()).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(SAMPLE).unwrap());
    }

    #[test]
    fn what_others_made_has_no_slot_of_ours() {
        let slot = |source: &str, labels: &[(&str, &str)]| {
            let mut meta = BlockMeta::parse(SAMPLE.as_bytes()).unwrap();
            let thanos = meta.thanos.as_mut().unwrap();
            thanos.source = source.to_owned();
            thanos.labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            meta.slot()
        };
        assert_eq!(slot(MADE_BY, &[("replica", "1")]), Slot(1));
        assert_eq!(slot("", &[("cluster", "eu1")]), Slot(0));
        assert_eq!(slot("sidecar", &[]), Slot(0), "nothing tells it from what we moved in");
        assert_eq!(slot("sidecar", &[("replica", "1")]), Slot::FOREIGN);
        assert_eq!(slot("compactor", &[("cluster", "eu1")]), Slot::FOREIGN);
        assert_eq!(slot(MADE_BY, &[("replica", "a")]), Slot::FOREIGN, "compacted by us, scraped by others");
        assert_eq!(slot(MADE_BY, &[("replica", "200")]), Slot::FOREIGN);
    }

    #[test]
    fn says_what_is_wrong() {
        for (from, to, want) in [
            ("\"version\": 1,\n", "\"version\": 2,\n", "version 2 is not supported"),
            ("\"maxTime\": 21, \"future", "\"maxTime\": 9, \"future", "is after maxTime"),
            ("01M81QHP9VF6A7YYX6M33ADK4B", "../../etc", "not a block id"),
            ("\"minTime\": 10, \"maxTime\": 21, \"f", "\"f", "minTime"),
        ] {
            let text = SAMPLE.replacen(from, to, 1);
            assert_ne!(text, SAMPLE);
            let err = BlockMeta::parse(text.as_bytes()).unwrap_err();
            assert!(err.contains(want), "{err}");
        }
    }

    #[test]
    fn lineage_is_a_total_order_of_copies() {
        let make = |random: u128, level: u32, sources: &[u128]| {
            let mut m = BlockMeta::parse(SAMPLE.as_bytes()).unwrap();
            m.ulid = BlockId::from_parts(1, random);
            m.compaction.level = level;
            m.compaction.sources = sources.iter().map(|s| BlockId::from_parts(0, *s)).collect();
            m
        };
        let (a, b, ab) = (make(1, 1, &[1]), make(2, 1, &[2]), make(3, 2, &[1, 2]));
        assert!(ab.supersedes(&a) && ab.supersedes(&b) && !a.supersedes(&ab) && !a.supersedes(&b));
        let (again, rewritten) = (make(4, 2, &[2, 1]), make(5, 3, &[1, 2]));
        assert!(ab.supersedes(&again) && !again.supersedes(&ab) && !ab.supersedes(&ab));
        assert!(rewritten.supersedes(&ab) && rewritten.supersedes(&again) && !ab.supersedes(&rewritten));
        let mut coarse = ab.clone();
        coarse.thanos.as_mut().unwrap().downsample.resolution = 3_600_000;
        let mut elsewhere = ab.clone();
        elsewhere.thanos.as_mut().unwrap().labels = [("cluster".to_owned(), "c2".to_owned())].into();
        assert!(!coarse.supersedes(&a) && !elsewhere.supersedes(&a));
        let mut parts = [ab.clone(), ab.clone()];
        parts.iter_mut().enumerate().for_each(|(n, p)| p.set_part(n as u64, 2));
        assert_eq!((parts[1].part(), ab.part()), (Some((1, 2)), None));
        assert!(!parts[0].supersedes(&parts[1]) && !parts[0].supersedes(&a) && !ab.supersedes(&parts[0]));
        let mut deduplicated = ab.clone();
        deduplicated.thanos.as_mut().unwrap().labels.remove("replica");
        assert!(deduplicated.supersedes(&a) && !a.supersedes(&deduplicated));
        assert!(!ab.supersedes(&make(9, 1, &[])), "a block without lineage is never thrown away for it");
    }

    #[test]
    fn range_is_half_open() {
        let meta = BlockMeta::parse(SAMPLE.as_bytes()).unwrap();
        assert!(
            meta.overlaps(20, 30) && !meta.overlaps(21, 30) && meta.overlaps(0, 10) && !meta.overlaps(0, 9)
        );
    }
}
