//! Fewer samples for old data: windows of five minutes and of an hour, each with count, sum, min, max and counter.
//!
//! The layout of the chunks is Thanos' (`docs/formats/chunk.md`): batches of samples of about 140 windows a chunk, the end of
//! a window as its time, and a counter that keeps the first and the last raw value of its batch, by which a reset between
//! chunks shows. Coarse chunks are made coarser along their own bounds, because only there the raw value is known.
//! Histograms have count, sum and counter, integers become floats, custom bounds are reduced to those that a batch shares.
//! NaN and stale samples do not count. Memory: the samples of one series.

use std::sync::Arc;

use koios_chunk::{Aggregate, Chunk, ChunkError, Encoding, XorAppender};
use koios_model::Columns;
use koios_model::histogram::FloatHistogram;

use crate::coarse_histograms::{self, Histograms};

/// The first coarse resolution, milliseconds.
pub const FIVE_MINUTES: i64 = 300_000;
/// The second one.
pub const HOUR: i64 = 3_600_000;
/// What a raw sample is taken to stand for when the number of chunks is chosen.
const RAW_RESOLUTION: i64 = 60_000;
/// Usual size of one aggregate of a chunk, bytes.
const CHUNK_BYTES: usize = 1024;
/// Windows of a chunk on average.
const WINDOWS_MAX: i64 = 140;

/// The resolution that `to` is made of: 0 for raw samples.
pub fn finer(to: i64) -> i64 {
    if to > FIVE_MINUTES { FIVE_MINUTES } else { 0 }
}

/// The chunks of one series, in time order and without overlap, at resolution `to`. They are raw for five minutes, and
/// of five minutes for an hour; raw ones in between (Thanos once left some) are made coarse on the way.
///
/// # Errors
/// `ChunkError` of a chunk that does not decode.
pub fn downsample_series(chunks: &[Chunk], to: i64) -> Result<Vec<Chunk>, ChunkError> {
    let mut out = Vec::new();
    if finer(to) == 0 {
        raw(chunks, to, &mut out)?;
        return Ok(out);
    }
    let mut coarse: Vec<Chunk> = Vec::with_capacity(chunks.len());
    for run in chunks.chunk_by(|a, b| is_coarse(a) == is_coarse(b)) {
        if is_coarse(&run[0]) {
            coarse.extend_from_slice(run);
        } else {
            raw(run, finer(to), &mut coarse)?;
        }
    }
    let Some((first, last)) = coarse.first().zip(coarse.last()) else { return Ok(out) };
    let samples: usize = coarse.iter().map(|c| c.sample_count().unwrap_or(0)).sum();
    let wanted = chunk_count(first.min_time, last.max_time, finer(to), to, samples);
    let mut rest = &coarse[..];
    let batch = (coarse.len() / wanted).max(1);
    while !rest.is_empty() {
        // A chunk of histograms and one of floats have no chunk in common.
        let kind = histogram_counter(&rest[0])?;
        let mut len = 1;
        while len < batch.min(rest.len()) && histogram_counter(&rest[len])? == kind {
            len += 1;
        }
        let (part, later) = rest.split_at(len);
        rest = later;
        match kind {
            true => coarse_histograms::coarser(part, to, &mut out)?,
            false => out.extend(coarser(part, to)?),
        }
    }
    Ok(out)
}

fn is_coarse(chunk: &Chunk) -> bool {
    chunk.encoding == Encoding::Aggregate
}

fn histogram_counter(chunk: &Chunk) -> Result<bool, ChunkError> {
    Ok(chunk.aggregate(Aggregate::Counter)?.is_some_and(|c| c.encoding != Encoding::Xor))
}

/// How many chunks so many samples a `from` apart come to when they are `to` apart.
pub(crate) fn chunk_count(mint: i64, maxt: i64, from: i64, to: i64, samples: usize) -> usize {
    let span = maxt.saturating_sub(mint);
    let possible = span as f64 / from as f64;
    let fullness = if possible > 0.0 { (samples as f64 / possible).min(1.0) } else { 1.0 };
    let windows = ((span / to) as f64 * fullness) as i64 + 1;
    // The least n with windows / n <= WINDOWS_MAX, divided as whole numbers.
    (windows / (WINDOWS_MAX + 1) + 1) as usize
}

