//! Others read from Koios: Debian's Prometheus by remote read and by federation, and by hand both forms of an answer.
//!
//! Two nodes scrape and are pushed to, so each series has two copies, and a reader must see one. Prometheus 2.42 asks
//! for samples and knows no native histograms there; frames of chunks and histograms are decoded here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use koios_chunk::{Chunk, Encoding};
use koios_cluster_tests::api::{Vector, now};
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::push::{self, Push};
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, peers, scratch, until};
use koios_model::{Columns, STALE_NAN_BITS};
use koios_proto::prometheus as wire;
use prost::Message;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);
const STEP_MS: i64 = 15_000;
const SAMPLES: i64 = 180;

/// Two nodes of the cluster "eu".
async fn two_nodes(dir: &Path, more: &str) -> Vec<Node> {
    let config = dir.join("nodes.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{cluster: eu}}}}\n{more}"
    );
    std::fs::write(&config, text).expect("configuration");
    let first = NodeSpec::new("n0", dir).config(&config);
    let second = NodeSpec::new("n1", dir).config(&config).join(&first);
    let nodes = vec![first.start(), second.start()];
    for node in &nodes {
        let api = node.api();
        until("two ready nodes", PATIENCE, || api.all_ready(2)).await;
    }
    nodes
}

/// Time of the first pushed sample: whole seconds, so that no evaluation at .123 meets one.
fn first_ms() -> i64 {
    (now() as i64) * 1000 - (SAMPLES - 1) * STEP_MS
}

