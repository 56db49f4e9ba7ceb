//! The HTTP API as a test asks it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

/// A vector answer: labels as text, and the value as text.
pub type Vector = BTreeMap<String, String>;

/// Asks one node.
#[derive(Clone)]
pub struct Api {
    base: String,
    client: reqwest::Client,
}

impl Api {
    /// Over an HTTP address.
    pub fn new(addr: SocketAddr) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(0)
            .build()
            .expect("HTTP client");
        Self { base: format!("http://{addr}"), client }
    }

    /// Status and body of a GET.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn get(&self, path: &str, params: &[(&str, &str)]) -> Result<(u16, String), String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.base), params)
            .map_err(|e| e.to_string())?;
        let response = self.client.get(url).send().await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.map_err(|e| e.to_string())?))
    }

    /// Status and body of a POST with a form body.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn post_form(&self, path: &str, body: &str) -> Result<(u16, String), String> {
        let request = self
            .client
            .post(format!("{}{path}", self.base))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body.to_owned());
        let response = request.send().await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.map_err(|e| e.to_string())?))
    }

    /// `data` of a successful answer that carries no warning.
    ///
    /// # Errors
    /// Everything else, as text.
    pub async fn data(&self, path: &str, params: &[(&str, &str)]) -> Result<Value, String> {
        let (status, body) = self.get(path, params).await?;
        let json: Value = serde_json::from_str(&body).map_err(|_| format!("{status}: {body}"))?;
        match (json["status"].as_str(), json.get("warnings")) {
            (Some("success"), None) => Ok(json["data"].clone()),
            _ => Err(format!("{status}: {body}")),
        }
    }

    /// An instant query.
    ///
    /// # Errors
    /// As `data`.
    pub async fn query(&self, query: &str, time: f64) -> Result<Value, String> {
        self.data("/api/v1/query", &[("query", query), ("time", &format!("{time:.3}"))]).await
    }

    /// An instant query whose answer is a vector.
    ///
    /// # Errors
    /// As `data`; a label set that comes twice is an error.
    pub async fn vector(&self, query: &str, time: f64) -> Result<Vector, String> {
        let data = self.query(query, time).await?;
        let mut out = Vector::new();
        for s in data["result"].as_array().ok_or("no result")? {
            let value = s["value"][1].as_str().ok_or("no value")?.to_owned();
            if out.insert(s["metric"].to_string(), value).is_some() {
                return Err(format!("{} comes twice", s["metric"]));
            }
        }
        Ok(out)
    }

    /// An instant query whose answer is one number.
    ///
    /// # Errors
    /// As `vector`, and when there is not exactly one element.
    pub async fn number(&self, query: &str, time: f64) -> Result<f64, String> {
        let v = self.vector(query, time).await?;
        match v.values().next() {
            Some(n) if v.len() == 1 => n.parse().map_err(|_| format!("{n} is no number")),
            _ => Err(format!("{query} has {} elements", v.len())),
        }
    }

    /// `/-/ready`.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ready(&self) -> Result<(), String> {
        match self.get("/-/ready", &[]).await? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status}: {body}")),
        }
    }

    /// Node names and states.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn nodes(&self) -> Result<BTreeMap<String, String>, String> {
        let data = self.data("/api/v1/cluster", &[]).await?;
        let nodes = data["nodes"].as_array().ok_or("no nodes")?;
        Ok(nodes
            .iter()
            .map(|n| {
                (n["name"].as_str().unwrap_or("").to_owned(), n["state"].as_str().unwrap_or("").to_owned())
            })
            .collect())
    }

    /// Checks that exactly `count` nodes are known and all of them are ready.
    ///
    /// # Errors
    /// What there is instead.
    pub async fn all_ready(&self, count: usize) -> Result<(), String> {
        let nodes = self.nodes().await?;
        if nodes.len() == count && nodes.values().all(|s| s == "ready") {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    }
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
