//! Decoding a whole XOR chunk into columns, as fast as one dependent bit stream allows.
//!
//! The same format as `xor_read`, written for registers instead of for reading: `fast` keeps the next bits in one, so
//! that no load waits for the sample before it, takes runs of the commonest kind of sample in a loop of their own, and
//! emits runs of "nothing changed" at once; `one` decodes what is left over. Invariant: answers exactly what `XorIter` answers, on sound and on damaged chunks;
//! a property test compares them.

use koios_model::Columns;

use crate::varint::{get_uvarint, unzigzag};
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

/// A varint at a whole byte.
fn take_uvarint(body: &[u8], at: &mut usize) -> Option<u64> {
    let mut rest = body.get(*at >> 3..)?;
    let before = rest.len();
    let value = get_uvarint(&mut rest)?;
    *at += 8 * (before - rest.len());
    Some(value)
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
    (class_value(word << prefix >> (64 - width), width), prefix + width)
}

/// The classes are one off from two's complement: the top value is positive.
#[inline(always)]
fn class_value(raw: u64, width: u32) -> i64 {
    let raw = raw as i64;
    if raw > 1 << (width - 1) { raw - (1 << width) } else { raw }
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
    let start = State { at, t, v, delta, window };
    done + rest(body, start, &mut times[done..], &mut values[done..])
}

/// Everything after the first two samples.
fn rest(body: &[u8], start: State, times: &mut [i64], values: &mut [f64]) -> usize {
    let n = times.len();
    let mut state = start;
    let mut done = 0;
    while done < n {
        done += fast(body, &mut state, &mut times[done..], &mut values[done..]);
        done += near_end(body, &mut state, &mut times[done..], &mut values[done..]);
        if done == n || !one(body, &mut state) {
            break;
        }
        (times[done], values[done]) = (state.t, f64::from_bits(state.v));
        done += 1;
    }
    if state.at <= body.len() * 8 {
        return done;
    }
    // The zeros behind the end were taken for samples: the chunk is cut short. Once more, with care.
    let mut state = start;
    for i in 0..n {
        if !one(body, &mut state) {
            return i;
        }
        (times[i], values[i]) = (state.t, f64::from_bits(state.v));
    }
    n
}

/// `fast` over the last bytes, zeros behind them, so that it need not stop before the end.
fn near_end(body: &[u8], state: &mut State, times: &mut [i64], values: &mut [f64]) -> usize {
    let base = state.at >> 3;
    let Some(last) = body.get(base..).filter(|last| last.len() <= TAIL) else { return 0 };
    let mut padded = [0u8; TAIL + 32];
    padded[..last.len()].copy_from_slice(last);
    state.at -= base * 8;
    let done = fast(&padded, state, times, values);
    state.at += base * 8;
    done
}

/// Between two samples.
#[derive(Clone, Copy)]
struct State {
    /// Bit position.
    at: usize,
    t: i64,
    v: u64,
    delta: u64,
    window: Window,
}

/// Bytes near the end that `fast` may have left: refills, what the register held, and a sample that it gave back.
const TAIL: usize = 32;

/// Bits in a register: `bits` of them are counted, left-aligned, and what follows them is right or zero.
#[derive(Clone, Copy)]
struct Buffer<'a> {
    word: u64,
    bits: u32,
    /// Where the next refill begins.
    rest: &'a [u8],
}

impl<'a> Buffer<'a> {
    /// Makes 56 bits or more count; `None` near the end. The load does not wait for the decoding of the sample before,
    /// because its place is known one refill earlier (F. Giesen, "Reading bits in far too many ways", variant 4).
    #[inline(always)]
    fn refill(&mut self) -> Option<()> {
        let eight = self.rest.first_chunk::<8>()?;
        self.word |= u64::from_be_bytes(*eight) >> self.bits;
        self.rest = self.rest.get(((63 - self.bits) >> 3) as usize..)?;
        self.bits |= 56;
        Some(())
    }

    fn open(body: &'a [u8], at: usize) -> Option<Self> {
        let mut b = Self { word: 0, bits: 0, rest: body.get(at >> 3..)? };
        b.refill()?;
        b.skip(at as u32 & 7);
        Some(b)
    }

    #[inline(always)]
    fn skip(&mut self, n: u32) {
        self.word <<= n;
        self.bits -= n;
    }

    /// Takes 1 to 64 bits; `None` near the end.
    #[inline(always)]
    fn take_wide(&mut self, width: u32) -> Option<u64> {
        self.refill()?;
        let mut high = 0;
        let mut low = width;
        if width > 56 {
            high = self.word >> 32;
            low -= 32;
            self.skip(32);
            self.refill()?;
        }
        let bits = (high << low) | (self.word >> (64 - low));
        self.skip(low);
        Some(bits)
    }

    /// Bit position in `body`.
    fn at(&self, body: &[u8]) -> usize {
        (body.len() - self.rest.len()) * 8 - self.bits as usize
    }
}

