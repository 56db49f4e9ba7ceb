//! A range query is its instant queries, and the order of series never matters: to the bit.
//!
//! The queries are those of the conformance scripts and a few of our own, on two hours of made data. What
//! names the range itself (`start()`, `end()`, `step()`, `range()`) is left out, since that differs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use koios_model::histogram::Buckets;
use koios_model::{Columns, FloatHistogram, Labels};
use koios_promql::{
    Control, EngineOptions, EvalError, Expr, Helpers, Job, MemorySeries, Plan, QueryOutput, QueryParams,
    SampleValue, SeriesReader, SeriesSet, SeriesSource, Value, parse,
};

const START: i64 = 3_600_000;
const END: i64 = 5_400_000;
const STEP: i64 = 137_000;

fn queries() -> Vec<String> {
    let own = [
        "sum by (job) (rate(http_requests[5m]))",
        "avg_over_time(testmetric[10m]) / on (job) group_left () max by (job) (http_requests)",
        "stddev_over_time(testmetric[13m:41s])",
        "sum(testhistogram) + histogram_quantile(0.9, testhistogram)",
        "quantile by (job) (0.4, rate(testmetric[7m]))",
        "topk(2, http_requests) or bottomk(1, testmetric)",
        "avg(http_requests * 0.1) without (i)",
        "sum(rate(testhistogram[5m])) by (job)",
    ];
    let mut all: Vec<String> = own.iter().map(|q| (*q).to_owned()).collect();
    let shared = std::env::var_os("KOIOS_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let entries = std::fs::read_dir(shared.join("conformance/promql")).expect("the conformance scripts");
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.sort();
    for text in files.iter().filter_map(|f| std::fs::read_to_string(f).ok()) {
        for line in text.lines().map(str::trim).filter(|l| l.starts_with("eval")) {
            let words = if line.contains(" instant ") { 4 } else { 8 };
            all.extend(line.splitn(words + 1, char::is_whitespace).nth(words).map(str::to_owned));
        }
    }
    let of_range = ["start()", "end()", "step()", "range()"];
    all.retain(|q| !of_range.iter().any(|w| q.to_lowercase().contains(&w[..w.len() - 1])));
    all.sort();
    all.dedup();
    all
}

/// Metric names that the scripts use most, so that most queries find something.
const NAMES: [&str; 16] = [
    "http_requests",
    "http_requests_total",
    "metric",
    "testmetric",
    "testcounter_reset_middle",
    "foo",
    "bar",
    "x",
    "y",
    "testhistogram",
    "request_duration_seconds_bucket",
    "data",
    "series",
    "some_metric",
    "node_cpu",
    "up",
];

fn store() -> Vec<Arc<MemorySeries>> {
    let mut all = Vec::new();
    for (n, name) in NAMES.into_iter().enumerate() {
        for i in 0..6usize {
            let mut columns = Columns::default();
            for k in 0..480i64 {
                if (k + i as i64 * 37) % 101 < 3 {
                    continue;
                }
                let v = (k * 7919 + (i * n) as i64 * 31) % 997;
                if name == "testhistogram" {
                    let counts: Vec<(i32, f64)> =
                        (0..5).map(|b| (b, (k * i64::from(b + 1) + i as i64) as f64)).collect();
                    let h = FloatHistogram {
                        count: (k * 15 + 5 * i as i64) as f64,
                        sum: v as f64 * 0.1,
                        positive: Buckets::from_sorted(counts),
                        ..FloatHistogram::default()
                    };
                    columns.push_histogram(k * 15_000, Arc::new(h));
                } else {
                    columns.push(k * 15_000, v as f64 * 0.1);
                }
            }
            let le = ["0.1", "0.5", "+Inf"][i % 3].to_owned();
            let labels = [
                ("__name__", name.to_owned()),
                ("job", format!("j{}", i / 3)),
                ("i", i.to_string()),
                ("le", le),
            ];
            all.push(Arc::new(MemorySeries { labels: Labels::from_pairs(labels), columns }));
        }
    }
    all
}

/// `labels` → `time` → bits, or the error.
type Answer = Result<BTreeMap<String, BTreeMap<i64, String>>, String>;

fn bits(v: &SampleValue) -> String {
    match v {
        SampleValue::Float(f) => format!("{:x}", f.to_bits()),
        SampleValue::Histogram(h) => format!("{:x} {:x} {h:?}", h.sum.to_bits(), h.count.to_bits()),
    }
}

fn run(store: &[Arc<MemorySeries>], expr: &Expr, params: &QueryParams) -> Answer {
    run_on(store, expr, params, None).0
}

/// The answer and all annotations, on as many threads as are lent.
fn run_on(
    store: &[Arc<MemorySeries>],
    expr: &Expr,
    params: &QueryParams,
    helpers: Option<Arc<dyn Helpers>>,
) -> (Answer, Vec<String>) {
    run_as(store, expr, params, |plan, inputs| match helpers {
        None => plan.evaluate(inputs, &Control::new()),
        Some(helpers) => plan.evaluate_helped(inputs, &Control::new(), helpers),
    })
}

type Lists = Vec<Vec<Box<dyn SeriesSource>>>;

fn run_as(
    store: &[Arc<MemorySeries>],
    expr: &Expr,
    params: &QueryParams,
    evaluate: impl FnOnce(&Arc<Plan>, Lists) -> Result<QueryOutput, EvalError>,
) -> (Answer, Vec<String>) {
    let mut notes = Vec::new();
    let answer = answer(store, expr, params, evaluate, &mut notes);
    (answer, notes)
}

fn answer(
    store: &[Arc<MemorySeries>],
    expr: &Expr,
    params: &QueryParams,
    evaluate: impl FnOnce(&Arc<Plan>, Lists) -> Result<QueryOutput, EvalError>,
    notes: &mut Vec<String>,
) -> Answer {
    let plan = Arc::new(Plan::new(expr, params).map_err(|e| e.to_string())?);
    let inputs = plan.selects().iter().map(|s| {
        let wanted = |m: &&Arc<MemorySeries>| s.matchers.iter().all(|k| k.matches(m.labels.value(&k.name)));
        store.iter().filter(wanted).map(|m| Box::new(m.clone()) as Box<dyn SeriesSource>).collect()
    });
    let output = evaluate(&plan, inputs.collect()).map_err(|e| e.to_string())?;
    notes.extend(output.warnings.into_iter().chain(output.infos));
    let mut all: BTreeMap<String, BTreeMap<i64, String>> = BTreeMap::new();
    match output.value {
        Value::Scalar(t, v) => {
            drop(all.entry("{}".to_owned()).or_default().insert(t, bits(&SampleValue::Float(v))))
        }
        Value::Vector(v) => {
            for s in v {
                let before = all.entry(s.labels.to_string()).or_default().insert(s.t_ms, bits(&s.value));
                assert!(before.is_none(), "{} comes twice", s.labels);
            }
        }
        Value::Matrix(m) => {
            for s in m {
                let points = all.entry(s.labels.to_string()).or_default();
                points.extend(s.floats.iter().map(|(t, v)| (t, bits(&SampleValue::Float(v)))));
                points
                    .extend(s.histograms.iter().map(|(t, h)| (*t, bits(&SampleValue::Histogram(h.clone())))));
            }
        }
        Value::String(..) => {}
    }
    Ok(all)
}

#[test]
fn ranges_are_their_instants_and_order_never_matters() {
    let store = store();
    let mut reversed = store.clone();
    reversed.reverse();
    reversed.rotate_left(17);
    let (mut compared, mut found) = (0, 0);
    for query in queries() {
        let Ok(expr) = parse(&query) else { continue };
        let options = EngineOptions::default();
        let range = QueryParams { options: options.clone(), ..QueryParams::range(START, END, STEP) };
        let Ok(whole) = run(&store, &expr, &range) else { continue };
        assert_eq!(run(&reversed, &expr, &range).as_ref(), Ok(&whole), "another order of series: {query}");
        let mut t = START;
        while t <= END {
            let instant = QueryParams { options: options.clone(), ..QueryParams::instant(t) };
            let one = run(&store, &expr, &instant).unwrap_or_else(|e| panic!("{query} at {t}: {e}"));
            let of_whole: BTreeMap<_, _> = whole
                .iter()
                .filter_map(|(l, points)| Some((l.clone(), BTreeMap::from([(t, points.get(&t)?.clone())]))))
                .collect();
            assert_eq!(one, of_whole, "{query} at {t}");
            (compared, found) = (compared + 1, found + u32::from(!one.is_empty()));
            t += STEP;
        }
    }
    println!("{compared} instants compared, {found} of them with a result");
    assert!(compared > 5000 && found > 1500, "{compared} compared, {found} found");
}

/// Threads that run some jobs, beside some that run at once and some that never run.
struct Lent {
    shards: usize,
    jobs: Sender<Job>,
    taken: AtomicUsize,
}

impl Lent {
    fn new(shards: usize) -> Self {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || queue.into_iter().for_each(|job| job()));
        Self { shards, jobs, taken: AtomicUsize::new(0) }
    }
}

