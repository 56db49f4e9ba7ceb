//! Tables over the three formats, and properties: no bytes make a lexer panic, a right guess changes nothing.

use super::*;
use koios_model::LabelsBuilder;
use koios_model::format::float_f;
use proptest::prelude::*;

/// `labels value [@timestamp] [# exemplar]` per sample.
fn read(format: Format, body: &[u8]) -> Result<Vec<String>, ParseError> {
    let mut out = Vec::new();
    let mut sink = |s: ParsedSample<'_>| {
        let mut b = LabelsBuilder::new();
        let labels = labels_of_series(s.series, s.kind, &mut b).map(|()| b.build().to_string());
        let mut line = format!("{} {}", labels.unwrap_or_else(|e| format!("!{e}")), float_f(s.value));
        if let Some(t) = s.timestamp_ms {
            line.push_str(&format!(" @{t}"));
        }
        if let Some(t) = s.start_ms {
            line.push_str(&format!(" ^{t}"));
        }
        if let Some(e) = s.exemplar {
            line.push_str(&format!(" # {} {}", String::from_utf8_lossy(e.labels), float_f(e.value)));
            line.push_str(&e.timestamp_ms.map(|t| format!(" @{t}")).unwrap_or_default());
        }
        out.push(line);
    };
    parse(format, body, &mut sink)?;
    Ok(out)
}

#[test]
fn text_samples() {
    for (body, want) in [
        ("", vec![]),
        ("\n \n\t\n", vec![]),
        ("a 1", vec!["a 1"]),
        ("a 1\n", vec!["a 1"]),
        ("  a\t 1 \t 1000 \n", vec!["a 1 @1000"]),
        ("a{} 1 -5\n", vec!["a 1 @-5"]),
        ("a { x = \"1\" , y=\"2\", } 3\n", vec!["a{x=\"1\", y=\"2\"} 3"]),
        ("{\"a.b\",x=\"1\"} 1\n{x=\"1\",\"c\"} 2\n", vec!["{__name__=\"a.b\", x=\"1\"} 1", "c{x=\"1\"} 2"]),
        ("{\"a\"} 1\n", vec!["a 1"]),
        ("a{\"x.y\"=\"1\"} 1\n", vec!["a{\"x.y\"=\"1\"} 1"]),
        ("a{x=\"q\\\"b\\\\s\\nn\\q\"} 1\n", vec!["a{x=\"q\\\"b\\\\s\\nn\\\\q\"} 1"]),
        ("a{x=\"two\nlines\"} 1\n", vec!["a{x=\"two\\nlines\"} 1"]),
        ("a{x=\"\",y=\"1\"} 1\n", vec!["a{y=\"1\"} 1"]),
        ("a{x=\"é日\"} NaN\nb +Inf\nc -Inf\n", vec!["a{x=\"é日\"} NaN", "b +Inf", "c -Inf"]),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n",
            vec!["h_bucket{le=\"1.0\"} 1", "h_bucket{le=\"+Inf\"} 2"],
        ),
        (
            "# TYPE s summary\ns{quantile=\"1\"} 1\ns{quantile=\"0.5\"} 1\n",
            vec!["s{quantile=\"1.0\"} 1", "s{quantile=\"0.5\"} 1"],
        ),
        ("h_bucket{le=\"1\"} 1\n", vec!["h_bucket{le=\"1\"} 1"]),
        ("# TYPE h histogram\nh_bucket{le=\"x\"} 1\n", vec!["h_bucket{le=\"x\"} 1"]),
        ("# just words\n#\n#nothing\n# HELPING x\n# TYPES y\n#TYPE z nonsense\na 1\n", vec!["a 1"]),
        ("# HELP a\n# HELP a text \\n with\\\\ escapes\n# TYPE a counter\na 1\n", vec!["a 1"]),
        ("#  \t TYPE \t a \t gauge \t\na 1\n", vec!["a 1"]),
        ("a:b:c 1\n_x 2\n", vec!["a:b:c 1", "_x 2"]),
        ("a 1\na 2\n", vec!["a 1", "a 2"]),
        ("a{x=\"1\",x=\"2\"} 1\n", vec!["!label name \"x\" is not unique: invalid sample 1"]),
    ] {
        assert_eq!(
            read(Format::Text, body.as_bytes()),
            Ok(want.iter().map(|s| (*s).to_owned()).collect()),
            "{body:?}"
        );
    }
}

