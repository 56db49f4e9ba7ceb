//! Inputs in label order.
//!
//! Results must not depend on the order in which series arrive, so each select is sorted first. In runs, so
//! that a cancelled query does not wait for a million comparisons.

use koios_model::Labels;

use crate::api::{Control, SeriesSource};

use super::Res;

/// Series sorted between two looks at the control block.
const RUN: usize = 8192;

type Source = Box<dyn SeriesSource>;

/// Sorts series by labels.
pub(super) fn sort_series(list: Vec<Source>, control: &Control) -> Res<Vec<Source>> {
    if list.is_sorted_by(|a, b| a.labels() <= b.labels()) {
        return Ok(list);
    }
    // Labels beside the box spare each comparison two dependent loads.
    let mut runs: Vec<Vec<(Labels, Source)>> = Vec::new();
    for (i, source) in list.into_iter().enumerate() {
        if i % RUN == 0 {
            runs.push(Vec::with_capacity(RUN));
        }
        if let Some(run) = runs.last_mut() {
            run.push((source.labels().clone(), source));
        }
    }
    for run in &mut runs {
        control.check()?;
        run.sort_by(|a, b| a.0.cmp(&b.0));
    }
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut rest = runs.into_iter();
        while let Some(a) = rest.next() {
            merged.push(match rest.next() {
                Some(b) => merge(a, b, control)?,
                None => a,
            });
        }
        runs = merged;
    }
    Ok(runs.into_iter().flatten().map(|(_, s)| s).collect())
}

fn merge(
    a: Vec<(Labels, Source)>,
    b: Vec<(Labels, Source)>,
    control: &Control,
) -> Res<Vec<(Labels, Source)>> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        if out.len() % RUN == 0 {
            control.check()?;
        }
        let left = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.0 <= y.0,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return Ok(out),
        };
        out.extend(if left { a.next() } else { b.next() });
    }
}
