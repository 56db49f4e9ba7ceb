//! JSON by hand, for the answers that are large.

use koios_model::Labels;

pub use koios_model::format::push_json_string as push_string;

/// A label set as an object, keys in order.
pub fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (i, (n, v)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(out, n);
        out.push(':');
        push_string(out, v);
    }
    out.push('}');
}

/// A list, each item by `push`.
pub fn push_list<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

/// A list of strings.
pub fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let mut out = String::new();
    push_list(&mut out, items, |out, s| push_string(out, s.as_ref()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_gos_encoder_does() {
        let mut out = String::new();
        push_string(&mut out, "a\"\\\n\u{1}<é&");
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001\\u003cé\\u0026\"");
        assert_eq!(strings(["a", "b"]), "[\"a\",\"b\"]");
    }
}
