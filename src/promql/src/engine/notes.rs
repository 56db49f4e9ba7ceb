//! Annotations: warnings and infos that an evaluation attaches to its result.
//!
//! Texts are Prometheus'; each names its place in the query. The same text at the same place appears once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use koios_model::format::{float_f, float_g, go_quote};
use koios_model::timestamp::rfc3339;

use crate::syntax::ast::Span;

/// What an operation on histograms was part of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HistOp {
    Add,
    Sub,
    Agg,
}

impl HistOp {
    fn text(self) -> &'static str {
        match self {
            HistOp::Add => "addition",
            HistOp::Sub => "subtraction",
            HistOp::Agg => "aggregation",
        }
    }
}

/// How buckets had to be changed to be monotonic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forced {
    pub lowest: f64,
    pub highest: f64,
    pub diff: f64,
    pub first_ms: i64,
    pub last_ms: i64,
    pub count: u64,
}

/// The collector of one evaluation.
#[derive(Default)]
pub(crate) struct Notes {
    warnings: RefCell<BTreeSet<String>>,
    infos: RefCell<BTreeSet<String>>,
    forced: RefCell<BTreeMap<(String, String), Forced>>,
}

fn place(span: Span) -> String {
    format!("({}:{})", span.line.max(1), span.col.max(1))
}

/// ` for metric name "x"`, or nothing without a name.
fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", go_quote(name)) }
}

impl Notes {
    fn warn(&self, span: Span, text: &str) {
        self.warnings.borrow_mut().insert(format!("PromQL warning: {text} {}", place(span)));
    }

    fn info(&self, span: Span, text: &str) {
        self.infos.borrow_mut().insert(format!("PromQL info: {text} {}", place(span)));
    }

    pub fn invalid_quantile(&self, span: Span, q: f64) {
        self.warn(span, &format!("quantile value should be between 0 and 1, got {}", float_g(q)));
    }

    pub fn invalid_ratio(&self, span: Span, got: f64, to: f64) {
        let (got, to) = (float_g(got), float_g(to));
        self.warn(span, &format!("ratio value should be between -1 and 1, got {got}, capping to {to}"));
    }

    pub fn bad_bucket_label(&self, span: Span, metric: &str, value: &str) {
        let text = format!(
            "bucket label \"le\" is missing or has a malformed value of {}{}",
            go_quote(value),
            for_metric(metric)
        );
        self.warn(span, &text);
    }

    pub fn mixed_floats_histograms(&self, span: Span, metric: &str) {
        self.warn(span, &format!("encountered a mix of histograms and floats{}", for_metric(metric)));
    }

    pub fn mixed_floats_histograms_agg(&self, span: Span) {
        self.warn(span, "encountered a mix of histograms and floats for aggregation");
    }

    pub fn mixed_classic_native(&self, span: Span, metric: &str) {
        let text = format!("vector contains a mix of classic and native histograms{}", for_metric(metric));
        self.warn(span, &text);
    }

    pub fn not_counter(&self, span: Span, metric: &str) {
        self.warn(span, &format!("this native histogram metric is not a counter: {}", go_quote(metric)));
    }

    pub fn not_gauge(&self, span: Span, metric: &str) {
        self.warn(span, &format!("this native histogram metric is not a gauge: {}", go_quote(metric)));
    }

    pub fn mixed_exponential_custom(&self, span: Span, metric: &str) {
        let text = "vector contains a mix of histograms with exponential and custom buckets schemas";
        self.warn(span, &format!("{text}{}", for_metric(metric)));
    }

    pub fn incompatible_buckets(&self, span: Span, op: &str) {
        self.warn(span, &format!("incompatible bucket layout encountered for binary operator {op}"));
    }

    pub fn sort_in_range(&self, span: Span) {
        self.warn(span, SORT);
    }

    pub fn reset_collision(&self, span: Span, op: HistOp) {
        self.warn(span, &format!("conflicting counter resets during histogram {}", op.text()));
    }

    pub fn start_overlap(&self, span: Span, metric: &str) {
        let text = "sample has start time that overlaps with previous sample timestamp";
        self.warn(span, &format!("{text} for metric {}", go_quote(metric)));
    }

    pub fn possible_non_counter(&self, span: Span, metric: &str) {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        self.info(span, &format!("{text} {}", go_quote(metric)));
    }

    pub fn possible_non_counter_label(&self, span: Span, metric: &str, label: &str) {
        let text = "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\"";
        self.info(span, &format!("{text}, got {}: {}", go_quote(label), go_quote(metric)));
    }

    pub fn incompatible_types(&self, span: Span, left: &str, op: &str, right: &str) {
        let text = "incompatible sample types encountered for binary operator";
        self.info(span, &format!("{text} {}: {left} {op} {right}", go_quote(op)));
    }

    pub fn histogram_ignored(&self, span: Span, aggregation: &str) {
        self.info(span, &format!("ignored histogram in {aggregation} aggregation"));
    }

    pub fn histogram_ignored_in_range(&self, span: Span, metric: &str) {
        let text = "ignored histograms in a range containing both floats and histograms";
        self.info(span, &format!("{text}{}", for_metric(metric)));
    }

