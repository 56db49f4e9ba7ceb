//! For which times data is there, and how often. Pure.
//!
//! The last hours are cut into columns of equal width. A column is covered when nothing that would be asked for it is
//! away; it has one copy when one more loss could take something; it misses data when an answer would say so; it is
//! empty when nobody ever stored anything then. The worst moment decides. The rules are those of `completeness`.

use koios_cluster::{Member, SoleRange};
use koios_store::CatalogueView;

use super::Facts;
use crate::completeness::{Gap, gaps};

/// Most columns.
pub const COLUMNS_MAX: usize = 500;

/// How well a stretch is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// Nothing was stored.
    Empty,
    /// There, with another copy or in the bucket.
    Covered,
    /// There, on one node only.
    One,
    /// Some of it may be missing.
    Missing,
}

impl Cover {
    /// `none`, `covered`, `single` or `missing`.
    pub fn word(self) -> &'static str {
        match self {
            Cover::Empty => "none",
            Cover::Covered => "covered",
            Cover::One => "single",
            Cover::Missing => "missing",
        }
    }

    /// One character of a strip.
    pub fn glyph(self) -> char {
        match self {
            Cover::Empty => '·',
            Cover::Covered => '█',
            Cover::One => '▄',
            Cover::Missing => '✖',
        }
    }
}

/// One stretch of the strip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// First millisecond.
    pub from: i64,
    /// Last millisecond.
    pub until: i64,
    /// How it is.
    pub cover: Cover,
}

/// A stretch that is not covered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weak {
    /// First millisecond.
    pub from: i64,
    /// Last millisecond.
    pub until: i64,
    /// `One` or `Missing`.
    pub cover: Cover,
    /// Whose fault, in words.
    pub cause: String,
}

/// The strip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// In time order, without holes between them.
    pub columns: Vec<Column>,
    /// Stretches behind the columns that are not covered; the missing ones first, then in time order.
    pub weak: Vec<Weak>,
}

/// Blocks that count and cannot be read, as gaps.
pub(super) fn unreadable_blocks(catalogue: &CatalogueView) -> Vec<Gap> {
    let bad = catalogue.counting().filter(|m| m.resolution() == 0);
    bad.filter_map(|m| {
        let why = catalogue.damaged().get(&m.ulid)?;
        let (from, until) = (m.min_time, m.max_time - 1);
        Some(Gap {
            from,
            until,
            holders: vec![format!("block {}", m.ulid)],
            reason: format!("is damaged: {why}"),
        })
    })
    .collect()
}

/// The strip of the last `window_ms` in `columns` columns (at most `COLUMNS_MAX`, at least one).
pub fn coverage(facts: &Facts<'_>, window_ms: i64, columns: usize) -> Coverage {
    let columns = columns.clamp(1, COLUMNS_MAX) as i64;
    let step = (window_ms / columns).max(1);
    // Columns stay where they are while time goes on, until the next one begins.
    let end = facts.now_ms.div_euclid(step).saturating_add(1).saturating_mul(step);
    let start = end.saturating_sub(step * columns);
    let stored = stored(facts);
    let weak = weak(facts, (start, facts.now_ms), &stored);
    let column = |i: i64| {
        let (from, until) = (start + i * step, start + (i + 1) * step - 1);
        let worst = weak.iter().filter(|w| w.from <= until && w.until >= from).map(|w| w.cover).max();
        let any = stored.iter().any(|(f, u)| *f <= until && *u >= from);
        let cover = worst.unwrap_or(if any { Cover::Covered } else { Cover::Empty });
        Column { from, until, cover }
    };
    Coverage { columns: (0..columns).map(column).collect(), weak }
}

/// Stretches of which somebody says to have something.
fn stored(facts: &Facts<'_>) -> Vec<(i64, i64)> {
    let blocks = facts.catalogue.counting().map(|m| (m.min_time, m.max_time - 1));
    let heads =
        facts.view.members.values().filter_map(|m| Some((m.record.head.min_time?, last_held(facts, m))));
    blocks.chain(heads).collect()
}

fn last_held(facts: &Facts<'_>, m: &Member) -> i64 {
    match m.liveness {
        koios_cluster::Liveness::Alive => facts.now_ms,
        koios_cluster::Liveness::Dead { since } => since,
    }
}

fn weak(facts: &Facts<'_>, (mint, maxt): (i64, i64), stored: &[(i64, i64)]) -> Vec<Weak> {
    // Where nothing was stored nothing is short of a copy, whatever a node that is away may have held.
    let first = stored.iter().map(|s| s.0).min().unwrap_or(i64::MAX).max(mint);
    let mut out = Vec::new();
    let absent = facts.absent();
    let mut missing = gaps(&absent, mint, maxt);
    missing
        .extend(unreadable_blocks(facts.catalogue).into_iter().filter(|g| g.from <= maxt && g.until >= mint));
    if !facts.catalogue.read() {
        let holders = vec![format!("the bucket of {}", facts.view.me)];
        missing.push(Gap { from: mint, until: maxt, holders, reason: "has not been read yet".to_owned() });
    }
    for gap in missing {
        let cause = gap.because();
        push(&mut out, Weak { from: gap.from, until: gap.until, cover: Cover::Missing, cause });
    }
    for a in &absent {
        let Some(from) = a.from else { continue };
        let (from, until) = (from.max(first), a.until.min(maxt));
        if from <= until {
            let cause = format!("{} {}", a.name, a.reason);
            push(&mut out, Weak { from, until, cover: Cover::One, cause });
        }
    }
    for m in facts.view.members.values().filter(|m| m.answers()) {
        for r in &m.record.head.sole {
            let Some(w) = only_here(m, r, mint, maxt) else { continue };
            push(&mut out, w);
        }
    }
    out.sort_by(|a, b| b.cover.cmp(&a.cover).then(a.from.cmp(&b.from)).then(a.cause.cmp(&b.cause)));
    out
}

/// What only one living node may hold. A stretch before anything that it holds is of no interest.
fn only_here(m: &Member, r: &SoleRange, mint: i64, maxt: i64) -> Option<Weak> {
    m.record.may_hold_from()?;
    let (from, until) = (r.from.max(m.record.head.min_time?).max(mint), r.until.min(maxt));
    let cause = format!("only {} holds it", m.name);
    (from <= until).then_some(Weak { from, until, cover: Cover::One, cause })
}

fn push(out: &mut Vec<Weak>, w: Weak) {
    if !out.contains(&w) {
        out.push(w);
    }
}
