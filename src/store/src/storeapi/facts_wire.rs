//! Facts between the JSON of Prometheus' HTTP API and Thanos' messages, both ways.
//!
//! Pure. What a message has no field for is left out; what JSON lacks is empty. Nothing here fails: a fact of a shape that is not
//! known is a fact without content.

use koios_model::timestamp::{parse_rfc3339, rfc3339};
use koios_proto::thanos as pb;
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn seconds(v: &Value) -> f64 {
    v.as_f64().unwrap_or(0.0)
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn label_set(v: &Value) -> Option<pb::LabelSet> {
    let label = |(name, value): (&String, &Value)| pb::Label { name: name.clone(), value: text(value) };
    let mut labels: Vec<pb::Label> = v.as_object()?.iter().map(label).collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    Some(pb::LabelSet { labels })
}

fn label_json(set: &Option<pb::LabelSet>) -> Value {
    let labels = set.iter().flat_map(|s| &s.labels);
    labels.map(|l| (l.name.clone(), Value::from(l.value.clone()))).collect::<Map<_, _>>().into()
}

fn moment(v: &Value) -> Option<Timestamp> {
    let ms = parse_rfc3339(v.as_str()?).filter(|ms| *ms > 0)?;
    Some(Timestamp { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 })
}

fn moment_json(t: &Option<Timestamp>) -> Value {
    // Go's zero time, which stands for never.
    let never = || Value::from("0001-01-01T00:00:00Z");
    let ms = |t: &Timestamp| t.seconds.checked_mul(1000)?.checked_add(i64::from(t.nanos) / 1_000_000);
    t.as_ref().and_then(ms).map_or_else(never, |ms| Value::from(rfc3339(ms)))
}

const STATES: [(&str, pb::AlertState); 4] = [
    ("unknown", pb::AlertState::Unknown),
    ("inactive", pb::AlertState::Inactive),
    ("pending", pb::AlertState::Pending),
    ("firing", pb::AlertState::Firing),
];

fn state(v: &Value) -> i32 {
    let found = STATES.iter().find(|(name, _)| v.as_str() == Some(name));
    found.map_or(pb::AlertState::Unknown, |(_, s)| *s).into()
}

fn state_json(s: i32) -> &'static str {
    STATES.iter().find(|(_, known)| *known as i32 == s).map_or("unknown", |(name, _)| name)
}

/// Groups of rules.
pub fn groups(v: &Value) -> Vec<pb::RuleGroup> {
    let group = |g: &Value| pb::RuleGroup {
        name: text(&g["name"]),
        file: text(&g["file"]),
        rules: list(&g["rules"]).map(rule).collect(),
        interval: seconds(&g["interval"]),
        evaluation_duration_seconds: seconds(&g["evaluationTime"]),
        last_evaluation: moment(&g["lastEvaluation"]),
        partial_response_strategy: match g["partialResponseStrategy"].as_str() {
            Some(s) if s.eq_ignore_ascii_case("warn") => pb::PartialResponseStrategy::Warn.into(),
            _ => pb::PartialResponseStrategy::Abort.into(),
        },
        limit: g["limit"].as_i64().unwrap_or(0),
    };
    list(v).map(group).collect()
}

fn rule(r: &Value) -> pb::Rule {
    use pb::rule::Result as Kind;
    let kind = if r["type"] == "alerting" {
        Kind::Alert(pb::Alert {
            state: state(&r["state"]),
            name: text(&r["name"]),
            query: text(&r["query"]),
            duration_seconds: seconds(&r["duration"]),
            labels: label_set(&r["labels"]),
            annotations: label_set(&r["annotations"]),
            alerts: list(&r["alerts"]).map(instance).collect(),
            health: text(&r["health"]),
            last_error: text(&r["lastError"]),
            evaluation_duration_seconds: seconds(&r["evaluationTime"]),
            last_evaluation: moment(&r["lastEvaluation"]),
            keep_firing_for_seconds: seconds(&r["keepFiringFor"]),
        })
    } else {
        Kind::Recording(pb::RecordingRule {
            name: text(&r["name"]),
            query: text(&r["query"]),
            labels: label_set(&r["labels"]),
            health: text(&r["health"]),
            last_error: text(&r["lastError"]),
            evaluation_duration_seconds: seconds(&r["evaluationTime"]),
            last_evaluation: moment(&r["lastEvaluation"]),
        })
    };
    pb::Rule { result: Some(kind) }
}

