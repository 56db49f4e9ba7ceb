//! One scrape over the network: a GET with everything bounded.
//!
//! Owns request headers, the deadline, status and content type, decompression, and three bounds on the body:
//! the job's `body_size_limit`, the hard cap `BODY_MAX`, and the compression ratio `RATIO_MAX`; all count
//! decompressed bytes as they come, so a bomb is stopped while it unfolds. Invariant: an answer, however
//! hostile, costs its own scrape only.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::write::MultiGzDecoder;
use koios_config::{EscapingScheme, ScrapeConfig, ScrapeProtocol};
use koios_model::Clock;
use koios_model::size::format_size;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, USER_AGENT};
use reqwest::{Method, Response};

use crate::http::{HttpClient, reason};
use crate::ingest::Failed;
use crate::parse::Format;
use crate::target::Target;

/// Decompressed bytes of any body, whatever the job says.
pub const BODY_MAX: u64 = 256 << 20;
/// Decompressed bytes per compressed byte, once a body is larger than `RATIO_FLOOR`. Real expositions stay
/// below 100; a bomb reaches 1,000.
const RATIO_MAX: u64 = 250;
const RATIO_FLOOR: u64 = 8 << 20;
/// Capacity kept for the next scrape.
const BUFFER_KEEP: usize = 4 << 20;
/// Prometheus' header that tells the target how long it has.
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The outcome of one fetch.
#[derive(Debug)]
pub struct Fetched {
    /// Decompressed body and its format, or why there is none.
    pub body: Result<(Vec<u8>, Format), Failed>,
    /// How long it took.
    pub seconds: f64,
}

/// Scrapes the targets of one job.
pub struct Fetcher {
    http: HttpClient,
    clock: Arc<dyn Clock>,
    accept: String,
    accept_encoding: &'static str,
    fallback: Option<ScrapeProtocol>,
    body_limit: u64,
}

impl Fetcher {
    /// A fetcher for the targets of `job`.
    pub fn new(job: &ScrapeConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            http: HttpClient::new(job.http.clone(), clock.clone()),
            clock,
            accept: accept_header(&job.scrape_protocols, job.escaping_scheme),
            accept_encoding: if job.enable_compression { "gzip" } else { "identity" },
            fallback: job.fallback_scrape_protocol,
            body_limit: job.limits.body_size,
        }
    }

    /// Fetches once. `buffer` lends its memory; get it back out of the result.
    pub async fn fetch(&self, target: &Target, buffer: Vec<u8>) -> Fetched {
        let start = self.clock.mono_ns();
        let deadline = Duration::from_millis(target.timeout_ms.max(1) as u64);
        let body = match tokio::time::timeout(deadline, self.get(target, buffer)).await {
            Ok(body) => body,
            Err(_) => Err(failed(format!("Get {:?}: context deadline exceeded", target.url))),
        };
        let seconds = self.clock.mono_ns().saturating_sub(start) as f64 / 1e9;
        Fetched { body, seconds }
    }

    async fn get(&self, target: &Target, buffer: Vec<u8>) -> Result<(Vec<u8>, Format), Failed> {
        let transport = |why: String| failed(format!("Get {:?}: {why}", target.url));
        let request =
            self.http.request(Method::GET, &target.url).await.map_err(|e| transport(e.to_string()))?;
        let request = request
            .header(ACCEPT, &self.accept)
            .header(ACCEPT_ENCODING, self.accept_encoding)
            .header(USER_AGENT, concat!("Koios/", env!("CARGO_PKG_VERSION")))
            .header(TIMEOUT_HEADER, (target.timeout_ms as f64 / 1000.0).to_string());
        let response = request.send().await.map_err(|e| transport(reason(&e)))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(failed(format!("server returned HTTP status {}", response.status())));
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let format = Format::of(content_type, self.fallback).map_err(failed)?;
        let body = read_into(response, self.body_limit, buffer).await?;
        Ok((body, format))
    }
}

fn failed(cause: String) -> Failed {
    Failed { cause, too_big: false }
}