impl Helpers for Lent {
    fn most(&self) -> usize {
        self.shards - 1
    }

    fn block_series(&self) -> Option<usize> {
        Some(1)
    }

    fn take(&self, job: Job) {
        match self.taken.fetch_add(1, Ordering::Relaxed) % 5 {
            0 | 1 => job(),
            2 => drop(job),
            _ => drop(self.jobs.send(job)),
        }
    }
}

#[test]
fn the_number_of_threads_never_matters() {
    let store = store();
    let lent: Vec<Arc<Lent>> = [1, 2, 3, 7].into_iter().map(|shards| Arc::new(Lent::new(shards))).collect();
    let mut compared = 0;
    for query in queries() {
        let Ok(expr) = parse(&query) else { continue };
        for params in [QueryParams::range(START, END, STEP), QueryParams::instant(END)] {
            let params = QueryParams { options: EngineOptions::all(), ..params };
            let alone = run_on(&store, &expr, &params, None);
            for helpers in &lent {
                let helped = run_on(&store, &expr, &params, Some(helpers.clone()));
                assert_eq!(helped, alone, "{query} in {} shards", helpers.shards);
                compared += 1;
            }
        }
    }
    let taken: Vec<usize> = lent.iter().map(|l| l.taken.load(Ordering::Relaxed)).collect();
    println!("{compared} evaluations compared, jobs taken: {taken:?}");
    assert!(compared > 5000 && taken[0] == 0 && taken[1..].iter().all(|n| *n > 1000), "{compared} {taken:?}");
}

