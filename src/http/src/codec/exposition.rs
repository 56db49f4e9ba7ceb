//! Samples in the text formats: Prometheus' text 0.0.4 and OpenMetrics 1.0, untyped and with times.
//!
//! Owns which of them a client gets, and their escaping. Names beyond the old alphabet are quoted for a client that
//! says `escaping=allow-utf-8`; for others each foreign character becomes `_`, as Prometheus does it.
//! Formats: Prometheus documentation, "Exposition formats"; the OpenMetrics specification, 1.0.

use koios_model::format::{float_g, float_om};
use koios_model::labels::{is_legacy_label_name, is_legacy_metric_name};
use koios_model::{Labels, METRIC_NAME};

/// A format with the way in which names are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    open_metrics: bool,
    utf8: bool,
}

impl Form {
    /// `Content-Type` of the answer.
    pub fn content_type(self) -> &'static str {
        match (self.open_metrics, self.utf8) {
            (false, false) => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            (false, true) => "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
            (true, false) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            (true, true) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
        }
    }
}

/// The format that `Accept` wants most, of equals the first; text when none of ours is named.
pub fn negotiate(accept: &str) -> Form {
    let mut best: Option<(f64, Form)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or("").to_ascii_lowercase();
        let (mut q, mut version, mut utf8) = (1.0, "", false);
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "q" => q = value.parse().unwrap_or(0.0),
                "version" => version = value,
                "escaping" => utf8 = value == "allow-utf-8",
                _ => {}
            }
        }
        let open_metrics = match (media.as_str(), version) {
            ("application/openmetrics-text", "" | "0.0.1" | "1.0.0") => true,
            ("text/plain", "" | "0.0.4" | "1.0.0") | ("text/*" | "*/*", _) => false,
            _ => continue,
        };
        if q > 0.0 && best.is_none_or(|(b, _)| q > b) {
            best = Some((q, Form { open_metrics, utf8 }));
        }
    }
    best.map_or(Form { open_metrics: false, utf8: false }, |(_, form)| form)
}

/// One sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The series.
    pub labels: Labels,
    /// Its time, milliseconds.
    pub t: i64,
    /// Its value.
    pub v: f64,
}

/// A text that is being written.
#[derive(Debug)]
pub struct Exposition {
    out: String,
    form: Form,
    added: Vec<(String, String)>,
}

impl Exposition {
    /// An empty text. Series get the `external` labels that they have none of, and likewise an empty `instance`, so that
    /// the one who reads the text adds none of its own.
    pub fn new(form: Form, external: &Labels) -> Self {
        let mut added: Vec<(String, String)> =
            external.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        if external.get("instance").is_none() {
            added.push(("instance".to_owned(), String::new()));
        }
        added.sort();
        Self { out: String::new(), form, added }
    }

    /// Writes the points, sorted by name; those without a name are left out.
    pub fn write(&mut self, mut points: Vec<Point>) {
        points.retain(|p| !p.labels.metric_name().is_empty());
        points.sort_by(|a, b| a.labels.metric_name().cmp(b.labels.metric_name()));
        for family in points.chunk_by(|a, b| a.labels.metric_name() == b.labels.metric_name()) {
            let name = self.name(family[0].labels.metric_name(), is_legacy_metric_name, true);
            let shown = if is_legacy_metric_name(&name) { name.clone() } else { quoted(&name) };
            let kind = if self.form.open_metrics { "unknown" } else { "untyped" };
            self.out.push_str(&format!("# TYPE {shown} {kind}\n"));
            family.iter().for_each(|point| self.point(&name, point));
        }
    }

