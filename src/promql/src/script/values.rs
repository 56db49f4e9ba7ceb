//! Sequences of values as scripts write them: `1+2x10 _ stale {{schema:0 count:3 buckets:[1 2]}}x5`.

use std::sync::Arc;

use koios_model::duration::parse_duration;
use koios_model::format::parse_go_float;
use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, Span};
use koios_model::{CounterReset, FloatHistogram, Labels, LabelsBuilder, METRIC_NAME, stale_nan};

/// Values one sequence may expand to.
const VALUES_MAX: usize = 1_000_000;

/// One place in a sequence.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Float(f64),
    /// A histogram, and whether its reset hint was written down.
    Hist(Arc<FloatHistogram>, bool),
}

type Parsed<T> = Result<T, String>;

/// `name{a="b"} 1 2 3`
pub(super) fn parse_series(line: &str) -> Parsed<(Labels, Vec<Value>)> {
    let (labels, rest) = parse_metric(line)?;
    Ok((labels, parse_values(rest)?))
}

/// The metric at the start of a line and what follows it.
pub(super) fn parse_metric(line: &str) -> Parsed<(Labels, &str)> {
    let line = line.trim();
    let name_len = line.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')).count();
    let (name, rest) = line.split_at(name_len);
    let mut builder = LabelsBuilder::new();
    builder.set(METRIC_NAME, name);
    let Some(body) = rest.trim_start().strip_prefix('{').filter(|b| !b.starts_with('{')) else {
        return Ok((builder.build(), rest));
    };
    let mut rest = body.trim_start();
    while !rest.starts_with('}') {
        let (label, after) = token(rest)?;
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=') {
            let (value, after) = token(value.trim_start())?;
            builder.set(&label, &value);
            rest = after.trim_start();
        } else {
            builder.set(METRIC_NAME, &label);
            rest = after;
        }
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        if rest.is_empty() {
            return Err(format!("unclosed braces in {line:?}"));
        }
    }
    Ok((builder.build(), &rest[1..]))
}

/// A quoted or plain word and the rest.
fn token(text: &str) -> Parsed<(String, &str)> {
    let first = text.chars().next().ok_or("unexpected end of series")?;
    if !matches!(first, '"' | '\'' | '`') {
        let n = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        if n == 0 {
            return Err(format!("unexpected {first:?} in series"));
        }
        return Ok((text[..n].to_owned(), &text[n..]));
    }
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && first != '`' {
            escaped = true;
        } else if c == first {
            return Ok((crate::syntax::unquote(&text[..=i])?, &text[i + 1..]));
        }
    }
    Err("unterminated string in series".to_owned())
}

/// All values of a sequence.
pub(super) fn parse_values(text: &str) -> Parsed<Vec<Value>> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let item;
        (item, rest) = next_item(rest)?;
        if item.starts_with("{{") {
            hist_item(item, &mut out)?
        } else {
            float_item(item, &mut out)?
        }
        if out.len() > VALUES_MAX {
            return Err(format!("sequence has more than {VALUES_MAX} values"));
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

/// Up to the next blank that is not inside a histogram.
fn next_item(text: &str) -> Parsed<(&str, &str)> {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let blank = rest.find(char::is_whitespace).unwrap_or(rest.len());
        match rest.find("{{") {
            Some(open) if open < blank => {
                at += rest.find("}}").ok_or("unclosed histogram")? + 2;
            }
            _ => return Ok((&text[..at + blank], &text[at + blank..])),
        }
    }
}

/// The count after the `x` at the end of an item.
pub(super) fn repeated(item: &str) -> Parsed<(&str, Option<usize>)> {
    match item.rsplit_once('x') {
        Some((body, n)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
            let n: usize = n.parse().map_err(|_| format!("bad repetition in {item:?}"))?;
            if n > VALUES_MAX {
                return Err(format!("sequence has more than {VALUES_MAX} values"));
            }
            Ok((body, Some(n)))
        }
        _ => Ok((item, None)),
    }
}

fn float_item(item: &str, out: &mut Vec<Value>) -> Parsed<()> {
    let (body, times) = repeated(item)?;
    match body {
        "_" => {
            out.extend(std::iter::repeat_n(Value::None, times.unwrap_or(1)));
            return Ok(());
        }
        "stale" => {
            out.extend(std::iter::repeat_n(Value::Float(stale_nan()), times.unwrap_or(0) + 1));
            return Ok(());
        }
        _ => {}
    }
    let (start, step) = number_and_step(body).ok_or_else(|| format!("invalid value {item:?}"))?;
    let mut v = start;
    for _ in 0..=times.unwrap_or(0) {
        out.push(Value::Float(v));
        v += step;
    }
    Ok(())
}

/// `a`, `a+b` or `a-b`.
fn number_and_step(body: &str) -> Option<(f64, f64)> {
    if let Some(v) = number(body) {
        return Some((v, 0.0));
    }
    body.char_indices().skip(1).filter(|(_, c)| matches!(c, '+' | '-')).find_map(|(i, _)| {
        let start = number(&body[..i])?;
        let step = number(&body[i..])?;
        Some((start, step))
    })
}

