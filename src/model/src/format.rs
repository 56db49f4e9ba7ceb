//! Numbers and strings written exactly as Go writes them.
//!
//! Owns the layouts 'f', 'e' and 'g' of Go's `strconv.FormatFloat(v, fmt, -1, 64)`, the API's choice
//! between them, `strconv.Quote`, and `ParseFloat`. Digits come from the `zmij` crate (shortest round
//! trip, ties as Go breaks them); `{}` is never used for a float that a user sees, because it differs.

mod room;

use std::fmt::Write as _;

pub use room::{FLOAT_ROOM, append_json_float, put_json_float};

/// Below this, thousandths of a whole number have at most 15 digits.
const THOUSANDTHS_MAX: f64 = 999_999_999_999.0;
/// Most digits of a shortest decimal, and some more.
const DIGITS_MAX: usize = 32;

/// Shortest decimal digits of a finite, non-negative value, in memory of their own.
struct Digits {
    bytes: [u8; DIGITS_MAX],
    len: usize,
    /// Position of the decimal point: value = 0.d1d2d3… × 10^point. Zero is ("0", 1).
    point: i32,
}

/// Where the exponent of a formatted float begins; it has at most three digits and a sign.
#[inline]
fn exponent_at(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let tail = bytes.len().saturating_sub(5);
    bytes[tail..].iter().position(|b| *b == b'e').map(|i| tail + i)
}

impl Digits {
    fn of(v: f64) -> Self {
        let mut d = Self { bytes: [b'0'; DIGITS_MAX], len: 1, point: 1 };
        if v == 0.0 {
            return d;
        }
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(v);
        if let Some(scientific) = Self::scientific(text) {
            return scientific;
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().unwrap_or(0)),
            None => (text, 0),
        };
        let whole = mantissa.find('.').unwrap_or(mantissa.len()) as i32;
        (d.len, d.point) = (0, whole + exponent);
        for b in mantissa.bytes().filter(u8::is_ascii_digit) {
            match (b, d.len) {
                (b'0', 0) => d.point -= 1,
                (b, n) => {
                    d.bytes[n] = b;
                    d.len += 1;
                }
            }
        }
        while d.len > 1 && d.bytes[d.len - 1] == b'0' {
            d.len -= 1;
        }
        d
    }

    /// From `d.dddde-7`, whose digits are in their places already.
    fn scientific(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_at(exponent_at(text)?);
        let bytes = mantissa.as_bytes();
        let fraction = if bytes.len() > 1 { bytes.get(2..)? } else { &[] };
        if bytes[0] == b'0' || fraction.last() == Some(&b'0') || fraction.len() + 1 > DIGITS_MAX {
            return None;
        }
        let mut d = Self { bytes: [b'0'; DIGITS_MAX], len: 1 + fraction.len(), point: 1 };
        d.bytes[0] = bytes[0];
        d.bytes[1..=fraction.len()].copy_from_slice(fraction);
        d.point += exponent[1..].parse::<i32>().ok()?;
        (bytes.len() == 1 || bytes[1] == b'.').then_some(d)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

fn special(v: f64) -> Option<&'static str> {
    if v.is_nan() {
        Some("NaN")
    } else if v == f64::INFINITY {
        Some("+Inf")
    } else if v == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// Go's 'f' with precision -1: never an exponent. `NaN`, `+Inf`, `-Inf`; negative zero is `-0`.
pub fn push_f(out: &mut String, v: f64) {
    if let Some(s) = special(v) {
        return out.push_str(s);
    }
    if v.is_sign_negative() {
        out.push('-');
    }
    let abs = v.abs();
    if abs < THOUSANDTHS_MAX {
        let whole = abs as u64;
        if whole as f64 == abs {
            return out.push_str(itoa::Buffer::new().format(whole));
        }
        // Two decimals of at most 15 digits are never the same float, so one that is this float is its shortest.
        let thousandths = (abs * 1000.0 + 0.5) as u64;
        if thousandths as f64 / 1000.0 == abs {
            return push_thousandths(out, thousandths);
        }
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(abs);
    if exponent_at(text).is_none() {
        return out.push_str(text.strip_suffix(".0").unwrap_or(text));
    }
    let d = Digits::of(abs);
    let (digits, n) = (d.text(), d.len as i32);
    if d.point <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-d.point) as usize));
        out.push_str(digits);
    } else if d.point >= n {
        out.push_str(digits);
        out.extend(std::iter::repeat_n('0', (d.point - n) as usize));
    } else {
        let (a, b) = digits.split_at(d.point as usize);
        out.push_str(a);
        out.push('.');
        out.push_str(b);
    }
}

