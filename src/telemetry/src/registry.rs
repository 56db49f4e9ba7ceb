//! The registry: families by name, series by label values, collectors for values that live elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::metrics::{Counter, Gauge, Histogram, SECONDS};
use crate::render::{Emitter, MetricKind};

/// Series of one family, unless it says otherwise.
pub const SERIES_MAX: usize = 1000;
/// Label value of the series that takes what is beyond the bound.
pub const OTHER: &str = "other";

/// One series' place to store its value.
pub(crate) trait Cell: Clone + Send + Sync {
    const KIND: MetricKind;
    fn emit(&self, emitter: &mut Emitter, name: &str, help: &str, labels: &[(&str, &str)]);
}

impl Cell for Counter {
    const KIND: MetricKind = MetricKind::Counter;
    fn emit(&self, emitter: &mut Emitter, name: &str, help: &str, labels: &[(&str, &str)]) {
        emitter.counter(name, help, labels, self.get());
    }
}

impl Cell for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;
    fn emit(&self, emitter: &mut Emitter, name: &str, help: &str, labels: &[(&str, &str)]) {
        emitter.gauge(name, help, labels, self.get());
    }
}

impl Cell for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;
    fn emit(&self, emitter: &mut Emitter, name: &str, help: &str, labels: &[(&str, &str)]) {
        emitter.histogram(name, help, labels, self);
    }
}

struct Shared<C> {
    name: String,
    help: String,
    labels: Vec<&'static str>,
    max: usize,
    make: Box<dyn Fn() -> C + Send + Sync>,
    series: RwLock<BTreeMap<Vec<String>, C>>,
}

/// A family with labels.
pub struct Family<C>(Arc<Shared<C>>);

/// Counters by label values.
pub type CounterVec = Family<Counter>;
/// Gauges by label values.
pub type GaugeVec = Family<Gauge>;
/// Histograms by label values.
pub type HistogramVec = Family<Histogram>;

impl<C> Clone for Family<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Clone> Family<C> {
    /// The series with these label values, in the order the labels were declared. Keep the handle: looking it
    /// up takes a lock.
    ///
    /// # Panics
    /// When the number of values is not the number of labels.
    pub fn with(&self, values: &[&str]) -> C {
        let f = &self.0;
        assert_eq!(values.len(), f.labels.len(), "BUG: {} takes {:?}", f.name, f.labels);
        let key: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        if let Some(found) = f.series.read().get(&key) {
            return found.clone();
        }
        let mut series = f.series.write();
        // A family without labels has its one series whatever the bound.
        let full = series.len() >= f.max && !key.is_empty() && !series.contains_key(&key);
        let key = if full { vec![OTHER.to_owned(); key.len()] } else { key };
        series.entry(key).or_insert_with(|| (f.make)()).clone()
    }

    /// Forgets a series, e.g. of a target that went away. Handles still out there record into nothing.
    pub fn remove(&self, values: &[&str]) {
        self.0.series.write().retain(|k, _| !k.iter().map(String::as_str).eq(values.iter().copied()));
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.0.series.read().len()
    }

    /// Whether there is no series yet.
    pub fn is_empty(&self) -> bool {
        self.0.series.read().is_empty()
    }
}

enum Any {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

impl Any {
    fn shape(&self) -> (MetricKind, &[&'static str]) {
        match self {
            Any::Counter(f) => (MetricKind::Counter, &f.0.labels),
            Any::Gauge(f) => (MetricKind::Gauge, &f.0.labels),
            Any::Histogram(f) => (MetricKind::Histogram, &f.0.labels),
        }
    }
}

type Collector = Box<dyn Fn(&mut Emitter) + Send + Sync>;

/// All metrics of one node. Share it by `Arc`.
#[derive(Default)]
pub struct Registry {
    families: Mutex<BTreeMap<String, Any>>,
    collectors: Mutex<Vec<Collector>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A counter without labels. The same name gives the same counter.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.counter_vec(name, help, &[]).with(&[])
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauge_vec(name, help, &[]).with(&[])
    }

    /// A histogram without labels, over durations in seconds.
    pub fn histogram(&self, name: &str, help: &str) -> Histogram {
        self.histogram_vec(name, help, &[], SECONDS).with(&[])
    }

