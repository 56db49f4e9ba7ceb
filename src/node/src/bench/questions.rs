//! The questions that both rivals are asked, in turn, over HTTP.
//!
//! A question goes to one rival, then to the other, then again: what disturbs the machine disturbs both. The
//! median counts. An answer that is empty or an error is no answer, and the bench says so instead of timing it: from
//! this binary it ends the run, a peer's place in the row stays open.

use std::time::Duration;

use koios_model::Clock;
use serde_json::Value;

/// Scrapes within a window.
const SCRAPES: u64 = 4;
/// Rounds of one question.
const ROUNDS: usize = 15;
/// Time for one question; at least one round is measured.
const BUDGET_NS: u64 = 2_500_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// A question; `range` asks for every second of the span. `WINDOW` stands for some scrapes' time.
pub struct Question {
    pub expr: &'static str,
    pub range: bool,
}

/// From one series to four tenths of all, instant and range.
pub const QUESTIONS: [Question; 7] = [
    Question { expr: "sum(bench_gauge_7)", range: false },
    Question { expr: "count by (__name__) ({__name__=~\"bench_.+\"})", range: false },
    Question { expr: "sum by (instance) (rate(bench_counter_3_total[WINDOW]))", range: false },
    Question { expr: "bench_noise_9{path=\"/healthz\",code=\"500\",container=\"worker-3\"}", range: true },
    Question { expr: "sum by (path) (rate(bench_counter_3_total[WINDOW]))", range: true },
    Question { expr: "topk(5, max_over_time(bench_noise_9[WINDOW]))", range: true },
    Question { expr: "sum by (path, code) ({__name__=~\"bench_counter_.+\"})", range: true },
];

impl Question {
    /// The expression for a scrape every `interval` seconds.
    pub fn text(&self, interval: u64) -> String {
        self.expr.replace("WINDOW", &format!("{}s", (interval * SCRAPES).max(10)))
    }
}

/// What is asked of everybody, and over which milliseconds.
pub struct Round {
    pub expr: String,
    pub range: bool,
    pub span: (i64, i64),
}

/// Asks one question of every address in turn; the median milliseconds of each, NaN where there was no answer.
///
/// # Errors
/// When the first address, ours, has no answer.
pub async fn ask(
    clock: &dyn Clock,
    client: &reqwest::Client,
    bases: &[String],
    round: &Round,
) -> Result<Vec<f64>, String> {
    let mut took: Vec<Vec<u64>> = vec![Vec::new(); bases.len()];
    let mut silent = vec![false; bases.len()];
    for (i, base) in bases.iter().enumerate() {
        match whole(client, base, round).await {
            Ok(()) => {}
            Err(why) if i == 0 => return Err(why),
            Err(why) => {
                eprintln!("koios bench: {why}");
                silent[i] = true;
            }
        }
    }
    let begin = clock.mono_ns();
    for n in 0..ROUNDS {
        if n > 0 && clock.mono_ns() - begin > BUDGET_NS {
            break;
        }
        for (i, base) in bases.iter().enumerate().filter(|(i, _)| !silent[*i]) {
            let start = clock.mono_ns();
            fetch(client, base, round).await?;
            took[i].push(clock.mono_ns() - start);
        }
    }
    Ok(took.into_iter().map(|times| median(times) / 1e6).collect())
}

/// Whether the answer is one, and whole.
async fn whole(client: &reqwest::Client, base: &str, round: &Round) -> Result<(), String> {
    let body = fetch(client, base, round).await?;
    let json: Value = serde_json::from_slice(&body).map_err(|e| format!("{base}: {e}"))?;
    let answered = json["data"]["result"].as_array().is_some_and(|r| !r.is_empty());
    if answered && json.get("warnings").is_none() {
        return Ok(());
    }
    let start = String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
    Err(format!("{base} has no whole answer to {}: {start}", round.expr))
}

async fn fetch(client: &reqwest::Client, base: &str, round: &Round) -> Result<Vec<u8>, String> {
    let (start, end) = round.span;
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let (start, end) = (seconds(start), seconds(end));
    let mut params = vec![("query", round.expr.as_str())];
    let path = if round.range {
        params.extend([("start", start.as_str()), ("end", end.as_str()), ("step", "1")]);
        "query_range"
    } else {
        params.push(("time", end.as_str()));
        "query"
    };
    let url = reqwest::Url::parse_with_params(&format!("{base}/api/v1/{path}"), &params)
        .map_err(|e| e.to_string())?;
    let request = client.get(url).timeout(PATIENCE).header("Accept-Encoding", "identity");
    let response = request.send().await.map_err(|e| format!("{base}: {e}"))?;
    Ok(response.bytes().await.map_err(|e| format!("{base}: {e}"))?.to_vec())
}

fn median(mut times: Vec<u64>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |ns| *ns as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_counts() {
        assert_eq!(median(vec![9, 1, 5]), 5.0);
        assert!(median(Vec::new()).is_nan(), "nothing was measured");
        for q in &QUESTIONS {
            assert!(koios_promql::parse(&q.text(1)).is_ok(), "{}", q.expr);
        }
    }
}
