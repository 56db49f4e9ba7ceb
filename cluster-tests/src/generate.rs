//! Random PromQL that makes sense: typed, seeded, over known data.
//!
//! Every vector, matrix and scalar position is filled with an expression of that type, so most queries
//! succeed and the rest fail for reasons of data (matching, duplicate labels). What differs between
//! Prometheus 2.42 and 3.x is left out by construction: durations are whole seconds and samples lie 3.777 s
//! after them, so no sample ever falls on the edge of a window (2.x counts it in, 3.x does not); and
//! `predict_linear` gets no `@`, under which 2.42 loses all steps of a range query but the first.

/// A small deterministic generator (xorshift64*; Vigna, 2016).
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % n.max(1)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const GAUGES: [&str; 3] = ["gauge_a", "gauge_b", "temperature"];
const COUNTERS: [&str; 2] = ["requests_total", "bytes_total"];
const LABELS: [&str; 3] = ["job", "instance", "zone"];
const RANGES: [&str; 5] = ["1m", "2m", "5m", "10m", "31m"];
const OVER_TIME: [&str; 12] = [
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "present_over_time",
    "changes",
    "resets",
    "delta",
];
const RATES: [&str; 5] = ["rate", "increase", "irate", "idelta", "deriv"];
const MATHS: [&str; 14] =
    ["abs", "ceil", "floor", "sqrt", "ln", "log2", "log10", "exp", "sgn", "sin", "cos", "atan", "deg", "rad"];
const AGGREGATIONS: [&str; 8] = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"];

impl Rng {
    fn matchers(&mut self) -> String {
        let mut parts = Vec::new();
        for _ in 0..self.below(3) {
            parts.push(match self.below(7) {
                0 => format!("job=\"{}\"", self.pick(&["api", "db", "none"])),
                1 => format!("zone!=\"{}\"", self.pick(&["a", "b", ""])),
                2 => format!("instance=~\"{}\"", self.pick(&["i[0-3]", "i1|i2", ".*5", "i.+", "(i)1"])),
                3 => format!("instance!~\"{}\"", self.pick(&["i[0-3]", "i1|i2", ".*5"])),
                4 => "zone=~\"a|\"".to_owned(),
                5 => "missing=\"\"".to_owned(),
                _ => "job=~\"a.*|db\"".to_owned(),
            });
        }
        if parts.is_empty() { String::new() } else { format!("{{{}}}", parts.join(",")) }
    }

