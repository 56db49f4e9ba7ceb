//! Element-wise functions of floats; histograms are left out.

use crate::engine::{Cell, Ctx, Res, Sink, Timeline, go_max, go_min};
use crate::plan::{Call, Node};

/// The function of that name, if it is one of floats.
pub(super) fn unary(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => koios_model::histogram::go_log2,
        "log10" => log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    })
}

/// Through base 2, as Go computes it.
fn log10(v: f64) -> f64 {
    koios_model::histogram::go_log2(v) * (std::f64::consts::LN_2 / std::f64::consts::LN_10)
}

impl Ctx<'_> {
    /// Rows of a float function.
    pub(super) fn float_rows(&self, arg: &Node, tl: &Timeline, f: fn(f64) -> f64, sink: Sink<'_>) -> Res<()> {
        self.mapped(arg, tl, true, sink, |_, c| match c {
            Cell::Float(v) => Some(f(v).into()),
            _ => None,
        })
    }

    pub(super) fn clamp_rows(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let (mut low, mut high) = (vec![f64::NEG_INFINITY; tl.n], vec![f64::INFINITY; tl.n]);
        match c.func.name {
            "clamp_min" => low = self.scalar(&c.args[1], tl)?,
            "clamp_max" => high = self.scalar(&c.args[1], tl)?,
            _ => (low, high) = (self.scalar(&c.args[1], tl)?, self.scalar(&c.args[2], tl)?),
        }
        let both = c.func.name == "clamp";
        let only_min = c.func.name == "clamp_min";
        self.mapped(&c.args[0], tl, true, sink, |i, cell| match cell {
            Cell::Float(v) if both => (low[i] <= high[i] || low[i].is_nan() || high[i].is_nan())
                .then(|| go_max(low[i], go_min(high[i], v)).into()),
            Cell::Float(v) if only_min => Some(go_max(low[i], v).into()),
            Cell::Float(v) => Some(go_min(high[i], v).into()),
            _ => None,
        })
    }

    pub(super) fn round_rows(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let to = match c.args.get(1) {
            Some(arg) => self.scalar(arg, tl)?,
            None => vec![1.0; tl.n],
        };
        self.mapped(&c.args[0], tl, true, sink, |i, cell| match cell {
            Cell::Float(v) => {
                // Multiplying by the inverse keeps 0.1 exact where dividing would not.
                let inverse = 1.0 / to[i];
                Some(((v * inverse + 0.5).floor() / inverse).into())
            }
            _ => None,
        })
    }
}
