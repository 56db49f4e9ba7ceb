//! `/cluster`: a page in a browser, text in a terminal, from the same facts as `/api/v1/cluster`.

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};
use koios_cluster::{ClusterView, Liveness, Member};
use koios_model::duration::format_duration;

use crate::api::cluster::Health;
use crate::state::ApiState;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1b1f24;background:#fff}\
table{border-collapse:collapse;margin-top:1rem}th,td{text-align:left;padding:.3rem .9rem;border-bottom:1px solid #d8dee4}\
.green{color:#116329}.amber{color:#7d4e00}.red{color:#a40e26}code{font-size:13px}footer{margin-top:2rem;color:#57606a}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}\
.green{color:#56d364}.amber{color:#e3b341}.red{color:#ff7b72}footer{color:#8b949e}}";

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let view = state.front.view();
    let now = state.clock.now_ms();
    let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    if accept.contains("text/html") {
        HttpResponse::Ok()
            .content_type(ContentType::html())
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
            .body(html(&view, now))
    } else {
        HttpResponse::Ok().content_type(ContentType::plaintext()).body(text(&view, now))
    }
}

fn mark(state: &str) -> &'static str {
    match state {
        "green" | "ready" => "●",
        "red" | "dead" => "✖",
        _ => "◐",
    }
}

fn agreement(view: &ClusterView, health: &Health) -> String {
    let ready = view.members.values().filter(|m| m.is_ready()).count();
    if health.disagree.is_empty() {
        format!("all views agree ({ready}/{ready})")
    } else {
        format!("views differ: {} see other ready nodes than {}", health.disagree.join(", "), view.me)
    }
}

struct Row {
    name: String,
    state: String,
    since: String,
    zone: String,
    http: String,
    grpc: String,
    version: String,
    roles: String,
}

fn row(m: &Member, now: i64) -> Row {
    let since = match m.liveness {
        Liveness::Alive => m.record.since,
        Liveness::Dead { since } => since,
    };
    let seconds = (now - since).max(0) / 1000 * 1000;
    Row {
        name: m.name.clone(),
        state: format!("{} {}", mark(m.shown_state()), m.shown_state()),
        since: format_duration(seconds),
        zone: m.record.zone.clone(),
        http: m.record.http.to_string(),
        grpc: m.record.rpc.to_string(),
        version: m.record.version.clone(),
        roles: m.record.roles.names().join(" "),
    }
}

/// Plain text, one line a node.
pub fn text(view: &ClusterView, now: i64) -> String {
    let health = Health::of(view);
    let mut out = format!(
        "{}  {} {}\n{}  epoch {}  served by {}\n\n",
        view.cluster,
        mark(health.state),
        health.sentence,
        agreement(view, &health),
        view.seq,
        view.me
    );
    let rows: Vec<Row> = view.members.values().map(|m| row(m, now)).collect();
    let width = |f: &dyn Fn(&Row) -> usize| rows.iter().map(f).max().unwrap_or(0);
    let (name, state, since) =
        (width(&|r| r.name.len()), width(&|r| r.state.chars().count()), width(&|r| r.since.len()));
    let (zone, http, grpc) = (width(&|r| r.zone.len()), width(&|r| r.http.len()), width(&|r| r.grpc.len()));
    for r in &rows {
        out.push_str(&format!(
            "zone {:zone$}  {:name$}  {:state$}  {:since$}  http {:http$}  grpc {:grpc$}  {}  {}\n",
            r.zone, r.name, r.state, r.since, r.http, r.grpc, r.version, r.roles
        ));
    }
    out
}

fn html(view: &ClusterView, now: i64) -> String {
    let health = Health::of(view);
    let rows: String = view
        .members
        .values()
        .map(|m| {
            let r = row(m, now);
            let class = match m.shown_state() {
                "ready" => "green",
                "dead" => "red",
                _ => "amber",
            };
            format!(
                "<tr><td>{}</td><td>{}</td><td class={class}>{}</td><td>{}</td><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                escape(&r.zone), escape(&r.name), r.state, r.since, escape(&r.http), escape(&r.grpc), escape(&r.version), r.roles
            )
        })
        .collect();
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>{cluster} · Koios</title>\
         <meta http-equiv=refresh content=2><style>{STYLE}</style></head><body><h1>{cluster}</h1>\
         <p class={state} role=status>{mark} {sentence}</p><p>{agree} · epoch {epoch} · served by {me}</p>\
         <table><thead><tr><th>zone<th>node<th>state<th>for<th>http<th>grpc<th>version<th>roles</thead><tbody>{rows}</tbody></table>\
         <footer>API behind this page: <code>/api/v1/cluster</code></footer></body></html>",
        cluster = escape(&view.cluster),
        state = health.state,
        mark = mark(health.state),
        sentence = escape(&health.sentence),
        agree = escape(&agreement(view, &health)),
        epoch = view.seq,
        me = escape(&view.me),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let view = ClusterView { cluster: "<script>".into(), ..ClusterView::default() };
        assert!(!html(&view, 0).contains("<script>"));
        assert!(text(&view, 0).contains("no node is ready"));
    }
}
