//! `/api/v1/blocks?view=global|loaded&limit=`: what lies in the bucket, block by block, in Thanos' shape.
//!
//! Each block is its meta.json with a section `koios` more: marks, whether it is damaged and why, whether others hold all of it,
//! and whether this node has it open. Bound: `limit`, the newest first to stay.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use koios_model::BlockId;
use koios_model::timestamp::rfc3339;
use koios_store::{CatalogueView, Marks};
use serde_json::{Value, json};

use super::cluster::coverage::number;
use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Blocks of an answer, unless told otherwise.
const LIMIT: i64 = 10_000;
const LIMIT_MAX: i64 = 100_000;

/// Answers GET.
///
/// # Errors
/// `bad_data` for another view or a limit out of range.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let limit = number(&params, "limit", LIMIT, LIMIT_MAX)? as usize;
    let loaded = match params.first("view").unwrap_or("global") {
        "" | "global" => false,
        "loaded" => true,
        other => return Err(invalid("view", &format!("{other:?} is neither global nor loaded"))),
    };
    let parts = &state.front.coordinator().parts;
    let (view, shelf) = (parts.catalogue.load_full(), &parts.shelf);
    let wanted = |id: &BlockId| !loaded || shelf.holds(*id);
    let ids: Vec<BlockId> = view.blocks().keys().copied().filter(wanted).collect();
    let shown = &ids[ids.len().saturating_sub(limit)..];
    let blocks: Vec<Value> = shown.iter().filter_map(|id| block(&view, *id, shelf.holds(*id))).collect();
    let unreadable = |(id, _): &(&BlockId, &String)| !loaded && !view.blocks().contains_key(id);
    let unreadable: BTreeMap<String, &String> =
        view.damaged().iter().filter(unreadable).map(|(id, why)| (id.to_string(), why)).collect();
    let data = json!({
        "label": state.facts.node,
        "blocks": blocks,
        "total": ids.len(),
        "unreadable": unreadable,
        "refreshedAt": rfc3339(view.read_ms()),
        "err": (!view.read()).then_some("the bucket was not read yet"),
    });
    Ok(success(&data.to_string(), Notes::default()))
}

fn block(view: &CatalogueView, id: BlockId, open: bool) -> Option<Value> {
    let meta = view.blocks().get(&id)?;
    let mut shown = serde_json::to_value(&**meta).ok()?;
    let Marks { deletion_ms, no_compact, no_downsample } = view.marks(id).cloned().unwrap_or_default();
    shown["koios"] = json!({
        "open": open,
        "damaged": view.damaged().get(&id),
        "superseded": view.superseded(id),
        "deletionMarkedAt": deletion_ms.map(rfc3339),
        "noCompact": no_compact,
        "noDownsample": no_downsample,
    });
    Some(shown)
}
