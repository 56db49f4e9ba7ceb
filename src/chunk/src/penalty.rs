//! Replicas that were scraped at different times as one series: Thanos' penalty algorithm.
//!
//! Two replicas at a time, the result of two beside the third and so on. The one whose next sample comes first goes on;
//! the other one has to skip twice the distance of the last two samples, so that the two do not both end up in the
//! result and a gap is filled by whoever has samples. Whether values are lifted where another replica goes on is the
//! replica's business: queries of counters do it, what is stored never is. Invariant: times of the result ascend when
//! those of every replica do. Memory: one box for each replica.

/// What has to be skipped before two samples were seen, milliseconds.
const FIRST_PENALTY_MS: i64 = 5000;

/// One replica, somewhere in its samples, whose times ascend.
pub trait Replica {
    /// Goes to the first sample that counts; false when there is none.
    fn begin(&mut self) -> bool {
        self.seek(i64::MIN)
    }

    /// Goes to the first sample at `t` or later, never back; false when there is none.
    fn seek(&mut self, t: i64) -> bool;

    /// The time of the sample it stands at, milliseconds.
    fn time(&self) -> i64;

    /// The float it stands at, when it is one that may be lifted.
    fn float(&self) -> Option<f64> {
        None
    }

    /// Told that the other replica stood at the float `last` and this one may go on from here.
    fn lift(&mut self, _last: f64) {}
}

/// All replicas as one, in the order in which they are preferred.
pub struct Folded<R> {
    all: Option<Source<R>>,
    begun: bool,
}

impl<R: Replica> Folded<R> {
    /// Before the first sample. The work for a sample grows with the number of replicas.
    pub fn new(replicas: impl IntoIterator<Item = R>) -> Self {
        let all = replicas.into_iter().map(Source::One).reduce(|a, b| Source::Two(Box::new(Fold::new(a, b))));
        Self { all, begun: false }
    }

    /// Goes to the next sample; the replica that stands at it.
    pub fn advance(&mut self) -> Option<&R> {
        let all = self.all.as_mut()?;
        let more = match (&mut *all, self.begun) {
            (all, false) => all.begin(),
            (Source::One(r), true) => r.time().checked_add(1).is_some_and(|t| r.seek(t)),
            (Source::Two(f), true) => f.next(),
        };
        self.begun = true;
        if !more {
            self.all = None;
        }
        self.all.as_ref().map(Source::current)
    }
}

/// What `Folded` says of two replicas whose sample times are these: `pick` is told whether a sample is the first one's, and
/// its number.
pub fn pick_of_two(a: &[i64], b: &[i64], mut pick: impl FnMut(bool, usize)) {
    let (mut i, mut j) = (0, 0);
    let (mut penalty_a, mut penalty_b) = (0i64, 0i64);
    let mut last: Option<i64> = None;
    loop {
        if let Some(last) = last {
            let after = last.saturating_add(1);
            let (from_a, from_b) = (after.saturating_add(penalty_a), after.saturating_add(penalty_b));
            while i < a.len() && a[i] < from_a {
                i += 1;
            }
            while j < b.len() && b[j] < from_b {
                j += 1;
            }
        }
        let t = match (a.get(i), b.get(j)) {
            (None, None) => return,
            (Some(&ta), None) => {
                penalty_a = 0;
                pick(true, i);
                ta
            }
            (None, Some(&tb)) => {
                penalty_b = 0;
                pick(false, j);
                tb
            }
            (Some(&ta), Some(&tb)) => {
                let (first, t) = (ta <= tb, ta.min(tb));
                let penalty = last.map_or(FIRST_PENALTY_MS, |last| t.saturating_sub(last).saturating_mul(2));
                (penalty_a, penalty_b) = if first { (0, penalty) } else { (penalty, 0) };
                pick(first, if first { i } else { j });
                t
            }
        };
        last = Some(t);
    }
}

/// Pieces of replicas as one, each piece a replica of its own: what `Folded` says of them without lifting, at a cost that
/// grows with how many of them overlap at a time and not with how many there are.
pub struct Chained<R> {
    pieces: std::iter::Peekable<std::vec::IntoIter<R>>,
    now: Option<Source<R>>,
    /// The last two times.
    last: Option<i64>,
    before: Option<i64>,
}

impl<R: Replica> Chained<R> {
    /// Before the first sample. Pieces come in the order of their first samples, which all of them have: none is empty.
    pub fn new(pieces: Vec<R>) -> Self {
        let mut begun = pieces;
        begun.retain_mut(R::begin);
        Self { pieces: begun.into_iter().peekable(), now: None, last: None, before: None }
    }

    /// Goes to the next sample; the piece that stands at it.
    pub fn advance(&mut self) -> Option<&R> {
        let after = self.last.map_or(i64::MIN, |t| t.saturating_add(1));
        // Whoever is over leaves no penalty to the next one that has not been looked at.
        while self.now.as_mut().is_none_or(|s| !s.seek(after)) {
            self.now = Some(Source::One(self.pieces.next()?));
        }
        loop {
            let t = self.now.as_ref()?.current().time();
            // What the next piece has to skip once this sample is out.
            let penalty = self.last.map_or(FIRST_PENALTY_MS, |last| t.saturating_sub(last).saturating_mul(2));
            let reach = t.saturating_add(1).saturating_add(penalty);
            let Some(piece) = self.pieces.next_if(|p| p.time() < reach) else { break };
            let (a, b) = (self.now.take()?, Source::One(piece));
            let penalty_b = match (self.last, self.before) {
                (None, _) => 0,
                (Some(_), None) => FIRST_PENALTY_MS,
                (Some(last), Some(before)) => last.saturating_sub(before).saturating_mul(2),
            };
            let (last, on_a) = (self.last, true);
            let mut fold = Fold { a, b, a_on: true, b_on: true, penalty_a: 0, penalty_b, last, on_a };
            if !fold.next() {
                return None;
            }
            self.now = Some(Source::Two(Box::new(fold)).collapsed());
        }
        let t = self.now.as_ref()?.current().time();
        self.before = self.last.replace(t);
        self.now = self.now.take().map(Source::collapsed);
        self.now.as_ref().map(Source::current)
    }
}

