//! Float samples of one batch as columns: references, times, and what each value adds to the one before it.
//!
//! A scrape's record is one run of references, one time, and about a byte and a half per sample. Values are
//! relative to the last value of their series *in the same segment* (0 for the first), so losing a segment
//! never touches another. Invariants: encoding is a function of the batch and these bases; decoding checks the
//! sample count against the bytes before it allocates.
//!
//! Layout after the type byte: `uvarint n`, flags (1 = one time for all, 2 = references as runs), references
//! (runs: `uvarint runs`, then each `varint first - (end of the run before)`, `uvarint length - 1`; else n times
//! `varint difference`), times (`varint first`, unless flag 1 then n - 1 times `varint difference`), n two-bit
//! classes low bits first, values (class 0: as before; 1: `varint` difference of integers; 2: XOR with the one
//! before as `trailing zero bytes << 4 | kept bytes` and the kept bytes; 3: XOR as 8 bytes).

use koios_chunk::varint::{get_uvarint, get_varint, put_uvarint, put_varint};

use super::record::{BadRecord, SAMPLES, take};

const ONE_TIME: u8 = 1;
const RUNS: u8 = 2;
/// Integers beyond this are not exact in a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The columns of a batch while it is put together. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct SampleColumns {
    refs: Vec<u64>,
    times: Vec<i64>,
    classes: Vec<u8>,
    values: Vec<u8>,
}

/// The value as an integer when nothing is lost, the sign of zero included.
#[inline]
fn as_integer(v: f64) -> Option<i64> {
    let i = v as i64;
    (v.abs() <= EXACT_MAX && (i as f64).to_bits() == v.to_bits()).then_some(i)
}

impl SampleColumns {
    pub(crate) fn clear(&mut self) {
        self.refs.clear();
        self.times.clear();
        self.classes.clear();
        self.values.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.refs.len()
    }

    /// Adds a sample; `base` is the series' last value in this segment, 0 when there is none.
    #[inline]
    pub(crate) fn push(&mut self, id: u64, t: i64, v: f64, base: f64) {
        let i = self.refs.len();
        self.refs.push(id);
        self.times.push(t);
        let class = self.put_value(v, base);
        if i.is_multiple_of(4) {
            self.classes.push(class);
        } else {
            self.classes[i / 4] |= class << (2 * (i % 4));
        }
    }

    #[inline]
    fn put_value(&mut self, v: f64, base: f64) -> u8 {
        let diff = v.to_bits() ^ base.to_bits();
        if diff == 0 {
            return 0;
        }
        if let (Some(now), Some(before)) = (as_integer(v), as_integer(base)) {
            put_varint(&mut self.values, now - before);
            return 1;
        }
        let low = diff.trailing_zeros() / 8;
        let kept = 8 - low - diff.leading_zeros() / 8;
        if kept == 8 {
            self.values.extend(diff.to_le_bytes());
            return 3;
        }
        self.values.push((low << 4 | kept) as u8);
        self.values.extend(&(diff >> (8 * low)).to_le_bytes()[..kept as usize]);
        2
    }

    /// Writes the record.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(SAMPLES);
        put_uvarint(out, self.refs.len() as u64);
        let runs = 1 + self.refs.windows(2).filter(|w| w[0].wrapping_add(1) != w[1]).count();
        let as_runs = runs * 2 <= self.refs.len().max(2);
        let one_time = self.times.windows(2).all(|w| w[0] == w[1]);
        out.push(if one_time { ONE_TIME } else { 0 } | if as_runs { RUNS } else { 0 });
        if as_runs {
            put_uvarint(out, runs as u64);
            let mut expected = 0u64;
            for run in self.refs.chunk_by(|a, b| a.wrapping_add(1) == *b) {
                put_varint(out, run[0].wrapping_sub(expected) as i64);
                put_uvarint(out, run.len() as u64 - 1);
                expected = run[run.len() - 1].wrapping_add(1);
            }
        } else {
            let mut last = 0u64;
            for &r in &self.refs {
                put_varint(out, r.wrapping_sub(last) as i64);
                last = r;
            }
        }
        let mut last = 0i64;
        for &t in &self.times[..if one_time { 1 } else { self.times.len() }] {
            put_varint(out, t.wrapping_sub(last));
            last = t;
        }
        out.extend_from_slice(&self.classes);
        out.extend_from_slice(&self.values);
    }
}

