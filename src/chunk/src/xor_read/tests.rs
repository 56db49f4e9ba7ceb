//! Golden bytes, round trips and hostile input of the XOR codec.

use koios_model::{Columns, STALE_NAN_BITS};
use proptest::prelude::*;

use crate::{Chunk, Encoding, XorAppender, XorIter, decode_xor, encode_xor};

fn encode(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut a = XorAppender::new();
    samples.iter().for_each(|&(t, v)| a.append(t, v));
    a.into_bytes()
}

fn decode(bytes: &[u8]) -> Vec<(i64, u64)> {
    let mut out = Columns::default();
    decode_xor(bytes, &mut out).unwrap();
    out.iter().map(|s| (s.t, s.v.to_bits())).collect()
}

/// Drawn by hand from the format description: count, varint t0, raw v0, uvarint delta, then bits.
#[test]
fn golden_bytes() {
    let bytes = encode(&[(1000, 1.0), (2000, 1.0), (3000, 2.0), (3999, 2.0)]);
    let mut want = vec![0, 4, 0xd0, 0x0f];
    want.extend(1.0f64.to_bits().to_be_bytes());
    want.extend([0xe8, 0x07]);
    // value same: 0; dod 0: 0; value 1.0^2.0 = 0x7ff0<<48: 11 leading 00001 width 001011 bits 11111111111;
    // dod -1: 10 then 14 ones; value same: 0. Zero bits fill the byte.
    let bits =
        "0".to_owned() + "0" + "11" + "00001" + "001011" + "11111111111" + "10" + "11111111111111" + "0";
    want.extend(
        bits.as_bytes().chunks(8).map(|c| c.iter().fold(0u8, |b, &d| b << 1 | (d - b'0')) << (8 - c.len())),
    );
    assert_eq!(bytes, want);
    assert_eq!(decode(&bytes)[3], (3999, 2.0f64.to_bits()));
}

#[test]
fn dod_class_borders_survive() {
    let mut samples = vec![(0i64, 0.0), (1 << 22, 0.5)];
    let mut delta = 1i64 << 22;
    for border in [-8191, 8192, -8192, 8193, -65535, 65536, 65537, -524287, 524288, 524289, -524289] {
        delta += border;
        let t = samples[samples.len() - 1].0 + delta;
        samples.push((t, border as f64));
    }
    let back = decode(&encode(&samples));
    assert_eq!(back, samples.iter().map(|&(t, v)| (t, v.to_bits())).collect::<Vec<_>>());
}

#[test]
fn every_prefix_of_a_chunk_is_an_error_and_extra_bytes_are_not() {
    let samples: Vec<_> = (0..40).map(|i| (1000 * i + i % 3, (i * i) as f64 * 0.37)).collect();
    let bytes = encode(&samples);
    for n in 0..bytes.len() {
        let mut out = Columns::default();
        assert!(decode_xor(&bytes[..n], &mut out).is_err(), "prefix of {n} bytes was accepted");
        assert!(out.len() < samples.len());
    }
    let mut longer = bytes.clone();
    longer.extend([0xff; 9]);
    assert_eq!(decode(&longer), decode(&bytes));
}

#[test]
fn reads_only_the_asked_range() {
    let columns =
        Columns { times: (0..100).map(|i| i * 10).collect(), values: vec![1.0; 100], ..Columns::default() };
    let chunks = encode_xor(&columns, 100);
    assert_eq!(chunks.len(), 1);
    let mut out = Columns::default();
    chunks[0].read(95, 120, &mut out).unwrap();
    assert_eq!(out.times, [100, 110, 120]);
    let other = Chunk { encoding: Encoding::Xor2, ..chunks[0].clone() };
    assert!(other.read(0, 1, &mut out).unwrap_err().to_string().contains("Xor2"));
}

/// Both decoders give the same samples and the same error.
fn same_both_ways(bytes: &[u8]) {
    let mut bulk = Columns::default();
    let bulk_end = decode_xor(bytes, &mut bulk);
    let mut one_by_one = Columns::default();
    let end = XorIter::new(bytes)
        .and_then(|it| it.into_iter().try_for_each(|s| s.map(|s| one_by_one.push(s.t, s.v))));
    assert_eq!(bulk_end, end);
    let bits = |c: &Columns| c.iter().map(|s| (s.t, s.v.to_bits())).collect::<Vec<_>>();
    assert_eq!(bits(&bulk), bits(&one_by_one));
}

fn samples() -> impl Strategy<Value = Vec<(i64, u64)>> {
    let step =
        prop_oneof![4 => Just(15_000i64), 2 => 14_990i64..15_010, 1 => 1i64..5_000_000, 1 => 1i64..(1 << 40)];
    let value = prop_oneof![
        3 => (0i64..1000).prop_map(|i| (i as f64).to_bits()),
        1 => any::<u64>(),
        1 => Just(STALE_NAN_BITS),
        1 => Just(0u64),
    ];
    (any::<i32>(), proptest::collection::vec((step, value), 0..150)).prop_map(|(start, steps)| {
        let mut t = i64::from(start) * 1000;
        steps
            .into_iter()
            .map(|(dt, v)| {
                t += dt;
                (t, v)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn round_trips_and_resumes_anywhere(samples in samples(), cut in any::<prop::sample::Index>()) {
        let floats: Vec<_> = samples.iter().map(|&(t, v)| (t, f64::from_bits(v))).collect();
        let bytes = encode(&floats);
        prop_assert_eq!(&decode(&bytes), &samples);
        same_both_ways(&bytes);
        let streamed: Vec<_> = XorIter::new(&bytes).unwrap().map(|s| s.map(|s| (s.t, s.v.to_bits()))).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(&streamed, &samples);

        let at = cut.index(samples.len() + 1);
        let mut a = XorAppender::resume(&encode(&floats[..at])).unwrap();
        floats[at..].iter().for_each(|&(t, v)| a.append(t, v));
        prop_assert_eq!(a.into_bytes(), bytes);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Columns::default();
        let _ = decode_xor(&bytes, &mut out);
        same_both_ways(&bytes);
        prop_assert!(out.times.windows(2).all(|w| w[0] < w[1]));
        prop_assert!(out.times.capacity() <= 2 * bytes.len().max(2) * 4);
        if let Ok(mut a) = XorAppender::resume(&bytes) {
            a.append(a.last_time().saturating_add(1), 1.0);
        }
    }

    #[test]
    fn flipped_bits_never_panic(samples in samples(), byte in any::<prop::sample::Index>(), bit in 0u32..8) {
        let mut bytes = encode(&samples.iter().map(|&(t, v)| (t, f64::from_bits(v))).collect::<Vec<_>>());
        let i = byte.index(bytes.len());
        bytes[i] ^= 1u8 << bit;
        same_both_ways(&bytes);
        bytes.truncate(byte.index(bytes.len()));
        same_both_ways(&bytes);
    }
}