/// The last millisecond of the window that has `t`.
pub(crate) fn window_end(t: i64, resolution: i64) -> i64 {
    t.div_euclid(resolution).saturating_mul(resolution).saturating_add(resolution - 1)
}

/// Lengths of the batches that samples at `times` are cut into: no window is in two.
pub(crate) fn batches(times: &[i64], from: i64, to: i64) -> Vec<std::ops::Range<usize>> {
    let Some((first, last)) = times.first().zip(times.last()) else { return Vec::new() };
    let size = times.len() / chunk_count(*first, *last, from, to, times.len()) + 1;
    let (mut out, mut at) = (Vec::new(), 0);
    while at < times.len() {
        let mut end = (at + size).min(times.len());
        let window = window_end(times[end - 1], to);
        end += times[end..].iter().take_while(|t| **t <= window).count();
        out.push(at..end);
        at = end;
    }
    out
}

fn raw(chunks: &[Chunk], to: i64, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    let of_floats = |c: &Chunk| matches!(c.encoding, Encoding::Xor | Encoding::Xor2);
    let (mut all, mut kept) = (Columns::default(), Columns::default());
    for run in chunks.chunk_by(|a, b| of_floats(a) == of_floats(b)) {
        all.clear();
        for chunk in run.iter().filter(|c| c.sample_count() != Some(0)) {
            chunk.read(i64::MIN, i64::MAX, &mut all)?;
        }
        if !of_floats(&run[0]) {
            coarse_histograms::raw(&Histograms::of(&all), to, out);
            continue;
        }
        if all.values.iter().any(|v| koios_model::is_stale(*v)) {
            retain(&mut all, |v| !koios_model::is_stale(v));
        }
        for batch in batches(&all.times, RAW_RESOLUTION, to) {
            let (times, values) = (&all.times[batch.clone()], &all.values[batch]);
            if !values.iter().any(|v| v.is_nan()) {
                out.push(of_batch(times, values, to));
                continue;
            }
            // They count for where a batch ends, as in Thanos, and for nothing else.
            let numbers = || times.iter().zip(values).filter(|(_, v)| !v.is_nan());
            kept.clear();
            numbers().for_each(|(t, v)| kept.push(*t, *v));
            if !kept.is_empty() {
                out.push(of_batch(&kept.times, &kept.values, to));
            }
        }
    }
    Ok(())
}

/// Keeps the floats that `keep` says yes to.
fn retain(all: &mut Columns, keep: impl Fn(f64) -> bool) {
    let mut to = 0;
    for i in 0..all.times.len() {
        if keep(all.values[i]) {
            (all.times[to], all.values[to]) = (all.times[i], all.values[i]);
            to += 1;
        }
    }
    all.times.truncate(to);
    all.values.truncate(to);
}

/// What is known of a window.
struct Window {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// How far the counter got since the batch began.
    counter: f64,
    last: Option<f64>,
}

impl Window {
    fn new() -> Self {
        Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, counter: 0.0, last: None }
    }

    #[inline]
    fn add(&mut self, v: f64) {
        self.counter = match self.last {
            None => v,
            Some(last) if v < last => self.counter + v,
            Some(last) => self.counter + (v - last),
        };
        self.last = Some(v);
        self.count += 1;
        self.sum += v;
        // Comparisons instead of `f64::min`: what was not comparable was left out before, or is no less anyway.
        if v < self.min {
            self.min = v;
        }
        if v > self.max {
            self.max = v;
        }
    }

    /// The next window of the batch.
    fn next(&mut self) {
        *self = Self { counter: self.counter, last: self.last, ..Self::new() };
    }
}

/// Calls `each` with the end of every window of a batch and what is in it; the time of the last one.
fn windows(times: &[i64], values: &[f64], to: i64, mut each: impl FnMut(i64, &Window)) -> Option<i64> {
    let last = *times.last()?;
    let (mut window, mut end) = (Window::new(), None);
    for (&t, &v) in times.iter().zip(values) {
        if end.is_none_or(|e| t > e) {
            if let Some(e) = end {
                each(e, &window);
                window.next();
            }
            // Not beyond the batch: the next one may begin in the same window.
            end = Some(window_end(t, to).min(last));
        }
        window.add(v);
    }
    let end = end?;
    each(end, &window);
    Some(end)
}

/// A chunk that is put together aggregate by aggregate.
struct Building {
    apps: [Option<XorAppender>; 5],
    bounds: Option<(i64, i64)>,
}

