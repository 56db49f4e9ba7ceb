//! The raw form: YAML as a tree of nodes that know where they stand in the file.
//!
//! Owns the walk from parser events (granit-parser, the event layer of serde-saphyr) to the tree: anchors,
//! aliases, `<<` merges, duplicate keys. Scalars stay as written, so `0x10`, `yes` and `1` reach a string
//! field unchanged; what a plain scalar means is decided by the field that reads it.
//!
//! Bounds: nesting by the parser (255), tree size after alias expansion by `NODES_MAX`.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span as RawSpan, Tag};

/// Nodes of one file after aliases are expanded.
const NODES_MAX: usize = 1_000_000;
/// Keys of one mapping; they are compared pairwise.
const KEYS_MAX: usize = 10_000;

/// A place in the file: 1-based line and column, length in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) len: u32,
}

/// One value.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
    /// Nodes in this subtree, itself included.
    weight: usize,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Scalar { text: String, plain: bool },
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

/// Why a text is not a tree.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) number: u16,
    pub(crate) span: Span,
    pub(crate) cause: String,
    pub(crate) fix: String,
    pub(crate) related: Option<(Span, String)>,
}

impl Node {
    /// A node that stands for a value that is not there.
    pub(crate) fn null(span: Span) -> Self {
        Self { span, kind: Kind::Null, weight: 1 }
    }

    /// What kind of thing this is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// Reads one document. An empty text is a null node.
pub(crate) fn parse(text: &str) -> Result<Node, Box<Fault>> {
    let mut builder = Builder::default();
    for step in Parser::new_from_str(text) {
        let (event, span) = step.map_err(|e| syntax(&e.info(), *e.marker(), text))?;
        builder.event(event, place(&span))?;
    }
    Ok(builder.root.unwrap_or_else(|| Node::null(Span { line: 1, column: 1, len: 1 })))
}

fn syntax(info: &str, mark: Marker, text: &str) -> Box<Fault> {
    let span = Span { line: mark.line() as u32, column: mark.col() as u32 + 1, len: 1 };
    let line = text.lines().nth(mark.line().saturating_sub(1)).unwrap_or("");
    let lead = line.chars().take_while(|c| c.is_whitespace()).collect::<String>();
    let fix = if info.contains("anchor") {
        "define the anchor before its first use: `key: &name value`"
    } else if lead.contains('\t') {
        "indent with spaces: YAML does not allow tabs there"
    } else if line.contains("{{") {
        "put the value in quotes: a plain value may not start with `{`"
    } else if info.contains("unclosed bracket") {
        "close the bracket: `[a, b]` and `{a: b}` end on the same or a later, more indented line"
    } else if line.trim_start().starts_with('%')
        || line.contains(": @")
        || line.contains(": `")
        || line.contains(": %")
    {
        "put the value in quotes: it starts with a character that YAML reserves"
    } else if line.matches(": ").count() > 1 {
        "put the value in quotes: a plain value may not contain `: `"
    } else if line.matches(['"', '\'']).count() % 2 == 1 {
        "close the quote"
    } else {
        "check the indentation of this line and the one before, and that brackets and quotes are closed"
    };
    Box::new(Fault {
        number: 1001,
        span,
        cause: format!("not valid YAML: {info}"),
        fix: fix.into(),
        related: None,
    })
}

fn place(span: &RawSpan) -> Span {
    let len = if span.end.line() == span.start.line() {
        span.end.col().saturating_sub(span.start.col())
    } else {
        1
    };
    Span { line: span.start.line() as u32, column: span.start.col() as u32 + 1, len: len.max(1) as u32 }
}

/// A collection that is still open.
struct Open {
    span: Span,
    anchor: usize,
    items: Items,
}

enum Items {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Span)>, merges: Vec<Node> },
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    total: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Fault>> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let cause = "a second YAML document starts here and would be ignored".to_owned();
                    let fix = "remove the `---` and merge the two documents".to_owned();
                    return Err(Box::new(Fault { number: 1004, span, cause, fix, related: None }));
                }
                Ok(())
            }
            Event::Alias(id) => {
                let Some(mut node) = self.anchors.get(&id).cloned() else {
                    let cause = "this alias refers to a value that contains it".to_owned();
                    let fix = "write the value out".to_owned();
                    return Err(Box::new(Fault { number: 1003, span, cause, fix, related: None }));
                };
                node.span = span;
                self.put(node, 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref(), span)?;
                let forced = tag.is_some_and(|t| t.suffix() == "str");
                let plain = style == ScalarStyle::Plain && !forced;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Scalar { text: text.into_owned(), plain } };
                self.put(Node { span, kind, weight: 1 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), span)?;
                self.stack.push(Open { span, anchor, items: Items::Seq(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), span)?;
                let items = Items::Map { entries: Vec::new(), key: None, merges: Vec::new() };
                self.stack.push(Open { span, anchor, items });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), Box<Fault>> {
        let Some(open) = self.stack.pop() else {
            unreachable!("BUG: the YAML parser closed a collection it did not open")
        };
        let mut span = open.span;
        let (kind, weight) = match open.items {
            Items::Seq(nodes) => {
                let weight = 1 + nodes.iter().map(|n| n.weight).sum::<usize>();
                (Kind::Seq(nodes), weight)
            }
            Items::Map { mut entries, merges, .. } => {
                for merge in merges {
                    merge_into(&mut entries, merge)?;
                }
                if let Some(first) = entries.first().filter(|e| e.key_span.line == span.line) {
                    span.len = first.key_span.len;
                }
                let weight = 1 + entries.iter().map(|e| e.value.weight).sum::<usize>();
                (Kind::Map(entries), weight)
            }
        };
        self.put(Node { span, kind, weight }, open.anchor)
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Box<Fault>> {
        self.total = self.total.saturating_add(node.weight);
        if self.total > NODES_MAX * 4 || node.weight > NODES_MAX {
            let cause = format!("more than {NODES_MAX} values after aliases are expanded");
            let fix = "split the file, or use fewer nested aliases".to_owned();
            return Err(Box::new(Fault { number: 1005, span: node.span, cause, fix, related: None }));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|o| &mut o.items) {
            None => self.root = Some(node),
            Some(Items::Seq(nodes)) => nodes.push(node),
            Some(Items::Map { entries, key, merges }) => match key.take() {
                None => *key = Some(key_of(node)?),
                Some((name, _)) if name == "<<" => merges.push(node),
                Some((name, key_span)) => add_entry(entries, name, key_span, node)?,
            },
        }
        Ok(())
    }
}

