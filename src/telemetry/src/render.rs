//! Text format 0.0.4 (prometheus.io, "Exposition formats").

use std::collections::BTreeMap;
use std::fmt::Write as _;

use koios_model::format::float_g;

use crate::metrics::Histogram;

/// Kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl MetricKind {
    fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

struct Block {
    help: String,
    kind: MetricKind,
    lines: String,
}

/// Collects samples for one rendering.
#[derive(Default)]
pub struct Emitter {
    blocks: BTreeMap<String, Block>,
}

impl Emitter {
    pub(crate) fn family(&mut self, name: &str, help: &str, kind: MetricKind) {
        if !self.blocks.contains_key(name) {
            let block = Block { help: help.to_owned(), kind, lines: String::new() };
            self.blocks.insert(name.to_owned(), block);
        }
    }

    /// Reports a counter.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, help, MetricKind::Counter);
        self.line(name, "", labels, None, value);
    }

    /// Reports a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, help, MetricKind::Gauge);
        self.line(name, "", labels, None, value);
    }

    /// Reports a histogram.
    pub fn histogram(&mut self, name: &str, help: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        self.family(name, help, MetricKind::Histogram);
        let buckets = histogram.buckets();
        for (bound, count) in &buckets {
            self.line(name, "_bucket", labels, Some(*bound), *count as f64);
        }
        self.line(name, "_sum", labels, None, histogram.sum());
        // The count of the last bucket, so that the two agree whatever happens meanwhile.
        self.line(name, "_count", labels, None, buckets.last().map_or(0, |b| b.1) as f64);
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], bound: Option<f64>, value: f64) {
        let Some(block) = self.blocks.get_mut(name) else { return };
        let out = &mut block.lines;
        out.push_str(name);
        out.push_str(suffix);
        let bound = bound.map(float_g);
        let bound = bound.as_deref().map(|b| ("le", b));
        let mut lead = '{';
        for (label, text) in labels.iter().copied().chain(bound) {
            out.push(lead);
            let _ = write!(out, "{label}=\"");
            escape(out, text, true);
            out.push('"');
            lead = ',';
        }
        if lead == ',' {
            out.push('}');
        }
        let _ = writeln!(out, " {}", float_g(value));
    }

    /// The text; families without samples are left out.
    pub(crate) fn finish(self) -> String {
        let mut out = String::new();
        for (name, block) in self.blocks.iter().filter(|(_, b)| !b.lines.is_empty()) {
            let _ = write!(out, "# HELP {name} ");
            escape(&mut out, &block.help, false);
            let _ = writeln!(out, "\n# TYPE {name} {}", block.kind.as_str());
            out.push_str(&block.lines);
        }
        out
    }
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}
