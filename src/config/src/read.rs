//! Typed reading of the raw tree, one mapping at a time, collecting mistakes instead of stopping.
//!
//! Owns `Ctx` (the file, its errors and its secrets) and `Section` (one mapping being read). A getter
//! returns `None` when the field is missing, null or wrong; in the last case it has already reported why.
//! Invariant: `finish` reports every field that no getter asked for.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use koios_model::duration::{BadDuration, parse_duration};
use koios_model::size::{BadSize, parse_size};

use crate::error::{ConfigError, ERRORS_MAX, Place, Related};
use crate::secret::Secret;
use crate::suggest;
use crate::yaml::{Entry, Fault, Kind, Node, Span};

/// One file while it is being read.
pub(crate) struct Ctx<'a> {
    pub(crate) file: Arc<str>,
    pub(crate) dir: PathBuf,
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    lines: Vec<&'a str>,
    errors: RefCell<Vec<ConfigError>>,
    secrets: RefCell<Vec<Span>>,
    /// URLs with passwords: shown masked, starred out in error frames.
    urls: RefCell<Vec<Span>>,
}

impl<'a> Ctx<'a> {
    /// Starts reading `text`, which came from `file`; relative paths resolve against the file's directory.
    pub(crate) fn new(file: &str, text: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let dir = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
        let lines = text.lines().collect();
        let (errors, secrets, urls) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { file: file.into(), dir, env, lines, errors, secrets, urls }
    }

    /// Reports a mistake.
    pub(crate) fn error(&self, number: u16, span: Span, cause: impl Into<String>, fix: impl Into<String>) {
        self.push(number, span, cause.into(), fix.into(), None);
    }

    /// Reports a mistake that another place explains.
    pub(crate) fn error_related(
        &self,
        number: u16,
        span: Span,
        (cause, fix): (String, String),
        (other, note): (Span, String),
    ) {
        self.push(number, span, cause, fix, Some(Related { place: self.place(other), note }));
    }

    /// Reports what the YAML layer found.
    pub(crate) fn fault(&self, fault: Fault) {
        let related = fault.related.map(|(span, note)| Related { place: self.place(span), note });
        self.push(fault.number, fault.span, fault.cause, fault.fix, related);
    }

    fn push(&self, number: u16, span: Span, cause: String, fix: String, related: Option<Related>) {
        let mut errors = self.errors.borrow_mut();
        let error = ConfigError { number, place: self.place(span), cause, fix, related };
        // An alias makes the same mistake visible at each use; once is enough.
        if errors.len() < ERRORS_MAX && !errors.contains(&error) {
            errors.push(error);
        }
    }

    fn place(&self, span: Span) -> Place {
        let text = self.lines.get((span.line as usize).wrapping_sub(1)).copied().unwrap_or("");
        let Span { line, column, len } = span;
        Place { file: self.file.clone(), line, column, len, text: text.to_owned() }
    }

    /// All mistakes in file order, and the places of secrets. Lines shown with a mistake have their secrets
    /// starred out, at the same width so that carets stay in place.
    pub(crate) fn finish(self) -> (Vec<ConfigError>, Vec<Span>) {
        let mut errors = self.errors.into_inner();
        let secrets = self.secrets.into_inner();
        errors.sort_by_key(|e| (e.place.line, e.place.column));
        let hidden = [secrets.as_slice(), &self.urls.into_inner()].concat();
        for error in &mut errors {
            star_out(&mut error.place, &hidden);
            if let Some(related) = &mut error.related {
                star_out(&mut related.place, &hidden);
            }
        }
        (errors, secrets)
    }

    /// Remembers a URL that holds a password.
    pub(crate) fn keep_url(&self, span: Span) {
        self.urls.borrow_mut().push(span);
    }

    /// Remembers that a value must not be shown.
    pub(crate) fn keep_secret(&self, span: Span) {
        self.secrets.borrow_mut().push(span);
    }

    /// A path as the file means it: relative ones start at the file's directory.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        if path.is_empty() { PathBuf::new() } else { self.dir.join(path) }
    }
}

