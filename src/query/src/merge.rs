//! Replicas into one series: exact deduplication by timestamp.
//!
//! Both slots of a target are scraped on one schedule and stamped with the scheduled time, so replicas carry
//! the same timestamps. For each timestamp one sample is kept: a value before a stale marker, then the lower
//! slot, then the greater bits. The rule looks at nothing but the samples of that timestamp, so the result is
//! the same whoever asks, in whatever order the parts arrive and whatever range is asked. For `up` the
//! healthiest slot counts. What other producers wrote, and downsampled chunks, are looked at through a `Lens`.

use std::borrow::Cow;
use std::sync::Arc;

use koios_chunk::{Chunk, ChunkError, Encoding, SeriesChunks};
use koios_model::histogram::{CounterReset, FloatHistogram};
use koios_model::{Columns, Labels, Slot, is_stale};
use koios_promql::{SeriesReader, SeriesSet};

use crate::lens::Lens;

/// All parts of one series.
#[derive(Clone, Debug)]
pub struct MergedSeries {
    /// Identity without the slot.
    pub labels: Labels,
    parts: Parts,
}

/// Chunks by slot. Most series come from one slot, and then their list is the one that storage made: a query over
/// many series at one moment holds little else.
#[derive(Clone, Debug)]
enum Parts {
    One(Slot, Vec<Chunk>),
    Several(Vec<(Slot, Vec<Chunk>)>),
}

impl MergedSeries {
    /// A series without parts yet.
    pub fn new(labels: Labels) -> Self {
        Self { labels, parts: Parts::Several(Vec::new()) }
    }

    /// Adds what one holder has of one slot.
    pub fn add(&mut self, slot: Slot, chunks: Vec<Chunk>) {
        match &mut self.parts {
            Parts::One(one, known) if *one == slot => known.extend(chunks),
            Parts::One(one, known) => {
                let first = (*one, std::mem::take(known));
                self.parts = Parts::Several(vec![first, (slot, chunks)]);
            }
            Parts::Several(all) => match all.iter_mut().find(|(s, _)| *s == slot) {
                Some((_, known)) => known.extend(chunks),
                None => all.push((slot, chunks)),
            },
        }
    }

    /// The parts, each a series of its own again.
    pub fn into_parts(self) -> Vec<SeriesChunks> {
        let labels = self.labels;
        let part = |(slot, chunks)| SeriesChunks { labels: labels.clone(), slot, chunks };
        match self.parts {
            Parts::One(slot, chunks) => vec![part((slot, chunks))],
            Parts::Several(all) => all.into_iter().map(part).collect(),
        }
    }

    /// Takes over what another series of the same labels has. Both are sealed, and so is the result.
    pub(crate) fn absorb(&mut self, other: Self) {
        other.into_parts().into_iter().for_each(|part| self.add(part.slot, part.chunks));
        self.seal();
    }

    /// Puts chunks in time order and drops copies, e.g. of a chunk served from a head and from its block.
    pub fn seal(&mut self) {
        match &mut self.parts {
            Parts::One(_, chunks) => seal(chunks),
            Parts::Several(all) => {
                all.sort_by_key(|(slot, _)| *slot);
                all.iter_mut().for_each(|(_, chunks)| seal(chunks));
            }
        }
    }

    fn parts(&self) -> impl Iterator<Item = (Slot, &[Chunk])> {
        let (one, several) = match &self.parts {
            Parts::One(slot, chunks) => (Some((*slot, chunks.as_slice())), &[][..]),
            Parts::Several(all) => (None, all.as_slice()),
        };
        one.into_iter().chain(several.iter().map(|(slot, chunks)| (*slot, chunks.as_slice())))
    }

    /// Bytes of all chunks.
    pub fn chunk_bytes(&self) -> usize {
        self.parts().flat_map(|(_, c)| c).map(|c| c.data.len()).sum()
    }

    /// The chunks that matter, when they are of one slot and follow each other: then there is nothing to merge.
    fn only_run(&self, mint: i64, maxt: i64) -> Option<impl Iterator<Item = &Chunk>> {
        let mut parts = self.parts();
        let (Some((_, chunks)), None) = (parts.next(), parts.next()) else { return None };
        let wanted = move |c: &&Chunk| c.min_time <= maxt && c.max_time >= mint;
        let mut run_end = i64::MIN;
        let follows = |c: &Chunk| {
            let follows = c.min_time > run_end;
            run_end = run_end.max(c.max_time);
            follows
        };
        chunks.iter().filter(wanted).all(follows).then(|| chunks.iter().filter(wanted))
    }

