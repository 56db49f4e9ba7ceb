//! External labels for those who read samples and evaluate themselves: remote read and federation.
//!
//! Owns what Prometheus does at these doors: what is stored lacks the external labels, what is shown has them where the
//! series has no such label itself. Invariant: what is shown satisfies the matchers as they were asked. (Prometheus
//! takes equality with its own label for granted and does not look again; in a bucket with data of others that
//! would show theirs as ours.)

use koios_model::{Labels, LabelsBuilder, Matcher};

use crate::merge::{MergedList, MergedSeries};

/// The matchers to select by, and those that what is shown is to be tested with.
pub(crate) fn split(external: &Labels, matchers: Vec<Matcher>) -> (Vec<Matcher>, Vec<Matcher>) {
    let (shown, mut asked): (Vec<_>, Vec<_>) =
        matchers.into_iter().partition(|m| external.get(&m.name).is_some());
    // One that our label fails is failed by all that gets the label, so the series must have one of its own.
    let fails = |m: &&Matcher| !m.matches(external.value(&m.name));
    asked.extend(shown.iter().filter(fails).cloned());
    (asked, shown)
}

/// Adds the external labels where there are none, leaves out what does not match, and sorts again.
pub(crate) fn dress(mut list: MergedList, external: &Labels, shown: &[Matcher]) -> MergedList {
    if external.is_empty() {
        return list;
    }
    for series in &mut list.series {
        series.labels = dressed(external, &series.labels);
    }
    list.series.retain(|s| shown.iter().all(|m| m.matches(s.labels.value(&m.name))));
    if !list.series.is_sorted_by(|a, b| a.labels < b.labels) {
        list.series.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut series: Vec<MergedSeries> = Vec::with_capacity(list.series.len());
        for s in list.series {
            match series.last_mut() {
                Some(last) if last.labels == s.labels => last.absorb(s),
                _ => series.push(s),
            }
        }
        list.series = series;
    }
    list
}

fn dressed(external: &Labels, labels: &Labels) -> Labels {
    let mut b = LabelsBuilder::from_labels(external);
    for (name, value) in labels {
        b.set(name, value);
    }
    b.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::MatchType;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    fn matcher(kind: MatchType, name: &str, value: &str) -> Matcher {
        Matcher::new(kind, name, value).unwrap()
    }

    /// What is shown of three series to a question for these matchers.
    fn shown(matchers: Vec<Matcher>) -> Vec<String> {
        let external = labels(&[("cluster", "eu"), ("zone", "1")]);
        let (asked, tests) = split(&external, matchers);
        let stored = [&[("a", "1")][..], &[("a", "2"), ("cluster", "us")], &[("a", "1"), ("cluster", "eu")]];
        let matching =
            stored.iter().map(|s| labels(s)).filter(|l| asked.iter().all(|m| m.matches(l.value(&m.name))));
        let series = matching.map(MergedSeries::new).collect();
        let list = dress(MergedList { series, ..MergedList::default() }, &external, &tests);
        list.series.iter().map(|s| s.labels.to_string()).collect()
    }

    #[test]
    fn what_is_shown_is_what_was_asked_for() {
        let (own, other) = (r#"{a="1", cluster="eu", zone="1"}"#, r#"{a="2", cluster="us", zone="1"}"#);
        let equal = MatchType::Equal;
        assert_eq!(shown(vec![matcher(equal, "a", "1")]), [own], "once, though it is stored twice");
        assert_eq!(shown(vec![]), [own, other]);
        assert_eq!(shown(vec![matcher(equal, "cluster", "eu")]), [own]);
        assert_eq!(shown(vec![matcher(equal, "cluster", "us")]), [other]);
        assert_eq!(shown(vec![matcher(MatchType::Regex, "cluster", "e.*")]), [own]);
        assert_eq!(shown(vec![matcher(MatchType::NotEqual, "cluster", "eu")]), [other]);
        assert_eq!(shown(vec![matcher(equal, "cluster", "")]), [""; 0]);
        assert_eq!(shown(vec![matcher(equal, "zone", "1"), matcher(equal, "a", "2")]), [other]);
    }

    #[test]
    fn a_label_of_another_value_is_selected_by() {
        let external = labels(&[("cluster", "eu")]);
        let us = matcher(MatchType::Equal, "cluster", "us");
        assert_eq!(split(&external, vec![us.clone()]), (vec![us.clone()], vec![us]));
        let eu = matcher(MatchType::Equal, "cluster", "eu");
        assert_eq!(split(&external, vec![eu.clone()]), (vec![], vec![eu]));
    }
}
