//! "Did you mean": the nearest known name, and where a known but misplaced field belongs.
//!
//! Distance is Damerau-Levenshtein in its optimal string alignment form; a suggestion needs a distance of at
//! most a third of the length, so that nonsense gets no advice.

/// Longest name that is compared; anything longer gets no suggestion.
const NAME_MAX: usize = 64;

/// The candidate nearest to `name`, when it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_MAX {
        return None;
    }
    let lower = name.to_ascii_lowercase().replace('-', "_");
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (distance(&lower, &c.to_ascii_lowercase()), c))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Where fields belong that people put in the wrong place.
const HOMES: &[(&str, &str)] = &[
    ("scrape_interval", "`global:` or an entry of `scrape_configs:`"),
    ("scrape_timeout", "`global:` or an entry of `scrape_configs:`"),
    ("evaluation_interval", "`global:`"),
    ("external_labels", "`global:`"),
    ("job_name", "an entry of `scrape_configs:`"),
    ("metrics_path", "an entry of `scrape_configs:`"),
    ("honor_labels", "an entry of `scrape_configs:`"),
    ("static_configs", "an entry of `scrape_configs:`"),
    ("file_sd_configs", "an entry of `scrape_configs:`"),
    ("http_sd_configs", "an entry of `scrape_configs:`"),
    ("relabel_configs", "an entry of `scrape_configs:`"),
    ("metric_relabel_configs", "an entry of `scrape_configs:`"),
    ("targets", "an entry of `static_configs:`"),
    ("labels", "an entry of `static_configs:`"),
    ("ca_file", "`tls_config:`"),
    ("cert_file", "`tls_config:`"),
    ("key_file", "`tls_config:`"),
    ("insecure_skip_verify", "`tls_config:`"),
    ("server_name", "`tls_config:`"),
    ("username", "`basic_auth:`"),
    ("password", "`basic_auth:`"),
    ("password_file", "`basic_auth:`"),
    ("credentials", "`authorization:`"),
    ("credentials_file", "`authorization:`"),
    ("alertmanagers", "`alerting:`"),
    ("source_labels", "an entry of `relabel_configs:` or `metric_relabel_configs:`"),
    ("target_label", "an entry of `relabel_configs:` or `metric_relabel_configs:`"),
    ("tsdb", "`storage:`"),
    ("exemplars", "`storage:`"),
    ("retention", "`storage.tsdb:`"),
    ("out_of_order_time_window", "`storage.tsdb:`"),
    ("cluster", "`koios:`"),
    ("rule_files", "the top level of the file"),
    ("scrape_configs", "the top level of the file"),
    ("remote_write", "the top level of the file"),
    ("remote_read", "the top level of the file"),
    ("groups", "a rule file that `rule_files:` names"),
];

/// The place a field of this name belongs to, when it is a well-known one.
pub(crate) fn home_of(name: &str) -> Option<&'static str> {
    HOMES.iter().find(|(n, _)| *n == name).map(|(_, home)| *home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_slips_and_nothing_else() {
        let known = ["scrape_interval", "scrape_timeout", "job_name"];
        assert_eq!(nearest("scrape_intervall", known), Some("scrape_interval"));
        assert_eq!(nearest("jobname", known), Some("job_name"));
        assert_eq!(nearest("scrape-timeout", known), Some("scrape_timeout"));
        assert_eq!(nearest("jbo_name", known), Some("job_name"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(1000), known), None);
        assert_eq!(home_of("targets"), Some("an entry of `static_configs:`"));
    }
}