    fn modifier(&mut self) -> &'static str {
        match self.below(10) {
            0 => " offset 1m",
            1 => " offset 7m",
            2 => " offset -2m",
            3 => " @ start()",
            4 => " @ end() offset 3m",
            _ => "",
        }
    }

    fn labels(&mut self) -> String {
        let n = self.below(3);
        let from = self.below(3);
        (0..n).map(|i| LABELS[(from + i) % 3]).collect::<Vec<_>>().join(", ")
    }

    fn grouping(&mut self) -> String {
        match self.below(4) {
            0 => String::new(),
            1 => format!(" without ({})", self.labels()),
            _ => format!(" by ({})", self.labels()),
        }
    }

    fn selector(&mut self) -> String {
        let all: Vec<&str> = GAUGES.iter().chain(&COUNTERS).copied().collect();
        let name = self.pick(&all);
        format!("{name}{}", self.matchers())
    }

    fn matrix(&mut self, names: &[&str], depth: usize) -> String {
        if depth > 0 && self.below(5) == 0 {
            let inner = self.vector(depth - 1);
            let (range, step) = (self.pick(&["3m", "7m"]), self.pick(&["20s", "1m", ""]));
            return format!("({inner})[{range}:{step}]");
        }
        let name = self.pick(names);
        format!("{name}{}[{}]{}", self.matchers(), self.pick(&RANGES), self.modifier())
    }

    /// An expression that gives a scalar.
    pub fn scalar(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 2 } else { 6 }) {
            0 => self.pick(&["0", "1", "2.5", "-3", "100", "0.125"]).to_owned(),
            1 => self.pick(&["time()", "pi()", "1e3", "0x10"]).to_owned(),
            2 => format!("scalar({})", self.vector(depth - 1)),
            3 => format!("({} + {})", self.scalar(depth - 1), self.scalar(depth - 1)),
            4 => format!("({} * {})", self.scalar(depth - 1), self.scalar(depth - 1)),
            _ => format!("({} >bool {})", self.scalar(depth - 1), self.scalar(depth - 1)),
        }
    }

    /// An expression that gives an instant vector.
    pub fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.below(6) {
                0 => format!("vector({})", self.scalar(0)),
                _ => format!("{}{}", self.selector(), self.modifier()),
            };
        }
        let d = depth - 1;
        match self.below(17) {
            0 => format!("{}({})", self.pick(&RATES), self.matrix(&COUNTERS, d)),
            1 => format!("{}({})", self.pick(&OVER_TIME), self.matrix(&GAUGES, d)),
            2 => format!("{}({})", self.pick(&MATHS), self.vector(d)),
            3 | 4 => format!("{}{} ({})", self.pick(&AGGREGATIONS), self.grouping(), self.vector(d)),
            5 => format!(
                "quantile{} ({}, {})",
                self.grouping(),
                self.pick(&["0.5", "0.9", "0", "1"]),
                self.vector(d)
            ),
            6 => format!("{}(3, temperature{})", self.pick(&["topk", "bottomk"]), self.matchers()),
            7 => format!("({} {} {})", self.vector(d), self.pick(&["+", "-", "*", "/"]), self.scalar(d)),
            8 => format!("({} {} {})", self.vector(d), self.pick(&["+", "-", "*", "/", "%"]), self.vector(d)),
            9 => format!(
                "({} {} on ({}) {})",
                self.vector(d),
                self.pick(&["+", "-", "*"]),
                self.labels(),
                self.vector(d)
            ),
            10 => format!("({} {} {})", self.vector(d), self.pick(&["and", "or", "unless"]), self.vector(d)),
            11 => format!(
                "({} {} {})",
                self.vector(d),
                self.pick(&[">", "<", ">=", "<=", "==", "!=", ">bool", "==bool"]),
                self.scalar(d)
            ),
            12 => format!(
                "histogram_quantile({}, sum by (le) (rate(latency_seconds_bucket{}[{}])))",
                self.pick(&["0.5", "0.9", "0.99"]),
                self.matchers(),
                self.pick(&RANGES)
            ),
            13 => format!("label_replace({}, \"zone\", \"$1-x\", \"instance\", \"(.*)\")", self.vector(d)),
            14 => format!("absent({})", self.vector(d)),
            15 => self.shaped(d),
            _ => format!(
                "(gauge_a{} * on (instance, job) group_left (zone) gauge_b{})",
                self.matchers(),
                self.matchers()
            ),
        }
    }

    fn shaped(&mut self, d: usize) -> String {
        match self.below(9) {
            0 => format!("clamp({}, -5, 50)", self.vector(d)),
            1 => format!("clamp_min({}, {})", self.vector(d), self.pick(&["0", "10"])),
            2 => format!("round({}, {})", self.vector(d), self.pick(&["1", "0.5", "10"])),
            3 => format!(
                "quantile_over_time({}, {})",
                self.pick(&["0.1", "0.5", "0.95"]),
                self.matrix(&GAUGES, d)
            ),
            4 => format!(
                "predict_linear({}{}[{}], 600)",
                self.pick(&GAUGES),
                self.matchers(),
                self.pick(&RANGES)
            ),
            5 => format!("timestamp({})", self.selector()),
            6 => format!("label_join({}, \"all\", \"/\", \"job\", \"zone\")", self.vector(d)),
            7 => format!("-({})", self.vector(d)),
            _ => format!(
                "{}({})",
                self.pick(&["hour", "minute", "day_of_week", "day_of_month", "month", "year"]),
                self.vector(d)
            ),
        }
    }
}
