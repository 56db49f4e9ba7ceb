//! Character classes and escapes of Go's syntax: `[a-z[:alpha:]\d\pL]`, `\d`, `\pN`, `\x{41}`, `\012`.
//!
//! `\d \w \s` and the `[:posix:]` classes know ASCII only; `\p{…}` knows Unicode's general categories and scripts.
//! Names of these come from the `regex-syntax` crate's tables.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::BadRegexp;

pub(super) const BAD_RANGE: &str = "invalid character class range";
pub(super) const BAD_ESCAPE: &str = "invalid escape sequence";
const MISSING_BRACKET: &str = "missing closing ]";
const TRAILING_BACKSLASH: &str = "trailing backslash at end of expression";

pub(super) fn bad(detail: &'static str, fragment: &str) -> BadRegexp {
    BadRegexp { detail, fragment: fragment.to_owned() }
}

/// The class of a range of code points; surrogates at its ends, which no text holds, are left out.
pub(super) fn range(lo: u32, hi: u32) -> ClassUnicode {
    let surrogate = |code: u32| (0xD800..0xE000).contains(&code);
    let lo = if surrogate(lo) { 0xE000 } else { lo };
    let hi = if surrogate(hi) { 0xD7FF } else { hi.min(0x10_FFFF) };
    match (char::from_u32(lo), char::from_u32(hi)) {
        (Some(lo), Some(hi)) if lo <= hi => ClassUnicode::new([ClassUnicodeRange::new(lo, hi)]),
        _ => ClassUnicode::empty(),
    }
}

/// A class from pairs of ASCII bounds.
fn ascii(ranges: &[(u8, u8)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|&(lo, hi)| ClassUnicodeRange::new(lo.into(), hi.into())))
}

/// Adds what a different case of a member would be.
pub(super) fn folded(mut class: ClassUnicode, fold: bool) -> ClassUnicode {
    if fold {
        // The tables are compiled in.
        let _ = class.try_case_fold_simple();
    }
    class
}

fn negated(mut class: ClassUnicode, negate: bool) -> ClassUnicode {
    if negate {
        class.negate();
    }
    class
}

const DIGIT: &[(u8, u8)] = &[(b'0', b'9')];
const WORD: &[(u8, u8)] = &[(b'0', b'9'), (b'A', b'Z'), (b'_', b'_'), (b'a', b'z')];
const SPACE: &[(u8, u8)] = &[(b'\t', b'\n'), (0x0C, b'\r'), (b' ', b' ')];

/// `\d \w \s` and their opposites at the start of `text`: the class, and what follows.
pub(super) fn perl(text: &str, fold: bool) -> Option<(ClassUnicode, &str)> {
    let name = *text.as_bytes().get(1).filter(|_| text.starts_with('\\'))?;
    let class = ascii(match name.to_ascii_lowercase() {
        b'd' => DIGIT,
        b'w' => WORD,
        b's' => SPACE,
        _ => return None,
    });
    Some((negated(folded(class, fold), name.is_ascii_uppercase()), &text[2..]))
}

fn posix(name: &str) -> Option<&'static [(u8, u8)]> {
    Some(match name {
        "alnum" => &[(b'0', b'9'), (b'A', b'Z'), (b'a', b'z')],
        "alpha" => &[(b'A', b'Z'), (b'a', b'z')],
        "ascii" => &[(0, 0x7F)],
        "blank" => &[(b'\t', b'\t'), (b' ', b' ')],
        "cntrl" => &[(0, 0x1F), (0x7F, 0x7F)],
        "digit" => DIGIT,
        "graph" => &[(b'!', b'~')],
        "lower" => &[(b'a', b'z')],
        "print" => &[(b' ', b'~')],
        "punct" => &[(b'!', b'/'), (b':', b'@'), (b'[', b'`'), (b'{', b'~')],
        "space" => &[(b'\t', b'\r'), (b' ', b' ')],
        "upper" => &[(b'A', b'Z')],
        "word" => WORD,
        "xdigit" => &[(b'0', b'9'), (b'A', b'F'), (b'a', b'f')],
        _ => return None,
    })
}

/// `[:name:]` or `[:^name:]` at the start of `text`; `None` when `text` does not begin like one or it does not end.
fn named(text: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, BadRegexp> {
    let Some(end) = text.strip_prefix("[:").and_then(|inner| inner.find(":]")) else { return Ok(None) };
    let (whole, after) = text.split_at(end + 4);
    let name = &whole[2..end + 2];
    let (name, negate) = name.strip_prefix('^').map_or((name, false), |n| (n, true));
    let class = posix(name).ok_or_else(|| bad(BAD_RANGE, whole))?;
    Ok(Some((negated(folded(ascii(class), fold), negate), after)))
}

/// `\pL`, `\p{Greek}`, `\P{^Lu}` at the start of `text`; `None` when it begins otherwise.
pub(super) fn property(text: &str, fold: bool) -> Result<Option<(ClassUnicode, &str)>, BadRegexp> {
    let Some(rest) = text.strip_prefix("\\p").or_else(|| text.strip_prefix("\\P")) else { return Ok(None) };
    let first = rest.chars().next().ok_or_else(|| bad(BAD_RANGE, text))?;
    let (name, whole) = if first == '{' {
        let end = rest.find('}').ok_or_else(|| bad(BAD_RANGE, text))?;
        (&rest[1..end], &text[..end + 3])
    } else {
        (&rest[..first.len_utf8()], &text[..2 + first.len_utf8()])
    };
    let after = &text[whole.len()..];
    let (name, caret) = name.strip_prefix('^').map_or((name, false), |n| (n, true));
    let class = unicode(name).ok_or_else(|| bad(BAD_RANGE, whole))?;
    Ok(Some((negated(folded(class, fold), caret != text.starts_with("\\P")), after)))
}

/// A general category or script by any of its names; case, spaces, underscores and hyphens do not count.
fn unicode(name: &str) -> Option<ClassUnicode> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' ')) {
        return None;
    }
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ["gc", "sc"].iter().find_map(|kind| {
        let hir = regex_syntax::parse(&format!("\\p{{{kind}={plain}}}")).ok()?;
        match hir.into_kind() {
            HirKind::Class(Class::Unicode(class)) => Some(class),
            HirKind::Literal(one) => {
                let c = std::str::from_utf8(&one.0).ok()?.chars().next()?;
                Some(range(c.into(), c.into()))
            }
            _ => None,
        }
    })
}

