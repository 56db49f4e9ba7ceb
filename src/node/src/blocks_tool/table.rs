//! Blocks as rows.
//!
//! Owns the columns, Thanos' `inspect` has the same names, and their order when sorted. Text for people is padded, text for
//! programs is CSV (RFC 4180) or a meta.json a line.

use std::io::Write;

use koios_model::duration::format_duration;
use koios_model::timestamp::rfc3339;

use super::{Found, Output};

const COLUMNS: [&str; 13] = [
    "ULID",
    "FROM",
    "UNTIL",
    "RANGE",
    "COMP-LEVEL",
    "RESOLUTION",
    "#SERIES",
    "#SAMPLES",
    "#CHUNKS",
    "COMP-FAILED",
    "SOURCE",
    "LABELS",
    "MARKS",
];

fn row(f: &Found) -> [String; 13] {
    let m = &f.meta;
    let labels: Vec<String> = m.external_labels().iter().map(|(n, v)| format!("{n}={v}")).collect();
    [
        m.ulid.to_string(),
        rfc3339(m.min_time),
        rfc3339(m.max_time),
        format_duration(m.max_time.saturating_sub(m.min_time)),
        m.compaction.level.to_string(),
        format_duration(m.resolution()),
        m.stats.num_series.to_string(),
        m.stats.num_samples.to_string(),
        m.stats.num_chunks.to_string(),
        m.compaction.failed.to_string(),
        m.thanos.as_ref().map_or_else(String::new, |t| t.source.clone()),
        labels.join(","),
        f.marks.iter().copied().collect::<Vec<_>>().join(","),
    ]
}

/// By columns, the first named first; numbers and times by size.
pub(super) fn sort(found: &mut [Found], by: &[String]) -> Result<(), String> {
    let mut columns = Vec::new();
    for name in by {
        let wanted = COLUMNS.iter().position(|c| c.eq_ignore_ascii_case(name));
        columns.push(wanted.ok_or_else(|| {
            format!("--sort-by {name}: no such column; fix: use one of {}", COLUMNS.join(", "))
        })?);
    }
    let key = |f: &Found| -> Vec<(i128, String)> {
        let (m, row) = (&f.meta, row(f));
        let one = |c: &usize| {
            let number = match *c {
                1 => i128::from(m.min_time),
                2 => i128::from(m.max_time),
                3 => i128::from(m.max_time) - i128::from(m.min_time),
                5 => i128::from(m.resolution()),
                c => row[c].parse().unwrap_or(0),
            };
            (number, row[*c].clone())
        };
        columns.iter().map(one).collect()
    };
    found.sort_by_cached_key(key);
    Ok(())
}

/// Writes all of them.
pub(super) fn write(found: &[Found], output: Output, out: &mut dyn Write) -> Result<(), String> {
    let header = COLUMNS.map(str::to_owned);
    let mut lines: Vec<String> = Vec::with_capacity(found.len() + 1);
    match output {
        Output::Json => {
            for f in found {
                lines.push(serde_json::to_string(&*f.meta).map_err(|e| e.to_string())?);
            }
        }
        Output::Csv => {
            lines.push(csv(&header));
            lines.extend(found.iter().map(|f| csv(&row(f))));
        }
        Output::Wide | Output::Table => {
            let rows: Vec<_> = std::iter::once(header).chain(found.iter().map(row)).collect();
            let widths: Vec<usize> = (0..COLUMNS.len())
                .map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0))
                .collect();
            for r in &rows {
                let cells: Vec<String> = r.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
                lines.push(cells.join("  ").trim_end().to_owned());
            }
        }
    }
    lines.iter().try_for_each(|l| writeln!(out, "{l}")).map_err(|e| format!("output: {e}"))
}

fn csv(row: &[String; 13]) -> String {
    let cell = |c: &String| match c.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", c.replace('"', "\"\"")),
        false => c.clone(),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(",")
}
