//! Query results as Prometheus writes them: `resultType` before `result`, numbers as Go prints them.

use koios_model::format::{FLOAT_ROOM, push_f, push_json_float, put_json_float};
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
/// Room for the beginning of a point at a step: two signs, sixteen digits of seconds, three of milliseconds, two signs.
const STAMP_ROOM: usize = 32;
/// What ends a point.
const POINT_END: [u8; 2] = *b"\"]";
/// Room for any point at a step.
const POINT_ROOM: usize = STAMP_ROOM + FLOAT_ROOM + POINT_END.len();

/// The body of a successful answer to a query, made piece by piece: a large result is never held as text, and
/// each series is let go as soon as it is written.
pub struct Body {
    /// What is to be written before the next element.
    before: String,
    rest: Rest,
    stamps: Stamps,
    /// Scratch for what is short or rare.
    text: String,
    /// What follows the result; `None` when it was written.
    end: Option<String>,
}

enum Rest {
    Vector(std::vec::IntoIter<VectorSample>),
    Matrix(std::vec::IntoIter<MatrixSeries>, Option<Begun>),
    Nothing,
}

/// A series of which a part is written.
struct Begun {
    series: MatrixSeries,
    /// The next step, or point where points have times of their own.
    at: usize,
    /// What stands before the next point.
    separator: u8,
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
                (Rest::Matrix(series.into_iter(), None), "]")
            }
        };
        let (stamps, text, end) = (Stamps::default(), String::new(), Some(format!("{close}{end}")));
        Self { before: out, rest, stamps, text, end }
    }

    /// Whether everything was written.
    pub fn is_done(&self) -> bool {
        self.end.is_none()
    }

    /// Writes the next element with what stands before it, or of a long one a part; false when there is none.
    fn push_next(&mut self, out: &mut Piece) -> bool {
        let text = &mut self.text;
        text.clear();
        match &mut self.rest {
            Rest::Nothing => return false,
            Rest::Vector(samples) => {
                let Some(s) = samples.next() else { return false };
                text.push_str(&self.before);
                push_vector_sample(text, &s);
                out.push(text);
            }
            Rest::Matrix(_, Some(begun)) => {
                if !push_points(out, begun, &mut self.stamps) {
                    return true;
                }
                push_rest_of_series(text, &begun.series);
                out.push(text);
                if let Rest::Matrix(_, begun) = &mut self.rest {
                    *begun = None;
                }
            }
            Rest::Matrix(all, begun) => {
                let Some(series) = all.next() else { return false };
                text.push_str(&self.before);
                push_metric(text, &series.labels);
                if !series.floats.is_empty() {
                    text.push_str(",\"values\":");
                }
                out.push(text);
                *begun = Some(Begun { series, at: 0, separator: b'[' });
                return true;
            }
        }
        self.before.clear();
        self.before.push(',');
        true
    }
}

impl Iterator for Body {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Piece::default();
        while out.len < PIECE && !self.is_done() {
            if self.push_next(&mut out) {
                continue;
            }
            if self.before != "," {
                out.push(&self.before);
            }
            out.push(&self.end.take().unwrap_or_default());
        }
        out.bytes.truncate(out.len);
        (out.len > 0).then_some(out.bytes)
    }
}

/// Text that is being made, with room behind it that points are written into without looking at its end.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    /// What is text of it.
    len: usize,
    last: Number,
}

/// Where the number stands that was written last: levels, extremes and idle counters say the same again and again. It is
/// copied from there, as keeping it costs the numbers that do change more than that gains.
#[derive(Default)]
struct Number {
    bits: u64,
    at: usize,
    /// 0 when there is none.
    len: usize,
}

