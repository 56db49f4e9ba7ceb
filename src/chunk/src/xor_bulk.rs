//! Decoding a whole XOR chunk into columns, as fast as one dependent bit stream allows.
//!
//! The same format as `xor_read`, written for registers instead of for reading: one look at 57 bits serves the
//! timestamp's and the value's control bits, runs of "nothing changed" are emitted at once, and bounds are
//! checked once per sample. Invariant: answers exactly what `XorIter` answers, on sound and on damaged chunks;
//! a property test compares them.

use koios_model::Columns;

use crate::varint::unzigzag;
use crate::{ChunkError, XorIter};

/// Decodes a whole chunk and appends its samples to `out`.
///
/// # Errors
/// `ChunkError`; the samples before the damage are then already in `out`.
pub fn decode_xor(bytes: &[u8], out: &mut Columns) -> Result<(), ChunkError> {
    let Some((header, body)) = bytes.split_first_chunk::<2>() else {
        return XorIter::new(bytes).map(|_| ());
    };
    let count = usize::from(u16::from_be_bytes(*header));
    // A sample takes at least two bits, so a false count cannot ask for more than the bytes justify.
    let room = count.min(body.len() * 4);
    let start = out.len();
    out.times.resize(start + room, 0);
    out.values.resize(start + room, 0.0);
    let done = decode_body(body, &mut out.times[start..], &mut out.values[start..]);
    out.times.truncate(start + done);
    out.values.truncate(start + done);
    if let Some(h) = &mut out.histograms {
        h.resize(start + done, None);
    }
    if let Some(s) = &mut out.starts {
        s.resize(start + done, 0);
    }
    if done == count {
        return Ok(());
    }
    // Something is wrong after `done` samples; the readable decoder says what.
    match XorIter::new(bytes)?.nth(done) {
        Some(Err(e)) => Err(e),
        _ => Err(ChunkError::Short { sample: done, count, bytes: bytes.len() }),
    }
}

/// Bits at `at`, left-aligned, at least 57 of them; zeros follow the end.
#[inline(always)]
fn peek(body: &[u8], at: usize) -> u64 {
    let from = at >> 3;
    let word = match body.get(from..).and_then(|s| s.first_chunk::<8>()) {
        Some(eight) => u64::from_be_bytes(*eight),
        None => peek_end(body, from),
    };
    word << (at & 7)
}

#[cold]
#[inline(never)]
fn peek_end(body: &[u8], from: usize) -> u64 {
    let mut padded = [0u8; 8];
    if let Some(rest) = body.get(from..) {
        padded[..rest.len()].copy_from_slice(rest);
    }
    u64::from_be_bytes(padded)
}

/// 64 bits at `at`.
#[inline(always)]
fn take64(body: &[u8], at: usize) -> u64 {
    (peek(body, at) >> 32 << 32) | (peek(body, at + 32) >> 32)
}

