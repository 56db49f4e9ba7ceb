//! Numbers, durations and strings as the language writes them.

use koios_model::duration::parse_duration;
use koios_model::format::parse_go_float;

/// Whether a word is digits and units, as in `1h30m`.
pub(crate) fn is_duration(word: &str) -> bool {
    let ends_in_unit =
        word.bytes().last().is_some_and(|b| matches!(b, b's' | b'm' | b'h' | b'd' | b'w' | b'y'));
    ends_in_unit && word.bytes().next().is_some_and(|b| b.is_ascii_digit()) && units_only(word)
}

fn units_only(word: &str) -> bool {
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        if digits == 0 || !matches!(&rest[digits..digits + unit], "ms" | "s" | "m" | "h" | "d" | "w" | "y") {
            return false;
        }
        rest = &rest[digits + unit..];
    }
    true
}

/// Reads a duration into milliseconds.
///
/// # Errors
/// Prometheus' text.
pub(crate) fn duration_ms(word: &str) -> Result<i64, String> {
    parse_duration(word).map_err(|e| e.to_string())
}

/// Reads a number: an integer of base 2, 8, 10 or 16 with `_` between digits, else a float.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    match text.to_ascii_lowercase().as_str() {
        "inf" | "+inf" => return Ok(f64::INFINITY),
        "-inf" => return Ok(f64::NEG_INFINITY),
        "nan" | "+nan" | "-nan" => return Ok(f64::NAN),
        _ => {}
    }
    if let Some(v) = parse_integer(text) {
        return Ok(v);
    }
    if text.parse::<f64>().is_ok_and(f64::is_infinite) {
        return Err(format!(
            "error parsing number: strconv.ParseFloat: parsing {text:?}: value out of range"
        ));
    }
    parse_go_float(text)
        .ok_or_else(|| format!("error parsing number: strconv.ParseFloat: parsing {text:?}: invalid syntax"))
}

fn parse_integer(text: &str) -> Option<f64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body, prefixed) = if let Some(b) = lower.strip_prefix("0x") {
        (16, b, true)
    } else if let Some(b) = lower.strip_prefix("0b") {
        (2, b, true)
    } else if let Some(b) = lower.strip_prefix("0o") {
        (8, b, true)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..], true)
    } else {
        (10, lower.as_str(), false)
    };
    let body = if prefixed { body.strip_prefix('_').unwrap_or(body) } else { body };
    if body.is_empty() || body.starts_with('_') || body.ends_with('_') || body.contains("__") {
        return None;
    }
    let clean: String = body.chars().filter(|c| *c != '_').collect();
    if clean.starts_with(['+', '-']) {
        return None;
    }
    let n = i64::from_str_radix(&clean, radix).ok()? as f64;
    Some(if negative { -n } else { n })
}

/// The content of a quoted string with Go's escapes; backquotes are raw.
///
/// # Errors
/// What is wrong with it. Bytes that are no UTF-8 after `\x` and octal escapes are refused.
pub(crate) fn unquote(text: &str) -> Result<String, String> {
    let invalid = || "invalid syntax".to_owned();
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')).ok_or_else(invalid)?;
    if text.len() < 2 || !text.ends_with(quote) {
        return Err(invalid());
    }
    let body = &text[1..text.len() - 1];
    if quote == '`' {
        return Ok(body.to_owned());
    }
    let mut out: Vec<u8> = Vec::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let kind = chars.next().ok_or_else(invalid)?;
        match escape(kind, quote, &mut chars).ok_or_else(|| {
            if kind.is_ascii_digit() || matches!(kind, 'x' | 'u' | 'U') {
                invalid()
            } else {
                format!("unknown escape sequence U+{:04X} '{kind}'", kind as u32)
            }
        })? {
            Escaped::Byte(b) => out.push(b),
            Escaped::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(String::from_utf8(out).unwrap_or_else(|e| with_stray_bytes(e.as_bytes())))
}

/// Where bytes that are no UTF-8 are kept: the language allows them in literals, our strings do not.
const STRAY: u32 = 0x0010_ff00;

fn with_stray_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().filter_map(|b| char::from_u32(STRAY + u32::from(*b))));
    }
    out
}

/// The byte that a character of a literal stands for when it is no character.
fn stray_byte(c: char) -> Option<u8> {
    (c as u32).checked_sub(STRAY).and_then(|b| u8::try_from(b).ok()).filter(|b| *b >= 0x80)
}

/// Whether a text can name a label: not empty, and valid UTF-8 in the query.
pub(crate) fn valid_label_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| stray_byte(c).is_some())
}

/// A literal as it is printed.
pub(crate) fn quote(text: &str) -> String {
    let quoted = koios_model::format::go_quote(text);
    if !quoted.chars().any(|c| stray_byte(c).is_some()) {
        return quoted;
    }
    let one = |c: char| stray_byte(c).map_or_else(|| c.to_string(), |b| format!("\\x{b:02x}"));
    quoted.chars().map(one).collect()
}

enum Escaped {
    Byte(u8),
    Char(char),
}

fn escape(kind: char, quote: char, chars: &mut std::str::Chars<'_>) -> Option<Escaped> {
    let simple = match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        c if c == quote => quote as u8,
        'x' => return u8::try_from(digits(chars, 2, 16)?).ok().map(Escaped::Byte),
        'u' => return char::from_u32(digits(chars, 4, 16)?).map(Escaped::Char),
        'U' => return char::from_u32(digits(chars, 8, 16)?).map(Escaped::Char),
        '0'..='7' => {
            let low = digits(chars, 2, 8)?;
            return u8::try_from(kind.to_digit(8)? * 64 + low).ok().map(Escaped::Byte);
        }
        _ => return None,
    };
    Some(Escaped::Byte(simple))
}

fn digits(chars: &mut std::str::Chars<'_>, n: usize, radix: u32) -> Option<u32> {
    (0..n).try_fold(0u32, |acc, _| acc.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (t, v) in [
            ("1", 1.0),
            ("0x1F", 31.0),
            ("010", 8.0),
            ("1_000", 1000.0),
            (".5", 0.5),
            ("1e3", 1e3),
            ("08", 8.0),
            ("1.", 1.0),
        ] {
            assert_eq!(parse_number(t), Ok(v), "{t}");
        }
        assert!(parse_number("NaN").unwrap().is_nan());
        assert!(parse_number("1__0").is_err());
    }

    #[test]
    fn strings() {
        assert_eq!(unquote(r#""a\n\x41\u00e9\101\"""#).unwrap(), "a\nAéA\"");
        assert_eq!(unquote(r"`\d`").unwrap(), "\\d");
        assert!(unquote(r#""\d""#).unwrap_err().contains("unknown escape"));
        let stray = unquote(r#""a\xffb""#).unwrap();
        assert_eq!(quote(&stray), r#""a\xffb""#);
        assert!(!valid_label_name(&stray) && valid_label_name("é"));
        assert!(is_duration("1h30m") && !is_duration("1e3") && !is_duration("0x1d"));
    }
}