/// A number with an optional sign.
pub(super) fn number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    parse_go_float(text).or_else(|| crate::syntax::parse_number(text).ok())
}

fn hist_item(item: &str, out: &mut Vec<Value>) -> Parsed<()> {
    let (body, times) = repeated(item)?;
    let close = body.find("}}").ok_or("unclosed histogram")? + 2;
    let (first, hinted) = parse_histogram(&body[..close])?;
    let rest = &body[close..];
    if rest.is_empty() {
        let n = times.unwrap_or(0) + 1;
        out.extend(std::iter::repeat_n(Value::Hist(Arc::new(first), hinted), n));
        return Ok(());
    }
    let (step, _) = parse_histogram(&rest[1..])?;
    let mut h = first;
    for _ in 0..=times.unwrap_or(0) {
        out.push(Value::Hist(Arc::new(h.clone()), hinted));
        let hint = h.hint;
        let merged = if rest.starts_with('-') { h.sub(&step) } else { h.add(&step) };
        merged.map_err(|e| e.to_string())?;
        if rest.starts_with('-') {
            h.hint = hint;
        }
    }
    Ok(())
}

/// `{{schema:0 count:3 …}}`, and whether a reset hint is among the fields.
pub(super) fn parse_histogram(text: &str) -> Parsed<(FloatHistogram, bool)> {
    let body = text
        .strip_prefix("{{")
        .and_then(|t| t.strip_suffix("}}"))
        .ok_or_else(|| format!("invalid histogram {text:?}"))?;
    let mut h = FloatHistogram::default();
    let (mut hinted, mut offset, mut n_offset) = (false, 0, 0);
    let (mut buckets, mut n_buckets) = (Vec::new(), Vec::new());
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':').ok_or_else(|| format!("invalid histogram {text:?}"))?;
        let (value, tail) = if after.starts_with('[') {
            after.split_once(']').ok_or("unclosed list in histogram")?
        } else {
            after.split_at(after.find(char::is_whitespace).unwrap_or(after.len()))
        };
        let float = || number(value).ok_or_else(|| format!("invalid number {value:?} in histogram"));
        let list = || -> Parsed<Vec<f64>> {
            let inner = value.trim_start_matches('[');
            let one = |v: &str| number(v).ok_or_else(|| format!("invalid number {v:?} in histogram"));
            inner.split_whitespace().map(one).collect()
        };
        match key.trim() {
            "schema" => h.schema = float()? as i32,
            "sum" => h.sum = float()?,
            "count" => h.count = float()?,
            "z_bucket" => h.zero_count = float()?,
            "z_bucket_w" => h.zero_threshold = float()?,
            "buckets" => buckets = list()?,
            "n_buckets" => n_buckets = list()?,
            "offset" => offset = float()? as i32,
            "n_offset" => n_offset = float()? as i32,
            "custom_values" => h.custom_values = list()?.into(),
            "counter_reset_hint" => {
                hinted = true;
                h.hint = hint(value)?;
            }
            other => return Err(format!("unknown histogram field {other:?}")),
        }
        rest = tail.trim_start();
    }
    h.positive = side(buckets, offset);
    h.negative = side(n_buckets, n_offset);
    if h.schema != CUSTOM_SCHEMA && !h.custom_values.is_empty() {
        return Err("custom_values need schema -53".to_owned());
    }
    h.validate()?;
    Ok((h, hinted))
}

fn hint(value: &str) -> Parsed<CounterReset> {
    Ok(match value {
        "unknown" => CounterReset::Unknown,
        "reset" => CounterReset::Reset,
        "not_reset" => CounterReset::NotReset,
        "gauge" => CounterReset::Gauge,
        other => return Err(format!("unknown counter reset hint {other:?}")),
    })
}

fn side(counts: Vec<f64>, offset: i32) -> Buckets {
    if counts.is_empty() {
        return Buckets::default();
    }
    Buckets { spans: vec![Span { offset, length: counts.len() as u32 }], counts }
}

/// Start timestamps relative to the time of each sample, `None` where unknown.
pub(super) fn parse_starts(text: &str) -> Parsed<Vec<Option<i64>>> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let (body, times) = repeated(item)?;
        if body == "_" {
            out.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
            continue;
        }
        let split = body.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-')).map(|(i, _)| i);
        let (start, step) = match split {
            Some(i) => (signed_duration(&body[..i])?, signed_duration(&body[i..])?),
            None => (signed_duration(body)?, 0),
        };
        for n in 0..=times.unwrap_or(0) as i64 {
            out.push(Some(start + n * step));
        }
    }
    Ok(out)
}

fn signed_duration(text: &str) -> Parsed<i64> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(b) => (-1, b),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    parse_duration(body).map(|ms| sign * ms).map_err(|e| e.to_string())
}
