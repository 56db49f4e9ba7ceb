//! The sidecar role: a node beside Debian's Prometheus, and another node of the cluster that knows the Prometheus only through it.
//!
//! What the cluster answers equals what the Prometheus answers, also where a bucket has its blocks twice; blocks in the bucket are
//! what they were; what is killed is named while it is away and missing nothing when it is back; facts are passed on over HTTP and
//! gRPC, of the whole cluster from any node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::peers::{PeerProcess, prometheus_at};
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, free_ports, scratch, until};
use koios_proto::thanos as pb;
use koios_proto::thanos::info::InfoRequest;
use koios_proto::thanos::info::info_client::InfoClient;
use serde_json::Value;
use tonic::Code;
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(60);
const STEP_S: i64 = 15;
/// Samples of what is in blocks: eight hours.
const SAMPLES: i64 = 8 * 3600 / STEP_S;

/// A Prometheus with blocks, a node beside it, and another node.
struct Stage {
    root: tempfile::TempDir,
    prometheus: PeerProcess,
    beside: Node,
    other: Node,
    /// First and last second of what is in blocks.
    range: (i64, i64),
    _target: Exporter,
}

fn data(root: &Path) -> PathBuf {
    root.join("prometheus")
}

/// Writes blocks of two hours with gauges and counters that reset, from `first` on.
fn fill(root: &Path, first: i64, samples: i64, name: &str) {
    let mut text = String::new();
    for (metric, kind) in [(format!("{name}_level"), "gauge"), (format!("{name}_done"), "counter")] {
        let _ = writeln!(text, "# TYPE {metric} {kind}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        for i in 0..4 {
            for k in 0..samples {
                let v = if kind == "counter" { (k + i * 17) % 200 * (i + 1) } else { (k * 37 + i * 11) % 97 };
                let (job, t) = (if i < 2 { "api" } else { "db" }, first + k * STEP_S);
                let _ = writeln!(text, "{metric}{suffix}{{instance=\"i{i}\",job=\"{job}\"}} {v} {t}");
            }
        }
    }
    text.push_str("# EOF\n");
    let file = root.join(format!("{name}.om"));
    std::fs::write(&file, text).expect("a file");
    std::fs::create_dir_all(data(root)).expect("a directory");
    promtool(&[
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "-q",
        &file.display().to_string(),
        &data(root).display().to_string(),
    ]);
}

fn promtool(args: &[&str]) -> String {
    let ran = Command::new("promtool").args(args).output().expect("promtool runs");
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("text")
}

