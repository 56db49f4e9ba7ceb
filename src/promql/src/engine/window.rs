//! Range vectors: the samples of one series and the windows that functions look at.

use std::sync::Arc;

use koios_model::{Columns, CounterReset, FloatHistogram, Labels, is_stale};

use crate::api::EvalError;
use crate::plan::{MatrixArg, Node, SubqueryNode};
use crate::syntax::ast::Edges;

use super::{Cell, Ctx, Point, Res, Row, Timeline};

/// Units of work of one sample in a window, more when it is a histogram.
const SAMPLE_WORK: usize = 4;
const HISTOGRAM_WORK: usize = 512;
/// Units that are counted here before they go to the common count.
const WORK_UNSEEN: usize = 1 << 15;

/// The samples of one series without stale markers.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub times: Vec<i64>,
    /// A histogram's value here is its sum.
    pub values: Vec<f64>,
    pub hists: Option<Vec<Option<Arc<FloatHistogram>>>>,
    pub starts: Option<Vec<i64>>,
    /// Number of histograms before each position, when there are any.
    hist_counts: Vec<u32>,
    /// Positions of floats that are smaller than the one before.
    pub drops: Vec<u32>,
}

impl Samples {
    fn from_columns(c: &mut Columns) -> Self {
        if c.values.iter().any(|v| is_stale(*v)) {
            let keep: Vec<bool> = c.values.iter().map(|v| !is_stale(*v)).collect();
            retain(&mut c.times, &keep);
            retain(&mut c.values, &keep);
            if let Some(h) = &mut c.histograms {
                retain(h, &keep);
            }
            if let Some(s) = &mut c.starts {
                retain(s, &keep);
            }
        }
        let mut out = Self {
            times: std::mem::take(&mut c.times),
            values: std::mem::take(&mut c.values),
            hists: c.histograms.take(),
            starts: c.starts.take(),
            ..Self::default()
        };
        out.index();
        out
    }

    /// Gives the memory back for the next series.
    fn recycle(self, c: &mut Columns) {
        c.times = self.times;
        c.values = self.values;
    }

    /// The results of a subquery. Samples may repeat there, so reset hints mean nothing any more.
    fn from_row(ctx: &Ctx<'_>, row: &Row, tl: &Timeline) -> Res<Self> {
        let mut out = Self::default();
        for (n, (i, c)) in row.col.present().enumerate() {
            if n % WORK_UNSEEN == 0 {
                ctx.work(SAMPLE_WORK * WORK_UNSEEN.min(row.col.len()))?;
            }
            out.times.push(tl.at(i));
            match c {
                Cell::Float(v) => out.push(v, None),
                Cell::Hist(h) if matches!(h.hint, CounterReset::Reset | CounterReset::NotReset) => {
                    let mut h = (**h).clone();
                    h.hint = CounterReset::Unknown;
                    out.push(h.sum, Some(Arc::new(h)));
                }
                Cell::Hist(h) => out.push(h.sum, Some(h.clone())),
                Cell::None => {}
            }
        }
        out.index();
        Ok(out)
    }

    fn push(&mut self, value: f64, hist: Option<Arc<FloatHistogram>>) {
        let before = self.values.len();
        self.values.push(value);
        if hist.is_some() && self.hists.is_none() {
            self.hists = Some(vec![None; before]);
        }
        if let Some(h) = &mut self.hists {
            h.push(hist);
        }
    }

    fn index(&mut self) {
        if let Some(hists) = &self.hists {
            let mut n = 0;
            self.hist_counts = Vec::with_capacity(hists.len() + 1);
            self.hist_counts.push(0);
            for h in hists {
                n += u32::from(h.is_some());
                self.hist_counts.push(n);
            }
        } else {
            let pairs = self.values.windows(2).enumerate();
            // Most series have none, and counting is faster than looking for them.
            let drops = self.values.windows(2).filter(|w| w[1] < w[0]).count();
            if drops > 0 {
                self.drops.reserve_exact(drops);
                self.drops.extend(pairs.filter(|(_, w)| w[1] < w[0]).map(|(i, _)| i as u32 + 1));
            }
        }
    }

    fn hists_in(&self, from: usize, to: usize) -> usize {
        if self.hists.is_none() { 0 } else { (self.hist_counts[to] - self.hist_counts[from]) as usize }
    }

    /// Position and value of every sample.
    pub fn cell(&self, i: usize) -> Cell<'_> {
        match self.hists.as_ref().and_then(|h| h[i].as_ref()) {
            Some(h) => Cell::Hist(h),
            None => Cell::Float(self.values[i]),
        }
    }
}

