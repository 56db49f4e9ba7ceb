//! From label pairs as they are sent to a stored label set.
//!
//! Owns what a label set must be: a metric name, no empty and no repeated name, UTF-8 throughout, within the limits.
//! Pairs in any order are taken and sorted (Grafana's rule writer sends them unsorted); empty values are left out, as
//! Prometheus does. What is written out is paid for from a budget of the whole request, because references of version 2
//! make a small request large.

use koios_model::{Labels, METRIC_NAME};

use crate::faults::{Reason, cut};
use crate::limits::Limits;

/// Why a label set is not stored.
#[derive(Debug, PartialEq)]
pub(crate) enum LabelFault {
    /// This series alone.
    Series(Reason, String),
    /// The request writes out more than it may.
    Budget,
}

/// What was seen of the pairs while they came in, so that the usual set needs no further look at each.
#[derive(Clone, Copy)]
struct Seen {
    ascending: bool,
    empty_value: bool,
    named: bool,
    longest_name: usize,
    longest_value: usize,
    bytes: usize,
}

const NOTHING_SEEN: Seen =
    Seen { ascending: true, empty_value: false, named: false, longest_name: 0, longest_value: 0, bytes: 0 };

/// Collects the pairs of one set after the other.
pub(crate) struct LabelReader<'a> {
    pairs: Vec<(&'a [u8], &'a [u8])>,
    seen: Seen,
    scratch: Vec<u8>,
    budget: usize,
}