fn take_uvarint(body: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let byte = peek(body, *at) >> 56;
        *at += 8;
        if i == 9 && byte > 1 {
            return None;
        }
        value |= (byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The delta of deltas that begins with a one at `at`, whose bits are `word`; and how many bits it takes.
#[inline(always)]
fn dod(body: &[u8], word: u64, at: usize) -> (i64, u32) {
    let (prefix, width) = match word.leading_ones() {
        1 => (2, 14),
        2 => (3, 17),
        3 => (4, 20),
        _ => return (take64(body, at + 4) as i64, 68),
    };
    let raw = (word << prefix >> (64 - width)) as i64;
    // The classes are one off from two's complement: the top value is positive.
    (if raw > 1 << (width - 1) { raw - (1 << width) } else { raw }, prefix + width)
}

/// Whether time leaves its range within `run` steps, which only a damaged chunk brings about.
#[inline(always)]
fn overflows(t: i64, delta: i64, run: usize) -> bool {
    delta.checked_mul(run as i64).and_then(|d| t.checked_add(d)).is_none()
}

/// What a value is relative to.
#[derive(Clone, Copy, Default)]
struct Window {
    width: u32,
    trailing: u32,
}

/// Reads one value whose control bits begin `used` bits into `word`, the bits at `at`. Moves `at` behind it.
#[inline(always)]
fn value(body: &[u8], word: u64, used: u32, at: &mut usize, v: u64, window: &mut Window) -> Option<u64> {
    let bits = word << used;
    if bits >> 63 == 0 {
        *at += used as usize + 1;
        return Some(v);
    }
    // Whether the window is new is as good as random, so both cases are computed and one is picked without a
    // branch.
    let new = (bits >> 62 & 1) as u32;
    let leading = (bits << 2 >> 59) as u32;
    let width = match (bits << 7 >> 58) as u32 {
        0 => 64,
        w => w,
    };
    let mask = new.wrapping_neg();
    if (leading + width) & mask > 64 {
        return None;
    }
    let width = (width & mask) | (window.width & !mask);
    let trailing = (64u32.wrapping_sub(leading).wrapping_sub(width) & mask) | (window.trailing & !mask);
    *window = Window { width, trailing };
    let head = 2 + 11 * new;
    let consumed = used + head;
    let diff = if consumed + width <= 57 {
        word << consumed >> (64 - width)
    } else {
        let from = *at + consumed as usize;
        if width <= 57 { peek(body, from) >> (64 - width) } else { take64(body, from) >> (64 - width) }
    };
    *at += (consumed + width) as usize;
    Some(v ^ (diff << trailing))
}

/// Fills both columns as far as the samples are sound; answers how many.
fn decode_body(body: &[u8], times: &mut [i64], values: &mut [f64]) -> usize {
    let end = body.len() * 8;
    let (n, mut at, mut done) = (times.len().min(values.len()), 0usize, 0usize);
    let (times, values) = (&mut times[..n], &mut values[..n]);
    // Until a difference is written, "the window as before" means all 64 bits.
    let mut window = Window { width: 64, trailing: 0 };
    let (mut t, mut v, mut delta) = (0i64, 0u64, 0u64);
    while done < n.min(2) {
        let Some(raw) = take_uvarint(body, &mut at) else { return done };
        if done == 0 {
            t = unzigzag(raw);
            v = take64(body, at);
            at += 64;
        } else {
            let Some(next) = value(body, peek(body, at), 0, &mut at, v, &mut window) else { return done };
            (v, delta) = (next, raw);
            let next_t = t.wrapping_add(delta as i64);
            if next_t <= t {
                return done;
            }
            t = next_t;
        }
        if at > end {
            return done;
        }
        (times[done], values[done]) = (t, f64::from_bits(v));
        done += 1;
    }
    while done < n {
        let (mut word, mut used) = (peek(body, at), 1);
        if word >> 62 == 0 {
            // Two zero bits a sample: nothing changed. Emit all that are in sight.
            let zeros = word.leading_zeros().min(56) as usize;
            let in_sight = (zeros / 2).min(n - done).min(end.saturating_sub(at) / 2);
            let run = if overflows(t, delta as i64, in_sight) { in_sight.min(1) } else { in_sight };
            if run == 0 || t.wrapping_add(delta as i64) <= t {
                return done;
            }
            let (ts, vs) = (&mut times[done..done + run], &mut values[done..done + run]);
            for (slot, val) in ts.iter_mut().zip(vs) {
                t += delta as i64;
                (*slot, *val) = (t, f64::from_bits(v));
            }
            done += run;
            at += 2 * run;
            continue;
        }
        if word >> 63 != 0 {
            let (dod, bits) = dod(body, word, at);
            delta = delta.wrapping_add(dod as u64);
            used = bits;
            if bits == 68 {
                at += 68;
                word = peek(body, at);
                used = 0;
            }
        }
        let next_t = t.wrapping_add(delta as i64);
        let Some(next_v) = value(body, word, used, &mut at, v, &mut window) else { return done };
        if next_t <= t || at > end {
            return done;
        }
        (t, v) = (next_t, next_v);
        (times[done], values[done]) = (t, f64::from_bits(v));
        done += 1;
    }
    done
}
