//! What a recording rule gives at one moment: a pure function of its inputs.

use std::collections::BTreeSet;

use koios_model::{Labels, LabelsBuilder, METRIC_NAME, stale_nan};
use koios_promql::{Control, EvalError, Expr, Plan, QueryParams, SampleValue, Value, VectorSample};

use crate::file::{Group, Rule};
use crate::store::{Input, SeriesStore, Written};

/// The series of one evaluation.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Identity after the rule's labels were set.
    pub labels: Labels,
    /// Value.
    pub value: SampleValue,
}

/// Evaluates an expression at one moment as a vector; a scalar becomes an element without labels.
///
/// # Errors
/// As an evaluation, and for other types of result.
pub fn query(
    expr: &Expr,
    params: &QueryParams,
    input: &dyn Input,
    until_ms: i64,
) -> Result<Vec<VectorSample>, EvalError> {
    let plan = Plan::new(expr, params)?;
    let inputs = plan.selects().iter().map(|s| input.select(s, until_ms)).collect();
    match plan.evaluate(inputs, &Control::new())?.value {
        Value::Vector(v) => Ok(v),
        Value::Scalar(t_ms, v) => {
            Ok(vec![VectorSample { labels: Labels::empty(), t_ms, value: SampleValue::Float(v) }])
        }
        _ => Err(EvalError::Execution("rule result is not a vector or scalar".to_owned())),
    }
}

/// What `rule` records at `t_ms`.
///
/// # Errors
/// As an evaluation; when two elements end up with the same labels; when there are more than the limit.
pub fn record(
    rule: &Rule,
    limit: u64,
    params: &QueryParams,
    input: &dyn Input,
    until_ms: i64,
) -> Result<Vec<Recorded>, EvalError> {
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    for sample in query(&rule.expr, params, input, until_ms)? {
        let mut builder = LabelsBuilder::from_labels(&sample.labels);
        builder.set(METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            builder.set(name, value);
        }
        let labels = builder.build();
        if !seen.insert(labels.clone()) {
            let text = "vector contains metrics with the same labelset after applying rule labels";
            return Err(EvalError::Execution(text.to_owned()));
        }
        out.push(Recorded { labels, value: sample.value });
    }
    if limit > 0 && out.len() as u64 > limit {
        return Err(EvalError::Execution(format!("exceeded limit of {limit} with {} series", out.len())));
    }
    Ok(out)
}

/// A group over time: knows which series its rules gave last, to mark those stale that are gone.
pub struct Runner {
    group: Group,
    before: Vec<BTreeSet<Labels>>,
}

impl Runner {
    /// Before the first evaluation.
    pub fn new(group: Group) -> Self {
        let before = vec![BTreeSet::new(); group.rules.len()];
        Self { group, before }
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Evaluates the recording rules in order and writes what they give at `t_ms`; a failed rule writes
    /// nothing and does not stop the others.
    ///
    /// # Errors
    /// The names of rules that failed, and why.
    pub fn run(
        &mut self,
        t_ms: i64,
        params: &QueryParams,
        store: &mut SeriesStore,
    ) -> Result<(), Vec<(String, EvalError)>> {
        let at = t_ms.saturating_sub(self.group.offset_ms);
        let params = QueryParams { start_ms: at, end_ms: at, step_ms: 0, ..params.clone() };
        let mut faults = Vec::new();
        for (rule, before) in self.group.rules.iter().zip(&mut self.before).filter(|(r, _)| !r.alert) {
            let recorded = match record(rule, self.group.limit, &params, store, t_ms) {
                Ok(recorded) => recorded,
                Err(e) => {
                    faults.push((rule.name.clone(), e));
                    continue;
                }
            };
            let mut now = BTreeSet::new();
            for r in recorded {
                let value = match r.value {
                    SampleValue::Float(v) => Written::Float(v),
                    SampleValue::Histogram(h) => Written::Histogram(h),
                };
                store.append(&r.labels, at, value);
                now.insert(r.labels);
            }
            for gone in before.difference(&now) {
                store.append(gone, at, Written::Float(stale_nan()));
            }
            *before = now;
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}
