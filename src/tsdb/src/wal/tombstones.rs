//! A deletion as a record, type 9: which series, and which stretch of time.
//!
//! After the type byte: `varint mint`, `varint maxt`, both inclusive, `uvarint runs`, then each run of references
//! `varint first - (end of the run before)`, `uvarint length - 1`. Invariant: decoding gives runs, not references,
//! so a record never takes more memory than a small multiple of its length.

use koios_chunk::varint::{get_uvarint, get_varint, put_uvarint, put_varint};

use super::record::{BadRecord, TOMBSTONES};

/// A deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) mint: i64,
    pub(crate) maxt: i64,
    /// First and last reference of each run, ascending.
    pub(crate) runs: Vec<(u64, u64)>,
}

impl Tombstone {
    /// Of ascending references.
    pub(crate) fn new(mint: i64, maxt: i64, ids: &[u64]) -> Self {
        let runs = ids.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run[run.len() - 1]));
        Self { mint, maxt, runs: runs.collect() }
    }
}

/// Writes a record.
pub(crate) fn put(out: &mut Vec<u8>, stone: &Tombstone) {
    out.push(TOMBSTONES);
    put_varint(out, stone.mint);
    put_varint(out, stone.maxt);
    put_uvarint(out, stone.runs.len() as u64);
    let mut end = 0u64;
    for &(first, last) in &stone.runs {
        put_varint(out, first.wrapping_sub(end) as i64);
        put_uvarint(out, last - first);
        end = last.wrapping_add(1);
    }
}

/// Reads a record, the type byte already taken.
pub(crate) fn get(mut rest: &[u8]) -> Result<Tombstone, BadRecord> {
    let short = BadRecord("tombstone record is cut short");
    let input = &mut rest;
    let (mint, maxt) = get_varint(input).zip(get_varint(input)).ok_or(short)?;
    let (mut runs, mut end) = (Vec::new(), 0u64);
    for _ in 0..get_uvarint(input).ok_or(short)? {
        let first = end.wrapping_add(get_varint(input).ok_or(short)? as u64);
        let last = first.checked_add(get_uvarint(input).ok_or(short)?);
        let last = last.filter(|_| first >= end).ok_or(BadRecord("tombstones do not ascend"))?;
        runs.push((first, last));
        end = last.wrapping_add(1);
    }
    if input.is_empty() {
        Ok(Tombstone { mint, maxt, runs })
    } else {
        Err(BadRecord("tombstone record has bytes left over"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_and_round_trip() {
        let stone = Tombstone::new(-5, 1000, &[5, 6, 7, 300]);
        assert_eq!(stone.runs, [(5, 7), (300, 300)]);
        let mut out = Vec::new();
        put(&mut out, &stone);
        assert_eq!(out, [9, 9, 0xd0, 0x0f, 2, 10, 2, 0xc8, 0x04, 0]);
        assert_eq!(get(&out[1..]).unwrap(), stone);
        for cut in 1..out.len() {
            assert!(get(&out[1..cut]).is_err(), "cut at {cut}");
        }
        assert!(get(&[0, 0, 2, 10, 2, 1, 0]).is_err(), "runs that go back");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = get(&bytes);
        }
    }
}
