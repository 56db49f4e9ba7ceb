//! Bringing the buckets of two histograms together so that both fit one layout.
//!
//! A chunk has one list of spans. When a sample brings new buckets, or lacks empty ones, either the chunk or the
//! sample gets empty buckets. Which span list then stands in the chunk is observable in its bytes and follows
//! Prometheus (`tsdb/chunkenc/histogram.go`): the sample's own list as long as it lacks nothing, else the union in
//! its shortest form.

use koios_model::histogram::Span;

/// Bucket indexes of spans, ascending as long as the spans are sound.
pub(crate) fn indexes(spans: &[Span]) -> impl Iterator<Item = i32> + '_ {
    let mut end = 0i32;
    spans.iter().flat_map(move |s| {
        let from = end.wrapping_add(s.offset);
        end = from.wrapping_add(s.length as i32);
        (0..s.length).map(move |i| from.wrapping_add(i as i32))
    })
}

/// How a sample's buckets relate to a chunk's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The sample has buckets that the chunk lacks.
    pub(crate) forward: bool,
    /// The chunk has (empty) buckets that the sample lacks.
    pub(crate) backward: bool,
    /// A bucket shrank or vanished: the counter was reset.
    pub(crate) shrunk: bool,
}

/// Compares the buckets of a chunk's last sample with those of the next one.
pub(crate) fn compare<C: PartialOrd + Copy + Default>(
    ours: (&[Span], &[C]),
    theirs: (&[Span], &[C]),
) -> Difference {
    let mut out = Difference::default();
    let mut a = indexes(ours.0).zip(ours.1.iter().copied()).peekable();
    let mut b = indexes(theirs.0).zip(theirs.1.iter().copied()).peekable();
    loop {
        match (a.peek().copied(), b.peek().copied()) {
            (None, None) => return out,
            (Some((x, before)), Some((y, now))) if x == y => {
                out.shrunk |= before > now;
                a.next();
                b.next();
            }
            (Some((x, before)), other) if other.is_none_or(|(y, _)| x < y) => {
                out.backward = true;
                out.shrunk |= before > C::default();
                a.next();
            }
            _ => {
                out.forward = true;
                b.next();
            }
        }
    }
}

/// All buckets of both, as the shortest list of spans.
pub(crate) fn union(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut all: Vec<i32> = indexes(a).chain(indexes(b)).collect();
    all.sort_unstable();
    all.dedup();
    let mut spans: Vec<Span> = Vec::new();
    let mut next: Option<i32> = None;
    for i in all {
        match (next, spans.last_mut()) {
            (Some(n), Some(span)) if n == i => span.length += 1,
            (n, _) => spans.push(Span { offset: i.wrapping_sub(n.unwrap_or(0)), length: 1 }),
        }
        next = Some(i.wrapping_add(1));
    }
    spans
}

/// Counts laid out by `from`, laid out by `to`, which has all of its buckets.
pub(crate) fn expand<C: Copy + Default>(counts: &[C], from: &[Span], to: &[Span]) -> Vec<C> {
    let mut have = indexes(from).zip(counts.iter().copied()).peekable();
    indexes(to).map(|i| have.next_if(|(x, _)| *x == i).map_or(C::default(), |(_, c)| c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(list: &[(i32, u32)]) -> Vec<Span> {
        list.iter().map(|&(offset, length)| Span { offset, length }).collect()
    }

    #[test]
    fn union_and_expansion() {
        let (a, b) = (spans(&[(0, 2), (2, 1)]), spans(&[(-1, 1), (2, 2)]));
        assert_eq!(indexes(&a).collect::<Vec<_>>(), [0, 1, 4]);
        assert_eq!(indexes(&b).collect::<Vec<_>>(), [-1, 2, 3]);
        let both = union(&a, &b);
        assert_eq!(both, spans(&[(-1, 6)]));
        assert_eq!(expand(&[7, 8, 9], &a, &both), [0, 7, 8, 0, 0, 9]);
        assert_eq!(expand(&[7, 8, 9], &b, &both), [7, 0, 0, 8, 9, 0]);
    }

    #[test]
    fn differences_say_what_must_change() {
        let (a, b) = (spans(&[(0, 3)]), spans(&[(0, 1), (1, 2)]));
        let diff = |x: [i64; 3], y: [i64; 3]| compare((&a, &x), (&b, &y));
        assert_eq!(diff([1, 0, 1], [1, 1, 9]), Difference { forward: true, backward: true, shrunk: false });
        assert!(diff([1, 1, 1], [1, 1, 9]).shrunk, "a full bucket vanished");
        assert!(diff([1, 0, 2], [1, 1, 9]).shrunk, "a bucket shrank");
        assert_eq!(compare((&a, &[1, 2, 3]), (&a, &[1, 2, 4])), Difference::default());
    }
}
