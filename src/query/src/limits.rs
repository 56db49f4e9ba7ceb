//! How much one fragment may hold: what the coordinator leaves it, and what the holder allows.
//!
//! Two levels. The coordinator gives every question what is left of the query's budget; the holder has bounds of its own
//! for one fragment, whoever asks. The smaller one counts, and the error says which it was, how large it is and which
//! setting raises it. Below both lies the size at which a fragment is asked for in parts instead.

use koios_chunk::SeriesChunks;

use crate::error::QueryError;
use crate::scope::Scope;

/// A holder's own bounds of one fragment.
#[derive(Clone, Debug)]
pub struct FragmentLimits {
    /// Most series.
    pub series_max: u64,
    /// Most chunk bytes.
    pub bytes_max: u64,
    /// Most samples.
    pub samples_max: u64,
    /// A fragment with more series is asked for in parts.
    pub split_series: u64,
    /// A fragment with more chunk bytes is asked for in parts.
    pub split_bytes: u64,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self {
            series_max: 5_000_000,
            bytes_max: 1 << 30,
            samples_max: 1_000_000_000,
            split_series: 20_000,
            split_bytes: 32 << 20,
        }
    }
}

/// What a fragment holds so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub series: u64,
    pub bytes: u64,
    pub samples: u64,
}

impl Tally {
    /// One more series.
    pub fn add(&mut self, series: &SeriesChunks) {
        self.series += 1;
        self.bytes += series.chunks.iter().map(|c| c.data.len() as u64).sum::<u64>();
        self.samples += series.chunks.iter().map(|c| c.sample_count().unwrap_or(0) as u64).sum::<u64>();
    }

    /// Whether it still is within all bounds.
    ///
    /// # Errors
    /// `QueryError::Limit` for the first that is passed.
    pub fn check(&self, scope: &Scope, own: &FragmentLimits) -> Result<(), QueryError> {
        for (what, held, left, most, of_query, of_fragment) in [
            ("series", self.series, scope.series_max, own.series_max, "max_series", "fragment_max_series"),
            ("bytes", self.bytes, scope.bytes_max, own.bytes_max, "max_bytes", "fragment_max_bytes"),
            (
                "samples",
                self.samples,
                scope.samples_max,
                own.samples_max,
                "max_fetched_samples",
                "fragment_max_samples",
            ),
        ] {
            if held > left.min(most) {
                let text = match left <= most {
                    true => of_the_query(what, left, of_query),
                    false => format!(
                        "one node's part of the query has more than {most} {what}, the limit of one fragment on that \
                         node; narrow the query in time or series, or raise koios.query.{of_fragment} there"
                    ),
                };
                return Err(QueryError::Limit(text));
            }
        }
        Ok(())
    }
}

/// That a query is over its own limit.
pub(crate) fn of_the_query(what: &str, left: u64, setting: &str) -> String {
    format!(
        "the query would fetch more than {left} {what}, what its limit leaves; narrow it in time or series, or raise \
         koios.query.{setting} of the node that was asked"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scope;

    #[test]
    fn the_error_names_the_level_the_limit_and_the_setting() {
        let own =
            FragmentLimits { series_max: 7, bytes_max: 100, samples_max: 50, ..FragmentLimits::default() };
        let asked = Scope { series_max: 9, bytes_max: 40, samples_max: 50, ..scope() };
        let said = |t: Tally| t.check(&asked, &own).map_err(|e| e.to_string());
        assert_eq!(said(Tally { series: 7, bytes: 40, samples: 50 }), Ok(()));
        let text = said(Tally { series: 8, ..Tally::default() }).unwrap_err();
        assert!(text.contains("7 series") && text.contains("koios.query.fragment_max_series"), "{text}");
        let text = said(Tally { bytes: 41, ..Tally::default() }).unwrap_err();
        assert!(text.contains("40 bytes") && text.contains("koios.query.max_bytes"), "{text}");
        let text = said(Tally { samples: 51, ..Tally::default() }).unwrap_err();
        assert!(text.contains("50 samples") && text.contains("koios.query.max_fetched_samples"), "{text}");
    }
}
