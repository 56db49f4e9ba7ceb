//! What lies in the bucket.
//!
//! The catalogue is the list of blocks with a readable meta.json; `known` reads those that were not seen. A block whose
//! meta.json is missing (an upload under way) is asked for again next time. What is marked for deletion is found by one list of
//! the bucket every five minutes, and which blocks count is decided in `visible`. Views are immutable. Bound: 100,000 blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use koios_block::BlockMeta;
use koios_model::{BlockId, Clock};
use koios_objstore::{Bucket, ObjstoreError};

use crate::cover::Cover;
use crate::error::StoreError;
use crate::known::Known;
use crate::visible::{DELETION_MARK, MARKS, Marks, NO_COMPACT_MARK, Visibility, left_alone_why, marked_ms};

/// Most blocks a catalogue holds; beyond that the newest are kept.
pub const BLOCKS_MAX: usize = 100_000;
/// Time between two looks for marks: five minutes.
const MARKS_EVERY_NS: u64 = 300_000_000_000;

/// An immutable picture of the bucket.
#[derive(Clone, Debug, Default)]
pub struct CatalogueView {
    blocks: BTreeMap<BlockId, Arc<BlockMeta>>,
    damaged: BTreeMap<BlockId, String>,
    /// Blocks of which sound ones hold everything.
    superseded: BTreeSet<BlockId>,
    settled: Arc<BTreeMap<String, i64>>,
    marks: Arc<BTreeMap<BlockId, Marks>>,
    read: bool,
    read_ms: i64,
}

impl CatalogueView {
    /// What was read of a bucket.
    pub fn new(blocks: BTreeMap<BlockId, Arc<BlockMeta>>, damaged: BTreeMap<BlockId, String>) -> Self {
        let superseded = superseded(&blocks, &damaged);
        let (settled, marks) = Default::default();
        Self { blocks, damaged, superseded, settled, marks, read: true, read_ms: 0 }
    }

    /// The same picture, with what is marked in it, read at `read_ms`.
    #[must_use]
    pub fn with_marks(self, marks: Arc<BTreeMap<BlockId, Marks>>, read_ms: i64) -> Self {
        Self { marks, read_ms, ..self }
    }

    /// What was said about a block beside it.
    pub fn marks(&self, id: BlockId) -> Option<&Marks> {
        self.marks.get(&id)
    }

    /// When the bucket was read, milliseconds.
    pub fn read_ms(&self) -> i64 {
        self.read_ms
    }

    /// The same picture, with the nodes whose logs were made into blocks that it shows.
    #[must_use]
    pub fn with_settled(&self, settled: Arc<BTreeMap<String, i64>>) -> Self {
        Self { settled, ..self.clone() }
    }

    /// The time before which these blocks have everything that a node acknowledged, because its log was adopted,
    /// milliseconds; `None` when that is not known.
    pub fn settled(&self, node: &str) -> Option<i64> {
        self.settled.get(node).copied()
    }

    /// Blocks with a readable meta.json.
    pub fn blocks(&self) -> &BTreeMap<BlockId, Arc<BlockMeta>> {
        &self.blocks
    }

    /// Blocks put aside, with the reason. One that is in `blocks` too counts for nothing that a sound one holds; where
    /// none does, `cover` still names it, so that an answer says what it lacks.
    pub fn damaged(&self) -> &BTreeMap<BlockId, String> {
        &self.damaged
    }

    /// Whether the bucket was read at all: an empty picture of a bucket that nobody looked at says nothing.
    pub fn read(&self) -> bool {
        self.read
    }

    /// The same picture without `gone`, and with more that is known to be damaged.
    #[must_use]
    pub fn less(&self, gone: &BTreeSet<BlockId>, damaged: BTreeMap<BlockId, String>) -> Self {
        let mut next = self.clone();
        next.blocks.retain(|id, _| !gone.contains(id));
        next.damaged.extend(damaged);
        next.superseded = superseded(&next.blocks, &next.damaged);
        next
    }

