//! Query results as Prometheus writes them: `resultType` before `result`, numbers as Go prints them.

use koios_model::format::{push_f, push_json_float};
use koios_model::timestamp::push_json_timestamp;
use koios_model::{FloatHistogram, Labels};
use koios_promql::{Floats, MatrixSeries, SampleValue, Value, VectorSample};

use super::json::{push_labels, push_list, push_string};

/// Cuts a vector or matrix to `limit` series (0 means no limit); tells whether it did.
pub fn truncate(value: &mut Value, limit: usize) -> bool {
    let cut = |len: usize| limit > 0 && len > limit;
    match value {
        Value::Vector(v) if cut(v.len()) => v.truncate(limit),
        Value::Matrix(m) if cut(m.len()) => m.truncate(limit),
        _ => return false,
    }
    true
}

/// Bytes of JSON made at a time.
const PIECE: usize = 64 << 10;

/// The body of a successful answer to a query, made piece by piece: a large result is never held as text, and
/// each series is let go as soon as it is written.
pub struct Body {
    /// What is to be written before the next element.
    before: String,
    rest: Rest,
    stamps: Stamps,
    /// What follows the result; `None` when it was written.
    end: Option<String>,
}

enum Rest {
    Vector(std::vec::IntoIter<VectorSample>),
    Matrix(std::vec::IntoIter<MatrixSeries>),
    Nothing,
}

impl Body {
    /// `end` follows the last byte of `"result":…`.
    pub fn new(value: Value, end: String) -> Self {
        let mut out = "{\"status\":\"success\",\"data\":{\"resultType\":\"".to_owned();
        let (rest, close) = match value {
            Value::Scalar(t, v) => {
                out.push_str("scalar\",\"result\":[");
                push_plain_timestamp(&mut out, t);
                out.push_str(",\"");
                push_f(&mut out, v);
                out.push('"');
                (Rest::Nothing, "]")
            }
            Value::String(t, text) => {
                out.push_str("string\",\"result\":[");
                push_plain_timestamp(&mut out, t);
                out.push(',');
                push_string(&mut out, &text);
                (Rest::Nothing, "]")
            }
            Value::Vector(samples) => {
                out.push_str("vector\",\"result\":[");
                (Rest::Vector(samples.into_iter()), "]")
            }
            Value::Matrix(series) => {
                out.push_str("matrix\",\"result\":[");
                (Rest::Matrix(series.into_iter()), "]")
            }
        };
        Self { before: out, rest, stamps: Stamps::default(), end: Some(format!("{close}{end}")) }
    }

    /// Whether everything was written.
    pub fn is_done(&self) -> bool {
        self.end.is_none()
    }

    /// Writes the next element with what stands before it; false when there is none.
    fn push_next(&mut self, out: &mut String) -> bool {
        match &mut self.rest {
            Rest::Nothing => return false,
            Rest::Vector(samples) => {
                let Some(s) = samples.next() else { return false };
                out.push_str(&self.before);
                push_vector_sample(out, &s);
            }
            Rest::Matrix(series) => {
                let Some(s) = series.next() else { return false };
                out.push_str(&self.before);
                push_matrix_series(out, &s, &mut self.stamps);
            }
        }
        self.before.clear();
        self.before.push(',');
        true
    }
}

impl Iterator for Body {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut out = String::with_capacity(PIECE + PIECE / 4);
        while out.len() < PIECE && !self.is_done() {
            if self.push_next(&mut out) {
                continue;
            }
            if self.before != "," {
                out.push_str(&self.before);
            }
            out.push_str(&self.end.take().unwrap_or_default());
        }
        (!out.is_empty()).then_some(out)
    }
}

/// Most steps whose times are kept as text.
const STAMPS_MAX: usize = 1 << 14;

/// Beginnings of points: `[1700000000.5,"` for every step. All series of an answer have the same.
#[derive(Default)]
struct Stamps {
    of: Option<(i64, i64)>,
    text: String,
    /// Where each one ends in `text`.
    ends: Vec<usize>,
}

impl Stamps {
    fn make(&mut self, first: i64, step: i64, n: usize) {
        if self.of != Some((first, step)) {
            (self.of, self.text, self.ends) = (Some((first, step)), String::new(), Vec::new());
        }
        for i in self.ends.len()..n.min(STAMPS_MAX) {
            push_point_start(&mut self.text, first.saturating_add(step.saturating_mul(i as i64)));
            self.ends.push(self.text.len());
        }
    }

    fn push(&self, out: &mut String, i: usize) {
        let from = if i == 0 { 0 } else { self.ends[i - 1] };
        out.push_str(&self.text[from..self.ends[i]]);
    }
}

fn push_point_start(out: &mut String, t: i64) {
    out.push('[');
    push_json_timestamp(out, t);
    out.push_str(",\"");
}

/// Scalars and strings carry their time as a plain float of seconds.
fn push_plain_timestamp(out: &mut String, t: i64) {
    push_json_float(out, t as f64 / 1000.0);
}

fn push_metric(out: &mut String, labels: &Labels) {
    out.push_str("{\"metric\":");
    push_labels(out, labels);
}

fn push_vector_sample(out: &mut String, s: &VectorSample) {
    push_metric(out, &s.labels);
    match &s.value {
        SampleValue::Float(v) => {
            out.push_str(",\"value\":");
            push_point(out, s.t_ms, *v);
        }
        SampleValue::Histogram(h) => {
            out.push_str(",\"histogram\":");
            push_histogram_point(out, s.t_ms, h);
        }
    }
    out.push('}');
}