fn retain<T>(v: &mut Vec<T>, keep: &[bool]) {
    let mut i = 0;
    v.retain(|_| {
        i += 1;
        keep[i - 1]
    });
}

/// The samples a range function sees at one step.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub samples: &'a Samples,
    /// First and one past the last position.
    pub from: usize,
    pub to: usize,
    /// Bounds of the range, left-open.
    pub start: i64,
    pub end: i64,
    /// How many of the samples are histograms.
    pub hist_count: usize,
}

impl<'a> Window<'a> {
    pub fn len(&self) -> usize {
        self.to - self.from
    }

    pub fn float_count(&self) -> usize {
        self.len() - self.hist_count
    }

    /// Both kinds present.
    pub fn is_mixed(&self) -> bool {
        self.hist_count > 0 && self.float_count() > 0
    }

    pub fn times(&self) -> &'a [i64] {
        &self.samples.times[self.from..self.to]
    }

    /// Values of all samples; only meaningful as floats when there is no histogram.
    pub fn values(&self) -> &'a [f64] {
        &self.samples.values[self.from..self.to]
    }

    /// The floats with their times, copied only when histograms stand between them.
    pub fn floats(&self) -> (std::borrow::Cow<'a, [i64]>, std::borrow::Cow<'a, [f64]>) {
        use std::borrow::Cow;
        if self.hist_count == 0 {
            return (Cow::Borrowed(self.times()), Cow::Borrowed(self.values()));
        }
        let picked = (self.from..self.to).filter(|&i| matches!(self.samples.cell(i), Cell::Float(_)));
        let (t, v): (Vec<i64>, Vec<f64>) =
            picked.map(|i| (self.samples.times[i], self.samples.values[i])).unzip();
        (Cow::Owned(t), Cow::Owned(v))
    }

    /// The histograms in order.
    pub fn hists(&self) -> Vec<&'a Arc<FloatHistogram>> {
        match &self.samples.hists {
            Some(h) => h[self.from..self.to].iter().flatten().collect(),
            None => Vec::new(),
        }
    }

    pub fn start_of(&self, i: usize) -> i64 {
        self.samples.starts.as_ref().map_or(0, |s| s[i])
    }

    pub fn range_ms(&self) -> i64 {
        self.end - self.start
    }
}

/// Where the windows of a range vector lie.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    at: Option<i64>,
    offset: i64,
    range: i64,
    /// How far samples before the start and after the end count as well.
    back: i64,
    ahead: i64,
}

impl Frame {
    /// Bounds of the window of an evaluation at `t`, left-open.
    #[inline]
    pub fn bounds(&self, t: i64) -> (i64, i64) {
        let end = self.at.unwrap_or(t).saturating_sub(self.offset);
        (end.saturating_sub(self.range), end)
    }
}

/// A series of a range vector, as functions that map series to rows see it.
pub(crate) struct RangeSeries<'a> {
    pub labels: &'a Labels,
    pub drop_name: bool,
    pub samples: Samples,
}

