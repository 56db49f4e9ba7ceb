//! Relabelling: a pure function from a label set to a label set, or to nothing.
//!
//! Owns what each action does (Prometheus `model/relabel`, documentation page "relabel_config"). Refuses
//! reading rules: they arrive checked and compiled from the config crate. Invariants: rules run in order on
//! the result of the one before; a dropped set ends processing; `hashmod` equals Prometheus' bit for bit,
//! because users shard on it.

use md5::{Digest, Md5};

use koios_config::RelabelAction;
pub use koios_config::RelabelRule;
use koios_model::{Labels, LabelsBuilder};

#[cfg(test)]
mod tests;

/// Applies `rules` to `labels`; `None` when a rule drops the set.
pub fn process(labels: &Labels, rules: &[RelabelRule]) -> Option<Labels> {
    if rules.is_empty() {
        return Some(labels.clone());
    }
    let mut builder = LabelsBuilder::from_labels(labels);
    process_builder(&mut builder, rules).then(|| builder.build())
}

/// Applies `rules` in place; false when a rule drops the set, whose content is then of no meaning.
pub fn process_builder(labels: &mut LabelsBuilder, rules: &[RelabelRule]) -> bool {
    rules.iter().all(|rule| apply(labels, rule))
}

fn apply(labels: &mut LabelsBuilder, rule: &RelabelRule) -> bool {
    use RelabelAction as A;
    match rule.action {
        A::LabelMap => {
            for (name, value) in owned(labels) {
                if let Some(to) = rule.regex.expand(&name, &rule.replacement) {
                    labels.set(&to, &value);
                }
            }
        }
        A::LabelDrop | A::LabelKeep => {
            let drop_matching = rule.action == A::LabelDrop;
            for (name, _) in owned(labels) {
                if rule.regex.is_match(&name) == drop_matching {
                    labels.del(&name);
                }
            }
        }
        _ => return on_value(labels, rule),
    }
    true
}

/// The actions that look at the joined source value.
fn on_value(labels: &mut LabelsBuilder, rule: &RelabelRule) -> bool {
    use RelabelAction as A;
    let value = joined(labels, rule);
    match rule.action {
        A::Keep => return rule.regex.is_match(&value),
        A::Drop => return !rule.regex.is_match(&value),
        A::KeepEqual => return labels.get(&rule.target_label) == value,
        A::DropEqual => return labels.get(&rule.target_label) != value,
        A::HashMod => {
            labels.set(&rule.target_label, &hash_mod(&value, rule.modulus).to_string());
        }
        A::Lowercase => {
            labels.set(&rule.target_label, &value.to_lowercase());
        }
        A::Uppercase => {
            labels.set(&rule.target_label, &value.to_uppercase());
        }
        A::Replace => replace(labels, rule, &value),
        A::LabelMap | A::LabelDrop | A::LabelKeep => unreachable!("BUG: not an action on values"),
    }
    true
}

fn replace(labels: &mut LabelsBuilder, rule: &RelabelRule, value: &str) {
    let Some(result) = rule.regex.expand(value, &rule.replacement) else { return };
    if !rule.target_label.contains('$') {
        labels.set(&rule.target_label, &result);
        return;
    }
    let target = rule.regex.expand(value, &rule.target_label).unwrap_or_default();
    if rule.scheme.label_ok(&target) {
        labels.set(&target, &result);
    }
}

fn joined(labels: &LabelsBuilder, rule: &RelabelRule) -> String {
    let mut out = String::new();
    for (i, name) in rule.source_labels.iter().enumerate() {
        if i > 0 {
            out.push_str(&rule.separator);
        }
        out.push_str(labels.get(name));
    }
    out
}

fn owned(labels: &LabelsBuilder) -> Vec<(String, String)> {
    labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// The last eight bytes of the MD5 of `value`, big endian, modulo `modulus`; 0 when `modulus` is 0.
pub fn hash_mod(value: &str, modulus: u64) -> u64 {
    let digest = Md5::digest(value.as_bytes());
    let mut tail = [0; 8];
    tail.copy_from_slice(&digest[8..16]);
    u64::from_be_bytes(tail).checked_rem(modulus).unwrap_or(0)
}
