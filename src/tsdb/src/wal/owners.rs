//! Series as a checkpoint holds them: label pairs once (type 21), series as lists of their numbers (type 22).
//!
//! A restart then looks up each distinct pair once instead of each label of each series. Pairs are written twice in
//! a row, because one damaged byte there would cost every series that has one of them. Type 21 after its type byte:
//! `uvarint number of the first`, `uvarint n`, then name and value of each as `uvarint length, bytes`. Type 22:
//! `uvarint reference`, slot byte, hash of slot and labels as 8 bytes, `uvarint n`, then the numbers as `uvarint`,
//! in label order. Invariant: decoding never allocates more than a small multiple of the record's length.

use koios_chunk::varint::{get_uvarint, put_uvarint};
use koios_model::Slot;

use super::record::{BadRecord, OWNER, PAIRS, take};

/// Writes a record of type 21.
pub(crate) fn put_pairs<'a>(
    out: &mut Vec<u8>,
    first: u64,
    pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) {
    out.push(PAIRS);
    put_uvarint(out, first);
    put_uvarint(out, pairs.len() as u64);
    for text in pairs.flat_map(|(n, v)| [n, v]) {
        put_uvarint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Number of the first pair, and the pairs.
pub(crate) type NumberedPairs<'a> = (u64, Vec<(&'a str, &'a str)>);

/// Reads a record of type 21, the type byte already taken: the first number, and the pairs in order.
pub(crate) fn get_pairs(mut rest: &[u8]) -> Result<NumberedPairs<'_>, BadRecord> {
    let short = BadRecord("label pairs are cut short");
    let input = &mut rest;
    let (first, n) = get_uvarint(input).zip(get_uvarint(input)).ok_or(short)?;
    let mut pairs = Vec::new();
    for _ in 0..n {
        let mut text = || {
            let len = get_uvarint(input).and_then(|n| usize::try_from(n).ok()).ok_or(short)?;
            std::str::from_utf8(take(input, len)?).map_err(|_| BadRecord("label text is not UTF-8"))
        };
        pairs.push((text()?, text()?));
    }
    if input.is_empty() { Ok((first, pairs)) } else { Err(BadRecord("label pairs have bytes left over")) }
}

/// A series by the numbers of its label pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnerRecord {
    pub(crate) id: u64,
    pub(crate) slot: Slot,
    pub(crate) hash: u64,
    pub(crate) pairs: Vec<u64>,
}

/// Writes a record of type 22.
pub(crate) fn put_owner(
    out: &mut Vec<u8>,
    id: u64,
    slot: Slot,
    hash: u64,
    pairs: impl ExactSizeIterator<Item = u64>,
) {
    out.push(OWNER);
    put_uvarint(out, id);
    out.push(slot.0);
    out.extend_from_slice(&hash.to_le_bytes());
    put_uvarint(out, pairs.len() as u64);
    pairs.for_each(|p| put_uvarint(out, p));
}

/// Reads a record of type 22, the type byte already taken, into `owner`.
pub(crate) fn get_owner(mut rest: &[u8], owner: &mut OwnerRecord) -> Result<(), BadRecord> {
    let short = BadRecord("series of a checkpoint is cut short");
    let input = &mut rest;
    owner.id = get_uvarint(input).ok_or(short)?;
    owner.slot = Slot(take(input, 1)?[0]);
    owner.hash = u64::from_le_bytes(*take(input, 8)?.first_chunk::<8>().ok_or(short)?);
    owner.pairs.clear();
    for _ in 0..get_uvarint(input).ok_or(short)? {
        owner.pairs.push(get_uvarint(input).ok_or(short)?);
    }
    if input.is_empty() { Ok(()) } else { Err(BadRecord("series of a checkpoint has bytes left over")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_and_round_trip() {
        let pairs = [("a", "x"), ("bc", "é")];
        let mut out = Vec::new();
        put_pairs(&mut out, 300, pairs.into_iter());
        assert_eq!(out, [21, 0xac, 2, 2, 1, b'a', 1, b'x', 2, b'b', b'c', 2, 0xc3, 0xa9]);
        assert_eq!(get_pairs(&out[1..]).unwrap(), (300, pairs.to_vec()));
        for cut in 1..out.len() {
            assert!(get_pairs(&out[1..cut]).is_err(), "cut at {cut}");
        }
        out.clear();
        put_owner(&mut out, 7, Slot(1), 0x0102, [300, 1].into_iter());
        assert_eq!(out, [22, 7, 1, 2, 1, 0, 0, 0, 0, 0, 0, 2, 0xac, 2, 1]);
        let mut back = OwnerRecord { id: 0, slot: Slot(0), hash: 0, pairs: vec![9] };
        get_owner(&out[1..], &mut back).unwrap();
        assert_eq!(back, OwnerRecord { id: 7, slot: Slot(1), hash: 0x0102, pairs: vec![300, 1] });
        for cut in 1..out.len() {
            assert!(get_owner(&out[1..cut], &mut back).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = get_pairs(&bytes);
            let _ = get_owner(&bytes, &mut OwnerRecord { id: 0, slot: Slot(0), hash: 0, pairs: Vec::new() });
        }
    }
}