    /// Counters with labels, at most `SERIES_MAX` series.
    pub fn counter_vec(&self, name: &str, help: &str, labels: &[&'static str]) -> CounterVec {
        let made = family(name, help, labels, Box::new(Counter::default));
        match self.register(name, Any::Counter(made.clone())) {
            Some(found) => found.counter(),
            None => made,
        }
    }

    /// Gauges with labels, at most `SERIES_MAX` series.
    pub fn gauge_vec(&self, name: &str, help: &str, labels: &[&'static str]) -> GaugeVec {
        let made = family(name, help, labels, Box::new(Gauge::default));
        match self.register(name, Any::Gauge(made.clone())) {
            Some(found) => found.gauge(),
            None => made,
        }
    }

    /// Histograms with labels and given upper bounds, ascending and without infinity; at most `SERIES_MAX`
    /// series.
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&'static str],
        bounds: &[f64],
    ) -> HistogramVec {
        let bounds: Arc<[f64]> = bounds.into();
        let made = family(name, help, labels, Box::new(move || Histogram::new(bounds.clone())));
        match self.register(name, Any::Histogram(made.clone())) {
            Some(found) => found.histogram(),
            None => made,
        }
    }

    /// Adds a function that reports values owned elsewhere at each rendering. It must be quick and must not
    /// call the registry.
    pub fn collector(&self, collect: impl Fn(&mut Emitter) + Send + Sync + 'static) {
        self.collectors.lock().push(Box::new(collect));
    }

    /// Everything in text format 0.0.4, sorted by name and labels.
    pub fn render_text(&self) -> String {
        let mut emitter = Emitter::default();
        for family in self.families.lock().values() {
            match family {
                Any::Counter(f) => emit(f, &mut emitter),
                Any::Gauge(f) => emit(f, &mut emitter),
                Any::Histogram(f) => emit(f, &mut emitter),
            }
        }
        for collect in self.collectors.lock().iter() {
            collect(&mut emitter);
        }
        emitter.finish()
    }

    /// Enters a family; returns the one that is there already under this name.
    fn register(&self, name: &str, made: Any) -> Option<Found> {
        let mut families = self.families.lock();
        if let Some(there) = families.get(name) {
            assert!(there.shape() == made.shape(), "BUG: metric {name} is registered with two shapes");
            return Some(Found::of(there));
        }
        families.insert(name.to_owned(), made);
        None
    }
}

/// A family that was there, whose kind `register` has checked.
enum Found {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

impl Found {
    fn of(any: &Any) -> Self {
        match any {
            Any::Counter(f) => Found::Counter(f.clone()),
            Any::Gauge(f) => Found::Gauge(f.clone()),
            Any::Histogram(f) => Found::Histogram(f.clone()),
        }
    }

    fn counter(self) -> CounterVec {
        if let Found::Counter(f) = self { f } else { unreachable!("BUG: kind was checked") }
    }

    fn gauge(self) -> GaugeVec {
        if let Found::Gauge(f) = self { f } else { unreachable!("BUG: kind was checked") }
    }

    fn histogram(self) -> HistogramVec {
        if let Found::Histogram(f) = self { f } else { unreachable!("BUG: kind was checked") }
    }
}

fn family<C>(
    name: &str,
    help: &str,
    labels: &[&'static str],
    make: Box<dyn Fn() -> C + Send + Sync>,
) -> Family<C> {
    let (name, help, labels) = (name.to_owned(), help.to_owned(), labels.to_vec());
    Family(Arc::new(Shared { name, help, labels, max: SERIES_MAX, make, series: RwLock::default() }))
}

fn emit<C: Cell>(family: &Family<C>, emitter: &mut Emitter) {
    let f = &family.0;
    emitter.family(&f.name, &f.help, C::KIND);
    for (values, cell) in f.series.read().iter() {
        let labels: Vec<(&str, &str)> =
            f.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
        cell.emit(emitter, &f.name, &f.help, &labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_sorted_text() {
        let r = Registry::new();
        r.counter("b_total", "Second.").inc_by(3);
        r.counter("b_total", "Second.").inc();
        let v = r.counter_vec("a_total", "First \\ with\nescapes.", &["job"]);
        v.with(&["z"]).add(0.5);
        v.with(&["q\"\\\n"]).inc();
        r.gauge("g", "Gauge.").set(-1e-7);
        r.histogram_vec("h_seconds", "Histogram.", &["x"], &[0.5, 1.0]).with(&["1"]).observe(0.7);
        r.gauge_vec("silent", "No series yet.", &["x"]);
        let owned_elsewhere = Arc::new(Mutex::new(vec![("x", 1.0), ("y", 2.0)]));
        r.collector(move |e| {
            for (name, value) in owned_elsewhere.lock().iter() {
                e.gauge("c_items", "Items.", &[("queue", name)], *value);
            }
        });
        let want = "# HELP a_total First \\\\ with\\nescapes.\n# TYPE a_total counter\na_total{job=\"q\\\"\\\\\\n\"} 1\na_total{job=\"z\"} 0.5\n\
                    # HELP b_total Second.\n# TYPE b_total counter\nb_total 4\n\
                    # HELP c_items Items.\n# TYPE c_items gauge\nc_items{queue=\"x\"} 1\nc_items{queue=\"y\"} 2\n\
                    # HELP g Gauge.\n# TYPE g gauge\ng -1e-07\n\
                    # HELP h_seconds Histogram.\n# TYPE h_seconds histogram\nh_seconds_bucket{x=\"1\",le=\"0.5\"} 0\n\
                    h_seconds_bucket{x=\"1\",le=\"1\"} 1\nh_seconds_bucket{x=\"1\",le=\"+Inf\"} 1\nh_seconds_sum{x=\"1\"} 0.7\nh_seconds_count{x=\"1\"} 1\n";
        assert_eq!(r.render_text(), want);
    }

    #[test]
    fn cardinality_is_bounded() {
        let r = Registry::new();
        let v = r.counter_vec("c_total", "C.", &["tenant"]);
        for i in 0..5000 {
            v.with(&[&i.to_string()]).inc();
        }
        assert_eq!(v.len(), SERIES_MAX + 1);
        assert_eq!(v.with(&[OTHER]).get(), 4000.0);
        v.remove(&["7"]);
        assert_eq!(v.len(), SERIES_MAX);
    }

    #[test]
    fn registries_are_separate() {
        let (a, b) = (Registry::new(), Registry::new());
        a.counter("x_total", "X.").inc();
        assert_eq!(b.counter("x_total", "X.").get(), 0.0);
    }

    #[test]
    #[should_panic(expected = "BUG: metric x is registered with two shapes")]
    fn two_shapes_are_a_bug() {
        let r = Registry::new();
        r.counter("x", "X.");
        r.gauge("x", "X.");
    }
}
