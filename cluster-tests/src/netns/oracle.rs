//! What must be true of pushed samples: the writer, its log of acknowledgements, and the reader that compares.
//!
//! Every sample says where it belongs: its value is `value(series, time)`. A batch is acknowledged (204), refused, or
//! neither, when no answer came: then its samples may be there. `check` holds an answer against that: every
//! acknowledged sample in it, nothing that was never sent, nothing twice, times in order, values right. An answer that
//! is flagged may lack samples, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::push::{self, Push, ms};
use crate::{Api, Node, until};

/// The one value that series `n` can have at `t`, milliseconds.
pub fn value(n: usize, t: i64) -> f64 {
    (n as i64 * 1_000_003 + t % 100_000_007) as f64
}

/// Batches by time: whether they were acknowledged.
pub type Batches = BTreeMap<i64, bool>;

/// Pushes batches until it is stopped, to each of a few nodes by itself, so that a node that stays silent holds up
/// nobody else.
pub struct Writer {
    /// Name of the series.
    pub name: String,
    /// Number of series in each batch.
    pub series: usize,
    batches: Arc<Mutex<Batches>>,
    acked: Arc<Vec<AtomicUsize>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writer {
    /// Starts to push to `nodes`, with a pause after each answer.
    pub fn start(name: &str, series: usize, nodes: &[Node]) -> Self {
        let nodes: Vec<SocketAddr> = nodes.iter().map(|n| n.spec.http()).collect();
        let batches = Arc::new(Mutex::new(Batches::new()));
        let acked: Arc<Vec<AtomicUsize>> = Arc::new(nodes.iter().map(|_| AtomicUsize::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let last = Arc::new(AtomicI64::new(0));
        let tasks = nodes.iter().enumerate().map(|(at, to)| {
            let pen = Pen {
                name: name.to_owned(),
                series,
                to: *to,
                last: last.clone(),
                batches: batches.clone(),
                stop: stop.clone(),
            };
            let acked = acked.clone();
            tokio::spawn(async move { pen.write(&acked[at]).await })
        });
        let tasks = tasks.collect();
        Self { name: name.to_owned(), series, batches, acked, stop, tasks }
    }

    /// Waits until node `at` has acknowledged `more` batches more than now.
    pub async fn goes_on(&self, at: usize, more: usize, patience: Duration) {
        let begun = self.acked_by(at);
        until(&format!("node {at} acknowledges {more} more batches"), patience, || async {
            let now = self.acked_by(at) - begun;
            if now >= more { Ok(()) } else { Err(format!("{now} batches")) }
        })
        .await;
    }

    /// Batches that node `at` acknowledged so far.
    pub fn acked_by(&self, at: usize) -> usize {
        self.acked[at].load(Ordering::SeqCst)
    }

    /// What was sent so far.
    pub fn batches(&self) -> Batches {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many batches were acknowledged so far.
    pub fn acked(&self) -> usize {
        self.batches().values().filter(|acked| **acked).count()
    }

    /// Ends after the batches that are on their way.
    ///
    /// # Panics
    /// When the writer did.
    pub async fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            task.await.expect("the writer");
        }
    }

    /// Asks for everything and holds the answer against what was acknowledged before the question.
    ///
    /// # Errors
    /// What is wrong, or why there is no answer.
    pub async fn check(&self, api: &Api) -> Result<Answer, String> {
        let before = self.batches();
        let now = crate::api::now();
        // From its own beginning: what was before may be flagged for other reasons.
        let age = now - before.keys().next().map_or(now, |t| *t as f64 / 1000.0);
        let (now, question) =
            (format!("{now:.3}"), format!("{}[{}ms]", self.name, (age * 1000.0) as i64 + 5));
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
        self.tasks.iter().for_each(JoinHandle::abort);
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

/// What a pause between two batches is.
const PAUSE: Duration = Duration::from_millis(100);

struct Pen {
    name: String,
    series: usize,
    to: SocketAddr,
    last: Arc<AtomicI64>,
    batches: Arc<Mutex<Batches>>,
    stop: Arc<AtomicBool>,
}

impl Pen {
    async fn write(self, acked: &AtomicUsize) {
        while !self.stop.load(Ordering::SeqCst) {
            // No two batches have the same time.
            let now = ms();
            let t = self.last.fetch_max(now, Ordering::SeqCst).max(now - 1) + 1;
            self.last.fetch_max(t, Ordering::SeqCst);
            let row = |n: usize| {
                push::series(&[("__name__", &self.name), ("n", &n.to_string())], &[(t, value(n, t))])
            };
            let note = |acked| self.batches.lock().unwrap_or_else(PoisonError::into_inner).insert(t, acked);
            note(false);
            let reply = Push::v1((0..self.series).map(row).collect()).to(self.to).await;
            if reply.is_ok_and(|r| r.status == 204) {
                note(true);
                acked.fetch_add(1, Ordering::SeqCst);
            }
            tokio::time::sleep(PAUSE).await;
        }
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
