//! StoreAPI over gRPC, rule by rule, against a node on a bucket that Thanos wrote; and the whole way through it: a second node
//! that reaches the data only by StoreAPI answers what Thanos' querier answered.
//!
//! The numbers in the names are those of the rules of Thanos' StoreAPI as the reference lists them (2.2, and 2.3 for the
//! endpoint's description of itself, 2.5 for queries; 2.4 is in `sidecar.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use koios_cluster_tests::recorded::{cases, differing, fixture, on_thanos_bucket};
use koios_cluster_tests::{Node, NodeSpec, scratch, until};
use koios_model::Labels;
use koios_proto::prometheus;
use koios_proto::thanos as pb;
use koios_proto::thanos::info::InfoRequest;
use koios_proto::thanos::info::info_client::InfoClient;
use koios_proto::thanos::query_client::QueryClient;
use koios_proto::thanos::store_client::StoreClient;
use koios_store::SeriesShard;
use koios_store::storeapi::frames::labels_from_pb;
use pb::label_matcher::Type;
use tonic::Code;
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(30);
/// The first and the last sample of the bucket, milliseconds.
const ALL: (i64, i64) = (1_790_208_000_000, 1_792_195_200_000);
/// A day whose blocks were downsampled.
const OLD_DAY: (i64, i64) = (1_790_640_000_000, 1_790_726_400_000);

struct Served {
    _node: Node,
    channel: Channel,
    _root: tempfile::TempDir,
}

async fn served() -> Served {
    let root = scratch();
    let node = on_thanos_bucket("one", root.path()).start();
    node.ready().await;
    let address = format!("http://{}:{}", node.spec.ip, node.spec.ports[1]);
    let channel = Channel::from_shared(address).expect("address").connect().await.expect("connection");
    Served { _node: node, channel, _root: root }
}