/// ULIDs of the blocks in a directory.
fn blocks(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(|e| e.expect("an entry"));
    let with_meta = entries.filter(|e| e.path().join("meta.json").exists() && e.file_name().len() == 26);
    with_meta.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

const OPEN_METRICS: &str = "# HELP hits Hits of all kinds.\n# TYPE hits counter\nhits_total{path=\"/\"} 5.0 # {trace_id=\"t1\"} 0.25\n# EOF\n";

fn prometheus(root: &Path, port: u16) -> PeerProcess {
    prometheus_at(port, &data(root), &root.join("prometheus.yml"), &["--enable-feature=exemplar-storage"])
}

impl Stage {
    async fn set() -> Self {
        let root = scratch();
        let path = root.path();
        let last = (now() as i64 - 1800) / STEP_S * STEP_S;
        let first = last - (SAMPLES - 1) * STEP_S;
        fill(path, first, SAMPLES, "made");
        let body = OPEN_METRICS;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\nConnection: close\r\n";
        let raw = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let target = Exporter::start("target", Behaviour::Raw(raw.into_bytes())).await;
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s, external_labels: {{cluster: eu, replica: a}}}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: scraped, static_configs: [{{targets: ['{}']}}]}}]\n",
            path.join("rules.yml").display(),
            target.addr
        );
        std::fs::write(path.join("prometheus.yml"), text).expect("configuration");
        let rules = "groups: [{name: g, rules: [{record: 'job:hits:sum', expr: 'sum by (job) (hits_total)'}, \
                     {alert: Many, expr: 'hits_total > 1', labels: {team: x}}]}]\n";
        std::fs::write(path.join("rules.yml"), rules).expect("rules");
        let [port] = free_ports();
        let prometheus = prometheus(path, port);
        let store = path.join("bucket.yml");
        let bucket = path.join("bucket");
        std::fs::create_dir_all(&bucket).expect("a directory");
        std::fs::write(&store, format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display()))
            .expect("configuration");
        let config = path.join("koios.yml");
        std::fs::write(&config, "scrape_configs: []\n").expect("configuration");
        let spec = |name| {
            NodeSpec::new(name, path)
                .config(&config)
                .arg(format!("--objstore.config-file={}", store.display()))
        };
        let beside = spec("n0")
            .arg(format!("--prometheus.url=http://127.0.0.1:{port}"))
            .arg(format!("--prometheus.data-dir={}", data(path).display()));
        let other = spec("n1").join(&beside);
        let (beside, other) = (beside.start(), other.start());
        let stage = Self { prometheus, beside, other, range: (first, last), _target: target, root };
        let their = stage.theirs();
        until("the Prometheus", PATIENCE, || their.ready()).await;
        let api = stage.other.api();
        until("two ready nodes", PATIENCE, || api.all_ready(2)).await;
        stage.whole().await;
        stage
    }

    fn theirs(&self) -> Api {
        Api::new(([127, 0, 0, 1], self.prometheus.port).into())
    }

    /// Waits until the other node gives whole answers about the Prometheus.
    async fn whole(&self) {
        let (api, at) = (self.other.api(), self.range.1 as f64);
        until("whole answers", PATIENCE, || async {
            match api.number("count(made_level)", at).await? {
                4.0 => Ok(()),
                n => Err(format!("{n} series")),
            }
        })
        .await;
    }

    async fn uploaded(&self) {
        let (from, to) = (data(self.root.path()), self.root.path().join("bucket"));
        until("the blocks are uploaded", PATIENCE, || async {
            let (have, want) = (blocks(&to), blocks(&from));
            if have.is_superset(&want) { Ok(()) } else { Err(format!("{have:?} of {want:?}")) }
        })
        .await;
    }
}

const QUERIES: &[&str] = &[
    "made_level",
    "made_level{job=\"api\"}",
    "made_level{job!=\"api\", instance=~\"i[0-2]\"}",
    "{__name__=~\"made_.+\", instance=\"i1\"}",
    "count({__name__=~\"made_.+\"})",
    "rate(made_done_total[5m])",
    "increase(made_done_total[1h])",
    "irate(made_done_total[2m])",
    "resets(made_done_total[2h])",
    "changes(made_level[7m])",
    "sum by (job) (rate(made_done_total[10m]))",
    "max_over_time(made_level[47m])",
    "count_over_time(made_level[8h])",
    "sum by (job) (count_over_time(made_done_total[3h]))",
    "sum_over_time(made_level[3h] offset 2h)",
    "quantile(0.7, made_level)",
    "topk(2, made_level)",
    "made_level * on (instance, job) group_left made_done_total",
    "absent(made_level{job=\"nobody\"})",
    "avg_over_time(made_level[5m:30s])",
];

type Points = BTreeMap<String, Vec<(f64, f64)>>;

/// Labels without `cluster`, which the Prometheus adds only to what leaves it.
fn points(data: &Value) -> Points {
    let number = |v: &Value| v.as_str().and_then(|s| s.parse::<f64>().ok()).expect("a number");
    let one = |s: &Value| {
        let mut labels: BTreeMap<String, String> =
            serde_json::from_value(s["metric"].clone()).expect("labels");
        labels.remove("cluster");
        assert!(!labels.contains_key("replica"), "{labels:?}");
        let list = s["values"].as_array().cloned().unwrap_or_else(|| vec![s["value"].clone()]);
        let read = list.iter().map(|p| (p[0].as_f64().expect("a time"), number(&p[1]))).collect();
        (format!("{labels:?}"), read)
    };
    data["result"].as_array().expect("a result").iter().map(one).collect()
}

