//! Reading histogram chunks, sample by sample.
//!
//! Invariants: decoded times ascend strictly; a sample is handed out only when all of its bits were there; the
//! stale marker comes as a histogram that has nothing but its sum.

use std::sync::Arc;

use koios_model::Columns;
use koios_model::histogram::CounterReset;

use super::coder::{Coder, FloatCoder, IntCoder};
use super::layout::Layout;
use crate::bits::BitReader;
use crate::varbit::take_int;
use crate::{ChunkError, Encoding};

/// Sample count and flags.
pub(crate) const HEADER_BYTES: usize = 3;

/// What a chunk's flag byte says about the counter between the chunk before and this one.
pub(crate) fn header_hint(flags: u8) -> CounterReset {
    match flags >> 6 {
        0b10 => CounterReset::Reset,
        0b01 => CounterReset::NotReset,
        0b11 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    }
}

/// The flag byte of a hint.
pub(crate) fn header_flags(hint: CounterReset) -> u8 {
    match hint {
        CounterReset::Reset => 0b10 << 6,
        CounterReset::NotReset => 0b01 << 6,
        CounterReset::Gauge => 0b11 << 6,
        CounterReset::Unknown => 0,
    }
}

/// Iterator over the samples of a histogram chunk. Ends after the first error.
#[derive(Clone, Debug)]
pub struct HistogramIter<'a, C> {
    pub(crate) r: BitReader<'a>,
    pub(crate) coder: C,
    pub(crate) layout: Layout,
    pub(crate) header: CounterReset,
    pub(crate) t: i64,
    pub(crate) delta: i64,
    pub(crate) count: usize,
    pub(crate) done: usize,
    bytes: usize,
    buckets: [usize; 2],
    failed: bool,
    /// A time may come again, as in aggregates of counters.
    repeats: bool,
}

impl<'a, C: Coder> HistogramIter<'a, C> {
    /// Starts reading.
    ///
    /// # Errors
    /// `ChunkError::Short` when even the header is missing.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ChunkError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(ChunkError::Short { sample: 0, count: 0, bytes: bytes.len() });
        };
        Ok(Self {
            r: BitReader::new(body),
            coder: C::default(),
            layout: Layout::default(),
            header: header_hint(header[2]),
            t: 0,
            delta: 0,
            count: usize::from(u16::from_be_bytes([header[0], header[1]])),
            done: 0,
            bytes: bytes.len(),
            buckets: [0, 0],
            failed: false,
            repeats: false,
        })
    }

    /// Reads a sample without making a value of it.
    pub(crate) fn step(&mut self) -> Option<Result<(), ChunkError>> {
        if self.failed || self.done == self.count {
            return None;
        }
        let read = self.take();
        if self.r.overrun() {
            self.failed = true;
            return Some(Err(ChunkError::Short { sample: self.done, count: self.count, bytes: self.bytes }));
        }
        if let Err(what) = read {
            self.failed = true;
            return Some(Err(ChunkError::Damaged { sample: self.done, what }));
        }
        self.done += 1;
        Some(Ok(()))
    }

    fn take(&mut self) -> Result<(), &'static str> {
        let first = self.done == 0;
        if first {
            self.layout = Layout::take(&mut self.r)?;
            self.buckets = self.layout.buckets();
            self.t = take_int(&mut self.r);
            return self.coder.take(&mut self.r, self.buckets, true);
        }
        self.delta = self.delta.wrapping_add(take_int(&mut self.r));
        let t = self.t.checked_add(self.delta).filter(|t| *t > self.t || (self.repeats && *t == self.t));
        self.coder.take(&mut self.r, self.buckets, false)?;
        self.t = t.ok_or("time does not ascend")?;
        Ok(())
    }

    /// Whether the sample read last is the stale marker.
    pub(crate) fn is_stale(&self) -> bool {
        koios_model::is_stale(self.coder.sum())
    }

    /// The sample read last. Only the first one's relation to its predecessor is unknown.
    pub(crate) fn value(&self) -> C::Value {
        let hint = match self.header {
            CounterReset::Gauge => CounterReset::Gauge,
            _ if self.done > 1 => CounterReset::NotReset,
            _ => CounterReset::Unknown,
        };
        if self.is_stale() {
            return stale::<C>(self.coder.sum());
        }
        self.coder.value(&self.layout, hint)
    }
}

impl<C: Coder> Iterator for HistogramIter<'_, C> {
    type Item = Result<(i64, C::Value), ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.step()?.map(|()| (self.t, self.value())))
    }
}

/// The stale marker: nothing but its sum.
pub(crate) fn stale<C: Coder>(sum: f64) -> C::Value {
    let mut coder = C::default();
    coder.set_sum(sum);
    coder.value(&Layout::default(), CounterReset::Unknown)
}

/// Appends all samples of a chunk of float histograms in which times may come again to `out`.
///
/// # Errors
/// As `read`.
pub(crate) fn read_repeating(bytes: &[u8], out: &mut Columns) -> Result<(), ChunkError> {
    let it = HistogramIter::<FloatCoder> { repeats: true, ..HistogramIter::new(bytes)? };
    it.into_iter().try_for_each(|sample| sample.map(|(t, h)| out.push_histogram(t, Arc::new(h))))
}

/// Appends the samples of a histogram chunk with `mint <= t <= maxt` to `out`.
///
/// # Errors
/// `ChunkError`; samples before the damage may already be in `out`.
pub(crate) fn read(
    encoding: Encoding,
    bytes: &[u8],
    mint: i64,
    maxt: i64,
    out: &mut Columns,
) -> Result<(), ChunkError> {
    match encoding {
        Encoding::Histogram => read_as::<IntCoder>(bytes, mint, maxt, out),
        Encoding::FloatHistogram => read_as::<FloatCoder>(bytes, mint, maxt, out),
        other => Err(ChunkError::Unsupported(other)),
    }
}

fn read_as<C: Coder>(bytes: &[u8], mint: i64, maxt: i64, out: &mut Columns) -> Result<(), ChunkError> {
    let mut it = HistogramIter::<C>::new(bytes)?;
    while let Some(step) = it.step() {
        step?;
        if it.t > maxt {
            break;
        }
        if it.t >= mint {
            out.push_histogram(it.t, Arc::new(C::to_float(it.value())));
        }
    }
    Ok(())
}