/// Series that are read when they are looked at, and give nothing of their labels but what was asked for.
struct Lazy {
    list: Vec<Box<dyn SeriesSource>>,
    sorted: bool,
    pruned: Arc<AtomicUsize>,
}

struct LazyReader<'a>(&'a Lazy, Option<&'a [String]>);

impl SeriesSet for Lazy {
    fn len(&self) -> usize {
        self.list.len()
    }

    fn is_sorted(&self) -> bool {
        self.sorted
    }

    fn reader<'a>(&'a self, labels: Option<&'a [String]>) -> Box<dyn SeriesReader + 'a> {
        Box::new(LazyReader(self, labels))
    }
}

impl SeriesReader for LazyReader<'_> {
    fn labels(&mut self, at: usize) -> Result<Labels, String> {
        Ok(self.0.list[at].labels().clone())
    }

    fn read(&mut self, at: usize, mint: i64, maxt: i64, out: &mut Columns) -> Result<Labels, String> {
        self.0.list[at].read(mint, maxt, out)?;
        let labels = self.labels(at)?;
        let Some(names) = self.1 else { return Ok(labels) };
        let kept = labels.keep(names);
        self.0.pruned.fetch_add(usize::from(kept != labels), Ordering::Relaxed);
        Ok(kept)
    }
}

