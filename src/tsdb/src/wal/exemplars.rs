//! Exemplars as records: type 6 in the log, by reference; type 20 in a checkpoint, with the labels of their series,
//! because a series may be gone from the head while its exemplars are still there.
//!
//! Type 6 after its type byte: `uvarint n`, then per exemplar, complete in itself but for the two differences:
//! `varint reference - the one before`, `varint t - t before`, value as 8 bytes, `uvarint labels`, and name and
//! value of each as `uvarint length, bytes`. Type 20: `uvarint length` and a whole series record, then a whole
//! record of type 6. Invariant: decoding never allocates more than a small multiple of the record's length.

use koios_chunk::varint::{get_uvarint, get_varint, put_uvarint, put_varint};
use koios_model::{Exemplar, Labels, Slot};

use super::record::{
    BadRecord, EXEMPLARS, OWNED_EXEMPLARS, SERIES, SeriesRecord, get_series, put_series, take,
};

const SHORT: BadRecord = BadRecord("exemplar record is cut short");

/// Writes a record of type 6.
pub(crate) fn put<'a>(out: &mut Vec<u8>, exemplars: impl ExactSizeIterator<Item = (u64, &'a Exemplar)>) {
    out.push(EXEMPLARS);
    put_uvarint(out, exemplars.len() as u64);
    let (mut id, mut t) = (0u64, 0i64);
    for (own, e) in exemplars {
        put_varint(out, own.wrapping_sub(id) as i64);
        put_varint(out, e.t.wrapping_sub(t));
        (id, t) = (own, e.t);
        out.extend_from_slice(&e.v.to_bits().to_le_bytes());
        put_uvarint(out, e.labels.len() as u64);
        for text in e.labels.iter().flat_map(|(n, v)| [n, v]) {
            put_uvarint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Reads a record of type 6, the type byte already taken.
pub(crate) fn get(mut rest: &[u8]) -> Result<Vec<(u64, Exemplar)>, BadRecord> {
    let input = &mut rest;
    let (mut id, mut t) = (0u64, 0i64);
    let mut out = Vec::new();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for _ in 0..get_uvarint(input).ok_or(SHORT)? {
        id = id.wrapping_add(get_varint(input).ok_or(SHORT)? as u64);
        t = t.wrapping_add(get_varint(input).ok_or(SHORT)?);
        let bits = take(input, 8)?.first_chunk::<8>().ok_or(SHORT)?;
        let v = f64::from_bits(u64::from_le_bytes(*bits));
        pairs.clear();
        for _ in 0..get_uvarint(input).ok_or(SHORT)? {
            let (name, value) = (get_text(input)?, get_text(input)?);
            if value.is_empty() || pairs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(BadRecord("labels of an exemplar are not sorted or have an empty value"));
            }
            pairs.push((name, value));
        }
        out.push((id, Exemplar { labels: Labels::from_sorted(pairs.iter().copied()), t, v }));
    }
    if input.is_empty() { Ok(out) } else { Err(BadRecord("exemplar record has bytes left over")) }
}

fn get_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, BadRecord> {
    let len = get_uvarint(input).and_then(|n| usize::try_from(n).ok()).ok_or(SHORT)?;
    std::str::from_utf8(take(input, len)?).map_err(|_| BadRecord("label text is not UTF-8"))
}

/// Writes a record of type 20; `series` by ascending reference.
pub(crate) fn put_owned(out: &mut Vec<u8>, series: &[(u64, Slot, &Labels)], exemplars: &[(u64, &Exemplar)]) {
    let mut names = Vec::new();
    put_series(&mut names, series.iter().copied());
    out.push(OWNED_EXEMPLARS);
    put_uvarint(out, names.len() as u64);
    out.extend_from_slice(&names);
    put(out, exemplars.iter().copied());
}

/// Series and exemplars of a record of type 20.
pub(crate) type Owned = (Vec<SeriesRecord>, Vec<(u64, Exemplar)>);

/// Reads a record of type 20, the type byte already taken.
pub(crate) fn get_owned(mut rest: &[u8]) -> Result<Owned, BadRecord> {
    let input = &mut rest;
    let len = get_uvarint(input).and_then(|n| usize::try_from(n).ok()).ok_or(SHORT)?;
    let series = match take(input, len)?.split_first() {
        Some((&SERIES, body)) => get_series(body)?,
        _ => return Err(BadRecord("exemplars without the names of their series")),
    };
    match input.split_first() {
        Some((&EXEMPLARS, body)) => Ok((series, get(body)?)),
        _ => Err(SHORT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exemplar(t: i64, v: f64) -> Exemplar {
        Exemplar { labels: Labels::from_pairs([("id", "é")]), t, v }
    }

    #[test]
    fn golden_and_round_trip() {
        let (a, b) = (exemplar(1000, 1.5), Exemplar { labels: Labels::empty(), ..exemplar(990, -1.0) });
        let mut out = Vec::new();
        put(&mut out, [(300, &a), (7, &b)].into_iter());
        let mut want = vec![6, 2, 0xd8, 0x04, 0xd0, 0x0f];
        want.extend(1.5f64.to_le_bytes());
        want.extend([1, 2, b'i', b'd', 2, 0xc3, 0xa9, 0xc9, 0x04, 0x13]);
        want.extend((-1.0f64).to_le_bytes());
        want.push(0);
        assert_eq!(out, want);
        assert_eq!(get(&out[1..]).unwrap(), [(300, a.clone()), (7, b.clone())]);
        for cut in 1..out.len() {
            assert!(get(&out[1..cut]).is_err(), "cut at {cut}");
        }

        let labels = Labels::from_pairs([("a", "x")]);
        let mut owned = Vec::new();
        put_owned(&mut owned, &[(300, Slot(1), &labels)], &[(300, &a)]);
        let head = [20, 12, 1, 1, 0xac, 0x02, 1, 1, 0, 1, b'a', 0, 1, b'x', 6, 1, 0xd8, 0x04];
        assert_eq!(owned[..head.len()], head);
        let (series, exemplars) = get_owned(&owned[1..]).unwrap();
        assert_eq!(series, [SeriesRecord { id: 300, slot: Slot(1), labels }]);
        assert_eq!(exemplars, [(300, a)]);
        for cut in 1..owned.len() {
            assert!(get_owned(&owned[1..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = get(&bytes);
            let _ = get_owned(&bytes);
        }
    }
}
