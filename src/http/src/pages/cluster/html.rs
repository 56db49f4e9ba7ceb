//! The page itself. Text and marks say everything that colours say.

use koios_model::timestamp::rfc3339;
use koios_query::picture::Cover;

use super::{Row, Shown, event_line, mark};
use crate::api::cluster::HOURS;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1b1f24;background:#fff}\
h2{font-size:1rem;margin:1.5rem 0 .3rem}table{border-collapse:collapse}\
th,td{text-align:left;padding:.3rem .9rem;border-bottom:1px solid #d8dee4}\
.green{color:#116329}.amber{color:#7d4e00}.red{color:#a40e26}code{font-size:13px}footer{margin-top:2rem;color:#57606a}\
.lead{font-size:1.15rem}.strip{display:flex;height:1.6rem;max-width:72rem;border:1px solid #d8dee4}.strip i{flex:1}\
.covered{background:#2da44e}.single{background:repeating-linear-gradient(45deg,#d4a72c 0 3px,#fff8c5 3px 6px)}\
.missing{background:#cf222e}.none{background:transparent}.axis{display:flex;justify-content:space-between;max-width:72rem}\
ul{margin:.3rem 0;padding-left:1.2rem}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td,.strip{border-color:#30363d}\
.green{color:#56d364}.amber{color:#e3b341}.red{color:#ff7b72}footer{color:#8b949e}}";

/// The whole page.
pub fn page(s: &Shown) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>{cluster} · Koios</title>\
         <meta name=viewport content=\"width=device-width\">\
         <noscript><meta http-equiv=refresh content=5></noscript><style>{STYLE}</style></head><body><h1>{cluster}</h1>\
         <main id=live>{part}</main>\
         <footer><span id=stamp></span><br>API behind this page: <code>/api/v1/cluster</code>, and below it \
         <code>nodes</code>, <code>ownership</code>, <code>coverage</code>, <code>events</code>, \
         <code>events/stream</code>, <code>explain</code></footer>\
         <script src=\"cluster/live.js\" defer></script></body></html>",
        cluster = escape(&s.cluster),
        part = part(s),
    )
}

/// What changes.
pub fn part(s: &Shown) -> String {
    let colour = s.health.level.colour();
    let issues: String = s.further().map(|line| format!("<li>{}</li>", escape(&line))).collect();
    let rows: String = s.rows.iter().map(row).collect();
    let events: String = s.events.iter().map(|e| format!("<li>{}</li>", escape(&event_line(e)))).collect();
    format!(
        "<p class=\"lead {colour}\" role=status>{mark} {level}: {sentence}</p><ul>{issues}</ul>\
         <p>{agree} · epoch {epoch} · served by {me} · {now}</p>{strip}\
         <h2>Nodes</h2><table><thead><tr><th>zone<th>node<th>state<th>for<th>http<th>grpc<th>version<th>roles</thead>\
         <tbody>{rows}</tbody></table><h2>Events</h2><ul>{events}</ul>",
        mark = mark(colour),
        level = s.health.level.word(),
        sentence = escape(&s.health.sentence),
        agree = escape(&s.agreement.line),
        epoch = s.epoch,
        me = escape(&s.me),
        now = rfc3339(s.now),
        strip = strip(s),
    )
}

fn strip(s: &Shown) -> String {
    let columns = &s.coverage.columns;
    let cells: String = columns
        .iter()
        .map(|c| format!("<i class={} title=\"{} {}\"></i>", c.cover.word(), rfc3339(c.from), c.cover.word()))
        .collect();
    let count = |cover| columns.iter().filter(|c| c.cover == cover).count();
    let weak: String = s.weak().iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
    format!(
        "<h2>Coverage</h2><div class=strip role=img aria-label=\"{missing} of {all} columns may miss data, {single} have \
         one copy\">{cells}</div><div class=axis><span>{HOURS} h ago</span><span>now</span></div><ul>{weak}</ul>",
        missing = count(Cover::Missing),
        single = count(Cover::One),
        all = columns.len(),
    )
}

fn row(r: &Row) -> String {
    let class = match r.state {
        "ready" => "green",
        "dead" => "red",
        _ => "amber",
    };
    let notes = if r.notes.is_empty() { String::new() } else { format!(" ({})", r.notes.join(", ")) };
    format!(
        "<tr><td>{}</td><td>{}</td><td class={class}>{} {}{notes}</td><td>{}</td><td><code>{}</code></td>\
         <td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
        escape(&r.zone),
        escape(&r.name),
        mark(r.state),
        r.state,
        r.age,
        escape(&r.http),
        escape(&r.grpc),
        escape(&r.version),
        r.roles
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