/// A sample as the log holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawSample {
    pub(crate) id: u64,
    pub(crate) t: i64,
    pub(crate) v: f64,
}

/// Where the last value of each series in one segment is kept, 0 before the first.
pub(crate) trait Bases {
    /// Asked once for each sample of a record, in order; what is read goes there.
    fn base(&mut self, id: u64) -> &mut f64;
}

/// Every value is coded against 0.
#[derive(Debug, Default)]
pub(crate) struct NoBases(f64);

impl Bases for NoBases {
    fn base(&mut self, _: u64) -> &mut f64 {
        self.0 = 0.0;
        &mut self.0
    }
}

/// Reads a record, the type byte already taken, into `out`, which is cleared first.
pub(crate) fn get(
    mut rest: &[u8],
    bases: &mut impl Bases,
    out: &mut Vec<RawSample>,
) -> Result<(), BadRecord> {
    let short = BadRecord("samples record is cut short");
    let input = &mut rest;
    out.clear();
    let n = get_uvarint(input).ok_or(short)?;
    let flags = take(input, 1)?[0];
    // Two bits of class per sample are the least a sample can take.
    let n = usize::try_from(n).ok().filter(|n| n.div_ceil(4) <= input.len()).ok_or(short)?;
    if n == 0 || flags & !(ONE_TIME | RUNS) != 0 {
        return Err(BadRecord("samples record has no samples or unknown flags"));
    }
    out.reserve(n);
    get_refs(input, n, flags, out)?;
    let mut t = get_varint(input).ok_or(short)?;
    for (i, sample) in out.iter_mut().enumerate() {
        if i > 0 && flags & ONE_TIME == 0 {
            t = t.wrapping_add(get_varint(input).ok_or(short)?);
        }
        sample.t = t;
    }
    let classes = take(input, n.div_ceil(4))?;
    for (i, sample) in out.iter_mut().enumerate() {
        let class = classes[i / 4] >> (2 * (i % 4)) & 3;
        let base = bases.base(sample.id);
        *base = get_value(input, class, *base)?;
        sample.v = *base;
    }
    if input.is_empty() { Ok(()) } else { Err(BadRecord("samples record has bytes left over")) }
}

fn get_refs(input: &mut &[u8], n: usize, flags: u8, out: &mut Vec<RawSample>) -> Result<(), BadRecord> {
    let short = BadRecord("samples record is cut short");
    let mut push = |id| out.push(RawSample { id, t: 0, v: 0.0 });
    if flags & RUNS == 0 {
        let mut id = 0u64;
        for _ in 0..n {
            id = id.wrapping_add(get_varint(input).ok_or(short)? as u64);
            push(id);
        }
        return Ok(());
    }
    let runs = get_uvarint(input).ok_or(short)?;
    let (mut next, mut left) = (0u64, n as u64);
    for _ in 0..runs {
        next = next.wrapping_add(get_varint(input).ok_or(short)? as u64);
        let more = get_uvarint(input).ok_or(short)?;
        if more >= left {
            return Err(BadRecord("runs of references are longer than the record"));
        }
        left -= more + 1;
        for _ in 0..=more {
            push(next);
            next = next.wrapping_add(1);
        }
    }
    if left == 0 { Ok(()) } else { Err(BadRecord("runs of references are shorter than the record")) }
}