#[test]
fn text_mistakes() {
    for (body, line, col, cause) in [
        ("a", 1, 2, "expected a value after the series, got end of line"),
        ("a\n", 1, 2, "expected a value"),
        ("a 1\nb{ 1\n", 2, 4, "expected a label name or `}`, got \"1\""),
        ("a{x} 1\n", 1, 4, "expected `=`"),
        ("a{x=1} 1\n", 1, 5, "expected a quoted label value"),
        ("a{x=\"1} 1\n", 1, 5, "never closed"),
        ("a{x=\"1\\", 1, 5, "never closed"),
        ("a{x=\"1\" y=\"2\"} 1\n", 1, 9, "expected `,` or `}`"),
        ("a{,} 1\n", 1, 3, "expected a label name"),
        ("a{\"x\"} 1\n", 1, 6, "expected `=`"),
        ("{x=\"1\"} 1\n", 1, 1, "no metric name"),
        ("a x\n", 1, 3, "\"x\" is not a number"),
        ("a 0x1p-2\n", 1, 3, "is not a number"),
        ("a 1_000\n", 1, 3, "is not a number"),
        ("a 1\r\n", 1, 3, "is not a number"),
        ("a 1 1.5\n", 1, 5, "not a timestamp"),
        ("a 1 2 3\n", 1, 7, "expected the end of the line"),
        ("a 1 # {} 2\n", 1, 5, "not a timestamp"),
        ("1a 1\n", 1, 1, "expected a metric name"),
        ("<!DOCTYPE html>\n", 1, 1, "expected a metric name, got \"<!DOCTYPE html>\""),
        ("# TYPE a nonsense\n", 1, 10, "invalid metric type \"nonsense\""),
        ("# TYPE 1a counter\n", 1, 8, "expected a metric name after TYPE"),
        ("ok 1\n# HELP \"x\n", 2, 8, "never closed"),
        ("a\u{e9} 1\n", 1, 2, "is not a number"),
    ] {
        let e = read(Format::Text, body.as_bytes()).expect_err(body);
        assert!((e.line, e.col) == (line, col) && e.cause.contains(cause), "{body:?}: {e}");
    }
    let e = read(Format::Text, b"a{x=\"\xff\"} 1\n").unwrap();
    assert!(e[0].starts_with("!invalid UTF-8 in series"), "{e:?}");
    assert!(read(Format::Text, b"# HELP a \xff\n").is_err());
}

#[test]
fn openmetrics_samples() {
    let body = "# HELP go_gc help \\\"text\n# TYPE go_gc summary\n# UNIT go_gc_seconds seconds\n\
                go_gc{quantile=\"0\"} 4.9e-05\ngo_gc{quantile=\"1\"} 1 123.4567\n# TYPE foo counter\n\
                foo_total{a=\"b\"} 17.0 1520879607.789 # {id=\"c\",t=\"\\\"\"} 5 1520879606.1\nfoo_created 1520430000.123\n\
                {\"u.t\",\"l.l\"=\"1\"} 1\n# TYPE gh gaugehistogram\ngh_bucket{le=\"1\"} 1 # {} 2\n# TYPE i info\ni_info{v=\"1\"} 1\n# EOF\n";
    let want = [
        "go_gc{quantile=\"0.0\"} 0.000049",
        "go_gc{quantile=\"1.0\"} 1 @123456",
        "foo_total{a=\"b\"} 17 @1520879607789 # id=\"c\",t=\"\\\"\" 5 @1520879606100",
        "foo_created 1520430000.123",
        "{__name__=\"u.t\", \"l.l\"=\"1\"} 1",
        "gh_bucket{le=\"1\"} 1 #  2",
        "i_info{v=\"1\"} 1",
    ];
    assert_eq!(read(Format::OpenMetrics, body.as_bytes()).unwrap(), want);
    let mut created = Vec::new();
    let mut sink = |s: ParsedSample<'_>| created.push(s.is_created());
    parse(Format::OpenMetrics, body.as_bytes(), &mut sink).unwrap();
    assert_eq!(created, [false, false, false, true, false, false, false]);
    assert_eq!(read(Format::OpenMetrics, b"# EOF").unwrap(), Vec::<String>::new());
}

