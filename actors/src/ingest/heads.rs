//! The published views of all head shards: what every reader of fresh samples goes through.
//!
//! Owns one place per shard, swapped when a shard is opened again. Implements the query crate's port, so a
//! query never enters a shard's mailroom. A place that is still empty makes the head unreadable rather than
//! silently smaller.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use koios_chunk::SeriesChunks;
use koios_model::metadata::MetricMetadata;
use koios_model::{Labels, Matcher, Slot};
use koios_query::HeadPort;
use koios_tsdb::{ExemplarStats, HeadStats, HeadView, SeriesExemplars};

/// Views by shard number.
#[derive(Debug)]
pub struct HeadViews {
    places: Vec<ArcSwapOption<HeadView>>,
}

impl HeadViews {
    /// Empty places for `shards` shards.
    pub fn new(shards: usize) -> Self {
        Self { places: (0..shards).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// Publishes the view of a shard.
    pub fn publish(&self, shard: usize, view: Arc<HeadView>) {
        self.places[shard].store(Some(view));
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.places.len()
    }

    /// All views.
    ///
    /// # Errors
    /// When a shard is not open.
    pub fn all(&self) -> Result<Vec<Arc<HeadView>>, String> {
        let open = |(i, p): (usize, &ArcSwapOption<HeadView>)| {
            p.load_full().ok_or_else(|| format!("shard {i} of the head is not open yet"))
        };
        self.places.iter().enumerate().map(open).collect()
    }

    /// Statistics of all shards together; `None` while one is not open.
    pub fn stats(&self) -> Option<HeadStats> {
        let views = self.all().ok()?;
        let mut sum = HeadStats {
            series: 0,
            chunks: 0,
            min_time: i64::MAX,
            max_time: i64::MIN,
            samples_appended: 0,
            out_of_order_appended: 0,
            out_of_order_repeated: 0,
            out_of_order_window_ms: 0,
            label_pairs: 0,
        };
        for s in views.iter().map(|v| v.stats()) {
            sum.series += s.series;
            sum.chunks += s.chunks;
            sum.min_time = sum.min_time.min(s.min_time);
            sum.max_time = sum.max_time.max(s.max_time);
            sum.samples_appended += s.samples_appended;
            sum.out_of_order_appended += s.out_of_order_appended;
            sum.out_of_order_repeated += s.out_of_order_repeated;
            sum.out_of_order_window_ms = sum.out_of_order_window_ms.max(s.out_of_order_window_ms);
            sum.label_pairs += s.label_pairs;
        }
        Some(sum)
    }

    /// Exemplars with `start <= t <= end` of the series that satisfy all matchers of any set, by labels and slot:
    /// what `/api/v1/query_exemplars` asks of this node.
    ///
    /// # Errors
    /// When a shard is not open.
    pub fn exemplars(
        &self,
        sets: &[Vec<Matcher>],
        start: i64,
        end: i64,
    ) -> Result<Vec<SeriesExemplars>, String> {
        let mut out: Vec<SeriesExemplars> =
            self.all()?.iter().flat_map(|v| v.exemplars(sets, start, end)).collect();
        out.sort_by(|a, b| (&a.labels, a.slot).cmp(&(&b.labels, b.slot)));
        Ok(out)
    }

    /// Metadata that writers pushed, of one family or of all; scraped targets have theirs on the board.
    ///
    /// # Errors
    /// When a shard is not open.
    pub fn metadata(&self, family: Option<&str>) -> Result<Vec<(String, MetricMetadata)>, String> {
        Ok(self.all()?.iter().flat_map(|v| v.metadata(family)).collect())
    }

    /// Counts of the exemplars of all shards together; `None` while one is not open.
    pub fn exemplar_stats(&self) -> Option<ExemplarStats> {
        let views = self.all().ok()?;
        views.iter().map(|v| v.exemplar_stats()).reduce(|a, b| ExemplarStats {
            stored: a.stored + b.stored,
            series: a.series + b.series,
            max: a.max + b.max,
            appended: a.appended + b.appended,
            out_of_order: a.out_of_order + b.out_of_order,
            newest: a.newest.max(b.newest),
        })
    }

    /// Slots with series in any shard.
    pub fn slots(&self) -> Vec<Slot> {
        let views = self.all().unwrap_or_default();
        let slots: BTreeSet<Slot> = views.iter().flat_map(|v| v.slots_present()).collect();
        slots.into_iter().collect()
    }
}

impl HeadPort for HeadViews {
    fn select(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
        keep: &dyn Fn(&Labels) -> bool,
    ) -> Result<Vec<SeriesChunks>, String> {
        let mut series = Vec::new();
        for view in self.all()? {
            series.extend(view.select_if(matchers, mint, maxt, keep).map_err(|e| e.to_string())?);
        }
        Ok(series)
    }

    fn label_names(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>, String> {
        let views = self.all()?;
        Ok(views.iter().filter(|v| in_range(v, mint, maxt)).flat_map(|v| v.label_names(matchers)).collect())
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
    ) -> Result<Vec<String>, String> {
        let views = self.all()?;
        Ok(views
            .iter()
            .filter(|v| in_range(v, mint, maxt))
            .flat_map(|v| v.label_values(name, matchers))
            .collect())
    }
}

fn in_range(view: &HeadView, mint: i64, maxt: i64) -> bool {
    let s = view.stats();
    s.min_time <= maxt && s.max_time >= mint
}
