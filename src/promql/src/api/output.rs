//! Results.

use std::sync::Arc;

use koios_model::{FloatHistogram, Labels};

use super::Floats;

/// The value of one sample.
#[derive(Clone, Debug)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One element of an instant vector.
#[derive(Clone, Debug)]
pub struct VectorSample {
    /// Identity.
    pub labels: Labels,
    /// Evaluation time, ms.
    pub t_ms: i64,
    /// Value.
    pub value: SampleValue,
}

/// One series of a matrix. A time is in `floats` or in `histograms`, never in both.
#[derive(Clone, Debug, Default)]
pub struct MatrixSeries {
    /// Identity.
    pub labels: Labels,
    /// Float points, ascending.
    pub floats: Floats,
    /// Histogram points, ascending.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

/// A query result of one of the four types.
#[derive(Clone, Debug)]
pub enum Value {
    /// Time in ms and value.
    Scalar(i64, f64),
    /// Time in ms and text.
    String(i64, String),
    /// Instant vector; ordered only for `sort*`, `topk`, `bottomk`.
    Vector(Vec<VectorSample>),
    /// Range of points per series, sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

/// What the evaluation cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Samples decoded from the inputs.
    pub samples_read: u64,
    /// Samples that selectors handed to functions, summed over steps.
    pub samples_queryable: u64,
    /// Most samples resident at one time.
    pub samples_peak: u64,
    /// Series of all selects.
    pub series: u64,
}

/// Everything an evaluation gives.
#[derive(Clone, Debug)]
pub struct QueryOutput {
    /// The result.
    pub value: Value,
    /// Texts starting with `PromQL warning: `, sorted, each ending in its position `(line:col)`.
    pub warnings: Vec<String>,
    /// Texts starting with `PromQL info: `, likewise.
    pub infos: Vec<String>,
    /// Costs.
    pub stats: QueryStats,
}