fn same(ours: &Points, theirs: &Points) -> bool {
    let close =
        |x: f64, y: f64| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-9 * x.abs().max(1.0);
    ours.keys().eq(theirs.keys())
        && ours
            .values()
            .zip(theirs.values())
            .all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && close(a.1, b.1)))
}

/// All questions at several moments and over ranges, to a node and to the Prometheus.
async fn equal(stage: &Stage, ours: &Api) {
    let theirs = stage.theirs();
    let (first, last) = stage.range;
    // No sample lies on the edge of a window, which 2.42 and we see differently.
    let moments = [first + 3 * 3600, first + 17 * 777, last].map(|s| format!("{s}.123"));
    let mut wrong = Vec::new();
    let mut series = 0;
    for query in QUERIES {
        let mut asks: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
        for at in &moments {
            asks.push(("/api/v1/query", vec![("query", (*query).to_owned()), ("time", at.clone())]));
        }
        let range = |from: i64, to: i64, step: &str| {
            let times =
                [("start", format!("{from}.123")), ("end", format!("{to}.123")), ("step", step.to_owned())];
            [vec![("query", (*query).to_owned())], times.into()].concat()
        };
        asks.push(("/api/v1/query_range", range(first, last, "397")));
        asks.push(("/api/v1/query_range", range(first + 7100, first + 7300, "11")));
        for (path, params) in asks {
            let params: Vec<(&str, &str)> = params.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let read = async |api: &Api| {
                points(&api.data(path, &params).await.unwrap_or_else(|e| panic!("{query}: {e}")))
            };
            let (a, b) = (read(ours).await, read(&theirs).await);
            series += b.len();
            if !same(&a, &b) {
                wrong.push(format!("{query} {params:?}\n  ours   {a:?}\n  theirs {b:?}"));
            }
        }
    }
    let shown: Vec<String> = wrong.iter().take(3).map(|w| w.chars().take(1500).collect()).collect();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), shown.join("\n"));
    assert!(series > 200, "{series} series were compared");
}

#[tokio::test]
async fn queries_equal_and_blocks_are_whole_and_killing_loses_nothing() {
    if !peer("prometheus") || !peer("promtool") {
        return;
    }
    let mut stage = Stage::set().await;
    equal(&stage, &stage.other.api()).await;
    stage.uploaded().await;
    let root = stage.root.path().to_owned();
    let bucket = root.join("bucket");
    same_blocks(&root, &bucket);
    // The bucket has everything twice now, as far as the cluster is concerned.
    until("the bucket is seen", PATIENCE, || async { bucket_is_seen(&stage).await }).await;
    equal(&stage, &stage.other.api()).await;
    equal(&stage, &stage.beside.api()).await;

    // Without the Prometheus: named; what is in the bucket is still there.
    stage.prometheus.kill();
    let (last, api) = (format!("{}", stage.range.1), stage.other.api());
    let instant = [("query", "count(made_level)"), ("time", last.as_str())];
    let (status, body) = api.get("/api/v1/query", &instant).await.expect("an answer");
    assert!(status == 503 && body.contains("the Prometheus beside node n0"), "{status} {body}");
    let partial = [instant[0], instant[1], ("partial_response", "true")];
    let (status, body) = api.get("/api/v1/query", &partial).await.expect("an answer");
    assert!(status == 200 && body.contains("beside node n0") && body.contains("\"4\""), "{status} {body}");
    let (status, body) =
        api.get("/api/v1/query", &[("query", "made_level{cluster=\"us\"}")]).await.expect("an answer");
    assert!(status == 200 && !body.contains("beside"), "what it cannot have does not lack it: {body}");
    // A block more, which is uploaded while it is away: nothing of it is needed for that.
    fill(&root, stage.range.0 - 86_400, 480, "older");
    stage.uploaded().await;
    let ago = stage.range.0 - 86_400 + 3600;
    until("the block more", PATIENCE, || async {
        let at = ago.to_string();
        let params = [("query", "count(older_level)"), ("time", at.as_str()), ("partial_response", "true")];
        let (_, body) = api.get("/api/v1/query", &params).await?;
        if body.contains("\"4\"") { Ok(()) } else { Err(body) }
    })
    .await;
    stage.prometheus = prometheus(&root, stage.prometheus.port);
    let their = stage.theirs();
    until("the Prometheus", PATIENCE, || their.ready()).await;
    stage.whole().await;

    // Without the node beside it, which dies while it uploads.
    stage.beside.kill();
    let (status, body) = api.get("/api/v1/query", &instant).await.expect("an answer");
    assert!(status == 503 && body.contains("n0"), "{status} {body}");
    fill(&root, stage.range.0 - 2 * 86_400, 480, "oldest");
    for id in blocks(&data(&root)).difference(&blocks(&bucket)) {
        std::fs::create_dir_all(bucket.join(id)).expect("a directory");
        std::fs::write(bucket.join(id).join("index"), "half").expect("half a file");
        let staged = data(&root).join(format!("thanos/upload/{id}.tmp-for-creation/chunks"));
        std::fs::create_dir_all(&staged).expect("a directory");
    }
    stage.beside = stage.beside.spec.start();
    stage.beside.ready().await;
    stage.uploaded().await;
    same_blocks(&root, &bucket);
    stage.whole().await;
    equal(&stage, &api).await;
}