    pub fn quantile_nan(&self, span: Span, metric: &str) {
        let text = "input to histogram_quantile has NaN observations, result is NaN";
        self.info(span, &format!("{text}{}", for_metric(metric)));
    }

    pub fn quantile_skew(&self, span: Span, metric: &str) {
        let text = "input to histogram_quantile has NaN observations, result is skewed higher";
        self.info(span, &format!("{text}{}", for_metric(metric)));
    }

    pub fn fraction_nan(&self, span: Span, metric: &str) {
        let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        self.info(span, &format!("{text}{}", for_metric(metric)));
    }

    pub fn mismatched_custom(&self, span: Span, op: HistOp) {
        self.info(span, &format!("mismatched custom buckets were reconciled during {}", op.text()));
    }

    /// Joined over steps into one text.
    pub fn forced_monotonicity(&self, span: Span, metric: &str, f: Forced) {
        self.force((metric.to_owned(), place(span)), f);
    }

    /// Takes over what was noted elsewhere.
    /// An info as another node worded it.
    pub fn told(&self, info: &str) {
        self.infos.borrow_mut().insert(info.to_owned());
    }

    pub fn absorb(&self, other: Self) {
        self.warnings.borrow_mut().extend(other.warnings.into_inner());
        self.infos.borrow_mut().extend(other.infos.into_inner());
        other.forced.into_inner().into_iter().for_each(|(at, f)| self.force(at, f));
    }

    fn force(&self, at: (String, String), f: Forced) {
        let mut all = self.forced.borrow_mut();
        all.entry(at)
            .and_modify(|old| {
                old.lowest = old.lowest.min(f.lowest);
                old.highest = old.highest.max(f.highest);
                old.diff = old.diff.max(f.diff);
                old.first_ms = old.first_ms.min(f.first_ms);
                old.last_ms = old.last_ms.max(f.last_ms);
                old.count += f.count;
            })
            .or_insert(f);
    }

    /// Warnings and infos, sorted.
    pub fn finish(self) -> (Vec<String>, Vec<String>) {
        let mut infos = self.infos.into_inner();
        for ((metric, place), f) in self.forced.into_inner() {
            infos.insert(forced_text(&metric, &place, &f));
        }
        (self.warnings.into_inner().into_iter().collect(), infos.into_iter().collect())
    }
}

/// What of notes is left for those who want no place in the query and no numbers beside the text, as Thanos gives them.
/// That `sort` does nothing in a range query is not said there.
pub fn bare(notes: &[String]) -> Vec<String> {
    let bare = |text: &String| {
        let text =
            text.rsplit_once(" (").filter(|(_, place)| is_place(place)).map_or(text.as_str(), |(t, _)| t);
        let text =
            if text.starts_with(FORCED) { text.split(", from buckets").next().unwrap_or(text) } else { text };
        text.to_owned()
    };
    let bare: BTreeSet<String> = notes.iter().filter(|t| !t.contains(SORT)).map(bare).collect();
    bare.into_iter().collect()
}

fn is_place(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let place = text.strip_suffix(')').and_then(|t| t.split_once(':'));
    place.is_some_and(|(line, col)| digits(line) && digits(col))
}

const FORCED: &str = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity";
const SORT: &str = "sort is ineffective for range queries since results are always ordered by labels";

fn forced_text(metric: &str, place: &str, f: &Forced) -> String {
    let second = |ms: i64| rfc3339(ms - ms.rem_euclid(1000));
    format!(
        "{FORCED} (see \
         https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}, from buckets \
         {} to {}, with a max diff of {}, over {} samples from {} to {} {place}",
        for_metric(metric),
        float_g(f.lowest),
        float_g(f.highest),
        two_digits(f.diff),
        f.count,
        second(f.first_ms),
        second(f.last_ms),
    )
}

/// Go's `%.2g`.
fn two_digits(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return float_f(v);
    }
    let rounded: f64 = format!("{v:.1e}").parse().unwrap_or(v);
    let exponent = rounded.abs().log10().floor();
    if !(-4.0..2.0).contains(&exponent) {
        return koios_model::format::float_e(rounded);
    }
    float_f(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_notes_have_no_place_and_no_numbers() {
        let notes = Notes::default();
        let span = |line| Span { line, col: 7, ..Span::default() };
        notes.invalid_quantile(span(1), 2.0);
        notes.invalid_quantile(span(3), 2.0);
        notes.sort_in_range(span(1));
        let f = Forced { lowest: 0.1, highest: 1.0, diff: 2.0, first_ms: 0, last_ms: 5, count: 3 };
        notes.forced.borrow_mut().insert((String::new(), place(span(1))), f);
        let (warnings, infos) = notes.finish();
        assert_eq!((warnings.len(), infos.len()), (3, 1));
        assert_eq!(bare(&warnings), ["PromQL warning: quantile value should be between 0 and 1, got 2"]);
        let page = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile";
        assert_eq!(bare(&infos), [format!("{FORCED} (see {page})")]);
    }
}
