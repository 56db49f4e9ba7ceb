//! Where inputs come from.
//!
//! Owns the generator of random numbers, the corpus (the queries of the conformance scripts when they are
//! there, and a few of our own) and the mutations.

use std::path::PathBuf;

/// A small deterministic generator (xorshift64*; Vigna, 2016).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % n.max(1)
    }
}

const SEEDS: [&str; 24] = [
    "metric",
    "sum by (job) (rate(http_requests_total{job=~\"j.*\"}[5m]))",
    "histogram_quantile(0.9, sum by (le) (rate(m_bucket[5m])))",
    "max_over_time(rate(metric[1m])[10m:30s])",
    "metric / on (job) group_left (le) http_requests_total",
    "metric + ignoring (le) fill_left(0) fill_right(1) http_requests_total",
    "topk(3, metric) and limit_ratio(-0.5, metric)",
    "label_replace(metric, \"a\", \"$1-x\", \"job\", \"(.*)\")",
    "metric @ start() offset -(5m + step())",
    "rate(metric[5m] smoothed) > bool increase(metric[5m] anchored)",
    "quantile_over_time(0.5, metric[31m] @ 300.5)",
    "info(metric, {job=\"j1\"})",
    "{\"utf8 näme\", 'länger'=~\"a|b\"}",
    "count_values without (le) (\"v\", round(metric, 0.25))",
    "-metric ^ 2 ^ -1 % 3 atan2 4",
    "sort_by_label_desc(metric, \"job\", \"le\") unless metric{le=\"1\"}",
    "double_exponential_smoothing(metric[5m], 0.3, 0.9)",
    "absent_over_time(metric{job=\"x\",le!~\"1.*\"}[5m:])",
    "scalar(metric{job=\"j0\"}) + vector(time()) - 0x1F + 1e-3 + Inf + NaN",
    "ts_of_max_over_time(metric[1h30m]) or mad_over_time(metric[1h])",
    "stddev_over_time(metric[5m]) >/ 3 </ 4",
    "predict_linear(metric[5m:15s] offset 1m, 3600)",
    "day_of_week(vector(1e18)) + month() + days_in_month(timestamp(metric))",
    "label_join(metric, \"j\", \"-\", \"job\", \"le\") # done",
];

const TOKENS: [&str; 104] = [
    "metric",
    "http_requests_total",
    "m_bucket",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ",",
    "=",
    "!=",
    "=~",
    "!~",
    "==",
    ">",
    "<",
    ">=",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "atan2",
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "by",
    "without",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "@",
    "start()",
    "end()",
    "step()",
    "range()",
    ":",
    "5m",
    "1h30m",
    "0",
    "1",
    "-1",
    "0.5",
    "1e308",
    "0x7f",
    "NaN",
    "Inf",
    "9223372036854775807",
    "1ms",
    "100y",
    "\"\"",
    "\"job\"",
    "'le'",
    "`a`",
    "\"(.*)\"",
    "\"[\"",
    "\"$1\"",
    "\\",
    "#",
    "\n",
    " ",
    "job",
    "le",
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
    "limitk",
    "limit_ratio",
    "stddev",
    "group",
    "rate",
    "increase",
    "irate",
    "delta",
    "deriv",
    "abs",
    "clamp",
    "round",
    "label_replace",
    "histogram_quantile",
    "sum_over_time",
    "quantile_over_time",
    "absent",
    "scalar",
    "vector",
    "time()",
    "anchored",
    "smoothed",
    "fill",
    "fill_left",
    "info",
    "ü",
];

/// Longest input kept for mutation, bytes.
const LENGTH_MAX: usize = 400;

pub struct Inputs {
    corpus: Vec<String>,
}

