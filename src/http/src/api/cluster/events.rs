//! `/api/v1/cluster/events?since=` lists what happened lately as this node saw it; `/api/v1/cluster/events/stream` and
//! `/api/v1/cluster/live` send it as server-sent events while it happens.
//!
//! A stream begins after the number in `Last-Event-ID` or `since`, else with the next event. A comment every 15 s keeps it
//! open. There are at most as many streams as the log has readers; who comes later gets 204 and asks the list instead.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures::{StreamExt, stream};
use koios_cluster::events::Event;
use koios_model::timestamp::rfc3339;
use serde_json::{Value, json};

use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

const HEARTBEAT: Duration = Duration::from_secs(15);

/// Answers GET, ready or not.
///
/// # Errors
/// `bad_data` when `since` is no number.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let since = since(&params)?.unwrap_or(0);
    let events: Value = state.events.since(since).iter().map(|e| event(e, &state.facts.node)).collect();
    let data = json!({ "observer": state.facts.node, "last": state.events.last(), "events": events });
    Ok(success(&data.to_string(), Notes::default()))
}

/// Answers GET with a stream, ready or not.
///
/// # Errors
/// `bad_data` when `since` is no number.
pub async fn live(
    state: web::Data<ApiState>,
    request: HttpRequest,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    let resumed = request.headers().get("Last-Event-ID").and_then(|v| v.to_str().ok()?.parse().ok());
    let from = resumed.or(since(&params)?).unwrap_or_else(|| state.events.last());
    let Some(reader) = state.events.read_from(from) else { return Ok(HttpResponse::NoContent().finish()) };
    let observer = state.facts.node.clone();
    let opening = stream::once(async { Ok::<_, actix_web::Error>(Bytes::from("retry: 2000\n: open\n\n")) });
    let events = stream::unfold((reader, observer), |(mut reader, observer)| async move {
        let text = match tokio::time::timeout(HEARTBEAT, reader.next()).await {
            Err(_) => ": still here\n\n".to_owned(),
            Ok(Some(events)) => events.iter().map(|e| frame(e, &observer)).collect(),
            Ok(None) => return None,
        };
        Some((Ok(Bytes::from(text)), (reader, observer)))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Compression and buffering would hold events back.
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(opening.chain(events)))
}

fn since(params: &Params) -> Result<Option<u64>, ApiError> {
    let Some(text) = params.first("since").filter(|t| !t.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| invalid("since", &format!("{text:?} is not the number of an event")))
}

fn event(e: &Event, observer: &str) -> Value {
    json!({
        "seq": e.seq,
        "at": rfc3339(e.at_ms),
        "observer": observer,
        "kind": e.news.kind.as_str(),
        "node": e.news.node,
        "what": e.news.what,
        "why": e.news.why,
    })
}

/// An event on the wire; JSON has no line breaks, so one `data` line holds it.
fn frame(e: &Event, observer: &str) -> String {
    format!("id: {}\ndata: {}\n\n", e.seq, event(e, observer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_cluster::events::{Kind, News};

    #[test]
    fn a_frame_is_one_line_of_data_whatever_names_hold() {
        let news =
            News { kind: Kind::Member, node: "a\nb".into(), what: "x\n\ny".into(), why: String::new() };
        let text = frame(&Event { seq: 7, at_ms: 0, news }, "o");
        assert!(text.starts_with("id: 7\ndata: {") && text.ends_with("}\n\n"));
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
