//! Native histograms: the message of both versions, read and checked.
//!
//! Fields have the same numbers in both versions. Owns the checks that storage cannot make cheaply: that count, spans,
//! buckets and bounds agree (the rules are those of Prometheus' `Histogram.Validate`). A histogram whose sum is the stale
//! marker needs nothing else.

use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram, Span};

use crate::batch::{PushSample, PushValue};
use crate::wire::{Broken, Fields, Value, each_double, each_uint, unzigzag};

/// One side as it is sent.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// All fields of the message.
#[derive(Default)]
struct Raw {
    count_int: u64,
    count_float: Option<f64>,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    zero_int: u64,
    zero_float: Option<f64>,
    negative: Side,
    positive: Side,
    hint: u64,
    t: i64,
    custom: Vec<f64>,
}

/// What a message may come to.
pub(crate) enum Read {
    /// Fit to be stored.
    Good(PushSample),
    /// Its time, and what is wrong with it.
    Bad(i64, String),
    /// More buckets, spans and bounds than the request may have.
    Budget,
}

/// Reads one histogram. Every list entry is paid for from `parts`.
pub(crate) fn read(message: &[u8], parts: &mut usize) -> Result<Read, Broken> {
    let mut raw = Raw::default();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => (raw.count_int, raw.count_float) = (value.uint()?, None),
            2 => raw.count_float = Some(value.double()?),
            3 => raw.sum = value.double()?,
            4 => raw.schema = value.zigzag32()?,
            5 => raw.zero_threshold = value.double()?,
            6 => (raw.zero_int, raw.zero_float) = (value.uint()?, None),
            7 => raw.zero_float = Some(value.double()?),
            8 => raw.negative.spans.push(span(value)?),
            9 => each_uint(value, |v| raw.negative.deltas.push(unzigzag(v)))?,
            10 => each_double(value, |v| raw.negative.counts.push(v))?,
            11 => raw.positive.spans.push(span(value)?),
            12 => each_uint(value, |v| raw.positive.deltas.push(unzigzag(v)))?,
            13 => each_double(value, |v| raw.positive.counts.push(v))?,
            14 => raw.hint = value.uint()?,
            15 => raw.t = value.int()?,
            16 => each_double(value, |v| raw.custom.push(v))?,
            _ => {}
        }
    }
    let side = |s: &Side| s.spans.len() + s.deltas.len() + s.counts.len();
    let Some(left) = parts.checked_sub(side(&raw.negative) + side(&raw.positive) + raw.custom.len()) else {
        return Ok(Read::Budget);
    };
    *parts = left;
    let t = raw.t;
    Ok(match raw.into_value() {
        Ok(v) => Read::Good(PushSample { t, v }),
        Err(why) => Read::Bad(t, why),
    })
}

fn span(value: Value<'_>) -> Result<Span, Broken> {
    let mut span = Span { offset: 0, length: 0 };
    let mut fields = Fields::of(value.bytes()?);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => span.offset = value.zigzag32()?,
            2 => span.length = value.uint()? as u32,
            _ => {}
        }
    }
    Ok(span)
}

