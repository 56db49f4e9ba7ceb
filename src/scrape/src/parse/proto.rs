//! Length-delimited protobuf `io.prometheus.client.MetricFamily` (client_model, `metrics.proto`; wire format:
//! protobuf documentation, "Encoding"), walked in place.
//!
//! Each sample is turned into the raw text form of its series, so that cache and labels work as for text.
//! Of histograms the classic parts are read here: count, sum, buckets; `native` reads the rest where the job wants
//! it. A histogram that is native gives its classic parts only to a job that asks for both.

use super::number::open_metrics_float;
use super::{Exemplar, Kind, Metadata, OwnExemplar, ParseError, ParseOptions, ParsedSample, Sink, native};
use crate::native::NativeHistogram;

/// Bytes of one field.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        if let Value::Bytes(b) = self { b } else { &[] }
    }

    pub(super) fn double(self) -> f64 {
        if let Value::Fixed64(bits) = self { f64::from_bits(bits) } else { 0.0 }
    }

    pub(super) fn int(self) -> u64 {
        if let Value::Varint(v) = self { v } else { 0 }
    }
}

/// Walks the fields of one message.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

pub(super) type Broken = &'static str;

pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, Broken> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, tail) = rest.split_first().ok_or("cut off inside a number")?;
        *rest = tail;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number longer than ten bytes")
}

fn take<'a>(rest: &mut &'a [u8], n: u64) -> Result<&'a [u8], Broken> {
    let n = usize::try_from(n).map_err(|_| "a length beyond memory")?;
    let (head, tail) = rest.split_at_checked(n).ok_or("cut off inside a field")?;
    *rest = tail;
    Ok(head)
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Broken> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = varint(&mut self.rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => {
                let mut bits = [0; 8];
                bits.copy_from_slice(take(&mut self.rest, 8)?);
                Value::Fixed64(u64::from_le_bytes(bits))
            }
            2 => {
                let n = varint(&mut self.rest)?;
                Value::Bytes(take(&mut self.rest, n)?)
            }
            5 => {
                take(&mut self.rest, 4)?;
                Value::Fixed32
            }
            _ => return Err("an unknown wire type"),
        };
        Ok(Some((key >> 3, value)))
    }
}

pub(super) fn parse(body: &[u8], options: ParseOptions, sink: &mut impl Sink) -> Result<(), ParseError> {
    let mut rest = body;
    let mut writer = Writer { options, ..Writer::default() };
    while !rest.is_empty() {
        let at = body.len() - rest.len();
        let fail =
            |cause: &str| ParseError { line: 0, col: at, cause: format!("protobuf at byte {at}: {cause}") };
        let length = varint(&mut rest).map_err(fail)?;
        let family = take(&mut rest, length).map_err(fail)?;
        read_family(family, &mut writer, sink).map_err(|cause| fail(&cause))?;
    }
    Ok(())
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("{what} is not valid UTF-8"))
}

fn read_family(family: &[u8], writer: &mut Writer, sink: &mut impl Sink) -> Result<(), String> {
    let (mut name, mut help, mut unit, mut kind) = ("", None, None, 0);
    let mut fields = Fields::of(family);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = utf8(value.bytes(), "a metric name")?,
            2 => help = Some(utf8(value.bytes(), "a help text")?),
            3 => kind = value.int(),
            5 => unit = Some(utf8(value.bytes(), "a unit")?),
            _ => {}
        }
    }
    if name.is_empty() {
        return Err("a metric family without a name".into());
    }
    let kind = match kind {
        0 => Kind::Counter,
        1 => Kind::Gauge,
        2 => Kind::Summary,
        3 => Kind::Unknown,
        4 => Kind::Histogram,
        5 => Kind::GaugeHistogram,
        other => return Err(format!("unknown metric type {other} of {name:?}")),
    };
    sink.metadata(Metadata::Kind(name, kind));
    if let Some(help) = help {
        sink.metadata(Metadata::Help(name, help));
    }
    if let Some(unit) = unit {
        sink.metadata(Metadata::Unit(name, unit));
    }
    let mut fields = Fields::of(family);
    while let Some((number, value)) = fields.next()? {
        if number == 4 {
            read_metric(name, kind, value.bytes(), writer, sink)?;
        }
    }
    Ok(())
}

/// Builds raw series.
#[derive(Default)]
struct Writer {
    options: ParseOptions,
    labels: Vec<u8>,
    series: Vec<u8>,
    exemplar: Vec<u8>,
}

pub(super) fn push_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for b in text.bytes() {
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b => out.push(b),
        }
    }
    out.push(b'"');
}