    /// The raw blocks to read for samples in `[mint, maxt]`: those that overlap, less those that
    /// another one supersedes (`BlockMeta::supersedes`). Ascending by id.
    pub fn cover(&self, mint: i64, maxt: i64) -> Vec<BlockId> {
        self.counting().filter(|m| m.resolution() == 0 && m.overlaps(mint, maxt)).map(|m| m.ulid).collect()
    }

    /// The blocks to read when downsampled ones will do, of a resolution of at most `resolution_max` milliseconds, and
    /// which part of the time is to be read of each, see `crate::cover`.
    pub fn cover_at(&self, mint: i64, maxt: i64, resolution_max: i64) -> Cover {
        if resolution_max <= 0 {
            return self.cover(mint, maxt).into_iter().map(|id| (id, vec![(mint, maxt)])).collect();
        }
        let of_use = self.counting().filter(|m| m.resolution() == 0 || !self.damaged.contains_key(&m.ulid));
        crate::cover::coarsest(of_use, (mint, maxt), resolution_max)
    }

    /// Blocks that no other one stands for, ascending by id.
    pub fn counting(&self) -> impl Iterator<Item = &Arc<BlockMeta>> {
        self.blocks.values().filter(|m| !self.superseded.contains(&m.ulid))
    }

    /// Whether sound blocks hold everything that is in this one.
    pub fn superseded(&self, id: BlockId) -> bool {
        self.superseded.contains(&id)
    }

    /// Whether the samples of block `id` are here: itself, or a block made from it.
    pub fn holds(&self, id: BlockId) -> bool {
        self.blocks.contains_key(&id)
            || self.blocks.values().any(|m| m.resolution() == 0 && m.compaction.sources.contains(&id))
    }

    /// First moment of any block, milliseconds.
    pub fn min_time(&self) -> Option<i64> {
        self.blocks.values().map(|m| m.min_time).min()
    }

