//! `--enable-feature`: Prometheus' names, and what they mean here.
//!
//! The language that Prometheus guards is always allowed, because allowing it changes no valid query. What
//! changes answers is off until asked for. A name that Prometheus does not know is an error; one that Koios
//! does not follow yet gives a line in the log, never silence.

use koios_promql::EngineOptions;

/// What a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing to do: always on.
    Always,
    DelayedNameRemoval,
    StartTimestamps,
    TypeAndUnitLabels,
    /// Koios has none of it.
    Missing,
}

use Effect::{Always, Missing};

/// Every name that Prometheus 3.14 knows.
const FLAGS: [(&str, Effect); 32] = [
    ("auto-reload-config", Missing),
    ("concurrent-rule-eval", Missing),
    ("created-timestamp-zero-ingestion", Missing),
    ("delayed-compaction", Missing),
    ("exemplar-storage", Always),
    ("extra-scrape-metrics", Missing),
    ("fast-startup", Missing),
    ("histograms-st-encoding", Missing),
    ("memory-snapshot-on-shutdown", Missing),
    ("metadata-wal-records", Missing),
    ("native-histograms", Always),
    ("old-ui", Missing),
    ("ooo-native-histograms", Always),
    ("otlp-deltatocumulative", Missing),
    ("otlp-native-delta-ingestion", Missing),
    ("promql-at-modifier", Always),
    ("promql-binop-fill-modifiers", Always),
    ("promql-delayed-name-removal", Effect::DelayedNameRemoval),
    ("promql-duration-expr", Always),
    ("promql-experimental-functions", Always),
    ("promql-extended-range-selectors", Always),
    ("promql-negative-offset", Always),
    ("promql-per-step-stats", Missing),
    ("search-api", Missing),
    ("st-storage", Missing),
    ("st-synthesis", Missing),
    ("type-and-unit-labels", Effect::TypeAndUnitLabels),
    ("use-start-timestamps", Effect::StartTimestamps),
    ("use-uncached-io", Missing),
    ("utf8-names", Always),
    ("xor2-encoding", Missing),
    ("remote-write-receiver", Always),
];

/// What the flags of a node come to.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// For the query engine.
    pub engine: EngineOptions,
    /// For the log.
    pub notes: Vec<String>,
}

impl Features {
    /// Weighs the names given.
    ///
    /// # Errors
    /// A text that names the known ones.
    pub fn read(names: &[String]) -> Result<Self, String> {
        let mut out = Self::default();
        for name in names.iter().map(|n| n.trim()).filter(|n| !n.is_empty()) {
            let Some((_, effect)) = FLAGS.iter().find(|(n, _)| *n == name) else {
                let known: Vec<&str> = FLAGS.iter().map(|(n, _)| *n).collect();
                return Err(format!(
                    "--enable-feature: unknown feature {name:?}; fix: use some of {}",
                    known.join(", ")
                ));
            };
            match effect {
                Effect::Always => {}
                Effect::DelayedNameRemoval => out.engine.delayed_name_removal = true,
                Effect::StartTimestamps => out.engine.start_timestamps = true,
                Effect::TypeAndUnitLabels => {
                    out.engine.type_and_unit_labels = true;
                    out.notes.push(format!(
                        "--enable-feature={name}: queries treat __type__ and __unit__ as metadata; scraping does not add them yet"
                    ));
                }
                Effect::Missing => {
                    out.notes.push(format!(
                        "--enable-feature={name} has no effect: koios does not have this feature"
                    ));
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<Features, String> {
        Features::read(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_that_changes_answers_is_on_by_default() {
        assert_eq!(read(&[]).unwrap().engine, EngineOptions::default());
        assert_eq!(
            read(&["promql-experimental-functions", "promql-duration-expr"]).unwrap().engine,
            EngineOptions::default()
        );
    }

    #[test]
    fn names_mean_what_they_say() {
        let f = read(&["promql-delayed-name-removal", " use-start-timestamps", "type-and-unit-labels", ""])
            .unwrap();
        assert_eq!(f.engine, EngineOptions::all());
        assert_eq!(read(&["xor2-encoding"]).unwrap().notes.len(), 1, "never silently without effect");
        let why = read(&["promql-delayed"]).unwrap_err();
        assert!(why.contains("\"promql-delayed\"") && why.contains("promql-delayed-name-removal"), "{why}");
    }
}