fn push_pair(out: &mut Vec<u8>, pair: &[u8]) -> Result<(), String> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::of(pair);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => name = utf8(field.bytes(), "a label name")?,
            2 => value = utf8(field.bytes(), "a label value")?,
            _ => {}
        }
    }
    if name.is_empty() {
        return Err("a label without a name".into());
    }
    if !out.is_empty() {
        out.push(b',');
    }
    push_quoted(out, name);
    out.push(b'=');
    push_quoted(out, value);
    Ok(())
}

impl Writer {
    /// `{"name<suffix>",labels…,extra}`, into `series`.
    fn series(&mut self, name: &str, suffix: &str, extra: Option<(&str, f64)>) {
        self.series.clear();
        self.series.push(b'{');
        push_quoted(&mut self.series, name);
        self.series.truncate(self.series.len() - 1);
        self.series.extend_from_slice(suffix.as_bytes());
        self.series.push(b'"');
        if !self.labels.is_empty() {
            self.series.push(b',');
            self.series.extend_from_slice(&self.labels);
        }
        if let Some((label, bound)) = extra {
            self.series.extend_from_slice(format!(",{label}=\"{}\"", open_metrics_float(bound)).as_bytes());
        }
        self.series.push(b'}');
    }
}

/// What all samples of one metric share.
struct Common<'a> {
    name: &'a str,
    kind: Kind,
    timestamp_ms: Option<i64>,
}

impl Common<'_> {
    fn emit(
        &self,
        w: &Writer,
        value: f64,
        start_ms: Option<i64>,
        exemplar: Option<RawExemplar>,
        sink: &mut impl Sink,
    ) {
        let value = if value.is_nan() && !koios_model::is_stale(value) {
            koios_model::sample::normal_nan()
        } else {
            value
        };
        let exemplar =
            exemplar.map(|e| Exemplar { labels: &w.exemplar, value: e.value, timestamp_ms: e.timestamp_ms });
        let (timestamp_ms, kind) = (self.timestamp_ms, self.kind);
        let guessed = sink.expected() == w.series;
        sink.sample(ParsedSample {
            series: &w.series,
            value,
            timestamp_ms,
            kind,
            start_ms,
            exemplar,
            guessed,
        });
    }
}

struct RawExemplar {
    value: f64,
    timestamp_ms: Option<i64>,
}

fn read_metric(
    name: &str,
    kind: Kind,
    metric: &[u8],
    w: &mut Writer,
    sink: &mut impl Sink,
) -> Result<(), String> {
    w.labels.clear();
    let mut content: &[u8] = &[];
    let mut timestamp_ms = None;
    let mut fields = Fields::of(metric);
    let wanted = match kind {
        Kind::Gauge => 2,
        Kind::Counter => 3,
        Kind::Summary => 4,
        Kind::Histogram | Kind::GaugeHistogram => 7,
        _ => 5,
    };
    let mut found = false;
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => push_pair(&mut w.labels, value.bytes())?,
            6 => timestamp_ms = Some(value.int() as i64).filter(|t| *t != 0),
            n if n == wanted => (content, found) = (value.bytes(), true),
            _ => {}
        }
    }
    if !found {
        return Err(format!("metric {name:?} has no {} value", kind.as_str()));
    }
    let common = Common { name, kind, timestamp_ms };
    match kind {
        Kind::Histogram | Kind::GaugeHistogram => read_histogram(&common, content, w, sink),
        Kind::Summary => read_summary(&common, content, w, sink),
        _ => read_simple(&common, content, w, sink),
    }
}

fn read_simple(
    common: &Common<'_>,
    content: &[u8],
    w: &mut Writer,
    sink: &mut impl Sink,
) -> Result<(), String> {
    let (mut value, mut start, mut exemplar) = (0.0, None, None);
    let mut fields = Fields::of(content);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => value = field.double(),
            2 => exemplar = Some(read_exemplar(field.bytes(), w)?),
            3 => start = Some(read_time(field.bytes())?),
            _ => {}
        }
    }
    w.series(common.name, "", None);
    common.emit(w, value, start, exemplar, sink);
    Ok(())
}

fn read_summary(
    common: &Common<'_>,
    content: &[u8],
    w: &mut Writer,
    sink: &mut impl Sink,
) -> Result<(), String> {
    let (mut count, mut sum, mut start) = (0.0, 0.0, None);
    let mut fields = Fields::of(content);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => count = field.int() as f64,
            2 => sum = field.double(),
            4 => start = Some(read_time(field.bytes())?),
            _ => {}
        }
    }
    w.series(common.name, "_count", None);
    common.emit(w, count, start, None, sink);
    w.series(common.name, "_sum", None);
    common.emit(w, sum, start, None, sink);
    let mut fields = Fields::of(content);
    while let Some((number, field)) = fields.next()? {
        if number != 3 {
            continue;
        }
        let (mut quantile, mut value) = (0.0, 0.0);
        let mut inner = Fields::of(field.bytes());
        while let Some((number, field)) = inner.next()? {
            match number {
                1 => quantile = field.double(),
                2 => value = field.double(),
                _ => {}
            }
        }
        w.series(common.name, "", Some(("quantile", quantile)));
        common.emit(w, value, start, None, sink);
    }
    Ok(())
}

