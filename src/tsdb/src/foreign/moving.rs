//! Moving in: a foreign log into shards, and what cannot go there into blocks.
//!
//! Samples are appended in the order of the log, so the shards judge them as Prometheus did. What a shard refuses
//! because of its time or for want of room for series (samples of the out-of-order log above all), and what only
//! mapped head chunks still have, becomes blocks that overlap others, which readers merge. Invariant: every sample
//! of the log is in a shard or in a block afterwards, but for those that contradict another at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hashbrown::HashMap;
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::encode;
use koios_model::{BlockId, Columns, Labels, Slot};

use super::scan::Log;
use crate::error::TsdbError;
use crate::shard::Shard;
use crate::types::{AppendBatch, Entry, ExemplarEntry, Reject, SeriesKey, SeriesRef, Value};

/// Samples of one append.
const BATCH: usize = 8192;
/// Late samples held before they are written into blocks.
const LATE_MAX: usize = 4 << 20;
const SAMPLES_PER_CHUNK: usize = 120;

/// What moving in came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveReport {
    /// Samples that went into shards, or were there already.
    pub into_head: u64,
    /// Samples that went into blocks.
    pub into_blocks: u64,
    /// Samples that contradict another one of the same series and time.
    pub contradictions: u64,
    /// Exemplars that were taken; the newest, where there is no room for all.
    pub exemplars: u64,
    /// Blocks that were written for late samples.
    pub blocks: Vec<BlockId>,
}

/// Late samples on their way into blocks.
#[derive(Debug, Default)]
pub struct Late {
    series: BTreeMap<Labels, BTreeMap<i64, Value>>,
    samples: usize,
    written: u64,
}

impl Late {
    /// Adds a sample; at the same time the first one stays.
    pub fn push(&mut self, labels: &Labels, t: i64, v: Value) {
        let times = match self.series.get_mut(labels) {
            Some(times) => times,
            None => self.series.entry(labels.clone()).or_default(),
        };
        if let std::collections::btree_map::Entry::Vacant(free) = times.entry(t) {
            free.insert(v);
            self.samples += 1;
        }
    }

    /// Writes everything into blocks of `range_ms` below `dir`, and forgets it. The same samples make the same ids.
    ///
    /// # Errors
    /// `TsdbError::Block`.
    pub fn write(
        &mut self,
        dir: &Path,
        range_ms: i64,
        extras: &BlockMetaExtras,
    ) -> Result<Vec<BlockId>, TsdbError> {
        let series = std::mem::take(&mut self.series);
        let ranges: BTreeSet<i64> =
            series.values().flat_map(|s| s.keys()).map(|t| t.div_euclid(range_ms)).collect();
        let mut ids = Vec::new();
        for range in ranges {
            let (mint, maxt) = (range * range_ms, range.saturating_add(1).saturating_mul(range_ms));
            let id = BlockId::from_parts(
                maxt.max(0) as u64,
                u128::from(self.written) << 32 | u128::from(series.len() as u32),
            );
            let mut writer = BlockWriter::create(dir, id)?;
            for (labels, samples) in &series {
                let mut columns = Columns::default();
                for (&t, v) in samples.range(mint..maxt) {
                    match v {
                        Value::Float(v) => columns.push(t, *v),
                        Value::Histogram(h) => columns.push_histogram(t, h.to_float().into()),
                        Value::FloatHistogram(h) => columns.push_histogram(t, h.clone()),
                    }
                }
                if !columns.is_empty() {
                    writer.add_series(labels, &encode(&columns, SAMPLES_PER_CHUNK))?;
                }
            }
            writer.finish(mint, maxt, extras.clone())?;
            self.written += 1;
            ids.push(id);
        }
        self.samples = 0;
        Ok(ids)
    }
}

/// Where things go.
pub struct Moving<'a> {
    /// The shards of this node, empty at best.
    pub shards: &'a mut [Shard],
    /// Which shard a series belongs to.
    pub route: &'a dyn Fn(Slot, &Labels) -> usize,
    /// Where blocks of late samples are written.
    pub out_dir: &'a Path,
    /// Length of those blocks, milliseconds.
    pub range_ms: i64,
    /// What their meta files say.
    pub extras: BlockMetaExtras,
}

/// A batch for one shard and, per entry, Prometheus' reference.
#[derive(Default)]
struct Part {
    batch: AppendBatch,
    names: Vec<(u64, Labels)>,
}