    /// Order-independent digest of the block ids; 0 for an empty bucket.
    pub fn digest(&self) -> u64 {
        self.blocks.keys().fold(0, |d, id| {
            let bits = id.to_u128();
            d ^ ((bits as u64) ^ ((bits >> 64) as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }
}

/// Blocks of which sound ones hold everything: a better one does, or, of a damaged one, others hold all its sources.
fn superseded(
    blocks: &BTreeMap<BlockId, Arc<BlockMeta>>,
    damaged: &BTreeMap<BlockId, String>,
) -> BTreeSet<BlockId> {
    // Whoever holds all sources of a block holds its first.
    let mut holders: HashMap<(i64, BlockId), Vec<&BlockMeta>> = HashMap::new();
    for m in blocks.values().filter(|m| !damaged.contains_key(&m.ulid)) {
        for s in &m.compaction.sources {
            holders.entry((m.resolution(), *s)).or_default().push(m);
        }
    }
    let held = |m: &BlockMeta, s: &BlockId| holders.get(&(m.resolution(), *s)).map_or(&[][..], Vec::as_slice);
    let stood_for = |m: &BlockMeta| {
        let Some(first) = m.compaction.sources.first() else { return false };
        let elsewhere = |s: &BlockId| held(m, s).iter().any(|o| o.ulid != m.ulid);
        held(m, first).iter().any(|o| o.supersedes(m))
            || (damaged.contains_key(&m.ulid) && m.compaction.sources.iter().all(elsewhere))
    };
    blocks.values().filter(|m| stood_for(m)).map(|m| m.ulid).collect()
}

/// Reads the bucket and keeps what it has read.
pub struct Catalogue {
    bucket: Bucket,
    clock: Arc<dyn Clock>,
    visibility: Visibility,
    known: Known,
    view: Arc<CatalogueView>,
    marks: Arc<BTreeMap<BlockId, Marks>>,
    /// When marks were looked for, monotonic nanoseconds.
    marks_ns: Option<u64>,
}

impl Catalogue {
    /// An empty catalogue of `bucket`.
    pub fn new(bucket: Bucket, clock: Arc<dyn Clock>, visibility: Visibility) -> Self {
        let (view, known, marks) = (Arc::default(), Known::default(), Arc::default());
        Self { bucket, clock, visibility, view, known, marks, marks_ns: None }
    }

    /// The same catalogue, which holds what it read in `file` over a restart.
    #[must_use]
    pub fn kept_in(mut self, file: PathBuf) -> Self {
        self.known = Known::kept_in(file, &self.bucket);
        self
    }

    /// The last picture.
    pub fn view(&self) -> Arc<CatalogueView> {
        self.view.clone()
    }

    /// Takes a new picture.
    ///
    /// # Errors
    /// When the bucket cannot be listed; the last picture stays.
    pub async fn refresh(&mut self) -> Result<Arc<CatalogueView>, StoreError> {
        let (mut blocks, damaged) = self.known.picture(&self.bucket).await?;
        self.look_for_marks(&blocks).await?;
        let now_ms = self.clock.now_ms();
        let deleted_ms = |id: &BlockId| self.marks.get(id).and_then(|m| m.deletion_ms);
        blocks.retain(|id, m| self.visibility.shows(m, deleted_ms(id), now_ms));
        let view = CatalogueView::new(blocks, damaged).with_marks(self.marks.clone(), now_ms);
        self.view = Arc::new(view);
        Ok(self.view.clone())
    }

    /// Marks matter a day after they were made, so they are not looked for each time.
    async fn look_for_marks(&mut self, known: &BTreeMap<BlockId, Arc<BlockMeta>>) -> Result<(), StoreError> {
        let now_ns = self.clock.mono_ns();
        let due = self.marks_ns.is_none_or(|t| now_ns.saturating_sub(t) >= MARKS_EVERY_NS);
        if !due || known.is_empty() {
            return Ok(());
        }
        let found = self.bucket.blocks_with(&MARKS).await?;
        let mut marks = BTreeMap::new();
        for (id, files) in found.into_iter().filter(|(id, _)| known.contains_key(id)) {
            let before = self.marks.get(&id).cloned().unwrap_or_default();
            let mut now = Marks::default();
            for file in files {
                self.read_mark(id, file, &before, &mut now).await?;
            }
            marks.insert(id, now);
        }
        self.marks = Arc::new(marks);
        self.marks_ns = Some(now_ns);
        Ok(())
    }

    /// Reads a mark unless it was read before.
    async fn read_mark(
        &self,
        id: BlockId,
        file: &str,
        before: &Marks,
        now: &mut Marks,
    ) -> Result<(), StoreError> {
        let (known, place) = match file {
            DELETION_MARK => {
                now.deletion_ms = before.deletion_ms;
                (now.deletion_ms.is_some(), None)
            }
            NO_COMPACT_MARK => {
                now.no_compact.clone_from(&before.no_compact);
                (now.no_compact.is_some(), Some(&mut now.no_compact))
            }
            _ => {
                now.no_downsample.clone_from(&before.no_downsample);
                (now.no_downsample.is_some(), Some(&mut now.no_downsample))
            }
        };
        if known {
            return Ok(());
        }
        match (self.bucket.get(&format!("{id}/{file}")).await, place) {
            (Ok(bytes), Some(place)) => *place = Some(left_alone_why(&bytes)),
            (Ok(bytes), None) => match marked_ms(&bytes) {
                Ok(t) => now.deletion_ms = Some(t),
                Err(why) => tracing::warn!(block = %id, %why, "a mark is passed over"),
            },
            (Err(ObjstoreError::NotFound(_)), _) => {}
            (Err(e), _) => return Err(e.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::ManualClock;
    use koios_objstore::BucketConfig;

    fn id(n: u64) -> BlockId {
        BlockId::from_parts(n, 0)
    }

    fn meta(n: u64, range: (i64, i64), sources: &[u64], resolution: i64) -> Arc<BlockMeta> {
        let sources: Vec<String> = sources.iter().map(|s| format!("\"{}\"", id(*s))).collect();
        let json = format!(
            r#"{{"ulid":"{}","minTime":{},"maxTime":{},"stats":{{}},"compaction":{{"level":1,"sources":[{}]}},"version":1,
                "thanos":{{"labels":{{"replica":"0"}},"downsample":{{"resolution":{resolution}}},"source":"test"}}}}"#,
            id(n),
            range.0,
            range.1,
            sources.join(",")
        );
        Arc::new(BlockMeta::parse(json.as_bytes()).unwrap())
    }

    fn view(metas: Vec<Arc<BlockMeta>>) -> CatalogueView {
        CatalogueView::new(metas.into_iter().map(|m| (m.ulid, m)).collect(), BTreeMap::new())
    }

    #[test]
    fn cover_takes_the_compacted_block_and_not_its_sources() {
        let v = view(vec![
            meta(1, (0, 10), &[1], 0),
            meta(2, (10, 20), &[2], 0),
            meta(3, (0, 20), &[1, 2], 0),
            meta(4, (20, 30), &[4], 0),
            meta(5, (0, 20), &[1, 2], 300_000),
            meta(6, (0, 20), &[1, 2], 0),
        ]);
        assert_eq!(v.cover(0, 100), [id(3), id(4)], "of two equal outputs the smaller id");
        assert_eq!(v.cover(25, 26), [id(4)]);
        assert_eq!(v.cover(30, 40), [], "maxTime is exclusive");
        assert_eq!(v.min_time(), Some(0));
        let torn = v.less(&BTreeSet::new(), [3, 6].map(|n| (id(n), "torn".to_owned())).into());
        assert_eq!(torn.cover(0, 100), [id(1), id(2), id(4)], "sources stand in for damaged outputs");
        let torn = torn.less(&[id(2)].into(), BTreeMap::new());
        assert_eq!(torn.cover(0, 100), [id(1), id(3), id(4), id(6)], "what is missing is named");
        let later = view(vec![meta(3, (0, 20), &[1, 2], 0)]);
        assert!(later.holds(id(1)) && later.holds(id(3)) && !later.holds(id(4)));
        assert_ne!(v.digest(), view(vec![]).digest());
    }

    #[tokio::test]
    async fn refresh_reads_new_metas_puts_damaged_aside_and_waits_for_uploads() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(&BucketConfig::directory(dir.path()), id(99)).await.unwrap();
        let clock = ManualClock::at(0);
        let mut catalogue = Catalogue::new(bucket.clone(), clock.clone(), Visibility::default());
        assert!(catalogue.refresh().await.unwrap().blocks().is_empty());
        let put = async |n: u64, file: &str, bytes: &[u8]| {
            bucket.put(&format!("{}/{file}", id(n)), bytes.to_vec()).await.unwrap();
        };
        put(1, "meta.json", &meta(1, (0, 10), &[1], 0).to_json()).await;
        put(2, "index", b"upload under way").await;
        put(3, "meta.json", b"{broken").await;
        put(4, "meta.json", &meta(1, (0, 10), &[1], 0).to_json()).await;
        let v = catalogue.refresh().await.unwrap();
        assert_eq!(v.blocks().keys().copied().collect::<Vec<_>>(), [id(1)]);
        assert_eq!(v.damaged().keys().copied().collect::<Vec<_>>(), [id(3), id(4)]);
        put(2, "meta.json", &meta(2, (10, 20), &[2], 0).to_json()).await;
        assert_eq!(catalogue.refresh().await.unwrap().blocks().len(), 2);

        let mark = |s: i64| format!(r#"{{"id":"x","version":1,"details":"","deletion_time":{s}}}"#);
        put(1, DELETION_MARK, mark(0).as_bytes()).await;
        put(2, DELETION_MARK, b"{half").await;
        clock.advance_ms(299_000);
        assert_eq!(catalogue.refresh().await.unwrap().blocks().len(), 2, "not looked for yet");
        clock.advance_ms(86_400_000);
        let v = catalogue.refresh().await.unwrap();
        assert_eq!(
            v.blocks().keys().copied().collect::<Vec<_>>(),
            [id(2)],
            "a day is over; half a mark is none"
        );
        bucket.delete(&format!("{}/{DELETION_MARK}", id(1))).await.unwrap();
        put(2, NO_COMPACT_MARK, br#"{"reason":"manual"}"#).await;
        clock.advance_ms(300_000);
        let v = catalogue.refresh().await.unwrap();
        assert_eq!(v.blocks().len(), 2, "the mark was taken back");
        assert_eq!(v.marks(id(1)), None);
        assert_eq!(v.marks(id(2)).unwrap().no_compact.as_deref(), Some("manual"));
    }
}