fn read_histogram(
    common: &Common<'_>,
    content: &[u8],
    w: &mut Writer,
    sink: &mut impl Sink,
) -> Result<(), String> {
    let mut native = false;
    if w.options.native {
        let gauge = common.kind == Kind::GaugeHistogram;
        let read =
            native::read(content, gauge).map_err(|cause| format!("histogram {:?}: {cause}", common.name))?;
        if let Some(h) = read {
            read_native(common, content, h, w, sink)?;
            native = true;
        }
        if native && !w.options.classic {
            return Ok(());
        }
    }
    let (mut count, mut sum, mut start, mut float_count) = (0.0, 0.0, None, None);
    let mut fields = Fields::of(content);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => count = field.int() as f64,
            2 => sum = field.double(),
            4 => float_count = Some(field.double()).filter(|c| *c > 0.0),
            15 => start = Some(read_time(field.bytes())?),
            _ => {}
        }
    }
    let count = float_count.unwrap_or(count);
    w.series(common.name, "_count", None);
    common.emit(w, count, start, None, sink);
    w.series(common.name, "_sum", None);
    common.emit(w, sum, start, None, sink);
    let (mut infinite, mut buckets) = (false, 0);
    let mut fields = Fields::of(content);
    while let Some((number, field)) = fields.next()? {
        if number != 3 {
            continue;
        }
        let (mut cumulative, mut bound, mut exemplar) = (0.0, 0.0, None);
        let mut inner = Fields::of(field.bytes());
        while let Some((number, field)) = inner.next()? {
            match number {
                1 => cumulative = field.int() as f64,
                2 => bound = field.double(),
                3 => exemplar = Some(read_exemplar(field.bytes(), w)?),
                4 if field.double() > 0.0 => cumulative = field.double(),
                _ => {}
            }
        }
        infinite |= bound == f64::INFINITY;
        buckets += 1;
        w.series(common.name, "_bucket", Some(("le", bound)));
        common.emit(w, cumulative, start, exemplar, sink);
    }
    // A purely native histogram has no classic buckets to complete.
    if !infinite && (buckets > 0 || !(native || native::is_native(content)?)) {
        w.series(common.name, "_bucket", Some(("le", f64::INFINITY)));
        common.emit(w, count, start, None, sink);
    }
    Ok(())
}

/// Puts out a native histogram with those of its exemplars that have a time.
fn read_native(
    common: &Common<'_>,
    content: &[u8],
    h: NativeHistogram,
    w: &mut Writer,
    sink: &mut impl Sink,
) -> Result<(), String> {
    let (mut start_ms, mut exemplars) = (None, Vec::new());
    let mut fields = Fields::of(content);
    while let Some((number, field)) = fields.next()? {
        match number {
            15 => start_ms = Some(read_time(field.bytes())?),
            16 => {
                let e = read_exemplar(field.bytes(), w)?;
                let own =
                    OwnExemplar { labels: w.exemplar.clone(), value: e.value, timestamp_ms: e.timestamp_ms };
                exemplars.extend(Some(own).filter(|e| e.timestamp_ms.is_some()));
            }
            _ => {}
        }
    }
    w.series(common.name, "", None);
    let (timestamp_ms, kind) = (common.timestamp_ms, common.kind);
    let guessed = sink.expected() == w.series;
    let sample =
        ParsedSample { series: &w.series, value: 0.0, timestamp_ms, kind, start_ms, exemplar: None, guessed };
    sink.histogram(sample, h, &exemplars);
    Ok(())
}

fn read_exemplar(message: &[u8], w: &mut Writer) -> Result<RawExemplar, String> {
    w.exemplar.clear();
    let mut out = RawExemplar { value: 0.0, timestamp_ms: None };
    let mut fields = Fields::of(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => push_pair(&mut w.exemplar, field.bytes())?,
            2 => out.value = field.double(),
            3 => out.timestamp_ms = Some(read_time(field.bytes())?),
            _ => {}
        }
    }
    Ok(out)
}

/// `google.protobuf.Timestamp` in milliseconds.
fn read_time(message: &[u8]) -> Result<i64, String> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = Fields::of(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => seconds = field.int() as i64,
            2 => nanos = field.int() as i64,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