/// Whether a question that leaves the Prometheus out finds everything.
async fn bucket_is_seen(stage: &Stage) -> Result<(), String> {
    let at = (stage.range.1).to_string();
    let params = [
        ("query", "sum(count_over_time(made_level[9h]))"),
        ("time", at.as_str()),
        ("storeMatch[]", "{__address__=\"nobody:1\"}"),
    ];
    let data = stage.other.api().data("/api/v1/query", &params).await?;
    let want = (4 * SAMPLES).to_string();
    if data["result"][0]["value"][1] == want { Ok(()) } else { Err(data.to_string()) }
}

/// Blocks in the bucket are those of the Prometheus, with a section for Thanos, and promtool reads them.
fn same_blocks(root: &Path, bucket: &Path) {
    let all = blocks(&data(root));
    assert!(all.len() >= 4, "{all:?}");
    let ledger: Value =
        serde_json::from_slice(&std::fs::read(data(root).join("thanos.shipper.json")).expect("ledger"))
            .expect("JSON");
    let listed: BTreeSet<&str> =
        ledger["uploaded"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for id in &all {
        assert!(listed.contains(id.as_str()), "{id} in {listed:?}");
        let (from, to) = (data(root).join(id), bucket.join(id));
        for file in ["index", "chunks/000001"] {
            assert!(
                std::fs::read(from.join(file)).expect("a file")
                    == std::fs::read(to.join(file)).expect("a file"),
                "{id}/{file}"
            );
        }
        let read = |dir: &Path| -> Value {
            serde_json::from_slice(&std::fs::read(dir.join("meta.json")).expect("meta")).expect("JSON")
        };
        let (theirs, ours) = (read(&from), read(&to));
        for part in ["ulid", "minTime", "maxTime", "stats", "compaction"] {
            assert_eq!(theirs[part], ours[part], "{id}");
        }
        let thanos = &ours["thanos"];
        assert_eq!(
            (&thanos["labels"], thanos["source"].as_str()),
            (&serde_json::json!({"cluster": "eu", "replica": "a"}), Some("sidecar"))
        );
        assert!(thanos["files"].as_array().is_some_and(|f| f.len() == 3), "{thanos}");
    }
    let leftovers = std::fs::read_dir(data(root).join("thanos/upload")).map_or(0, Iterator::count);
    assert_eq!(leftovers, 0, "nothing is left of an upload");
    let copy = tempfile::tempdir().expect("a directory");
    for id in &all {
        koios_cluster_tests::recorded::copy(&bucket.join(id), &copy.path().join(id));
    }
    let shown = promtool(&["tsdb", "list", &copy.path().display().to_string()]);
    assert!(all.iter().all(|id| shown.contains(id.as_str())), "{shown}");
    for id in &all {
        promtool(&["tsdb", "analyze", &copy.path().display().to_string(), id]);
    }
}

#[tokio::test]
async fn facts_are_those_of_the_prometheus_and_of_the_cluster() {
    if !peer("prometheus") || !peer("promtool") {
        return;
    }
    let stage = Stage::set().await;
    let api = stage.other.api();
    let labels =
        |v: &Value| (v["cluster"].as_str().map(str::to_owned), v["replica"].as_str().map(str::to_owned));
    let of_eu = (Some("eu".to_owned()), Some("a".to_owned()));
    until("targets of the Prometheus", PATIENCE, || async {
        let data = api.data("/api/v1/targets", &[]).await?;
        let active = data["activeTargets"].as_array().cloned().unwrap_or_default();
        let found = active.iter().find(|t| t["scrapePool"] == "scraped" && t["health"] == "up");
        found.filter(|t| labels(&t["labels"]) == of_eu).map(drop).ok_or(data.to_string())
    })
    .await;
    until("metadata", PATIENCE, || async {
        let data = api.data("/api/v1/metadata", &[("metric", "hits_total")]).await?;
        let other = api.data("/api/v1/metadata", &[("metric", "hits")]).await?;
        let help = "Hits of all kinds.";
        let said = [&data["hits_total"][0]["help"], &other["hits"][0]["help"]];
        if said.iter().any(|s| *s == help) { Ok(()) } else { Err(format!("{data} {other}")) }
    })
    .await;
    let span = [("start", format!("{:.0}", now() - 600.0)), ("end", format!("{:.0}", now() + 600.0))];
    until("exemplars", PATIENCE, || async {
        let params =
            [("query", "rate(hits_total{cluster=\"eu\"}[1m])"), ("start", &span[0].1), ("end", &span[1].1)];
        let data = api.data("/api/v1/query_exemplars", &params).await?;
        let found = data[0]["exemplars"][0]["labels"]["trace_id"] == "t1"
            && labels(&data[0]["seriesLabels"]) == of_eu;
        if found { Ok(()) } else { Err(data.to_string()) }
    })
    .await;
    over_grpc(&stage).await;
}

async fn channel(node: &Node) -> Channel {
    let address = format!("http://{}:{}", node.spec.ip, node.spec.ports[1]);
    Channel::from_shared(address).expect("address").connect().await.expect("connection")
}

fn has_label(set: &Option<pb::LabelSet>, name: &str, value: &str) -> bool {
    set.iter().flat_map(|s| &s.labels).any(|l| l.name == name && l.value == value)
}

/// The groups of alerts once the alert fires: the Prometheus evaluates every second, and may not have seen two hits at first.
async fn firing(channel: &Channel) -> Vec<pb::RuleGroup> {
    until("the alert fires", PATIENCE, || async {
        let ask = pb::RulesRequest { r#type: 1, ..Default::default() };
        let groups = rules(channel.clone(), ask).await.map_err(|e| e.to_string())?;
        match &groups[0].rules[0].result {
            Some(pb::rule::Result::Alert(a)) if a.state == pb::AlertState::Firing as i32 => Ok(groups),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The table of 2.4: each service, from a node that is not beside the Prometheus.
async fn over_grpc(stage: &Stage) {
    let channel = channel(&stage.other).await;
    let info = InfoClient::new(channel.clone()).info(InfoRequest {}).await.expect("info").into_inner();
    assert!(info.rules.is_some() && info.targets.is_some() && info.metric_metadata.is_some());
    assert!(info.exemplars.is_some() && info.status.is_some());
    assert!(
        info.label_sets.iter().any(|s| has_label(&Some(s.clone()), "replica", "a")),
        "{:?}",
        info.label_sets
    );
    let sidecar = rules(channel.clone(), pb::RulesRequest::default()).await.expect("rules");
    let [group] = &sidecar[..] else { panic!("{sidecar:?}") };
    assert_eq!((group.name.as_str(), group.rules.len(), group.interval), ("g", 2, 1.0));
    let alerts = firing(&channel).await;
    let Some(pb::rule::Result::Alert(alert)) = &alerts[0].rules[0].result else { panic!("{alerts:?}") };
    assert_eq!(alerts[0].rules.len(), 1, "{alert:?}");
    assert!(has_label(&alert.labels, "cluster", "eu") && has_label(&alert.labels, "team", "x"));
    assert!(has_label(&alert.alerts[0].labels, "replica", "a") && alert.alerts[0].active_at.is_some());
    let by =
        |matcher: &str| pb::RulesRequest { matcher_string: vec![matcher.to_owned()], ..Default::default() };
    assert_eq!(rules(channel.clone(), by("{team=\"x\"}")).await.expect("rules")[0].rules.len(), 1);
    assert!(rules(channel.clone(), by("{team=\"y\"}")).await.expect("rules").is_empty());
    assert_eq!(rules(channel.clone(), by("{")).await.expect_err("refused").code(), Code::InvalidArgument);

    let mut targets = pb::targets_client::TargetsClient::new(channel.clone());
    let mut answer = targets.targets(pb::TargetsRequest::default()).await.expect("targets").into_inner();
    let first = answer.message().await.expect("a message").and_then(|m| m.result);
    let Some(pb::targets_response::Result::Targets(found)) = first else { panic!("{first:?}") };
    let target = found.active_targets.iter().find(|t| t.scrape_pool == "scraped").expect("the target");
    assert!(has_label(&target.labels, "cluster", "eu") && target.last_scrape.is_some());
    assert_eq!(target.health, pb::TargetHealth::Up as i32);

    let mut metadata = pb::metadata_client::MetadataClient::new(channel.clone());
    let request = pb::MetricMetadataRequest { limit: -1, ..Default::default() };
    let mut answer = metadata.metric_metadata(request).await.expect("metadata").into_inner();
    let first = answer.message().await.expect("a message").and_then(|m| m.result);
    let Some(pb::metric_metadata_response::Result::Metadata(said)) = first else { panic!("{first:?}") };
    assert!(said.metadata.keys().any(|k| k.starts_with("hits")), "{said:?}");

    let mut exemplars = pb::exemplars_client::ExemplarsClient::new(channel.clone());
    let ms = (now() * 1000.0) as i64;
    let request = pb::ExemplarsRequest {
        query: "hits_total".into(),
        start: ms - 600_000,
        end: ms,
        ..Default::default()
    };
    let mut answer = exemplars.exemplars(request).await.expect("exemplars").into_inner();
    let first = answer.message().await.expect("a message").and_then(|m| m.result);
    let Some(pb::exemplars_response::Result::Data(data)) = first else { panic!("{first:?}") };
    assert!(has_label(&data.series_labels, "replica", "a") && data.exemplars[0].value == 0.25, "{data:?}");

    let mut status = pb::status_client::StatusClient::new(channel);
    let mut answer =
        status.tsdb_statistics(pb::TsdbStatisticsRequest::default()).await.expect("status").into_inner();
    let first = answer.message().await.expect("a message").and_then(|m| m.result);
    let Some(pb::tsdb_statistics_response::Result::Statistics(sizes)) = first else { panic!("{first:?}") };
    let heads: BTreeSet<&str> = sizes.statistics.keys().map(String::as_str).collect();
    assert_eq!(heads, BTreeSet::from(["node n0", "node n1", "{cluster=\"eu\", replica=\"a\"}"]));
    let theirs = &sizes.statistics["{cluster=\"eu\", replica=\"a\"}"];
    assert!(theirs.head_statistics.as_ref().is_some_and(|h| h.num_series > 1), "{theirs:?}");
}

async fn rules(channel: Channel, request: pb::RulesRequest) -> Result<Vec<pb::RuleGroup>, tonic::Status> {
    let mut stream = pb::rules_client::RulesClient::new(channel).rules(request).await?.into_inner();
    let mut groups = Vec::new();
    while let Some(message) = stream.message().await? {
        match message.result {
            Some(pb::rules_response::Result::Group(g)) => groups.push(g),
            other => panic!("{other:?}"),
        }
    }
    Ok(groups)
}
