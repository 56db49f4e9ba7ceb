//! How the chunks of a select become samples, where that depends on what the query asks: downsampled chunks, and
//! replicas of other producers.
//!
//! Owns the choice of the aggregate by the function around a selector, what a list of chunks comes to under it, and
//! (`penalty`, `resets`) Thanos' two algorithms that its users' graphs depend on. What of Koios' own samples is kept of
//! several at one time is decided in `merge`. The rules are those of Thanos' querier: see `docs/adr/0009-thanos-bucket.md`.
//!
//! Invariant: what comes out depends on the chunks, the lens and nothing else; the times that are asked for only cut it.

mod penalty;
mod resets;

use std::sync::Arc;

use koios_chunk::{Aggregate, Chunk, ChunkError, Encoding};
use koios_model::{Columns, Labels, LabelsBuilder, Slot};
use koios_promql::Select;
use koios_store::SeriesShard;
use koios_store::storeapi;

use penalty::fold;

/// Functions of counters: they read how far a counter got.
const COUNTER: [&str; 6] = ["increase", "rate", "irate", "resets", "xincrease", "xrate"];
/// Of these, the ones whose result must not jump where replicas take turns.
const ADJUSTED: [&str; 4] = ["increase", "rate", "irate", "resets"];
/// Functions that need two samples in their range.
const SLOPES: [&str; 9] = [
    "rate",
    "irate",
    "increase",
    "delta",
    "idelta",
    "deriv",
    "predict_linear",
    "holt_winters",
    "double_exponential_smoothing",
];

/// What is read of downsampled chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// Sum by count.
    #[default]
    Average,
    /// One aggregate; `Counter` with the resets of all chunks taken out, those between chunks too.
    One(Aggregate),
}

/// How one select looks at chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lens {
    /// Whether there may be downsampled chunks.
    pub coarse: bool,
    /// What is read of them.
    pub reads: Reads,
    /// Whether a counter must not fall where another replica goes on.
    pub adjusted: bool,
    /// First and last sample time that any select of the query looks at.
    pub range: (i64, i64),
    /// External labels that tell replicas of other producers apart.
    pub replica_labels: Arc<[String]>,
    /// Replicas are shown one by one; our own slots too, by the label `replica`.
    pub apart: bool,
    /// Only some of the series.
    pub shard: Option<SeriesShard>,
    /// Labels stay as they are.
    pub plain: bool,
}

/// The coarsest resolution that a select can do with, when the query allows `max_ms`.
pub fn resolution_of(select: &Select, max_ms: i64) -> i64 {
    let slope = SLOPES.contains(&select.hints.func.as_str()) && select.hints.range_ms > 0;
    if slope { max_ms.min(select.hints.range_ms / 2) } else { max_ms }
}

/// How far back instant selectors look when samples may be `max_ms` apart.
pub fn lookback_of(lookback_ms: i64, max_ms: i64) -> i64 {
    const MINUTES: i64 = 300_000;
    const HOUR: i64 = 3_600_000;
    if max_ms > MINUTES.max(lookback_ms) {
        lookback_ms.max(HOUR)
    } else if max_ms > lookback_ms {
        lookback_ms.max(MINUTES)
    } else {
        lookback_ms
    }
}

impl Lens {
    /// For a select; `range` is that of all selects of the query.
    pub fn of(select: &Select, range: (i64, i64), replica_labels: Arc<[String]>) -> Self {
        let func = select.hints.func.as_str();
        let is = |name: &str| func == name || func.strip_prefix(name).is_some_and(|r| r.starts_with('_'));
        let reads = if is("min") {
            Reads::One(Aggregate::Min)
        } else if is("max") {
            Reads::One(Aggregate::Max)
        } else if is("count") {
            Reads::One(Aggregate::Count)
        } else if func.starts_with("sum_") {
            Reads::One(Aggregate::Sum)
        } else if COUNTER.contains(&func) {
            Reads::One(Aggregate::Counter)
        } else {
            Reads::Average
        };
        let adjusted = ADJUSTED.contains(&func);
        Self { reads, adjusted, range, replica_labels, ..Self::default() }
    }

    /// Whether the labels of a series of this slot are not what an answer shows.
    pub(crate) fn relabels(&self, slot: Slot) -> bool {
        !self.plain && self.apart != slot.is_foreign()
    }

    /// The labels that an answer shows.
    pub(crate) fn shown(&self, slot: Slot, labels: Labels) -> Labels {
        if !self.relabels(slot) {
            return labels;
        }
        if !slot.is_foreign() {
            return storeapi::shown(labels, slot);
        }
        let mut b = LabelsBuilder::from_labels(&labels);
        for name in self.replica_labels.iter() {
            b.del(name);
        }
        b.build()
    }

