//! Numbers of exposition lines. Short decimals are read exactly in one pass (W. D. Clinger, "How to read
//! floating point numbers accurately", the exact case: at most 15 digits and a power of ten up to 22);
//! everything else goes through the standard library, which rounds correctly.

use koios_model::format::{float_g, parse_go_float};
use koios_model::sample::normal_nan;

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// A sample value: what Go's `ParseFloat` takes, without hexadecimal. NaN is the ordinary NaN.
#[inline]
pub fn parse_value(text: &[u8]) -> Option<f64> {
    short(text).or_else(|| long(text))
}

#[inline]
fn short(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    // 15 digits, a point, and an exponent of up to four characters.
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let (mut mantissa, mut count, mut scale) = (0u64, 0usize, 0i32);
    let mut point = false;
    let mut rest = digits.iter();
    while let Some(&b) = rest.next() {
        match b {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + u64::from(b - b'0');
                count += 1;
                scale -= i32::from(point);
            }
            b'.' if !point => point = true,
            b'e' | b'E' if count > 0 => {
                scale += exponent(rest.as_slice())?;
                break;
            }
            _ => return None,
        }
        if count > 15 {
            return None;
        }
    }
    if count == 0 {
        return None;
    }
    let m = mantissa as f64;
    let value = match scale {
        0 => m,
        1..=22 => m * POWERS[scale as usize],
        -22..=-1 => m / POWERS[(-scale) as usize],
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

#[inline]
fn exponent(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    let mut n = 0;
    for &b in digits {
        n = n * 10 + i32::from(b.is_ascii_digit().then(|| b - b'0')?);
    }
    Some(if negative { -n } else { n })
}

#[cold]
fn long(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.contains(['x', 'X', 'p', 'P', '_']) {
        return None;
    }
    let v = parse_go_float(text)?;
    Some(if v.is_nan() { normal_nan() } else { v })
}

/// Milliseconds of a text-format timestamp.
pub(super) fn parse_millis(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Milliseconds of an OpenMetrics timestamp: float seconds, cut towards zero.
pub(super) fn parse_seconds(text: &[u8]) -> Option<i64> {
    let ms = parse_value(text)? * 1000.0;
    (ms.is_finite() && ms.abs() < 9.2e18).then_some(ms as i64)
}

/// A bucket bound or quantile as Prometheus 3 stores it: `1` becomes `1.0`, `1000000` becomes `1e+06`.
pub fn open_metrics_float(v: f64) -> String {
    let mut text = float_g(v);
    if v.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_are_canonical() {
        for (v, want) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-1.0, "-1.0"),
            (0.5, "0.5"),
            (1e6, "1e+06"),
            (100_000.0, "100000.0"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
            (123_456_789.0, "1.23456789e+08"),
            (1e-7, "1e-07"),
        ] {
            assert_eq!(open_metrics_float(v), want);
        }
    }

    #[test]
    fn forms_that_prometheus_takes_and_refuses() {
        for (text, want) in [
            ("1", 1.0),
            ("-0", -0.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("1e3", 1e3),
            ("1E+3", 1e3),
            ("1e-3", 1e-3),
            ("+7", 7.0),
            ("123456789012345678", 123_456_789_012_345_678.0),
            ("+Inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("1.7976931348623157e308", f64::MAX),
            ("5e-324", 5e-324),
        ] {
            assert_eq!(parse_value(text.as_bytes()).map(f64::to_bits), Some(want.to_bits()), "{text}");
        }
        assert_eq!(parse_value(b"nan").map(f64::to_bits), Some(koios_model::sample::NORMAL_NAN_BITS));
        for bad in [
            "", "-", ".", "e5", "1e", "1e+", "0x1p-2", "0x10", "1_000", "1e400", "1.2.3", "1a", "-nan", "1 ",
            "\r",
        ] {
            assert_eq!(parse_value(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(v in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
            for text in [format!("{v}"), format!("{v:e}"), koios_model::format::float_g(v)] {
                prop_assert_eq!(parse_value(text.as_bytes()).map(f64::to_bits), Some(v.to_bits()), "{}", text);
            }
        }

        #[test]
        fn short_decimals_are_exact(text in "-?[0-9]{1,9}(\\.[0-9]{0,9})?(e[+-]?[0-9]{1,2})?") {
            let want: f64 = text.parse().unwrap();
            prop_assert_eq!(parse_value(text.as_bytes()).map(f64::to_bits), Some(want.to_bits()));
        }
    }
}