fn matcher(kind: Type, name: &str, value: &str) -> pb::LabelMatcher {
    pb::LabelMatcher { r#type: kind.into(), name: name.to_owned(), value: value.to_owned() }
}

fn ask(matchers: Vec<pb::LabelMatcher>) -> pb::SeriesRequest {
    pb::SeriesRequest { min_time: ALL.0, max_time: ALL.1, matchers, ..pb::SeriesRequest::default() }
}

fn up() -> Vec<pb::LabelMatcher> {
    vec![matcher(Type::Eq, "__name__", "demo_up")]
}

/// What came, in the order it came.
#[derive(Default)]
struct Came {
    series: Vec<pb::Series>,
    warnings: Vec<String>,
    batches: usize,
}

impl Served {
    async fn series(&self, request: pb::SeriesRequest) -> Result<Came, tonic::Status> {
        use pb::series_response::Result as Part;
        let mut client = StoreClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let mut stream = client.series(request).await?.into_inner();
        let mut came = Came::default();
        while let Some(message) = stream.message().await? {
            match message.result.expect("a part") {
                Part::Series(one) => came.series.push(one),
                Part::Batch(batch) => {
                    came.batches += 1;
                    came.series.extend(batch.series);
                }
                Part::Warning(words) => came.warnings.push(words),
                Part::Hints(_) => {}
            }
        }
        Ok(came)
    }

    async fn names(&self, request: pb::LabelNamesRequest) -> Vec<String> {
        let times = pb::LabelNamesRequest { start: ALL.0, end: ALL.1, ..request };
        StoreClient::new(self.channel.clone()).label_names(times).await.expect("names").into_inner().names
    }

    async fn values(&self, request: pb::LabelValuesRequest) -> Result<Vec<String>, tonic::Status> {
        let times = pb::LabelValuesRequest { start: ALL.0, end: ALL.1, ..request };
        Ok(StoreClient::new(self.channel.clone()).label_values(times).await?.into_inner().values)
    }
}

fn shown(series: &[pb::Series]) -> Vec<String> {
    series.iter().map(|s| labels_from_pb(&s.labels).to_string()).collect()
}

#[tokio::test]
async fn rules_of_series() {
    let s = served().await;
    let all = s.series(ask(up())).await.expect("series").series;
    let sets: Vec<_> = all.iter().map(|s| labels_from_pb(&s.labels)).collect();

    // 1: sorted by labels, chunks by time, a long series may span frames.
    assert!(sets.windows(2).all(|w| w[0] <= w[1]), "sorted");
    let distinct: BTreeSet<_> = sets.iter().cloned().collect();
    assert_eq!(distinct.len(), 8, "four instances, two replicas: {:?}", shown(&all));
    for labels in &distinct {
        let frames = all.iter().filter(|s| labels_from_pb(&s.labels) == *labels);
        let times: Vec<i64> = frames.flat_map(|s| s.chunks.iter().map(|c| c.min_time)).collect();
        assert!(times.windows(2).all(|w| w[0] <= w[1]) && times.len() > 100, "{labels}");
    }
    // 2: external labels are there, and are matched.
    assert!(distinct.iter().all(|l| l.get("cluster") == Some("eu1") && l.get("replica").is_some()));
    let with = |extra| s.series(ask([up(), vec![extra]].concat()));
    let of_a = with(matcher(Type::Eq, "replica", "a")).await.expect("series").series;
    assert!(of_a.len() * 2 == all.len() && shown(&of_a).iter().all(|l| l.contains("replica=\"a\"")));
    let not_a = with(matcher(Type::Nre, "replica", "a|c")).await.expect("series").series;
    assert_eq!(not_a.len() + of_a.len(), all.len());
    // 3: no match on an external label is empty; nothing but external ones, or nothing at all, is refused.
    assert!(with(matcher(Type::Eq, "cluster", "us")).await.expect("no error").series.is_empty());
    // (`cluster` is external in this bucket, and a label like any other in what the node scrapes itself.)
    for matchers in [vec![], vec![matcher(Type::Re, "replica", ".+")]] {
        let refused = s.series(ask(matchers)).await.err().expect("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("no matchers specified"), "{refused}");
    }
    let wrong = s.series(ask(vec![matcher(Type::Re, "__name__", "(")])).await.err().expect("refused");
    assert_eq!(wrong.code(), Code::InvalidArgument);
    // 4: replica labels go before sorting; replicas stay.
    let bare = pb::SeriesRequest { without_replica_labels: vec!["replica".into()], ..ask(up()) };
    let bare = s.series(bare).await.expect("series").series;
    let sets: Vec<_> = bare.iter().map(|s| labels_from_pb(&s.labels)).collect();
    assert!(bare.len() == all.len() && sets.windows(2).all(|w| w[0] <= w[1]), "{:?}", shown(&bare));
    assert!(sets.iter().all(|l| l.get("replica").is_none()));
    // 5: no chunks when they are not wanted; limits.
    let skipped =
        s.series(pb::SeriesRequest { skip_chunks: true, ..ask(up()) }).await.expect("series").series;
    assert!(skipped.len() == 8 && skipped.iter().all(|s| s.chunks.is_empty()));
    let limited = pb::SeriesRequest { skip_chunks: true, limit: 4, ..ask(up()) };
    assert_eq!(s.series(limited).await.expect("series").series.len(), 4);
    // Batches only for who can take them.
    assert_eq!(s.series(ask(up())).await.expect("series").batches, 0);
    let batched = pb::SeriesRequest { response_batch_size: 4, skip_chunks: true, ..ask(up()) };
    let batched = s.series(batched).await.expect("series");
    assert_eq!((batched.batches, shown(&batched.series)), (2, shown(&skipped)));
    // 8: whole answers have no warning, and neither strategy minds.
    let strict = pb::SeriesRequest {
        partial_response_strategy: pb::PartialResponseStrategy::Abort.into(),
        partial_response_disabled: true,
        ..ask(up())
    };
    assert!(s.series(strict).await.expect("whole").warnings.is_empty());
    // 10: no tenant was named in any of these; one that is named changes nothing.
    let mut request = tonic::Request::new(ask(up()));
    request.metadata_mut().insert("thanos-tenant", "somebody".parse().expect("metadata"));
    let answer = StoreClient::new(s.channel.clone())
        .series(request)
        .await
        .expect("series")
        .into_inner()
        .message()
        .await;
    assert!(answer.expect("a frame").is_some());
}

#[tokio::test]
async fn rule_6_resolutions_and_aggregates() {
    let s = served().await;
    let of = |window: i64, aggregates: &[pb::Aggr]| pb::SeriesRequest {
        min_time: OLD_DAY.0,
        max_time: OLD_DAY.1,
        max_resolution_window: window,
        aggregates: aggregates.iter().map(|a| (*a).into()).collect(),
        ..ask(up())
    };
    let chunks = async |request| {
        let came = s.series(request).await.expect("series");
        came.series.into_iter().flat_map(|s| s.chunks).collect::<Vec<_>>()
    };
    let raw = chunks(of(0, &[pb::Aggr::Raw])).await;
    assert!(!raw.is_empty() && raw.iter().all(|c| c.raw.is_some() && c.count.is_none()));
    let raw_bytes: usize = raw.iter().map(|c| c.raw.as_ref().map_or(0, |c| c.data.len())).sum();
    for window in [300_000, 3_600_000] {
        let coarse = chunks(of(window, &[pb::Aggr::Count, pb::Aggr::Sum])).await;
        assert!(coarse.iter().all(|c| c.raw.is_none() && c.count.is_some() && c.sum.is_some()));
        assert!(
            coarse.iter().all(|c| c.min.is_none() && c.max.is_none() && c.counter.is_none()),
            "not asked for"
        );
        let bytes: usize = coarse.iter().map(|c| c.sum.as_ref().map_or(0, |c| c.data.len())).sum();
        assert!(bytes < raw_bytes, "{bytes} of {raw_bytes}");
    }
    assert_eq!(chunks(of(299_999, &[pb::Aggr::Count])).await, raw, "finer than any downsampled block");
    let hash = |c: &pb::Chunk| c.hash == 0 || c.hash == xxhash_rust::xxh64::xxh64(&c.data, 0);
    assert!(raw.iter().all(|c| c.raw.as_ref().is_some_and(hash)));
    // What was not downsampled yet fills the gap at the end.
    let tail = pb::SeriesRequest { max_time: ALL.1, ..of(3_600_000, &[pb::Aggr::Max]) };
    let tail = chunks(tail).await;
    assert!(tail.iter().any(|c| c.raw.is_some()) && tail.iter().any(|c| c.max.is_some()));
}

#[tokio::test]
async fn rule_7_shards() {
    let s = served().await;
    let any = || vec![matcher(Type::Re, "__name__", "demo_.+")];
    let whole = s.series(pb::SeriesRequest { skip_chunks: true, ..ask(any()) }).await.expect("series").series;
    for (by, labels) in
        [(true, vec!["instance".to_owned()]), (false, vec!["mode".to_owned()]), (false, vec![])]
    {
        let mut all = Vec::new();
        for index in 0..3 {
            let info = pb::ShardInfo { shard_index: index, total_shards: 3, by, labels: labels.clone() };
            let request = pb::SeriesRequest {
                skip_chunks: true,
                shard_info: Some(info),
                without_replica_labels: vec!["replica".into()],
                ..ask(any())
            };
            let got = s.series(request).await.expect("series").series;
            let shard = SeriesShard { index: index as u64, count: 3, by, labels: labels.clone() };
            assert!(got.iter().all(|s| shard.holds(&labels_from_pb(&s.labels))));
            let pairs = shown(&got).chunks(2).all(|p| p.len() == 2 && p[0] == p[1]);
            assert!(pairs, "replicas are in one shard");
            all.extend(got);
        }
        assert_eq!(all.len(), whole.len(), "each series once");
    }
    let wrong = pb::ShardInfo { shard_index: 3, total_shards: 3, by: true, labels: vec![] };
    let refused = s.series(pb::SeriesRequest { shard_info: Some(wrong), ..ask(any()) }).await;
    assert_eq!(refused.err().expect("refused").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn rule_9_words() {
    let s = served().await;
    let names = s.names(pb::LabelNamesRequest::default()).await;
    for name in ["__name__", "instance", "mode", "cluster", "replica"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    let of_up = s.names(pb::LabelNamesRequest { matchers: up(), ..Default::default() }).await;
    assert!(of_up.iter().any(|n| n == "replica") && !of_up.iter().any(|n| n == "mode"), "{of_up:?}");
    let bare = pb::LabelNamesRequest { without_replica_labels: vec!["replica".into()], ..Default::default() };
    assert!(!s.names(bare).await.iter().any(|n| n == "replica"));
    assert_eq!(s.names(pb::LabelNamesRequest { limit: 2, ..Default::default() }).await, names[..2]);
    let empty = s.values(pb::LabelValuesRequest::default()).await.expect_err("refused");
    assert_eq!(empty.code(), Code::InvalidArgument);
    let of = |label: &str| pb::LabelValuesRequest { label: label.to_owned(), ..Default::default() };
    assert_eq!(s.values(of("replica")).await.expect("values"), ["a", "b"]);
    assert_eq!(s.values(of("cluster")).await.expect("values"), ["eu1"]);
    let of_a = pb::LabelValuesRequest { matchers: vec![matcher(Type::Eq, "replica", "a")], ..of("instance") };
    assert_eq!(s.values(of_a).await.expect("values").len(), 4);
    let none = pb::LabelValuesRequest { matchers: vec![matcher(Type::Eq, "replica", "z")], ..of("instance") };
    assert!(s.values(none).await.expect("values").is_empty());
}

#[tokio::test]
async fn info_says_whose_data_since_when() {
    let s = served().await;
    let info = InfoClient::new(s.channel.clone()).info(InfoRequest {}).await.expect("info").into_inner();
    let store = info.store.expect("a store");
    assert!(store.supports_sharding && store.supports_without_replica_labels);
    assert!(store.min_time <= ALL.0 && store.max_time >= ALL.1 - 60_000);
    let sets: Vec<String> = info.label_sets.iter().map(|s| labels_from_pb(&s.labels).to_string()).collect();
    for replica in ["a", "b"] {
        let wanted = format!("{{cluster=\"eu1\", replica=\"{replica}\"}}");
        assert!(sets.contains(&wanted), "{wanted} in {sets:?}");
    }
    assert_eq!(store.tsdb_infos.len(), sets.len());
    assert!(info.rules.is_some() && info.targets.is_some() && info.metric_metadata.is_some());
    assert!(info.exemplars.is_some() && info.status.is_some() && info.query.is_some());
}

/// What came of a query: points by labels, warnings, and whether costs came last.
#[derive(Default)]
struct Queried {
    series: Vec<(String, Vec<(i64, f64)>)>,
    batches: usize,
    warnings: usize,
    samples_total: i64,
}

impl Queried {
    fn add(&mut self, s: prometheus::TimeSeries) {
        let labels = s.labels.iter().map(|l| (l.name.as_str(), l.value.as_str()));
        let points = s.samples.iter().map(|p| (p.timestamp, p.value)).collect();
        self.series.push((Labels::from_pairs(labels).to_string(), points));
    }
}

async fn range(s: &Served, request: pb::QueryRangeRequest) -> Result<Queried, tonic::Status> {
    use pb::query_range_response::Result as Part;
    let mut client = QueryClient::new(s.channel.clone()).max_decoding_message_size(usize::MAX);
    let mut stream = client.query_range(request).await?.into_inner();
    let mut got = Queried::default();
    while let Some(message) = stream.message().await? {
        match message.result.expect("a part") {
            Part::Warnings(_) => got.warnings += 1,
            Part::Timeseries(one) => got.add(one),
            Part::TimeseriesBatch(batch) => {
                got.batches += 1;
                batch.series.into_iter().for_each(|one| got.add(one));
            }
            Part::Stats(stats) => got.samples_total = stats.samples_total,
        }
    }
    Ok(got)
}

/// 2.5: what the Query service answers is what the HTTP API answers.
#[tokio::test]
async fn queries_over_grpc_equal_those_over_http() {
    let s = served().await;
    let start = OLD_DAY.0 / 1000;
    let ask = |query: &str| pb::QueryRangeRequest {
        query: query.to_owned(),
        start_time_seconds: start,
        end_time_seconds: start + 3600,
        interval_seconds: 60,
        enable_dedup: true,
        replica_labels: vec!["replica".to_owned()],
        ..pb::QueryRangeRequest::default()
    };
    let (from, to) = (start.to_string(), (start + 3600).to_string());
    for query in ["demo_up", "sum by (instance) (rate(demo_cpu_seconds_total[5m]))", "1 + 1"] {
        let got = range(&s, ask(query)).await.expect("an answer");
        let params = [("query", query), ("start", &from), ("end", &to), ("step", "60")];
        let data = s._node.api().data("/api/v1/query_range", &params).await.expect("an answer");
        let all = data["result"].as_array().filter(|r| !r.is_empty()).expect("series");
        assert_eq!((got.series.len(), got.warnings), (all.len(), 0), "{query}");
        for (one, (labels, points)) in all.iter().zip(&got.series) {
            let pairs = one["metric"].as_object().expect("labels").iter();
            let want = Labels::from_pairs(pairs.map(|(n, v)| (n.as_str(), v.as_str().expect("text"))));
            assert_eq!(*labels, want.to_string());
            let value =
                |p: &serde_json::Value| p[1].as_str().and_then(|v| v.parse::<f64>().ok()).expect("a number");
            let times = |p: &serde_json::Value| p[0].as_i64().expect("a time") * 1000;
            let want: Vec<(i64, f64)> =
                one["values"].as_array().expect("points").iter().map(|p| (times(p), value(p))).collect();
            assert_eq!(*points, want, "{query} {labels}");
        }
    }
    let folded = range(&s, ask("demo_up")).await.expect("an answer");
    assert!(folded.series.len() == 4 && folded.samples_total > 0 && folded.batches == 0);
    let apart = pb::QueryRangeRequest { enable_dedup: false, response_batch_size: 3, ..ask("demo_up") };
    let apart = range(&s, apart).await.expect("an answer");
    assert_eq!((apart.series.len(), apart.batches), (8, 3));
    let nobody = pb::label_matcher::Type::Eq;
    let nowhere =
        vec![pb::StoreMatchers { label_matchers: vec![matcher(nobody, "__address__", "nobody:1")] }];
    let alone = pb::QueryRangeRequest { store_matchers: nowhere, ..ask("demo_up") };
    assert!(range(&s, alone).await.is_ok());
    for wrong in [
        pb::QueryRangeRequest { interval_seconds: 0, ..ask("demo_up") },
        pb::QueryRangeRequest { end_time_seconds: start - 1, ..ask("demo_up") },
        pb::QueryRangeRequest { start_time_seconds: i64::MIN, ..ask("demo_up") },
        pb::QueryRangeRequest { interval_seconds: 1, end_time_seconds: start + 20_000, ..ask("demo_up") },
        ask("sum("),
    ] {
        let refused = range(&s, wrong).await.err().expect("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let mut client = QueryClient::new(s.channel.clone());
    let instant = pb::QueryRequest {
        query: "count(demo_up)".into(),
        time_seconds: start + 600,
        enable_dedup: true,
        ..Default::default()
    };
    let mut stream = client.query(instant).await.expect("an answer").into_inner();
    let first = stream.message().await.expect("a message").and_then(|m| m.result);
    let Some(pb::query_response::Result::Timeseries(one)) = first else { panic!("{first:?}") };
    assert_eq!(one.samples, [prometheus::Sample { value: 4.0, timestamp: (start + 600) * 1000 }]);
    let last = stream.message().await.expect("a message").and_then(|m| m.result);
    assert!(matches!(last, Some(pb::query_response::Result::Stats(_))), "{last:?}");
}

/// The recorded answers of Thanos through a second node that has no bucket and no cluster with the first.
#[tokio::test]
async fn the_same_answers_through_the_store_api_alone() {
    let root = scratch();
    let first = on_thanos_bucket("first", root.path()).start();
    first.ready().await;
    let config = root.path().join("koios.yml");
    let endpoint = format!("--endpoint=127.0.0.1:{}", first.spec.ports[1]);
    let second = NodeSpec::new("second", root.path())
        .config(&config)
        .arg("--cluster.name=other")
        .arg("--query.replica-label=replica")
        .arg(endpoint)
        .start();
    second.ready().await;
    until("the endpoint is known", PATIENCE, || async {
        let data = second.api().data("/api/v1/label/replica/values", &[]).await?;
        if data.as_array().is_some_and(|v| v.len() == 2) { Ok(()) } else { Err(data.to_string()) }
    })
    .await;
    let cases = cases(&fixture("thanos-bucket/expected.json.gz"));
    let wrong = differing(&second.api(), &cases).await;
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn an_endpoint_that_dies_is_named() {
    let root = scratch();
    let mut first = on_thanos_bucket("first", root.path()).start();
    first.ready().await;
    let second = NodeSpec::new("second", root.path())
        .config(&root.path().join("koios.yml"))
        .arg("--cluster.name=other")
        .arg(format!("--endpoint=127.0.0.1:{}", first.spec.ports[1]))
        .start();
    second.ready().await;
    let query = [("query", "count(demo_up)"), ("time", "1792180800")];
    until("the endpoint answers", PATIENCE, || async {
        let data = second.api().data("/api/v1/query", &query).await?;
        if data["result"][0]["value"][1] == "4" { Ok(()) } else { Err(data.to_string()) }
    })
    .await;
    let stores = second.api().data("/api/v1/stores", &[]).await.expect("stores");
    assert!(
        stores["query"][0]["lastError"].is_null() && stores["query"][0]["labelSets"].is_array(),
        "{stores}"
    );
    first.kill();
    let (status, body) = second.api().get("/api/v1/query", &query).await.expect("an answer");
    assert!(status == 503 && body.contains("endpoint 127.0.0.1:"), "{status} {body}");
    let range = [("query", "demo_up"), ("start", "1792180800"), ("end", "1792184400"), ("step", "60")];
    let (status, body) = second.api().get("/api/v1/query_range", &range).await.expect("an answer");
    assert!(status == 200 && body.contains("\"warnings\"") && body.contains("endpoint 127.0.0.1:"), "{body}");
    first = first.spec.start();
    first.ready().await;
    until("it is back", PATIENCE, || async { second.api().data("/api/v1/query", &query).await.map(drop) })
        .await;
}