impl Ctx<'_> {
    /// Calls `f` for every series of a range vector, with what `each_window` needs to find its windows.
    pub fn each_range(
        &self,
        node: &Node,
        tl: &Timeline,
        mut f: impl FnMut(&RangeSeries<'_>, &Frame) -> Res<()>,
    ) -> Res<()> {
        match node.as_matrix() {
            Some(MatrixArg::Select { select, range }) => {
                let lookback = self.plan.params.lookback_ms;
                let (back, ahead) = match select.edges {
                    Edges::Plain => (0, 0),
                    Edges::Anchored => (lookback, 0),
                    Edges::Smoothed => (lookback, lookback),
                };
                let frame = Frame { at: select.at, offset: select.offset, range: *range, back, ahead };
                self.each_series(select, |labels, columns| {
                    let samples = Samples::from_columns(columns);
                    let series = RangeSeries { labels, drop_name: false, samples };
                    f(&series, &frame)?;
                    series.samples.recycle(columns);
                    Ok(())
                })
            }
            Some(MatrixArg::Subquery(s)) => self.each_subquery_range(s, tl, f),
            None => Err(EvalError::exec("expression is not a range vector")),
        }
    }

    fn each_subquery_range(
        &self,
        s: &SubqueryNode,
        tl: &Timeline,
        mut f: impl FnMut(&RangeSeries<'_>, &Frame) -> Res<()>,
    ) -> Res<()> {
        let inner = s.timeline(tl);
        if inner.n == 0 {
            return Ok(());
        }
        let frame = Frame { at: s.at, offset: s.offset, range: s.range, back: 0, ahead: 0 };
        self.rows(&s.expr, &inner, &mut |row| {
            self.work_row(&row)?;
            let _charge = self.budget.charge(row.col.weight())?;
            let samples = Samples::from_row(self, &row, &inner)?;
            f(&RangeSeries { labels: &row.labels, drop_name: row.drop_name, samples }, &frame)
        })
    }

    /// Calls `f(step, window)` for every step of a series.
    #[inline]
    pub fn each_window(
        &self,
        series: &RangeSeries<'_>,
        tl: &Timeline,
        frame: &Frame,
        mut f: impl FnMut(usize, Window<'_>) -> Res<()>,
    ) -> Res<()> {
        let samples = &series.samples;
        let mut slide = Slide::default();
        let mut seen = 0u64;
        let mut unseen = 0usize;
        for i in 0..tl.n {
            if unseen > WORK_UNSEEN {
                self.work(std::mem::take(&mut unseen))?;
            }
            let (start, end) = frame.bounds(tl.at(i));
            let (from, to) = slide.bounds(
                &samples.times,
                start.saturating_sub(frame.back),
                end.saturating_add(frame.ahead),
            );
            unseen += SAMPLE_WORK;
            if from >= to {
                continue;
            }
            let hist_count = samples.hists_in(from, to);
            let window = Window { samples, from, to, start, end, hist_count };
            seen += window.len() as u64;
            unseen += SAMPLE_WORK * window.len() + hist_count * HISTOGRAM_WORK;
            f(i, window)?;
        }
        self.samples_queryable.set(self.samples_queryable.get() + seen);
        self.work(unseen)
    }

    /// A row of the results of a function on each window.
    pub fn window_row(
        &self,
        series: &RangeSeries<'_>,
        tl: &Timeline,
        frame: &Frame,
        mut f: impl FnMut(usize, Window<'_>) -> Res<Option<Point>>,
    ) -> Res<Row> {
        let mut col = super::Column::absent(tl.n);
        self.each_window(series, tl, frame, |i, w| {
            if let Some(p) = f(i, w)? {
                col.set(i, p);
            }
            Ok(())
        })?;
        Ok(Row { labels: series.labels.clone(), drop_name: series.drop_name, col })
    }

    /// A row that `fill` makes some steps at a time; it says how many samples the windows of those steps had.
    pub fn stepwise_row(
        &self,
        series: &RangeSeries<'_>,
        tl: &Timeline,
        mut fill: impl FnMut(std::ops::Range<usize>, &mut Slide, &mut super::Column) -> usize,
    ) -> Res<Row> {
        let (mut col, mut slide) = (super::Column::absent(tl.n), Slide::default());
        for from in (0..tl.n).step_by(WORK_UNSEEN) {
            let to = (from + WORK_UNSEEN).min(tl.n);
            let seen = fill(from..to, &mut slide, &mut col);
            self.samples_queryable.set(self.samples_queryable.get() + seen as u64);
            self.work(SAMPLE_WORK * (to - from))?;
        }
        Ok(Row { labels: series.labels.clone(), drop_name: series.drop_name, col })
    }

    /// As `window_row`, for functions that give floats and do not fail.
    #[inline]
    pub fn float_row(
        &self,
        series: &RangeSeries<'_>,
        tl: &Timeline,
        frame: &Frame,
        mut f: impl FnMut(usize, &Window<'_>) -> Option<f64>,
    ) -> Res<Row> {
        let mut col = super::Column::absent(tl.n);
        self.each_window(series, tl, frame, |i, w| {
            if let Some(v) = f(i, &w) {
                col.set_float(i, v);
            }
            Ok(())
        })?;
        Ok(Row { labels: series.labels.clone(), drop_name: series.drop_name, col })
    }
}

/// Two positions that only move forward.
#[derive(Default)]
pub(crate) struct Slide {
    from: usize,
    to: usize,
}

impl Slide {
    /// Positions of the samples in `(start, end]`; both must not shrink between calls.
    #[inline]
    pub fn bounds(&mut self, times: &[i64], start: i64, end: i64) -> (usize, usize) {
        while self.from < times.len() && times[self.from] <= start {
            self.from += 1;
        }
        self.to = self.to.max(self.from);
        while self.to < times.len() && times[self.to] <= end {
            self.to += 1;
        }
        (self.from, self.to)
    }
}
