//! Functions of a range vector: one result per series and step from the samples of a window.

mod extended;
mod extended_hist;
mod extrapolate;
mod fixed;
mod over_time;
mod rate;
mod regression;
mod rolling;
mod starts;
mod sums;
mod transitions;

use hashbrown::HashSet;
use koios_model::Labels;

use crate::api::EvalError;
use crate::engine::{Ctx, Frame, Notes, Point, RangeSeries, Res, Row, Sink, Timeline, Window};
use crate::plan::{Call, MatrixArg};
use crate::syntax::ast::{Edges, Span};
use extrapolate::Reach;
use fixed::Fixed;
use rolling::Rolling;

/// Which computation a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// `rate`, `increase`, `delta`
    Extrapolated {
        counter: bool,
        per_second: bool,
    },
    /// `irate`, `idelta`
    LastTwo {
        rate: bool,
    },
    /// `sum_over_time`, `avg_over_time`
    Sum {
        mean: bool,
    },
    Count,
    Present,
    First,
    Last,
    FirstTime,
    LastTime,
    Extreme {
        max: bool,
    },
    ExtremeTime {
        max: bool,
    },
    Variance {
        root: bool,
    },
    Quantile,
    Mad,
    Changes,
    Resets,
    Deriv,
    Predict,
    Smoothing,
}

/// The kernel of a function.
pub(super) fn kernel(name: &str) -> Option<Kernel> {
    Some(match name {
        "rate" => Kernel::Extrapolated { counter: true, per_second: true },
        "increase" => Kernel::Extrapolated { counter: true, per_second: false },
        "delta" => Kernel::Extrapolated { counter: false, per_second: false },
        "irate" => Kernel::LastTwo { rate: true },
        "idelta" => Kernel::LastTwo { rate: false },
        "sum_over_time" => Kernel::Sum { mean: false },
        "avg_over_time" => Kernel::Sum { mean: true },
        "count_over_time" => Kernel::Count,
        "present_over_time" => Kernel::Present,
        "first_over_time" => Kernel::First,
        "last_over_time" => Kernel::Last,
        "ts_of_first_over_time" => Kernel::FirstTime,
        "ts_of_last_over_time" => Kernel::LastTime,
        "max_over_time" => Kernel::Extreme { max: true },
        "min_over_time" => Kernel::Extreme { max: false },
        "ts_of_max_over_time" => Kernel::ExtremeTime { max: true },
        "ts_of_min_over_time" => Kernel::ExtremeTime { max: false },
        "stddev_over_time" => Kernel::Variance { root: true },
        "stdvar_over_time" => Kernel::Variance { root: false },
        "quantile_over_time" => Kernel::Quantile,
        "mad_over_time" => Kernel::Mad,
        "changes" => Kernel::Changes,
        "resets" => Kernel::Resets,
        "deriv" => Kernel::Deriv,
        "predict_linear" => Kernel::Predict,
        "double_exponential_smoothing" => Kernel::Smoothing,
        _ => return None,
    })
}

/// What kernels know besides the window.
struct Cx<'a> {
    pub notes: &'a Notes,
    /// Of the range argument.
    pub span: Span,
    pub metric: &'a str,
    /// Evaluation time.
    pub t: i64,
    /// Scalar parameters at this step, and where they stand.
    pub params: [f64; 2],
    pub param_span: Span,
    pub edges: Edges,
    pub use_starts: bool,
    /// Distances of the last window of this series.
    pub memo: std::cell::Cell<Reach>,
}

impl Cx<'_> {
    /// Goes to a step.
    #[inline]
    fn at(&mut self, i: usize, tl: &Timeline, params: &[Vec<f64>]) {
        self.t = tl.at(i);
        for (value, values) in self.params.iter_mut().zip(params) {
            *value = values[i];
        }
    }
}

impl Kernel {
    fn eval(self, w: &Window<'_>, cx: &Cx<'_>) -> Res<Option<Point>> {
        let float = |v: Option<f64>| v.map(Point::Float);
        Ok(match self {
            Kernel::Extrapolated { counter, per_second } if cx.edges == Edges::Plain => {
                rate::extrapolated(w, cx, counter, per_second)
            }
            Kernel::Extrapolated { counter, per_second } => extended::rate(w, cx, counter, per_second),
            Kernel::LastTwo { rate } => rate::last_two(w, cx, rate),
            Kernel::Sum { mean } => sums::sum(w, cx, mean),
            Kernel::Count => Some((w.len() as f64).into()),
            Kernel::Present => Some(1.0.into()),
            Kernel::First => w.samples.cell(w.from).to_point(),
            Kernel::Last => w.samples.cell(w.to - 1).to_point(),
            Kernel::FirstTime => Some((w.samples.times[w.from] as f64 / 1000.0).into()),
            Kernel::LastTime => Some((w.samples.times[w.to - 1] as f64 / 1000.0).into()),
            Kernel::Extreme { max } => float(over_time::extreme(w, cx, max)),
            Kernel::ExtremeTime { max } => {
                float(over_time::extreme_time(w, cx, max).map(|t| t as f64 / 1000.0))
            }
            Kernel::Variance { root } => float(over_time::variance(w, cx, root)),
            Kernel::Quantile => float(over_time::quantile_over_time(w, cx)),
            Kernel::Mad => float(over_time::mad(w, cx)),
            Kernel::Changes => float(transitions::changes(w, cx)),
            Kernel::Resets => float(transitions::resets(w, cx)),
            Kernel::Deriv => float(regression::deriv(w, cx)),
            Kernel::Predict => float(regression::predict(w, cx)),
            Kernel::Smoothing => float(regression::smoothing(w, cx)?),
        })
    }