impl Building {
    fn new() -> Self {
        Self { apps: Default::default(), bounds: None }
    }

    fn push(&mut self, which: Aggregate, t: i64, v: f64) {
        self.apps[which as usize].get_or_insert_with(|| XorAppender::with_capacity(CHUNK_BYTES)).append(t, v);
    }

    fn covers(&mut self, t: i64) {
        self.bounds = Some(self.bounds.map_or((t, t), |(a, b)| (a.min(t), b.max(t))));
    }

    fn finish(self) -> Option<Chunk> {
        let bounds = self.bounds?;
        let parts = self.apps.map(|a| {
            a.map(|a| Chunk {
                min_time: bounds.0,
                max_time: bounds.1,
                encoding: Encoding::Xor,
                data: a.into_bytes().into(),
            })
        });
        Some(Chunk::of_aggregates(bounds, &parts))
    }
}

fn of_batch(times: &[i64], values: &[f64], to: i64) -> Chunk {
    let mut b = Building::new();
    b.push(Aggregate::Counter, times[0], values[0]);
    let end = windows(times, values, to, |t, w| {
        b.covers(t);
        b.push(Aggregate::Count, t, w.count as f64);
        b.push(Aggregate::Sum, t, w.sum);
        b.push(Aggregate::Min, t, w.min);
        b.push(Aggregate::Max, t, w.max);
        b.push(Aggregate::Counter, t, w.counter);
    });
    let (Some(end), Some(last)) = (end, values.last()) else { unreachable!("BUG: a batch has a sample") };
    b.push(Aggregate::Counter, end, *last);
    let Some(chunk) = b.finish() else { unreachable!("BUG: a batch has a window") };
    chunk
}

/// One chunk out of several finer ones.
fn coarser(chunks: &[Chunk], to: i64) -> Result<Option<Chunk>, ChunkError> {
    let mut b = Building::new();
    let mut all = Columns::default();
    for which in [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max] {
        all.clear();
        for chunk in chunks {
            if let Some(part) = chunk.aggregate(which)? {
                part.read(i64::MIN, i64::MAX, &mut all)?;
            }
        }
        windows(&all.times, &all.values, to, |t, w| {
            b.covers(t);
            b.push(
                which,
                t,
                match which {
                    Aggregate::Min => w.min,
                    Aggregate::Max => w.max,
                    _ => w.sum,
                },
            );
        });
    }
    let (counter, last_raw) = counters(chunks)?;
    if let (Some(&t), Some(&v)) = (counter.times.first(), counter.values.first()) {
        b.push(Aggregate::Counter, t, v);
        let end = windows(&counter.times, &counter.values, to, |t, w| {
            b.covers(t);
            b.push(Aggregate::Counter, t, w.counter);
        });
        b.push(Aggregate::Counter, end.unwrap_or(t), last_raw);
    }
    Ok(b.finish())
}

/// The counters of chunks as one without resets, and the last raw value.
fn counters(chunks: &[Chunk]) -> Result<(Columns, f64), ChunkError> {
    let (mut out, mut one) = (Columns::default(), Columns::default());
    let (mut last, mut total) = (None::<f64>, 0.0);
    for chunk in chunks {
        one.clear();
        chunk.read_counter(&mut one)?;
        for (&t, &v) in one.times.iter().zip(&one.values).filter(|(_, v)| !v.is_nan()) {
            let before = out.times.last().copied();
            match last {
                None => total = v,
                Some(l) if before.is_none_or(|b| b < t) => total += if v < l { v } else { v - l },
                Some(_) => {
                    // The last time once more: the raw value by which the next chunk is measured.
                    if before == Some(t) {
                        last = Some(v);
                    }
                    continue;
                }
            }
            last = Some(v);
            out.push(t, total);
        }
    }
    Ok((out, last.unwrap_or_default()))
}

/// Appends `v` to a column of windows that histograms count.
pub(crate) fn xor_of(samples: &[(i64, f64)]) -> Option<Chunk> {
    let (first, last) = (samples.first()?.0, samples.last()?.0);
    let mut a = XorAppender::new();
    samples.iter().for_each(|(t, v)| a.append(*t, *v));
    Some(Chunk { min_time: first, max_time: last, encoding: Encoding::Xor, data: a.into_bytes().into() })
}

/// A histogram as the layers above and below pass it on.
pub(crate) type Shared = Arc<FloatHistogram>;

#[cfg(test)]
mod tests;
