//! Exposition formats: bytes in, samples out, without a copy of anything that the cache already knows.
//!
//! Owns three lexers (Prometheus text 0.0.4 and 1.0.0; OpenMetrics 1.0; length-delimited protobuf
//! `io.prometheus.client.MetricFamily`) behind one call. A sample carries the raw bytes of its series; labels
//! are made from them only when the caller asks, which is when its cache misses.
//!
//! Invariants: no input makes a lexer panic or allocate by a claimed size; the first mistake ends the parse
//! with line, column and cause (for protobuf: byte offset as column of line 0).

mod native;
mod nhcb;
mod number;
mod openmetrics;
mod proto;
mod series;
mod text;

#[cfg(test)]
mod tests;

use koios_config::ScrapeProtocol;

use crate::native::NativeHistogram;
pub use number::{open_metrics_float, parse_value};
pub use series::labels_of_series;

/// Which lexer reads a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, both versions.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
    /// Length-delimited protobuf.
    Protobuf,
}

impl Format {
    /// The format of a `Content-Type`; `fallback` decides when it is missing or unknown.
    ///
    /// # Errors
    /// Prometheus' words when nothing decides.
    pub fn of(content_type: Option<&str>, fallback: Option<ScrapeProtocol>) -> Result<Self, String> {
        let written = content_type.unwrap_or("").trim();
        let media = written.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let from_fallback = fallback.map(|f| match f {
            ScrapeProtocol::PrometheusProto => Format::Protobuf,
            ScrapeProtocol::OpenMetrics001 | ScrapeProtocol::OpenMetrics100 => Format::OpenMetrics,
            ScrapeProtocol::PrometheusText004 | ScrapeProtocol::PrometheusText100 => Format::Text,
        });
        match media.as_str() {
            "text/plain" => Ok(Format::Text),
            "application/openmetrics-text" => Ok(Format::OpenMetrics),
            "application/vnd.google.protobuf" => Ok(Format::Protobuf),
            _ => from_fallback.ok_or_else(|| {
                let state = if written.is_empty() {
                    "non-compliant scrape target sending blank Content-Type".to_owned()
                } else {
                    format!("received unsupported Content-Type {written:?}")
                };
                format!("{state} and no fallback_scrape_protocol specified for target")
            }),
        }
    }
}

/// What a `TYPE` line says about the samples that follow it.
pub use koios_model::metadata::MetricKind as Kind;

/// An exemplar as exposed. Its labels stay raw: `a="b",c="d"` without the braces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// Raw label list.
    pub labels: &'a [u8],
    /// Value.
    pub value: f64,
    /// Milliseconds, when exposed.
    pub timestamp_ms: Option<i64>,
}

/// An exemplar of a native histogram, kept while the next one is read. Labels as in `Exemplar`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnExemplar {
    /// Raw label list.
    pub labels: Vec<u8>,
    /// Value.
    pub value: f64,
    /// Milliseconds, when exposed.
    pub timestamp_ms: Option<i64>,
}

/// What a job wants of histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParseOptions {
    /// Native histograms.
    pub native: bool,
    /// Classic ones made native.
    pub convert_classic: bool,
    /// The classic series beside the native ones made or found.
    pub classic: bool,
}

/// One sample as exposed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParsedSample<'a> {
    /// Name and labels as written; the key of the scrape cache.
    pub series: &'a [u8],
    /// Value; any NaN is the ordinary NaN.
    pub value: f64,
    /// Exposed timestamp, milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Type of the family, from the last `TYPE`.
    pub kind: Kind,
    /// When counting started, milliseconds, when the format says it beside the value (protobuf).
    pub start_ms: Option<i64>,
    /// The first exemplar.
    pub exemplar: Option<Exemplar<'a>>,
    /// `series` is exactly what the sink expected.
    pub guessed: bool,
}

impl ParsedSample<'_> {
    /// Whether this is an OpenMetrics `_created` line, whose value is a start time in seconds.
    pub fn is_created(&self) -> bool {
        let name = self.series.split(|b| *b == b'{').next().unwrap_or(&[]);
        matches!(self.kind, Kind::Counter | Kind::Histogram | Kind::GaugeHistogram | Kind::Summary)
            && name.ends_with(b"_created")
    }
}

/// What is said about a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// `TYPE`
    Kind(&'a str, Kind),
    /// `HELP`, escapes resolved where there were any.
    Help(&'a str, &'a str),
    /// `UNIT`
    Unit(&'a str, &'a str),
}

/// Receives what a lexer finds, in order. Every closure over samples is one.
pub trait Sink {
    /// The raw series that the next sample line probably has; empty when there is no guess. A right guess
    /// saves the scan of the line.
    fn expected(&self) -> &[u8] {
        &[]
    }

    /// A sample.
    fn sample(&mut self, sample: ParsedSample<'_>);

    /// A native histogram; the value of `sample` means nothing.
    fn histogram(&mut self, _sample: ParsedSample<'_>, _h: NativeHistogram, _exemplars: &[OwnExemplar]) {}

    /// A statement about a family.
    fn metadata(&mut self, _metadata: Metadata<'_>) {}
}

impl<F: FnMut(ParsedSample<'_>)> Sink for F {
    fn sample(&mut self, sample: ParsedSample<'_>) {
        self(sample);
    }
}

/// Why a body is not in its format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {col}: {cause}")]
pub struct ParseError {
    /// 1-based line; 0 for binary formats.
    pub line: usize,
    /// 1-based column in bytes; the byte offset for binary formats.
    pub col: usize,
    /// What is wrong.
    pub cause: String,
}

impl ParseError {
    /// An error at byte `at` of `body`.
    fn at(body: &[u8], at: usize, cause: impl Into<String>) -> Self {
        let before = &body[..at.min(body.len())];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let start = memchr::memrchr(b'\n', before).map_or(0, |i| i + 1);
        Self { line, col: before.len() - start + 1, cause: cause.into() }
    }
}

/// Parses a body. What was found before a mistake has been handed to `sink`; undoing it is the caller's
/// business.
///
/// # Errors
/// The first mistake.
pub fn parse(format: Format, body: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
    parse_with(format, body, ParseOptions::default(), sink)
}

/// The same for a job that wants more of histograms than their classic series.
///
/// # Errors
/// The first mistake.
pub fn parse_with(
    format: Format,
    body: &[u8],
    options: ParseOptions,
    sink: &mut impl Sink,
) -> Result<(), ParseError> {
    if !options.convert_classic {
        return lex(format, body, options, sink);
    }
    let mut converting = nhcb::Converting::new(sink, options.classic);
    // All classic series are needed to be converted.
    let parsed = lex(format, body, ParseOptions { classic: true, ..options }, &mut converting);
    converting.flush();
    parsed
}

fn lex(format: Format, body: &[u8], options: ParseOptions, sink: &mut impl Sink) -> Result<(), ParseError> {
    match format {
        Format::Text => text::parse(body, sink),
        Format::OpenMetrics => openmetrics::parse(body, sink),
        Format::Protobuf => proto::parse(body, options, sink),
    }
}

/// A piece of input for a message: at most 40 bytes, printable.
fn excerpt(bytes: &[u8]) -> String {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or(&[]);
    let cut = &line[..line.len().min(40)];
    let text = String::from_utf8_lossy(cut);
    if line.is_empty() { "end of line".to_owned() } else { format!("{text:?}") }
}
