//! The questions that both rivals are asked, in turn, over HTTP.
//!
//! A question goes to one rival, then to the other, then again: what disturbs the machine disturbs both. The
//! median counts. An answer that is empty or an error is no answer, and the bench says so instead of timing it.

use std::time::Duration;

use koios_model::Clock;
use serde_json::Value;

/// Rounds of one question.
const ROUNDS: usize = 15;
/// Time for one question; at least one round is measured.
const BUDGET_NS: u64 = 2_500_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// A question; `range` asks for every second of the span.
pub struct Question {
    pub expr: &'static str,
    pub range: bool,
}

/// From one series to four tenths of all, instant and range.
pub const QUESTIONS: [Question; 7] = [
    Question { expr: "sum(bench_gauge_7)", range: false },
    Question { expr: "count by (__name__) ({__name__=~\"bench_.+\"})", range: false },
    Question { expr: "sum by (instance) (rate(bench_counter_3_total[10s]))", range: false },
    Question { expr: "bench_noise_9{path=\"/healthz\",code=\"500\",container=\"worker-3\"}", range: true },
    Question { expr: "sum by (path) (rate(bench_counter_3_total[10s]))", range: true },
    Question { expr: "topk(5, max_over_time(bench_noise_9[10s]))", range: true },
    Question { expr: "sum by (path, code) ({__name__=~\"bench_counter_.+\"})", range: true },
];

/// Asks one question of every address in turn; the median milliseconds of each.
///
/// # Errors
/// When somebody has no answer.
pub async fn ask(
    clock: &dyn Clock,
    client: &reqwest::Client,
    bases: &[String],
    question: &Question,
    span: (i64, i64),
) -> Result<Vec<f64>, String> {
    let mut took: Vec<Vec<u64>> = vec![Vec::new(); bases.len()];
    for base in bases {
        let body = fetch(client, base, question, span).await?;
        let json: Value = serde_json::from_slice(&body).map_err(|e| format!("{base}: {e}"))?;
        let answered = json["data"]["result"].as_array().is_some_and(|r| !r.is_empty());
        if !answered || json.get("warnings").is_some() {
            let start = String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
            return Err(format!("{base} has no whole answer to {}: {start}", question.expr));
        }
    }
    let begin = clock.mono_ns();
    for round in 0..ROUNDS {
        if round > 0 && clock.mono_ns() - begin > BUDGET_NS {
            break;
        }
        for (times, base) in took.iter_mut().zip(bases) {
            let start = clock.mono_ns();
            fetch(client, base, question, span).await?;
            times.push(clock.mono_ns() - start);
        }
    }
    Ok(took.into_iter().map(|times| median(times) / 1e6).collect())
}

async fn fetch(
    client: &reqwest::Client,
    base: &str,
    question: &Question,
    (start, end): (i64, i64),
) -> Result<Vec<u8>, String> {
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let (start, end) = (seconds(start), seconds(end));
    let mut params = vec![("query", question.expr)];
    let path = if question.range {
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
    times.get(times.len() / 2).copied().unwrap_or(0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_counts() {
        assert_eq!(median(vec![9, 1, 5]), 5.0);
        assert_eq!(median(Vec::new()), 0.0);
        for q in &QUESTIONS {
            assert!(koios_promql::parse(q.expr).is_ok(), "{}", q.expr);
        }
    }
}
