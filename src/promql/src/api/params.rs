//! Query parameters, limits, and the selects a plan asks its caller for.

use koios_model::Matcher;

/// Language behaviour that Prometheus hides behind feature flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Mark metric names for removal and drop them at the very end (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Use start timestamps of samples in counter functions (`use-start-timestamps`).
    pub start_timestamps: bool,
    /// Series carry their type in `__type__`, so that is what tells counters (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
}

impl EngineOptions {
    /// Everything on, as the upstream conformance scripts run.
    pub fn all() -> Self {
        Self { delayed_name_removal: true, start_timestamps: true, type_and_unit_labels: true }
    }
}

/// Hard bounds of one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Samples resident at one time.
    pub samples_max: u64,
    /// Series read by all selects together.
    pub series_max: u64,
    /// Bytes resident at one time.
    pub bytes_max: u64,
    /// Steps of the query or of any subquery.
    pub steps_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { samples_max: 50_000_000, series_max: 10_000_000, bytes_max: 4 << 30, steps_max: 5_000_000 }
    }
}

/// When and how to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryParams {
    /// First evaluation time, ms.
    pub start_ms: i64,
    /// Last evaluation time, ms; equals `start_ms` for an instant query.
    pub end_ms: i64,
    /// Distance of evaluation times, ms; 0 makes an instant query.
    pub step_ms: i64,
    /// How far back an instant selector looks, ms.
    pub lookback_ms: i64,
    /// Step of a subquery that names none, ms.
    pub default_subquery_step_ms: i64,
    /// Feature flags.
    pub options: EngineOptions,
    /// Bounds.
    pub limits: Limits,
}

impl QueryParams {
    /// An instant query with Prometheus' defaults: lookback 5 min, subquery step 1 min.
    pub fn instant(t_ms: i64) -> Self {
        Self::range(t_ms, t_ms, 0)
    }

    /// A range query with the same defaults.
    pub fn range(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        Self {
            start_ms,
            end_ms,
            step_ms,
            lookback_ms: 300_000,
            default_subquery_step_ms: 60_000,
            options: EngineOptions::default(),
            limits: Limits::default(),
        }
    }

    /// Whether this is an instant query.
    pub fn is_instant(&self) -> bool {
        self.step_ms == 0
    }
}

/// What a select is for; storage may use it to read less, never to answer differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The innermost function or aggregation around the selector, empty when none.
    pub func: String,
    /// Labels of the aggregation directly around it.
    pub grouping: Vec<String>,
    /// Whether `grouping` is `by` (else `without`).
    pub by: bool,
    /// Range of a range selector, 0 for an instant one, ms.
    pub range_ms: i64,
    /// Step of the evaluation this select belongs to, ms.
    pub step_ms: i64,
}

/// One set of series a plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// Position in `Plan::selects` and in the inputs of `Plan::evaluate`.
    pub id: usize,
    /// Conditions on labels; all must hold.
    pub matchers: Vec<Matcher>,
    /// First sample time that may matter, ms, inclusive.
    pub min_time_ms: i64,
    /// Last sample time that may matter, ms, inclusive.
    pub max_time_ms: i64,
    /// What it is for.
    pub hints: Hints,
}