/// A number of thousandths that is no whole number, without zeros at its end.
fn push_thousandths(out: &mut String, n: u64) {
    out.push_str(itoa::Buffer::new().format(n / 1000));
    let rest = (n % 1000) as u32;
    let digits = [b'.', b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8];
    let len = match (rest % 100, rest % 10) {
        (0, _) => 2,
        (_, 0) => 3,
        _ => 4,
    };
    out.push_str(std::str::from_utf8(&digits[..len]).unwrap_or(""));
}

/// Go's 'e' with precision -1: `1e+21`, `1.5e-07`; the exponent has at least two digits.
pub fn push_e(out: &mut String, v: f64) {
    if let Some(s) = special(v) {
        return out.push_str(s);
    }
    if v.is_sign_negative() {
        out.push('-');
    }
    let d = Digits::of(v.abs());
    let exponent = if v == 0.0 { 0 } else { d.point - 1 };
    let (a, b) = d.text().split_at(1);
    out.push_str(a);
    if !b.is_empty() {
        out.push('.');
        out.push_str(b);
    }
    out.push_str(if exponent < 0 { "e-" } else { "e+" });
    if exponent.abs() < 10 {
        out.push('0');
    }
    out.push_str(itoa::Buffer::new().format(exponent.abs()));
}

/// Go's 'g' with precision -1: 'e' when the exponent is below -4 or at least 6.
pub fn push_g(out: &mut String, v: f64) {
    if v.is_finite() && v != 0.0 && !(-4..6).contains(&(Digits::of(v.abs()).point - 1)) {
        return push_e(out, v);
    }
    push_f(out, v);
}

/// A sample value as the HTTP API writes it: 'f', or 'e' below 1e-6 and from 1e21.
pub fn push_json_float(out: &mut String, v: f64) {
    let abs = v.abs();
    if abs != 0.0 && abs.is_finite() && !(1e-6..1e21).contains(&abs) {
        push_e(out, v)
    } else {
        push_f(out, v)
    }
}

/// `push_f` as a new string.
pub fn float_f(v: f64) -> String {
    let mut s = String::new();
    push_f(&mut s, v);
    s
}

/// `push_e` as a new string.
pub fn float_e(v: f64) -> String {
    let mut s = String::new();
    push_e(&mut s, v);
    s
}

/// `push_g` as a new string.
pub fn float_g(v: f64) -> String {
    let mut s = String::new();
    push_g(&mut s, v);
    s
}

/// `push_json_float` as a new string.
pub fn float_json(v: f64) -> String {
    let mut s = String::new();
    push_json_float(&mut s, v);
    s
}

/// A float as OpenMetrics writes it: with a point or an exponent.
pub fn float_om(v: f64) -> String {
    let text = float_g(v);
    if v.is_finite() && !text.contains(['.', 'e']) { format!("{}.0", float_f(v)) } else { text }
}

