//! Which blocks a question reads when downsampled ones will do.
//!
//! Pure. Blocks of equal external labels are a group, and groups know nothing of each other. Within a group the coarsest
//! blocks that are allowed come first; time that none of them holds is read from finer ones, and from those only that
//! time, as a Thanos store gateway fills gaps. Invariants: no moment is read at two resolutions of a group, and none
//! stays unread that an allowed block of the group holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use koios_block::BlockMeta;
use koios_model::BlockId;

/// Blocks, and the inclusive ranges of time that are to be read of each.
pub type Cover = BTreeMap<BlockId, Vec<(i64, i64)>>;

/// Covers the inclusive `range` with `blocks` of at most this resolution. None of the blocks stands for another one.
pub fn coarsest<'a>(
    blocks: impl Iterator<Item = &'a Arc<BlockMeta>>,
    range: (i64, i64),
    resolution_max: i64,
) -> Cover {
    let mut groups: BTreeMap<_, BTreeMap<i64, Vec<&BlockMeta>>> = BTreeMap::new();
    for m in blocks.filter(|m| m.resolution() <= resolution_max && m.overlaps(range.0, range.1)) {
        let group = groups.entry(m.external_labels()).or_default();
        group.entry(m.resolution()).or_default().push(m);
    }
    let mut cover = Cover::new();
    for mut levels in groups.into_values() {
        levels.values_mut().for_each(|l| l.sort_by_key(|m| (m.min_time, m.max_time, m.ulid)));
        let levels: Vec<Vec<&BlockMeta>> = levels.into_values().rev().collect();
        fill(&levels, range, &mut cover);
    }
    cover
}

/// Takes the blocks of the first level, and the others for what lies between.
fn fill(levels: &[Vec<&BlockMeta>], (mint, maxt): (i64, i64), cover: &mut Cover) {
    let Some((first, finer)) = levels.split_first() else { return };
    if mint > maxt {
        return;
    }
    let mut from = mint;
    for m in first.iter().filter(|m| m.overlaps(mint, maxt)) {
        fill(finer, (from, maxt.min(m.min_time.saturating_sub(1))), cover);
        cover.entry(m.ulid).or_default().push((mint, maxt));
        from = from.max(m.max_time);
    }
    fill(finer, (from, maxt), cover);
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_block::meta::ThanosMeta;
    use proptest::prelude::*;

    fn block(n: u64, (from, until): (i64, i64), resolution: i64, replica: &str) -> Arc<BlockMeta> {
        let text = format!(
            r#"{{"ulid":"{}","minTime":{from},"maxTime":{until},"stats":{{}},"compaction":{{"level":1}},"version":1}}"#,
            BlockId::from_parts(n, 0)
        );
        let mut thanos = ThanosMeta::default();
        thanos.labels.insert("replica".to_owned(), replica.to_owned());
        thanos.downsample.resolution = resolution;
        let meta = BlockMeta::parse(text.as_bytes()).unwrap();
        Arc::new(BlockMeta { thanos: Some(thanos), ..meta })
    }

    fn covered(blocks: &[Arc<BlockMeta>], range: (i64, i64), max: i64) -> Vec<(u64, Vec<(i64, i64)>)> {
        let cover = coarsest(blocks.iter(), range, max);
        cover.into_iter().map(|(id, ranges)| (id.timestamp_ms(), ranges)).collect()
    }

    #[test]
    fn coarse_first_and_gaps_from_finer_ones() {
        let blocks = [
            block(1, (0, 100), 0, "a"),
            block(2, (100, 200), 0, "a"),
            block(3, (0, 100), 300_000, "a"),
            block(4, (0, 50), 3_600_000, "a"),
            block(5, (0, 200), 0, "b"),
        ];
        let all = (0, 199);
        assert_eq!(covered(&blocks, all, 0), [(1, vec![all]), (2, vec![all]), (5, vec![all])]);
        assert_eq!(covered(&blocks, all, 299_999), covered(&blocks, all, 0), "no block of that resolution");
        assert_eq!(covered(&blocks, all, 300_000), [(2, vec![(100, 199)]), (3, vec![all]), (5, vec![all])]);
        let hour = [(2, vec![(100, 199)]), (3, vec![(50, 199)]), (4, vec![all]), (5, vec![all])];
        assert_eq!(covered(&blocks, all, 3_600_000), hour);
        assert_eq!(covered(&blocks, (120, 130), 3_600_000), [(2, vec![(120, 130)]), (5, vec![(120, 130)])]);
        let around = [block(1, (0, 100), 0, "a"), block(2, (40, 60), 300_000, "a")];
        assert_eq!(covered(&around, (0, 99), 300_000), [(1, vec![(0, 39), (60, 99)]), (2, vec![(0, 99)])]);
    }

    proptest! {
        /// Every moment that an allowed block holds is read, at one resolution.
        #[test]
        fn nothing_twice_and_no_gap(
            made in proptest::collection::vec((0i64..40, 1i64..20, 0usize..3), 1..12),
            range in (0i64..50, 0i64..50),
            max in 0usize..3,
        ) {
            let resolutions = [0, 300_000, 3_600_000];
            let range = (range.0.min(range.1), range.0.max(range.1));
            let blocks: Vec<_> = made.iter().zip(1..)
                .map(|((from, len, r), n)| block(n, (*from, from + len), resolutions[*r], "a"))
                .collect();
            let cover = coarsest(blocks.iter(), range, resolutions[max]);
            for t in range.0..=range.1 {
                let holding = |m: &&Arc<BlockMeta>| m.resolution() <= resolutions[max] && m.overlaps(t, t);
                let reads = |m: &&Arc<BlockMeta>| {
                    let ranges = cover.get(&m.ulid).into_iter().flatten();
                    ranges.filter(|r| r.0 <= t && t <= r.1).count()
                };
                let best = blocks.iter().filter(holding).map(|m| m.resolution()).max();
                for m in blocks.iter().filter(holding) {
                    let expected = usize::from(Some(m.resolution()) == best);
                    prop_assert_eq!(reads(&m), expected, "at {} of {}", t, m.ulid);
                }
            }
        }
    }
}
