//! The configuration as it may be shown: what was written, with the defaults of `global` and of each job
//! filled in, external labels expanded, and every secret replaced.
//!
//! Invariant: a scalar that was read as a secret, and the password of any URL, never leaves this module.
//! The layout is that of Prometheus' status page, which Thanos' sidecar reads for external labels.

use koios_model::duration::format_duration;

use crate::root::Config;
use crate::secret::{Secret, mask_url};
use crate::yaml::{Entry, Kind, Node, Span};

/// Renders the tree of a file that was read into `config`.
pub(crate) fn render(root: &Node, config: &Config, secrets: &[Span]) -> String {
    let mut tree = match &root.kind {
        Kind::Map(entries) => entries.clone(),
        _ => Vec::new(),
    };
    mask(&mut tree, secrets);
    if !tree.iter().any(|e| e.key == "global") {
        tree.insert(0, entry("global", Kind::Map(Vec::new())));
    }
    for e in &mut tree {
        match (e.key.as_str(), &mut e.value.kind) {
            ("global", kind) => global(kind, config),
            ("scrape_configs", Kind::Seq(jobs)) => {
                for (node, job) in jobs.iter_mut().zip(&config.scrape_configs) {
                    if let Kind::Map(fields) = &mut node.kind {
                        default(fields, "honor_timestamps", job.honor_timestamps.to_string());
                        default(fields, "scrape_interval", format_duration(job.scrape_interval_ms));
                        default(fields, "scrape_timeout", format_duration(job.scrape_timeout_ms));
                        default(fields, "metrics_path", job.metrics_path.clone());
                        default(fields, "scheme", job.scheme.as_str().to_owned());
                        default(fields, "enable_compression", job.enable_compression.to_string());
                        default(fields, "follow_redirects", job.http.follow_redirects.to_string());
                        default(fields, "enable_http2", job.http.enable_http2.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    let mut out = String::new();
    write_map(&mut out, &tree, 0);
    out
}

fn global(kind: &mut Kind, config: &Config) {
    if matches!(kind, Kind::Null) {
        *kind = Kind::Map(Vec::new());
    }
    let Kind::Map(fields) = kind else { return };
    let g = &config.global;
    default(fields, "scrape_interval", format_duration(g.scrape_interval_ms));
    default(fields, "scrape_timeout", format_duration(g.scrape_timeout_ms));
    default(fields, "evaluation_interval", format_duration(g.evaluation_interval_ms));
    if !fields.iter().any(|e| e.key == "scrape_protocols") {
        let words = g.scrape_protocols.iter().map(|p| scalar(p.as_str().to_owned(), true)).collect();
        fields.push(entry("scrape_protocols", Kind::Seq(words)));
    }
    fields.retain(|e| e.key != "external_labels");
    if !g.external_labels.is_empty() {
        let labels = g.external_labels.iter();
        let labels = labels.map(|(n, v)| entry(n, Kind::Scalar { text: v.to_owned(), plain: is_word(v) }));
        fields.push(entry("external_labels", Kind::Map(labels.collect())));
    }
}

fn default(fields: &mut Vec<Entry>, key: &str, text: String) {
    match fields.iter_mut().find(|e| e.key == key) {
        None => fields.push(entry(key, Kind::Scalar { text, plain: true })),
        Some(e) if matches!(e.value.kind, Kind::Null) => e.value = scalar(text, true),
        Some(_) => {}
    }
}

fn scalar(text: String, plain: bool) -> Node {
    let mut node = Node::null(Span::default());
    node.kind = Kind::Scalar { text, plain };
    node
}

fn entry(key: &str, kind: Kind) -> Entry {
    let mut value = Node::null(Span::default());
    value.kind = kind;
    Entry { key: key.to_owned(), key_span: Span::default(), value }
}

fn mask(entries: &mut [Entry], secrets: &[Span]) {
    for e in entries {
        mask_node(&mut e.value, secrets);
    }
}

fn mask_node(node: &mut Node, secrets: &[Span]) {
    let secret = node.span.line > 0 && secrets.contains(&node.span);
    match &mut node.kind {
        Kind::Scalar { text, plain } => {
            if secret {
                (*text, *plain) = (Secret::MASK.to_owned(), true);
            } else if let Some(masked) = mask_url(text) {
                *text = masked;
            }
        }
        Kind::Seq(nodes) => nodes.iter_mut().for_each(|n| mask_node(n, secrets)),
        Kind::Map(entries) => mask(entries, secrets),
        Kind::Null => {}
    }
}

fn write_map(out: &mut String, entries: &[Entry], indent: usize) {
    for (i, e) in entries.iter().enumerate() {
        if i > 0 || indent == 0 || out.ends_with('\n') {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        write_text(out, &e.key, true);
        out.push(':');
        match &e.value.kind {
            Kind::Map(inner) if !inner.is_empty() => {
                out.push('\n');
                write_map(out, inner, indent + 2);
            }
            Kind::Seq(items) if !items.is_empty() => {
                out.push('\n');
                write_seq(out, items, indent);
            }
            _ => {
                out.push(' ');
                write_leaf(out, &e.value);
            }
        }
    }
}

fn write_seq(out: &mut String, items: &[Node], indent: usize) {
    for item in items {
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str("- ");
        match &item.kind {
            Kind::Map(inner) if !inner.is_empty() => write_map(out, inner, indent + 2),
            Kind::Seq(inner) if !inner.is_empty() => {
                out.push('\n');
                write_seq(out, inner, indent + 2);
            }
            _ => write_leaf(out, item),
        }
    }
}

fn write_leaf(out: &mut String, node: &Node) {
    match &node.kind {
        Kind::Scalar { text, plain } => write_text(out, text, *plain),
        Kind::Null => out.push_str("null"),
        Kind::Seq(_) => out.push_str("[]"),
        Kind::Map(_) => out.push_str("{}"),
    }
    out.push('\n');
}

/// Whether a text needs no quotes and stays a text.
fn is_word(text: &str) -> bool {
    let word = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/' || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b));
    let special = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    word && !special.contains(&text.to_ascii_lowercase().as_str())
}

fn write_text(out: &mut String, text: &str, plain: bool) {
    let number = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b)) && !text.is_empty();
    if plain && (is_word(text) || (number && !text.starts_with('-')) || text == Secret::MASK) {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || c == '\u{feff}' => out.push_str(&format!("\\U{:08x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_others() {
        for (text, want) in
            [("a-b", "a-b"), ("true", "\"true\""), ("1m30s", "\"1m30s\""), ("x: y", "\"x: y\"")]
        {
            let mut out = String::new();
            write_text(&mut out, text, false);
            assert_eq!(out.trim_matches('"'), want.trim_matches('"'));
        }
    }
}
