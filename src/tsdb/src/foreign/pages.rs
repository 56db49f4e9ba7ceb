//! Segments of a Prometheus log: 32 KiB pages, records in fragments, each with its own checksum.
//!
//! Fragment: a byte (lower three bits 0 padding, 1 whole record, 2 first, 3 middle, 4 last; bit 3 snappy, bit 4
//! zstd), u16 length, u32 CRC32C, both big-endian. After damage, reading goes on at the next page that begins a
//! record. The end of a segment that a crash tore is told apart from damage by the caller, who knows which segment is
//! the last. Invariant: a record handed out has passed the checksums of all its fragments.

use std::borrow::Cow;
use std::io::Read as _;

use koios_block::crc32c;

const PAGE: usize = 32 << 10;
const HEADER: usize = 7;
const SNAPPY: u8 = 1 << 3;
const ZSTD: u8 = 1 << 4;
/// Longest record that is decompressed; Prometheus writes one per scrape.
const RECORD_MAX: usize = 256 << 20;
/// No snappy element makes more of a byte than this.
const SNAPPY_RATIO: usize = 64;

/// What is found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A record, decompressed.
    Record(Vec<u8>),
    /// A stretch that is no record.
    Bad { offset: usize, what: &'static str },
}

/// Walks over the records of a whole segment file.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next fragment, past padding: type byte and data. `None` at the end.
    fn fragment(&mut self) -> Option<Result<(u8, &'a [u8]), &'static str>> {
        loop {
            let rest = self.bytes.get(self.at..).filter(|r| !r.is_empty())?;
            let left = PAGE - self.at % PAGE;
            if rest[0] & 7 == 0 {
                let padding = &rest[..left.min(rest.len())];
                if padding.iter().any(|b| *b != 0) {
                    return Some(Err("padding is not empty"));
                }
                self.at += padding.len();
                continue;
            }
            let Some(header) = rest.first_chunk::<HEADER>() else {
                return Some(Err("fragment is cut short"));
            };
            let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
            if HEADER + len > left {
                return Some(Err("fragment is longer than its page"));
            }
            let Some(data) = rest.get(HEADER..HEADER + len) else {
                return Some(Err("fragment is cut short"));
            };
            if crc32c(data) != u32::from_be_bytes([header[3], header[4], header[5], header[6]]) {
                return Some(Err("checksum does not fit"));
            }
            self.at += HEADER + len;
            return Some(Ok((header[0], data)));
        }
    }

    fn record(&mut self) -> Option<Result<Vec<u8>, &'static str>> {
        let mut gathered: Vec<u8> = Vec::new();
        let mut begun = false;
        loop {
            let (kind, data) = match self.fragment() {
                Some(Ok(found)) => found,
                Some(Err(what)) => return Some(Err(what)),
                None => return begun.then_some(Err("record is cut short")),
            };
            match (kind & 7, begun) {
                (1, false) => return Some(decompress(kind, Cow::Borrowed(data))),
                (2, false) => begun = true,
                (3, true) => {}
                (4, true) => {
                    gathered.extend_from_slice(data);
                    return Some(decompress(kind, Cow::Owned(gathered)));
                }
                _ => return Some(Err("fragments are out of order")),
            }
            gathered.extend_from_slice(data);
            if gathered.len() > RECORD_MAX {
                return Some(Err("record is too long"));
            }
        }
    }

    /// Moves to the next page whose first fragment begins a record.
    fn resync(&mut self, from: usize) {
        self.at = (from / PAGE + 1) * PAGE;
        while self.bytes.get(self.at).is_some_and(|b| matches!(b & 7, 3 | 4)) {
            self.at += PAGE;
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        match self.record()? {
            Ok(record) => Some(Found::Record(record)),
            Err(what) => {
                let offset = self.at;
                self.resync(offset);
                Some(Found::Bad { offset, what })
            }
        }
    }
}

fn decompress(kind: u8, data: Cow<'_, [u8]>) -> Result<Vec<u8>, &'static str> {
    if kind & SNAPPY != 0 {
        let bad = |_| "record does not decompress";
        let len = snap::raw::decompress_len(&data).map_err(bad)?;
        if len > RECORD_MAX || len > data.len().saturating_mul(SNAPPY_RATIO) {
            return Err("record promises to be too long");
        }
        return snap::raw::Decoder::new().decompress_vec(&data).map_err(bad);
    }
    if kind & ZSTD != 0 {
        let mut out = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(&*data).map_err(|_| "record does not decompress")?;
        let mut limited = decoder.take(RECORD_MAX as u64 + 1);
        limited.read_to_end(&mut out).map_err(|_| "record does not decompress")?;
        return if out.len() > RECORD_MAX { Err("record is too long") } else { Ok(out) };
    }
    Ok(data.into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes a segment as Prometheus does. `compression` is 0, `SNAPPY` or `ZSTD`.
    pub(in crate::foreign) fn segment(records: &[Vec<u8>], compression: u8) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            let data = match compression {
                SNAPPY => snap::raw::Encoder::new().compress_vec(record).unwrap(),
                ZSTD => zstd::bulk::compress(record, 1).unwrap(),
                _ => record.clone(),
            };
            let (mut rest, mut first) = (&data[..], true);
            while first || !rest.is_empty() {
                if PAGE - out.len() % PAGE <= HEADER {
                    out.resize(out.len().next_multiple_of(PAGE), 0);
                }
                let n = rest.len().min(PAGE - out.len() % PAGE - HEADER);
                let (now, later) = rest.split_at(n);
                let kind = match (first, later.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, true) => 4,
                    (false, false) => 3,
                };
                out.push(kind | compression);
                out.extend((n as u16).to_be_bytes());
                out.extend(crc32c(now).to_be_bytes());
                out.extend(now);
                (rest, first) = (later, false);
            }
        }
        out
    }

    fn records() -> Vec<Vec<u8>> {
        (0..40u32).map(|i| (0..i * i * 9).map(|j| ((j * i) >> 3) as u8).collect()).collect()
    }

    #[test]
    fn all_compressions_and_page_borders() {
        for compression in [0, SNAPPY, ZSTD] {
            let bytes = segment(&records(), compression);
            let found: Vec<_> = Records::new(&bytes).collect();
            let want: Vec<_> = records().into_iter().map(Found::Record).collect();
            assert!(found == want, "compression {compression}");
        }
    }

    #[test]
    fn damage_costs_what_it_covers() {
        let mut bytes = segment(&records(), 0);
        assert!(bytes.len() > 5 * PAGE);
        bytes[2 * PAGE + 100] ^= 1;
        let found: Vec<_> = Records::new(&bytes).collect();
        let bad = found.iter().filter(|f| matches!(f, Found::Bad { .. })).count();
        assert_eq!(bad, 1);
        assert!(found.len() > 25, "{}", found.len());
        // A torn end: whole records, then one finding.
        let torn = &bytes[..PAGE + 5000];
        let found: Vec<_> = Records::new(torn).collect();
        let (last, rest) = found.split_last().unwrap();
        assert!(matches!(last, Found::Bad { .. }) && rest.iter().all(|f| matches!(f, Found::Record(_))));
    }

    proptest! {
        #[test]
        fn hostile_bytes_end(
            flips in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..20),
            compression in prop_oneof![Just(0), Just(SNAPPY), Just(ZSTD)],
        ) {
            let mut bytes = segment(&records(), compression);
            for (at, with) in flips {
                let at = at as usize % bytes.len();
                bytes[at] ^= with;
            }
            prop_assert!(Records::new(&bytes).count() <= 60);
        }
    }
}
