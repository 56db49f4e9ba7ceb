//! Label sets around binary operators.

use koios_model::format::go_quote;
use koios_model::labels::is_legacy_label_name;
use koios_model::{Labels, METRIC_NAME};

use crate::syntax::ast::VectorMatching;

/// `{__name__="a", b="c"}`, the form of error messages.
pub(crate) fn go_labels(labels: &Labels) -> String {
    let one = |(n, v): (&str, &str)| {
        let name = if is_legacy_label_name(n) { n.to_owned() } else { go_quote(n) };
        format!("{name}={}", go_quote(v))
    };
    format!("{{{}}}", labels.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// The labels by which elements find each other.
pub(super) fn signature(labels: &Labels, m: &VectorMatching) -> Labels {
    if m.on {
        return labels.keep(&m.labels);
    }
    if m.labels.is_empty() {
        return labels.drop_metric_name();
    }
    Labels::from_sorted(labels.iter().filter(|(n, _)| *n != METRIC_NAME && !m.labels.iter().any(|l| l == n)))
}
