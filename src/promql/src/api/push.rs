//! Parts of a query that are evaluated where the series are.

use koios_model::Labels;

/// A part of a plan that gives one row for each of its series, or for each group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushable {
    /// The only select it reads, by position in `Plan::selects`.
    pub input: usize,
    /// Where it stands in the text: line and column.
    pub place: (u64, u64),
    /// Its rows are those of groups, as far as they go.
    pub partial: bool,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct PushedRow {
    /// Labels of the series, or of the first one of a group: what rows are ordered by.
    pub key: Labels,
    /// Labels of the row.
    pub labels: Labels,
    /// The metric name is to be removed in the end.
    pub drop_name: bool,
    /// A value for each step; a reserved NaN where there is none.
    pub values: Vec<f64>,
}

/// Rows of some of the series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PushedRows {
    /// The rows.
    pub rows: Vec<PushedRow>,
    /// Infos that came up.
    pub infos: Vec<String>,
    /// As in `QueryStats`.
    pub samples_read: u64,
    /// As in `QueryStats`.
    pub samples_queryable: u64,
}
