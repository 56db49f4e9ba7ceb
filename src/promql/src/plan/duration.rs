//! Arithmetic of durations, once step and range of the query are known.

use crate::api::{EvalError, QueryParams};
use crate::syntax::ast::{BinaryOp, Duration, DurationExpr, DurationKind};

/// The value of a duration in ms, truncated.
///
/// # Errors
/// `Execution` for a division by zero or a value that is no duration.
pub(super) fn resolve(d: &Duration, params: &QueryParams) -> Result<i64, EvalError> {
    match d {
        Duration::Fixed(ms) => Ok(*ms),
        Duration::Expr(e) => {
            let seconds = value(e, params)?;
            let ms = seconds * 1000.0;
            if !ms.is_finite() || ms.abs() > i64::MAX as f64 / 1_000_000.0 {
                return Err(EvalError::exec("duration out of range"));
            }
            Ok(ms as i64)
        }
    }
}

/// As `resolve`, for ranges and steps.
///
/// # Errors
/// As `resolve`, and when the value is not positive.
pub(super) fn resolve_positive(d: &Duration, params: &QueryParams) -> Result<i64, EvalError> {
    let ms = resolve(d, params)?;
    if ms <= 0 {
        return Err(EvalError::exec("duration must be greater than 0"));
    }
    Ok(ms)
}

fn value(e: &DurationExpr, params: &QueryParams) -> Result<f64, EvalError> {
    Ok(match &e.kind {
        DurationKind::Number(n) => n.value,
        DurationKind::Step => params.step_ms as f64 / 1000.0,
        DurationKind::Range => (params.end_ms - params.start_ms) as f64 / 1000.0,
        DurationKind::Unary(negative, x) => {
            let v = value(x, params)?;
            if *negative { -v } else { v }
        }
        DurationKind::Min(a, b) => value(a, params)?.min(value(b, params)?),
        DurationKind::Max(a, b) => value(a, params)?.max(value(b, params)?),
        DurationKind::Binary(op, a, b) => {
            let (a, b) = (value(a, params)?, value(b, params)?);
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div if b == 0.0 => return Err(EvalError::exec("division by zero")),
                BinaryOp::Div => a / b,
                BinaryOp::Mod if b == 0.0 => return Err(EvalError::exec("modulo by zero")),
                BinaryOp::Mod => a % b,
                BinaryOp::Pow => a.powf(b),
                other => {
                    let text = format!("unexpected duration expression operator {:?}", other.as_str());
                    return Err(EvalError::exec(text));
                }
            }
        }
    })
}
