//! Results against expectations.

use koios_model::{FloatHistogram, Labels, Regexp, is_stale};

use crate::api::{MatrixSeries, QueryOutput, SampleValue, Value as Output, VectorSample};

use super::parse::{Eval, Text, Times};
use super::values::Value;

/// Relative difference below which two floats are the same.
const TOLERANCE: f64 = 1e-6;

type Checked = Result<(), String>;

/// Whether a text is what was expected.
pub(super) fn text_matches(expected: &Text, got: &str) -> bool {
    match expected {
        Text::Any => true,
        Text::Exact(t) => t == got,
        Text::Pattern(p) => Regexp::new(&format!("(?:.*)(?:{p})(?:.*)")).is_ok_and(|re| re.is_match(got)),
    }
}

/// Equal within the tolerance; stale markers only equal each other.
pub(super) fn nearly(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (diff, sum) = ((a - b).abs(), a.abs() + b.abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < TOLERANCE * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < TOLERANCE
}

fn same_histogram(want: &FloatHistogram, hinted: bool, got: &FloatHistogram) -> bool {
    let side = |a: &koios_model::histogram::Buckets, b: &koios_model::histogram::Buckets| {
        let full = |s: &koios_model::histogram::Buckets| -> Vec<(i32, f64)> {
            s.indexed().into_iter().filter(|p| p.1 != 0.0).collect()
        };
        let (a, b) = (full(a), full(b));
        a.len() == b.len() && a.iter().zip(&b).all(|(x, y)| x.0 == y.0 && nearly(x.1, y.1))
    };
    want.schema == got.schema
        && nearly(want.count, got.count)
        && nearly(want.sum, got.sum)
        && (!want.uses_custom_buckets() || want.custom_values == got.custom_values)
        && want.zero_threshold == got.zero_threshold
        && nearly(want.zero_count, got.zero_count)
        && side(&want.negative, &got.negative)
        && side(&want.positive, &got.positive)
        && (!hinted || want.hint == got.hint)
}

fn show(h: &FloatHistogram) -> String {
    format!(
        "{{{{schema:{} count:{} sum:{} z_bucket:{} z_bucket_w:{} hint:{:?} custom:{:?} pos:{:?} neg:{:?}}}}}",
        h.schema,
        h.count,
        h.sum,
        h.zero_count,
        h.zero_threshold,
        h.hint,
        h.custom_values,
        h.positive.indexed(),
        h.negative.indexed()
    )
}

fn same_value(want: &Value, got: &SampleValue) -> bool {
    match (want, got) {
        (Value::Float(a), SampleValue::Float(b)) => nearly(*a, *b),
        (Value::Hist(a, hinted), SampleValue::Histogram(b)) => same_histogram(a, *hinted, b),
        _ => false,
    }
}

fn show_value(v: &SampleValue) -> String {
    match v {
        SampleValue::Float(v) => v.to_string(),
        SampleValue::Histogram(h) => show(h),
    }
}

fn show_expected(v: &Value) -> String {
    match v {
        Value::None => "_".to_owned(),
        Value::Float(v) => v.to_string(),
        Value::Hist(h, _) => show(h),
    }
}

/// Checks the value of a result.
pub(super) fn value(e: &Eval, output: &Output, times: Times) -> Checked {
    match output {
        Output::String(_, got) => match &e.string {
            Some(want) if want == got => Ok(()),
            Some(want) => Err(format!("expected string {want:?}, got {got:?}")),
            None => Err(format!("unexpected string {got:?}")),
        },
        _ if e.string.is_some() => Err("expected a string, got another type".to_owned()),
        Output::Scalar(_, got) => scalar(e, *got),
        Output::Vector(got) => vector(e, got),
        Output::Matrix(got) => matrix(e, got, e.matrix.unwrap_or(times)),
    }
}

/// Checks a scalar.
pub(super) fn scalar(e: &Eval, got: f64) -> Checked {
    match e.scalar {
        Some(want) if nearly(want, got) => Ok(()),
        Some(want) => Err(format!("expected scalar {want}, got {got}")),
        None => Err(format!("unexpected scalar {got}")),
    }
}

/// Checks an instant vector.
pub(super) fn vector(e: &Eval, got: &[VectorSample]) -> Checked {
    if e.scalar.is_some() {
        return Err("expected a scalar, got a vector".to_owned());
    }
    let expected: Vec<(&Labels, &Value)> = e
        .series
        .iter()
        .filter_map(|(l, v)| v.first().filter(|v| !matches!(v, Value::None)).map(|v| (l, v)))
        .collect();
    for (i, sample) in got.iter().enumerate() {
        let at = expected.iter().position(|(l, _)| **l == sample.labels);
        let Some(at) = at else {
            let value = show_value(&sample.value);
            return Err(format!("unexpected series {} with {value}", sample.labels));
        };
        if e.ordered && at != i {
            return Err(format!("expected {} at position {}, got it at {}", sample.labels, at + 1, i + 1));
        }
        if !same_value(expected[at].1, &sample.value) {
            let (want, value) = (show_expected(expected[at].1), show_value(&sample.value));
            return Err(format!("expected {want} for {}, got {value}", sample.labels));
        }
    }
    match expected.iter().find(|(l, _)| got.iter().all(|s| s.labels != **l)) {
        Some((l, v)) => Err(format!("expected {l} {}, not found", show_expected(v))),
        None => Ok(()),
    }
}

fn matrix(e: &Eval, got: &[MatrixSeries], times: Times) -> Checked {
    if e.ordered {
        return Err("expected ordered result, but query returned a matrix".to_owned());
    }
    sorted(got)?;
    for series in got {
        let Some((_, values)) = e.series.iter().find(|(l, _)| *l == series.labels) else {
            return Err(format!(
                "unexpected series {} in result: {:?}",
                series.labels,
                series.floats.iter().collect::<Vec<_>>()
            ));
        };
        let mut points: Vec<(i64, SampleValue)> =
            series.floats.iter().map(|(t, v)| (t, SampleValue::Float(v))).collect();
        points.extend(series.histograms.iter().map(|(t, h)| (*t, SampleValue::Histogram(h.clone()))));
        points.sort_by_key(|p| p.0);
        let mut expected = Vec::new();
        for (i, v) in values.iter().enumerate() {
            let t = times.start + i as i64 * times.step;
            if t > times.end {
                let n = values.len();
                return Err(format!("expected {n} points for {}, too many for the range", series.labels));
            }
            if !matches!(v, Value::None) {
                expected.push((t, v));
            }
        }
        let all_equal = expected.len() == points.len()
            && expected.iter().zip(&points).all(|(w, g)| w.0 == g.0 && same_value(w.1, &g.1));
        if !all_equal {
            let want: Vec<String> =
                expected.iter().map(|(t, v)| format!("{t}:{}", show_expected(v))).collect();
            let have: Vec<String> = points.iter().map(|(t, v)| format!("{t}:{}", show_value(v))).collect();
            return Err(format!(
                "series {}: expected [{}], got [{}]",
                series.labels,
                want.join(" "),
                have.join(" ")
            ));
        }
    }
    match e.series.iter().find(|(l, _)| got.iter().all(|s| s.labels != *l)) {
        Some((l, _)) => Err(format!("expected series {l} not found")),
        None => Ok(()),
    }
}

/// Whether a matrix is sorted by labels.
pub(super) fn sorted(got: &[MatrixSeries]) -> Checked {
    match got.windows(2).find(|w| w[0].labels >= w[1].labels) {
        Some(w) => Err(format!("matrix is not sorted: {} before {}", w[0].labels, w[1].labels)),
        None => Ok(()),
    }
}

/// Checks warnings and infos.
pub(super) fn annotations(e: &Eval, output: &QueryOutput) -> Checked {
    for (kind, expected, none, got) in
        [("warning", &e.warn, e.no_warn, &output.warnings), ("info", &e.info, e.no_info, &output.infos)]
    {
        if none && !got.is_empty() {
            return Err(format!("expected no {kind}, got {got:?}"));
        }
        if expected.is_empty() {
            continue;
        }
        if got.is_empty() {
            return Err(format!("expected a {kind}, got none"));
        }
        if let Some(missing) = expected.iter().find(|w| !got.iter().any(|g| text_matches(w, g))) {
            return Err(format!("expected {kind} {missing:?}, got {got:?}"));
        }
        if let Some(extra) = got.iter().find(|g| !expected.iter().any(|w| text_matches(w, g))) {
            return Err(format!("unexpected {kind} {extra:?}"));
        }
    }
    Ok(())
}