    /// The chunks with samples in `[mint, maxt]`, in time order, where they are all there is to see: our own, of one
    /// slot, one after the other. They may have samples before and after.
    pub fn whole_chunks(&self, mint: i64, maxt: i64) -> Option<Vec<Chunk>> {
        match self.parts().next() {
            None => None,
            Some((slot, _)) if slot.is_foreign() => None,
            Some(_) => self.only_run(mint, maxt).map(|run| run.cloned().collect()),
        }
    }

    /// Appends the samples in `[mint, maxt]` to `out`, as the lens shows them.
    ///
    /// # Errors
    /// When a chunk is damaged.
    pub fn look(&self, lens: &Lens, mint: i64, maxt: i64, out: &mut Columns) -> Result<(), ChunkError> {
        let foreign = self.foreign();
        let coarse = || self.parts().flat_map(|(_, c)| c).any(|c| c.encoding == Encoding::Aggregate);
        if foreign.is_none() && !(lens.coarse && coarse()) {
            return self.read(mint, maxt, out);
        }
        let mut own: Vec<(Slot, Columns)> = Vec::new();
        for (slot, chunks) in self.parts().filter(|(slot, _)| !slot.is_foreign()) {
            own.push((slot, lens.read(chunks.iter())?));
        }
        let mut samples = Columns::default();
        merge_runs(&own, self.is_health(), &mut samples);
        if let Some((chunks, live)) = foreign {
            samples = lens.read_replicas(&chunks, Some(samples).filter(|own| !own.is_empty()), live)?;
        }
        let from = samples.times.partition_point(|t| *t < mint);
        let until = samples.times.partition_point(|t| *t <= maxt);
        (from..until).for_each(|i| out.push_from(&samples, i));
        Ok(())
    }

    /// Chunks of other producers in time order, and whether one of these tells some of them itself.
    fn foreign(&self) -> Option<(Cow<'_, [Chunk]>, bool)> {
        let mut parts = self.parts().filter(|(slot, _)| slot.is_foreign());
        let (slot, chunks) = parts.next()?;
        let Some((_, more)) = parts.next() else { return Some((chunks.into(), slot == Slot::LIVE)) };
        let mut all: Vec<Chunk> = chunks.iter().chain(more).cloned().collect();
        all.sort_by_key(|c| (c.min_time, c.max_time));
        Some((all.into(), true))
    }

    fn is_health(&self) -> bool {
        self.labels.metric_name() == "up"
    }

    /// Appends the deduplicated samples in `[mint, maxt]` to `out`.
    ///
    /// # Errors
    /// When a chunk is damaged.
    pub fn read(&self, mint: i64, maxt: i64, out: &mut Columns) -> Result<(), ChunkError> {
        if let Some(mut only) = self.only_run(mint, maxt) {
            return only.try_for_each(|chunk| chunk.read(mint, maxt, out));
        }
        let healthiest = self.is_health();
        let mut runs: Vec<(Slot, Columns)> = Vec::new();
        for (slot, chunks) in self.parts() {
            let mut run = Columns::default();
            let mut run_end = i64::MIN;
            for chunk in chunks.iter().filter(|c| c.min_time <= maxt && c.max_time >= mint) {
                if chunk.min_time <= run_end {
                    runs.push((slot, std::mem::take(&mut run)));
                }
                chunk.read(mint, maxt, &mut run)?;
                run_end = run_end.max(chunk.max_time);
            }
            runs.push((slot, run));
        }
        runs.retain(|(_, c)| !c.is_empty());
        merge_runs(&runs, healthiest, out);
        Ok(())
    }
}

/// Series in label order, and how to look at them.
#[derive(Debug, Default)]
pub struct MergedList {
    /// The series.
    pub series: Vec<MergedSeries>,
    /// How their chunks become samples.
    pub lens: Lens,
}

impl MergedList {
    /// Whether another producer wrote some of it.
    pub fn is_foreign(&self) -> bool {
        self.series.iter().any(|s| s.parts().any(|(slot, _)| slot.is_foreign()))
    }
}

impl SeriesSet for MergedList {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn is_sorted(&self) -> bool {
        true
    }

    fn reader<'a>(&'a self, _: Option<&'a [String]>) -> Box<dyn SeriesReader + 'a> {
        Box::new(self)
    }
}

impl SeriesReader for &MergedList {
    fn labels(&mut self, at: usize) -> Result<Labels, String> {
        Ok(self.series[at].labels.clone())
    }

    fn read(&mut self, at: usize, mint: i64, maxt: i64, out: &mut Columns) -> Result<Labels, String> {
        let series = &self.series[at];
        series.look(&self.lens, mint, maxt, out).map_err(|e| format!("{}: {e}", series.labels))?;
        Ok(series.labels.clone())
    }
}

impl From<SeriesChunks> for MergedSeries {
    fn from(s: SeriesChunks) -> Self {
        Self { labels: s.labels, parts: Parts::One(s.slot, s.chunks) }
    }
}

