//! Lexer, parser and printer: accepted and refused texts, positions, round trips.

use super::{ParserOptions, expr_to_json, parse, parse_selector, parse_with, prettify};

fn prints(query: &str, expected: &str) {
    let tree = parse(query).unwrap_or_else(|e| panic!("{query}: {e}"));
    assert_eq!(tree.to_string(), expected, "{query}");
    assert_eq!(parse(expected).unwrap(), tree, "{query}");
    assert_eq!(parse(&prettify(&tree)).unwrap(), tree, "{query}");
}

fn fails(query: &str, expected: &str) {
    assert_eq!(parse(query).map(|e| e.to_string()).unwrap_err().to_string(), expected, "{query}");
}

#[test]
fn a_power_of_infinity_survives_printing() {
    prints("Inf ^ x", "Inf ^ x");
    prints("+Inf ^ x", "+Inf ^ x");
    prints("x ^ Inf", "x ^ +Inf");
}

#[test]
fn prints_as_prometheus() {
    for (query, expected) in [
        ("-2^2", "-2 ^ 2"),
        ("1 + 2 * b ^ 4 ^ 5 or a", "1 + 2 * b ^ 4 ^ 5 or a"),
        ("SUM(x) BY (job, \"a.b\")", "sum by (job, \"a.b\") (x)"),
        ("sum without() (x)", "sum without () (x)"),
        ("topk(5, x{b=\"2\",a=~'1'})", "topk(5, x{a=~\"1\",b=\"2\"})"),
        ("a / ignoring() group_left() b", "a / ignoring () group_left () b"),
        ("a == bool on(x) group_right(y) fill(0) b", "a == bool on (x) group_right (y) fill (0) b"),
        ("a + fill_left(1) fill_right(-2) b", "a + fill_left (1) fill_right (-2) b"),
        ("foo[5m] offset 90 @ -100", "foo[5m] @ -100.000 offset 1m30s"),
        ("foo @ start() offset -5m", "foo @ start() offset -5m"),
        ("rate(x[1m] smoothed)[1h:] @ end()", "rate(x[1m] smoothed)[1h:] @ end()"),
        ("x[5m+step()*2:min_of(range(), (1m))]", "x[5m + step() * 2:min_of(range(), (1m))]"),
        ("x offset (2^2)", "x offset (2 ^ 2)"),
        ("x offset -step()", "x offset -step()"),
        (
            "{\"my.metric\", x.y=\"1\"}".replace("x.y", "\"x.y\"").as_str(),
            "{\"x.y\"=\"1\",__name__=\"my.metric\"}",
        ),
        ("a </ 5 >/ b", "a </ 5 >/ b"),
        ("foo{a=~`\\d+`}", "foo{a=~\"\\\\d+\"}"),
        ("1h30m + 0x1F + 1_000 + .5", "1h30m + 31 + 1000 + 0.5"),
        ("sum + by + offset + start", "sum + by + offset + start"),
        ("-foo ^ 2", "-foo ^ 2"),
        ("+(1)", "+(1)"),
        ("inf - NaN", "+Inf - NaN"),
        ("fill + fill_left(1) fill_right", "fill + fill_left (1) fill_right"),
        ("info(x, {})", "info(x, {})"),
        ("# c\nfoo # d", "foo"),
        ("\"a\\n\\\"\"", "\"a\\n\\\"\""),
    ] {
        prints(query, expected);
    }
}

