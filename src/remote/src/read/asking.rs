//! The asking side: a question as bytes, and both forms of the answer as series of chunks.
//!
//! Owns the bounds of what another program answers (`AnswerLimits`) and the words about an answer that is none. Frames are read as they come,
//! so no answer has to be in memory as bytes and as series. Invariants: nothing is allocated by what a frame claims before
//! its bytes are here; a frame whose checksum is wrong ends the answer; series that go on in the next frame are one series.

use bytes::{Buf, Bytes, BytesMut};
use koios_block::crc32c;
use koios_chunk::{Chunk, Encoding, SeriesChunks, encode};
use koios_model::{Columns, Labels, MatchType, Slot};

use super::frames::SAMPLES_PER_CHUNK;
use super::request::{Kind, ReadQuery};
use crate::batch::PushValue;
use crate::encode::{put_bytes, put_int, put_varint};
use crate::histogram;
use crate::unpack::unpack_snappy;
use crate::wire::{Broken, Fields, Value, varint};

/// Longest frame that is read; Prometheus makes them of 1 MiB, and longer ones only for a single long chunk.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// Longest varint that can be the length of such a frame.
const LENGTH_BYTES_MAX: usize = 5;
/// Labels of a series.
const LABELS_MAX: usize = 10_000;

/// What an answer may have at most.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLimits {
    /// Series.
    pub series: u64,
    /// Bytes of samples, when unpacked.
    pub bytes: u64,
}

/// Why an answer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is not what the format says.
    #[error("the answer is damaged: {0}")]
    Broken(String),
    /// It has more than it may.
    #[error("the answer has more than {max} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: u64,
    },
}

impl From<Broken> for AnswerError {
    fn from(why: Broken) -> Self {
        Self::Broken(why.to_owned())
    }
}

/// A question with one query as it is sent: `prometheus.ReadRequest` in a snappy block. Chunks are asked for first, and
/// samples for those who know no chunks.
pub fn question(query: &ReadQuery, wanted: Kind) -> Vec<u8> {
    let (mut inner, mut part) = (Vec::with_capacity(256), Vec::new());
    put_int(&mut inner, 1, query.mint as u64);
    put_int(&mut inner, 2, query.maxt as u64);
    for m in &query.matchers {
        part.clear();
        let kind = match m.kind {
            MatchType::Equal => 0,
            MatchType::NotEqual => 1,
            MatchType::Regex => 2,
            MatchType::NotRegex => 3,
        };
        put_int(&mut part, 1, kind);
        put_bytes(&mut part, 2, m.name.as_bytes());
        put_bytes(&mut part, 3, m.value.as_bytes());
        put_bytes(&mut inner, 3, &part);
    }
    let mut message = Vec::with_capacity(inner.len() + 16);
    put_bytes(&mut message, 1, &inner);
    let mut kinds = Vec::new();
    if wanted == Kind::Chunks {
        put_varint(&mut kinds, 1);
    }
    put_varint(&mut kinds, 0);
    put_bytes(&mut message, 2, &kinds);
    snap::raw::Encoder::new().compress_vec(&message).expect("BUG: a question is shorter than 4 GiB")
}

/// Reads frames as they come.
#[derive(Debug)]
pub struct FrameReader {
    waiting: BytesMut,
    limits: AnswerLimits,
    bytes: u64,
    found: Vec<SeriesChunks>,
}

impl FrameReader {
    /// Nothing has come yet.
    pub fn new(limits: AnswerLimits) -> Self {
        Self { waiting: BytesMut::new(), limits, bytes: 0, found: Vec::new() }
    }

    /// Takes the next piece of the answer; gives how many bytes of samples it brought.
    ///
    /// # Errors
    /// When it is damaged or has too much.
    pub fn push(&mut self, piece: &[u8]) -> Result<u64, AnswerError> {
        self.waiting.extend_from_slice(piece);
        let before = self.bytes;
        while let Some(message) = self.frame()? {
            self.absorb(&message)?;
        }
        Ok(self.bytes - before)
    }

    /// The series, once all has come.
    ///
    /// # Errors
    /// When the answer ended inside a frame.
    pub fn finish(self) -> Result<Vec<SeriesChunks>, AnswerError> {
        match self.waiting.is_empty() {
            true => Ok(self.found),
            false => Err(AnswerError::Broken("it ends inside a frame".to_owned())),
        }
    }

    /// The next message that is here as a whole.
    fn frame(&mut self) -> Result<Option<Bytes>, AnswerError> {
        let mut rest = &self.waiting[..];
        let ends = rest.iter().take(LENGTH_BYTES_MAX).any(|b| b & 0x80 == 0);
        if !ends {
            let long = rest.len() >= LENGTH_BYTES_MAX;
            return if long { Err("the length of a frame".into()) } else { Ok(None) };
        }
        let len = varint(&mut rest)? as usize;
        if len > FRAME_BYTES_MAX {
            return Err(AnswerError::Broken(format!("a frame of {len} bytes")));
        }
        let head = self.waiting.len() - rest.len();
        if rest.len() < 4 + len {
            return Ok(None);
        }
        self.waiting.advance(head);
        let sum = self.waiting.get_u32();
        let message = self.waiting.split_to(len).freeze();
        if crc32c(&message) != sum {
            return Err("the checksum of a frame is wrong".into());
        }
        Ok(Some(message))
    }

    fn absorb(&mut self, message: &Bytes) -> Result<(), AnswerError> {
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            if number != 1 {
                continue;
            }
            let series = chunked(message, value.bytes()?)?;
            self.bytes += series.chunks.iter().map(|c| c.data.len() as u64).sum::<u64>();
            add(&mut self.found, series, &self.limits)?;
            check_bytes(self.bytes, &self.limits)?;
        }
        Ok(())
    }
}

