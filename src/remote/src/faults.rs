//! What was refused, in numbers and words.
//!
//! Owns the closed set of reasons, the words that senders look for (Prometheus' own: Grafana takes a 400 that says
//! "duplicate sample for timestamp" as success), and a collection that counts all and quotes the first few. Senders
//! keep the first 1 KiB of an answer, so the counts stand first.

use std::fmt::Write;

use koios_model::Labels;

/// Refusals quoted in one answer; all are counted.
pub const QUOTED_MAX: usize = 10;
/// Characters of a label set in an answer or a log line.
pub const SHOWN_CHARS_MAX: usize = 300;

/// Why a sample, or a series with its samples, is not stored. Sending it again cannot help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Older than the newest sample of its series, and no window for that.
    OutOfOrder = 0,
    /// The series has another value at this time.
    Duplicate = 1,
    /// Older than the out-of-order window.
    TooOld = 2,
    /// Further ahead of the clock than allowed.
    TooFarInFuture = 3,
    /// Outside of what storage takes, for a reason that is none of the others.
    OutOfBounds = 4,
    /// Spans, buckets, bounds or counts of a native histogram contradict each other.
    BadHistogram = 5,
    /// The number of series has reached its bound.
    SeriesLimit = 6,
    /// Labels that cannot be stored: no metric name, an empty or repeated name, not UTF-8, a reference to nowhere.
    InvalidLabels = 7,
    /// More or longer labels than a series may have.
    LabelLimit = 8,
    /// A series of version 2 without samples and histograms.
    EmptySeries = 9,
}

impl Reason {
    /// Every reason, by number.
    pub const ALL: [Self; 10] = [
        Self::OutOfOrder,
        Self::Duplicate,
        Self::TooOld,
        Self::TooFarInFuture,
        Self::OutOfBounds,
        Self::BadHistogram,
        Self::SeriesLimit,
        Self::InvalidLabels,
        Self::LabelLimit,
        Self::EmptySeries,
    ];

    /// For the `reason` label of metrics, and between nodes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfOrder => "out_of_order",
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::TooFarInFuture => "too_far_in_future",
            Self::OutOfBounds => "out_of_bounds",
            Self::BadHistogram => "bad_histogram",
            Self::SeriesLimit => "series_limit",
            Self::InvalidLabels => "invalid_labels",
            Self::LabelLimit => "label_limit",
            Self::EmptySeries => "empty_series",
        }
    }

    /// The reason with this number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }

    /// For people and for senders.
    pub fn text(self) -> &'static str {
        match self {
            Self::OutOfOrder => "out of order sample",
            Self::Duplicate => "duplicate sample for timestamp",
            Self::TooOld => "too old sample",
            Self::TooFarInFuture => "out of bounds: too far in the future",
            Self::OutOfBounds => "out of bounds",
            Self::BadHistogram => "invalid native histogram",
            Self::SeriesLimit => "limit of series reached",
            Self::InvalidLabels => "invalid labels",
            Self::LabelLimit => "label limit exceeded",
            Self::EmptySeries => "series without samples and histograms",
        }
    }
}

/// Everything that was refused of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    counts: [u64; Reason::ALL.len()],
    quoted: Vec<String>,
}

impl Faults {
    /// Notes that `samples` samples are refused; `what` says where, and is asked only while quotes are taken.
    pub fn add(&mut self, reason: Reason, samples: u64, what: impl FnOnce() -> String) {
        self.counts[reason as usize] += samples.max(1);
        if self.quoted.len() < QUOTED_MAX {
            self.quoted.push(format!("{}: {}", reason.text(), what()));
        }
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|n| *n == 0)
    }

    /// How often a reason occurred, in samples; a series without samples counts as one.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The body of an answer: what is stored, counts by reason, then the first few.
    pub fn text(&self, stored: u64) -> String {
        let mut text = format!("{} refused, {stored} stored: ", self.total());
        let some = Reason::ALL.into_iter().filter(|r| self.count(*r) > 0);
        for (i, reason) in some.enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{} {}", self.count(reason), reason.text());
        }
        text.push_str(". Sending them again does not help.\n");
        for quote in &self.quoted {
            text.push_str(quote);
            text.push('\n');
        }
        text
    }
}

/// A label set for people, cut when it is long.
pub fn shown(labels: &Labels) -> String {
    cut(labels.to_string())
}

/// A text for people, cut when it is long.
pub fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_distinct() {
        for (n, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!((reason as usize, Reason::from_u8(n as u8)), (n, Some(reason)));
        }
        let words: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
        let texts: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::text).into();
        assert_eq!((words.len(), texts.len()), (Reason::ALL.len(), Reason::ALL.len()));
    }

    #[test]
    fn counts_all_and_quotes_some() {
        let mut f = Faults::default();
        assert!(f.is_empty());
        for i in 0..30 {
            f.add(Reason::TooOld, 2, || format!("n{i}"));
        }
        f.add(Reason::EmptySeries, 0, || "never quoted".to_owned());
        let text = f.text(5);
        assert!(text.starts_with("61 refused, 5 stored: 60 too old sample, 1 series without"), "{text}");
        assert_eq!(text.lines().count(), 1 + QUOTED_MAX);
        assert!(text.ends_with("too old sample: n9\n"));
    }

    #[test]
    fn long_labels_are_cut_at_a_character() {
        let long = Labels::from_pairs([("__name__", "a"), ("b", "é".repeat(500).as_str())]);
        let text = shown(&long);
        assert_eq!(text.chars().count(), SHOWN_CHARS_MAX + 1);
    }
}
