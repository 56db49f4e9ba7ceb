//! The raw bytes of a series, `name{label="value",…}`: where they end, and what labels they mean.
//!
//! `scan` finds the end without building anything; `labels_of_series` builds. Both accept a quoted metric
//! name inside the braces and quoted label names (text 1.0.0, OpenMetrics with UTF-8 names).

use std::borrow::Cow;

use koios_model::{LabelsBuilder, METRIC_NAME};

use super::number::{open_metrics_float, parse_value};
use super::{Kind, excerpt};

/// A mistake at a byte position.
pub(super) type Fault = (usize, String);

pub(super) fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b':'
}

pub(super) fn is_name(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit()
}

pub(super) fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// End of the run of bytes that satisfy `class`, from `at`.
pub(super) fn run(body: &[u8], at: usize, class: impl Fn(u8) -> bool) -> usize {
    body[at..].iter().position(|b| !class(*b)).map_or(body.len(), |n| at + n)
}

/// End of a quoted text whose opening quote is at `at`. A raw line end is taken, as Prometheus' text lexer
/// does; OpenMetrics hands in one line at a time.
pub(super) fn quoted(body: &[u8], at: usize) -> Result<usize, Fault> {
    let mut i = at + 1;
    while let Some(n) = body.get(i..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        i += n;
        if body[i] == b'"' {
            return Ok(i + 1);
        }
        i += 2;
    }
    Err((at, "the quote that opens here is never closed".to_owned()))
}

/// A range of bytes.
type Range = (usize, usize);

/// Walks a series that starts at `at`, calling `pair` with the ranges of each label name (quotes included) and
/// of its value (without quotes), `None` for the metric name. Returns the end. `blanks` says whether white
/// space between tokens is allowed.
fn walk(
    body: &[u8],
    at: usize,
    blanks: bool,
    pair: &mut impl FnMut(Range, Option<Range>),
) -> Result<usize, Fault> {
    let skip = |i| if blanks { run(body, i, is_blank) } else { i };
    let mut i = at;
    let mut named = false;
    if body.get(i).copied().is_some_and(is_name_start) {
        i = run(body, i, is_name);
        pair((at, i), None);
        named = true;
    }
    let after_name = i;
    i = skip(i);
    if body.get(i) != Some(&b'{') {
        let no_name = || (at, format!("expected a metric name, got {}", excerpt(&body[at..])));
        return if named { Ok(after_name) } else { Err(no_name()) };
    }
    i += 1;
    loop {
        i = skip(i);
        if body.get(i) == Some(&b'}') {
            return if named { Ok(i + 1) } else { Err((at, "the series has no metric name".to_owned())) };
        }
        let name = label_name(body, i)?;
        i = skip(name.1);
        match body.get(i) {
            Some(b'=') => {
                i = skip(i + 1);
                if body.get(i) != Some(&b'"') {
                    return Err((i, format!("expected a quoted label value, got {}", excerpt(&body[i..]))));
                }
                let end = quoted(body, i)?;
                pair(name, Some((i + 1, end - 1)));
                i = end;
            }
            _ if body[name.0] == b'"' && !named => {
                pair(name, None);
                named = true;
            }
            _ => return Err((i, format!("expected `=` after the label name, got {}", excerpt(&body[i..])))),
        }
        i = skip(i);
        match body.get(i) {
            Some(b',') => i += 1,
            Some(b'}') => {}
            _ => return Err((i, format!("expected `,` or `}}` after a label, got {}", excerpt(&body[i..])))),
        }
    }
}

/// The range of a label name, plain or quoted.
fn label_name(body: &[u8], at: usize) -> Result<Range, Fault> {
    match body.get(at) {
        Some(b'"') => Ok((at, quoted(body, at)?)),
        Some(b) if b.is_ascii_alphabetic() || *b == b'_' => {
            Ok((at, run(body, at, |b| b.is_ascii_alphanumeric() || b == b'_')))
        }
        _ => {
            Err((at, format!("expected a label name or `}}`, got {}", excerpt(&body[at.min(body.len())..]))))
        }
    }
}

/// End of the series that starts at `at`.
pub(super) fn scan(body: &[u8], at: usize, blanks: bool) -> Result<usize, Fault> {
    walk(body, at, blanks, &mut |_, _| {})
}

/// End of a label list in braces that starts at `at`, as exemplars have it.
pub(super) fn scan_labels(body: &[u8], at: usize) -> Result<usize, Fault> {
    // A label list is a series whose name is missing: lend it one.
    let mut i = at;
    if body.get(i) != Some(&b'{') {
        return Err((i, format!("expected exemplar labels in braces, got {}", excerpt(&body[i..]))));
    }
    i += 1;
    loop {
        match body.get(i) {
            Some(b'}') => return Ok(i + 1),
            Some(b',') => i += 1,
            Some(b'"') => i = quoted(body, i)?,
            Some(b'\n') | None => return Err((at, "the braces that open here are never closed".to_owned())),
            Some(_) => i += 1,
        }
    }
}

/// Resolves `\\`, `\"` and `\n`; any other escape stays as written.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(k @ ('\\' | '"')) => out.push(k),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    Cow::Owned(out)
}

/// The labels of a raw series, put into `out`, which is expected to be empty. Bounds of histogram buckets
/// and quantiles of summaries are written the one canonical way.
///
/// # Errors
/// Text that is not UTF-8, a name given twice, or bytes that are no series.
pub fn labels_of_series(raw: &[u8], kind: Kind, out: &mut LabelsBuilder) -> Result<(), String> {
    let text = std::str::from_utf8(raw).map_err(|_| format!("invalid UTF-8 in series {}", excerpt(raw)))?;
    let mut twice = None;
    let end = walk(raw, 0, true, &mut |name, value| {
        let written = &text[name.0..name.1];
        let plain = match written.strip_prefix('"').and_then(|w| w.strip_suffix('"')) {
            Some(inner) => unescape(inner),
            None => Cow::Borrowed(written),
        };
        let (name, value) = match value {
            None => (Cow::Borrowed(METRIC_NAME), plain),
            Some((a, b)) => (plain, unescape(&text[a..b])),
        };
        let bound =
            (kind == Kind::Histogram && name == "le") || (kind == Kind::Summary && name == "quantile");
        let value = match bound.then(|| parse_value(value.as_bytes())).flatten() {
            Some(v) => Cow::Owned(open_metrics_float(v)),
            None => value,
        };
        if !out.get(&name).is_empty() {
            twice = Some(name.to_string());
        }
        out.set(&name, &value);
    })
    .map_err(|(_, cause)| cause)?;
    match twice {
        Some(name) => Err(format!("label name {name:?} is not unique: invalid sample")),
        None if run(raw, end, is_blank) != raw.len() => {
            Err(format!("text after the series {}", excerpt(raw)))
        }
        None => Ok(()),
    }
}