fn instance(a: &Value) -> pb::AlertInstance {
    pb::AlertInstance {
        labels: label_set(&a["labels"]),
        annotations: label_set(&a["annotations"]),
        state: state(&a["state"]),
        active_at: moment(&a["activeAt"]),
        value: text(&a["value"]),
        partial_response_strategy: pb::PartialResponseStrategy::Warn.into(),
    }
}

/// A group of rules as the HTTP API has it.
pub fn group_json(g: &pb::RuleGroup) -> Value {
    let rules: Vec<Value> = g.rules.iter().filter_map(rule_json).collect();
    json!({ "name": g.name, "file": g.file, "rules": rules, "interval": g.interval, "limit": g.limit,
            "evaluationTime": g.evaluation_duration_seconds, "lastEvaluation": moment_json(&g.last_evaluation) })
}

fn rule_json(r: &pb::Rule) -> Option<Value> {
    use pb::rule::Result as Kind;
    Some(match r.result.as_ref()? {
        Kind::Alert(a) => {
            let alerts: Vec<Value> = a.alerts.iter().map(instance_json).collect();
            json!({ "type": "alerting", "state": state_json(a.state), "name": a.name, "query": a.query,
                "duration": a.duration_seconds, "keepFiringFor": a.keep_firing_for_seconds,
                "labels": label_json(&a.labels), "annotations": label_json(&a.annotations), "alerts": alerts,
                "health": a.health, "lastError": a.last_error, "evaluationTime": a.evaluation_duration_seconds,
                "lastEvaluation": moment_json(&a.last_evaluation) })
        }
        Kind::Recording(r) => json!({ "type": "recording", "name": r.name, "query": r.query,
            "labels": label_json(&r.labels), "health": r.health, "lastError": r.last_error,
            "evaluationTime": r.evaluation_duration_seconds, "lastEvaluation": moment_json(&r.last_evaluation) }),
    })
}

fn instance_json(a: &pb::AlertInstance) -> Value {
    json!({ "labels": label_json(&a.labels), "annotations": label_json(&a.annotations),
            "state": state_json(a.state), "activeAt": moment_json(&a.active_at), "value": a.value })
}

const HEALTHS: [(&str, pb::TargetHealth); 3] = [
    ("down", pb::TargetHealth::Down),
    ("up", pb::TargetHealth::Up),
    ("unknown", pb::TargetHealth::UnknownHealth),
];

/// Targets.
pub fn targets(v: &Value) -> pb::TargetDiscovery {
    let active = |t: &Value| {
        let health = HEALTHS.iter().find(|(name, _)| t["health"] == *name);
        pb::ActiveTarget {
            discovered_labels: label_set(&t["discoveredLabels"]),
            labels: label_set(&t["labels"]),
            scrape_pool: text(&t["scrapePool"]),
            scrape_url: text(&t["scrapeUrl"]),
            global_url: text(&t["globalUrl"]),
            last_error: text(&t["lastError"]),
            last_scrape: moment(&t["lastScrape"]),
            last_scrape_duration: seconds(&t["lastScrapeDuration"]),
            health: health.map_or(pb::TargetHealth::UnknownHealth, |(_, h)| *h).into(),
        }
    };
    let dropped = |t: &Value| pb::DroppedTarget { discovered_labels: label_set(&t["discoveredLabels"]) };
    pb::TargetDiscovery {
        active_targets: list(&v["active"]).map(active).collect(),
        dropped_targets: list(&v["dropped"]).map(dropped).collect(),
    }
}

