//! Log lines: logfmt or JSON on standard error, with the keys `ts level msg component node` first and in that
//! order, as Prometheus 3 has them, then the fields of the event, then those of the spans around it.
//!
//! Invariant: one event is one line, whatever its fields hold.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use koios_model::timestamp::rfc3339;
use koios_model::{Clock, Code, Coded, SystemClock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Crates whose chatter is shown from warnings up only.
const QUIET: &[&str] =
    &["hyper", "hyper_util", "h2", "reqwest", "rustls", "tower", "tonic", "chitchat", "actix", "mio"];
/// Bytes of one field value in a line.
const VALUE_MAX: usize = 16 << 10;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(s: &str) -> Result<Self, LogError> {
        match s {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format(s.to_owned())),
        }
    }
}

/// Why logging cannot be set up or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// Not a format.
    Format(String),
    /// Not a level.
    Level(String),
    /// The process logs already.
    Twice,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Format(s) => write!(f, "unknown log format {s:?}; use logfmt or json"),
            LogError::Level(s) => write!(f, "unknown log level {s:?}; use debug, info, warn or error"),
            LogError::Twice => f.write_str("logging is set up already"),
        }
    }
}

impl std::error::Error for LogError {}

impl Coded for LogError {
    fn code(&self) -> Code {
        Code::BadData
    }
}

/// Changes the level of a running process.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Sets the level.
    ///
    /// # Errors
    /// Not a level.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.0.reload(filter(level)?).map_err(|_| LogError::Level(level.to_owned()))
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let parsed = Level::from_str(level).map_err(|_| LogError::Level(level.to_owned()))?;
    let mut text = parsed.to_string().to_lowercase();
    for name in QUIET {
        let _ = write!(text, ",{name}={}", if parsed == Level::ERROR { "error" } else { "warn" });
    }
    EnvFilter::try_new(text).map_err(|_| LogError::Level(level.to_owned()))
}

/// Starts logging to standard error. `node` names this node on every line.
///
/// # Errors
/// An unknown level, or logging was started before.
pub fn init_logging(format: LogFormat, level: &str, node: &str) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let write = |line: &str| {
        // A closed standard error is no reason to fail.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    };
    let lines = Lines { format, node: node.to_owned(), clock: SystemClock::shared(), write: Box::new(write) };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)?;
    Ok(LogHandle(handle))
}

type WriteLine = Box<dyn Fn(&str) + Send + Sync>;

struct Lines {
    format: LogFormat,
    node: String,
    clock: Arc<dyn Clock>,
    write: WriteLine,
}

/// Fields of a span, kept until its events need them.
#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field.name(), value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

impl Fields {
    fn put(&mut self, name: &'static str, mut value: String) {
        if value.len() > VALUE_MAX {
            let mut end = VALUE_MAX;
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            value.truncate(end);
            value.push('…');
        }
        match name {
            "message" => self.message = value,
            _ => self.pairs.push((name, value)),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Line { format: self.format, text: String::with_capacity(256) };
        let metadata = event.metadata();
        line.pair("ts", &rfc3339(self.clock.now_ms()));
        line.pair("level", &metadata.level().to_string().to_lowercase());
        line.pair("msg", &fields.message);
        let named = fields.pairs.iter().find(|(n, _)| *n == "component");
        line.pair("component", named.map_or_else(|| component(metadata.target()), |(_, v)| v));
        line.pair("node", &self.node);
        for (name, value) in fields.pairs.iter().filter(|(n, _)| *n != "component") {
            line.pair(name, value);
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                for (name, value) in &fields.pairs {
                    line.pair(name, value);
                }
            }
        }
        (self.write)(&line.finish());
    }
}

/// `koios_scrape::fetch` is the component `scrape`.
fn component(target: &str) -> &str {
    let first = target.split("::").next().unwrap_or(target);
    first.strip_prefix("koios_").unwrap_or(first)
}

struct Line {
    format: LogFormat,
    text: String,
}

impl Line {
    fn pair(&mut self, key: &str, value: &str) {
        let lead = match (self.text.is_empty(), self.format) {
            (true, LogFormat::Logfmt) => "",
            (true, LogFormat::Json) => "{",
            (false, LogFormat::Logfmt) => " ",
            (false, LogFormat::Json) => ",",
        };
        self.text.push_str(lead);
        if self.format == LogFormat::Json {
            quote(&mut self.text, key);
            self.text.push(':');
            quote(&mut self.text, value);
            return;
        }
        self.text.push_str(key);
        self.text.push('=');
        let plain = !value.is_empty()
            && value.bytes().all(|b| b > b' ' && b < 0x7f && !matches!(b, b'"' | b'=' | b'\\'));
        if plain { self.text.push_str(value) } else { quote(&mut self.text, value) }
    }

    fn finish(mut self) -> String {
        if self.format == LogFormat::Json {
            self.text.push('}');
        }
        self.text.push('\n');
        self.text
    }
}

/// A JSON string; logfmt readers take the same escapes.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || (0x7f..0xa0).contains(&(c as u32)) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::ManualClock;
    use parking_lot::Mutex;

    fn logged(format: LogFormat, level: &str, run: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(String::new()));
        let sink = lines.clone();
        let write = Box::new(move |line: &str| sink.lock().push_str(line));
        let clock = ManualClock::at(1_435_781_451_781);
        let layer = Lines { format, node: "n1".to_owned(), clock, write };
        let subscriber = tracing_subscriber::registry().with(filter(level).unwrap()).with(layer);
        tracing::subscriber::with_default(subscriber, run);
        Arc::try_unwrap(lines).map(Mutex::into_inner).unwrap_or_else(|l| l.lock().clone())
    }

    fn events() {
        let span = tracing::info_span!("job", job = "node", late = tracing::field::Empty);
        let _inside = span.enter();
        span.record("late", 7);
        tracing::info!(target: "koios_scrape::fetch", count = 3, reason = "a \"b\"\nc", "target \"x\" is down");
        tracing::debug!("not shown");
        tracing::warn!(component = "custom", "plain");
        tracing::info!(target: "hyper::client", "chatter");
    }

    #[test]
    fn logfmt_lines() {
        let want = "ts=2015-07-01T20:10:51.781Z level=info msg=\"target \\\"x\\\" is down\" component=scrape node=n1 count=3 \
                    reason=\"a \\\"b\\\"\\nc\" job=node late=7\n\
                    ts=2015-07-01T20:10:51.781Z level=warn msg=plain component=custom node=n1 job=node late=7\n";
        assert_eq!(logged(LogFormat::Logfmt, "info", events), want);
    }

    #[test]
    fn json_lines() {
        let all = logged(LogFormat::Json, "info", events);
        let want = "{\"ts\":\"2015-07-01T20:10:51.781Z\",\"level\":\"info\",\"msg\":\"target \\\"x\\\" is down\",\"component\":\"scrape\",\
                    \"node\":\"n1\",\"count\":\"3\",\"reason\":\"a \\\"b\\\"\\nc\",\"job\":\"node\",\"late\":\"7\"}";
        assert_eq!(all.lines().next().unwrap(), want);
        assert_eq!(all.lines().count(), 2);
    }

    #[test]
    fn levels_and_formats() {
        assert_eq!(logged(LogFormat::Logfmt, "error", events), "");
        assert_eq!(logged(LogFormat::Logfmt, "debug", events).lines().count(), 3);
        assert!(filter("loud").is_err());
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().is_err());
        let long = "x".repeat(1 << 20);
        assert!(logged(LogFormat::Logfmt, "info", || tracing::info!("{long}")).len() < VALUE_MAX + 200);
    }
}