impl Inputs {
    /// Own seeds, and the queries of the conformance scripts when they are there.
    pub fn load() -> Self {
        let mut corpus: Vec<String> = SEEDS.iter().map(|s| (*s).to_owned()).collect();
        let shared = std::env::var_os("KOIOS_SHARED").map(PathBuf::from);
        let shared =
            shared.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
        let Ok(entries) = std::fs::read_dir(shared.join("conformance/promql")) else {
            return Self { corpus };
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        files.sort();
        for text in files.iter().filter_map(|f| std::fs::read_to_string(f).ok()) {
            for line in text.lines().map(str::trim).filter(|l| l.starts_with("eval")) {
                let words = if line.contains(" instant ") { 4 } else { 8 };
                let rest = line.splitn(words + 1, char::is_whitespace).nth(words);
                corpus.extend(rest.map(str::to_owned).filter(|q| q.len() <= LENGTH_MAX));
            }
        }
        Self { corpus }
    }

    /// One input.
    pub fn next(&self, rng: &mut Rng) -> String {
        match rng.below(4) {
            0 => soup(rng),
            1 => self.bytes(rng),
            _ => self.spliced(rng),
        }
    }

    fn seed(&self, rng: &mut Rng) -> &str {
        &self.corpus[rng.below(self.corpus.len())]
    }

    /// A known query some of whose balanced pieces are pieces of other queries, or are repeated around it.
    fn spliced(&self, rng: &mut Rng) -> String {
        let mut query = self.seed(rng).to_owned();
        for _ in 0..1 + rng.below(3) {
            let donor = self.seed(rng);
            let piece = if rng.below(2) == 0 { donor } else { inner(donor, rng) };
            query = match rng.below(7) {
                0 => format!("({query}) {} ({piece})", OPERATORS[rng.below(OPERATORS.len())]),
                1 => format!("{}({query})", CALLS[rng.below(CALLS.len())]),
                2 => format!(
                    "({query})[{}:{}]",
                    RANGES[rng.below(RANGES.len())],
                    ["", "15s", "1m"][rng.below(3)]
                ),
                3 => format!("sum_over_time(({query})[{}:7s])", RANGES[rng.below(RANGES.len())]),
                4 => {
                    let hole = inner(&query, rng);
                    query.replacen(hole, piece, 1)
                }
                5 => {
                    let token = TOKENS[rng.below(TOKENS.len())];
                    let at = boundary(&query, rng.below(query.len() + 1));
                    format!("{} {token} {}", &query[..at], &query[at..])
                }
                _ => format!("({query}) offset {}", RANGES[rng.below(RANGES.len())]),
            };
            query.truncate(boundary(&query, 4 * LENGTH_MAX));
        }
        query
    }

    /// A known query with bytes changed, doubled, or cut out.
    fn bytes(&self, rng: &mut Rng) -> String {
        let mut bytes = self.seed(rng).as_bytes().to_vec();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len());
            match rng.below(4) {
                0 if !bytes.is_empty() => bytes[at] = rng.below(256) as u8,
                1 if !bytes.is_empty() => drop(bytes.drain(at..(at + 1 + rng.below(5)).min(bytes.len()))),
                2 => bytes.insert(at, PUNCTUATION[rng.below(PUNCTUATION.len())]),
                _ => {
                    let piece = bytes[at..(at + rng.below(20)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

const OPERATORS: [&str; 18] = [
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "atan2",
    "==",
    "!= bool",
    ">",
    "<= bool",
    "and",
    "or",
    "unless on ()",
    "+ on (job) group_left ()",
    "- ignoring (le) group_right (x)",
    "* fill(0)",
    ">/",
];
const CALLS: [&str; 16] = [
    "sum",
    "topk by (job) (2,",
    "abs",
    "rate",
    "avg without (le)",
    "label_replace",
    "quantile(NaN,",
    "absent",
    "histogram_quantile(0.9,",
    "scalar",
    "sort",
    "-",
    "timestamp",
    "count_values(\"x\",",
    "day_of_month",
    "stdvar",
];
const PUNCTUATION: &[u8] = b"(){}[]\"'`\\,=!~#@:\n 019eE.-+xymsdhwy";
const RANGES: [&str; 10] =
    ["1s", "5m", "1h", "100y", "1ms", "0s", "(5m+1s)", "step()", "-1m", "max(1m, range()/3)"];

fn soup(rng: &mut Rng) -> String {
    let words: Vec<&str> = (0..1 + rng.below(14)).map(|_| TOKENS[rng.below(TOKENS.len())]).collect();
    words.join(if rng.below(2) == 0 { "" } else { " " })
}

/// The nearest character boundary at or below `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

/// The content of a random pair of parentheses, or the whole.
fn inner<'t>(text: &'t str, rng: &mut Rng) -> &'t str {
    let opens: Vec<usize> = text.match_indices('(').map(|(i, _)| i).collect();
    let Some(&open) = opens.get(rng.below(opens.len())) else { return text };
    let mut depth = 0usize;
    for (i, c) in text[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return &text[open + 1..open + i],
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}
