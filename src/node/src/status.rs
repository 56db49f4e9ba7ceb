//! `/api/v1/status/tsdb` over all shards of this node.

use std::collections::BTreeMap;

use koios_actors::ingest::HeadViews;
use koios_tsdb::Cardinality;
use serde_json::{Value, json};

/// Shards hold disjoint series, so counts add up; values of a label may repeat between shards, which makes
/// their sum an upper bound.
pub fn tsdb(heads: &HeadViews, limit: usize) -> String {
    // More per shard than shown, so that the sum's largest are among them.
    let deep = limit.saturating_mul(4).max(100);
    let parts: Vec<Cardinality> =
        heads.all().unwrap_or_default().iter().map(|v| v.cardinality(deep)).collect();
    let top = |pick: &dyn Fn(&Cardinality) -> &Vec<(String, u64)>| -> Value {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, n) in parts.iter().flat_map(pick) {
            *sums.entry(name).or_default() += n;
        }
        let mut list: Vec<(&str, u64)> = sums.into_iter().collect();
        list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        list.truncate(limit);
        list.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
    };
    let stats = heads.stats();
    let empty = stats.is_none_or(|s| s.min_time > s.max_time);
    let (series, chunks, pairs) = stats.map_or((0, 0, 0), |s| (s.series, s.chunks, s.label_pairs));
    let (min, max) = stats.filter(|_| !empty).map_or((i64::MAX, i64::MIN), |s| (s.min_time, s.max_time));
    json!({
        "headStats": { "numSeries": series, "numLabelPairs": pairs, "chunkCount": chunks, "minTime": min, "maxTime": max },
        "seriesCountByMetricName": top(&|c| &c.series_by_metric),
        "labelValueCountByLabelName": top(&|c| &c.values_by_label),
        "memoryInBytesByLabelName": top(&|c| &c.bytes_by_label),
        "seriesCountByLabelValuePair": top(&|c| &c.series_by_pair),
    })
    .to_string()
}