/// Reads and decompresses a body of at most `limit` bytes (0: only the hard cap).
///
/// # Errors
/// Too big, a compression bomb, not gzip, cut off.
pub async fn read_body(response: Response, limit: u64) -> Result<Vec<u8>, Failed> {
    read_into(response, limit, Vec::new()).await
}

async fn read_into(mut response: Response, limit: u64, mut buffer: Vec<u8>) -> Result<Vec<u8>, Failed> {
    buffer.clear();
    buffer.shrink_to(BUFFER_KEEP);
    let gzip =
        response.headers().get(CONTENT_ENCODING).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let mut sink = Bounded { bytes: buffer, limit, received: 0, broken: None };
    if gzip {
        let mut decoder = MultiGzDecoder::new(sink);
        while let Some(chunk) = response.chunk().await.map_err(cut_off)? {
            decoder.get_mut().received += chunk.len() as u64;
            let done = decoder.write_all(&chunk);
            explain(done, decoder.get_mut())?;
        }
        let done = decoder.try_finish();
        explain(done, decoder.get_mut())?;
        sink = decoder.finish().map_err(|e| failed(format!("gzip: {e}")))?;
    } else {
        while let Some(chunk) = response.chunk().await.map_err(cut_off)? {
            sink.received += chunk.len() as u64;
            let done = sink.write_all(&chunk);
            explain(done, &mut sink)?;
        }
    }
    Ok(sink.bytes)
}

fn cut_off(e: reqwest::Error) -> Failed {
    failed(format!("reading the body: {}", reason(&e)))
}

/// Prefers our own reason over the decoder's.
fn explain(done: io::Result<()>, sink: &mut Bounded) -> Result<(), Failed> {
    match (done, sink.broken.take()) {
        (_, Some(broken)) => Err(broken),
        (Err(e), None) => Err(failed(format!("gzip: {e}"))),
        (Ok(()), None) => Ok(()),
    }
}

/// Collects decompressed bytes until a bound is met.
struct Bounded {
    bytes: Vec<u8>,
    limit: u64,
    /// Bytes that came over the network.
    received: u64,
    broken: Option<Failed>,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let total = (self.bytes.len() + part.len()) as u64;
        let cause = if self.limit > 0 && total >= self.limit {
            Some("body size limit exceeded".to_owned())
        } else if total > BODY_MAX {
            Some(format!(
                "body size limit exceeded: more than {}, the most that any scrape may bring",
                format_size(BODY_MAX)
            ))
        } else if total > RATIO_FLOOR && total / self.received.max(1) > RATIO_MAX {
            Some(format!(
                "body size limit exceeded: it unfolds to more than {RATIO_MAX} times its compressed size"
            ))
        } else {
            None
        };
        if let Some(cause) = cause {
            self.broken = Some(Failed { cause, too_big: true });
            return Err(io::Error::other("bound met"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `Accept`, best format first, weights falling from 0.6 (Prometheus' own weights).
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: EscapingScheme) -> String {
    let mut parts = Vec::new();
    let mut weight = 6;
    for protocol in protocols {
        let media = match protocol {
            ScrapeProtocol::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            ScrapeProtocol::PrometheusText004 => "text/plain;version=0.0.4",
            ScrapeProtocol::PrometheusText100 => "text/plain;version=1.0.0",
            ScrapeProtocol::OpenMetrics001 => "application/openmetrics-text;version=0.0.1",
            ScrapeProtocol::OpenMetrics100 => "application/openmetrics-text;version=1.0.0",
        };
        let negotiates =
            matches!(protocol, ScrapeProtocol::PrometheusText100 | ScrapeProtocol::OpenMetrics100);
        let escape = if negotiates { format!(";escaping={}", escaping.as_str()) } else { String::new() };
        parts.push(format!("{media}{escape};q=0.{weight}"));
        weight -= 1;
    }
    parts.push(format!("*/*;q=0.{weight}"));
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_prometheus() {
        assert_eq!(
            accept_header(&ScrapeProtocol::DEFAULT, EscapingScheme::AllowUtf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
    }
}
