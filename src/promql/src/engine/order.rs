//! Inputs in label order.
//!
//! Results must not depend on the order in which series arrive, so each select is sorted first.

use koios_model::Labels;

use crate::api::{Control, SeriesSource};

use super::Res;
use super::work::sorted;

/// What comparing labels as they are stored costs, in units of work.
const COMPARISON: usize = 16;

type Source = Box<dyn SeriesSource>;

/// Sorts series by labels.
pub(super) fn sort_series(list: Vec<Source>, control: &Control) -> Res<Vec<Source>> {
    if list.is_sorted_by(|a, b| a.labels() <= b.labels()) {
        return Ok(list);
    }
    // Labels beside the box spare each comparison two dependent loads.
    let pairs: Vec<(Labels, Source)> = list.into_iter().map(|s| (s.labels().clone(), s)).collect();
    let pairs = sorted(pairs, COMPARISON, control, |a, b| a.0.cmp(&b.0))?;
    Ok(pairs.into_iter().map(|(_, s)| s).collect())
}
