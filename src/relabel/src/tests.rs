//! One table over all actions. Expected values follow the documented rules; the hash values are those of the
//! published `md5sum` of the text, taken modulo by hand.

use super::*;

fn rules(yaml: &str) -> Vec<RelabelRule> {
    let body: String = yaml.lines().map(|l| format!("    {l}\n")).collect();
    let text = format!("scrape_configs:\n- job_name: j\n  relabel_configs:\n{body}");
    koios_config::parse(&text, "test.yml")
        .unwrap_or_else(|e| panic!("{e}"))
        .scrape_configs
        .remove(0)
        .relabel_configs
}

fn labels(text: &str) -> Labels {
    Labels::from_pairs(text.split(',').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap()))
}

#[test]
fn every_action() {
    let base = "a=foo,b=bar,c=baz,__meta_x=1";
    for (name, yaml, want) in [
        (
            "replace",
            "- {source_labels: [a], regex: 'f(.*)', target_label: d, replacement: 'ch${1}-ch${1}'}",
            Some("a=foo,b=bar,c=baz,d=choo-choo,__meta_x=1"),
        ),
        ("replace, no match", "- {source_labels: [a], regex: 'x(.*)', target_label: d}", Some(base)),
        (
            "replace with constant",
            "- {target_label: d, replacement: z}",
            Some("a=foo,b=bar,c=baz,d=z,__meta_x=1"),
        ),
        (
            "replace empty deletes",
            "- {source_labels: [a], target_label: b, replacement: ''}",
            Some("a=foo,c=baz,__meta_x=1"),
        ),
        (
            "replace, target from groups",
            "- {source_labels: [a, b], regex: '(.).*;(.*)', target_label: '${1}_x', replacement: '$2'}",
            Some("a=foo,b=bar,c=baz,f_x=bar,__meta_x=1"),
        ),
        (
            "replace, separator",
            "- {source_labels: [a, b, none], separator: '-', target_label: d}",
            Some("a=foo,b=bar,c=baz,d=foo-bar-,__meta_x=1"),
        ),
        ("group name runs on", "- {source_labels: [a], target_label: d, replacement: '$1x'}", Some(base)),
        ("keep", "- {source_labels: [a], regex: 'f.*', action: keep}", Some(base)),
        ("keep anchors", "- {source_labels: [a], regex: 'f', action: keep}", None),
        ("drop", "- {source_labels: [a], regex: 'f.*', action: drop}", None),
        ("drop misses", "- {source_labels: [a], regex: 'f', action: drop}", Some(base)),
        ("keepequal", "- {source_labels: [a], target_label: b, action: keepequal}", None),
        ("dropequal", "- {source_labels: [a], target_label: b, action: dropequal}", Some(base)),
        ("dropequal same", "- {source_labels: [a], target_label: a, action: dropequal}", None),
        ("labelmap", "- {regex: '__meta_(.+)', action: labelmap}", Some("a=foo,b=bar,c=baz,x=1,__meta_x=1")),
        (
            "labelmap, template",
            "- {regex: '(a|b)', replacement: 'p_$1', action: labelmap}",
            Some("a=foo,b=bar,c=baz,p_a=foo,p_b=bar,__meta_x=1"),
        ),
        ("labeldrop", "- {regex: '(b|c)', action: labeldrop}", Some("a=foo,__meta_x=1")),
        ("labelkeep", "- {regex: '(b|c)', action: labelkeep}", Some("b=bar,c=baz")),
        (
            "lowercase, uppercase",
            "- {source_labels: [a], target_label: d, action: uppercase}\n- {source_labels: [d], target_label: e, action: lowercase}",
            Some("a=foo,b=bar,c=baz,d=FOO,e=foo,__meta_x=1"),
        ),
        (
            "drop ends processing",
            "- {source_labels: [a], regex: foo, action: drop}\n- {target_label: d, replacement: z}",
            None,
        ),
        ("actions in any case", "- {source_labels: [a], regex: foo, action: KEEP}", Some(base)),
    ] {
        assert_eq!(process(&labels(base), &rules(yaml)), want.map(labels), "{name}");
    }
}

#[test]
fn hashmod_is_prometheus() {
    // md5("foo") = acbd18db4cc2f85cedef654fccc4a4d8
    assert_eq!(hash_mod("foo", u64::MAX), 0xedef_654f_ccc4_a4d8);
    assert_eq!(hash_mod("foo", 1000), 0xedef_654f_ccc4_a4d8 % 1000);
    let got = process(
        &labels("a=foo"),
        &rules("- {source_labels: [a], target_label: d, modulus: 1000, action: hashmod}"),
    );
    assert_eq!(got.unwrap().value("d"), (0xedef_654f_ccc4_a4d8_u64 % 1000).to_string());
    assert_eq!(hash_mod("foo", 0), 0);
}

#[test]
fn invalid_target_names_are_skipped_in_the_legacy_scheme() {
    let mut rules = rules("- {source_labels: [a], target_label: '${1}'}");
    let utf8 = process(&labels("a=x-y"), &rules).unwrap();
    assert_eq!(utf8.value("x-y"), "x-y");
    rules[0].scheme = koios_config::NameScheme::Legacy;
    assert_eq!(process(&labels("a=x-y"), &rules), Some(labels("a=x-y")));
}

#[test]
fn no_rules_is_the_same_set() {
    let l = labels("a=1");
    assert_eq!(process(&l, &[]), Some(l));
}
