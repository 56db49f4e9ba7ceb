//! Replicas that were scraped at different times as one series: Thanos' penalty algorithm.
//!
//! Two replicas at a time, the result of two beside the third and so on. The one whose next sample comes first goes on;
//! the other one has to skip twice the distance of the last two samples, so that the two do not both end up in the
//! result and a gap is filled by whoever has samples. A counter that would fall where the other replica goes on is
//! lifted to where it was. Bound: `DEEP_MAX` replicas are folded at a time; what they come to is one of the next.

use std::sync::Arc;

use koios_model::Columns;
use koios_model::histogram::{CounterReset, FloatHistogram};

use super::Lens;

/// What has to be skipped before two samples were seen, milliseconds.
const FIRST_PENALTY_MS: i64 = 5000;
/// Most replicas in one fold.
const DEEP_MAX: usize = 100;

/// All replicas as one, in the order in which they are preferred. Samples before the lens' range do not count.
pub(crate) fn fold(mut runs: Vec<Columns>, lens: &Lens) -> Columns {
    loop {
        if runs.len() <= 1 {
            return runs.pop().unwrap_or_default();
        }
        let later = runs.split_off(runs.len().min(DEEP_MAX));
        let mut first = runs.into_iter().map(|c| Source::Run(Run::new(c, lens)));
        let one = first.next().expect("BUG: there were at least two");
        let all = first.fold(one, |a, b| Source::Fold(Box::new(Fold::new(a, b))));
        runs = vec![all.drained()];
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

    fn is_float(&self) -> bool {
        self.samples.histogram(self.at).is_none()
    }

    fn value(&self) -> f64 {
        self.samples.values[self.at] + self.lifted
    }

    fn seek(&mut self, t: i64) -> bool {
        if t > self.range.1 {
            return false;
        }
        let t = t.max(self.range.0);
        self.at += self.samples.times[self.at..].iter().take_while(|at| **at < t).count();
        self.at < self.samples.len()
    }
}

enum Source {
    Run(Run),
    Fold(Box<Fold>),
}

impl Source {
    /// Goes to its first sample that counts.
    fn begin(&mut self) -> bool {
        match self {
            Source::Run(r) => r.seek(r.range.0) && r.samples.times[r.at] <= r.range.1,
            Source::Fold(f) => f.next(),
        }
    }

    /// Goes to the first sample from `t` on.
    fn seek(&mut self, t: i64) -> bool {
        match self {
            Source::Run(r) => r.seek(t),
            // One by one: what is skipped makes the penalties.
            Source::Fold(f) => loop {
                if f.current().time() >= t {
                    break true;
                }
                if !f.next() {
                    break false;
                }
            },
        }
    }

    /// The run that it stands in.
    fn run(&self) -> &Run {
        match self {
            Source::Run(r) => r,
            Source::Fold(f) => f.current().run(),
        }
    }

    fn time(&self) -> i64 {
        let r = self.run();
        r.samples.times[r.at]
    }

    /// Lifts counters that stand below `last`.
    fn lift(&mut self, last: f64) {
        match self {
            Source::Run(r) if r.adjusted && last > r.value() => r.lifted += last - r.value(),
            Source::Run(_) => {}
            Source::Fold(f) => f.lift(last),
        }
    }

    fn drained(mut self) -> Columns {
        let mut out = Columns::default();
        let mut more = self.begin();
        let mut before: Option<(*const Run, usize)> = None;
        while more {
            let run = self.run();
            let continues = before == run.at.checked_sub(1).map(|at| (std::ptr::from_ref(run), at));
            match run.samples.histogram(run.at) {
                Some(h) if !continues && h.hint == CounterReset::NotReset => {
                    let unsure = FloatHistogram { hint: CounterReset::Unknown, ..(**h).clone() };
                    out.push_histogram(run.samples.times[run.at], Arc::new(unsure));
                }
                Some(_) => out.push_from(&run.samples, run.at),
                None => out.push(run.samples.times[run.at], run.value()),
            }
            before = Some((std::ptr::from_ref(run), run.at));
            more = match &mut self {
                Source::Fold(f) => f.next(),
                Source::Run(r) => {
                    r.at += 1;
                    r.at < r.samples.len()
                }
            };
        }
        out
    }
}

struct Fold {
    a: Source,
    b: Source,
    /// Whether they have samples left.
    a_on: bool,
    b_on: bool,
    penalty_a: i64,
    penalty_b: i64,
    last: Option<i64>,
    on_a: bool,
}

impl Fold {
    fn new(mut a: Source, mut b: Source) -> Self {
        let (a_on, b_on) = (a.begin(), b.begin());
        Self { a, b, a_on, b_on, penalty_a: 0, penalty_b: 0, last: None, on_a: true }
    }

    fn current(&self) -> &Source {
        if self.on_a { &self.a } else { &self.b }
    }

    /// Goes to the next sample of the result.
    fn next(&mut self) -> bool {
        let is_on = if self.on_a { self.a_on } else { self.b_on };
        let value = is_on.then(|| self.current().run()).filter(|r| r.is_float()).map(Run::value);
        let was = self.on_a;
        let more = self.advance();
        if let Some(value) = value.filter(|_| more && self.on_a != was) {
            self.lift(value);
        }
        more
    }

    fn advance(&mut self) -> bool {
        let after = self.last.map_or(i64::MIN, |t| t.saturating_add(1));
        self.a_on = self.a_on && self.a.seek(after.saturating_add(self.penalty_a));
        self.b_on = self.b_on && self.b.seek(after.saturating_add(self.penalty_b));
        let (ta, tb) = match (self.a_on, self.b_on) {
            (false, false) => return false,
            (false, true) => {
                (self.on_a, self.penalty_b, self.last) = (false, 0, Some(self.b.time()));
                return true;
            }
            (true, false) => {
                (self.on_a, self.penalty_a, self.last) = (true, 0, Some(self.a.time()));
                return true;
            }
            (true, true) => (self.a.time(), self.b.time()),
        };
        self.on_a = ta <= tb;
        let t = ta.min(tb);
        let penalty = self.last.map_or(FIRST_PENALTY_MS, |last| t.saturating_sub(last).saturating_mul(2));
        (self.penalty_a, self.penalty_b) = if self.on_a { (0, penalty) } else { (penalty, 0) };
        self.last = Some(t);
        true
    }

    fn lift(&mut self, last: f64) {
        for (source, on) in [(&mut self.a, self.a_on), (&mut self.b, self.b_on)] {
            if on && source.run().is_float() {
                source.lift(last);
            }
        }
    }
}