fn get_value(input: &mut &[u8], class: u8, base: f64) -> Result<f64, BadRecord> {
    Ok(match class {
        0 => base,
        1 => {
            let diff = get_varint(input).ok_or(BadRecord("samples record is cut short"))?;
            (base as i64).wrapping_add(diff) as f64
        }
        2 => {
            let head = take(input, 1)?[0];
            let (low, kept) = (u32::from(head >> 4), usize::from(head & 15));
            if low as usize + kept > 8 || kept == 0 {
                return Err(BadRecord("a value has more than eight bytes"));
            }
            let mut bytes = [0; 8];
            bytes[..kept].copy_from_slice(take(input, kept)?);
            f64::from_bits(base.to_bits() ^ u64::from_le_bytes(bytes) << (8 * low))
        }
        _ => {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(take(input, 8)?);
            f64::from_bits(base.to_bits() ^ u64::from_le_bytes(bytes))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashbrown::HashMap;
    use proptest::prelude::*;

    type Known = HashMap<u64, f64>;

    impl Bases for Known {
        fn base(&mut self, id: u64) -> &mut f64 {
            self.entry(id).or_insert(0.0)
        }
    }

    fn encode(samples: &[(u64, i64, f64)], bases: &mut Known) -> Vec<u8> {
        let mut columns = SampleColumns::default();
        for &(id, t, v) in samples {
            let base = bases.entry(id).or_insert(0.0);
            columns.push(id, t, v, *base);
            *base = v;
        }
        let mut out = Vec::new();
        columns.put(&mut out);
        out
    }

    #[test]
    fn golden_scrape() {
        let mut bases = Known::new();
        let first = encode(&[(5, 1000, 7.0), (6, 1000, 0.0), (7, 1000, 1.5)], &mut bases);
        // three samples, one time, runs; one run from 5 (zigzag 10) of 3; time 1000; classes 1, 0, 2; 7; XOR 0x3ff8<<48
        assert_eq!(first, [2, 3, 3, 1, 10, 2, 0xd0, 0x0f, 0b10_0001, 14, 0x62, 0xf8, 0x3f]);
        let second = encode(&[(5, 2000, 6.0), (6, 2000, 0.0), (7, 2000, 1.5)], &mut bases);
        assert_eq!(second, [2, 3, 3, 1, 10, 2, 0xa0, 0x1f, 1, 1]);
    }

    #[test]
    fn a_counter_costs_little() {
        let mut bases = Known::new();
        let mut bytes = 0;
        for scrape in 0..100i64 {
            let samples: Vec<_> =
                (0..1000).map(|i| (i + 1, scrape * 15_000, (scrape * (i as i64 % 50)) as f64)).collect();
            bytes += encode(&samples, &mut bases).len();
        }
        assert!(bytes < 150_000, "{bytes} bytes for 100,000 samples");
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-1000i64..1000).prop_map(|i| i as f64),
            any::<i64>().prop_map(|i| i as f64),
            any::<u64>().prop_map(f64::from_bits),
            Just(-0.0),
            Just(9_007_199_254_740_992.0),
            Just(0.1)
        ]
    }

    proptest! {
        #[test]
        fn round_trips(
            batches in proptest::collection::vec(
                proptest::collection::vec((prop_oneof![1u64..20, any::<u64>()], any::<i64>(), value()), 1..30), 1..5),
            one_time in any::<bool>(),
        ) {
            let (mut writing, mut reading, mut out) = (Known::new(), Known::new(), Vec::new());
            for mut batch in batches {
                if one_time {
                    batch.iter_mut().for_each(|s| s.1 = 42);
                    batch.sort_by_key(|s| s.0);
                }
                let bytes = encode(&batch, &mut writing);
                get(&bytes[1..], &mut reading, &mut out).unwrap();
                let bits: Vec<_> = batch.iter().map(|s| (s.0, s.1, s.2.to_bits())).collect();
                let back: Vec<_> = out.iter().map(|s| (s.id, s.t, s.v.to_bits())).collect();
                prop_assert_eq!(back, bits);
                for cut in 1..bytes.len() {
                    prop_assert!(get(&bytes[1..cut], &mut reading.clone(), &mut out).is_err());
                }
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut out = Vec::new();
            let _ = get(&bytes, &mut Known::new(), &mut out);
            prop_assert!(out.capacity() <= 4 * bytes.len().max(4));
        }
    }
}
