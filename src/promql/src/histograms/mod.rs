//! Statistics of histograms, classic (lists of cumulative buckets) and native.
//!
//! Pure functions of one histogram. Interpolation: linear in classic, custom and zero buckets, on a
//! logarithmic scale in exponential ones. Notes for users are raised by the callers.

mod classic;
mod moments;
mod native;
mod trim;

pub(crate) use classic::{Classic, classic_fraction, classic_quantile};
pub(crate) use moments::variance;
pub(crate) use native::{NanEffect, fraction, quantile};
pub(crate) use trim::trim;