impl Raw {
    fn into_value(self) -> Result<PushValue, String> {
        let hint = match self.hint {
            1 => CounterReset::Reset,
            2 => CounterReset::NotReset,
            3 => CounterReset::Gauge,
            _ => CounterReset::Unknown,
        };
        let (schema, zero_threshold, sum) = (self.schema, self.zero_threshold, self.sum);
        let custom_values: Arc<[f64]> = self.custom.into();
        if let Some(count) = self.count_float {
            if koios_model::is_stale(sum) {
                let stale = FloatHistogram { sum, ..FloatHistogram::default() };
                return Ok(PushValue::FloatHistogram(Arc::new(stale)));
            }
            let h = FloatHistogram {
                hint,
                schema,
                zero_threshold,
                zero_count: self.zero_float.unwrap_or(self.zero_int as f64),
                count,
                sum,
                positive: Buckets { spans: self.positive.spans, counts: self.positive.counts },
                negative: Buckets { spans: self.negative.spans, counts: self.negative.counts },
                custom_values,
            };
            if !self.positive.deltas.is_empty() || !self.negative.deltas.is_empty() {
                return Err("a histogram with float counts has buckets of integer counts".to_owned());
            }
            check(&h)?;
            return Ok(PushValue::FloatHistogram(Arc::new(h)));
        }
        if koios_model::is_stale(sum) {
            return Ok(PushValue::Histogram(Arc::new(IntHistogram::stale())));
        }
        if !self.positive.counts.is_empty() || !self.negative.counts.is_empty() {
            return Err("a histogram with integer counts has buckets of float counts".to_owned());
        }
        if self.zero_float.is_some_and(|z| z != 0.0) {
            return Err("a histogram with integer counts has a float zero bucket".to_owned());
        }
        let h = IntHistogram {
            hint,
            schema,
            zero_threshold,
            zero_count: self.zero_int,
            count: self.count_int,
            sum,
            positive_spans: self.positive.spans,
            positive: self.positive.deltas,
            negative_spans: self.negative.spans,
            negative: self.negative.deltas,
            custom_values,
        };
        h.validate()?;
        check(&h.to_float())?;
        check_sum(&h)?;
        Ok(PushValue::Histogram(Arc::new(h)))
    }
}

/// What holds for both kinds.
fn check(h: &FloatHistogram) -> Result<(), String> {
    h.validate()?;
    let counts = h.positive.counts.iter().chain(&h.negative.counts).chain([&h.zero_count, &h.count]);
    if counts.clone().any(|c| *c < 0.0) {
        return Err("a count of observations is negative".to_owned());
    }
    check_indexes(&h.positive.spans)?;
    check_indexes(&h.negative.spans)?;
    if !h.uses_custom_buckets() {
        return if h.custom_values.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "a histogram of schema {} has custom bounds, which are of schema {CUSTOM_SCHEMA}",
                h.schema
            ))
        };
    }
    if h.zero_count != 0.0 || h.zero_threshold != 0.0 || !h.negative.spans.is_empty() {
        return Err("a histogram with custom bounds has a zero bucket or negative buckets".to_owned());
    }
    if h.custom_values.iter().any(|b| b.is_nan())
        || h.custom_values.last().is_some_and(|b| *b == f64::INFINITY)
    {
        return Err("custom bounds must be numbers, and the last one below +Inf".to_owned());
    }
    let end = h.positive.spans.iter().try_fold(0i64, |at, s| {
        let start = at + i64::from(s.offset);
        (start >= 0).then_some(start + i64::from(s.length))
    });
    match end {
        Some(end) if end <= h.custom_values.len() as i64 + 1 => Ok(()),
        _ => Err(format!("spans reach beyond the {} custom bounds", h.custom_values.len())),
    }
}

/// Bucket indexes are 32-bit numbers.
fn check_indexes(spans: &[Span]) -> Result<(), String> {
    let mut at = 0i64;
    for s in spans {
        at += i64::from(s.offset);
        let fits = i32::try_from(at).is_ok();
        at += i64::from(s.length);
        if !fits || i32::try_from(at).is_err() {
            return Err(format!("a span reaches bucket {at}, beyond 32 bits"));
        }
    }
    Ok(())
}

/// The buckets hold all observations; fewer when some were NaN.
fn check_sum(h: &IntHistogram) -> Result<(), String> {
    let total = |deltas: &[i64]| {
        let counts = deltas.iter().scan(0i64, |sum, d| {
            *sum = sum.wrapping_add(*d);
            Some(*sum)
        });
        counts.fold(0u128, |total, c| total + u128::from(c.max(0) as u64))
    };
    let total = total(&h.positive) + total(&h.negative) + u128::from(h.zero_count);
    let count = u128::from(h.count);
    if count == total || (h.sum.is_nan() && count > total) {
        return Ok(());
    }
    Err(format!("{total} observations in the buckets, but the count says {count}"))
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