enum Source<R> {
    One(R),
    Two(Box<Fold<R>>),
}

impl<R: Replica> Source<R> {
    fn begin(&mut self) -> bool {
        match self {
            Self::One(r) => r.begin(),
            Self::Two(f) => f.next(),
        }
    }

    fn seek(&mut self, t: i64) -> bool {
        match self {
            Self::One(r) => r.seek(t),
            // One by one: what is skipped makes the penalties.
            Self::Two(f) => loop {
                if f.current().time() >= t {
                    break true;
                }
                if !f.next() {
                    break false;
                }
            },
        }
    }

    /// The replica that it stands in.
    fn current(&self) -> &R {
        match self {
            Self::One(r) => r,
            Self::Two(f) => f.current(),
        }
    }

    /// Without a fold of which one side is over.
    fn collapsed(self) -> Self {
        match self {
            Self::Two(f) if !f.b_on => f.a.collapsed(),
            Self::Two(f) if !f.a_on => f.b.collapsed(),
            other => other,
        }
    }

    fn lift(&mut self, last: f64) {
        match self {
            Self::One(r) => r.lift(last),
            Self::Two(f) => f.lift(last),
        }
    }
}

struct Fold<R> {
    a: Source<R>,
    b: Source<R>,
    /// Whether they have samples left.
    a_on: bool,
    b_on: bool,
    penalty_a: i64,
    penalty_b: i64,
    last: Option<i64>,
    on_a: bool,
}

impl<R: Replica> Fold<R> {
    fn new(mut a: Source<R>, mut b: Source<R>) -> Self {
        let (a_on, b_on) = (a.begin(), b.begin());
        Self { a, b, a_on, b_on, penalty_a: 0, penalty_b: 0, last: None, on_a: true }
    }

    fn current(&self) -> &R {
        if self.on_a { self.a.current() } else { self.b.current() }
    }

    /// Goes to the next sample of the result.
    fn next(&mut self) -> bool {
        let is_on = if self.on_a { self.a_on } else { self.b_on };
        let value = if is_on { self.current().float() } else { None };
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
                (self.on_a, self.penalty_b, self.last) = (false, 0, Some(self.b.current().time()));
                return true;
            }
            (true, false) => {
                (self.on_a, self.penalty_a, self.last) = (true, 0, Some(self.a.current().time()));
                return true;
            }
            (true, true) => (self.a.current().time(), self.b.current().time()),
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
            if on && source.current().float().is_some() {
                source.lift(last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Times<'a>(u8, &'a [i64]);

    impl Replica for Times<'_> {
        fn seek(&mut self, t: i64) -> bool {
            self.1 = &self.1[self.1.partition_point(|at| *at < t)..];
            !self.1.is_empty()
        }

        fn time(&self) -> i64 {
            self.1[0]
        }
    }

    fn folded(runs: &[&[i64]]) -> Vec<(u8, i64)> {
        let mut all = Folded::new(runs.iter().enumerate().map(|(n, r)| Times(n as u8, r)));
        std::iter::from_fn(|| all.advance().map(|r| (r.0, r.time()))).collect()
    }

    proptest! {
        #[test]
        fn pieces_in_order_are_what_folding_all_of_them_says(
            pieces in prop::collection::vec((0..400i64, prop::collection::vec(1..40i64, 1..12)), 1..12)
        ) {
            let mut pieces: Vec<Vec<i64>> = pieces
                .into_iter()
                .map(|(from, steps)| steps.iter().scan(from, |t, d| { *t += d; Some(*t * 1000) }).collect())
                .collect();
            pieces.sort();
            let all: Vec<&[i64]> = pieces.iter().map(Vec::as_slice).collect();
            let runs = all.iter().enumerate().map(|(n, r)| Times(n as u8, r)).collect();
            let mut chained = Chained::new(runs);
            let got: Vec<_> = std::iter::from_fn(|| chained.advance().map(|r| (r.0, r.time()))).collect();
            prop_assert_eq!(got, folded(&all));
            if let [a, b, ..] = all[..] {
                let mut picked = Vec::new();
                pick_of_two(a, b, |first, i| picked.push((u8::from(!first), if first { a[i] } else { b[i] })));
                prop_assert_eq!(picked, folded(&[a, b]));
            }
        }
    }

    #[test]
    fn one_goes_on_and_the_other_fills_its_gap() {
        assert_eq!(folded(&[]), []);
        assert_eq!(folded(&[&[], &[]]), []);
        assert_eq!(folded(&[&[5, 7]]), [(0, 5), (0, 7)]);
        let a = [0, 60_000, 120_000, 180_000, 600_000, 660_000];
        let b = [17_000, 77_000, 137_000, 197_000, 257_000, 317_000, 377_000, 437_000, 497_000, 557_000];
        let got = folded(&[&a, &b]);
        // Before two samples were seen only five seconds are skipped; then the second replica waits for the gap.
        let want =
            [(0, 0), (1, 17), (0, 60), (0, 120), (0, 180), (1, 317), (1, 377), (1, 437), (1, 497), (1, 557)];
        let seconds: Vec<(u8, i64)> = got.iter().map(|(n, t)| (*n, t / 1000)).collect();
        assert_eq!(seconds, want);
    }
}
