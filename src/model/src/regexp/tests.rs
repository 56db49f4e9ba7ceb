//! Shapes against the automaton, literals, and what depth and size do. Go's own answers are in `tests/regexp_go.rs`.

use super::*;
use crate::regexp::shape::Shape;

fn re(pattern: &str) -> Regexp {
    Regexp::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"))
}

#[test]
fn programs_grow_with_repetitions() {
    assert!(re("(.*)").program_bytes() <= 4096, "{}", re("(.*)").program_bytes());
    assert!(re("(a?){500}").program_bytes() > 8 * re("(.*)").program_bytes());
}

#[test]
fn anchored_dot_all_ascii() {
    let r = re("a.c|x");
    assert!(r.is_match("a\nc") && r.is_match("x"));
    assert!(!r.is_match("xa.c") && !r.is_match("abcd"));
    assert!(re("\\d+").is_match("42") && !re("\\d+").is_match("٤٢"));
    assert!(re("[\\w]+").is_match("a_1"));
    assert!(re("").matches_empty());
}

#[test]
fn finds_sets() {
    for (pattern, set) in [
        ("b|a|a\\.c", &["a", "a.c", "b"][..]),
        ("(x|y)", &["x", "y"]),
        ("^(x|y)$", &["x", "y"]),
        ("", &[""]),
        ("ab?", &["a", "ab"]),
        ("(us|eu)-[12]", &["eu-1", "eu-2", "us-1", "us-2"]),
        ("a{2,3}", &["aa", "aaa"]),
        ("(?i)a", &["A", "a"]),
        ("[^\\x00-\\x{10FFFF}]", &[]),
        ("\\Qa.b\\E|é", &["a.b", "é"]),
    ] {
        assert_eq!(
            re(pattern).literal_set().map(<[String]>::to_vec),
            Some(set.iter().map(|s| (*s).to_owned()).collect()),
            "{pattern}"
        );
    }
    for pattern in [".*", "a.", "a+", "[a-z]", "(a|b){20}", "a\\b"] {
        assert_eq!(re(pattern).literal_set(), None, "{pattern}");
    }
}

#[test]
fn finds_prefixes() {
    for (pattern, prefix) in [
        ("node_.*", "node_"),
        ("ab*c", "a"),
        ("ab{0}c", "ac"),
        ("ab+", "ab"),
        ("a\\.b\\d", "a.b"),
        ("a(b).+", "ab"),
        ("^(abc.*|abd)$", "ab"),
        ("a|b.*", ""),
        ("a(b|c.*)", "a"),
        ("(?i)abc", ""),
        (".*x", ""),
        ("aé*", "a"),
        ("é.*|è.*", ""),
    ] {
        assert_eq!(re(pattern).literal_prefix(), prefix, "{pattern}");
    }
}

#[test]
fn gaps_are_found_without_the_automaton() {
    for (pattern, yes, no) in [
        (".*", &["", "x", "\n"][..], &[][..]),
        (".+", &["x", "é"], &[""]),
        ("a.*", &["a", "ab"], &["", "ba"]),
        (".*b.*", &["b", "abc"], &["", "ac"]),
        (".+b.+", &["abc", "bbb", "ébé"], &["bc", "ab", "b"]),
        (".+.+", &["ab", "éé"], &["a", "é", ""]),
        (".+.+x", &["abx", "éax"], &["éx", "x", "ax"]),
        ("a.*a", &["aa", "aba"], &["a", "ab"]),
        ("(.*-prod|test-.+-[12])", &["-prod", "x-prod", "test-a-1"], &["prod", "test--1", "test-a-3"]),
        (".*foo.*bar.*", &["foobar", "xfooybarz"], &["barfoo", "fobar"]),
    ] {
        let r = re(pattern);
        assert!(matches!(r.0.shape, Some(Shape::Globs(_))), "{pattern}");
        yes.iter().for_each(|v| assert!(r.is_match(v), "{pattern} {v:?}"));
        no.iter().for_each(|v| assert!(!r.is_match(v), "{pattern} {v:?}"));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
    #[test]
    fn shapes_agree_with_the_automaton(
        pattern in "([abé.]|\\.\\*|\\.\\+|\\|){0,5}(\\((a|b|\\.\\*|é|\\|){0,4}\\)[?]?){0,2}[ab]{0,2}",
        value in "[abé.]{0,6}",
    ) {
        let r = re(&pattern);
        let program = compile(&r.0.parsed.hir, COMPILED_BYTES_MAX).expect("a small program");
        let truth = program.is_match(Input::new(&value).anchored(Anchored::Yes));
        proptest::prop_assert_eq!(r.is_match(&value), truth);
        if truth {
            proptest::prop_assert!(value.starts_with(r.literal_prefix()), "{}", r.literal_prefix());
        }
    }

    #[test]
    fn nothing_panics(pattern in "[ab.|*?()\\\\{},0-9+^$\\[\\]:\\-pPxQEdé<>imsU]{0,16}", value in "[ab0é.\\n]{0,4}") {
        if let Ok(r) = Regexp::new(&pattern) {
            let set = r.literal_set().map(|set| set.contains(&value));
            proptest::prop_assert!(set.is_none_or(|has| has == r.is_match(&value)));
            r.expand(&value, "$1${a}");
        }
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = |n: usize| format!("{}a.b{}", "(".repeat(n), ")".repeat(n));
    assert!(re(&deep(900)).is_match("axb"));
    assert_eq!(Regexp::new(&deep(1100)).unwrap_err().detail, "expression nests too deeply");
    assert_eq!(Regexp::new(&deep(100_000)).unwrap_err().detail, "expression nests too deeply");
    assert_eq!(Regexp::new("((a{0,100}){0,100}){0,100}").unwrap_err().detail, "invalid repeat count");
    assert_eq!(Regexp::new("((\\pL{10}){10}){10}\\pL{1000}").unwrap_err().detail, "expression too large");
}

#[test]
fn expands_groups() {
    let r = re("(.*):(?P<port>\\d+)");
    assert_eq!(r.expand("h:80", "${port}@$1").unwrap(), "80@h");
    assert_eq!(r.expand("h", "$1"), None);
    assert_eq!(re("(?P<n>a)|(?P<n>b)").expand("b", "[$n]").unwrap(), "[b]");
    assert_eq!(re("(.*)").expand("x", "$1-$0").unwrap(), "x-x");
}
