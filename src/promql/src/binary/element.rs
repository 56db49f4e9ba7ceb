//! Operators on two elements.

use std::sync::Arc;

use koios_model::FloatHistogram;

use crate::engine::{Cell, Ctx, HistOp, Point};
use crate::histograms::trim;
use crate::syntax::ast::{BinaryOp, Span};

/// The result of an operator between two floats; comparisons give 0 or 1.
pub(crate) fn scalar_op(op: BinaryOp, l: f64, r: f64) -> f64 {
    let bool = |b: bool| f64::from(u8::from(b));
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => l.powf(r),
        BinaryOp::Atan2 => l.atan2(r),
        BinaryOp::Eq => bool(l == r),
        BinaryOp::Ne => bool(l != r),
        BinaryOp::Gt => bool(l > r),
        BinaryOp::Lt => bool(l < r),
        BinaryOp::Ge => bool(l >= r),
        BinaryOp::Le => bool(l <= r),
        BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => {
            f64::NAN
        }
    }
}

impl Ctx<'_> {
    /// The result of an operator and whether a filter lets it pass. `None` with a note when the types do not
    /// fit.
    pub(crate) fn element(
        &self,
        op: BinaryOp,
        l: Cell<'_>,
        r: Cell<'_>,
        span: Span,
    ) -> Option<(Point, bool)> {
        match (l, r) {
            (Cell::Float(_), Cell::Float(_)) if op.is_trim() => {
                self.notes.incompatible_types(span, "float", op.as_str(), "float");
                None
            }
            (Cell::Float(a), Cell::Float(b)) => {
                let v = scalar_op(op, a, b);
                if op.is_comparison() { Some((a.into(), v == 1.0)) } else { Some((v.into(), true)) }
            }
            (Cell::Float(f), Cell::Hist(h)) => match op {
                BinaryOp::Mul => Some((scaled(h, |h| h.mul(f)), true)),
                _ => {
                    self.notes.incompatible_types(span, "float", op.as_str(), "histogram");
                    None
                }
            },
            (Cell::Hist(h), Cell::Float(f)) => match op {
                BinaryOp::Mul => Some((scaled(h, |h| h.mul(f)), true)),
                BinaryOp::Div => Some((scaled(h, |h| h.div(f)), true)),
                BinaryOp::TrimUpper => Some((trim(h, f, true).into(), true)),
                BinaryOp::TrimLower => Some((trim(h, f, false).into(), true)),
                _ => {
                    self.notes.incompatible_types(span, "histogram", op.as_str(), "float");
                    None
                }
            },
            (Cell::Hist(a), Cell::Hist(b)) => self.histograms(op, a, b, span),
            (Cell::None, _) | (_, Cell::None) => None,
        }
    }

    fn histograms(
        &self,
        op: BinaryOp,
        a: &Arc<FloatHistogram>,
        b: &Arc<FloatHistogram>,
        span: Span,
    ) -> Option<(Point, bool)> {
        let subtract = match op {
            BinaryOp::Add => false,
            BinaryOp::Sub => true,
            BinaryOp::Eq => return Some((Point::Hist(a.clone()), a == b)),
            BinaryOp::Ne => return Some((Point::Hist(a.clone()), a != b)),
            _ => {
                self.notes.incompatible_types(span, "histogram", op.as_str(), "histogram");
                return None;
            }
        };
        let mut h = (**a).clone();
        let merged = if subtract { h.sub(b) } else { h.add(b) };
        let Ok(merged) = merged else {
            self.notes.incompatible_buckets(span, op.as_str());
            return None;
        };
        let kind = if subtract { HistOp::Sub } else { HistOp::Add };
        if merged.reset_collision {
            self.notes.reset_collision(span, kind);
        }
        if merged.bounds_reconciled {
            self.notes.mismatched_custom(span, kind);
        }
        Some((h.into(), true))
    }
}

fn scaled(h: &FloatHistogram, f: impl FnOnce(&mut FloatHistogram)) -> Point {
    let mut h = h.clone();
    f(&mut h);
    h.compact();
    h.into()
}
