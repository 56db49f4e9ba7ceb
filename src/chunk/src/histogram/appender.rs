//! Writing histogram chunks, and the rule when one must end.
//!
//! A chunk holds histograms of one layout between which the counter was not reset. New buckets make the chunk be
//! coded again with empty ones; a reset, another schema, zero threshold or set of bounds, the end of staleness, or
//! the change between counter and gauge begins a new chunk, whose flags say what is known. The rules are
//! Prometheus' (`tsdb/chunkenc/{histogram,float_histogram}.go`), and so are the bytes. Invariant: what `to_bytes`
//! gives is a valid chunk.

use koios_model::histogram::CounterReset;

use super::coder::Coder;
use super::layout::Layout;
use super::reader::{HEADER_BYTES, HistogramIter, header_flags, stale};
use super::spans::{Difference, compare, expand, union};
use crate::ChunkError;
use crate::bits::BitWriter;
use crate::varbit::put_int;

/// An open histogram chunk that takes samples.
#[derive(Clone, Debug)]
pub struct HistogramAppender<C> {
    bits: BitWriter,
    layout: Layout,
    coder: C,
    header: CounterReset,
    t: i64,
    delta: i64,
    count: u16,
}

/// Whether and how a sample fits an open chunk.
enum Fit {
    /// It does, after making the buckets of each side agree.
    Fits([Difference; 2]),
    /// It does not; this goes into the next chunk's flags.
    New(CounterReset),
}