fn add(found: &mut Vec<SeriesChunks>, more: SeriesChunks, limits: &AnswerLimits) -> Result<(), AnswerError> {
    let is_full = found.len() as u64 >= limits.series;
    match found.last_mut() {
        Some(last) if last.labels == more.labels => last.chunks.extend(more.chunks),
        _ if is_full => return Err(AnswerError::TooMuch { what: "series", max: limits.series }),
        _ => found.push(more),
    }
    Ok(())
}

fn check_bytes(bytes: u64, limits: &AnswerLimits) -> Result<(), AnswerError> {
    match bytes > limits.bytes {
        true => Err(AnswerError::TooMuch { what: "bytes", max: limits.bytes }),
        false => Ok(()),
    }
}

/// One `ChunkedSeries`; its data stay where they lie in `frame`.
fn chunked(frame: &Bytes, message: &[u8]) -> Result<SeriesChunks, AnswerError> {
    let (mut labels, mut chunks) = (Vec::new(), Vec::new());
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => labels.push(label(value)?),
            2 => chunks.push(chunk(frame, value.bytes()?)?),
            _ => {}
        }
    }
    Ok(SeriesChunks { labels: named(&labels)?, slot: Slot::FOREIGN, chunks })
}

fn named(labels: &[(&str, &str)]) -> Result<Labels, AnswerError> {
    match labels.len() > LABELS_MAX {
        true => Err(AnswerError::TooMuch { what: "labels in a series", max: LABELS_MAX as u64 }),
        false => Ok(Labels::from_pairs(labels.iter().copied())),
    }
}

fn label<'a>(value: Value<'a>) -> Result<(&'a str, &'a str), AnswerError> {
    let (mut name, mut text) = ("", "");
    let mut fields = Fields::of(value.bytes()?);
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| "a label is not UTF-8");
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = utf8(value.bytes()?)?,
            2 => text = utf8(value.bytes()?)?,
            _ => {}
        }
    }
    Ok((name, text))
}

fn chunk(frame: &Bytes, message: &[u8]) -> Result<Chunk, AnswerError> {
    let (mut min_time, mut max_time, mut kind, mut data) = (0, 0, 0, &[][..]);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => min_time = value.int()?,
            2 => max_time = value.int()?,
            3 => kind = value.uint()?,
            4 => data = value.bytes()?,
            _ => {}
        }
    }
    let known = [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram];
    let encoding = known.into_iter().find(|e| *e as u64 == kind);
    let Some(encoding) = encoding else {
        return Err(AnswerError::Broken(format!("chunk encoding {kind} is unknown")));
    };
    if min_time > max_time || data.len() < 2 {
        return Err("a chunk without samples".into());
    }
    Ok(Chunk { min_time, max_time, encoding, data: frame.slice_ref(data) })
}

/// Series from the answer of samples, encoded into chunks here.
///
/// # Errors
/// When it is damaged or has too much.
pub fn samples(body: &[u8], limits: &AnswerLimits) -> Result<Vec<SeriesChunks>, AnswerError> {
    let room = usize::try_from(limits.bytes).unwrap_or(usize::MAX).min(u32::MAX as usize);
    let message = unpack_snappy(body, room).map_err(|e| AnswerError::Broken(e.to_string()))?;
    let mut found = Vec::new();
    let mut results = Fields::of(&message);
    while let Some((number, value)) = results.next()? {
        if number != 1 {
            continue;
        }
        let mut all = Fields::of(value.bytes()?);
        while let Some((number, value)) = all.next()? {
            if number == 1 {
                add(&mut found, sampled(value.bytes()?, message.len())?, limits)?;
            }
        }
    }
    Ok(found)
}

/// One `TimeSeries`, of which only labels and samples count here.
fn sampled(message: &[u8], mut parts: usize) -> Result<SeriesChunks, AnswerError> {
    let (mut labels, mut columns) = (Vec::new(), Columns::default());
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => labels.push(label(value)?),
            2 => {
                let (t, v) = float(value)?;
                columns.push(t, v);
            }
            4 => match histogram::read(value.bytes()?, &mut parts)? {
                histogram::Read::Good(s) => match &s.v {
                    PushValue::Float(v) => columns.push(s.t, *v),
                    PushValue::Histogram(h) => columns.push_histogram(s.t, h.to_float().into()),
                    PushValue::FloatHistogram(h) => columns.push_histogram(s.t, h.clone()),
                },
                histogram::Read::Bad(t, why) => {
                    return Err(AnswerError::Broken(format!("histogram at {t}: {why}")));
                }
                histogram::Read::Budget => return Err("more buckets than bytes".into()),
            },
            _ => {}
        }
    }
    // Floats come before histograms in a message.
    let columns = if columns.times.is_sorted() { columns } else { in_time_order(&columns) };
    let chunks = if columns.is_empty() { Vec::new() } else { encode(&columns, SAMPLES_PER_CHUNK) };
    Ok(SeriesChunks { labels: named(&labels)?, slot: Slot::FOREIGN, chunks })
}

fn in_time_order(columns: &Columns) -> Columns {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|i| columns.times[*i]);
    let mut sorted = Columns::default();
    order.into_iter().for_each(|i| sorted.push_from(columns, i));
    sorted
}

fn float(value: Value<'_>) -> Result<(i64, f64), AnswerError> {
    let (mut t, mut v) = (0, 0.0);
    let mut fields = Fields::of(value.bytes()?);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => v = value.double()?,
            2 => t = value.int()?,
            _ => {}
        }
    }
    Ok((t, v))
}

#[cfg(test)]
mod tests;
