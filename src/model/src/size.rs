//! Byte sizes as Prometheus' flags and files write them: `512MB`, `4GiB`, powers of two either way.

/// Units and their bytes. `KB` is 1,024 bytes, as in Prometheus' `units.Base2Bytes`.
const UNITS: [(&str, u64); 6] =
    [("E", 1 << 60), ("P", 1 << 50), ("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// Does not follow the grammar.
    #[error("not a valid size: {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("size {0:?} has no unit")]
    NoUnit(String),
    /// Does not fit 64 bits.
    #[error("size out of range")]
    OutOfRange,
}

/// Reads a size into bytes: a decimal number and one of `B KB KiB MB MiB …`. `0` needs no unit.
///
/// # Errors
/// See `BadSize`.
pub fn parse_size(text: &str) -> Result<u64, BadSize> {
    if text == "0" {
        return Ok(0);
    }
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let value: f64 = number.parse().map_err(|_| BadSize::Invalid(text.to_owned()))?;
    let scale = match unit {
        "" => return Err(BadSize::NoUnit(text.to_owned())),
        "B" => 1,
        _ => {
            let letter = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B'));
            let found = UNITS.iter().find(|(name, _)| Some(*name) == letter);
            found.ok_or_else(|| BadSize::Invalid(text.to_owned()))?.1
        }
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or(BadSize::OutOfRange);
    }
    let bytes = value * scale as f64;
    if bytes < 9e18 { Ok(bytes as u64) } else { Err(BadSize::OutOfRange) }
}

/// Writes bytes with the largest unit that divides them, e.g. `10MiB`, `1000B`.
pub fn format_size(bytes: u64) -> String {
    for (name, unit) in UNITS {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}iB", bytes / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, bytes) in [("0", 0), ("1B", 1), ("1KB", 1024), ("4GiB", 4 << 30), ("1.5MB", 3 << 19)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(format_size(4 << 30), "4GiB");
        assert_eq!(format_size(1000), "1000B");
        assert_eq!(parse_size("100"), Err(BadSize::NoUnit("100".into())));
        for bad in ["", "MB", "1 MB", "1mb", "-1B", "1.2.3B", "99999999999EB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
