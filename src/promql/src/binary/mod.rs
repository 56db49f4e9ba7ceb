//! Binary operators.
//!
//! Element operations are here; how elements of two vectors find each other is in `matching` and `sets`.

mod element;
mod labels;
mod matching;
mod sets;

use crate::engine::{Cell, Column, Ctx, Point, Res, Row, Sink, Timeline};
use crate::plan::{Binary, Node};
use crate::syntax::ast::{BinaryOp, Span, ValueType};

pub(crate) use element::scalar_op;
pub(crate) use labels::go_labels;

/// Units of work of an operator on two elements.
const ELEMENT_WORK: usize = 8;

/// Whether the result is a new quantity, which has no name.
pub(crate) fn changes_schema(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

/// Whether the operator gives a float for any two floats.
pub(super) fn is_arithmetic(op: BinaryOp) -> bool {
    changes_schema(op)
}

/// An arithmetic operator on a column of floats and one float a step.
pub(super) fn arithmetic(col: &mut Column, op: BinaryOp, other: &[f64], swapped: bool) {
    match (op, swapped) {
        (BinaryOp::Add, false) => col.map_floats(|i, v| v + other[i]),
        (BinaryOp::Mul, false) => col.map_floats(|i, v| v * other[i]),
        (BinaryOp::Sub, false) => col.map_floats(|i, v| v - other[i]),
        (BinaryOp::Div, false) => col.map_floats(|i, v| v / other[i]),
        (_, false) => col.map_floats(|i, v| scalar_op(op, v, other[i])),
        (_, true) => col.map_floats(|i, v| scalar_op(op, other[i], v)),
    }
}

impl Ctx<'_> {
    /// Rows of an operator of which at least one side is a vector.
    pub fn binary_rows(&self, b: &Binary, span: Span, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        match (b.lhs.ty, b.rhs.ty) {
            (ValueType::Vector, ValueType::Scalar) => {
                let scalar = self.scalar(&b.rhs, tl)?;
                self.vector_scalar(b, span, &b.lhs, &scalar, false, tl, sink)
            }
            (ValueType::Scalar, ValueType::Vector) => {
                let scalar = self.scalar(&b.lhs, tl)?;
                self.vector_scalar(b, span, &b.rhs, &scalar, true, tl, sink)
            }
            _ if b.op.is_set() => self.set_rows(b, tl, sink),
            _ => self.matched_rows(b, span, tl, sink),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the two operand orders share everything else")]
    fn vector_scalar(
        &self,
        b: &Binary,
        span: Span,
        vector: &Node,
        scalar: &[f64],
        swapped: bool,
        tl: &Timeline,
        sink: Sink<'_>,
    ) -> Res<()> {
        let drop = changes_schema(b.op) || b.return_bool;
        let apply = |row: &Row| -> Column {
            row.col.map(|i, c| {
                let s = Cell::Float(scalar[i]);
                let (l, r) = if swapped { (s, c) } else { (c, s) };
                let (value, keep) = self.element(b.op, l, r, span)?;
                if b.return_bool {
                    return Some(Point::Float(f64::from(u8::from(keep))));
                }
                if !keep {
                    return None;
                }
                // A filter keeps the element of the vector, whichever side it stands on.
                if b.op.is_comparison() { c.to_point() } else { Some(value) }
            })
        };
        if !drop || self.stays_unique(vector) {
            return self.rows(vector, tl, &mut |mut row| {
                self.work(ELEMENT_WORK * row.col.len())?;
                if is_arithmetic(b.op) && !row.col.has_hists() {
                    arithmetic(&mut row.col, b.op, scalar, swapped);
                } else {
                    row.col = apply(&row);
                }
                if row.col.is_empty() {
                    return Ok(());
                }
                sink(if drop { self.unnamed(row) } else { row })
            });
        }
        let mut collected = self.collect(vector, tl)?;
        let rows = &mut collected.rows;
        for row in rows.iter_mut() {
            self.work(ELEMENT_WORK * row.col.len())?;
            row.col = apply(row);
        }
        rows.retain(|r| !r.col.is_empty());
        let rows = std::mem::take(rows).into_iter().map(|r| self.unnamed(r)).collect();
        self.emit_merged(rows, sink)
    }
}
