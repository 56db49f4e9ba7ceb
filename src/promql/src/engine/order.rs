//! Inputs in label order.
//!
//! Results must not depend on the order in which series arrive, so each select is sorted first.

use koios_model::Labels;

use crate::api::{Control, EvalError, SeriesSet};

use super::Res;
use super::work::sorted;

/// What comparing labels as they are stored costs, in units of work.
const COMPARISON: usize = 16;

/// The series of a select, and the order in which they are looked at.
pub(crate) struct Input {
    pub set: Box<dyn SeriesSet>,
    /// Positions in label order, where the set has another one.
    order: Option<Vec<usize>>,
}

impl Input {
    /// Puts a set in order.
    pub(super) fn new(set: Box<dyn SeriesSet>, control: &Control) -> Res<Self> {
        if set.is_sorted() {
            return Ok(Self { set, order: None });
        }
        let mut reader = set.reader(None);
        let pair = |at| Ok((reader.labels(at).map_err(EvalError::Source)?, at));
        let pairs = (0..set.len()).map(pair).collect::<Res<Vec<(Labels, usize)>>>()?;
        drop(reader);
        let pairs = sorted(pairs, COMPARISON, control, |a, b| a.0.cmp(&b.0))?;
        Ok(Self { set, order: Some(pairs.into_iter().map(|(_, at)| at).collect()) })
    }

    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Where the set has the series that comes as number `i`.
    pub fn position(&self, i: usize) -> usize {
        self.order.as_ref().map_or(i, |order| order[i])
    }
}
