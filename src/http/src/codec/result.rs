//! Query results as Prometheus writes them: `resultType` before `result`, numbers as Go prints them.

use koios_model::format::{push_f, push_json_float};
use koios_model::timestamp::push_json_timestamp;
use koios_model::{FloatHistogram, Labels};
use koios_promql::{MatrixSeries, SampleValue, Value, VectorSample};

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

/// `{"resultType":…,"result":…}`.
pub fn encode(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Scalar(t, v) => {
            out.push_str("{\"resultType\":\"scalar\",\"result\":[");
            push_plain_timestamp(&mut out, *t);
            out.push_str(",\"");
            push_f(&mut out, *v);
            out.push_str("\"]");
        }
        Value::String(t, text) => {
            out.push_str("{\"resultType\":\"string\",\"result\":[");
            push_plain_timestamp(&mut out, *t);
            out.push(',');
            push_string(&mut out, text);
            out.push(']');
        }
        Value::Vector(samples) => {
            out.push_str("{\"resultType\":\"vector\",\"result\":");
            push_list(&mut out, samples, push_vector_sample);
        }
        Value::Matrix(series) => {
            out.push_str("{\"resultType\":\"matrix\",\"result\":");
            push_list(&mut out, series, push_matrix_series);
        }
    }
    out.push('}');
    out
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

fn push_matrix_series(out: &mut String, s: &MatrixSeries) {
    push_metric(out, &s.labels);
    if !s.floats.is_empty() {
        out.push_str(",\"values\":");
        push_list(out, &s.floats, |out, (t, v)| push_point(out, *t, *v));
    }
    if !s.histograms.is_empty() {
        out.push_str(",\"histograms\":");
        push_list(out, &s.histograms, |out, (t, h)| push_histogram_point(out, *t, h));
    }
    out.push('}');
}

fn push_point(out: &mut String, t: i64, v: f64) {
    out.push('[');
    push_json_timestamp(out, t);
    out.push_str(",\"");
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
        let m =
            MatrixSeries { labels: labels(), floats: vec![(0, f64::NAN), (1000, -0.0)], histograms: vec![] };
        assert_eq!(
            encode(&Value::Matrix(vec![m])),
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"x"},"values":[[0,"NaN"],[1,"-0"]]}]}"#
        );
    }

    #[test]
    fn limit_cuts_series() {
        let sample = VectorSample { labels: labels(), t_ms: 0, value: SampleValue::Float(1.0) };
        let mut v = Value::Vector(vec![sample.clone(), sample]);
        assert!(!truncate(&mut v, 0) && !truncate(&mut v, 2) && truncate(&mut v, 1));
        assert!(matches!(v, Value::Vector(v) if v.len() == 1));
    }
}