    /// The samples of chunks in time order that are one replica's, whole chunks, ascending in time.
    ///
    /// # Errors
    /// When a chunk is damaged.
    pub(crate) fn read<'a>(&self, chunks: impl Iterator<Item = &'a Chunk>) -> Result<Columns, ChunkError> {
        match self.reads {
            Reads::One(Aggregate::Counter) => resets::taken_out(chunks),
            _ => self.chained(chunks),
        }
    }

    /// One after the other. Where they overlap the later one goes on when the earlier one is over.
    fn chained<'a>(&self, chunks: impl Iterator<Item = &'a Chunk>) -> Result<Columns, ChunkError> {
        let mut out = Columns::default();
        for chunk in chunks {
            let last = out.times.last().copied();
            if last.is_none_or(|t| t < chunk.min_time) {
                self.decode(chunk, &mut out)?;
                continue;
            }
            let mut one = Columns::default();
            self.decode(chunk, &mut one)?;
            let new = (0..one.len()).skip_while(|i| last.is_some_and(|t| one.times[*i] <= t));
            new.for_each(|i| out.push_from(&one, i));
        }
        Ok(out)
    }

    fn decode(&self, chunk: &Chunk, out: &mut Columns) -> Result<(), ChunkError> {
        match self.reads {
            _ if chunk.encoding != Encoding::Aggregate => chunk.read(i64::MIN, i64::MAX, out),
            Reads::One(which) => all_of(chunk.aggregate(which)?, out),
            Reads::Average => average(chunk, out),
        }
    }

    /// All replicas as one, from the chunks of all of them in time order. What Koios has of the same series itself is
    /// the first replica. What one producer alone wrote is read as that producer would read it, when it is there (`live`); where
    /// only blocks speak, as Thanos reads them.
    ///
    /// # Errors
    /// When a chunk is damaged.
    pub(crate) fn read_replicas(
        &self,
        chunks: &[Chunk],
        own: Option<Columns>,
        live: bool,
    ) -> Result<Columns, ChunkError> {
        if live
            && own.is_none()
            && let Some(samples) = one_producer(chunks)?
        {
            return Ok(samples);
        }
        if own.is_none() && (self.apart || self.replica_labels.is_empty()) {
            return self.read(chunks.iter());
        }
        let mut runs: Vec<Columns> = own.into_iter().collect();
        for run in without_overlap(chunks) {
            runs.push(self.read(run.into_iter())?);
        }
        Ok(fold(runs, self))
    }
}

/// The samples of raw chunks in time order that are all of one producer: where two overlap they say the same, as a block and
/// the Prometheus do that wrote it. `None` when there are several producers.
fn one_producer(chunks: &[Chunk]) -> Result<Option<Columns>, ChunkError> {
    if chunks.iter().any(|c| c.encoding == Encoding::Aggregate) {
        return Ok(None);
    }
    let mut out = Columns::default();
    for chunk in chunks {
        let Some(last) = out.times.last().copied().filter(|t| *t >= chunk.min_time) else {
            chunk.read(i64::MIN, i64::MAX, &mut out)?;
            continue;
        };
        let mut one = Columns::default();
        chunk.read(i64::MIN, i64::MAX, &mut one)?;
        let from = out.times.partition_point(|t| *t < chunk.min_time);
        let until = out.times.partition_point(|t| *t <= chunk.max_time);
        let known = one.times.partition_point(|t| *t <= last);
        let same = |i: usize, k: usize| {
            let (a, b) = (out.histogram(i), one.histogram(k));
            out.times[i] == one.times[k] && out.values[i].to_bits() == one.values[k].to_bits() && a == b
        };
        if until - from != known || !(0..known).all(|k| same(from + k, k)) {
            return Ok(None);
        }
        (known..one.len()).for_each(|i| out.push_from(&one, i));
    }
    Ok(Some(out))
}

/// Chunks in time order as few lists in which no two overlap: each goes to the first list that it follows.
fn without_overlap(chunks: &[Chunk]) -> Vec<Vec<&Chunk>> {
    let mut lists: Vec<Vec<&Chunk>> = Vec::new();
    for chunk in chunks {
        let follows = |list: &&mut Vec<&Chunk>| list.last().is_none_or(|c| c.max_time < chunk.min_time);
        match lists.iter_mut().find(follows) {
            Some(list) => list.push(chunk),
            None => lists.push(vec![chunk]),
        }
    }
    lists
}

fn all_of(chunk: Option<Chunk>, out: &mut Columns) -> Result<(), ChunkError> {
    chunk.map_or(Ok(()), |c| c.read(i64::MIN, i64::MAX, out))
}

fn average(chunk: &Chunk, out: &mut Columns) -> Result<(), ChunkError> {
    let (mut counts, mut sums) = (Columns::default(), Columns::default());
    all_of(chunk.aggregate(Aggregate::Count)?, &mut counts)?;
    all_of(chunk.aggregate(Aggregate::Sum)?, &mut sums)?;
    if counts.times != sums.times {
        let what = "counts and sums of a downsampled chunk have different times";
        return Err(ChunkError::Damaged { sample: 0, what });
    }
    for (i, (&t, &count)) in counts.times.iter().zip(&counts.values).enumerate() {
        match sums.histogram(i) {
            None => out.push(t, sums.values[i] / count),
            Some(h) => {
                let mut h = (**h).clone();
                h.div(count);
                out.push_histogram(t, Arc::new(h));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