fn seal(chunks: &mut Vec<Chunk>) {
    // Of equal times the greater bytes, as Thanos has it.
    chunks.sort_by(|a, b| {
        let times = |c: &Chunk| (c.min_time, c.max_time);
        times(a).cmp(&times(b)).then_with(|| b.data.cmp(&a.data))
    });
    chunks.dedup_by(|a, b| a.min_time == b.min_time && a.max_time == b.max_time && a.data == b.data);
}

/// Merges ascending runs into `out`.
fn merge_runs(runs: &[(Slot, Columns)], healthiest: bool, out: &mut Columns) {
    if let [(_, only)] = runs {
        if only.histograms.is_none()
            && only.starts.is_none()
            && out.histograms.is_none()
            && out.starts.is_none()
        {
            out.times.extend_from_slice(&only.times);
            out.values.extend_from_slice(&only.values);
        } else {
            (0..only.len()).for_each(|i| out.push_from(only, i));
        }
        return;
    }
    let mut at = vec![0usize; runs.len()];
    let mut last_run = None;
    loop {
        let next = runs.iter().zip(&at).filter_map(|((_, c), i)| c.times.get(*i)).min().copied();
        let Some(t) = next else { return };
        let mut best: Option<((Slot, f64), usize)> = None;
        for (run, ((slot, c), i)) in runs.iter().zip(&at).enumerate() {
            if c.times.get(*i) == Some(&t) {
                let candidate = (*slot, c.values[*i]);
                if best.is_none_or(|(b, _)| wins(candidate, b, healthiest)) {
                    best = Some((candidate, run));
                }
            }
        }
        if let Some((_, run)) = best {
            push(out, &runs[run].1, at[run], last_run == Some(run));
            last_run = Some(run);
        }
        for ((_, c), i) in runs.iter().zip(&mut at) {
            *i += usize::from(c.times.get(*i) == Some(&t));
        }
    }
}

/// Takes one sample over. What a histogram's run knows about resets holds only beside its own predecessor.
fn push(out: &mut Columns, run: &Columns, i: usize, continues: bool) {
    match run.histogram(i) {
        Some(h) if !continues && h.hint == CounterReset::NotReset => {
            let unsure = FloatHistogram { hint: CounterReset::Unknown, ..(**h).clone() };
            out.push_histogram(run.times[i], Arc::new(unsure));
            out.set_start(run.start(i));
        }
        _ => out.push_from(run, i),
    }
}

