//! Remote write requests made by hand.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use koios_proto::prometheus as v1;
use prost::Message;

use crate::api::now;

/// `Content-Type` of version 1.
pub const V1: &str = "application/x-protobuf";
/// `Content-Type` of version 2.
pub const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

/// What a push came to.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Text.
    pub body: String,
    /// The three headers of version 2.
    pub written: [Option<u64>; 3],
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
}

/// One request.
#[derive(Clone)]
pub struct Push {
    /// Where to.
    pub path: &'static str,
    /// Names and values.
    pub headers: Vec<(&'static str, &'static str)>,
    /// As it is sent.
    pub body: Vec<u8>,
}

impl Push {
    /// A message in snappy.
    pub fn snappy(content_type: &'static str, message: &[u8]) -> Self {
        let body = snap::raw::Encoder::new().compress_vec(message).expect("packs");
        let headers = vec![("Content-Type", content_type), ("Content-Encoding", "snappy")];
        Self { path: "/api/v1/write", headers, body }
    }

    /// Series by version 1.
    pub fn v1(series: Vec<v1::TimeSeries>) -> Self {
        Self::snappy(V1, &v1::WriteRequest { timeseries: series, metadata: Vec::new() }.encode_to_vec())
    }

    /// With other headers.
    pub fn headers(self, headers: &[(&'static str, &'static str)]) -> Self {
        Self { headers: headers.to_vec(), ..self }
    }

    /// Sends it.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn to(self, http: SocketAddr) -> Result<Reply, String> {
        static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
        let client = CLIENT.get_or_init(|| {
            // Each test has a runtime of its own, so connections are not kept between them.
            let client = reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .timeout(Duration::from_secs(20));
            client.build().expect("HTTP client")
        });
        let mut request = client.post(format!("http://{http}{}", self.path)).body(self.body);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|e| e.to_string())?;
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
        let (written, retry_after) = (WRITTEN.map(number), number("retry-after"));
        let status = response.status().as_u16();
        Ok(Reply { status, written, retry_after, body: response.text().await.map_err(|e| e.to_string())? })
    }
}

/// Milliseconds since the epoch.
pub fn ms() -> i64 {
    (now() * 1000.0) as i64
}

/// A series of version 1 with these labels, in this order.
pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> v1::TimeSeries {
    v1::TimeSeries {
        labels: labels.iter().map(|(n, v)| v1::Label { name: (*n).into(), value: (*v).into() }).collect(),
        samples: samples.iter().map(|&(timestamp, value)| v1::Sample { value, timestamp }).collect(),
        ..v1::TimeSeries::default()
    }
}

/// A series of version 1 of the job `push`.
pub fn named(name: &str, samples: &[(i64, f64)]) -> v1::TimeSeries {
    series(&[("__name__", name), ("job", "push")], samples)
}
