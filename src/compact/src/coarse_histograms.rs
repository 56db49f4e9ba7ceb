//! Downsampled native histograms: count, sum and counter of windows, as `downsample` does for floats.
//!
//! All histograms of a batch are brought to one layout first (the coarsest schema, the widest zero bucket, the custom bounds
//! they share), so that each aggregate is one chunk. Sums are gauges. Exponential and custom buckets never share a batch.
//! Where Thanos has no answer (custom bounds) this is ours.

use koios_chunk::{Aggregate, Chunk, ChunkError, Coder, FloatCoder, HistogramAppender};
use koios_model::Columns;
use koios_model::histogram::{Buckets, CounterReset, FloatHistogram};

use crate::downsample::{Shared, batches, window_end, xor_of};

/// Stands for one sample a minute, as with floats.
const RAW_RESOLUTION: i64 = 60_000;

/// Histograms in time order, without stale ones.
#[derive(Default)]
pub(crate) struct Histograms {
    times: Vec<i64>,
    values: Vec<Shared>,
}

impl Histograms {
    /// Those of decoded chunks.
    pub(crate) fn of(columns: &Columns) -> Self {
        let mut out = Self::default();
        for (i, &t) in columns.times.iter().enumerate() {
            if let Some(h) = columns.histogram(i).filter(|h| !h.is_stale()) {
                out.push(t, h.clone());
            }
        }
        out
    }

    fn push(&mut self, t: i64, h: Shared) {
        self.times.push(t);
        self.values.push(h);
    }
}

/// Chunks of raw histograms.
pub(crate) fn raw(all: &Histograms, to: i64, out: &mut Vec<Chunk>) {
    let mut at = 0;
    for run in all.values.chunk_by(|a, b| a.uses_custom_buckets() == b.uses_custom_buckets()) {
        let times = &all.times[at..at + run.len()];
        at += run.len();
        for batch in batches(times, RAW_RESOLUTION, to) {
            let samples = alike(&run[batch.clone()]);
            let counts = vec![1.0; samples.len()];
            out.extend(of_batch(&times[batch], &samples, &counts, to));
        }
    }
}

/// One chunk out of several finer ones; more where the kind of buckets changes.
pub(crate) fn coarser(chunks: &[Chunk], to: i64, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    let (mut counts, mut sums) = (Columns::default(), Columns::default());
    let mut counters: Vec<Histograms> = Vec::new();
    for chunk in chunks {
        for (which, into) in [(Aggregate::Count, &mut counts), (Aggregate::Sum, &mut sums)] {
            if let Some(part) = chunk.aggregate(which)? {
                part.read(i64::MIN, i64::MAX, into)?;
            }
        }
        let mut one = Columns::default();
        chunk.read_counter(&mut one)?;
        counters.push(Histograms::of(&one));
    }
    let sums = Histograms::of(&sums);
    let (Some(first), Some(last)) = (sums.times.first(), sums.times.last()) else { return Ok(()) };
    let mixed = sums.values.iter().chain(counters.iter().flat_map(|c| &c.values));
    let custom = sums.values[0].uses_custom_buckets();
    if mixed.into_iter().any(|h| h.uses_custom_buckets() != custom) && chunks.len() > 1 {
        return chunks.iter().try_for_each(|c| coarser(std::slice::from_ref(c), to, out));
    }
    let bounds = (*first, *last);
    let values = alike(&sums.values);
    let (mut sum, mut count) = (Windows::default(), Vec::<(i64, f64)>::new());
    for (t, h) in sums.times.iter().zip(&values) {
        let end = window_end(*t, to).min(bounds.1);
        sum.add(end, h, false);
    }
    for (&t, &n) in counts.times.iter().zip(&counts.values) {
        let end = window_end(t, to).min(bounds.1);
        match count.last_mut().filter(|(e, _)| *e == end) {
            Some((_, total)) => *total += n,
            None => count.push((end, n)),
        }
    }
    let counter = joined(&counters, bounds.1, to);
    let ends = (count.first().map_or(bounds.0, |c| c.0), bounds.1);
    out.push(Chunk::of_aggregates(ends, &[xor_of(&count), packed(&sum.gauges()), None, None, counter]));
    Ok(())
}

/// Counters of chunks one after the other, by their first and last raw values.
fn joined(counters: &[Histograms], maxt: i64, to: i64) -> Option<Chunk> {
    let flat: Vec<Shared> = counters.iter().flat_map(|c| c.values.iter().cloned()).collect();
    let same = alike(&flat);
    let mut same = same.iter();
    let (mut all, mut total, mut last) =
        (Windows::default(), None::<FloatHistogram>, None::<&FloatHistogram>);
    let mut first = None;
    for chunk in counters {
        let mut before = None;
        for (&t, h) in chunk.times.iter().zip(&mut same) {
            first.get_or_insert((t, h.clone()));
            let raw_again = before == Some(t);
            before = Some(t);
            if !raw_again {
                total = Some(grown(total, last, h));
                let end = window_end(t, to).min(maxt);
                all.set(end, total.clone().unwrap_or_default());
            }
            last = Some(h);
        }
    }
    let mut samples = vec![first?];
    samples.extend(all.values);
    packed_counter(samples, last.cloned())
}

