//! What is said about a metric family: its type, its help text, its unit.
//!
//! The words are those of Prometheus' metadata API. The numbers of the types are stored in logs and never change.

/// Type of a metric family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MetricKind {
    /// Not said.
    #[default]
    Unknown = 0,
    /// Only goes up.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Buckets, sum and count.
    Histogram = 3,
    /// Buckets that may go down.
    GaugeHistogram = 4,
    /// Quantiles, sum and count.
    Summary = 5,
    /// Constant 1 with labels.
    Info = 6,
    /// One of a set of states.
    StateSet = 7,
}

impl MetricKind {
    /// Every type, by number.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// The type with this number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }

    /// The word of Prometheus' metadata API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// Metadata of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricMetadata {
    /// `TYPE`
    pub kind: MetricKind,
    /// `HELP`
    pub help: String,
    /// `UNIT`
    pub unit: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_distinct() {
        for (n, kind) in MetricKind::ALL.into_iter().enumerate() {
            assert_eq!((kind as usize, MetricKind::from_u8(n as u8)), (n, Some(kind)));
        }
        let words: std::collections::BTreeSet<_> = MetricKind::ALL.map(MetricKind::as_str).into();
        assert_eq!((words.len(), MetricKind::from_u8(8)), (8, None));
    }
}