fn wins(a: (Slot, f64), b: (Slot, f64), healthiest: bool) -> bool {
    let (stale_a, stale_b) = (is_stale(a.1), is_stale(b.1));
    if stale_a != stale_b {
        return stale_b;
    }
    if healthiest && a.1 != b.1 {
        return a.1 > b.1;
    }
    if a.0 != b.0 { a.0 < b.0 } else { a.1.to_bits() > b.1.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_chunk::encode_xor;
    use koios_model::stale_nan;
    use proptest::prelude::*;

    fn chunks(samples: &[(i64, f64)], per_chunk: usize) -> Vec<Chunk> {
        let mut c = Columns::default();
        for (t, v) in samples {
            c.push(*t, *v);
        }
        encode_xor(&c, per_chunk)
    }

    fn read(name: &str, parts: &[(u8, &[(i64, f64)])]) -> Vec<(i64, u64)> {
        let mut m = MergedSeries::new(Labels::from_pairs([("__name__", name)]));
        for (slot, samples) in parts {
            m.add(Slot(*slot), chunks(samples, 2));
        }
        m.seal();
        let mut out = Columns::default();
        m.read(i64::MIN, i64::MAX, &mut out).unwrap();
        out.iter().map(|s| (s.t, s.v.to_bits())).collect()
    }

    #[test]
    fn values_beat_stale_markers_and_lower_slots_win() {
        let got = read(
            "m",
            &[(1, &[(1, 10.0), (2, 20.0), (4, 40.0)]), (0, &[(1, 11.0), (2, stale_nan()), (3, 31.0)])],
        );
        let want = [(1, 11.0f64), (2, 20.0), (3, 31.0), (4, 40.0)].map(|(t, v)| (t, v.to_bits()));
        assert_eq!(got, want);
    }

    #[test]
    fn histograms_survive_and_lose_hints_where_replicas_alternate() {
        let part = |times: &[i64]| {
            let mut c = Columns::default();
            times.iter().for_each(|&t| {
                let h = FloatHistogram { count: t as f64, sum: 1.0, ..FloatHistogram::default() };
                c.push_histogram(t, Arc::new(h));
            });
            koios_chunk::encode(&c, 100)
        };
        let hints = |parts: &[&[i64]]| {
            let mut m = MergedSeries::new(Labels::from_pairs([("__name__", "h")]));
            parts.iter().enumerate().for_each(|(slot, times)| m.add(Slot(slot as u8), part(times)));
            m.seal();
            let mut out = Columns::default();
            m.read(i64::MIN, i64::MAX, &mut out).unwrap();
            (0..out.len()).map(|i| (out.times[i], out.histogram(i).unwrap().hint)).collect::<Vec<_>>()
        };
        let (unknown, not) = (CounterReset::Unknown, CounterReset::NotReset);
        assert_eq!(hints(&[&[1, 2, 3]]), [(1, unknown), (2, not), (3, not)]);
        let both = hints(&[&[1, 2, 5], &[1, 3, 4]]);
        assert_eq!(both, [(1, unknown), (2, not), (3, unknown), (4, not), (5, unknown)]);
    }

    #[test]
    fn chunks_are_whole_where_nothing_is_to_be_merged() {
        let rising: Vec<(i64, f64)> = (0..6).map(|t| (t, t as f64)).collect();
        let of = |parts: &[(Slot, &[(i64, f64)])], mint, maxt| {
            let mut m = MergedSeries::new(Labels::from_pairs([("__name__", "m")]));
            parts.iter().for_each(|(slot, samples)| m.add(*slot, chunks(samples, 2)));
            m.seal();
            let found = m.whole_chunks(mint, maxt)?;
            Some(found.iter().map(|c| (c.min_time, c.max_time)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[(Slot(1), &rising)], 1, 2), Some(vec![(0, 1), (2, 3)]));
        assert_eq!(of(&[(Slot(1), &rising)], 9, 10), Some(vec![]));
        assert_eq!(of(&[(Slot(0), &rising), (Slot(1), &rising)], 0, 9), None, "two slots");
        assert_eq!(of(&[(Slot(0), &rising), (Slot(0), &rising[1..])], 0, 9), None, "overlaps");
        assert_eq!(of(&[(Slot::FOREIGN, &rising)], 0, 9), None, "another producer's");
        let (mut a, b) = (MergedSeries::new(Labels::empty()), chunks(&rising[2..], 2));
        a.add(Slot(0), chunks(&rising[..2], 2));
        a.absorb(SeriesChunks { labels: Labels::empty(), slot: Slot(0), chunks: b }.into());
        assert_eq!(a.whole_chunks(0, 9).map(|c| c.len()), Some(3));
    }

    #[test]
    fn up_is_what_the_healthiest_slot_saw() {
        assert_eq!(read("up", &[(0, &[(1, 0.0)]), (1, &[(1, 1.0)])]), [(1, 1.0f64.to_bits())]);
        assert_eq!(read("down", &[(0, &[(1, 0.0)]), (1, &[(1, 1.0)])]), [(1, 0.0f64.to_bits())]);
    }

    #[test]
    fn a_list_of_series_becomes_merged_series_in_its_place() {
        assert_eq!(size_of::<MergedSeries>(), size_of::<SeriesChunks>());
    }

    proptest! {
        /// Any split over slots, holders and chunk sizes, with copies, in any order of arrival, reads the same.
        #[test]
        fn arrival_order_and_copies_do_not_matter(
            samples in proptest::collection::btree_map(0i64..500, -3i64..3, 1..60),
            cut in 1usize..30,
            per_chunk in 1usize..9,
            order in any::<bool>(),
        ) {
            let all: Vec<(i64, f64)> = samples.iter().map(|(t, v)| (*t, *v as f64)).collect();
            let cut = cut.min(all.len());
            let parts: Vec<(u8, Vec<Chunk>)> = vec![
                (0, chunks(&all[..cut], per_chunk)),
                (0, chunks(&all[cut / 2..], per_chunk + 1)),
                (1, chunks(&all, 3)),
                (1, chunks(&all, 3)),
            ];
            let labels = Labels::from_pairs([("__name__", "m")]);
            let mut m: Option<MergedSeries> = None;
            let ordered: Box<dyn Iterator<Item = _>> = if order { Box::new(parts.into_iter()) } else { Box::new(parts.into_iter().rev()) };
            for (slot, c) in ordered {
                match &mut m {
                    Some(m) => m.add(Slot(slot), c),
                    None => m = Some(MergedSeries::from(SeriesChunks { labels: labels.clone(), slot: Slot(slot), chunks: c })),
                }
            }
            let mut m = m.unwrap();
            m.seal();
            let mut out = Columns::default();
            m.read(i64::MIN, i64::MAX, &mut out).unwrap();
            let got: Vec<(i64, f64)> = out.iter().map(|s| (s.t, s.v)).collect();
            prop_assert_eq!(got, all);
        }
    }
}
