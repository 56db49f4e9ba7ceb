//! What the frames hold: records by type byte, `docs/formats/wal.md` draws each.
//!
//! | type | record | where |
//! |---|---|---|
//! | 1 | series: references with slot and labels | log |
//! | 2 | float samples in columns (`samples`) | log |
//! | 3 | truncation: nothing before this time counts any more | log |
//! | 4, 5 | native histograms with integer and with float counts (`histograms`) | log |
//! | 8 | late samples: a record of type 2, 4 or 5 whose samples are out of order | log |
//! | 6 | exemplars (`exemplars`) | log |
//! | 7 | metadata of families (`metadata`) | log, checkpoint |
//! | 9 | deletion (`tombstones`) | log |
//! | 16 | head: next reference, oldest valid time | checkpoint, first |
//! | 17 | chunks of one series | checkpoint |
//! | 18 | end: how many series came before | checkpoint, last |
//! | 19 | chunks of late samples of one series | checkpoint |
//! | 21, 22 | label pairs, series as numbers of such (`owners`) | checkpoint |
//! | 20 | exemplars with the labels of their series (`exemplars`) | checkpoint |
//!
//! Invariant: decoding never allocates more than a small multiple of the record's length.

use bytes::Bytes;
use koios_chunk::varint::{get_uvarint, get_varint, put_uvarint, put_varint};
use koios_chunk::{Chunk, Encoding};
use koios_model::{Labels, Slot};

pub(crate) const SERIES: u8 = 1;
pub(crate) const SAMPLES: u8 = 2;
pub(crate) const TRUNCATE: u8 = 3;
pub(crate) const HISTOGRAMS: u8 = 4;
pub(crate) const FLOAT_HISTOGRAMS: u8 = 5;
pub(crate) const EXEMPLARS: u8 = 6;
pub(crate) const METADATA: u8 = 7;
pub(crate) const LATE: u8 = 8;
pub(crate) const TOMBSTONES: u8 = 9;
pub(crate) const HEAD: u8 = 16;
pub(crate) const CHUNKS: u8 = 17;
pub(crate) const END: u8 = 18;
pub(crate) const LATE_CHUNKS: u8 = 19;
pub(crate) const OWNED_EXEMPLARS: u8 = 20;
pub(crate) const PAIRS: u8 = 21;
pub(crate) const OWNER: u8 = 22;

/// A record whose bytes mean nothing although its checksum fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRecord(pub(crate) &'static str);

/// A new series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeriesRecord {
    pub(crate) id: u64,
    pub(crate) slot: Slot,
    pub(crate) labels: Labels,
}

/// Writes series with ascending references: `uvarint count`, then per series `uvarint reference` (the first
/// whole, then the difference), slot byte, `uvarint labels`, and per text `0, uvarint length, bytes` when it is
/// new in this record, else its number from 1.
pub(crate) fn put_series<'a>(
    out: &mut Vec<u8>,
    series: impl ExactSizeIterator<Item = (u64, Slot, &'a Labels)>,
) {
    out.push(SERIES);
    put_uvarint(out, series.len() as u64);
    let mut texts = hashbrown::HashMap::<&str, u64>::new();
    let mut last = 0;
    for (id, slot, labels) in series {
        put_uvarint(out, id - last);
        last = id;
        out.push(slot.0);
        put_uvarint(out, labels.len() as u64);
        for (name, value) in labels {
            for text in [name, value] {
                let next = texts.len() as u64 + 1;
                match texts.entry(text) {
                    hashbrown::hash_map::Entry::Occupied(known) => put_uvarint(out, *known.get()),
                    hashbrown::hash_map::Entry::Vacant(free) => {
                        free.insert(next);
                        out.push(0);
                        put_uvarint(out, text.len() as u64);
                        out.extend_from_slice(text.as_bytes());
                    }
                }
            }
        }
    }
}

/// Reads what `put_series` wrote.
pub(crate) fn get_series(mut rest: &[u8]) -> Result<Vec<SeriesRecord>, BadRecord> {
    let short = BadRecord("series record is cut short");
    let input = &mut rest;
    let count = get_uvarint(input).ok_or(short)?;
    let mut out = Vec::new();
    let mut texts: Vec<&str> = Vec::new();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut id = 0u64;
    for _ in 0..count {
        let step = get_uvarint(input).ok_or(short)?;
        id = id.checked_add(step).filter(|_| step > 0).ok_or(BadRecord("series references do not ascend"))?;
        let slot = Slot(take(input, 1)?[0]);
        let labels = get_uvarint(input).ok_or(short)?;
        pairs.clear();
        for _ in 0..labels {
            let name = get_text(input, &mut texts)?;
            let value = get_text(input, &mut texts)?;
            if value.is_empty() || pairs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(BadRecord("labels of a series are not sorted or have an empty value"));
            }
            pairs.push((name, value));
        }
        out.push(SeriesRecord { id, slot, labels: Labels::from_sorted(pairs.iter().copied()) });
    }
    Ok(out)
}

