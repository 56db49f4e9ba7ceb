//! Label sets in one allocation.
//!
//! Owns the identity of a series: sorted name/value pairs packed into one shared string, each text led by
//! its length in 6-bit groups (all bytes below 0x80, so the whole stays valid UTF-8 and slices without
//! `unsafe`). Cloning is a reference count. Interning into head symbols is the head's own affair.
//!
//! Invariants: names strictly ascending by bytes, no empty value. Order is label by label, name before
//! value, as `labels.Compare` in Prometheus orders series.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

/// An immutable, sorted set of labels.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl Labels {
    /// The set without labels.
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// From pairs in any order. The last value of a repeated name wins; empty values are left out.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut b = LabelsBuilder::new();
        for (n, v) in pairs {
            b.set(n.as_ref(), v.as_ref());
        }
        b.build()
    }

    /// From pairs that are known to be sorted, unique and without empty values.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::with_capacity(USUAL_BYTES);
        let mut last: Option<&str> = None;
        for (n, v) in pairs {
            debug_assert!(
                last.is_none_or(|l| l < n) && !v.is_empty(),
                "BUG: labels not sorted, or empty value"
            );
            last = Some(n);
            push_part(&mut text, n);
            push_part(&mut text, v);
        }
        Self(text.into())
    }

    /// From pairs of bytes that are known to be sorted, unique and without empty values; `None` when a text is not
    /// UTF-8. All are checked in one pass over `scratch`, whose content does not matter.
    pub fn from_sorted_bytes<'a>(
        scratch: &mut Vec<u8>,
        pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Option<Self> {
        scratch.clear();
        for (n, v) in pairs {
            for part in [n, v] {
                push_len(part.len(), |b| scratch.push(b));
                scratch.extend_from_slice(part);
            }
        }
        // Every length is ASCII, so no character can reach over the end of its part.
        std::str::from_utf8(scratch).ok().map(|text| Self(Arc::from(text)))
    }

    /// Pairs in ascending name order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    /// The value of `name`, `None` when absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        for (n, v) in self.iter() {
            match n.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(v),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The value of `name`, empty when absent, as matchers see it.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// The metric name, empty when absent.
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// xxHash64 over `name 0xff value 0xff …` (the byte string Prometheus hashes).
    pub fn hash64(&self) -> u64 {
        let mut bytes = Vec::with_capacity(self.0.len() + 16);
        for (n, v) in self.iter() {
            bytes.extend_from_slice(n.as_bytes());
            bytes.push(0xff);
            bytes.extend_from_slice(v.as_bytes());
            bytes.push(0xff);
        }
        xxh64(&bytes, 0)
    }

    /// Only the labels named in `names`.
    pub fn keep(&self, names: &[impl AsRef<str>]) -> Self {
        Self::from_sorted(self.iter().filter(|(n, _)| names.iter().any(|k| k.as_ref() == *n)))
    }

    /// All labels but those named in `names`.
    pub fn without(&self, names: &[impl AsRef<str>]) -> Self {
        Self::from_sorted(self.iter().filter(|(n, _)| !names.iter().any(|k| k.as_ref() == *n)))
    }

    /// Without the metric name.
    pub fn drop_metric_name(&self) -> Self {
        if self.get(METRIC_NAME).is_none() {
            return self.clone();
        }
        self.without(&[METRIC_NAME])
    }

    /// Bytes on the heap, shared by all clones.
    pub fn heap_bytes(&self) -> usize {
        self.0.len() + 2 * size_of::<usize>()
    }
}

/// Length of what two byte strings have in common at their start.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let mut i = 0;
    while i + 8 <= n && a[i..i + 8] == b[i..i + 8] {
        i += 8;
    }
    while i < n && a[i] == b[i] {
        i += 1;
    }
    i
}

/// Bytes that most label sets stay below.
const USUAL_BYTES: usize = 256;

#[inline]
fn push_part(text: &mut String, part: &str) {
    push_len(part.len(), |b| text.push(char::from(b)));
    text.push_str(part);
}

/// A length in groups of 6 bits, the lowest first; bit 6 says that more follow.
#[inline]
fn push_len(mut n: usize, mut push: impl FnMut(u8)) {
    while n >= 0x40 {
        push((n & 0x3f) as u8 | 0x40);
        n >>= 6;
    }
    push(n as u8);
}

