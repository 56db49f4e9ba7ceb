//! Every sample as a line of text.
//!
//! Blocks that another one supersedes and downsampled ones are left out. Where the blocks come from several producers
//! (other external labels), each one's samples are shown apart and carry those labels; of one producer they do not, as
//! in promtool.

use std::collections::BTreeMap;
use std::io::Write;

use koios_block::Block;
use koios_chunk::Typed;
use koios_model::format::{float_f, float_g};
use koios_model::{Labels, LabelsBuilder, METRIC_NAME, Matcher};

use super::{ShowError, Shown};
use crate::error::CompactError;
use crate::merge::{How, merged_chunks};
use crate::walk::Walk;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DumpFormat {
    /// `{__name__="m", a="1"} 1.5 1700000000000`.
    #[default]
    Prometheus,
    /// `m{a="1"} 1.5 1700000000.000`, floats only, closed by `# EOF`.
    OpenMetrics,
}

/// What is dumped.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// First time, milliseconds.
    pub min_time: i64,
    /// Last time, inclusive.
    pub max_time: i64,
    /// Sets of matchers; a series is shown when it satisfies all of one. None shows everything.
    pub sets: Vec<Vec<Matcher>>,
    /// How.
    pub format: DumpFormat,
}

impl Default for DumpOptions {
    fn default() -> Self {
        Self { min_time: i64::MIN, max_time: i64::MAX, sets: Vec::new(), format: DumpFormat::default() }
    }
}

/// Writes all samples, series in label order.
///
/// # Errors
/// `ShowError`; what was written before the damage stands.
pub fn dump(shown: &Shown, options: &DumpOptions, out: &mut dyn Write) -> Result<(), ShowError> {
    let counts = |b: &&Block| {
        b.meta().resolution() == 0 && !shown.blocks.iter().any(|o| o.meta().supersedes(b.meta()))
    };
    let mut streams: BTreeMap<BTreeMap<String, String>, Vec<&Block>> = BTreeMap::new();
    for block in shown.blocks.iter().filter(counts) {
        if block.meta().overlaps(options.min_time, options.max_time) {
            streams.entry(block.meta().external_labels()).or_default().push(block);
        }
    }
    let several = streams.len() > 1;
    for (external, blocks) in streams {
        let none = BTreeMap::new();
        stream(&blocks, if several { &external } else { &none }, options, out)?;
    }
    if options.format == DumpFormat::OpenMetrics {
        writeln!(out, "# EOF")?;
    }
    Ok(())
}

fn stream(
    blocks: &[&Block],
    external: &BTreeMap<String, String>,
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<(), ShowError> {
    // Several sets are tested here: a series may satisfy more than one and is shown once.
    let single: &[Matcher] = match &options.sets[..] {
        [only] => only,
        _ => &[],
    };
    let mut walk = Walk::new(blocks.to_vec(), single)?;
    while let Some((labels, parts)) = walk.next_series()? {
        let fits = |set: &Vec<Matcher>| set.iter().all(|m| m.matches(labels.value(&m.name)));
        if options.sets.len() > 1 && !options.sets.iter().any(fits) {
            continue;
        }
        let at = parts.first().map_or(0, |p| p.0);
        let mut chunks = merged_chunks(blocks, &labels, parts, How::Exact)?;
        chunks.retain(|c| c.overlaps(options.min_time, options.max_time));
        let mut shown = LabelsBuilder::from_labels(&labels);
        external.iter().for_each(|(n, v)| {
            shown.set(n, v);
        });
        let head = line_head(&shown.build(), options.format);
        for chunk in chunks {
            let samples = chunk.typed().map_err(|source| {
                CompactError::of(blocks[at].meta().ulid)(koios_block::BlockError::Chunk {
                    reference: 0,
                    source,
                })
            })?;
            for (t, v) in samples {
                if (options.min_time..=options.max_time).contains(&t) {
                    line(&head, t, &v, options.format, out)?;
                }
            }
        }
    }
    Ok(())
}

fn line_head(labels: &Labels, format: DumpFormat) -> String {
    if format == DumpFormat::OpenMetrics {
        let rest = quoted(labels.iter().filter(|(n, _)| *n != METRIC_NAME));
        return format!("{}{rest}", labels.metric_name());
    }
    quoted(labels.iter())
}

fn quoted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let quote = koios_model::format::go_quote;
    let name = |n: &str| match koios_model::labels::is_legacy_label_name(n) {
        true => n.to_owned(),
        false => quote(n),
    };
    let pairs: Vec<String> = pairs.map(|(n, v)| format!("{}={}", name(n), quote(v))).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn line(head: &str, t: i64, v: &Typed, format: DumpFormat, out: &mut dyn Write) -> std::io::Result<()> {
    match (format, v) {
        (DumpFormat::OpenMetrics, Typed::Float(v)) => {
            let (s, ms) = (t.div_euclid(1000), t.rem_euclid(1000));
            writeln!(out, "{head} {} {s}.{ms:03}", float_f(*v))
        }
        (DumpFormat::OpenMetrics, _) => Ok(()),
        (_, Typed::Float(v)) => writeln!(out, "{head} {} {t}", float_g(*v)),
        (_, Typed::Histogram(h)) => writeln!(out, "{head} {} {t}", h.to_float()),
        (_, Typed::FloatHistogram(h)) => writeln!(out, "{head} {h} {t}"),
    }
}
