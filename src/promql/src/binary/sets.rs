//! `and`, `or`, `unless`: many-to-many by match group, values untouched.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use koios_model::Labels;

use crate::engine::{Ctx, Res, Row, Sink, Timeline};
use crate::plan::Binary;
use crate::syntax::ast::{BinaryOp, VectorMatching};

use super::labels::signature;

/// For every match group, the steps at which one of its rows has a value.
struct Presence {
    groups: HashMap<Labels, Vec<bool>>,
}

impl Presence {
    fn of(ctx: &Ctx<'_>, rows: &[Row], m: &VectorMatching, steps: usize) -> Res<Self> {
        let mut groups: HashMap<Labels, Vec<bool>> = HashMap::new();
        for row in rows {
            ctx.work_row(row)?;
            let group = match groups.entry(signature(&row.labels, m)) {
                Entry::Occupied(o) => o.into_mut(),
                Entry::Vacant(v) => v.insert(vec![false; steps]),
            };
            for (i, _) in row.col.present() {
                group[i] = true;
            }
        }
        Ok(Self { groups })
    }

    /// The part of `row` at steps where its group is present, or is not.
    fn masked(&self, ctx: &Ctx<'_>, mut row: Row, m: &VectorMatching, wanted: bool) -> Res<Option<Row>> {
        ctx.work_row(&row)?;
        Ok(match self.groups.get(&signature(&row.labels, m)) {
            None if wanted => None,
            None => Some(row),
            Some(group) => {
                row.col = row.col.map(|i, c| if group[i] == wanted { c.to_point() } else { None });
                (!row.col.is_empty()).then_some(row)
            }
        })
    }
}

impl Ctx<'_> {
    pub(super) fn set_rows(&self, b: &Binary, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let default = VectorMatching::default();
        let m = b.matching.as_ref().unwrap_or(&default);
        if b.op == BinaryOp::Or {
            let mut left = self.collect(&b.lhs, tl)?;
            let mut right = self.collect(&b.rhs, tl)?;
            let presence = Presence::of(self, &left.rows, m, tl.n)?;
            let mut all = std::mem::take(&mut left.rows);
            for row in std::mem::take(&mut right.rows) {
                all.extend(presence.masked(self, row, m, false)?);
            }
            return self.emit_merged(all, sink);
        }
        let right = self.collect(&b.rhs, tl)?;
        let presence = Presence::of(self, &right.rows, m, tl.n)?;
        drop(right);
        let wanted = b.op == BinaryOp::And;
        self.rows(&b.lhs, tl, &mut |row| match presence.masked(self, row, m, wanted)? {
            Some(row) => sink(row),
            None => Ok(()),
        })
    }
}
