//! What Go's own `regexp` package says about a table of edge cases, recorded by `regexp/generate.go`: the same
//! patterns are refused in the same words, the same values match, and the same groups are taken.

use koios_model::Regexp;
use serde_json::Value;

fn texts(v: &Value) -> Vec<&str> {
    v.as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

#[test]
fn patterns_mean_what_they_mean_in_go() {
    let table: Value = serde_json::from_str(include_str!("regexp/answers.json")).expect("the recorded table");
    let values = texts(&table["values"]);
    let answers = table["answers"].as_array().expect("answers");
    assert!(answers.len() > 400 && values.len() > 100, "the table is whole");
    let mut faults = Vec::new();
    for answer in answers {
        let pattern = answer["pattern"].as_str().expect("a pattern");
        let re = match (Regexp::new(pattern), answer["error"].as_str()) {
            (Ok(re), None) => re,
            (Err(e), Some(want)) if e.to_string() == want => continue,
            (got, want) => {
                faults.push(format!("{pattern}: {:?} instead of {want:?}", got.map_err(|e| e.to_string())));
                continue;
            }
        };
        let matching = answer["matches"].as_array().cloned().unwrap_or_default();
        let groups = texts(&answer["groups"]);
        for (i, value) in values.iter().enumerate() {
            let want = matching.iter().position(|m| m.as_u64() == Some(i as u64)).map(|at| groups[at]);
            let got = re.expand(value, "$1|$2|$3|$n");
            if got.as_deref() != want || re.is_match(value) != want.is_some() {
                faults.push(format!("{pattern} on {value:?}: {got:?} instead of {want:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
