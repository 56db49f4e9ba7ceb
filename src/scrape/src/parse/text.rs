//! Prometheus text, 0.0.4 and 1.0.0 (prometheus.io, "Exposition formats"). Blanks are free between tokens,
//! unknown comments and blank lines are skipped, timestamps are integer milliseconds.

use super::number::{parse_millis, parse_value};
use super::series::{is_blank, is_name, is_name_start, quoted, run, scan, unescape};
use super::{Kind, Metadata, ParseError, ParsedSample, Sink, excerpt};

pub(super) fn parse(body: &[u8], sink: &mut impl Sink) -> Result<(), ParseError> {
    let mut kind = Kind::Unknown;
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'\n' | b' ' | b'\t' => at += 1,
            b'#' => {
                let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |n| at + n);
                comment(body, at, end, &mut kind, sink)?;
                at = end;
            }
            _ => at = sample(body, at, kind, sink)?,
        }
    }
    Ok(())
}

/// Reads one sample line; returns the position of its line end.
fn sample(body: &[u8], at: usize, kind: Kind, sink: &mut impl Sink) -> Result<usize, ParseError> {
    let fail = |at: usize, cause: String| ParseError::at(body, at, cause);
    let guess = sink.expected();
    let guessed = at + guess.len();
    let hit = !guess.is_empty()
        && body.get(guessed) == Some(&b' ')
        && body.get(guessed + 1).is_some_and(|b| !matches!(b, b'{' | b' ' | b'\t'))
        && body[at..guessed] == *guess;
    let end = if hit { guessed } else { scan(body, at, true).map_err(|(i, c)| fail(i, c))? };
    let series = &body[at..end];
    let start = run(body, end, is_blank);
    let stop = run(body, start, |b| !is_blank(b) && b != b'\n');
    if start == stop {
        return Err(fail(
            start,
            format!("expected a value after the series, got {}", excerpt(&body[start..])),
        ));
    }
    let Some(value) = parse_value(&body[start..stop]) else {
        return Err(fail(start, format!("{} is not a number", excerpt(&body[start..stop]))));
    };
    let mut i = run(body, stop, is_blank);
    let mut timestamp_ms = None;
    if i < body.len() && body[i] != b'\n' {
        let stop = run(body, i, |b| !is_blank(b) && b != b'\n');
        timestamp_ms = Some(parse_millis(&body[i..stop]).ok_or_else(|| {
            fail(i, format!("{} is not a timestamp in whole milliseconds", excerpt(&body[i..stop])))
        })?);
        i = run(body, stop, is_blank);
        if i < body.len() && body[i] != b'\n' {
            return Err(fail(i, format!("expected the end of the line, got {}", excerpt(&body[i..]))));
        }
    }
    sink.sample(ParsedSample {
        series,
        value,
        timestamp_ms,
        kind,
        start_ms: None,
        exemplar: None,
        guessed: hit,
    });
    Ok(i)
}

fn comment(
    body: &[u8],
    at: usize,
    end: usize,
    kind: &mut Kind,
    sink: &mut impl Sink,
) -> Result<(), ParseError> {
    let line = &body[at..end];
    let word_at = run(line, 1, is_blank);
    let (is_type, is_help) = (line[word_at..].starts_with(b"TYPE"), line[word_at..].starts_with(b"HELP"));
    let after = word_at + 4;
    if word_at == 1 || !(is_type || is_help) || !line.get(after).copied().is_some_and(is_blank) {
        return Ok(());
    }
    let fail = |i: usize, cause: String| ParseError::at(body, at + i, cause);
    let name_at = run(line, after, is_blank);
    let (name_end, name_text) = match line.get(name_at) {
        Some(b'"') => {
            let stop = quoted(line, name_at).map_err(|(i, c)| fail(i, c))?;
            (stop, &line[name_at + 1..stop - 1])
        }
        Some(b) if is_name_start(*b) => {
            let stop = run(line, name_at, is_name);
            (stop, &line[name_at..stop])
        }
        _ => {
            return Err(fail(
                name_at,
                format!("expected a metric name after {}", if is_type { "TYPE" } else { "HELP" }),
            ));
        }
    };
    let rest_at = run(line, name_end, is_blank);
    if rest_at == name_end && rest_at < line.len() {
        return Err(fail(
            name_end,
            format!("expected white space after the metric name, got {}", excerpt(&line[name_end..])),
        ));
    }
    let utf8 = |bytes, i, what| {
        std::str::from_utf8(bytes).map_err(|_| fail(i, format!("{what} is not valid UTF-8")))
    };
    let name = unescape(utf8(name_text, name_at, "the metric name")?);
    let rest = utf8(&line[rest_at..], rest_at, "the help text")?;
    if is_help {
        sink.metadata(Metadata::Help(&name, &unescape(rest)));
        return Ok(());
    }
    *kind = match rest.trim_end_matches([' ', '\t']) {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        "untyped" => Kind::Unknown,
        _ => return Err(fail(rest_at, format!("invalid metric type {}", excerpt(rest.as_bytes())))),
    };
    sink.metadata(Metadata::Kind(&name, *kind));
    Ok(())
}