#[test]
fn openmetrics_mistakes() {
    for (body, line, cause) in [
        ("", 1, "data does not end with # EOF"),
        ("a 1\n", 2, "data does not end with # EOF"),
        ("# EOF\na 1\n", 2, "unexpected data after # EOF"),
        ("\n# EOF\n", 1, "expected a metric name, got end of line"),
        ("# hello\n# EOF\n", 1, "expected TYPE, HELP, UNIT or EOF"),
        ("a  1\n# EOF\n", 1, "is not a number"),
        (" a 1\n# EOF\n", 1, "expected a metric name"),
        ("a 1 \n# EOF\n", 1, "is not a timestamp"),
        ("a 1 NaN\n# EOF\n", 1, "is not a timestamp"),
        ("a{x = \"1\"} 1\n# EOF\n", 1, "expected `=`"),
        ("a 1 # x\n# EOF\n", 1, "exemplar labels in braces"),
        ("a 1 # {x=\"1\n# EOF\n", 1, "never closed"),
        ("a 1 # {x=\"1\"}\n# EOF\n", 1, "value after the exemplar labels"),
        ("# UNIT a_seconds meters\n# EOF\n", 1, "is not a suffix"),
        ("# TYPE a thing\n# EOF\n", 1, "invalid metric type"),
        ("a{x=\"1\n\"} 1\n# EOF\n", 1, "never closed"),
    ] {
        let e = read(Format::OpenMetrics, body.as_bytes()).expect_err(body);
        assert!(e.line == line && e.cause.contains(cause), "{body:?}: {e}");
    }
}

/// Writes protobuf fields by hand.
pub(super) struct Pb(pub(super) Vec<u8>);

impl Pb {
    pub(super) fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }
    pub(super) fn int(mut self, field: u64, v: u64) -> Self {
        self.varint(field << 3);
        self.varint(v);
        self
    }
    pub(super) fn double(mut self, field: u64, v: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub(super) fn bytes(mut self, field: u64, v: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(v.len() as u64);
        self.0.extend_from_slice(v);
        self
    }
    pub(super) fn msg(self, field: u64, v: Pb) -> Self {
        self.bytes(field, &v.0)
    }
}

pub(super) fn pb() -> Pb {
    Pb(Vec::new())
}

pub(super) fn delimited(families: Vec<Pb>) -> Vec<u8> {
    let mut out = pb();
    for f in families {
        out.varint(f.0.len() as u64);
        out.0.extend_from_slice(&f.0);
    }
    out.0
}

fn pair(n: &str, v: &str) -> Pb {
    pb().bytes(1, n.as_bytes()).bytes(2, v.as_bytes())
}

fn proto_body() -> Vec<u8> {
    let time = |s| pb().int(1, s).int(2, 500_000_000);
    let exemplar = pb().msg(1, pair("id", "x\"y")).double(2, 0.7).msg(3, time(9));
    let counter = pb().bytes(1, b"c_total").bytes(2, b"help").int(3, 0).msg(
        4,
        pb().msg(1, pair("a", "b")).msg(3, pb().double(1, 5.0).msg(2, exemplar).msg(3, time(7))).int(6, 1234),
    );
    let gauge = pb().bytes(1, b"g.dotted").int(3, 1).msg(4, pb().msg(2, pb().double(1, f64::NAN)));
    let summary = pb()
        .bytes(1, b"s")
        .int(3, 2)
        .msg(4, pb().msg(4, pb().int(1, 3).double(2, 1.5).msg(3, pb().double(1, 1.0).double(2, 0.9))));
    let bucket = |n, le| pb().int(1, n).double(2, le);
    let histogram = pb().bytes(1, b"h").int(3, 4).msg(
        4,
        pb().msg(7, pb().int(1, 10).double(2, 4.5).msg(3, bucket(4, 1.0)).int(5, 6).double(6, 0.001)),
    );
    delimited(vec![counter, gauge, summary, histogram])
}