/// Decodes samples whose times keep their pace or leave it by the smallest class; stops before the first other one,
/// near the end, and before damage. Answers how many, and leaves `state` behind them.
#[inline(never)]
fn fast(body: &[u8], state: &mut State, times: &mut [i64], values: &mut [f64]) -> usize {
    let Some(mut b) = Buffer::open(body, state.at) else { return 0 };
    let n = times.len().min(values.len());
    let (times, values) = (&mut times[..n], &mut values[..n]);
    let State { mut t, mut v, mut delta, mut window, .. } = *state;
    let mut done = 0;
    while done < n && b.refill().is_some() {
        if b.word >> 62 == 0 {
            let in_sight = (b.word.leading_zeros().min(b.bits) as usize / 2).min(n - done);
            let (ts, vs) = (&mut times[done..done + in_sight], &mut values[done..done + in_sight]);
            let Some(last) = repeat(ts, vs, t, delta as i64, f64::from_bits(v)) else { break };
            t = last;
            done += in_sight;
            b.skip(2 * in_sight as u32);
            continue;
        }
        if b.word >> 61 == 0b010 {
            let (ts, vs) = (&mut times[done..], &mut values[done..]);
            let taken = same_window(&mut b, window, delta as i64, (&mut t, &mut v), ts, vs);
            if taken == 0 {
                break;
            }
            done += taken;
            continue;
        }
        let mut used = 1;
        let mut pace = delta;
        if b.word >> 63 != 0 {
            if b.word >> 62 != 0b10 {
                break;
            }
            pace = delta.wrapping_add(class_value(b.word << 2 >> 50, 14) as u64);
            used = 16;
        }
        let next_t = t.wrapping_add(pace as i64);
        if next_t <= t {
            break;
        }
        if !changed_value(&mut b, used, &mut v, &mut window) {
            break;
        }
        (t, delta) = (next_t, pace);
        (times[done], values[done]) = (t, f64::from_bits(v));
        done += 1;
    }
    *state = State { at: b.at(body), t, v, delta, window };
    done
}

/// The commonest samples, as long as they follow each other: same pace, another value, same window. Answers how many;
/// none where the next one runs past the end or time would not ascend.
#[inline(always)]
fn same_window(
    b: &mut Buffer<'_>,
    window: Window,
    delta: i64,
    (t, v): (&mut i64, &mut u64),
    times: &mut [i64],
    values: &mut [f64],
) -> usize {
    let n = times.len().min(values.len());
    let total = 3 + window.width;
    let mut next_t = t.wrapping_add(delta);
    let mut done = 0;
    if total > 56 {
        let before = *b;
        b.skip(3);
        let Some(diff) = b.take_wide(window.width).filter(|_| next_t > *t) else {
            *b = before;
            return 0;
        };
        (*t, *v) = (next_t, *v ^ (diff << window.trailing));
        (times[0], values[0]) = (*t, f64::from_bits(*v));
        return 1;
    }
    while next_t > *t {
        *v ^= b.word << 3 >> (64 - window.width) << window.trailing;
        *t = next_t;
        (times[done], values[done]) = (*t, f64::from_bits(*v));
        done += 1;
        b.skip(total);
        if b.bits < total && b.refill().is_none() {
            break;
        }
        if b.word >> 61 != 0b010 || done == n {
            break;
        }
        next_t = t.wrapping_add(delta);
    }
    done
}

/// Takes the value whose bits begin `used` bits on; false, and nothing taken, near the end and for a window that is
/// wider than 64 bits.
#[inline(always)]
fn changed_value(b: &mut Buffer<'_>, used: u32, v: &mut u64, window: &mut Window) -> bool {
    let bits = b.word << used;
    if bits >> 63 == 0 {
        b.skip(used + 1);
        return true;
    }
    let (mut now, mut head) = (*window, 2);
    if bits >> 62 == 0b11 {
        let (leading, width) = ((bits << 2 >> 59) as u32, (bits << 7 >> 58) as u32);
        let width = if width == 0 { 64 } else { width };
        if leading + width > 64 {
            return false;
        }
        now = Window { width, trailing: 64 - leading - width };
        head = 13;
    }
    let total = used + head + now.width;
    if total <= 56 {
        *v ^= bits << head >> (64 - now.width) << now.trailing;
        b.skip(total);
    } else {
        let before = *b;
        b.skip(used + head);
        let Some(diff) = b.take_wide(now.width) else {
            *b = before;
            return false;
        };
        *v ^= diff << now.trailing;
    }
    *window = now;
    true
}

/// The same value at the same pace, as often as there is room; the last time, or `None` when time would not ascend.
#[inline(never)]
fn repeat(times: &mut [i64], values: &mut [f64], mut t: i64, delta: i64, v: f64) -> Option<i64> {
    if delta <= 0 || overflows(t, delta, times.len()) {
        return None;
    }
    values.fill(v);
    for slot in times {
        t += delta;
        *slot = t;
    }
    Some(t)
}

/// Decodes one sample of any kind; false when it is not sound or not whole.
#[inline(never)]
fn one(body: &[u8], state: &mut State) -> bool {
    let mut at = state.at;
    let (mut word, mut used) = (peek(body, at), 1);
    let mut delta = state.delta;
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
    let next_t = state.t.wrapping_add(delta as i64);
    let mut window = state.window;
    let Some(next_v) = value(body, word, used, &mut at, state.v, &mut window) else { return false };
    if next_t <= state.t || at > body.len() * 8 {
        return false;
    }
    *state = State { at, t: next_t, v: next_v, delta, window };
    true
}
