//! Requests of both versions from one description, encoded by generated types.
#![allow(dead_code)] // each test takes what it needs

use std::collections::HashMap;

use koios_proto::{prometheus as v1, write_v2 as v2};
use prost::Message;

/// Names and values.
pub type Pairs = Vec<(String, String)>;

/// One series to send.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub labels: Pairs,
    pub samples: Vec<(i64, f64)>,
    pub histograms: Vec<v1::Histogram>,
    pub exemplars: Vec<(Pairs, i64, f64)>,
}

pub fn owned(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

pub fn row(name: &str, samples: &[(i64, f64)]) -> Row {
    Row { labels: owned(&[("__name__", name), ("job", "j")]), samples: samples.to_vec(), ..Row::default() }
}

fn v1_labels(pairs: &[(String, String)]) -> Vec<v1::Label> {
    pairs.iter().map(|(n, v)| v1::Label { name: n.clone(), value: v.clone() }).collect()
}

pub fn to_v1(rows: &[Row]) -> v1::WriteRequest {
    let series = |r: &Row| v1::TimeSeries {
        labels: v1_labels(&r.labels),
        samples: r.samples.iter().map(|&(timestamp, value)| v1::Sample { value, timestamp }).collect(),
        exemplars: r
            .exemplars
            .iter()
            .map(|(l, timestamp, value)| v1::Exemplar {
                labels: v1_labels(l),
                value: *value,
                timestamp: *timestamp,
            })
            .collect(),
        histograms: r.histograms.clone(),
    };
    v1::WriteRequest { timeseries: rows.iter().map(series).collect(), metadata: Vec::new() }
}

/// A table of texts, each once.
pub struct Symbols {
    pub texts: Vec<String>,
    known: HashMap<String, u32>,
}

impl Symbols {
    pub fn new() -> Self {
        Self { texts: vec![String::new()], known: HashMap::from([(String::new(), 0)]) }
    }

    pub fn of(&mut self, text: &str) -> u32 {
        if let Some(r) = self.known.get(text) {
            return *r;
        }
        let r = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.known.insert(text.to_owned(), r);
        r
    }

    pub fn refs(&mut self, pairs: &[(String, String)]) -> Vec<u32> {
        pairs.iter().flat_map(|(n, v)| [n.clone(), v.clone()]).map(|t| self.of(&t)).collect()
    }
}

pub fn to_v2(rows: &[Row]) -> v2::Request {
    let mut symbols = Symbols::new();
    let mut timeseries = Vec::new();
    for r in rows {
        timeseries.push(v2::TimeSeries {
            labels_refs: symbols.refs(&r.labels),
            samples: r
                .samples
                .iter()
                .map(|&(timestamp, value)| v2::Sample { value, timestamp, start_timestamp: 1 })
                .collect(),
            histograms: r
                .histograms
                .iter()
                // The fields are the same, so the bytes are.
                .map(|h| v2::Histogram::decode(&h.encode_to_vec()[..]).expect("a histogram"))
                .collect(),
            exemplars: r
                .exemplars
                .iter()
                .map(|(l, timestamp, value)| v2::Exemplar {
                    labels_refs: symbols.refs(l),
                    value: *value,
                    timestamp: *timestamp,
                })
                .collect(),
            metadata: None,
        });
    }
    v2::Request { symbols: symbols.texts, timeseries }
}
