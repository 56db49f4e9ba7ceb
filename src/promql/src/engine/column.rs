//! Values over the steps of an evaluation.
//!
//! A column has one cell per step. Absence and "a histogram is here" are two NaN payloads in the float
//! array that no stored sample can have, so a float-only column is one flat array without a bitmap.

use std::sync::Arc;

use koios_model::{FloatHistogram, Labels};

use crate::api::ABSENT;

const HISTOGRAM: u64 = 0x7ff4_0000_0000_4157;

/// One cell, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    None,
    Float(f64),
    Hist(&'a Arc<FloatHistogram>),
}

/// One cell, owned.
#[derive(Clone, Debug)]
pub(crate) enum Point {
    Float(f64),
    Hist(Arc<FloatHistogram>),
}

impl From<f64> for Point {
    fn from(v: f64) -> Self {
        Point::Float(v)
    }
}

impl From<FloatHistogram> for Point {
    fn from(h: FloatHistogram) -> Self {
        Point::Hist(Arc::new(h))
    }
}

impl Cell<'_> {
    pub fn is_some(&self) -> bool {
        !matches!(self, Cell::None)
    }

    pub fn to_point(self) -> Option<Point> {
        match self {
            Cell::None => None,
            Cell::Float(v) => Some(Point::Float(v)),
            Cell::Hist(h) => Some(Point::Hist(h.clone())),
        }
    }
}

/// Values of one series over all steps.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    values: Vec<f64>,
    hists: Option<Vec<Option<Arc<FloatHistogram>>>>,
}

impl Column {
    /// A column without any value.
    pub fn absent(steps: usize) -> Self {
        Self { values: vec![f64::from_bits(ABSENT); steps], hists: None }
    }

    /// A column of floats, all present.
    pub fn floats(mut values: Vec<f64>) -> Self {
        for v in &mut values {
            *v = sane(*v);
        }
        Self { values, hists: None }
    }

    /// A column from what `into_raw` gave, here or elsewhere.
    pub fn of_raw(values: Vec<f64>) -> Self {
        Self { values, hists: None }
    }

    /// The float array of a column without histograms.
    pub fn into_raw(self) -> Vec<f64> {
        self.values
    }

    /// The float array; `is_present` tells which of a column without histograms are values.
    pub fn raw(&self) -> &[f64] {
        &self.values
    }

    /// Whether an element of `raw` is a value.
    #[inline]
    pub fn is_present(v: f64) -> bool {
        v.to_bits() != ABSENT
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub fn get(&self, i: usize) -> Cell<'_> {
        let v = self.values[i];
        match v.to_bits() {
            ABSENT => Cell::None,
            HISTOGRAM => match self.hists.as_ref().and_then(|h| h[i].as_ref()) {
                Some(h) => Cell::Hist(h),
                None => Cell::None,
            },
            _ => Cell::Float(v),
        }
    }

    #[inline]
    pub fn set(&mut self, i: usize, p: Point) {
        match p {
            Point::Float(v) => self.set_float(i, v),
            Point::Hist(h) => self.set_hist(i, h),
        }
    }

    #[inline]
    pub fn set_float(&mut self, i: usize, v: f64) {
        self.values[i] = sane(v);
    }

    pub fn set_hist(&mut self, i: usize, h: Arc<FloatHistogram>) {
        let n = self.values.len();
        self.hists.get_or_insert_with(|| vec![None; n])[i] = Some(h);
        self.values[i] = f64::from_bits(HISTOGRAM);
    }

    /// Whether no step has a value.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|v| v.to_bits() == ABSENT)
    }

    /// Whether any value is a histogram.
    pub fn has_hists(&self) -> bool {
        self.hists.is_some()
    }

    /// The steps that have a value.
    pub fn present(&self) -> impl Iterator<Item = (usize, Cell<'_>)> + '_ {
        (0..self.values.len()).filter_map(|i| {
            let c = self.get(i);
            c.is_some().then_some((i, c))
        })
    }

    /// Every value through `f`; `None` removes it.
    pub fn map(&self, mut f: impl FnMut(usize, Cell<'_>) -> Option<Point>) -> Self {
        let mut out = Self::absent(self.len());
        for (i, c) in self.present() {
            if let Some(p) = f(i, c) {
                out.set(i, p);
            }
        }
        out
    }

    /// Leaves only the steps at which another column has a value as well; both without histograms.
    pub fn meet_floats(&mut self, other: &Self) {
        for (v, o) in self.values.iter_mut().zip(&other.values) {
            if !Self::is_present(*o) {
                *v = f64::from_bits(ABSENT);
            }
        }
    }

    /// Every float through `f`, in place; only for columns without histograms.
    #[inline]
    pub fn map_floats(&mut self, mut f: impl FnMut(usize, f64) -> f64) {
        for (i, v) in self.values.iter_mut().enumerate().filter(|(_, v)| Self::is_present(**v)) {
            *v = sane(f(i, *v));
        }
    }

    /// A column of one step, copied to `n` steps.
    pub fn repeat(&self, n: usize) -> Self {
        let hists = self.hists.as_ref().map(|h| vec![h[0].clone(); n]);
        Self { values: vec![self.values[0]; n], hists }
    }

    /// How many samples this counts for.
    pub fn weight(&self) -> u64 {
        let hists = self.hists.as_ref().map_or(0, |h| h.iter().flatten().map(|h| h.size_in_samples()).sum());
        (self.values.len() + hists) as u64
    }

    /// Takes over the values of `other` where this has none; false when both have one at a step.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut disjoint = true;
        for (i, c) in other.present() {
            disjoint &= !self.get(i).is_some();
            if let Some(p) = c.to_point() {
                self.set(i, p);
            }
        }
        disjoint
    }
}

/// Keeps the two reserved payloads out.
#[inline]
fn sane(v: f64) -> f64 {
    if v.to_bits() == ABSENT || v.to_bits() == HISTOGRAM { f64::NAN } else { v }
}

/// One series of an intermediate result.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub labels: Labels,
    /// The metric name and its metadata are to be removed at the end.
    pub drop_name: bool,
    pub col: Column,
}

impl Row {
    /// What is left where a row was taken away.
    pub fn nothing() -> Self {
        Self { labels: Labels::empty(), drop_name: false, col: Column::absent(0) }
    }
}
