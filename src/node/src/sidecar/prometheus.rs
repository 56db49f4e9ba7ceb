//! The Prometheus beside this node, as its HTTP API is asked.
//!
//! Owns requests, their bounds in bytes, time and number, and errors in words. Knows nothing of external labels.

use std::time::Duration;

use futures::StreamExt;
use koios_chunk::SeriesChunks;
use koios_remote::read::asking::{AnswerLimits, FrameReader, question, samples};
use koios_remote::read::frames::CONTENT_TYPE;
use koios_remote::read::{Kind, ReadQuery};
use koios_scrape::http::{HttpClient, reason};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::sync::Semaphore;

/// Bytes of an answer as JSON.
const JSON_BYTES_MAX: usize = 256 << 20;
/// Characters of an error that are shown.
const ERROR_CHARS_MAX: usize = 500;
/// Requests at a time; a Prometheus answers ten remote reads at a time unless told otherwise.
const REQUESTS_MAX: usize = 16;
/// Longest wait for an answer; the asker's own patience is usually shorter.
const PATIENCE: Duration = Duration::from_secs(120);

/// It, by its URL.
pub struct Prometheus {
    base: String,
    client: HttpClient,
    room: Semaphore,
}

/// Why a request failed, without the URL, which may have a password.
fn words(e: reqwest::Error) -> String {
    reason(&e).chars().take(ERROR_CHARS_MAX).collect()
}

impl Prometheus {
    /// Nothing is asked yet.
    pub fn new(base: String, client: HttpClient) -> Self {
        Self { base, client, room: Semaphore::new(REQUESTS_MAX) }
    }

    /// `data` of an answer of its API, and its warnings.
    ///
    /// # Errors
    /// What it says, or why it does not answer.
    pub async fn get(&self, path: &str, params: &[(&str, String)]) -> Result<(Value, Vec<String>), String> {
        let base = format!("{}{path}", self.base);
        let url = reqwest::Url::parse_with_params(&base, params).map_err(|e| e.to_string())?;
        let request = self.client.request(Method::GET, url.as_str()).await.map_err(|e| e.to_string())?;
        let _place = self.room.acquire().await.map_err(|e| e.to_string())?;
        let response = self.send(request).await?;
        let (status, body) = (response.status(), body(response, JSON_BYTES_MAX).await?);
        let mut answer: Value =
            serde_json::from_slice(&body).map_err(|_| format!("{path} answers {status} and no JSON"))?;
        if answer["status"] != "success" {
            let why = answer["error"].as_str().unwrap_or("no reason is given");
            return Err(format!("{path} answers {status}: {why}"));
        }
        let texts = answer["warnings"].as_array().into_iter().flatten();
        let warnings = texts.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok((answer["data"].take(), warnings))
    }

    /// Series by remote read: chunks as they come, or samples where it sends these.
    ///
    /// # Errors
    /// What it says, why it does not answer, or that it has too much.
    pub async fn read(&self, query: &ReadQuery, limits: AnswerLimits) -> Result<Vec<SeriesChunks>, String> {
        let url = format!("{}/api/v1/read", self.base);
        let request = self.client.request(Method::POST, &url).await.map_err(|e| e.to_string())?;
        let request = request
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Read-Version", "0.1.0")
            .body(question(query, Kind::Chunks));
        let _place = self.room.acquire().await.map_err(|e| e.to_string())?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            let status = response.status();
            let said = body(response, JSON_BYTES_MAX).await?;
            let said: String = String::from_utf8_lossy(&said).trim().chars().take(ERROR_CHARS_MAX).collect();
            return Err(format!("/api/v1/read answers {status}: {said}"));
        }
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        // Proxies put spaces differently; the type alone decides.
        let streamed = CONTENT_TYPE.split(';').next() == kind.split(';').next();
        if !streamed {
            let most = usize::try_from(limits.bytes).unwrap_or(usize::MAX);
            let bytes = body(response, most).await?;
            return samples(&bytes, &limits).map_err(|e| e.to_string());
        }
        let mut reader = FrameReader::new(limits);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            reader.push(&piece.map_err(words)?).map_err(|e| e.to_string())?;
        }
        reader.finish().map_err(|e| e.to_string())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, String> {
        request.timeout(PATIENCE).send().await.map_err(words)
    }
}

/// The body, when it is not too long.
async fn body(response: Response, most: usize) -> Result<Vec<u8>, String> {
    let (mut all, mut pieces) = (Vec::new(), response.bytes_stream());
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.map_err(words)?);
        if all.len() > most {
            return Err(format!("the answer has more than {most} bytes"));
        }
    }
    Ok(all)
}
