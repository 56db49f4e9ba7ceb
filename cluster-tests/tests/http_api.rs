//! The HTTP API as clients use it: parameters, number formats, errors and their statuses, byte for byte.
//!
//! What Prometheus has not changed since 2.42 is asked of Debian's Prometheus too, and the bodies must be equal.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, peers, scratch, until};
use reqwest::Method;
use serde_json::{Value, json};

const SERIES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(20);
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A node that scrapes one target.
struct Site {
    node: Node,
    api: Api,
    config: PathBuf,
    target: Exporter,
    _root: tempfile::TempDir,
}

impl Site {
    async fn start(behaviour: Behaviour, flags: &[&str]) -> Self {
        let root = scratch();
        let target = Exporter::start("t", behaviour).await;
        let config = root.path().join("prometheus.yml");
        std::fs::write(&config, Self::job(&target)).expect("configuration");
        let mut spec = NodeSpec::new("solo", root.path()).config(&config);
        for flag in flags {
            spec = spec.arg(*flag);
        }
        let node = spec.start();
        node.ready().await;
        let api = node.api();
        Self { node, api, config, target, _root: root }
    }

    fn job(target: &Exporter) -> String {
        format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\nscrape_configs:\n  - job_name: probe\n    static_configs: [{{targets: ['{}']}}]\n",
            target.addr
        )
    }

    /// With samples of the target.
    async fn scraped(behaviour: Behaviour, series: usize) -> Self {
        let site = Self::start(behaviour, &[]).await;
        until("samples", PATIENCE, || async {
            let found = site.api.vector("{job=\"probe\",n!=\"\"}", now()).await?;
            if found.len() == series { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        site
    }

    /// Any request; `path` may carry a query.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> reqwest::Response {
        let url = format!("http://{}{path}", self.node.spec.http());
        let mut request = reqwest::Client::new().request(method, url).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    async fn get(&self, path: &str, params: &[(&str, &str)]) -> (u16, String) {
        self.api.get(path, params).await.expect("an answer")
    }
}

/// Endpoint, parameters, status, body.
type Exact = (&'static str, &'static [(&'static str, &'static str)], u16, &'static str);

/// Constants, formats and errors whose whole body is known.
const EXACT: &[Exact] = &[
    (
        "query",
        &[("query", "1+1"), ("time", "4")],
        200,
        r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#,
    ),
    (
        "query",
        &[("query", "\"x<y\""), ("time", "4.5")],
        200,
        r#"{"status":"success","data":{"resultType":"string","result":[4.5,"x\u003cy"]}}"#,
    ),
    (
        "query",
        &[("query", "1e21"), ("time", "1435781451.781")],
        200,
        r#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"1000000000000000000000"]}}"#,
    ),
    (
        "query",
        &[("query", "1e-7"), ("time", "-1.5")],
        200,
        r#"{"status":"success","data":{"resultType":"scalar","result":[-1.5,"0.0000001"]}}"#,
    ),
    (
        "query",
        &[("query", "-Inf"), ("time", "1970-01-01T00:00:04Z")],
        200,
        r#"{"status":"success","data":{"resultType":"scalar","result":[4,"-Inf"]}}"#,
    ),
    (
        "query",
        &[("query", "0/0"), ("time", "1e3")],
        200,
        r#"{"status":"success","data":{"resultType":"scalar","result":[1000,"NaN"]}}"#,
    ),
    (
        "query",
        &[("query", "vector(1e-7)"), ("time", "1.5")],
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.500,"1e-07"]}]}}"#,
    ),
    (
        "query",
        &[("query", "vector(1e21)"), ("time", "1435781451.01")],
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.010,"1e+21"]}]}}"#,
    ),
    (
        "query",
        &[("query", "vector(123456789012345678901)"), ("time", "-0.001")],
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[-0.001,"123456789012345680000"]}]}}"#,
    ),
    (
        "query",
        &[("query", "vector(-0)"), ("time", "4")],
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[4,"-0"]}]}}"#,
    ),
    (
        "query",
        &[("query", "vector(1/0)"), ("time", "4")],
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[4,"+Inf"]}]}}"#,
    ),
    (
        "query",
        &[("query", "vector(5e-324)"), ("time", "4")],
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[4,"5e-324"]}]}}"#,
    ),
    (
        "query",
        &[("query", "nothing[5m]"), ("time", "4")],
        200,
        r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
    ),
    (
        "query_range",
        &[("query", "time()/3"), ("start", "0"), ("end", "1"), ("step", "300ms")],
        200,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[0,"0"],[0.300,"0.09999999999999999"],[0.600,"0.19999999999999998"],[0.900,"0.3"]]}]}}"#,
    ),
    (
        "query",
        &[],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:1: parse error: no expression found in input"}"#,
    ),
    (
        "query",
        &[("query", "up{")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:4: parse error: unexpected end of input inside braces"}"#,
    ),
    (
        "query",
        &[("query", "sum(")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"}"#,
    ),
    (
        "query",
        &[("query", "{a=\"\"}")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:1: parse error: vector selector must contain at least one non-empty matcher"}"#,
    ),
    (
        "query",
        &[("query", "rate(up)")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:6: parse error: expected type range vector in call to function \"rate\", got instant vector"}"#,
    ),
    (
        "query",
        &[("query", "nosuch(up)")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:1: parse error: unknown function with name \"nosuch\""}"#,
    ),
    (
        "query",
        &[("query", "1 == 1")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:3: parse error: comparisons between scalars must use BOOL modifier"}"#,
    ),
    (
        "query",
        &[("query", "up"), ("timeout", "x")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"timeout\": cannot parse \"x\" to a valid duration"}"#,
    ),
    ("query", &[("query", "label_replace(vector(1), \"a\", \"$1\", \"b\", \"(\")")], 422, ""),
    (
        "query_range",
        &[("query", "up")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"start\": cannot parse \"\" to a valid timestamp"}"#,
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("step", "1")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"end\": cannot parse \"\" to a valid timestamp"}"#,
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "1"), ("end", "0"), ("step", "1")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"end\": end timestamp must not be before start time"}"#,
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("end", "1"), ("step", "x")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"step\": cannot parse \"x\" to a valid duration"}"#,
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("end", "1"), ("step", "-1")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"}"#,
    ),
    (
        "query_range",
        &[("query", "up[1m]"), ("start", "0"), ("end", "1"), ("step", "1")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"}"#,
    ),
    (
        "query_range",
        &[("query", "up"), ("start", "0"), ("end", "11001"), ("step", "1")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"}"#,
    ),
    (
        "series",
        &[],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"no match[] parameter provided"}"#,
    ),
    (
        "series",
        &[("match[]", "{a=~\".*\"}")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"}"#,
    ),
    (
        "series",
        &[("match[]", "up{")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"match[]\": 1:4: parse error: unexpected end of input inside braces"}"#,
    ),
    (
        "labels",
        &[("match[]", "{}")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"match[] must contain at least one non-empty matcher"}"#,
    ),
    (
        "label/job/values",
        &[("match[]", "{")],
        400,
        r#"{"status":"error","errorType":"bad_data","error":"1:2: parse error: unexpected end of input inside braces"}"#,
    ),
    (
        "format_query",
        &[("query", "sum(rate(up[5m]))by(job)")],
        200,
        r#"{"status":"success","data":"sum by (job) (rate(up[5m]))"}"#,
    ),
    ("nosuch", &[], 404, "404 page not found\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_errors_are_prometheus_byte_for_byte() {
    let site = Site::start(Behaviour::Series(1), &[]).await;
    for (path, params, status, body) in EXACT {
        let got = site.get(&format!("/api/v1/{path}"), params).await;
        assert_eq!(got.0, *status, "{path} {params:?}: {}", got.1);
        assert!(body.is_empty() || got.1 == *body, "{path} {params:?}:\n{}\n{body}", got.1);
    }
    // Exactly 11,000 steps are allowed.
    let most = [("query", "vector(1)"), ("start", "0"), ("end", "11000"), ("step", "1")];
    let (status, body) = site.get("/api/v1/query_range", &most).await;
    let json: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 200);
    assert_eq!(json["data"]["result"][0]["values"].as_array().map(Vec::len), Some(11_001));
    let slow = [("query", "sum_over_time(vector(1)[45d:1s])"), ("time", "1e8"), ("timeout", "50ms")];
    let (status, body) = site.get("/api/v1/query", &slow).await;
    let json: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &json["errorType"]), (503, &json!("timeout")), "{body}");
    // The node is as good as before.
    assert_eq!(site.get("/api/v1/query", EXACT[0].1).await, (200, EXACT[0].3.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_prometheus_says_the_same() {
    if !peer("prometheus") {
        return;
    }
    let root = scratch();
    let empty = root.path().join("empty.yml");
    std::fs::write(&empty, "global: {}\n").expect("configuration");
    let prometheus = peers::prometheus(&root.path().join("data"), &empty);
    let theirs = Api::new(([127, 0, 0, 1], prometheus.port).into());
    let site = Site::start(Behaviour::Series(1), &[]).await;
    until("prometheus is ready", PATIENCE, || theirs.ready()).await;
    for (path, params, ..) in EXACT {
        let path = format!("/api/v1/{path}");
        let (ours, peers) =
            (site.get(&path, params).await, theirs.get(&path, params).await.expect("an answer"));
        assert_eq!(ours, peers, "{path} {params:?}");
    }
    let (ours, peers) =
        (site.get("/-/reload", &[]).await, theirs.get("/-/reload", &[]).await.expect("an answer"));
    assert_eq!(ours, peers, "GET /-/reload");
    let (ours, peers) = (site.api.post_form("/-/reload", "").await, theirs.post_form("/-/reload", "").await);
    assert_eq!(ours, peers, "POST /-/reload");
}

#[tokio::test(flavor = "multi_thread")]
async fn url_and_body_are_one_set_of_parameters() {
    let site = Site::scraped(Behaviour::Series(SERIES), SERIES).await;
    // The moment of a sample that is there: nothing comes to it any more.
    let newest = site.api.number("max(timestamp(probe_value))", now()).await.expect("one number");
    let t = format!("{newest:.3}");
    let q = "probe_value%7Bn%3D~%22%5B0-4%5D%22%7D";
    let url = format!("/api/v1/query?query={q}&time={t}");
    let get = site.ask(Method::GET, &url, &[], "").await.text().await.expect("text");
    assert!(get.matches("\"metric\"").count() == 5, "{get}");
    for (path, body) in [
        ("/api/v1/query".to_owned(), format!("query={q}&time={t}")),
        (format!("/api/v1/query?time={t}"), format!("query={q}")),
        (format!("/api/v1/query?query={q}"), format!("time={t}")),
        (url.clone(), String::new()),
        // The body wins, an empty value is none, unknown keys are nothing.
        (
            "/api/v1/query?query=up&time=1&timeout=&x=y".to_owned(),
            format!("query={q}&time={t}&timeout=&dedup=1"),
        ),
    ] {
        let post = site.ask(Method::POST, &path, &[FORM], &body).await;
        assert_eq!(post.status(), 200, "{path} {body}");
        assert_eq!(post.text().await.expect("text"), get, "{path} {body}");
    }
    let range = format!("query={q}&start={t}&end={t}&step=1");
    let get = site.ask(Method::GET, &format!("/api/v1/query_range?{range}"), &[], "").await.text().await;
    let post = site.ask(Method::POST, "/api/v1/query_range", &[FORM], &range).await.text().await;
    assert_eq!(get.expect("text"), post.expect("text"));
    // Selectors of both places count.
    let union = site
        .ask(
            Method::POST,
            "/api/v1/series?match%5B%5D=probe_value%7Bn%3D%221%22%7D",
            &[FORM],
            "match%5B%5D=probe_value%7Bn%3D%222%22%7D",
        )
        .await;
    let union: Value = serde_json::from_str(&union.text().await.expect("text")).expect("JSON");
    let names: Vec<&str> =
        union["data"].as_array().expect("a list").iter().filter_map(|s| s["n"].as_str()).collect();
    assert_eq!(names, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_on_request() {
    let site = Site::start(Behaviour::Series(1), &[]).await;
    let mut stream = std::net::TcpStream::connect(site.node.spec.http()).expect("connected");
    let request =
        "GET /api/v1/labels HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("received");
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    for header in ["\r\ncontent-encoding: gzip", "\r\nvary: accept-encoding"] {
        assert!(head.contains(header), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_cut_and_say_so() {
    let site = Site::scraped(Behaviour::Series(SERIES), SERIES).await;
    let t = format!("{:.3}", now());
    let time = ("time", t.as_str());
    let (start, end, step) = (("start", t.as_str()), ("end", t.as_str()), ("step", "1"));
    let selector = ("match[]", "probe_value");
    let asked = [
        ("/api/v1/query", vec![("query", "probe_value"), time], SERIES),
        ("/api/v1/query_range", vec![("query", "probe_value"), start, end, step], SERIES),
        ("/api/v1/series", vec![selector], SERIES),
        ("/api/v1/label/n/values", vec![selector], SERIES),
        ("/api/v1/labels", vec![selector], 5),
    ];
    for (path, params, all) in asked {
        for (limit, expected, cut) in [("3", 3, true), ("0", all, false), ("1000", all, false)] {
            let mut params = params.clone();
            params.push(("limit", limit));
            let (status, body) = site.get(path, &params).await;
            let json: Value = serde_json::from_str(&body).expect("JSON");
            let list = if json["data"].is_array() { &json["data"] } else { &json["data"]["result"] };
            assert_eq!(
                (status, list.as_array().map(Vec::len)),
                (200, Some(expected)),
                "{path} {limit}: {body}"
            );
            let warning = cut.then(|| json!(["results truncated due to limit"]));
            assert_eq!(json.get("warnings"), warning.as_ref(), "{path} {limit}");
        }
        for bad in ["-1", "x"] {
            let mut params = params.clone();
            params.push(("limit", bad));
            let (status, body) = site.get(path, &params).await;
            assert!(
                status == 400 && body.contains("invalid parameter \\\"limit\\\""),
                "{path} {bad}: {body}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_may_be_any_text() {
    let exposed = "{\"http.requests\",\"status code\"=\"200\",n=\"1\"} 7\n{\"http.requests\",\"status code\"=\"500\",n=\"2\"} 8\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=1.0.0; escaping=allow-utf-8\r\n";
    let raw = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{exposed}", exposed.len());
    let site = Site::scraped(Behaviour::Raw(raw.into_bytes()), 2).await;
    for selector in [
        "{\"http.requests\"}",
        "{\"http.requests\",\"status code\"=~\"200|500\"}",
        "{__name__=\"http.requests\"}",
    ] {
        let found = site.api.vector(selector, now()).await.expect("complete");
        assert_eq!(found.values().collect::<Vec<_>>(), ["7", "8"], "{selector}: {found:?}");
        let series = site.api.data("/api/v1/series", &[("match[]", selector)]).await.expect("complete");
        assert_eq!(series.as_array().map(Vec::len), Some(2), "{selector}: {series}");
        assert_eq!(series[0]["status code"], "200");
    }
    for path in ["/api/v1/label/U__status_20_code/values", "/api/v1/label/status%20code/values"] {
        let values = site.api.data(path, &[]).await.expect("complete");
        assert_eq!(values, json!(["200", "500"]), "{path}");
    }
    let names = site.api.data("/api/v1/label/__name__/values", &[]).await.expect("complete");
    assert!(names.as_array().is_some_and(|n| n.contains(&json!("http.requests"))), "{names}");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_and_grafana_feel_at_home() {
    let site = Site::start(Behaviour::Series(1), &[]).await;
    let origin = [("Origin", "http://grafana.example")];
    for path in ["/api/v1/query", "/api/v1/anything/else"] {
        let preflight = site.ask(Method::OPTIONS, path, &origin, "").await;
        assert_eq!(preflight.status(), 204, "{path}");
        let headers = preflight.headers();
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["access-control-allow-methods"], "GET, POST, OPTIONS");
        assert_eq!(headers["access-control-allow-headers"], "Accept, Authorization, Content-Type, Origin");
    }
    let with = site.ask(Method::GET, "/api/v1/query?query=1", &origin, "").await;
    assert_eq!(with.headers()["access-control-allow-origin"], "*");
    let without = site.ask(Method::GET, "/api/v1/query?query=1", &[], "").await;
    assert!(!without.headers().contains_key("access-control-allow-origin"));
    assert_eq!(without.headers()["content-type"], "application/json");
    assert_eq!(without.headers()["x-served-by"], "solo");
    for answer in [with, without] {
        let vary: Vec<&str> =
            answer.headers().get_all("vary").iter().filter_map(|v| v.to_str().ok()).collect();
        assert!(vary.join(",").contains("Origin"), "{vary:?}");
    }
    for (method, path) in [(Method::DELETE, "/api/v1/query"), (Method::POST, "/api/v1/status/buildinfo")] {
        assert_eq!(site.ask(method, path, &[], "").await.status(), 405, "{path}");
    }
    assert_eq!(site.ask(Method::GET, "/nosuch", &[], "").await.status(), 404);
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(site.ask(Method::HEAD, path, &[], "").await.status(), 200, "{path}");
    }
    let build = site.api.data("/api/v1/status/buildinfo", &[]).await.expect("complete");
    let build = build.as_object().expect("an object");
    assert!(build.values().all(Value::is_string), "{build:?}");
    assert!(!build.contains_key("features"), "Grafana would take it for another product");
    for key in ["version", "revision", "branch", "buildUser", "buildDate", "goVersion"] {
        assert!(build.contains_key(key), "{key}");
    }
    assert!(build["version"].as_str().is_some_and(|v| v.starts_with("3.")), "{build:?}");
}

async fn runtime(api: &Api) -> (bool, String) {
    let info = api.data("/api/v1/status/runtimeinfo", &[]).await.expect("complete");
    let time = info["lastConfigTime"].as_str().expect("a time").to_owned();
    (info["reloadConfigSuccess"].as_bool().expect("a boolean"), time)
}

async fn jobs(api: &Api) -> Result<Vec<String>, String> {
    let data = api.data("/api/v1/targets", &[]).await?;
    let active = data["activeTargets"].as_array().ok_or("no targets")?;
    let mut up: Vec<String> = active
        .iter()
        .filter(|t| t["health"] == "up")
        .map(|t| t["scrapePool"].as_str().unwrap_or("").to_owned())
        .collect();
    up.sort();
    Ok(up)
}

async fn jobs_become(api: &Api, wanted: &[&str]) {
    until(&format!("jobs {wanted:?}"), PATIENCE, || async {
        let found = jobs(api).await?;
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_takes_the_good_and_leaves_the_broken() {
    let site = Site::start(Behaviour::Series(1), &["--web.enable-lifecycle"]).await;
    jobs_become(&site.api, &["probe"]).await;
    assert_eq!(site.get("/-/reload", &[]).await.0, 405);
    let (ok, first) = runtime(&site.api).await;
    assert!(ok);

    let good = Site::job(&site.target);
    let more =
        format!("{good}  - job_name: second\n    static_configs: [{{targets: ['{}']}}]\n", site.target.addr);
    std::fs::write(&site.config, &more).expect("configuration");
    assert_eq!(site.api.post_form("/-/reload", "").await, Ok((200, String::new())));
    jobs_become(&site.api, &["probe", "second"]).await;
    let (ok, second) = runtime(&site.api).await;
    assert!(ok && second > first, "{first} {second}");
    let shown = site.api.data("/api/v1/status/config", &[]).await.expect("complete");
    assert!(shown["yaml"].as_str().is_some_and(|y| y.contains("second")), "{shown}");

    let broken = more.replace("scrape_timeout: 500ms", "scrape_timeout: 9s");
    std::fs::write(&site.config, &broken).expect("configuration");
    let (status, why) = site.api.post_form("/-/reload", "").await.expect("an answer");
    assert_eq!(status, 500);
    assert!(why.starts_with("failed to reload config: "), "{why}");
    let column = broken.lines().next().and_then(|l| l.find("9s")).expect("the fault") + 1;
    assert!(
        why.contains(&format!("prometheus.yml:1:{column}")),
        "names file, line and column {column}: {why}"
    );
    let (ok, third) = runtime(&site.api).await;
    assert!(!ok && third == second, "the old one stays in force");
    let scrapes = site.target.scrapes();
    until("scraping goes on", PATIENCE, || async {
        let n = site.target.scrapes();
        if n > scrapes + 4 { Ok(()) } else { Err(format!("{n}")) }
    })
    .await;
    jobs_become(&site.api, &["probe", "second"]).await;

    std::fs::write(&site.config, &good).expect("configuration");
    assert_eq!(site.ask(Method::PUT, "/-/reload", &[], "").await.status(), 200);
    jobs_become(&site.api, &["probe"]).await;
    assert!(runtime(&site.api).await.0);
}
