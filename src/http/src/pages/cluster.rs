//! `/cluster`: a page in a browser, text in a terminal, from the same facts as `/api/v1/cluster`.
//!
//! Owns what both show (`Shown`) and the text; the page is in `html`, its only script in `live.js`. Nothing is loaded
//! from elsewhere, and whatever came over the network is escaped.

mod html;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};
use koios_cluster::Member;
use koios_cluster::events::Event;
use koios_model::duration::format_duration;
use koios_model::timestamp::rfc3339;
use koios_query::picture::{self, Agreement, Coverage, Facts, Health};

use crate::api::cluster::{HOUR_MS, HOURS};
use crate::state::ApiState;

/// Columns of the strip in a terminal, and on the page.
const COLUMNS: usize = 72;
/// Events and weak stretches shown.
const EVENTS_SHOWN: usize = 12;
const WEAK_SHOWN: usize = 10;
/// The script, and styles in the page, are all that it may load; it may ask its own node.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; base-uri 'none'";

/// Everything that is shown.
struct Shown {
    cluster: String,
    me: String,
    epoch: u64,
    now: i64,
    health: Health,
    agreement: Agreement,
    coverage: Coverage,
    rows: Vec<Row>,
    /// Newest first.
    events: Vec<Event>,
}

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>, request: HttpRequest) -> HttpResponse {
    let mut events = state.events.since(state.events.last().saturating_sub(EVENTS_SHOWN as u64));
    events.reverse();
    let shown = state.front.look(state.clock.now_ms(), |facts| Shown::of(facts, events));
    let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !accept.contains("text/html") {
        return HttpResponse::Ok().content_type(ContentType::plaintext()).body(text(&shown));
    }
    let part = request.query_string().split('&').any(|p| p == "part=1");
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "Accept"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(if part { html::part(&shown) } else { html::page(&shown) })
}

/// Answers GET with the page's script.
pub async fn script() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/javascript; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(include_str!("cluster/live.js"))
}

fn mark(state: &str) -> &'static str {
    match state {
        "green" | "ready" => "●",
        "red" | "dead" => "✖",
        _ => "◐",
    }
}

struct Row {
    name: String,
    /// As shown to users.
    state: &'static str,
    /// Remarks on it.
    notes: Vec<&'static str>,
    age: String,
    zone: String,
    http: String,
    grpc: String,
    version: String,
    roles: String,
}

impl Row {
    fn of(facts: &Facts<'_>, m: &Member) -> Self {
        let mut notes = Vec::new();
        if facts.is_unreached(m) {
            notes.push("not reached from here");
        }
        if m.is_ready() && m.name != facts.view.me && m.record.ring_hash != facts.view.ring_hash() {
            notes.push("sees other nodes");
        }
        if !m.record.head.holes.is_empty() {
            notes.push("lost data");
        }
        if m.name == facts.view.me {
            notes.push("this node");
        }
        Self {
            name: m.name.clone(),
            state: m.shown_state(),
            notes,
            age: format_duration((facts.now_ms - picture::since(m)).max(0) / 1000 * 1000),
            zone: m.record.zone.clone(),
            http: m.record.http.to_string(),
            grpc: m.record.rpc.to_string(),
            version: m.record.version.clone(),
            roles: m.record.roles.names().join(" "),
        }
    }
}

impl Shown {
    fn of(facts: &Facts<'_>, events: Vec<Event>) -> Self {
        let mut rows: Vec<Row> = facts.view.members.values().map(|m| Row::of(facts, m)).collect();
        rows.sort_by(|a, b| (&a.zone, &a.name).cmp(&(&b.zone, &b.name)));
        Self {
            cluster: facts.view.cluster.clone(),
            me: facts.view.me.clone(),
            epoch: facts.view.seq,
            now: facts.now_ms,
            health: picture::health::health(facts),
            agreement: picture::health::agreement(facts.view),
            coverage: picture::coverage::coverage(facts, HOURS * HOUR_MS, COLUMNS),
            rows,
            events,
        }
    }

