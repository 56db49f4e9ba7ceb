//! From an exposed series to the labels that are stored: target labels, metric relabelling, checks, limits.

use koios_config::Limits;
use koios_model::{Labels, LabelsBuilder};

use super::IngestSettings;
use crate::parse::{Kind, ParsedSample, labels_of_series};

/// Put before the name of an exposed label that a target label displaces.
const EXPORTED: &str = "exported_";

/// Final labels of a sample; `None` when relabelling drops it. The error fails the scrape.
pub(super) fn of_sample(
    sample: &ParsedSample<'_>,
    target: &Labels,
    settings: &IngestSettings,
) -> Result<Option<Labels>, String> {
    let mut builder = LabelsBuilder::new();
    labels_of_series(sample.series, sample.kind, &mut builder)?;
    add_target(&mut builder, target, settings.honor_labels);
    if !koios_relabel::process_builder(&mut builder, &settings.metric_relabel) {
        return Ok(None);
    }
    let labels = builder.build();
    if labels.is_empty() {
        return Ok(None);
    }
    if labels.metric_name().is_empty() {
        return Err("missing metric name (__name__ label)".to_owned());
    }
    let scheme = settings.name_scheme;
    if !scheme.metric_ok(labels.metric_name()) || !labels.iter().all(|(n, _)| scheme.label_ok(n)) {
        return Err(format!("invalid metric name or label names: {labels}"));
    }
    check_limits(&labels, &settings.limits)?;
    Ok(Some(labels))
}

/// Target labels win, and what they displace is kept as `exported_…`; the other way round with `honor_labels`.
fn add_target(builder: &mut LabelsBuilder, target: &Labels, honor: bool) {
    if honor {
        for (name, value) in target {
            if builder.get(name).is_empty() {
                builder.set(name, value);
            }
        }
        return;
    }
    let mut displaced: Vec<(String, String)> = Vec::new();
    for (name, value) in target {
        let existing = builder.get(name);
        if !existing.is_empty() {
            displaced.push((name.to_owned(), existing.to_owned()));
        }
        builder.set(name, value);
    }
    // Short names first, so that a longer one that looks like a renamed short one moves out of the way.
    displaced.sort_by_key(|(name, _)| name.len());
    for (name, value) in displaced {
        let mut renamed = format!("{EXPORTED}{name}");
        while !builder.get(&renamed).is_empty() {
            renamed.insert_str(0, EXPORTED);
        }
        builder.set(&renamed, &value);
    }
}

fn check_limits(labels: &Labels, limits: &Limits) -> Result<(), String> {
    let metric: String = labels.metric_name().chars().take(50).collect();
    let count = labels.len() as u64;
    if limits.labels > 0 && count > limits.labels {
        let limit = limits.labels;
        return Err(format!(
            "label_limit exceeded (metric: {metric}, number of labels: {count}, limit: {limit})"
        ));
    }
    for (name, value) in labels {
        let (n, v) = (name.len() as u64, value.len() as u64);
        let short: String = name.chars().take(50).collect();
        if limits.label_name_length > 0 && n > limits.label_name_length {
            let limit = limits.label_name_length;
            return Err(format!(
                "label_name_length_limit exceeded (metric: {metric}, label name: {short}, length: {n}, limit: {limit})"
            ));
        }
        if limits.label_value_length > 0 && v > limits.label_value_length {
            let (limit, value) = (limits.label_value_length, value.chars().take(50).collect::<String>());
            return Err(format!(
                "label_value_length_limit exceeded (metric: {metric}, label name: {short:?}, value: {value:?}, length: {v}, limit: {limit})"
            ));
        }
    }
    Ok(())
}

/// Labels of an exemplar from its raw label list; `None` when they make no sense.
pub(super) fn of_exemplar(raw: &[u8]) -> Option<Labels> {
    let mut series = Vec::with_capacity(raw.len() + 3);
    series.extend_from_slice(b"e{");
    series.extend_from_slice(raw);
    series.push(b'}');
    let mut builder = LabelsBuilder::new();
    labels_of_series(&series, Kind::Unknown, &mut builder).ok()?;
    builder.del(koios_model::METRIC_NAME);
    Some(builder.build())
}
