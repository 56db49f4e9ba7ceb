//! Native histograms from a target to an answer: exposed as such, and made of classic ones.

use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Exporter, NodeSpec, scratch, until};

/// A response with a body of a content type.
fn response(content_type: &str, body: &[u8]) -> Behaviour {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
    Behaviour::Raw([head.as_bytes(), body].concat())
}

/// `MetricFamily` "native" of type histogram: schema 0, four observations below 1, two more below 2.
const FAMILY: &[u8] = &[
    39, // bytes
    0x0a, 6, b'n', b'a', b't', b'i', b'v', b'e', 0x18, 4, // name, type
    0x22, 27, 0x3a, 25, // metric, histogram
    0x08, 6, 0x11, 0, 0, 0, 0, 0, 0, 0x1c, 0x40, // count 6, sum 7
    0x28, 0, 0x62, 4, 0x08, 0, 0x10, 2, // schema 0, span from 0 of 2
    0x6a, 2, 8, 3, 0x38, 0, // buckets +4 -2, zero count
];

const CLASSIC: &str = "# TYPE classic histogram\nclassic_bucket{le=\"1\"} 4\nclassic_bucket{le=\"2\"} 6\n\
    classic_bucket{le=\"+Inf\"} 6\nclassic_sum 7\nclassic_count 6\n";

#[tokio::test]
async fn native_and_converted_histograms_are_queried() {
    let dir = scratch();
    let delimited =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let native = Exporter::start("native", response(delimited, FAMILY)).await;
    let classic = Exporter::start("classic", response("text/plain; version=0.0.4", CLASSIC.as_bytes())).await;
    let config = dir.path().join("prometheus.yml");
    let job = |name: &str, option: &str, e: &Exporter| {
        format!("- {{job_name: {name}, {option}: true, static_configs: [{{targets: ['{}']}}]}}\n", e.addr)
    };
    let jobs = job("native", "scrape_native_histograms", &native)
        + &job("classic", "convert_classic_histograms_to_nhcb", &classic);
    std::fs::write(
        &config,
        format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}"),
    )
    .unwrap();
    let node = NodeSpec::new("n0", dir.path()).config(&config).start();
    let api = node.api();
    for (query, want) in [
        ("histogram_count(native)", 6.0),
        ("histogram_sum(native)", 7.0),
        ("histogram_quantile(0.5, native)", 2f64.powf(-0.25)),
        ("histogram_count(classic)", 6.0),
        ("histogram_quantile(0.5, classic)", 0.75),
        ("count({__name__=~\"classic_.+\"}) or vector(0)", 0.0),
    ] {
        let answer = || async {
            let got = api.number(query, now()).await?;
            if (got - want).abs() < 1e-9 {
                Ok(())
            } else {
                Err(format!("{query}: {got}, not {want}\n{}", node.log()))
            }
        };
        until("the histograms", Duration::from_secs(20), answer).await;
    }
}
