//! What must be true of pushed samples: the writer, its log of acknowledgements, and the reader that compares.
//!
//! Every sample says where it belongs: its value is `value(series, time)`. A batch is acknowledged (204), refused, or
//! neither, when no answer came: then its samples may be there. `check` holds an answer against that: every
//! acknowledged sample in it, nothing that was never sent, nothing twice, times in order, values right. An answer that
//! is flagged may lack samples, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::Api;
use crate::push::{self, Push, ms};

/// The one value that series `n` can have at `t`, milliseconds.
pub fn value(n: usize, t: i64) -> f64 {
    (n as i64 * 1_000_003 + t % 100_000_007) as f64
}

/// Batches by time: whether they were acknowledged.
pub type Batches = BTreeMap<i64, bool>;

/// Pushes batches to a few nodes in turn until it is stopped.
pub struct Writer {
    /// Name of the series.
    pub name: String,
    /// Number of series in each batch.
    pub series: usize,
    batches: Arc<Mutex<Batches>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts to push to `nodes`, one batch to each of them in turn.
    pub fn start(name: &str, series: usize, nodes: Vec<SocketAddr>) -> Self {
        Self::paced(name, series, nodes, Duration::from_millis(50))
    }

    /// As `start`, with a pause between batches.
    pub fn paced(name: &str, series: usize, nodes: Vec<SocketAddr>, pause: Duration) -> Self {
        let batches = Arc::new(Mutex::new(Batches::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(name.to_owned(), series, nodes, pause, batches.clone(), stop.clone()));
        Self { name: name.to_owned(), series, batches, stop, task }
    }

    /// What was sent so far.
    pub fn batches(&self) -> Batches {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many batches were acknowledged so far.
    pub fn acked(&self) -> usize {
        self.batches().values().filter(|acked| **acked).count()
    }

    /// Ends after the batch that is on its way.
    ///
    /// # Panics
    /// When the writer did.
    pub async fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        (&mut self.task).await.expect("the writer");
    }

    /// Asks for everything and holds the answer against what was acknowledged before the question.
    ///
    /// # Errors
    /// What is wrong, or why there is no answer.
    pub async fn check(&self, api: &Api) -> Result<Answer, String> {
        let before = self.batches();
        let now = format!("{:.3}", crate::api::now());
        let question = format!("{}[30m]", self.name);
        let (status, body) = api.get("/api/v1/query", &[("query", &question), ("time", &now)]).await?;
        let json: Value = serde_json::from_str(&body).map_err(|_| format!("{status}: {body}"))?;
        if status == 503 {
            return Ok(Answer::Refused(json["error"].as_str().unwrap_or("").to_owned()));
        }
        if status != 200 {
            return Err(format!("{status}: {body}"));
        }
        let flagged = json.get("warnings").is_some();
        // What was sent while the question was on its way may be in the answer.
        compare(&json["data"], self.series, &before, &self.batches(), flagged)?;
        Ok(if flagged { Answer::Flagged(json["warnings"].to_string()) } else { Answer::Whole })
    }

    /// As `check`, and the answer must be whole.
    ///
    /// # Errors
    /// Anything else.
    pub async fn whole(&self, api: &Api) -> Result<(), String> {
        match self.check(api).await? {
            Answer::Whole => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a question was answered; whatever is in the answer was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All acknowledged samples.
    Whole,
    /// With this warning.
    Flagged(String),
    /// Not answered because it would be short, with this reason.
    Refused(String),
}

async fn write(
    name: String,
    series: usize,
    nodes: Vec<SocketAddr>,
    pause: Duration,
    batches: Arc<Mutex<Batches>>,
    stop: Arc<AtomicBool>,
) {
    let mut last = 0;
    let note = |t, acked| batches.lock().unwrap_or_else(PoisonError::into_inner).insert(t, acked);
    for to in nodes.iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let t = ms().max(last + 1);
        last = t;
        let row = |n: usize| push::series(&[("__name__", &name), ("n", &n.to_string())], &[(t, value(n, t))]);
        note(t, false);
        let reply = Push::v1((0..series).map(row).collect()).to(*to).await;
        if reply.is_ok_and(|r| r.status == 204) {
            note(t, true);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Holds an answer against the log. `sent` must hold all batches that can be in the answer.
fn compare(
    data: &Value,
    series: usize,
    acked: &Batches,
    sent: &Batches,
    flagged: bool,
) -> Result<(), String> {
    let mut got: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    for s in data["result"].as_array().ok_or("no result")? {
        let n = s["metric"]["n"].as_str().and_then(|n| n.parse::<usize>().ok()).ok_or("no number")?;
        let mut times = Vec::new();
        for pair in s["values"].as_array().ok_or("no values")? {
            let t = (pair[0].as_f64().ok_or("no time")? * 1000.0).round() as i64;
            let v: f64 = pair[1].as_str().and_then(|v| v.parse().ok()).ok_or("no value")?;
            if v != value(n, t) {
                return Err(format!("WRONG: series {n} at {t} is {v}, not {}", value(n, t)));
            }
            if !sent.contains_key(&t) {
                return Err(format!("WRONG: series {n} has a sample at {t} that nobody sent"));
            }
            times.push(t);
        }
        if !times.windows(2).all(|w| w[0] < w[1]) {
            return Err(format!("WRONG: series {n} is doubled or out of order: {times:?}"));
        }
        if got.insert(n, times).is_some() {
            return Err(format!("WRONG: series {n} comes twice"));
        }
    }
    if flagged {
        return Ok(());
    }
    for n in 0..series {
        let times = got.get(&n).map_or(&[][..], Vec::as_slice);
        let lost: Vec<i64> = acked
            .iter()
            .filter(|(t, acked)| **acked && times.binary_search(t).is_err())
            .map(|(t, _)| *t)
            .collect();
        if !lost.is_empty() {
            return Err(format!("LOST: series {n} lacks {} acknowledged samples: {lost:?}", lost.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_oracle_sees_every_kind_of_lie() {
        let sent: Batches = [(1000, true), (2000, false), (3000, true)].into();
        let answer = |n: usize, times: &[i64]| {
            let values: Vec<Value> =
                times.iter().map(|t| json!([*t as f64 / 1000.0, value(n, *t).to_string()])).collect();
            json!({"metric": {"n": n.to_string()}, "values": values})
        };
        let judge = |rows: Vec<Value>, flagged| compare(&json!({"result": rows}), 1, &sent, &sent, flagged);
        assert_eq!(judge(vec![answer(0, &[1000, 3000])], false), Ok(()));
        assert_eq!(judge(vec![answer(0, &[1000, 2000, 3000])], false), Ok(()));
        assert!(judge(vec![answer(0, &[1000])], false).unwrap_err().contains("LOST"));
        assert_eq!(judge(vec![answer(0, &[1000])], true), Ok(()));
        assert!(judge(vec![], false).unwrap_err().contains("LOST"));
        for bad in [&[1000, 1000, 3000][..], &[3000, 1000], &[1000, 2500, 3000]] {
            assert!(judge(vec![answer(0, bad)], true).unwrap_err().contains("WRONG"), "{bad:?}");
        }
        let twice = vec![answer(0, &[1000]), answer(0, &[3000])];
        assert!(judge(twice, true).unwrap_err().contains("twice"));
        let wrong = json!({"metric": {"n": "0"}, "values": [[1.0, "5"]]});
        assert!(judge(vec![wrong], true).unwrap_err().contains("WRONG"));
    }
}