impl<'a> LabelReader<'a> {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            pairs: Vec::with_capacity(32),
            seen: NOTHING_SEEN,
            scratch: Vec::with_capacity(512),
            budget: limits.label_bytes,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.pairs.clear();
        self.seen = NOTHING_SEEN;
    }

    #[inline]
    pub(crate) fn push(&mut self, name: &'a [u8], value: &'a [u8]) {
        let seen = &mut self.seen;
        seen.ascending &= self.pairs.last().is_none_or(|(last, _)| *last < name);
        seen.empty_value |= value.is_empty();
        seen.named |= name == METRIC_NAME.as_bytes() && !value.is_empty();
        seen.longest_name = seen.longest_name.max(name.len());
        seen.longest_value = seen.longest_value.max(value.len());
        seen.bytes += name.len() + value.len();
        self.pairs.push((name, value));
    }

    /// Bytes of all names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.seen.bytes
    }

    /// The metric name among the pairs.
    pub(crate) fn metric_name(&self) -> &'a [u8] {
        self.pairs.iter().find(|(n, _)| *n == METRIC_NAME.as_bytes()).map_or(&[], |(_, v)| v)
    }

    /// Pays for bytes that are written out; `false` when the request has had its share.
    pub(crate) fn pay(&mut self, bytes: usize) -> bool {
        match self.budget.checked_sub(bytes) {
            Some(rest) => {
                self.budget = rest;
                true
            }
            None => false,
        }
    }

    /// The set of a series.
    pub(crate) fn series(&mut self, limits: &Limits) -> Result<Labels, LabelFault> {
        self.order()?;
        if !self.seen.named {
            return Err(self.invalid("no metric name (label __name__)"));
        }
        self.check_limits(limits)?;
        self.build()
    }

    /// The set of an exemplar, which has no metric name.
    pub(crate) fn exemplar(&mut self) -> Result<Labels, LabelFault> {
        self.order()?;
        self.build()
    }

    /// Sorts, and drops what is empty.
    fn order(&mut self) -> Result<(), LabelFault> {
        if !self.seen.ascending {
            self.pairs.sort_unstable();
            if let Some(w) = self.pairs.windows(2).find(|w| w[0].0 == w[1].0) {
                let twice = String::from_utf8_lossy(w[0].0).into_owned();
                return Err(self.invalid(&format!("label name {twice:?} occurs more than once")));
            }
        }
        if self.pairs.first().is_some_and(|(n, _)| n.is_empty()) {
            return Err(self.invalid("a label has no name"));
        }
        if self.seen.empty_value {
            self.pairs.retain(|(_, v)| !v.is_empty());
        }
        Ok(())
    }

    fn check_limits(&self, limits: &Limits) -> Result<(), LabelFault> {
        let seen = &self.seen;
        if self.pairs.len() <= limits.labels
            && seen.longest_name <= limits.name_bytes
            && seen.longest_value <= limits.value_bytes
        {
            return Ok(());
        }
        let fail = |what: String| Err(LabelFault::Series(Reason::LabelLimit, self.place(&what)));
        if self.pairs.len() > limits.labels {
            return fail(format!("{} labels, at most {}", self.pairs.len(), limits.labels));
        }
        for (n, v) in &self.pairs {
            if n.len() > limits.name_bytes {
                return fail(format!("a label name of {} bytes, at most {}", n.len(), limits.name_bytes));
            }
            if v.len() > limits.value_bytes {
                let name = String::from_utf8_lossy(n);
                return fail(format!(
                    "the value of {name:?} has {} bytes, at most {}",
                    v.len(),
                    limits.value_bytes
                ));
            }
        }
        Ok(())
    }

    fn build(&mut self) -> Result<Labels, LabelFault> {
        if !self.pay(self.seen.bytes + 4 * self.pairs.len()) {
            return Err(LabelFault::Budget);
        }
        let made = Labels::from_sorted_bytes(&mut self.scratch, self.pairs.iter().copied());
        made.ok_or_else(|| self.invalid("a label name or value is not UTF-8"))
    }

    fn invalid(&self, why: &str) -> LabelFault {
        LabelFault::Series(Reason::InvalidLabels, self.place(why))
    }

    /// Says of which series something is true.
    fn place(&self, why: &str) -> String {
        let text = |b: &[u8]| String::from_utf8_lossy(&b[..b.len().min(64)]).into_owned();
        let pairs = self.pairs.iter().take(16).map(|(n, v)| format!("{}={:?}", text(n), text(v)));
        cut(format!("{why}: {{{}}}", pairs.collect::<Vec<_>>().join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&[u8], &[u8])], limits: &Limits) -> Result<Labels, LabelFault> {
        let mut reader = LabelReader::new(limits);
        pairs.iter().for_each(|(n, v)| reader.push(n, v));
        reader.series(limits)
    }

    fn reason(pairs: &[(&[u8], &[u8])], limits: &Limits) -> (Reason, String) {
        match read(pairs, limits) {
            Err(LabelFault::Series(reason, why)) => (reason, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_order_is_sorted_and_empty_values_go() {
        let got = read(&[(b"b", b"2"), (b"__name__", b"up"), (b"c", b""), (b"a", b"1")], &Limits::default());
        assert_eq!(got, Ok(Labels::from_pairs([("__name__", "up"), ("a", "1"), ("b", "2")])));
    }

    #[test]
    fn what_cannot_be_a_series() {
        let l = Limits::default();
        for (pairs, word) in [
            (&[(&b"a"[..], &b"1"[..])][..], "no metric name"),
            (&[(b"__name__", b"")], "no metric name"),
            (&[(b"__name__", b"x"), (b"a", b"1"), (b"a", b"1")], "\"a\" occurs more than once"),
            (&[(b"__name__", b"x"), (b"a", b""), (b"a", b"1")], "more than once"),
            (&[(b"__name__", b"x"), (b"", b"1")], "no name"),
            (&[(b"__name__", b"x"), (b"a", b"\xff")], "not UTF-8"),
            (&[(b"__name__", b"x"), (b"\xc3", b"a")], "not UTF-8"),
            (&[], "no metric name"),
        ] {
            let (reason, why) = reason(pairs, &l);
            assert_eq!(reason, Reason::InvalidLabels);
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn limits_are_named() {
        let l = Limits { labels: 2, name_bytes: 8, value_bytes: 4, ..Limits::default() };
        let named: (&[u8], &[u8]) = (b"__name__", b"x");
        for (pair, word) in [
            ([(&b"a"[..], &b"1"[..]), (b"b", b"1")].to_vec(), "3 labels, at most 2"),
            (vec![(b"abcdefghi", b"1")], "name of 9 bytes, at most 8"),
            (vec![(b"a", b"12345")], "5 bytes, at most 4"),
        ] {
            let pairs: Vec<_> = std::iter::once(named).chain(pair).collect();
            let (reason, why) = reason(&pairs, &l);
            assert!(reason == Reason::LabelLimit && why.contains(word), "{why}");
        }
        let l = Limits { label_bytes: 12, ..l };
        assert_eq!(read(&[named], &l), Err(LabelFault::Budget));
    }
}