/// Targets as the HTTP API has them.
pub fn targets_json(d: &pb::TargetDiscovery) -> Value {
    let active = |t: &pb::ActiveTarget| {
        let health = HEALTHS.iter().find(|(_, h)| *h as i32 == t.health).map_or("unknown", |(name, _)| name);
        json!({ "discoveredLabels": label_json(&t.discovered_labels), "labels": label_json(&t.labels),
                "scrapePool": t.scrape_pool, "scrapeUrl": t.scrape_url, "globalUrl": t.global_url,
                "lastError": t.last_error, "lastScrape": moment_json(&t.last_scrape),
                "lastScrapeDuration": t.last_scrape_duration, "health": health })
    };
    let dropped = |t: &pb::DroppedTarget| json!({ "discoveredLabels": label_json(&t.discovered_labels) });
    json!({ "active": d.active_targets.iter().map(active).collect::<Vec<_>>(),
            "dropped": d.dropped_targets.iter().map(dropped).collect::<Vec<_>>() })
}

/// Metadata.
pub fn metadata(v: &Value) -> pb::MetricMetadata {
    let meta =
        |m: &Value| pb::Meta { r#type: text(&m["type"]), help: text(&m["help"]), unit: text(&m["unit"]) };
    let entry = |metas: &Value| pb::MetricMetadataEntry { metas: list(metas).map(meta).collect() };
    let families = v.as_object().into_iter().flatten();
    pb::MetricMetadata { metadata: families.map(|(name, metas)| (name.clone(), entry(metas))).collect() }
}

/// Metadata as the HTTP API has it.
pub fn metadata_json(all: &pb::MetricMetadata) -> Value {
    let meta = |m: &pb::Meta| json!({ "type": m.r#type, "help": m.help, "unit": m.unit });
    let entry = |e: &pb::MetricMetadataEntry| e.metas.iter().map(meta).collect::<Vec<_>>();
    all.metadata.iter().map(|(name, e)| (name.clone(), json!(entry(e)))).collect::<Map<_, _>>().into()
}

/// Exemplars.
pub fn exemplars(v: &Value) -> Vec<pb::ExemplarData> {
    let exemplar = |e: &Value| pb::Exemplar {
        labels: label_set(&e["labels"]),
        value: e["value"].as_str().and_then(koios_model::format::parse_go_float).unwrap_or(f64::NAN),
        ts: (seconds(&e["timestamp"]) * 1000.0).round() as i64,
    };
    let data = |d: &Value| pb::ExemplarData {
        series_labels: label_set(&d["seriesLabels"]),
        exemplars: list(&d["exemplars"]).map(exemplar).collect(),
    };
    list(v).map(data).collect()
}

/// Exemplars as the HTTP API has them.
pub fn exemplars_json(d: &pb::ExemplarData) -> Value {
    let exemplar = |e: &pb::Exemplar| {
        json!({ "labels": label_json(&e.labels), "value": koios_model::format::float_f(e.value),
                "timestamp": e.ts as f64 / 1000.0 })
    };
    json!({ "seriesLabels": label_json(&d.series_labels),
            "exemplars": d.exemplars.iter().map(exemplar).collect::<Vec<_>>() })
}

/// Sizes of heads.
pub fn statistics(v: &Value) -> pb::TsdbStatistics {
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let top = |l: &Value| {
        let one = |s: &Value| pb::Statistic { name: text(&s["name"]), value: number(&s["value"]) };
        list(l).map(one).collect()
    };
    let entry = |s: &Value| {
        let head = &s["headStats"];
        pb::TsdbStatisticsEntry {
            head_statistics: Some(pb::HeadStatistics {
                num_series: number(&head["numSeries"]),
                num_label_pairs: number(&head["numLabelPairs"]),
                chunk_count: head["chunkCount"].as_i64().unwrap_or(0),
                min_time: head["minTime"].as_i64().unwrap_or(0),
                max_time: head["maxTime"].as_i64().unwrap_or(0),
            }),
            series_count_by_metric_name: top(&s["seriesCountByMetricName"]),
            label_value_count_by_label_name: top(&s["labelValueCountByLabelName"]),
            memory_in_bytes_by_label_name: top(&s["memoryInBytesByLabelName"]),
            series_count_by_label_value_pair: top(&s["seriesCountByLabelValuePair"]),
        }
    };
    let heads = v.as_object().into_iter().flatten();
    pb::TsdbStatistics { statistics: heads.map(|(name, s)| (name.clone(), entry(s))).collect() }
}

/// Sizes of heads as the HTTP API has them.
pub fn statistics_json(all: &pb::TsdbStatistics) -> Value {
    let top = |l: &[pb::Statistic]| -> Value {
        l.iter().map(|s| json!({ "name": s.name, "value": s.value })).collect::<Vec<_>>().into()
    };
    let entry = |e: &pb::TsdbStatisticsEntry| {
        let h = e.head_statistics.unwrap_or_default();
        json!({ "headStats": { "numSeries": h.num_series, "numLabelPairs": h.num_label_pairs,
                    "chunkCount": h.chunk_count, "minTime": h.min_time, "maxTime": h.max_time },
                "seriesCountByMetricName": top(&e.series_count_by_metric_name),
                "labelValueCountByLabelName": top(&e.label_value_count_by_label_name),
                "memoryInBytesByLabelName": top(&e.memory_in_bytes_by_label_name),
                "seriesCountByLabelValuePair": top(&e.series_count_by_label_value_pair) })
    };
    all.statistics.iter().map(|(name, e)| (name.clone(), entry(e))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_go_over_the_wire_and_come_back() {
        let never = "0001-01-01T00:00:00Z";
        let labels = json!({"a": "1", "b": "2"});
        let instance = json!({"labels": labels, "annotations": {}, "state": "firing",
            "activeAt": "2026-11-23T20:00:00.500Z", "value": "1e+00"});
        let group = json!({"name": "g", "file": "f", "interval": 30.0, "limit": 3, "evaluationTime": 0.25,
            "lastEvaluation": "2026-11-23T20:00:00.000Z", "rules": [
            {"type": "alerting", "state": "firing", "name": "A", "query": "up == 0", "duration": 60.0,
             "keepFiringFor": 5.0, "labels": labels, "annotations": {"summary": "x"}, "alerts": [instance],
             "health": "ok", "lastError": "", "evaluationTime": 0.5, "lastEvaluation": never},
            {"type": "recording", "name": "r", "query": "sum(up)", "labels": {}, "health": "err",
             "lastError": "why", "evaluationTime": 0.5, "lastEvaluation": never}]});
        let back: Vec<Value> = groups(&json!([group])).iter().map(group_json).collect();
        assert_eq!(back, [group]);
        let target = json!({"discoveredLabels": labels, "labels": {"job": "j"}, "scrapePool": "p",
            "scrapeUrl": "http://x/metrics", "globalUrl": "http://y/metrics", "lastError": "",
            "lastScrape": "2026-11-23T20:00:00.123Z", "lastScrapeDuration": 0.5, "health": "up"});
        let all = json!({"active": [target], "dropped": [{"discoveredLabels": labels}]});
        assert_eq!(targets_json(&targets(&all)), all);
        let said = json!({"up": [{"type": "gauge", "help": "h", "unit": ""}]});
        assert_eq!(metadata_json(&metadata(&said)), said);
        let one = json!({"seriesLabels": labels, "exemplars": [
            {"labels": {"trace": "t"}, "value": "0.5", "timestamp": 1_700_000_000.25}]});
        let back: Vec<Value> = exemplars(&json!([one])).iter().map(exemplars_json).collect();
        assert_eq!(back, [one]);
        let top = json!([{"name": "n", "value": 3}]);
        let sizes = json!({"default": {"headStats": {"numSeries": 1, "numLabelPairs": 2, "chunkCount": 3,
            "minTime": 4, "maxTime": 5}, "seriesCountByMetricName": top, "labelValueCountByLabelName": top,
            "memoryInBytesByLabelName": top, "seriesCountByLabelValuePair": top}});
        assert_eq!(statistics_json(&statistics(&sizes)), sizes);
    }

    #[test]
    fn what_is_no_fact_is_empty() {
        for odd in [json!(null), json!(3), json!([1, "x"]), json!({"active": 3, "dropped": [null]})] {
            groups(&odd).iter().map(group_json).for_each(drop);
            targets_json(&targets(&odd));
            metadata_json(&metadata(&odd));
            exemplars(&odd).iter().map(exemplars_json).for_each(drop);
            statistics_json(&statistics(&odd));
        }
    }
}