/// Gauges, counters that reset, buckets, one series that ends with a stale marker, and a native histogram.
fn pushed(first: i64) -> Vec<wire::TimeSeries> {
    let mut all = Vec::new();
    let mut add = |labels: &[(&str, &str)], value: &dyn Fn(i64) -> f64| {
        let samples: Vec<(i64, f64)> = (0..SAMPLES).map(|k| (first + k * STEP_MS, value(k))).collect();
        all.push(push::series(labels, &samples));
    };
    for i in 0..6i64 {
        let (job, instance) = (if i < 4 { "api" } else { "db" }, format!("i{i}"));
        let base = |name| [("__name__", name), ("instance", instance.as_str()), ("job", job)];
        add(&base("temperature"), &|k| 20.0 + ((k * 37 + i * 11) % 97) as f64 / 8.0);
        add(&base("requests_total"), &|k| 5000.0 + ((k + i * 11) % 100 * (i + 3)) as f64);
        for (n, le) in ["0.1", "0.5", "+Inf"].iter().enumerate() {
            let labels = [&base("latency_bucket")[..], &[("le", le)]].concat();
            add(&labels, &|k| 1000.0 * (n as f64 + 1.0) + (k * (n as i64 + 1) * (i + 1)) as f64);
        }
    }
    let stale = f64::from_bits(STALE_NAN_BITS);
    let ended: Vec<(i64, f64)> = (0..SAMPLES - 4)
        .map(|k| (first + k * STEP_MS, if k == SAMPLES - 5 { stale } else { k as f64 }))
        .collect();
    all.push(push::series(&[("__name__", "ended"), ("job", "api")], &ended));
    let histogram = |k: i64| wire::Histogram {
        count: Some(wire::histogram::Count::CountInt(3 * k as u64 + 3)),
        zero_count: Some(wire::histogram::ZeroCount::ZeroCountInt(0)),
        sum: 1.5 * k as f64,
        positive_spans: vec![wire::BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![k + 1, k + 1],
        timestamp: first + k * STEP_MS,
        ..wire::Histogram::default()
    };
    let native = push::series(&[("__name__", "native"), ("job", "api")], &[]);
    all.push(wire::TimeSeries { histograms: (0..SAMPLES).map(histogram).collect(), ..native });
    all
}

fn with_target(target: &Exporter) -> String {
    format!(
        "scrape_configs:\n  - job_name: scraped\n    static_configs: [{{targets: ['{}']}}]\n",
        target.addr
    )
}

/// Nodes with pushed series and at least eight scrapes by each.
async fn filled(dir: &Path, target: &Exporter) -> (Vec<Node>, i64) {
    let nodes = two_nodes(dir, &with_target(target)).await;
    let first = first_ms();
    let reply = Push::v1(pushed(first)).to(nodes[0].spec.http()).await.expect("an answer");
    assert_eq!(reply.status, 204, "{}", reply.body);
    let api = nodes[1].api();
    until("scrapes", PATIENCE, || async {
        let n = api.number("min(count_over_time(probe_value{job=\"scraped\"}[1m]))", now()).await?;
        if n >= 8.0 { Ok(()) } else { Err(format!("{n} scrapes")) }
    })
    .await;
    (nodes, first)
}

const QUERIES: &[&str] = &[
    "temperature",
    "temperature{job=\"api\"}",
    "temperature{job!=\"api\"}",
    "temperature{instance=~\"i[1-3]\"}",
    "temperature{instance!~\"i[1-3]|i5\"}",
    "temperature{job=\"\"}",
    "{__name__=~\"temp.+|requests_total\", instance=\"i2\"}",
    "{job=\"db\", __name__!~\".*bucket\"}",
    "temperature{cluster=\"eu\"}",
    "temperature offset 10m",
    "temperature offset 7m + ignoring(nothing) temperature",
    "temperature @ end()",
    "ended",
    "ended offset 2m",
    "absent(ended)",
    "count_over_time(ended[10m])",
    "rate(requests_total[5m])",
    "irate(requests_total{job=\"api\"}[2m])",
    "increase(requests_total[10m] offset 3m)",
    "resets(requests_total[40m])",
    "changes(temperature[7m])",
    "delta(temperature[5m])",
    "deriv(temperature[9m])",
    "sum by (job) (rate(requests_total[5m]))",
    "avg without (instance) (temperature)",
    "max(temperature) - min(temperature)",
    "count(temperature > 25)",
    "topk(2, temperature)",
    "quantile(0.7, temperature)",
    "histogram_quantile(0.3, sum by (le, job) (rate(latency_bucket[5m])))",
    "max_over_time(sum(rate(requests_total[2m]))[20m:1m])",
    "avg_over_time(temperature[13m])",
    "quantile_over_time(0.4, temperature[11m])",
    "last_over_time(temperature[3m])",
    "timestamp(temperature)",
    "temperature * on(instance, job) group_left requests_total",
    "label_replace(temperature, \"n\", \"$1\", \"instance\", \"i(.*)\")",
    "temperature{instance=\"i9\"} or vector(3)",
    "rate(requests_total{instance=\"i1\"}[5m:30s])",
    "predict_linear(temperature[5m], 60)",
];

/// Queries over what two nodes scraped, at a moment whose samples are settled.
const SCRAPED: &[&str] = &[
    "probe_value",
    "count_over_time(probe_value[1m])",
    "sum(sum_over_time(probe_value[30s]))",
    "count({job=\"scraped\"})",
    "up{job=\"scraped\"}",
];

type Points = BTreeMap<String, Vec<(f64, f64)>>;

fn points(data: &Value) -> Result<Points, String> {
    let number = |v: &Value| v.as_str().and_then(|s| s.parse::<f64>().ok()).ok_or(format!("{v}"));
    let mut all = Points::new();
    for s in data["result"].as_array().ok_or("no result")? {
        let list = s["values"].as_array().cloned().unwrap_or_else(|| vec![s["value"].clone()]);
        let read = list.iter().map(|p| Ok((p[0].as_f64().unwrap_or(0.0), number(&p[1])?)));
        all.insert(s["metric"].to_string(), read.collect::<Result<_, String>>()?);
    }
    Ok(all)
}

fn same(ours: &Points, theirs: &Points) -> bool {
    // 2.42 sums plainly, Koios compensated.
    let close =
        |x: f64, y: f64| (x.is_nan() && y.is_nan()) || x == y || (x - y).abs() <= 1e-9 * x.abs().max(1.0);
    ours.len() == theirs.len()
        && ours.iter().all(|(metric, a)| {
            theirs.get(metric).is_some_and(|b| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
            })
        })
}

/// Both answers to a query at one moment, or over a range.
async fn both(ours: &Api, theirs: &Api, query: &str, at: f64, range: bool) -> (Points, Points) {
    let (start, end) = (format!("{:.3}", at - 1200.0), format!("{at:.3}"));
    let ask = async |api: &Api| {
        let data = if range {
            let params = [("query", query), ("start", &start), ("end", &end), ("step", "77")];
            api.data("/api/v1/query_range", &params).await
        } else {
            api.data("/api/v1/query", &[("query", query), ("time", &end)]).await
        };
        points(&data.unwrap_or_else(|e| panic!("{query}: {e}"))).expect("numbers")
    };
    (ask(ours).await, ask(theirs).await)
}