fn star_out(place: &mut Place, secrets: &[Span]) {
    for secret in secrets.iter().filter(|s| s.line == place.line && place.line > 0) {
        let from = secret.column as usize - 1;
        let stars = from..from + secret.len as usize;
        place.text =
            place.text.chars().enumerate().map(|(i, c)| if stars.contains(&i) { '*' } else { c }).collect();
    }
}

/// A text with its place.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// One mapping being read.
pub(crate) struct Section<'a> {
    pub(crate) ctx: &'a Ctx<'a>,
    pub(crate) span: Span,
    /// How messages call it, e.g. `scrape_configs[0]`.
    pub(crate) name: String,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Opens a mapping; null is an empty one, anything else is reported and read as empty.
    pub(crate) fn open(ctx: &'a Ctx<'a>, node: &'a Node, name: impl Into<String>) -> Self {
        let name = name.into();
        let entries: &[Entry] = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => &[],
            _ => {
                let what = if name.is_empty() { "the file".to_owned() } else { format!("`{name}`") };
                let cause = format!("{what} must be a mapping, this is {}", node.describe());
                ctx.error(1102, node.span, cause, "write `key: value` lines, indented below the name");
                &[]
            }
        };
        Self { ctx, span: node.span, name, entries, asked: Vec::new() }
    }

    /// The entry of a field that is present and not null.
    pub(crate) fn field(&mut self, name: &'static str) -> Option<&'a Entry> {
        self.asked.push(name);
        self.entries.iter().find(|e| e.key == name && !matches!(e.value.kind, Kind::Null))
    }

    /// Whether a field is present, null included.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|e| e.key == name)
    }

    /// Every key with its place, for mappings whose keys are free.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a str, Span)> + use<'a> {
        self.entries.iter().map(|e| (e.key.as_str(), e.key_span))
    }

    /// Marks a field as known without reading it.
    pub(crate) fn allow(&mut self, name: &'static str) {
        self.asked.push(name);
    }

    /// Where the key stands; the section itself when the field is missing.
    pub(crate) fn key_span(&self, name: &str) -> Span {
        self.entries.iter().find(|e| e.key == name).map_or(self.span, |e| e.key_span)
    }

    /// Where the value stands; the section itself when the field is missing.
    pub(crate) fn value_span(&self, name: &str) -> Span {
        self.entries.iter().find(|e| e.key == name).map_or(self.span, |e| e.value.span)
    }

    /// A single value as written.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<Text> {
        let entry = self.field(name)?;
        scalar(self.ctx, &entry.value, &format!("`{name}`"))
    }

    /// A single value as written, without its place.
    pub(crate) fn string(&mut self, name: &'static str) -> Option<String> {
        self.text(name).map(|t| t.text)
    }

    /// A value that must not be shown; its place is remembered for redaction.
    pub(crate) fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let entry = self.field(name)?;
        let text = scalar(self.ctx, &entry.value, &format!("`{name}`"))?;
        self.ctx.keep_secret(text.span);
        Some(Secret::new(text.text))
    }

    /// A path, resolved against the file.
    pub(crate) fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.string(name).filter(|p| !p.is_empty()).map(|p| self.ctx.resolve(&p))
    }

    /// Reads a text with `parse`, whose error is (cause, fix).
    pub(crate) fn parsed<T>(
        &mut self,
        name: &'static str,
        number: u16,
        parse: impl FnOnce(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text.text) {
            Ok(value) => Some(value),
            Err((cause, fix)) => {
                self.ctx.error(number, text.span, format!("`{name}`: {cause}"), fix);
                None
            }
        }
    }

    /// `true`/`false` and the other spellings of YAML 1.1 that Prometheus takes.
    pub(crate) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.parsed(name, 1203, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err((format!("{text:?} is neither true nor false"), "write `true` or `false`".into())),
        })
    }

    /// A whole number, not negative.
    pub(crate) fn integer(&mut self, name: &'static str) -> Option<u64> {
        self.parsed(name, 1202, |text| {
            let fix = || "write a whole number, 0 or larger, without unit".to_owned();
            text.replace('_', "").parse().map_err(|_| (format!("{text:?} is not a whole number"), fix()))
        })
    }

    /// A whole number within a range.
    pub(crate) fn integer_in(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.integer(name)?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (range.start(), range.end());
        let cause = format!("`{name}`: {value} is out of range");
        self.ctx.error(1202, self.value_span(name), cause, format!("write a number from {low} to {high}"));
        None
    }

    /// A number.
    pub(crate) fn float(&mut self, name: &'static str) -> Option<f64> {
        self.parsed(name, 1202, |text| {
            text.parse()
                .map_err(|_| (format!("{text:?} is not a number"), "write a number, e.g. `0.5`".into()))
        })
    }

    /// A duration in milliseconds.
    pub(crate) fn duration(&mut self, name: &'static str) -> Option<i64> {
        self.parsed(name, 1201, read_duration)
    }

    /// A size in bytes.
    pub(crate) fn size(&mut self, name: &'static str) -> Option<u64> {
        self.parsed(name, 1205, |text| {
            parse_size(text).map_err(|e| {
                let fix = match e {
                    BadSize::NoUnit(_) => {
                        format!("add a unit: `{text}B`, `{text}KB`, `{text}MB` or `{text}GB`")
                    }
                    _ => "write a number and a unit, e.g. `512KB`, `10MB`, `4GiB`".to_owned(),
                };
                (e.to_string(), fix)
            })
        })
    }

    /// One of a closed set of words.
    pub(crate) fn one_of<T: Copy>(&mut self, name: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(name)?;
        one_of(self.ctx, name, &text, choices)
    }

    /// A list of single values. A lone value where a list belongs is an error, as in Prometheus.
    pub(crate) fn texts(&mut self, name: &'static str) -> Vec<Text> {
        let ctx = self.ctx;
        let items = self.list(name, "write a list: `[a, b]` or one `- value` per line");
        items.iter().filter_map(|n| scalar(ctx, n, &format!("an entry of `{name}`"))).collect()
    }

    /// Pairs of free keys and single values.
    pub(crate) fn pairs(&mut self, name: &'static str) -> Vec<(Text, Text)> {
        let Some(entry) = self.field(name) else { return Vec::new() };
        let map = Section::open(self.ctx, &entry.value, name);
        let read = |e: &Entry| {
            let value = scalar(self.ctx, &e.value, &format!("`{}` in `{name}`", e.key))?;
            Some((Text { text: e.key.clone(), span: e.key_span }, value))
        };
        map.entries.iter().filter_map(read).collect()
    }

    /// A nested mapping, when present and not null.
    pub(crate) fn section(&mut self, name: &'static str) -> Option<Section<'a>> {
        let entry = self.field(name)?;
        let mut section = Section::open(self.ctx, &entry.value, name);
        section.span = entry.key_span;
        Some(section)
    }

    /// A list of mappings; an empty entry is reported.
    pub(crate) fn sections(&mut self, name: &'static str) -> Vec<Section<'a>> {
        let ctx = self.ctx;
        let prefix = if self.name.is_empty() { String::new() } else { format!("{}.", self.name) };
        let items = self.list(name, "start each entry with `- `");
        let mut out = Vec::new();
        for (i, node) in items.iter().enumerate() {
            if matches!(node.kind, Kind::Null) {
                ctx.error(
                    1104,
                    node.span,
                    format!("entry {} of `{name}` is empty", i + 1),
                    "remove the empty `-`, or indent its fields below it",
                );
                continue;
            }
            out.push(Section::open(ctx, node, format!("{prefix}{name}[{i}]")));
        }
        out
    }

    fn list(&mut self, name: &'static str, fix: &str) -> &'a [Node] {
        match self.field(name).map(|e| &e.value) {
            None => &[],
            Some(Node { kind: Kind::Seq(nodes), .. }) => nodes,
            Some(other) => {
                self.ctx.error(
                    1102,
                    other.span,
                    format!("`{name}` must be a list, this is {}", other.describe()),
                    fix,
                );
                &[]
            }
        }
    }

    /// The raw value of a free key.
    pub(crate) fn raw(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// Reports two fields that exclude each other when both are set.
    pub(crate) fn exclusive(&self, a: &str, b: &str) {
        let place = |n: &str| self.entries.iter().find(|e| e.key == n && !matches!(e.value.kind, Kind::Null));
        if let (Some(first), Some(second)) = (place(a), place(b)) {
            let cause = format!("`{a}` and `{b}` exclude each other");
            let note = format!("`{a}` is set here");
            self.ctx.error_related(
                1303,
                second.key_span,
                (cause, "keep one of the two".into()),
                (first.key_span, note),
            );
        }
    }

    /// Reports a missing field.
    pub(crate) fn missing(&self, name: &str, fix: impl Into<String>) {
        let place = if self.has(name) { self.key_span(name) } else { self.span };
        let state = if self.has(name) { "is empty" } else { "is missing" };
        self.ctx.error(1103, place, format!("`{name}` {state} in `{}`", self.name), fix);
    }

    /// Ends reading: every field nobody asked for is unknown.
    pub(crate) fn finish(self) {
        for entry in self.entries.iter().filter(|e| !self.asked.contains(&e.key.as_str())) {
            let at =
                if self.name.is_empty() { "at the top level".into() } else { format!("in `{}`", self.name) };
            let fix = match (
                suggest::nearest(&entry.key, self.asked.iter().copied()),
                suggest::home_of(&entry.key),
            ) {
                (_, Some(home)) => format!("move it to {home}"),
                (Some(near), None) => format!("did you mean `{near}`?"),
                (None, None) => format!("remove it; known here: {}", listed(&self.asked)),
            };
            self.ctx.error(1101, entry.key_span, format!("unknown field `{}` {at}", entry.key), fix);
        }
    }
}

/// A single value with its place; anything else is reported.
pub(crate) fn scalar(ctx: &Ctx<'_>, node: &Node, what: &str) -> Option<Text> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(Text { text: text.clone(), span: node.span }),
        Kind::Null => Some(Text { text: String::new(), span: node.span }),
        Kind::Seq(_) | Kind::Map(_) => {
            let cause = format!("{what} must be a single value, this is {}", node.describe());
            ctx.error(
                1102,
                node.span,
                cause,
                "write one value; put it in quotes if it contains `{`, `[` or `: `",
            );
            None
        }
    }
}

/// Finds a word in a closed set, reporting it otherwise.
pub(crate) fn one_of<T: Copy>(
    ctx: &Ctx<'_>,
    name: &str,
    text: &Text,
    choices: &[(&'static str, T)],
) -> Option<T> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.text) {
        return Some(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(w, _)| *w).collect();
    let near = words.iter().copied().find(|w| w.eq_ignore_ascii_case(&text.text));
    let fix = match near.or_else(|| suggest::nearest(&text.text, words.iter().copied())) {
        Some(near) => format!("did you mean `{near}`? Known: {}", listed(&words)),
        None => format!("use one of {}", listed(&words)),
    };
    ctx.error(1204, text.span, format!("`{name}`: {:?} is not known", text.text), fix);
    None
}

/// Reads a duration; the error is (cause, fix).
pub(crate) fn read_duration(text: &str) -> Result<i64, (String, String)> {
    parse_duration(text).map_err(|e| {
        let number = text.trim().parse::<f64>().is_ok();
        let fix = match e {
            BadDuration::Invalid(_) if number => {
                format!("add a unit: `{0}s`, `{0}m`, `{0}h` or `{0}ms`", text.trim())
            }
            BadDuration::OutOfRange => "write at most `292y`".to_owned(),
            _ => {
                "write numbers with units, largest first and without spaces, e.g. `15s`, `1m30s`, `2h`, `15d`"
                    .to_owned()
            }
        };
        (e.to_string(), fix)
    })
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    quoted.join(", ")
}

/// A list of secrets.
pub(crate) fn secret_list(ctx: &Ctx<'_>, node: &Node) -> Vec<Secret> {
    let nodes = match &node.kind {
        Kind::Seq(nodes) => nodes.as_slice(),
        Kind::Null => &[],
        _ => {
            ctx.error(
                1102,
                node.span,
                format!("a list is needed here, this is {}", node.describe()),
                "write `[a, b]`",
            );
            &[]
        }
    };
    let mut out = Vec::new();
    for text in nodes.iter().filter_map(|n| scalar(ctx, n, "an entry")) {
        ctx.keep_secret(text.span);
        out.push(Secret::new(text.text));
    }
    out
}