    /// A name as the client can read it.
    fn name(&self, name: &str, is_legacy: fn(&str) -> bool, colon: bool) -> String {
        if self.form.utf8 || is_legacy(name) {
            return name.to_owned();
        }
        let fits = |(i, c): (usize, char)| {
            c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()) || (colon && c == ':')
        };
        name.chars().enumerate().map(|(i, c)| if fits((i, c)) { c } else { '_' }).collect()
    }

    fn point(&mut self, name: &str, point: &Point) {
        let mut labels = Vec::with_capacity(point.labels.len() + self.added.len());
        if is_legacy_metric_name(name) {
            self.out.push_str(name);
        } else {
            labels.push(quoted(name));
        }
        let own = point.labels.iter().filter(|(n, _)| *n != METRIC_NAME);
        let added = self.added.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (n, v) in own.chain(added.filter(|(n, _)| point.labels.get(n).is_none())) {
            let n = self.name(n, is_legacy_label_name, false);
            let n = if is_legacy_label_name(&n) { n } else { quoted(&n) };
            labels.push(format!("{n}={}", quoted(v)));
        }
        if !labels.is_empty() {
            self.out.push_str(&format!("{{{}}}", labels.join(",")));
        }
        let (v, t) = match self.form.open_metrics {
            true => (float_om(point.v), float_om(point.t as f64 / 1000.0)),
            false => (float_g(point.v), point.t.to_string()),
        };
        self.out.push_str(&format!(" {v} {t}\n"));
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.form.open_metrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// In quotes, with `\`, `"` and line ends escaped, and nothing else.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(pairs: &[(&str, &str)], t: i64, v: f64) -> Point {
        Point { labels: Labels::from_pairs(pairs.iter().copied()), t, v }
    }

    fn text(accept: &str, external: &[(&str, &str)], points: Vec<Point>) -> String {
        let mut text = Exposition::new(negotiate(accept), &Labels::from_pairs(external.iter().copied()));
        text.write(points);
        text.finish()
    }

    #[test]
    fn families_in_prometheus_text() {
        let points = vec![
            point(
                &[("__name__", "b_total"), ("instance", "i:1"), ("job", "x\"\\\n\u{e9}\t")],
                1_700_000_000_123,
                1e6,
            ),
            point(&[("__name__", "a"), ("zone", "own")], 5, f64::NAN),
            point(&[("job", "nameless")], 5, 1.0),
            point(&[("__name__", "b_total"), ("job", "y")], -1, f64::NEG_INFINITY),
        ];
        let want = concat!(
            "# TYPE a untyped\n",
            "a{zone=\"own\",cluster=\"eu\",instance=\"\"} NaN 5\n",
            "# TYPE b_total untyped\n",
            "b_total{instance=\"i:1\",job=\"x\\\"\\\\\\n\u{e9}\t\",cluster=\"eu\",zone=\"1\"} 1e+06 1700000000123\n",
            "b_total{job=\"y\",cluster=\"eu\",instance=\"\",zone=\"1\"} -Inf -1\n",
        );
        assert_eq!(text("", &[("cluster", "eu"), ("zone", "1")], points), want);
        assert_eq!(text("", &[], Vec::new()), "");
    }

    #[test]
    fn families_in_open_metrics() {
        let points = vec![point(&[("__name__", "a_total")], 1_700_000_000_123, 2.0)];
        let want = "# TYPE a_total unknown\na_total{instance=\"\"} 2.0 1.700000000123e+09\n# EOF\n";
        assert_eq!(text("application/openmetrics-text; version=1.0.0", &[], points), want);
    }

    #[test]
    fn names_beyond_the_old_alphabet() {
        let points = || vec![point(&[("__name__", "a.b\u{e9}:c"), ("x.y", "1"), ("instance", "i")], 1, 1.0)];
        let old = "# TYPE a_b_:c untyped\na_b_:c{instance=\"i\",x_y=\"1\"} 1 1\n";
        assert_eq!(text("text/plain", &[], points()), old);
        let new = "# TYPE \"a.b\u{e9}:c\" untyped\n{\"a.b\u{e9}:c\",instance=\"i\",\"x.y\"=\"1\"} 1 1\n";
        assert_eq!(text("text/plain;version=1.0.0;escaping=allow-utf-8", &[], points()), new);
    }

    #[test]
    fn the_most_wanted_format_is_given() {
        let form = |accept| negotiate(accept).content_type().split(';').next().unwrap();
        let (text, open) = ("text/plain", "application/openmetrics-text");
        for (accept, want) in [
            ("", text),
            ("*/*", text),
            ("application/json", text),
            ("application/openmetrics-text", open),
            ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", open),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.5", text),
            ("application/openmetrics-text;version=2.0.0,*/*;q=0.1", text),
            ("application/openmetrics-text;q=0", text),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily,text/plain;q=0.4",
                text,
            ),
            ("text/plain;version=0.0.4,application/openmetrics-text", text),
        ] {
            assert_eq!(form(accept), want, "{accept}");
        }
        assert!(negotiate("text/plain;escaping=allow-utf-8").content_type().ends_with("allow-utf-8"));
    }
}