#[tokio::test]
async fn prometheus_reads_and_gives_equal_answers() {
    if !peer("prometheus") {
        return;
    }
    let dir = scratch();
    let target = Exporter::start("made", Behaviour::Series(20)).await;
    let (nodes, first) = filled(dir.path(), &target).await;
    let config = dir.path().join("reader.yml");
    // Labels of a reader become matchers, and are taken away from what it reads.
    let text = format!(
        "global: {{external_labels: {{cluster: eu}}}}\n\
         remote_read: [{{url: 'http://{}/api/v1/read', read_recent: true}}]\n",
        nodes[0].spec.http()
    );
    std::fs::write(&config, text).expect("configuration");
    let reader = peers::prometheus(&dir.path().join("reader"), &config);
    let (ours, theirs) = (nodes[1].api(), Api::new(([127, 0, 0, 1], reader.port).into()));
    until("the reader", PATIENCE, || theirs.ready()).await;
    let settled = ((now() - 2.5) as i64) as f64 + 0.123;
    let pushed = ((first + (SAMPLES - 2) * STEP_MS) / 1000) as f64 + 0.123;
    let cases = QUERIES.iter().map(|q| (*q, pushed)).chain(SCRAPED.iter().map(|q| (*q, settled)));
    let (mut wrong, mut series) = (Vec::new(), 0);
    for (query, at) in cases {
        for range in [false, true] {
            let (a, b) = both(&ours, &theirs, query, at, range).await;
            series += b.len();
            // The matcher on our own label finds what is shown with it; our own API does not show it.
            if query.contains("cluster") {
                assert_eq!((a.len(), b.len()), (0, 6), "{query}");
            } else if !same(&a, &b) {
                wrong.push(format!("{query} (range: {range}) at {at}:\n  ours {a:?}\n  theirs {b:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(series > 300, "{series}");
    let log = nodes[0].log();
    assert!(!log.contains("panicked"), "{log}");
    reader.end(PATIENCE);
}

async fn read(node: &Node, query: &str, body: Vec<u8>) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("HTTP client");
    let url = format!("http://{}/api/v1/read{query}", node.spec.http());
    let response = client.post(url).body(body).send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.bytes().await.expect("a body").to_vec())
}

fn question(matchers: &[(i32, &str, &str)], kinds: &[i32]) -> Vec<u8> {
    let matcher = |&(r#type, name, value): &(i32, &str, &str)| wire::LabelMatcher {
        r#type,
        name: name.into(),
        value: value.into(),
    };
    let query = wire::Query {
        start_timestamp_ms: ((now() - 7200.0) * 1000.0) as i64,
        end_timestamp_ms: ((now() - 2.0) * 1000.0) as i64 / 1000 * 1000,
        matchers: matchers.iter().map(matcher).collect(),
        hints: None,
    };
    // The second query shows that answers stay in order.
    let nothing = wire::Query { matchers: vec![matcher(&(0, "__name__", "nothing"))], ..query.clone() };
    let message =
        wire::ReadRequest { queries: vec![nothing, query], accepted_response_types: kinds.to_vec() };
    snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).expect("packs")
}

/// Samples by series; a histogram counts with its count, sum and buckets.
type Samples = BTreeMap<Vec<(String, String)>, BTreeMap<i64, Vec<u64>>>;

fn identity(labels: &[wire::Label]) -> Vec<(String, String)> {
    labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect()
}

fn of_samples(body: &[u8]) -> Samples {
    let bytes = snap::raw::Decoder::new().decompress_vec(body).expect("snappy");
    let response = wire::ReadResponse::decode(&bytes[..]).expect("a response");
    assert_eq!(response.results.len(), 2);
    assert!(response.results[0].timeseries.is_empty());
    let mut all = Samples::new();
    for series in &response.results[1].timeseries {
        let floats = series.samples.iter().map(|s| (s.timestamp, vec![s.value.to_bits()]));
        let histograms = series.histograms.iter().map(|h| {
            let Some(wire::histogram::Count::CountFloat(count)) = h.count else { panic!("{h:?}") };
            let numbers = [count, h.sum].into_iter().chain(h.positive_counts.iter().copied());
            (h.timestamp, numbers.map(f64::to_bits).collect())
        });
        let before = all.insert(identity(&series.labels), floats.chain(histograms).collect());
        assert!(before.is_none(), "{:?} comes twice", series.labels);
    }
    all
}

fn of_frames(mut body: &[u8]) -> Samples {
    let mut all = Samples::new();
    while !body.is_empty() {
        let len = prost::decode_length_delimiter(body).expect("a length");
        assert!(len <= 1 << 20);
        let (sum, rest) = body[prost::length_delimiter_len(len)..].split_at(4);
        let (message, rest) = rest.split_at(len);
        assert_eq!(sum, koios_block::crc32c(message).to_be_bytes());
        body = rest;
        let frame = wire::ChunkedReadResponse::decode(message).expect("a frame");
        assert_eq!((frame.query_index, frame.chunked_series.len()), (1, 1));
        let series = &frame.chunked_series[0];
        let known = all.entry(identity(&series.labels)).or_default();
        for chunk in &series.chunks {
            assert!((1..=3).contains(&chunk.r#type));
            let chunk = Chunk {
                min_time: chunk.min_time_ms,
                max_time: chunk.max_time_ms,
                encoding: Encoding::from_u8(chunk.r#type as u8).expect("an encoding"),
                data: chunk.data.clone().into(),
            };
            let mut samples = Columns::default();
            chunk.read(i64::MIN, i64::MAX, &mut samples).expect("a sound chunk");
            for i in 0..samples.len() {
                let numbers = match samples.histogram(i) {
                    Some(h) => {
                        [h.count, h.sum].into_iter().chain(h.positive.counts.iter().copied()).collect()
                    }
                    None => vec![samples.values[i]],
                };
                let numbers = numbers.into_iter().map(f64::to_bits).collect();
                assert_eq!(known.insert(samples.times[i], numbers), None, "a sample comes twice");
            }
        }
    }
    all
}

#[tokio::test]
async fn samples_and_frames_say_the_same() {
    let dir = scratch();
    let target = Exporter::start("made", Behaviour::Series(20)).await;
    let (nodes, first) = filled(dir.path(), &target).await;
    let matchers = [(2, "job", "api|db|scraped"), (0, "cluster", "eu"), (3, "__name__", "scrape_.*")];
    let asked = |kinds: &[i32]| question(&matchers, kinds);
    let mut answers = Vec::new();
    for (kinds, content_type) in [
        (&[][..], "application/x-protobuf"),
        (&[0, 1][..], "application/x-protobuf"),
        (&[1, 0][..], "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"),
    ] {
        let (status, headers, body) = read(&nodes[1], "", asked(kinds)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        assert_eq!(headers["content-type"], content_type);
        answers.push(if kinds == [1, 0] { of_frames(&body) } else { of_samples(&body) });
    }
    for series in answers[0].keys() {
        let value = |name: &str| series.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!((value("cluster"), value("replica")), (Some("eu"), None), "{series:?}");
    }
    let of = |answer: &Samples, job: &str| -> Samples {
        let has = |s: &Vec<(String, String)>| s.contains(&("job".to_owned(), job.to_owned()));
        answer.iter().filter(|(s, _)| has(s)).map(|(s, v)| (s.clone(), v.clone())).collect()
    };
    for job in ["api", "db"] {
        assert_eq!(of(&answers[0], job), of(&answers[2], job), "{job}");
        assert_eq!(of(&answers[0], job), of(&answers[1], job), "{job}");
    }
    // Of what is still scraped a chunk may have more than was asked for.
    let (some, more) = (of(&answers[0], "scraped"), of(&answers[2], "scraped"));
    assert!(some.len() > 20 && some.keys().eq(more.keys()));
    for (series, samples) in &some {
        assert!(samples.iter().all(|(t, v)| more[series].get(t) == Some(v)), "{series:?}");
    }
    let native = answers[2].iter().find(|(s, _)| s[0].1 == "native").expect("the histogram").1;
    assert_eq!(native.len(), SAMPLES as usize);
    let last = native.get(&(first + 179 * STEP_MS)).expect("its last sample");
    assert_eq!(*last, [540.0f64, 268.5, 180.0, 360.0].map(f64::to_bits));
}

#[tokio::test]
async fn what_is_wrong_or_missing_is_said() {
    let dir = scratch();
    let mut nodes = two_nodes(dir.path(), "koios: {scrape: {replicas: 1}}\n").await;
    let all = [(2, "job", ".+")];
    let regexp = question(&[(2, "job", "a(")], &[]);
    for (body, words) in [
        (b"not snappy".to_vec(), "snappy"),
        (snap::raw::Encoder::new().compress_vec(b"\x0a\x09\x01").unwrap(), "prometheus.ReadRequest"),
        (regexp, "matcher of label \"job\""),
        (question(&all, &[7]), "accepted response types [7]"),
    ] {
        let (status, _, text) = read(&nodes[0], "", body).await;
        let text = String::from_utf8_lossy(&text);
        assert!(status == 400 && text.contains(words), "{status}: {text}");
    }
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("HTTP client");
    let federate = format!("http://{}/federate?match[]={{job=~\".%2B\"}}", nodes[0].spec.http());
    assert_eq!(read(&nodes[0], "", question(&all, &[1])).await.0, 200);
    let (status, headers, body) = read(&nodes[0], "", question(&[(0, "job", "nowhere")], &[1])).await;
    assert!(status == 200 && body.is_empty(), "{status}: {body:?}");
    assert!(headers["content-type"].to_str().unwrap_or("").starts_with("application/x-streamed-protobuf"));
    assert_eq!(client.get(&federate).send().await.expect("an answer").status(), 200);
    // One that was alone with its samples.
    nodes[1].kill();
    for kinds in [[0], [1]] {
        let (status, _, text) = read(&nodes[0], "", question(&all, &kinds)).await;
        let text = String::from_utf8_lossy(&text);
        assert!(status == 503 && text.contains("n1"), "{status}: {text}");
        let (status, headers, _) = read(&nodes[0], "?partial_response=true", question(&all, &kinds)).await;
        let missing = headers.get("x-koios-missing").and_then(|v| v.to_str().ok()).unwrap_or("");
        assert!(status == 200 && missing.contains("n1"), "{status}: {missing}");
    }
    assert_eq!(client.get(&federate).send().await.expect("an answer").status(), 503);
    let partial = client.get(format!("{federate}&partial_response=true")).send().await;
    assert_eq!(partial.expect("an answer").status(), 200);
}

#[tokio::test]
async fn prometheus_federates_the_cluster() {
    if !peer("prometheus") {
        return;
    }
    let dir = scratch();
    let target = Exporter::start("made", Behaviour::Series(20)).await;
    let (nodes, first) = filled(dir.path(), &target).await;
    let config = dir.path().join("federating.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n  - job_name: federate\n    honor_labels: true\n    metrics_path: /federate\n    \
         params: {{'match[]': ['{{job=\"api\"}}', '{{job=~\"a.*|db\"}}']}}\n    \
         static_configs: [{{targets: ['{}']}}]\n",
        nodes[0].spec.http()
    );
    std::fs::write(&config, text).expect("configuration");
    let other = peers::prometheus(&dir.path().join("federating"), &config);
    let (ours, theirs) = (nodes[1].api(), Api::new(([127, 0, 0, 1], other.port).into()));
    let at = ((first + (SAMPLES - 1) * STEP_MS) / 1000) as f64 + 0.123;
    let shown = |query: &str| format!("label_replace({query}, \"cluster\", \"eu\", \"\", \"\")");
    let floats = "{job=~\"api|db\", __name__!=\"native\"}";
    for (query, series) in [(floats, 6 * 5), ("timestamp(temperature)", 6)] {
        let want: Vector = ours.vector(&shown(query), at).await.expect("our answer");
        assert_eq!(want.len(), series, "{want:?}");
        until("federated samples", PATIENCE, || async {
            let got = theirs.vector(query, at).await?;
            if got == want { Ok(()) } else { Err(format!("{got:?}\nnot\n{want:?}")) }
        })
        .await;
    }
    let (status, text) = ours.get("/federate", &[("match[]", "temperature{instance=\"i4\"}")]).await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((status, lines.len(), lines[0]), (200, 2, "# TYPE temperature untyped"), "{text}");
    assert!(lines[1].starts_with("temperature{instance=\"i4\",job=\"db\",cluster=\"eu\"} "), "{text}");
    assert_eq!(ours.get("/federate", &[]).await.unwrap(), (200, String::new()));
    assert_eq!(ours.get("/federate", &[("match[]", "{")]).await.unwrap().0, 400);
    other.end(PATIENCE);
}