fn push_matrix_series(out: &mut String, s: &MatrixSeries, stamps: &mut Stamps) {
    push_metric(out, &s.labels);
    if !s.floats.is_empty() {
        out.push_str(",\"values\":[");
        match s.floats.steps() {
            Some((first, step, values)) if values.len() <= STAMPS_MAX => {
                stamps.make(first, step, values.len());
                for (i, v) in values.iter().enumerate().filter(|(_, v)| Floats::is_point(**v)) {
                    stamps.push(out, i);
                    push_json_float(out, *v);
                    out.push_str("\"],");
                }
            }
            _ => {
                for (t, v) in s.floats.iter() {
                    push_point(out, t, v);
                    out.push(',');
                }
            }
        }
        // In place of the last comma.
        out.pop();
        out.push(']');
    }
    if !s.histograms.is_empty() {
        out.push_str(",\"histograms\":");
        push_list(out, &s.histograms, |out, (t, h)| push_histogram_point(out, *t, h));
    }
    out.push('}');
}

fn push_point(out: &mut String, t: i64, v: f64) {
    push_point_start(out, t);
    push_json_float(out, v);
    out.push_str("\"]");
}

fn push_histogram_point(out: &mut String, t: i64, h: &FloatHistogram) {
    out.push('[');
    push_json_timestamp(out, t);
    out.push_str(",{\"count\":\"");
    push_json_float(out, h.count);
    out.push_str("\",\"sum\":\"");
    push_json_float(out, h.sum);
    out.push('"');
    let buckets: Vec<_> = h.all_buckets().into_iter().filter(|b| b.count != 0.0).collect();
    if !buckets.is_empty() {
        out.push_str(",\"buckets\":");
        push_list(out, buckets, |out, b| {
            let rule = match (b.lower_inclusive, b.upper_inclusive) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            out.push_str(&format!("[{rule},\""));
            push_json_float(out, b.lower);
            out.push_str("\",\"");
            push_json_float(out, b.upper);
            out.push_str("\",\"");
            push_json_float(out, b.count);
            out.push_str("\"]");
        });
    }
    out.push_str("}]");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(value: &Value) -> String {
        let text: String = Body::new(value.clone(), "}".to_owned()).collect();
        text.strip_prefix("{\"status\":\"success\",\"data\":").unwrap().to_owned()
    }

    fn labels() -> Labels {
        Labels::from_pairs([("__name__", "up"), ("job", "x")])
    }

    #[test]
    fn each_type_is_prometheus_json() {
        assert_eq!(encode(&Value::Scalar(4000, 2.0)), r#"{"resultType":"scalar","result":[4,"2"]}"#);
        assert_eq!(
            encode(&Value::Scalar(1500, 1e21)),
            r#"{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}"#
        );
        assert_eq!(
            encode(&Value::String(0, "a\"b".into())),
            r#"{"resultType":"string","result":[0,"a\"b"]}"#
        );
        let v = Value::Vector(vec![VectorSample {
            labels: labels(),
            t_ms: 1010,
            value: SampleValue::Float(1e-7),
        }]);
        assert_eq!(
            encode(&v),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"x"},"value":[1.010,"1e-07"]}]}"#
        );
        assert_eq!(encode(&Value::Vector(vec![])), r#"{"resultType":"vector","result":[]}"#);
        let floats = [(0, f64::NAN), (1000, -0.0)].into_iter().collect();
        let m = MatrixSeries { labels: labels(), floats, histograms: vec![] };
        assert_eq!(
            encode(&Value::Matrix(vec![m])),
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"x"},"values":[[0,"NaN"],[1,"-0"]]}]}"#
        );
    }

    #[test]
    fn pieces_and_steps_do_not_show() {
        let params = koios_promql::QueryParams::range(0, 4_999_000, 1000);
        let expr = koios_promql::parse("time() / 4").unwrap();
        let plan = koios_promql::Plan::new(&expr, &params).unwrap();
        let output = plan.evaluate(Vec::new(), &koios_promql::Control::new()).unwrap();
        let Value::Matrix(m) = output.value else { panic!("no matrix") };
        let of_pairs = MatrixSeries { floats: m[0].floats.iter().collect(), ..MatrixSeries::default() };
        let pieces: Vec<String> =
            Body::new(Value::Matrix(vec![m[0].clone(), of_pairs, m[0].clone()]), "}}".to_owned()).collect();
        assert!(pieces.len() > 1);
        let json: serde_json::Value = serde_json::from_str(&pieces.concat()).unwrap();
        let series = &json["data"]["result"];
        assert_eq!(series.as_array().map(Vec::len), Some(3));
        assert_eq!(series[0], series[1]);
        assert_eq!(series[2]["values"][4999], serde_json::json!([4999, "1249.75"]));
    }

    #[test]
    fn limit_cuts_series() {
        let sample = VectorSample { labels: labels(), t_ms: 0, value: SampleValue::Float(1.0) };
        let mut v = Value::Vector(vec![sample.clone(), sample]);
        assert!(!truncate(&mut v, 0) && !truncate(&mut v, 2) && truncate(&mut v, 1));
        assert!(matches!(v, Value::Vector(v) if v.len() == 1));
    }
}
