//! Servers that misbehave. Each costs its own scrape, says why in words fit for /targets, and in bounded time
//! and memory; a good target scraped meanwhile is not harmed.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use koios_config::ScrapeConfig;
use koios_model::{Clock, Labels, SystemClock};
use koios_scrape::parse::Format;
use koios_scrape::{
    BodyView, Fetched, Fetcher, Health, IngestSettings, ScrapeLoopState, ScrapeReport, TargetStatus,
    populate_labels,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn job(lines: &str) -> ScrapeConfig {
    let body: String = lines.lines().map(|l| format!("  {l}\n")).collect();
    let text = format!("scrape_configs:\n- job_name: j\n{body}");
    koios_config::parse(&text, "t.yml").unwrap_or_else(|e| panic!("{e}")).scrape_configs.remove(0)
}

/// Reads the request head and returns it.
async fn head(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut part = [0; 1024];
    while !got.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => got.extend_from_slice(&part[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// Serves every connection with `answer`; returns the address.
async fn serve<F, Fut>(answer: F) -> String
where
    F: Fn(TcpStream, String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let request = head(&mut stream).await;
                answer(stream, request).await;
            });
        }
    });
    address
}

async fn serve_bytes(bytes: Vec<u8>) -> String {
    let bytes = Arc::new(bytes);
    serve(move |mut stream, _| {
        let bytes = bytes.clone();
        async move {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

fn response(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out =
        format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())
            .into_bytes();
    out.extend_from_slice(body);
    out
}

const TEXT: &str = "Content-Type: text/plain; version=0.0.4\r\n";

async fn fetch(job: &ScrapeConfig, address: &str) -> Fetched {
    let clock: Arc<dyn Clock> = SystemClock::shared();
    let labels = Labels::from_pairs([("__address__", address)]);
    let target = populate_labels(&labels, &Labels::empty(), job).unwrap().unwrap();
    Fetcher::new(job, clock).fetch(&target, Vec::new()).await
}

/// Fetches and ingests, as an actor would.
async fn scrape(job: &ScrapeConfig, address: &str) -> ScrapeReport {
    let fetched = fetch(job, address).await;
    let labels = Labels::from_pairs([("__address__", address)]);
    let target = populate_labels(&labels, &Labels::empty(), job).unwrap().unwrap();
    let mut status = TargetStatus::new(&target, "");
    let mut state = ScrapeLoopState::new(target.labels, IngestSettings::of(job));
    let mut out = Vec::new();
    let outcome = match &fetched.body {
        Ok((bytes, format)) => Ok(BodyView { bytes, format: *format }),
        Err(failed) => Err(failed.clone()),
    };
    let report = state.ingest(1000, outcome, fetched.seconds, &mut out);
    status.update(1000, fetched.seconds, &report);
    assert_eq!(
        (status.health == Health::Up, status.last_error.as_str()),
        (report.up, report.error.as_deref().unwrap_or(""))
    );
    // Whatever happened, `up` says so, and a failed scrape stores report series only.
    let up = out.iter().find(|o| state.labels_of(o.series).metric_name() == "up").unwrap();
    assert_eq!(up.v, f64::from(u8::from(report.up)));
    if !report.up {
        assert_eq!(out.len(), 5);
    }
    report
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_good_target_and_its_request() {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let seen_by_server = seen.clone();
    let address = serve(move |mut stream, request| {
        *seen_by_server.lock().unwrap() = request;
        async move {
            let body = gzip(b"a 1\nb 2\n");
            let _ = stream.write_all(&response(&format!("{TEXT}Content-Encoding: gzip\r\n"), &body)).await;
        }
    })
    .await;
    let job = job(
        "scrape_interval: 5s\nscrape_timeout: 1500ms\nparams: {x: ['1 2']}\nauthorization: {credentials: tok}\nhttp_headers: {X-Extra: {values: [v]}}",
    );
    let report = scrape(&job, &address).await;
    assert_eq!((report.error, report.scraped, report.body_size), (None, 2, 8));
    let request = seen.lock().unwrap().to_ascii_lowercase();
    for line in [
        "get /metrics?x=1+2 http/1.1\r\n",
        "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,",
        "accept-encoding: gzip\r\n",
        "x-prometheus-scrape-timeout-seconds: 1.5\r\n",
        "user-agent: koios/",
        "authorization: bearer tok\r\n",
        "x-extra: v\r\n",
    ] {
        assert!(request.contains(line), "{line:?} not in {request}");
    }
}

/// Name, answer, lines of the job, start of the error.
type Case = (&'static str, Vec<u8>, &'static str, &'static str);

fn wrong_answers() -> Vec<Case> {
    vec![
        (
            "status",
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "",
            "server returned HTTP status 503 Service Unavailable",
        ),
        (
            "html",
            response("Content-Type: text/html\r\n", b"<html>"),
            "",
            "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target",
        ),
        (
            "no type",
            response("", b"a 1\n"),
            "",
            "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target",
        ),
        (
            "html as text",
            response("Content-Type: text/html\r\n", b"<html>"),
            "fallback_scrape_protocol: PrometheusText0.0.4",
            "line 1, column 1: expected a metric name, got \"<html>\"",
        ),
        (
            "malformed",
            response(TEXT, b"ok 1\nbad{ 1\n"),
            "",
            "line 2, column 6: expected a label name or `}`, got \"1\"",
        ),
        ("too long", response(TEXT, b"a 1\nb 1\nc 1\n"), "body_size_limit: 12B", "body size limit exceeded"),
        (
            "cut off",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\na 1\n".to_vec(),
            "",
            "reading the body: ",
        ),
        (
            "not gzip",
            response(&format!("{TEXT}Content-Encoding: gzip\r\n"), b"not_gzip_at_all 1\n"),
            "",
            "gzip: invalid gzip header",
        ),
        (
            "gzip cut off",
            response(&format!("{TEXT}Content-Encoding: gzip\r\n"), &gzip(b"a 1\n")[..12]),
            "",
            "gzip: ",
        ),
        ("not http", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "", "Get \"http://127.0.0.1:"),
        ("nothing", vec![], "", "Get \"http://127.0.0.1:"),
        (
            "redirect refused",
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "follow_redirects: false",
            "server returned HTTP status 302 Found",
        ),
        (
            "garbage protobuf",
            response(
                "Content-Type: application/vnd.google.protobuf\r\n",
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
            "",
            "line 0, column 0: protobuf at byte 0: a number longer than ten bytes",
        ),
    ]
}

#[tokio::test]
async fn answers_that_are_wrong() {
    for (name, bytes, lines, cause) in wrong_answers() {
        let address = serve_bytes(bytes).await;
        let error = scrape(&job(lines), &address).await.error.unwrap_or_else(|| panic!("{name} succeeded"));
        assert!(error.starts_with(cause), "{name}: {error}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = scrape(&job(""), &address).await.error.unwrap();
    assert_eq!(error, format!("Get \"http://{address}/metrics\": connection refused"));
}

#[tokio::test]
async fn a_gzip_bomb_is_stopped_while_it_unfolds() {
    // 64 MiB of one comment line in some 64 KiB.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let chunk = vec![b'#'; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&chunk).unwrap();
    }
    let address =
        serve_bytes(response(&format!("{TEXT}Content-Encoding: gzip\r\n"), &encoder.finish().unwrap())).await;
    let report = scrape(&job("extra_scrape_metrics: false"), &address).await;
    let error = report.error.unwrap();
    assert!(error.starts_with("body size limit exceeded: it unfolds to more than 250 times"), "{error}");
    assert_eq!(report.body_size, -1);
    let report = scrape(&job("body_size_limit: 1MB"), &address).await;
    assert_eq!((report.error.as_deref(), report.body_size), (Some("body size limit exceeded"), -1));
}

#[tokio::test]
async fn endless_and_slow_bodies_end_at_the_bound_or_the_deadline() {
    let endless = serve(|mut stream, _| async move {
        let lead = format!("HTTP/1.1 200 OK\r\n{TEXT}Transfer-Encoding: chunked\r\n\r\n");
        let _ = stream.write_all(lead.as_bytes()).await;
        let line = "a{x=\"0123456789\"} 1\n".repeat(3000);
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await;
    let trickle = serve(|mut stream, _| async move {
        let lead = format!("HTTP/1.1 200 OK\r\n{TEXT}Content-Length: 100000\r\n\r\n");
        let _ = stream.write_all(lead.as_bytes()).await;
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let silent = serve(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let good = serve_bytes(response(TEXT, b"a 1\n")).await;
    let (limited, hasty) = (job("body_size_limit: 2MB"), job("scrape_timeout: 400ms"));
    let clock = SystemClock::shared();
    let start = clock.mono_ns();
    let (endless, trickle, silent, good) = tokio::join!(
        scrape(&limited, &endless),
        scrape(&hasty, &trickle),
        scrape(&hasty, &silent),
        scrape(&hasty, &good)
    );
    assert_eq!(endless.error.as_deref(), Some("body size limit exceeded"));
    for late in [trickle.error.unwrap(), silent.error.unwrap()] {
        assert!(late.ends_with("/metrics\": context deadline exceeded"), "{late}");
    }
    assert_eq!(good.error, None);
    let seconds = (clock.mono_ns() - start) as f64 / 1e9;
    assert!(seconds < 30.0, "{seconds} s");
}

#[tokio::test]
async fn connections_and_buffers_are_reused() {
    let body = "a 1\n".repeat(2);
    let address = serve(move |mut stream, _| {
        let body = body.clone();
        async move {
            loop {
                let answer = format!("HTTP/1.1 200 OK\r\n{TEXT}Content-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).await.is_err() || head(&mut stream).await.is_empty() {
                    break;
                }
            }
        }
    })
    .await;
    let job = job("");
    let labels = Labels::from_pairs([("__address__", address.as_str())]);
    let target = populate_labels(&labels, &Labels::empty(), &job).unwrap().unwrap();
    let fetcher = Fetcher::new(&job, SystemClock::shared());
    let mut buffer = Vec::with_capacity(1 << 16);
    for _ in 0..3 {
        let (bytes, format) = fetcher.fetch(&target, buffer).await.body.unwrap();
        assert_eq!((bytes.as_slice(), format), (&b"a 1\na 1\n"[..], Format::Text));
        assert!(bytes.capacity() >= 1 << 16);
        buffer = bytes;
    }
}

#[tokio::test]
async fn secrets_come_from_files_and_missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "from-file\n").unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen_by_server = seen.clone();
    let address = serve(move |mut stream, request| {
        seen_by_server.lock().unwrap().push(request.to_ascii_lowercase());
        async move {
            let _ = stream.write_all(&response(TEXT, b"a 1\n")).await;
        }
    })
    .await;
    let with_file = job(&format!("authorization: {{type: Token, credentials_file: {}}}", path.display()));
    assert_eq!(scrape(&with_file, &address).await.error, None);
    let basic = job("basic_auth: {username: u, password: p}");
    assert_eq!(scrape(&basic, &address).await.error, None);
    {
        let seen = seen.lock().unwrap();
        assert!(seen[0].contains("authorization: token from-file\r\n"), "{}", seen[0]);
        assert!(seen[1].contains("authorization: basic dtpw\r\n"), "{}", seen[1]);
    }
    std::fs::remove_file(&path).unwrap();
    let error = scrape(&with_file, &address).await.error.unwrap();
    assert!(error.contains("unable to read credentials file") && !error.contains("from-file"), "{error}");
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let seen_by_server = seen.clone();
    let elsewhere = serve(move |mut stream, request| {
        *seen_by_server.lock().unwrap() = request.to_ascii_lowercase();
        async move {
            let _ = stream.write_all(&response(TEXT, b"a 1\n")).await;
        }
    })
    .await;
    let location =
        format!("HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/x\r\nContent-Length: 0\r\n\r\n");
    let address = serve_bytes(location.into_bytes()).await;
    let report = scrape(&job("authorization: {credentials: hunter2}"), &address).await;
    assert_eq!((report.error, seen.lock().unwrap().contains("hunter2")), (None, false));
    assert!(seen.lock().unwrap().starts_with("get /x "));
    seen.lock().unwrap().clear();
    let report = scrape(&job("http_headers: {X-Key: {secrets: [hunter2]}}"), &address).await;
    let error = report.error.unwrap();
    assert!(error.ends_with("a redirect to another host is not followed with http_headers set"), "{error}");
    assert_eq!(seen.lock().unwrap().as_str(), "");
}

#[tokio::test]
async fn oauth2_tokens_are_fetched_once() {
    let tokens = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = tokens.clone();
    let address = serve(move |mut stream, request| {
        let token = request.starts_with("POST /token");
        let authorized = request.to_ascii_lowercase().contains("authorization: bearer abc\r\n");
        if token {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        async move {
            let answer = if token {
                response(
                    "Content-Type: application/json\r\n",
                    b"{\"access_token\":\"abc\",\"expires_in\":3600}",
                )
            } else if authorized {
                response(TEXT, b"a 1\n")
            } else {
                b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec()
            };
            let _ = stream.write_all(&answer).await;
        }
    })
    .await;
    let job =
        job(&format!("oauth2: {{client_id: id, client_secret: s, token_url: 'http://{address}/token'}}"));
    let labels = Labels::from_pairs([("__address__", address.as_str())]);
    let target = populate_labels(&labels, &Labels::empty(), &job).unwrap().unwrap();
    let fetcher = Fetcher::new(&job, SystemClock::shared());
    for _ in 0..3 {
        fetcher.fetch(&target, Vec::new()).await.body.unwrap();
    }
    assert_eq!(tokens.load(std::sync::atomic::Ordering::SeqCst), 1);
}
