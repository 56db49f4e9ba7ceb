//! Operators between two vectors, matched one-to-one or many-to-one.
//!
//! Match groups are found once per series, not once per step. The side that may repeat is called "many"
//! (the left one, unless `group_right`), the other one "one". Checks and their order follow Prometheus:
//! duplicates on the one side are an error even when nothing matches them; with an empty side and no fill
//! nothing is checked. Of several errors that of the earliest step is reported.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use koios_model::Labels;

use crate::api::{Charge, EvalError};
use crate::engine::{Cell, Column, Ctx, Point, Res, Row, Sink, Timeline, drop_metadata};
use crate::plan::Binary;
use crate::syntax::ast::{Cardinality, Span, VectorMatching};

use super::labels::{go_labels, signature};
use super::{arithmetic, changes_schema, is_arithmetic};

/// The rows of one match group.
#[derive(Default)]
struct Group {
    many: Vec<usize>,
    one: Vec<usize>,
    /// With several rows on the one side: which of them has a value at each step.
    partner: Option<Vec<u32>>,
}

/// Units of work of matching one row at one step.
const STEP_WORK: usize = 8;

/// No row of the one side has a value.
const NOBODY: u32 = u32::MAX;

impl Group {
    /// Position in `one` of the row with a value at a step.
    fn partner(&self, one: &[usize], rows: &[Row], step: usize) -> Option<usize> {
        match &self.partner {
            Some(table) => (table[step] != NOBODY).then_some(table[step] as usize),
            None => one.first().filter(|r| rows[**r].col.get(step).is_some()).map(|_| 0),
        }
    }
}

/// Everything while matching.
struct Matching<'a, 'c> {
    ctx: &'a Ctx<'c>,
    b: &'a Binary,
    m: &'a VectorMatching,
    span: Span,
    many: Vec<Row>,
    one: Vec<Row>,
    /// Group of each row of the many side and of the one side.
    many_group: Vec<usize>,
    one_group: Vec<usize>,
    groups: Vec<Group>,
    signatures: Vec<Labels>,
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    /// Steps at which matching happens at all.
    active: Vec<bool>,
    out: Output,
    /// The error of the earliest step.
    error: Option<(usize, EvalError)>,
}

struct Output {
    charge: Charge,
    rows: Vec<Row>,
    index: HashMap<Labels, usize>,
    /// Group that made a row, to tell the two duplicate errors apart.
    makers: Vec<usize>,
}

impl Ctx<'_> {
    pub(super) fn matched_rows(&self, b: &Binary, span: Span, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let default = VectorMatching::default();
        let m = b.matching.as_ref().unwrap_or(&default);
        let left = self.collect(&b.lhs, tl)?;
        let right = self.collect(&b.rhs, tl)?;
        let fill = |f: &Option<crate::syntax::ast::NumberLiteral>| f.as_ref().map(|n| n.value);
        let (mut many, mut one) = (left.rows, right.rows);
        let (mut fill_many, mut fill_one) = (fill(&m.fill_left), fill(&m.fill_right));
        if m.card == Cardinality::OneToMany {
            std::mem::swap(&mut many, &mut one);
            std::mem::swap(&mut fill_many, &mut fill_one);
        }
        let (any_many, any_one) = (self.any_present(&many, tl.n)?, self.any_present(&one, tl.n)?);
        let active = (0..tl.n)
            .map(|i| (any_many[i] || fill_many.is_some()) && (any_one[i] || fill_one.is_some()))
            .collect();
        let mut matching = Matching {
            ctx: self,
            b,
            m,
            span,
            many_group: Vec::with_capacity(many.len()),
            one_group: Vec::with_capacity(one.len()),
            many,
            one,
            groups: Vec::new(),
            signatures: Vec::new(),
            fill_many,
            fill_one,
            active,
            out: Output {
                rows: Vec::new(),
                index: HashMap::new(),
                makers: Vec::new(),
                charge: self.budget.charge(0)?,
            },
            error: None,
        };
        matching.find_groups()?;
        matching.run(tl)?;
        matching.out.rows.into_iter().filter(|r| !r.col.is_empty()).try_for_each(sink)
    }

    fn any_present(&self, rows: &[Row], steps: usize) -> Res<Vec<bool>> {
        let mut any = vec![false; steps];
        for row in rows {
            self.work_row(row)?;
            for (i, _) in row.col.present() {
                any[i] = true;
            }
        }
        Ok(any)
    }
}

impl Matching<'_, '_> {
    fn find_groups(&mut self) -> Res<()> {
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut group_of =
            |labels: &Labels, groups: &mut Vec<Group>, signatures: &mut Vec<Labels>| match index
                .entry(signature(labels, self.m))
            {
                Entry::Occupied(o) => *o.get(),
                Entry::Vacant(v) => {
                    signatures.push(v.key().clone());
                    groups.push(Group::default());
                    *v.insert(groups.len() - 1)
                }
            };
        for (i, row) in self.many.iter().enumerate() {
            self.ctx.work_row(row)?;
            let g = group_of(&row.labels, &mut self.groups, &mut self.signatures);
            self.groups[g].many.push(i);
            self.many_group.push(g);
        }
        for (i, row) in self.one.iter().enumerate() {
            self.ctx.work_row(row)?;
            let g = group_of(&row.labels, &mut self.groups, &mut self.signatures);
            self.groups[g].one.push(i);
            self.one_group.push(g);
        }
        Ok(())
    }

