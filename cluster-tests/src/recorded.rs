//! Answers that peers gave, recorded beside their data, and what Koios answers to the same questions.
//!
//! Series may come in any order; numbers agree to 1e-9 relative, inside histograms every digit counts; warnings and infos
//! are one set of texts, as Thanos reports both as warnings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Api, NodeSpec};

/// A folder of data made by real peers.
pub fn fixture(name: &str) -> PathBuf {
    let shared = match std::env::var_os("KOIOS_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    shared.join("fixtures").join(name)
}

/// Recorded questions and answers: `{name, path, params, status, body}` each.
pub fn cases(file: &Path) -> Vec<Value> {
    let packed = std::fs::File::open(file).expect("expected answers");
    serde_json::from_reader(flate2::read::GzDecoder::new(packed)).expect("a list of cases")
}

/// Copies a directory; the copy may be written to.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory to copy").map(|e| e.expect("an entry")) {
        let target = to.join(entry.file_name());
        match entry.path() {
            dir if dir.is_dir() => copy(&dir, &target),
            file => std::fs::write(&target, std::fs::read(file).expect("a file")).expect("a copy"),
        }
    }
}

/// A node without targets on a copy of the bucket that Thanos wrote; nodes with the same `root` share the copy.
pub fn on_thanos_bucket(name: &str, root: &Path) -> NodeSpec {
    let bucket = root.join("bucket");
    if !bucket.exists() {
        copy(&fixture("thanos-bucket/bucket"), &bucket);
    }
    on_object_store(name, root, &format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display()))
}

/// A node without targets on the bucket that `yaml` describes.
pub fn on_object_store(name: &str, root: &Path, yaml: &str) -> NodeSpec {
    let (config, store) = (root.join("koios.yml"), root.join("bucket.yml"));
    std::fs::write(&config, "scrape_configs: []\n").expect("a file");
    std::fs::write(&store, yaml).expect("a file");
    NodeSpec::new(name, root).config(&config).arg(format!("--objstore.config-file={}", store.display()))
}

/// Numbers agree to 1e-9 relative. Inside histograms every digit counts.
fn same(got: &Value, want: &Value, exact: bool) -> bool {
    match (got, want) {
        (Value::String(a), Value::String(b)) => a == b || (!exact && close(a, b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, exact))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(k, v)| {
                    let exact = exact || matches!(k.as_str(), "histogram" | "histograms" | "metric");
                    b.get(k).is_some_and(|w| same(v, w, exact))
                })
        }
        _ => got == want,
    }
}

fn close(a: &str, b: &str) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => {
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        }
        _ => false,
    }
}

/// Series may come in any order; warnings and infos are one set of texts.
fn normal(body: &Value) -> (Value, BTreeSet<String>) {
    let mut body = body.clone();
    let mut notes = BTreeSet::new();
    if let Some(object) = body.as_object_mut() {
        for kind in ["warnings", "infos"] {
            let found = object.remove(kind);
            let texts = found.iter().filter_map(Value::as_array).flatten();
            notes.extend(texts.map(|t| t.as_str().unwrap_or_default().to_owned()));
        }
    }
    if let Some(series) = body.pointer_mut("/data/result").and_then(Value::as_array_mut) {
        series.sort_by_key(|s| {
            let mut labels: Vec<String> = s["metric"]
                .as_object()
                .map(|m| m.iter().map(|(k, v)| format!("{k}={v}")).collect())
                .unwrap_or_default();
            labels.sort();
            labels
        });
    }
    (body, notes)
}

/// Asks all of `cases`; what differs, a few lines each.
pub async fn differing(api: &Api, cases: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let params = case["params"].as_object().expect("parameters");
        let params: Vec<(String, String)> = params.iter().map(|(k, v)| (k.clone(), text(v))).collect();
        let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let path = format!("/api/v1/{}", case["path"].as_str().expect("a path"));
        let (status, body) = api.get(&path, &params).await.expect("an answer");
        let body: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
        let (got, want) = (normal(&body), normal(&case["body"]));
        let same_status = case["status"].as_u64() == Some(u64::from(status));
        if !same_status || got.1 != want.1 || !same(&got.0, &want.0, false) {
            wrong.push(format!("{}: {}", case["name"], first_difference(&got, &want)));
        }
    }
    wrong
}

/// Where two answers part, in a few words.
fn first_difference(got: &(Value, BTreeSet<String>), want: &(Value, BTreeSet<String>)) -> String {
    if got.1 != want.1 {
        return format!("notes {:?}, not {:?}", got.1, want.1);
    }
    let cut = |v: &Value| v.to_string().chars().take(300).collect::<String>();
    let series = |v: &Value| v.pointer("/data/result").and_then(Value::as_array).cloned();
    let (Some(g), Some(w)) = (series(&got.0), series(&want.0)) else {
        return format!("{}, not {}", cut(&got.0), cut(&want.0));
    };
    if g.len() != w.len() {
        return format!("{} series, not {}: {}, not {}", g.len(), w.len(), cut(&got.0), cut(&want.0));
    }
    let Some((g, w)) = g.iter().zip(&w).find(|(g, w)| !same(g, w, false)) else {
        return format!("{}, not {}", cut(&got.0), cut(&want.0));
    };
    let points = |v: &Value| v["values"].as_array().cloned().unwrap_or_default();
    let (gp, wp) = (points(g), points(w));
    if gp.is_empty() && wp.is_empty() {
        return format!("{}, not {}", cut(g), cut(w));
    }
    let at = gp.iter().zip(&wp).position(|(g, w)| !same(g, w, false)).unwrap_or(gp.len().min(wp.len()));
    let show = |p: &[Value]| cut(&Value::Array(p.iter().skip(at).take(3).cloned().collect()));
    let lengths = (gp.len(), wp.len());
    format!("{} of {lengths:?} points at {at}: {}, not {}", g["metric"], show(&gp), show(&wp))
}
