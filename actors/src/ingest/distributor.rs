//! Distributor: from a batch of samples to the shards that keep them.
//!
//! Owns the routing of series to shards (hash of slot and source, or of slot and labels) and the meaning of a reference: the shard
//! in the upper 8 bits, the shard's own reference below. It holds no mutable state, so it is a value and not
//! an actor; what waits is bounded by the shards' mailrooms. Distribution of pushed data over nodes, with its
//! quorum, takes its place here with the cluster issue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use koios_model::metadata::MetricMetadata;
use koios_model::{Exemplar, Labels, METRIC_NAME, Matcher, Slot};
use koios_tsdb::{
    AppendBatch, Appended, Entry, ExemplarEntry, ExemplarReject, Reject, SeriesKey, SeriesRef, Value,
};

use super::error::IngestError;
use super::shard::{Append, AppendExemplars, AppendMetadata, Delete, ShardActor};
use crate::kit::Mailroom;

/// Longest wait for a shard to take and sync a batch.
const PATIENCE: Duration = Duration::from_secs(30);
const SHARD_SHIFT: u32 = 56;

/// A series as a writer remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesId(pub u64);

impl SeriesId {
    fn new(shard: usize, reference: SeriesRef) -> Self {
        Self((shard as u64) << SHARD_SHIFT | reference.0)
    }

    fn split(self) -> (usize, SeriesRef) {
        ((self.0 >> SHARD_SHIFT) as usize, SeriesRef(self.0 & ((1 << SHARD_SHIFT) - 1)))
    }
}

/// Which shard takes series that are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Each series its own: for batches whose series also come from elsewhere.
    Series,
    /// All series of one source (a hash of it) the same, so that what it says at one moment is logged and becomes
    /// readable as a whole: a query never sees half a scrape.
    Source(u64),
}

/// One sample to keep.
#[derive(Clone, Debug)]
pub struct Write {
    /// The id from an earlier write, or slot and labels.
    pub series: Result<SeriesId, (Slot, Labels)>,
    /// Milliseconds.
    pub t: i64,
    /// Value.
    pub v: Value,
}

/// One exemplar to keep.
#[derive(Clone, Debug)]
pub struct WriteExemplar {
    /// The id from an earlier write, or slot and labels. A series that is not there is not made.
    pub series: Result<SeriesId, (Slot, Labels)>,
    /// The exemplar.
    pub exemplar: Exemplar,
}

/// What became of exemplars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenExemplars {
    /// How many were new.
    pub stored: u64,
    /// Refused ones by position; repetitions are not among them.
    pub rejected: Vec<(usize, ExemplarReject)>,
}

/// What became of a batch of writes.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Per write, the id to use next time; `None` when the sample was refused before it had one.
    pub ids: Vec<Option<SeriesId>>,
    /// Refused samples by position.
    pub rejected: Vec<(usize, Reject)>,
}

/// Routes writes to the shards of this node.
#[derive(Clone)]
pub struct Distributor {
    shards: Vec<Mailroom<ShardActor>>,
    closed: Arc<AtomicBool>,
}

impl Distributor {
    /// Over the shards of this node, in order.
    pub fn new(shards: Vec<Mailroom<ShardActor>>) -> Self {
        Self { shards, closed: Arc::default() }
    }

    /// The shards' mailrooms.
    pub fn shards(&self) -> &[Mailroom<ShardActor>] {
        &self.shards
    }