    /// What is behind the strip, in words.
    fn weak(&self) -> Vec<String> {
        let line = |w: &picture::coverage::Weak| {
            let what = if w.cover == picture::Cover::Missing { "may miss data" } else { "has one copy" };
            format!("{} … {} {what}: {}", rfc3339(w.from), rfc3339(w.until), w.cause)
        };
        let mut lines: Vec<String> = self.coverage.weak.iter().take(WEAK_SHOWN).map(line).collect();
        if let Some(more) = self.coverage.weak.len().checked_sub(WEAK_SHOWN + 1) {
            lines.push(format!("{} more on /api/v1/cluster/coverage", more + 1));
        }
        lines
    }

    /// Further issues, worst first; the first one is the sentence.
    fn further(&self) -> impl Iterator<Item = String> + '_ {
        self.health.issues.iter().skip(1).map(|i| format!("{}: {}: {}", i.level.word(), i.cause, i.advice))
    }
}

/// A line of the event list.
fn event_line(e: &Event) -> String {
    let why = if e.news.why.is_empty() { String::new() } else { format!(" ({})", e.news.why) };
    format!("{}  {}{why}", rfc3339(e.at_ms), e.news.what)
}

/// Plain text: head, strip, one line a node, events.
fn text(s: &Shown) -> String {
    let colour = s.health.level.colour();
    let mut out = format!(
        "{}  {} {}: {}\n{}  epoch {}  served by {}\n",
        s.cluster,
        mark(colour),
        s.health.level.word(),
        s.health.sentence,
        s.agreement.line,
        s.epoch,
        s.me
    );
    s.further().for_each(|line| out.push_str(&format!("  {line}\n")));
    let strip: String = s.coverage.columns.iter().map(|c| c.cover.glyph()).collect();
    out.push_str(&format!(
        "\ncoverage  -{HOURS}h {strip} now   (█ covered  ▄ one copy  ✖ missing  · nothing stored)\n"
    ));
    s.weak().iter().for_each(|line| out.push_str(&format!("  {line}\n")));
    out.push('\n');
    let width = |f: &dyn Fn(&Row) -> usize| s.rows.iter().map(f).max().unwrap_or(0);
    let (name, state, age) = (width(&|r| r.name.len()), width(&|r| r.state.len()), width(&|r| r.age.len()));
    let (zone, http, grpc) = (width(&|r| r.zone.len()), width(&|r| r.http.len()), width(&|r| r.grpc.len()));
    for r in &s.rows {
        let notes = if r.notes.is_empty() { String::new() } else { format!("  [{}]", r.notes.join(", ")) };
        out.push_str(&format!(
            "zone {:zone$}  {:name$}  {} {:state$}  {:age$}  http {:http$}  grpc {:grpc$}  {}  {}{notes}\n",
            r.zone,
            r.name,
            mark(r.state),
            r.state,
            r.age,
            r.http,
            r.grpc,
            r.version,
            r.roles
        ));
    }
    if !s.events.is_empty() {
        out.push_str("\nevents, newest first\n");
        s.events.iter().for_each(|e| out.push_str(&format!("  {}\n", event_line(e))));
    }
    // A name could carry control characters that a terminal would obey.
    out.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_cluster::ClusterView;
    use koios_cluster::events::{Kind, News};
    use koios_query::picture::Facts;

    fn shown() -> Shown {
        let view = ClusterView { cluster: "<script>\u{1b}[2J".into(), ..ClusterView::default() };
        let catalogue = Default::default();
        let facts = Facts { view: &view, catalogue: &catalogue, ejected: &|_| false, now_ms: 0 };
        let evil = |t: &str| format!("<img src=x onerror=\"{t}\">'&");
        let news = News { kind: Kind::Member, node: evil("n"), what: evil("w"), why: evil("y") };
        Shown::of(&facts, vec![Event { seq: 1, at_ms: 0, news }])
    }

    #[test]
    fn names_are_escaped() {
        let page = html::page(&shown());
        assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
        assert!(page.contains("&lt;img src=x onerror=&quot;w&quot;&gt;&#39;&amp;"), "{page}");
        assert!(page.contains("<script src=\"cluster/live.js\""));
        assert!(!html::part(&shown()).contains("<html"));
    }

    #[test]
    fn the_text_says_everything_and_obeys_nobody() {
        let text = text(&shown());
        assert!(text.contains("no node is ready") && text.contains("has not been read yet"), "{text}");
        assert!(text.contains("events, newest first") && !text.contains('\u{1b}'), "{text}");
    }
}