    fn run(&mut self, tl: &Timeline) -> Res<()> {
        for g in 0..self.groups.len() {
            self.one_side_unique(g)?;
        }
        let mut matched: HashMap<usize, Vec<bool>> = HashMap::new();
        for i in 0..self.many.len() {
            self.many_row(i, tl, &mut matched)?;
        }
        if let Some(value) = self.fill_many {
            for i in 0..self.one.len() {
                self.unmatched_one(i, value, tl, &matched)?;
            }
        }
        match self.error.take() {
            Some((_, e)) => Err(e),
            None => Ok(()),
        }
    }

    fn fail(&mut self, step: usize, text: impl Into<String>) {
        if self.error.as_ref().is_none_or(|(s, _)| step < *s) {
            self.error = Some((step, EvalError::exec(text)));
        }
    }

    /// Two rows of the one side in the same group must not have values at the same step.
    fn one_side_unique(&mut self, g: usize) -> Res<()> {
        let ones = &self.groups[g].one;
        if ones.len() < 2 {
            return Ok(());
        }
        let mut table = vec![NOBODY; self.active.len()];
        let mut clash: Option<(usize, usize, usize)> = None;
        for (at, &row) in ones.iter().enumerate() {
            self.ctx.work_row(&self.one[row])?;
            for (step, _) in self.one[row].col.present() {
                if table[step] == NOBODY {
                    table[step] = at as u32;
                } else if self.active[step] && clash.is_none_or(|(s, _, _)| step < s) {
                    clash = Some((step, ones[table[step] as usize], row));
                }
            }
        }
        self.groups[g].partner = Some(table);
        let Some((step, a, b)) = clash else {
            return Ok(());
        };
        let side = if self.m.card == Cardinality::OneToMany { "left" } else { "right" };
        let mut pair = [go_labels(&self.one[a].labels), go_labels(&self.one[b].labels)];
        pair.sort();
        let text = format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            go_labels(&self.signatures[g]),
            pair[0],
            pair[1]
        );
        self.fail(step, text);
        Ok(())
    }

    fn many_row(&mut self, i: usize, tl: &Timeline, matched: &mut HashMap<usize, Vec<bool>>) -> Res<()> {
        let g = self.many_group[i];
        let track = self.fill_many.is_some()
            || (self.m.card == Cardinality::OneToOne && self.groups[g].many.len() > 1);
        let ones = std::mem::take(&mut self.groups[g].one);
        let result = self.many_steps(i, &ones, tl, track.then_some(matched));
        self.groups[g].one = ones;
        result
    }

    fn many_steps(
        &mut self,
        i: usize,
        ones: &[usize],
        tl: &Timeline,
        mut matched: Option<&mut HashMap<usize, Vec<bool>>>,
    ) -> Res<()> {
        let g = self.many_group[i];
        if ones.is_empty() && self.fill_one.is_none() {
            return Ok(());
        }
        self.ctx.work(STEP_WORK * (tl.n + self.many[i].labels.heap_bytes()) + ones.len())?;
        if let (None, [only]) = (&matched, ones)
            && self.groups[g].partner.is_none()
            && self.plain_pair(i, *only)
        {
            return self.pair_of_floats(i, *only, tl, g);
        }
        // Result row for each partner, found on first use; the last one is for the fill.
        let mut targets: Vec<Option<usize>> = vec![None; ones.len() + 1];
        let row = std::mem::replace(&mut self.many[i], Row::nothing());
        for (step, cell) in row.col.present() {
            if !self.active[step] {
                continue;
            }
            let partner = self.groups[g].partner(ones, &self.one, step);
            if partner.is_none() && self.fill_one.is_none() {
                continue;
            }
            if let Some(matched) = &mut matched {
                let seen = matched.entry(g).or_insert_with(|| vec![false; tl.n]);
                if std::mem::replace(&mut seen[step], true) && self.m.card == Cardinality::OneToOne {
                    self.fail(
                        step,
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                    );
                    continue;
                }
            }
            let slot = partner.unwrap_or(ones.len());
            let other = match partner {
                Some(p) => self.one[ones[p]].col.get(step),
                None => self.fill_one.map_or(Cell::None, Cell::Float),
            };
            let Some(point) = self.operate(cell, other) else {
                continue;
            };
            let target = match targets[slot] {
                Some(t) => t,
                None => {
                    let other = partner.map_or(&self.signatures[g], |p| &self.one[ones[p]].labels);
                    let labels = self.result_labels(&row.labels, other);
                    let t = self.out.row(labels, self.b.return_bool && self.ctx.delayed(), tl.n, g)?;
                    targets[slot] = Some(t);
                    t
                }
            };
            self.put(target, step, g, point);
        }
        Ok(())
    }

    /// Whether two rows and the operator are the usual ones: floats, arithmetic, nothing filled in.
    fn plain_pair(&self, many: usize, one: usize) -> bool {
        let filled = self.fill_many.is_some() || self.fill_one.is_some();
        let hists = self.many[many].col.has_hists() || self.one[one].col.has_hists();
        is_arithmetic(self.b.op) && !self.b.return_bool && !filled && !hists
    }

    /// All steps of such a pair at once.
    fn pair_of_floats(&mut self, many: usize, one: usize, tl: &Timeline, g: usize) -> Res<()> {
        let mut row = std::mem::replace(&mut self.many[many], Row::nothing());
        let other = &self.one[one];
        let swapped = self.m.card == Cardinality::OneToMany;
        row.col.meet_floats(&other.col);
        arithmetic(&mut row.col, self.b.op, other.col.raw(), swapped);
        if row.col.is_empty() {
            return Ok(());
        }
        let labels = self.result_labels(&row.labels, &other.labels);
        let target = self.out.row(labels, false, 0, g)?;
        if self.out.rows[target].col.len() < tl.n {
            // Its memory is that of the row, which was charged for when it was collected.
            self.out.rows[target].col = row.col;
            return Ok(());
        }
        for (step, cell) in row.col.present() {
            if let Some(point) = cell.to_point() {
                self.put(target, step, g, point);
            }
        }
        Ok(())
    }

    /// A row of the one side at steps where nothing matched it.
    fn unmatched_one(
        &mut self,
        i: usize,
        fill: f64,
        tl: &Timeline,
        matched: &HashMap<usize, Vec<bool>>,
    ) -> Res<()> {
        let g = self.one_group[i];
        let seen = matched.get(&g);
        self.ctx.work(STEP_WORK * (tl.n + self.one[i].labels.heap_bytes()))?;
        let row = std::mem::replace(&mut self.one[i], Row::nothing());
        let labels = self.result_labels(&self.signatures[g], &row.labels);
        let mut target = None;
        for (step, cell) in row.col.present() {
            if !self.active[step] || seen.is_some_and(|s| s[step]) {
                continue;
            }
            let Some(point) = self.operate(Cell::Float(fill), cell) else {
                continue;
            };
            let drop = self.b.return_bool && self.ctx.delayed();
            let t = match target {
                Some(t) => t,
                None => *target.insert(self.out.row(labels.clone(), drop, tl.n, g)?),
            };
            self.put(t, step, g, point);
        }
        Ok(())
    }

    fn put(&mut self, target: usize, step: usize, g: usize, point: Point) {
        if self.out.rows[target].col.get(step).is_some() {
            let same_group = self.out.makers[target] == g;
            let text = if same_group && self.m.card != Cardinality::OneToOne {
                "multiple matches for labels: grouping labels must ensure unique matches"
            } else {
                "vector cannot contain metrics with the same labelset"
            };
            self.fail(step, text);
            return;
        }
        self.out.rows[target].col.set(step, point);
    }

    /// Applies the operator with the sides in their written order.
    fn operate(&self, many: Cell<'_>, one: Cell<'_>) -> Option<Point> {
        let swapped = self.m.card == Cardinality::OneToMany;
        let (l, r) = if swapped { (one, many) } else { (many, one) };
        let (point, keep) = self.ctx.element(self.b.op, l, r, self.span)?;
        if self.b.return_bool {
            return Some(Point::Float(f64::from(u8::from(keep))));
        }
        keep.then_some(point)
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let mut labels = if changes_schema(self.b.op) { drop_metadata(many) } else { many.clone() };
        if self.b.return_bool && !self.ctx.delayed() {
            labels = drop_metadata(&labels);
        }
        if self.m.card == Cardinality::OneToOne {
            return if self.m.on { labels.keep(&self.m.labels) } else { labels.without(&self.m.labels) };
        }
        if self.m.include.is_empty() {
            return labels;
        }
        let mut builder = koios_model::LabelsBuilder::from_labels(&labels);
        for name in &self.m.include {
            builder.set(name, one.value(name));
        }
        builder.build()
    }
}

impl Output {
    fn row(&mut self, labels: Labels, drop_name: bool, steps: usize, group: usize) -> Res<usize> {
        Ok(match self.index.entry(labels) {
            Entry::Occupied(o) => *o.get(),
            Entry::Vacant(v) => {
                let labels = v.key().clone();
                self.charge.add(steps as u64)?;
                self.charge.add_bytes(labels.heap_bytes() as u64)?;
                self.makers.push(group);
                self.rows.push(Row { labels, drop_name, col: Column::absent(steps) });
                *v.insert(self.rows.len() - 1)
            }
        })
    }
}