fn get_text<'a>(input: &mut &'a [u8], texts: &mut Vec<&'a str>) -> Result<&'a str, BadRecord> {
    match get_uvarint(input).ok_or(BadRecord("series record is cut short"))? {
        0 => {
            let len = get_uvarint(input).ok_or(BadRecord("series record is cut short"))?;
            let bytes = take(input, usize::try_from(len).unwrap_or(usize::MAX))?;
            let text = std::str::from_utf8(bytes).map_err(|_| BadRecord("label text is not UTF-8"))?;
            texts.push(text);
            Ok(text)
        }
        n => texts.get(n as usize - 1).copied().ok_or(BadRecord("label text has no such number")),
    }
}

pub(crate) fn take<'a>(input: &mut &'a [u8], n: usize) -> Result<&'a [u8], BadRecord> {
    let (head, tail) = input.split_at_checked(n).ok_or(BadRecord("record is cut short"))?;
    *input = tail;
    Ok(head)
}

/// Writes late samples: the type byte, then a whole record of type 2 (values coded against 0), 4 or 5.
pub(crate) fn put_late(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(LATE);
    fill(out);
}

/// Writes a truncation.
pub(crate) fn put_truncate(out: &mut Vec<u8>, before: i64) {
    out.push(TRUNCATE);
    put_varint(out, before);
}

/// Reads a truncation.
pub(crate) fn get_truncate(mut rest: &[u8]) -> Result<i64, BadRecord> {
    get_varint(&mut rest).ok_or(BadRecord("truncation record is cut short"))
}

/// First record of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    pub(crate) next_id: u64,
    pub(crate) min_valid: i64,
    /// About how many follow, 0 when unknown.
    pub(crate) series: u64,
}

pub(crate) fn put_head(out: &mut Vec<u8>, head: HeadRecord) {
    out.push(HEAD);
    put_uvarint(out, head.next_id);
    put_varint(out, head.min_valid);
    put_uvarint(out, head.series);
}

pub(crate) fn get_head(mut rest: &[u8]) -> Result<HeadRecord, BadRecord> {
    let input = &mut rest;
    let fields = get_uvarint(input).zip(get_varint(input));
    let (next_id, min_valid) = fields.ok_or(BadRecord("head record is cut short"))?;
    // Older checkpoints end here.
    Ok(HeadRecord { next_id, min_valid, series: get_uvarint(input).unwrap_or(0) })
}

/// Chunks of one series in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunksRecord {
    pub(crate) id: u64,
    /// Where the last chunk, which is open, must end.
    pub(crate) next_at: i64,
    pub(crate) chunks: Vec<Chunk>,
}

/// Writes `uvarint reference, varint next_at, uvarint chunks`, and per chunk `varint first time, uvarint span,
/// encoding, uvarint length, bytes`. Late chunks are laid out alike, with 0 for `next_at` and in no order.
pub(crate) fn put_chunks(out: &mut Vec<u8>, kind: u8, record: &ChunksRecord) {
    out.push(kind);
    put_uvarint(out, record.id);
    put_varint(out, record.next_at);
    put_uvarint(out, record.chunks.len() as u64);
    for c in &record.chunks {
        put_varint(out, c.min_time);
        put_uvarint(out, c.max_time.wrapping_sub(c.min_time) as u64);
        out.push(c.encoding as u8);
        put_uvarint(out, c.data.len() as u64);
        out.extend_from_slice(&c.data);
    }
}

