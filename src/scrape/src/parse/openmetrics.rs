//! OpenMetrics text 1.0 (OpenMetrics specification, "Text format"), as strictly as Prometheus reads it:
//! exactly one space between tokens, no blank lines, no free comments, `# EOF` last with nothing after it.
//! Ordering of families, counter suffixes and monotonic buckets are not enforced, as there.

use super::number::{parse_seconds, parse_value};
use super::series::{is_name, is_name_start, quoted, run, scan, scan_labels, unescape};
use super::{Exemplar, Kind, Metadata, ParseError, ParsedSample, Sink, excerpt};

pub(super) fn parse(body: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
    let mut kind = Kind::Unknown;
    let mut at = 0;
    while at < body.len() {
        let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |n| at + n);
        let line = &body[at..end];
        if line == b"# EOF" {
            let rest = (end + 1).min(body.len());
            if rest < body.len() {
                return Err(ParseError::at(body, rest, "unexpected data after # EOF"));
            }
            return Ok(());
        }
        if line.first() == Some(&b'#') {
            comment(body, at, line, &mut kind, sink)?;
        } else {
            sample(body, at, line, kind, sink)?;
        }
        at = end + 1;
    }
    Err(ParseError::at(body, body.len(), "data does not end with # EOF"))
}

/// A run of bytes up to the next space.
fn token(line: &[u8], at: usize) -> (&[u8], usize) {
    let end = run(line, at, |b| b != b' ');
    (&line[at..end], end)
}

fn sample(body: &[u8], at: usize, line: &[u8], kind: Kind, sink: &mut impl Sink) -> Result<(), ParseError> {
    let fail = |i: usize, cause: String| ParseError::at(body, at + i, cause);
    let guess = sink.expected();
    let hit = !guess.is_empty() && line.get(guess.len()) == Some(&b' ') && line.starts_with(guess);
    let end = if hit { guess.len() } else { scan(line, 0, false).map_err(|(i, c)| fail(i, c))? };
    if line.get(end) != Some(&b' ') {
        return Err(fail(
            end,
            format!("expected one space and a value after the series, got {}", excerpt(&line[end..])),
        ));
    }
    let number = |at: usize| -> Result<(f64, usize), ParseError> {
        let (text, end) = token(line, at);
        let value =
            parse_value(text).ok_or_else(|| fail(at, format!("{} is not a number", excerpt(text))))?;
        Ok((value, end))
    };
    let time = |at: usize| -> Result<(Option<i64>, usize), ParseError> {
        let (text, end) = token(line, at);
        match parse_seconds(text) {
            Some(ms) => Ok((Some(ms), end)),
            None => Err(fail(at, format!("{} is not a timestamp in seconds", excerpt(text)))),
        }
    };
    let (value, mut i) = number(end + 1)?;
    let mut timestamp_ms = None;
    if line.get(i) == Some(&b' ') && line.get(i + 1) != Some(&b'#') {
        (timestamp_ms, i) = time(i + 1)?;
    }
    let mut exemplar = None;
    if line[i..].starts_with(b" # ") {
        let labels_at = i + 3;
        let labels_end = scan_labels(line, labels_at).map_err(|(i, c)| fail(i, c))?;
        if line.get(labels_end) != Some(&b' ') {
            return Err(fail(labels_end, "expected one space and a value after the exemplar labels".into()));
        }
        let (value, after) = number(labels_end + 1)?;
        let mut exemplar_ms = None;
        i = after;
        if line.get(i) == Some(&b' ') {
            (exemplar_ms, i) = time(i + 1)?;
        }
        exemplar =
            Some(Exemplar { labels: &line[labels_at + 1..labels_end - 1], value, timestamp_ms: exemplar_ms });
    }
    if i < line.len() {
        return Err(fail(i, format!("expected the end of the line, got {}", excerpt(&line[i..]))));
    }
    sink.sample(ParsedSample {
        series: &line[..end],
        value,
        timestamp_ms,
        kind,
        start_ms: None,
        exemplar,
        guessed: hit,
    });
    Ok(())
}

fn comment(
    body: &[u8],
    at: usize,
    line: &[u8],
    kind: &mut Kind,
    sink: &mut impl Sink,
) -> Result<(), ParseError> {
    let fail = |i: usize, cause: String| ParseError::at(body, at + i, cause);
    let word = line.get(2..6).unwrap_or(&[]);
    let known =
        line.starts_with(b"# ") && matches!(word, b"TYPE" | b"HELP" | b"UNIT") && line.get(6) == Some(&b' ');
    if !known {
        return Err(fail(0, format!("expected TYPE, HELP, UNIT or EOF after `# `, got {}", excerpt(line))));
    }
    let (name_end, name_text) = match line.get(7) {
        Some(b'"') => {
            let stop = quoted(line, 7).map_err(|(i, c)| fail(i, c))?;
            (stop, &line[8..stop - 1])
        }
        Some(b) if is_name_start(*b) => {
            let stop = run(line, 7, is_name);
            (stop, &line[7..stop])
        }
        _ => return Err(fail(7, "expected a metric name".into())),
    };
    let rest = match line.get(name_end) {
        None => &[],
        Some(b' ') => &line[name_end + 1..],
        Some(_) => {
            return Err(fail(
                name_end,
                format!("expected one space after the metric name, got {}", excerpt(&line[name_end..])),
            ));
        }
    };
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| fail(7, "text is not valid UTF-8".into()));
    let name = unescape(utf8(name_text)?);
    let rest = utf8(rest)?;
    match word {
        b"HELP" => sink.metadata(Metadata::Help(&name, &unescape(rest))),
        b"UNIT" => {
            let base = name.strip_suffix(rest).and_then(|n| n.strip_suffix('_'));
            if !rest.is_empty() && base.is_none() {
                return Err(fail(name_end + 1, format!("unit {rest:?} is not a suffix of metric {name:?}")));
            }
            sink.metadata(Metadata::Unit(&name, rest));
        }
        _ => {
            *kind =
                kind_of(rest).ok_or_else(|| fail(name_end + 1, format!("invalid metric type {rest:?}")))?;
            sink.metadata(Metadata::Kind(&name, *kind));
        }
    }
    Ok(())
}

fn kind_of(word: &str) -> Option<Kind> {
    Some(match word {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "gaugehistogram" => Kind::GaugeHistogram,
        "summary" => Kind::Summary,
        "info" => Kind::Info,
        "stateset" => Kind::StateSet,
        "unknown" => Kind::Unknown,
        _ => return None,
    })
}