#[test]
fn protobuf_samples() {
    let want = [
        "c_total{a=\"b\"} 5 @1234 ^7500 # \"id\"=\"x\\\"y\" 0.7 @9500",
        "{__name__=\"g.dotted\"} NaN",
        "s_count 3",
        "s_sum 1.5",
        "s{quantile=\"1.0\"} 0.9",
        "h_count 10",
        "h_sum 4.5",
        "h_bucket{le=\"1.0\"} 4",
        "h_bucket{le=\"+Inf\"} 10",
    ];
    assert_eq!(read(Format::Protobuf, &proto_body()).unwrap(), want);
}

#[test]
fn protobuf_mistakes() {
    let whole = proto_body();
    for cut in 1..whole.len() {
        // A prefix is either a shorter run of whole families or a mistake, never a panic.
        let _ = read(Format::Protobuf, &whole[..cut]);
    }
    for (body, cause) in [
        (vec![0xff; 12], "number longer than ten bytes"),
        (vec![0xff, 0xff, 0xff, 0xff, 0x0f, 1], "cut off inside a field"),
        (delimited(vec![pb().int(3, 1)]), "without a name"),
        (delimited(vec![pb().bytes(1, b"a").int(3, 9)]), "unknown metric type 9"),
        (delimited(vec![pb().bytes(1, b"a").int(3, 1).msg(4, pb())]), "has no gauge value"),
        (delimited(vec![pb().bytes(1, b"\xff").int(3, 1)]), "not valid UTF-8"),
    ] {
        let e = read(Format::Protobuf, &body).unwrap_err();
        assert!(e.cause.contains(cause), "{e}");
    }
}

#[test]
fn content_types() {
    use ScrapeProtocol as P;
    for (written, fallback, want) in [
        (Some("text/plain; version=0.0.4; charset=utf-8"), None, Some(Format::Text)),
        (Some("application/openmetrics-text; version=1.0.0"), None, Some(Format::OpenMetrics)),
        (
            Some(
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
            ),
            None,
            Some(Format::Protobuf),
        ),
        (Some("text/html"), Some(P::PrometheusText004), Some(Format::Text)),
        (None, Some(P::OpenMetrics100), Some(Format::OpenMetrics)),
        (Some("text/html"), None, None),
        (None, None, None),
    ] {
        assert_eq!(Format::of(written, fallback).ok(), want, "{written:?}");
    }
    assert_eq!(
        Format::of(Some("text/html"), None).unwrap_err(),
        "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target"
    );
}

/// A sink that always expects the same series.
struct Expecting<'a>(&'a [u8], Vec<(Vec<u8>, u64)>);

impl Sink for Expecting<'_> {
    fn expected(&self) -> &[u8] {
        self.0
    }
    fn sample(&mut self, s: ParsedSample<'_>) {
        assert_eq!(s.guessed, s.series == self.0 && s.guessed);
        self.1.push((s.series.to_vec(), s.value.to_bits()));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
            let _ = read(format, &body);
        }
    }

    #[test]
    fn no_likely_text_panics(body in "[a{}=\",\\\\ \n\t#0-9.eTYPEHLUNIO_+-]{0,200}") {
        for format in [Format::Text, Format::OpenMetrics] {
            let _ = read(format, body.as_bytes());
        }
    }

    #[test]
    fn a_guess_changes_nothing(body in "([ab](\\{x=\"[yz]\"\\})? ?[ {]?[0-9]( [0-9])?\n){0,8}", guess in "[ab](\\{x=\"[yz]\"\\})?") {
        for format in [Format::Text, Format::OpenMetrics] {
            let (mut with, mut without) = (Expecting(guess.as_bytes(), vec![]), Expecting(b"", vec![]));
            prop_assert_eq!(parse(format, body.as_bytes(), &mut with), parse(format, body.as_bytes(), &mut without));
            prop_assert_eq!(with.1, without.1);
        }
    }
}
