//! Numbers of long answers: the common ones into room of a fixed size, without a call or a loop for each digit.
//!
//! Gives the very text that `push_json_float` gives, or nothing; a property test compares them. Eight digits are made
//! at once in one register: halves, then pairs, then digits, by multiplications that stand for divisions (P. Khuong,
//! "How to print integers really fast", 2017).

use super::{THOUSANDTHS_MAX, push_json_float};

/// Bytes that a number may be written into; what lies behind its end is undefined afterwards.
pub const FLOAT_ROOM: usize = 32;
/// From here on up to `THOUSANDTHS_MAX` the shortest decimals are written without an exponent.
const PLAIN_MIN: f64 = 1e-3;
/// Room behind a sign.
const UNSIGNED_ROOM: usize = FLOAT_ROOM - 1;

/// Writes a sample value as `push_json_float` does and answers its length. `None`, and nothing sensible in the room, for
/// what is not finite, tiny or huge: outside of a thousandth to some hundred billions, zero apart.
#[inline]
pub fn put_json_float(room: &mut [u8; FLOAT_ROOM], v: f64) -> Option<usize> {
    let abs = v.abs();
    let whole = abs as u64;
    let is_whole = whole as f64 == abs;
    if !((PLAIN_MIN..THOUSANDTHS_MAX).contains(&abs) || abs == 0.0) {
        return None;
    }
    let sign = usize::from(v.is_sign_negative());
    room[0] = b'-';
    let unsigned = room[sign..].first_chunk_mut::<UNSIGNED_ROOM>()?;
    if is_whole {
        return Some(sign + put_whole(unsigned, whole));
    }
    // As in `push_f`.
    let thousandths = (abs * 1000.0 + 0.5) as u64;
    if thousandths as f64 / 1000.0 == abs {
        let len = put_whole(unsigned, thousandths / 1000);
        return Some(sign + len + put_fraction(unsigned, len, thousandths % 1000));
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(abs).as_bytes();
    match (text.first_chunk::<16>(), text.last_chunk::<8>()) {
        // The usual length of a long decimal: two copies that overlap.
        (Some(first), Some(last)) if text.len() <= 24 => {
            *unsigned.first_chunk_mut()? = *first;
            *unsigned[text.len() - 8..].first_chunk_mut()? = *last;
        }
        _ => unsigned.get_mut(..text.len())?.copy_from_slice(text),
    }
    Some(sign + text.len())
}

/// Appends what `push_json_float` appends.
pub fn append_json_float(out: &mut Vec<u8>, v: f64) {
    let mut room = [0; FLOAT_ROOM];
    match put_json_float(&mut room, v) {
        Some(len) => out.extend_from_slice(&room[..len]),
        None => {
            let mut text = String::new();
            push_json_float(&mut text, v);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// A dot and up to three digits, without zeros at the end; `n` is 1 to 999.
#[inline]
fn put_fraction(room: &mut [u8; UNSIGNED_ROOM], at: usize, n: u64) -> usize {
    let digits = [n / 100, n / 10 % 10, n % 10].map(|d| b'0' + d as u8);
    if let Some(place) = room.get_mut(at..at + 4) {
        place.copy_from_slice(&[b'.', digits[0], digits[1], digits[2]]);
    }
    match (digits[1], digits[2]) {
        (b'0', b'0') => 2,
        (_, b'0') => 3,
        _ => 4,
    }
}

/// A whole number below 10^16 without zeros before it.
#[inline]
fn put_whole(room: &mut [u8; UNSIGNED_ROOM], n: u64) -> usize {
    const HALF: u64 = 100_000_000;
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    if n < HALF {
        let digits = eight_digits(n);
        // Zero has one digit as well.
        let skipped = (digits.trailing_zeros() / 8).min(7);
        let text = (digits | ZEROS) >> (8 * skipped);
        if let Some(place) = room.first_chunk_mut() {
            *place = text.to_le_bytes();
        }
        return 8 - skipped as usize;
    }
    let (high, low) = (eight_digits(n / HALF), eight_digits(n % HALF));
    let skipped = high.trailing_zeros() / 8;
    let text = u128::from(high | ZEROS) | (u128::from(low | ZEROS) << 64);
    if let Some(place) = room.first_chunk_mut() {
        *place = (text >> (8 * skipped)).to_le_bytes();
    }
    16 - skipped as usize
}

/// The digits of a number below 10^8, one a byte, the first in the lowest.
#[inline]
fn eight_digits(n: u64) -> u64 {
    let fours = (n / 10_000) | ((n % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((twos - 10 * tens) << 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::float_json;
    use proptest::prelude::*;

    fn same(v: f64) {
        let mut room = [b'x'; FLOAT_ROOM];
        if let Some(len) = put_json_float(&mut room, v) {
            assert_eq!(std::str::from_utf8(&room[..len]).unwrap(), float_json(v));
        }
        let mut out = b"a".to_vec();
        append_json_float(&mut out, v);
        assert_eq!(out, format!("a{}", float_json(v)).into_bytes());
    }

    #[test]
    fn borders_and_every_number_of_digits() {
        let special = [0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX, PLAIN_MIN, THOUSANDTHS_MAX];
        special.into_iter().flat_map(|v| [v, v.next_up(), v.next_down(), -v]).for_each(same);
        for digits in 0..18 {
            let ten = 10f64.powi(digits);
            for v in [ten, ten - 1.0, ten + 1.0, ten + 0.5, ten / 1e6, ten - 0.125, ten * 1.0625, ten * 9.99]
            {
                [v, -v].into_iter().for_each(same);
            }
        }
        (0..100_000).for_each(|n| same(f64::from(n) / 1000.0));
    }

    proptest! {
        #[test]
        fn common_numbers(n in any::<u64>(), bits in 0u32..64, divisor in 1u32..100_000) {
            let whole = (n >> bits) as f64;
            for v in [whole, whole / f64::from(divisor), whole / 8.0, -whole / 240.0, whole * 1e-9] {
                same(v);
            }
        }

        #[test]
        fn all_numbers(bits in any::<u64>()) {
            same(f64::from_bits(bits));
        }
    }
}
