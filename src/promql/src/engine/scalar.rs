//! Scalar expressions: one float per step.

use crate::api::EvalError;
use crate::binary::scalar_op;
use crate::plan::{Call, Node, NodeKind};

use super::{Cell, Ctx, Res, Timeline};

impl Ctx<'_> {
    /// The values of a scalar expression at every step.
    pub fn scalar(&self, node: &Node, tl: &Timeline) -> Res<Vec<f64>> {
        if node.invariant && tl.n > 1 {
            let one = self.raw_scalar(node, &tl.first())?;
            return Ok(vec![one[0]; tl.n]);
        }
        self.raw_scalar(node, tl)
    }

    fn raw_scalar(&self, node: &Node, tl: &Timeline) -> Res<Vec<f64>> {
        self.control.check()?;
        match &node.kind {
            NodeKind::Number(v) => Ok(vec![*v; tl.n]),
            NodeKind::Paren(e) => self.scalar(e, tl),
            NodeKind::Unary(negative, e) => {
                let mut v = self.scalar(e, tl)?;
                if *negative {
                    v.iter_mut().for_each(|x| *x = -*x);
                }
                Ok(v)
            }
            NodeKind::Binary(b) if b.op.is_trim() => {
                let op = b.op.as_str();
                Err(EvalError::exec(format!("operator \"{op}\" not allowed for Scalar operations")))
            }
            NodeKind::Binary(b) => {
                let mut l = self.scalar(&b.lhs, tl)?;
                let r = self.scalar(&b.rhs, tl)?;
                for (x, y) in l.iter_mut().zip(r) {
                    *x = scalar_op(b.op, *x, y);
                }
                Ok(l)
            }
            NodeKind::Call(c) => self.scalar_call(c, tl),
            _ => Err(EvalError::exec("expression is not a scalar")),
        }
    }

    fn scalar_call(&self, c: &Call, tl: &Timeline) -> Res<Vec<f64>> {
        let p = &self.plan.params;
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let constant = |v: f64| Ok(vec![v; tl.n]);
        match c.func.name {
            "time" => Ok(tl.times().map(seconds).collect()),
            "pi" => constant(std::f64::consts::PI),
            "start" => constant(seconds(p.start_ms)),
            "end" => constant(seconds(p.end_ms)),
            "step" => constant(seconds(p.step_ms)),
            "range" => constant(seconds(p.end_ms - p.start_ms)),
            "min_of" | "max_of" => {
                let mut l = self.scalar(&c.args[0], tl)?;
                let r = self.scalar(&c.args[1], tl)?;
                let smaller = c.func.name == "min_of";
                for (x, y) in l.iter_mut().zip(r) {
                    *x = if smaller { go_min(*x, y) } else { go_max(*x, y) };
                }
                Ok(l)
            }
            "scalar" => self.scalar_of_vector(&c.args[0], tl),
            name => Err(EvalError::exec(format!("unknown scalar function {name:?}"))),
        }
    }

    /// The value of the only float, NaN when there is none or more than one.
    fn scalar_of_vector(&self, node: &Node, tl: &Timeline) -> Res<Vec<f64>> {
        let mut out = vec![f64::NAN; tl.n];
        let mut found = vec![0u8; tl.n];
        self.rows(node, tl, &mut |row| {
            self.work_row(&row)?;
            for (i, c) in row.col.present() {
                if let Cell::Float(v) = c {
                    out[i] = if found[i] == 0 { v } else { f64::NAN };
                    found[i] = 1;
                }
            }
            Ok(())
        })?;
        Ok(out)
    }
}

/// Go's `math.Max`: NaN wins, +0 over -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

/// Go's `math.Min`: NaN wins, -0 over +0.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { a } else { b }
    } else {
        a.min(b)
    }
}