#[test]
fn series_that_are_read_late_and_without_unused_labels_give_the_same() {
    let store = store();
    let pruned = Arc::new(AtomicUsize::new(0));
    let helpers = Arc::new(Lent::new(2));
    let mut compared = 0;
    let more = ["sum by (job) (rate(http_requests_total[5m]))", "-sum by (job) (-(-{job=\"j1\"}))"];
    for query in queries().into_iter().chain(more.map(str::to_owned)) {
        let Ok(expr) = parse(&query) else { continue };
        for options in [EngineOptions::default(), EngineOptions::all()] {
            for params in [QueryParams::range(START, END, STEP), QueryParams::instant(END)] {
                let params = QueryParams { options: options.clone(), ..params };
                let listed = run_on(&store, &expr, &params, None);
                let lazy = run_as(&store, &expr, &params, |plan, lists| {
                    let sets = lists.into_iter().map(|mut list| {
                        let sorted = compared % 2 == 0;
                        if sorted {
                            list.sort_by(|a, b| a.labels().cmp(b.labels()));
                        }
                        Box::new(Lazy { list, sorted, pruned: pruned.clone() }) as Box<dyn SeriesSet>
                    });
                    plan.evaluate_sets(sets.collect(), &Control::new(), helpers.clone())
                });
                assert_eq!(lazy, listed, "{query}");
                compared += 1;
            }
        }
    }
    let pruned = pruned.load(Ordering::Relaxed);
    println!("{compared} evaluations compared, {pruned} series without some of their labels");
    assert!(compared > 2000 && pruned > 500, "{compared} {pruned}");
}

/// Parts of the plan evaluated over series in `count` shards, and the rest with what they gave; how many parts.
fn in_parts(
    plan: &Arc<Plan>,
    mut inputs: Lists,
    count: u64,
    pushes: &AtomicUsize,
) -> Result<QueryOutput, EvalError> {
    let mut pushed = Vec::new();
    for what in plan.pushable() {
        let series = std::mem::take(&mut inputs[what.input]);
        let mut shards: Lists = (0..count).map(|_| Vec::new()).collect();
        let whole: Vec<Box<dyn SeriesSource>> = series;
        let mut copies: Vec<Arc<MemorySeries>> = Vec::new();
        for s in whole {
            let mut columns = Columns::default();
            s.read(i64::MIN, i64::MAX, &mut columns).expect("in memory");
            copies.push(Arc::new(MemorySeries { labels: s.labels().clone(), columns }));
        }
        for s in &copies {
            shards[(s.labels.hash64() % count) as usize].push(Box::new(s.clone()));
        }
        let parts = shards.into_iter().map(|set| plan.evaluate_part(&what, Box::new(set), &Control::new()));
        match parts.collect::<Result<Option<Vec<_>>, EvalError>>()? {
            Some(rows) => {
                pushes.fetch_add(1, Ordering::Relaxed);
                pushed.push((what, rows));
            }
            None => {
                inputs[what.input] =
                    copies.into_iter().map(|s| Box::new(s) as Box<dyn SeriesSource>).collect()
            }
        }
    }
    let inputs = inputs.into_iter().map(|list| Box::new(list) as Box<dyn SeriesSet>).collect();
    plan.evaluate_pushed(inputs, pushed, &Control::new(), Arc::new(Alone))
}

/// Nobody helps.
struct Alone;

impl Helpers for Alone {
    fn most(&self) -> usize {
        0
    }

    fn take(&self, _: Job) {}
}

#[test]
fn parts_that_are_evaluated_elsewhere_give_the_same() {
    let store = store();
    let (mut compared, pushes) = (0, AtomicUsize::new(0));
    let mut all = queries();
    all.extend(
        ["-min(x - x)", "max by (job) (-(y - y))", "count by (job) (data) / sum by (job) (data)"]
            .map(str::to_owned),
    );
    for query in all {
        let Ok(expr) = parse(&query) else { continue };
        for params in [QueryParams::instant(END), QueryParams::range(START, END, STEP)] {
            for options in [EngineOptions::default(), EngineOptions::all()] {
                let params = QueryParams { options, ..params.clone() };
                let whole = run_on(&store, &expr, &params, None);
                for count in [1, 2, 3, 7] {
                    let parts =
                        run_as(&store, &expr, &params, |plan, inputs| in_parts(plan, inputs, count, &pushes));
                    assert_eq!(parts, whole, "{query} in {count} parts");
                    compared += 1;
                }
            }
        }
    }
    let pushes = pushes.into_inner();
    assert!(compared > 2000 && pushes > 1000, "{compared} compared, {pushes} parts were evaluated elsewhere");
}
