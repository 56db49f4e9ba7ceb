//! `info`: adds the data labels of info metrics to the series they identify.
//!
//! Info series are found by the identifying labels `job` and `instance`. Of several series of the same info
//! metric the one with the newest sample counts; two with equally new samples, or two info metrics that
//! disagree about a label, are an error.

use hashbrown::HashMap;
use koios_model::{Labels, LabelsBuilder, METRIC_NAME, Matcher};

use crate::api::EvalError;
use crate::binary::go_labels;
use crate::engine::{Cell, Column, Ctx, Point, Res, Row, Sink, Timeline};
use crate::plan::{Call, NodeKind, SelectNode};

/// Units of work of one info series at one step.
const STEP_WORK: usize = 64;

const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// An info series with the time of the sample it shows at every step, if any.
struct InfoRow {
    labels: Labels,
    times: Vec<Option<i64>>,
}

impl Ctx<'_> {
    pub(super) fn info_rows(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let NodeKind::Select(select) = &c.args[1].kind else {
            return Err(EvalError::exec("info() has no select of info series"));
        };
        let infos = self.info_series(select, tl)?;
        let mut by_id: HashMap<Labels, Vec<usize>> = HashMap::new();
        for (i, info) in infos.iter().enumerate() {
            self.work(info.labels.heap_bytes())?;
            by_id.entry(info.labels.keep(&IDENTIFYING)).or_default().push(i);
        }
        let wanted: Vec<&Matcher> = select.matchers.iter().filter(|m| m.name != METRIC_NAME).collect();
        let needs_match = wanted.iter().any(|m| !m.matches_empty());
        let names: Vec<&Matcher> = select.matchers.iter().filter(|m| m.name == METRIC_NAME).collect();
        let base = self.collect(&c.args[0], tl)?;
        let mut out = crate::aggregates::Groups::new();
        for row in &base.rows {
            self.work_row(row)?;
            // An info series is not enriched itself.
            let is_info = names.iter().all(|m| m.matches(row.labels.metric_name()));
            if is_info {
                add(&mut out, row.labels.clone(), row, tl, None);
                continue;
            }
            let id = row.labels.keep(&IDENTIFYING);
            let candidates = if id.is_empty() { None } else { by_id.get(&id) };
            let mut cache: HashMap<Vec<usize>, Labels> = HashMap::new();
            for (step, _) in row.col.present() {
                self.work(STEP_WORK * (1 + candidates.map_or(0, Vec::len)))?;
                let chosen = newest(&infos, candidates.map_or(&[], Vec::as_slice), step)?;
                if chosen.is_empty() && needs_match {
                    continue;
                }
                let labels = match cache.get(&chosen) {
                    Some(l) => l.clone(),
                    None => {
                        let l = enriched(&row.labels, &chosen, &infos, &wanted)?;
                        cache.insert(chosen, l.clone());
                        l
                    }
                };
                add(&mut out, labels, row, tl, Some(step));
            }
        }
        for (labels, drop_name, col) in out.list {
            sink(Row { labels, drop_name, col })?;
        }
        Ok(())
    }

    fn info_series(&self, select: &SelectNode, tl: &Timeline) -> Res<Vec<InfoRow>> {
        let mut infos = Vec::new();
        let mut charge = self.budget.charge(0)?;
        self.each_series(select, |labels, columns| {
            let mut times = vec![None; tl.n];
            let mut histogram = false;
            self.each_instant(select, tl, columns, |i, at| {
                histogram |= columns.histogram(at).is_some();
                times[i] = Some(columns.times[at]);
            })?;
            if histogram {
                let text = format!("this should be an info metric, with float samples: {}", labels);
                return Err(EvalError::exec(text));
            }
            if times.iter().any(Option::is_some) {
                charge.add(tl.n as u64)?;
                infos.push(InfoRow { labels: labels.clone(), times });
            }
            Ok(())
        })?;
        Ok(infos)
    }
}

/// Puts one step of a row, or all of them, under other labels.
fn add(
    out: &mut crate::aggregates::Groups<Column>,
    labels: Labels,
    row: &Row,
    tl: &Timeline,
    step: Option<usize>,
) {
    let g = out.find(labels, row.drop_name, || Column::absent(tl.n));
    let steps = step.map_or(0..tl.n, |s| s..s + 1);
    for i in steps {
        match row.col.get(i) {
            Cell::None => {}
            Cell::Float(v) => out.list[g].2.set_float(i, v),
            Cell::Hist(h) => out.list[g].2.set(i, Point::Hist(h.clone())),
        }
    }
}

/// For each info metric among the candidates the series with the newest sample at a step.
fn newest(infos: &[InfoRow], candidates: &[usize], step: usize) -> Res<Vec<usize>> {
    let mut best: Vec<usize> = Vec::new();
    for &i in candidates {
        let Some(t) = infos[i].times[step] else {
            continue;
        };
        let name = infos[i].labels.metric_name();
        match best.iter_mut().find(|b| infos[**b].labels.metric_name() == name) {
            None => best.push(i),
            Some(b) => {
                let other = infos[*b].times[step].unwrap_or(i64::MIN);
                if other == t {
                    let (a, b) = (go_labels(&infos[*b].labels), go_labels(&infos[i].labels));
                    let text = format!(
                        "found duplicate series for info metric: existing {a} @ {other}, new {b} @ {t}"
                    );
                    return Err(EvalError::exec(text));
                }
                if t > other {
                    *b = i;
                }
            }
        }
    }
    Ok(best)
}

fn enriched(base: &Labels, chosen: &[usize], infos: &[InfoRow], wanted: &[&Matcher]) -> Res<Labels> {
    let mut added: HashMap<String, String> = HashMap::new();
    let mut builder = LabelsBuilder::from_labels(base);
    for &i in chosen {
        for (name, value) in infos[i].labels.iter() {
            let data = name != METRIC_NAME && !IDENTIFYING.contains(&name);
            let asked = wanted.is_empty() || wanted.iter().any(|m| m.name == name);
            if !data || !asked || base.get(name).is_some() {
                continue;
            }
            if added.get(name).is_some_and(|v| v != value) {
                return Err(EvalError::exec(format!("conflicting label: {name}")));
            }
            added.insert(name.to_owned(), value.to_owned());
            builder.set(name, value);
        }
    }
    Ok(builder.build())
}
