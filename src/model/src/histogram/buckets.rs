//! One side of a histogram: spans of consecutive bucket indexes and their counts.
//!
//! Invariant: after `from_sorted` no empty bucket is kept and spans are maximal; spans that came from
//! outside may be split or hold zeros, and every reader copes.

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Distance from the end of the previous span, or the first index for the first span.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// Sparse buckets of one sign.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Where the counts are.
    pub spans: Vec<Span>,
    /// Absolute counts, in index order.
    pub counts: Vec<f64>,
}

/// One bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Observations.
    pub count: f64,
    /// Index on its side.
    pub index: i32,
    /// Whether the lower bound belongs to the bucket.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to the bucket.
    pub upper_inclusive: bool,
}

impl Buckets {
    /// Index and count of every bucket, ascending. Stops quietly where spans and counts disagree.
    pub fn indexed(&self) -> Vec<(i32, f64)> {
        let mut out = Vec::with_capacity(self.counts.len());
        let mut counts = self.counts.iter();
        let mut index = 0i32;
        for span in &self.spans {
            index = index.saturating_add(span.offset);
            for _ in 0..span.length {
                match counts.next() {
                    Some(&c) => out.push((index, c)),
                    None => return out,
                }
                index = index.saturating_add(1);
            }
        }
        out
    }

    /// Builds from ascending `(index, count)` pairs, leaving out empty buckets.
    pub fn from_sorted(pairs: impl IntoIterator<Item = (i32, f64)>) -> Self {
        let mut out = Self::default();
        let mut next: Option<i32> = None;
        for (index, count) in pairs {
            if count == 0.0 {
                continue;
            }
            match (next, out.spans.last_mut()) {
                (Some(n), Some(span)) if n == index => span.length += 1,
                (Some(n), _) => out.spans.push(Span { offset: index.saturating_sub(n), length: 1 }),
                (None, _) => out.spans.push(Span { offset: index, length: 1 }),
            }
            out.counts.push(count);
            next = Some(index.saturating_add(1));
        }
        out
    }

    /// Whether there is no bucket.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether both hold the same observations, empty buckets aside.
    pub fn same_content(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let full = |b: &Self| -> Vec<(i32, u64)> {
            b.indexed().into_iter().filter(|p| p.1 != 0.0).map(|(i, c)| (i, c.to_bits())).collect()
        };
        full(self) == full(other)
    }

    pub(super) fn validate(&self, side: &str) -> Result<(), String> {
        let need: u64 = self.spans.iter().map(|s| u64::from(s.length)).sum();
        if need != self.counts.len() as u64 {
            return Err(format!(
                "{side} side: spans need {need} buckets, have {} buckets",
                self.counts.len()
            ));
        }
        if self.spans.iter().skip(1).any(|s| s.offset < 0) {
            return Err(format!("{side} side: span with a negative offset after the first one"));
        }
        Ok(())
    }
}

/// Adds two ascending lists, applying `join` where both have the index and `only_b` where just `b` has it.
pub(super) fn merge_sorted<A: Copy, T>(
    a: &[(i32, A)],
    b: &[(i32, f64)],
    mut only_a: impl FnMut(A) -> T,
    mut only_b: impl FnMut(f64) -> T,
    mut join: impl FnMut(A, f64) -> T,
) -> Vec<(i32, T)> {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        match (a.get(i), b.get(j)) {
            (Some(&(x, va)), Some(&(y, vb))) if x == y => {
                out.push((x, join(va, vb)));
                i += 1;
                j += 1;
            }
            (Some(&(x, va)), other) if other.is_none_or(|&(y, _)| x < y) => {
                out.push((x, only_a(va)));
                i += 1;
            }
            (_, Some(&(y, vb))) => {
                out.push((y, only_b(vb)));
                j += 1;
            }
            _ => break,
        }
    }
    out
}
