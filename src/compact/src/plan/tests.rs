//! Tables of blocks and what is planned for them; expectations follow Prometheus' `compact_test.go` in kind.

use super::*;

fn block(n: u64, mint: i64, maxt: i64) -> BlockMeta {
    let json = format!(
        r#"{{"ulid":"{}","minTime":{mint},"maxTime":{maxt},"stats":{{"numSeries":10}},"compaction":{{"level":1}},"version":1}}"#,
        BlockId::from_parts(n, 0)
    );
    BlockMeta::parse(json.as_bytes()).unwrap()
}

fn blocks(ranges: &[(i64, i64)]) -> Vec<BlockMeta> {
    ranges.iter().enumerate().map(|(i, &(a, b))| block(i as u64, a, b)).collect()
}

fn planned(metas: &[BlockMeta]) -> Option<(Vec<u64>, Reason)> {
    let plan = plan(metas, &[20, 60, 180, 540, 1620], &BTreeSet::new())?;
    Some((plan.blocks.iter().map(|b| b.timestamp_ms()).collect(), plan.reason))
}

#[test]
fn ranges_grow_by_three_up_to_the_longest() {
    const H: i64 = 3_600_000;
    assert_eq!(level_ranges(2 * H, 31 * 24 * H), [2, 6, 18, 54, 162, 486].map(|h| h * H));
    assert_eq!(level_ranges(2 * H, 36 * H), [2 * H, 6 * H, 18 * H]);
    assert_eq!(level_ranges(2 * H, 0), [2 * H]);
    assert_eq!(level_ranges(i64::MAX / 2, i64::MAX), [i64::MAX / 2]);
}

#[test]
fn levels_as_prometheus_plans_them() {
    use Reason::Level;
    for (ranges, want) in [
        (vec![(0, 20)], None),
        (vec![(0, 20), (20, 40)], None),
        (vec![(0, 20), (20, 40), (40, 60)], None),
        // The newest stays as it is, so the range is complete only with a fourth block.
        (vec![(0, 20), (20, 40), (40, 60), (60, 80)], Some((vec![0, 1, 2], Level))),
        // A gap does not hold a range back once something newer than the range was settled.
        (vec![(0, 20), (20, 40), (60, 80), (80, 100)], Some((vec![0, 1], Level))),
        (vec![(0, 20), (60, 80), (80, 100)], None),
        (
            vec![(0, 20), (20, 40), (40, 60), (60, 80), (80, 100), (100, 120), (120, 140)],
            Some((vec![0, 1, 2], Level)),
        ),
        // Three of the second level make one of the third.
        (vec![(0, 60), (60, 120), (120, 180), (180, 200)], Some((vec![0, 1, 2], Level))),
        // Not aligned to any stretch of the level.
        (vec![(10, 30), (30, 50), (50, 70), (70, 90), (90, 110)], Some((vec![0, 1], Level))),
        (vec![(-60, -40), (-40, -20), (-20, 0), (0, 20)], Some((vec![0, 1, 2], Level))),
    ] {
        let mut metas = blocks(&ranges);
        assert_eq!(planned(&metas), want, "{ranges:?}");
        metas.reverse();
        assert_eq!(planned(&metas), want, "order of metas does not matter: {ranges:?}");
    }
}

#[test]
fn overlap_goes_first_and_takes_the_newest_too() {
    let metas = blocks(&[(0, 20), (20, 40), (40, 60), (60, 80), (50, 80)]);
    assert_eq!(planned(&metas), Some((vec![2, 4, 3], Reason::Overlap)));
    assert_eq!(planned(&blocks(&[(0, 100), (10, 20), (90, 100)])), Some((vec![0, 1, 2], Reason::Overlap)));
    assert_eq!(planned(&blocks(&[(0, 20), (20, 40)])), None, "ranges are half open");
}

#[test]
fn much_deleted_is_written_again() {
    let with = |stones: &[u64], length: i64| {
        let mut metas =
            blocks(&(0..stones.len() as i64).map(|i| (i * 2000, i * 2000 + length)).collect::<Vec<_>>());
        metas.iter_mut().zip(stones).for_each(|(m, s)| m.stats.num_tombstones = *s);
        metas
    };
    assert_eq!(planned(&with(&[0, 3, 0], 180)), Some((vec![1], Reason::Tombstones)));
    assert_eq!(planned(&with(&[0, 3], 180)), None, "the newest is left alone");
    assert_eq!(planned(&with(&[9, 0, 0], 20)), None);
    assert_eq!(planned(&with(&[0, 10, 0], 20)), Some((vec![1], Reason::Tombstones)), "nothing is left of it");
}

#[test]
fn failed_foreign_and_downsampled_blocks_are_kept_apart() {
    let metas = blocks(&[(0, 20), (20, 40), (40, 60), (60, 80)]);
    let failed = BTreeSet::from([metas[1].ulid]);
    assert_eq!(plan(&metas, &[20, 60], &failed), None);
    let mut marked = metas.clone();
    marked[2].compaction.failed = true;
    assert_eq!(planned(&marked), None);
    for change in [
        (|m: &mut BlockMeta| m.compaction.hints.push("from-stale-series".into())) as fn(&mut BlockMeta),
        |m| m.thanos.get_or_insert_default().labels.extend([("replica".into(), "1".into())]),
        |m| m.thanos.get_or_insert_default().downsample.resolution = 300_000,
    ] {
        let mut apart = blocks(&[(0, 20), (0, 20), (20, 40)]);
        change(&mut apart[1]);
        assert_eq!(planned(&apart), None);
    }
}