/// Iterator over the pairs of a `Labels`.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iter<'a> {
    fn part(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let (mut len, mut shift, mut at) = (0usize, 0, 0);
        loop {
            let b = *bytes.get(at)?;
            at += 1;
            len |= usize::from(b & 0x3f) << shift;
            if b & 0x40 == 0 {
                break;
            }
            shift += 6;
        }
        let part = &self.rest[at..at + len];
        self.rest = &self.rest[at + len..];
        Some(part)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.part()?;
        let value = self.part()?;
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let same = common_prefix(a, b);
        if same == a.len() || same == b.len() {
            return a.len().cmp(&b.len());
        }
        // Only the part around the first difference needs a look, and all parts before it are equal.
        let (mut x, mut y) = (self.iter(), other.iter());
        loop {
            let at = a.len() - x.rest.len();
            let (p, q) = (x.part(), y.part());
            if a.len() - x.rest.len() > same || at > same {
                return p.cmp(&q);
            }
        }
    }
}

impl std::hash::Hash for Labels {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// `{a="1", b="2"}`, with the metric name as an ordinary label.
impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As Prometheus prints a metric: `name{a="1", b="2"}`, or `{…}` without a name.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        let plain_name = is_legacy_metric_name(name);
        if plain_name {
            f.write_str(name)?;
        }
        let rest = self.iter().filter(|(n, _)| !(plain_name && *n == METRIC_NAME));
        let mut first = true;
        for (n, v) in rest {
            f.write_str(if first { "{" } else { ", " })?;
            first = false;
            if is_legacy_label_name(n) {
                f.write_str(n)?;
            } else {
                f.write_str(&crate::format::go_quote(n))?;
            }
            write!(f, "={}", crate::format::go_quote(v))?;
        }
        match (first, plain_name) {
            (true, true) => Ok(()),
            (true, false) => f.write_str("{}"),
            (false, _) => f.write_str("}"),
        }
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Builds or edits a label set.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts from an existing set.
    pub fn from_labels(labels: &Labels) -> Self {
        Self { pairs: labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.find(name) {
            Ok(i) if value.is_empty() => {
                self.pairs.remove(i);
            }
            Ok(i) => value.clone_into(&mut self.pairs[i].1),
            Err(_) if value.is_empty() => {}
            Err(i) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label.
    pub fn del(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The value set so far, empty when absent.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).map_or("", |i| &self.pairs[i].1)
    }

    /// Pairs in ascending name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The finished set.
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.iter())
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn builds_sorted_and_prints_like_prometheus() {
        let l = Labels::from_pairs([("job", "a\"b"), ("__name__", "up"), ("x.y", "1"), ("gone", "")]);
        assert_eq!(l.to_string(), "up{job=\"a\\\"b\", \"x.y\"=\"1\"}");
        assert_eq!(l.get("gone"), None);
        assert_eq!(Labels::empty().to_string(), "{}");
        assert_eq!(Labels::from_pairs([("__name__", "a.b")]).to_string(), "{__name__=\"a.b\"}");
        assert_eq!(Labels::from_pairs([("__name__", "up")]).to_string(), "up");
    }

    #[test]
    fn order_is_label_by_label() {
        let a = Labels::from_pairs([("a", "1")]);
        let ab = Labels::from_pairs([("a", "1"), ("b", "1")]);
        let b = Labels::from_pairs([("b", "0")]);
        assert!(a < ab && ab < b);
    }

    #[test]
    fn hash_is_prometheus_byte_string() {
        let l = Labels::from_pairs([("a", "1"), ("b", "2")]);
        assert_eq!(l.hash64(), xxh64(b"a\xff1\xffb\xff2\xff", 0));
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_pairs(
            a in proptest::collection::btree_map("[ab]{1,2}", "[xy]{1,70}", 0..4),
            b in proptest::collection::btree_map("[ab]{1,2}", "[xy]{1,70}", 0..4),
        ) {
            let (x, y) = (Labels::from_pairs(a.iter()), Labels::from_pairs(b.iter()));
            prop_assert_eq!(x.cmp(&y), a.iter().cmp(b.iter()));
        }

        #[test]
        fn round_trips(pairs in proptest::collection::btree_map("[a-zé_.]{1,90}", "\\PC{1,200}", 0..9)) {
            let l = Labels::from_pairs(pairs.iter());
            let back: Vec<_> = l.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            let bytes = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            prop_assert_eq!(Labels::from_sorted_bytes(&mut vec![1, 2], bytes), Some(l));
            prop_assert_eq!(back, pairs.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn bytes_that_are_no_text_are_refused(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..70), 2),
        ) {
            let text = parts.iter().all(|p| std::str::from_utf8(p).is_ok());
            let made = Labels::from_sorted_bytes(&mut Vec::new(), [(&parts[0][..], &parts[1][..])]);
            prop_assert_eq!(made.is_some(), text);
        }
    }
}
