//! Scripts as commands.

use koios_model::Labels;
use koios_model::duration::parse_duration;

use super::values::{Value, number, parse_metric, parse_series, parse_starts};

/// One command with the number of its first line.
pub(super) struct Command {
    pub line: usize,
    pub kind: Kind,
}

pub(super) enum Kind {
    Clear,
    Load {
        interval: i64,
        with_nhcb: bool,
        series: Vec<Loaded>,
    },
    Eval(Box<Eval>),
    /// A block that cannot be read.
    Broken(String),
}

pub(super) struct Loaded {
    pub labels: Labels,
    pub values: Vec<Value>,
    pub starts: Vec<Option<i64>>,
}

/// How an expected text is compared.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Any,
    Exact(String),
    Pattern(String),
}

/// Evaluation times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub start: i64,
    pub end: i64,
    /// 0 for an instant.
    pub step: i64,
}

/// An evaluation with everything expected of it.
#[derive(Default)]
pub(super) struct Eval {
    pub query: String,
    pub times: Option<Times>,
    pub ordered: bool,
    pub fail: Option<Text>,
    pub warn: Vec<Text>,
    pub info: Vec<Text>,
    pub no_warn: bool,
    pub no_info: bool,
    pub string: Option<String>,
    pub scalar: Option<f64>,
    /// Times of an expected range vector.
    pub matrix: Option<Times>,
    pub series: Vec<(Labels, Vec<Value>)>,
}

impl Eval {
    pub fn is_instant(&self) -> bool {
        self.times.is_some_and(|t| t.step == 0)
    }
}

/// All commands of a script.
pub(super) fn parse_script(text: &str) -> Vec<Command> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let start = i;
        i += 1;
        if lines[start].is_empty() {
            continue;
        }
        let word = lines[start].split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        let block = |from: usize| lines[from..].iter().take_while(|l| !l.is_empty()).count();
        let kind = match word.as_str() {
            "clear" => Kind::Clear,
            "load" | "load_with_nhcb" => {
                let n = block(i);
                let kind = load(lines[start], &lines[i..i + n]);
                i += n;
                kind.unwrap_or_else(Kind::Broken)
            }
            w if w.starts_with("eval") => {
                let n = block(i);
                let kind = eval(lines[start], &lines[i..i + n]);
                i += n;
                kind.map_or_else(Kind::Broken, |e| Kind::Eval(Box::new(e)))
            }
            _ => Kind::Broken(format!("invalid command {:?}", lines[start])),
        };
        out.push(Command { line: start + 1, kind });
    }
    out
}

type Parsed<T> = Result<T, String>;

fn duration(text: &str) -> Parsed<i64> {
    let (sign, body) = match text.strip_prefix('-') {
        Some(b) => (-1, b),
        None => (1, text),
    };
    if let Some(seconds) = number(body) {
        return Ok(sign * (seconds * 1000.0).round() as i64);
    }
    parse_duration(body).map(|ms| sign * ms).map_err(|e| e.to_string())
}

fn load(head: &str, lines: &[&str]) -> Parsed<Kind> {
    let mut words = head.split_whitespace();
    let with_nhcb = words.next().is_some_and(|w| w.eq_ignore_ascii_case("load_with_nhcb"));
    let interval = duration(words.next().ok_or("load needs an interval")?)?;
    let mut series = Vec::new();
    let mut starts: Option<(Labels, Vec<Option<i64>>)> = None;
    for line in lines {
        let (labels, rest) = parse_metric(line)?;
        if let Some(items) = rest.trim_start().strip_prefix("@st") {
            starts = Some((labels, parse_starts(items)?));
            continue;
        }
        let (labels, values) = parse_series(line)?;
        let starts = match starts.take() {
            Some((l, s)) if l == labels => s,
            Some((l, _)) => return Err(format!("start timestamps of {l} without values")),
            None => Vec::new(),
        };
        series.push(Loaded { labels, values, starts });
    }
    Ok(Kind::Load { interval, with_nhcb, series })
}