impl Moving<'_> {
    /// Moves the whole log. The shards' logs are written but not synced: a checkpoint must follow.
    ///
    /// # Errors
    /// `TsdbError`; moving again from the start is safe.
    pub fn run(&mut self, log: &mut Log) -> Result<MoveReport, TsdbError> {
        let mut report = MoveReport::default();
        let mut late = Late::default();
        let mut parts: Vec<Part> = self.shards.iter().map(|_| Part::default()).collect();
        let mut known: HashMap<u64, (usize, SeriesRef)> = HashMap::new();
        let mut oldest: HashMap<u64, i64> = HashMap::new();
        let slot = Slot(0);
        log.samples(&mut |labels, series, t, v| {
            let first = oldest.entry(series).or_insert(t);
            *first = t.min(*first);
            let (shard, key) = match known.get(&series) {
                Some(&(shard, r)) => (shard, SeriesKey::Ref(r)),
                None => ((self.route)(slot, labels), SeriesKey::New(slot, labels.clone())),
            };
            parts[shard].batch.entries.push(Entry { series: key, t, v });
            parts[shard].names.push((series, labels.clone()));
            if parts[shard].batch.entries.len() >= BATCH {
                self.append(shard, &mut parts[shard], &mut known, &mut late, &mut report)?;
            }
            if late.samples > LATE_MAX {
                report.blocks.extend(late.write(self.out_dir, self.range_ms, &self.extras)?);
            }
            Ok(())
        })?;
        for (shard, part) in parts.iter_mut().enumerate() {
            self.append(shard, part, &mut known, &mut late, &mut report)?;
        }
        let holes = !log.report.damaged.is_empty();
        log.head_chunks(&mut |log, head| {
            let Some(labels) = log.labels(head.series) else { return Ok(()) };
            let from = oldest.get(&head.series).copied().unwrap_or(i64::MAX);
            // The log has what is younger than its own first sample, unless it has holes.
            if holes || head.chunk.min_time < from {
                let mut columns = Columns::default();
                head.chunk.read(i64::MIN, i64::MAX, &mut columns)?;
                for i in (0..columns.len()).filter(|&i| holes || columns.times[i] < from) {
                    let value = match columns.histogram(i) {
                        Some(h) => Value::FloatHistogram(h.clone()),
                        None => Value::Float(columns.values[i]),
                    };
                    if !log.deleted(head.series, columns.times[i]) {
                        late.push(labels, columns.times[i], value);
                        report.into_blocks += 1;
                    }
                }
            }
            Ok(())
        })?;
        report.blocks.extend(late.write(self.out_dir, self.range_ms, &self.extras)?);
        self.exemplars(log, &known, &mut report)?;
        Ok(report)
    }

    /// After the samples, because an exemplar needs its series. Those whose samples all went into blocks are left.
    fn exemplars(
        &mut self,
        log: &mut Log,
        known: &HashMap<u64, (usize, SeriesRef)>,
        report: &mut MoveReport,
    ) -> Result<(), TsdbError> {
        let mut parts: Vec<Vec<ExemplarEntry>> = self.shards.iter().map(|_| Vec::new()).collect();
        let shards = &mut *self.shards;
        let mut append = |shard: usize, part: &mut Vec<ExemplarEntry>| {
            report.exemplars += shards[shard].append_exemplars(part)?.stored;
            part.clear();
            Ok::<(), TsdbError>(())
        };
        log.exemplars(&mut |_, series, exemplar| {
            let Some(&(shard, r)) = known.get(&series) else { return Ok(()) };
            parts[shard].push(ExemplarEntry { series: SeriesKey::Ref(r), exemplar });
            if parts[shard].len() >= BATCH { append(shard, &mut parts[shard]) } else { Ok(()) }
        })?;
        parts.iter_mut().enumerate().try_for_each(|(shard, part)| append(shard, part))
    }

    fn append(
        &mut self,
        shard: usize,
        part: &mut Part,
        known: &mut HashMap<u64, (usize, SeriesRef)>,
        late: &mut Late,
        report: &mut MoveReport,
    ) -> Result<(), TsdbError> {
        let done = self.shards[shard].append(&part.batch)?;
        for ((series, _), r) in part.names.iter().zip(&done.refs).filter(|(_, r)| **r != SeriesRef::NONE) {
            known.insert(*series, (shard, *r));
        }
        report.into_head += (part.batch.entries.len() - done.rejected.len()) as u64;
        for (at, why) in done.rejected {
            match why {
                Reject::Duplicate | Reject::BadHistogram => report.contradictions += 1,
                Reject::OutOfOrder
                | Reject::TooOld
                | Reject::TooFarInFuture
                | Reject::SeriesLimit
                | Reject::UnknownRef => {
                    let entry = &part.batch.entries[at];
                    late.push(&part.names[at].1, entry.t, entry.v.clone());
                    report.into_blocks += 1;
                }
            }
        }
        part.batch.entries.clear();
        part.names.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::pages::tests::segment;
    use crate::options::ShardOptions;
    use koios_model::{ManualClock, Matcher};

    /// Header of a record of relative entries, and one entry at its very reference and time.
    fn first_entry(kind: u8, series: u64, t: i64, rest: &[u8]) -> Vec<u8> {
        let mut record = vec![kind];
        record.extend(series.to_be_bytes());
        record.extend(t.to_be_bytes());
        record.extend([0, 0]);
        record.extend(rest);
        record
    }

    #[test]
    fn exemplars_come_along() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("wal")).unwrap();
        let series =
            vec![1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 8, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_', 1, b'm'];
        let sample = first_entry(2, 7, 1000, &2.5f64.to_be_bytes());
        let trace = [1, 2, b'i', b'd', 1, b'x'];
        let exemplar = first_entry(4, 7, 900, &[&0.5f64.to_be_bytes()[..], &trace].concat());
        let unknown = first_entry(4, 8, 900, &[&0.5f64.to_be_bytes()[..], &trace].concat());
        std::fs::write(dir.path().join("wal/00000000"), segment(&[series, sample, exemplar, unknown], 0))
            .unwrap();
        let clock = ManualClock::at(2000);
        let mut shards = [Shard::open(ShardOptions::new(dir.path().join("s"), 0), clock).unwrap().0];
        let mut log = Log::open(dir.path()).unwrap();
        let mut moving = Moving {
            shards: &mut shards,
            route: &|_, _| 0,
            out_dir: dir.path(),
            range_ms: 7_200_000,
            extras: BlockMetaExtras::default(),
        };
        let report = moving.run(&mut log).unwrap();
        assert_eq!((report.into_head, report.exemplars, log.report.exemplars), (1, 1, 2));
        let found = shards[0].view().exemplars(&[vec![Matcher::equal("__name__", "m")]], 0, 5000);
        assert_eq!(found.len(), 1);
        let exemplar = &found[0].exemplars[0];
        assert_eq!((exemplar.t, exemplar.v, exemplar.labels.get("id")), (900, 0.5, Some("x")));
    }
}