/// One escaped character at the start of `text` (which begins with a backslash): its code point, and what follows.
pub(super) fn escape(text: &str) -> Result<(u32, &str), BadRegexp> {
    let rest = &text[1..];
    let Some(c) = rest.chars().next() else { return Err(bad(TRAILING_BACKSLASH, "")) };
    let after = &rest[c.len_utf8()..];
    let octal = |s: &str| s.starts_with(|c: char| c.is_digit(8));
    let code = match c {
        '0' => return Ok(octal_digits(rest)),
        '1'..='7' if octal(after) => return Ok(octal_digits(rest)),
        'x' => return hexadecimal(text),
        'a' => 0x07,
        'f' => 0x0C,
        'n' => 0x0A,
        'r' => 0x0D,
        't' => 0x09,
        'v' => 0x0B,
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => c.into(),
        _ => return Err(bad(BAD_ESCAPE, &text[..1 + c.len_utf8()])),
    };
    Ok((code, after))
}

/// Up to three octal digits.
fn octal_digits(text: &str) -> (u32, &str) {
    let len = text.bytes().take(3).take_while(|b| (b'0'..b'8').contains(b)).count();
    (text[..len].bytes().fold(0, |n, b| n * 8 + u32::from(b - b'0')), &text[len..])
}

/// `\x41` or `\x{10FFFF}`.
fn hexadecimal(text: &str) -> Result<(u32, &str), BadRegexp> {
    let mut rest = text[2..].chars();
    let wrong = |rest: &std::str::Chars<'_>| bad(BAD_ESCAPE, &text[..text.len() - rest.as_str().len()]);
    let Some(first) = rest.next() else { return Err(wrong(&rest)) };
    if first != '{' {
        let second = rest.next();
        return match (first.to_digit(16), second.and_then(|c| c.to_digit(16))) {
            (Some(a), Some(b)) => Ok((a * 16 + b, rest.as_str())),
            _ => Err(wrong(&rest)),
        };
    }
    let mut code = None;
    loop {
        let next = rest.next();
        match (next, next.and_then(|c| c.to_digit(16)), code) {
            (Some('}'), _, Some(code)) => return Ok((code, rest.as_str())),
            (_, Some(digit), _) => {
                code = Some(code.unwrap_or(0) * 16 + digit).filter(|&c| c <= 0x10_FFFF);
                if code.is_none() {
                    return Err(wrong(&rest));
                }
            }
            _ => return Err(wrong(&rest)),
        }
    }
}

/// A bracketed class at the start of `text`: the class, and what follows.
pub(super) fn bracketed(text: &str, fold: bool) -> Result<(ClassUnicode, &str), BadRegexp> {
    let mut rest = &text[1..];
    let negate = rest.starts_with('^');
    if negate {
        rest = &rest[1..];
    }
    let mut class = ClassUnicode::empty();
    let mut first = true;
    while first || !rest.starts_with(']') {
        first = false;
        let set = match named(rest, fold)? {
            Some(set) => Some(set),
            None => property(rest, fold)?.or_else(|| perl(rest, fold)),
        };
        if let Some((set, after)) = set {
            class.union(&set);
            rest = after;
            continue;
        }
        let begin = rest;
        let (lo, after) = member(rest, text)?;
        let mut hi = lo;
        rest = after;
        // A hyphen before the bracket stands for itself.
        if rest.starts_with('-') && rest.len() >= 2 && !rest.starts_with("-]") {
            (hi, rest) = member(&rest[1..], text)?;
            if hi < lo {
                return Err(bad(BAD_RANGE, &begin[..begin.len() - rest.len()]));
            }
        }
        class.union(&folded(range(lo, hi), fold));
    }
    Ok((negated(class, negate), &rest[1..]))
}

/// One character of a bracketed class that begins with `whole`.
fn member<'a>(text: &'a str, whole: &str) -> Result<(u32, &'a str), BadRegexp> {
    match text.chars().next() {
        None => Err(bad(MISSING_BRACKET, whole)),
        Some('\\') => escape(text),
        Some(c) => Ok((c.into(), &text[c.len_utf8()..])),
    }
}
