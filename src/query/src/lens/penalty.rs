//! Replicas that were scraped at different times as one series, by Thanos' penalties.
//!
//! The choice between replicas is `koios_chunk::penalty`'s. Here: samples outside of the lens' range do not count, and a
//! counter that would fall where the other replica goes on is lifted to where it was. Bound: `DEEP_MAX` replicas are
//! folded at a time; what they come to is one of the next.

use std::sync::Arc;

use koios_chunk::penalty::{Folded, Replica};
use koios_model::Columns;
use koios_model::histogram::{CounterReset, FloatHistogram};

use super::Lens;

/// Most replicas in one fold.
const DEEP_MAX: usize = 100;

/// All replicas as one, in the order in which they are preferred. Samples before the lens' range do not count.
pub(crate) fn fold(mut runs: Vec<Columns>, lens: &Lens) -> Columns {
    loop {
        if runs.len() <= 1 {
            return runs.pop().unwrap_or_default();
        }
        let later = runs.split_off(runs.len().min(DEEP_MAX));
        runs = vec![drained(Folded::new(runs.into_iter().map(|c| Run::new(c, lens))))];
        runs.extend(later);
    }
}

/// One replica, somewhere in its samples.
struct Run {
    samples: Columns,
    at: usize,
    range: (i64, i64),
    adjusted: bool,
    lifted: f64,
}

impl Run {
    fn new(samples: Columns, lens: &Lens) -> Self {
        Self { samples, at: 0, range: lens.range, adjusted: lens.adjusted, lifted: 0.0 }
    }

    fn value(&self) -> f64 {
        self.samples.values[self.at] + self.lifted
    }
}

impl Replica for Run {
    fn begin(&mut self) -> bool {
        self.seek(self.range.0) && self.time() <= self.range.1
    }

    fn seek(&mut self, t: i64) -> bool {
        if t > self.range.1 {
            return false;
        }
        let t = t.max(self.range.0);
        self.at += self.samples.times[self.at..].iter().take_while(|at| **at < t).count();
        self.at < self.samples.len()
    }

    fn time(&self) -> i64 {
        self.samples.times[self.at]
    }

    fn float(&self) -> Option<f64> {
        self.samples.histogram(self.at).is_none().then(|| self.value())
    }

    fn lift(&mut self, last: f64) {
        if self.adjusted && last > self.value() {
            self.lifted += last - self.value();
        }
    }
}

fn drained(mut all: Folded<Run>) -> Columns {
    let mut out = Columns::default();
    let mut before: Option<(*const Run, usize)> = None;
    while let Some(run) = all.advance() {
        let continues = before == run.at.checked_sub(1).map(|at| (std::ptr::from_ref(run), at));
        match run.samples.histogram(run.at) {
            Some(h) if !continues && h.hint == CounterReset::NotReset => {
                let unsure = FloatHistogram { hint: CounterReset::Unknown, ..(**h).clone() };
                out.push_histogram(run.time(), Arc::new(unsure));
            }
            Some(_) => out.push_from(&run.samples, run.at),
            None => out.push(run.time(), run.value()),
        }
        before = Some((std::ptr::from_ref(run), run.at));
    }
    out
}