impl Piece {
    fn push(&mut self, text: &str) {
        match self.bytes.get_mut(self.len..self.len + text.len()) {
            Some(place) => place.copy_from_slice(text.as_bytes()),
            None => {
                self.bytes.truncate(self.len);
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
        self.len += text.len();
    }

    /// Makes room for a point, unless the piece is full.
    fn has_room(&mut self) -> bool {
        if self.len >= PIECE {
            return false;
        }
        if self.bytes.len() < PIECE + POINT_ROOM {
            self.bytes.resize(PIECE + POINT_ROOM, 0);
        }
        true
    }

    /// Writes a point where `has_room` said so.
    #[inline]
    fn push_point(&mut self, separator: u8, stamp: &Stamp, v: f64) {
        let is_again = v.to_bits() == self.last.bits && self.last.len > 0;
        let again = match is_again {
            true => self.bytes.get(self.last.at..).and_then(|b| b.first_chunk::<FLOAT_ROOM>()).copied(),
            false => None,
        };
        let Some(room) = self.bytes[self.len..].first_chunk_mut::<POINT_ROOM>() else {
            unreachable!("BUG: a point without room")
        };
        room[..STAMP_ROOM].copy_from_slice(&stamp.text);
        room[0] = separator;
        let Some(float) = room[stamp.len..].first_chunk_mut::<FLOAT_ROOM>() else {
            unreachable!("BUG: a number without room")
        };
        let len = match again {
            Some(text) => {
                *float = text;
                self.last.len
            }
            None => match put_json_float(float, v) {
                Some(len) => len,
                None => return self.push_rare_point(separator, stamp, v),
            },
        };
        self.last = Number { bits: v.to_bits(), at: self.len + stamp.len, len };
        let end = stamp.len + len;
        room[end..end + POINT_END.len()].copy_from_slice(&POINT_END);
        self.len += end + POINT_END.len();
    }

    #[cold]
    fn push_rare_point(&mut self, separator: u8, stamp: &Stamp, v: f64) {
        let mut text = String::from_utf8_lossy(&stamp.text[..stamp.len]).into_owned();
        push_json_float(&mut text, v);
        text.push_str("\"]");
        let from = self.len;
        self.push(&text);
        self.bytes[from] = separator;
    }
}

/// Most steps whose times are kept as text.
const STAMPS_MAX: usize = 1 << 14;

/// The beginning of a point, `,[1700000000.5,"`.
struct Stamp {
    text: [u8; STAMP_ROOM],
    len: usize,
}

impl Stamp {
    /// `text` is scratch.
    fn new(text: &mut String, t: i64) -> Self {
        text.clear();
        text.push(',');
        push_point_start(text, t);
        let mut stamp = Self { text: [0; STAMP_ROOM], len: text.len() };
        stamp.text[..text.len()].copy_from_slice(text.as_bytes());
        stamp
    }
}

/// Beginnings of points for every step. All series of an answer have the same.
#[derive(Default)]
struct Stamps {
    of: Option<(i64, i64)>,
    list: Vec<Stamp>,
}

impl Stamps {
    fn make(&mut self, first: i64, step: i64, n: usize) -> &[Stamp] {
        if self.of != Some((first, step)) {
            (self.of, self.list) = (Some((first, step)), Vec::new());
        }
        let mut text = String::new();
        for i in self.list.len()..n {
            self.list.push(Stamp::new(&mut text, first.saturating_add(step.saturating_mul(i as i64))));
        }
        &self.list[..n]
    }
}

/// Writes the float points of a series, or as many as the piece takes; tells whether those were the last ones.
fn push_points(out: &mut Piece, begun: &mut Begun, stamps: &mut Stamps) -> bool {
    let Begun { series, at, separator } = begun;
    if series.floats.is_empty() {
        return true;
    }
    match series.floats.steps() {
        Some((first, step, values)) if values.len() <= STAMPS_MAX => {
            let stamps = stamps.make(first, step, values.len());
            while *at < values.len() {
                if !out.has_room() {
                    return false;
                }
                let (stamp, v) = (&stamps[*at], values[*at]);
                if Floats::is_point(v) {
                    out.push_point(*separator, stamp, v);
                    *separator = b',';
                }
                *at += 1;
            }
        }
        _ => {
            let mut text = String::new();
            for (t, v) in series.floats.iter().skip(*at) {
                if !out.has_room() {
                    return false;
                }
                out.push_point(*separator, &Stamp::new(&mut text, t), v);
                *separator = b',';
                *at += 1;
            }
        }
    }
    out.push("]");
    true
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

/// What follows the float points of a series.
fn push_rest_of_series(out: &mut String, s: &MatrixSeries) {
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
        let pieces: Vec<Vec<u8>> = Body::new(value.clone(), "}".to_owned()).collect();
        let text = String::from_utf8(pieces.concat()).unwrap();
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
        let pieces: Vec<Vec<u8>> =
            Body::new(Value::Matrix(vec![m[0].clone(), of_pairs, m[0].clone()]), "}}".to_owned()).collect();
        assert!(pieces.len() > 1 && pieces.iter().all(|p| p.len() < PIECE + 256));
        let json: serde_json::Value = serde_json::from_slice(&pieces.concat()).unwrap();
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
