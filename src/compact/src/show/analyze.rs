//! Which labels make a block large: churn, cardinality, fullness of chunks.
//!
//! Numbers are promtool's: a series churns by the share of the block's time that it does not cover.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use koios_block::{Block, PostingsSource as _};
use koios_model::{METRIC_NAME, Matcher};

use super::{ShowError, go_duration};
use crate::error::CompactError;

/// A chunk with as many samples is full.
const FULL: usize = 120;
const BUCKETS: usize = 10;

/// What an analysis found; every list is sorted, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// Series in the block.
    pub total_series: u64,
    /// Series looked at, when matchers were given.
    pub matched_series: Option<u64>,
    /// Distinct label names.
    pub label_names: usize,
    /// Distinct label pairs.
    pub pairs: usize,
    /// Label pairs of all series.
    pub entries: u64,
    /// Title and items of each list.
    pub lists: Vec<(&'static str, Vec<(u64, String)>)>,
    /// Chunks by tenths of fullness, with the extended analysis.
    pub fullness: Option<[u64; BUCKETS]>,
}

#[derive(Default)]
struct Counts {
    names: HashMap<String, u64>,
    /// Uncovered milliseconds and number of series of each pair.
    pairs: HashMap<String, (u64, u64)>,
    values: BTreeMap<String, BTreeMap<String, u64>>,
    entries: u64,
    series: u64,
}

/// Analyses a block, or what of it satisfies all matchers. `extended` reads every chunk.
///
/// # Errors
/// `ShowError::Blocks`.
pub fn analyze(block: &Block, matchers: &[Matcher], extended: bool) -> Result<Analysis, ShowError> {
    let of = CompactError::of(block.meta().ulid);
    let numbers = block.index().select(matchers).map_err(&of)?;
    let span = block.meta().max_time.saturating_sub(block.meta().min_time).max(0) as u64;
    let mut counts = Counts { series: numbers.len() as u64, ..Counts::default() };
    let mut fullness = extended.then_some([0u64; BUCKETS]);
    for number in numbers {
        let entry = block.index().series(number).map_err(&of)?;
        let covered = entry.chunks.first().zip(entry.chunks.last());
        let covered = covered.map_or(0, |(a, b)| b.max_time.saturating_sub(a.min_time).max(0) as u64);
        let uncovered = span.saturating_sub(covered);
        for (name, value) in &entry.labels {
            counts.entries += 1;
            *counts.names.entry(name.to_owned()).or_default() += uncovered;
            let pair = counts.pairs.entry(format!("{name}={value}")).or_default();
            *pair = (pair.0 + uncovered, pair.1 + 1);
            *counts.values.entry(name.to_owned()).or_default().entry(value.to_owned()).or_default() += 1;
        }
        if let Some(fullness) = &mut fullness {
            let (_, chunks) = block.series_chunks(number).map_err(&of)?;
            for n in chunks.iter().filter_map(|c| c.sample_count()) {
                fullness[(BUCKETS * n.min(FULL) / FULL).min(BUCKETS - 1)] += 1;
            }
        }
    }
    let total = block.index().all().map_err(&of)?.len() as u64;
    Ok(summary(&counts, span.max(1), total, !matchers.is_empty(), fullness))
}

fn summary(c: &Counts, span: u64, total: u64, matched: bool, fullness: Option<[u64; BUCKETS]>) -> Analysis {
    let sorted = |items: Vec<(u64, String)>| {
        let mut items = items;
        items.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        items
    };
    let share = |uncovered: u64| (uncovered as f64 / span as f64) as u64;
    let of_pairs = |n: &dyn Fn(&(u64, u64)) -> u64| c.pairs.iter().map(|(p, v)| (n(v), p.clone())).collect();
    let of_values = |n: &dyn Fn(&BTreeMap<String, u64>) -> u64| {
        c.values.iter().map(|(name, v)| (n(v), name.clone())).collect()
    };
    let metrics = c.values.get(METRIC_NAME).into_iter().flatten();
    let lists = vec![
        ("Label pairs most involved in churning", sorted(of_pairs(&|v| share(v.0)))),
        (
            "Label names most involved in churning",
            sorted(c.names.iter().map(|(n, u)| (share(*u), n.clone())).collect()),
        ),
        ("Most common label pairs", sorted(of_pairs(&|v| v.1))),
        (
            "Label names with highest cumulative label value length",
            sorted(of_values(&|v| v.keys().map(|value| value.len() as u64).sum())),
        ),
        ("Highest cardinality labels", sorted(of_values(&|v| v.len() as u64))),
        ("Highest cardinality metric names", sorted(metrics.map(|(n, count)| (*count, n.clone())).collect())),
    ];
    Analysis {
        total_series: total,
        matched_series: matched.then_some(c.series),
        label_names: c.values.len(),
        pairs: c.pairs.len(),
        entries: c.entries,
        lists,
        fullness,
    }
}

impl Analysis {
    /// Writes it; at most `limit` items a list.
    ///
    /// # Errors
    /// `ShowError::Output`.
    pub fn write(&self, block: &Block, limit: usize, out: &mut dyn Write) -> Result<(), ShowError> {
        let m = block.meta();
        writeln!(out, "Block ID: {}", m.ulid)?;
        writeln!(out, "Duration: {}", go_duration(m.max_time - m.min_time))?;
        writeln!(out, "Total Series: {}", self.total_series)?;
        if let Some(n) = self.matched_series {
            writeln!(out, "Matched Series: {n}")?;
        }
        writeln!(out, "Label names: {}", self.label_names)?;
        writeln!(out, "Postings (unique label pairs): {}", self.pairs)?;
        writeln!(out, "Postings entries (total label pairs): {}", self.entries)?;
        for (title, items) in &self.lists {
            writeln!(out, "\n{title}:")?;
            for (n, text) in items.iter().take(limit) {
                writeln!(out, "{n} {text}")?;
            }
        }
        if let Some(fullness) = &self.fullness {
            writeln!(out, "\nCompaction analysis:")?;
            writeln!(out, "Fullness: Amount of samples in chunks (100% is {FULL} samples)")?;
            let chunks: u64 = fullness.iter().sum();
            for (i, n) in fullness.iter().enumerate() {
                let percent = (100 * n).checked_div(chunks).unwrap_or(0) as usize;
                writeln!(out, "{:>7}%: {}", (i + 1) * 10, "#".repeat(percent))?;
            }
        }
        Ok(())
    }
}