fn key_of(node: Node) -> Result<(String, Span), Box<Fault>> {
    match node.kind {
        Kind::Scalar { text, .. } => Ok((text, node.span)),
        Kind::Null => Ok((String::new(), node.span)),
        Kind::Seq(_) | Kind::Map(_) => {
            let cause = format!("a key must be a single value, this is {}", node.describe());
            let fix = "if this is a template placeholder, put it in quotes".to_owned();
            Err(Box::new(Fault { number: 1006, span: node.span, cause, fix, related: None }))
        }
    }
}

fn add_entry(entries: &mut Vec<Entry>, key: String, key_span: Span, value: Node) -> Result<(), Box<Fault>> {
    if let Some(first) = entries.iter().find(|e| e.key == key) {
        let related = Some((first.key_span, format!("`{key}` is first set here")));
        let cause = format!("`{key}` is set twice in the same mapping");
        let fix = "keep one of the two, or merge their contents".to_owned();
        return Err(Box::new(Fault { number: 1002, span: key_span, cause, fix, related }));
    }
    if entries.len() >= KEYS_MAX {
        let cause = format!("more than {KEYS_MAX} keys in one mapping");
        let fix = "split the mapping".to_owned();
        return Err(Box::new(Fault { number: 1005, span: key_span, cause, fix, related: None }));
    }
    entries.push(Entry { key, key_span, value });
    Ok(())
}

/// Keys of the mapping itself win over merged ones, earlier merges over later ones.
fn merge_into(entries: &mut Vec<Entry>, merge: Node) -> Result<(), Box<Fault>> {
    match merge.kind {
        Kind::Map(from) => {
            for entry in from {
                if !entries.iter().any(|e| e.key == entry.key) {
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Kind::Seq(maps) => maps.into_iter().try_for_each(|m| merge_into(entries, m)),
        Kind::Null => Ok(()),
        Kind::Scalar { .. } => {
            let cause = "`<<` needs a mapping, this is a single value".to_owned();
            let fix = "refer to an anchored mapping: `<<: *name`".to_owned();
            Err(Box::new(Fault { number: 1006, span: merge.span, cause, fix, related: None }))
        }
    }
}

fn check_tag(tag: Option<&Tag>, span: Span) -> Result<(), Box<Fault>> {
    let Some(tag) = tag else { return Ok(()) };
    let core = tag.handle() == "tag:yaml.org,2002:" || tag.handle() == "!!";
    if core && matches!(tag.suffix(), "str" | "int" | "float" | "bool" | "null" | "seq" | "map") {
        return Ok(());
    }
    let cause = format!("the YAML tag `{}{}` is not supported here", tag.handle(), tag.suffix());
    let fix = "remove the tag and write the plain value".to_owned();
    Err(Box::new(Fault { number: 1007, span, cause, fix, related: None }))
}
