//! Moving in: a node started on the data directory of a real Prometheus answers what that Prometheus answered,
//! from its log and equally from a block of the same head.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use koios_cluster_tests::{Api, NodeSpec, scratch};
use serde_json::Value;

fn fixture() -> PathBuf {
    let shared = match std::env::var_os("KOIOS_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    shared.join("fixtures/prometheus-data")
}

fn cases() -> Vec<Value> {
    let packed = std::fs::File::open(fixture().join("expected.json.gz")).expect("expected answers");
    serde_json::from_reader(flate2::read::GzDecoder::new(packed)).expect("a list of cases")
}

/// Copies a directory; the copy may be written to.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path() {
            dir if dir.is_dir() => copy(&dir, &target),
            file => std::fs::write(&target, std::fs::read(file).unwrap()).unwrap(),
        }
    }
}

/// Files and their contents, to see that nothing was changed.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.path() {
            dir if dir.is_dir() => out.extend(contents(&dir)),
            file => out.push((file.clone(), std::fs::read(file).unwrap())),
        }
    }
    out.sort();
    out
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

async fn ask_everything(api: &Api) {
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() > 30);
    for case in &cases {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let params: Vec<(String, String)> =
            case["params"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), text(v))).collect();
        let params: Vec<(&str, &str)> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let path = format!("/api/v1/{}", case["path"].as_str().unwrap());
        let (status, body) = api.get(&path, &params).await.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
        let (got, want) = (normal(&body), normal(&case["body"]));
        if u64::from(status) != case["status"].as_u64().unwrap()
            || got.1 != want.1
            || !same(&got.0, &want.0, false)
        {
            let cut = |v: &(Value, BTreeSet<String>)| {
                let text = format!("{} {:?}", v.0, v.1);
                text.chars().take(600).collect::<String>()
            };
            wrong.push(format!("{}\n   got {}\n  want {}", case["name"], cut(&got), cut(&want)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// A configuration without targets: only what was moved in is asked for.
fn spec(name: &str, root: &Path) -> NodeSpec {
    let config = root.join("koios.yml");
    std::fs::write(&config, "global:\n  external_labels: {cluster: eu1}\nscrape_configs: []\n").unwrap();
    NodeSpec::new(name, root).config(&config)
}

#[tokio::test]
async fn from_the_log() {
    let root = scratch();
    let spec = spec("log", root.path());
    for part in ["wal", "chunks_head"] {
        copy(&fixture().join("data").join(part), &spec.dir.join(part));
    }
    let before = contents(&spec.dir);
    let mut node = spec.start();
    node.ready().await;
    ask_everything(&node.api()).await;
    node.kill();
    // The second start moves nothing in again.
    let node = spec.start();
    node.ready().await;
    ask_everything(&node.api()).await;
    assert_eq!(node.log().matches("moving in").count(), 1);
    for (path, bytes) in before {
        assert!(std::fs::read(&path).unwrap() == bytes, "{} was changed", path.display());
    }
}

#[tokio::test]
async fn from_a_block() {
    let root = scratch();
    let spec = spec("block", root.path());
    let snapshots = fixture().join("data/snapshots");
    let snapshot = std::fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path();
    copy(&snapshot, &spec.dir);
    let node = spec.start();
    node.ready().await;
    ask_everything(&node.api()).await;
}

#[tokio::test]
async fn a_crash_while_moving_in_is_harmless() {
    let root = scratch();
    let spec = spec("torn", root.path());
    copy(&fixture().join("data/wal"), &spec.dir.join("wal"));
    std::fs::write(spec.dir.join("moved-in"), "begun\n").unwrap();
    // What an earlier attempt left: a head that cannot even be read.
    std::fs::create_dir_all(spec.dir.join("head/shard-0/wal")).unwrap();
    std::fs::write(spec.dir.join("head/shard-0/wal/00000001.wal"), "half").unwrap();
    let node = spec.start();
    node.ready().await;
    let count = node.api().number("count({__name__=~\".+\"})", 1_795_354_619.0).await.unwrap();
    assert_eq!(count, 1551.0);
}
