//! `histogram_count`, `_sum`, `_avg`, `_stddev`, `_stdvar`: one float per native histogram.

use koios_model::FloatHistogram;

use crate::api::EvalError;
use crate::engine::{Cell, Ctx, Res, Sink, Timeline};
use crate::histograms::variance;
use crate::plan::Call;

impl Ctx<'_> {
    pub(super) fn histogram_rows(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let f: fn(&FloatHistogram) -> f64 = match c.func.name {
            "histogram_count" => |h| h.count,
            "histogram_sum" => |h| h.sum,
            "histogram_avg" => |h| h.sum / h.count,
            "histogram_stdvar" => variance,
            "histogram_stddev" => |h| variance(h).sqrt(),
            name => return Err(EvalError::exec(format!("function {name:?} does not give a vector"))),
        };
        self.mapped(&c.args[0], tl, true, sink, |_, cell| match cell {
            Cell::Hist(h) => Some(f(h).into()),
            _ => None,
        })
    }
}