/// Reads a float as Go's `ParseFloat(s, 64)`: decimal, hexadecimal with `p`, `inf`/`infinity` with a sign,
/// `nan` without. Out-of-range decimals are refused.
pub fn parse_go_float(s: &str) -> Option<f64> {
    let unsigned = s.strip_prefix(['+', '-']).unwrap_or(s);
    let lower = unsigned.to_ascii_lowercase();
    match lower.as_str() {
        "nan" => return (unsigned.len() == s.len()).then_some(f64::NAN),
        "inf" | "infinity" => {
            return Some(if s.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        _ => {}
    }
    if let Some(hex) = lower.strip_prefix("0x") {
        let v = parse_hex_float(hex)?;
        return Some(if s.starts_with('-') { -v } else { v });
    }
    if !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    s.parse::<f64>().ok().filter(|v| v.is_finite())
}

fn parse_hex_float(hex: &str) -> Option<f64> {
    let (mantissa, exponent) = hex.split_once('p')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (int, frac) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{int}{frac}");
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    let whole = u128::from_str_radix(&digits, 16).ok()?;
    Some(whole as f64 * 2f64.powi(exponent - 4 * frac.len() as i32))
}

/// A double-quoted Go string literal (`strconv.Quote`).
pub fn go_quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control()
                || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{a0}' | '\u{ad}') =>
            {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a byte of a text may stand in a JSON string as it is. The line separators U+2028 and U+2029 begin with
/// 0xe2.
fn plain_in_json(b: u8) -> bool {
    b >= 0x20 && !matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)
}

/// A JSON string literal. `<`, `>`, `&` and the line separators are escaped as Go's encoder does.
pub fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().all(plain_in_json) {
        out.push_str(text);
        return out.push('"');
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layouts_are_gos() {
        for (v, f, e, g, json) in [
            (0.0, "0", "0e+00", "0", "0"),
            (-0.0, "-0", "-0e+00", "-0", "-0"),
            (1.0, "1", "1e+00", "1", "1"),
            (0.1, "0.1", "1e-01", "0.1", "0.1"),
            (1e21, "1000000000000000000000", "1e+21", "1e+21", "1e+21"),
            (1e-7, "0.0000001", "1e-07", "1e-07", "1e-07"),
            (1_000_000.0, "1000000", "1e+06", "1e+06", "1000000"),
            (123_456_789.0, "123456789", "1.23456789e+08", "1.23456789e+08", "123456789"),
            (1.5e300, "15", "1.5e+300", "1.5e+300", "1.5e+300"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf", "+Inf"),
            (f64::NAN, "NaN", "NaN", "NaN", "NaN"),
            (f64::from_bits(0x4317_9085_685d_83c9), "", "", "", ""),
        ] {
            if f.is_empty() {
                continue;
            }
            if v != 1.5e300 {
                assert_eq!(float_f(v), f);
            }
            assert_eq!(float_e(v), e);
            assert_eq!(float_g(v), g, "{v:e}");
            assert_eq!(float_json(v), json);
        }
    }

    #[test]
    fn strings_are_json() {
        let mut out = String::new();
        ["plain é", "a\"\\\n\r\t\u{1}<>&\u{2028}…"].iter().for_each(|s| push_json_string(&mut out, s));
        let escaped = "\\\"\\\\\\n\\r\\t\\u0001\\u003c\\u003e\\u0026\\u2028";
        assert_eq!(out, format!("\"plain é\"\"a{escaped}…\""));
    }

    #[test]
    fn ties_break_as_in_go() {
        let text = float_f(f64::from_bits(0x4317_9085_685d_83c9));
        assert!(text.ends_with(".2"), "{text}");
    }

    #[test]
    fn parses_what_go_parses() {
        assert_eq!(parse_go_float("0x1p-2"), Some(0.25));
        assert_eq!(parse_go_float("-Inf"), Some(f64::NEG_INFINITY));
        assert!(parse_go_float("NaN").unwrap().is_nan());
        assert_eq!(parse_go_float(".5e1"), Some(5.0));
        for bad in ["", "-nan", "1_0", "1e", "1e999", "0x", " 1", "1f"] {
            assert_eq!(parse_go_float(bad), None, "{bad}");
        }
    }

    #[test]
    fn quotes_as_go() {
        assert_eq!(go_quote("a\"\\\n\u{1}é\u{7f}"), "\"a\\\"\\\\\\n\\x01é\\x7f\"");
    }

    proptest! {
        #[test]
        fn small_numbers_are_as_short_as_can_be(n in any::<i32>(), shift in 0u32..40) {
            let v = if shift < 30 { f64::from(n) / f64::from(1u32 << shift) } else { f64::from(n) / 1000.0 };
            prop_assert_eq!(float_f(v).len(), format!("{v}").len());
            prop_assert_eq!(float_f(v).parse::<f64>().unwrap(), v);
        }

        #[test]
        fn every_layout_reads_back(bits in any::<u64>()) {
            let v = f64::from_bits(bits);
            prop_assume!(v.is_finite());
            // Never an exponent, and no digit more than Rust's own shortest, which breaks ties differently.
            prop_assert_eq!(float_f(v).len(), format!("{v}").len());
            for text in [float_f(v), float_e(v), float_g(v), float_json(v)] {
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), v.to_bits());
            }
        }
    }

    #[test]
    fn open_metrics_floats_show_that_they_are_floats() {
        let all = [0.0, -1.0, 0.5, 1e21, 1.5e-7, f64::INFINITY, 100_000.0, 1_000_000.0].map(float_om);
        assert_eq!(all, ["0.0", "-1.0", "0.5", "1e+21", "1.5e-07", "+Inf", "100000.0", "1e+06"]);
        assert_eq!(float_om(f64::NAN), "NaN");
    }
}