#[test]
fn error_texts_are_prometheus() {
    for (query, expected) in [
        ("", "1:1: parse error: no expression found in input"),
        ("foo{", "1:5: parse error: unexpected end of input inside braces"),
        ("sum(", "1:5: parse error: unclosed left parenthesis"),
        ("foo)", "1:4: parse error: unexpected right parenthesis ')'"),
        ("1 + ", "1:5: parse error: unexpected end of input"),
        ("foo bar", "1:5: parse error: unexpected identifier \"bar\""),
        ("\n  a b", "2:5: parse error: unexpected identifier \"b\""),
        ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("1 or 1", "1:1: parse error: set operator \"or\" not allowed in binary scalar expression"),
        ("a and on(b) group_left(c) d", "1:1: parse error: no grouping allowed for \"and\" operation"),
        ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
        ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        (
            "{__name__=~\".*\"}",
            "1:1: parse error: vector selector must contain at least one non-empty matcher",
        ),
        ("a{__name__=\"b\"}", "1:1: parse error: metric name must not be set twice: \"a\" or \"b\""),
        ("foo{a>\"b\"}", "1:6: parse error: unexpected character inside braces: '>'"),
        ("foo{a=b}", "1:7: parse error: unexpected identifier \"b\" in label matching, expected string"),
        ("foo{a}", "1:6: parse error: unexpected \"}\" in label matching, expected label matching operator"),
        ("sum by 1 (x)", "1:8: parse error: unexpected number \"1\" in grouping opts, expected \"(\""),
        (
            "rate(foo)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("rate(foo[5m],1)", "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 2"),
        ("nope(1)", "1:1: parse error: unknown function with name \"nope\""),
        ("foo[5m][5m]", "1:8: parse error: ranges only allowed for vector selectors"),
        ("foo offset 1m[5m]", "1:14: parse error: no offset modifiers allowed before range"),
        ("foo offset 1m offset 1m", "1:1: parse error: offset may not be set multiple times"),
        (
            "1 offset 1m",
            "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
    ] {
        fails(query, expected);
    }
}

#[test]
fn error_texts_of_types_and_literals_are_prometheus() {
    for (query, expected) in [
        ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
        (
            "topk(x)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        (
            "-foo[5m]",
            "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
        ),
        ("1[5m:]", "1:1: parse error: subquery is only allowed on instant vector, got scalar instead"),
        ("\"unclosed", "1:1: parse error: unterminated quoted string"),
        ("foo[", "1:5: parse error: unclosed left bracket"),
        ("foo[0]", "1:5: parse error: duration must be greater than 0"),
        ("foo[5m", "1:7: parse error: unclosed left bracket"),
        ("foo @ bar", "1:7: parse error: unexpected identifier \"bar\" in @, expected timestamp"),
        ("0deadbeef", "1:1: parse error: bad number or duration syntax: \"0de\""),
        ("foo[5mm]", "1:5: parse error: bad number or duration syntax: \"5mm\""),
        (
            "foo[]",
            "1:5: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
        ),
        ("100..4", "1:5: parse error: unexpected number \".4\""),
        (
            "1e999",
            "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"1e999\": value out of range",
        ),
        (
            "foo == on(bar) group_left 10",
            "1:1: parse error: vector matching only allowed between instant vectors",
        ),
        ("topk(x,)", "1:7: parse error: trailing commas not allowed in function call args"),
        ("1 =~ 1", "1:3: parse error: unexpected character after '=': '~'"),
        ("a on b", "1:3: parse error: unexpected <on>"),
        ("1h1h", "1:1: parse error: not a valid duration string: \"1h1h\""),
        ("5foo", "1:1: parse error: bad number or duration syntax: \"5\""),
    ] {
        fails(query, expected);
    }
    assert!(parse("foo{a=~\"(\"}").unwrap_err().to_string().contains("error parsing regexp"));
}

#[test]
fn hostile_input_is_refused_quickly() {
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(parse(&deep).unwrap_err().to_string().contains("nested deeper"));
    for text in ["-", "a^", "sum(", "a[1m:", "a offset (", "x[("] {
        assert!(parse(&text.repeat(100_000)).is_err());
    }
    let chain = vec!["a"; 50_000].join("+");
    assert!(parse(&chain).unwrap_err().to_string().contains("levels of operators"));
    // The limits hold on the smallest stacks in use.
    let small = std::thread::Builder::new().stack_size(1 << 20);
    let nested = format!("{}a{}", "(".repeat(190), ")".repeat(190));
    let parsed = small.spawn(move || parse(&nested).map(|e| e.to_string().len())).unwrap().join().unwrap();
    assert_eq!(parsed.unwrap(), 381);
    let long = vec!["1"; 490].join("-");
    let tree = parse(&long).unwrap();
    assert_eq!(parse(&tree.to_string()).unwrap(), tree);
}

#[test]
fn guarded_parts_can_be_off() {
    let stable = ParserOptions::stable();
    for query in ["info(x)", "limitk(1, x)", "x[5m+1m]", "rate(x[5m] anchored)", "a + fill(1) b"] {
        assert!(parse(query).is_ok(), "{query}");
        assert!(parse_with(query, &stable).is_err(), "{query}");
    }
    assert!(parse_with("rate(x[5m] offset 60)", &stable).is_ok());
}

#[test]
fn selectors_alone() {
    assert_eq!(parse_selector("up{a=\"b\"}").unwrap().len(), 2);
    assert!(parse_selector("up[5m]").is_err());
    assert!(parse_selector("sum(up)").is_err());
}

#[test]
fn tree_as_json() {
    let json = expr_to_json(&parse("sum by (a) (rate(x{b=\"c\"}[5m] offset 1m)) > 1").unwrap());
    for part in [
        "\"type\":\"binaryExpr\"",
        "\"matching\":null",
        "\"range\":300000",
        "\"offset\":60000",
        "\"argTypes\":[\"matrix\"]",
        "{\"name\":\"b\",\"value\":\"c\",\"type\":\"=\"}",
        "\"val\":\"1\"",
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
}