/// The counter's total after `h`, which follows `last`.
fn grown(total: Option<FloatHistogram>, last: Option<&FloatHistogram>, h: &FloatHistogram) -> FloatHistogram {
    let (Some(mut total), Some(last)) = (total, last) else { return h.clone() };
    let hint = h.hint;
    let mut step = h.clone();
    if hint == CounterReset::Gauge || !h.detect_reset(last) {
        // Of one layout, so neither can fail.
        let _ = step.sub(last);
    }
    let _ = total.add(&step);
    total.hint = hint;
    total
}

/// Histograms by the end of their window.
#[derive(Default)]
struct Windows {
    values: Vec<(i64, FloatHistogram)>,
}

impl Windows {
    /// Adds to the window's sum; `fresh` for the first of a batch.
    fn add(&mut self, end: i64, h: &FloatHistogram, fresh: bool) {
        match self.values.last_mut().filter(|(e, _)| *e == end && !fresh) {
            Some((_, sum)) => {
                let _ = sum.add(h);
            }
            None => self.values.push((end, h.clone())),
        }
    }

    fn set(&mut self, end: i64, h: FloatHistogram) {
        match self.values.last_mut().filter(|(e, _)| *e == end) {
            Some((_, last)) => *last = h,
            None => self.values.push((end, h)),
        }
    }

    fn gauges(self) -> Vec<(i64, FloatHistogram)> {
        let gauge = |(t, h): (i64, FloatHistogram)| (t, FloatHistogram { hint: CounterReset::Gauge, ..h });
        self.values.into_iter().map(gauge).collect()
    }
}

fn of_batch(times: &[i64], values: &[FloatHistogram], counts: &[f64], to: i64) -> Option<Chunk> {
    let maxt = *times.last()?;
    let (mut sum, mut counter, mut count) =
        (Windows::default(), Windows::default(), Vec::<(i64, f64)>::new());
    let (mut total, mut last) = (None, None);
    for ((&t, h), &n) in times.iter().zip(values).zip(counts) {
        let end = window_end(t, to).min(maxt);
        sum.add(end, h, false);
        match count.last_mut().filter(|(e, _)| *e == end) {
            Some((_, total)) => *total += n,
            None => count.push((end, n)),
        }
        total = Some(grown(total.take(), last, h));
        counter.set(end, total.clone()?);
        last = Some(h);
    }
    let mut samples = vec![(times[0], values.first()?.clone())];
    samples.extend(counter.values);
    let counter = packed_counter(samples, last.cloned());
    let bounds = (count.first()?.0, maxt);
    Some(Chunk::of_aggregates(bounds, &[xor_of(&count), packed(&sum.gauges()), None, None, counter]))
}

/// The same histograms in one layout.
fn alike(all: &[Shared]) -> Vec<FloatHistogram> {
    let Some(first) = all.first() else { return Vec::new() };
    let mut layout = (**first).clone();
    for h in &all[1..] {
        let _ = layout.add(h);
    }
    let zero = FloatHistogram {
        zero_count: 0.0,
        count: 0.0,
        sum: 0.0,
        positive: Buckets::default(),
        negative: Buckets::default(),
        ..layout
    };
    all.iter()
        .map(|h| {
            let mut same = zero.clone();
            let _ = same.add(h);
            same.hint = if h.hint == CounterReset::Gauge { h.hint } else { CounterReset::Unknown };
            same
        })
        .collect()
}

/// The counter with its last raw value, at the last time again, where a chunk can hold it.
fn packed_counter(samples: Vec<(i64, FloatHistogram)>, last_raw: Option<FloatHistogram>) -> Option<Chunk> {
    let mut a = appended(&samples).or_else(|| {
        let gauge =
            |(t, h): &(i64, FloatHistogram)| (*t, FloatHistogram { hint: CounterReset::Gauge, ..h.clone() });
        appended(&samples.iter().map(gauge).collect::<Vec<_>>())
    })?;
    if let Some(raw) = last_raw {
        let mut with = a.clone();
        let raw = FloatHistogram { hint: a.last_value().hint, ..raw };
        if with.append(a.last_time(), &raw).is_none() {
            a = with;
        }
    }
    Some(closed(samples[0].0, &a))
}

fn packed(samples: &[(i64, FloatHistogram)]) -> Option<Chunk> {
    appended(samples).map(|a| closed(samples[0].0, &a))
}

/// All samples in one chunk, if they fit one.
fn appended(samples: &[(i64, FloatHistogram)]) -> Option<HistogramAppender<FloatCoder>> {
    let (first, rest) = samples.split_first()?;
    let mut a = HistogramAppender::start(None, first.0, &first.1);
    rest.iter().all(|(t, h)| a.append(*t, h).is_none()).then_some(a)
}

fn closed(min_time: i64, a: &HistogramAppender<FloatCoder>) -> Chunk {
    let data = a.to_bytes().into();
    Chunk { min_time, max_time: a.last_time(), encoding: FloatCoder::ENCODING, data }
}