fn eval(head: &str, lines: &[&str]) -> Parsed<Eval> {
    let (verb, rest) = head.split_once(char::is_whitespace).ok_or("eval needs a kind")?;
    let mut e = Eval::default();
    match verb.to_ascii_lowercase().as_str() {
        "eval" => {}
        "eval_fail" => e.fail = Some(Text::Any),
        "eval_warn" => e.warn.push(Text::Any),
        "eval_info" => e.info.push(Text::Any),
        "eval_ordered" => e.ordered = true,
        other => return Err(format!("unknown command {other:?}")),
    }
    let rest = rest.trim_start();
    let (times, query) = if let Some(rest) = rest.strip_prefix("instant") {
        let rest = rest.trim_start().strip_prefix("at").ok_or("eval instant needs at")?.trim_start();
        let (at, query) = rest.split_once(char::is_whitespace).ok_or("eval needs a query")?;
        let t = duration(at)?;
        (Times { start: t, end: t, step: 0 }, query)
    } else if let Some(rest) = rest.strip_prefix("range") {
        range_times(rest)?
    } else {
        return Err(format!("invalid eval {head:?}"));
    };
    e.times = Some(times);
    e.query = query.trim().to_owned();
    for line in lines {
        expectation(&mut e, line)?;
    }
    Ok(e)
}

/// `from A to B step S …`
fn range_times(text: &str) -> Parsed<(Times, &str)> {
    let mut rest = text;
    let mut values = [0i64; 3];
    for (keyword, value) in ["from", "to", "step"].into_iter().zip(&mut values) {
        let after = rest.trim_start().strip_prefix(keyword).ok_or_else(|| format!("expected {keyword}"))?;
        let after = after.trim_start();
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        *value = duration(&after[..end])?;
        rest = &after[end..];
    }
    let [start, end, step] = values;
    Ok((Times { start, end, step }, rest))
}

fn expectation(e: &mut Eval, line: &str) -> Parsed<()> {
    if let Some(text) = line.strip_prefix("expected_fail_message ") {
        e.fail = Some(Text::Exact(text.trim().to_owned()));
        return Ok(());
    }
    if let Some(text) = line.strip_prefix("expected_fail_regexp ") {
        e.fail = Some(Text::Pattern(text.trim().to_owned()));
        return Ok(());
    }
    if let Some(rest) = line.strip_prefix("expect range vector") {
        e.matrix = Some(range_times(rest)?.0);
        return Ok(());
    }
    if let Some(text) = line.strip_prefix("expect string ") {
        e.string = Some(crate::syntax::unquote(text.trim())?);
        return Ok(());
    }
    if let Some(rest) = line.strip_prefix("expect ") {
        let (what, text) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
        return annotation(e, what, text.trim());
    }
    if e.series.is_empty()
        && let Some(v) = number(line)
    {
        e.scalar = Some(v);
        return Ok(());
    }
    let (labels, values) = parse_series(line)?;
    if values.len() > 1 && e.is_instant() && e.matrix.is_none() {
        return Err("expecting multiple values in instant evaluation not allowed".to_owned());
    }
    e.series.push((labels, values));
    Ok(())
}

fn annotation(e: &mut Eval, what: &str, text: &str) -> Parsed<()> {
    let text = if let Some(t) = text.strip_prefix("msg:") {
        Text::Exact(t.trim().to_owned())
    } else if let Some(t) = text.strip_prefix("regex:") {
        Text::Pattern(t.trim().to_owned())
    } else if text.is_empty() {
        Text::Any
    } else {
        return Err(format!("invalid expectation text {text:?}"));
    };
    match what {
        "ordered" => e.ordered = true,
        "fail" => e.fail = Some(text),
        "warn" => e.warn.push(text),
        "info" => e.info.push(text),
        "no_warn" => e.no_warn = true,
        "no_info" => e.no_info = true,
        other => return Err(format!("unknown expectation {other:?}")),
    }
    Ok(())
}
