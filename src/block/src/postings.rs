//! Matchers to series: set operations over sorted lists of series numbers.
//!
//! Owns the plan (equality first and smallest list first, matchers that accept the empty value by subtraction,
//! sets and prefixes without looking at every value) once for head and blocks; where lists come from is the
//! `PostingsSource`'s. Refuses to know what a number refers to. Invariant: lists are strictly ascending.

use koios_model::{MatchType, Matcher};

/// Which values of a label are asked for.
pub enum ValueTest<'a> {
    /// Exactly these.
    Set(&'a [String]),
    /// Those with this prefix that the predicate accepts.
    Prefix(&'a str, &'a dyn Fn(&str) -> bool),
    /// All that the predicate accepts.
    Any(&'a dyn Fn(&str) -> bool),
}

/// Where postings come from.
pub trait PostingsSource {
    /// What can go wrong while reading.
    type Error;
    /// All series, ascending.
    ///
    /// # Errors
    /// The source's.
    fn all(&self) -> Result<Vec<u32>, Self::Error>;
    /// Series with exactly this label, ascending.
    ///
    /// # Errors
    /// The source's.
    fn equal(&self, name: &str, value: &str) -> Result<Vec<u32>, Self::Error>;
    /// Series whose value of `name` passes the test, ascending.
    ///
    /// # Errors
    /// The source's.
    fn any_of(&self, name: &str, test: &ValueTest<'_>) -> Result<Vec<u32>, Self::Error>;
}

/// Series that satisfy all matchers, ascending. No matcher selects everything.
///
/// # Errors
/// Those of the source.
pub fn select_postings<S: PostingsSource>(source: &S, matchers: &[Matcher]) -> Result<Vec<u32>, S::Error> {
    let (subtracting, mut adding): (Vec<_>, Vec<_>) = matchers.iter().partition(|m| m.matches_empty());
    adding.sort_by_key(|m| m.kind != MatchType::Equal);
    let mut lists = Vec::with_capacity(adding.len());
    for m in adding {
        let list = accepted(source, m)?;
        if list.is_empty() {
            return Ok(list);
        }
        lists.push(list);
    }
    lists.sort_by_key(Vec::len);
    let mut lists = lists.into_iter();
    let mut found = match lists.next() {
        Some(first) => lists.fold(first, |a, b| intersect(&a, &b)),
        None => source.all()?,
    };
    for m in subtracting {
        if found.is_empty() {
            break;
        }
        found = subtract(&found, &refused(source, m)?);
    }
    Ok(found)
}

/// Asks `source` for the lists that `select_postings` would ask it for, and perhaps for some that it would not need.
///
/// # Errors
/// Those of the source.
pub(crate) fn touch_postings<S: PostingsSource>(source: &S, matchers: &[Matcher]) -> Result<(), S::Error> {
    let (subtracting, mut adding): (Vec<_>, Vec<_>) = matchers.iter().partition(|m| m.matches_empty());
    adding.sort_by_key(|m| m.kind != MatchType::Equal);
    for m in &adding {
        if accepted(source, m)?.is_empty() {
            return Ok(());
        }
    }
    if adding.is_empty() {
        source.all()?;
    }
    subtracting.into_iter().try_for_each(|m| refused(source, m).map(drop))
}

/// Series that have the label with a value the matcher accepts.
fn accepted<S: PostingsSource>(source: &S, m: &Matcher) -> Result<Vec<u32>, S::Error> {
    match m.kind {
        MatchType::Equal => source.equal(&m.name, &m.value),
        MatchType::Regex => by_regex(source, m, &|v| m.matches(v)),
        MatchType::NotEqual | MatchType::NotRegex => {
            source.any_of(&m.name, &ValueTest::Any(&|v| m.matches(v)))
        }
    }
}

/// Series that have the label with a value the matcher refuses.
fn refused<S: PostingsSource>(source: &S, m: &Matcher) -> Result<Vec<u32>, S::Error> {
    match m.kind {
        MatchType::NotEqual => source.equal(&m.name, &m.value),
        MatchType::NotRegex => by_regex(source, m, &|v| !m.matches(v)),
        MatchType::Equal | MatchType::Regex => source.any_of(&m.name, &ValueTest::Any(&|v| !m.matches(v))),
    }
}

/// Series whose value fits the pattern of `m`, whichever way round `m` asks.
fn by_regex<S: PostingsSource>(
    source: &S,
    m: &Matcher,
    fits: &dyn Fn(&str) -> bool,
) -> Result<Vec<u32>, S::Error> {
    let Some(re) = m.regexp() else { unreachable!("BUG: regex matcher without a pattern") };
    if let Some(set) = re.literal_set() {
        return source.any_of(&m.name, &ValueTest::Set(set));
    }
    match re.literal_prefix() {
        "" => source.any_of(&m.name, &ValueTest::Any(fits)),
        prefix => source.any_of(&m.name, &ValueTest::Prefix(prefix, fits)),
    }
}

/// How much longer the longer list must be for galloping to pay.
const GALLOP_RATIO: usize = 16;

/// Numbers in both lists.
pub fn intersect(a: &[u32], b: &[u32]) -> Vec<u32> {
    let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let mut out = Vec::with_capacity(small.len());
    if small.len() * GALLOP_RATIO < large.len() {
        let mut rest = large;
        for &x in small {
            rest = &rest[gallop(rest, x)..];
            if rest.first() == Some(&x) {
                out.push(x);
            }
        }
        return out;
    }
    let (mut i, mut j) = (0, 0);
    while i < small.len() && j < large.len() {
        let (x, y) = (small[i], large[j]);
        if x == y {
            out.push(x);
        }
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    out
}

/// Numbers of `a` that are not in `b`.
pub fn subtract(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut out = Vec::with_capacity(a.len());
    let mut rest = b;
    for &x in a {
        rest = &rest[gallop(rest, x)..];
        if rest.first() != Some(&x) {
            out.push(x);
        }
    }
    out
}

/// Numbers in any of the lists.
pub fn union(mut lists: Vec<Vec<u32>>) -> Vec<u32> {
    match lists.len() {
        0 => Vec::new(),
        1 => lists.swap_remove(0),
        _ => {
            let mut all: Vec<u32> = lists.concat();
            // Lists of one label do not share series and often follow each other: the merge sort finds the runs.
            all.sort();
            all.dedup();
            all
        }
    }
}

/// Index of the first element that is not below `x`.
fn gallop(list: &[u32], x: u32) -> usize {
    let mut step = 1;
    while step < list.len() && list[step - 1] < x {
        step *= 2;
    }
    let from = step / 2;
    let to = step.min(list.len());
    from + list[from..to].partition_point(|&y| y < x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn set_operations_are_those_of_sets(
            a in proptest::collection::btree_set(0u32..600, 0..40),
            b in proptest::collection::btree_set(0u32..600, 0..500),
        ) {
            let (va, vb): (Vec<_>, Vec<_>) = (a.iter().copied().collect(), b.iter().copied().collect());
            let as_vec = |s: BTreeSet<u32>| s.into_iter().collect::<Vec<_>>();
            prop_assert_eq!(intersect(&va, &vb), as_vec(&a & &b));
            prop_assert_eq!(intersect(&vb, &va), as_vec(&a & &b));
            prop_assert_eq!(subtract(&va, &vb), as_vec(&a - &b));
            prop_assert_eq!(subtract(&vb, &va), as_vec(&b - &a));
            prop_assert_eq!(union(vec![va, vb]), as_vec(&a | &b));
        }
    }
}