    /// Refuses all writes from now on: the node drains.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Keeps a batch. A success means that every sample that is not in `rejected` is as durable as the
    /// log's mode promises.
    ///
    /// # Errors
    /// When a shard could not take or sync its part; parts of other shards may be kept then, and sending the
    /// batch again is safe.
    pub async fn write(&self, writes: Vec<Write>, home: Home) -> Result<Written, IngestError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(IngestError::Draining);
        }
        let mut written = Written { ids: vec![None; writes.len()], rejected: Vec::new() };
        let mut parts: Vec<(AppendBatch, Vec<usize>)> = vec![Default::default(); self.shards.len()];
        for (at, w) in writes.into_iter().enumerate() {
            let (shard, series) = self.place(w.series, home);
            let Some((batch, positions)) = parts.get_mut(shard) else {
                written.rejected.push((at, Reject::UnknownRef));
                continue;
            };
            batch.entries.push(Entry { series, t: w.t, v: w.v });
            positions.push(at);
        }
        let asks = parts.into_iter().enumerate().filter(|(_, (b, _))| !b.entries.is_empty()).map(
            |(shard, (batch, positions))| async move {
                (shard, positions, self.shards[shard].ask(Append(batch), PATIENCE).await)
            },
        );
        for (shard, positions, answer) in join_all(asks).await {
            absorb(&mut written, shard, &positions, answer??);
        }
        Ok(written)
    }

    /// Keeps exemplars of series that are there. They are written to the log but nobody waits for the disk.
    ///
    /// # Errors
    /// When a shard could not take its part; sending all of it again is safe.
    pub async fn write_exemplars(
        &self,
        writes: Vec<WriteExemplar>,
        home: Home,
    ) -> Result<WrittenExemplars, IngestError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(IngestError::Draining);
        }
        let mut written = WrittenExemplars::default();
        let mut parts: Vec<(Vec<ExemplarEntry>, Vec<usize>)> = vec![Default::default(); self.shards.len()];
        for (at, w) in writes.into_iter().enumerate() {
            let (shard, series) = self.place(w.series, home);
            let Some((entries, positions)) = parts.get_mut(shard) else {
                written.rejected.push((at, ExemplarReject::UnknownSeries));
                continue;
            };
            entries.push(ExemplarEntry { series, exemplar: w.exemplar });
            positions.push(at);
        }
        let asks = parts.into_iter().enumerate().filter(|(_, (e, _))| !e.is_empty()).map(
            |(shard, (entries, positions))| async move {
                (positions, self.shards[shard].ask(AppendExemplars(entries), PATIENCE).await)
            },
        );
        for (positions, answer) in join_all(asks).await {
            let done = answer??;
            written.stored += done.stored;
            written.rejected.extend(done.rejected.into_iter().map(|(i, why)| (positions[i], why)));
        }
        written.rejected.sort_unstable_by_key(|(at, _)| *at);
        Ok(written)
    }

    /// Keeps what is said about metric families; each family has one shard. Answers how many changed.
    ///
    /// # Errors
    /// When a shard could not take its part; saying it again is safe.
    pub async fn write_metadata(&self, said: Vec<(String, MetricMetadata)>) -> Result<usize, IngestError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(IngestError::Draining);
        }
        let mut parts: Vec<Vec<(String, MetricMetadata)>> = vec![Vec::new(); self.shards.len()];
        for (name, m) in said {
            let shard = self.shard_of(Slot(0), &Labels::from_pairs([(METRIC_NAME, name.as_str())]));
            parts[shard].push((name, m));
        }
        let asks = parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty());
        let asks = asks.map(|(shard, part)| self.shards[shard].ask(AppendMetadata(part), PATIENCE));
        let mut changed = 0;
        for answer in join_all(asks).await {
            changed += answer??;
        }
        Ok(changed)
    }

    /// Deletes from all shards the samples with `mint <= t <= maxt` of the series that satisfy all matchers of any
    /// set. Answers how many series had some, once that is durable.
    ///
    /// # Errors
    /// When a shard could not delete its part; asking again is safe.
    pub async fn delete(&self, sets: Arc<[Vec<Matcher>]>, mint: i64, maxt: i64) -> Result<u64, IngestError> {
        let asks = self.shards.iter().map(|s| s.ask(Delete { sets: sets.clone(), mint, maxt }, PATIENCE));
        let mut series = 0;
        for answer in join_all(asks).await {
            series += answer??;
        }
        Ok(series)
    }

    /// Shard and name there of a series.
    fn place(&self, series: Result<SeriesId, (Slot, Labels)>, home: Home) -> (usize, SeriesKey) {
        match series {
            Ok(id) => {
                let (shard, reference) = id.split();
                (shard, SeriesKey::Ref(reference))
            }
            Err((slot, labels)) => {
                let shard = match home {
                    Home::Series => self.shard_of(slot, &labels),
                    Home::Source(hash) => self.pick(hash ^ spread(slot)),
                };
                (shard, SeriesKey::New(slot, labels))
            }
        }
    }

    /// Which shard a series belongs to.
    pub fn shard_of(&self, slot: Slot, labels: &Labels) -> usize {
        self.pick(labels.hash64() ^ spread(slot))
    }

    fn pick(&self, hash: u64) -> usize {
        // The upper bits: the lower ones also pick buckets inside the shard.
        ((u128::from(hash) * self.shards.len() as u128) >> 64) as usize
    }
}

fn spread(slot: Slot) -> u64 {
    u64::from(slot.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn absorb(written: &mut Written, shard: usize, positions: &[usize], appended: Appended) {
    for (at, reference) in positions.iter().zip(appended.refs) {
        written.ids[*at] = (reference != SeriesRef::NONE).then(|| SeriesId::new(shard, reference));
    }
    written.rejected.extend(appended.rejected.into_iter().map(|(i, why)| (positions[i], why)));
}
