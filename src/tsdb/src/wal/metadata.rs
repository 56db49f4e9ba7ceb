//! Metadata of families as a record, type 7, in the log and in a checkpoint.
//!
//! After the type byte: `uvarint n`, then per family name, unit and help, each `uvarint length, bytes`, with the
//! type's number as a byte behind the name. Invariant: decoding never allocates more than a small multiple of the
//! record's length.

use koios_chunk::varint::{get_uvarint, put_uvarint};
use koios_model::metadata::{MetricKind, MetricMetadata};

use super::record::{BadRecord, METADATA, take};

const SHORT: BadRecord = BadRecord("metadata record is cut short");

/// Writes a record.
pub(crate) fn put<'a>(
    out: &mut Vec<u8>,
    families: impl ExactSizeIterator<Item = (&'a str, &'a MetricMetadata)>,
) {
    let text = |out: &mut Vec<u8>, s: &str| {
        put_uvarint(out, s.len() as u64);
        out.extend_from_slice(s.as_bytes());
    };
    out.push(METADATA);
    put_uvarint(out, families.len() as u64);
    for (name, m) in families {
        text(out, name);
        out.push(m.kind as u8);
        text(out, &m.unit);
        text(out, &m.help);
    }
}

/// Reads a record, the type byte already taken. A type of a later version is unknown.
pub(crate) fn get(mut rest: &[u8]) -> Result<Vec<(String, MetricMetadata)>, BadRecord> {
    let input = &mut rest;
    let mut out = Vec::new();
    for _ in 0..get_uvarint(input).ok_or(SHORT)? {
        let name = get_text(input)?;
        let kind = MetricKind::from_u8(take(input, 1)?[0]).unwrap_or_default();
        let (unit, help) = (get_text(input)?, get_text(input)?);
        out.push((name, MetricMetadata { kind, help, unit }));
    }
    if input.is_empty() { Ok(out) } else { Err(BadRecord("metadata record has bytes left over")) }
}

fn get_text(input: &mut &[u8]) -> Result<String, BadRecord> {
    let len = get_uvarint(input).and_then(|n| usize::try_from(n).ok()).ok_or(SHORT)?;
    let text = std::str::from_utf8(take(input, len)?);
    text.map(str::to_owned).map_err(|_| BadRecord("metadata is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_and_round_trip() {
        let a = MetricMetadata { kind: MetricKind::Counter, help: "é".into(), unit: "s".into() };
        let b = MetricMetadata::default();
        let mut out = Vec::new();
        put(&mut out, [("ab", &a), ("c", &b)].into_iter());
        assert_eq!(out, [7, 2, 2, b'a', b'b', 1, 1, b's', 2, 0xc3, 0xa9, 1, b'c', 0, 0, 0]);
        assert_eq!(get(&out[1..]).unwrap(), [("ab".to_owned(), a), ("c".to_owned(), b)]);
        for cut in 1..out.len() {
            assert!(get(&out[1..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(get(&[1, 1, b'x', 99, 0, 0]).unwrap()[0].1.kind, MetricKind::Unknown);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = get(&bytes);
        }
    }
}
