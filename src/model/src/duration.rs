//! Prometheus durations: `1y2w3d4h5m6s7ms`, each unit at most once and in that order.
//!
//! Owned here because PromQL, YAML and the command line share the grammar.

/// Milliseconds of each unit, largest first. A year has 365 days.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// Nothing there.
    #[error("empty duration string")]
    Empty,
    /// Does not follow the grammar.
    #[error("not a valid duration string: {0:?}")]
    Invalid(String),
    /// Larger than 292 years.
    #[error("duration out of range")]
    OutOfRange,
}

/// Reads a duration into milliseconds. `0` needs no unit.
///
/// # Errors
/// See `BadDuration`.
pub fn parse_duration(text: &str) -> Result<i64, BadDuration> {
    match text {
        "" => return Err(BadDuration::Empty),
        "0" => return Ok(0),
        _ => {}
    }
    let invalid = || BadDuration::Invalid(text.to_owned());
    let mut total: i64 = 0;
    let mut next_unit = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(invalid());
        }
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = after.split_at(letters);
        let found = UNITS.iter().skip(next_unit).position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        next_unit += found + 1;
        let number: i64 = number.parse().map_err(|_| BadDuration::OutOfRange)?;
        let part = number.checked_mul(UNITS[next_unit - 1].1).ok_or(BadDuration::OutOfRange)?;
        total = total.checked_add(part).ok_or(BadDuration::OutOfRange)?;
        rest = tail;
    }
    // Prometheus counts in nanoseconds, which bounds what it can say.
    if total > i64::MAX / 1_000_000 {
        return Err(BadDuration::OutOfRange);
    }
    Ok(total)
}

/// Writes milliseconds the way Prometheus does: whole years, weeks and days only when nothing is lost.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let mut rest = ms.unsigned_abs();
    if ms < 0 {
        out.push('-');
    }
    for (i, (name, unit)) in UNITS.iter().enumerate() {
        let unit = *unit as u64;
        // Years and weeks only when they divide exactly, as Go's model.Duration prints them.
        let exact_only = i < 2;
        if exact_only && !rest.is_multiple_of(unit) {
            continue;
        }
        if rest >= unit {
            out.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, ms) in [
            ("0", 0),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1y2w3d4h5m6s7ms", 33_019_506_007),
            ("15d", 1_296_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
            assert_eq!(parse_duration(&format_duration(ms)), Ok(ms));
        }
        assert_eq!(format_duration(7 * 86_400_000), "1w");
        assert_eq!(format_duration(8 * 86_400_000), "8d");
        assert_eq!(format_duration(1500), "1s500ms");
        for bad in ["1", "1.5h", "1m1h", "1m1m", "h", "-1m", "1 m", "9223372036854775807y", "400y"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