impl<C: Coder> HistogramAppender<C> {
    fn empty(header: CounterReset) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&[0, 0, header_flags(header)]);
        Self {
            bits: BitWriter::from_bytes(bytes, 0),
            layout: Layout::default(),
            coder: C::default(),
            header,
            t: 0,
            delta: 0,
            count: 0,
        }
    }

    /// A new chunk with its first sample. `before` is the chunk of the same encoding that it continues.
    pub fn start(before: Option<&Self>, t: i64, v: &C::Value) -> Self {
        let header = match (C::hint(v), before) {
            (hint @ (CounterReset::Gauge | CounterReset::Reset), _) => hint,
            (_, Some(before)) => match before.fit_counter(v) {
                Fit::New(hint) => hint,
                Fit::Fits(_) => CounterReset::NotReset,
            },
            (_, None) => CounterReset::Unknown,
        };
        let mut new = Self::empty(header);
        new.put(t, v);
        new
    }

    /// Goes on where the encoded chunk ends.
    ///
    /// # Errors
    /// `ChunkError` when the bytes are not a sound chunk of this encoding.
    pub fn resume(bytes: &[u8]) -> Result<Self, ChunkError> {
        let mut it = HistogramIter::<C>::new(bytes)?;
        while let Some(step) = it.step() {
            step?;
        }
        let own = bytes[..HEADER_BYTES + it.r.bytes_used()].to_vec();
        Ok(Self {
            bits: BitWriter::from_bytes(own, it.r.free_bits()),
            layout: it.layout,
            coder: it.coder,
            header: it.header,
            t: it.t,
            delta: it.delta,
            count: it.done as u16,
        })
    }

    /// Number of samples.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Length of the chunk as it would be written now.
    pub fn byte_len(&self) -> usize {
        self.bits.bytes.len()
    }

    /// Time of the last sample; 0 when there is none.
    pub fn last_time(&self) -> i64 {
        self.t
    }

    /// The sample appended last; its hint says no more than a reader would know.
    pub fn last_value(&self) -> C::Value {
        if koios_model::is_stale(self.coder.sum()) {
            return stale::<C>(self.coder.sum());
        }
        let gauge = self.header == CounterReset::Gauge;
        self.coder.value(&self.layout, if gauge { CounterReset::Gauge } else { CounterReset::Unknown })
    }

    /// What the flags say about the counter at the chunk's begin.
    pub fn header(&self) -> CounterReset {
        self.header
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.bits.bytes.capacity() + self.coder.heap_bytes()
    }

    /// A copy of the chunk as it would be written now.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bits.bytes.clone();
        bytes[..2].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// Appends a sample that is newer than the last one. When the chunk must end before it, the chunk stays as it
    /// is and the answer is the next one, which has the sample.
    pub fn append(&mut self, t: i64, v: &C::Value) -> Option<Self> {
        let gauge = C::hint(v) == CounterReset::Gauge;
        let fit = if gauge { self.fit_gauge(v) } else { self.fit_counter(v) };
        let sides = match fit {
            Fit::Fits(sides) => sides,
            Fit::New(hint) => {
                let mut next = Self::empty(hint);
                next.put(t, v);
                return Some(next);
            }
        };
        if sides.iter().all(|s| !s.forward && !s.backward) {
            self.put(t, v);
            return None;
        }
        let theirs = C::layout(v).spans;
        let forward = sides.iter().any(|s| s.forward);
        let backward = sides.iter().any(|s| s.backward);
        let target = if !forward {
            self.layout.spans.clone()
        } else {
            // A gauge that lacks buckets anywhere gets the union on both sides, a counter only where it does.
            std::array::from_fn(|i| match sides[i].backward || (gauge && backward) {
                true => union(&self.layout.spans[i], &theirs[i]),
                false => theirs[i].clone(),
            })
        };
        let counts = C::counts_of(v);
        let counts = std::array::from_fn(|i| expand(&counts[i], &theirs[i], &target[i]));
        let fitted = C::with_counts(v, counts);
        if forward {
            self.recode(target);
        }
        self.put(t, &fitted);
        None
    }

    /// Writes all samples again with more buckets.
    fn recode(&mut self, spans: [Vec<koios_model::histogram::Span>; 2]) {
        let old = std::mem::replace(self, Self::empty(self.header));
        let bytes = old.to_bytes();
        let it = HistogramIter::<C>::new(&bytes).expect("BUG: an open chunk has a header");
        for sample in it {
            let (t, v) = sample.expect("BUG: an open chunk does not decode");
            if koios_model::is_stale(C::sum_of(&v)) {
                self.put(t, &v);
                continue;
            }
            let counts = C::counts_of(&v);
            let counts = std::array::from_fn(|i| expand(&counts[i], &old.layout.spans[i], &spans[i]));
            let layout = Layout { spans: spans.clone(), ..old.layout.clone() };
            self.put_as(t, &C::with_counts(&v, counts), layout);
        }
    }

    fn put(&mut self, t: i64, v: &C::Value) {
        if !koios_model::is_stale(C::sum_of(v)) {
            let layout = if self.count == 0 { C::layout(v) } else { Layout::default() };
            return self.put_as(t, v, layout);
        }
        self.put_as(t, &stale::<C>(C::sum_of(v)), Layout::default());
    }

    /// `layout` counts for the first sample only.
    fn put_as(&mut self, t: i64, v: &C::Value, layout: Layout) {
        if self.count == 0 {
            layout.put(&mut self.bits);
            self.layout = layout;
            put_int(&mut self.bits, t);
        } else {
            let delta = t.wrapping_sub(self.t);
            put_int(&mut self.bits, delta.wrapping_sub(self.delta));
            self.delta = delta;
        }
        self.coder.put(&mut self.bits, v, self.count == 0);
        self.t = t;
        self.count = self.count.checked_add(1).expect("BUG: more than 65,535 samples in one chunk");
    }

    fn fit_counter(&self, v: &C::Value) -> Fit {
        if self.count > 0 && self.header == CounterReset::Gauge {
            return Fit::New(CounterReset::NotReset);
        }
        if C::hint(v) == CounterReset::Reset {
            return Fit::New(CounterReset::Reset);
        }
        if koios_model::is_stale(C::sum_of(v)) {
            return Fit::Fits(Default::default());
        }
        if koios_model::is_stale(self.coder.sum()) {
            return Fit::New(CounterReset::NotReset);
        }
        let theirs = C::layout(v);
        if self.coder.count_shrunk(v) {
            return Fit::New(CounterReset::Reset);
        }
        if theirs.schema != self.layout.schema || theirs.zero_threshold != self.layout.zero_threshold {
            return Fit::New(CounterReset::NotReset);
        }
        if theirs.custom != self.layout.custom || self.coder.zero_shrunk(v) {
            return Fit::New(CounterReset::Reset);
        }
        let sides = self.compare(v, &theirs);
        if sides.iter().any(|s| s.shrunk) { Fit::New(CounterReset::Reset) } else { Fit::Fits(sides) }
    }

    fn fit_gauge(&self, v: &C::Value) -> Fit {
        let new = Fit::New(CounterReset::Gauge);
        if self.count > 0 && self.header != CounterReset::Gauge {
            return new;
        }
        if koios_model::is_stale(C::sum_of(v)) {
            return Fit::Fits(Default::default());
        }
        let theirs = C::layout(v);
        let same = theirs.schema == self.layout.schema
            && theirs.zero_threshold == self.layout.zero_threshold
            && theirs.custom == self.layout.custom;
        if !same || koios_model::is_stale(self.coder.sum()) {
            new
        } else {
            Fit::Fits(self.compare(v, &theirs))
        }
    }

    fn compare(&self, v: &C::Value, theirs: &Layout) -> [Difference; 2] {
        let (own, new) = (self.coder.counts(), C::counts_of(v));
        std::array::from_fn(|i| compare((&self.layout.spans[i], &own[i]), (&theirs.spans[i], &new[i])))
    }
}