    /// Positions of the range and of the scalar parameters among the arguments.
    fn arguments(self) -> (usize, &'static [usize]) {
        match self {
            Kernel::Quantile => (1, &[0]),
            Kernel::Predict => (0, &[1]),
            Kernel::Smoothing => (0, &[1, 2]),
            _ => (0, &[]),
        }
    }

    fn keeps_name(self) -> bool {
        matches!(self, Kernel::First | Kernel::Last)
    }
}

impl Ctx<'_> {
    /// Rows of a range function.
    pub(super) fn range_rows(&self, c: &Call, kernel: Kernel, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let (range_at, param_at) = kernel.arguments();
        let mut params = Vec::new();
        for &i in param_at {
            params.push(self.scalar(&c.args[i], tl)?);
        }
        let arg = &c.args[range_at];
        let edges = match arg.as_matrix() {
            Some(MatrixArg::Select { select, .. }) => select.edges,
            _ => Edges::Plain,
        };
        let param_span = param_at.first().map_or(arg.span, |i| c.args[*i].span);
        let use_starts = self.plan.params.options.start_timestamps;
        let drop = !kernel.keeps_name();
        let mut seen: Option<HashSet<Labels>> = (!self.stays_unique(arg)).then(HashSet::new);
        let mut windows = Vec::new();
        self.each_range(arg, tl, |series, frame| {
            let mut rolling = Rolling::new(kernel, &series.samples, tl.n);
            let mut cx = Cx {
                notes: &self.notes,
                span: arg.span,
                metric: series.labels.metric_name(),
                t: 0,
                params: [0.0; 2],
                param_span,
                edges,
                use_starts,
                memo: std::cell::Cell::default(),
            };
            let plain = edges == Edges::Plain && series.samples.hists.is_none();
            let row = match (kernel, &mut rolling) {
                (Kernel::Extrapolated { counter, per_second }, _) if plain && !(counter && use_starts) => {
                    let mut rate = rate::Floats { counter, per_second, reach: Reach::default() };
                    self.stepwise_row(series, tl, |steps, slide, col| {
                        rate.fill(&series.samples, (tl, frame), steps, slide, col)
                    })
                }
                (Kernel::Sum { mean: true }, Some(Rolling::Fixed(fixed))) if plain => {
                    self.mean_row(fixed, series, tl, frame, &mut windows)
                }
                (_, Some(rolling)) if plain => self.float_row(series, tl, frame, |i, w| {
                    cx.at(i, tl, &params);
                    Some(rolling.eval(w, &cx))
                }),
                _ => self.window_row(series, tl, frame, |i, w| {
                    cx.at(i, tl, &params);
                    kernel.eval(&w, &cx)
                }),
            }?;
            if row.col.is_empty() {
                return Ok(());
            }
            if matches!(c.func.name, "rate" | "increase") {
                self.check_counter(&row, arg.span);
            }
            let unseen = c.name_unseen && seen.is_none() && !self.delayed() && !row.col.has_hists();
            let row = if drop && !unseen { self.unnamed(row) } else { row };
            if let Some(seen) = &mut seen
                && !seen.insert(row.labels.clone())
            {
                return Err(EvalError::exec("vector cannot contain metrics with the same labelset"));
            }
            sink(row)
        })
    }

    /// Means of all windows of a series; `windows` is scratch.
    fn mean_row(
        &self,
        fixed: &Fixed,
        series: &RangeSeries<'_>,
        tl: &Timeline,
        frame: &Frame,
        windows: &mut Vec<(usize, usize, usize)>,
    ) -> Res<Row> {
        windows.clear();
        let mut row = self.float_row(series, tl, frame, |i, w| {
            windows.push((i, w.from, w.to));
            None
        })?;
        fixed.means(&series.samples.values, windows, |i, mean| row.col.set_float(i, mean));
        Ok(row)
    }

    /// A counter of floats should look like one by name or type.
    fn check_counter(&self, row: &Row, span: Span) {
        let metric = row.labels.metric_name();
        if metric.is_empty() || row.col.has_hists() {
            return;
        }
        if self.plan.params.options.type_and_unit_labels {
            let ty = row.labels.value("__type__");
            if !matches!(ty, "counter" | "histogram") {
                self.notes.possible_non_counter_label(span, metric, ty);
            }
            return;
        }
        if !["_total", "_sum", "_count", "_bucket"].iter().any(|s| metric.ends_with(s)) {
            self.notes.possible_non_counter(span, metric);
        }
    }
}
