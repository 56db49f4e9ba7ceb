//! `/api/v1/cluster/coverage?hours=&columns=`: for which times data is there, how often, and why not.

use actix_web::{HttpResponse, web};
use koios_model::timestamp::rfc3339;
use koios_query::picture::coverage::{COLUMNS_MAX, coverage};
use serde_json::{Value, json};

use super::{HOUR_MS, HOURS};
use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Longest strip: ten years.
const HOURS_MAX: i64 = 10 * 366 * 24;
const COLUMNS: i64 = 96;

/// Answers GET.
///
/// # Errors
/// `bad_data` for numbers out of range.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let hours = number(&params, "hours", HOURS, HOURS_MAX)?;
    let columns = number(&params, "columns", COLUMNS, COLUMNS_MAX as i64)?;
    let c = state.front.look(state.clock.now_ms(), |f| coverage(f, hours * HOUR_MS, columns as usize));
    let column = |c: &koios_query::picture::Column| json!({ "from": c.from, "until": c.until, "cover": c.cover.word() });
    let data = json!({
        "observer": state.facts.node,
        "hours": hours,
        "strip": c.columns.iter().map(|c| c.cover.glyph()).collect::<String>(),
        "columns": c.columns.iter().map(column).collect::<Value>(),
        "weak": c.weak.iter().map(|w| json!({
            "from": rfc3339(w.from),
            "until": rfc3339(w.until),
            "cover": w.cover.word(),
            "cause": w.cause,
        })).collect::<Value>(),
    });
    Ok(success(&data.to_string(), Notes::default()))
}

/// A whole number from 1 to `most`.
///
/// # Errors
/// `bad_data` for anything else.
pub fn number(params: &Params, name: &str, default: i64, most: i64) -> Result<i64, ApiError> {
    let Some(text) = params.first(name).filter(|t| !t.is_empty()) else { return Ok(default) };
    let read = text.parse::<i64>().ok().filter(|n| (1..=most).contains(n));
    read.ok_or_else(|| invalid(name, &format!("{text:?} is no whole number from 1 to {most}")))
}