/// `file` holds the record, so its bytes are shared and not copied.
pub(crate) fn get_chunks(mut rest: &[u8], file: &Bytes) -> Result<ChunksRecord, BadRecord> {
    let short = BadRecord("chunks record is cut short");
    let input = &mut rest;
    let id = get_uvarint(input).ok_or(short)?;
    let next_at = get_varint(input).ok_or(short)?;
    let count = get_uvarint(input).ok_or(short)?;
    let mut chunks = Vec::new();
    for _ in 0..count {
        let min_time = get_varint(input).ok_or(short)?;
        let span = get_uvarint(input).ok_or(short)?;
        let max_time = min_time.checked_add_unsigned(span).ok_or(BadRecord("chunk spans too much time"))?;
        let encoding = Encoding::from_u8(take(input, 1)?[0]).ok_or(BadRecord("chunk encoding is unknown"))?;
        let len = get_uvarint(input).ok_or(short)?;
        let data = file.slice_ref(take(input, usize::try_from(len).unwrap_or(usize::MAX))?);
        chunks.push(Chunk { min_time, max_time, encoding, data });
    }
    Ok(ChunksRecord { id, next_at, chunks })
}

/// Last record of a checkpoint.
pub(crate) fn put_end(out: &mut Vec<u8>, series: u64) {
    out.push(END);
    put_uvarint(out, series);
}

pub(crate) fn get_end(mut rest: &[u8]) -> Result<u64, BadRecord> {
    get_uvarint(&mut rest).ok_or(BadRecord("end record is cut short"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_series() {
        let a = Labels::from_pairs([("a", "x"), ("b", "a")]);
        let b = Labels::from_pairs([("a", "é")]);
        let mut out = Vec::new();
        put_series(&mut out, [(300, Slot(1), &a), (301, Slot(0), &b)].into_iter());
        let mut want = vec![1, 2];
        want.extend([0xac, 0x02, 1, 2, 0, 1, b'a', 0, 1, b'x', 0, 1, b'b', 1]);
        want.extend([1, 0, 1, 1, 0, 2, 0xc3, 0xa9]);
        assert_eq!(out, want);
        let back = get_series(&out[1..]).unwrap();
        assert_eq!(back[0], SeriesRecord { id: 300, slot: Slot(1), labels: a });
        assert_eq!(back[1], SeriesRecord { id: 301, slot: Slot(0), labels: b });
        for cut in 1..out.len() {
            assert!(get_series(&out[1..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn golden_late() {
        let mut columns = crate::wal::samples::SampleColumns::default();
        columns.push(5, 1000, 7.0, 0.0);
        columns.push(5, 990, 1.5, 0.0);
        let mut out = Vec::new();
        put_late(&mut out, |out| columns.put(out));
        let want = [8, 2, 2, 0, 10, 0, 0xd0, 0x0f, 0x13, 9, 14, 0x62, 0xf8, 0x3f];
        assert_eq!(out, want);
        let mut back = Vec::new();
        crate::wal::samples::get(&out[2..], &mut crate::wal::samples::NoBases::default(), &mut back).unwrap();
        let back: Vec<_> = back.iter().map(|s| (s.id, s.t, s.v)).collect();
        assert_eq!(back, [(5, 1000, 7.0), (5, 990, 1.5)]);
        let chunk = Chunk { min_time: -1, max_time: 1, encoding: Encoding::Xor, data: vec![9, 8].into() };
        out.clear();
        put_chunks(&mut out, LATE_CHUNKS, &ChunksRecord { id: 300, next_at: 0, chunks: vec![chunk] });
        assert_eq!(out, [19, 0xac, 2, 0, 1, 1, 2, 1, 2, 9, 8]);
    }

    #[test]
    fn small_records_round_trip() {
        let mut out = Vec::new();
        put_truncate(&mut out, -5);
        assert_eq!((out.as_slice(), get_truncate(&out[1..])), (&[3u8, 9][..], Ok(-5)));
        let head = HeadRecord { next_id: 1 << 40, min_valid: i64::MIN, series: 5 };
        out.clear();
        put_head(&mut out, head);
        assert_eq!(get_head(&out[1..]), Ok(head));
        out.clear();
        put_end(&mut out, 7);
        assert_eq!(get_end(&out[1..]), Ok(7));
        let chunk = Chunk { min_time: -9, max_time: 90, encoding: Encoding::Xor, data: vec![1, 2, 3].into() };
        let record = ChunksRecord { id: 9, next_at: 100, chunks: vec![chunk.clone(), chunk] };
        out.clear();
        put_chunks(&mut out, CHUNKS, &record);
        let out = Bytes::from(out);
        assert_eq!(get_chunks(&out[1..], &out), Ok(record));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = get_series(&bytes);
            let bytes = Bytes::from(bytes);
            let _ = get_chunks(&bytes, &bytes);
            let _ = get_head(&bytes);
        }
    }
}
